//! A deletion comes to its end whoever dies meanwhile.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::{Duration, Instant};

use postrider_api::address::Address;
use postrider_api::id::UserId;
use postrider_api::limit::DRAIN_ROWS_MAX;
use postrider_api::pb::{self, answer::Answer, command::Op, outcome, query::Query};
use postrider_api::request::password_digest;
use postrider_node::NodeTimings;
use postrider_router::{ReadMode, Router};
use support::mail::{accept, command, done, receive, sign_up, subjects};
use support::{Cluster, DIRECTORY, GENEROUS, MAILBOX, OTHER_MAILBOX, eventually};

/// Leads stay where they are.
fn settled() -> NodeTimings {
    NodeTimings { homesick: Duration::from_secs(3600), ..Default::default() }
}

async fn ask(router: &Router, shard: postrider_api::id::ShardId, query: Query) -> Option<Answer> {
    router.query(shard, None, query, ReadMode::Consistent, 0, GENEROUS).await.ok()?.answer.answer
}

async fn account(router: &Router, user: UserId) -> Option<Answer> {
    ask(router, MAILBOX, Query::GetAccount(pb::GetAccount { user_id: user.to_bytes() })).await
}

async fn is_gone(router: &Router, user: UserId) -> bool {
    matches!(account(router, user).await, Some(Answer::NotFound(_)))
}

async fn delete(router: &Router, user: UserId) {
    let Some(Answer::Account(record)) = account(router, user).await else { panic!("it is there") };
    let verified = password_digest(&record.password_hash);
    let delete = pb::DeleteAccount { user_id: user.to_bytes(), verified };
    done(router.propose(MAILBOX, None, command(Op::DeleteAccount(delete)), GENEROUS).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_goes_on_when_its_leader_dies() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, settled()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let (ada, bob) = (sign_up(&router, "ada", MAILBOX).await, sign_up(&router, "bob", MAILBOX).await);
    receive(&router, bob, "his").await;
    // Several commands' worth of rows.
    let messages = DRAIN_ROWS_MAX;
    let all = (0..messages).map(|n| {
        let router = &router;
        async move { done(router.propose(MAILBOX, None, accept(&[ada], &format!("hers {n}")), GENEROUS).await.unwrap()) }
    });
    let stream = futures::stream::iter(all);
    futures::StreamExt::for_each_concurrent(stream, 32, |sending| sending).await;
    // One waits for her in another shard.
    let waiting = router.propose(OTHER_MAILBOX, None, accept(&[ada], "on its way"), GENEROUS).await.unwrap();
    let Some(outcome::Result::Accepted(waiting)) = waiting.result else { panic!("{waiting:?}") };

    delete(&router, ada).await;
    let began = Instant::now();
    let mut killed = 0;
    while killed == 0 || (killed < 4 && !is_gone(&router, ada).await) {
        let leader = cluster.leader(MAILBOX).await;
        tokio::task::block_in_place(|| {
            cluster.kill(leader);
            cluster.run(leader);
        });
        killed += 1;
    }
    eventually("the account goes", || is_gone(&router, ada)).await;
    println!("gone {:?} after it was asked for, with {killed} leaders killed", began.elapsed());

    let entry = Query::GetQueueEntry(pb::GetQueueEntry { entry: waiting.entry, ..Default::default() });
    assert!(matches!(ask(&router, OTHER_MAILBOX, entry).await, Some(Answer::NotFound(_))), "nothing waits for her");
    let address = Address::parse("ada@postrider.example").unwrap();
    assert_eq!(router.look_up(&address, GENEROUS).await.unwrap(), None);
    let user_id = ada.to_bytes();
    let reserve = pb::ReserveAddress { address: address.as_str().to_owned(), user_id, shard: MAILBOX.0 };
    let reserved = router.propose(DIRECTORY, None, command(Op::ReserveAddress(reserve)), GENEROUS).await.unwrap();
    let Some(outcome::Result::Refused(refused)) = reserved.result else { panic!("{reserved:?}") };
    assert_eq!(refused.refusal(), pb::Refusal::AddressTaken, "nobody gets it for a while");
    assert_eq!(subjects(&router, bob, ReadMode::Consistent).await.0, ["his"]);
    for shard in [DIRECTORY, MAILBOX, OTHER_MAILBOX] {
        cluster.agree(shard, &[1, 2, 3]).await;
        cluster.verify(shard, &[1, 2, 3]).await;
    }
}

/// The leader that was asked dies before it has done anything, and so does the whole cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_goes_on_after_everything_was_down() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, settled()));
    cluster.bootstrap().await;
    let ada = {
        let router = cluster.router().await;
        let ada = sign_up(&router, "ada", MAILBOX).await;
        receive(&router, ada, "hers").await;
        delete(&router, ada).await;
        ada
    };
    tokio::task::block_in_place(|| {
        for id in 1..=3 {
            cluster.kill(id);
        }
        for id in 1..=3 {
            cluster.run(id);
        }
    });
    let router = cluster.router().await;
    eventually("the account goes", || is_gone(&router, ada)).await;
    cluster.verify(MAILBOX, &[1, 2, 3]).await;
    // What it left on the disk goes when it is asked for.
    for id in 1..=3 {
        cluster.admin(id).vacuum().await.unwrap();
    }
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}
