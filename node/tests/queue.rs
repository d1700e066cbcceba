//! Leases of queue entries and their fences.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::{Duration, Instant};

use postrider_api::id::UserId;
use postrider_api::identity::Role;
use postrider_api::limit::LEASE_INHERITED_MS;
use postrider_api::pb::{self, Settlement, answer, command::Op, fault::Fault, lease_reply, outcome, query};
use postrider_node::{NodeLimits, NodeTimings};
use postrider_router::{ReadMode, RouteError, Router};
use support::mail::{accept, command, done, message, sign_up, subjects};
use support::{Cluster, GENEROUS, MAILBOX, OTHER_MAILBOX};

const LEASE_MS: u32 = 30_000;

async fn start() -> (Cluster, Router, UserId, UserId) {
    start_within(NodeLimits::default()).await
}

async fn start_within(limits: NodeLimits) -> (Cluster, Router, UserId, UserId) {
    let timings = NodeTimings { homesick: Duration::from_secs(3600), ..Default::default() };
    let cluster = tokio::task::block_in_place(|| Cluster::start_within(3, timings, limits));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let bob = sign_up(&router, "bob", OTHER_MAILBOX).await;
    (cluster, router, ada, bob)
}

fn settle(leased: &pb::LeasedEntry, user: UserId, settlement: Settlement, retry_ms: u32) -> pb::Command {
    let result = pb::RecipientResult {
        user_id: user.to_bytes(),
        settlement: settlement.into(),
        reason: "tested".to_owned(),
        shard: 0,
        ..Default::default()
    };
    let entry = leased.entry.as_ref().unwrap().entry;
    command(Op::Settle(pb::Settle { entry, results: vec![result], retry_ms, ..Default::default() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_leased_once_and_settled_under_its_fence() {
    let (_cluster, router, ada, bob) = start().await;
    assert!(router.lease_queue(MAILBOX, 10, LEASE_MS, 0).await.unwrap().is_empty());
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let leased = router.lease_queue(MAILBOX, 10, LEASE_MS, 10_000).await.unwrap();
    assert_eq!(leased.len(), 1);
    let leased = &leased[0];
    let entry = leased.entry.as_ref().unwrap();
    assert_eq!(entry.pending.len(), 1, "ada has it already");
    assert_eq!(entry.pending[0].user_id, bob.to_bytes());
    assert!(leased.body.as_ref().unwrap().text.starts_with(b"Subject: for two"));
    assert!(router.lease_queue(MAILBOX, 10, LEASE_MS, 0).await.unwrap().is_empty(), "leased already");

    let fence = leased.fence.unwrap();
    let delivered = settle(leased, bob, Settlement::Delivered, 0);
    for wrong in [pb::Fence { counter: fence.counter + 1, ..fence }, pb::Fence { term: fence.term + 1, ..fence }] {
        let refused = router.settle_queue(MAILBOX, wrong, delivered.clone(), GENEROUS).await;
        assert_eq!(refused, Err(RouteError::LeaseLost));
    }
    let command = pb::Command { request: vec![9; 16].into(), ..delivered.clone() };
    let first = router.settle_queue(MAILBOX, fence, command.clone(), GENEROUS).await.unwrap();
    done(first.clone());
    assert_eq!(router.settle_queue(MAILBOX, fence, command, GENEROUS).await, Ok(first), "asked again");
    let another = router.settle_queue(MAILBOX, fence, delivered, GENEROUS).await;
    assert_eq!(another, Err(RouteError::LeaseLost), "under another request id");
    assert!(router.lease_queue(MAILBOX, 10, LEASE_MS, 0).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_worker_wakes_when_an_entry_comes_and_when_one_becomes_due() {
    let (_cluster, router, ada, bob) = start().await;
    let waiting = {
        let router = router.clone();
        tokio::spawn(async move { router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await })
    };
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let leased = waiting.await.unwrap().unwrap().remove(0);

    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let due_ms = now_ms + 1500;
    let deferred = settle(&leased, bob, Settlement::Deferred, 1500);
    done(router.settle_queue(MAILBOX, leased.fence.unwrap(), deferred, GENEROUS).await.unwrap());
    assert!(router.lease_queue(MAILBOX, 1, LEASE_MS, 0).await.unwrap().is_empty(), "not due yet");
    let again = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap().remove(0);
    let woke_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!(woke_ms >= due_ms, "{} ms early", due_ms - woke_ms);
    assert_eq!(again.entry.as_ref().unwrap().pending[0].attempts, 1);
    assert!(again.fence.unwrap().counter > leased.fence.unwrap().counter);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lapses_is_taken_over() {
    let (_cluster, router, ada, bob) = start().await;
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let slow = router.lease_queue(MAILBOX, 1, 300, 10_000).await.unwrap().remove(0);
    let began = Instant::now();
    let quick = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap().remove(0);
    assert!(began.elapsed() < GENEROUS);
    let delivered = settle(&slow, bob, Settlement::Delivered, 0);
    let late = router.settle_queue(MAILBOX, slow.fence.unwrap(), delivered.clone(), GENEROUS).await;
    assert_eq!(late, Err(RouteError::LeaseLost));
    done(router.settle_queue(MAILBOX, quick.fence.unwrap(), delivered, GENEROUS).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_leases_afresh_and_refuses_old_results() {
    let (cluster, router, ada, bob) = start().await;
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let old = router.lease_queue(MAILBOX, 1, LEASE_MS, 10_000).await.unwrap().remove(0);
    cluster.transfer_on(MAILBOX).await;
    let new = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap().remove(0);
    assert!(new.fence.unwrap().term > old.fence.unwrap().term);
    let delivered = settle(&old, bob, Settlement::Delivered, 0);
    let refused = router.settle_queue(MAILBOX, old.fence.unwrap(), delivered.clone(), GENEROUS).await;
    assert_eq!(refused, Err(RouteError::LeaseLost));
    done(router.settle_queue(MAILBOX, new.fence.unwrap(), delivered, GENEROUS).await.unwrap());
}

async fn send_outside(router: &Router, from: UserId, to: &str) {
    let send = Op::Send(pb::Send {
        user_id: from.to_bytes(),
        mail_from: "ada@postrider.example".to_owned(),
        recipients: vec![pb::Recipient { address: to.to_owned(), ..Default::default() }],
        message: Some(message("for the world")),
        ..Default::default()
    });
    let outcome = router.propose(MAILBOX, None, command(send), GENEROUS).await.unwrap();
    assert!(matches!(outcome.result, Some(outcome::Result::Sent(_))), "{outcome:?}");
}

/// Hosts outside cannot be asked whether they have a message: whoever has it on its way goes on when the leader changes, nobody else gets it
/// meanwhile, and whoever died with it keeps it for no longer than a lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_lets_leases_for_the_outside_go_on() {
    let (cluster, router, ada, bob) = start().await;
    send_outside(&router, ada, "eve@far.example").await;
    send_outside(&router, ada, "may@far.example").await;
    let leased = router.lease_queue(MAILBOX, 2, LEASE_MS, 60_000).await.unwrap();
    let [kept, dead] = &leased[..] else { panic!("{leased:?}") };
    let (entry, fence) = (kept.entry.as_ref().unwrap().entry, kept.fence.unwrap());
    cluster.transfer_on(MAILBOX).await;
    let began = Instant::now();
    assert!(router.lease_queue(MAILBOX, 2, LEASE_MS, 2_000).await.unwrap().is_empty(), "somebody has them");
    router.prolong_lease(MAILBOX, entry, fence, LEASE_MS, GENEROUS).await.unwrap();
    // What is new, and what goes between shards, is leased at once.
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let between = router.lease_queue(MAILBOX, 2, LEASE_MS, 10_000).await.unwrap();
    assert_eq!(between.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(25), "the machine was too slow for this test");
    // Through another leader, who has heard of it from nobody.
    cluster.transfer_on(MAILBOX).await;
    let again = Instant::now();
    let result = pb::RecipientResult {
        address: "eve@far.example".to_owned(),
        settlement: Settlement::Delivered.into(),
        ..Default::default()
    };
    let settle = |entry| command(Op::Settle(pb::Settle { entry, results: vec![result.clone()], ..Default::default() }));
    let told = pb::Command { request: bytes::Bytes::from_static(b"told once, or so"), ..settle(entry) };
    let first = router.settle_queue(MAILBOX, fence, told.clone(), GENEROUS).await.unwrap();
    done(first.clone());
    assert_eq!(router.settle_queue(MAILBOX, fence, told, GENEROUS).await, Ok(first), "asked again");
    assert_eq!(router.settle_queue(MAILBOX, fence, settle(entry), GENEROUS).await, Err(RouteError::LeaseLost));
    let lost = router.prolong_lease(MAILBOX, entry, fence, LEASE_MS, GENEROUS).await;
    assert_eq!(lost, Err(RouteError::LeaseLost), "it is settled");

    // What goes between shards is leased to whoever asks meanwhile, and again once that lease is over.
    let dead_entry = dead.entry.as_ref().unwrap().entry;
    let is_left = |leased: &pb::LeasedEntry| leased.entry.as_ref().unwrap().entry == dead_entry;
    while !router.lease_queue(MAILBOX, 2, LEASE_MS, 60_000).await.unwrap().iter().any(is_left) {
        assert!(again.elapsed() < GENEROUS * 2, "whoever died with it keeps it");
    }
    assert!(again.elapsed() > Duration::from_millis(LEASE_INHERITED_MS) - Duration::from_secs(5));
    let late = router.settle_queue(MAILBOX, dead.fence.unwrap(), settle(dead_entry), GENEROUS).await;
    assert_eq!(late, Err(RouteError::LeaseLost), "somebody else has it");
}

/// Whoever is told "busy" takes the node for the leader, so only the leader may say so.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_is_busy() {
    let limits = NodeLimits { lease_waiters_max: 0, ..Default::default() };
    let (cluster, ..) = start_within(limits).await;
    let leader = cluster.leader(MAILBOX).await;
    for id in 1..=3 {
        let request = pb::LeaseRequest { shard: MAILBOX.0, max: 1, lease_ms: LEASE_MS, ..Default::default() };
        let reply = cluster.shard_service(id, Role::Worker).lease_queue(request).await.unwrap().into_inner();
        let Some(lease_reply::Result::Fault(fault)) = reply.result else { panic!("{reply:?}") };
        match fault.fault {
            Some(Fault::Busy(_)) => assert_eq!(id, leader),
            Some(Fault::NotLeader(_)) => assert_ne!(id, leader),
            other => panic!("{other:?}"),
        }
    }
}

/// What was settled is remembered for a while, and holds no place meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_settled_entry_makes_room_for_the_next() {
    let (_cluster, router, ada, bob) = start_within(NodeLimits { leases_max: 1, ..Default::default() }).await;
    let entries = 4;
    for _ in 0..entries {
        done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    }
    let mut leased = router.lease_queue(MAILBOX, 1, LEASE_MS, 10_000).await.unwrap().remove(0);
    for _ in 1..entries {
        let waiting = {
            let router = router.clone();
            tokio::spawn(async move { router.lease_queue(MAILBOX, 1, LEASE_MS, 15_000).await })
        };
        assert!(router.lease_queue(MAILBOX, 1, LEASE_MS, 0).await.unwrap().is_empty(), "there is no room");
        let delivered = settle(&leased, bob, Settlement::Delivered, 0);
        done(router.settle_queue(MAILBOX, leased.fence.unwrap(), delivered, GENEROUS).await.unwrap());
        leased = waiting.await.unwrap().unwrap().pop().expect("room was made while it waited");
    }
}

fn counted(metrics: &metrics_exporter_prometheus::PrometheusHandle, what: &str) -> u64 {
    let rendered = metrics.render();
    let line = rendered.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Workers wait at the queue of every shard all the time: that must not be what keeps all shards awake.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_at_whose_queue_somebody_waits_is_parked_and_wakes_for_an_entry() {
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let (_cluster, router, ada, bob) = start().await;
    let (leases, mut leased) = tokio::sync::mpsc::unbounded_channel();
    let waits = |shard| {
        let (router, leases) = (router.clone(), leases.clone());
        tokio::spawn(async move {
            loop {
                for entry in router.lease_queue(shard, 1, LEASE_MS, 1_000).await.unwrap() {
                    leases.send((shard, entry.entry.unwrap().entry)).unwrap();
                }
            }
        })
    };
    let waiting = [waits(MAILBOX), waits(OTHER_MAILBOX)];
    // Placement, the directory, and the two: on three nodes each. Placement is kept awake by whoever looks after its nodes; with the two
    // awake there would be three at most.
    let parked =
        || counted(&metrics, "postrider_raft_parked_total") - counted(&metrics, "postrider_raft_unparked_total");
    let until = Instant::now() + GENEROUS;
    while parked() < 9 {
        assert!(Instant::now() < until, "{} replicas are parked", parked());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
    let (shard, _) = tokio::time::timeout(GENEROUS, leased.recv()).await.expect("somebody wakes").unwrap();
    assert_eq!(shard, MAILBOX);
    waiting.iter().for_each(|task| task.abort());
}

/// Many wait; each entry wakes one of them, and none is lost with a waiter that leaves.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_wakes_one_of_those_who_wait() {
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let (_cluster, router, ada, bob) = start().await;
    let waiters = 30;
    let (leases, mut leased) = tokio::sync::mpsc::unbounded_channel();
    let waiting: Vec<_> = (0..waiters)
        .map(|_| {
            let (router, leases) = (router.clone(), leases.clone());
            tokio::spawn(async move {
                let entries = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap();
                for entry in entries {
                    leases.send(entry.entry.unwrap().entry).unwrap();
                }
            })
        })
        .collect();
    let mut entries = Vec::new();
    for round in 0..6 {
        if round == 3 {
            // Half of them leave, perhaps the one whose turn it is.
            waiting[..waiters / 2].iter().for_each(|task| task.abort());
            // One call on each connection, behind the news that they left.
            for _ in 0..3 {
                assert!(router.lease_queue(MAILBOX, 1, LEASE_MS, 0).await.unwrap().is_empty());
            }
        }
        done(router.propose(MAILBOX, None, accept(&[ada, bob], "for two"), GENEROUS).await.unwrap());
        entries.push(tokio::time::timeout(GENEROUS, leased.recv()).await.expect("somebody wakes").unwrap());
    }
    entries.dedup();
    assert_eq!(entries.len(), 6, "each to one: {entries:?}");
    // A wake and the successor's first look for each entry, and the next in line for each that left.
    let looks = counted(&metrics, "postrider_node_lease_looks_total");
    assert!((7..=40).contains(&looks), "{looks} looks");
    waiting.iter().for_each(|task| task.abort());
}

/// What cannot be delivered does not compete with what can: of all who wait for one mailbox a worker gets the first.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_parked_is_not_leased() {
    let (_cluster, router, ada, bob) = start().await;
    let eve = sign_up(&router, "eve", OTHER_MAILBOX).await;
    for n in 0..10 {
        let to = if n == 9 { vec![ada, bob, eve] } else { vec![ada, bob] };
        done(router.propose(MAILBOX, None, accept(&to, &format!("number {n}")), GENEROUS).await.unwrap());
    }
    let all = router.lease_queue(MAILBOX, 64, LEASE_MS, 10_000).await.unwrap();
    assert_eq!(all.len(), 10);
    for leased in &all {
        let full = settle(leased, bob, Settlement::Full, 0);
        done(router.settle_queue(MAILBOX, leased.fence.unwrap(), full, GENEROUS).await.unwrap());
    }
    let entry = |leased: &pb::LeasedEntry| leased.entry.as_ref().unwrap().entry;
    let again = router.lease_queue(MAILBOX, 64, LEASE_MS, 10_000).await.unwrap();
    assert_eq!(again.iter().map(entry).collect::<Vec<_>>(), [entry(&all[0]), entry(&all[9])]);
    let pending = &again[1].entry.as_ref().unwrap().pending;
    assert_eq!(pending.iter().map(|p| p.user_id.clone()).collect::<Vec<_>>(), [eve.to_bytes()], "bob is parked there");
    // There is room: the others follow at once.
    let delivered = settle(&again[0], bob, Settlement::Delivered, 0);
    done(router.settle_queue(MAILBOX, again[0].fence.unwrap(), delivered, GENEROUS).await.unwrap());
    let rest = router.lease_queue(MAILBOX, 64, LEASE_MS, 10_000).await.unwrap();
    assert_eq!(rest.iter().map(entry).collect::<Vec<_>>(), all[1..9].iter().map(entry).collect::<Vec<_>>());
}

/// What is sent later is leased when it may be sent, to whoever it is; each result has its own next time, and a report is in the inbox
/// with what it tells of.
#[tokio::test(flavor = "multi_thread")]
async fn mail_to_the_outside_is_leased_with_its_message_and_reported_on_under_the_fence() {
    let (_cluster, router, ada, bob) = start().await;
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let not_before_ms = now_ms() + 1500;
    let outside = |address: &str| pb::Recipient { address: address.to_owned(), ..Default::default() };
    let here = pb::Recipient { user_id: bob.to_bytes(), ..outside("bob@postrider.example") };
    let send = Op::Send(pb::Send {
        user_id: ada.to_bytes(),
        mail_from: "ada@postrider.example".to_owned(),
        recipients: vec![outside("eve@far.example"), here, outside("may@near.example")],
        message: Some(message("for the world")),
        options: Some(pb::SendOptions { not_before_ms, ..Default::default() }),
        ..Default::default()
    });
    let outcome = router.propose(MAILBOX, None, command(send), GENEROUS).await.unwrap();
    assert!(matches!(outcome.result, Some(outcome::Result::Sent(_))), "{outcome:?}");
    let leased = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap().remove(0);
    assert!(now_ms() >= not_before_ms, "nobody gets it before");
    assert!(leased.body.as_ref().unwrap().text.starts_with(b"Subject: for the world"));
    let entry = leased.entry.as_ref().unwrap();
    let named: Vec<&str> = entry.pending.iter().map(|pending| pending.address.as_str()).collect();
    assert_eq!(named, ["eve@far.example", "bob@postrider.example", "may@near.example"]);
    assert_eq!((entry.sender_user_id.clone(), entry.pending[0].since_ms), (ada.to_bytes(), not_before_ms));

    let result = |address: &str, settlement: Settlement, retry_ms| pb::RecipientResult {
        address: address.to_owned(),
        settlement: settlement.into(),
        reason: "tested".to_owned(),
        reply: "452 4.3.1 full".to_owned(),
        reported: settlement == Settlement::Failed,
        retry_ms,
        ..Default::default()
    };
    let delivered =
        pb::RecipientResult { user_id: bob.to_bytes(), ..result("bob@postrider.example", Settlement::Delivered, 0) };
    let results = vec![
        result("eve@far.example", Settlement::Failed, 0),
        delivered,
        result("may@near.example", Settlement::Deferred, 1000),
    ];
    let settle = Op::Settle(pb::Settle { entry: entry.entry, results, retry_ms: 0, report: Some(message("a report")) });
    let settled_ms = now_ms();
    done(router.settle_queue(MAILBOX, leased.fence.unwrap(), command(settle), GENEROUS).await.unwrap());
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await.0, ["a report"]);
    let again = router.lease_queue(MAILBOX, 1, LEASE_MS, 60_000).await.unwrap().remove(0);
    assert!(now_ms() >= settled_ms + 1000);
    let pending = &again.entry.as_ref().unwrap().pending;
    assert_eq!((pending.len(), pending[0].address.as_str(), pending[0].attempts), (1, "may@near.example", 1));
    let ask = query::Query::ListDestinations(pb::ListDestinations::default());
    let found = router.query(MAILBOX, None, ask, ReadMode::Consistent, 0, GENEROUS).await;
    let Some(answer::Answer::Destinations(found)) = found.unwrap().answer.answer else { panic!("destinations") };
    let counts: Vec<_> = found.destinations.into_iter().map(|found| found.count.unwrap()).collect();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].destination.as_str(), counts[0].reply.as_str()), ("near.example", "452 4.3.1 full"));
}
