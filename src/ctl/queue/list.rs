//! `ctl queue list`.

use std::collections::BTreeMap;

use postrider_api::address::Address;
use postrider_api::audit;
use postrider_api::pb::{self, ShardKind};
use postrider_router::operate::is_for;
use serde::Serialize;

use super::{Filter, each};
use crate::ctl::Verdict;
use crate::ctl::session::Session;
use crate::ctl::table::{Align, Table};
use crate::ctl::whereabouts::{next, time};

/// One recipient of one entry.
#[derive(Debug, Serialize)]
struct Line {
    entry: String,
    sender: String,
    recipient: String,
    size: u64,
    since: String,
    attempts: u32,
    /// When it is tried next, or "behind others", or "held"; absent for what was given up.
    next: Option<String>,
    why: String,
}

#[derive(Debug, Serialize)]
struct Reason {
    why: String,
    recipients: usize,
    /// The oldest of them.
    entry: String,
    since: String,
}

pub(super) async fn run(session: &Session, filter: &Filter) -> anyhow::Result<Verdict> {
    let map = session.map();
    let mut shards: Vec<u32> = map
        .shards
        .iter()
        .filter(|shard| shard.kind() == ShardKind::Mailbox && filter.shard.is_none_or(|wanted| wanted == shard.id))
        .map(|shard| shard.id)
        .collect();
    shards.sort_unstable();
    let addresses = filter.recipient.iter().chain(&filter.sender).filter_map(|text| Address::parse(text).ok());
    let targets: Vec<String> = addresses.map(|address| audit::address(&address)).collect();
    let destination = filter.destination.as_deref().unwrap_or_default();
    let look = async {
        let mut found = Found { filter, lines: Vec::new(), reasons: BTreeMap::new(), left: 0 };
        for shard in shards {
            match filter.failed {
                false => each(session, shard, destination, |record| found.waiting(shard, record)).await?,
                true => each(session, shard, "", |record| found.failed(shard, record)).await?,
            }
        }
        Ok(found)
    };
    let found = session.audited("queue.list", targets, look).await?;
    found.print(session)?;
    Ok(Verdict::Good)
}

struct Found<'f> {
    filter: &'f Filter,
    lines: Vec<Line>,
    reasons: BTreeMap<String, Reason>,
    /// Beyond the limit.
    left: usize,
}

impl Found<'_> {
    fn waiting(&mut self, shard: u32, record: pb::QueueRecord) {
        let size = record.message.as_ref().map_or(0, |message| message.size);
        for pending in record.pending {
            if !self.is_for(&pending) {
                continue;
            }
            let next = Some(next(&pending));
            let why = match pending.reason.is_empty() {
                true => "its first delivery".to_owned(),
                false => pending.reason,
            };
            self.add(Line {
                entry: format!("{shard}-{}", record.entry),
                sender: record.mail_from.clone(),
                recipient: pending.address,
                size,
                since: time(record.created_ms),
                attempts: pending.attempts,
                next,
                why,
            });
        }
    }

    /// Whether he is sent to the destination that was asked for.
    fn is_for(&self, pending: &pb::PendingRecipient) -> bool {
        self.filter.destination.as_ref().is_none_or(|wanted| is_for(pending, wanted))
    }

    fn failed(&mut self, shard: u32, record: pb::FailedRecord) {
        let size = record.message.as_ref().map_or(0, |message| message.size);
        for recipient in record.recipients {
            self.add(Line {
                entry: format!("{shard}-{}", record.entry),
                sender: record.mail_from.clone(),
                recipient: recipient.address,
                size,
                since: time(record.created_ms),
                attempts: recipient.attempts,
                next: None,
                why: recipient.reason,
            });
        }
    }

    fn add(&mut self, line: Line) {
        let is_wanted = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        if !is_wanted(&self.filter.recipient, &line.recipient) || !is_wanted(&self.filter.sender, &line.sender) {
            return;
        }
        if self.filter.reasons {
            let new = Reason { why: line.why.clone(), recipients: 0, entry: line.entry, since: line.since };
            self.reasons.entry(line.why).or_insert(new).recipients += 1;
        } else if self.lines.len() < self.filter.limit {
            self.lines.push(line);
        } else {
            self.left += 1;
        }
    }

    fn print(self, session: &Session) -> anyhow::Result<()> {
        if !session.json && self.lines.is_empty() && self.reasons.is_empty() && self.left == 0 {
            println!("{}", if self.filter.failed { "Nothing was given up." } else { "Nothing waits." });
            return Ok(());
        }
        match (self.filter.reasons, session.json) {
            (true, true) => session.print_json(&self.reasons.into_values().collect::<Vec<_>>())?,
            (false, true) => session.print_json(&self.lines)?,
            (true, false) => {
                let columns = [
                    ("recipients", Align::Right),
                    ("oldest", Align::Left),
                    ("since", Align::Left),
                    ("why", Align::Left),
                ];
                let mut table = Table::new(&columns);
                let mut reasons: Vec<Reason> = self.reasons.into_values().collect();
                reasons.sort_by_key(|reason| std::cmp::Reverse(reason.recipients));
                for reason in reasons {
                    table.row([reason.recipients.to_string(), reason.entry, reason.since, reason.why]);
                }
                table.print();
            }
            (false, false) => {
                let columns = [
                    ("entry", Align::Left),
                    ("sender", Align::Left),
                    ("recipient", Align::Left),
                    ("bytes", Align::Right),
                    ("since", Align::Left),
                    ("tried", Align::Right),
                    ("next", Align::Left),
                    ("why", Align::Left),
                ];
                let mut table = Table::new(&columns);
                for line in self.lines {
                    let next = line.next.unwrap_or_else(|| "-".to_owned());
                    let sender = format!("<{}>", line.sender);
                    let (size, tried) = (line.size.to_string(), line.attempts.to_string());
                    table.row([line.entry, sender, line.recipient, size, line.since, tried, next, line.why]);
                }
                table.print();
            }
        }
        if self.left > 0 {
            eprintln!("postrider: {} more are not shown (--limit)", self.left);
        }
        Ok(())
    }
}
