//! The worker against a cluster in memory.

use std::time::Duration;

use postrider_api::env::SystemEntropy;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::cluster::mail::{self, Fault, MailCluster};

const A: ShardId = ShardId(1000);
const B: ShardId = ShardId(1001);
const C: ShardId = ShardId(1002);
/// The machine may be slow; nothing here waits for this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn timings() -> WorkerTimings {
    WorkerTimings {
        lease: Duration::from_millis(400),
        lease_wait: Duration::from_millis(200),
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

fn start_with(cluster: &Arc<MailCluster>, timings: WorkerTimings) -> (CancellationToken, JoinHandle<()>) {
    let drain = CancellationToken::new();
    let worker = Worker::new(Arc::clone(cluster) as _, mail::CLOCK.clone(), SystemEntropy::shared(), timings);
    (drain.clone(), tokio::spawn(worker.run(drain)))
}

fn start(cluster: &Arc<MailCluster>) -> (CancellationToken, JoinHandle<()>) {
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
    // Leases lapse while the work goes on, so both come to hold the same entries.
    *cluster.takes.lock() = Duration::from_millis(60);
    let short = WorkerTimings { lease: Duration::from_millis(50), ..timings() };
    let _first = start_with(&cluster, short.clone());
    let _second = start_with(&cluster, WorkerTimings { lease: Duration::from_millis(400), ..short });
    for number in 0..10 {
        cluster.enqueue(A, &[bob], &format!("message {number}"));
    }
    until("all is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(cluster.inbox(bob).len(), 10);
}

#[tokio::test]
async fn a_user_who_is_gone_fails() {
    let cluster = MailCluster::new(2);
    let (bob, eve) = (cluster.add_user("bob", B), cluster.add_user("eve", B));
    // The worker has located her before she goes.
    assert_eq!(cluster.locate(eve, PATIENCE).await, Ok(Some(B)));
    cluster.remove_user(eve);
    let (_drain, _worker) = start(&cluster);
    cluster.enqueue(A, &[bob, eve], "hello");
    until("the entry is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(bob).len(), cluster.inbox(eve).len()), (1, 0));
}

#[tokio::test]
async fn a_full_mailbox_waits() {
    let cluster = MailCluster::new(2);
    let bob = cluster.add_user("bob", B);
    cluster.fill(bob, B);
    let (_drain, _worker) = start(&cluster);
    cluster.enqueue(A, &[bob], "hello");
    until("it was tried", || cluster.waiting(A)[0].attempts >= 2).await;
    assert!(cluster.waiting(A)[0].pending[0].reason.contains("quota"));
}

#[tokio::test]
async fn what_is_too_old_is_given_up() {
    let cluster = MailCluster::new(3);
    let (bob, cyd) = (cluster.add_user("bob", B), cluster.add_user("cyd", C));
    cluster.set_fault(B, Some(Fault::NoQuorum));
    let (_drain, _worker) = start(&cluster);
    let entry = cluster.enqueue(A, &[bob, cyd], "hello");
    until("it waits", || cluster.waiting(A).iter().any(|entry| entry.attempts >= 1)).await;
    cluster.age(A, entry, limit::ENTRY_AGE_MS_MAX + 1000);
    until("it is given up", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(bob).len(), cluster.inbox(cyd).len()), (0, 1));
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
