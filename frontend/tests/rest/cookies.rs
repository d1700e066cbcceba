//! Sessions of browsers, in a cookie that no script reads; and pages of others, which make nothing of it.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::world::{PASSWORD, Person, World};

/// What a page of the service's own says of where it is, in browsers of now.
const OWN_PAGE: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Logs in as a page does; the cookie as the browser sends it back.
async fn log_in(client: &Client, address: &str, fields: &[(&str, &str)]) -> (Answer, Option<String>) {
    let credentials = json!({"address": address, "password": PASSWORD, "cookie": true});
    let answer = client.send(Method::POST, "/v1/sessions", fields, Some(&credentials)).await;
    let cookie = answer.header("set-cookie").map(|field| field.split(';').next().unwrap().to_owned());
    (answer, cookie)
}

async fn cookie_of(world: &World, person: &Person) -> String {
    log_in(&world.client, &person.address, &[OWN_PAGE]).await.1.unwrap()
}

async fn ask(world: &World, method: Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    let body = (method == Method::POST).then(|| json!({"name": "Made"}));
    world.client.send(method, path, fields, body.as_ref()).await
}

#[tokio::test]
async fn a_browser_is_logged_in_by_a_cookie_that_its_scripts_do_not_see() {
    let world = World::new().await;
    let ada = world.person().await;
    let (answer, cookie) = log_in(&world.client, &ada.address, &[OWN_PAGE]).await;
    assert_eq!(answer.ok()["token"], "");
    let field = answer.header("set-cookie").unwrap();
    for attribute in ["__Host-postrider=", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(field.contains(attribute), "{field}");
    }
    let cookie = cookie.unwrap();
    let reads = ask(&world, Method::GET, "/v1/folders", &[("cookie", &cookie)]).await;
    assert_eq!(reads.status, StatusCode::OK);
    let writes = ask(&world, Method::POST, "/v1/folders", &[("cookie", &cookie), OWN_PAGE]).await;
    assert_eq!(writes.status, StatusCode::CREATED);
    let sessions = ask(&world, Method::GET, "/v1/sessions", &[("cookie", &cookie)]).await.ok();
    assert_eq!(sessions.as_array().unwrap().iter().filter(|session| session["current"] == true).count(), 1);
    // A log-in without the flag is what it was.
    let plain = json!({"address": ada.address, "password": PASSWORD});
    let plain = world.client.post("/v1/sessions", &plain).await;
    assert!(plain.header("set-cookie").is_none() && plain.ok()["token"] != "");
}

#[tokio::test]
async fn pages_of_others_make_nothing_of_a_cookie() {
    let world = World::new().await;
    let ada = world.person().await;
    let cookie = cookie_of(&world, &ada).await;
    let host = world.client.base();
    let of_another = [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", host)],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[],
    ];
    for fields in of_another {
        let shown = [&[("cookie", cookie.as_str())], fields].concat();
        for (method, path) in [
            (Method::POST, "/v1/folders"),
            (Method::POST, "/v1/messages"),
            (Method::DELETE, "/v1/sessions/current"),
            (Method::DELETE, "/v1/accounts/current"),
        ] {
            let answer = ask(&world, method.clone(), path, &shown).await;
            assert_eq!(answer.problem(), "cross_site", "{method} {path} {fields:?}");
        }
        // Nobody is logged in as somebody else either.
        let (answer, cookie) = log_in(&world.client, &ada.address, fields).await;
        assert_eq!((answer.problem().as_str(), cookie), ("cross_site", None), "{fields:?}");
    }
    for fields in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")] {
        let answer = ask(&world, Method::GET, "/v1/folders", &[("cookie", &cookie), fields]).await;
        assert_eq!(answer.problem(), "cross_site");
    }
    assert_eq!(ada.client.get("/v1/folders").await.ok().as_array().unwrap().len(), 6, "nothing was made");
    // Browsers that do not say where a request was made say which origin changes something.
    let old = ask(&world, Method::POST, "/v1/folders", &[("cookie", &cookie), ("origin", host)]).await;
    assert_eq!(old.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_cookie_that_was_stolen_is_over_with_its_session() {
    let world = World::new().await;
    let ada = world.person().await;
    let (first, second) = (cookie_of(&world, &ada).await, cookie_of(&world, &ada).await);
    let left = ask(&world, Method::DELETE, "/v1/sessions/current", &[("cookie", &first), OWN_PAGE]).await;
    assert_eq!(left.status, StatusCode::NO_CONTENT);
    assert!(left.header("set-cookie").unwrap().contains("Max-Age=0"), "the browser forgets it");
    assert_eq!(ask(&world, Method::GET, "/v1/folders", &[("cookie", &first)]).await.problem(), "unauthenticated");
    assert_eq!(ask(&world, Method::GET, "/v1/folders", &[("cookie", &second)]).await.status, StatusCode::OK);
    let change = json!({"current": PASSWORD, "new": "another correct horse"});
    let changed = ada.client.post("/v1/profile/password", &change).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    assert!(changed.header("set-cookie").is_none());
    assert_eq!(ask(&world, Method::GET, "/v1/folders", &[("cookie", &second)]).await.problem(), "unauthenticated");
}

#[tokio::test]
async fn a_token_beside_a_cookie_is_what_counts() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let cookie = cookie_of(&world, &ada).await;
    let both = bob.client.send(Method::GET, "/v1/profile", &[("cookie", &cookie)], None).await.ok();
    assert_eq!(both["address"], bob.address);
    let fields = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    let made = bob.client.send(Method::POST, "/v1/folders", &fields, Some(&json!({"name": "Made"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "whoever has the token needs no cookie");
}
