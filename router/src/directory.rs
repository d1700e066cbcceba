//! Who an address is, and where a user is.

use std::time::Duration;

use postrider_api::address::Address;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, answer, query};

use crate::error::RouteError;
use crate::router::{Answered, ReadMode, Router};

impl Router {
    /// What the directory of the address's zone holds for it; `None`: nobody has it. Always a consistent read: a stale "nobody"
    /// would bounce mail.
    ///
    /// # Errors
    /// When the directory shard cannot be read consistently, or the map does not know it (yet).
    pub async fn look_up(
        &self,
        address: &Address,
        deadline: Duration,
    ) -> Result<Option<pb::AddressRecord>, RouteError> {
        let Some(zone) = self.zone_of_domain(address.domain(), deadline).await? else { return Ok(None) };
        let shard = self.directory_shard(zone, address.slot()).ok_or(RouteError::UnknownShard)?;
        let query = query::Query::LookUpAddress(pb::LookUpAddress { address: address.as_str().to_owned() });
        record(self.query(shard, None, query, ReadMode::Consistent, 0, deadline).await?)
    }

    /// The shard of a user's mailbox; `None`: there is no such user. Remembered, because users do not move (yet); whoever
    /// finds that the shard does not know him calls [`Router::forget`] and asks again.
    ///
    /// Where the directory shard has no quorum, a replica that knows the user is believed, so that a frontend which never
    /// met him can still read stale (P-4); one that does not know him is not.
    ///
    /// # Errors
    /// When it is not remembered, and the directory shard cannot be read.
    pub async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError> {
        if let Some(shard) = self.core.users.get(&user) {
            return Ok(Some(shard));
        }
        let Some(directory) = self.directory_of(user.zone(), user.slot(), deadline).await? else { return Ok(None) };
        let query = query::Query::LocateUser(pb::LocateUser { user_id: user.to_bytes() });
        let answered = self.query(directory, None, query, ReadMode::StaleOk, 0, deadline).await?;
        let is_stale = answered.stale_ms.is_some();
        let Some(record) = record(answered)? else {
            // He may have signed up since.
            return if is_stale { Err(RouteError::NoQuorum) } else { Ok(None) };
        };
        let shard = ShardId(record.shard);
        self.core.users.insert(user, shard);
        Ok(Some(shard))
    }

    /// Drops what is remembered about a user's shard.
    pub fn forget(&self, user: UserId) {
        self.core.users.invalidate(&user);
    }
}

fn record(answered: Answered) -> Result<Option<pb::AddressRecord>, RouteError> {
    match answered.answer.answer {
        Some(answer::Answer::Address(record)) => Ok(Some(record)),
        Some(answer::Answer::NotFound(_)) => Ok(None),
        _ => Err(RouteError::Malformed { detail: "the directory answered something else".to_owned() }),
    }
}
