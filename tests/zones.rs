//! Two residency zones, three regions each, real processes: real mail in and out of both while a leader is killed, a region is cut off,
//! a shard has no primary (P-5), and a frontend dies between the zones of a message. Nothing is missing, nothing has holes, and no
//! byte of one zone's mail is in the other's stores, queues or logs: every file of every process there is searched.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::smtp::{Client, Sent};
use harness::{Cluster, DEADLINE, Options, Region, smtp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Messages of each load between two blows.
const MESSAGES: u64 = 12;
/// Accounts that are made to find one in a certain shard: of four shards, two are at home in the region.
const TRIES_MAX: u32 = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// One zone of a test.
struct Zone {
    name: String,
    domain: String,
    /// In everything of its mail: subjects, texts, files, addresses.
    marker: String,
    users: Vec<Api>,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_zones_lose_nothing_with_a_leader_and_share_nothing() {
    let mut cluster = Cluster::start(Options { zones: 2, shards: 2, ..Options::default() }).await;
    let zones = zones(&cluster).await;
    recipients_of_both_need_two_transactions(&cluster, &zones).await;
    for zone in &zones {
        send_marked(&cluster, zone, &zone.users[0]).await;
    }
    let loads = loads(&cluster, &zones);
    until_accepted(&loads).await;
    let (_, leader) = cluster.primary_of(&zones[0].users[0].address).await;
    cluster.kill(&[cluster.node_pid(leader)]).await;
    until_accepted(&loads).await;
    cluster.revive("node", &leader.to_string()).await;
    until_accepted(&loads).await;
    finish(&cluster, &zones, loads).await;
    nothing_is_in_another_zone(&mut cluster, &zones).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_zones_lose_nothing_with_a_region_that_is_cut_off() {
    let mut cluster = Cluster::start(Options { zones: 2, shards: 2, ..Options::default() }).await;
    let zones = zones(&cluster).await;
    let loads = loads(&cluster, &zones);
    until_accepted(&loads).await;
    // Its nodes and its store answer nobody and know nothing of it; clients see at once that its frontend is gone.
    let lost = cluster.regions_of(&zones[1].name)[1].clone();
    let silent: Vec<u32> = lost.nodes.iter().map(|node| node.pid).chain([lost.store_pid]).collect();
    cluster.kill(&[lost.frontend_pid]).await;
    silent.iter().for_each(|pid| cluster.freeze(*pid));
    until_accepted(&loads).await;
    silent.iter().for_each(|pid| cluster.thaw(*pid));
    cluster.revive("frontend", &lost.name).await;
    until_accepted(&loads).await;
    for zone in &zones {
        send_marked(&cluster, zone, &zone.users[0]).await;
    }
    finish(&cluster, &zones, loads).await;
    nothing_is_in_another_zone(&mut cluster, &zones).await;
}

/// The other shards of its zone take its mail meanwhile, attachments too.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_a_primary_is_stood_in_for_in_its_own_zone() {
    let mut cluster = Cluster::start(Options { zones: 2, shards: 4, nodes_per_region: 2, ..Options::default() }).await;
    let domain = cluster.ready().domains[1].clone();
    let marker = format!("only-in-{}-{}", domain.zone, std::process::id());
    let user = somebody_apart(&cluster, &domain, &marker).await;
    let zone = Zone { name: domain.zone, domain: domain.name, marker, users: vec![user] };
    let user = &zone.users[0];
    let regions: Vec<Region> = cluster.regions_of(&zone.name).into_iter().cloned().collect();
    let plan = Plan { attachment_every: 2, ..Plan::everywhere(&cluster, &zone.users, &zone.marker) };
    let load = Load::start(plan);
    load.until_accepted(MESSAGES).await;
    // Two of the three nodes of its shard; neither the directory nor another shard has a replica there.
    let gone: Vec<u64> = regions[1..].iter().map(|region| region.nodes[1].id).collect();
    let pids: Vec<u32> = gone.iter().map(|node| cluster.node_pid(*node)).collect();
    cluster.kill(&pids).await;
    // Those that were begun before may have been for the shard that was there.
    load.until_accepted(2 * MESSAGES).await;
    send_marked(&cluster, &zone, user).await;
    for node in gone {
        cluster.revive("node", &node.to_string()).await;
    }
    load.until_accepted(MESSAGES).await;
    finish(&cluster, std::slice::from_ref(&zone), vec![load]).await;
    nothing_is_in_another_zone(&mut cluster, std::slice::from_ref(&zone)).await;
}

/// REST splits by itself: one message from a zone to both arrives in both, once, with its file; also when the frontend that splits it
/// dies between the two, and whoever sent it asks again under its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_both_zones_outlives_the_frontend_that_splits_it() {
    let mut cluster = Cluster::start(Options { zones: 2, shards: 1, ..Options::default() }).await;
    let zones = zones(&cluster).await;
    let people: Vec<Api> = zones.iter().flat_map(|zone| zone.users.clone()).collect();
    for (round, sender) in people.iter().enumerate().step_by(2) {
        let letter = Letter::new(&people, &format!("across {round}"));
        for _ in 0..2 {
            // Asked twice under one key it is one message.
            assert_eq!(letter.send(sender).await.expect("an answer"), StatusCode::ACCEPTED);
        }
        letter.has_arrived(&people).await;
    }
    // Whom nobody knows in the other zone.
    let unknown = json!({ "to": [format!("nobody@{}", zones[1].domain)], "subject": "x" });
    let answer = people[0].ask(Method::POST, "/v1/messages", Some(unknown)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let (own, other): (Vec<Region>, Vec<Region>) =
        cluster.ready().regions.iter().cloned().partition(|region| region.zone == zones[0].name);
    let letter = Letter::new(&people, "cut in two");
    // The other zone's shard has the plan's message pinned, and waits for a second store.
    let stores: Vec<u32> = other[1..].iter().map(|region| region.store_pid).collect();
    let alive = cluster.data_dir().join(format!("store-{}", other[0].name)).join("objects");
    let before = harness::count_files(&alive, "obj");
    stores.iter().for_each(|pid| cluster.freeze(*pid));
    let sender = people[0].at(&own[0]);
    let sending = tokio::spawn({
        let (letter, sender) = (letter.clone(), sender.clone());
        async move { letter.send(&sender).await }
    });
    harness::until("the first store has the file", || harness::count_files(&alive, "obj") > before).await;
    // From here on the sender's own shard can do nothing: the other zone gets the message, and the frontend cannot end the send.
    let nodes: Vec<u32> = own[1..].iter().map(|region| region.nodes[0].pid).collect();
    nodes.iter().for_each(|pid| cluster.freeze(*pid));
    stores.iter().for_each(|pid| cluster.thaw(*pid));
    let abroad = people.last().expect("somebody").at(&other[0]);
    abroad.until_subject(&letter.subject).await;
    cluster.kill(&[own[0].frontend_pid]).await;
    nodes.iter().for_each(|pid| cluster.thaw(*pid));
    let answered = sending.await.expect("the client ends well");
    assert!(answered.is_err(), "the frontend died before it had an answer: {answered:?}");

    let sender = people[0].at(&own[1]);
    let begin = Instant::now();
    loop {
        match letter.send(&sender).await {
            Ok(StatusCode::ACCEPTED) => break,
            Ok(StatusCode::SERVICE_UNAVAILABLE) if begin.elapsed() < DEADLINE => tokio::time::sleep(PAUSE).await,
            said => panic!("asked again under its key: {said:?}"),
        }
    }
    cluster.revive("frontend", &own[0].name).await;
    letter.has_arrived(&people).await;
    let sent = sender.folder("sent").await;
    let path = format!("/v1/folders/{}/messages?limit=200", text(&sent["id"]));
    let page = sender.get(&path).await;
    let copies = page["messages"].as_array().expect("a list").iter().filter(|row| row["subject"] == *letter.subject);
    assert_eq!(copies.count(), 1, "it is in Sent once: {page}");
    cluster.until_whole().await;
    a_silent_store_holds_up_its_own_zone(&cluster, &zones[0].name, &other[0]).await;
    cluster.assert_consistent().await;
}

/// What is sent for later waits where its sender is, and crosses with its file when it is due; also where whoever carries it dies meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_later_crosses_when_it_is_due() {
    let mut cluster = Cluster::start(Options { zones: 2, shards: 1, ..Options::default() }).await;
    let zones = zones(&cluster).await;
    let people: Vec<Api> = zones.iter().flat_map(|zone| zone.users.clone()).collect();
    let letter = Letter { undo_s: 3, ..Letter::new(&people, "for later") };
    let abroad = people.last().expect("somebody").clone();
    assert_eq!(letter.send(&people[0]).await.expect("an answer"), StatusCode::ACCEPTED);
    let waiting = people[0].get("/v1/outbox").await;
    let recipients = waiting["messages"][0]["recipients"].as_array().expect("a list").clone();
    assert_eq!(recipients.len(), people.len(), "{waiting}");
    assert!(recipients.iter().all(|one| one["state"] == "scheduled"), "{waiting}");
    letter.has_arrived(&people).await;
    // The other zone answers nobody while it is due.
    let late = Letter { undo_s: 1, ..Letter::new(&people, "late") };
    let there: Vec<u32> =
        cluster.regions_of(&zones[1].name).into_iter().flat_map(|region| &region.nodes).map(|node| node.pid).collect();
    assert_eq!(late.send(&people[0]).await.expect("an answer"), StatusCode::ACCEPTED);
    there.iter().for_each(|pid| cluster.freeze(*pid));
    let begin = Instant::now();
    loop {
        let waiting = people[0].get("/v1/outbox").await;
        let why = waiting["messages"][0]["recipients"].to_string();
        // Those of his own zone have it, and of the others it is told why not.
        if why.contains("does not answer") || why.contains("shard") {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "{waiting}");
        tokio::time::sleep(PAUSE).await;
    }
    let frontends: Vec<(u32, String)> =
        cluster.ready().regions.iter().map(|region| (region.frontend_pid, region.name.clone())).collect();
    cluster.kill(&frontends.iter().map(|(pid, _)| *pid).collect::<Vec<_>>()).await;
    there.iter().for_each(|pid| cluster.thaw(*pid));
    for (_, region) in frontends {
        cluster.revive("frontend", &region).await;
    }
    // An operator who does not want to wait for the next attempt.
    let (waiting, _) = cluster.ctl(&["queue", "list"]).await;
    for entry in waiting.as_array().expect("a list").iter().filter_map(|line| line["entry"].as_str()) {
        // It may have gone meanwhile.
        let _ = cluster.ctl_raw(&["queue", "retry", entry, "--why", "a test"]).await;
    }
    late.has_arrived(&people).await;
    assert!(abroad.inbox().await.len() == 2);
    cluster.until_whole().await;
    cluster.assert_consistent().await;
}

/// A store that does not answer keeps the sweep of its zone waiting, and not that of another zone.
async fn a_silent_store_holds_up_its_own_zone(cluster: &Cluster, zone: &str, elsewhere: &Region) {
    cluster.freeze(elsewhere.store_pid);
    let mut held = cluster.ctl_command(&["blobs", "check", "--zone", &elsewhere.zone]);
    let mut held = held.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("run postrider");
    let begin = Instant::now();
    loop {
        let (status, _) = cluster.ctl(&["blobs", "status"]).await;
        let lines = status.as_array().expect("a list");
        if lines.iter().any(|line| line["zone"] == *elsewhere.zone && line["phase"] != "ended") {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "the zone's sweep begins: {status}");
        tokio::time::sleep(PAUSE).await;
    }
    for _ in 0..2 {
        let (swept, whole) = cluster.ctl(&["blobs", "check", "--zone", zone]).await;
        assert!(whole, "{swept}");
    }
    assert!(held.try_wait().expect("a child").is_none(), "the other zone's sweep has waited for its store");
    cluster.thaw(elsewhere.store_pid);
    held.wait().await.expect("a child");
}

/// A message with a file to several people.
#[derive(Clone)]
struct Letter {
    subject: String,
    to: Vec<String>,
    file: Vec<u8>,
    undo_s: u32,
}

impl Letter {
    fn new(to: &[Api], subject: &str) -> Self {
        let salt = subject.bytes().fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let file = (0..200_000_u32).map(|n| (n % 249) as u8 ^ salt).collect();
        Self {
            subject: subject.to_owned(),
            to: to.iter().map(|person| person.address.clone()).collect(),
            file,
            undo_s: 0,
        }
    }

    /// Under a key of its own.
    async fn send(&self, sender: &Api) -> reqwest::Result<StatusCode> {
        let body = json!({
            "to": self.to, "subject": self.subject, "body": "to both", "undo_s": self.undo_s,
            "attachments": [{"filename": "x.bin", "data": BASE64.encode(&self.file)}],
        });
        let request = sender.http.post(format!("{}/v1/messages", sender.base)).bearer_auth(&sender.token);
        Ok(request.header("Idempotency-Key", format!("key of {}", self.subject)).json(&body).send().await?.status())
    }

    /// In every inbox once, with its file.
    async fn has_arrived(&self, people: &[Api]) {
        for person in people {
            let row = person.until_subject(&self.subject).await;
            let path = format!("/v1/messages/{}", text(&row["id"]));
            let message = person.get(&path).await;
            let attachment = text(&message["attachments"][0]["id"]);
            let file = person.bytes(&format!("{path}/attachments/{attachment}")).await;
            assert!(file == self.file, "{}: the file is as it was sent", person.address);
            let copies = person.inbox().await.iter().filter(|row| row["subject"] == *self.subject).count();
            assert_eq!(copies, 1, "{} for {}", self.subject, person.address);
        }
    }
}

/// Two people in each zone.
async fn zones(cluster: &Cluster) -> Vec<Zone> {
    let mut zones = Vec::new();
    for domain in &cluster.ready().domains {
        let marker = format!("only-in-{}-{}", domain.zone, std::process::id());
        let regions = cluster.regions_of(&domain.zone);
        let elsewhere = cluster.ready().regions.iter().find(|region| region.zone != domain.zone).expect("another zone");
        let mut users = Vec::new();
        // Where somebody signs up says nothing of his zone: his domain does.
        for (n, region) in [elsewhere, regions[1]].into_iter().enumerate() {
            users.push(Api::sign_up(region, &format!("{marker}-{n}@{}", domain.name)).await);
        }
        for user in &users {
            let (found, _) = cluster.ctl(&["user", &user.address]).await;
            assert_eq!(found["zone"], domain.zone.as_str(), "{found}");
        }
        zones.push(Zone { name: domain.zone.clone(), domain: domain.name.clone(), marker, users });
    }
    zones
}

/// Somebody in the shard that lies on the second node of each region, where neither the directory nor placement is.
async fn somebody_apart(cluster: &Cluster, domain: &harness::Domain, marker: &str) -> Api {
    let regions = cluster.regions_of(&domain.zone);
    let mut apart: Vec<u64> = regions.iter().map(|region| region.nodes[1].id).collect();
    apart.sort_unstable();
    for n in 0..TRIES_MAX {
        let user = Api::sign_up(regions[0], &format!("{marker}-apart-{n}@{}", domain.name)).await;
        if cluster.replicas(cluster.shard_of(&user.address).await).await == apart {
            return user;
        }
    }
    panic!("nobody is in a shard on the second nodes");
}

/// Each goes in at every region, those of the other zone too.
fn loads(cluster: &Cluster, zones: &[Zone]) -> Vec<Load> {
    let load = |zone: &Zone| {
        let plan = Plan::everywhere(cluster, &zone.users, &zone.marker);
        Load::start(Plan { connections: 3, everyone_every: 11, attachment_every: 4, ..plan })
    };
    zones.iter().map(load).collect()
}

async fn until_accepted(loads: &[Load]) {
    for load in loads {
        load.until_accepted(MESSAGES).await;
    }
}

/// Nothing is missing, nothing has holes.
async fn finish(cluster: &Cluster, zones: &[Zone], loads: Vec<Load>) {
    let mut books = Vec::new();
    for load in loads {
        books.push(load.finish().await);
    }
    cluster.until_whole().await;
    for (zone, books) in zones.iter().zip(books) {
        println!("zone {}: {} acknowledged of {}", zone.name, books.accepted(), books.attempts.len());
        books.check(&zone.users).await;
    }
    cluster.assert_consistent().await;
}

async fn recipients_of_both_need_two_transactions(cluster: &Cluster, zones: &[Zone]) {
    let (first, second) = (&zones[0].users[1].address, &zones[1].users[1].address);
    for region in &cluster.ready().regions {
        let mut client = Client::connect(&region.smtp).await.expect("connect");
        for (recipients, refused) in [([first, second], second), ([second, first], first)] {
            let recipients = recipients.map(String::as_str);
            match client.send(&recipients, &smtp::text("both", "x")).await {
                Sent::Refused { code: 452, text, after_data: false } if text.contains("4.5.3") => {}
                other => panic!("{refused} comes in a transaction of its own: {other:?}"),
            }
        }
    }
}

/// A message whose text and file are the marker, accepted at a region of each zone. Sent again when it is put off, as clients do: a
/// shard whose nodes have just died may not tell what became of it (4.4.7).
async fn send_marked(cluster: &Cluster, zone: &Zone, user: &Api) {
    let elsewhere = cluster.ready().regions.iter().find(|region| region.zone != zone.name);
    for region in [cluster.regions_of(&zone.name)[0]].into_iter().chain(elsewhere) {
        let begin = Instant::now();
        for attempt in 0.. {
            let message = marked(&zone.marker, &format!("{} at {} {attempt}", zone.marker, region.name));
            let mut client = Client::connect(&region.smtp).await.expect("connect");
            match client.send(&[&user.address], &message).await {
                Sent::Accepted(_) => break,
                Sent::Refused { code, .. } if code < 500 && begin.elapsed() < DEADLINE => {}
                other => panic!("marked mail for {} at {}: {other:?}", user.address, region.name),
            }
        }
    }
}

fn marked(marker: &str, subject: &str) -> Vec<u8> {
    // Text that a search finds as it lies in a store, and different for each subject.
    let file = format!("{subject} {marker}\n").repeat(4000);
    let lines: String = file.as_bytes().chunks(57).map(|chunk| BASE64.encode(chunk) + "\r\n").collect();
    format!(
        "From: {marker} <{marker}@outside.example>\r\nTo: {marker}\r\nSubject: {subject}\r\n\
         Message-ID: <{}@outside.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=edge\r\n\r\n\
         --edge\r\n\r\n{marker}\r\n--edge\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{marker}.txt\"\r\n\r\n{lines}--edge--\r\n",
        subject.replace(' ', "-")
    )
    .into_bytes()
}

/// Stops everything, so that all that is in memory is on disk or gone, and searches the files of each process.
async fn nothing_is_in_another_zone(cluster: &mut Cluster, zones: &[Zone]) {
    let regions: Vec<Region> = cluster.ready().regions.clone();
    let data = cluster.data_dir();
    cluster.interrupt().await;
    for zone in zones {
        let (own, others): (Vec<&Region>, Vec<&Region>) = regions.iter().partition(|region| region.zone == zone.name);
        let found = |regions: &[&Region]| harness::files_with(&zone.marker, &directories(&data, regions));
        let (at_home, elsewhere) = (found(&own), found(&others));
        assert!(elsewhere.is_empty(), "mail of zone {} is in {elsewhere:?}", zone.name);
        // The search finds what is there: rows or log of a node, and a file in a store.
        for kind in ["node-", "store-"] {
            let prefix = format!("{}/{kind}", data.display());
            let is_of_kind = |path: &PathBuf| path.to_string_lossy().starts_with(&prefix);
            assert!(at_home.iter().any(is_of_kind), "{} is in no {kind} of its own zone", zone.marker);
        }
        // A store has objects of its own zone and no other; their names begin with it.
        for region in &others {
            let objects = data.join(format!("store-{}", region.name));
            let named = paths_with(&format!("/{}/", zone.name), &objects);
            assert!(named.is_empty(), "objects of zone {} in {}: {named:?}", zone.name, region.name);
        }
        println!("zone {} ({}): the marker is in {} files, all its own", zone.name, zone.domain, at_home.len());
    }
}

fn directories(data: &Path, regions: &[&Region]) -> Vec<PathBuf> {
    let names = |region: &&Region| {
        let nodes = region.nodes.iter().map(|node| format!("node-{}", node.id));
        nodes.chain([format!("store-{}", region.name), format!("frontend-{}", region.name)]).collect::<Vec<_>>()
    };
    let paths: Vec<PathBuf> = regions.iter().flat_map(names).map(|name| data.join(name)).collect();
    assert!(paths.iter().all(|path| path.is_dir()), "a process has no directory: {paths:?}");
    paths
}

fn paths_with(text: &str, directory: &Path) -> Vec<String> {
    let output = Command::new("find").arg(directory).arg("-type").arg("f").output().expect("run find");
    String::from_utf8_lossy(&output.stdout).lines().filter(|path| path.contains(text)).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
