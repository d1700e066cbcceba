//! One account can reach nothing of another's, by no path, id or cursor (P-9).
//!
//! Searches, suggestions and entity tags are tried as well. Every request of the API that takes an id is tried with the ids of another user, in the same shard and in another one. What
//! comes back must be what an id that never existed gets, so that not even existence shows.

mod harness;

use harness::events::Events;
use harness::rest::Api;
use harness::{Cluster, Options, smtp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// What only the owner may ever see.
const SECRET: &str = "SECRET-OF-THE-OWNER";

#[tokio::test(flavor = "multi_thread")]
async fn an_account_reaches_nothing_of_another() {
    // One mailbox shard: the intruders share it with the owner; the last one has an account in the same region.
    let cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let owner = Api::sign_up(cluster.region("seoul"), "owner@postrider.example").await;
    let things = Things::make(&cluster, &owner).await;
    let before = snapshot(&owner).await;
    let intruder = Api::sign_up(cluster.region("frankfurt"), "intruder@postrider.example").await;
    tries_everything(&cluster, &intruder, &owner, &things).await;
    assert_eq!(snapshot(&owner).await, before, "nothing of the owner's has changed");
}

/// Somebody of another residency zone, at every frontend of both.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_reaches_nothing_of_another_zone() {
    let cluster = Cluster::start(Options { zones: 2, shards: 1, ..Options::default() }).await;
    let owner = Api::sign_up(cluster.region("seoul"), "owner@postrider.example").await;
    let things = Things::make(&cluster, &owner).await;
    let before = snapshot(&owner).await;
    let intruder = Api::sign_up(cluster.region("paris"), "intruder@second.example").await;
    tries_everything(&cluster, &intruder, &owner, &things).await;
    assert_eq!(snapshot(&owner).await, before, "nothing of the owner's has changed");
}

async fn tries_everything(cluster: &Cluster, intruder: &Api, owner: &Api, things: &Things) {
    let region = cluster.region("seoul");
    smtp::deliver(&region.smtp, &[&intruder.address], &smtp::text("Their own", "nothing")).await;
    for base in &cluster.ready().regions {
        tries_every_path(&intruder.at(base), things).await;
    }
    tries_cursors(intruder, things).await;
    for base in &cluster.ready().regions {
        tries_searches(&intruder.at(base), things).await;
        tries_tags(&intruder.at(base), things).await;
    }
    tries_tokens(intruder, owner).await;
    sees_only_its_own_events(cluster, intruder, owner).await;
}

/// Ids of the owner's.
struct Things {
    inbox: String,
    folder: String,
    message: String,
    thread: String,
    attachment: String,
    cursor: String,
    thread_cursor: Option<String>,
    search_cursor: String,
    /// Paths, and the tags of their answers.
    tags: Vec<(String, String)>,
}

impl Things {
    async fn make(cluster: &Cluster, owner: &Api) -> Self {
        let region = cluster.region("seoul");
        for n in 0..3 {
            let message = format!(
                "From: friend@outside.example\r\nTo: owner@postrider.example\r\nSubject: {SECRET} {n}\r\n\
                 Message-ID: <{n}@outside.example>\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{SECRET}\r\n--b\r\n\
                 Content-Type: text/plain\r\nContent-Disposition: attachment; filename=secret.txt\r\n\r\n{SECRET}\r\n--b--\r\n"
            );
            smtp::deliver(&region.smtp, &[&owner.address], message.as_bytes()).await;
        }
        let folder = owner.change(Method::POST, "/v1/folders", json!({ "name": SECRET })).await;
        let inbox = id(&owner.folder("inbox").await["id"]);
        let row = owner.until_subject(&format!("{SECRET} 2")).await;
        let message = owner.get(&format!("/v1/messages/{}", id(&row["id"]))).await;
        let page = owner.get(&format!("/v1/folders/{inbox}/messages?limit=1")).await;
        let threads = owner.get(&format!("/v1/folders/{inbox}/threads?limit=1")).await;
        let found = owner.get(&format!("/v1/search?q={SECRET}&limit=1")).await;
        assert_eq!(found["total"]["count"], 3, "the owner finds it: {found}");
        let mut tags = Vec::new();
        for path in [
            "/v1/folders".to_owned(),
            "/v1/labels".to_owned(),
            format!("/v1/folders/{inbox}/messages"),
            format!("/v1/folders/{inbox}/threads"),
            format!("/v1/threads/{}", id(&row["thread_id"])),
            format!("/v1/messages/{}", id(&row["id"])),
            format!("/v1/search?q={SECRET}"),
        ] {
            let answer = owner.ask(Method::GET, &path, None).await.expect("an answer");
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).expect("a tag").to_owned();
            let again = with_tag(owner, &path, &tag).await;
            assert_eq!(again.0, StatusCode::NOT_MODIFIED, "{path}: the owner's own");
            tags.push((path, tag));
        }
        Self {
            search_cursor: id(&found["next_cursor"]),
            tags,
            folder: id(&folder["id"]),
            message: id(&row["id"]),
            thread: id(&row["thread_id"]),
            attachment: id(&message["attachments"][0]["id"]),
            cursor: id(&page["next_cursor"]),
            thread_cursor: threads["next_cursor"].as_str().map(str::to_owned),
            inbox,
        }
    }
}

async fn tries_every_path(intruder: &Api, things: &Things) {
    let Things { folder, message, thread, attachment, .. } = things;
    let absent = "0".repeat(32);
    let patch = Some(json!({ "is_read": true }));
    let batch = |id: &str| Some(json!({ "ids": [id], "is_read": true }));
    let tries = [
        (Method::GET, format!("/v1/messages/{message}"), format!("/v1/messages/{absent}"), None, None),
        (Method::GET, format!("/v1/messages/{message}/raw"), format!("/v1/messages/{absent}/raw"), None, None),
        (
            Method::GET,
            format!("/v1/messages/{message}/attachments/{attachment}"),
            format!("/v1/messages/{absent}/attachments/{attachment}"),
            None,
            None,
        ),
        (Method::PATCH, format!("/v1/messages/{message}"), format!("/v1/messages/{absent}"), patch.clone(), patch),
        (Method::DELETE, format!("/v1/messages/{message}"), format!("/v1/messages/{absent}"), None, None),
        (Method::GET, format!("/v1/threads/{thread}"), format!("/v1/threads/{absent}"), None, None),
        (Method::POST, "/v1/messages/batch".into(), "/v1/messages/batch".into(), batch(message), batch(&absent)),
        (Method::GET, format!("/v1/folders/{folder}/messages"), "/v1/folders/4000000000/messages".into(), None, None),
        (Method::GET, format!("/v1/folders/{folder}/threads"), "/v1/folders/4000000000/threads".into(), None, None),
        (
            Method::PATCH,
            format!("/v1/folders/{folder}"),
            "/v1/folders/4000000000".into(),
            Some(json!({ "name": "mine" })),
            Some(json!({ "name": "mine" })),
        ),
        (Method::DELETE, format!("/v1/folders/{folder}"), "/v1/folders/4000000000".into(), None, None),
    ];
    for (method, path, absent_path, body, absent_body) in tries {
        let (status, text) = ask(intruder, method.clone(), &path, body).await;
        let (absent_status, absent_text) = ask(intruder, method.clone(), &absent_path, absent_body).await;
        assert!(status.is_client_error(), "{method} {path}: {status} {text}");
        assert!(!text.contains(SECRET), "{method} {path}: {text}");
        assert_eq!(status, absent_status, "{method} {path} looks like what never existed: {text} / {absent_text}");
        let kind = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default()["type"].clone();
        assert_eq!(kind(&text), kind(&absent_text), "{method} {path}");
    }
    // The same folder number names the intruder's own inbox.
    let own = intruder.get(&format!("/v1/folders/{}/messages", things.inbox)).await.to_string();
    assert!(!own.contains(SECRET), "{own}");
    let folders = intruder.get("/v1/folders").await.to_string();
    assert!(!folders.contains(SECRET), "{folders}");
    // A message of one's own is not moved into another's folder.
    let row = intruder.until_subject("Their own").await;
    let path = format!("/v1/messages/{}", id(&row["id"]));
    let (status, text) = ask(intruder, Method::PATCH, &path, Some(json!({ "folder_id": folder }))).await;
    assert!(status.is_client_error(), "{status} {text}");
}

async fn tries_cursors(intruder: &Api, things: &Things) {
    let inbox = &things.inbox;
    let (status, text) =
        ask(intruder, Method::GET, &format!("/v1/folders/{inbox}/messages?cursor={}", things.cursor), None).await;
    assert!(status.is_client_error(), "another's cursor is refused: {status} {text}");
    if let Some(cursor) = &things.thread_cursor {
        let (status, text) =
            ask(intruder, Method::GET, &format!("/v1/folders/{inbox}/threads?cursor={cursor}"), None).await;
        assert!(status.is_client_error(), "another's cursor is refused: {status} {text}");
    }
}

async fn tries_searches(intruder: &Api, things: &Things) {
    for q in [
        SECRET.to_owned(),
        format!("{SECRET} in:anywhere"),
        format!("in:%22{SECRET}%22"),
        format!("label:{SECRET}"),
        "filename:secret.txt".to_owned(),
        "from:friend in:anywhere".to_owned(),
        "rfc822msgid:0@outside.example".to_owned(),
        "S&as_you_type=true".to_owned(),
        "in:anywhere&sort=relevance".to_owned(),
    ] {
        for path in ["/v1/search", "/v1/search/threads"] {
            let (status, text) = ask(intruder, Method::GET, &format!("{path}?q={q}&limit=200"), None).await;
            assert_eq!(status, StatusCode::OK, "{q}: {text}");
            for theirs in [SECRET, &things.message, &things.thread, "friend@outside"] {
                assert!(!text.contains(theirs), "{q} finds {theirs}: {text}");
            }
        }
    }
    for prefix in ["", "f", "friend", "outside"] {
        let people = intruder.get(&format!("/v1/search/suggest?prefix={prefix}&limit=50")).await.to_string();
        assert!(!people.contains("friend"), "{prefix}: {people}");
    }
    for path in ["/v1/search", "/v1/search/threads"] {
        let path = format!("{path}?q={SECRET}&limit=1&cursor={}", things.search_cursor);
        let (status, text) = ask(intruder, Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "another's cursor is refused: {text}");
    }
}

/// Nobody learns from a 304 what another's mailbox is like.
async fn tries_tags(intruder: &Api, things: &Things) {
    for (path, tag) in &things.tags {
        let (status, text) = with_tag(intruder, path, tag).await;
        assert_ne!(status, StatusCode::NOT_MODIFIED, "{path}");
        assert!(!text.contains(SECRET), "{path}: {text}");
        let nobody = Api { token: String::new(), ..intruder.clone() };
        assert_eq!(with_tag(&nobody, path, tag).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

async fn with_tag(user: &Api, path: &str, tag: &str) -> (StatusCode, String) {
    let request = user.http.get(format!("{}{path}", user.base)).bearer_auth(&user.token).header("if-none-match", tag);
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a body"))
}

async fn tries_tokens(intruder: &Api, owner: &Api) {
    let swapped = format!("{}{}", &owner.token[..owner.token.len() / 2], &intruder.token[intruder.token.len() / 2..]);
    for token in [String::new(), "x".into(), swapped, intruder.token[..intruder.token.len() - 1].to_owned()] {
        let nobody = Api { token, ..intruder.clone() };
        let (status, text) = ask(&nobody, Method::GET, "/v1/folders", None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    let once = Api::log_in_again(intruder).await;
    let answer = once.ask(Method::DELETE, "/v1/sessions/current", None).await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    let (status, _) = ask(&once, Method::GET, "/v1/folders", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a session that has ended opens nothing");
    let tag = intruder.ask(Method::GET, "/v1/folders", None).await.expect("an answer").headers()["etag"].clone();
    let (status, _) = with_tag(&once, "/v1/folders", tag.to_str().expect("ASCII")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "nor does it with a tag");
}

async fn sees_only_its_own_events(cluster: &Cluster, intruder: &Api, owner: &Api) {
    let mut events = Events::open(intruder, Some(0)).await;
    let region = cluster.region("virginia");
    let (_, first) = events.next_message().await;
    smtp::deliver(&region.smtp, &[&intruder.address], &smtp::text("Another of their own", "x")).await;
    let own: Vec<String> = intruder.inbox().await.iter().map(|row| id(&row["id"])).collect();
    let (frame, second) = events.next_message().await;
    assert!(own.contains(&first) && own.contains(&second), "{frame}");
    let all: String = intruder.changes(0).await.iter().map(Value::to_string).collect();
    for row in owner.inbox().await {
        assert!(!all.contains(&id(&row["id"])), "the feed names the owner's message: {all}");
    }
}

/// Everything of the owner's that could have been changed.
async fn snapshot(owner: &Api) -> (Value, Vec<Value>) {
    (owner.get("/v1/folders").await, owner.inbox().await)
}

async fn ask(user: &Api, method: Method, path: &str, body: Option<Value>) -> (StatusCode, String) {
    let answer = user.ask(method, path, body).await.expect("an answer");
    (answer.status(), answer.text().await.expect("a body"))
}

fn id(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("an id: {value}")).to_owned()
}
