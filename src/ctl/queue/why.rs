//! `ctl queue why`: why mail to the outside waits, in one screen: for each destination how much, since when, when it is tried next and
//! what it said last. Each shard counts what waits by destination; nothing is scanned.

use std::collections::BTreeMap;

use anyhow::bail;
use bytes::Bytes;
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, ShardKind, answer::Answer, query::Query};
use serde::Serialize;

use super::WhyFilter;
use crate::ctl::Verdict;
use crate::ctl::session::Session;
use crate::ctl::table::{Align, Table};
use crate::ctl::whereabouts::time;

/// A destination, over all shards.
#[derive(Debug, Serialize)]
struct Line {
    destination: String,
    entries: u64,
    recipients: u64,
    bytes: u64,
    /// The oldest entry, and since when it waits.
    oldest: String,
    since: String,
    /// When it is tried next; "held" where an operator holds it.
    next: String,
    attempts: u32,
    /// Others wait behind it until the destination takes mail.
    in_line: bool,
    why: String,
    /// What the destination said last.
    reply: String,
    #[serde(skip)]
    oldest_ms: i64,
    #[serde(skip)]
    next_ms: i64,
    #[serde(skip)]
    reply_ms: i64,
}

impl Line {
    fn of(shard: u32, found: pb::Destination) -> Self {
        let count = found.count.unwrap_or_default();
        Self {
            destination: count.destination,
            entries: count.entries,
            recipients: count.recipients,
            bytes: count.bytes,
            oldest: format!("{shard}-{}", found.entry),
            since: time(found.created_ms),
            next: if found.held { "held".to_owned() } else { time(found.due_ms) },
            attempts: found.attempts,
            in_line: found.in_line,
            why: found.reason,
            reply: count.reply,
            oldest_ms: found.created_ms,
            next_ms: found.due_ms,
            reply_ms: count.reply_ms,
        }
    }

    /// The same destination in another shard: the oldest entry of both says why, the first attempt of both is the next.
    fn add(&mut self, other: Self) {
        let (entries, recipients, bytes) =
            (self.entries + other.entries, self.recipients + other.recipients, self.bytes + other.bytes);
        let in_line = self.in_line || other.in_line;
        let (next, next_ms) = match other.next_ms < self.next_ms {
            true => (other.next.clone(), other.next_ms),
            false => (self.next.clone(), self.next_ms),
        };
        let (reply, reply_ms) = match other.reply_ms > self.reply_ms {
            true => (other.reply.clone(), other.reply_ms),
            false => (self.reply.clone(), self.reply_ms),
        };
        if other.oldest_ms < self.oldest_ms {
            *self = other;
        }
        (self.entries, self.recipients, self.bytes, self.in_line) = (entries, recipients, bytes, in_line);
        (self.next, self.next_ms, self.reply, self.reply_ms) = (next, next_ms, reply, reply_ms);
    }
}

pub(super) async fn run(session: &Session, filter: &WhyFilter) -> anyhow::Result<Verdict> {
    let map = session.map();
    let is_wanted = |shard: u32| filter.shard.is_none_or(|wanted| wanted == shard);
    let mut shards: Vec<u32> =
        map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox).map(|shard| shard.id).collect();
    shards.retain(|shard| is_wanted(*shard));
    shards.sort_unstable();
    let look = async {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for shard in shards {
            each(session, shard, filter, |found| {
                let line = Line::of(shard, found);
                match lines.get_mut(&line.destination) {
                    Some(known) => known.add(line),
                    None => {
                        lines.insert(line.destination.clone(), line);
                    }
                }
            })
            .await?;
        }
        Ok(lines)
    };
    let lines = session.audited("queue.why", Vec::<String>::new(), look).await?;
    let mut lines: Vec<Line> = lines.into_values().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.entries));
    let left = lines.len().saturating_sub(filter.limit);
    lines.truncate(filter.limit);
    print(session, &lines)?;
    if left > 0 {
        eprintln!("postrider: {left} more are not shown (--limit)");
    }
    Ok(Verdict::Good)
}

/// Every destination of a shard that is wanted.
async fn each(
    session: &Session,
    shard: u32,
    filter: &WhyFilter,
    mut visit: impl FnMut(pb::Destination),
) -> anyhow::Result<()> {
    let destination = filter.destination.clone().unwrap_or_default();
    let mut after = Bytes::new();
    loop {
        let ask = pb::ListDestinations { limit: PAGE_ROWS_MAX, after, destination: destination.clone() };
        let page = match session.ask(shard, Query::ListDestinations(ask)).await? {
            Answer::Destinations(page) => page,
            other => bail!("shard {shard} gave an answer to another question: {other:?}"),
        };
        page.destinations.into_iter().for_each(&mut visit);
        if !page.more {
            return Ok(());
        }
        after = page.until;
    }
}

fn print(session: &Session, lines: &[Line]) -> anyhow::Result<()> {
    if session.json {
        return session.print_json(&lines);
    }
    if lines.is_empty() {
        println!("Nothing waits for the outside.");
        return Ok(());
    }
    let columns = [
        ("destination", Align::Left),
        ("entries", Align::Right),
        ("bytes", Align::Right),
        ("oldest", Align::Left),
        ("since", Align::Left),
        ("tried", Align::Right),
        ("next", Align::Left),
        ("why", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for line in lines {
        let why = match line.reply.is_empty() {
            true => line.why.clone(),
            false => format!("{} ({})", line.why, line.reply),
        };
        table.row([
            line.destination.clone(),
            line.entries.to_string(),
            line.bytes.to_string(),
            line.oldest.clone(),
            line.since.clone(),
            line.attempts.to_string(),
            line.next.clone(),
            why,
        ]);
    }
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entries: u64, created_ms: i64, due_ms: i64, reply: (&str, i64)) -> pb::Destination {
        let count = pb::DestinationRecord {
            destination: "far.example".to_owned(),
            entries,
            bytes: 10 * entries,
            recipients: 2 * entries,
            reply: reply.0.to_owned(),
            reply_ms: reply.1,
        };
        let reason = format!("since {created_ms}");
        pb::Destination { count: Some(count), entry: 7, created_ms, due_ms, reason, ..Default::default() }
    }

    #[test]
    fn shards_are_summed_up_and_the_oldest_says_why() {
        let mut line = Line::of(1000, found(3, 200, 900, ("421 now", 50)));
        line.add(Line::of(1001, found(4, 100, 950, ("450 before", 40))));
        assert_eq!((line.entries, line.recipients, line.bytes), (7, 14, 70));
        assert_eq!((line.oldest.as_str(), line.why.as_str()), ("1001-7", "since 100"));
        assert_eq!((line.next_ms, line.reply.as_str()), (900, "421 now"));
    }
}
