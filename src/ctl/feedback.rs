//! `ctl feedback`: what came back of mail that left, and how accounts stand with it.

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use postrider_api::address::Address;
use postrider_api::audit;
use postrider_api::pb::{self, FeedbackKind, FeedbackSource, ShardKind, answer::Answer, query::Query};
use serde::Serialize;

use super::Verdict;
use super::account::{self, Account};
use super::session::Session;
use super::table::{Align, Table};
use super::whereabouts::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Bounces and complaints, the newest first.
    List(Filter),
    /// What an account sends to the outside in a day, what comes back, and whether it is slowed or suspended for it.
    Account {
        /// The address.
        address: String,
    },
}

/// What is shown.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Of this account's mail only.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "domain")]
    account: Option<String>,
    /// Of accounts of this domain only.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Of this kind only.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// There is no such recipient.
    Hard,
    /// Something else was in the way.
    Soft,
    /// The recipient complains.
    Complaint,
}

impl From<Kind> for FeedbackKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Hard => Self::Hard,
            Kind::Soft => Self::Soft,
            Kind::Complaint => Self::Complaint,
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    at: String,
    kind: &'static str,
    sender: String,
    recipient: String,
    code: String,
    detail: String,
    /// By what it came to be known.
    by: &'static str,
    entry: String,
    #[serde(skip)]
    at_ms: i64,
}

pub(super) async fn run(session: &Session, request: Request) -> anyhow::Result<Verdict> {
    match request {
        Request::List(filter) => list(session, &filter).await,
        Request::Account { address } => show(session, &account::find(session, &address).await?).await,
    }
}

async fn list(session: &Session, filter: &Filter) -> anyhow::Result<Verdict> {
    let of = match &filter.account {
        Some(address) => Some(account::find(session, address).await?),
        None => None,
    };
    let targets = match (&of, &filter.domain) {
        (Some(account), _) => account.targets().to_vec(),
        (None, Some(domain)) => vec![format!("domain {domain}")],
        (None, None) => Vec::new(),
    };
    let mut lines = session.audited("feedback.list", targets, read(session, of.as_ref(), filter)).await?;
    lines.sort_by_key(|line| std::cmp::Reverse(line.at_ms));
    let left = lines.len().saturating_sub(filter.limit);
    lines.truncate(filter.limit);
    if session.json {
        session.print_json(&lines)?;
    } else if lines.is_empty() {
        println!("Nothing came back.");
    } else {
        let columns = ["at", "kind", "sender", "recipient", "code", "by", "entry", "said"];
        let mut table = Table::new(&columns.map(|title| (title, Align::Left)));
        for Line { at, kind, sender, recipient, code, by, entry, detail, .. } in lines {
            let recipient = if recipient.is_empty() { "?".to_owned() } else { recipient };
            table.row([at, kind.to_owned(), sender, recipient, code, by.to_owned(), entry, detail]);
        }
        table.print();
    }
    if left > 0 {
        eprintln!("postrider: {left} more are not shown (--limit)");
    }
    Ok(Verdict::Good)
}

async fn read(session: &Session, of: Option<&Account>, filter: &Filter) -> anyhow::Result<Vec<Line>> {
    let map = session.map();
    let mut shards: Vec<u32> = match of {
        Some(account) => vec![account.shard.0],
        None => {
            let mailboxes = map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox);
            mailboxes.map(|shard| shard.id).collect()
        }
    };
    shards.sort_unstable();
    let wanted = filter.kind.map(FeedbackKind::from);
    let of_domain = |sender: &str| {
        let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
        filter.domain.as_ref().is_none_or(|wanted| domain.eq_ignore_ascii_case(wanted))
    };
    let mut lines = Vec::new();
    for shard in shards {
        let mut after = None;
        loop {
            let user_id = of.map(|account| account.user.to_bytes()).unwrap_or_default();
            let page =
                match session.ask(shard, Query::ListFeedback(pb::ListFeedback { user_id, limit: 0, after })).await? {
                    Answer::Feedback(page) => page,
                    other => bail!("shard {shard} gave an answer to another question: {other:?}"),
                };
            let last = page.lines.last().and_then(|line| {
                let sequence = line.feedback.as_ref()?.sequence;
                Some(pb::FeedbackPlace { user_id: line.user_id.clone(), sequence })
            });
            for pb::FeedbackLine { sender, feedback, .. } in page.lines {
                let Some(feedback) = feedback else { continue };
                if of_domain(&sender) && wanted.is_none_or(|kind| kind == feedback.kind()) {
                    lines.push(line(shard, sender, feedback));
                }
            }
            after = last.filter(|_| page.more);
            if after.is_none() {
                break;
            }
        }
    }
    Ok(lines)
}

fn line(shard: u32, sender: String, feedback: pb::FeedbackRecord) -> Line {
    Line {
        at: time(feedback.at_ms),
        at_ms: feedback.at_ms,
        kind: match feedback.kind() {
            FeedbackKind::Hard => "hard",
            FeedbackKind::Soft => "soft",
            FeedbackKind::Complaint => "complaint",
            FeedbackKind::Unspecified => "unknown",
        },
        sender,
        by: match feedback.source() {
            FeedbackSource::Reply => "reply",
            FeedbackSource::Report => "report",
            FeedbackSource::ReturnPath => "return path",
            FeedbackSource::Complaint => "complaint",
            FeedbackSource::Unspecified => "unknown",
        },
        recipient: feedback.address,
        code: feedback.code,
        detail: feedback.detail,
        entry: format!("{shard}-{}", feedback.entry),
    }
}

#[derive(Debug, Serialize)]
struct Standing {
    address: String,
    /// Until when it is slowed.
    slowed_until: Option<String>,
    slowed_times: u32,
    /// Why it was slowed or suspended last.
    why: String,
    /// When an operator released it last (`ctl account resume`).
    released: Option<String>,
    suppressions: u32,
    days: Vec<Day>,
}

#[derive(Debug, Serialize)]
struct Day {
    day: String,
    recipients: u64,
    soft: u64,
    hard: u64,
    complaints: u64,
}

async fn show(session: &Session, account: &Account) -> anyhow::Result<Verdict> {
    let ask = async {
        let get = Query::GetSending(pb::GetSending { user_id: account.user.to_bytes() });
        match session.ask(account.shard.0, get).await? {
            Answer::Sending(sending) => Ok(sending),
            Answer::NotFound(_) => bail!("shard {} has no such account (any more)", account.shard),
            other => bail!("shard {} gave an answer to another question: {other:?}", account.shard),
        }
    };
    let sending = session.audited("feedback.account", account.targets(), ask).await?;
    let shown = standing(account.address.clone(), sending);
    if session.json {
        session.print_json(&shown)?;
    } else {
        print(&shown);
    }
    Ok(if shown.slowed_until.is_some() { Verdict::Bad } else { Verdict::Good })
}

fn standing(address: Address, sending: pb::SendingRecord) -> Standing {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let day = |day: pb::SendingDay| {
        let pb::SendingDay { recipients, soft, hard, complaints, .. } = day;
        let at = time(day.day.saturating_mul(DAY_MS));
        Day { day: at.split('T').next().unwrap_or_default().to_owned(), recipients, soft, hard, complaints }
    };
    let some = |ms: i64| (ms > 0).then(|| time(ms));
    let now_ms = jiff::Timestamp::now().as_millisecond();
    Standing {
        address: address.as_str().to_owned(),
        slowed_until: some(sending.slowed_until_ms).filter(|_| sending.slowed_until_ms > now_ms),
        slowed_times: sending.slowed_times,
        why: sending.why,
        released: some(sending.released_ms),
        suppressions: sending.suppressions,
        days: sending.days.into_iter().map(day).collect(),
    }
}

fn print(shown: &Standing) {
    match &shown.slowed_until {
        Some(until) => println!("{} is slowed until {until}: {}", shown.address, shown.why),
        None if shown.why.is_empty() => println!("{} is not slowed.", shown.address),
        None => println!("{} is not slowed now. The last time: {}", shown.address, shown.why),
    }
    if let Some(released) = &shown.released {
        println!("An operator released it at {released}.");
    }
    println!("It does not send to {} addresses (ctl suppress list).", shown.suppressions);
    let titles = ["day", "recipients", "soft", "hard", "complaints"];
    let mut table = Table::new(&titles.map(|title| (title, if title == "day" { Align::Left } else { Align::Right })));
    for Day { day, recipients, soft, hard, complaints } in &shown.days {
        table.row([day.clone(), recipients.to_string(), soft.to_string(), hard.to_string(), complaints.to_string()]);
    }
    if !shown.days.is_empty() {
        table.print();
    }
}

/// As the audit log names somebody outside.
pub(super) fn audited(address: &str) -> String {
    // What is no address has no canonical form, and names nobody.
    Address::parse(address).map_or_else(|_| "address".to_owned(), |address| audit::address(&address))
}
