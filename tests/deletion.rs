//! A deleted account leaves nothing: every table, store and log is searched for its address and for a marker from its mail.
//!
//! The bytes of all files are searched, of nodes, object stores and frontends as they run, before and after: what is found before
//! shows that the search finds. The marker stands in a subject and in an attachment; the address stands wherever an account's does.

mod harness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::rest::Api;
use harness::smtp::Sent;
use harness::{Cluster, DEADLINE, Options, smtp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const ADDRESS: &str = "quillfeather-9x@postrider.example";
/// Random, so that no compression finds it anywhere else.
const MARKER: &str = "Zq7vX3kW9pLmT2bRnY8c";
/// The same of somebody who stays.
const OTHER_ADDRESS: &str = "stays-4w@postrider.example";
const OTHER_MARKER: &str = "Hj5dF8sQ1gUeC6oVaI0x";
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_leaves_nothing() {
    let cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let region = cluster.region("seoul");
    let user = Api::sign_up(region, ADDRESS).await;
    let other = Api::sign_up(region, OTHER_ADDRESS).await;
    for (to, marker) in [(&user, MARKER), (&other, OTHER_MARKER)] {
        smtp::deliver(&region.smtp, &[&to.address], &mail(&to.address, marker)).await;
        to.until_subject(&format!("A subject with {marker}")).await;
    }
    user.change(Method::POST, "/v1/folders", json!({ "name": format!("Folder {MARKER}") })).await;
    user.change(Method::PATCH, "/v1/profile", json!({ "signature": format!("-- {MARKER}") })).await;
    for (kind, text) in [("node-", ADDRESS), ("node-", MARKER), ("store-", MARKER)] {
        assert!(
            !harness::files_with(text, &places(&cluster, kind)).is_empty(),
            "no {kind} has {text}: that it goes would show nothing"
        );
    }

    // Its message comes when the account is gone: it is the last command of the shard, and refused.
    let mut late = smtp::Client::connect(&region.smtp).await.expect("the frontend greets");
    let addressed = late.address(smtp::SENDER, &[ADDRESS]).await.expect("answered");
    assert_eq!(addressed, None, "the address is good yet");

    let answer = user.ask(Method::DELETE, "/v1/accounts/current", Some(json!({ "password": user.password }))).await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::NO_CONTENT);
    let answer = user.ask(Method::GET, "/v1/profile", None).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    // While the deletion runs mail is put off, or turned away already.
    let sent = send_late(&region.smtp).await;
    assert!(matches!(sent, Sent::Refused { code: 450 | 451 | 550, .. }), "{sent:?}");
    until_gone(&cluster).await;
    for region in &cluster.ready().regions {
        // A frontend may trust for seconds what it was told of the mailbox's room, and is told better with the message.
        let begin = Instant::now();
        loop {
            let sent = send_late(&region.smtp).await;
            assert!(matches!(sent, Sent::Refused { code: 550, .. }), "at {}: {sent:?}", region.name);
            if matches!(sent, Sent::Refused { after_data: false, .. }) {
                break;
            }
            assert!(begin.elapsed() < DEADLINE, "{} goes on asking for messages", region.name);
            tokio::time::sleep(PAUSE).await;
        }
    }
    let sent = late.content(&mail(ADDRESS, MARKER)).await.expect("answered");
    assert!(matches!(sent, Sent::Refused { code: 550, after_data: true, .. }), "{sent:?}");
    cluster.assert_consistent().await;

    let (vacuumed, done) = cluster.ctl(&["vacuum"]).await;
    assert!(done, "{vacuumed}");
    // Files in the object stores go with the second sweep at the latest (ADR 055).
    for _ in 0..2 {
        let (swept, whole) = cluster.ctl(&["blobs", "sweep"]).await;
        assert!(whole, "{swept}");
    }
    for kind in ["node-", "store-", "frontend-"] {
        for text in [ADDRESS, MARKER] {
            assert_eq!(
                harness::files_with(text, &places(&cluster, kind)),
                Vec::<PathBuf>::new(),
                "{text} is gone from each {kind}"
            );
        }
    }
    // Nothing else has gone with it.
    for (kind, text) in [("node-", OTHER_ADDRESS), ("node-", OTHER_MARKER), ("store-", OTHER_MARKER)] {
        assert!(!harness::files_with(text, &places(&cluster, kind)).is_empty(), "a {kind} has {text}");
    }
    let row = other.until_subject(&format!("A subject with {OTHER_MARKER}")).await;
    let raw = other.bytes(&format!("/v1/messages/{}/raw", row["id"].as_str().expect("an id"))).await;
    assert!(raw.windows(OTHER_MARKER.len()).any(|window| window == OTHER_MARKER.as_bytes()));
    cluster.assert_consistent().await;

    let (audit, _) = cluster.ctl(&["audit", "--target", ADDRESS]).await;
    let text = audit.to_string();
    assert!(!text.contains(ADDRESS), "the audit log names nobody: {text}");
}

/// Mail for the address, over a connection of its own.
async fn send_late(server: &str) -> Sent {
    let mut client = smtp::Client::connect(server).await.expect("the frontend greets");
    client.send(&[ADDRESS], &mail(ADDRESS, "late")).await
}

/// The deletion has come to its end: the directory has nobody under the address, and no shard counts the user.
async fn until_gone(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let (shards, _) = cluster.ctl(&["shards"]).await;
        let users: u64 = shards.as_array().expect("a list").iter().filter_map(|shard| shard["users"].as_u64()).sum();
        if users == 1 {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "the account goes: {shards}");
        tokio::time::sleep(PAUSE).await;
    }
    let output = cluster.ctl_raw(&["account", "show", ADDRESS]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nobody has the address"), "{said}");
}

/// A message with the marker in its subject, its text and an attachment that goes to the object stores.
fn mail(to: &str, marker: &str) -> Vec<u8> {
    let line = format!("{marker} in a line of an attachment that is large\r\n");
    let attachment = line.repeat(200 * 1024 / line.len());
    format!(
        "From: friend@outside.example\r\nTo: {to}\r\nSubject: A subject with {marker}\r\n\
         Message-ID: <{marker}@outside.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nA text with {marker}.\r\n--b\r\n\
         Content-Type: text/plain\r\nContent-Disposition: attachment; filename={marker}.txt\r\n\r\n{attachment}\r\n--b--\r\n"
    )
    .into_bytes()
}

/// Directories of processes whose names begin so.
fn places(cluster: &Cluster, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cluster.data_dir()).expect("list the cluster's directory");
    let dirs = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let dirs: Vec<PathBuf> = dirs.map(|entry| entry.path()).collect();
    assert!(!dirs.is_empty(), "no {prefix} in {}", cluster.data_dir().display());
    dirs
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_suspends_resumes_and_deletes_and_it_is_written_down() {
    let cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let region = cluster.region("seoul");
    let user = Api::sign_up(region, ADDRESS).await;
    let ctl = async |words: &[&str]| {
        let (said, done) = cluster.ctl(&[words, &["--as", "night shift", "--why", "a test"]].concat()).await;
        assert!(done, "{words:?}: {said}");
        said
    };
    let status = async || user.ask(Method::GET, "/v1/profile", None).await.expect("an answer").status();
    ctl(&["account", "suspend", ADDRESS, "--receive", "false"]).await;
    assert_eq!(status().await, StatusCode::FORBIDDEN);
    let shown = ctl(&["account", "show", ADDRESS]).await;
    assert_eq!((&shown["state"], &shown["receives"]), (&json!("suspended"), &json!(false)));
    let mut client = smtp::Client::connect(&region.smtp).await.expect("the frontend greets");
    let sent = client.send(&[ADDRESS], &smtp::text("While suspended", "x")).await;
    assert!(matches!(sent, Sent::Refused { code: 450, after_data: false, .. }), "{sent:?}");
    ctl(&["account", "resume", ADDRESS]).await;
    assert_eq!(status().await, StatusCode::OK);
    let changed = ctl(&["account", "password", ADDRESS]).await;
    assert_eq!(status().await, StatusCode::UNAUTHORIZED, "all sessions have ended");
    let user = Api::log_in(region, ADDRESS, changed["password"].as_str().expect("a password")).await;
    let sessions = ctl(&["account", "sessions", ADDRESS]).await;
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    ctl(&["account", "sessions", ADDRESS, "--end-all"]).await;
    assert_eq!(user.ask(Method::GET, "/v1/profile", None).await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let deleted = ctl(&["account", "delete", ADDRESS]).await;
    assert_eq!(deleted["state"], "deleted", "{deleted}");
    cluster.assert_consistent().await;

    let audit = ctl(&["audit", "--since", "1h", "--target", ADDRESS]).await;
    let lines = audit.as_array().expect("a list");
    let told: Vec<(&str, &str)> = lines.iter().map(|line| (text(&line["action"]), text(&line["outcome"]))).collect();
    let expected = [
        "account.suspend",
        "account.show",
        "account.resume",
        "account.password",
        "account.sessions",
        "account.session.end_all",
        "account.delete",
    ];
    assert_eq!(told, expected.map(|action| (action, "done")), "{audit}");
    for line in lines {
        assert_eq!((text(&line["operator"]), text(&line["why"])), ("night shift", "a test"));
        assert_eq!(text(&line["certificate"]), "ctl operator", "the node says who it was");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}
