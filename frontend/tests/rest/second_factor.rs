//! Second factors: codes by time, recovery codes, and what neither opens twice; and when sessions were used.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::world::{PASSWORD, Person, World};

/// What an authenticator shows (RFC 6238), written down once more.
struct Authenticator(Vec<u8>);

impl Authenticator {
    fn of(secret: &str) -> Self {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let digits = secret.chars().map(|letter| alphabet.find(letter).unwrap());
        let bits: Vec<bool> = digits.flat_map(|digit| (0..5).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
        let byte = |bits: &[bool]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        Self(bits.chunks_exact(8).map(byte).collect())
    }

    fn step() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30
    }

    fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 0xf);
        let word = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap());
        format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
    }

    /// A code of a later step, which is taken for half a minute at least.
    fn later(&self, than: u64) -> String {
        self.code(Self::step().max(than + 1))
    }
}

async fn log_in(client: &Client, person: &Person, code: Option<&str>) -> Answer {
    let mut credentials = json!({"address": person.address, "password": PASSWORD});
    if let Some(code) = code {
        credentials["code"] = code.into();
    }
    client.post("/v1/sessions", &credentials).await
}

async fn standing(person: &Person) -> Value {
    person.client.get("/v1/second-factor").await.ok()
}

async fn remove(person: &Person, body: Value) -> Answer {
    person.client.send(Method::DELETE, "/v1/second-factor", &[], Some(&body)).await
}

/// Turns it on, by the code of the step that is given beside the recovery codes.
async fn turned_on(person: &Person) -> (Authenticator, u64, Vec<String>) {
    let begun = person.client.post("/v1/second-factor", &json!({"password": PASSWORD})).await.ok();
    let authenticator = Authenticator::of(begun["secret"].as_str().unwrap());
    let step = Authenticator::step();
    let confirm = json!({"code": authenticator.code(step)});
    let confirmed = person.client.post("/v1/second-factor/confirm", &confirm).await.ok();
    let codes = confirmed["recovery_codes"].as_array().unwrap();
    (authenticator, step, codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn log_ins_want_a_code_once_one_was_shown() {
    let world = World::new().await;
    let ada = world.person().await;
    assert_eq!(standing(&ada).await, json!({"enabled": false, "enabled_at": null, "recovery_codes_left": 0}));
    assert_eq!(remove(&ada, json!({"password": PASSWORD})).await.problem(), "not_found");
    let confirm = json!({"code": "123456"});
    assert_eq!(ada.client.post("/v1/second-factor/confirm", &confirm).await.problem(), "not_found");
    let wrong = ada.client.post("/v1/second-factor", &json!({"password": "another password"})).await;
    assert_eq!(wrong.problem(), "wrong_password");
    let begun = ada.client.post("/v1/second-factor", &json!({"password": PASSWORD})).await;
    assert_eq!(begun.status, StatusCode::CREATED);
    let begun = begun.ok();
    let secret = begun["secret"].as_str().unwrap();
    let uri = format!("otpauth://totp/Postrider:{}?secret={secret}&issuer=Postrider", ada.address);
    assert_eq!(begun["uri"], uri);
    // It counts for nothing yet.
    log_in(&world.client, &ada, None).await.ok();
    log_in(&world.client, &ada, Some("000000")).await.ok();
    let authenticator = Authenticator::of(secret);
    let step = Authenticator::step();
    let code = authenticator.code(step);
    let confirmed = ada.client.post("/v1/second-factor/confirm", &json!({"code": code})).await.ok();
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    let on = standing(&ada).await;
    assert!(on["enabled"] == true && on["enabled_at"].is_string() && on["recovery_codes_left"] == 10, "{on}");
    let again = ada.client.post("/v1/second-factor", &json!({"password": PASSWORD})).await;
    assert_eq!(again.problem(), "second_factor_exists");

    let asked = log_in(&world.client, &ada, None).await;
    assert_eq!((asked.status, asked.problem()), (StatusCode::UNAUTHORIZED, "second_factor_required".to_owned()));
    // A wrong password is told as ever, whatever comes with it.
    let wrong = json!({"address": ada.address, "password": "another password", "code": code});
    assert_eq!(world.client.post("/v1/sessions", &wrong).await.problem(), "wrong_credentials");
    let spent = log_in(&world.client, &ada, Some(&code)).await;
    assert_eq!((spent.status, spent.problem()), (StatusCode::FORBIDDEN, "wrong_code".to_owned()));
    let code = authenticator.later(step);
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let session = log_in(&world.client, &ada, Some(&spaced)).await.ok();
    world.client.with_token(session["token"].as_str().unwrap()).get("/v1/profile").await.ok();
    assert_eq!(log_in(&world.client, &ada, Some(&code)).await.problem(), "wrong_code", "it was used");
    // The sessions of before are there still, and others' accounts want none.
    ada.client.get("/v1/profile").await.ok();
    world.person().await;

    assert_eq!(remove(&ada, json!({"password": PASSWORD})).await.problem(), "second_factor_required");
    let recovery = &confirmed["recovery_codes"][0];
    let wrong = json!({"password": "another password", "code": recovery});
    assert_eq!(remove(&ada, wrong).await.problem(), "wrong_password");
    let removed = remove(&ada, json!({"password": PASSWORD, "code": recovery})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    log_in(&world.client, &ada, None).await.ok();
}

#[tokio::test]
async fn a_recovery_code_opens_one_session() {
    let world = World::new().await;
    let ada = world.person().await;
    let (authenticator, step, codes) = turned_on(&ada).await;
    assert_eq!(codes.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
    log_in(&world.client, &ada, Some(&codes[0].to_lowercase())).await.ok();
    assert_eq!(log_in(&world.client, &ada, Some(&codes[0])).await.problem(), "wrong_code");
    assert_eq!(standing(&ada).await["recovery_codes_left"], 9);
    let wanted = json!({"password": PASSWORD});
    let path = "/v1/second-factor/recovery-codes";
    assert_eq!(ada.client.post(path, &wanted).await.problem(), "second_factor_required");
    let body = json!({"password": PASSWORD, "code": authenticator.later(step)});
    let others = ada.client.post(path, &body).await.ok();
    assert_eq!(log_in(&world.client, &ada, Some(&codes[1])).await.problem(), "wrong_code", "of before");
    log_in(&world.client, &ada, others["recovery_codes"][3].as_str()).await.ok();
    // Another's codes are nobody's.
    let bob = world.person().await;
    let (_, _, of_bob) = turned_on(&bob).await;
    assert_eq!(log_in(&world.client, &ada, Some(&of_bob[0])).await.problem(), "wrong_code");
}

#[tokio::test]
async fn a_log_in_asked_for_again_is_the_same_though_its_code_was_used() {
    let world = World::new().await;
    let ada = world.person().await;
    let (_, _, codes) = turned_on(&ada).await;
    let body = json!({"address": ada.address, "password": PASSWORD, "code": codes[0]});
    let first = world.client.post_once("/v1/sessions", &body, "once").await.ok();
    let again = world.client.post_once("/v1/sessions", &body, "once").await.ok();
    assert_eq!(first, again);
    assert_eq!(world.client.post_once("/v1/sessions", &body, "twice").await.problem(), "wrong_code");
}

#[tokio::test]
async fn who_guesses_codes_waits() {
    let world = World::new().await;
    let ada = world.person().await;
    let (authenticator, step, _) = turned_on(&ada).await;
    let mut guesses = 0;
    let refused = loop {
        let answer = log_in(&world.client, &ada, Some("0")).await;
        if answer.problem() != "wrong_code" {
            break answer;
        }
        guesses += 1;
        assert!(guesses < 100, "there is no end to it");
    };
    assert_eq!(refused.problem(), "too_many_attempts");
    // The right one does not help either: who guesses learns nothing from the difference.
    let right = authenticator.later(step);
    assert_eq!(log_in(&world.client, &ada, Some(&right)).await.problem(), "too_many_attempts");
    // She comes in from elsewhere.
    let elsewhere = world.client.from([127, 0, 9, 1].into());
    log_in(&elsewhere, &ada, Some(&authenticator.later(step))).await.ok();
}

#[tokio::test]
async fn a_session_of_now_was_not_used_since_and_makes_passwords_for_programs() {
    let world = World::new().await;
    let ada = world.person().await;
    turned_on(&ada).await;
    let made = json!({"name": "Thunderbird", "scopes": ["smtp"]});
    assert_eq!(ada.client.post("/v1/app-passwords", &made).await.status, StatusCode::CREATED);
    let sessions = ada.client.get("/v1/sessions").await.ok();
    assert!(sessions.as_array().unwrap().iter().all(|session| session["last_used_at"].is_null()), "{sessions}");
}
