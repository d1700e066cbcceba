//! What the cluster's troubles look like to a client.

use std::time::Duration;

use tokio::time::Instant;

use postrider_api::id::ShardId;

use super::harness::{A, B, C, Harness};
use crate::cluster::mail::{DIRECTORY, DOMAIN, Fault, OTHER_DIRECTORY, OTHER_DOMAIN, OTHER_MAILBOX};

#[tokio::test]
async fn recipients_of_several_shards_are_one_accept() {
    let harness = Harness::start().await;
    let cyd = harness.cluster.add_user("cyd", B);
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    for name in ["ada", "bob", "cyd"] {
        client.ask(&format!("RCPT TO:<{name}@{DOMAIN}>\r\n"), 250).await;
    }
    client.ask("DATA\r\n", 354).await;
    let reply = client.ask("x\r\n.\r\n", 250).await;
    // Most of them live in B, which has the entry for the third.
    assert!(reply.contains("queued as 1001-1"), "{reply}");
    assert_eq!((harness.cluster.inbox(harness.bob).len(), harness.cluster.inbox(cyd).len()), (1, 1));
    assert_eq!(harness.cluster.waiting(B).len(), 1);
    assert_eq!((harness.cluster.proposals(A), harness.cluster.proposals(C)), (0, 0));
    let raw = String::from_utf8(harness.cluster.inbox(cyd)[0].raw()).unwrap();
    assert!(!raw.contains("for <"), "a recipient must not learn of another: {raw}");
}

#[tokio::test]
async fn without_a_directory_nobody_is_unknown() {
    let harness = Harness::start().await;
    harness.cluster.set_fault(DIRECTORY, Some(Fault::NoQuorum));
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    for name in ["ada", "nobody"] {
        let reply = client.ask(&format!("RCPT TO:<{name}@{DOMAIN}>\r\n"), 451).await;
        assert!(reply.contains("4.4.3"), "{reply}");
    }
    harness.cluster.set_fault(DIRECTORY, None);
    client.ask(&format!("RCPT TO:<ada@{DOMAIN}>\r\n"), 250).await;
    client.ask(&format!("RCPT TO:<nobody@{DOMAIN}>\r\n"), 550).await;
}

#[tokio::test]
async fn no_is_never_remembered() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<new@{DOMAIN}>\r\n"), 550).await;
    harness.cluster.add_user("new", A);
    client.ask(&format!("RCPT TO:<new@{DOMAIN}>\r\n"), 250).await;
    let asked = *harness.cluster.look_ups.lock();
    client.ask(&format!("RCPT TO:<NEW@{DOMAIN}>\r\n"), 250).await;
    assert_eq!(*harness.cluster.look_ups.lock(), asked, "yes is remembered for a while");
}

/// The directory's "yes" is remembered for longer than the mailbox's: whoever is gone meanwhile is unknown, not "not ready".
#[tokio::test]
async fn whoever_was_deleted_since_is_unknown_at_once() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<> SIZE=2000000\r\n", 250).await;
    client.ask(&format!("RCPT TO:<ada@{DOMAIN}>\r\n"), 250).await;
    harness.cluster.remove_user(harness.ada);
    let reply = client.ask(&format!("RCPT TO:<ada@{DOMAIN}>\r\n"), 550).await;
    assert!(reply.contains("5.1.1"), "{reply}");
}

#[tokio::test]
async fn full_mailboxes() {
    let harness = Harness::start().await;
    // Full between RCPT and the end of the message.
    let mut client = harness.addressed().await;
    harness.cluster.fill(harness.ada, A);
    client.ask("DATA\r\n", 354).await;
    let reply = client.ask("x\r\n.\r\n", 552).await;
    assert!(reply.contains("5.2.2"), "{reply}");
    let harness = Harness::start().await;
    harness.cluster.fill(harness.ada, A);
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<> SIZE=100\r\n", 250).await;
    let reply = client.ask(&format!("RCPT TO:<ada@{DOMAIN}>\r\n"), 452).await;
    assert!(reply.contains("4.2.2"), "{reply}");
    assert_eq!(harness.cluster.kept(), 0);
}

/// The queue of a recipient who lives elsewhere is full: found at the end of a message, told at RCPT from then on.
#[tokio::test]
async fn whose_queue_is_full_is_refused_alone_the_next_time() {
    let harness = Harness::start().await;
    let cyd = harness.cluster.add_user("cyd", A);
    harness.cluster.congest(harness.bob, A);
    let mut client = harness.greeted().await;
    for wanted in [250, 452] {
        client.ask("MAIL FROM:<>\r\n", 250).await;
        for (name, code) in [("ada", 250), ("cyd", 250), ("bob", wanted)] {
            let reply = client.ask(&format!("RCPT TO:<{name}@{DOMAIN}>\r\n"), code).await;
            assert!(code == 250 || reply.contains("4.2.2"), "{reply}");
        }
        client.ask("DATA\r\n", 354).await;
        let reply = client.ask("x\r\n.\r\n", if wanted == 250 { 452 } else { 250 }).await;
        assert!(wanted == 452 || reply.contains("4.3.1"), "{reply}");
    }
    let got = [harness.ada, cyd, harness.bob].map(|user| harness.cluster.inbox(user).len());
    assert_eq!((got, harness.cluster.waiting(A).len()), ([1, 1, 0], 0));
}

#[tokio::test]
async fn another_shard_takes_what_the_own_cannot() {
    let harness = Harness::start().await;
    harness.cluster.set_fault(A, Some(Fault::NoQuorum));
    let reply = harness.deliver(b"x\r\n").await;
    assert!(reply.starts_with("250") && (reply.contains("as 1001-1") || reply.contains("as 1002-1")), "{reply}");
    let waiting = [harness.cluster.waiting(B), harness.cluster.waiting(C)].concat();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].pending.len(), 1);
    assert_eq!(waiting[0].pending[0].address, "ada@postrider.example");
}

#[tokio::test]
async fn no_quorum_anywhere_is_told_within_five_seconds() {
    let harness = Harness::start().await;
    for shard in [A, B, C] {
        harness.cluster.set_fault(shard, Some(Fault::NoQuorum));
    }
    let mut client = harness.addressed().await;
    client.ask("DATA\r\n", 354).await;
    let began = Instant::now();
    let reply = client.ask("x\r\n.\r\n", 451).await;
    assert!(reply.contains("4.3.0") && reply.contains("not stored"), "{reply}");
    assert!(began.elapsed() < Duration::from_secs(5));
    client.ask("NOOP\r\n", 250).await;
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn an_overloaded_shard_is_told_apart() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    harness.cluster.set_fault(A, Some(Fault::Busy));
    client.ask("DATA\r\n", 354).await;
    let reply = client.ask("x\r\n.\r\n", 451).await;
    assert!(reply.contains("4.3.2"), "{reply}");
    assert_eq!((harness.cluster.waiting(B).len(), harness.cluster.waiting(C).len()), (0, 0));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    harness.cluster.set_fault(A, Some(Fault::LosesReplies(2)));
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    assert_eq!(harness.cluster.kept(), 1);
    assert_eq!(harness.cluster.proposals(A), 1, "under one request id it is one command");
}

#[tokio::test]
async fn what_may_have_happened_goes_nowhere_else() {
    let harness = Harness::limited(|limits| {
        limits.commit = Duration::from_millis(600);
        limits.commit_home = Duration::from_millis(200);
    })
    .await;
    let mut client = harness.addressed().await;
    harness.cluster.set_fault(A, Some(Fault::Swallows));
    client.ask("DATA\r\n", 354).await;
    let reply = client.ask("x\r\n.\r\n", 451).await;
    assert!(reply.contains("4.4.7") && reply.contains("may have been stored"), "{reply}");
    assert_eq!((harness.cluster.proposals(B), harness.cluster.proposals(C)), (0, 0));
    // Carried out after all, the answer lost for good: the same.
    harness.cluster.set_fault(A, Some(Fault::LosesReplies(u32::MAX)));
    client.address("ada").await;
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 451).await;
    assert_eq!(harness.cluster.kept(), 1);
    assert_eq!((harness.cluster.proposals(B), harness.cluster.proposals(C)), (0, 0));
}

#[tokio::test]
async fn room_that_cannot_be_asked_for_is_taken_as_given() {
    let harness = Harness::limited(|limits| limits.quota_question = Duration::from_millis(100)).await;
    harness.cluster.set_fault(A, Some(Fault::Swallows));
    let mut client = harness.addressed().await;
    harness.cluster.set_fault(A, None);
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
}

#[tokio::test]
async fn recipients_of_another_zone_come_in_a_transaction_of_their_own() {
    let harness = Harness::start().await;
    harness.cluster.add_zone();
    let zoe = harness.cluster.add_user("zoe", OTHER_MAILBOX);
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<ada@{DOMAIN}>\r\n"), 250).await;
    let reply = client.ask(&format!("RCPT TO:<zoe@{OTHER_DOMAIN}>\r\n"), 452).await;
    assert!(reply.contains("4.5.3") && reply.contains("another transaction"), "{reply}");
    // Whoever is unknown there is so for good.
    client.ask(&format!("RCPT TO:<nobody@{OTHER_DOMAIN}>\r\n"), 550).await;
    client.ask(&format!("RCPT TO:<bob@{DOMAIN}>\r\n"), 250).await;
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    assert_eq!((harness.cluster.inbox(zoe).len(), harness.cluster.proposals(OTHER_MAILBOX)), (0, 0));
    // The rest of it.
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<zoe@{OTHER_DOMAIN}>\r\n"), 250).await;
    client.ask(&format!("RCPT TO:<bob@{DOMAIN}>\r\n"), 452).await;
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    assert_eq!(harness.cluster.inbox(zoe).len(), 1);
    assert_eq!(harness.cluster.kept(), 2, "bob's copy waits in A");
}

#[tokio::test]
async fn no_shard_of_another_zone_takes_what_the_own_cannot() {
    let harness = Harness::start().await;
    harness.cluster.add_zone();
    harness.cluster.add_user("zoe", OTHER_MAILBOX);
    harness.cluster.set_fault(OTHER_MAILBOX, Some(Fault::NoQuorum));
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<zoe@{OTHER_DOMAIN}>\r\n"), 250).await;
    client.ask("DATA\r\n", 354).await;
    let reply = client.ask("x\r\n.\r\n", 451).await;
    assert!(reply.contains("4.3.0"), "{reply}");
    for shard in [A, B, C] {
        assert_eq!(harness.cluster.proposals(shard), 0);
    }
    harness.cluster.set_fault(OTHER_DIRECTORY, Some(Fault::NoQuorum));
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<nobody@{OTHER_DOMAIN}>\r\n"), 451).await;
    client.ask(&format!("RCPT TO:<nobody@{DOMAIN}>\r\n"), 550).await;
}

#[tokio::test]
async fn an_old_map_denies_nobody_for_good() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask("RCPT TO:<ada@new.example>\r\n", 550).await;
    harness.cluster.set_fault(ShardId::PLACEMENT, Some(Fault::NoQuorum));
    let reply = client.ask("RCPT TO:<ada@new.example>\r\n", 451).await;
    assert!(reply.contains("4.4.3"), "{reply}");
    // The domain has just been added, and the map here does not know it yet: its addresses are looked up.
    harness.cluster.set_fault(ShardId::PLACEMENT, None);
    harness.cluster.unpublished.lock().insert("new.example".to_owned(), "all".to_owned());
    let reply = client.ask("RCPT TO:<ada@new.example>\r\n", 550).await;
    assert!(reply.contains("5.1.1"), "{reply}");
}

/// A message that is one large file.
fn attachment() -> String {
    let lines = format!("{}\r\n", "QUJD".repeat(19)).repeat(3000);
    format!("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}")
}

/// P-5 with attachments: where the regions of the recipient's shard cannot store them, a shard in others takes both.
#[tokio::test]
async fn another_shard_takes_the_attachments_too() {
    let harness = Harness::start().await;
    let file = attachment();
    harness.cluster.place(B, &["osaka", "sydney"]);
    harness.cluster.place(C, &["osaka", "sydney"]);
    // Its shard leads, its stores fail.
    harness.stored.fails_for.lock().push(A);
    let reply = harness.deliver(file.as_bytes()).await;
    assert!(reply.contains("as 1001-1") || reply.contains("as 1002-1"), "{reply}");
    let taker = if reply.contains("as 1001") { B } else { C };
    assert_eq!(harness.cluster.proposals(A), 0, "nothing is proposed before the blobs are durable");
    assert_eq!(harness.stored.blobs.lock().iter().map(|(shard, ..)| *shard).collect::<Vec<_>>(), [taker]);
    // Its stores work, it has no primary that could pin a blob: what the next shard gets, it gets with its blobs first.
    harness.stored.fails_for.lock().clear();
    harness.stored.blobs.lock().clear();
    harness.cluster.set_fault(A, Some(Fault::NoQuorum));
    let reply = harness.deliver(file.as_bytes()).await;
    let taker = if reply.contains("as 1001") { B } else { C };
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(harness.stored.blobs.lock().iter().map(|(shard, ..)| *shard).collect::<Vec<_>>(), [taker]);
}

/// Its replicas moved between the attachments and the command: the command comes to nobody before they are where it is now.
#[tokio::test]
async fn the_attachments_follow_a_shard_that_moves() {
    let harness = Harness::start().await;
    let file = attachment();
    harness.cluster.place_behind_the_map(A, &["osaka", "sydney"]);
    let reply = harness.deliver(file.as_bytes()).await;
    assert!(reply.contains("queued as 1000-"), "{reply}");
    assert_eq!(harness.stored.blobs.lock().len(), 2, "once for each placement");
    assert_eq!(harness.cluster.proposals(A), 1);
    // Where it has fewer regions of those that have them already, nothing is stored again.
    harness.cluster.place_behind_the_map(A, &["osaka", "sydney", "mumbai"]);
    assert!(harness.deliver(file.as_bytes()).await.starts_with("250"));
    assert_eq!(harness.stored.blobs.lock().len(), 3);
}
