//! What the cluster's troubles look like to a client.

use std::time::Duration;

use tokio::time::Instant;

use super::harness::{A, B, C, Harness};
use crate::cluster::mail::{DIRECTORY, DOMAIN, Fault};

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
