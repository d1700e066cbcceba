//! What Terraform renders starts a cluster: `examples/local` is applied by the real terraform, its processes are started as its `run` says,
//! and mail goes in and out; then a plan shows no difference, drift is told, and destroy leaves secrets alone.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::rest::{self, Api};
use harness::terraform::{Terraform, is_there, said, terraform_is_there, with_provider};
use harness::{DEADLINE, Region, smtp};

/// How exposed a unit may be, by `systemd-analyze security` (0 to 10, times ten).
const EXPOSURE_MAX: &str = "--threshold=20";
/// Nobody else of this machine's tests has 127.98.x.1.
const BLOCK: &str = "98";

/// A copy of `deploy/terraform`, and terraform in one of its folders.
struct Workspace {
    dir: tempfile::TempDir,
    terraform: Terraform,
}

impl Workspace {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/terraform");
        let copied = Command::new("cp").arg("-r").arg(from).arg(dir.path()).status().expect("run cp");
        assert!(copied.success());
        let terraform = Terraform::new(&dir.path().join("terraform/examples/local"))
            .with("TF_VAR_postrider", env!("CARGO_BIN_EXE_postrider"))
            .with("TF_VAR_loopback_block", BLOCK);
        Self { dir, terraform }
    }

    fn local(&self) -> PathBuf {
        self.dir.path().join("terraform/examples/local")
    }
}

/// The processes of the example, until this is dropped.
struct Running(Child);

impl Running {
    fn start(workspace: &Workspace) -> Self {
        let log = std::fs::File::create(workspace.dir.path().join("run.log")).expect("make a log");
        let child = Command::new(workspace.local().join("run"))
            .arg(env!("CARGO_BIN_EXE_postrider"))
            .env("TF_CLI_CONFIG_FILE", "/dev/null")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start ./run");
        Self(child)
    }

    fn stop(&mut self) {
        // It ends its processes, each of which finishes what it has accepted.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn until_it_serves(workspace: &Workspace, running: &mut Running) {
    let (log, begin) = (workspace.dir.path().join("run.log"), Instant::now());
    loop {
        let text = std::fs::read_to_string(&log).expect("read the log");
        if text.contains("The cluster serves.") {
            return;
        }
        let ended = running.0.try_wait().expect("look after ./run");
        assert!(ended.is_none() && begin.elapsed() < DEADLINE * 3, "./run ({ended:?}): {text}{}", logs(workspace));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn logs(workspace: &Workspace) -> String {
    let hosts = workspace.local().join("cluster/hosts");
    let output = Command::new("sh").arg("-c").arg("tail -n 5 */etc/postrider/*.log").current_dir(hosts).output();
    output.map(|output| said(&output)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_terraform_renders_is_a_cluster_and_mail_flows() {
    if !terraform_is_there() {
        return;
    }
    let workspace = Workspace::new();
    workspace.terraform.good(&["fmt", "-check", "-recursive", "-diff", "../.."]);
    workspace.terraform.good(&["init", "-no-color"]);
    workspace.terraform.good(&["validate", "-no-color"]);
    workspace.terraform.good(&["apply", "-no-color", "-auto-approve"]);
    units_are_hardened(&workspace);
    let state = std::fs::read_to_string(workspace.local().join("terraform.tfstate")).expect("read the state");
    assert!(!state.contains("PRIVATE KEY"), "no key is in the state");
    for secret in ["admin-token", "cursor-secret", "store-secret", "dns-cookie-secret"] {
        let path = workspace.local().join("cluster/secrets").join(secret);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.len() == 64 && !state.contains(&text), "{secret} is a secret and is not in the state");
    }

    let mut running = Running::start(&workspace);
    until_it_serves(&workspace, &mut running).await;
    mail_flows(&workspace).await;
    is_managed(&workspace);
    // Made again, a cluster that is there is left alone.
    let again = workspace.terraform.good(&["output", "-raw", "bootstrap_command"]);
    let mut words = again.split_whitespace();
    let again = Command::new(words.next().expect("a command")).args(words).output().expect("run it");
    assert!(again.status.success() && said(&again).contains("Nothing was done"), "{}", said(&again));

    let (code, plan) = workspace.terraform.plan();
    assert_eq!(code, Some(0), "{plan}");
    assert!(!plan.contains("Warning"), "{plan}");
    // What somebody changed by hand is told.
    let changed = workspace.local().join("cluster/hosts/seoul-1/etc/postrider/store.toml");
    std::fs::write(&changed, "listen = \"127.0.0.1:1\"\n").expect("change a file");
    let (_, plan) = workspace.terraform.plan();
    assert!(plan.contains("were changed by hand"), "{plan}");
    running.stop();
    workspace.terraform.good(&["destroy", "-no-color", "-auto-approve"]);
    let cluster = workspace.local().join("cluster");
    assert!(!changed.exists() && !cluster.join("operator/key.pem").exists(), "what was rendered is gone");
    assert!(cluster.join("secrets/cursor-secret").exists() && cluster.join("authority/ca.key").exists());
}

/// `managed` keeps the cluster that runs as it says, by the provider.
fn is_managed(workspace: &Workspace) {
    let token = workspace.local().join("cluster/secrets/admin-token");
    let managed = Terraform::new(&workspace.local().join("managed"))
        .with("TF_CLI_CONFIG_FILE", with_provider(workspace.dir.path()).to_string_lossy())
        .with("POSTRIDER_ADMIN_TOKEN", std::fs::read_to_string(token).expect("read the token").trim_end());
    managed.good(&["apply", "-no-color", "-auto-approve"]);
    let (code, plan) = managed.plan();
    assert_eq!(code, Some(0), "{plan}");
    let records = managed.good(&["output", "-json", "dkim_records"]);
    assert!(records.contains("2026-12-ed25519._domainkey.example.test"), "{records}");
    managed.good(&["destroy", "-no-color", "-auto-approve"]);
}

async fn mail_flows(workspace: &Workspace) {
    let region = |name: &str, number: u32| Region {
        name: name.into(),
        rest: format!("http://127.{BLOCK}.{number}.1:8080"),
        smtp: format!("127.{BLOCK}.{number}.1:2525"),
        ..Region::default()
    };
    let (seoul, virginia) = (region("seoul", 1), region("virginia", 3));
    rest::until_serving(&virginia).await;
    let user = Api::sign_up(&seoul, "ada@postrider.example").await;
    let reply =
        smtp::deliver(&virginia.smtp, &["ada@postrider.example"], &smtp::text("From Terraform", "It works.")).await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let inbox = user.at(&virginia).inbox().await;
    assert_eq!(inbox.first().map(|row| &row["subject"]), Some(&"From Terraform".into()), "{inbox:?}");
    let status = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["ctl", "--cluster", &format!("127.{BLOCK}.1.1:7101"), "status"])
        .arg("--identity")
        .arg(workspace.local().join("cluster/operator"))
        .output()
        .expect("run ctl");
    assert!(said(&status).contains("All 5 shards have a primary."), "{}", said(&status));
    // Every process tells what it counts where Prometheus is told to look.
    let targets = std::fs::read_to_string(workspace.local().join("cluster/prometheus-targets.json")).expect("targets");
    let targets: serde_json::Value = serde_json::from_str(&targets).expect("JSON");
    let targets = targets.as_array().expect("a list");
    assert_eq!(targets.len(), 15, "five processes in each of three regions");
    for target in targets {
        let url = format!("http://{}/metrics", target["targets"][0].as_str().expect("an address"));
        let text =
            reqwest::get(&url).await.unwrap_or_else(|error| panic!("{target}: {error}")).text().await.expect("text");
        assert!(text.contains("# HELP process_resident_memory_bytes"), "{target}: {text:.200}");
    }
}

/// The units are as good as systemd's own analysis finds them, where there is one.
fn units_are_hardened(workspace: &Workspace) {
    if !is_there("systemd-analyze") {
        eprintln!("PASSED OVER: there is no systemd-analyze; the units are not looked at");
        return;
    }
    for role in ["node", "frontend", "worker", "dns", "store"] {
        let unit = workspace.local().join(format!("cluster/hosts/seoul-1/etc/systemd/system/postrider-{role}.service"));
        let output = Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=yes", EXPOSURE_MAX])
            .arg(&unit)
            .output()
            .expect("run systemd-analyze");
        assert!(output.status.success(), "{}", said(&output));
    }
}
