//! `ctl suppress`: to whom an account, or no account of a domain, sends any more.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use postrider_api::address::{RemoteAddress, canonical_domain, slot_of};
use postrider_api::id::ShardId;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, SuppressionReason, answer::Answer, outcome::Result as Made, query::Query};
use serde::Serialize;

use super::Verdict;
use super::account::{self, Account};
use super::feedback::audited;
use super::session::{DEADLINE, Session};
use super::table::{Align, Table};
use super::whereabouts::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// To whom an account, or a whole domain, does not send, since when and why.
    List {
        /// The account's address, or the domain.
        of: String,
    },
    /// Have it send to an address no more.
    Add {
        /// The account's address, or the domain.
        of: String,
        /// The address.
        address: String,
    },
    /// Let it send there again.
    Remove {
        /// The account's address, or the domain.
        of: String,
        /// The address.
        address: String,
    },
}

#[derive(Debug, Serialize)]
struct Line {
    address: String,
    reason: &'static str,
    since: String,
    until: Option<String>,
    detail: String,
}

/// Whose list it is.
enum Owner {
    Account(Account),
    Domain { name: String, shard: ShardId },
}

impl Owner {
    async fn find(session: &Session, text: &str) -> anyhow::Result<Self> {
        if text.contains('@') {
            return account::find(session, text).await.map(Self::Account);
        }
        let name = canonical_domain(text).with_context(|| format!("{text} is no domain"))?;
        let zone = session.router.zone_of_domain(&name, DEADLINE).await.context("ask placement")?;
        let zone = zone.with_context(|| format!("{name} is none of this cluster's domains"))?;
        let shard = session.router.directory_shard(zone, slot_of(&name)).context("find the directory shard")?;
        Ok(Self::Domain { name, shard })
    }

    fn shard(&self) -> ShardId {
        match self {
            Self::Account(account) => account.shard,
            Self::Domain { shard, .. } => *shard,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Account(account) => account.address.as_str(),
            Self::Domain { name, .. } => name,
        }
    }

    fn targets(&self) -> Vec<String> {
        match self {
            Self::Account(account) => account.targets().to_vec(),
            Self::Domain { name, .. } => vec![format!("domain {name}")],
        }
    }

    fn add(&self, address: String, detail: String) -> Op {
        match self {
            Self::Account(account) => Op::Suppress(pb::Suppress {
                user_id: account.user.to_bytes(),
                address,
                reason: SuppressionReason::Manual.into(),
                detail,
                until_ms: 0,
            }),
            Self::Domain { name, .. } => {
                Op::SuppressForDomain(pb::SuppressForDomain { domain: name.clone(), address, detail, until_ms: 0 })
            }
        }
    }

    fn remove(&self, address: String) -> Op {
        match self {
            Self::Account(account) => Op::Unsuppress(pb::Unsuppress { user_id: account.user.to_bytes(), address }),
            Self::Domain { name, .. } => {
                Op::UnsuppressForDomain(pb::UnsuppressForDomain { domain: name.clone(), address })
            }
        }
    }

    fn question(&self, after: String) -> Query {
        match self {
            Self::Account(account) => {
                let user_id = account.user.to_bytes();
                Query::ListSuppressions(pb::ListSuppressions { user_id, limit: 0, after })
            }
            Self::Domain { name, .. } => {
                Query::ListDomainSuppressions(pb::ListDomainSuppressions { domain: name.clone(), limit: 0, after })
            }
        }
    }
}

pub(super) async fn run(session: &Session, request: Request) -> anyhow::Result<Verdict> {
    match request {
        Request::List { of } => list(session, &Owner::find(session, &of).await?).await,
        Request::Add { of, address } => {
            let address = RemoteAddress::parse(&address).with_context(|| format!("{address} is no address"))?;
            let owner = Owner::find(session, &of).await?;
            let op = owner.add(address.as_str().to_owned(), session.operator.why.clone());
            change(session, &owner, ("suppression.add", "does not send there any more"), address.as_str(), op).await
        }
        Request::Remove { of, address } => {
            let owner = Owner::find(session, &of).await?;
            let op = owner.remove(address.clone());
            change(session, &owner, ("suppression.remove", "may send there"), &address, op).await
        }
    }
}

async fn change(
    session: &Session,
    owner: &Owner,
    (action, sentence): (&str, &str),
    address: &str,
    op: Op,
) -> anyhow::Result<Verdict> {
    let shard = owner.shard();
    let work = async {
        match session.propose(shard, op).await? {
            Made::Done(_) => Ok(()),
            Made::Refused(refused) => bail!("{}", refused.detail),
            other => bail!("shard {shard} gave an outcome of another kind: {other:?}"),
        }
    };
    let targets = owner.targets().into_iter().chain([audited(address)]);
    session.audited(action, targets, work).await?;
    if !session.json {
        println!("{address}: {} {sentence}.", owner.name());
    }
    Ok(Verdict::Good)
}

async fn list(session: &Session, owner: &Owner) -> anyhow::Result<Verdict> {
    let lines = session.audited("suppression.list", owner.targets(), read(session, owner)).await?;
    if session.json {
        session.print_json(&lines)?;
    } else if lines.is_empty() {
        println!("{} sends to everybody.", owner.name());
    } else {
        let mut table = Table::new(&["address", "reason", "since", "until", "said"].map(|title| (title, Align::Left)));
        for Line { address, reason, since, until, detail } in lines {
            table.row([address, reason.to_owned(), since, until.unwrap_or_else(|| "-".to_owned()), detail]);
        }
        table.print();
    }
    Ok(Verdict::Good)
}

async fn read(session: &Session, owner: &Owner) -> anyhow::Result<Vec<Line>> {
    let (mut lines, shard) = (Vec::new(), owner.shard());
    let mut after = String::new();
    loop {
        let page = match session.ask(shard.0, owner.question(after)).await? {
            Answer::Suppressions(page) => page,
            other => bail!("shard {shard} gave an answer to another question: {other:?}"),
        };
        let last = page.suppressions.last().map(|one| one.address.clone());
        lines.extend(page.suppressions.into_iter().map(line));
        match last.filter(|_| page.more) {
            Some(last) => after = last,
            None => return Ok(lines),
        }
    }
}

fn line(record: pb::SuppressionRecord) -> Line {
    Line {
        reason: match record.reason() {
            SuppressionReason::Hard => "hard bounce",
            SuppressionReason::Complaint => "complaint",
            SuppressionReason::Manual => "by hand",
            SuppressionReason::Unsubscribed => "unsubscribed",
            SuppressionReason::Unspecified => "unknown",
        },
        since: time(record.since_ms),
        until: (record.until_ms > 0).then(|| time(record.until_ms)),
        address: record.address,
        detail: record.detail,
    }
}
