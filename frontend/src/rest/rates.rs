//! How many requests an account gets, in this process only. What one program asks in a loop, the others of the same frontend
//! would wait for.
//!
//! Invariant: only requests under a token that has opened something count, so nobody uses up another's share by naming him.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use postrider_api::env::{Clock, Entropy};
use postrider_api::id::UserId;

use crate::account::attempts::{AccountCounters, Limit};
use crate::rest::administrator::Administrator;
use crate::rest::impostors::Impostors;
use crate::rest::problem::{Kind, Problem};

/// Beside an account's token: the administrator's, whose measurements are not counted.
pub(crate) const ADMIN_TOKEN_FIELD: &str = "postrider-admin-token";

/// Counts requests by account. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rates {
    /// `None`: no limit.
    counters: Option<Arc<AccountCounters>>,
    clock: Arc<dyn Clock>,
    administrator: Administrator,
}

impl Rates {
    /// With one limit for each account.
    pub(crate) fn new(
        limit: Option<Limit>,
        administrator: Administrator,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Self {
        Self { counters: limit.map(|limit| Arc::new(AccountCounters::new(limit, entropy))), clock, administrator }
    }

    /// Lets one more request through, or says when the next one makes sense.
    pub(crate) fn admit(
        &self,
        user: UserId,
        token_hash: &Bytes,
        impostors: &Impostors,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let Some(counters) = &self.counters else { return Ok(()) };
        if !impostors.is_proven(token_hash) || self.administrator.is_named(headers, ADMIN_TOKEN_FIELD) {
            return Ok(());
        }
        match counters.take(user, self.clock.monotonic()) {
            Duration::ZERO => Ok(()),
            wait => Err(Problem::new(Kind::TooManyRequests).retry_after(wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::{SystemClock, SystemEntropy};
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    #[test]
    fn each_account_has_its_share_and_only_who_is_proven_uses_it() {
        let clock = SystemClock::shared();
        let limit = Limit { burst: 2, refill: Duration::from_secs(600) };
        let impostors = Impostors::new(limit, Arc::clone(&clock), &SystemEntropy);
        let rates = Rates::new(Some(limit), Administrator::new(Some("secret")), clock, &SystemEntropy);
        let (ada, bob) = (UserId::new(ZoneId(1), Slot(1), [1; 12]), UserId::new(ZoneId(1), Slot(1), [2; 12]));
        let (proven, made_up) = (Bytes::from_static(&[1; 32]), Bytes::from_static(&[2; 32]));
        impostors.prove(&proven);
        let none = HeaderMap::new();
        let admit = |user, token, headers: &HeaderMap| rates.admit(user, token, &impostors, headers);
        for _ in 0..10 {
            assert!(admit(ada, &made_up, &none).is_ok(), "whoever it is, the shard will say");
        }
        assert!(admit(ada, &proven, &none).is_ok() && admit(ada, &proven, &none).is_ok());
        assert_eq!(admit(ada, &proven, &none).unwrap_err().kind(), Kind::TooManyRequests);
        assert!(admit(bob, &proven, &none).is_ok());
        let with = |token: &str| HeaderMap::from_iter([(ADMIN_TOKEN_FIELD.parse().unwrap(), token.parse().unwrap())]);
        assert!(admit(ada, &proven, &with("secret")).is_ok());
        assert!(admit(ada, &proven, &with("guess")).is_err());
    }
}
