//! The webmail in a browser against a real cluster: `frontend/webmail/e2e/journeys.mjs`, with the mail that it reads.
//!
//! It needs `node`, what `npm install --no-save` installs in `frontend/webmail`, and Chromium. Where they are missing it says so and passes over it; in CI
//! (`CI=true`) that fails unless POSTRIDER_ALLOW_MISSING names `chromium`, and a few journeys stand for all of them.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::rest::Api;
use harness::{Cluster, Options, smtp};
use reqwest::Method;
use serde_json::json;

const BROWSER: &str = "/usr/bin/chromium";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend/webmail")
}

/// What is not here, by name.
fn missing() -> Option<&'static str> {
    let node = std::process::Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) {
        return Some("node");
    }
    if !folder().join("node_modules/playwright-core").exists() {
        return Some("frontend/webmail/node_modules (npm install --no-save)");
    }
    (!Path::new(BROWSER).exists()).then_some("chromium")
}

/// A message whose HTML tries to run, to send and to be seen.
const ATTACK: &str = "From: eve@evil.example\r\nTo: reader@postrider.example\r\nSubject: An attack\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/html; charset=utf-8\r\n\r\n\
    <html><body onload=\"hit=1\"><script>parent.hit = 1; alert(1)</script><p>harmless words</p>\
    <img src=x onerror=\"parent.hit=2\"><img src=\"https://evil.example/seen.png\" width=\"300\" height=\"100\" alt=\"seen\">\
    <img src=\"https://tracker.evil.example/o.gif\" width=\"1\" height=\"1\"><svg onload=\"parent.hit=3\"></svg>\
    <a href=\"javascript:parent.hit=4\">here</a><form action=\"https://evil.example/\"><input name=\"p\"></form>\
    <iframe src=\"https://evil.example/\"></iframe><style>@import 'https://evil.example/x.css'; p { background: url(https://evil.example/y) }</style>\
    <link rel=\"stylesheet\" href=\"https://evil.example/z.css\"><meta http-equiv=\"refresh\" content=\"0;url=https://evil.example/\"></body></html>\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn people_read_write_and_undo_in_a_browser() {
    if let Some(what) = missing() {
        let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
        let may = std::env::var_os("CI").is_none() || allowed.split(',').any(|name| name == "chromium");
        assert!(
            may,
            "the webmail's journeys cannot run: {what} is not there; POSTRIDER_ALLOW_MISSING=chromium passes over them"
        );
        eprintln!("passed over: {what} is not there");
        return;
    }
    let cluster = Cluster::start(Options::default()).await;
    let (here, there) = (cluster.region("seoul"), cluster.region("virginia"));
    let reader = Api::sign_up(here, "reader@postrider.example").await;
    let writer = Api::sign_up(there, "writer@postrider.example").await;
    // Whom the demo's configuration names.
    let operator = Api::sign_up(here, "ada@postrider.example").await;
    mail_is_there(&cluster, &reader).await;
    // The region where the reader's mailbox is led from; its processes die in the last journey.
    let nodes = here.nodes.iter().map(|node| node.pid);
    let region: Vec<String> = nodes.chain([here.frontend_pid, here.store_pid]).map(|pid| pid.to_string()).collect();
    let mut journeys = tokio::process::Command::new("node");
    if std::env::var_os("CI").is_some() {
        journeys.env("WEBMAIL_SMALL", "1");
    }
    let journeys = journeys
        .arg("e2e/journeys.mjs")
        .current_dir(folder())
        .env("WEBMAIL_BASE", &here.rest)
        .env("WEBMAIL_OTHER_BASE", &there.rest)
        .env("WEBMAIL_ADDRESS", &reader.address)
        .env("WEBMAIL_PASSWORD", &reader.password)
        .env("WEBMAIL_OTHER_ADDRESS", &writer.address)
        .env("WEBMAIL_OTHER_PASSWORD", &writer.password)
        .env("WEBMAIL_OPERATOR", &operator.address)
        .env("WEBMAIL_OPERATOR_PASSWORD", &operator.password)
        .env("WEBMAIL_ADMIN_TOKEN", &cluster.ready().admin_token)
        .env("WEBMAIL_KILL", region.join(","))
        .env("CHROMIUM", BROWSER)
        .kill_on_drop(true)
        .status();
    let status = journeys.await.expect("node starts");
    assert!(status.success(), "a journey went wrong: its words stand above");
}

/// More than the page reads at first.
const OTHERS: usize = 60;

/// Seven messages in a conversation, of which the newest two were not read.
async fn conversation_is_there(smtp: &str, to: &[&str], reader: &Api) {
    for part in 1..=7 {
        let (subject, reply) = match part {
            1 => ("Part 1 of many", String::new()),
            _ => ("Re: Part 1 of many", format!("References: <part-{}@far.example>\r\n", part - 1)),
        };
        let message = format!(
            "From: writer@postrider.example\r\nTo: reader@postrider.example\r\nSubject: {subject}\r\n\
             Message-ID: <part-{part}@far.example>\r\n{reply}\r\nWords of part {part}.\r\n"
        );
        smtp::deliver(smtp, to, message.as_bytes()).await;
    }
    let newest = reader.until_subject("Re: Part 1 of many").await;
    let thread = newest["thread_id"].as_str().expect("a message has a conversation");
    let thread = reader.get(&format!("/v1/threads/{thread}")).await;
    let messages = thread["messages"].as_array().expect("a conversation has messages");
    let read: Vec<_> = messages.iter().take(5).map(|message| message["id"].clone()).collect();
    reader.change(Method::POST, "/v1/messages/batch", json!({"ids": read, "is_read": true})).await;
}

/// What the journeys read, the oldest first.
async fn mail_is_there(cluster: &Cluster, reader: &Api) {
    let to = &["reader@postrider.example"];
    let smtp = &cluster.region("frankfurt").smtp;
    for number in 0..OTHERS {
        smtp::deliver(smtp, to, &smtp::text(&format!("One of many, {number}"), "Nothing to do.")).await;
    }
    conversation_is_there(smtp, to, reader).await;
    let plain = "First line of plain words.\r\n\r\nOn Monday, Bora wrote:\r\n> what was said before\r\n";
    smtp::deliver(smtp, to, &smtp::text("Plain words", plain)).await;
    smtp::deliver(smtp, to, &smtp::text("Done without a network", "A star, please.")).await;
    smtp::deliver(smtp, to, ATTACK.as_bytes()).await;
    let question = "From: writer@postrider.example\r\nTo: reader@postrider.example\r\nSubject: Question to answer\r\n\
        Message-ID: <question@postrider.example>\r\n\r\nIs it true?\r\n";
    smtp::deliver(smtp, to, question.as_bytes()).await;
    reader.until_subject("Question to answer").await;
}
