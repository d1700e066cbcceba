//! Drives a [`Session`] with arbitrary bytes, for fuzz targets and property tests.
//!
//! What is checked while it runs: no panic, memory within bounds, replies that are whole lines of the grammar, every request
//! answered once, and that all content memory comes back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::BytesMut;
use postrider_api::address::Address;
use postrider_api::env::{Clock, Entropy};
use postrider_api::id::{EntryId, ShardId, UserId, ZoneId};

use super::command::Path;
use super::envelope::Recipient;
use super::limit::{PATH_COMMAND_BYTES_MAX, REPLIES_BYTES_MAX};
use super::reply::{QueueId, QueuePlace, Reply};
use super::session::{Replies, Session, Settings, Step};
use crate::budget::Budget;

const MESSAGE_BYTES_MAX: u64 = 4096;
const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Replies of one step beyond the limit: those of a full batch of pipelined commands, and EHLO's.
const REPLY_SLACK_BYTES: usize = 4096;

/// What came of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Everything that the server said.
    pub said: Vec<u8>,
    /// Messages that were accepted, without trace fields.
    pub accepted: Vec<Vec<u8>>,
    /// Whether the session ended.
    pub closed: bool,
}

struct Still;

impl Clock for Still {
    fn wall_ms(&self) -> i64 {
        1_790_000_000_000
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

impl Entropy for Still {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

/// Feeds `reads` one after the other. Addresses whose local part begins with `a` exist.
///
/// # Panics
/// When a bound or an invariant is broken.
pub fn drive<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let budget = Budget::new(CONTENT_BYTES_MAX, CONTENT_BYTES_MAX);
    let settings = Arc::new(Settings {
        host: "mx.postrider.example".to_owned(),
        banner: "fuzz".to_owned(),
        message_bytes_max: MESSAGE_BYTES_MAX,
        has_certificate: true,
        budget: Arc::clone(&budget),
        clock: Arc::new(Still),
        entropy: Arc::new(Still),
    });
    let mut outcome = Outcome::default();
    let mut replies = Replies::default();
    let mut session = Session::new(settings, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut replies);
    let mut input = BytesMut::new();
    // Before the client says anything, the server greets.
    for read in std::iter::once(&[][..]).chain(reads) {
        input.extend_from_slice(read);
        if run(&mut session, &mut input, &mut replies, &mut outcome) {
            outcome.closed = true;
            break;
        }
        assert!(input.len() <= PATH_COMMAND_BYTES_MAX + 1, "unread input grows");
    }
    drop(session);
    assert_eq!(budget.used(), 0, "content memory leaked");
    check_replies(&outcome.said);
    outcome
}

/// Goes on until more input is wanted; true when the session has ended.
fn run(session: &mut Session, input: &mut BytesMut, replies: &mut Replies, outcome: &mut Outcome) -> bool {
    loop {
        let step = session.step(input, replies);
        assert!(replies.bytes.len() <= REPLIES_BYTES_MAX + REPLY_SLACK_BYTES, "replies grow");
        match step {
            Step::Read | Step::Flush | Step::Close => {
                outcome.said.append(&mut replies.bytes);
                match step {
                    Step::Read => return false,
                    Step::Close => return true,
                    _ => {}
                }
            }
            Step::Ask(ask) => {
                let verdicts = ask.paths().map(verdict).collect();
                session.answer(ask, verdicts, replies);
            }
            Step::Commit(transaction, held) => {
                assert!(!transaction.recipients.is_empty(), "a message without recipients");
                assert!(transaction.message.sent().len() as u64 <= MESSAGE_BYTES_MAX, "a message over the limit");
                outcome.accepted.push(transaction.message.sent().to_vec());
                let place = QueuePlace::Entry(EntryId(1));
                session.committed(held, Ok(QueueId { shard: ShardId(1000), place }), replies);
            }
            Step::StartTls => {
                assert!(input.is_empty(), "plain text survived STARTTLS");
                session.secured();
            }
        }
    }
}

fn verdict(path: &Path) -> Result<Recipient, Reply> {
    let Path::Mailbox(given) = path else { return Err(Reply::RecipientUnknown) };
    let address = Address::parse(given).map_err(|_| Reply::RecipientInvalid)?;
    if !address.local_part().starts_with('a') {
        return Err(Reply::RecipientUnknown);
    }
    let mut random = [0; 12];
    let hash = blake3::hash(address.as_str().as_bytes());
    random.copy_from_slice(&hash.as_bytes()[..12]);
    Ok(Recipient {
        user: UserId::new(ZoneId(1), address.slot(), random),
        shard: ShardId(1000),
        given: given.clone(),
        address,
    })
}

fn check_replies(said: &[u8]) {
    assert!(said.is_empty() || said.ends_with(b"\r\n"), "an unfinished reply");
    for line in said.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "a reply line is malformed");
        assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'), "a reply without code");
    }
}
