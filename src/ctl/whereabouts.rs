//! `ctl where`: the mailboxes and queues that a message is in, what it waits for, and why it was given up.

use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use postrider_api::audit;
use postrider_api::id::{EmailId, EntryId, MessageIdHash, ShardId, UserId};
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, ShardKind, answer::Answer, query::Query};
use serde::Serialize;

use super::Verdict;
use super::session::Session;

/// Shards that are asked at a time.
const SHARDS_AT_A_TIME: usize = 16;
/// Copies that are listed of one shard.
const COPIES_MAX: u32 = PAGE_ROWS_MAX;

#[derive(Debug, Default, Serialize)]
struct Whereabouts {
    mailboxes: Vec<Copy>,
    queues: Vec<Waiting>,
    failures: Vec<Failure>,
}

/// A copy in a mailbox.
#[derive(Debug, Serialize)]
struct Copy {
    shard: u32,
    user_id: String,
    message_id: String,
    folder_id: u32,
    received: String,
}

/// A queue entry.
#[derive(Debug, Serialize)]
struct Waiting {
    shard: u32,
    entry: u64,
    attempts: u32,
    created: String,
    due: String,
    recipients: Vec<Recipient>,
}

#[derive(Debug, Serialize)]
struct Recipient {
    address: String,
    attempts: u32,
    waits_for: String,
    /// When he is looked at next.
    next: String,
    /// What his destination said last; of somebody outside.
    #[serde(skip_serializing_if = "String::is_empty")]
    reply: String,
    /// Attempts of which nobody knows whether they went through.
    #[serde(skip_serializing_if = "is_none")]
    unknown_attempts: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way to ask
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What stands of an entry in the error queue.
#[derive(Debug, Serialize)]
struct Failure {
    shard: u32,
    entry: u64,
    created: String,
    recipients: Vec<GivenUp>,
}

#[derive(Debug, Serialize)]
struct GivenUp {
    address: String,
    attempts: u32,
    failed: String,
    reason: String,
}

/// What an operator asks for.
#[derive(Debug, PartialEq, Eq)]
enum Subject<'a> {
    /// A queue entry, as SMTP's reply names it while somebody waits: `SHARD-ENTRY`.
    Entry(ShardId, EntryId),
    /// The first copy, as SMTP's reply names it when everybody has it: `SHARD-MESSAGE`.
    Copy(ShardId, EmailId),
    /// A Message-ID without its angle brackets.
    MessageId(&'a str),
}

pub(super) async fn run(session: &Session, id: &str) -> anyhow::Result<Verdict> {
    let subject = subject(id);
    let look = async {
        match &subject {
            Subject::Entry(shard, entry) => by_entry(session, *shard, *entry).await,
            Subject::Copy(shard, email) => by_copy(session, *shard, *email).await,
            Subject::MessageId(id) => everywhere(session, &MessageIdHash::of(id.as_bytes()).0).await,
        }
    };
    let found = session.audited("mail.where", [subject.as_target()], look).await?;
    let nowhere = found.is_empty();
    if session.json {
        session.print_json(&found)?;
    } else {
        print(&found);
    }
    Ok(if nowhere { Verdict::Bad } else { Verdict::Good })
}

impl Subject<'_> {
    /// As the audit log names it.
    fn as_target(&self) -> String {
        match self {
            Self::Entry(shard, entry) => format!("queue entry {shard}-{entry}"),
            Self::Copy(shard, email) => format!("message {shard}-{email}"),
            Self::MessageId(id) => audit::message_id(MessageIdHash::of(id.as_bytes())),
        }
    }
}

fn subject(text: &str) -> Subject<'_> {
    let parts = text.split_once('-').and_then(|(shard, rest)| Some((shard.parse::<ShardId>().ok()?, rest)));
    if let Some((shard, rest)) = parts.filter(|(shard, _)| shard.kind() == Some(ShardKind::Mailbox)) {
        if let Ok(email) = rest.parse() {
            return Subject::Copy(shard, email);
        }
        if let Ok(entry) = rest.parse() {
            return Subject::Entry(shard, entry);
        }
    }
    Subject::MessageId(text.trim_start_matches('<').trim_end_matches('>'))
}

impl Whereabouts {
    fn is_empty(&self) -> bool {
        self.mailboxes.is_empty() && self.queues.is_empty() && self.failures.is_empty()
    }

    fn add_entry(&mut self, shard: u32, record: pb::QueueRecord) {
        self.queues.retain(|known| (known.shard, known.entry) != (shard, record.entry));
        self.queues.push(waiting(shard, record));
    }

    fn add_failed(&mut self, shard: u32, record: pb::FailedRecord) {
        self.failures.retain(|known| (known.shard, known.entry) != (shard, record.entry));
        self.failures.push(failure(shard, record));
    }
}

async fn by_entry(session: &Session, shard: ShardId, entry: EntryId) -> anyhow::Result<Whereabouts> {
    match session.ask(shard.0, Query::GetQueueEntry(pb::GetQueueEntry { entry: entry.0, with_body: false })).await? {
        Answer::QueueEntry(pb::QueueEntry { waiting, failed, .. }) => {
            // Recipients of this very shard have it in their mailboxes already.
            let message = waiting.as_ref().and_then(|entry| entry.message.as_ref());
            let message = message.or(failed.as_ref().and_then(|entry| entry.message.as_ref()));
            let hash = message.map(|message| message.message_id_hash.clone()).unwrap_or_default();
            let mut found = Whereabouts::default();
            if !hash.is_empty() {
                found = everywhere(session, hash.as_ref()).await?;
            }
            if let Some(record) = waiting {
                found.add_entry(shard.0, record);
            }
            if let Some(record) = failed {
                found.add_failed(shard.0, record);
            }
            Ok(found)
        }
        Answer::NotFound(_) => {
            eprintln!("postrider: {shard}-{entry} is not in its queue: all of its recipients have it.");
            Ok(Whereabouts::default())
        }
        other => bail!("shard {shard} gave an answer to another question: {other:?}"),
    }
}

async fn by_copy(session: &Session, shard: ShardId, email: EmailId) -> anyhow::Result<Whereabouts> {
    let find = pb::FindMessageId { email_id: email.to_bytes(), limit: COPIES_MAX, ..Default::default() };
    Ok(Whereabouts { mailboxes: copies(session, shard.0, find).await?, ..Whereabouts::default() })
}

/// Asks every mailbox shard.
async fn everywhere(session: &Session, hash: &[u8]) -> anyhow::Result<Whereabouts> {
    let map = session.map();
    let mut shards: Vec<u32> =
        map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox).map(|shard| shard.id).collect();
    shards.sort_unstable();
    let parts: Vec<Whereabouts> = stream::iter(shards)
        .map(|shard| async move { in_shard(session, shard, hash).await })
        .buffered(SHARDS_AT_A_TIME)
        .try_collect()
        .await?;
    let mut whole = Whereabouts::default();
    for part in parts {
        whole.mailboxes.extend(part.mailboxes);
        whole.queues.extend(part.queues);
        whole.failures.extend(part.failures);
    }
    Ok(whole)
}

async fn in_shard(session: &Session, shard: u32, hash: &[u8]) -> anyhow::Result<Whereabouts> {
    let find = pb::FindMessageId { message_id_hash: hash.to_vec().into(), limit: COPIES_MAX, ..Default::default() };
    let mut found = Whereabouts { mailboxes: copies(session, shard, find).await?, ..Whereabouts::default() };
    let is_it = |message: &Option<pb::NewMessage>| {
        message.as_ref().is_some_and(|message| message.message_id_hash.as_ref() == hash)
    };
    // The queue first: whoever is given up meanwhile is found behind it.
    super::queue::each(session, shard, "", |record: pb::QueueRecord| {
        if is_it(&record.message) {
            found.add_entry(shard, record);
        }
    })
    .await?;
    super::queue::each(session, shard, "", |record: pb::FailedRecord| {
        if is_it(&record.message) {
            found.add_failed(shard, record);
        }
    })
    .await?;
    Ok(found)
}

async fn copies(session: &Session, shard: u32, find: pb::FindMessageId) -> anyhow::Result<Vec<Copy>> {
    match session.ask(shard, Query::FindMessageId(find)).await? {
        Answer::FoundMessages(messages) => {
            if messages.more {
                eprintln!("postrider: shard {shard} has more than {COPIES_MAX} copies; the first are listed");
            }
            messages.messages.iter().map(|message| copy(shard, message)).collect()
        }
        other => bail!("shard {shard} gave an answer to another question: {other:?}"),
    }
}

fn copy(shard: u32, message: &pb::FoundMessage) -> anyhow::Result<Copy> {
    Ok(Copy {
        shard,
        user_id: UserId::try_from(&message.user_id).context("read a user id")?.to_string(),
        message_id: EmailId::try_from(&message.email_id).context("read a message id")?.to_string(),
        folder_id: message.folder_id,
        received: time(message.received_ms),
    })
}

fn waiting(shard: u32, record: pb::QueueRecord) -> Waiting {
    let recipients = record.pending.into_iter().map(|pending| Recipient {
        next: next(&pending),
        address: match pending.route.is_empty() {
            true => pending.address,
            false => format!("{} via {}", pending.address, pending.route),
        },
        attempts: pending.attempts,
        waits_for: if pending.reason.is_empty() { "its first delivery".into() } else { pending.reason },
        reply: pending.reply,
        unknown_attempts: pending.unknown_attempts,
    });
    Waiting {
        shard,
        entry: record.entry,
        attempts: record.attempts,
        created: time(record.created_ms),
        due: if record.due_ms == i64::MAX { "no time of its own".into() } else { time(record.due_ms) },
        recipients: recipients.collect(),
    }
}

fn failure(shard: u32, record: pb::FailedRecord) -> Failure {
    let recipients = record.recipients.into_iter().map(|recipient| GivenUp {
        address: recipient.address,
        attempts: recipient.attempts,
        failed: time(recipient.failed_ms),
        reason: recipient.reason,
    });
    Failure { shard, entry: record.entry, created: time(record.created_ms), recipients: recipients.collect() }
}

/// When somebody who waits is tried next, in words.
pub(super) fn next(pending: &pb::PendingRecipient) -> String {
    match (pending.held, pending.parked) {
        (true, _) => "held".to_owned(),
        (false, true) => "behind others".to_owned(),
        (false, false) => time(pending.due_ms),
    }
}

pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

fn print(found: &Whereabouts) {
    for copy in &found.mailboxes {
        println!(
            "mailbox: shard {}, user {}, folder {}, message {}, received {}",
            copy.shard, copy.user_id, copy.folder_id, copy.message_id, copy.received
        );
    }
    for waiting in &found.queues {
        println!(
            "queue: {}-{}, since {}, tried {} times, next at {}",
            waiting.shard, waiting.entry, waiting.created, waiting.attempts, waiting.due
        );
        for Recipient { address, attempts, waits_for, next, reply, unknown_attempts } in &waiting.recipients {
            println!("  {address} waits for {waits_for} ({attempts} attempts), next: {next}");
            if !reply.is_empty() {
                println!("    its destination said: {reply}");
            }
            if *unknown_attempts > 0 {
                println!("    of {unknown_attempts} attempts nobody knows whether they went through");
            }
        }
    }
    for failure in &found.failures {
        println!("error queue: {}-{}, since {}", failure.shard, failure.entry, failure.created);
        for GivenUp { address, attempts, failed, reason } in &failure.recipients {
            println!("  {address} failed: {reason} ({attempts} attempts, given up at {failed})");
        }
    }
    if found.is_empty() {
        println!("No mailbox and no queue has it.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_and_message_ids_are_told_apart() {
        assert_eq!(subject("1003-7"), Subject::Entry(ShardId(1003), EntryId(7)));
        let id = "01a1f915d0637a6f9a7e67777702a43f";
        assert_eq!(subject(&format!("1003-{id}")), Subject::Copy(ShardId(1003), id.parse().unwrap()));
        for text in ["20251120-1@host.example", "abc", "1003-7x", "a-b@c", "2-7"] {
            assert_eq!(subject(text), Subject::MessageId(text), "{text}");
        }
        assert_eq!(subject("<a@b>"), Subject::MessageId("a@b"));
    }
}
