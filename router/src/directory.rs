//! Who an address is, and where a user is.

use std::time::Duration;

use postrider_api::address::Address;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, answer, query};

use crate::error::RouteError;
use crate::router::{ReadMode, Router};

impl Router {
    /// What the directory holds for an address; `None`: nobody has it. Always a consistent read: a stale "nobody" would
    /// bounce mail.
    ///
    /// # Errors
    /// When the directory shard cannot be read consistently.
    pub async fn look_up(
        &self,
        address: &Address,
        deadline: Duration,
    ) -> Result<Option<pb::AddressRecord>, RouteError> {
        let shard = self.directory_shard(address.slot()).ok_or(RouteError::UnknownShard)?;
        let query = query::Query::LookUpAddress(pb::LookUpAddress { address: address.as_str().to_owned() });
        self.directory_record(shard, query, deadline).await
    }

    /// The shard of a user's mailbox; `None`: there is no such user. Remembered, because users do not move (yet); whoever
    /// finds that the shard does not know him calls [`Router::forget`] and asks again.
    ///
    /// # Errors
    /// When it is not remembered and the directory shard cannot be read consistently.
    pub async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError> {
        if let Some(shard) = self.core.users.get(&user) {
            return Ok(Some(shard));
        }
        let directory = self.directory_shard(user.slot()).ok_or(RouteError::UnknownShard)?;
        let query = query::Query::LocateUser(pb::LocateUser { user_id: user.to_bytes() });
        let Some(record) = self.directory_record(directory, query, deadline).await? else { return Ok(None) };
        let shard = ShardId(record.shard);
        self.core.users.insert(user, shard);
        Ok(Some(shard))
    }

    /// Drops what is remembered about a user's shard.
    pub fn forget(&self, user: UserId) {
        self.core.users.invalidate(&user);
    }

    async fn directory_record(
        &self,
        shard: ShardId,
        query: query::Query,
        deadline: Duration,
    ) -> Result<Option<pb::AddressRecord>, RouteError> {
        let answered = self.query(shard, None, query, ReadMode::Consistent, 0, deadline).await?;
        match answered.answer.answer {
            Some(answer::Answer::Address(record)) => Ok(Some(record)),
            Some(answer::Answer::NotFound(_)) => Ok(None),
            _ => Err(RouteError::Malformed { detail: "the directory answered something else".to_owned() }),
        }
    }
}
