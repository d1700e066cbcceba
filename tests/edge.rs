//! A frontend process at the edge: HTTPS and STARTTLS with certificates that are renewed and broken while it serves, behind a proxy
//! that speaks the PROXY protocol. The clients are curl and openssl.

mod harness;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::{Cluster, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HOST: &str = "edge.postrider.example";
const PAUSE: Duration = Duration::from_millis(100);

/// A frontend beside the demo's own.
struct Edge {
    dir: tempfile::TempDir,
    rest: String,
    smtp: String,
    process: Child,
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").to_string()
}

impl Edge {
    fn start(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let text =
            std::fs::read_to_string(cluster.data_dir().join("frontend-seoul/config.toml")).expect("a configuration");
        let mut config: toml::Table = text.parse().expect("it is TOML");
        let (rest, smtp) = (free(), free());
        let path = |name: &str| toml::Value::from(dir.path().join(name).to_string_lossy().into_owned());
        let set = |table: &mut toml::Value, key: &str, value: toml::Value| {
            table.as_table_mut().expect("a table").insert(key.to_owned(), value);
        };
        let files =
            toml::Table::from_iter([("cert".to_owned(), path("cert.pem")), ("key".to_owned(), path("key.pem"))]);
        let proxies = toml::Value::from(vec!["127.0.0.2/32"]);
        set(&mut config["rest"], "listen", rest.clone().into());
        set(&mut config["rest"], "tls", files.into());
        for key in ["cert", "key"] {
            set(&mut config["smtp"], key, path(&format!("{key}.pem")));
        }
        set(&mut config["smtp"], "listen", smtp.clone().into());
        set(&mut config["smtp"], "proxy_protocol_from", proxies);
        // The frontend that it is a copy of has these.
        for key in ["submission_listen", "submissions_listen"] {
            config["smtp"].as_table_mut().expect("a table").remove(key);
        }
        config.insert("worker".to_owned(), false.into());
        config.remove("metrics_listen");
        std::fs::write(dir.path().join("config.toml"), config.to_string()).expect("write the configuration");
        renew(dir.path());
        let log = std::fs::File::create(dir.path().join("log")).expect("make a log");
        let process = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["frontend", "--config"])
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start a frontend");
        Self { dir, rest, smtp, process }
    }

    /// What clients trust: the certificate as it is now, kept aside.
    fn trusted(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::copy(self.dir.path().join("cert.pem"), &path).expect("keep the certificate");
        path
    }

    fn hang_up(&self) {
        let told = Command::new("kill").args(["-HUP", &self.process.id().to_string()]).status().expect("run kill");
        assert!(told.success(), "the frontend runs");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("read the log")
    }

    /// Whether curl gets an answer from somebody whom it trusts, over HTTP/2.
    async fn answers(&self, trusted: &Path) -> bool {
        let port = self.rest.rsplit(':').next().expect("a port");
        let resolve = format!("{HOST}:{port}:127.0.0.1");
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--noproxy",
            "*",
            "--max-time",
            "30",
            "--write-out",
            "%{http_version} %{http_code}",
            "--output",
        ]);
        curl.args(["/dev/null", "--resolve", &resolve])
            .arg("--cacert")
            .arg(trusted)
            .arg(format!("https://{HOST}:{port}/healthz"));
        let output: Output = curl.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("run curl");
        output.status.success() && output.stdout == b"2 200"
    }

    async fn until_it_answers(&self, trusted: &Path) {
        let until = async {
            while !self.answers(trusted).await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let answered = tokio::time::timeout(harness::DEADLINE, until).await;
        assert!(answered.is_ok(), "it shows {}: {}", trusted.display(), self.log());
    }
}

/// Another certificate under the same name.
fn renew(dir: &Path) {
    let signed = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("sign a certificate");
    std::fs::write(dir.join("key.pem"), signed.signing_key.serialize_pem()).expect("write the key");
    std::fs::write(dir.join("cert.pem"), signed.cert.pem()).expect("write the certificate");
}

/// What a server says first to a client at 127.0.0.2, where proxies stand, that begins with `bytes`.
async fn greeting(address: &str, bytes: &[u8]) -> String {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("an address of this machine");
    let mut stream: TcpStream = socket.connect(address.parse().expect("an address")).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut first = vec![0; 512];
    let length =
        tokio::time::timeout(harness::DEADLINE, stream.read(&mut first)).await.expect("an answer").expect("it holds");
    String::from_utf8_lossy(&first[..length]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_shows_what_its_files_hold_and_believes_its_proxies_only() {
    let cluster = Cluster::start(Options::default()).await;
    let edge = Edge::start(&cluster);
    let first = edge.trusted("first.pem");
    edge.until_it_answers(&first).await;

    renew(edge.dir.path());
    let second = edge.trusted("second.pem");
    edge.hang_up();
    edge.until_it_answers(&second).await;
    assert!(!edge.answers(&first).await, "the first one is not shown any more");

    // Broken: the old one stays, and the log says so.
    std::fs::write(edge.dir.path().join("cert.pem"), "no certificate").expect("write a file");
    edge.hang_up();
    harness::until("the log says what is wrong", || edge.log().contains("the old one is shown still")).await;
    assert!(edge.answers(&second).await);

    // STARTTLS shows the same file, and finds the new one without being told.
    renew(edge.dir.path());
    let third = edge.trusted("third.pem");
    edge.until_it_answers(&third).await;
    let shown = || {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-brief", "-starttls", "smtp", "-servername", HOST, "-connect", &edge.smtp]);
        openssl.args(["-verify_return_error", "-verify_hostname", HOST, "-CAfile"]).arg(&third).stdin(Stdio::null());
        openssl.output().expect("run openssl").status.success()
    };
    harness::until("STARTTLS shows the new certificate", shown).await;

    // From a proxy's network a header has to come, of version 2.
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x34\0\x19";
    assert!(greeting(&edge.smtp, header).await.starts_with("220 "));
    for wrong in [&b"EHLO client.example\r\n"[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 25\r\n"] {
        let refused = greeting(&edge.smtp, wrong).await;
        assert!(refused.starts_with("421 4.7.0 "), "{refused}");
    }
    assert!(edge.log().contains("is of version 1; version 2 is spoken here"), "{}", edge.log());
}
