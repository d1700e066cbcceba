//! How many of something a client gets in a time: wrong passwords, tokens that open nothing, sign-ups, requests, connections,
//! messages. One table of kinds, one arithmetic (GCRA, a token bucket that is one number), counted in this process and, where the
//! region has a Redis, by all of its frontends together.
//!
//! Invariant: what this process has counted always holds. What others have counted can only refuse more, and no longer than
//! a limit's own time: who writes what frontends share can let nobody through and lock nobody out for good.
//! Invariant: what counts is never a name that can be read: counters are keyed hashes under the cluster's secret.

mod gcra;
mod local;
mod moments;
mod region;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use postrider_api::env::Clock;
use postrider_api::id::UserId;
use postrider_api::pb;

use crate::limits::gcra::Rate;
use crate::network::{Network, SITE_FACTOR};

pub(crate) use crate::limits::local::LocalLimits;
pub(crate) use crate::limits::moments::Moments;
pub use crate::limits::region::RegionWorkers;
pub(crate) use crate::limits::shared::SharedLimits;

/// A limit: `burst` at once, and one more each `refill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many may come at once.
    pub burst: u32,
    /// Time that gives one back.
    pub refill: Duration,
}

impl Limit {
    /// So many a minute: a minute's worth at once, then one by one. `None` for 0: as many as one likes.
    pub fn per_minute(count: u32) -> Option<Self> {
        let refill = Duration::from_secs(60).checked_div(count)?;
        Some(Self { burst: count, refill: refill.max(Duration::from_millis(1)) })
    }

    /// So many an hour: an hour's worth at once, then one by one. `None` for 0: as many as one likes.
    pub fn per_hour(count: u32) -> Option<Self> {
        let refill = Duration::from_secs(60 * 60).checked_div(count)?;
        Some(Self { burst: count, refill: refill.max(Duration::from_millis(1)) })
    }

    /// What all networks of an IPv6 site get together.
    fn of_site(self) -> Self {
        Self { burst: self.burst.saturating_mul(SITE_FACTOR), refill: self.refill / SITE_FACTOR }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $policy:literal, $burst:literal per $refill_ms:literal;)*) => {
        /// What is limited.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum LimitKind {
            $($(#[$doc])* $name,)*
        }

        impl LimitKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Names the kind among all: in counters, and in what is hashed.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// What clients are told: the policy's name in RateLimit fields.
            pub fn policy(self) -> &'static str {
                match self { $(Self::$name => $policy),* }
            }

            fn default_limit(self) -> Limit {
                match self {
                    $(Self::$name => Limit { burst: $burst, refill: Duration::from_millis($refill_ms) }),*
                }
            }
        }
    };
}

// Name = label, policy, burst per milliseconds of one refill. "Of a client network": an IPv4 address or an IPv6 /64; a /48 gets
// [`SITE_FACTOR`] times as much. Whether a network is known for an address is not told to who stands behind it: one policy.
kinds! {
    /// Wrong passwords for one address from one client network.
    WrongPasswords = "wrong_passwords", "wrong-passwords", 20 per 30_000;
    /// The same from a client network that has logged in there.
    WrongPasswordsKnown = "wrong_passwords_known", "wrong-passwords", 20 per 30_000;
    /// Wrong passwords for one address from everywhere. Beyond it a stranger has one guess, and the next one when its own failures
    /// there are forgotten.
    WrongPasswordsOfAddress = "wrong_passwords_of_address", "wrong-passwords", 20 per 30_000;
    /// Wrong passwords from one client network.
    WrongPasswordsOfNetwork = "wrong_passwords_of_network", "wrong-passwords-network", 200 per 3_000;
    /// New accounts from one client network: an office behind one address signs up in a day; a script does not fill the directory.
    SignUps = "sign_ups", "sign-ups", 100 per 6_000;
    /// Tokens that open nothing, from one client network.
    BadTokens = "bad_tokens", "bad-tokens", 200 per 1_000;
    /// Requests of one account: a program that reads ten thousand messages one by one is slowed down for less than a minute.
    Requests = "requests", "requests", 6_000 per 10;
    /// SMTP connections of one client network: a busy relay opens some ten a second.
    Connections = "connections", "connections", 6_000 per 10;
    /// Messages that one client network brings by SMTP: a thousand a second.
    Messages = "messages", "messages", 60_000 per 1;
    /// Files that one account uploads before their messages: at most 25 MiB each.
    Uploads = "uploads", "uploads", 200 per 18_000;
    /// Messages that one account sends: 600 in an hour.
    SentMessages = "sent_messages", "sent-messages", 600 per 6_000;
    /// Recipients of what one account sends: 3,000 in an hour.
    SentRecipients = "sent_recipients", "sent-recipients", 3_000 per 1_200;
}

/// The limit of each kind; `None`: no limit.
#[derive(Debug, Clone)]
pub struct LimitTable(Vec<Option<Limit>>);

impl Default for LimitTable {
    fn default() -> Self {
        Self(LimitKind::ALL.iter().map(|kind| Some(kind.default_limit())).collect())
    }
}

impl LimitTable {
    /// The same with another limit for one kind.
    #[must_use]
    pub fn with(mut self, kind: LimitKind, limit: Option<Limit>) -> Self {
        self.0[kind as usize] = limit;
        self
    }

    /// The limit of a kind.
    pub fn get(&self, kind: LimitKind) -> Option<Limit> {
        self.0[kind as usize]
    }
}

/// Whether a counter is a client's own or its IPv6 site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Own,
    Site,
}

/// One bucket: of what, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    kind: LimitKind,
    scope: Scope,
    limit: Limit,
    rate: Rate,
    /// Of kind, scope and name under the cluster's secret.
    hash: [u8; 32],
}

impl Counter {
    /// How long whoever has a bucket that is full in `until_full` has to wait; zero when it may go on.
    pub(crate) fn wait(&self, until_full: Duration) -> Duration {
        Duration::from_millis(self.rate.wait(millis(until_full)))
    }
}

/// One of what is to be counted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    counter: Counter,
    /// Counted also beyond its limit.
    beyond: bool,
}

impl Wanted {
    /// If there is room.
    pub(crate) fn within(counter: Counter) -> Self {
        Self { counter, beyond: false }
    }

    /// In any case.
    pub(crate) fn beyond(counter: Counter) -> Self {
        Self { counter, beyond: true }
    }

    /// What of.
    pub(crate) fn counter(&self) -> Counter {
        self.counter
    }
}

/// What was not let through, and when it makes sense to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Which limit.
    pub kind: LimitKind,
    /// What it is.
    pub limit: Limit,
    /// How long to wait.
    pub wait: Duration,
}

/// What somebody is told to wait whose turn was taken in this very moment.
const WAIT_MIN: Duration = Duration::from_millis(1);

impl Refused {
    /// By a counter, whose bucket is full in `until_full`.
    pub(crate) fn by(counter: &Counter, until_full: Duration) -> Self {
        Self::for_time(counter, counter.wait(until_full))
    }

    /// By a counter, for so long.
    pub(crate) fn for_time(counter: &Counter, wait: Duration) -> Self {
        metrics::counter!("postrider_limited_total", "limit" => counter.kind.label()).increment(1);
        Self { kind: counter.kind, limit: counter.limit, wait: wait.max(WAIT_MIN) }
    }

    /// The fields of an answer that says so.
    pub(crate) fn fields(&self) -> RateLimitFields {
        RateLimitFields::new(self.kind, self.limit, 0, self.wait)
    }
}

/// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10): which limit, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RateLimitFields {
    pub(crate) policy: HeaderValue,
    pub(crate) limit: HeaderValue,
}

impl RateLimitFields {
    /// Of a counter whose bucket would be full in `until_full`, before one more was taken.
    pub(crate) fn after_one(counter: &Counter, until_full: Duration) -> Self {
        let now = until_full.saturating_add(counter.limit.refill);
        Self::new(counter.kind, counter.limit, counter.rate.left(millis(now)), now)
    }

    /// Writes them.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), self.policy.clone());
        headers.insert(HeaderName::from_static("ratelimit"), self.limit.clone());
    }

    fn new(kind: LimitKind, limit: Limit, left: u64, reset: Duration) -> Self {
        let name = kind.policy();
        let window = (limit.refill.saturating_mul(limit.burst)).as_secs().max(1);
        let reset = reset.as_millis().div_ceil(1000);
        let field = |text: String| HeaderValue::try_from(text).expect("names and digits are a field value");
        Self {
            policy: field(format!("\"{name}\";q={};w={window}", limit.burst)),
            limit: field(format!("\"{name}\";r={left};t={reset}")),
        }
    }
}

/// Counts. In this process ([`LocalLimits`]), or with others ([`SharedLimits`]).
#[async_trait]
pub(crate) trait Limits: Send + Sync + 'static {
    /// In which time the counter's bucket would be full, as far as this process knows: nobody is asked.
    fn until_full(&self, counter: &Counter) -> Duration;

    /// Counts one of each, or none of any. Answers in which time each bucket would have been full before that.
    async fn take(&self, wanted: &[Wanted]) -> Result<Vec<Duration>, Refused>;

    /// Counts one, also beyond the limit; nobody waits for it.
    fn count(&self, counter: &Counter);

    /// Forgets one of each; nobody waits for it.
    fn give_back(&self, counters: &[Counter]);
}

/// The table of limits, and what counts by it. Cheap to clone.
#[derive(Clone)]
pub struct Limiter {
    table: Arc<LimitTable>,
    key: [u8; 32],
    limits: Arc<dyn Limits>,
}

impl Limiter {
    /// Counts in this process only.
    pub fn local(table: LimitTable, key: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        Self::over(table, key, Arc::new(LocalLimits::new(clock)))
    }

    pub(crate) fn over(table: LimitTable, key: [u8; 32], limits: Arc<dyn Limits>) -> Self {
        Self { table: Arc::new(table), key, limits }
    }

    /// From when on what an account sends in a day is held against what it used to send: from as many recipients as it may have in an
    /// hour. `None` where it may have as many as it likes.
    pub(crate) fn sending(&self) -> Option<pb::SendingLimits> {
        let hour = self.table.get(LimitKind::SentRecipients)?;
        Some(pb::SendingLimits { recipients_per_day: hour.burst })
    }

    /// The counter of an account; `None` where there is no limit.
    pub(crate) fn of_user(&self, kind: LimitKind, user: UserId) -> Option<Counter> {
        Some(self.counter(kind, Scope::Own, self.table.get(kind)?, &[&user.0]))
    }

    /// The counter of a name.
    pub(crate) fn of_name(&self, kind: LimitKind, name: &str) -> Option<Counter> {
        Some(self.counter(kind, Scope::Own, self.table.get(kind)?, &[name.as_bytes()]))
    }

    /// The counter of a network with `what`, and none for its site.
    pub(crate) fn of_network_alone(&self, kind: LimitKind, network: Network, what: &str) -> Option<Counter> {
        Some(self.counter(kind, Scope::Own, self.table.get(kind)?, &[&network.octets(), what.as_bytes()]))
    }

    /// The counters of a client network with `what`: its own, and of IPv6 its site's.
    pub(crate) fn of_network(&self, kind: LimitKind, network: Network, what: &str) -> Vec<Counter> {
        let Some(limit) = self.table.get(kind) else { return Vec::new() };
        let own = self.counter(kind, Scope::Own, limit, &[&network.octets(), what.as_bytes()]);
        let site = network
            .site()
            .map(|site| self.counter(kind, Scope::Site, limit.of_site(), &[&site.octets(), what.as_bytes()]));
        [Some(own), site].into_iter().flatten().collect()
    }

    /// Parts have fixed lengths, but for the last one.
    fn counter(&self, kind: LimitKind, scope: Scope, limit: Limit, name: &[&[u8]]) -> Counter {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let label = kind.label().as_bytes();
        // No label has 256 bytes.
        hasher.update(&[label.len() as u8]).update(label).update(&[scope as u8]);
        for part in name {
            hasher.update(part);
        }
        Counter { kind, scope, limit, rate: Rate::of(limit), hash: *hasher.finalize().as_bytes() }
    }

    /// In which time the counter's bucket would be full, as far as this process knows.
    pub(crate) fn until_full(&self, counter: &Counter) -> Duration {
        self.limits.until_full(counter)
    }

    /// Whether all of the counters have room, as far as this process knows.
    pub(crate) fn check(&self, counters: &[Counter]) -> Result<(), Refused> {
        let refused = counters.iter().filter_map(|counter| {
            let until_full = self.limits.until_full(counter);
            (!counter.wait(until_full).is_zero()).then_some((counter, until_full))
        });
        let longest = refused.max_by_key(|(counter, until_full)| counter.wait(*until_full));
        longest.map_or(Ok(()), |(counter, until_full)| Err(Refused::by(counter, until_full)))
    }

    /// Counts one of each, or none of any: at most one round trip to what frontends share. See [`Limits::take`].
    pub(crate) async fn take(&self, wanted: &[Wanted]) -> Result<Vec<Duration>, Refused> {
        if wanted.is_empty() { Ok(Vec::new()) } else { self.limits.take(wanted).await }
    }

    /// One of each of these within its limit.
    pub(crate) async fn take_all(&self, counters: &[Counter]) -> Result<(), Refused> {
        let wanted: Vec<Wanted> = counters.iter().copied().map(Wanted::within).collect();
        self.take(&wanted).await.map(|_| ())
    }

    /// Counts one of each, also beyond the limit.
    pub(crate) fn count(&self, counters: &[Counter]) {
        counters.iter().for_each(|counter| self.limits.count(counter));
    }

    /// Forgets one of each.
    pub(crate) fn give_back(&self, counters: &[Counter]) {
        self.limits.give_back(counters);
    }

    /// A hash under the cluster's secret of a name that is remembered, not counted.
    pub(crate) fn hash(&self, name: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[0]); // no label is empty
        for part in name {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use postrider_api::env::SystemClock;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    #[test]
    fn kinds_have_names_of_their_own() {
        let labels: HashSet<_> = LimitKind::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), LimitKind::ALL.len());
        for (at, kind) in LimitKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at, "the table is by number");
            assert!(kind.label().len() < 256 && !kind.label().is_empty());
            assert!(kind.policy().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
    }

    #[test]
    fn counters_meet_only_where_all_is_the_same() {
        let limiter = Limiter::local(LimitTable::default(), [1; 32], SystemClock::shared());
        let other = Limiter::local(LimitTable::default(), [2; 32], SystemClock::shared());
        let user = UserId::new(ZoneId(1), Slot(1), [1; 12]);
        let network = Network::of("2001:db8:1:2::3".parse().unwrap());
        let mut hashes = HashSet::new();
        for limiter in [&limiter, &other] {
            for kind in LimitKind::ALL {
                hashes.insert(limiter.of_user(*kind, user).unwrap().hash);
                hashes.insert(limiter.of_name(*kind, "x").unwrap().hash);
                hashes.extend(limiter.of_network(*kind, network, "x").iter().map(|counter| counter.hash));
            }
        }
        assert_eq!(hashes.len(), 2 * LimitKind::ALL.len() * 4);
    }

    #[test]
    fn the_table_is_what_the_configuration_leaves_out() {
        use crate::rest::limit::REQUESTS_PER_ACCOUNT_PER_MINUTE;
        use crate::smtp::limit::{CONNECTIONS_PER_NETWORK_PER_MINUTE, MESSAGES_PER_NETWORK_PER_MINUTE};
        for (kind, per_minute) in [
            (LimitKind::Requests, REQUESTS_PER_ACCOUNT_PER_MINUTE),
            (LimitKind::Connections, CONNECTIONS_PER_NETWORK_PER_MINUTE),
            (LimitKind::Messages, MESSAGES_PER_NETWORK_PER_MINUTE),
        ] {
            assert_eq!(LimitTable::default().get(kind), Limit::per_minute(per_minute), "{kind:?}");
        }
    }

    #[test]
    fn fields_say_what_is_left() {
        let table = LimitTable::default().with(LimitKind::Requests, Limit::per_minute(60));
        let limiter = Limiter::local(table, [1; 32], SystemClock::shared());
        let counter = limiter.of_user(LimitKind::Requests, UserId::new(ZoneId(1), Slot(1), [1; 12])).unwrap();
        let fields = RateLimitFields::after_one(&counter, Duration::ZERO);
        assert_eq!(fields.policy, "\"requests\";q=60;w=60");
        assert_eq!(fields.limit, "\"requests\";r=59;t=1");
        let last = RateLimitFields::after_one(&counter, Duration::from_secs(59));
        assert_eq!(last.limit, "\"requests\";r=0;t=60");
        let refused = Refused::by(&counter, Duration::from_secs(60));
        assert_eq!(refused.fields().limit, "\"requests\";r=0;t=1");
        assert_eq!(Limit::per_minute(0), None);
    }
}
