//! What was acknowledged is among the hits of the very next search, at whatever region that is asked; what was deleted is not (P-2).
//!
//! `POSTRIDER_SEARCH_ROUNDS`: how often; a campaign wants 10,000.

mod harness;

use std::time::Duration;

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, Region, parameter, smtp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const ROUNDS_DEFAULT: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_search_knows() {
    let cluster = Cluster::start(Options::default()).await;
    let regions = cluster.ready().regions.clone();
    let user = Api::sign_up(cluster.region("frankfurt"), "finder@postrider.example").await;
    // Mail that nobody looks for arrives meanwhile, at every region.
    let load = Load::start(Plan {
        servers: regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: vec![user.address.clone()],
        connections: 2,
        everyone_every: 0,
        attachment_every: 0,
        name: "noise".into(),
        pause: Duration::ZERO,
    });
    load.until_accepted(20).await;
    for round in 0..parameter("POSTRIDER_SEARCH_ROUNDS", ROUNDS_DEFAULT) {
        // Two regions that have nothing to do with each other.
        let at = |step: u64| &regions[usize::try_from(splitmix(2 * round + step)).expect("a number") % regions.len()];
        let id = match round % 2 {
            0 => arrives(at(0), at(1), &user, round).await,
            _ => is_sent(at(0), at(1), &user, round).await,
        };
        changes(at(1), at(0), &user, &id, round).await;
    }
    let books = load.finish().await;
    books.check(std::slice::from_ref(&user)).await;
}

/// 250, then found.
async fn arrives(there: &Region, here: &Region, user: &Api, round: u64) -> String {
    let message = smtp::text(&format!("Needle {round}"), &format!("회의를 seek{round} in the Café"));
    smtp::deliver(&there.smtp, &[&user.address], &message).await;
    let id = one(user, here, &format!("seek{round}")).await;
    // By what the language makes of it as well.
    for q in [format!("subject:needle seek{round} 회의"), format!("\"seek{round} in the cafe\" is:unread")] {
        assert_eq!(one(user, here, &q).await, id, "{q}");
    }
    id
}

/// 202, then found in Sent.
async fn is_sent(there: &Region, here: &Region, user: &Api, round: u64) -> String {
    let body =
        json!({ "to": [user.address], "subject": format!("Needle {round}"), "body": format!("東京都 seek{round}") });
    let sent = user.at(there).change(Method::POST, "/v1/messages", body).await;
    let id = one(user, here, &format!("in:sent seek{round} 東京")).await;
    assert_eq!(Some(id.as_str()), sent["id"].as_str());
    id
}

/// Marked, moved and deleted, each time seen by the next search elsewhere.
async fn changes(there: &Region, here: &Region, user: &Api, id: &str, round: u64) {
    let (there, path) = (user.at(there), format!("/v1/messages/{id}"));
    let archive = user.folder("archive").await["id"].clone();
    there.change(Method::PATCH, &path, json!({ "is_flagged": true, "folder_id": archive })).await;
    assert_eq!(one(user, here, &format!("in:archive is:flagged seek{round}")).await, id);
    assert_eq!(found(user, here, &format!("seek{round} -is:flagged in:archive")).await, Vec::<String>::new());
    for _ in 0..2 {
        there.change(Method::DELETE, &path, Value::Null).await;
        let left = found(user, here, &format!("seek{round} in:archive")).await;
        assert_eq!(left, Vec::<String>::new(), "round {round} at {}", here.name);
    }
    assert!(!found(user, here, &format!("seek{round} in:anywhere")).await.contains(&id.to_owned()), "round {round}");
}

/// The only hit of a search, in its first answer.
async fn one(user: &Api, region: &Region, q: &str) -> String {
    let mut ids = found(user, region, q).await;
    assert_eq!(ids.len(), 1, "{q} at {}: {ids:?}", region.name);
    ids.remove(0)
}

/// One answer: whoever asks again has not seen what the first one said.
async fn found(user: &Api, region: &Region, q: &str) -> Vec<String> {
    let encoded: String = q.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/v1/search?q={encoded}");
    let answer = user.at(region).ask(Method::GET, &path, None).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK, "{q}");
    assert!(answer.headers().get("postrider-stale-ms").is_none(), "{q}: a healthy cluster's answers are current");
    let page: Value = answer.json().await.expect("JSON");
    let messages = page["messages"].as_array().expect("messages");
    assert_eq!(page["total"], json!({ "count": messages.len(), "exact": true }), "{q}");
    messages.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
}

/// A number that tells nothing of the one before.
fn splitmix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 33
}
