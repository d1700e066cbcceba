//! Hostile reads: none keeps a thread that carries heartbeats, and nobody has to elect another leader because of them.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use postrider_api::id::{ModSeq, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{PARTS_MAX, REFERENCES_MAX};
use postrider_api::pb::{self, answer, command::Op, outcome, query::Query};
use postrider_node::{NodeLimits, NodeTimings};
use postrider_router::{ReadMode, Router};
use support::mail::{ZONE, bytes, command, done, message, sign_up};
use support::{Cluster, GENEROUS, MAILBOX, Pulse};

/// Longest that one read may keep a thread, of the thread's own time.
const HOLD_MAX: Duration = Duration::from_millis(20);
/// A read that keeps a thread does so each time; what else a node does now and then does not.
const TRIES: usize = 4;
/// Messages of the large conversation.
const LARGE_MESSAGES: usize = 120;
const FOLDERS: usize = 900;
const SMALL_MESSAGES: usize = 200;
/// Times that each of them was changed.
const CHANGES: usize = 60;
const ENTRIES: usize = 40;
const SENDER: &str = "ada@elsewhere.example";

/// Leads stay where they are.
fn steady() -> NodeTimings {
    NodeTimings { homesick: Duration::from_secs(3600), ..Default::default() }
}

/// A message with as many parts and references as there may be.
fn large(n: usize) -> pb::NewMessage {
    let hash = |n: usize| Bytes::copy_from_slice(&(n as u128).to_be_bytes());
    let part = |place: usize| pb::Part {
        path: place.to_string(),
        content_type: "application/octet-stream".to_owned(),
        filename: format!("{place}-{}", "x".repeat(100)),
        content_id: "y".repeat(40),
        ..Default::default()
    };
    pb::NewMessage {
        message_id_hash: hash(1 + n),
        // One chain that grows with every message, so that the tree is as deep as it can be.
        reference_hashes: (n.saturating_sub(REFERENCES_MAX)..n).map(|n| hash(1 + n)).collect(),
        parts: (0..PARTS_MAX).map(part).collect(),
        ..message(&format!("large {n}"))
    }
}

async fn accepted(router: &Router, user: UserId, sender: &str, message: pb::NewMessage) -> pb::Accepted {
    let recipient = pb::Recipient {
        user_id: user.to_bytes(),
        address: "someone@postrider.example".to_owned(),
        ..Default::default()
    };
    let accept = pb::Accept {
        mail_from: sender.to_owned(),
        recipients: vec![recipient],
        message: Some(message),
        ..Default::default()
    };
    let outcome = router.propose(MAILBOX, None, command(Op::Accept(accept)), GENEROUS).await.unwrap();
    match outcome.result {
        Some(outcome::Result::Accepted(accepted)) => accepted,
        other => panic!("{other:?}"),
    }
}

/// Somebody whose mailbox is as unpleasant as it can be, within the limits and the patience of a test.
struct Hostile {
    user: UserId,
    /// Whose many small messages were changed again and again.
    busy: UserId,
    large: pb::Delivery,
}

impl Hostile {
    async fn new(router: &Router) -> Self {
        let user = sign_up(router, "hostile", MAILBOX).await;
        let busy = sign_up(router, "busy", MAILBOX).await;
        let mut last = None;
        for n in 0..LARGE_MESSAGES {
            last = accepted(router, user, SENDER, large(n)).await.deliveries.pop();
        }
        let folders = (0..FOLDERS).map(|n| {
            let create = pb::CreateFolder { user_id: user.to_bytes(), name: format!("{n} {}", "f".repeat(240)) };
            router.propose(MAILBOX, None, command(Op::CreateFolder(create)), GENEROUS)
        });
        stream::iter(folders).buffer_unordered(32).for_each(async |made| done(made.unwrap())).await;
        let small = (0..SMALL_MESSAGES).map(|n| accepted(router, busy, SENDER, message(&format!("small {n}"))));
        let ids: Vec<Bytes> = stream::iter(small)
            .buffer_unordered(32)
            .map(|accepted| accepted.deliveries[0].email_id.clone())
            .collect()
            .await;
        for n in 0..CHANGES {
            let update = |id: &Bytes| pb::MessageUpdate {
                email_id: id.clone(),
                keywords_add: if n % 2 == 0 { Keywords::SEEN.0 } else { 0 },
                keywords_remove: if n % 2 == 0 { 0 } else { Keywords::SEEN.0 },
                ..Default::default()
            };
            let updates = pb::UpdateMessages { user_id: busy.to_bytes(), updates: ids.iter().map(update).collect() };
            done(router.propose(MAILBOX, None, command(Op::UpdateMessages(updates)), GENEROUS).await.unwrap());
        }
        // Nobody is there to whom they could go.
        for n in 0..ENTRIES {
            let elsewhere = UserId::new(ZONE, user.slot(), bytes());
            accepted(router, elsewhere, &format!("sender{n}@elsewhere.example"), large(10_000 + n)).await;
        }
        Self { user, busy, large: last.unwrap() }
    }

    fn queries(&self) -> Vec<(&'static str, Query)> {
        let (user_id, busy) = (self.user.to_bytes(), self.busy.to_bytes());
        let (email_id, inbox) = (self.large.email_id.clone(), postrider_shard::INBOX.0);
        let list = |user_id: &Bytes| pb::ListMessages {
            user_id: user_id.clone(),
            folder_id: inbox,
            limit: 200,
            ..Default::default()
        };
        let threads = pb::ListThreads { user_id: busy.clone(), folder_id: inbox, limit: 200, ..Default::default() };
        let thread =
            pb::GetThread { user_id: user_id.clone(), thread_id: self.large.thread_id.clone(), after: Bytes::new() };
        let changes = |user_id: &Bytes| pb::ListChanges { user_id: user_id.clone(), since: 0, limit: 200 };
        let wanted = pb::FindMessageId {
            message_id_hash: Bytes::copy_from_slice(&1_u128.to_be_bytes()),
            limit: 200,
            ..Default::default()
        };
        vec![
            ("a large conversation", Query::GetThread(thread)),
            (
                "a message of a thousand parts",
                Query::GetMessage(pb::GetMessage {
                    user_id: user_id.clone(),
                    email_id: email_id.clone(),
                    ..Default::default()
                }),
            ),
            ("its body", Query::GetBody(pb::GetBody { user_id: user_id.clone(), email_id })),
            ("many folders", Query::ListFolders(pb::ListFolders { user_id: user_id.clone() })),
            ("a page of large messages", Query::ListMessages(list(&user_id))),
            ("a page of small messages", Query::ListMessages(list(&busy))),
            ("a page of conversations", Query::ListThreads(threads)),
            ("all changes", Query::ListChanges(changes(&user_id))),
            ("changes that were overwritten", Query::ListChanges(changes(&busy))),
            ("a Message-ID", Query::FindMessageId(wanted)),
            ("the queue", Query::ListQueue(pb::ListQueue { limit: 200, ..Default::default() })),
        ]
    }
}

/// What one read keeps a thread of any node for: the shortest of several tries.
async fn held(pulses: &[Pulse], read: impl AsyncFn()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        for pulse in pulses {
            pulse.longest();
        }
        read().await;
        // The beat behind the read.
        tokio::time::sleep(Duration::from_millis(20)).await;
        shortest = shortest.min(pulses.iter().map(Pulse::longest).max().unwrap());
    }
    shortest
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_keeps_a_thread_that_carries_heartbeats() {
    let cluster = tokio::task::block_in_place(|| Cluster::start_on(1, 1..=3, steady(), NodeLimits::default()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let hostile = Hostile::new(&router).await;
    let pulses = [1, 2, 3].map(|id| cluster.pulse(id));
    let leader = cluster.leader(MAILBOX).await;
    let term = || async {
        let status = cluster.admin(leader).status().await.unwrap();
        status
            .replicas
            .into_iter()
            .find(|replica| replica.shard == MAILBOX.0)
            .map(|replica| (replica.role, replica.term))
    };
    let before = term().await;
    let mut kept = Vec::new();
    for (name, query) in hostile.queries() {
        let answered = async || {
            let answered = router.query(MAILBOX, None, query.clone(), ReadMode::Consistent, 0, GENEROUS).await.unwrap();
            let answer = answered.answer.answer;
            assert!(!matches!(answer, Some(answer::Answer::NotFound(_)) | None), "{name}: {answer:?}");
        };
        kept.push((name, held(&pulses, answered).await));
    }
    let watched = async || {
        let mut watch = Box::pin(router.watch(MAILBOX, None, hostile.busy, ModSeq(0)));
        tokio::time::timeout(GENEROUS, watch.next()).await.unwrap().unwrap().unwrap();
    };
    kept.push(("watching from the start", held(&pulses, watched).await));
    let digested = async || drop(cluster.admin(leader).digest(MAILBOX).await.unwrap());
    kept.push(("a digest", held(&pulses, digested).await));
    let verified = async || assert!(cluster.admin(leader).verify(MAILBOX).await.unwrap().differences.is_empty());
    kept.push(("a verification", held(&pulses, verified).await));
    for (name, kept) in &kept {
        println!("{name}: {kept:?}");
    }
    for (name, kept) in kept {
        assert!(kept <= HOLD_MAX, "{name} kept a thread for {kept:?}");
    }

    // All of them at once, again and again.
    let began = Instant::now();
    let queries = hostile.queries();
    let storm = stream::iter(0..).take_while(|_| std::future::ready(began.elapsed() < Duration::from_secs(3))).map(
        |n: usize| {
            let query = queries[n % queries.len()].1.clone();
            router.query(MAILBOX, None, query, ReadMode::Consistent, 0, GENEROUS)
        },
    );
    // Searches that find no place are told so.
    let answered = storm.buffer_unordered(16).filter(|answered| std::future::ready(answered.is_ok())).count().await;
    assert!(answered > 0);
    assert_eq!(term().await, before, "the leader of {MAILBOX} leads in the same term");
}
