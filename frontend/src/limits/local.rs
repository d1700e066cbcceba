//! Counts of this process: in fixed memory, and nobody waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_api::env::Clock;

use crate::limits::{Counter, LimitKind, Limits, Moments, Refused, Wanted, millis};

/// Tables of a kind: of clients, and of sites.
const SCOPES: usize = 2;

/// Counts in this process.
pub(crate) struct LocalLimits {
    clock: Arc<dyn Clock>,
    /// By kind and scope.
    full_at: Vec<Moments>,
}

impl LocalLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, full_at: (0..LimitKind::ALL.len() * SCOPES).map(|_| Moments::new()).collect() }
    }

    /// The table that a counter is in.
    fn table(&self, counter: &Counter) -> &Moments {
        &self.full_at[counter.kind as usize * SCOPES + counter.scope as usize]
    }

    /// Milliseconds of the monotonic clock.
    pub(super) fn now(&self) -> u64 {
        millis(self.clock.monotonic())
    }

    /// [`Limits::take`], which has nothing to wait for here.
    pub(super) fn take_now(&self, wanted: &[Wanted]) -> Result<Vec<Duration>, Refused> {
        let now = self.now();
        let mut before = Vec::with_capacity(wanted.len());
        for (at, Wanted { counter, beyond }) in wanted.iter().enumerate() {
            let rate = &counter.rate;
            let (full_at, counted) = self.table(counter).update(&counter.hash, |full_at| match beyond {
                true => Some(rate.count(full_at, now)),
                false => rate.take(full_at, now),
            });
            let until_full = Duration::from_millis(rate.until_full(full_at, now));
            if !counted {
                wanted[..at].iter().for_each(|taken| self.forget(&taken.counter, now));
                return Err(Refused::by(counter, until_full));
            }
            before.push(until_full);
        }
        Ok(before)
    }

    /// A name that a flood has pushed out of its slot has nothing to be forgotten.
    fn forget(&self, counter: &Counter, now: u64) {
        self.table(counter).update(&counter.hash, |full_at| counter.rate.give_back(full_at, now));
    }
}

#[async_trait]
impl Limits for LocalLimits {
    fn until_full(&self, counter: &Counter) -> Duration {
        let full_at = self.table(counter).get(&counter.hash);
        Duration::from_millis(counter.rate.until_full(full_at, self.now()))
    }

    async fn take(&self, wanted: &[Wanted]) -> Result<Vec<Duration>, Refused> {
        self.take_now(wanted)
    }

    fn count(&self, counter: &Counter) {
        let now = self.now();
        self.table(counter).update(&counter.hash, |full_at| Some(counter.rate.count(full_at, now)));
    }

    fn give_back(&self, counters: &[Counter]) {
        let now = self.now();
        counters.iter().for_each(|counter| self.forget(counter, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limit, LimitTable, Limiter};

    struct Still;

    impl Clock for Still {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(100)
        }
    }

    fn limiter(burst: u32) -> Limiter {
        let limit = Some(Limit { burst, refill: Duration::from_secs(10) });
        let table = LimitKind::ALL.iter().fold(LimitTable::default(), |table, kind| table.with(*kind, limit));
        Limiter::local(table, [7; 32], Arc::new(Still))
    }

    #[tokio::test]
    async fn one_of_each_or_none_of_any() {
        let limiter = limiter(2);
        let named = |name: &str| limiter.of_name(LimitKind::SignUps, name).unwrap();
        limiter.take_all(&[named("a"), named("b")]).await.unwrap();
        limiter.take_all(&[named("b")]).await.unwrap();
        let refused = limiter.take_all(&[named("a"), named("b")]).await.unwrap_err();
        assert_eq!((refused.kind, refused.wait), (LimitKind::SignUps, Duration::from_secs(10)));
        assert_eq!(limiter.until_full(&named("a")), Duration::from_secs(10), "what was taken came back");
        limiter.give_back(&[named("b")]);
        limiter.take_all(&[named("a"), named("b")]).await.unwrap();
    }

    #[test]
    fn a_flood_of_names_makes_nobody_else_wait() {
        let limiter = limiter(1);
        let named = |name: &str| limiter.of_name(LimitKind::WrongPasswordsOfAddress, name).unwrap();
        for n in 0..200_000_u32 {
            limiter.count(&[named(&n.to_string())]);
        }
        // Each slot was counted in three times or so; a table that adds up what meets in a slot would refuse nearly all.
        let refused = (0..1000_u32).filter(|n| limiter.check(&[named(&format!("other {n}"))]).is_err());
        assert_eq!(refused.count(), 0);
    }
}
