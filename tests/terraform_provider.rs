//! The provider, driven by the real terraform against a cluster: what is configured is so, and a plan behind it shows no difference; what somebody
//! changed by `ctl` shows; what is there is imported; a node is emptied by `apply` while mail comes in, and whoever is interrupted goes on.

mod harness;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::terraform::{Terraform, flat, said, terraform_is_there, with_mirror, with_provider};
use harness::{Cluster, DEADLINE, Options};
use serde_json::Value;

const PAUSE: Duration = Duration::from_millis(100);

/// A folder with a configuration for a cluster.
struct Folder {
    dir: tempfile::TempDir,
    terraform: Terraform,
    head: String,
}

impl Folder {
    fn new(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let ready = cluster.ready();
        let texts = |texts: Vec<&str>| texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ");
        let nodes =
            texts(ready.regions.iter().flat_map(|region| &region.nodes).map(|node| node.grpc.as_str()).collect());
        let frontends = texts(ready.regions.iter().map(|region| region.rest.as_str()).collect());
        let data = cluster.data_dir();
        let head = format!(
            "terraform {{\n  required_providers {{\n    postrider = {{ source = \"postrider/postrider\" }}\n  }}\n}}\n\
             provider \"postrider\" {{\n  nodes = [{nodes}]\n  frontends = [{frontends}]\n  identity = \"{0}/ctl\"\n  \
             cluster_secret_file = \"{0}/secrets/cursor-secret\"\n}}\n",
            data.display()
        );
        let config = with_provider(dir.path());
        // The token comes as an operator would give it.
        let terraform = Terraform::new(dir.path())
            .with("TF_CLI_CONFIG_FILE", config.to_string_lossy())
            .with("POSTRIDER_ADMIN_TOKEN", ready.admin_token.as_str())
            .with("TF_LOG_PROVIDER", "INFO")
            .with("TF_LOG_PATH", dir.path().join("log").to_string_lossy());
        Self { dir, terraform, head }
    }

    fn configure(&self, body: &str) {
        fs::write(self.dir.path().join("main.tf"), format!("{}{body}", self.head)).expect("write main.tf");
    }

    fn state(&self) -> String {
        fs::read_to_string(self.dir.path().join("terraform.tfstate")).expect("read the state")
    }

    /// What the provider told while terraform ran.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn apply(&self) -> String {
        self.terraform.good(&["apply", "-no-color", "-auto-approve"])
    }

    fn no_difference(&self) {
        let (code, plan) = self.terraform.plan();
        assert_eq!(code, Some(0), "{plan}");
    }

    fn difference(&self, parts: &[&str]) -> String {
        let (code, plan) = self.terraform.plan();
        assert!(code == Some(2) && parts.iter().all(|part| plan.contains(part)), "{parts:?}: {code:?}: {plan}");
        plan
    }

    fn output(&self) -> Value {
        serde_json::from_str(&self.terraform.good(&["output", "-json"])).expect("JSON")
    }
}

fn everything(rotation: &str) -> String {
    format!(
        r#"
resource "postrider_policy" "near" {{
  name    = "near"
  regions = ["virginia", "seoul", "frankfurt"]
  home    = "seoul"
}}
resource "postrider_domain" "second" {{
  name            = "second.example"
  policy          = postrider_policy.near.name
  dkim_rotation   = "{rotation}"
  dkim_algorithms = ["ed25519"]
}}
resource "postrider_region" "seoul" {{
  name              = "seoul"
  weight            = 50
  url               = "https://seoul.postrider.example"
  forget_on_destroy = true
}}
resource "postrider_account" "ada" {{
  address  = "ada@postrider.example"
  password = "correct horse battery"
  name     = "Ada"
  category = "bulk"
}}
resource "postrider_node" "one" {{
  id                = 1
  forget_on_destroy = true
}}
resource "postrider_shards" "mail" {{
  total = 3
}}
resource "postrider_placement" "cluster" {{
  depends_on = [postrider_shards.mail]
}}
data "postrider_cluster" "this" {{
  depends_on = [postrider_domain.second]
}}
data "postrider_nodes" "seoul" {{
  region     = "seoul"
  depends_on = [postrider_placement.cluster]
}}
data "postrider_shards" "mail" {{
  policy     = ""
  depends_on = [postrider_shards.mail]
}}
data "postrider_plan" "now" {{}}
data "postrider_domain_records" "second" {{
  domain     = postrider_domain.second.name
  dmarc      = "reject"
  depends_on = [postrider_domain.second]
  regions = [for name in ["seoul", "frankfurt", "virginia"] : {{
    name      = name
    addresses = ["192.0.2.1"]
    mail_host = "mx-${{name}}.postrider.example"
    ns_host   = "ns-${{name}}.postrider.example"
  }}]
}}
output "domains" {{ value = data.postrider_cluster.this.domains }}
output "nodes" {{ value = data.postrider_nodes.seoul.nodes }}
output "shards" {{ value = data.postrider_shards.mail.shards }}
output "silent" {{ value = data.postrider_plan.now.silent_nodes }}
output "zone_file" {{ value = data.postrider_domain_records.second.zone_file }}
output "ids" {{ value = postrider_shards.mail.ids }}
output "dkim" {{ value = postrider_domain.second.dkim_records }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_kept_as_it_is_configured() {
    if !terraform_is_there() {
        return;
    }
    let cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let folder = Folder::new(&cluster);
    let terraform = &folder.terraform;
    folder.configure(&everything("first"));
    // Installed as by somebody without a registry: init finds it, and writes the lock file.
    let mirrored =
        Terraform::new(folder.dir.path()).with("TF_CLI_CONFIG_FILE", with_mirror(folder.dir.path()).to_string_lossy());
    mirrored.good(&["init", "-no-color"]);
    mirrored.good(&["validate", "-no-color"]);
    terraform.good(&["validate", "-no-color"]);

    folder.difference(&["postrider_domain.second will be created", "(known after apply)"]);
    folder.apply();
    folder.no_difference();
    is_so(&cluster, &folder).await;
    is_drift_seen(&cluster, &folder).await;
    is_rotated(&cluster, &folder).await;
    is_refused(&folder);
    is_imported(&folder);

    let destroyed = flat(&terraform.good(&["destroy", "-no-color", "-auto-approve"]));
    assert!(destroyed.contains("Shards are never removed"), "{destroyed}");
    let (policies, _) = cluster.ctl(&["policy", "list"]).await;
    assert_eq!(policies.as_array().map(Vec::len), Some(0), "{policies}");
    let gone = cluster.ctl_raw(&["account", "show", "ada@postrider.example"]).await;
    assert!(said(&gone).contains("nobody has the address"), "{}", said(&gone));
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    assert_eq!(nodes.as_array().map(Vec::len), Some(3), "what is forgotten stays: {nodes}");
    cluster.until_whole().await;
}

/// What is configured is what the cluster says, and what the data sources do.
async fn is_so(cluster: &Cluster, folder: &Folder) {
    let (policies, _) = cluster.ctl(&["policy", "list"]).await;
    assert_eq!((&policies[0]["name"], &policies[0]["home"]), (&"near".into(), &"seoul".into()), "{policies}");
    let (regions, _) = cluster.ctl(&["region", "list"]).await;
    let seoul = regions.as_array().expect("a list").iter().find(|region| region["name"] == "seoul").expect("seoul");
    assert_eq!((&seoul["weight"], &seoul["url"]), (&50.into(), &"https://seoul.postrider.example".into()));
    let (account, _) = cluster.ctl(&["account", "show", "ada@postrider.example"]).await;
    assert_eq!((&account["category"], &account["state"]), (&"bulk".into(), &"active".into()), "{account}");
    let user = Api::log_in(cluster.region("virginia"), "ada@postrider.example", "correct horse battery").await;
    assert!(user.inbox().await.is_empty());
    let (shards, _) = cluster.ctl(&["shards"]).await;
    let mailboxes = shards.as_array().expect("a list").iter().filter(|line| line["shard"].as_u64() >= Some(1000));
    assert_eq!(mailboxes.count(), 3, "{shards}");
    let output = folder.output();
    let value = |name: &str| output[name]["value"].clone();
    assert!(value("domains").as_array().expect("a list").contains(&"second.example".into()), "{output}");
    assert_eq!(value("nodes")[0]["state"], "active", "{output}");
    // Placement and the directory are held to no policy, either.
    assert_eq!(value("shards").as_array().map(Vec::len), Some(5), "{output}");
    assert_eq!(value("ids"), serde_json::json!([1000, 1001, 1002]));
    assert_eq!(value("silent"), serde_json::json!([]));
    let zone = value("zone_file").as_str().expect("text").to_owned();
    assert!(
        zone.contains("mx-seoul.postrider.example") && zone.contains("p=reject") && zone.contains("first-ed25519"),
        "{zone}"
    );
    // Who did it stands in the audit log, and how far it was in terraform's.
    let (audit, _) = cluster.ctl(&["audit", "--target", "shard 1002"]).await;
    assert!(audit.as_array().expect("a list").iter().any(|line| line["why"] == "by Terraform"), "{audit}");
    let log = folder.log();
    assert!(log.contains("shard 1002: making") || log.contains("1 shards are made"), "{log}");
    for secret in ["PRIVATE KEY", "wrapped", "cursor"] {
        assert!(!folder.state().contains(secret), "{secret} is in the state");
    }
    assert!(!log.contains("correct horse"), "no password is in the log");
}

/// What somebody changed by `ctl` shows, and an apply puts it back.
async fn is_drift_seen(cluster: &Cluster, folder: &Folder) {
    for words in [
        &["region", "weight", "seoul", "10"][..],
        &["account", "suspend", "ada@postrider.example"],
        &["policy", "set", "near", "--zone", "demo", "--home", "virginia"],
    ] {
        let output = cluster.ctl_raw(words).await;
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    }
    folder.difference(&["10 -> 50", "suspended", "\"virginia\" -> \"seoul\"", "3 to change"]);
    folder.apply();
    folder.no_difference();
    let (account, _) = cluster.ctl(&["account", "show", "ada@postrider.example"]).await;
    assert_eq!(account["state"], "active", "{account}");
}

/// Another name makes another key; the old one does not sign any more.
async fn is_rotated(cluster: &Cluster, folder: &Folder) {
    folder.configure(&everything("second"));
    folder.difference(&["\"first\" -> \"second\"", "dkim_records", "1 to change"]);
    folder.apply();
    folder.no_difference();
    let (keys, _) = cluster.ctl(&["dkim", "list", "second.example"]).await;
    let state = |selector: &str| {
        let key = keys.as_array().expect("a list").iter().find(|key| key["selector"] == selector);
        key.map(|key| key["state"].clone())
    };
    assert_eq!(state("first-ed25519"), Some("retired".into()), "{keys}");
    assert_eq!(state("second-ed25519"), Some("signs".into()), "{keys}");
    // A key that somebody retires is missed, and a name is used once.
    let retired = cluster.ctl_raw(&["dkim", "retire", "second.example", "second-ed25519"]).await;
    assert!(retired.status.success(), "{}", said(&retired));
    folder.difference(&["+ dkim_rotation"]);
    let used = folder.terraform.bad(&["apply", "-no-color", "-auto-approve"]);
    assert!(used.contains("choose another"), "{used}");
    folder.configure(&everything("third"));
    folder.apply();
    folder.no_difference();
}

/// What cannot be is said before anything is done, with what to do.
fn is_refused(folder: &Folder) {
    let good = everything("third");
    let wrong = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        folder.configure(&good.replace(from, to));
        folder.terraform.bad(&["plan", "-no-color"])
    };
    assert!(wrong("total = 3", "total = 2").contains("Shards are never removed"));
    assert!(wrong("weight            = 50", "weight            = -1").contains("Not a weight"));
    assert!(wrong("category = \"bulk\"", "category = \"spam\"").contains("Not a category"));
    assert!(
        wrong("id                = 1", "id                = 1\n  timeouts = { create = \"soon\" }")
            .contains("Not a duration")
    );
    folder.configure(&good);
    folder.no_difference();
}

/// Terraform forgets everything and is told of it again.
fn is_imported(folder: &Folder) {
    let terraform = &folder.terraform;
    for (address, id) in [
        ("postrider_policy.near", "near"),
        ("postrider_domain.second", "second.example"),
        ("postrider_region.seoul", "seoul"),
        ("postrider_node.one", "1"),
        ("postrider_shards.mail", "demo/"),
        ("postrider_placement.cluster", "cluster"),
        ("postrider_account.ada", "ada@postrider.example"),
    ] {
        terraform.good(&["state", "rm", address]);
        terraform.good(&["import", "-no-color", address, id]);
    }
    let missing = terraform.run(&["import", "-no-color", "postrider_policy.near", "far"]);
    assert!(!missing.status.success(), "{}", said(&missing));
    // What only the configuration knows: the password, and what is to become of them when they are destroyed.
    let plan = folder.difference(&["password", "0 to add", "0 to destroy"]);
    for known in [
        "postrider_policy.near will",
        "postrider_domain.second will",
        "postrider_shards.mail will",
        "postrider_placement.cluster will",
    ] {
        assert!(!plan.contains(known), "{known}: {plan}");
    }
    folder.apply();
    folder.no_difference();
}

/// A node with its region's other one.
fn one_node(id: u64, drain: bool) -> String {
    format!("resource \"postrider_node\" \"one\" {{\n  id    = {id}\n  drain = {drain}\n}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_by_apply_and_whoever_is_interrupted_goes_on() {
    if !terraform_is_there() {
        return;
    }
    let cluster = Cluster::start(Options { shards: 2, nodes_per_region: 2, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "drained@postrider.example").await;
    let (_, primary) = cluster.primary_of(&user.address).await;
    let folder = Folder::new(&cluster);
    folder.configure(&one_node(primary, false));
    folder.apply();
    folder.no_difference();

    // The region's other node, which would have to take everything, stands still: emptying comes to no end.
    let other = cluster.region_of(primary).nodes.iter().find(|node| node.id != primary).expect("another node").pid;
    cluster.freeze(other);
    folder.configure(&one_node(primary, true));
    let stopped = interrupted(&cluster, &folder, "-INT").await;
    assert!(stopped.contains("stopped waiting") && stopped.contains("goes on by itself"), "{stopped}");
    is_draining(&cluster, primary).await;
    folder.difference(&["\"draining\" -> \"drained\""]);
    interrupted(&cluster, &folder, "-KILL").await;
    is_draining(&cluster, primary).await;
    cluster.thaw(other);
    folder.apply();
    folder.no_difference();
    assert_eq!(replicas_on(&cluster, primary).await, 0);
    let (operations, _) = cluster.ctl(&["operations"]).await;
    let drains = operations.as_array().expect("a list").iter().filter(|line| line["kind"] == "drain");
    assert_eq!(drains.count(), 1, "all three applies were for the one that was recorded: {operations}");
    // And back.
    folder.configure(&one_node(primary, false));
    folder.difference(&["\"drained\" -> \"active\""]);
    folder.apply();
    folder.no_difference();

    // A node that bears something, while mail comes in.
    let (_, primary) = cluster.primary_of(&user.address).await;
    folder.terraform.good(&["state", "rm", "postrider_node.one"]);
    folder.configure(&one_node(primary, false));
    folder.apply();
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "terraform");
    let load = Load::start(Plan { connections: 4, attachment_every: 5, ..plan });
    load.until_accepted(30).await;
    folder.configure(&one_node(primary, true));
    tokio::task::block_in_place(|| folder.apply());
    load.until_accepted(30).await;
    assert_eq!(replicas_on(&cluster, primary).await, 0);
    tokio::task::block_in_place(|| folder.terraform.good(&["destroy", "-no-color", "-auto-approve"]));
    load.until_accepted(30).await;
    let books = load.finish().await;
    let refused = books.attempts.len() - books.accepted();
    assert_eq!(refused, 0, "no client of {} sees a node go", books.attempts.len());
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    assert!(nodes.as_array().expect("a list").iter().all(|node| node["id"].as_u64() != Some(primary)), "{nodes}");
    books.check(std::slice::from_ref(&user)).await;
    cluster.assert_consistent().await;
}

/// Begins an apply, interrupts terraform once the drain is recorded and the provider waits for it, and says what it said.
async fn interrupted(cluster: &Cluster, folder: &Folder, signal: &str) -> String {
    let log = folder.dir.path().join("log");
    let _ = fs::remove_file(&log);
    let child = folder.terraform.command(&["apply", "-no-color", "-auto-approve"]);
    let mut child = { child }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run terraform");
    let begin = Instant::now();
    while !folder.log().contains("waiting for operation") {
        if child.try_wait().expect("a child").is_some() {
            let output = child.wait_with_output().expect("wait for terraform");
            panic!("it ends before the provider waits: {}", said(&output));
        }
        assert!(begin.elapsed() < DEADLINE, "the provider waits: {}\n{}", folder.log(), cluster.demo_log());
        tokio::time::sleep(PAUSE).await;
    }
    let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().expect("run kill");
    assert!(sent.success());
    let output = tokio::task::block_in_place(|| child.wait_with_output()).expect("wait for terraform");
    assert!(!output.status.success(), "it was interrupted: {}", said(&output));
    flat(&said(&output))
}

async fn is_draining(cluster: &Cluster, node: u64) {
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    let line = nodes.as_array().expect("a list").iter().find(|line| line["id"].as_u64() == Some(node));
    assert_eq!(line.map(|line| line["state"].clone()), Some("draining".into()), "the cluster goes on: {nodes}");
}

async fn replicas_on(cluster: &Cluster, node: u64) -> usize {
    let (shards, _) = cluster.ctl(&["shards"]).await;
    let has = |line: &&Value| line["replicas"].as_array().is_some_and(|nodes| nodes.contains(&node.into()));
    shards.as_array().expect("a list").iter().filter(has).count()
}
