//! Two residency zones, three regions each, real processes: real mail in and out of both under load, `kill -9` of a leader, the loss of
//! a region, mail with attachments for a shard without a primary (P-5). Nothing is missing, nothing has holes, and no byte of one
//! zone's mail is in the other's stores, queues or logs: every file of every process there is searched.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::smtp::{Client, Sent};
use harness::{Cluster, Options, Region, smtp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Messages of each load between two blows.
const MESSAGES: u64 = 30;
/// Accounts that are made to find one in a certain shard: of four shards, two are at home in the region.
const TRIES_MAX: u32 = 40;

/// One zone of the test.
struct Zone {
    name: String,
    domain: String,
    /// In everything of its mail: subjects, texts, files, addresses.
    marker: String,
    users: Vec<Api>,
    /// A user in a shard that lies on the second node of each region, where neither the directory nor placement is.
    apart: Api,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_zones_lose_nothing_and_share_nothing() {
    let options = Options { zones: 2, shards: 4, nodes_per_region: 2, ..Options::default() };
    let mut cluster = Cluster::start(options).await;
    let mut zones = Vec::new();
    for domain in cluster.ready().domains.clone() {
        zones.push(zone(&cluster, &domain).await);
    }
    recipients_of_both_need_two_transactions(&cluster, &zones).await;
    for zone in &zones {
        send_marked(&cluster, zone, "before").await;
    }

    let loads: Vec<Load> = zones.iter().map(|zone| load(&cluster, zone)).collect();
    until_accepted(&loads).await;
    // The leader of somebody in the first zone.
    let (_, leader) = cluster.primary_of(&zones[0].users[0].address).await;
    cluster.kill(&[cluster.node_pid(leader)]).await;
    until_accepted(&loads).await;
    cluster.revive("node", &leader.to_string()).await;
    // A whole region of the second zone.
    let lost = cluster.regions_of(&zones[1].name)[1].clone();
    cluster.kill(&everything_of(&lost)).await;
    until_accepted(&loads).await;
    revive(&mut cluster, &lost).await;
    cluster.until_whole().await;

    // A shard of each zone in turn has no primary: the zone's other shards take its mail, attachments too.
    let mut apart = Vec::new();
    for zone in &zones {
        apart.push(without_a_primary(&mut cluster, zone).await);
    }
    until_accepted(&loads).await;
    let people = across(&cluster).await;
    for load in loads {
        let books = load.finish().await;
        println!("{} acknowledged of {}", books.accepted(), books.attempts.len());
        for zone in &zones {
            books.check(&zone.users).await;
        }
    }
    for (zone, books) in zones.iter().zip(apart) {
        books.check(std::slice::from_ref(&zone.apart)).await;
    }
    drop(people);
    cluster.assert_consistent().await;
    nothing_is_in_another_zone(&mut cluster, &zones).await;
}

async fn zone(cluster: &Cluster, domain: &harness::Domain) -> Zone {
    let marker = format!("only-in-{}-{}", domain.zone, std::process::id());
    let regions = cluster.regions_of(&domain.zone);
    let elsewhere = cluster.ready().regions.iter().find(|region| region.zone != domain.zone).expect("another zone");
    let mut users = Vec::new();
    for (n, region) in regions.iter().enumerate() {
        // Where somebody signs up says nothing of his zone: his domain does.
        let at = if n == 0 { elsewhere } else { *region };
        users.push(Api::sign_up(at, &format!("{marker}-{n}@{}", domain.name)).await);
    }
    for user in &users {
        let (found, _) = cluster.ctl(&["user", &user.address]).await;
        assert_eq!(found["zone"], domain.zone.as_str(), "{found}");
    }
    let (shards, _) = cluster.ctl(&["shards"]).await;
    let apart_nodes: Vec<u64> = regions.iter().map(|region| region.nodes[1].id).collect();
    let mut apart = None;
    for n in 0..TRIES_MAX {
        let user = Api::sign_up(regions[0], &format!("{marker}-apart-{n}@{}", domain.name)).await;
        let (shard, _) = cluster.primary_of(&user.address).await;
        if replicas(&shards, shard).iter().all(|node| apart_nodes.contains(node)) {
            apart = Some(user);
            break;
        }
    }
    let apart = apart.expect("somebody is in a shard on the second nodes");
    Zone { name: domain.zone.clone(), domain: domain.name.clone(), marker, users, apart }
}

fn replicas(shards: &Value, shard: u64) -> Vec<u64> {
    let found = shards.as_array().expect("a list").iter().find(|line| line["shard"] == shard).expect("the shard");
    found["replicas"].as_array().expect("replicas").iter().filter_map(Value::as_u64).collect()
}

/// Goes in at every region, those of the other zone too.
fn load(cluster: &Cluster, zone: &Zone) -> Load {
    Load::start(Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: zone.users.iter().map(|user| user.address.clone()).collect(),
        connections: 4,
        everyone_every: 11,
        attachment_every: 4,
        name: zone.marker.clone(),
    })
}

async fn until_accepted(loads: &[Load]) {
    for load in loads {
        load.until_accepted(MESSAGES).await;
    }
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

/// A message whose text and file are the marker, accepted at a region of each zone.
async fn send_marked(cluster: &Cluster, zone: &Zone, when: &str) {
    let mut regions = vec![cluster.regions_of(&zone.name)[0]];
    regions.extend(cluster.ready().regions.iter().find(|region| region.zone != zone.name));
    for region in regions {
        let message = marked(&zone.marker, &format!("{} {when} at {}", zone.marker, region.name));
        for user in [&zone.users[0], &zone.apart] {
            smtp::deliver(&region.smtp, &[&user.address], &message).await;
        }
    }
}

fn marked(marker: &str, subject: &str) -> Vec<u8> {
    // Text that a search finds as it lies in a store, and different for each subject.
    let file = format!("{subject} {marker}\n").repeat(8000);
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

fn everything_of(region: &Region) -> Vec<u32> {
    region.nodes.iter().map(|node| node.pid).chain([region.frontend_pid, region.store_pid]).collect()
}

async fn revive(cluster: &mut Cluster, region: &Region) {
    cluster.revive("store", &region.name).await;
    for node in &region.nodes {
        cluster.revive("node", &node.id.to_string()).await;
    }
    cluster.revive("frontend", &region.name).await;
}

/// Two of the three nodes of the apart user's shard are gone: what is acknowledged for him meanwhile waits in his zone.
async fn without_a_primary(cluster: &mut Cluster, zone: &Zone) -> harness::load::Books {
    let regions: Vec<Region> = cluster.regions_of(&zone.name).into_iter().cloned().collect();
    let gone: Vec<u64> = regions[1..].iter().map(|region| region.nodes[1].id).collect();
    let pids: Vec<u32> = gone.iter().map(|node| cluster.node_pid(*node)).collect();
    cluster.kill(&pids).await;
    let load = Load::start(Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: vec![zone.apart.address.clone()],
        connections: 4,
        everyone_every: 0,
        attachment_every: 2,
        name: format!("{} apart", zone.marker),
    });
    load.until_accepted(MESSAGES).await;
    send_marked_to_apart(cluster, zone).await;
    for node in gone {
        cluster.revive("node", &node.to_string()).await;
    }
    load.until_accepted(MESSAGES).await;
    let books = load.finish().await;
    cluster.until_whole().await;
    books
}

/// Sent again when it is put off, as clients do: a shard whose nodes have just died may not tell what became of it (4.4.7).
async fn send_marked_to_apart(cluster: &Cluster, zone: &Zone) {
    let server = &cluster.regions_of(&zone.name)[0].smtp;
    for attempt in 0..TRIES_MAX {
        let message = marked(&zone.marker, &format!("{} without a primary {attempt}", zone.marker));
        let mut client = Client::connect(server).await.expect("connect");
        match client.send(&[&zone.apart.address], &message).await {
            Sent::Accepted(_) => return,
            Sent::Refused { code, .. } if code < 500 => {}
            other => panic!("mail for a shard without a primary: {other:?}"),
        }
    }
    panic!("no shard of zone {} takes what one without a primary cannot", zone.name);
}

/// REST splits by itself: one message from a zone to both arrives in both, once, with its file.
async fn across(cluster: &Cluster) -> Vec<Api> {
    let mut people = Vec::new();
    for domain in &cluster.ready().domains {
        for n in 0..2 {
            let regions = cluster.regions_of(&domain.zone);
            people.push(Api::sign_up(regions[n], &format!("across{n}@{}", domain.name)).await);
        }
    }
    let file: Vec<u8> = (0..200_000_u32).map(|n| (n % 249) as u8).collect();
    for (round, sender) in people.iter().enumerate() {
        let subject = format!("across {round}");
        let to: Vec<&str> = people.iter().map(|person| person.address.as_str()).collect();
        let body = json!({
            "to": to, "subject": subject, "body": "to both",
            "attachments": [{"filename": "x.bin", "data": BASE64.encode(&file)}],
        });
        let key = format!("key-{round}");
        for _ in 0..2 {
            // Asked twice under one key it is one message.
            let request = sender.http.post(format!("{}/v1/messages", sender.base)).bearer_auth(&sender.token);
            let answer = request.header("Idempotency-Key", &key).json(&body).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::ACCEPTED, "{:?}", answer.text().await);
        }
        for person in &people {
            let row = person.until_subject(&subject).await;
            let path = format!("/v1/messages/{}", row["id"].as_str().expect("an id"));
            let message = person.get(&path).await;
            let attachment = message["attachments"][0]["id"].as_str().expect("an attachment").to_owned();
            assert!(person.bytes(&format!("{path}/attachments/{attachment}")).await == file, "{}", person.address);
            let copies = person.inbox().await.iter().filter(|row| row["subject"] == subject.as_str()).count();
            assert_eq!(copies, 1, "{subject} for {}", person.address);
        }
    }
    // Nobody of a domain that is none of ours, at any frontend.
    let outside = json!({ "to": ["x@elsewhere.example"], "subject": "x" });
    let answer = people[0].ask(Method::POST, "/v1/messages", Some(outside)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    people
}

/// Stops everything, so that all that is in memory is on disk or gone, and searches the files of each process.
async fn nothing_is_in_another_zone(cluster: &mut Cluster, zones: &[Zone]) {
    let regions: Vec<Region> = cluster.ready().regions.clone();
    let data = cluster.data_dir();
    cluster.interrupt().await;
    for zone in zones {
        let (own, others): (Vec<&Region>, Vec<&Region>) = regions.iter().partition(|region| region.zone == zone.name);
        let found = |regions: &[&Region]| files_with(&zone.marker, &directories(&data, regions));
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

/// Files under `directories` that hold `text`, whatever they are.
fn files_with(text: &str, directories: &[PathBuf]) -> Vec<PathBuf> {
    let output = Command::new("grep").args(["-rlaF", "-e", text]).args(directories).output().expect("run grep");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

fn paths_with(text: &str, directory: &Path) -> Vec<String> {
    let output = Command::new("find").arg(directory).arg("-type").arg("f").output().expect("run find");
    String::from_utf8_lossy(&output.stdout).lines().filter(|path| path.contains(text)).map(str::to_owned).collect()
}
