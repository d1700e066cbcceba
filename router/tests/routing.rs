//! The router against nodes that are scripted with faults.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use postrider_api::address::Address;
use postrider_api::id::{ModSeq, ShardId, Slot, UserId, ZoneId};
use postrider_api::identity::Role;
use postrider_api::limit::COMMAND_BYTES_MAX;
use postrider_api::pb::{self, fault::Fault, query};
use postrider_router::{ReadMode, RouteError, WatchItem};
use support::fake::{Act, Call};
use support::{Cluster, GENEROUS, SHARD, WORLD, command};

fn stats() -> query::Query {
    query::Query::GetShardStats(pb::GetShardStats {})
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_a_redirect_and_remembers_the_leader() {
    let cluster = Cluster::start();
    let away = cluster.not_leader(Some(2));
    cluster.nodes[0].stage.plays(move |_| Act::Fault(away.clone()));
    let router = cluster.router(|_| ()).await;
    for _ in 0..5 {
        router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    }
    assert!(cluster.nodes[0].stage.asked.lock().len() <= 1, "the leader is remembered");
    assert_eq!(cluster.nodes[2].stage.asked.lock().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_end_is_tried_again_under_the_same_request_id() {
    let cluster = Cluster::start();
    let mut first = true;
    cluster.nodes[0].stage.plays(move |_| if std::mem::take(&mut first) { Act::DoneThenLost } else { Act::Done });
    let router = cluster.router(|timings| timings.suspicion = Duration::ZERO).await;
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    let mut ids = HashSet::new();
    for node in &cluster.nodes {
        ids.extend(node.stage.asked.lock().iter().cloned());
    }
    assert_eq!(ids.len(), 1, "one request id for all attempts");
    assert_eq!(ids.iter().next().unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_request_id_is_kept() {
    let cluster = Cluster::start();
    let router = cluster.router(|_| ()).await;
    let command = pb::Command { request: vec![7; 16].into(), ..command() };
    router.propose(SHARD, None, command, GENEROUS).await.unwrap();
    assert_eq!(*cluster.nodes[0].stage.asked.lock(), [vec![7; 16]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_is_given_back_in_time_for_smtp_and_rest() {
    let cluster = Cluster::start();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let fault = if at == 0 { Fault::NoQuorum(pb::NoQuorum {}) } else { cluster.not_leader(Some(0)) };
        node.stage.plays(move |_| Act::Fault(fault.clone()));
    }
    let router = cluster.router(|_| ()).await;
    let began = Instant::now();
    assert_eq!(router.propose(SHARD, None, command(), GENEROUS).await, Err(RouteError::NoQuorum));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_gone_are_no_quorum_and_nothing_happened() {
    let mut cluster = Cluster::start();
    let router = cluster.router(|timings| timings.leaderless = Duration::from_millis(800)).await;
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    let error = router.propose(SHARD, None, command(), GENEROUS).await.unwrap_err();
    // A connection that breaks under a request tells nothing; refused connections tell that nothing happened.
    assert!(matches!(error, RouteError::NoQuorum | RouteError::TimedOut { may_have_happened: true }), "{error:?}");
    let error = router.propose(SHARD, None, command(), GENEROUS).await.unwrap_err();
    assert_eq!(error, RouteError::NoQuorum);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_swallows_requests_does_not_use_up_the_time() {
    let cluster = Cluster::start();
    cluster.nodes[0].stage.plays(|_| Act::Silence);
    let router = cluster.router(|timings| timings.attempt = Duration::from_millis(300)).await;
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    assert_eq!(cluster.nodes[0].stage.asked.lock().len(), 1);
    assert_eq!(cluster.nodes[0].stage.asked.lock()[0], *cluster.nodes[1].stage.asked.lock()[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_time_tells_that_it_may_have_happened() {
    let cluster = Cluster::start();
    cluster.nodes.iter().for_each(|node| node.stage.plays(|_| Act::Silence));
    let router = cluster.router(|timings| timings.attempt = Duration::from_millis(100)).await;
    let error = router.propose(SHARD, None, command(), Duration::from_millis(900)).await.unwrap_err();
    assert_eq!(error, RouteError::TimedOut { may_have_happened: true });
    let read = router.query(SHARD, None, stats(), ReadMode::Consistent, 0, Duration::from_millis(300)).await;
    assert_eq!(read.unwrap_err(), RouteError::TimedOut { may_have_happened: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_is_tried_again_and_then_told() {
    let cluster = Cluster::start();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    cluster.nodes[0].stage.plays(move |_| {
        if counted.fetch_add(1, Ordering::Relaxed) < 3 { Act::Fault(Fault::Busy(pb::Busy {})) } else { Act::Done }
    });
    let router = cluster.router(|_| ()).await;
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 4);

    for node in &cluster.nodes {
        node.stage.plays(|_| Act::Fault(Fault::Busy(pb::Busy {})));
    }
    let began = Instant::now();
    assert_eq!(router.propose(SHARD, None, command(), GENEROUS).await, Err(RouteError::Busy));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_epoch_is_mended_from_the_error() {
    let cluster = Cluster::start();
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let epochs = seen.clone();
    cluster.nodes[0].stage.plays(move |call| {
        let Call::Propose(request) = call else { return Act::Done };
        epochs.lock().push(request.epoch);
        if request.epoch >= 5 {
            return Act::Done;
        }
        let current = pb::Shard { id: 1000, replicas: vec![1, 2, 3], epoch: 5, ..Default::default() };
        Act::Fault(Fault::StaleEpoch(pb::StaleEpoch { current: Some(Box::new(current)) }))
    });
    let router = cluster.router(|_| ()).await;
    let mut changes = router.map_changes();
    changes.mark_unchanged();
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    assert_eq!(*seen.lock(), [1, 5]);
    assert!(changes.has_changed().unwrap());
    assert_eq!(router.map().shards.iter().find(|shard| shard.id == 1000).unwrap().epoch, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_follows_the_stream_and_survives_the_node_that_sent_it() {
    let mut cluster = Cluster::start();
    let router = cluster.router(|_| ()).await;
    let mut changes = router.map_changes();
    for (version, victim) in [(2, Some(0)), (3, Some(1)), (4, None)] {
        cluster.publish(version, version);
        let arrived = changes.wait_for(|map| map.version == version);
        tokio::time::timeout(GENEROUS, arrived).await.expect("the map arrives").unwrap();
        if let Some(victim) = victim {
            cluster.nodes[victim].kill();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_without_a_leader_and_are_marked() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.stage.plays(|call| match call {
            Call::Query(request) if request.mode() == pb::ReadMode::Stale => Act::Done,
            _ => Act::Fault(Fault::NoQuorum(pb::NoQuorum {})),
        });
    }
    let router = cluster.router(|timings| timings.consistent_first = Duration::from_millis(300)).await;
    let answered = router.query(SHARD, None, stats(), ReadMode::StaleOk, 0, GENEROUS).await.unwrap();
    assert_eq!(answered.stale_ms, Some(1234));
    let refused = router.query(SHARD, None, stats(), ReadMode::Consistent, 0, GENEROUS).await;
    assert_eq!(refused.unwrap_err(), RouteError::NoQuorum);

    cluster.nodes.iter().for_each(|node| node.stage.plays(|_| Act::Done));
    let answered = router.query(SHARD, None, stats(), ReadMode::StaleOk, 0, GENEROUS).await.unwrap();
    assert_eq!(answered.stale_ms, None, "consistent again as soon as there is a leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_passed_over() {
    let cluster = Cluster::start();
    for (at, node) in cluster.nodes.iter().enumerate() {
        node.stage.plays(move |call| match call {
            Call::Query(request) if request.mode() == pb::ReadMode::Stale && at == 2 => Act::Done,
            Call::Query(request) if request.mode() == pb::ReadMode::Stale => {
                Act::Fault(Fault::Behind(pb::Behind { modseq: 3 }))
            }
            _ => Act::Fault(Fault::NoQuorum(pb::NoQuorum {})),
        });
    }
    let router = cluster.router(|timings| timings.consistent_first = Duration::from_millis(100)).await;
    let answered = router.query(SHARD, None, stats(), ReadMode::StaleOk, 9, GENEROUS).await.unwrap();
    assert!(answered.stale_ms.is_some());
    cluster.nodes[2].stage.plays(|_| Act::Fault(Fault::Behind(pb::Behind { modseq: 3 })));
    let behind = router.query(SHARD, None, stats(), ReadMode::StaleOk, 9, GENEROUS).await;
    assert_eq!(behind.unwrap_err(), RouteError::Behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_given_back_at_once() {
    let cluster = Cluster::start();
    let router = cluster.router(|_| ()).await;
    let cases = [
        (Fault::Unauthenticated(pb::Unauthenticated {}), RouteError::Unauthenticated),
        (Fault::Suspended(pb::Suspended {}), RouteError::Suspended),
        (Fault::TooLarge(pb::TooLarge { max: 9 }), RouteError::TooLarge { max: 9 }),
        (Fault::LeaseLost(pb::LeaseLost {}), RouteError::LeaseLost),
        (
            Fault::Malformed(pb::MalformedRequest { detail: "no op".into() }),
            RouteError::Malformed { detail: "no op".into() },
        ),
        (Fault::Corrupt(pb::Corrupt { detail: "row".into() }), RouteError::Corrupt { detail: "row".into() }),
    ];
    for (fault, error) in cases {
        let before = cluster.nodes[0].stage.asked.lock().len();
        cluster.nodes[0].stage.plays(move |_| Act::Fault(fault.clone()));
        assert_eq!(router.propose(SHARD, None, command(), GENEROUS).await, Err(error));
        assert_eq!(cluster.nodes[0].stage.asked.lock().len(), before + 1);
    }
    let large = pb::Forget { requests: vec![vec![0; COMMAND_BYTES_MAX].into()], ..Default::default() };
    let large = pb::Command { op: Some(pb::command::Op::Forget(large)), ..Default::default() };
    let error = router.propose(SHARD, None, large, GENEROUS).await.unwrap_err();
    assert_eq!(error, RouteError::TooLarge { max: COMMAND_BYTES_MAX as u64 });
    assert_eq!(router.propose(ShardId(77), None, command(), GENEROUS).await, Err(RouteError::UnknownShard));
}

/// A log-out that succeeded, and whose answer was lost, finds its session gone when it is asked again: that is no "no such
/// session" for the caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_an_ambiguous_end_is_no_certain_one() {
    let cluster = Cluster::start();
    let router = cluster.router(|timings| timings.suspicion = Duration::ZERO).await;
    for fault in [
        Fault::Unauthenticated(pb::Unauthenticated {}),
        Fault::LeaseLost(pb::LeaseLost {}),
        Fault::Malformed(pb::MalformedRequest { detail: "no op".into() }),
    ] {
        for node in &cluster.nodes {
            node.stage.asked.lock().clear();
            let fault = fault.clone();
            node.stage.plays(move |_| Act::Fault(fault.clone()));
        }
        let mut first = true;
        let again = fault.clone();
        cluster.nodes[0]
            .stage
            .plays(move |_| if std::mem::take(&mut first) { Act::DoneThenLost } else { Act::Fault(again.clone()) });
        let error = router.propose(SHARD, None, command(), GENEROUS).await.unwrap_err();
        assert_eq!(error, RouteError::TimedOut { may_have_happened: true }, "{fault:?}");
        let asked: usize = cluster.nodes.iter().map(|node| node.stage.asked.lock().len()).sum();
        assert_eq!(asked, 2, "the second attempt ends it");
        // Reads change nothing, and are refused as they are.
        let mut first = true;
        cluster.nodes[0].stage.plays(move |_| {
            if std::mem::take(&mut first) {
                Act::DoneThenLost
            } else {
                Act::Fault(Fault::Unauthenticated(pb::Unauthenticated {}))
            }
        });
        cluster.nodes[1..].iter().for_each(|node| {
            node.stage.plays(|_| Act::Fault(Fault::Unauthenticated(pb::Unauthenticated {})));
        });
        let read = router.query(SHARD, None, stats(), ReadMode::Consistent, 0, GENEROUS).await;
        assert_eq!(read.unwrap_err(), RouteError::Unauthenticated);
    }
}

/// The leader is dead and swallows requests. The others name it until they have elected, which takes longer than the first
/// suspicion: asking it once more must not cost the call the new leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_that_is_asked_again_does_not_hide_the_new_one() {
    let cluster = Cluster::start();
    let attempt = Duration::from_secs(3);
    let router = cluster.router(|timings| timings.attempt = attempt).await;
    let asked_again = Arc::new(OnceLock::new());
    let asked = AtomicU32::new(0);
    cluster.nodes[0].stage.plays({
        let asked_again = asked_again.clone();
        move |_| {
            if asked.fetch_add(1, Ordering::Relaxed) > 0 {
                asked_again.get_or_init(Instant::now);
            }
            Act::Silence
        }
    });
    let (old, new) = (cluster.not_leader(Some(0)), cluster.not_leader(Some(1)));
    for (node, then) in [(1, Act::Done), (2, Act::Fault(new))] {
        let (asked_again, old) = (asked_again.clone(), old.clone());
        cluster.nodes[node].stage.plays(move |_| match asked_again.get() {
            Some(_) => then.clone(),
            None => Act::Fault(old.clone()),
        });
    }
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    let took = asked_again.get().expect("it was asked again").elapsed();
    // A moment, where others would be given twice as long as the attempt before, which ran out of time.
    assert!(took < 2 * attempt, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_searches_a_whole_shard_is_waited_for() {
    let cluster = Cluster::start();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    cluster.nodes[0].stage.plays(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Act::Late(Duration::from_millis(900))
    });
    let router = cluster.router(|timings| timings.attempt = Duration::from_millis(200)).await;
    let find =
        || query::Query::FindMessageId(pb::FindMessageId { message_id_hash: vec![1; 16].into(), ..Default::default() });
    router.query(SHARD, None, find(), ReadMode::Consistent, 0, GENEROUS).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // One that takes longer than its caller waits says nothing against the node.
    cluster.nodes[0].stage.plays(|_| Act::Silence);
    let error =
        router.query(SHARD, None, find(), ReadMode::Consistent, 0, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error, RouteError::TimedOut { may_have_happened: false });
    cluster.nodes[0].stage.plays(|_| Act::Done);
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
    assert_eq!(cluster.nodes[0].stage.asked.lock().len(), 1, "the leader is remembered and asked first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_the_role_is_told_so() {
    let cluster = Cluster::start();
    let router = cluster.router_as(Role::Worker, |_| ()).await;
    let error = router.propose(SHARD, None, command(), GENEROUS).await.unwrap_err();
    assert!(matches!(error, RouteError::Forbidden { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_replica_that_knows_a_user_is_believed() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.stage.plays(|call| match call {
            Call::Query(request) if request.mode() == pb::ReadMode::Stale => Act::Done,
            _ => Act::Fault(Fault::NoQuorum(pb::NoQuorum {})),
        });
    }
    let router = cluster.router(|timings| timings.consistent_first = Duration::from_millis(100)).await;
    assert_eq!(router.locate(UserId::new(WORLD, Slot(3), [9; 12]), GENEROUS).await, Ok(Some(SHARD)));
    // Who an address is decides about mail: that is never asked of a replica alone.
    let address = Address::parse("ada@postrider.example").unwrap();
    assert_eq!(router.look_up(&address, Duration::from_millis(500)).await, Err(RouteError::NoQuorum));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_located_once() {
    let cluster = Cluster::start();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    cluster.nodes[0].stage.plays(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Act::Done
    });
    let router = cluster.router(|_| ()).await;
    let user = UserId::new(WORLD, Slot(3), [9; 12]);
    for _ in 0..3 {
        assert_eq!(router.locate(user, GENEROUS).await, Ok(Some(SHARD)));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    router.forget(user);
    assert_eq!(router.locate(user, GENEROUS).await, Ok(Some(SHARD)));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let address = Address::parse("ada@postrider.example").unwrap();
    assert_eq!(router.look_up(&address, GENEROUS).await.unwrap().unwrap().shard, 1000);
}

/// The map here is older than placement's: neither a domain nor a user of a zone that it does not name is denied by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_map_denies_nobody() {
    let cluster = Cluster::start();
    let router = cluster.router(|timings| timings.leaderless = Duration::from_millis(300)).await;
    let martian = UserId::new(ZoneId(2), Slot(3), [9; 12]);
    // Placement confirms the map as it is.
    assert_eq!(router.zone_of_domain("postrider.example", GENEROUS).await, Ok(Some(WORLD)));
    assert_eq!(router.zone_of_domain("mars.example", GENEROUS).await, Ok(None));
    assert_eq!(router.locate(martian, GENEROUS).await, Ok(None));
    let address = Address::parse("ada@mars.example").unwrap();
    assert_eq!(router.look_up(&address, GENEROUS).await, Ok(None));
    // Placement cannot be asked: nobody knows.
    for node in &cluster.nodes {
        node.stage.plays(|_| Act::Fault(Fault::NoQuorum(pb::NoQuorum {})));
    }
    assert_eq!(router.zone_of_domain("postrider.example", GENEROUS).await, Ok(Some(WORLD)));
    assert_eq!(router.zone_of_domain("mars.example", GENEROUS).await, Err(RouteError::NoQuorum));
    assert_eq!(router.locate(martian, GENEROUS).await, Err(RouteError::NoQuorum));
    assert_eq!(router.look_up(&address, GENEROUS).await, Err(RouteError::NoQuorum));
    // It knows more than the stream has told.
    let mut newer = pb::ShardMap::clone(&router.map());
    newer.version += 1;
    newer.zones.push(pb::Zone { name: "mars".to_owned(), id: 2 });
    newer.domains.push(pb::Domain { name: "mars.example".to_owned(), zone: "mars".to_owned(), ..Default::default() });
    for node in &cluster.nodes {
        *node.stage.newer_map.lock() = Some(newer.clone());
        node.stage.plays(|_| Act::Done);
    }
    assert_eq!(router.zone_of_domain("mars.example", GENEROUS).await, Ok(Some(ZoneId(2))));
    // The zone has no directory shard yet.
    assert_eq!(router.locate(martian, GENEROUS).await, Err(RouteError::UnknownShard));
    assert_eq!(router.look_up(&address, GENEROUS).await, Err(RouteError::UnknownShard));
    let directory = pb::Shard { id: 3, zone: "mars".to_owned(), ..newer.shards[1].clone() };
    newer.version += 1;
    newer.shards.push(directory);
    for node in &cluster.nodes {
        *node.stage.newer_map.lock() = Some(newer.clone());
    }
    assert_eq!(router.locate(martian, GENEROUS).await, Ok(Some(SHARD)));
    assert_eq!(router.look_up(&address, GENEROUS).await.unwrap().unwrap().shard, SHARD.0);
}

/// A command that refers to what was put where the replicas were is not carried out where they are now.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_one_placement_comes_to_no_other() {
    let cluster = Cluster::start();
    let newer = pb::Shard { epoch: 2, ..cluster.nodes[0].stage.map.borrow().shards[2].clone() };
    for node in &cluster.nodes {
        let newer = newer.clone();
        node.stage.plays(move |call| match call {
            Call::Propose(request) if request.epoch < 2 => {
                Act::Fault(Fault::StaleEpoch(pb::StaleEpoch { current: Some(Box::new(newer.clone())) }))
            }
            _ => Act::Done,
        });
    }
    let router = cluster.router(|_| ()).await;
    assert_eq!(router.propose_at(SHARD, 1, None, command(), GENEROUS).await, Err(RouteError::Moved));
    // The map has learnt of it.
    let epoch = router.map().shards.iter().find(|shard| shard.id == SHARD.0).unwrap().epoch;
    assert_eq!(epoch, 2);
    router.propose_at(SHARD, epoch, None, command(), GENEROUS).await.unwrap();
    router.propose(SHARD, None, command(), GENEROUS).await.unwrap();
}

/// Strangers who make up domains cost placement no more than one question at a time.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_at_once_are_one_question() {
    let cluster = Cluster::start();
    let calls = Arc::new(AtomicU32::new(0));
    for node in &cluster.nodes {
        let counted = calls.clone();
        node.stage.plays(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Act::Late(Duration::from_millis(50))
        });
    }
    let router = cluster.router(|_| ()).await;
    let names: Vec<String> = (0..100).map(|number| format!("made-up-{number}.example")).collect();
    let asked = names.iter().map(|name| router.zone_of_domain(name, GENEROUS));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer, Ok(None));
    }
    assert!(calls.load(Ordering::Relaxed) <= 5, "{}", calls.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_waits_for_its_first_entry() {
    let cluster = Cluster::start();
    let router = cluster.router(|_| ()).await;
    let leased = router.lease_queue(SHARD, 10, 30_000, 5_000).await.unwrap();
    assert_eq!(leased[0].fence, Some(pb::Fence { term: 1, counter: 1 }));
    cluster.nodes[0].stage.plays(|_| Act::Fault(Fault::LeaseLost(pb::LeaseLost {})));
    let lost = router.settle_queue(SHARD, leased[0].fence.unwrap(), command(), GENEROUS).await;
    assert_eq!(lost, Err(RouteError::LeaseLost));
}

fn changes(modseqs: &[u64]) -> pb::WatchEvent {
    let changes = modseqs.iter().map(|&modseq| pb::Change { modseq, change: None }).collect();
    let page = pb::ChangePage { changes, modseq: *modseqs.last().unwrap(), ..Default::default() };
    pb::WatchEvent { event: Some(pb::watch_event::Event::Changes(page)) }
}

fn ended(fault: Fault) -> pb::WatchEvent {
    pb::WatchEvent { event: Some(pb::watch_event::Event::Fault(pb::Fault { fault: Some(fault) })) }
}

/// Each stream of the fake node breaks after a few changes, ends with a fault, or repeats what came before; the watch shows
/// every change once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_no_gap_and_no_repeat_across_leaders() {
    let cluster = Cluster::start();
    let to_second = cluster.not_leader(Some(1));
    cluster.nodes[0].stage.streams(move |request| match request.since {
        0 => vec![changes(&[1, 2]), changes(&[2, 3])],
        since => vec![changes(&[since, since + 1]), ended(to_second.clone())],
    });
    cluster.nodes[1].stage.streams(|request| vec![changes(&[request.since + 1, request.since + 2])]);
    let router = cluster.router(|timings| timings.suspicion = Duration::ZERO).await;
    let user = UserId::new(WORLD, Slot(3), [9; 12]);
    let mut watch = std::pin::pin!(router.watch(SHARD, None, user, ModSeq(0)));
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let item = tokio::time::timeout(GENEROUS, watch.next()).await.expect("the watch goes on").unwrap().unwrap();
        if let WatchItem::Changes(page) = item {
            seen.extend(page.changes.iter().map(|change| change.modseq));
        }
    }
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_is_gone_and_ends_with_its_session() {
    let cluster = Cluster::start();
    let mut first = true;
    cluster.nodes[0].stage.streams(move |request| {
        if std::mem::take(&mut first) {
            let gone = pb::WatchEvent { event: Some(pb::watch_event::Event::Gone(40)) };
            return vec![gone, changes(&[39, 41])];
        }
        assert_eq!(request.since, 41);
        vec![ended(Fault::Unauthenticated(pb::Unauthenticated {}))]
    });
    let router = cluster.router(|timings| timings.suspicion = Duration::ZERO).await;
    // Only the first node plays along.
    let away = cluster.not_leader(Some(0));
    for node in &cluster.nodes[1..] {
        let away = away.clone();
        node.stage.streams(move |_| vec![ended(away.clone())]);
    }
    let user = UserId::new(WORLD, Slot(3), [9; 12]);
    let items: Vec<_> =
        tokio::time::timeout(GENEROUS, router.watch(SHARD, None, user, ModSeq(2)).collect()).await.unwrap();
    assert_eq!(items.len(), 3, "{items:?}");
    assert_eq!(items[0], Ok(WatchItem::Gone(ModSeq(40))));
    assert!(matches!(&items[1], Ok(WatchItem::Changes(page)) if page.changes.len() == 1));
    assert_eq!(items[2], Err(RouteError::Unauthenticated));
}
