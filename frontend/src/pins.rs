//! Blobs are pinned in the shard that will refer to them, before they are looked for in the object stores (P-11): from then on no
//! sweep deletes them. The shard lets the pin go with the command that it is for; one that will never come is let go of here, and
//! what this process forgets ends by itself (`docs/adr/055-blobs-are-pinned-and-condemned.md`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, Refusal, command::Op, outcome};
use postrider_router::RouteError;
use tokio::time::Instant;

use crate::cluster::Cluster;
use postrider_mime::CutBlob;

/// Between two tries while a sweep is deleting one of the blobs; it takes less than a second in a healthy cluster.
const CONDEMNED_PAUSE: Duration = Duration::from_millis(200);
/// Letting a pin go that nobody waits for.
const UNPIN_PATIENCE: Duration = Duration::from_secs(5);

/// Why blobs are not pinned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// The command would be refused for quota.
    #[error("{0}")]
    QuotaExceeded(String),
    /// A sweep is deleting one of them: try again later.
    #[error("a file of the same content is just being deleted")]
    Condemned,
    /// The shard refuses for another reason: the caller is wrong.
    #[error("the shard refuses to pin blobs: {0}")]
    Refused(String),
    /// The shard was not reached.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// Pins the blobs of a message for the command with this request id. `quota`: whose it will be held against, and by how many bytes.
pub(crate) async fn pin(
    cluster: &dyn Cluster,
    shard: ShardId,
    session: Option<pb::SessionProof>,
    request: &Bytes,
    blobs: Vec<pb::BlobRef>,
    quota: Option<(UserId, u64)>,
    patience: Duration,
) -> Result<(), PinError> {
    let until = Instant::now() + patience;
    let (user_id, size) = quota.map_or((Bytes::new(), 0), |(user, size)| (user.to_bytes(), size));
    let command = pb::Command {
        op: Some(Op::PinBlobs(pb::PinBlobs { request: request.clone(), blobs, user_id, size })),
        ..pb::Command::default()
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let refused = match cluster.propose(shard, session.clone(), command.clone(), left).await?.result {
            Some(outcome::Result::Done(_)) => return Ok(()),
            Some(outcome::Result::Refused(refused)) => refused,
            _ => return Err(PinError::Refused("it answered something else".to_owned())),
        };
        match refused.refusal() {
            Refusal::QuotaExceeded => return Err(PinError::QuotaExceeded(refused.detail)),
            Refusal::BlobCondemned if Instant::now() + CONDEMNED_PAUSE < until => {
                tokio::time::sleep(CONDEMNED_PAUSE).await;
            }
            Refusal::BlobCondemned => return Err(PinError::Condemned),
            _ => return Err(PinError::Refused(refused.detail)),
        }
    }
}

/// The command will not come: its blobs are garbage, unless somebody else refers to them.
pub(crate) fn unpin(cluster: &Arc<dyn Cluster>, shard: ShardId, request: &Bytes) {
    let cluster = Arc::clone(cluster);
    let command =
        pb::Command { op: Some(Op::UnpinBlobs(pb::UnpinBlobs { request: request.clone() })), ..pb::Command::default() };
    tokio::spawn(async move {
        if let Err(error) = cluster.propose(shard, None, command, UNPIN_PATIENCE).await {
            tracing::debug!(%error, shard = shard.0, "a pin ends by itself");
        }
    });
}

/// What is cut out of a message, as a pin names it.
pub(crate) fn of_cut(blobs: &[CutBlob]) -> Vec<pb::BlobRef> {
    let one = |blob: &CutBlob| pb::BlobRef { hash: blob.hash.to_bytes(), bytes: blob.content.len() as u64 };
    sorted(blobs.iter().map(one).collect())
}

/// What a message refers to, as a pin names it.
pub(crate) fn of_message(message: &pb::NewMessage) -> Vec<pb::BlobRef> {
    let cut = message.pieces.iter().filter(|piece| !piece.blob.is_empty());
    sorted(cut.map(|piece| pb::BlobRef { hash: piece.blob.clone(), bytes: piece.blob_length }).collect())
}

/// Each once, in the order of the hashes.
fn sorted(mut blobs: Vec<pb::BlobRef>) -> Vec<pb::BlobRef> {
    blobs.sort_by(|a, b| a.hash.cmp(&b.hash));
    blobs.dedup_by(|a, b| a.hash == b.hash);
    blobs
}
