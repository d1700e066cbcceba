//! Snapshots from peers, installed into the replicas here.

use std::io;
use std::sync::Arc;

use openraft::Snapshot;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{mpsc, oneshot};

use crate::host::Inner;
use crate::ids::{GroupId, Incarnation, NodeId};
use crate::snapshot::SnapshotData;
use crate::snapshot::block::Total;
use crate::snapshot::reception::TransferId;
use crate::snapshot::send::Piece;
use crate::snapshot::spool::Received;
use crate::transport::InstallError;
use crate::types::{SnapshotMeta, Vote};
use crate::wire::{self, InstallAnswer, SnapshotHead, SnapshotPart, SnapshotTail, snapshot_part};

/// Blocks between the network and the spool's thread.
const PIECES_AHEAD: usize = 4;

/// What the head of a snapshot says.
struct Announced {
    group: GroupId,
    incarnation: Incarnation,
    vote: Vote,
    meta: SnapshotMeta,
    id: TransferId,
    blocks: u64,
}

fn read_head(inner: &Inner, head: &SnapshotHead) -> Result<Announced, InstallError> {
    let malformed = |what: &str| InstallError::Malformed(what.to_owned());
    if head.to != inner.options.node.0 {
        return Err(malformed("it is for another node"));
    }
    let vote = wire::read_vote(head.vote.as_ref()).map_err(|error| malformed(error.0))?;
    let meta = head.meta.as_ref().ok_or_else(|| malformed("it does not say of when it is"))?;
    let meta = meta.try_into().map_err(|error: wire::Malformed| malformed(error.0))?;
    let id = TransferId { from: NodeId(head.from), serial: head.transfer };
    let (group, incarnation) = (GroupId(head.group), Incarnation(head.incarnation));
    Ok(Announced { group, incarnation, vote, meta, id, blocks: head.blocks })
}

/// Receives what one stream brings of a snapshot, and installs it if that was its end.
pub(crate) async fn install(
    inner: Arc<Inner>,
    mut parts: mpsc::Receiver<SnapshotPart>,
) -> Result<InstallAnswer, InstallError> {
    let malformed = |what: &str| InstallError::Malformed(what.to_owned());
    let Some(SnapshotPart { part: Some(snapshot_part::Part::Head(head)) }) = parts.recv().await else {
        return Err(malformed("it does not begin with its head"));
    };
    let Announced { group, incarnation, vote, meta, id, blocks } = read_head(&inner, &head)?;
    let replica = inner.replica(group).ok_or(InstallError::UnknownGroup)?;
    if replica.incarnation != incarnation {
        return Err(InstallError::OtherIncarnation);
    }
    let instance = inner.instance(&replica).await.map_err(InstallError::Failed)?;
    if instance.raft.metrics().borrow_watched().vote > vote {
        // What another leader sends now must not make way for it.
        return Err(InstallError::Failed("there is a newer leader".to_owned()));
    }
    if !replica.wake(&inner, &instance) {
        return Err(InstallError::Failed("consensus was taken down in this moment".to_owned()));
    }
    let (mut turn, before) = match blocks {
        0 => (inner.receptions.begin(group, id).await?, None),
        blocks => {
            let (turn, partial) = inner.receptions.resume(group, id, blocks).await?;
            (turn, Some(partial))
        }
    };

    let installer = inner.state.installer.clone();
    let (feed, pieces) = mpsc::channel(PIECES_AHEAD);
    let (spool, folder, announced) = (installer.spool.clone(), installer.folder(group), meta.clone());
    let spooling = tokio::task::spawn_blocking(move || {
        let partial = match before {
            Some(partial) => partial,
            None => spool.begin(group, announced, &folder)?,
        };
        spool.receive(partial, pieces)
    });
    let fed = feed_pieces(&mut parts, feed, &mut turn.cut).await;
    let received = spooling.await.map_err(|error| InstallError::Failed(error.to_string()))?;
    let spooled = match (received, fed) {
        (Ok(Received::Whole(spooled)), _) => spooled,
        (Ok(Received::Part(partial)), Ok(())) => {
            tracing::info!(%group, blocks = partial.blocks(), "the stream of a snapshot broke");
            inner.receptions.keep(group, turn, partial).await;
            return Err(InstallError::Interrupted);
        }
        (Ok(Received::Part(_)), Err(error)) => return Err(error),
        (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed(&error.to_string())),
        (Err(error), _) => return Err(InstallError::Failed(error.to_string())),
    };
    turn.whole();
    tracing::info!(%group, applied = ?meta.last_log_id, "received a snapshot");
    let snapshot = Snapshot { meta, snapshot: SnapshotData::Spooled(Box::new(spooled)) };
    let installed = instance.raft.install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|error| InstallError::Failed(error.to_string()))?;
    replica.hear();
    let answer = InstallAnswer { vote: Some((&response.vote).into()) };
    inner.receptions.finish(group, turn, answer);
    Ok(answer)
}

/// Passes on what comes, until its end, or the stream's.
async fn feed_pieces(
    parts: &mut mpsc::Receiver<SnapshotPart>,
    feed: mpsc::Sender<io::Result<Piece>>,
    cut: &mut oneshot::Receiver<()>,
) -> Result<(), InstallError> {
    loop {
        let part = tokio::select! {
            part = parts.recv() => part,
            _ = &mut *cut => None,
        };
        let piece = match part.map(|part| part.part) {
            None => return Ok(()),
            Some(Some(snapshot_part::Part::Block(block))) => {
                Piece::Block { rows: block.rows, checksum: block.checksum }
            }
            Some(Some(snapshot_part::Part::Tail(tail))) => {
                let SnapshotTail { blocks, rows, bytes, checksum } = tail;
                // Its end: what comes of the stream now is of no interest.
                drop(feed.send(Ok(Piece::End(Total { blocks, rows, bytes, checksum }))).await);
                return Ok(());
            }
            Some(Some(snapshot_part::Part::Head(_)) | None) => {
                return Err(InstallError::Malformed("a part of no kind".to_owned()));
            }
        };
        if feed.send(Ok(piece)).await.is_err() {
            // The spool has ended with an error that it tells itself.
            return Ok(());
        }
    }
}
