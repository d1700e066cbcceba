//! What comes back of mail to the outside, end to end: a message leaves with a return path, its host sends a report to it afterwards, and the sender
//! sends there no more; forged paths are refused, and whoever unsubscribes with one click is left alone.
//!
//! DNS server and host are the test's own, on loopback addresses; the host listens at port 25, as hosts do.

mod harness;

use std::net::Ipv4Addr;

use harness::far::{self, Far};
use harness::rest::Api;
use harness::smtp::{Client, Sent};
use harness::{Cluster, Options, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Nobody else of this machine's tests listens there.
const AT: Ipv4Addr = Ipv4Addr::new(127, 99, 25, 2);

fn report(recipient: &str) -> Vec<u8> {
    format!(
        "From: Mail Delivery <mailer-daemon@far.example>\r\nSubject: Undelivered\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n\
         --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.far.example\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 nobody\r\n\r\n--b--\r\n"
    )
    .into_bytes()
}

/// From nobody to `path`, at a region's SMTP server.
async fn bring_back(server: &str, path: &str, message: &[u8]) -> Sent {
    let mut client = Client::connect(server).await.expect("connect to SMTP");
    match client.address("", &[path]).await.expect("a reply") {
        Some(refused) => refused,
        None => client.content(message).await.expect("a reply"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_afterwards_is_matched_and_nobody_is_sent_to_who_does_not_exist() {
    let Some(Far { taken, resolver }) = far::start(AT).await else { return };
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let (region, other) = (cluster.ready().regions[0].clone(), cluster.ready().regions[1].clone());
    let ada = Api::sign_up(&region, "ada@postrider.example").await;
    let message = |to: &str| json!({"to": [to], "subject": "Hello", "body": "Hello"});
    let sent = ada.change(Method::POST, "/v1/messages", message("bob@far.example")).await;
    until("the host has it", || !taken.lock().expect("nobody panics").is_empty()).await;
    let path = taken.lock().expect("nobody panics")[0].mail_from.clone();
    assert!(path.starts_with("b0=") && path.ends_with("@postrider.example"), "{path}");

    // A host that took it says afterwards that it cannot deliver it, in any region, and more than once.
    for server in [&other.smtp, &region.smtp] {
        let brought = bring_back(server, &path, &report("bob.smith@inside.far.example")).await;
        assert!(matches!(brought, Sent::Accepted(_)), "{brought:?}");
    }
    let forged = path.replace("b0=", "b0=a");
    let refused = bring_back(&other.smtp, &forged, &report("bob@far.example")).await;
    assert!(matches!(&refused, Sent::Refused { code: 550, text, .. } if text.contains("not made here")), "{refused:?}");

    let feedback = ada.get("/v1/feedback").await;
    let lines = feedback["feedback"].as_array().expect("a list");
    assert_eq!(lines.len(), 1, "counted once: {feedback}");
    assert_eq!((&lines[0]["kind"], &lines[0]["by"]), (&json!("hard"), &json!("report")));
    assert_eq!((&lines[0]["recipient"], &lines[0]["message_id"]), (&json!("bob@far.example"), &sent["id"]));
    let again = ada.ask(Method::POST, "/v1/messages", Some(message("Bob@far.example"))).await.expect("an answer");
    assert_eq!(again.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = again.json().await.expect("JSON");
    assert_eq!(problem["type"], "urn:postrider:problem:recipient_suppressed");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Bob@far.example")), "{problem}");
    ada.until_subject("Undelivered").await;

    // Operators and administrators see it, and the list is the sender's to edit.
    let (listed, done) = cluster.ctl(&["feedback", "list", "--domain", "postrider.example"]).await;
    assert!(done && listed[0]["recipient"] == "bob@far.example" && listed[0]["sender"] == ada.address, "{listed}");
    let admin = Api { token: cluster.ready().admin_token.clone(), ..ada.clone() };
    let of_domain = admin.get("/v1/admin/feedback?domain=postrider.example").await;
    assert_eq!(of_domain["feedback"][0]["account"], json!(ada.address), "{of_domain}");
    let stranger = ada.ask(Method::GET, "/v1/admin/feedback?domain=postrider.example", None).await.expect("an answer");
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let listed = ada.get("/v1/suppressions").await;
    assert_eq!(listed["suppressions"][0]["reason"], "hard", "{listed}");
    let removed = ada.ask(Method::DELETE, "/v1/suppressions/bob@far.example", None).await.expect("an answer");
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    ada.change(Method::POST, "/v1/messages", message("bob@far.example")).await;
    until("the host has it again", || taken.lock().expect("nobody panics").len() == 2).await;
    cluster.assert_consistent().await;
}
