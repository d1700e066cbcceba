//! Certificates of a running cluster are renewed: every process shows and accepts the new ones, nobody restarts, mail goes on.

mod harness;

use std::path::Path;
use std::time::Instant;

use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, smtp};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_shown_without_a_restart() {
    let cluster = Cluster::start(Options::default()).await;
    let user = Api::sign_up(cluster.region("seoul"), "renewed@postrider.example").await;
    let tls = cluster.data_dir().join("tls");
    let pids = cluster.pids();
    let node = cluster.region("seoul").nodes[0].grpc.clone();
    let before = shown(&cluster, &node).await;
    assert_eq!(before, fingerprint(&std::fs::read(tls.join("node-1.pem")).unwrap()).await);

    let certificates = certificates(&tls);
    assert!(certificates.len() >= 12, "nodes, frontends, name servers, mail hosts: {certificates:?}");
    let authority = tls.to_string_lossy().into_owned();
    let renew = |more: &'static [&'static str]| {
        let words = ["ctl", "cert", "renew", "--authority", &authority].map(str::to_owned);
        let words: Vec<String> = words.into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect();
        let words: Vec<String> = words.into_iter().chain(certificates.iter().cloned()).collect();
        async move { harness::run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let untouched = renew(&["--expiring-within", "30"]).await;
    assert!(untouched.status.success(), "{untouched:?}");
    assert_eq!(before, fingerprint(&std::fs::read(tls.join("node-1.pem")).unwrap()).await, "good for long enough");
    let renewed = renew(&["--days", "7"]).await;
    assert!(renewed.status.success(), "{renewed:?}");

    let written = fingerprint(&std::fs::read(tls.join("node-1.pem")).unwrap()).await;
    assert_ne!(written, before);
    let begun = Instant::now();
    while shown(&cluster, &node).await != written {
        assert!(begun.elapsed() < DEADLINE, "the node shows the new certificate");
    }
    // Each process that others know by its certificate says that it shows another.
    for name in ["node-1", "node-2", "node-3", "frontend-seoul", "dns-virginia"] {
        let log = cluster.data_dir().join(name).join("log");
        harness::until("every process has followed its files", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("a new certificate is shown from now on"))
        })
        .await;
    }
    // What is broken by it would be broken now: new connections everywhere, with both sides' new certificates.
    assert_eq!(cluster.pids(), pids);
    cluster.until_whole().await;
    for region in &cluster.ready().regions {
        smtp::deliver(&region.smtp, &[&user.address], &smtp::text(&region.name, "It goes on.")).await;
        user.until_subject(&region.name).await;
    }
}

/// The certificates of processes and hosts in a directory, without the authority's own.
fn certificates(tls: &Path) -> Vec<String> {
    let files = std::fs::read_dir(tls).unwrap().map(|entry| entry.unwrap().path());
    let files =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "pem") && !path.ends_with("ca.pem"));
    files.map(|path| path.to_string_lossy().into_owned()).collect()
}

/// What a storage node shows to whoever connects now, as an operator.
async fn shown(cluster: &Cluster, address: &str) -> String {
    let identity = cluster.data_dir().join("ctl");
    let file = |name: &str| identity.join(name).to_string_lossy().into_owned();
    let words =
        ["-connect", address, "-cert", &file("cert.pem"), "-key", &file("key.pem"), "-alpn", "h2"].map(str::to_owned);
    let mut command = Command::new("openssl");
    command.arg("s_client").args(words).stdin(std::process::Stdio::null());
    let said = command.output().await.expect("Debian: apt-get install openssl").stdout;
    fingerprint(&said).await
}

/// Of the first certificate in PEM.
async fn fingerprint(pem: &[u8]) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut running = command.spawn().expect("Debian: apt-get install openssl");
    running.stdin.take().unwrap().write_all(pem).await.unwrap();
    let output = running.wait_with_output().await.unwrap();
    assert!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(pem));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
