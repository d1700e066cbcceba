//! How many requests an account gets, at all frontends of the region where they count together. What one program asks in a loop, the
//! others would wait for.
//!
//! Invariant: only requests under a token that has opened something count, so nobody uses up another's share by naming him.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use postrider_api::id::UserId;

use crate::limits::{LimitKind, Limiter, RateLimitFields, Wanted};
use crate::rest::administrator::Administrator;
use crate::rest::impostors::Impostors;
use crate::rest::problem::{Kind, Problem};

/// Beside an account's token: the administrator's, whose measurements are not counted.
pub(crate) const ADMIN_TOKEN_FIELD: &str = "postrider-admin-token";

/// Counts requests by account. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rates {
    limiter: Limiter,
    administrator: Administrator,
}

impl Rates {
    /// With one limit for each account.
    pub(crate) fn new(limiter: Limiter, administrator: Administrator) -> Self {
        Self { limiter, administrator }
    }

    /// Lets one more request through and tells what is left, or says when the next one makes sense.
    pub(crate) async fn admit(
        &self,
        user: UserId,
        token_hash: &Bytes,
        impostors: &Impostors,
        headers: &HeaderMap,
    ) -> Result<Option<RateLimitFields>, Problem> {
        let Some(counter) = self.limiter.of_user(LimitKind::Requests, user) else { return Ok(None) };
        if !impostors.is_proven(token_hash) || self.administrator.is_named(headers, ADMIN_TOKEN_FIELD) {
            return Ok(None);
        }
        match self.limiter.take(&[Wanted::within(counter)]).await {
            Ok(before) => Ok(before.first().map(|before| RateLimitFields::after_one(&counter, *before))),
            Err(refused) => Err(Problem::limited(Kind::TooManyRequests, &refused)),
        }
    }
}

/// What the answer to one request will say of its account's limit: written while the request is taken apart.
#[derive(Clone, Default)]
pub(crate) struct Quota(Arc<OnceLock<RateLimitFields>>);

impl Quota {
    /// Notes what is left, for the answer.
    pub(crate) fn note(parts: &Parts, left: Option<RateLimitFields>) {
        if let (Some(quota), Some(left)) = (parts.extensions.get::<Self>(), left) {
            quota.0.get_or_init(|| left);
        }
    }

    /// Writes what was noted. A problem that names a limit has said so already.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.0.get()
            && !headers.contains_key("ratelimit")
        {
            left.write(headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postrider_api::env::SystemClock;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;
    use crate::limits::{Limit, LimitTable};

    #[tokio::test]
    async fn each_account_has_its_share_and_only_who_is_proven_uses_it() {
        let limit = Some(Limit { burst: 2, refill: Duration::from_secs(600) });
        let table = LimitTable::default().with(LimitKind::Requests, limit).with(LimitKind::BadTokens, limit);
        let limiter = Limiter::local(table, [1; 32], SystemClock::shared());
        let impostors = Impostors::new(limiter.clone());
        let rates = Rates::new(limiter, Administrator::new(Some("secret")));
        let (ada, bob) = (UserId::new(ZoneId(1), Slot(1), [1; 12]), UserId::new(ZoneId(1), Slot(1), [2; 12]));
        let (proven, made_up) = (Bytes::from_static(&[1; 32]), Bytes::from_static(&[2; 32]));
        impostors.prove(&proven);
        let none = HeaderMap::new();
        let admit = async |user, token, headers: &HeaderMap| rates.admit(user, token, &impostors, headers).await;
        for _ in 0..10 {
            assert_eq!(admit(ada, &made_up, &none).await.unwrap(), None, "whoever it is, the shard will say");
        }
        assert_eq!(admit(ada, &proven, &none).await.unwrap().unwrap().limit, "\"requests\";r=1;t=600");
        assert_eq!(admit(ada, &proven, &none).await.unwrap().unwrap().limit, "\"requests\";r=0;t=1200");
        assert_eq!(admit(ada, &proven, &none).await.unwrap_err().kind(), Kind::TooManyRequests);
        assert!(admit(bob, &proven, &none).await.is_ok());
        let with = |token: &str| HeaderMap::from_iter([(ADMIN_TOKEN_FIELD.parse().unwrap(), token.parse().unwrap())]);
        assert!(admit(ada, &proven, &with("secret")).await.is_ok());
        assert!(admit(ada, &proven, &with("guess")).await.is_err());
    }
}
