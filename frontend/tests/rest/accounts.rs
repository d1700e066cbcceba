//! Signing up, logging in and out, the profile.

use postrider_api::env::SystemEntropy;
use postrider_api::id::{ShardId, Slot, UserId, ZoneId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, answer, query};
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::account::token::Token;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::cluster::{DIRECTORY, DOMAIN, SHARDS};
use crate::world::{ADMIN_TOKEN, PASSWORD, World, client_of, command, frontend, frontend_with};

fn account(name: &str) -> serde_json::Value {
    json!({"address": format!("{name}@{DOMAIN}"), "password": PASSWORD, "name": name})
}

#[tokio::test]
async fn sign_up_log_in_log_out() {
    let world = World::new().await;
    let answer = world.client.post("/v1/accounts", &account("Ada")).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let made = answer.json();
    assert_eq!(made["address"], format!("ada@{DOMAIN}"));
    assert_eq!(made["region"], "seoul");

    let client = world.log_in(&format!("ADA@{DOMAIN}")).await;
    let profile = client.get("/v1/profile").await.ok();
    assert_eq!(profile["user_id"], made["user_id"]);
    assert_eq!(profile["name"], "Ada");
    let other = world.log_in(&format!("ada@{DOMAIN}")).await;

    assert_eq!(client.delete("/v1/sessions/current").await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/v1/profile").await.problem(), "unauthenticated");
    assert_eq!(client.delete("/v1/sessions/current").await.problem(), "unauthenticated");
    // Another session of the same account is not touched.
    assert!(other.get("/v1/profile").await.status.is_success());
    world.cluster.verify();
}

#[tokio::test]
async fn what_is_no_account() {
    let world = World::new().await;
    world.client.post("/v1/accounts", &account("ada")).await.ok();
    let with = |field: &str, value: &str| {
        let mut account = account("bob");
        account[field] = value.into();
        account
    };
    for (body, problem) in [
        (account("ada"), "address_taken"),
        (account("ADA"), "address_taken"),
        (with("address", "bob"), "address_invalid"),
        (with("address", "bob@elsewhere.example"), "domain_outside"),
        (with("password", "1234567"), "password_rule"),
        (with("password", &"x".repeat(257)), "password_rule"),
        (with("name", "a\nb"), "invalid_body"),
        (with("name", &"x".repeat(256)), "invalid_body"),
        (json!({"address": "bob@postrider.example"}), "invalid_body"),
        (json!({"address": "a", "password": "b", "name": "c", "admin": true}), "invalid_body"),
    ] {
        assert_eq!(world.client.post("/v1/accounts", &body).await.problem(), problem, "{body}");
    }
    world.cluster.verify();
}

#[tokio::test]
async fn closed_sign_up_takes_the_administrators_token() {
    let world = World::with(SignUpPolicy::Closed).await;
    assert_eq!(world.client.post("/v1/accounts", &account("ada")).await.problem(), "sign_up_closed");
    let stranger = world.client.with_token("another token");
    assert_eq!(stranger.post("/v1/accounts", &account("ada")).await.problem(), "sign_up_closed");
    let admin = world.client.with_token(ADMIN_TOKEN);
    assert_eq!(admin.post("/v1/accounts", &account("ada")).await.status, StatusCode::CREATED);
    // It opens nothing else.
    assert_eq!(admin.get("/v1/profile").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn wrong_password_and_unknown_address_look_the_same() {
    let world = World::new().await;
    let ada = world.person_called(&format!("ada@{DOMAIN}")).await;
    let log_in = async |address: &str, password: &str| {
        world.client.post("/v1/sessions", &json!({"address": address, "password": password})).await
    };
    let wrong = log_in(&ada.address, "another password").await;
    let unknown = log_in(&format!("nobody@{DOMAIN}"), PASSWORD).await;
    let no_address = log_in("nobody", PASSWORD).await;
    let too_long = log_in(&ada.address, &"x".repeat(5000)).await;
    for answer in [&wrong, &unknown, &no_address, &too_long] {
        assert_eq!(answer.problem(), "wrong_credentials");
        assert_eq!(answer.bytes, wrong.bytes);
        assert_eq!(answer.header("www-authenticate"), wrong.header("www-authenticate"));
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_for_one_address_only() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let guess = async |address: &str| {
        world.client.post("/v1/sessions", &json!({"address": address, "password": "guess guess"})).await
    };
    for _ in 0..5 {
        assert_eq!(guess(&ada.address).await.problem(), "wrong_credentials");
    }
    let refused = guess(&ada.address).await;
    assert_eq!(refused.problem(), "too_many_attempts");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    // The right password does not help either: an attacker learns nothing from the difference.
    let right = json!({"address": ada.address, "password": PASSWORD});
    assert_eq!(world.client.post("/v1/sessions", &right).await.problem(), "too_many_attempts");
    world.log_in(&bob.address).await;
}

#[tokio::test]
async fn guessing_from_everywhere_locks_nobody_out() {
    let world = World::new().await;
    let ada = world.person().await;
    let log_in = async |from: u8, password: &str| {
        let client = world.client.from([127, 0, 7, from].into());
        client.post("/v1/sessions", &json!({"address": ada.address, "password": password})).await
    };
    for network in 1..=10 {
        assert_eq!(log_in(network, "guess guess").await.problem(), "wrong_credentials");
    }
    // Each of them has to wait by now, after one guess.
    assert_eq!(log_in(1, "guess guess").await.problem(), "too_many_attempts");
    // She comes in where she has been before, even if she mistypes it; and where nobody has guessed.
    let mistyped = json!({"address": ada.address, "password": "mistyped it"});
    assert_eq!(world.client.post("/v1/sessions", &mistyped).await.problem(), "wrong_credentials");
    world.log_in(&ada.address).await;
    log_in(99, PASSWORD).await.ok();
}

#[tokio::test]
async fn one_network_makes_only_so_many_accounts() {
    let world = World::new().await;
    let elsewhere = world.client.from([127, 0, 7, 1].into());
    let mut made = 0;
    let refused = loop {
        let answer = elsewhere.post("/v1/accounts", &account(&format!("a{made}"))).await;
        if !answer.status.is_success() {
            break answer;
        }
        made += 1;
        assert!(made < 200, "there is no end to it");
    };
    assert_eq!(refused.problem(), "too_many_attempts");
    assert!(refused.header("retry-after").is_some());
    // Neither others nor the administrator are in his way.
    world.client.post("/v1/accounts", &account("bob")).await.ok();
    elsewhere.with_token(ADMIN_TOKEN).post("/v1/accounts", &account("carol")).await.ok();
}

#[tokio::test]
async fn log_outs_under_one_key_end_each_session() {
    let world = World::new().await;
    let ada = world.person().await;
    let other = world.log_in(&ada.address).await;
    for client in [&ada.client, &other] {
        let answer = client.send(Method::DELETE, "/v1/sessions/current", &[("idempotency-key", "k")], None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(client.get("/v1/profile").await.problem(), "unauthenticated");
    }
    world.cluster.verify();
}

#[tokio::test]
async fn a_repeated_sign_up_is_one_sign_up() {
    let world = World::new().await;
    let first = world.client.post_once("/v1/accounts", &account("ada"), "key 1").await;
    let second = world.client.post_once("/v1/accounts", &account("ada"), "key 1").await;
    assert_eq!(first.ok(), second.ok());
    // Members in another order are the same body.
    let reordered = format!("{{\"name\":\"ada\",  \"password\":\"{PASSWORD}\",\"address\":\"ada@{DOMAIN}\"}}");
    let headers = [("content-type", "application/json"), ("idempotency-key", "key 1")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let third = world
        .client
        .send_raw(Method::POST, "/v1/accounts", headers.into_iter().collect(), Some(reordered.into_bytes()))
        .await;
    assert_eq!(first.ok(), third.ok());
    let mut other = account("ada");
    other["name"] = "somebody else".into();
    assert_eq!(world.client.post_once("/v1/accounts", &other, "key 1").await.problem(), "idempotency_key_mismatch");
    assert_eq!(world.client.post_once("/v1/accounts", &account("ada"), "key 2").await.problem(), "address_taken");
}

#[tokio::test]
async fn a_sign_up_that_broke_off_is_resumed_anywhere() {
    let world = World::new().await;
    let elsewhere = frontend(&world.cluster, &world.blobs, "frankfurt", SignUpPolicy::Open).await;
    let elsewhere = client_of(&elsewhere).await;
    // After none, one and two of the three steps nobody hears that the next one was carried out.
    for (name, heard) in [("a", 0), ("b", 1), ("c", 2)] {
        world.cluster.lose_answer(heard);
        let broken = world.client.post_once("/v1/accounts", &account(name), name).await;
        assert_eq!(broken.problem(), "outcome_unknown");
        let made = elsewhere.post_once("/v1/accounts", &account(name), name).await.ok();
        assert_eq!(made["region"], "seoul", "where the first attempt placed it");
        let again = world.client.post_once("/v1/accounts", &account(name), name).await.ok();
        assert_eq!(made, again);
        world.log_in(&format!("{name}@{DOMAIN}")).await;
    }
    world.cluster.verify();
}

#[tokio::test]
async fn an_address_is_not_active_before_its_mailbox() {
    let world = World::new().await;
    world.cluster.lose_quorum(SHARDS[0].0);
    let broken = world.client.post_once("/v1/accounts", &account("ada"), "k").await;
    assert_eq!(broken.problem(), "no_quorum");
    let log_in = json!({"address": format!("ada@{DOMAIN}"), "password": PASSWORD});
    // A log-in asks some mailbox shard about an address that nobody has, and this one may be it.
    let refused = world.client.post("/v1/sessions", &log_in).await.problem();
    assert!(["wrong_credentials", "no_quorum"].contains(&refused.as_str()), "{refused}");
    world.cluster.regain_quorum(SHARDS[0].0);
    world.client.post_once("/v1/accounts", &account("ada"), "k").await.ok();
    world.client.post("/v1/sessions", &log_in).await.ok();
    world.cluster.lose_quorum(DIRECTORY);
    assert_eq!(world.client.post("/v1/sessions", &log_in).await.problem(), "no_quorum");
}

#[tokio::test]
async fn a_repeated_log_in_is_one_session() {
    let world = World::new().await;
    let ada = world.person().await;
    let right = json!({"address": ada.address, "password": PASSWORD});
    let first = world.client.post_once("/v1/sessions", &right, "k").await.ok();
    let second = world.client.post_once("/v1/sessions", &right, "k").await.ok();
    assert_eq!(first, second);
    let other = world.client.post_once("/v1/sessions", &right, "l").await.ok();
    assert_ne!(first["token"], other["token"]);
    let wrong = json!({"address": ada.address, "password": "wrong wrong"});
    assert_eq!(world.client.post_once("/v1/sessions", &wrong, "k").await.problem(), "wrong_credentials");
    world.client.with_token(first["token"].as_str().unwrap()).delete("/v1/sessions/current").await;
    assert_eq!(world.client.post_once("/v1/sessions", &right, "k").await.problem(), "idempotency_key_spent");
}

#[tokio::test]
async fn tokens_that_are_none() {
    let world = World::new().await;
    let ada = world.person().await;
    let token = ada.client.token().to_owned();
    let mut other_secret = token.clone().into_bytes();
    other_secret[40] = if other_secret[40] == b'A' { b'B' } else { b'A' };
    let mut other_user = token.clone().into_bytes();
    other_user[10] = if other_user[10] == b'A' { b'B' } else { b'A' };
    for bad in [
        String::new(),
        "x".to_owned(),
        token[1..].to_owned(),
        format!("{token}A"),
        String::from_utf8(other_secret).unwrap(),
        String::from_utf8(other_user).unwrap(),
    ] {
        let answer = world.client.with_token(&bad).get("/v1/profile").await;
        assert_eq!(answer.problem(), "unauthenticated", "{bad}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    }
    assert_eq!(world.client.get("/v1/profile").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn a_network_that_shows_tokens_of_nobody_is_slowed_down() {
    let world = World::new().await;
    let ada = world.person().await;
    let token_of = |number: u16| {
        let mut random = [0; 12];
        random[..2].copy_from_slice(&number.to_be_bytes());
        Token::random(UserId::new(ZoneId(1), Slot(1), random), &SystemEntropy).text()
    };
    // The same nobody is not looked up again and again.
    let nobody = world.client.with_token(&token_of(0));
    let before = world.cluster.queries();
    for _ in 0..20 {
        assert_eq!(nobody.get("/v1/profile").await.problem(), "unauthenticated");
    }
    assert!(world.cluster.queries() < before + 5, "{}", world.cluster.queries() - before);
    // And of different ones, only so many.
    let mut shown = 0;
    let refused = loop {
        shown += 1;
        let answer = world.client.with_token(&token_of(shown)).get("/v1/profile").await;
        if answer.status != StatusCode::UNAUTHORIZED {
            break answer;
        }
        assert!(shown < 2_000, "there is no end to it");
    };
    assert_eq!(refused.problem(), "too_many_attempts");
    assert!(refused.header("retry-after").is_some());
    // An existing user's id under a made-up secret is no better.
    let made_up = Token::random(ada.user, &SystemEntropy).text();
    let before = world.cluster.queries();
    assert_eq!(world.client.with_token(&made_up).get("/v1/profile").await.problem(), "too_many_attempts");
    assert_eq!(world.cluster.queries(), before);
    // Whoever is logged in goes on, and whoever logs in now, too; so do other networks.
    ada.client.get("/v1/profile").await.ok();
    world.log_in(&ada.address).await.get("/v1/profile").await.ok();
    let elsewhere = world.client.from([127, 0, 7, 1].into()).with_token(&made_up);
    assert_eq!(elsewhere.get("/v1/profile").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn the_profile_changes() {
    let world = World::new().await;
    let ada = world.person().await;
    let before = ada.client.get("/v1/profile").await.ok();
    let after = ada.client.patch("/v1/profile", &json!({"name": "Ada L.", "signature": "--\nA"})).await.ok();
    assert_eq!((after["name"].as_str(), after["signature"].as_str()), (Some("Ada L."), Some("--\nA")));
    assert_eq!(after["address"], before["address"]);
    let after = ada.client.patch("/v1/profile", &json!({"signature": ""})).await.ok();
    assert_eq!((after["name"].as_str(), after["signature"].as_str()), (Some("Ada L."), Some("")));
    for bad in [
        json!({}),
        json!({"name": "x".repeat(256)}),
        json!({"name": "a\u{0}b"}),
        json!({"signature": "x".repeat(8193)}),
        json!({"quota_bytes": 1}),
        json!({"home_region": "virginia"}),
    ] {
        assert_eq!(ada.client.patch("/v1/profile", &bad).await.problem(), "invalid_body", "{bad}");
    }
}

#[tokio::test]
async fn many_log_ins_at_once_all_succeed() {
    let world = World::new().await;
    let ada = world.person().await;
    let all = (0..64).map(|_| world.log_in(&ada.address));
    assert_eq!(futures::future::join_all(all).await.len(), 64);
}

fn passwords(current: &str, new: &str) -> serde_json::Value {
    json!({"current": current, "new": new})
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let world = World::new().await;
    let ada = world.person().await;
    let other = world.log_in(&ada.address).await;
    let new = "staple of another kind";
    let change =
        async |current: &str, new: &str| ada.client.post("/v1/profile/password", &passwords(current, new)).await;
    assert_eq!(change(PASSWORD, "short").await.problem(), "password_rule");
    assert_eq!(change("wrong wrong", new).await.problem(), "wrong_password");
    ada.client.get("/v1/profile").await.ok();
    let changed = ada.client.post_once("/v1/profile/password", &passwords(PASSWORD, new), "k").await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    ada.client.get("/v1/profile").await.ok();
    assert_eq!(other.get("/v1/profile").await.problem(), "unauthenticated");
    // Asked again, the first answer comes, though the current password is another one by now.
    let again = ada.client.post_once("/v1/profile/password", &passwords(PASSWORD, new), "k").await;
    assert_eq!(again.status, StatusCode::NO_CONTENT);
    let mismatch = ada.client.post_once("/v1/profile/password", &passwords(PASSWORD, "yet another one"), "k").await;
    assert_eq!(mismatch.problem(), "idempotency_key_mismatch");
    let log_in = async |password: &str| {
        world.client.post("/v1/sessions", &json!({"address": ada.address, "password": password})).await
    };
    assert_eq!(log_in(PASSWORD).await.problem(), "wrong_credentials");
    log_in(new).await.ok();
    world.cluster.verify();
}

#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let world = World::new().await;
    let ada = world.person().await;
    let other = world.log_in(&ada.address).await;
    let change = async |client: &crate::client::Client, new: &str| {
        let answer = client.post("/v1/profile/password", &passwords(PASSWORD, new)).await;
        match answer.status {
            StatusCode::NO_CONTENT => "done".to_owned(),
            _ => answer.problem(),
        }
    };
    let (one, two) = tokio::join!(change(&ada.client, "the first of two"), change(&other, "the second of two"));
    let won = [&one, &two].iter().filter(|answer| **answer == "done").count();
    assert_eq!(won, 1, "{one}, {two}");
    // The loser read the account before the winner wrote, or its session had ended by then.
    let lost = if one == "done" { two } else { one };
    assert!(["password_changed", "unauthenticated", "wrong_password"].contains(&lost.as_str()), "{lost}");
    world.cluster.verify();
}

#[tokio::test]
async fn guessing_the_current_password_counts_as_a_log_in_does() {
    let world = World::new().await;
    let ada = world.person().await;
    for _ in 0..5 {
        let guess = ada.client.post("/v1/profile/password", &passwords("guess guess", "another password")).await;
        assert_eq!(guess.problem(), "wrong_password");
    }
    let refused = ada.client.post("/v1/profile/password", &passwords(PASSWORD, "another password")).await;
    assert_eq!(refused.problem(), "too_many_attempts");
    let refused =
        ada.client.send(Method::DELETE, "/v1/accounts/current", &[], Some(&json!({"password": PASSWORD}))).await;
    assert_eq!(refused.problem(), "too_many_attempts");
    // His session does not suffer from it.
    ada.client.get("/v1/profile").await.ok();
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let world = World::new().await;
    let ada = world.person().await;
    let other = world.log_in(&ada.address).await;
    let bob = world.person().await;
    let list = async |client: &crate::client::Client| client.get("/v1/sessions").await.ok().as_array().unwrap().clone();
    let sessions = list(&ada.client).await;
    assert_eq!(sessions.len(), 2);
    let current: Vec<_> = sessions.iter().filter(|session| session["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["address"], "127.0.0.1");
    let id = |session: &serde_json::Value| session["id"].as_str().unwrap().to_owned();
    let others = sessions.iter().find(|session| session["current"] == false).map(id).unwrap();
    assert_eq!(list(&other).await.iter().find(|session| session["current"] == true).map(id), Some(others.clone()));
    // It opens nothing, and is nobody else's to end.
    assert!(!other.token().contains(&others));
    assert_eq!(bob.client.delete(&format!("/v1/sessions/{others}")).await.problem(), "not_found");
    assert_eq!(ada.client.delete("/v1/sessions/none").await.problem(), "not_found");
    let ended = ada.client.delete(&format!("/v1/sessions/{others}")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert_eq!(other.get("/v1/profile").await.problem(), "unauthenticated");
    assert_eq!(ada.client.delete(&format!("/v1/sessions/{others}")).await.problem(), "not_found");
    let own = id(&list(&ada.client).await[0]);
    assert_eq!(ada.client.delete(&format!("/v1/sessions/{own}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.get("/v1/sessions").await.problem(), "unauthenticated");
    world.cluster.verify();
}

#[tokio::test]
async fn a_suspended_account_is_told_so_and_nobody_else_is() {
    let world = World::new().await;
    let ada = world.person().await;
    let suspend = pb::SuspendAccount { user_id: ada.user.to_bytes(), receive: true };
    world.cluster.apply(ada.shard, command(Op::SuspendAccount(suspend)));
    let refused = ada.client.get("/v1/profile").await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "account_suspended"));
    let change = ada.client.patch("/v1/profile", &json!({"name": "Ada"})).await;
    assert_eq!(change.problem(), "account_suspended");
    let log_in = async |password: &str| {
        world.client.post("/v1/sessions", &json!({"address": ada.address, "password": password})).await
    };
    assert_eq!(log_in(PASSWORD).await.problem(), "account_suspended");
    assert_eq!(log_in("guess guess").await.problem(), "wrong_credentials", "only who has the password is told");
    world.deliver_text(&ada, "meanwhile").await;
    let resume = pb::ResumeAccount { user_id: ada.user.to_bytes() };
    world.cluster.apply(ada.shard, command(Op::ResumeAccount(resume)));
    assert_eq!(ada.messages("inbox").await.len(), 1);
    world.log_in(&ada.address).await;
    world.cluster.verify();
}

#[tokio::test]
async fn a_deleted_account_opens_for_nobody_and_its_address_is_taken() {
    let world = World::new().await;
    let (ada, bob) = (world.person_called(&format!("ada@{DOMAIN}")).await, world.person().await);
    world.deliver_text(&ada, "hers").await;
    let delete = async |client: &crate::client::Client, password: &str| {
        client.send(Method::DELETE, "/v1/accounts/current", &[], Some(&json!({"password": password}))).await
    };
    assert_eq!(delete(&ada.client, "wrong wrong").await.problem(), "wrong_password");
    ada.client.get("/v1/profile").await.ok();
    assert_eq!(delete(&ada.client, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(&ada.client, PASSWORD).await.problem(), "unauthenticated");
    assert_eq!(ada.client.get("/v1/profile").await.problem(), "unauthenticated");
    let log_in = json!({"address": ada.address, "password": PASSWORD});
    assert_eq!(world.client.post("/v1/sessions", &log_in).await.problem(), "wrong_credentials");
    assert_eq!(world.client.post("/v1/accounts", &account("ada")).await.problem(), "address_taken");
    let mail = json!({"to": [{"email": ada.address}], "subject": "late", "body": "late"});
    assert_eq!(bob.client.post("/v1/messages", &mail).await.problem(), "recipient_unknown");
    world.cluster.verify();
}

#[tokio::test]
async fn an_account_gets_so_many_requests_a_minute() {
    let world = World::new().await;
    let ada = world.person().await;
    let limited = frontend_with(&world.cluster, &world.blobs, "seoul", SignUpPolicy::Open, 30).await;
    let limited = client_of(&limited).await;
    let hers = limited.with_token(ada.client.token());
    let mut answered = 0;
    let refused = loop {
        let answer = hers.get("/v1/profile").await;
        if !answer.status.is_success() {
            break answer;
        }
        answered += 1;
        assert!(answered < 300, "there is no end to it");
    };
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"));
    assert!((1..=2).contains(&refused.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert!(answered >= 30, "{answered}");
    let bob = world.person().await;
    limited.with_token(bob.client.token()).get("/v1/profile").await.ok();
    // Whoever measures as the administrator is not counted.
    let measured = hers.send(Method::GET, "/v1/profile", &[("postrider-admin-token", ADMIN_TOKEN)], None).await;
    assert!(measured.status.is_success());
}

#[tokio::test]
async fn what_an_administrator_does_is_written_down() {
    let world = World::with(SignUpPolicy::Closed).await;
    let admin = world.client.with_token(ADMIN_TOKEN);
    admin.post("/v1/accounts", &account("ada")).await.ok();
    assert_eq!(admin.post("/v1/accounts", &account("ada")).await.problem(), "address_taken");
    let list = query::Query::ListAudit(pb::ListAudit::default());
    let Some(answer::Answer::Audit(page)) = world.cluster.ask(ShardId::PLACEMENT, list).unwrap().answer else {
        panic!()
    };
    let told: Vec<_> =
        page.records.iter().rev().map(|record| (record.action.as_str(), record.of, record.outcome())).collect();
    let created = ("account.create", 0, pb::AuditOutcome::Unspecified);
    assert_eq!(told, [created, ("", 1, pb::AuditOutcome::Done), created, ("", 3, pb::AuditOutcome::Failed)]);
    let address = postrider_api::address::Address::parse(&format!("ada@{DOMAIN}")).unwrap();
    assert_eq!(page.records[3].targets, [postrider_api::audit::address(&address)]);
}
