//! What the map does not know: it may only be old.
//!
//! Invariant: that a domain or a zone is *not there* is said only from a map that placement has confirmed, by a consistent read
//! that began after the question came. A permanent refusal built on an old map would lose mail.

use std::time::Duration;

use postrider_api::id::{ShardId, Slot, ZoneId};
use postrider_api::pb::{self, answer, query};

use crate::error::RouteError;
use crate::router::{ReadMode, Router};

impl Router {
    /// The residency zone of a domain, in A-labels; `None`: it is none of ours, which placement has confirmed.
    ///
    /// # Errors
    /// When the map does not tell and placement cannot be asked, or the map does not know the domain's zone yet.
    pub async fn zone_of_domain(&self, domain: &str, deadline: Duration) -> Result<Option<ZoneId>, RouteError> {
        if let Some(zone) = self.core.view().zone_of_domain(domain) {
            return Ok(Some(zone));
        }
        self.confirm_map(deadline).await?;
        let view = self.core.view();
        match view.zone_of_domain(domain) {
            Some(zone) => Ok(Some(zone)),
            None if view.map.domains.iter().any(|known| known.name == domain) => Err(RouteError::UnknownShard),
            None => Ok(None),
        }
    }

    /// The directory shard of a zone that answers for a slot; `None`: there is no such zone, which placement has confirmed.
    ///
    /// # Errors
    /// When the map does not tell and placement cannot be asked, or no shard of the zone answers for the slot.
    pub(crate) async fn directory_of(
        &self,
        zone: ZoneId,
        slot: Slot,
        deadline: Duration,
    ) -> Result<Option<ShardId>, RouteError> {
        if let Some(shard) = self.directory_shard(zone, slot) {
            return Ok(Some(shard));
        }
        self.confirm_map(deadline).await?;
        match self.directory_shard(zone, slot) {
            Some(shard) => Ok(Some(shard)),
            None if self.core.view().has_zone(zone) => Err(RouteError::UnknownShard),
            None => Ok(None),
        }
    }

    /// Returns once the map known here is at least as new as placement's was when this was called. One question is under way
    /// at a time, however many ask: what strangers make up costs placement no more.
    async fn confirm_map(&self, deadline: Duration) -> Result<(), RouteError> {
        let asked = self.core.now();
        let until = asked.saturating_add(deadline);
        let late = |_| RouteError::TimedOut { may_have_happened: false };
        let mut confirmed = tokio::time::timeout(deadline, self.core.confirmed.lock()).await.map_err(late)?;
        if confirmed.is_some_and(|at| at >= asked) {
            // Whoever held the lock began to ask after this call came.
            return Ok(());
        }
        let begun = self.core.now();
        let known_version = self.core.view().map.version;
        let query = query::Query::GetShardMap(pb::GetShardMap { known_version });
        let left = until.saturating_sub(begun);
        let answered = self.query(ShardId::PLACEMENT, None, query, ReadMode::Consistent, 0, left).await?;
        let taken = match answered.answer.answer {
            Some(answer::Answer::ShardMap(update)) => self.core.receive(update),
            _ => false,
        };
        // One that begins behind what is known here is nothing that was asked for, either.
        if !taken {
            return Err(RouteError::Malformed { detail: "placement answered something else".to_owned() });
        }
        *confirmed = Some(begun);
        Ok(())
    }
}
