//! What operators ask, the OpenAPI document and its page.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::{
    DIRECTORY, DOMAIN, OTHER_DIRECTORY, REGIONS, SECOND_DIRECTORY, SECOND_DOMAIN, SECOND_REGIONS, SHARDS,
};
use crate::world::{ADMIN_TOKEN, World};

#[tokio::test]
async fn ready_or_not() {
    let world = World::new().await;
    assert_eq!(world.client.get("/healthz").await.ok()["alive"], true);
    let ready = world.client.get("/readyz").await.ok();
    assert_eq!((ready["directory"]["answered"].as_u64(), ready["mailbox"]["answered"].as_u64()), (Some(3), Some(4)));
    assert_eq!(ready["degraded"], false);
    let until = async |wanted: fn(&crate::client::Answer) -> bool| {
        // An answer is given again for a second.
        let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
        loop {
            let answer = world.client.get("/readyz").await;
            if wanted(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    // One lost shard makes no frontend useless.
    world.cluster.lose_quorum(SHARDS[0].0);
    let answer = until(|answer| answer.status.is_success() && answer.json()["mailbox"]["answered"] == 3).await;
    assert_eq!((&answer.json()["ready"], &answer.json()["degraded"]), (&true.into(), &true.into()));
    // A directory shard that is lost is lost for every frontend: none of them is the better one to go to.
    world.cluster.lose_quorum(OTHER_DIRECTORY);
    let answer = until(|answer| answer.status.is_success() && answer.json()["directory"]["answered"] == 2).await;
    assert_eq!((&answer.json()["ready"], &answer.json()["degraded"]), (&true.into(), &true.into()));
    for directory in [DIRECTORY, SECOND_DIRECTORY] {
        world.cluster.lose_quorum(directory);
    }
    let answer = until(|answer| !answer.status.is_success()).await;
    assert_eq!(answer.problem(), "not_ready");
    assert_eq!(answer.json()["directory"]["answered"], 0);
    assert_eq!(answer.json()["degraded"], true);
    assert!(world.client.get("/healthz").await.status.is_success());
    for shard in [DIRECTORY, OTHER_DIRECTORY, SECOND_DIRECTORY, SHARDS[0].0] {
        world.cluster.regain_quorum(shard);
    }
    until(|answer| answer.status.is_success() && answer.json()["degraded"] == false).await;
}

#[tokio::test]
async fn counters_are_for_the_administrator() {
    let world = World::new().await;
    let ada = world.person().await;
    for client in [&world.client, &ada.client, &world.client.with_token("another token")] {
        assert_eq!(client.get("/metrics").await.problem(), "unauthenticated");
    }
    assert!(world.client.with_token(ADMIN_TOKEN).get("/metrics").await.status.is_success());
}

#[tokio::test]
async fn anybody_is_told_of_the_regions_and_may_probe_them() {
    let world = World::new().await;
    let names = async |path: &str| -> Vec<String> {
        let answer = world.client.get(path).await;
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        let regions = answer.ok()["regions"].as_array().unwrap().clone();
        assert!(
            regions
                .iter()
                .all(|region| region["url"] == format!("https://{}.example", region["name"].as_str().unwrap()))
        );
        assert_eq!(regions.iter().filter(|region| region["here"] == true).count(), usize::from(path.ends_with(DOMAIN)));
        regions.iter().map(|region| region["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&format!("/v1/regions?domain={DOMAIN}")).await, REGIONS);
    assert_eq!(names(&format!("/v1/regions?domain={SECOND_DOMAIN}")).await, SECOND_REGIONS);
    assert_eq!(world.client.get("/v1/regions?domain=elsewhere.example").await.problem(), "not_found");
    assert_eq!(world.client.get("/v1/regions?domian=x").await.problem(), "invalid_query");
    let pong = world.client.get("/v1/ping").await;
    assert_eq!((pong.status.as_u16(), pong.bytes.len()), (204, 0));
    assert_eq!(pong.headers["timing-allow-origin"], "*");
}

#[tokio::test]
async fn domains_are_told_of_by_the_host_that_is_asked_for() {
    let world = World::new().await;
    let ask =
        async |method: Method, host: &str, path: &str| world.client.send(method, path, &[("host", host)], None).await;
    let policy = ask(Method::GET, &format!("mta-sts.{DOMAIN}"), "/.well-known/mta-sts.txt").await;
    assert_eq!(policy.header("content-type"), Some("text/plain; charset=utf-8"));
    let lines = "version: STSv1\r\nmode: enforce\r\nmx: mx-frankfurt.example\r\nmx: mx-seoul.example\r\n\
                 mx: mx-virginia.example\r\nmax_age: 1209600\r\n";
    assert_eq!(String::from_utf8_lossy(&policy.bytes), lines);
    for host in [format!("mta-sts.{SECOND_DOMAIN}"), "mta-sts.elsewhere.example".to_owned(), DOMAIN.to_owned()] {
        assert_eq!(ask(Method::GET, &host, "/.well-known/mta-sts.txt").await.problem(), "not_found", "{host}");
    }
    for (host, path) in [
        (format!("autoconfig.{DOMAIN}"), "/mail/config-v1.1.xml".to_owned()),
        (DOMAIN.to_owned(), "/.well-known/autoconfig/mail/config-v1.1.xml".to_owned()),
        ("127.0.0.1".to_owned(), format!("/mail/config-v1.1.xml?emailaddress=ada%40{DOMAIN}")),
    ] {
        let config = ask(Method::GET, &host, &path).await;
        let text = String::from_utf8_lossy(&config.bytes).into_owned();
        assert!(text.contains(&format!("<hostname>mail.{DOMAIN}</hostname>")), "{host}{path}: {text}");
    }
    let settings = ask(Method::POST, &format!("autodiscover.{DOMAIN}"), "/autodiscover/autodiscover.xml").await;
    assert!(String::from_utf8_lossy(&settings.bytes).contains("<Port>465</Port>"), "{settings:?}");
    let elsewhere = ask(Method::POST, "autodiscover.elsewhere.example", "/Autodiscover/Autodiscover.xml").await;
    assert_eq!(elsewhere.problem(), "not_found");
}

/// DESIGN section 11, as far as it is served.
const PROMISED: &[(&str, &str)] = &[
    ("post", "/v1/accounts"),
    ("post", "/v1/sessions"),
    ("delete", "/v1/sessions/current"),
    ("delete", "/v1/accounts/current"),
    ("delete", "/v1/sessions/{id}"),
    ("get", "/v1/app-passwords"),
    ("post", "/v1/app-passwords"),
    ("delete", "/v1/app-passwords/{app_password_id}"),
    ("get", "/v1/sessions"),
    ("post", "/v1/profile/password"),
    ("get", "/v1/profile"),
    ("patch", "/v1/profile"),
    ("get", "/v1/folders"),
    ("post", "/v1/folders"),
    ("patch", "/v1/folders/{folder_id}"),
    ("delete", "/v1/folders/{folder_id}"),
    ("get", "/v1/folders/{folder_id}/messages"),
    ("get", "/v1/folders/{folder_id}/threads"),
    ("get", "/v1/labels"),
    ("post", "/v1/labels"),
    ("patch", "/v1/labels/{label_id}"),
    ("delete", "/v1/labels/{label_id}"),
    ("get", "/v1/labels/{label_id}/messages"),
    ("get", "/v1/search"),
    ("get", "/v1/search/threads"),
    ("get", "/v1/search/suggest"),
    ("get", "/v1/threads/{thread_id}"),
    ("get", "/v1/messages/{message_id}"),
    ("patch", "/v1/messages/{message_id}"),
    ("delete", "/v1/messages/{message_id}"),
    ("get", "/v1/messages/{message_id}/raw"),
    ("get", "/v1/messages/{message_id}/view"),
    ("get", "/v1/proxy/image"),
    ("get", "/v1/proxy/part"),
    ("get", "/v1/messages/{message_id}/attachments/{attachment_id}"),
    ("post", "/v1/messages"),
    ("post", "/v1/messages/batch"),
    ("post", "/v1/uploads"),
    ("post", "/v1/drafts"),
    ("put", "/v1/drafts/{draft_id}"),
    ("delete", "/v1/drafts/{draft_id}"),
    ("post", "/v1/drafts/{draft_id}/send"),
    ("get", "/v1/outbox"),
    ("get", "/v1/outbox/{outbox_id}"),
    ("post", "/v1/outbox/{outbox_id}/cancel"),
    ("get", "/v1/events"),
    ("get", "/v1/events/poll"),
    ("get", "/v1/regions"),
    ("get", "/v1/ping"),
    ("get", "/v1/admin/accounts/{account}/suppressions"),
    ("delete", "/v1/admin/accounts/{account}/suppressions/{address}"),
    ("put", "/v1/admin/accounts/{account}/suppressions/{address}"),
    ("get", "/v1/admin/domains/{domain}/suppressions"),
    ("delete", "/v1/admin/domains/{domain}/suppressions/{address}"),
    ("put", "/v1/admin/domains/{domain}/suppressions/{address}"),
    ("get", "/v1/admin/feedback"),
    ("get", "/v1/admin/accounts/{account}"),
    ("post", "/v1/admin/accounts/{account}/resume"),
    ("post", "/v1/admin/accounts/{account}/suspend"),
    ("get", "/v1/admin/audit"),
    ("post", "/v1/admin/balance"),
    ("get", "/v1/admin/blobs"),
    ("get", "/v1/admin/cluster"),
    ("get", "/v1/admin/domains"),
    ("get", "/v1/admin/domains/{domain}/dns"),
    ("post", "/v1/admin/nodes/{node}/activate"),
    ("post", "/v1/admin/nodes/{node}/drain"),
    ("get", "/v1/admin/operations"),
    ("get", "/v1/admin/operator"),
    ("get", "/v1/admin/plan"),
    ("get", "/v1/admin/queues"),
    ("post", "/v1/admin/queues/{destination}/hold"),
    ("post", "/v1/admin/queues/{destination}/release"),
    ("get", "/v1/admin/search"),
    ("get", "/v1/admin/shards"),
    ("get", "/v1/feedback"),
    ("get", "/v1/suppressions"),
    ("delete", "/v1/suppressions/{address}"),
    ("put", "/v1/suppressions/{address}"),
    ("get", "/v1/unsubscribe/{token}"),
    ("post", "/v1/unsubscribe/{token}"),
    ("get", "/healthz"),
    ("get", "/v1/second-factor"),
    ("post", "/v1/second-factor"),
    ("delete", "/v1/second-factor"),
    ("post", "/v1/second-factor/confirm"),
    ("post", "/v1/second-factor/recovery-codes"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/"),
    ("get", "/docs"),
    ("get", "/docs/markdown.js"),
    ("get", "/docs/page.js"),
    ("get", "/docs/page.css"),
];

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let world = World::new().await;
    let document = world.client.document();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone())))
        .collect();
    let promised: BTreeSet<_> =
        PROMISED.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(documented, promised);
    // And the server serves just those: any other method of a path is refused.
    let paths: BTreeSet<_> = promised.iter().map(|(_, path)| path.clone()).collect();
    for path in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            let served = promised.contains(&(method.to_owned(), path.clone()));
            let filled = path
                .replace("{folder_id}", "1")
                .replace("{label_id}", "1")
                .replace("{id}", &"0".repeat(32))
                .replace("{attachment_id}", "1");
            let filled = filled.replace("{message_id}", &"0".repeat(32)).replace("{thread_id}", &"0".repeat(32));
            let verb: Method = method.to_uppercase().parse().unwrap();
            let answer = world.client.send(verb, &filled, &[], None).await;
            assert_eq!(answer.status != 405, served, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let world = World::new().await;
    let document = world.client.document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut references = Vec::new();
    collect_references(document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some(), "{reference}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{at}");
            assert!(operation["security"].is_array(), "{at}");
            let names = path.matches('{').count();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            assert_eq!(parameters.filter(|parameter| parameter["in"] == "path").count(), names, "{at}");
        }
    }
    let ids = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<_> = ids.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" => found.push(text.clone()),
                    other => collect_references(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_root_says_where_everything_is() {
    let world = World::new().await;
    let answer = world.client.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some("/docs")));
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    for path in ["/docs", "/openapi.json", "/healthz", "/readyz"] {
        assert!(text.contains(path), "{text}");
    }
}

/// Runs the page's markdown in node, where it is installed, and gives what it makes of each text as a tree of names and texts.
fn shown_markdown(texts: &[&str]) -> Option<Vec<Value>> {
    let script = include_str!("../../src/rest/docs/markdown.js");
    let texts = json!(texts);
    let program = format!(
        "{script}\nconst make = (name, properties, ...children) => \
         ({{ [name]: properties.textContent ?? children, ...(properties.href ? {{ href: properties.href }} : {{}}) }});\n\
         console.log(JSON.stringify({texts}.map((text) => markdown(text, make))));"
    );
    let output = match std::process::Command::new("node").args(["-e", &program]).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: no node here: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn markdown_is_shown_as_such() {
    let cases = [
        (
            "One `a <b>` and\n**two** *three*.",
            json!([{"p": ["One ", {"code": "a <b>"}, " and ", {"strong": ["two"]}, " ", {"em": ["three"]}, "."]}]),
        ),
        (
            "a\n\n- one\n- two\n  lines\n\nb",
            json!([{"p": ["a"]}, {"ul": [{"li": ["one"]}, {"li": ["two lines"]}]}, {"p": ["b"]}]),
        ),
        ("1. one\n2. two", json!([{"ol": [{"li": ["one"]}, {"li": ["two"]}]}])),
        ("# Errors\nNone.", json!([{"h4": ["Errors"]}, {"p": ["None."]}])),
        ("```json\n{ \"*a*\": 1 }\n```", json!([{"pre": "{ \"*a*\": 1 }"}])),
        (
            "| a | b |\n|---|---|\n| 1 | `2` |",
            json!([{"table": [{"tr": [{"th": ["a"]}, {"th": ["b"]}]}, {"tr": [{"td": ["1"]}, {"td": [{"code": "2"}]}]}]}]),
        ),
        (
            "[docs](/docs) [x](javascript:alert) [y](//z.example)",
            json!([{"p": [{"a": ["docs"], "href": "/docs"}, " ", "x", " (javascript:alert)", " ", "y", " (//z.example)"]}]),
        ),
        (
            "<img src=x onerror=y> 2 * 3 * 4 **open `code",
            json!([{"p": ["<img src=x onerror=y> 2 * 3 * 4 **open `code"]}]),
        ),
        ("", json!([])),
    ];
    let texts: Vec<&str> = cases.iter().map(|(text, _)| *text).collect();
    let Some(shown) = shown_markdown(&texts) else { return };
    assert_eq!(shown.len(), cases.len());
    for (shown, (text, expected)) in shown.iter().zip(&cases) {
        assert_eq!(shown, expected, "{text}");
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let world = World::new().await;
    for path in ["/docs", "/docs/markdown.js", "/docs/page.js", "/docs/page.css"] {
        let answer = world.client.get(path).await;
        assert!(answer.status.is_success());
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("http") && !policy.contains("unsafe"));
        let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
        assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
        assert!(!text.contains("innerHTML") && !text.contains("style="), "{path}");
        // Descriptions are markdown: none is put in as it stands.
        assert!(!text.contains("description }") && !text.contains("textContent: spec"), "{path}");
    }
}
