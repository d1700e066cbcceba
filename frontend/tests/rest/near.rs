//! Messages whose content is near, and limits that frontends share: right whatever becomes of the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postrider_api::limit::BLOB_BYTES_MIN;
use postrider_frontend::Frontend;
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::cache::{CacheSettings, RedisSettings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::SECOND_DOMAIN;
use crate::redis_server::RedisServer;
use crate::world::{Front, PASSWORD, Person, World, client_of, eventually, frontend_behind};

/// More than a shard's answer without content ever is, bytes.
const SMALL_ANSWER_BYTES: usize = 1024;

fn settings(server: &RedisServer) -> CacheSettings {
    CacheSettings { redis: Some(RedisSettings::single(server.address())), ..CacheSettings::default() }
}

/// Another frontend of the same region over the same cluster.
async fn second_frontend(world: &World, cache: CacheSettings) -> (Frontend, Client) {
    let front = Front { cache, ..Front::default() };
    let frontend = frontend_behind(front, &world.cluster, &world.blobs, "seoul", SignUpPolicy::Open).await;
    let client = client_of(&frontend).await;
    (frontend, client)
}

/// A message whose text is cut out into a blob, and a small file.
fn large(subject: &str) -> String {
    of_size(subject, 2 * BLOB_BYTES_MIN)
}

/// A message of so much text, which does not compress well, and a small file.
fn of_size(subject: &str, bytes: usize) -> String {
    let mut text = String::new();
    let mut state = 1_u64;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:016x} {subject}\r\n", state ^ state >> 29));
    }
    let file = "c21hbGwgZmlsZQ==";
    format!(
        "From: a@elsewhere.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n{text}\r\n--b\r\n\
         Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=small\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{file}\r\n--b--\r\n"
    )
}

/// Reads until nothing but a small row comes from the shard, and gives that answer's bytes.
async fn read_near(world: &World, client: &Client, path: &str) -> bytes::Bytes {
    let mut answer = bytes::Bytes::new();
    eventually("only a small row comes from the shard", async || {
        let before = (world.cluster.queries(), world.cluster.answered_bytes());
        let read = client.get(path).await;
        assert!(read.status.is_success(), "{path}: {}", read.status);
        answer = read.bytes.clone();
        let queries = world.cluster.queries() - before.0;
        // One question for the message; the directory is asked where the user is.
        queries <= 2 && world.cluster.answered_bytes() - before.1 < SMALL_ANSWER_BYTES
    })
    .await;
    answer
}

async fn reads_again(cache: CacheSettings) -> World {
    let is_shared = cache.redis.is_some();
    let world = World::near(cache).await;
    let ada = world.person().await;
    let raw = of_size("large", 1_000_000);
    let id = world.deliver(&ada, raw.clone()).await;
    let path = format!("/v1/messages/{id}");
    let first = ada.client.get(&path).await;
    assert!(first.bytes.len() > 1_000_000);
    assert_eq!(read_near(&world, &ada.client, &path).await, first.bytes);
    // What changes is as new as ever.
    ada.client.patch(&path, &json!({"is_read": true, "is_flagged": true})).await.ok();
    let changed: Value = serde_json::from_slice(&read_near(&world, &ada.client, &path).await).unwrap();
    let mut expected = first.json();
    assert_eq!((changed["is_read"].clone(), changed["is_flagged"].clone()), (json!(true), json!(true)));
    for field in ["is_read", "is_flagged", "keywords", "modseq"] {
        expected[field] = changed[field].clone();
    }
    assert_eq!(changed, expected);
    // The bytes as they arrived, and the file.
    assert_eq!(ada.client.get(&format!("{path}/raw")).await.bytes, raw);
    assert_eq!(read_near(&world, &ada.client, &format!("{path}/raw")).await, raw);
    let file = format!("{path}/attachments/{}", changed["attachments"][0]["id"].as_str().unwrap());
    assert_eq!(read_near(&world, &ada.client, &file).await, "small file");
    if !is_shared {
        // No store is asked, either. A Redis may be late, and then one is.
        world.stores.iter().for_each(|store| store.wipe());
        let again = read_near(&world, &ada.client, &path).await;
        assert_eq!(serde_json::from_slice::<Value>(&again).unwrap(), changed);
    }
    // min_modseq is the shard's to judge.
    let modseq = changed["modseq"].as_u64().unwrap();
    let newer = ada.client.get(&format!("{path}?min_modseq={}", modseq + 1_000)).await;
    assert_eq!(newer.problem(), "behind");
    world
}

#[tokio::test]
async fn a_message_read_again_costs_a_small_row() {
    reads_again(CacheSettings::default()).await;
}

#[tokio::test]
async fn a_message_read_again_costs_a_small_row_with_redis() {
    let server = RedisServer::start();
    let world = reads_again(settings(&server)).await;
    // Another frontend of the region has it from the first reader.
    let (_frontend, client) = second_frontend(&world, settings(&server)).await;
    let ada = world.log_in("person0@postrider.example").await;
    let there = client.with_token(ada.token());
    let inbox = there.get("/v1/folders").await.ok();
    let inbox = inbox.as_array().unwrap().iter().find(|folder| folder["role"] == "inbox").unwrap()["id"].clone();
    let page = there.get(&format!("/v1/folders/{}/messages", inbox.as_str().unwrap())).await.ok();
    let path = format!("/v1/messages/{}", page["messages"][0]["id"].as_str().unwrap());
    let before = world.cluster.answered_bytes();
    let read = there.get(&path).await;
    assert!(read.status.is_success() && read.bytes.len() > 1_000_000);
    eventually("a frontend that never read it reads it near", async || {
        let before = world.cluster.answered_bytes();
        there.get(&path).await.ok();
        world.cluster.answered_bytes() - before < SMALL_ANSWER_BYTES
    })
    .await;
    assert!(world.cluster.answered_bytes() > before);
}

/// What is gone is gone, however warm the cache is, at every frontend.
async fn gone(cache: CacheSettings) {
    let world = World::near(cache.clone()).await;
    let ada = world.person().await;
    let (_frontend, client) = second_frontend(&world, cache).await;
    let there = client.with_token(ada.client.token());
    let (deleted, kept) = (world.deliver(&ada, large("deleted")).await, world.deliver(&ada, large("kept")).await);
    let paths = |id: &postrider_api::id::EmailId| {
        [format!("/v1/messages/{id}"), format!("/v1/messages/{id}/raw"), format!("/v1/messages/{id}/attachments/2")]
    };
    for path in paths(&deleted).iter().chain(&paths(&kept)) {
        for client in [&ada.client, &there] {
            read_near(&world, client, path).await;
        }
    }
    // To Trash, and from Trash for good.
    for _ in 0..2 {
        assert!(ada.client.delete(&format!("/v1/messages/{deleted}")).await.status.is_success());
    }
    for path in paths(&deleted) {
        for client in [&ada.client, &there] {
            assert_eq!(client.get(&path).await.problem(), "not_found", "{path}");
        }
    }
    // A token that nobody gave out, and one that is over.
    let bob = world.person().await;
    for path in paths(&kept) {
        assert_eq!(bob.client.get(&path).await.problem(), "not_found", "{path}");
        assert_eq!(world.client.get(&path).await.problem(), "unauthenticated", "{path}");
        let forged = forged(ada.client.token());
        assert_eq!(world.client.with_token(&forged).get(&path).await.problem(), "unauthenticated", "{path}");
    }
    assert!(ada.client.delete("/v1/sessions/current").await.status.is_success());
    for path in paths(&kept) {
        for client in [&ada.client, &there] {
            assert_eq!(client.get(&path).await.problem(), "unauthenticated", "{path}");
        }
    }
}

/// A token of the same user with another secret.
fn forged(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 2);
    format!("{rest}{}", if last == "00" { "11" } else { "00" })
}

#[tokio::test]
async fn a_warm_cache_opens_nothing() {
    gone(CacheSettings::default()).await;
}

#[tokio::test]
async fn a_warm_redis_opens_nothing() {
    let server = RedisServer::start();
    gone(settings(&server)).await;
}

#[tokio::test]
async fn what_was_changed_or_swapped_in_redis_is_not_served() {
    let server = RedisServer::start();
    let world = World::near(settings(&server)).await;
    let (ada, bob) = (world.person().await, world.person().await);
    let mut messages = Vec::new();
    for (number, person) in [&ada, &bob, &ada, &bob].into_iter().enumerate() {
        let id = world.deliver(person, large(&format!("secret{number}"))).await;
        for path in [format!("/v1/messages/{id}"), format!("/v1/messages/{id}/raw")] {
            let bytes = read_near(&world, &person.client, &path).await;
            messages.push((person, path, bytes));
        }
    }
    // Nobody reads in Redis whose it is, or what it says.
    let everything = server.eval(
        "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
         local kind = redis.call('TYPE', key)['ok'] all[#all + 1] = key .. ' ' .. kind \
         if kind == 'string' then all[#all + 1] = redis.call('GET', key) end end return table.concat(all, ' ')",
    );
    assert!(everything.len() > 4 * BLOB_BYTES_MIN, "{}", everything.len());
    for (person, path, _) in &messages {
        let id = path.split('/').nth(3).unwrap();
        for secret in [id, &person.user.to_string(), &person.address, "secret", "elsewhere.example"] {
            assert!(!everything.contains(secret), "{secret}");
        }
    }
    let ruin = |what: &str| {
        server.eval(&format!(
            "local keys = redis.call('KEYS', 'postrider:*:v:*') table.sort(keys) local old = {{}} \
             for n, key in ipairs(keys) do old[n] = redis.call('GET', key) end \
             for n, key in ipairs(keys) do local value = old[n] {what} redis.call('SET', key, value) end return #keys"
        ))
    };
    for what in [
        // One bit, at the end, in the middle, in the nonce, in the version.
        "value = value:sub(1, -2) .. string.char((value:byte(-1) + 1) % 256)",
        "local at = math.floor(#value / 2) value = value:sub(1, at) .. string.char((value:byte(at + 1) + 1) % 256) .. value:sub(at + 2)",
        "value = value:sub(1, 1) .. string.char((value:byte(2) + 1) % 256) .. value:sub(3)",
        "value = string.char((value:byte(1) + 1) % 256) .. value:sub(2)",
        // Another key's: another user's, another message's.
        "value = old[n % #keys + 1]",
        "value = old[(n + 1) % #keys + 1]",
        "value = value:sub(1, #value / 2)",
        "value = ''",
        "value = value .. value",
    ] {
        assert!(ruin(what).parse::<u32>().unwrap() >= 8, "{what}");
        for (person, path, expected) in &messages {
            let read = person.client.get(path).await;
            assert!(read.status.is_success() && read.bytes == *expected, "{path} after {what}: {}", read.status);
        }
        // And it is mended by who has read it from its shard.
        for (person, path, expected) in &messages {
            assert_eq!(read_near(&world, &person.client, path).await, *expected, "{path} after {what}");
        }
    }
    // Limits that say what they like: nobody is let in or locked out by it.
    server.eval(
        "for _, key in ipairs(redis.call('KEYS', 'postrider:*')) do if not key:find(':v:') then \
         redis.call('SET', key, '99999999999999') end end return 1",
    );
    ada.client.get("/v1/folders").await.ok();
    world.log_in(&ada.address).await;
}

#[tokio::test]
async fn content_stays_in_its_zone_and_only_recent_mail_is_kept() {
    let server = RedisServer::start();
    let world = World::near(settings(&server)).await;
    let cleo = world.person_called(&format!("cleo@{SECOND_DOMAIN}")).await;
    let ada = world.person().await;
    let there = world.deliver(&cleo, large("elsewhere")).await;
    let path = format!("/v1/messages/{there}");
    for _ in 0..3 {
        cleo.client.get(&path).await.ok();
        cleo.client.get(&format!("{path}/raw")).await;
    }
    // What is put comes in order: once Ada's message is there, Cleo's would be.
    let here = world.deliver(&ada, large("here")).await;
    read_near(&world, &ada.client, &format!("/v1/messages/{here}")).await;
    assert_eq!(server.count("postrider:*:v:*"), 1);
    let longest = server.eval(
        "local longest = 0 for _, key in ipairs(redis.call('KEYS', '*')) do \
         local left = redis.call('PTTL', key) if left < 0 then return 'for ever: ' .. key end \
         longest = math.max(longest, left) end return longest",
    );
    let days = longest.parse::<f64>().unwrap_or_else(|_| panic!("{longest}")) / 86_400_000.0;
    assert!(days > 6.9 && days <= 7.0, "{days}");

    let none = CacheSettings { recent_days: 0, ..settings(&server) };
    let (_frontend, client) = second_frontend(&world, none).await;
    let ada_there = client.with_token(ada.client.token());
    let before = world.cluster.queries();
    ada_there.get(&format!("/v1/messages/{here}")).await.ok();
    ada_there.get(&format!("/v1/messages/{here}")).await.ok();
    // Where she is, the row and the body, each time.
    assert_eq!(world.cluster.queries() - before, 6);
    assert_eq!(server.count("postrider:*:v:*"), 1);
}

/// Reads and checks without end, until told to stop.
async fn read_all(
    person: Person,
    messages: Arc<Vec<(String, bytes::Bytes)>>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
) {
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let (path, expected) = &messages[at % messages.len()];
        let read = person.client.get(path).await;
        assert!(read.status.is_success(), "{path}: {} {:?}", read.status, read.bytes);
        assert!(read.bytes == *expected, "{path}: another answer");
        reads.fetch_add(1, Ordering::Relaxed);
        at += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_stopped_restarted_and_full_under_load() {
    let mut server = RedisServer::start();
    let front = Front { cache: settings(&server), requests_per_account_per_minute: 1_000_000, ..Front::default() };
    let world = World::behind(front, SignUpPolicy::Open).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for number in 0..4 {
        let person = world.person().await;
        let mut messages = Vec::new();
        for message in 0..6 {
            let raw = match message {
                0 => large(&format!("large{number}")),
                _ => crate::world::text(&format!("m{number}of{message}")),
            };
            let id = world.deliver(&person, raw).await;
            for path in [format!("/v1/messages/{id}"), format!("/v1/messages/{id}/raw")] {
                let read = person.client.get(&path).await;
                messages.push((path, read.bytes));
            }
        }
        let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
        readers.push(tokio::spawn(read_all(person, Arc::new(messages), stop, reads)));
    }
    // So many more are read in each state.
    let go_on = async || {
        let until = reads.load(Ordering::Relaxed) + 100;
        eventually("reads go on", async || {
            assert!(readers.iter().all(|reader| !reader.is_finished()), "a reader has ended");
            reads.load(Ordering::Relaxed) >= until
        })
        .await;
    };
    go_on().await;
    for _ in 0..3 {
        server.stop();
        go_on().await;
        server.go_on();
        go_on().await;
        server.kill();
        go_on().await;
        server.start_again();
        go_on().await;
    }
    // No room for anything new; and then for nothing at all.
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    go_on().await;
    server.cli(&["FLUSHALL"]);
    go_on().await;
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("values are put again", async || server.count("postrider:*:v:*") > 0).await;
    go_on().await;
    // Who answers each question with nonsense.
    server.eval("for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) redis.call('LPUSH', key, 'x') end return 1");
    go_on().await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    world.cluster.verify();
}

#[tokio::test]
async fn a_redis_that_was_never_there_is_no_hindrance() {
    let mut server = RedisServer::start();
    let cache = settings(&server);
    server.kill();
    let secret = postrider_frontend::rest::ClusterSecret::new(vec![7; 32]).unwrap();
    let (clock, entropy) = (postrider_api::env::SystemClock::shared(), postrider_api::env::SystemEntropy::shared());
    let started = postrider_frontend::cache::Cache::new(&cache, &secret, clock, entropy).unwrap();
    assert!(!started.is_shared());
    server.start_again();
    eventually("it is found when it comes", async || started.is_shared()).await;
}

#[tokio::test]
async fn wrong_passwords_count_at_all_frontends_of_a_region() {
    let server = RedisServer::start();
    let world = World::near(settings(&server)).await;
    let (_frontend, there) = second_frontend(&world, settings(&server)).await;
    let ada = world.person().await;
    let guess = json!({"address": ada.address, "password": "another one"});
    // The first frontend knows this network; at the second one it is a stranger.
    let mut guesses = 0;
    let refused = loop {
        let answer = there.post("/v1/sessions", &guess).await;
        if answer.problem() == "too_many_attempts" {
            break answer;
        }
        guesses += 1;
    };
    assert_eq!(guesses, 5);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("ratelimit-policy"), Some("\"wrong-passwords\";q=5;w=3000"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"wrong-passwords\";r=0;t="));
    // A third one is told by what the second has counted.
    let (_frontend, third) = second_frontend(&world, settings(&server)).await;
    eventually("the third frontend refuses as well", async || {
        third.post("/v1/sessions", &guess).await.problem() == "too_many_attempts"
    })
    .await;
    assert!(server.count("postrider:*:l:*") > 0);
    // Nobody is kept out where he has logged in before.
    world.log_in(&ada.address).await;
    let right = json!({"address": ada.address, "password": PASSWORD});
    world.client.post("/v1/sessions", &right).await.ok();
}

#[tokio::test]
async fn answers_say_what_is_left_of_the_limit() {
    let server = RedisServer::start();
    let front = |server: &RedisServer| Front {
        cache: settings(server),
        requests_per_account_per_minute: 20,
        ..Front::default()
    };
    let world = World::behind(front(&server), SignUpPolicy::Open).await;
    let other = frontend_behind(front(&server), &world.cluster, &world.blobs, "seoul", SignUpPolicy::Open).await;
    let ada = world.person().await;
    let there = client_of(&other).await.with_token(ada.client.token());
    let (mut here_first, mut let_through, mut refused) = (None, 0, 0);
    for number in 0..60 {
        let client = if number % 2 == 0 { &ada.client } else { &there };
        let answer = client.send(Method::GET, "/v1/folders", &[], None).await;
        match answer.status.as_u16() {
            200 => {
                let_through += 1;
                if let Some(limit) = answer.header("ratelimit") {
                    assert_eq!(answer.header("ratelimit-policy"), Some("\"requests\";q=20;w=60"));
                    here_first.get_or_insert_with(|| limit.to_owned());
                }
            }
            429 => {
                refused += 1;
                assert_eq!(answer.problem(), "too_many_requests");
                assert!(answer.header("ratelimit").unwrap().starts_with("\"requests\";r=0;t="));
                assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
            }
            status => panic!("{status}"),
        }
    }
    assert_eq!(here_first.as_deref(), Some("\"requests\";r=19;t=3"));
    // Each alone would let 20 through and some more as time goes by; where Redis was late it did.
    assert!(refused > 0 && (20..=45).contains(&let_through), "{let_through}");
}
