//! The whole way of a message in a real cluster: in by SMTP, out by REST at every region, pushed, flagged, threaded; still
//! there after a restart; and what `ctl` says about it.

mod harness;

use harness::events::Events;
use harness::rest::Api;
use harness::{Cluster, Options, smtp};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_receives_keeps_and_shows_mail() {
    let mut cluster = Cluster::start(Options { sample: true, ..Options::default() }).await;
    assert_eq!(cluster.ready().domain, "postrider.example");
    let [domain] = &cluster.ready().domains[..] else { panic!("one zone, one domain: {:?}", cluster.ready().domains) };
    assert_eq!((domain.name.as_str(), domain.zone.as_str()), ("postrider.example", "demo"));
    assert!(cluster.ready().regions.iter().all(|region| region.zone == domain.zone));
    samples_are_there(&cluster).await;
    let user = mail_is_read_at_every_region(&cluster).await;
    pushes_and_flags(&cluster, &user).await;
    threads(&cluster, &user).await;
    ctl_speaks_as_promised(&cluster, &user).await;
    restart_keeps_everything(&mut cluster, &user).await;
}

async fn samples_are_there(cluster: &Cluster) {
    let accounts = cluster.ready().accounts.clone();
    assert!(accounts.len() >= 3, "{accounts:?}");
    let ada = accounts.iter().find(|account| account.address.starts_with("ada@")).expect("ada has an account");
    let region = cluster.region("virginia");
    let ada = Api::log_in(region, &ada.address, &ada.password).await;
    let rain = ada.until_subject("Rain gauges, the whole year").await;
    assert_eq!(rain["has_attachments"], true, "{rain}");
    let message = ada.get(&format!("/v1/messages/{}", rain["id"].as_str().expect("an id"))).await;
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["filename"], "rain-gauge.csv", "{message}");
    let path = format!("/v1/messages/{}/attachments/{}", text(&message["id"]), text(&attachment["id"]));
    let file = ada.bytes(&path).await;
    assert!(file.starts_with(b"month,day,hour"), "the attachment is decoded");
    assert_eq!(file.len() as u64, attachment["size"].as_u64().expect("a size"));
}

async fn mail_is_read_at_every_region(cluster: &Cluster) -> Api {
    let user = Api::sign_up(cluster.region("seoul"), "reader@postrider.example").await;
    assert_eq!(user.get("/v1/profile").await["home_region"], "seoul", "the home is where one signs up");
    for (n, region) in cluster.ready().regions.iter().enumerate() {
        let message = smtp::text(&format!("In at {}", region.name), ".A dot first.\r\n\r\nÄnd some UTF-8.");
        let reply = smtp::deliver(&region.smtp, &["reader@postrider.example"], &message).await;
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
        // P-2: what is acknowledged is in the list, the counters and the raw message at every region, at once.
        for other in &cluster.ready().regions {
            let there = user.at(other);
            let inbox = there.inbox().await;
            assert_eq!(inbox.len(), n + 1, "at {}", other.name);
            assert_eq!(inbox[0]["subject"], format!("In at {}", region.name));
            assert_eq!(there.folder("inbox").await["total"], n + 1);
            let raw = there.bytes(&format!("/v1/messages/{}/raw", text(&inbox[0]["id"]))).await;
            assert!(raw.ends_with(&message), "the bytes that were sent, below the trace fields, at {}", other.name);
            assert!(raw.starts_with(b"Return-Path:") || raw.starts_with(b"Received:"), "trace fields on top");
        }
    }
    user
}

async fn pushes_and_flags(cluster: &Cluster, user: &Api) {
    let mut events = Events::open(&user.at(cluster.region("virginia")), None).await;
    let first = events.next().await.expect("a frame");
    let start = first["modseq"].as_u64().expect("the first frame says where the mailbox stands");
    let message = smtp::text("Pushed", "ping");
    smtp::deliver(&cluster.region("frankfurt").smtp, &["reader@postrider.example"], &message).await;
    let (frame, id) = events.next_message().await;
    assert!(frame["modseq"].as_u64().expect("a modseq") > start, "{frame}");
    // Flagged at one region, pushed at another, read at the third.
    let change = json!({ "is_read": true, "is_flagged": true });
    user.at(cluster.region("seoul")).change(Method::PATCH, &format!("/v1/messages/{id}"), change).await;
    let (frame, changed) = events.next_message().await;
    assert_eq!(changed, id, "{frame}");
    let seen = user.at(cluster.region("frankfurt")).get(&format!("/v1/messages/{id}")).await;
    assert_eq!((&seen["is_read"], &seen["is_flagged"]), (&json!(true), &json!(true)), "{seen}");
    // A resumed stream repeats nothing and leaves nothing out.
    let since = frame["modseq"].as_u64().expect("a modseq");
    drop(events);
    smtp::deliver(&cluster.region("seoul").smtp, &["reader@postrider.example"], &smtp::text("While away", "x")).await;
    let mut events = Events::open(&user.at(cluster.region("frankfurt")), Some(since)).await;
    let (frame, arrived) = events.next_message().await;
    assert_ne!(arrived, id, "nothing is repeated: {frame}");
    assert_eq!(user.inbox().await[0]["id"], arrived.as_str(), "and nothing is left out");
}

async fn threads(cluster: &Cluster, user: &Api) {
    let region = cluster.region("seoul");
    let root = smtp::text("Plan", "first");
    let answer = b"From: b@outside.example\r\nTo: reader@postrider.example\r\nSubject: Re: Plan\r\n\
        Message-ID: <answer@outside.example>\r\nIn-Reply-To: <Plan@outside.example>\r\n\
        References: <Plan@outside.example>\r\n\r\nsecond\r\n";
    // The answer comes first, by another region.
    smtp::deliver(&cluster.region("virginia").smtp, &["reader@postrider.example"], answer).await;
    smtp::deliver(&region.smtp, &["reader@postrider.example"], &root).await;
    let inbox = user.inbox().await;
    let find = |subject: &str| inbox.iter().find(|row| row["subject"] == subject).expect("it has arrived");
    assert_eq!(find("Plan")["thread_id"], find("Re: Plan")["thread_id"], "one conversation");
    let thread = user.get(&format!("/v1/threads/{}", text(&find("Plan")["thread_id"]))).await;
    assert_eq!(thread["messages"].as_array().map(Vec::len), Some(2), "{thread}");
}

async fn ctl_speaks_as_promised(cluster: &Cluster, user: &Api) {
    let (found, good) = cluster.ctl(&["user", &user.address]).await;
    assert!(good);
    assert_eq!(keys(&found), ["address", "primary", "replicas", "shard", "user_id", "zone"]);
    assert_eq!(found["user_id"], user.user_id.as_str());
    assert_eq!(found["replicas"].as_array().map(Vec::len), Some(3));
    let (shards, good) = cluster.ctl(&["shards"]).await;
    assert!(good);
    let shards = shards.as_array().expect("a list");
    assert_eq!(shards.len(), 2 + 3, "placement, the directory and three mailbox shards");
    for shard in shards {
        assert_eq!(keys(shard), ["bytes", "epoch", "home_region", "primary", "replicas", "shard", "users", "zone"]);
    }
    let users: u64 =
        shards.iter().filter(|s| s["shard"].as_u64() >= Some(1000)).filter_map(|s| s["users"].as_u64()).sum();
    assert_eq!(users, cluster.ready().accounts.len() as u64 + 1);
    let (verified, clean) = cluster.ctl(&["verify"]).await;
    assert!(clean, "{verified}");
    assert_eq!(keys(&verified), ["checked", "differences"]);
    let shard = found["shard"].to_string();
    let (digest, equal) = cluster.ctl(&["digest", &shard]).await;
    assert!(equal, "{digest}");
    assert_eq!(keys(&digest), ["applied", "digests", "shard"]);
    let (place, found_it) = cluster.ctl(&["where", "<Plan@outside.example>"]).await;
    assert!(found_it, "{place}");
    assert_eq!(place["mailboxes"][0]["user_id"], user.user_id.as_str(), "{place}");
    let region = cluster.region("virginia");
    let reply = smtp::deliver(&region.smtp, &[&user.address], &smtp::text("Where is it", "x")).await;
    let (place, found_it) = cluster.ctl(&["where", reply.rsplit(' ').next().expect("a queue id")]).await;
    assert!(found_it, "{reply}: {place}");
    assert_eq!(place["mailboxes"][0]["user_id"], user.user_id.as_str(), "{place}");
    let (_, found_it) = cluster.ctl(&["where", "<nobody-sent-this@outside.example>"]).await;
    assert!(!found_it, "what is nowhere is not found");
    // Nothing waits, nothing was given up, and what is not there cannot be retried.
    for failed in [&[][..], &["--failed"]] {
        let (waiting, good) = cluster.ctl(&[&["queue", "list"][..], failed].concat()).await;
        assert!(good && waiting.as_array().is_some_and(Vec::is_empty), "{waiting}");
    }
    let refused = cluster.ctl_raw(&["queue", "retry", "1000-999", "--why", "a test"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1000-999 is in no queue"), "{refused:?}");
    // What operators looked at is written down, without an address.
    let (log, good) = cluster.ctl(&["audit"]).await;
    let log = log.as_array().expect("a list");
    let looked = |action: &str| log.iter().filter(|line| line["action"] == action && line["outcome"] == "done").count();
    assert!(good && looked("mail.where") == 3 && looked("queue.list") == 2, "{log:?}");
    assert!(!Value::from(log.clone()).to_string().contains(&user.address));
    // The lead goes to another node and the user's mailbox goes on.
    let primary = found["primary"].as_u64().expect("a primary");
    let others = found["replicas"].as_array().expect("replicas").iter().filter_map(Value::as_u64);
    let other = others.filter(|node| *node != primary).min().expect("another replica").to_string();
    let (transferred, done) = cluster.ctl(&["transfer", &shard, &other]).await;
    assert!(done, "{transferred}");
    let (found, _) = cluster.ctl(&["user", &user.address]).await;
    assert_eq!(found["primary"].to_string(), other, "{found}");
    smtp::deliver(&cluster.region("seoul").smtp, &[&user.address], &smtp::text("After the transfer", "x")).await;
    user.until_subject("After the transfer").await;
    let table = cluster.ctl_raw(&["status"]).await;
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(
        table.contains("region") && table.contains("seoul") && table.contains("All 5 shards have a primary."),
        "{table}"
    );
}

async fn restart_keeps_everything(cluster: &mut Cluster, user: &Api) {
    let before: Vec<Value> = user.inbox().await;
    let took = cluster.interrupt().await;
    assert!(took < std::time::Duration::from_secs(20), "Ctrl-C stops within seconds: {took:?}");
    cluster.start_again().await;
    for region in &cluster.ready().regions {
        assert_eq!(
            user.at(region).inbox().await,
            before,
            "the session and the mail outlive a restart, at {}",
            region.name
        );
    }
    smtp::deliver(&cluster.region("frankfurt").smtp, &[&user.address], &smtp::text("After the restart", "x")).await;
    user.until_subject("After the restart").await;
    // Samples come once.
    let ada = cluster.ready().accounts.iter().find(|account| account.address.starts_with("ada@")).expect("ada").clone();
    let ada = Api::log_in(cluster.region("seoul"), &ada.address, &ada.password).await;
    let welcomes = ada.inbox().await.into_iter().filter(|row| text(&row["subject"]).starts_with("Welcome:")).count();
    assert_eq!(welcomes, 1);
    cluster.assert_consistent().await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text: {value}"))
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
