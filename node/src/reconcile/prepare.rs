//! What has to be where a shard's new replicas are before they count.
//!
//! Rows come with the group's log. What rows refer to and consensus does not carry, blobs, has to be durable in the new replicas'
//! regions before the old replicas, and their regions, may go (P-11).

use futures::future::BoxFuture;
use postrider_api::id::ShardId;

/// Makes it so.
pub(crate) trait Preparation: Send + Sync {
    /// Returns when everything that the shard's rows refer to is durable in `regions`, too. Called by the shard's leader when the new
    /// replicas have caught up and do not vote yet; again when it has failed, and by the next leader: it must know by itself what is
    /// done already.
    ///
    /// # Errors
    /// A sentence for the operator: why it cannot be done now.
    fn prepare(&self, shard: ShardId, regions: Vec<String>) -> BoxFuture<'_, Result<(), String>>;
}
