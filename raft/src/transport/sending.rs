//! Sending a snapshot to one member, over as many streams as it takes.

use std::time::Duration;

use openraft::errors::{NetworkError, StreamingError};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::snapshot::Outgoing;
use crate::snapshot::send::{self as read, Piece, Reading};
use crate::transport::network::{BACKOFF_LATER, Network, malformed, rpc_error};
use crate::transport::{Class, LinkError};
use crate::types::{Types, Vote};
use crate::wire::{
    self, InstallAnswer, Progress, ProgressAnswer, SnapshotBlock, SnapshotHead, SnapshotPart, SnapshotTail, answer,
    message, progress_answer, snapshot_part,
};

/// Parts of a snapshot between reading and the network.
const PARTS_AHEAD: usize = 4;
/// Streams in a row that may break without having brought anything.
const FRUITLESS_MAX: u32 = 5;

/// Why a stream ended.
enum Broken {
    /// The state cannot be read: another stream would not help.
    Here(String),
    There(LinkError),
}

/// Where to go on.
enum Next {
    Behind(u64),
    /// Nowhere: it has arrived.
    Installed(InstallAnswer),
}

/// Sends the state of `outgoing` until it is installed, or the peer does not know of it any more.
pub(crate) async fn send(
    network: &Network,
    outgoing: Outgoing,
    vote: Vote,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let idle = Duration::from_millis(network.shared.timings.snapshot_idle_ms);
    let failed = |what: String| StreamingError::Network(NetworkError::from_string(what));
    let _slot = network.shared.sending.acquire().await.map_err(|_| failed("the host is closing".to_owned()))?;
    let reading = read::read(outgoing, network.shared.limits.snapshot_block_bytes)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut head = SnapshotHead {
        from: network.shared.node.0,
        to: network.to.0,
        group: network.group.id.0,
        incarnation: network.group.incarnation.0,
        vote: Some((&vote).into()),
        meta: Some((&reading.meta).into()),
        // No two sendings of a node have the same, also not of two lives of it.
        transfer: rand::random::<u64>().max(1),
        blocks: 0,
    };
    let mut fruitless = 0;
    let answer = loop {
        let broken = match attempt(network, &reading, head.clone(), idle).await {
            Ok(answer) => break answer,
            Err(Broken::Here(error)) => return Err(failed(error)),
            // Nothing has come to a peer that is not there.
            Err(Broken::There(error @ LinkError::Unreachable(_))) if head.blocks == 0 => {
                return Err(rpc_error(error).into());
            }
            Err(Broken::There(error)) => error,
        };
        match next(network, head.transfer, idle).await {
            Some(Next::Installed(answer)) => break answer,
            Some(Next::Behind(blocks)) => {
                fruitless = if blocks > head.blocks { 0 } else { fruitless + 1 };
                if fruitless == FRUITLESS_MAX {
                    return Err(rpc_error(broken).into());
                }
                tracing::info!(group = %network.group.id, to = %network.to, blocks, %broken, "a snapshot goes on");
                metrics::counter!("postrider_raft_snapshot_streams_resumed_total").increment(1);
                head.blocks = blocks;
            }
            None => return Err(rpc_error(broken).into()),
        }
    };
    let vote = wire::read_vote(answer.vote.as_ref()).map_err(malformed)?;
    Ok(SnapshotResponse::new(vote))
}

/// Sends what comes behind the blocks of `head` on a stream of its own.
async fn attempt(
    network: &Network,
    reading: &Reading,
    head: SnapshotHead,
    idle: Duration,
) -> Result<InstallAnswer, Broken> {
    let pieces = reading.pieces(head.blocks).await.map_err(|error| Broken::Here(error.to_string()))?;
    let (parts, feed) = mpsc::channel(PARTS_AHEAD);
    let rate = network.shared.limits.snapshot_bytes_per_s.max(1);
    let feeding = Feeder { parts, idle, rate }.run(head, pieces);
    let installing = network.link.install(feed);
    tokio::pin!(feeding, installing);
    // The peer may refuse while there is still something to send; its answer counts, not that sending failed.
    tokio::select! {
        answer = &mut installing => answer.map_err(Broken::There),
        fed = &mut feeding => match (fed, tokio::time::timeout(idle, &mut installing).await) {
            (Err(error @ Broken::Here(_)), _) => Err(error),
            (_, Ok(answer)) => answer.map_err(Broken::There),
            (Err(error), Err(_)) => Err(error),
            (Ok(()), Err(_)) => Err(Broken::There(LinkError::Lost("no answer in time".to_owned()))),
        }
    }
}

/// Asks the peer what it has of the sending, until it answers; for as long as it keeps it. None when it has nothing, or
/// nothing is heard of it.
async fn next(network: &Network, transfer: u64, idle: Duration) -> Option<Next> {
    let mut until = Instant::now() + idle;
    let limit = Duration::from_millis(network.shared.timings.append_ms);
    loop {
        let asked = network.ask(Class::Control, message::Body::Progress(Progress { transfer }), limit).await;
        match asked {
            Ok(answer::Body::Progress(ProgressAnswer { progress })) => match progress? {
                progress_answer::Progress::Blocks(blocks) => return Some(Next::Behind(blocks)),
                progress_answer::Progress::Installed(answer) => return Some(Next::Installed(answer)),
                progress_answer::Progress::Forgotten(_) => return None,
                progress_answer::Progress::Installing(_) => until = Instant::now() + idle,
            },
            Ok(_) => return None,
            Err(_) => {}
        }
        if Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(BACKOFF_LATER).await;
    }
}

/// Feeds one stream.
struct Feeder {
    parts: mpsc::Sender<SnapshotPart>,
    idle: Duration,
    /// Bytes a second.
    rate: u64,
}

impl Feeder {
    async fn run(self, head: SnapshotHead, mut pieces: mpsc::Receiver<std::io::Result<Piece>>) -> Result<(), Broken> {
        self.send(snapshot_part::Part::Head(head)).await?;
        let started = Instant::now();
        let mut sent_bytes = 0;
        while let Some(piece) = pieces.recv().await {
            match piece.map_err(|error| Broken::Here(error.to_string()))? {
                Piece::Block { rows, checksum } => {
                    sent_bytes += rows.len() as u64;
                    self.send(snapshot_part::Part::Block(SnapshotBlock { rows, checksum })).await?;
                    tokio::time::sleep_until(started + Duration::from_millis(sent_bytes * 1_000 / self.rate)).await;
                }
                Piece::End(total) => {
                    let tail = SnapshotTail {
                        blocks: total.blocks,
                        rows: total.rows,
                        bytes: total.bytes,
                        checksum: total.checksum,
                    };
                    self.send(snapshot_part::Part::Tail(tail)).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, part: snapshot_part::Part) -> Result<(), Broken> {
        let lost = |what: &str| Broken::There(LinkError::Lost(what.to_owned()));
        match tokio::time::timeout(self.idle, self.parts.send(SnapshotPart { part: Some(part) })).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(lost("the peer stopped receiving")),
            Err(_) => Err(lost("the snapshot does not move")),
        }
    }
}
