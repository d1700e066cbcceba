//! Reads everything back once the load is over, and has the cluster look at itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::books::{Attempt, Balance, Outcome, Shown, Way};
use super::load::{Notes, Plan, message};
use super::rest::{Rest, counts, text_of};
use super::steer::Ctl;
use super::timeline::Timeline;
use crate::ctl::session::Session;

/// How long what was acknowledged may take from a queue to its mailbox: the lease of a worker that was killed lapses after 30 s, and then
/// there may be many.
const ARRIVAL_MAX: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(500);
/// Messages that are read at a time.
const READS_AT_A_TIME: usize = 8;
/// Differences that are told in words.
const TOLD_MAX: usize = 5;

/// The balance of the load, from every message that anybody has.
pub(super) async fn read_back(plan: &Plan, notes: &Notes, rest: &Rest, timeline: &Timeline) -> anyhow::Result<Balance> {
    let bases: Vec<String> = plan.regions.iter().map(|region| region.rest.clone()).collect();
    let until = Instant::now() + ARRIVAL_MAX;
    let mut shown = Vec::with_capacity(plan.mailboxes.len());
    for (at, mailbox) in plan.mailboxes.iter().enumerate() {
        let rows = loop {
            let rows = rest.list(&bases, mailbox).await.with_context(|| format!("read back {}", mailbox.address))?;
            let have = Shown { copies: counts(&rows), ..Shown::default() };
            if Balance::lacking(&notes.attempts, at, &have).is_empty() || Instant::now() > until {
                break rows;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let mut have = Shown { copies: counts(&rows), ..Shown::default() };
        let wanted = notes.attempts.iter().filter(|a| a.mailbox == at && a.outcome == Outcome::Acknowledged);
        let looked: Vec<(String, bool)> = stream::iter(wanted)
            .map(|attempt| is_whole(rest, &bases, plan, attempt, &rows))
            .buffer_unordered(READS_AT_A_TIME)
            .collect()
            .await;
        have.damaged = looked.into_iter().filter(|(_, whole)| !whole).map(|(token, _)| token).collect();
        shown.push(have);
    }
    let balance = Balance::of(&notes.attempts, &shown, &notes.unseen);
    for (what, tokens) in [("missing", &balance.missing), ("twice", &balance.twice), ("hidden", &balance.hidden)] {
        if !tokens.is_empty() {
            let some = tokens.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
            timeline.note(format!("{} {what}, {some} among them", tokens.len()));
        }
    }
    Ok(balance)
}

/// Whether a message that was acknowledged has the bytes that were sent. One that is not listed is no damaged one.
async fn is_whole(
    rest: &Rest,
    bases: &[String],
    plan: &Plan,
    attempt: &Attempt,
    rows: &BTreeMap<String, Vec<String>>,
) -> (String, bool) {
    let token = attempt.token.clone();
    let place = rows.get(&token).and_then(|ids| ids.first()).zip(plan.mailboxes.get(attempt.mailbox));
    let Some((id, mailbox)) = place else { return (token, true) };
    // A message whose bytes cannot be read is like one with others.
    let Ok(raw) = rest.raw(bases, mailbox, id).await else { return (token, false) };
    let whole = match attempt.way {
        // Below the trace fields, byte for byte.
        Way::Smtp => raw.ends_with(&message(&mailbox.address, &token, attempt.attached)),
        Way::Rest => String::from_utf8_lossy(&raw).contains(&text_of(&token)),
    };
    (token, whole)
}

/// Whether `verify` finds nothing, and whether all replicas of every shard hold the same.
pub(super) async fn look_within(session: &Session, ctl: &Ctl, timeline: &Timeline) -> (bool, bool) {
    let verified = match ctl.differences().await {
        Ok(differences) => {
            for line in differences.iter().take(TOLD_MAX) {
                timeline.note(format!("verify: {line}"));
            }
            differences.is_empty()
        }
        Err(error) => {
            timeline.note(format!("verify: {error:#}"));
            false
        }
    };
    let mut equal = true;
    for shard in &session.map().shards {
        match ctl.is_equal(shard.id, shard.replicas.len()).await {
            Ok(true) => {}
            Ok(false) => {
                timeline.note(format!("shard {}: its replicas differ", shard.id));
                equal = false;
            }
            Err(error) => {
                timeline.note(format!("shard {}: {error:#}", shard.id));
                equal = false;
            }
        }
    }
    (verified, equal)
}
