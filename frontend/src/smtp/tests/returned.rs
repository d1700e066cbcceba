//! What comes back to return paths.

use postrider_api::id::EntryId;
use postrider_api::pb::{self, FeedbackKind, FeedbackSource};
use postrider_outgoing::return_path::{Origin, ReturnPaths};

use super::harness::{Harness, SECRET};
use crate::cluster::mail::{self, DOMAIN, Fault};

const DSN: &str = "From: <mailer-daemon@far.example>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
    --b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.far.example\r\n\r\n\
    Final-Recipient: rfc822; bob@far.example\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 nobody\r\n\r\n--b--\r\n";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn path_of(harness: &Harness, ago_ms: i64) -> String {
    let origin = Origin { sender: harness.ada, entry: EntryId(7), recipient: 2 };
    ReturnPaths::new(&SECRET).path(&origin, DOMAIN, mail::CLOCK.wall_ms() - ago_ms)
}

/// The reply to the end of a message from nobody to `path`.
async fn returned(harness: &Harness, path: &str, content: &str) -> String {
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&format!("RCPT TO:<{path}>\r\n"), 250).await;
    client.ask("DATA\r\n", 354).await;
    client.send(format!("{content}.\r\n").as_bytes()).await;
    client.reply().await
}

#[tokio::test]
async fn a_bounce_is_recorded_with_its_sender_and_filed_with_him() {
    let harness = Harness::start().await;
    let path = path_of(&harness, 3 * DAY_MS).to_uppercase();
    let reply = returned(&harness, &path, DSN).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let recorded = harness.cluster.feedback();
    let [pb::RecordFeedback { user_id, entry, recipient, items }] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!((user_id, *entry, *recipient), (&harness.ada.to_bytes(), 7, 2));
    assert_eq!((items[0].kind(), items[0].source()), (FeedbackKind::Hard, FeedbackSource::Report));
    assert_eq!(harness.cluster.inbox(harness.ada).len(), 1);
}

#[tokio::test]
async fn what_is_no_bounce_is_filed_and_counts_for_nothing() {
    let harness = Harness::start().await;
    let path = path_of(&harness, 0);
    let answer =
        "From: bob@far.example\r\nAuto-Submitted: auto-replied\r\nSubject: On holiday\r\n\r\nBack on 5.1.1.\r\n";
    let reply = returned(&harness, &path, answer).await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(harness.cluster.feedback(), []);
    assert_eq!(harness.cluster.inbox(harness.ada).len(), 1);
}

#[tokio::test]
async fn forged_and_old_paths_and_senders_are_refused() {
    let harness = Harness::start().await;
    let (good, old) = (path_of(&harness, 0), path_of(&harness, 30 * DAY_MS));
    let other = Origin { sender: harness.ada, entry: EntryId(7), recipient: 2 };
    let forged = ReturnPaths::new(&[8; 32]).path(&other, DOMAIN, mail::CLOCK.wall_ms());
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    let reply = client.ask(&format!("RCPT TO:<{forged}>\r\n"), 550).await;
    assert!(reply.contains("5.7.1 This return path was not made here"), "{reply}");
    let reply = client.ask(&format!("RCPT TO:<{old}>\r\n"), 550).await;
    assert!(reply.contains("too old"), "{reply}");
    client.ask("RSET\r\n", 250).await;
    client.ask("MAIL FROM:<bob@far.example>\r\n", 250).await;
    let reply = client.ask(&format!("RCPT TO:<{good}>\r\n"), 550).await;
    assert!(reply.contains("MAIL FROM:<> only"), "{reply}");
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 250).await;
}

#[tokio::test]
async fn what_cannot_be_recorded_now_is_taken_by_nobody() {
    let harness = Harness::start().await;
    harness.cluster.set_fault(super::harness::A, Some(Fault::NoQuorum));
    let reply = returned(&harness, &path_of(&harness, 0), DSN).await;
    assert!(reply.starts_with("451 "), "{reply}");
    assert_eq!(harness.cluster.inbox(harness.ada).len(), 0);
}

#[tokio::test]
async fn a_complaint_counts_when_it_gives_back_a_message_of_ours() {
    let harness = Harness::start().await;
    let complaint = |path: &str| {
        format!(
            "From: <fbl@far.example>\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n\
             --b\r\n\r\nA complaint.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n\
             --b\r\nContent-Type: message/rfc822\r\n\r\nReturn-Path: <{path}>\r\nSubject: Buy\r\n\r\nnow\r\n--b--\r\n"
        )
    };
    let reply = harness.deliver(complaint("ada@postrider.example").as_bytes()).await;
    assert!(reply.starts_with("250 "), "{reply}");
    assert_eq!(harness.cluster.feedback(), [], "anybody can write that");
    let reply = harness.deliver(complaint(&path_of(&harness, 0)).as_bytes()).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let recorded = harness.cluster.feedback();
    assert_eq!(recorded.len(), 1);
    assert_eq!((recorded[0].recipient, recorded[0].items[0].kind()), (2, FeedbackKind::Complaint));
}
