//! Counts of all frontends of a region, in its Redis; and of this process beside them.
//!
//! Invariant: this process's own count comes first. What it refuses costs no question; what it lets through is counted in the
//! region as well, in one round trip, whose answer can only refuse; and where that does not come in time, its own count stands.
//! Invariant: one bucket is one key, changed by one script that Redis runs as a whole, by the clock of Redis.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use moka::sync::Cache;
use postrider_api::env::Clock;
use redis::{Script, cmd};
use tokio::sync::Semaphore;

use crate::cache::{AskError, BACKGROUND_WAIT_MAX, LIMIT_WAIT_MAX, RedisLink};
use crate::limits::local::LocalLimits;
use crate::limits::{Counter, Limits, Refused, Scope, Wanted};

/// Counts on their way for which nobody waits; what is more is counted in this process only.
const BACKGROUND_MAX: usize = 1_024;
/// Counters that were full in the region a moment ago, remembered.
const FULL_MAX: u64 = 10_000;
/// How long Redis is not asked about them again: a flood costs a question a second and no more.
const FULL_REUSE: Duration = Duration::from_secs(1);
/// Version of keys and of what lies under them.
const FORMAT_VERSION: u8 = 1;

/// Redis's clock: frontends need not agree on one.
const NOW: &str = "local t = redis.call('TIME')\nlocal now = t[1] * 1000 + math.floor(t[2] / 1000)\n";
const GCRA: &str = include_str!("gcra.lua");

static SCRIPT: LazyLock<(String, String)> = LazyLock::new(|| {
    let text = format!("{NOW}{GCRA}");
    let hash = Script::new(&text).get_hash().to_owned();
    (text, hash)
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Take,
    Count,
    GiveBack,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Count => "count",
            Self::GiveBack => "give_back",
        }
    }
}

/// Counts with others.
pub(crate) struct SharedLimits {
    local: LocalLimits,
    region: Region,
    /// When a bucket of the region will be full, milliseconds of the monotonic clock.
    full_at: Cache<[u8; 32], u64>,
    background: Arc<Semaphore>,
}

impl SharedLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>, link: Arc<RedisLink>) -> Self {
        Self {
            local: LocalLimits::new(clock),
            region: Region { link },
            full_at: Cache::builder().max_capacity(FULL_MAX).time_to_live(FULL_REUSE).build(),
            background: Arc::new(Semaphore::new(BACKGROUND_MAX)),
        }
    }

    /// What the region said a moment ago.
    fn remembered(&self, counter: &Counter) -> Duration {
        let full_at = self.full_at.get(&counter.hash).unwrap_or_default();
        Duration::from_millis(counter.rate.until_full(full_at, self.local.now()))
    }

    fn remember(&self, counter: &Counter, until_full: Duration) {
        self.full_at.insert(counter.hash, self.local.now().saturating_add(super::millis(until_full)));
    }

    /// Nobody waits for it.
    fn in_background(&self, counters: &[Counter], step: Step) {
        for counter in counters {
            let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else { return };
            let (region, counter, full_at) = (self.region.clone(), *counter, self.full_at.clone());
            let now = self.local.now();
            tokio::spawn(async move {
                let before = region.step(&counter, step, BACKGROUND_WAIT_MAX).await;
                if let Some(before) = before
                    && step == Step::Count
                    && !counter.wait(before + counter.limit.refill).is_zero()
                {
                    full_at.insert(counter.hash, now.saturating_add(super::millis(before + counter.limit.refill)));
                }
                drop(permit);
            });
        }
    }
}

#[async_trait]
impl Limits for SharedLimits {
    fn until_full(&self, counter: &Counter) -> Duration {
        self.local.until_full(counter).max(self.remembered(counter))
    }

    async fn take(&self, wanted: &[Wanted]) -> Result<Vec<Duration>, Refused> {
        for Wanted { counter, .. } in wanted.iter().filter(|wanted| !wanted.beyond) {
            let until_full = self.remembered(counter);
            if !counter.wait(until_full).is_zero() {
                return Err(Refused::by(counter, until_full));
            }
        }
        let local = self.local.take_now(wanted)?;
        // One round trip: they are written one behind the other, and none waits for another's answer.
        let asked = wanted.iter().map(|Wanted { counter, beyond }| {
            let step = if *beyond { Step::Count } else { Step::Take };
            self.region.step(counter, step, LIMIT_WAIT_MAX)
        });
        let region = join_all(asked).await;
        let refused = wanted.iter().zip(&region).find_map(|(Wanted { counter, beyond }, before)| {
            let before = before.filter(|before| !beyond && !counter.wait(*before).is_zero())?;
            Some((counter, before))
        });
        if let Some((counter, until_full)) = refused {
            self.remember(counter, until_full);
            let all: Vec<Counter> = wanted.iter().map(|wanted| wanted.counter).collect();
            self.local.give_back(&all);
            // Only what the region has counted of them.
            let counted = wanted.iter().zip(&region).filter(|(Wanted { counter, beyond }, before)| {
                before.is_some_and(|before| *beyond || counter.wait(before).is_zero())
            });
            let counted: Vec<Counter> = counted.map(|(wanted, _)| wanted.counter).collect();
            self.in_background(&counted, Step::GiveBack);
            return Err(Refused::by(counter, until_full));
        }
        let longer = |(local, region): (Duration, Option<Duration>)| local.max(region.unwrap_or_default());
        Ok(local.into_iter().zip(region).map(longer).collect())
    }

    fn count(&self, counter: &Counter) {
        self.local.count(counter);
        self.in_background(&[*counter], Step::Count);
    }

    fn give_back(&self, counters: &[Counter]) {
        self.local.give_back(counters);
        for counter in counters {
            // There is room again, whatever was said a moment ago.
            self.full_at.invalidate(&counter.hash);
        }
        self.in_background(counters, Step::GiveBack);
    }
}

/// The buckets in Redis. Cheap to clone.
#[derive(Clone)]
struct Region {
    link: Arc<RedisLink>,
}

impl Region {
    /// In which time the bucket would have been full before this step; `None`: nobody knows.
    async fn step(&self, counter: &Counter, step: Step, wait: Duration) -> Option<Duration> {
        let (text, hash) = &*SCRIPT;
        let known = self.evaluate(("EVALSHA", hash), counter, step, wait).await;
        let before = match known {
            // A Redis that was started anew: from now on it knows.
            Err(AskError::NoScript) => self.evaluate(("EVAL", text), counter, step, wait).await,
            known => known,
        };
        let before = u64::try_from(before.ok()?).ok()?;
        // What no bucket of ours can say is not believed.
        Some(Duration::from_millis(counter.rate.until_full(before, 0)))
    }

    async fn evaluate(
        &self,
        (command, script): (&str, &str),
        counter: &Counter,
        step: Step,
        wait: Duration,
    ) -> Result<i64, AskError> {
        let mut evaluate = cmd(command);
        evaluate.arg(script).arg(1).arg(key(counter)).arg(step.word());
        evaluate.arg(counter.rate.refill_ms).arg(counter.rate.may_spend_ms).arg(counter.rate.ahead_max_ms);
        self.link.write(&evaluate, wait).await
    }
}

/// Nobody learns from it who is counted.
fn key(counter: &Counter) -> String {
    let scope = match counter.scope {
        Scope::Own => "l",
        Scope::Site => "s",
    };
    format!("postrider:{FORMAT_VERSION}:{scope}:{}", hex::encode(&counter.hash[..16]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Instant;

    use postrider_api::env::SystemClock;
    use proptest::prelude::*;
    use redis::{Client, Connection};

    use super::*;
    use crate::cache::{RedisServer, RedisSettings};
    use crate::limits::gcra::Rate;
    use crate::limits::{Limit, LimitKind, LimitTable, Limiter};

    /// The script at a clock of the test's.
    fn script() -> Script {
        Script::new(&format!("local now = tonumber(ARGV[5])\n{GCRA}"))
    }

    fn connection(server: &RedisServer) -> Connection {
        Client::open(server.address()).unwrap().get_connection().unwrap()
    }

    fn run(connection: &mut Connection, script: &Script, key: &str, step: Step, rate: &Rate, now: u64) -> u64 {
        let mut run = script.prepare_invoke();
        run.key(key).arg(step.word()).arg(rate.refill_ms).arg(rate.may_spend_ms).arg(rate.ahead_max_ms).arg(now);
        run.invoke(connection).unwrap()
    }

    /// The same in this process: the moment before, and the one after.
    fn local(step: Step, rate: &Rate, full_at: u64, now: u64) -> (u64, u64) {
        let after = match step {
            Step::Take => rate.take(full_at, now),
            Step::Count => Some(rate.count(full_at, now)),
            Step::GiveBack => rate.give_back(full_at, now),
        };
        (rate.until_full(full_at, now), after.unwrap_or(full_at))
    }

    #[test]
    fn the_script_and_this_process_count_alike() {
        let server = RedisServer::start();
        let connection = std::cell::RefCell::new(connection(&server));
        let script = script();
        let run_of = std::cell::Cell::new(0_u64);
        // Long times: what lies in Redis expires by its own clock, which the test's does not move.
        let times = (1..30_u32, 1..500_u64, prop::collection::vec((0..5_u8, 0..700_u64), 1..60));
        proptest!(ProptestConfig::with_cases(200), |((burst, refill, steps) in times)| {
            const SCALE: u64 = 1_000_000;
            run_of.set(run_of.get() + 1);
            let key = format!("bucket {}", run_of.get());
            let rate = Rate::of(Limit { burst, refill: Duration::from_millis(refill * SCALE) });
            let (mut now, mut full_at) = (1_700_000_000_000, 0);
            for (step, passes) in steps {
                now += passes * SCALE;
                let step = match step {
                    0..=2 => Step::Take,
                    3 => Step::Count,
                    _ => Step::GiveBack,
                };
                let (before, after) = local(step, &rate, full_at, now);
                prop_assert_eq!(run(&mut connection.borrow_mut(), &script, &key, step, &rate, now), before);
                full_at = after;
            }
        });
    }

    #[test]
    fn refusals_put_no_expiry_off_and_nothing_lies_for_ever() {
        let server = RedisServer::start();
        let mut connection = connection(&server);
        let script = Script::new(&SCRIPT.0);
        let rate = Rate::of(Limit { burst: 3, refill: Duration::from_secs(1_000) });
        let mut step = |key: &str, step| run(&mut connection, &script, key, step, &rate, 0);
        let expiry = |key: &str| server.cli(&["PEXPIRETIME", key]).parse::<i64>().unwrap();
        for _ in 0..3 {
            step("taken", Step::Take);
        }
        let before = expiry("taken");
        for _ in 0..500 {
            assert!(step("taken", Step::Take) > rate.may_spend_ms, "it is refused");
        }
        assert_eq!(expiry("taken"), before);
        for _ in 0..500 {
            step("counted", Step::Count);
        }
        let left = |key: &str| server.cli(&["PTTL", key]).parse::<u64>().unwrap();
        assert!(left("counted") <= rate.ahead_max_ms, "{}", left("counted"));
        // What others wrote is no bucket: it counts as none, whatever it says, and it expires from then on.
        for lie in ["99999999999999999999", "inf", "nan", "-inf", "-5", "0x7fffffffffffffff", "no number", ""] {
            server.cli(&["SET", "lie", lie]);
            assert_eq!(step("lie", Step::Take), 0, "{lie}");
            assert!(left("lie") <= rate.refill_ms, "{lie}");
        }
        step("lie", Step::GiveBack);
        assert_eq!(server.cli(&["EXISTS", "lie"]), "0", "an empty bucket's key is none");
    }

    async fn limits(server: &RedisServer) -> Arc<SharedLimits> {
        let link = RedisLink::start(&RedisSettings::single(server.address())).unwrap();
        let begun = Instant::now();
        while !link.is_up() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Arc::new(SharedLimits::new(SystemClock::shared(), link))
    }

    fn limiter(limits: &Arc<SharedLimits>, burst: u32) -> Limiter {
        let limit = Some(Limit { burst, refill: Duration::from_secs(600) });
        let table = LimitKind::ALL.iter().fold(LimitTable::default(), |table, kind| table.with(*kind, limit));
        Limiter::over(table, [1; 32], Arc::clone(limits) as _)
    }

    /// Until Redis answers in time: the machine may be loaded, and what is late counts as unknown.
    async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !is_so().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "never");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn frontends_count_together() {
        let server = RedisServer::start();
        let (here, there) = (limiter(&limits(&server).await, 5), limiter(&limits(&server).await, 5));
        let counter = here.of_name(LimitKind::SignUps, "ada").unwrap();
        let mut taken = 0;
        // Each alone would let five through. One whose answer was late may be counted here only.
        for limiter in [&here, &there].into_iter().cycle().take(40) {
            taken += u32::from(limiter.take_all(&[counter]).await.is_ok());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!((5..=10).contains(&taken), "{taken}");
        let bucket = || server.cli(&["GET", &key(&counter)]);
        assert_ne!(bucket(), "");
        // What one gives back is there for the others.
        here.give_back(&vec![counter; 5]);
        eventually(async || there.take_all(&[counter]).await.is_ok()).await;
        // Counts for which nobody waits are seen by the others, too.
        let flooded = here.of_name(LimitKind::BadTokens, "eve").unwrap();
        here.count(&vec![flooded; 10]);
        eventually(async || there.take_all(&[flooded]).await.is_err()).await;
        assert!(there.check(&[flooded]).is_err(), "and remembered");
        assert!(!server.cli(&["KEYS", "*"]).contains("ada"));
    }

    #[tokio::test]
    async fn what_this_process_refuses_costs_no_question_and_one_that_others_refuse_one_a_second() {
        let server = RedisServer::start();
        let (here, there) = (limiter(&limits(&server).await, 2), limiter(&limits(&server).await, 2));
        let counter = here.of_name(LimitKind::SignUps, "ada").unwrap();
        let questions = || server.calls("evalsha") + server.calls("eval");
        while here.take_all(&[counter]).await.is_ok() {}
        let before = questions();
        for _ in 0..1_000 {
            assert!(here.take_all(&[counter]).await.is_err());
        }
        assert_eq!(questions(), before);
        // The other has none of its own against it.
        eventually(async || there.take_all(&[counter]).await.is_err()).await;
        let (before, begun) = (questions(), Instant::now());
        while begun.elapsed() < Duration::from_secs(3) {
            there.take_all(&[counter]).await.ok();
        }
        // With what it gave back to the region each time.
        assert!(questions() - before <= 16, "{}", questions() - before);
    }

    #[tokio::test]
    async fn without_redis_this_process_goes_on_alone() {
        let mut server = RedisServer::start();
        let shared = limits(&server).await;
        let limiter = limiter(&shared, 100);
        let counter = limiter.of_name(LimitKind::SignUps, "ada").unwrap();
        server.stop();
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let asked = Instant::now();
            limiter.take_all(&[counter]).await.unwrap();
            slowest = slowest.max(asked.elapsed());
        }
        assert!(limiter.take_all(&[counter]).await.is_err(), "its own limit holds");
        // Only until the breaker opens does anybody wait: generous, for the machine may be loaded.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}, slowest {slowest:?}", begun.elapsed());
        assert!(!shared.region.link.is_up());
        server.go_on();
        eventually(async || shared.region.link.is_up()).await;
        server.kill();
        let other = limiter.of_name(LimitKind::SignUps, "bob").unwrap();
        for _ in 0..10 {
            limiter.take_all(&[other]).await.unwrap();
        }
        eventually(async || !shared.region.link.is_up()).await;
        server.start_again();
        eventually(async || shared.region.link.is_up()).await;
        // It knows no script and no count.
        limiter.take_all(&[other]).await.unwrap();
        eventually(async || {
            limiter.take_all(&[other]).await.ok();
            server.cli(&["EXISTS", &key(&other)]) == "1"
        })
        .await;
    }

    #[tokio::test]
    async fn keys_are_hashes_and_no_two_the_same() {
        let local = Limiter::local(LimitTable::default(), [1; 32], SystemClock::shared());
        let network = crate::network::Network::of("2001:db8::1".parse().unwrap());
        let mut keys = HashSet::new();
        for kind in LimitKind::ALL {
            keys.extend(local.of_network(*kind, network, "").iter().map(key));
        }
        assert_eq!(keys.len(), 2 * LimitKind::ALL.len());
    }
}
