//! The webmail beside the interface: who gets which, and that the page's client knows the interface as it is.

use std::path::PathBuf;

use serde_json::Value;

use crate::world::World;

/// What browsers say that they take when somebody opens an address.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

#[tokio::test]
async fn browsers_get_the_page_and_programs_what_they_got_before() {
    let world = World::new().await;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = |path: &str| http.get(format!("{}{path}", world.client.base()));
    for path in ["/", "/mail", "/mail/inbox/0123", "/settings", "/settings/labels", "/login", "/sign-up"] {
        let answer = get(path).header(BROWSER.0, BROWSER.1).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8", "{path}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(get("/").send().await.unwrap().status().as_u16(), 303, "programs are told where the interface is");
    for path in ["/admin", "/admin/queues"] {
        let answer = get(path).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["cache-control"]),
            (200, &"no-cache".parse().unwrap()),
            "{path}"
        );
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"), "{policy}");
        assert!(answer.text().await.unwrap().contains("/webmail/assets/admin-"), "{path} is a page of its own");
    }
    for path in ["/webmail/assets/none.js", "/webmail/", "/webmail/../Cargo.toml", "/mailbox"] {
        let answer = get(path).header(BROWSER.0, BROWSER.1).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404, "{path}");
    }
    for path in ["/v1", "/v1/none", "/v1/folders"] {
        let answer = get(path).header(BROWSER.0, BROWSER.1).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path} is the interface's");
    }
}

/// The document that the page's client is generated from says nothing that is not so any more. What the interface has gained since does
/// not matter to it. `POSTRIDER_WRITE_OPENAPI=1` writes the document anew; then `npm run api` in `frontend/webmail`.
#[test]
fn the_pages_client_knows_the_interface_as_it_is() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("webmail/openapi.json");
    let now = postrider_frontend::rest::openapi().expect("the document can be written");
    if std::env::var_os("POSTRIDER_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, format!("{now}\n")).expect("the document can be written to its file");
    }
    let known = std::fs::read_to_string(&path).expect("the document of the client is there");
    let known: Value = serde_json::from_str(&known).expect("it is JSON");
    let now: Value = serde_json::from_str(&now).expect("it is JSON");
    let gone = not_covered(&now, &known, "");
    assert!(gone.is_empty(), "write it anew (see this test's comment):\n{}", gone.join("\n"));
}

/// Where `known` says something that `now` does not say. Prose may change.
fn not_covered(now: &Value, known: &Value, at: &str) -> Vec<String> {
    match (now, known) {
        (Value::Object(now), Value::Object(known)) => known
            .iter()
            .filter(|(name, value)| !(matches!(name.as_str(), "description" | "summary") && value.is_string()))
            .flat_map(|(name, value)| {
                let at = format!("{at}/{name}");
                now.get(name).map_or_else(|| vec![format!("{at} is gone")], |now| not_covered(now, value, &at))
            })
            .collect(),
        (Value::Array(now), Value::Array(known)) => {
            let is_there = |value: &Value| now.iter().any(|now| not_covered(now, value, at).is_empty());
            known.iter().filter(|value| !is_there(value)).map(|value| format!("{at} lacks {value}")).collect()
        }
        _ if now == known => Vec::new(),
        _ => vec![format!("{at}: {now} where {known} was")],
    }
}
