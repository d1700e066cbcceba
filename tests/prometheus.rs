//! What operators see: rules and alerts are tested by promtool, each alert has a runbook that names only what there is, and a real Prometheus
//! that scrapes a loaded demo answers every query of every panel and rule. Then a region is taken away, and the alert that tells of it fires.
//!
//! Nothing is installed here. Where prometheus is missing the tests say so, and fail in CI unless POSTRIDER_ALLOW_MISSING names it.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, Region, smtp};
use serde_json::Value;

/// What may be named in POSTRIDER_ALLOW_MISSING.
const NEEDED: &str = "prometheus";
/// What dashboards leave to Grafana, as it would fill them in here.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "30s"), ("$region", ".*")];
/// How long an alert of thirty seconds may take to fire: scraped, judged, waited for.
const FIRES_WITHIN: Duration = Duration::from_secs(120);

/// Of these nothing is counted while all is well, or in a demo at all. The reason stands behind each.
const SILENT: &[(&str, &str)] = &[
    ("postrider_raft_campaigns_total", "leaders are there"),
    ("postrider_node_leads_sent_home_total", "leads are at home"),
    ("postrider_node_refusals_total", "nothing is refused"),
    ("postrider_smtp_messages_total{result=\"refused\"", "nothing is refused"),
    ("postrider_worker_outside_total", "a demo sends nothing to the outside"),
    ("cluster:postrider_outgoing_deferred:ratio_rate5m", "a demo sends nothing to the outside"),
    ("postrider_outgoing_sessions_total", "a demo sends nothing to the outside"),
    ("postrider_outgoing_recipients_total", "a demo sends nothing to the outside"),
    ("postrider_limited_total", "nobody is limited"),
    ("postrider_router_retries_total", "nodes answer at once"),
    ("postrider_dns_region_changes_total", "no region has left the answers"),
    ("postrider_dns_prefixes", "measurements are saved and counted once a minute"),
    ("postrider_dns_signatures_total", "a demo's zones are not signed"),
    ("postrider_raft_log_bytes", "it is measured when the state is flushed, which takes minutes"),
    ("postrider_raft_state_blob_bytes", "it is measured when the state is flushed, which takes minutes"),
    ("postrider_raft_state_blob_garbage_bytes", "it is measured when the state is flushed, which takes minutes"),
];

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether the tests may go on; says it where not.
fn prometheus_is_there() -> bool {
    let is_there = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if is_there("prometheus") && is_there("promtool") {
        return true;
    }
    let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
    let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == NEEDED);
    assert!(is_passed_over, "there is no prometheus; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs it");
    eprintln!("PASSED OVER: there is no prometheus");
    false
}

/// The values behind `key` at the beginnings of lines.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn rules_hold_their_tests_and_every_alert_is_tested() {
    if !prometheus_is_there() {
        return;
    }
    for words in
        [&["check", "rules", "rules/alerts.yml", "rules/recording.yml"][..], &["test", "rules", "tests/alerts.yml"]]
    {
        let output = Command::new("promtool")
            .args(words)
            .current_dir(repository().join("deploy/prometheus"))
            .output()
            .expect("run promtool");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {words:?}: {said}");
    }
    let (rules, tests) = (read("deploy/prometheus/rules/alerts.yml"), read("deploy/prometheus/tests/alerts.yml"));
    let fires: Vec<&str> = tests.split("alertname: ").skip(1).filter(|test| test.contains("exp_alerts:")).collect();
    for alert in values(&rules, "- alert: ") {
        let is_tested = fires.iter().any(|test| {
            let (name, rest) = test.split_once('\n').expect("more follows");
            name.trim() == alert && rest.trim_start().starts_with("exp_alerts:")
        });
        assert!(is_tested, "{alert}: no test in which it fires");
    }
}

#[test]
fn every_alert_has_a_runbook_that_names_what_there_is() {
    let rules = read("deploy/prometheus/rules/alerts.yml");
    let alerts = values(&rules, "- alert: ");
    let runbooks = values(&rules, "runbook: ");
    assert!(alerts.len() > 20 && alerts.len() == runbooks.len(), "each alert has one");
    let sources = sources();
    for (alert, path) in alerts.iter().zip(&runbooks) {
        let page = read(path);
        assert!(page.starts_with(&format!("# {alert}\n")), "{path} is about {alert}");
        assert!(page.contains("**Danger:**") && page.contains("\n## "), "{path} says what is dangerous and what to do");
        assert!(page.contains("\n$ ") || page.contains("In Prometheus: "), "{path} has a command or a query");
        for line in page.lines().filter(|line| line.contains("journalctl")) {
            // What it looks for in a log is in a log.
            for pattern in line.split(" -g ").skip(1) {
                let pattern = match pattern.strip_prefix('\'') {
                    Some(quoted) => quoted.split('\'').next().expect("a pattern"),
                    None => pattern.split_whitespace().next().expect("a pattern"),
                };
                for word in pattern.split('|') {
                    assert!(sources.contains(word), "{path}: nothing here ever logs {word:?}");
                }
            }
        }
        for link in page.split("](").skip(1) {
            let target = link.split(')').next().expect("a target");
            assert!(repository().join("docs/operating/runbooks").join(target).exists(), "{path}: there is no {target}");
        }
    }
    let pages = std::fs::read_dir(repository().join("docs/operating/runbooks")).expect("runbooks").count();
    assert_eq!(pages, alerts.len(), "each runbook belongs to an alert");
}

/// All of the rooms' sources, one behind the other.
fn sources() -> String {
    let output = Command::new("find")
        .args(["src", "node", "raft", "frontend/src", "router", "shard", "-name", "*.rs", "-exec", "cat", "{}", "+"])
        .current_dir(repository())
        .output()
        .expect("run find");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Queries, by where they stand.
fn queries() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join("deploy/grafana")).expect("dashboards").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("read a dashboard");
        let dashboard: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{:?}: {error}", entry.path()));
        let title = dashboard["title"].as_str().expect("a title");
        for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!("{title}, {}, {}", panel["title"], target["refId"]);
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                for (name, value) in VARIABLES {
                    query = query.replace(name, value);
                }
                assert!(!query.contains('$'), "{place}: a variable that this test does not know: {query}");
                assert!(all.insert(place.clone(), query).is_none(), "{place}: there twice");
            }
        }
    }
    assert!(all.len() > 80, "the panels were found: {}", all.len());
    all
}

/// Names of metrics and of recorded rules in a query or a rule file.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_matches(':'));
    let kept = words
        .filter(|word| word.starts_with("postrider_") || word.starts_with("process_") || word.contains(":postrider_"));
    kept.map(str::to_owned).collect()
}

#[test]
fn rules_and_panels_name_only_what_is_counted() {
    let page = read("docs/operating/metrics.md");
    let recorded = read("deploy/prometheus/rules/recording.yml");
    let recorded = values(&recorded, "- record: ");
    let known = |name: &str| {
        let of_histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(*end));
        recorded.contains(&name)
            || page.contains(&format!("| `{name}` |"))
            || of_histogram.is_some_and(|name| page.contains(&format!("| `{name}` | histogram |")))
    };
    let rules = ["recording", "alerts"].map(|name| {
        let text = read(format!("deploy/prometheus/rules/{name}.yml"));
        let rules = text.lines().filter(|line| !line.trim_start().starts_with(['#', '-']) || line.contains("record:"));
        (name.to_owned(), rules.collect::<Vec<_>>().join("\n"))
    });
    for (place, text) in queries().into_iter().chain(rules) {
        for name in names(&text) {
            // Names of groups are no metrics.
            assert!(known(&name), "{place}: nobody counts {name}");
        }
    }
    for (silent, _) in SILENT {
        assert!(names(silent).iter().all(|name| known(name)), "{silent} is counted");
    }
}

/// A Prometheus with a directory of its own, until it is dropped.
struct Prometheus {
    process: Child,
    base: String,
    http: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Prometheus {
    async fn start(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let rules = repository().join("deploy/prometheus/rules");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{:?}, {:?}]\n\
             scrape_configs:\n  - job_name: postrider\n    static_configs: {}\n",
            rules.join("recording.yml"),
            rules.join("alerts.yml"),
            targets(cluster)
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).expect("write the configuration");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let log = std::fs::File::create(dir.path().join("log")).expect("make a log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start prometheus");
        let mut prometheus =
            Self { process, base: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new(), dir };
        let begin = Instant::now();
        while !prometheus.is_ready().await {
            let ended = prometheus.process.try_wait().expect("look after prometheus");
            let log = std::fs::read_to_string(prometheus.dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && begin.elapsed() < DEADLINE, "prometheus is not ready ({ended:?}): {log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        prometheus
    }

    async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/-/ready", self.base)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let asked = self.http.get(format!("{}{path}", self.base)).query(query).send().await.expect("ask prometheus");
        let answer: Value = asked.json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// The series that a query gives now.
    async fn query(&self, query: &str) -> Vec<Value> {
        self.get("/api/v1/query", &[("query", query)]).await["result"].as_array().expect("series").clone()
    }

    /// Alerts that fire, by name.
    async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.get("/api/v1/alerts", &[]).await;
        let firing = alerts["alerts"].as_array().expect("alerts").iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every process of the demo, with the labels that the rules use, from what the demo has written for it.
fn targets(cluster: &Cluster) -> Value {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(cluster.data_dir()).expect("the demo's directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(text) = std::fs::read_to_string(entry.path().join("config.toml")) else { continue };
        let config: toml::Table = text.parse().expect("TOML");
        let listen = config["metrics_listen"].as_str().expect("where it tells what it counts");
        let (role, which) = name.split_once('-').expect("ROLE-NAME");
        // A store's configuration does not say where it stands, its name does.
        let region = config.get("region").and_then(toml::Value::as_str).unwrap_or(which);
        targets.push(serde_json::json!({ "targets": [listen], "labels": { "role": role, "region": region } }));
    }
    assert_eq!(targets.len(), 12, "four processes in each of three regions: {targets:?}");
    Value::from(targets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_demo_answers_every_query_and_a_lost_region_is_told() {
    if !prometheus_is_there() {
        return;
    }
    let cluster = Cluster::start(Options::default()).await;
    let prometheus = Prometheus::start(&cluster).await;
    let mut queries = queries();
    let recorded = read("deploy/prometheus/rules/recording.yml");
    queries.extend(values(&recorded, "- record: ").into_iter().map(|name| (format!("rule {name}"), name.to_owned())));
    queries.retain(|_, query| !SILENT.iter().any(|(silent, _)| query.contains(silent)));

    let load = Load::start(&cluster).await;
    let begin = Instant::now();
    while !queries.is_empty() {
        load.round().await;
        let mut left = BTreeMap::new();
        for (place, query) in queries {
            let answered = prometheus.query(&query).await;
            // A ratio of nothing to nothing is no number.
            let is_number = |series: &Value| series["value"][1] != "NaN";
            if !answered.iter().any(is_number) {
                left.insert(place, query);
            }
        }
        queries = left;
        assert!(begin.elapsed() < 2 * DEADLINE, "these give no data under load: {queries:#?}");
    }
    let rules = prometheus.get("/api/v1/rules", &[]).await;
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
    assert_eq!(prometheus.firing().await, BTreeSet::new(), "all is well");

    // A region without a storage node: that is told, and that shards have no leader is not, for they have.
    let lost = cluster.region("frankfurt").clone();
    cluster.kill(&lost.nodes.iter().map(|node| node.pid).collect::<Vec<_>>()).await;
    let begin = Instant::now();
    let firing = loop {
        let firing = prometheus.firing().await;
        if firing.contains("PostriderRegionDown") {
            break firing;
        }
        assert!(begin.elapsed() < FIRES_WITHIN, "nobody tells of the lost region: {firing:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(!firing.contains("PostriderShardsWithoutLeader"), "{firing:?}");
}

/// What people and programs do, a little of everything in each round.
struct Load {
    regions: Vec<Region>,
    users: Vec<Api>,
}

impl Load {
    /// As many users as it takes for some to be in different shards.
    const USERS: usize = 8;

    async fn start(cluster: &Cluster) -> Self {
        let regions = cluster.ready().regions.clone();
        let mut users = Vec::new();
        for number in 0..Self::USERS {
            let region = &regions[number % regions.len()];
            users.push(Api::sign_up(region, &format!("user{number}@postrider.example")).await);
        }
        Self { regions, users }
    }

    async fn round(&self) {
        let everybody: Vec<&str> = self.users.iter().map(|user| user.address.as_str()).collect();
        for region in &self.regions {
            let reply =
                smtp::deliver(&region.smtp, &everybody, &smtp::text("To all of them", "Seen by everybody.")).await;
            assert!(reply.starts_with("250"), "{reply}");
            smtp::deliver(&region.smtp, &everybody[..1], &smtp::attachment("A large one")).await;
            question(&region.dns);
        }
        for user in &self.users {
            for row in user.inbox().await.iter().take(2) {
                // Twice: what was far is near then.
                for _ in 0..2 {
                    user.get(&format!("/v1/messages/{}", row["id"].as_str().expect("an id"))).await;
                }
            }
            user.get("/v1/search?q=everybody").await;
        }
        let user = &self.users[0];
        let wrong = serde_json::json!({ "address": user.address, "password": "not this one" });
        user.http.post(format!("{}/v1/sessions", user.base)).json(&wrong).send().await.expect("an answer");
        // A stream of events is open for the length of a poll.
        user.get("/v1/events/poll?since=0&timeout_s=1").await;
    }
}

/// One question to a name server, over UDP; what it answers is not looked at here.
fn question(server: &str) {
    let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["mail", "postrider", "example"] {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend_from_slice(label.as_bytes());
    }
    // The root, A, IN (RFC 1035 section 4.1.2).
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(&message, server).expect("send a question");
}
