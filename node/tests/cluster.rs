//! Three nodes, a router, and what happens to them.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use postrider_api::address::Address;
use postrider_api::id::ModSeq;
use postrider_api::pb::{self, answer, query};
use postrider_node::{NodeLimits, NodeTimings};
use postrider_router::{ReadMode, RouteError, WatchItem};
use support::mail::{accept, done, inbox, receive, sign_up, subjects};
use support::{Cluster, DIRECTORY, GENEROUS, MAILBOX, eventually};

/// Leads stay where they are put.
fn steady() -> NodeTimings {
    NodeTimings { homesick: Duration::from_secs(3600), ..Default::default() }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("mail {number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_up_and_read_their_mail() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let address = Address::parse("ada@postrider.example").unwrap();
    let record = router.look_up(&address, GENEROUS).await.unwrap().unwrap();
    assert_eq!(record.user_id, ada.to_bytes());
    assert_eq!(router.locate(ada, GENEROUS).await.unwrap(), Some(MAILBOX));
    let nobody = Address::parse("nobody@postrider.example").unwrap();
    assert_eq!(router.look_up(&nobody, GENEROUS).await.unwrap(), None);

    let command = pb::Command { request: vec![5; 16].into(), ..accept(&[ada], "hello") };
    let first = router.propose(MAILBOX, None, command.clone(), GENEROUS).await.unwrap();
    let again = router.propose(MAILBOX, None, command, GENEROUS).await.unwrap();
    assert_eq!(first, again, "P-6: one request id, one message");
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await, (vec!["hello".to_owned()], None));

    let future = router.query(MAILBOX, None, inbox(ada), ReadMode::Consistent, 1 << 40, GENEROUS).await;
    assert_eq!(future.unwrap_err(), RouteError::Behind);
    for shard in [MAILBOX, DIRECTORY] {
        cluster.agree(shard, &[1, 2, 3]).await;
        cluster.verify(shard, &[1, 2, 3]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_its_own_mailbox_and_no_other() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let bob = sign_up(&router, "bob", MAILBOX).await;
    let token_hash = bytes::Bytes::from(vec![3; 32]);
    let open = pb::OpenSession {
        user_id: ada.to_bytes(),
        token_hash: token_hash.clone(),
        expires_at_ms: i64::MAX,
        ..Default::default()
    };
    let open = support::mail::command(pb::command::Op::OpenSession(open));
    done(router.propose(MAILBOX, None, open, GENEROUS).await.unwrap());

    let proof = |user: postrider_api::id::UserId, hash: &bytes::Bytes| {
        Some(pb::SessionProof { user_id: user.to_bytes(), token_hash: hash.clone() })
    };
    let read = |session, user| router.query(MAILBOX, session, inbox(user), ReadMode::Consistent, 0, GENEROUS);
    assert!(read(proof(ada, &token_hash), ada).await.is_ok());
    assert_eq!(read(proof(ada, &token_hash), bob).await.unwrap_err(), RouteError::Unauthenticated);
    assert_eq!(read(proof(bob, &token_hash), bob).await.unwrap_err(), RouteError::Unauthenticated);
    assert_eq!(read(proof(ada, &vec![4; 32].into()), ada).await.unwrap_err(), RouteError::Unauthenticated);

    let rename = |user: postrider_api::id::UserId| {
        let update = pb::UpdateProfile { user_id: user.to_bytes(), name: Some("A".to_owned()), signature: None };
        support::mail::command(pb::command::Op::UpdateProfile(update))
    };
    done(router.propose(MAILBOX, proof(ada, &token_hash), rename(ada), GENEROUS).await.unwrap());
    let refused = router.propose(MAILBOX, proof(ada, &token_hash), rename(bob), GENEROUS).await;
    assert_eq!(refused.unwrap_err(), RouteError::Unauthenticated);

    let watch = router.watch(MAILBOX, proof(ada, &token_hash), bob, ModSeq(0));
    let items: Vec<_> = tokio::time::timeout(GENEROUS, watch.collect()).await.unwrap();
    assert_eq!(items, [Err(RouteError::Unauthenticated)]);
}

/// Its answer was lost, so the client asks again: the session is gone because the log-out was carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_that_is_asked_again_has_its_first_outcome() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let token_hash = bytes::Bytes::from(vec![3; 32]);
    let open = pb::OpenSession {
        user_id: ada.to_bytes(),
        token_hash: token_hash.clone(),
        expires_at_ms: i64::MAX,
        ..Default::default()
    };
    let open = support::mail::command(pb::command::Op::OpenSession(open));
    done(router.propose(MAILBOX, None, open, GENEROUS).await.unwrap());

    let proof = Some(pb::SessionProof { user_id: ada.to_bytes(), token_hash: token_hash.clone() });
    let propose = |request: u8, op: pb::command::Op| {
        let command = pb::Command { request: vec![request; 16].into(), ..support::mail::command(op) };
        router.propose(MAILBOX, proof.clone(), command, GENEROUS)
    };
    let update = pb::UpdateProfile { user_id: ada.to_bytes(), name: Some("A".to_owned()), signature: None };
    let update = || pb::command::Op::UpdateProfile(update.clone());
    let close = pb::CloseSession { user_id: ada.to_bytes(), token_hash: token_hash.clone() };
    let close = || pb::command::Op::CloseSession(close.clone());
    done(propose(1, update()).await.unwrap());
    let first = propose(2, close()).await.unwrap();
    done(first.clone());
    assert_eq!(propose(2, close()).await, Ok(first));
    assert_eq!(propose(3, close()).await, Err(RouteError::Unauthenticated), "another request");
    assert_eq!(propose(1, update()).await, Err(RouteError::Unauthenticated), "P-9: nothing is told of other commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_finds_no_place_is_told_so() {
    let limits = NodeLimits { searches_max: 0, ..Default::default() };
    let cluster = tokio::task::block_in_place(|| Cluster::start_within(3, steady(), limits));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let find = pb::FindMessageId { message_id_hash: vec![1; 16].into(), ..Default::default() };
    let find = query::Query::FindMessageId(find);
    let refused = router.query(MAILBOX, None, find, ReadMode::Consistent, 0, GENEROUS).await;
    assert_eq!(refused.unwrap_err(), RouteError::Busy);
}

/// A replica that was started without hearing anybody is as old as what it holds, not as young as its process.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_heard_nobody_does_not_seem_fresh() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    let written = Instant::now();
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    tokio::task::block_in_place(|| {
        (1..=3).for_each(|id| cluster.kill(id));
        cluster.run(1);
    });
    let list = inbox(ada);
    let request = pb::QueryRequest {
        shard: MAILBOX.0,
        mode: pb::ReadMode::Stale.into(),
        query: Some(pb::Query { query: Some(list) }),
        ..Default::default()
    };
    let mut service = cluster.shard_service(1, postrider_api::identity::Role::Frontend);
    let least = written.elapsed();
    let reply = service.query(request).await.unwrap().into_inner();
    assert!(matches!(reply.result, Some(pb::query_reply::Result::Answer(_))), "{reply:?}");
    let stale = Duration::from_millis(reply.stale_ms.expect("P-4: marked"));
    assert!(stale >= least, "{stale:?} since {least:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_on_when_the_leader_is_killed_and_comes_back() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    for subject in &numbered(20)[..10] {
        receive(&router, ada, subject).await;
    }
    let victim = cluster.leader(MAILBOX).await;
    tokio::task::block_in_place(|| cluster.kill(victim));
    for subject in &numbered(20)[10..] {
        receive(&router, ada, subject).await;
    }
    assert_ne!(cluster.leader(MAILBOX).await, victim);
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await, (numbered(20), None));
    tokio::task::block_in_place(|| cluster.run(victim));
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    cluster.verify(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_still_there_after_all_were_killed_at_once() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    for subject in numbered(5) {
        receive(&router, ada, &subject).await;
    }
    tokio::task::block_in_place(|| {
        (1..=3).for_each(|id| cluster.kill(id));
        (1..=3).for_each(|id| cluster.run(id));
    });
    let router = cluster.router().await;
    // Asking again until there is a leader is the caller's part: nobody leads in the first moment.
    eventually("the mailbox is readable again", || async {
        router.query(MAILBOX, None, inbox(ada), ReadMode::Consistent, 0, GENEROUS).await.is_ok()
    })
    .await;
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await, (numbered(5), None));
    receive(&router, ada, "after").await;
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_each_change_once_across_transfers() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let start = receive(&router, ada, "before").await;
    let (watcher, watched) = (router.clone(), 30);
    let watch = tokio::spawn(async move {
        let mut watch = std::pin::pin!(watcher.watch(MAILBOX, None, ada, ModSeq(start)));
        let mut created = Vec::new();
        while created.len() < watched {
            match watch.next().await.unwrap().unwrap() {
                WatchItem::Changes(page) => {
                    let news = page
                        .changes
                        .into_iter()
                        .filter(|change| change.change.as_ref().unwrap().kind() == pb::ChangeKind::MessageCreated);
                    created.extend(news.map(|change| change.modseq));
                }
                WatchItem::Heartbeat(_) => {}
                WatchItem::Gone(modseq) => panic!("nothing was forgotten, but everything up to {modseq}"),
            }
        }
        created
    });
    let mut sent = Vec::new();
    for number in 0..watched {
        if number % 10 == 5 {
            cluster.transfer_on(MAILBOX).await;
        }
        sent.push(receive(&router, ada, &format!("mail {number}")).await);
    }
    let seen = tokio::time::timeout(GENEROUS, watch).await.expect("the watch goes on").unwrap();
    assert_eq!(seen, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_reads_are_marked_and_writes_are_refused() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    let survivor = cluster.leader(MAILBOX).await;
    for id in (1..=3).filter(|id| *id != survivor) {
        tokio::task::block_in_place(|| cluster.kill(id));
    }
    let began = Instant::now();
    let refused = router.propose(MAILBOX, None, accept(&[ada], "refused"), GENEROUS).await.unwrap_err();
    assert!(matches!(refused, RouteError::NoQuorum | RouteError::TimedOut { may_have_happened: true }), "{refused:?}");
    // Told long before the caller's own time is up; the seconds of P-4 are counted in tests/no_quorum.rs.
    assert!(began.elapsed() < GENEROUS / 4, "{:?}", began.elapsed());
    let (subjects, stale_ms) = subjects(&router, ada, ReadMode::StaleOk).await;
    assert_eq!(subjects, ["before"]);
    assert!(stale_ms.is_some(), "P-4: marked");
    let consistent = router.query(MAILBOX, None, inbox(ada), ReadMode::Consistent, 0, GENEROUS).await;
    assert_eq!(consistent.unwrap_err(), RouteError::NoQuorum);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shuts_down_hands_its_leads_over() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let leader = cluster.leader(MAILBOX).await;
    let writer = {
        let router = router.clone();
        tokio::spawn(async move {
            for subject in numbered(40) {
                receive(&router, ada, &subject).await;
            }
        })
    };
    tokio::task::block_in_place(|| cluster.shut_down(leader));
    assert_ne!(cluster.leader(MAILBOX).await, leader);
    writer.await.unwrap();
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await, (numbered(40), None));
    tokio::task::block_in_place(|| cluster.run(leader));
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_goes_home() {
    let timings =
        NodeTimings { homesick: Duration::from_millis(500), steward: Duration::from_millis(200), ..Default::default() };
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, timings));
    cluster.bootstrap().await;
    while cluster.transfer_on(MAILBOX).await == 1 {}
    // Node 1 is in Seoul, where the shard is at home.
    eventually("the lead goes home", || async { cluster.leader(MAILBOX).await == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_moves_while_mail_comes_in() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(4, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let writer = {
        let router = router.clone();
        tokio::spawn(async move {
            for subject in numbered(60) {
                receive(&router, ada, &subject).await;
            }
        })
    };
    // The source leads: it hands over, and the next leader carries the move on.
    let from = cluster.leader(MAILBOX).await;
    let moved = cluster.move_replica(MAILBOX, from, 4).await;
    assert_eq!(moved.state(), pb::OperationState::Done, "{moved:?}");
    writer.await.unwrap();
    assert_eq!(subjects(&router, ada, ReadMode::Consistent).await, (numbered(60), None));

    let map = router.map_changes().wait_for(|map| map.operations.is_empty()).await.unwrap().clone();
    let placed = map.shards.iter().find(|shard| shard.id == MAILBOX.0).unwrap();
    assert!(placed.replicas.contains(&4) && !placed.replicas.contains(&from), "{placed:?}");
    let left: Vec<u64> = (1..=4).filter(|id| *id != from).collect();
    cluster.agree(MAILBOX, &left).await;
    assert!(cluster.admin(from).digest(MAILBOX).await.is_err(), "the old replica is gone");
    receive(&router, ada, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_tells_every_node_where_everything_is() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(4, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    // Each node tells which build it is, a moment after it was registered.
    let told = |map: &std::sync::Arc<pb::ShardMap>| map.nodes.iter().all(|node| !node.build.is_empty());
    let map = router.map_changes().wait_for(told).await.unwrap().clone();
    let nodes: Vec<pb::Node> =
        map.nodes.iter().map(|node| pb::Node { version_max: 0, build: String::new(), ..node.clone() }).collect();
    assert_eq!(nodes, cluster.nodes());
    let domain = pb::Domain { name: "postrider.example".to_owned(), zone: "zone".to_owned(), ..Default::default() };
    assert_eq!(map.domains, [domain]);
    assert_eq!(map.shards.len(), 4);
    // Node 4 holds no replica of placement; it follows those who do.
    let mut options = postrider_router::RouterOptions::new(
        vec![cluster.address(4)],
        "seoul".to_owned(),
        cluster.identity(postrider_api::identity::Role::Frontend),
        postrider_api::env::SystemClock::shared(),
        postrider_api::env::SystemEntropy::shared(),
    );
    options.timings.first_map = GENEROUS;
    let through_four = postrider_router::Router::connect(options).await.unwrap();
    assert_eq!(through_four.map().shards, map.shards);
    let stats = query::Query::GetShardStats(pb::GetShardStats {});
    let answered = through_four.query(MAILBOX, None, stats, ReadMode::Consistent, 0, GENEROUS).await.unwrap();
    assert!(matches!(answered.answer.answer, Some(answer::Answer::ShardStats(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_has_not_changed_is_not_read() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, steady()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let modseq = ModSeq(receive(&router, ada, "one").await);
    let read = async |user, known| router.query_unless(MAILBOX, None, inbox(user), known, 0, GENEROUS).await.unwrap();
    for other in [None, Some(ModSeq(0)), Some(ModSeq(modseq.0 - 1)), Some(ModSeq(modseq.0 + 1))] {
        let answered = read(ada, other).await;
        let answer::Answer::Messages(page) = answered.answer.answer.unwrap() else { panic!("{other:?}") };
        assert_eq!((page.rows.len(), answered.modseq), (1, Some(modseq)), "{other:?}");
    }
    let unchanged = Some(answer::Answer::Unchanged(pb::Unchanged {}));
    let again = read(ada, Some(modseq)).await;
    assert_eq!((again.answer.answer, again.modseq, again.stale_ms), (unchanged.clone(), Some(modseq), None));
    // Nobody's mailbox is not unchanged, whatever is said to be known of it; and nobody else's session learns of it.
    let nobody = postrider_api::id::UserId::new(support::mail::ZONE, postrider_api::id::Slot(1), [7; 12]);
    let absent = read(nobody, Some(ModSeq(0))).await.answer.answer;
    assert!(matches!(absent, Some(answer::Answer::NotFound(_))), "{absent:?}");
    let proof = pb::SessionProof { user_id: ada.to_bytes(), token_hash: vec![1; 32].into() };
    let refused = router.query_unless(MAILBOX, Some(proof), inbox(ada), Some(modseq), 0, GENEROUS).await;
    assert_eq!(refused.unwrap_err(), RouteError::Unauthenticated);
    let behind = router.query_unless(MAILBOX, None, inbox(ada), Some(modseq), modseq.0 + 1, GENEROUS).await;
    assert_eq!(behind.unwrap_err(), RouteError::Behind);

    let newer = ModSeq(receive(&router, ada, "two").await);
    let answered = read(ada, Some(modseq)).await;
    assert_eq!(answered.modseq, Some(newer));
    assert!(matches!(answered.answer.answer, Some(answer::Answer::Messages(_))));
    // Without a quorum it is as unchanged as the replica knows, and says so (P-4).
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    cluster.kill(2);
    cluster.kill(3);
    // A leader that has just heard from its quorum may answer as if it still did, until its lease is over.
    eventually("it is marked", || async {
        let stale = read(ada, Some(newer)).await;
        assert_eq!((&stale.answer.answer, stale.modseq), (&unchanged, Some(newer)));
        stale.stale_ms.is_some()
    })
    .await;
}
