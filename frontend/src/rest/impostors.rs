//! Tokens that open nothing: each one that has the right form costs a question to the directory or to a shard, so a network
//! gets only so many.
//!
//! Invariant: a token that opened something a moment ago is let through, whatever others of its network show.
//! Invariant: what is remembered decides who is asked about, never who is let in: that is the shard's answer.

use std::net::IpAddr;

use bytes::Bytes;
use moka::sync::Cache;
use postrider_api::id::UserId;

use crate::limits::{LimitKind, Limiter};
use crate::network::Network;
use crate::rest::limit::{NOBODY_MAX, NOBODY_REUSE, PROVEN_MAX, PROVEN_REUSE};
use crate::rest::problem::{Kind, Problem};

/// Counts who shows tokens that open nothing. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Impostors {
    limiter: Limiter,
    /// Users that the directory did not know a moment ago. An id is drawn at random when an account is made: nobody can have
    /// asked about it before.
    nobody: Cache<UserId, ()>,
    /// Hashes of tokens that opened something a while ago.
    proven: Cache<Bytes, ()>,
}

impl Impostors {
    /// With a limit for each network.
    pub(crate) fn new(limiter: Limiter) -> Self {
        Self {
            limiter,
            nobody: Cache::builder().max_capacity(NOBODY_MAX).time_to_live(NOBODY_REUSE).build(),
            proven: Cache::builder().max_capacity(PROVEN_MAX).time_to_live(PROVEN_REUSE).build(),
        }
    }

    /// Whether it makes sense to ask about a token now.
    pub(crate) fn admit(&self, token_hash: &Bytes, peer: IpAddr) -> Result<(), Problem> {
        if self.proven.contains_key(token_hash) {
            return Ok(());
        }
        let counters = self.limiter.of_network(LimitKind::BadTokens, Network::of(peer), "");
        self.limiter.check(&counters).map_err(|refused| {
            Problem::limited(Kind::TooManyAttempts, &refused).detail("too many tokens that open nothing")
        })
    }

    /// Whether a token opened something a while ago.
    pub(crate) fn is_proven(&self, token_hash: &Bytes) -> bool {
        self.proven.contains_key(token_hash)
    }

    /// Whether the directory did not know the user a moment ago.
    pub(crate) fn is_nobody(&self, user: UserId) -> bool {
        self.nobody.contains_key(&user)
    }

    /// The directory does not know the user.
    pub(crate) fn remember_nobody(&self, user: UserId) {
        self.nobody.insert(user, ());
    }

    /// The token opened nothing.
    pub(crate) fn count(&self, token_hash: &Bytes, peer: IpAddr) {
        self.proven.invalidate(token_hash);
        self.limiter.count(&self.limiter.of_network(LimitKind::BadTokens, Network::of(peer), ""));
        metrics::counter!("postrider_rest_bad_tokens_total").increment(1);
    }

    /// The token opened something.
    pub(crate) fn prove(&self, token_hash: &Bytes) {
        // Nearly always it is known: looking is cheaper than writing.
        if !self.proven.contains_key(token_hash) {
            self.proven.insert(token_hash.clone(), ());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postrider_api::env::SystemClock;

    use super::*;
    use crate::limits::{Limit, LimitTable};

    #[test]
    fn a_network_that_shows_too_many_waits_but_for_what_is_proven() {
        let limit = Some(Limit { burst: 3, refill: Duration::from_secs(600) });
        let table = LimitTable::default().with(LimitKind::BadTokens, limit);
        let impostors = Impostors::new(Limiter::local(table, [1; 32], SystemClock::shared()));
        let (bad, good) = (Bytes::from_static(b"bad"), Bytes::from_static(b"good"));
        let (here, elsewhere) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        impostors.prove(&good);
        for _ in 0..3 {
            assert!(impostors.admit(&bad, here).is_ok());
            impostors.count(&bad, here);
        }
        assert_eq!(impostors.admit(&bad, here).unwrap_err().kind(), Kind::TooManyAttempts);
        assert!(impostors.admit(&good, here).is_ok());
        assert!(impostors.admit(&bad, elsewhere).is_ok());
        // Proven once is not for ever: a session ends.
        impostors.count(&good, here);
        assert!(impostors.admit(&good, here).is_err());
    }
}
