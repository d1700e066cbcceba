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
    what_nobody_verified_is_told(&cluster, node.id).await;
    let again = Started(start_from_record(&cluster.data_dir(), &format!("node-{}", node.id)));
    cluster.until_whole().await;
    smtp::deliver(&cluster.region("frankfurt").smtp, &[&user.address], &smtp::text("Whole again", "x")).await;
    cluster.assert_consistent().await;
    drop(again);

    cluster.kill_demo().await;
    cluster.start_again().await;
    assert_whole(&cluster).await;
    // At once, while its processes are still stopping.
    cluster.kill_parent();
    cluster.start_again().await;
    assert_whole(&cluster).await;
    user.at(cluster.region("virginia")).until_subject("Whole again").await;
}

/// A ready file means that nothing has to be waited for.
async fn assert_whole(cluster: &Cluster) {
    let (status, whole) = cluster.ctl(&["status"]).await;
    assert!(whole, "{status}");
}

async fn what_nobody_verified_is_told(cluster: &Cluster, node: u64) {
    let (verified, clean) = cluster.ctl(&["verify"]).await;
    assert!(!clean, "a replica that is not there is not in order: {verified}");
    let lines: Vec<&str> =
        verified["differences"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(lines.len(), 3, "placement, the directory and one mailbox shard: {verified}");
    for shard in [1, 2, 1000] {
        let expected = format!("shard {shard}, node {node}: was not verified");
        assert!(lines.iter().any(|line| line.starts_with(&expected)), "{expected}: {verified}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_finds_its_certificate_at_home_and_the_demo_needs_no_home() {
    let mut cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let home = tempfile::tempdir().expect("make a directory");
    std::fs::create_dir(home.path().join(".local")).expect("make a directory");
    std::os::unix::fs::symlink(cluster.state_home(), home.path().join(".local/state")).expect("link the state home");
    for (variable, dir) in [("XDG_STATE_HOME", cluster.state_home()), ("HOME", home.path().to_owned())] {
        let output = cluster.ctl_at_home(variable, &dir, &["status"]).await;
        assert!(output.status.success(), "{variable}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("All 3 shards have a primary."), "{output:?}");
    }
    let nobody = tempfile::tempdir().expect("make a directory");
    let output = cluster.ctl_at_home("HOME", nobody.path(), &["status"]).await;
    assert_refused(&output, "no certificate is known");

    cluster.interrupt().await;
    // Root may write anywhere, but not below what is no directory.
    cluster.start_again_with_state_home(Path::new("/dev/null/state")).await;
    let said = cluster.demo_log();
    assert!(said.contains("will need --identity"), "{said}");
    assert_whole(&cluster).await;
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
    let ready_file = cluster.ready_file();
    let words = [data_dir.to_string_lossy(), ready_file.to_string_lossy()];
    let output = run(&["demo", "--no-sample", "--data-dir", &words[0], "--ready-file", &words[1]]).await;
    assert_refused(&output, "a demo is running in");
    assert!(ready_file.exists(), "the ready file is the running demo's");
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
