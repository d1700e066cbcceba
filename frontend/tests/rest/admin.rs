//! What operators see and do, and that nobody else does.

use std::collections::BTreeMap;

use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, outcome, query};
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::cluster::Cluster as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{DOMAIN, SHARDS};
use crate::operators::{OPERATOR, SILENT};
use crate::world::{ADMIN_TOKEN, Front, Person, World, command};

fn why(reason: &str) -> Value {
    json!({ "why": reason })
}

/// The audit log as it is in placement, the newest first.
fn log(world: &World) -> Vec<pb::AuditRecord> {
    let list = query::Query::ListAudit(pb::ListAudit { limit: 200, ..Default::default() });
    match world.cluster.ask(ShardId::PLACEMENT, list).unwrap().answer {
        Some(answer::Answer::Audit(page)) => page.records,
        other => panic!("{other:?}"),
    }
}

/// Placement knows the nodes of the map.
fn register(world: &World) {
    let map = world.cluster.map();
    let regions =
        map.regions.iter().map(|region| Op::RegisterRegion(pb::RegisterRegion { region: Some(region.clone()) }));
    let nodes = map.nodes.iter().map(|node| {
        let node = pb::Node { address: format!("node-{}:7105", node.id), ..node.clone() };
        Op::RegisterNode(pb::RegisterNode { node: Some(node) })
    });
    for op in regions.chain(nodes) {
        let made = world.cluster.apply(ShardId::PLACEMENT, command(op)).result;
        assert!(matches!(made, Some(outcome::Result::Done(_))), "{made:?}");
    }
}

/// Every path and method of administration that the document has, with something in the place of each parameter.
fn routes(client: &Client) -> Vec<(Method, String)> {
    let paths = client.document()["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let samples = [
            ("{node}", "1"),
            ("{account}", "ada@postrider.example"),
            ("{address}", "x@far.example"),
            ("{domain}", DOMAIN),
            ("{destination}", "far.example"),
        ];
        let filled = samples.iter().fold(path.clone(), |path, (name, sample)| path.replace(name, sample));
        assert!(!filled.contains('{'), "{path}: a sample is wanted for its parameter");
        let methods = item.as_object().unwrap().keys().filter_map(|name| name.to_uppercase().parse::<Method>().ok());
        methods.map(|method| (method, filled.clone())).collect::<Vec<_>>()
    };
    paths.iter().filter(|(path, _)| path.starts_with("/v1/admin/")).flat_map(of_path).collect()
}

#[tokio::test]
async fn nobody_but_operators_gets_anywhere() {
    let world = World::new().await;
    let ada = world.person_called("ada@postrider.example").await;
    let routes = routes(&world.client);
    assert!(routes.len() >= 26, "all are there: {}", routes.len());
    // Those for who administers domains take the token alone.
    let of_domains = |path: &str| path.contains("/suppressions") || path.contains("/feedback");
    for (method, path) in routes {
        let body = why("curiosity");
        let body = (method != Method::GET).then_some(&body);
        for client in [&world.client, &world.client.with_token("another token")] {
            assert_eq!(
                client.send(method.clone(), &path, &[], body).await.problem(),
                "unauthenticated",
                "{method} {path}"
            );
        }
        let expected = if of_domains(&path) { "unauthenticated" } else { "not_operator" };
        assert_eq!(ada.client.send(method.clone(), &path, &[], body).await.problem(), expected, "{method} {path}");
    }
    assert_eq!(log(&world), [], "a refusal is no action");
    assert!(ada.client.get("/v1/profile").await.status.is_success(), "nobody was suspended");
}

#[tokio::test]
async fn a_frontend_without_an_operators_certificate_serves_no_operator() {
    let world = World::behind(Front { without_operators: true, ..Front::default() }, SignUpPolicy::Open).await;
    let operator = world.person_called(OPERATOR).await;
    for client in [&operator.client, &world.client.with_token(ADMIN_TOKEN)] {
        assert_eq!(client.get("/v1/admin/cluster").await.problem(), "not_operator");
    }
    assert_eq!(world.client.get("/v1/admin/cluster").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn an_operator_is_who_the_configuration_names_or_holds_the_token() {
    let world = World::new().await;
    let operator = world.person_called(OPERATOR).await;
    assert_eq!(operator.client.get("/v1/admin/operator").await.ok()["name"], OPERATOR);
    let token = world.client.with_token(ADMIN_TOKEN);
    assert_eq!(token.get("/v1/admin/operator").await.ok()["name"], "administrator");
    // Where the operator's own mailbox has no leader the page opens, and nothing is done.
    world.cluster.lose_quorum(operator.shard);
    assert!(operator.client.get("/v1/admin/cluster").await.status.is_success());
    assert_eq!(operator.client.post("/v1/admin/balance", &why("now")).await.problem(), "no_quorum");
    world.cluster.regain_quorum(operator.shard);
    // A cookie does nothing that another site's page asks for.
    let cookie = format!("__Host-postrider={}", operator.client.token());
    let asked = |site: &'static str| {
        let fields = [("cookie", cookie.clone()), ("sec-fetch-site", site.to_owned())];
        let client = &world.client;
        async move {
            let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
            client.send(Method::POST, "/v1/admin/balance", &fields, Some(&why("by a page"))).await
        }
    };
    assert_eq!(asked("cross-site").await.problem(), "cross_site");
    assert_eq!(asked("same-origin").await.status.as_u16(), 202);
}

#[tokio::test]
async fn operators_see_the_cluster_as_it_is() {
    let world = World::new().await;
    let client = world.client.with_token(ADMIN_TOKEN);
    let cluster = client.get("/v1/admin/cluster").await.ok();
    let seoul = &cluster["regions"][0];
    assert_eq!((&seoul["name"], &seoul["nodes"], &seoul["answering"]), (&"seoul".into(), &1.into(), &1.into()));
    assert_eq!((&seoul["primaries"], &seoul["weight"]), (&4.into(), &100.into()));
    let node = |id: u64| cluster["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone();
    assert_eq!(
        (&node(1)["up"], &node(1)["state"], &node(1)["version"]),
        (&true.into(), &"active".into(), &"1.2.3".into())
    );
    assert_eq!((&node(SILENT)["up"], &node(SILENT)["version"]), (&false.into(), &Value::Null));
    assert!(node(SILENT)["error"].as_str().unwrap().contains("refused"));
    // Three of each shard's replicas are wanted, and one is on a node that does not answer.
    assert_eq!(cluster["shards"]["missing_replicas"], json!([2, 3, 1000, 1001]));
    assert_eq!(cluster["shards"]["without_primary"], json!([]));
    let shards = client.get("/v1/admin/shards").await.ok()["shards"].clone();
    let shard = shards.as_array().unwrap().iter().find(|shard| shard["shard"] == 1000).unwrap();
    assert_eq!((&shard["kind"], &shard["primary"], &shard["running"]), (&"mailbox".into(), &1.into(), &json!([1, 2])));
    assert_eq!((&shard["lag"], &shard["users"], &shard["bytes"]), (&7.into(), &5.into(), &5000.into()));
    let plan = client.get("/v1/admin/plan").await.ok();
    assert_eq!((&plan["steps"][0]["reason"], &plan["silent_nodes"]), (&"node 1 is fuller".into(), &json!([SILENT])));
    let search = client.get("/v1/admin/search").await.ok();
    assert_eq!((&search["indexes"][0]["lag"], &search["failed"][0]["node"]), (&10.into(), &SILENT.into()));
    assert_eq!(client.get("/v1/admin/blobs").await.ok()["sweeps"], json!([]));
    let domains = client.get("/v1/admin/domains").await.ok();
    assert_eq!((&domains["domains"][0]["domain"], &domains["domains"][0]["zone"]), (&DOMAIN.into(), &"world".into()));
    let check = client.get(&format!("/v1/admin/domains/{DOMAIN}/dns")).await.ok();
    assert_eq!((&check["records"][0]["type"], &check["records"][0]["state"]), (&"MX".into(), &"missing".into()));
    assert_eq!(client.get("/v1/admin/domains/elsewhere.example/dns").await.problem(), "not_found");
    assert_eq!(log(&world), [], "nothing of it names anybody");
}

#[tokio::test]
async fn a_node_is_drained_and_the_log_says_who_and_why() {
    let world = World::new().await;
    let client = world.person_called(OPERATOR).await.client;
    assert_eq!(client.post("/v1/admin/nodes/1/drain", &why("too early")).await.problem(), "not_found");
    register(&world);
    for (body, kind) in [
        (json!({}), "invalid_body"),
        (why("  "), "invalid_body"),
        (why(&"x".repeat(501)), "invalid_body"),
        (why("two\nlines"), "invalid_body"),
        (json!({"why": "x", "force": true}), "invalid_body"),
    ] {
        assert_eq!(client.post("/v1/admin/nodes/1/drain", &body).await.problem(), kind, "{body}");
    }
    let begun = client.post("/v1/admin/nodes/1/drain", &why("disks are replaced")).await;
    assert_eq!(begun.status.as_u16(), 202);
    let id = begun.ok()["operation"].as_u64().unwrap();
    let operations = client.get("/v1/admin/operations").await.ok()["operations"].clone();
    assert_eq!(
        (&operations[0]["id"], &operations[0]["kind"], &operations[0]["of"]),
        (&id.into(), &"drain".into(), &"node 1".into())
    );
    assert_eq!((&operations[0]["state"], &operations[0]["ended_at"]), (&"running".into(), &Value::Null));
    let refused = client.post("/v1/admin/nodes/1/activate", &why("never mind")).await;
    assert!(refused.json()["detail"].as_str().unwrap().contains(&format!("cancel operation {id}")));
    assert_eq!(refused.problem(), "action_refused");
    assert_eq!(client.post("/v1/admin/nodes/2/activate", &why("to be sure")).await.status.as_u16(), 204);
    let lines = client.get("/v1/admin/audit").await.ok()["lines"].clone();
    let told: Vec<_> =
        lines.as_array().unwrap().iter().map(|line| (&line["action"], &line["why"], &line["outcome"])).collect();
    let (drain, activate) = (Value::from("node.drain"), Value::from("node.activate"));
    let (done, failed) = (Value::from("done"), Value::from("failed"));
    assert_eq!(
        told,
        [
            (&activate, &"to be sure".into(), &done),
            (&activate, &"never mind".into(), &failed),
            (&drain, &"disks are replaced".into(), &done),
            (&drain, &"too early".into(), &failed),
        ]
    );
    assert!(lines.as_array().unwrap().iter().all(|line| line["operator"] == OPERATOR));
    assert_eq!(lines[2]["targets"], json!(["node 1"]));
    // Line by line it is the same log.
    let mut cursor = String::new();
    for expected in lines.as_array().unwrap() {
        let page = client.get(&format!("/v1/admin/audit?limit=1{cursor}")).await.ok();
        assert_eq!(&page["lines"][0], expected);
        cursor = page["next_cursor"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!(client.get("/v1/admin/audit?cursor=none").await.problem(), "invalid_cursor");
    assert_eq!(client.get("/v1/admin/audit?limit=201").await.problem(), "invalid_query");
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let world = World::new().await;
    let ada = world.person().await;
    let client = world.client.with_token(ADMIN_TOKEN);
    world.cluster.lose_quorum(ShardId::PLACEMENT);
    let path = format!("/v1/admin/accounts/{}", ada.address);
    assert_eq!(client.get(&path).await.problem(), "no_quorum");
    assert_eq!(client.post(&format!("{path}/suspend"), &why("spam")).await.problem(), "no_quorum");
    assert!(ada.client.get("/v1/profile").await.status.is_success());
}

async fn sends(person: &Person, to: &[&str]) {
    let sent = person.client.post("/v1/messages", &json!({"to": to, "subject": "out", "body": "Hello."})).await;
    assert!(sent.status.is_success(), "{}", sent.json());
}

#[tokio::test]
async fn what_waits_for_a_destination_is_held_and_released() {
    let world = World::new().await;
    let ada = world.person().await;
    for to in [&["x@far.example", "y@far.example", "z@near.example"][..], &["x@far.example"], &["z@near.example"]] {
        sends(&ada, to).await;
    }
    let client = world.person_called(OPERATOR).await.client;
    let queues = async || -> BTreeMap<String, Value> {
        let found = client.get("/v1/admin/queues").await.ok()["destinations"].clone();
        let lines = found.as_array().unwrap().iter();
        lines.map(|line| (line["destination"].as_str().unwrap().to_owned(), line.clone())).collect()
    };
    let before = queues().await;
    let far = &before["far.example"];
    assert_eq!((&far["entries"], &far["recipients"], &far["held"]), (&2.into(), &3.into(), &false.into()));
    let hold =
        async |verb: &str| client.post(&format!("/v1/admin/queues/far.example/{verb}"), &why("it is down")).await.ok();
    assert_eq!(hold("hold").await, json!({"entries": 2, "recipients": 3, "more": false}));
    assert_eq!(hold("hold").await["entries"], 0, "they are held already");
    let held = queues().await;
    assert_eq!((&held["far.example"]["held"], &held["far.example"]["next_at"]), (&true.into(), &Value::Null));
    assert_eq!(held["near.example"]["held"], false, "others go on");
    assert_eq!(hold("release").await, json!({"entries": 2, "recipients": 3, "more": false}));
    assert_eq!(queues().await["far.example"]["held"], false);
    let records = log(&world);
    let actions: Vec<_> = records.iter().filter(|one| one.of == 0 && one.action != "queue.why").collect();
    let told: Vec<_> =
        actions.iter().rev().map(|one| (one.action.as_str(), one.why.as_str(), one.targets.join(","))).collect();
    let line = |action| (action, "it is down", "destination far.example".to_owned());
    assert_eq!(told, [line("queue.hold"), line("queue.hold"), line("queue.release")]);
    assert_eq!(records.iter().filter(|one| one.action == "queue.why").count(), 3, "looks into mail are written down");
    world.cluster.verify();
}

#[tokio::test]
async fn an_account_is_suspended_and_resumed_and_its_mail_is_nobodys() {
    let world = World::new().await;
    let ada = world.person().await;
    world.deliver_text(&ada, "A secret of hers").await;
    let client = world.person_called(OPERATOR).await.client;
    let path = format!("/v1/admin/accounts/{}", ada.address);
    let shown = client.get(&path).await;
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("secret"));
    let shown = shown.ok();
    assert_eq!(
        (&shown["address"], &shown["state"], &shown["messages"]),
        (&ada.address.clone().into(), &"active".into(), &1.into())
    );
    assert_eq!((&shown["shard"], &shown["receives"]), (&SHARDS[0].0.0.into(), &true.into()));
    let suspended =
        client.post(&format!("{path}/suspend"), &json!({"why": "a stolen password", "receive": false})).await;
    assert_eq!(suspended.status.as_u16(), 204);
    assert_eq!(ada.client.get("/v1/folders").await.problem(), "account_suspended");
    let shown = client.get(&path).await.ok();
    assert_eq!((&shown["state"], &shown["receives"]), (&"suspended".into(), &false.into()));
    assert_eq!(client.post(&format!("{path}/resume"), &why("it has another one")).await.status.as_u16(), 204);
    assert!(ada.client.get("/v1/folders").await.status.is_success());
    for nobody in ["nobody@postrider.example", "no address"] {
        let path = format!("/v1/admin/accounts/{}", nobody.replace(' ', "%20"));
        assert_eq!(client.get(&path).await.problem(), "not_found");
    }
    let told: Vec<_> = log(&world).into_iter().filter(|one| one.of == 0).collect();
    let actions: Vec<_> = told.iter().rev().map(|one| (one.action.as_str(), one.why.as_str())).collect();
    let show = ("account.show", "");
    assert_eq!(
        actions,
        [show, ("account.suspend", "a stolen password"), show, ("account.resume", "it has another one")]
    );
    // ADR 070: the log outlives accounts, and names none.
    assert!(told.iter().all(|one| one.operator == OPERATOR && !one.targets.join(" ").contains('@')), "{told:?}");
}
