//! `ctl queue`: what waits, what was given up, and an operator's hand on both.

mod list;
mod manage;
mod returned;
mod why;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postrider_api::id::{EntryId, ShardId};
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, QueueAction, ShardKind, answer::Answer, query::Query};

use super::Verdict;
use super::session::Session;

/// Entries read at a time.
const ENTRIES_PER_PAGE: u32 = PAGE_ROWS_MAX;

/// What about the queue.
#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// What waits, and why; with --failed, what was given up.
    List(Filter),
    /// Why mail to the outside waits: each destination, how much waits for it, and what it said last.
    Why(WhyFilter),
    /// Do not try an entry until it is released.
    Hold(Choice),
    /// Try again what was held.
    Release(Choice),
    /// Send those of an entry who are outside to a named host, whatever the DNS says.
    Route(RouteChoice),
    /// Try an entry now; with --failed, what was given up waits again, under the same number.
    Retry(Choice),
    /// Stop trying: whoever waits goes to the error queue.
    GiveUp(Choice),
    /// Tell the sender, if he is one of ours, that it could not be delivered, and take it out of the error queue.
    Return(Choice),
    /// Throw an entry away, with the message for those recipients.
    Drop(Choice),
}

/// Which entries are shown.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// The error queue instead.
    #[arg(long)]
    failed: bool,
    /// Reasons with how many wait for each, instead of the entries.
    #[arg(long)]
    reasons: bool,
    /// Of one shard only.
    #[arg(long, value_name = "SHARD")]
    shard: Option<u32>,
    /// For this recipient only.
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// From this sender only; "" is the null reverse-path.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// For this destination outside only: a domain, or "via HOST" where an operator has named one.
    #[arg(long, value_name = "DOMAIN", conflicts_with = "failed")]
    destination: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// Which destinations are shown.
#[derive(Debug, Args)]
pub(crate) struct WhyFilter {
    /// This one only: a domain, or "via HOST" where an operator has named one.
    #[arg(long, value_name = "DOMAIN")]
    destination: Option<String>,
    /// Of one shard only.
    #[arg(long, value_name = "SHARD")]
    shard: Option<u32>,
    /// The destinations that most mail waits for, at most so many.
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
}

/// Whom it concerns, and where they are sent.
#[derive(Debug, Args)]
pub(crate) struct RouteChoice {
    #[command(flatten)]
    choice: Choice,
    /// HOST or HOST:PORT; "" goes back to what the DNS says.
    #[arg(long, value_name = "HOST")]
    to: String,
}

/// Whom it concerns.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// The entry, SHARD-NUMBER as `queue list` and SMTP's reply name it.
    entry: String,
    /// These recipients only; all of the entry where none is named.
    #[arg(long, value_name = "ADDRESS")]
    recipient: Vec<String>,
    /// Those who were given up, instead of those who wait.
    #[arg(long)]
    failed: bool,
}

pub(super) async fn run(session: &Session, request: Request) -> anyhow::Result<Verdict> {
    match request {
        Request::List(filter) => list::run(session, &filter).await,
        Request::Why(filter) => why::run(session, &filter).await,
        Request::Retry(choice) => manage::run(session, &choice, QueueAction::Retry, "").await,
        Request::Hold(choice) => manage::run(session, &choice, QueueAction::Hold, "").await,
        Request::Release(choice) => manage::run(session, &choice, QueueAction::Release, "").await,
        Request::Route(RouteChoice { choice, to }) => manage::run(session, &choice, QueueAction::Route, &to).await,
        Request::GiveUp(choice) => manage::run(session, &choice, QueueAction::GiveUp, "").await,
        Request::Drop(choice) => manage::run(session, &choice, QueueAction::Drop, "").await,
        Request::Return(choice) => returned::run(session, &choice).await,
    }
}

/// A queue id.
fn entry_of(text: &str) -> anyhow::Result<(ShardId, EntryId)> {
    let wanted = || format!("{text}: an entry is named SHARD-NUMBER, 1003-7 for example");
    let (shard, entry) = text.split_once('-').with_context(wanted)?;
    let shard: ShardId =
        shard.parse().ok().filter(|shard: &ShardId| shard.kind() == Some(ShardKind::Mailbox)).with_context(wanted)?;
    Ok((shard, entry.parse().ok().with_context(wanted)?))
}

/// A row of a shard's queue or of its error queue, both of which are read page by page.
pub(super) trait Listed: Sized {
    /// Asks for the rows behind an entry; `destination`: only those for it, where it is not empty.
    fn question(after_entry: u64, destination: &str) -> Query;

    /// Its rows, and whether more follow; `None` of an answer to another question.
    fn page(answer: Answer) -> Option<(Vec<Self>, bool)>;

    /// Its number.
    fn entry(&self) -> u64;
}

/// Entries in which somebody waits.
impl Listed for pb::QueueRecord {
    fn question(after_entry: u64, destination: &str) -> Query {
        Query::ListQueue(pb::ListQueue { limit: ENTRIES_PER_PAGE, after_entry, destination: destination.to_owned() })
    }

    fn page(answer: Answer) -> Option<(Vec<Self>, bool)> {
        if let Answer::Queue(page) = answer { Some((page.entries, page.more)) } else { None }
    }

    fn entry(&self) -> u64 {
        self.entry
    }
}

/// Entries of which somebody was given up.
impl Listed for pb::FailedRecord {
    fn question(after_entry: u64, _: &str) -> Query {
        Query::ListFailed(pb::ListFailed { limit: ENTRIES_PER_PAGE, after_entry })
    }

    fn page(answer: Answer) -> Option<(Vec<Self>, bool)> {
        if let Answer::Failed(page) = answer { Some((page.entries, page.more)) } else { None }
    }

    fn entry(&self) -> u64 {
        self.entry
    }
}

/// Every row of a shard; `destination`: only those for it, where it is not empty.
pub(super) async fn each<R: Listed>(
    session: &Session,
    shard: u32,
    destination: &str,
    mut visit: impl FnMut(R),
) -> anyhow::Result<()> {
    let mut after_entry = 0;
    loop {
        let answer = session.ask(shard, R::question(after_entry, destination)).await?;
        let (rows, more) =
            R::page(answer).with_context(|| format!("shard {shard} gave an answer to another question"))?;
        let last = rows.last().map(R::entry);
        rows.into_iter().for_each(&mut visit);
        match last.filter(|_| more) {
            Some(last) => after_entry = last,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_shard_and_number() {
        assert_eq!(entry_of("1003-7").unwrap(), (ShardId(1003), EntryId(7)));
        for text in ["", "7", "2-7", "1003-", "1003-x", "1003-01a1f915d0637a6f9a7e67777702a43f"] {
            assert!(entry_of(text).unwrap_err().to_string().contains("SHARD-NUMBER"), "{text}");
        }
    }
}
