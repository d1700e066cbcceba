//! `ctl queue why`: why mail to the outside waits, in one screen: for each destination how much, since when, when it is tried next and
//! what it said last. Each shard counts what waits by destination; nothing is scanned.

use std::collections::BTreeMap;

use anyhow::bail;
use bytes::Bytes;
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, ShardKind, answer::Answer, query::Query};
use postrider_router::operate::DestinationSummary;
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
}

impl From<DestinationSummary> for Line {
    fn from(summary: DestinationSummary) -> Self {
        let (shard, entry) = summary.oldest;
        Self {
            destination: summary.destination,
            entries: summary.entries,
            recipients: summary.recipients,
            bytes: summary.bytes,
            oldest: format!("{shard}-{entry}"),
            since: time(summary.oldest_ms),
            next: if summary.held { "held".to_owned() } else { time(summary.next_ms) },
            attempts: summary.attempts,
            in_line: summary.in_line,
            why: summary.why,
            reply: summary.reply,
        }
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
        let mut lines: BTreeMap<String, DestinationSummary> = BTreeMap::new();
        for shard in shards {
            each(session, shard, filter, |found| {
                let line = DestinationSummary::of(shard, found);
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
    let mut lines: Vec<Line> = lines.into_values().map(Line::from).collect();
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
