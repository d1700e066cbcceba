//! The worker against a cluster in memory.

mod crossing;
mod outside;
mod watched;

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use postrider_api::env::SystemEntropy;
use postrider_api::id::BlobHash;
use postrider_api::pb::{Settlement, outcome};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::watched::{Moment, Watched};
use super::lease::tests::Sleeper;
use super::*;
use crate::cluster::mail::{self, DIRECTORY, Fault, MailCluster};

const A: ShardId = ShardId(1000);
const B: ShardId = ShardId(1001);
const C: ShardId = ShardId(1002);
/// The machine may be slow; nothing here waits for this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn timings() -> WorkerTimings {
    WorkerTimings {
        lease: Duration::from_millis(1200),
        lease_margin: Duration::from_millis(50),
        lease_wait: Duration::from_millis(200),
        locate: Duration::from_millis(200),
        deliver: Duration::from_millis(200),
        settle: Duration::from_millis(200),
        troubled: Duration::from_millis(50),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(100),
        poll_pause_min: Duration::from_millis(10),
        poll_pause_max: Duration::from_millis(50),
        forget_after: Duration::from_secs(3600),
        forget_every: Duration::from_millis(20),
        drain: Duration::from_secs(30),
        ..WorkerTimings::default()
    }
}

fn start_with<C: Cluster>(cluster: &Arc<C>, timings: WorkerTimings) -> (CancellationToken, JoinHandle<()>) {
    start_on(cluster, Arc::new(SystemBootClock), timings)
}

fn start_on<C: Cluster>(
    cluster: &Arc<C>,
    boot_clock: Arc<dyn BootClock>,
    timings: WorkerTimings,
) -> (CancellationToken, JoinHandle<()>) {
    start_carrying(Arc::clone(cluster) as _, Arc::new(Carrier::default()), boot_clock, timings)
}

fn start_carrying(
    cluster: Arc<dyn Cluster>,
    blobs: Arc<dyn BlobCarrier>,
    boot_clock: Arc<dyn BootClock>,
    timings: WorkerTimings,
) -> (CancellationToken, JoinHandle<()>) {
    let drain = CancellationToken::new();
    let (clock, entropy) = (mail::CLOCK.clone(), SystemEntropy::shared());
    let worker = Worker::with_boot_clock(cluster, blobs, clock, boot_clock, entropy, timings, None);
    (drain.clone(), tokio::spawn(worker.run(drain)))
}

/// Notes what is carried, and fails as often as it is told to.
#[derive(Default)]
struct Carrier {
    carried: Mutex<Vec<(ShardId, ShardId, Vec<BlobHash>)>>,
    fails: Mutex<u32>,
}

#[async_trait]
impl BlobCarrier for Carrier {
    async fn carry(
        &self,
        _: &pb::ShardMap,
        source: ShardId,
        target: ShardId,
        blobs: &[BlobHash],
    ) -> Result<(), CarryError> {
        let mut fails = self.fails.lock();
        if *fails > 0 {
            *fails -= 1;
            return Err(CarryError("one region".to_owned()));
        }
        self.carried.lock().push((source, target, blobs.to_vec()));
        Ok(())
    }
}

/// The blobs are durable for the target before it hears of the message, and whoever waits for them waits.
#[tokio::test]
async fn attachments_are_carried_first() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    let carrier = Arc::new(Carrier::default());
    *carrier.fails.lock() = 2;
    let hash = BlobHash::of(b"an attachment");
    let piece = pb::Piece { blob: hash.to_bytes(), ..pb::Piece::default() };
    let part = pb::Part { blob: hash.to_bytes(), ..pb::Part::default() };
    let mut message = mail::message("hello");
    (message.pieces, message.parts) = (vec![piece], vec![part]);
    cluster.enqueue_message(A, &[bob], &message);
    let (_drain, _worker) =
        start_carrying(Arc::clone(&cluster) as _, Arc::clone(&carrier) as _, Arc::new(SystemBootClock), timings());
    until("it waits for its attachments", || {
        cluster.waiting(A).iter().any(|entry| entry.pending[0].reason.contains("attachments"))
    })
    .await;
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(*carrier.carried.lock(), [(A, B, vec![hash])]);
    assert_eq!((cluster.inbox(bob).len(), cluster.proposals(B)), (1, 1));
}

fn start<C: Cluster>(cluster: &Arc<C>) -> (CancellationToken, JoinHandle<()>) {
    start_with(cluster, timings())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn recipients_in_several_shards_get_it_once() {
    let cluster = MailCluster::new(3);
    let users = [
        cluster.add_user("ada", A),
        cluster.add_user("bob", B),
        cluster.add_user("cyd", C),
        cluster.add_user("dan", C),
    ];
    let (_drain, _worker) = start(&cluster);
    cluster.enqueue(A, &users, "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    for user in users {
        let inbox = cluster.inbox(user);
        assert_eq!(inbox.len(), 1);
        assert_eq!(inbox[0].raw(), b"hello");
    }
    // Both of C's recipients came in one command.
    assert_eq!(cluster.proposals(C), 1);
}

#[tokio::test]
async fn what_is_enqueued_arrives_within_a_second() {
    let cluster = MailCluster::new(2);
    let user = cluster.add_user("bob", B);
    let (_drain, _worker) = start_with(&cluster, WorkerTimings::default());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    cluster.enqueue(A, &[user], "hello");
    until("it is there", || cluster.inbox(user).len() == 1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_shard_without_quorum_gets_it_when_it_is_back() {
    let cluster = MailCluster::new(3);
    let (bob, cyd) = (cluster.add_user("bob", B), cluster.add_user("cyd", C));
    cluster.set_fault(B, Some(Fault::NoQuorum));
    let (_drain, _worker) = start(&cluster);
    cluster.enqueue(A, &[bob, cyd], "hello");
    until("the healthy shard has it", || cluster.inbox(cyd).len() == 1).await;
    until("the other was tried twice", || cluster.waiting(A).iter().any(|entry| entry.pending[0].attempts >= 2)).await;
    let waiting = cluster.waiting(A);
    assert_eq!(waiting[0].pending.len(), 1);
    assert!(waiting[0].pending[0].reason.contains("quorum"), "{}", waiting[0].pending[0].reason);
    cluster.set_fault(B, None);
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(bob).len(), cluster.inbox(cyd).len()), (1, 1));
}

#[tokio::test]
async fn lost_answers_duplicate_nothing() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    cluster.set_fault(B, Some(Fault::LosesReplies(3)));
    cluster.set_fault(A, Some(Fault::LosesReplies(1)));
    let (_drain, _worker) = start(&cluster);
    for number in 0..5 {
        cluster.enqueue(A, &[bob], &format!("message {number}"));
    }
    until("all is settled", || cluster.waiting(A).is_empty()).await;
    let mut texts: Vec<_> = cluster.inbox(bob).iter().map(mail::Kept::raw).collect();
    texts.sort();
    texts.dedup();
    assert_eq!((texts.len(), cluster.inbox(bob).len()), (5, 5));
}

#[tokio::test]
async fn killed_workers_lose_and_duplicate_nothing() {
    let cluster = MailCluster::new(3);
    let users = [cluster.add_user("ada", A), cluster.add_user("bob", B), cluster.add_user("cyd", C)];
    *cluster.takes.lock() = Duration::from_millis(15);
    for number in 0..40 {
        cluster.enqueue(ShardId(1000 + number % 3), &users, &format!("message {number}"));
    }
    // Each is killed a little later in its work than the one before.
    for round in 0..20 {
        let (_drain, worker) = start(&cluster);
        tokio::time::sleep(Duration::from_millis(5 + round * 4)).await;
        worker.abort();
        assert!(worker.await.is_err_and(|error| error.is_cancelled()));
    }
    let (_drain, _worker) = start(&cluster);
    until("all is settled", || [A, B, C].iter().all(|shard| cluster.waiting(*shard).is_empty())).await;
    for user in users {
        let mut texts: Vec<_> = cluster.inbox(user).iter().map(mail::Kept::raw).collect();
        assert_eq!(texts.len(), 40);
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 40);
    }
}

#[tokio::test]
async fn two_workers_deliver_once() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    // Leases lapse while the work goes on, as when another replica comes to lead: both hold the same entries.
    *cluster.takes.lock() = Duration::from_millis(60);
    let watched = Watched::new(&cluster);
    *watched.lease_ms_max.lock() = 50;
    let _first = start(&watched);
    let _second = start(&cluster);
    for number in 0..10 {
        cluster.enqueue(A, &[bob], &format!("message {number}"));
    }
    until("all is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(cluster.inbox(bob).len(), 10);
    assert!(watched.settled.lock().iter().any(|settled| settled.answer.is_err()), "the test has lost its point");
}

#[tokio::test]
async fn a_user_who_is_gone_fails() {
    let cluster = MailCluster::new(2);
    let (bob, eve) = (cluster.add_user("bob", B), cluster.add_user("eve", B));
    // The worker has located her before she goes.
    assert_eq!(cluster.locate(eve, PATIENCE).await, Ok(Some(B)));
    cluster.remove_user(eve);
    let watched = Watched::new(&cluster);
    let (_drain, _worker) = start(&watched);
    cluster.enqueue(A, &[bob, eve], "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(bob).len(), cluster.inbox(eve).len()), (1, 0));
    let said = watched.last_of(eve).expect("her fate is settled");
    assert_eq!(said, (Settlement::Failed, "there is no such user any more".to_owned()));
}

/// Longer than any entry is kept for what is wrong with its recipients.
const AGES_MS: i64 = 30 * 24 * 60 * 60 * 1000;

#[tokio::test]
async fn a_full_mailbox_waits_however_long() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    cluster.fill(bob, B);
    let watched = Watched::new(&cluster);
    let (_drain, _worker) = start(&watched);
    let entry = cluster.enqueue(A, &[bob], "hello");
    cluster.age(A, entry, AGES_MS);
    until("it was tried", || cluster.waiting(A).first().is_none_or(|entry| entry.attempts >= 2)).await;
    let (settlement, reason) = watched.last_of(bob).expect("his fate is settled");
    assert_eq!(settlement, Settlement::Full, "{reason}");
    assert!(cluster.waiting(A)[0].pending[0].reason.contains("quota"));
}

#[tokio::test]
async fn whoever_cannot_be_asked_for_waits_however_long() {
    let cluster = MailCluster::new(3);
    let (bob, cyd) = (cluster.add_user("bob", B), cluster.add_user("cyd", C));
    cluster.set_fault(B, Some(Fault::NoQuorum));
    let watched = Watched::new(&cluster);
    let (_drain, _worker) = start(&watched);
    let entry = cluster.enqueue(A, &[bob, cyd], "hello");
    cluster.age(A, entry, AGES_MS);
    until("his shard was asked", || watched.last_of(bob).is_some()).await;
    assert_eq!(watched.last_of(bob).map(|(settlement, _)| settlement), Some(Settlement::Held));
    // Nor does a directory that says nothing say that he is gone.
    cluster.set_fault(DIRECTORY, Some(Fault::NoQuorum));
    cluster.forget(bob);
    until("the directory was asked", || {
        watched.last_of(bob).is_some_and(|(_, reason)| reason.contains("the directory does not answer"))
    })
    .await;
    assert_eq!(watched.last_of(bob).map(|(settlement, _)| settlement), Some(Settlement::Held));
    cluster.set_fault(DIRECTORY, None);
    cluster.set_fault(B, None);
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(bob).len(), cluster.inbox(cyd).len()), (1, 1));
}

#[tokio::test]
async fn what_a_shard_says_decides_how_long_it_is_tried() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    let refused = |refusal: pb::Refusal, detail: &str| {
        outcome::Result::Refused(pb::Refused {
            refusal: refusal.into(),
            detail: detail.to_owned(),
            ..Default::default()
        })
    };
    let too_old = pb::Delivered { too_old: vec![bob.to_bytes()], ..pb::Delivered::default() };
    let long = "x".repeat(10_000);
    for (result, settlement, said) in [
        (refused(pb::Refusal::LeaseTooOld, "leased long ago"), Settlement::Held, "leased long ago"),
        (refused(pb::Refusal::Malformed, &long), Settlement::Deferred, "refuses the delivery: xxx"),
        (outcome::Result::Done(pb::Done {}), Settlement::Deferred, "refuses the delivery"),
        (outcome::Result::Delivered(pb::Delivered::default()), Settlement::Deferred, "said nothing"),
        (outcome::Result::Delivered(too_old), Settlement::Failed, "nobody can tell"),
    ] {
        let watched = Watched::new(&cluster);
        let answer = pb::Outcome { result: Some(result) };
        watched.answering(move |_, _| Some(answer.clone()));
        let (_drain, worker) = start(&watched);
        cluster.enqueue(A, &[bob], "hello");
        until("it is settled", || watched.last_of(bob).is_some()).await;
        worker.abort();
        assert!(worker.await.is_err_and(|error| error.is_cancelled()));
        let (settled, reason) = watched.last_of(bob).expect("his fate is settled");
        assert_eq!(settled, settlement, "{reason}");
        assert!(reason.contains(said) && reason.len() <= limit::REASON_BYTES_MAX, "{reason}");
    }
}

/// A worker that sleeps once for a minute when `when` comes, in the middle of an entry for Bob. Nothing of what it held before is
/// carried out after it; what comes of a new lease is.
async fn sleeps(when: Moment) {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    *cluster.takes.lock() = Duration::from_millis(20);
    let (watched, clock) = (Watched::new(&cluster), Arc::new(Sleeper::default()));
    let (sleeper, mut has_slept) = (Arc::clone(&clock), false);
    watched.at(move |moment| {
        if moment == when && !std::mem::replace(&mut has_slept, true) {
            sleeper.sleep(Duration::from_secs(60));
        }
    });
    let (_drain, _worker) = start_on(&watched, clock, timings());
    cluster.enqueue(A, &[bob], "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(cluster.inbox(bob).len(), 1);
    assert_eq!(*watched.leases.lock(), 2, "the lease that it slept over, and the one after it");
    let delivers = watched.delivers.lock();
    let carried_out = cluster.proposals(B);
    let begun = u32::from(when == Moment::Delivering(B)) + 1;
    assert_eq!((delivers.len(), carried_out), (begun as usize, 1));
    let settled = watched.settled.lock();
    assert!(settled.iter().all(|settled| settled.answer.is_ok()), "{settled:?}");
    assert_eq!(settled.len(), 1);
}

#[tokio::test]
async fn a_lease_that_was_slept_over_is_not_worked_under() {
    for moment in [Moment::Leased, Moment::Located, Moment::Delivering(B)] {
        sleeps(moment).await;
    }
}

#[tokio::test]
async fn what_takes_more_rounds_than_a_lease_lasts_is_settled_in_time_and_by_turns() {
    // Five rounds of shards that do not answer, and time for three at the most.
    const SHARDS: u32 = 40;
    let cluster = MailCluster::new(SHARDS + 1);
    let source = ShardId(1000 + SHARDS);
    let users: Vec<_> =
        (0..SHARDS).map(|number| cluster.add_user(&format!("u{number}"), ShardId(1000 + number))).collect();
    for number in 0..SHARDS {
        cluster.set_fault(ShardId(1000 + number), Some(Fault::Swallows));
    }
    let watched = Watched::new(&cluster);
    let timings = WorkerTimings { troubled: Duration::ZERO, lease_wait: Duration::from_millis(10), ..timings() };
    let (_drain, _worker) = start_with(&watched, timings);
    cluster.enqueue(source, &users, "hello");
    until("everybody was tried twice", || {
        cluster.waiting(source).iter().all(|entry| entry.pending.iter().all(|pending| pending.attempts >= 2))
    })
    .await;
    {
        let settled = watched.settled.lock();
        for one in settled.iter() {
            assert_eq!(one.answer, Ok(()), "the lease was lost");
            assert!(one.results.iter().all(|result| result.settlement() == Settlement::Held));
        }
        assert!(settled[0].results.len() < users.len(), "the test has lost its point");
    }
    for number in 0..SHARDS {
        cluster.set_fault(ShardId(1000 + number), None);
    }
    until("the entry is settled", || cluster.waiting(source).is_empty()).await;
    assert!(users.iter().all(|user| cluster.inbox(*user).len() == 1));
}

#[tokio::test]
async fn a_directory_that_hangs_keeps_nobody_else_waiting() {
    let cluster = MailCluster::new(2);
    // More than can be asked for under one lease, and one who is known without a question, behind all of them.
    let mut users: Vec<_> = (0..99).map(|number| cluster.add_user(&format!("u{number}"), A)).collect();
    let bob = cluster.add_user("bob", B);
    assert_eq!(cluster.locate(bob, PATIENCE).await, Ok(Some(B)));
    cluster.set_fault(DIRECTORY, Some(Fault::Swallows));
    users.push(bob);
    let (_drain, _worker) = start(&cluster);
    cluster.enqueue(A, &users, "hello");
    until("he has it", || cluster.inbox(bob).len() == 1).await;
}

#[tokio::test]
async fn a_delivery_carries_the_time_of_its_lease() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    let watched = Watched::new(&cluster);
    let (_drain, _worker) = start(&watched);
    let before = mail::CLOCK.wall_ms();
    cluster.enqueue(A, &[bob], "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    let delivers = watched.delivers.lock();
    let (shard, deliver) = &delivers[0];
    assert_eq!((*shard, deliver.source_shard, deliver.targets.len()), (B, A.0, 1));
    assert!((before..=mail::CLOCK.wall_ms()).contains(&deliver.leased_ms), "{}", deliver.leased_ms);
}

#[tokio::test]
async fn transfers_are_forgotten_late_and_only_then() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    let forget_after = Duration::from_millis(1500);
    let (_drain, _worker) = start_with(&cluster, WorkerTimings { forget_after, ..timings() });
    let began = Instant::now();
    cluster.enqueue(A, &[bob], "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    until("it is forgotten", || cluster.transfers(B) == (0, 1)).await;
    assert!(began.elapsed() >= forget_after);
    assert_eq!(cluster.inbox(bob).len(), 1);
}

#[tokio::test]
async fn a_busy_shard_starves_no_other() {
    let cluster = MailCluster::new(3);
    let (bob, cyd) = (cluster.add_user("bob", B), cluster.add_user("cyd", C));
    *cluster.takes.lock() = Duration::from_millis(50);
    for number in 0..3000 {
        cluster.enqueue(A, &[bob], &format!("message {number}"));
    }
    let (_drain, _worker) = start_with(&cluster, WorkerTimings { lease: PATIENCE, ..timings() });
    until("the busy shard is at work", || cluster.inbox(bob).len() > 100).await;
    cluster.enqueue(B, &[cyd], "hello");
    until("the other shard's message is there", || cluster.inbox(cyd).len() == 1).await;
    assert!(!cluster.waiting(A).is_empty(), "the test has lost its point");
}

#[tokio::test]
async fn new_shards_are_polled_and_draining_ends() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    let (drain, worker) = start(&cluster);
    cluster.add_shard(C);
    cluster.enqueue(C, &[bob], "hello");
    until("the new shard's message is there", || cluster.inbox(bob).len() == 1).await;
    drain.cancel();
    tokio::time::timeout(PATIENCE, worker).await.expect("the worker ends").expect("without a panic");
    cluster.enqueue(A, &[bob], "later");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cluster.inbox(bob).len(), 1);
}

/// Nobody outside is given up by a worker that reaches nobody there, and those of the entry who live here have it meanwhile.
#[tokio::test]
async fn who_is_outside_waits_for_a_worker_that_sends() {
    let cluster = MailCluster::new(2);
    let (ada, bob) = (cluster.add_user("ada", A), cluster.add_user("bob", B));
    let outside = |address: &str| pb::Recipient { address: address.to_owned(), ..Default::default() };
    let here = pb::Recipient { user_id: bob.to_bytes(), ..Default::default() };
    let to = vec![outside("ada@far.example"), here, outside("eve@far.example")];
    cluster.enqueue_outside(A, ada, to, "hello");
    let (_drain, _worker) = start(&cluster);
    until("bob has it", || cluster.inbox(bob).len() == 1).await;
    until("both are said to wait", || {
        let waiting = cluster.waiting(A);
        let pending = &waiting[0].pending;
        pending.len() == 2 && pending.iter().all(|pending| pending.reason.contains("outside") && pending.attempts > 0)
    })
    .await;
}
