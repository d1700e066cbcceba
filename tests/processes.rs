//! The demo's processes as a program meets them: none outlives the demo, each can be started again from its own command line,
//! and what is wrong is said early and clearly.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use harness::rest::Api;
use harness::{Cluster, Options, run, smtp};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn processes_end_with_the_demo_and_start_from_their_command_lines() {
    let mut cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "process@postrider.example").await;
    a_second_demo_is_refused(&cluster).await;

    let node = cluster.region("frankfurt").nodes[0].clone();
    cluster.kill(&[node.pid]).await;
    let again = Started(start_from_record(&cluster.data_dir(), &format!("node-{}", node.id)));
    cluster.until_whole().await;
    smtp::deliver(&cluster.region("frankfurt").smtp, &[&user.address], &smtp::text("Whole again", "x")).await;
    cluster.assert_consistent().await;
    drop(again);

    cluster.kill_demo().await;
    cluster.start_again().await;
    user.at(cluster.region("virginia")).until_subject("Whole again").await;
}

/// A process that the test started by itself.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.kill().expect("kill what was started");
        self.0.wait().expect("reap what was started");
    }
}

async fn a_second_demo_is_refused(cluster: &Cluster) {
    let data_dir = cluster.data_dir();
    let output = run(&["demo", "--no-sample", "--data-dir", &data_dir.to_string_lossy()]).await;
    assert_refused(&output, "a demo is running in");
}

/// What a program does that has only read `processes.json`.
fn start_from_record(data_dir: &Path, name: &str) -> Child {
    let text = std::fs::read_to_string(data_dir.join("processes.json")).expect("read processes.json");
    let records: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let record = records.iter().find(|record| record["name"] == name).unwrap_or_else(|| panic!("no {name}: {text}"));
    let words: Vec<&str> = record["command"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(record["directory"].as_str().expect("a directory"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start it again")
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_said() {
    let dir = tempfile::tempdir().expect("make a directory");
    let secret = write(dir.path(), "secret", "0123456789abcdef0123456789abcdef");
    let empty = write(dir.path(), "empty", "\n");
    let store = |key: &Path, more: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"{}\"\naccess_key = \"k\"\nsecret_key_file = \"{}\"\n{more}",
            dir.path().join("objects").display(),
            key.display()
        )
    };
    let absent = dir.path().join("absent");
    for (text, expected) in [
        (store(&secret, "colour = \"red\"\n"), "colour"),
        (store(&empty, ""), "is empty"),
        (store(&absent, ""), "absent"),
        ("listen = \"here\"\n".to_owned(), "listen"),
    ] {
        let path = write(dir.path(), "store.toml", &text);
        let output = run(&["store", "--config", &path.to_string_lossy()]).await;
        assert_refused(&output, expected);
    }
    for role in ["node", "frontend", "worker", "store"] {
        assert_refused(&run(&[role, "--config", "/nonexistent/file.toml"]).await, "/nonexistent/file.toml");
    }
    assert_refused(&run(&["ctl", "status"]).await, "--cluster");
    assert_refused(&run(&["demo", "--shards", "0", "--data-dir", &dir.path().to_string_lossy()]).await, "--shards");
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("write a file");
    path
}

fn assert_refused(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains(expected), "{expected:?} is said: {said}");
}
