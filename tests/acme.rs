//! Certificates of a public authority: Let's Encrypt's test server, Pebble (Debian: pebble), really asks our frontends (http-01) and our
//! name servers (dns-01), one frontend orders, and two show what was issued, without a restart.

mod harness;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Cluster, Options};

const PAUSE: Duration = Duration::from_millis(250);
/// An order has the authority look and waits in between.
const ORDERED_MAX: Duration = Duration::from_secs(180);

fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port").port()
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, log: &Path) -> Running {
    let log = std::fs::File::create(log).expect("make a log");
    let both = log.try_clone().expect("write to it twice");
    let started = command.stdin(Stdio::null()).stdout(log).stderr(both).spawn();
    Running(
        started.unwrap_or_else(|error| panic!("{:?}: {error} (Debian: apt-get install pebble)", command.get_program())),
    )
}

struct Pebble {
    dir: PathBuf,
    directory: String,
    management: String,
    http_port: u16,
    _process: Running,
}

impl Pebble {
    /// Asks this name server, and looks for hosts' answers at a port of its own choice.
    async fn start(cluster: &Cluster, dir: &Path, name_server: &str) -> Self {
        let authority = cluster.data_dir().join("tls").to_string_lossy().into_owned();
        let out = dir.to_string_lossy().into_owned();
        let words = ["ctl", "cert", "host", "pebble", "localhost", "--authority", &authority, "--out", &out];
        let signed = harness::run(&words).await;
        assert!(signed.status.success(), "{signed:?}");
        let (api, management, http_port) = (free(), free(), free());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{api}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.join("pebble.pem"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": http_port,
            "tlsPort": free(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        std::fs::write(dir.join("pebble.json"), config.to_string()).expect("write a file");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(dir.join("pebble.json")).args(["-dnsserver", name_server]);
        // It looks at once. One nonce in twenty is refused, as it does by itself.
        let process = start(command.env("PEBBLE_VA_NOSLEEP", "1"), &dir.join("pebble.log"));
        Self {
            dir: dir.to_owned(),
            directory: format!("https://localhost:{api}/dir"),
            management: format!("https://localhost:{management}"),
            http_port,
            _process: process,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("pebble.log")).expect("read the log")
    }

    fn issued(&self) -> usize {
        self.log().matches("Issued certificate").count()
    }

    /// Its root, in a file: it makes one at each start.
    async fn root(&self) -> PathBuf {
        let (ca, root) = (self.dir.join("ca.pem"), self.dir.join("root.pem"));
        let until = Instant::now() + harness::DEADLINE;
        loop {
            let mut curl = tokio::process::Command::new("curl");
            curl.args(["--silent", "--fail", "--noproxy", "*", "--cacert"]).arg(&ca).arg("--output").arg(&root);
            let said = curl.arg(format!("{}/roots/0", self.management)).status().await.expect("run curl");
            if said.success() {
                return root;
            }
            assert!(Instant::now() < until, "pebble serves: {}", self.log());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A frontend beside the demo's own of a region, which orders and speaks HTTPS.
struct Edge {
    dir: PathBuf,
    https: u16,
    _process: Running,
}

impl Edge {
    fn start(cluster: &Cluster, pebble: &Pebble, region: &str) -> Self {
        let dir = pebble.dir.join(region);
        std::fs::create_dir(&dir).expect("make a directory");
        let config = cluster.data_dir().join(format!("frontend-{region}/config.toml"));
        let mut config: toml::Table = std::fs::read_to_string(config).expect("read it").parse().expect("it is TOML");
        let tls = cluster.data_dir().join("tls");
        let of_region = |ending: &str| tls.join(format!("mail-{region}.{ending}")).to_string_lossy().into_owned();
        let (https, smtp, address) = (free(), free(), &cluster.region(region).address);
        let table = |pairs: &[(&str, toml::Value)]| {
            toml::Value::from(toml::Table::from_iter(
                pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())),
            ))
        };
        let rest = config["rest"].as_table_mut().expect("a table");
        rest.insert("listen".to_owned(), format!("127.0.0.1:{https}").into());
        rest.insert("tls".to_owned(), table(&[("cert", of_region("pem").into()), ("key", of_region("key").into())]));
        let mail = config["smtp"].as_table_mut().expect("a table");
        mail.insert("listen".to_owned(), format!("127.0.0.1:{smtp}").into());
        // The frontend that it is a copy of has these.
        for key in ["submission_listen", "submissions_listen"] {
            mail.remove(key);
        }
        config.insert("worker".to_owned(), false.into());
        config.remove("metrics_listen");
        let acme = [
            ("directory", pebble.directory.clone().into()),
            ("contacts", vec!["mailto:postmaster@postrider.example"].into()),
            ("terms_agreed", true.into()),
            ("http_listen", format!("{address}:{}", pebble.http_port).into()),
            ("ca_file", pebble.dir.join("ca.pem").to_string_lossy().into_owned().into()),
        ];
        config.insert("acme".to_owned(), table(&acme));
        std::fs::write(dir.join("config.toml"), config.to_string()).expect("write the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.args(["frontend", "--config"]).arg(dir.join("config.toml"));
        Self { _process: start(&mut command, &dir.join("log")), dir, https }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).expect("read the log")
    }

    /// Whether it shows a host's certificate that who trusts `root` takes.
    async fn is_trusted(&self, host: &str, root: &Path) -> bool {
        let resolve = format!("{host}:{}:127.0.0.1", self.https);
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--max-time", "30", "--output", "/dev/null", "--resolve", &resolve]);
        curl.arg("--cacert").arg(root).args(["--write-out", "%{http_code}"]);
        let said = curl.arg(format!("https://{host}:{}/healthz", self.https)).output().await.expect("run curl");
        said.status.success() && said.stdout == b"200"
    }

    async fn until_trusted(&self, cluster: &Cluster, pebble: &Pebble, host: &str, root: &Path) {
        let begun = Instant::now();
        while !self.is_trusted(host, root).await {
            if begun.elapsed() > ORDERED_MAX {
                let (list, _) = cluster.ctl(&["acme", "list"]).await;
                panic!("{host} is shown: {list}\n{}\n{}", self.log(), pebble.log());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The digests of the certificate and of its key, as it shows them for a host.
    async fn shown(&self, host: &str) -> (String, String) {
        let connect = format!("127.0.0.1:{}", self.https);
        let mut openssl = tokio::process::Command::new("openssl");
        openssl.args(["s_client", "-connect", &connect, "-servername", host]).stdin(Stdio::null());
        let pem = openssl.output().await.expect("run openssl").stdout;
        let file = self.dir.join("shown.pem");
        std::fs::write(&file, pem).expect("write a file");
        let mut said = Vec::new();
        for what in [&["-fingerprint", "-sha256"][..], &["-pubkey"]] {
            let mut openssl = tokio::process::Command::new("openssl");
            let output = openssl.args(["x509", "-noout", "-in"]).arg(&file).args(what).output().await;
            said.push(String::from_utf8_lossy(&output.expect("run openssl").stdout).into_owned());
        }
        assert!(said.iter().all(|text| !text.is_empty()), "{host} is shown something");
        (said.remove(0), said.remove(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_frontend_orders_is_proved_and_shown_by_all() {
    let cluster = Cluster::start(Options::default()).await;
    let dir = tempfile::tempdir().expect("make a directory");
    let pebble = Pebble::start(&cluster, dir.path(), &cluster.region("seoul").dns).await;
    let root = pebble.root().await;
    let edges = [Edge::start(&cluster, &pebble, "seoul"), Edge::start(&cluster, &pebble, "virginia")];
    let want = |words: &'static [&'static str]| {
        let cluster = &cluster;
        async move {
            let said = cluster.ctl_raw(&[&["acme", "want"], words].concat()).await;
            assert!(said.status.success(), "{said:?}");
        }
    };

    // Whichever orders, the authority asks both for an answer over HTTP.
    let (first, second) = ("mx-seoul.postrider.example", "mx-virginia.postrider.example");
    want(&["mx-seoul.postrider.example", "mx-virginia.postrider.example"]).await;
    for edge in &edges {
        for host in [first, second] {
            edge.until_trusted(&cluster, &pebble, host, &root).await;
        }
        assert!(!edge.is_trusted("mail.postrider.example", &root).await, "nobody has proved that one");
    }
    // And the name server for a text, where also every name below a domain can be proved.
    want(&["mail.postrider.example", "*.postrider.example", "--proof", "dns"]).await;
    for edge in &edges {
        for host in ["mail.postrider.example", "whatever.postrider.example", first] {
            edge.until_trusted(&cluster, &pebble, host, &root).await;
        }
    }
    assert_eq!(pebble.issued(), 2, "one frontend ordered each: {}", pebble.log());
    assert_eq!(edges[0].shown(first).await, edges[1].shown(first).await);

    // Other names are ordered anew, for the same key, and taken up by both.
    let before = edges[0].shown(first).await;
    want(&["mx-seoul.postrider.example"]).await;
    for edge in &edges {
        let begun = Instant::now();
        while edge.shown(first).await == before {
            assert!(begun.elapsed() < ORDERED_MAX, "the new one is shown: {}\n{}", edge.log(), pebble.log());
            tokio::time::sleep(PAUSE).await;
        }
        let (certificate, key) = edge.shown(first).await;
        assert!(certificate != before.0 && key == before.1, "TLSA records tell of the key");
    }
    let (list, all_well) = cluster.ctl(&["acme", "list"]).await;
    assert!(all_well, "{list}");

    // Where nobody answers the authority, operators are told what it says.
    want(&["mx-frankfurt.postrider.example"]).await;
    let begun = Instant::now();
    let failure = loop {
        let (list, _) = cluster.ctl(&["acme", "list"]).await;
        let failed = list.as_array().expect("a list").iter().find(|line| line["state"] == "failed");
        if let Some(line) = failed {
            break line.clone();
        }
        assert!(begun.elapsed() < ORDERED_MAX, "it fails: {list}\n{}", pebble.log());
        tokio::time::sleep(PAUSE).await;
    };
    assert_eq!(failure["name"], "mx-frankfurt.postrider.example");
    assert!(
        failure["failure"].as_str().is_some_and(|text| text.contains("mx-frankfurt.postrider.example: ")),
        "{failure}"
    );
    let forgotten = cluster.ctl_raw(&["acme", "forget", "mx-frankfurt.postrider.example"]).await;
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert_eq!(cluster.ctl(&["acme", "list"]).await.0.as_array().map(Vec::len), Some(2));
    cluster.assert_consistent().await;
}
