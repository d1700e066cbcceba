//! `ctl queue retry`, `hold`, `release`, `route`, `give-up` and `drop`: one command to the entry's shard, written into the audit log first.

use anyhow::{Context as _, bail, ensure};
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::{EntryId, ShardId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, QueueAction, answer::Answer, command::Op, query::Query};
use serde::Serialize;

use super::{Choice, entry_of};
use crate::ctl::Verdict;
use crate::ctl::session::{DEADLINE, Session};

/// What is kept of who and why, bytes: no more than a shard takes.
const REMARK_BYTES_MAX: usize = postrider_api::limit::QUEUE_REMARK_BYTES_MAX;

#[derive(Serialize)]
struct Managed {
    entry: String,
    recipients: Vec<String>,
}

pub(super) async fn run(
    session: &Session,
    choice: &Choice,
    action: QueueAction,
    route: &str,
) -> anyhow::Result<Verdict> {
    let (shard, entry) = entry_of(&choice.entry)?;
    let meant = Meant::find(session, shard, entry, choice).await?;
    let verb = match action {
        QueueAction::Retry => "retry",
        QueueAction::GiveUp => "give-up",
        QueueAction::Drop => "drop",
        QueueAction::Hold => "hold",
        QueueAction::Release => "release",
        QueueAction::Route => "route",
        QueueAction::Unspecified => bail!("nothing was asked for"),
    };
    let mut targets = vec![format!("queue entry {shard}-{entry}")];
    if action == QueueAction::Route {
        targets.push(format!("host {route}"));
    }
    let work = propose(session, shard, entry, &meant, choice.failed, action, route);
    session.audited(&format!("queue.{verb}"), targets, work).await?;
    let managed = Managed { entry: choice.entry.clone(), recipients: meant.addresses };
    if session.json {
        session.print_json(&managed)?;
    } else {
        let what = match action {
            QueueAction::Retry => "is tried again for",
            QueueAction::GiveUp => "is in the error queue for",
            QueueAction::Hold => "is held for",
            QueueAction::Release => "is released for",
            QueueAction::Route if route.is_empty() => "goes as the DNS says for",
            QueueAction::Route => "goes to the host that was named for",
            _ => "is gone for",
        };
        println!("{} {what} {}.", managed.entry, managed.recipients.join(", "));
    }
    Ok(Verdict::Good)
}

/// Those of an entry whom it concerns.
pub(super) struct Meant {
    pub(super) addresses: Vec<String>,
    users: Vec<bytes::Bytes>,
    /// Of those addresses, those of people outside.
    outside: Vec<String>,
}

impl Meant {
    async fn find(session: &Session, shard: ShardId, entry: EntryId, choice: &Choice) -> anyhow::Result<Self> {
        let asked = pb::GetQueueEntry { entry: entry.0, with_body: false };
        let found = match session.ask(shard.0, Query::GetQueueEntry(asked)).await? {
            Answer::QueueEntry(found) => found,
            Answer::NotFound(_) => bail!("{shard}-{entry} is in no queue"),
            other => bail!("shard {shard} gave an answer to another question: {other:?}"),
        };
        let all: Vec<_> = match choice.failed {
            false => {
                let pending = found.waiting.map(|waiting| waiting.pending).unwrap_or_default();
                pending.into_iter().map(|pending| (pending.address, pending.user_id)).collect()
            }
            true => {
                let failed = found.failed.map(|failed| failed.recipients).unwrap_or_default();
                failed.into_iter().map(|recipient| (recipient.address, recipient.user_id)).collect()
            }
        };
        Self::choose(all, &choice.recipient)
    }

    pub(super) fn choose(all: Vec<(String, bytes::Bytes)>, wanted: &[String]) -> anyhow::Result<Self> {
        for address in wanted {
            ensure!(
                all.iter().any(|(known, _)| known.eq_ignore_ascii_case(address)),
                "{address} is not among the recipients there"
            );
        }
        let is_meant = |address: &str| wanted.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(address));
        let meant: Vec<_> = all.into_iter().filter(|(address, _)| is_meant(address)).collect();
        let is_outside = |user: &bytes::Bytes| user.is_empty();
        let outside = meant.iter().filter(|(_, user)| is_outside(user)).map(|(address, _)| address.clone()).collect();
        let users = meant.iter().filter(|(_, user)| !is_outside(user)).map(|(_, user)| user.clone()).collect();
        let addresses: Vec<String> = meant.into_iter().map(|(address, _)| address).collect();
        ensure!(
            !addresses.is_empty(),
            "nobody stands there; whoever was given up is reached with --failed, whoever waits without"
        );
        Ok(Self { addresses, users, outside })
    }
}

pub(super) async fn propose(
    session: &Session,
    shard: ShardId,
    entry: EntryId,
    meant: &Meant,
    failed: bool,
    action: QueueAction,
    route: &str,
) -> anyhow::Result<()> {
    let remark = |text: &str| text[..text.floor_char_boundary(REMARK_BYTES_MAX)].to_owned();
    let operator = &session.operator;
    ensure!(!operator.why.is_empty(), "--why TEXT is wanted: it is kept with what becomes of the mail");
    let command = pb::Command {
        request: random::<16>(&SystemEntropy).to_vec().into(),
        op: Some(Op::ManageQueue(pb::ManageQueue {
            entry: entry.0,
            user_ids: meant.users.clone(),
            action: action.into(),
            failed,
            by: remark(&operator.name),
            why: remark(&operator.why),
            addresses: meant.outside.clone(),
            route: route.to_owned(),
        })),
        ..pb::Command::default()
    };
    let outcome = session.router.propose(shard, None, command, DEADLINE).await.context("tell the shard")?;
    match outcome.result {
        Some(Made::Done(_)) => Ok(()),
        Some(Made::Refused(refused)) => bail!("shard {shard}: {}", refused.detail),
        other => bail!("shard {shard} gave an outcome of another kind: {other:?}"),
    }
}
