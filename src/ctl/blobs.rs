//! `ctl blobs`: what the object stores hold for the mailboxes, and the sweeps that look after it (P-11).

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, SweepPhase, SweepTally, command::Op, outcome};
use postrider_router::operate;
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::{Align, Table};

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum About {
    /// Each zone's last sweep and the one that is running.
    Status,
    /// Read every copy, compare it with its hash, restore what is missing or damaged; and delete garbage. Waits until it is done.
    Check {
        /// The residency zone; all of them where it is left out.
        #[arg(long)]
        zone: Option<String>,
    },
    /// Restore what is missing, and delete what nobody refers to. Waits until it is done.
    Sweep {
        /// The residency zone; all of them where it is left out.
        #[arg(long)]
        zone: Option<String>,
    },
}

/// Between two looks at a sweep.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Line {
    zone: String,
    sweep: u64,
    phase: &'static str,
    /// How much of the hashes is done.
    percent: u64,
    started_ms: i64,
    ended_ms: i64,
    /// Of the sweep that is running.
    running: Option<Tally>,
    /// Of the last that came to its end.
    last: Option<Tally>,
}

#[derive(Serialize)]
struct Tally {
    blobs: u64,
    bytes: u64,
    copies_read: u64,
    bytes_read: u64,
    missing: u64,
    damaged: u64,
    restored: u64,
    restored_bytes: u64,
    lost: u64,
    deleted: u64,
    deleted_bytes: u64,
}

pub(super) async fn run(session: &Session, about: &About) -> anyhow::Result<Verdict> {
    match about {
        About::Status => {}
        About::Check { zone } => sweep(session, zone.as_deref(), true).await?,
        About::Sweep { zone } => sweep(session, zone.as_deref(), false).await?,
    }
    let sweeps = sweeps(session).await?;
    let is_whole = sweeps.iter().all(|sweep| sweep.last.as_ref().is_none_or(operate::is_whole));
    let lines: Vec<Line> = sweeps.iter().map(line).collect();
    if session.json {
        session.print_json(&lines)?;
    } else {
        print(&lines);
    }
    Ok(if is_whole { Verdict::Good } else { Verdict::Bad })
}

async fn sweeps(session: &Session) -> anyhow::Result<Vec<pb::Sweep>> {
    let query = pb::query::Query::ListSweeps(pb::ListSweeps {});
    match session.ask(ShardId::PLACEMENT.0, query).await? {
        pb::answer::Answer::Sweeps(sweeps) => Ok(sweeps.sweeps),
        _ => bail!("placement gave an answer of another kind"),
    }
}

/// A sweep of each zone from beginning to end. One that is running is waited for first: it may have passed what is asked about.
async fn sweep(session: &Session, zone: Option<&str>, reads: bool) -> anyhow::Result<()> {
    let mut zones: Vec<String> = session.map().regions.iter().map(|region| region.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    if let Some(zone) = zone {
        ensure!(zones.iter().any(|known| known == zone), "no region is in zone {zone:?}");
        zones.retain(|known| known == zone);
    }
    for zone in zones {
        let number = loop {
            until_ended(session, &zone, 0).await?;
            if let Some(number) = start(session, &zone, reads).await? {
                break number;
            }
        };
        until_ended(session, &zone, number).await?;
    }
    Ok(())
}

/// Begins a sweep; `None` when another began at that moment.
async fn start(session: &Session, zone: &str, reads: bool) -> anyhow::Result<Option<u64>> {
    let command = pb::Command {
        request: random::<16>(&SystemEntropy).to_vec().into(),
        op: Some(Op::StartSweep(pb::StartSweep { zone: zone.to_owned(), reads })),
        ..Default::default()
    };
    let proposed = session.router.propose(ShardId::PLACEMENT, None, command, DEADLINE).await;
    match proposed.with_context(|| format!("begin a sweep of zone {zone}"))?.result {
        Some(outcome::Result::Done(_)) => {}
        Some(outcome::Result::Refused(refused)) if refused.refusal() == pb::Refusal::Conflict => return Ok(None),
        Some(outcome::Result::Refused(refused)) => bail!("begin a sweep of zone {zone}: {}", refused.detail),
        _ => bail!("placement gave an outcome of another kind"),
    }
    let begun = sweeps(session).await?.into_iter().find(|sweep| sweep.zone == zone);
    Ok(Some(begun.context("the sweep was begun, and placement does not know of it")?.number))
}

/// Waits until no sweep of the zone up to this number is running.
async fn until_ended(session: &Session, zone: &str, number: u64) -> anyhow::Result<()> {
    loop {
        let sweep = sweeps(session).await?.into_iter().find(|sweep| sweep.zone == zone);
        let goes_on =
            sweep.is_some_and(|sweep| sweep.phase() != SweepPhase::Ended && (number == 0 || sweep.number <= number));
        if !goes_on {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line(sweep: &pb::Sweep) -> Line {
    let is_running = sweep.phase() != SweepPhase::Ended;
    Line {
        zone: sweep.zone.clone(),
        sweep: sweep.number,
        phase: operate::phase(sweep.phase()),
        percent: if is_running { operate::percent(&sweep.cursor) } else { 100 },
        started_ms: sweep.started_ms,
        ended_ms: sweep.ended_ms,
        running: sweep.tally.filter(|_| is_running).map(tally),
        last: sweep.last.map(tally),
    }
}

fn tally(tally: SweepTally) -> Tally {
    Tally {
        blobs: tally.blobs,
        bytes: tally.bytes,
        copies_read: tally.copies_read,
        bytes_read: tally.bytes_read,
        missing: tally.missing,
        damaged: tally.damaged,
        restored: tally.restored,
        restored_bytes: tally.restored_bytes,
        lost: tally.lost,
        deleted: tally.deleted,
        deleted_bytes: tally.deleted_bytes,
    }
}

fn print(lines: &[Line]) {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("zone", Align::Left),
        ("sweep", right),
        ("phase", Align::Left),
        ("done", right),
        ("blobs", right),
        ("bytes", right),
        ("read", right),
        ("missing", right),
        ("damaged", right),
        ("restored", right),
        ("lost", right),
        ("deleted", right),
    ]);
    for line in lines {
        let shown = line.running.as_ref().or(line.last.as_ref());
        let cell = |value: fn(&Tally) -> u64| shown.map_or_else(|| "-".to_owned(), |tally| value(tally).to_string());
        table.row([
            line.zone.clone(),
            line.sweep.to_string(),
            line.phase.to_owned(),
            format!("{} %", line.percent),
            cell(|tally| tally.blobs),
            cell(|tally| tally.bytes),
            cell(|tally| tally.copies_read),
            cell(|tally| tally.missing),
            cell(|tally| tally.damaged),
            cell(|tally| tally.restored),
            cell(|tally| tally.lost),
            cell(|tally| tally.deleted),
        ]);
    }
    table.print();
}
