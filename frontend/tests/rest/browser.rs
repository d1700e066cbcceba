//! Attacks in mail, shown in a browser: `frontend/webmail/e2e/attacks.mjs`.
//!
//! It needs `node`, what `npm ci` installs in `frontend/webmail`, and Chromium. Where they are missing it says so and passes over it; in CI
//! (`CI=true`) that fails unless POSTRIDER_ALLOW_MISSING names `chromium`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use crate::view::{Names, PNG, Web, html_mail, with_part, world_with};
use crate::world::World;

const BROWSER: &str = "/usr/bin/chromium";

/// What each attack is, and its HTML.
const ATTACKS: &[(&str, &str)] = include!("../../sanitize/src/tests/corpus.rs");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("webmail")
}

/// What is not here, by name.
fn missing() -> Option<&'static str> {
    let node = std::process::Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) {
        return Some("node");
    }
    if !folder().join("node_modules/playwright-core").exists() {
        return Some("frontend/webmail/node_modules (npm ci)");
    }
    (!Path::new(BROWSER).exists()).then_some("chromium")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_runs_or_asks_for_anything_in_a_browser() {
    if let Some(what) = missing() {
        let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
        let may = std::env::var_os("CI").is_none() || allowed.split(',').any(|name| name == "chromium");
        assert!(
            may,
            "no browser shows the attacks: {what} is not there; POSTRIDER_ALLOW_MISSING=chromium passes over it"
        );
        eprintln!("passed over: {what} is not there");
        return;
    }
    let web = Web::start(vec![("/a.png", PNG.to_vec())]).await;
    let names = [("img.example", [127, 0, 0, 1]), ("evil.example", [127, 0, 0, 1])];
    let world = world_with(Names::new(&names), true).await;
    let (reader, messages) = mail_is_there(&world, &web).await;
    let shown = tokio::process::Command::new("node")
        .arg("e2e/attacks.mjs")
        .current_dir(folder())
        .env("VIEW_BASE", world.client.base())
        .env("VIEW_TOKEN", reader)
        .env("VIEW_MESSAGES", serde_json::Value::from(messages).to_string())
        .env("CHROMIUM", BROWSER)
        .kill_on_drop(true)
        .status();
    let status = shown.await.expect("node starts");
    assert!(status.success(), "an attack did something: its words stand above");
}

/// The reader's token, and what is in the mailbox.
async fn mail_is_there(world: &World, web: &Web) -> (String, Vec<serde_json::Value>) {
    let reader = world.person().await;
    let mut messages = Vec::new();
    // A message that is none: images are shown, so that those of attacks would be.
    let good = format!(
        "<p>x</p><img src=\"{}\" width=9 height=9><img src=\"cid:logo@here\">",
        web.url("img.example", "/a.png")
    );
    let id = world.deliver(&reader, with_part(&good, "image/png", PNG)).await;
    messages.push(json!({"id": id.to_string(), "name": "no attack", "images": 2}));
    for (name, html) in ATTACKS {
        let id = world.deliver(&reader, html_mail(&format!("<p>before</p>{html}"))).await;
        messages.push(json!({"id": id.to_string(), "name": name}));
    }
    (reader.client.token().to_owned(), messages)
}
