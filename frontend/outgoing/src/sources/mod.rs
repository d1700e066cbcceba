//! The addresses that mail leaves from: a pool for each category, with a warm-up for those that nobody knows yet, and rest for those that
//! a destination does not like.
//!
//! Counted is in this process: an address belongs to a machine, and a machine has one worker. A worker that is started anew begins its day
//! anew, and may send to a destination twice what a day of its warm-up allows at most.
//!
//! Invariant: where a pool has addresses of a family, nothing leaves by another address of that family.

mod blame;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use postrider_api::env::Clock;

pub(crate) use self::blame::{Blame, blame};
use crate::dns::Domain;
use crate::limit::SOURCE_BOOKS_MAX;

/// How long an address rests for a destination that has blocked it: lists are looked at again after hours.
const REST: Duration = Duration::from_secs(4 * 60 * 60);
/// How long an address is remembered for a destination that it sends nothing to.
const REMEMBERED: Duration = Duration::from_secs(36 * 60 * 60);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What mail is: its sender, its recipients, and what both may expect of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Category {
    /// From a person.
    #[default]
    Personal,
    /// From a program, to one who waits for it.
    Transactional,
    /// From a program, to many.
    Bulk,
}

impl Category {
    /// As configuration and counters name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
        }
    }
}

/// The pools; where one has no address of a family, the system chooses.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// For mail from people.
    pub personal: Vec<Source>,
    /// For transactional mail.
    pub transactional: Vec<Source>,
    /// For bulk mail.
    pub bulk: Vec<Source>,
}

/// An address that connections are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Which.
    pub address: IpAddr,
    /// How it gets to be known; `None`: it is.
    pub warm_up: Option<WarmUp>,
}

/// How many messages an address sends to one destination in a day while it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// Its first day, in days since the Unix epoch. Before it sends nothing.
    pub first_day: i64,
    /// Messages to one destination on the first day, the second and so on; behind the last it is known.
    pub messages: Vec<u32>,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self { address, warm_up: None }
    }
}

impl Source {
    /// Messages to one destination on a day; `None`: as many as there are.
    fn allowed(&self, day: i64) -> Option<u32> {
        let warm_up = self.warm_up.as_ref()?;
        match usize::try_from(day.saturating_sub(warm_up.first_day)) {
            Ok(at) => warm_up.messages.get(at).copied(),
            Err(_) => Some(0),
        }
    }
}

/// What an address has sent to a destination today, and what that said of it.
#[derive(Debug, Default)]
struct Book {
    day: i64,
    messages: u32,
    /// How often it said today that it is too much.
    halvings: u32,
    /// Until when the address rests, milliseconds since the Unix epoch.
    rests_until_ms: i64,
}

/// Pools with what was counted of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pools {
    sources: Arc<Sources>,
    books: Cache<(IpAddr, Domain), Arc<Mutex<Book>>>,
    clock: Arc<dyn Clock>,
}

/// No address of the pool may send to the destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Why.
    pub(crate) why: String,
    /// For how long.
    pub(crate) wait: Duration,
}

/// A message that leaves by some addresses: counted, unless it comes to nothing.
pub(crate) struct Departure {
    books: Vec<(IpAddr, Arc<Mutex<Book>>)>,
    category: Category,
    clock: Arc<dyn Clock>,
    has_left: bool,
}

impl Pools {
    pub(crate) fn new(sources: Sources, clock: Arc<dyn Clock>) -> Self {
        let books = Cache::builder().max_capacity(SOURCE_BOOKS_MAX).time_to_idle(REMEMBERED).build();
        Self { sources: Arc::new(sources), books, clock }
    }

    fn pool(&self, category: Category) -> &[Source] {
        match category {
            Category::Personal => &self.sources.personal,
            Category::Transactional => &self.sources.transactional,
            Category::Bulk => &self.sources.bulk,
        }
    }

    /// One address of each family of the pool for one message to the destination. Of several the same each time while it may send, so that
    /// connections are used again.
    pub(crate) fn depart(&self, category: Category, destination: &Domain) -> Result<Departure, Spent> {
        let (pool, now_ms) = (self.pool(category), self.clock.wall_ms());
        let mut departure = Departure { books: Vec::new(), category, clock: Arc::clone(&self.clock), has_left: false };
        for is_v4 in [false, true] {
            let of_family: Vec<&Source> = pool.iter().filter(|source| source.address.is_ipv4() == is_v4).collect();
            if of_family.is_empty() {
                continue;
            }
            let first = place(destination, of_family.len());
            let mut spent: Option<Spent> = None;
            let chosen = (0..of_family.len()).find_map(|at| {
                let source = of_family[(first + at) % of_family.len()];
                let key = (source.address, destination.clone());
                let book = self.books.get_with(key, Arc::default);
                match enter(&mut book.lock(), source, category, destination, now_ms) {
                    Ok(()) => {}
                    Err(why) => {
                        spent = Some(match spent.take() {
                            Some(known) if known.wait <= why.wait => known,
                            _ => why,
                        });
                        return None;
                    }
                }
                Some((source.address, book))
            });
            match (chosen, spent) {
                (Some(chosen), _) => departure.books.push(chosen),
                // What was taken of the other family is given back when the departure is dropped.
                (None, Some(spent)) => return Err(spent),
                (None, None) => {}
            }
        }
        Ok(departure)
    }
}

/// Counts one more message, if there may be one.
fn enter(book: &mut Book, source: &Source, category: Category, destination: &Domain, now_ms: i64) -> Result<(), Spent> {
    let day = now_ms.div_euclid(DAY_MS);
    if book.day != day {
        (book.day, book.messages, book.halvings) = (day, 0, 0);
    }
    let (address, name) = (source.address, category.name());
    if book.rests_until_ms > now_ms {
        let wait = Duration::from_millis(book.rests_until_ms.saturating_sub(now_ms).unsigned_abs());
        return Err(Spent { why: format!("{destination} does not like {address}, of which {name} mail leaves"), wait });
    }
    if let Some(allowed) = source.allowed(day) {
        let allowed = allowed.checked_shr(book.halvings).unwrap_or(0);
        if book.messages >= allowed {
            let tomorrow_ms = day.saturating_add(1).saturating_mul(DAY_MS).saturating_sub(now_ms);
            let wait = Duration::from_millis(tomorrow_ms.unsigned_abs());
            let why =
                format!("{address} is new, and has sent the {allowed} messages that it may to {destination} today");
            return Err(Spent { why, wait });
        }
    }
    book.messages += 1;
    Ok(())
}

/// Where in a pool a destination begins.
fn place(destination: &Domain, length: usize) -> usize {
    let hash = blake3::hash(destination.as_str().as_bytes());
    let number = u32::from_be_bytes(std::array::from_fn(|at| hash.as_bytes()[at]));
    // A pool is a list in a configuration.
    number as usize % length
}

impl Departure {
    /// From where connections are made; where there is none of a family, from wherever the system likes.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.books.iter().map(|(address, _)| *address).collect()
    }

    /// The destination has the message, or may have it.
    pub(crate) fn left(&mut self) {
        self.has_left = true;
    }

    /// The destination said something of where the message came from.
    pub(crate) fn blamed(&self, blame: Blame) {
        let now_ms = self.clock.wall_ms();
        for (address, book) in &self.books {
            let mut book = book.lock();
            match blame {
                Blame::Blocked => {
                    let rest_ms = i64::try_from(REST.as_millis()).unwrap_or(i64::MAX);
                    book.rests_until_ms = now_ms.saturating_add(rest_ms);
                    tracing::warn!(%address, pool = self.category.name(), "a destination blocks an address, which rests for it");
                }
                // A halving beyond the bits of a number is nothing more.
                Blame::TooMuch => book.halvings = (book.halvings + 1).min(u32::BITS),
            }
        }
        if !self.books.is_empty() {
            let pool = self.category.name();
            metrics::counter!("postrider_outgoing_source_blamed_total", "pool" => pool, "blame" => blame.label())
                .increment(1);
        }
    }

    /// How long it rests that was blamed.
    pub(crate) fn rest(&self) -> Duration {
        REST
    }

    /// Whether there is anything to rest: an address of ours and not the system's.
    pub(crate) fn is_pooled(&self) -> bool {
        !self.books.is_empty()
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if !self.has_left {
            for (_, book) in &self.books {
                let mut book = book.lock();
                book.messages = book.messages.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    const FIRST_DAY: i64 = 20_000;

    fn far() -> Domain {
        "far.example".parse().unwrap()
    }

    fn pools(bulk: Vec<Source>) -> (Pools, Arc<Hands>) {
        let hands = Arc::new(Hands(AtomicI64::new(FIRST_DAY * DAY_MS + 1)));
        (Pools::new(Sources { bulk, ..Sources::default() }, Arc::clone(&hands) as _), hands)
    }

    fn new(address: &str, messages: &[u32]) -> Source {
        let warm_up = WarmUp { first_day: FIRST_DAY, messages: messages.to_vec() };
        Source { address: address.parse().unwrap(), warm_up: Some(warm_up) }
    }

    fn send(pools: &Pools) -> Result<Vec<IpAddr>, Spent> {
        let mut departure = pools.depart(Category::Bulk, &far())?;
        departure.left();
        Ok(departure.addresses())
    }

    #[test]
    fn a_new_address_sends_so_many_a_day_and_destination_and_then_as_many_as_there_are() {
        let (pools, hands) = pools(vec![new("192.0.2.1", &[2, 3])]);
        assert!(send(&pools).is_ok() && send(&pools).is_ok());
        let spent = send(&pools).unwrap_err();
        assert_eq!(spent.wait, Duration::from_millis(DAY_MS as u64 - 1));
        assert!(spent.why.contains("192.0.2.1") && spent.why.contains("far.example"), "{}", spent.why);
        assert!(
            pools.depart(Category::Bulk, &"near.example".parse().unwrap()).is_ok(),
            "another destination has its own"
        );
        assert!(pools.depart(Category::Personal, &far()).unwrap().addresses().is_empty(), "the system chooses");
        hands.0.fetch_add(DAY_MS, Ordering::Relaxed);
        assert_eq!((0..10).filter(|_| send(&pools).is_ok()).count(), 3);
        hands.0.fetch_add(DAY_MS, Ordering::Relaxed);
        assert_eq!((0..10).filter(|_| send(&pools).is_ok()).count(), 10, "it is known");
        hands.0.store(FIRST_DAY * DAY_MS - 1, Ordering::Relaxed);
        assert!(send(&pools).is_err(), "its first day has not come");
    }

    #[test]
    fn what_did_not_leave_is_not_counted() {
        let (pools, _) = pools(vec![new("192.0.2.1", &[1])]);
        for _ in 0..5 {
            drop(pools.depart(Category::Bulk, &far()).unwrap());
        }
        let under_way = pools.depart(Category::Bulk, &far()).unwrap();
        assert!(pools.depart(Category::Bulk, &far()).is_err(), "counted while it is on its way");
        drop(under_way);
        assert!(send(&pools).is_ok() && send(&pools).is_err());
    }

    #[test]
    fn what_is_blocked_rests_and_another_goes_on() {
        let (pools, hands) = pools(vec![
            Source::from("192.0.2.1".parse::<IpAddr>().unwrap()),
            Source::from("192.0.2.2".parse::<IpAddr>().unwrap()),
            Source::from("2001:db8::1".parse::<IpAddr>().unwrap()),
        ]);
        let first = send(&pools).unwrap();
        assert_eq!(first.len(), 2, "one of each family");
        assert_eq!(send(&pools).unwrap(), first, "the same each time");
        pools.depart(Category::Bulk, &far()).unwrap().blamed(Blame::Blocked);
        let spent = send(&pools).unwrap_err();
        assert_eq!(spent.wait, REST, "the only one of its family rests");
        hands.0.fetch_add(i64::try_from(REST.as_millis()).unwrap(), Ordering::Relaxed);
        assert_eq!(send(&pools).unwrap(), first);
    }

    #[test]
    fn what_is_too_much_is_halved_for_the_day() {
        let (pools, hands) = pools(vec![new("192.0.2.1", &[8, 8])]);
        pools.depart(Category::Bulk, &far()).unwrap().blamed(Blame::TooMuch);
        assert_eq!((0..10).filter(|_| send(&pools).is_ok()).count(), 4);
        hands.0.fetch_add(DAY_MS, Ordering::Relaxed);
        assert_eq!((0..10).filter(|_| send(&pools).is_ok()).count(), 8);
    }
}
