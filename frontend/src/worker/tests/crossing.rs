//! The worker and people of another residency zone whose message waited for its time.

use postrider_api::id::UserId;
use postrider_api::notify::Notify;

use super::*;
use crate::cluster::mail::{OTHER_DIRECTORY, OTHER_DOMAIN, OTHER_MAILBOX};

const TEXT: &str = "Subject: later\r\n\r\nacross\r\n";

fn to(name: &str) -> pb::Recipient {
    let address = format!("{name}@{OTHER_DOMAIN}");
    pb::Recipient { address, notify: Notify::FAILURE.0, ..pb::Recipient::default() }
}

/// Ada of the first zone and zoe of the second, and a worker that sends nothing to the outside.
fn two_zones() -> (Arc<MailCluster>, UserId, UserId) {
    let cluster = MailCluster::new(1);
    cluster.add_zone();
    let (ada, zoe) = (cluster.add_user("ada", A), cluster.add_user("zoe", OTHER_MAILBOX));
    (cluster, ada, zoe)
}

#[tokio::test]
async fn what_is_due_crosses_and_nobody_else_waits_for_it() {
    let (cluster, ada, zoe) = two_zones();
    let outside = pb::Recipient { address: "bob@far.example".to_owned(), ..pb::Recipient::default() };
    cluster.enqueue_outside(A, ada, vec![to("zoe"), outside, to("nobody")], TEXT);
    let (_drain, _worker) = start(&cluster);
    until("she has it", || cluster.inbox(zoe).len() == 1).await;
    let waiting = || cluster.waiting(A).first().map_or(0, |entry| entry.pending.len());
    until("only he of the outside waits", || waiting() == 1).await;
    assert_eq!(cluster.waiting(A)[0].pending[0].address, "bob@far.example");
    assert_eq!(cluster.inbox(zoe)[0].raw(), TEXT.as_bytes());
    // Whom nobody knows the sender is told of, by his own domain.
    until("ada is told", || cluster.inbox(ada).len() == 1).await;
    let report = String::from_utf8_lossy(&cluster.inbox(ada)[0].raw()).into_owned();
    let name = format!("rfc822; nobody@{OTHER_DOMAIN}\r\n");
    assert!(report.contains(&name) && report.contains("Status: 5.1.1\r\n") && !report.contains("zoe@"), "{report}");
}

#[tokio::test]
async fn whoever_crosses_has_it_once_whatever_becomes_of_answers() {
    let (cluster, ada, zoe) = two_zones();
    cluster.set_fault(OTHER_MAILBOX, Some(Fault::LosesReplies(u32::MAX)));
    cluster.enqueue_outside(A, ada, vec![to("zoe")], TEXT);
    let (_drain, _worker) = start(&cluster);
    until("her shard has heard of it", || cluster.proposals(OTHER_MAILBOX) > 0).await;
    until("what became of it is not known", || cluster.waiting(A).iter().any(|entry| entry.pending[0].attempts > 0))
        .await;
    cluster.set_fault(OTHER_MAILBOX, None);
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!((cluster.inbox(zoe).len(), cluster.inbox(ada).len()), (1, 0));
}

#[tokio::test]
async fn a_zone_that_does_not_answer_is_waited_for() {
    let (cluster, ada, zoe) = two_zones();
    cluster.set_fault(OTHER_DIRECTORY, Some(Fault::NoQuorum));
    cluster.enqueue_outside(A, ada, vec![to("zoe")], TEXT);
    let (_drain, _worker) = start(&cluster);
    let reason = || cluster.waiting(A)[0].pending[0].reason.clone();
    until("the reason is told", || reason().contains("the directory does not answer")).await;
    cluster.set_fault(OTHER_DIRECTORY, None);
    cluster.set_fault(OTHER_MAILBOX, Some(Fault::NoQuorum));
    until("and the next one", || reason().contains("shard 1100")).await;
    cluster.set_fault(OTHER_MAILBOX, None);
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(cluster.inbox(zoe).len(), 1);
}
