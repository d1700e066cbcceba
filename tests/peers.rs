//! Mail servers of others and a cluster give each other mail: Postfix and Exim, with STARTTLS both ways, as the DNS says. Their logs tell that
//! it was encrypted and taken with 250; dkimpy and OpenDKIM judge what left signed.

mod harness;
#[path = "../frontend/outgoing/tests/peers/mod.rs"]
mod peers;

use std::net::{Ipv4Addr, SocketAddr};

use harness::outside::dns;
use harness::rest::Api;
use harness::{Cluster, Options, smtp};
use peers::{Kind, Peer, judged, opendkim};
use reqwest::Method;
use serde_json::json;

const DOMAIN: &str = "postrider.example";

#[tokio::test(flavor = "multi_thread")]
async fn postfix_and_exim_take_our_mail_and_give_us_theirs() {
    let kinds = [
        (Kind::Postfix, "postfix.example", Ipv4Addr::new(127, 99, 25, 3)),
        (Kind::Exim, "exim.example", Ipv4Addr::new(127, 99, 25, 4)),
    ];
    let resolver = dns(&kinds.map(|(_, domain, at)| (domain, at))).await;
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let region = cluster.ready().regions[0].clone();
    let secret = cluster.data_dir().join("secrets").join("cursor-secret");
    let secret = secret.to_str().expect("a path of ours");
    let mut records = Vec::new();
    for (selector, algorithm) in [("s1", "rsa"), ("s2", "ed25519")] {
        let add = ["dkim", "add", DOMAIN, selector, "--algorithm", algorithm, "--secret-file", secret];
        let (key, done) = cluster.ctl(&add).await;
        assert!(done, "{key}");
        let value = key["value"].as_str().expect("what is to be published").to_owned();
        records.push((format!("{selector}._domainkey.{DOMAIN}"), value));
    }
    let ada = Api::sign_up(&region, &format!("ada@{DOMAIN}")).await;
    let next = region.smtp.parse().expect("an address");
    for (kind, domain, at) in kinds {
        let Some(peer) = Peer::start(kind, domain, SocketAddr::from((at, 25)), Some(next)) else { continue };
        let body = json!({ "to": [format!("bob@{domain}")], "subject": "To you", "body": "A line\n.and a dot\n" });
        ada.change(Method::POST, "/v1/messages", body).await;
        peer.until("it has our mail", |peer| !peer.delivered().is_empty());
        assert!(peer.took_encrypted(), "{}", peer.log());
        let delivered = peer.delivered().remove(0);
        if let Some(verdicts) = opendkim::verdicts(&delivered, &records) {
            assert_eq!(verdicts, [true, true], "{delivered}");
        }
        if let Some(said) = judged(&delivered, &records) {
            assert_eq!(said, "[True, True]", "{delivered}");
        }

        let subject = format!("From {domain}");
        smtp::deliver(&peer.address.to_string(), &[&ada.address], &smtp::text(&subject, "Back to you")).await;
        let row = ada.until_subject(&subject).await;
        let raw = ada.bytes(&format!("/v1/messages/{}/raw", row["id"].as_str().expect("it has an id"))).await;
        let raw = String::from_utf8_lossy(&raw).into_owned();
        assert!(raw.contains(&format!("mx.{domain}")) && raw.contains(" with ESMTPS"), "{raw}");
        peer.until("it knows that we have it", Peer::gave_encrypted);
        assert_eq!(ada.inbox().await.iter().filter(|row| row["subject"] == subject.as_str()).count(), 1);
    }
    assert_eq!(cluster.ctl(&["queue", "list"]).await.0, json!([]));
    cluster.assert_consistent().await;
}
