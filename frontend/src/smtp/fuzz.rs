//! Drives a [`Session`] with arbitrary bytes, for fuzz targets and property tests.
//!
//! What is checked while it runs: no panic, memory within bounds, replies that are whole lines of the grammar, every request
//! answered once, and that all content memory comes back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::BytesMut;
use postrider_api::address::{Address, RemoteAddress};
use postrider_api::env::{Clock, Entropy};
use postrider_api::id::{EntryId, ShardId, Slot, UserId, ZoneId};

use super::auth::{AuthAnswer, AuthAsk};
use super::command::{Path, Reports};
use super::content::Finished;
use super::envelope::{Addressee, Recipient};
use super::header;
use super::limit::{PATH_COMMAND_BYTES_MAX, REPLIES_BYTES_MAX};
use super::repair::repair;
use super::reply::{QueueId, QueuePlace, Reply};
use super::session::{Mode, Replies, Session, Settings, Step};
use crate::account::programs::{Program, Scram};
use crate::budget::Budget;

const MESSAGE_BYTES_MAX: u64 = 4096;
const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Who submits.
const SUBMITTER: &str = "ada@postrider.example";
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
    drive_in(Mode::Receive, reads)
}

/// The same of submission: a session within TLS, where the password is `right` and the account `ada@postrider.example`.
///
/// # Panics
/// When a bound or an invariant is broken.
pub fn drive_submission<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    drive_in(Mode::Submit, reads)
}

fn drive_in<'a>(mode: Mode, reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let budget = Budget::new(CONTENT_BYTES_MAX, CONTENT_BYTES_MAX);
    let settings = Arc::new(Settings {
        mode,
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
    let tls = mode == Mode::Submit;
    let mut session = Session::new(settings, IpAddr::V4(Ipv4Addr::LOCALHOST), tls, &mut replies);
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
                let is_submission = ask.program().is_some();
                let verdicts = ask.paths().map(|path| verdict(path, is_submission)).collect();
                session.answer(ask, verdicts, replies);
            }
            Step::Commit(transaction, held) => {
                let outside = transaction.submission.as_ref().map_or(0, |submission| submission.outside.len());
                assert!(transaction.recipients.len() + outside > 0, "a message without recipients");
                assert!(transaction.message.sent().len() as u64 <= MESSAGE_BYTES_MAX, "a message over the limit");
                outcome.accepted.push(transaction.message.sent().to_vec());
                if let Some(submission) = &transaction.submission {
                    assert_eq!(transaction.mail_from, SUBMITTER, "a submission in another's name");
                    let Finished { bytes, trace, share: _share } = transaction.message;
                    let sent = bytes.len();
                    if let Ok(repaired) = repair(bytes, trace, &submission.program.address) {
                        assert!(repaired.len() <= sent, "repair makes a message longer");
                        let fields = header::fields(&repaired).expect("a repaired header is one");
                        let count =
                            |name: &str| fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes())).count();
                        assert_eq!((count("bcc"), count("resent-bcc"), count("from")), (0, 0, 1));
                        assert!(count("date") > 0 && count("message-id") > 0, "what is missing is added");
                    }
                }
                let place = QueuePlace::Entry(EntryId(1));
                session.committed(held, Ok(QueueId { shard: ShardId(1000), place }), replies);
            }
            Step::Authenticate(ask, asking) => session.authenticated(asking, let_in(ask), replies),
            Step::StartTls => {
                assert!(input.is_empty(), "plain text survived STARTTLS");
                session.secured();
            }
        }
    }
}

/// Lets the one program in that knows the password.
fn let_in(ask: AuthAsk) -> Result<AuthAnswer, Reply> {
    let program = || Program::of_test(UserId::new(ZoneId(1), Slot(7), [7; 12]), SUBMITTER);
    match ask {
        AuthAsk::Password { name, password } if name == SUBMITTER && password == "right" => {
            Ok(AuthAnswer::LetIn(program()))
        }
        AuthAsk::Begin { name } => Ok(AuthAnswer::Begun(Box::new(Scram::of_nobody(&name)))),
        AuthAsk::Password { .. } | AuthAsk::Prove { .. } => Err(Reply::WrongCredentials),
    }
}

fn verdict(path: &Path, is_submission: bool) -> Result<Addressee, Reply> {
    let Path::Mailbox(given) = path else { return Err(Reply::RecipientUnknown) };
    if is_submission && !given.ends_with("postrider.example") {
        return RemoteAddress::parse(given).map(Addressee::Outside).map_err(|_| Reply::RecipientInvalid);
    }
    let address = Address::parse(given).map_err(|_| Reply::RecipientInvalid)?;
    if !address.local_part().starts_with('a') {
        return Err(Reply::RecipientUnknown);
    }
    let mut random = [0; 12];
    let hash = blake3::hash(address.as_str().as_bytes());
    random.copy_from_slice(&hash.as_bytes()[..12]);
    Ok(Addressee::Here(Recipient {
        user: UserId::new(ZoneId(1), address.slot(), random),
        shard: ShardId(1000),
        given: given.clone(),
        address,
        reports: Reports::default(),
        returned: None,
    }))
}

fn check_replies(said: &[u8]) {
    assert!(said.is_empty() || said.ends_with(b"\r\n"), "an unfinished reply");
    for line in said.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "a reply line is malformed");
        assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'), "a reply without code");
    }
}
