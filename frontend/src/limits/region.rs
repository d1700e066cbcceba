//! Which workers a region has, as its Redis knows them: each has its part of what a destination takes from all of them (ADR 117).
//!
//! Nobody asks for each message. A worker says every few seconds that it is there, learns who else is, and reckons its part of every
//! destination from that.
//!
//! Invariant: all workers of a region together never have more than a destination's limit, as long as they reckon from a list that all of them
//! have seen. So each takes the least of what its last lists give it, and one that is new waits until the others know of it.
//! Invariant: while there is no Redis nobody's part grows: what was known last holds.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_outgoing::destination::Turns;
use postrider_outgoing::dns::Domain;
use redis::{Script, cmd};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::{AskError, BACKGROUND_WAIT_MAX, RedisLink, RedisSettings, SettingsError};

/// How often a worker says that it is there.
const BEAT: Duration = Duration::from_secs(3);
/// One that has not said so for this long has gone.
const GONE_MS: u64 = 15_000;
/// Lists that are kept, and that a worker has before it takes its part: between the first and the last of them all others have asked for one,
/// and have given back what they had more before, connections that only wait with it (`postrider_outgoing`: ten seconds).
const LISTS: usize = 6;
/// How long a new worker waits for a Redis before it goes on without one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Workers of a region that are told apart.
const WORKERS_MAX: usize = 1000;
/// Version of the key and of what lies under it.
const KEY: &str = "postrider:1:workers";

/// By the clock of Redis. KEYS[1]: who is there, by when he will have gone. ARGV: who says so, after which time he will have, how many are
/// listed.
const SCRIPT: &str = "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1)
";
static HASH: LazyLock<String> = LazyLock::new(|| Script::new(SCRIPT).get_hash().to_owned());

/// The workers of a region, as one of them sees them.
pub struct RegionWorkers {
    seen: Arc<Seen>,
    _stop: DropGuard,
}

struct Seen {
    /// Drawn by chance: nobody else has it.
    name: String,
    link: Arc<RedisLink>,
    since: Instant,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    /// The last ones, each sorted, the newest last.
    last: VecDeque<Vec<String>>,
    /// When the newest came.
    at: Option<Instant>,
}

impl RegionWorkers {
    /// Over a Redis of its own way there. To be called within a runtime.
    ///
    /// # Errors
    /// When the settings cannot be used, whatever Redis says.
    pub fn start(settings: &RedisSettings) -> Result<Self, SettingsError> {
        Ok(Self::over(RedisLink::start(settings)?))
    }

    pub(crate) fn over(link: Arc<RedisLink>) -> Self {
        let name = hex::encode(rand_name());
        let seen = Arc::new(Seen { name, link, since: Instant::now(), lists: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(beat(Arc::clone(&seen))));
        Self { seen, _stop: stop.drop_guard() }
    }
}

impl Turns for RegionWorkers {
    fn part(&self, destination: &Domain, limit: u32) -> u32 {
        self.seen.part(destination, limit)
    }
}

async fn beat(seen: Arc<Seen>) {
    loop {
        match seen.ask().await {
            Ok(list) => seen.learn(list),
            Err(error) => tracing::debug!(?error, "the region's workers are not known anew"),
        }
        tokio::time::sleep(BEAT).await;
    }
}

impl Seen {
    async fn ask(&self) -> Result<Vec<String>, AskError> {
        match self.evaluate("EVALSHA", &HASH).await {
            Err(AskError::NoScript) => self.evaluate("EVAL", SCRIPT).await,
            asked => asked,
        }
    }

    async fn evaluate(&self, command: &str, script: &str) -> Result<Vec<String>, AskError> {
        let mut evaluate = cmd(command);
        evaluate.arg(script).arg(1).arg(KEY).arg(&self.name).arg(GONE_MS).arg(WORKERS_MAX);
        self.link.write(&evaluate, BACKGROUND_WAIT_MAX).await
    }

    fn learn(&self, mut list: Vec<String>) {
        list.sort_unstable();
        metrics::gauge!("postrider_outgoing_region_workers").set(list.len() as f64);
        let mut lists = self.lists.lock();
        lists.last.push_back(list);
        if lists.last.len() > LISTS {
            lists.last.pop_front();
        }
        lists.at = Some(Instant::now());
    }

    fn part(&self, destination: &Domain, limit: u32) -> u32 {
        let lists = self.lists.lock();
        if lists.last.len() < LISTS {
            // Nobody knows of this one yet. Mail does not wait for a Redis for ever.
            return u32::from(self.since.elapsed() >= PATIENCE).min(limit);
        }
        // It stood still, and Redis did not: the others take it for gone.
        let is_stale = lists.at.is_none_or(|at| at.elapsed() >= Duration::from_millis(GONE_MS));
        if is_stale && self.link.is_up() {
            return 0;
        }
        let parts = lists.last.iter().map(|list| part(list, &self.name, destination, limit));
        parts.min().unwrap_or(0)
    }
}

/// What one of the listed workers has of `limit`. What is left over when it is divided goes to other workers at each destination.
fn part(list: &[String], name: &str, destination: &Domain, limit: u32) -> u32 {
    let Ok(place) = list.binary_search_by(|known| known.as_str().cmp(name)) else { return 0 };
    let count = list.len() as u64;
    let (each, over) = (u64::from(limit) / count, u64::from(limit) % count);
    let hash = blake3::hash(destination.as_str().as_bytes());
    let turn = hash.as_bytes()[..8].iter().fold(0, |turn, byte| (turn << 8) | u64::from(*byte));
    // Neither is above `limit`.
    (each + u64::from((place as u64 + turn % count) % count < over)) as u32
}

fn rand_name() -> [u8; 16] {
    postrider_api::env::random(&*postrider_api::env::SystemEntropy::shared())
}

#[cfg(test)]
mod sink;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::RedisServer;

    fn far(n: u32) -> Domain {
        format!("far{n}.example").parse().expect("a domain")
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{n:04}")).collect()
    }

    #[test]
    fn parts_are_the_whole_and_go_round() {
        for count in [1, 2, 3, 7, 19, 20, 21, 34, 100] {
            let list = names(count);
            let mut all = vec![0; count];
            for n in 0..200 {
                let parts: Vec<u32> = list.iter().map(|name| part(&list, name, &far(n), 20)).collect();
                assert_eq!(parts.iter().sum::<u32>(), 20);
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{parts:?}");
                all.iter_mut().zip(parts).for_each(|(all, part)| *all += part);
            }
            assert!(all.iter().all(|all| *all > 0), "each has a part somewhere: {all:?}");
        }
        assert_eq!(part(&names(3), "nobody", &far(0), 20), 0);
    }

    pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(120), "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn sum(workers: &[RegionWorkers], n: u32) -> u32 {
        workers.iter().map(|worker| worker.part(&far(n), 20)).sum()
    }

    fn start(server: &RedisServer) -> RegionWorkers {
        RegionWorkers::start(&RedisSettings::single(server.address())).expect("usable settings")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_workers_of_a_region_never_have_more_than_a_limit_whatever_becomes_of_redis() {
        let mut server = RedisServer::start();
        let mut workers: Vec<_> = (0..30).map(|_| start(&server)).collect();
        let holds = |workers: &[RegionWorkers]| {
            for n in 0..20 {
                let sum = sum(workers, n);
                assert!(sum <= 20, "{sum}");
            }
        };
        let whole = |workers: &[RegionWorkers]| {
            holds(workers);
            (0..20).all(|n| sum(workers, n) == 20)
        };
        until("each has its part", || whole(&workers)).await;
        // Some more come, and until the others know of them they have nothing.
        workers.extend((0..4).map(|_| start(&server)));
        until("the new ones have their part", || whole(&workers) && workers[33].seen.lists.lock().last.len() == LISTS)
            .await;
        server.kill();
        until("it is known to be gone", || {
            holds(&workers);
            workers.iter().all(|worker| !worker.seen.link.is_up())
        })
        .await;
        let without: Vec<u32> = (0..20).map(|n| sum(&workers, n)).collect();
        assert!(without.iter().all(|sum| *sum == 20), "what was known last holds: {without:?}");
        // It comes back and knows nobody: the first to say so is not alone.
        server.start_again();
        until("all are known again", || {
            holds(&workers);
            server.cli(&["ZCARD", KEY]) == "34"
        })
        .await;
        until("each has its part again", || whole(&workers)).await;
        // Those that go leave their part to the others.
        workers.truncate(17);
        until("the others have it", || whole(&workers)).await;
    }
}
