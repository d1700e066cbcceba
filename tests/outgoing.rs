//! Mail to the outside, end to end: submitted by a program, signed, taken to the host that the DNS names, once; and told of where that
//! host refuses it.
//!
//! DNS server and host are the test's own, on loopback addresses; the host listens at port 25, as hosts do. The signature is judged by
//! dkimpy, where Python has it.
//!
//! POSTRIDER_OUTGOING_MESSAGES and POSTRIDER_OUTGOING_THINK_MS (of the host, about each), POSTRIDER_DEAD_MESSAGES, POSTRIDER_LIVE_PER_SECOND ask
//! for more than CI does.

mod harness;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::outside::{Sink, dns};
use harness::rest::Api;
use harness::{Cluster, Options, parameter, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

const DOMAIN: &str = "postrider.example";
const SUBMIT: &str = r#"
import smtplib, ssl, sys
host, port, user, password, sender, recipient, subject = sys.argv[1:]
context = ssl._create_unverified_context()
with smtplib.SMTP(host, int(port), timeout=60) as server:
    server.starttls(context=context)
    server.login(user, password)
    text = f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\n\r\nHello\r\n.a line with a dot\r\n"
    server.sendmail(sender, [recipient], text, rcpt_options=["NOTIFY=FAILURE"])
"#;
const VERIFY: &str = r#"
import dkim, sys
record = sys.argv[1].encode()
message = sys.stdin.buffer.read()
ok = dkim.DKIM(message).verify(dnsfunc=lambda name, timeout=5: record)
print("good" if ok else "bad")
"#;

/// Runs a Python program with `input`; its output.
async fn python(interpreter: &str, program: &str, words: &[&str], input: &[u8]) -> (String, bool) {
    let mut child = tokio::process::Command::new(interpreter)
        .args(["-c", program])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run python3");
    child.stdin.take().expect("it is piped").write_all(input).await.ok();
    let output = child.wait_with_output().await.expect("python3 ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_leaves_signed_and_once_and_its_sender_is_told_what_failed() {
    // Nobody else of this machine's tests listens there.
    let at = Ipv4Addr::new(127, 99, 25, 1);
    let Some(host) = Sink::listen(at, Duration::ZERO).await else { return };
    let resolver = dns(&[("far.example", at)]).await;
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let region = cluster.ready().regions[0].clone();
    let secret = cluster.data_dir().join("secrets").join("cursor-secret");
    let secret = secret.to_str().expect("a path of ours");
    let add = ["dkim", "add", DOMAIN, "s1", "--algorithm", "rsa", "--secret-file", secret];
    let (key, done) = cluster.ctl(&add).await;
    assert!(done, "{key}");
    let ada = Api::sign_up(&region, "ada@postrider.example").await;
    let made = ada.change(Method::POST, "/v1/app-passwords", json!({"name": "a test", "scopes": ["smtp"]})).await;
    let password = made["password"].as_str().expect("it is shown once").to_owned();
    let (submit_host, port) = region.submission.rsplit_once(':').expect("an address");
    let submit = async |recipient: &str, subject: &str| {
        let words = [submit_host, port, &ada.address, &password, &ada.address, recipient, subject];
        let (said, done) = python("python3", SUBMIT, &words, b"").await;
        assert!(done, "{said}");
    };
    submit("bob@far.example", "Out it goes").await;
    until("the host has it", || host.count() > 0).await;
    let message = host.taken().remove(0).raw;
    let text = String::from_utf8(message.clone()).expect("it is ASCII");
    assert!(text.starts_with("DKIM-Signature: v=1; a=rsa-sha256;"), "{text}");
    assert!(text.ends_with("\r\n\r\nHello\r\n.a line with a dot\r\n"), "{text}");
    let record = key["value"].as_str().expect("what is to be published");
    let (said, done) = python("/usr/bin/python3", VERIFY, &[record], &message).await;
    match said.contains("No module named") {
        true => eprintln!("PASSED OVER: dkimpy is not here (python3-dkim), nobody else judges the signature"),
        false => assert!(done && said.trim() == "good", "{said}"),
    }

    submit("nobody@far.example", "Nobody will read this").await;
    let report = ada.until_subject("Your message could not be delivered").await;
    let id = report["id"].as_str().expect("it has an id");
    let raw = String::from_utf8_lossy(&ada.bytes(&format!("/v1/messages/{id}/raw")).await).into_owned();
    assert!(raw.contains("Final-Recipient: rfc822; nobody@far.example\r\n"), "{raw}");
    assert!(raw.contains("Diagnostic-Code: smtp; 550 5.1.1 There is nobody of this name\r\n"), "{raw}");
    assert!(raw.contains("Subject: Nobody will read this\r\n"), "{raw}");
    // Nothing waits any more, and nothing was sent twice.
    let (waiting, _) = cluster.ctl(&["queue", "list"]).await;
    assert_eq!(waiting, Value::Array(Vec::new()));
    assert_eq!(host.count(), 1);
    cluster.assert_consistent().await;
}

/// Accounts that send, in all shards.
const ACCOUNTS: usize = 6;

async fn users(cluster: &Cluster) -> Vec<Api> {
    let mut users = Vec::new();
    for n in 0..ACCOUNTS {
        let regions = &cluster.ready().regions;
        users.push(Api::sign_up(&regions[n % regions.len()], &format!("out{n}@postrider.example")).await);
    }
    users
}

async fn send(user: &Api, to: &str) {
    let body = json!({ "to": [to], "subject": "On its way", "body": "As it is" });
    user.change(Method::POST, "/v1/messages", body).await;
}

/// Returns when everything has arrived at `host`, and no queue has anything any more.
async fn arrived(cluster: &Cluster, host: &Sink, sent: &BTreeSet<String>) {
    let deadline = Duration::from_secs(180 + sent.len() as u64 / 10);
    let begin = Instant::now();
    loop {
        let missing = sent.difference(&host.recipients()).count();
        if missing == 0 {
            let (waiting, _) = cluster.ctl(&["queue", "list"]).await;
            if waiting == Value::Array(Vec::new()) {
                break;
            }
        }
        assert!(begin.elapsed() < deadline, "{missing} of {} have not arrived, or are not known to have", sent.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(&host.recipients(), sent, "nobody else gets anything");
}

/// Who is on the way, and what happens to those who carry it.
struct Passage {
    cluster: Cluster,
    host: Sink,
    users: Vec<Api>,
    sent: BTreeSet<String>,
}

impl Passage {
    /// Sends so many messages, and returns when the host has an eighth of them: the others are on their way, or wait.
    async fn set_out(&mut self, messages: u64) {
        let before = self.host.count() as u64;
        for n in 0..messages {
            let user = &self.users[usize::try_from(n).expect("a count") % self.users.len()];
            let to = format!("r{}@far.example", self.sent.len());
            send(user, &to).await;
            self.sent.insert(to);
        }
        until("some are out", || self.host.count() as u64 >= before + messages / 8).await;
    }

    /// Returns when everything has arrived, and is known to have.
    async fn arrive(&self) {
        arrived(&self.cluster, &self.host, &self.sent).await;
    }

    /// Every mailbox shard gets another primary, as an operator would have it.
    async fn transfer(&self) {
        let (shards, _) = self.cluster.ctl(&["shards"]).await;
        for shard in shards.as_array().expect("a list").iter().filter_map(|line| line["shard"].as_u64()) {
            if shard < 1000 {
                continue;
            }
            let primary = self.cluster.primary(shard).await;
            let replicas = self.cluster.replicas(shard).await;
            let other = replicas.into_iter().find(|node| *node != primary).expect("another replica").to_string();
            let (said, done) = self.cluster.ctl(&["transfer", &shard.to_string(), &other]).await;
            assert!(done, "{said}");
        }
    }

    async fn kill_primary(&mut self) {
        let (_, primary) = self.cluster.primary_of(&self.users[0].address).await;
        self.cluster.kill(&[self.cluster.node_pid(primary)]).await;
        self.cluster.revive("node", &primary.to_string()).await;
    }

    async fn kill_frontends(&mut self, how_many: usize) {
        let victims = self.cluster.ready().regions[..how_many].to_vec();
        self.cluster.kill(&victims.iter().map(|region| region.frontend_pid).collect::<Vec<_>>()).await;
        for region in victims {
            self.cluster.revive("frontend", &region.name).await;
        }
    }
}

/// P-1, P-6: what was accepted leaves, and nothing leaves twice but what was cut between the host's 250 and our record of it.
#[tokio::test(flavor = "multi_thread")]
async fn mail_outlives_who_carries_it_out() {
    let messages = parameter("POSTRIDER_OUTGOING_MESSAGES", 200);
    let thinks = Duration::from_millis(parameter("POSTRIDER_OUTGOING_THINK_MS", 1000));
    let at = Ipv4Addr::new(127, 99, 25, 2);
    let Some(host) = Sink::listen(at, thinks).await else { return };
    let resolver = dns(&[("far.example", at)]).await;
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let users = users(&cluster).await;
    let mut passage = Passage { cluster, host, users, sent: BTreeSet::new() };
    let share = messages / 4;

    passage.set_out(share).await;
    passage.transfer().await;
    passage.arrive().await;
    assert!(passage.host.duplicates().is_empty(), "a planned change of primaries: {:?}", passage.host.duplicates());

    passage.set_out(share).await;
    passage.kill_primary().await;
    passage.arrive().await;
    // Whoever brought them lives, and tells the next primary.
    assert!(passage.host.duplicates().is_empty(), "a primary was killed: {:?}", passage.host.duplicates());

    for how_many in [1, passage.cluster.ready().regions.len()] {
        passage.set_out(share).await;
        passage.kill_frontends(how_many).await;
        passage.arrive().await;
    }
    let (duplicates, cut) = (passage.host.duplicates(), passage.host.cut());
    println!("{} messages, {} of them twice, {} cut", passage.sent.len(), duplicates.len(), cut.len());
    for (id, more) in &duplicates {
        assert!(cut.get(id).is_some_and(|cut| cut >= more), "{id}: {more} copies more than were cut");
    }

    let (failed, _) = passage.cluster.ctl(&["queue", "list", "--failed"]).await;
    assert_eq!(failed, Value::Array(Vec::new()));
    for user in &passage.users {
        assert_eq!(user.get("/v1/outbox").await["messages"], Value::Array(Vec::new()), "{}", user.address);
        assert!(user.inbox().await.is_empty(), "{} was told of nothing", user.address);
    }
    passage.cluster.until_whole().await;
    passage.cluster.assert_consistent().await;
}

/// A live message is on time that is at its host so soon.
const ON_TIME: Duration = Duration::from_secs(5);
/// How many of a hundred must be.
const ON_TIME_PERCENT: usize = 95;
/// For so long live messages are sent.
const LIVE: Duration = Duration::from_secs(30);
/// What a process may grow by, MiB: buffers of its database with it.
const GROWTH_MIB_MAX: u64 = 256;
/// Lines of a screen.
const SCREEN_LINES: usize = 24;

/// Fifty thousand messages for a host that lets everybody connect and then says nothing, as hosts that are ill do, beside messages for one
/// that is well: these keep their rate, an operator sees why in one screen, and the others arrive by themselves when the host is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_holds_up_no_other() {
    let messages = parameter("POSTRIDER_DEAD_MESSAGES", 150);
    let pause = Duration::from_secs(1) / u32::try_from(parameter("POSTRIDER_LIVE_PER_SECOND", 4)).expect("a rate");
    let (live_at, dead_at) = (Ipv4Addr::new(127, 99, 25, 7), Ipv4Addr::new(127, 99, 25, 8));
    let Some(live) = Sink::listen(live_at, Duration::ZERO).await else { return };
    let hung = TcpListener::bind((dead_at, 25)).await.expect("it may listen, as the other may");
    let resolver = dns(&[("live.example", live_at), ("dead.example", dead_at)]).await;
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let users = users(&cluster).await;
    let before: Vec<u64> = cluster.pids().into_iter().map(memory_mib).collect();

    let mut sending = tokio::task::JoinSet::new();
    for (n, user) in users.iter().cloned().enumerate() {
        sending.spawn(async move {
            let to: Vec<String> =
                (n as u64..messages).step_by(ACCOUNTS).map(|n| format!("d{n}@dead.example")).collect();
            for to in &to {
                send(&user, to).await;
            }
            to
        });
    }
    let (mut sent, mut dead, begin) = (Vec::new(), BTreeSet::new(), Instant::now());
    while begin.elapsed() < LIVE || !sending.is_empty() {
        let to = format!("l{}@live.example", sent.len());
        send(&users[sent.len() % ACCOUNTS], &to).await;
        sent.push((to, Instant::now()));
        tokio::time::sleep(pause).await;
        while let Some(done) = sending.try_join_next() {
            dead.extend(done.expect("it sends"));
        }
    }
    until("all live messages are there", || live.count() >= sent.len()).await;
    let taken = live.taken();
    let on_time = sent.iter().filter(|(to, at)| {
        let found = taken.iter().find(|taken| taken.recipients.contains(to));
        found.is_some_and(|taken| taken.at.saturating_duration_since(*at) < ON_TIME)
    });
    let on_time = on_time.count();
    println!("{on_time} of {} live messages were on time beside {messages} dead ones", sent.len());
    assert!(on_time * 100 >= sent.len() * ON_TIME_PERCENT, "{on_time} of {} were on time", sent.len());
    assert!(live.duplicates().is_empty());
    for (pid, before) in cluster.pids().into_iter().zip(before) {
        let now = memory_mib(pid);
        assert!(now < before + GROWTH_MIB_MAX, "process {pid} grew from {before} to {now} MiB");
    }
    let why = cluster.ctl_raw(&["queue", "why"]).await;
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("dead.example") && why.lines().count() <= SCREEN_LINES, "{why}");

    // Whoever is connected learns that nobody is there, and a host that is well begins.
    drop(hung);
    let host = Sink::listen(dead_at, Duration::ZERO).await.expect("it may listen again");
    arrived(&cluster, &host, &dead).await;
    assert!(host.duplicates().is_empty(), "{:?}", host.duplicates());
    cluster.assert_consistent().await;
}

/// What a process has in memory.
fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}
