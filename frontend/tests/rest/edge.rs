//! What stands between a client and REST: TLS, and proxies that say who the client is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use postrider_api::certificates::{Certificates, LOOK_INTERVAL};
use postrider_frontend::Frontend;
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::network::Networks;
use postrider_frontend::proxy::header::SIGNATURE;
use postrider_frontend::rest::{ForwardedField, ForwardedFrom, PROTOCOLS};
use postrider_frontend::round_trips::RoundTrips;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;

use crate::cluster::DOMAIN;
use crate::world::{Front, PASSWORD, PATIENCE, World, frontend_behind};

const HOST: &str = "mail.postrider.example";

/// A certificate and its key in files.
struct Shown {
    dir: tempfile::TempDir,
}

impl Shown {
    fn new() -> Self {
        let shown = Self { dir: tempfile::tempdir().unwrap() };
        shown.renew();
        shown
    }

    fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// Another certificate under the same name.
    fn renew(&self) {
        let signed = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        std::fs::write(self.key(), signed.signing_key.serialize_pem()).unwrap();
        std::fs::write(self.cert(), signed.cert.pem()).unwrap();
    }

    /// What clients trust: the certificate as it is now, kept aside.
    fn trusted(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::copy(self.cert(), &path).unwrap();
        path
    }

    fn load(&self) -> Arc<Certificates> {
        Certificates::load(&self.cert(), &self.key()).unwrap()
    }
}

async fn world_behind(front: Front) -> (World, Frontend) {
    let world = World::new().await;
    let frontend = frontend_behind(front, &world.cluster, &world.blobs, "seoul", SignUpPolicy::Open).await;
    (world, frontend)
}

async fn run(mut command: Command) -> Output {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("it starts")
}

/// What curl says of `path` over TLS: its output with the version of HTTP behind it, and whether it succeeded.
async fn curl(address: SocketAddr, trusted: &Path, path: &str, more: &[&str]) -> (String, bool) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--write-out", " %{http_version} %{http_code}"]);
    command.arg("--resolve").arg(format!("{HOST}:{}:{}", address.port(), address.ip()));
    command.arg("--cacert").arg(trusted).args(more).arg(format!("https://{HOST}:{}{path}", address.port()));
    let output = run(command).await;
    (
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        output.status.success(),
    )
}

#[tokio::test]
async fn rest_over_tls_for_a_client_that_we_did_not_write() {
    let shown = Shown::new();
    let front = Front { tls: Some(shown.load().server_config(PROTOCOLS).unwrap()), ..Front::default() };
    let (world, frontend) = world_behind(front).await;
    let person = world.person().await;
    let (address, trusted) = (frontend.rest_addr().unwrap(), shown.trusted("trusted.pem"));
    let bearer = format!("authorization: Bearer {}", person.client.token());
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let (answer, succeeded) = curl(address, &trusted, "/v1/profile", &[flag, "--header", &bearer]).await;
        assert!(succeeded && answer.contains(&person.address), "{answer}");
        assert!(answer.ends_with(&format!(" {version} 200")), "ALPN chooses: {answer}");
    }
    // Plain HTTP is told what is spoken here.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /v1/profile HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, plain.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("tls_required"), "{answer}");
}

#[tokio::test]
async fn a_websocket_over_tls() {
    let shown = Shown::new();
    let front = Front { tls: Some(shown.load().server_config(PROTOCOLS).unwrap()), ..Front::default() };
    let (world, frontend) = world_behind(front).await;
    let person = world.person().await;
    let address = frontend.rest_addr().unwrap();
    // openssl makes the connection, and the test speaks HTTP and frames through it.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-no_ign_eof", "-alpn", "http/1.1"]);
    openssl
        .args(["-servername", HOST, "-connect", &address.to_string()])
        .arg("-CAfile")
        .arg(shown.trusted("trusted.pem"));
    let mut openssl =
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {}\r\n\r\n",
        person.client.token()
    );
    openssl.stdin.as_mut().unwrap().write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let mut output = openssl.stdout.take().unwrap();
    let until = async |read: &mut Vec<u8>, output: &mut tokio::process::ChildStdout, wanted: &str| {
        while !String::from_utf8_lossy(read).contains(wanted) {
            let mut more = [0; 4096];
            let length = tokio::time::timeout(PATIENCE, output.read(&mut more)).await.expect("an answer").unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(read));
            read.extend_from_slice(&more[..length]);
        }
    };
    until(&mut read, &mut output, "\"changes\":[]").await;
    assert!(read.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&read));
    world.deliver_text(&person, "over-tls").await;
    until(&mut read, &mut output, "message_created").await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let shown = Shown::new();
    let certificates = shown.load();
    let front = Front { tls: Some(certificates.server_config(PROTOCOLS).unwrap()), ..Front::default() };
    let (_world, frontend) = world_behind(front).await;
    let address = frontend.rest_addr().unwrap();
    let (wanted, looks) = watch::channel(());
    let keeping_up = tokio::spawn(certificates.keep_up(looks));
    let first = shown.trusted("first.pem");
    assert!(curl(address, &first, "/healthz", &[]).await.1);
    // Asked for, as by SIGHUP.
    shown.renew();
    let second = shown.trusted("second.pem");
    wanted.send_replace(());
    let is_shown = async |trusted: &Path| {
        let until = async {
            while !curl(address, trusted, "/healthz", &[]).await.1 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, until).await.expect("the new certificate is shown");
    };
    is_shown(&second).await;
    assert!(!curl(address, &first, "/healthz", &[]).await.1, "the old one is not shown any more");
    // Half of a replacement changes nothing, and the whole is found without being asked for.
    std::fs::write(shown.cert(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    wanted.send_replace(());
    tokio::time::sleep(LOOK_INTERVAL / 10).await;
    assert!(curl(address, &second, "/healthz", &[]).await.1);
    shown.renew();
    is_shown(&shown.trusted("third.pem")).await;
    drop(wanted);
    tokio::time::timeout(PATIENCE, keeping_up).await.unwrap().unwrap();
}

/// A request over a connection of its own with something in front of it, and its answer.
async fn ask(address: SocketAddr, before: &[u8], fields: &str, body: &Value) -> String {
    let body = body.to_string();
    let request = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[before, request.as_bytes()].concat()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

fn wrong() -> Value {
    json!({"address": format!("person0@{DOMAIN}"), "password": "not the password"})
}

/// Guesses until it is refused; then how another is answered.
async fn guess(address: SocketAddr, mut of: impl FnMut(u8) -> (Vec<u8>, String)) {
    let right = json!({"address": format!("person0@{DOMAIN}"), "password": PASSWORD});
    let (before, fields) = of(1);
    for _ in 0..5 {
        let answer = ask(address, &before, &fields, &wrong()).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let refused = ask(address, &before, &fields, &wrong()).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let (before, fields) = of(2);
    let answer = ask(address, &before, &fields, &right).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "another client is not the first: {answer}");
}

fn header(client: Ipv4Addr) -> Vec<u8> {
    let rest = [&client.octets()[..], &[10, 0, 0, 1, 0x12, 0x34, 0, 80]].concat();
    [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &rest].concat()
}

fn here() -> Networks {
    Networks::from_iter(["127.0.0.0/8".parse().unwrap()])
}

#[tokio::test]
async fn clients_behind_a_proxy_of_connections_are_counted_one_by_one() {
    let (world, frontend) = world_behind(Front { proxies: here(), ..Front::default() }).await;
    world.person().await;
    let address = frontend.rest_addr().unwrap();
    guess(address, |last| (header(Ipv4Addr::new(192, 0, 2, last)), String::new())).await;
    // What comes without a header is refused, and says why.
    for wrong in ["", "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n"] {
        let answer = ask(address, wrong.as_bytes(), "", &json!({})).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("proxy_header"), "{answer}");
    }
    // curl speaks version 1.
    let mut command = Command::new("curl");
    command.args(["--silent", "--noproxy", "*", "--haproxy-protocol"]).arg(format!("http://{address}/healthz"));
    let output = run(command).await;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.contains("is of version 1; version 2 is spoken here"), "{answer}");
    // Elsewhere the header has no meaning.
    let answer = ask(world.frontend.rest_addr().unwrap(), &header(Ipv4Addr::new(192, 0, 2, 3)), "", &wrong()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn clients_behind_a_proxy_of_requests_are_counted_one_by_one() {
    let forwarded = |field| Some(ForwardedFrom { networks: here(), field });
    let (world, frontend) =
        world_behind(Front { forwarded: forwarded(ForwardedField::Forwarded), ..Front::default() }).await;
    world.person().await;
    let address = frontend.rest_addr().unwrap();
    // Whatever the client itself wrote before the proxy did.
    let mut n = 0;
    guess(address, |last| {
        n += 1;
        (
            Vec::new(),
            format!("Forwarded: for=203.0.113.{n}\r\nForwarded: for=\"192.0.2.{last}:{n}\", for=127.0.0.1\r\n"),
        )
    })
    .await;
    let answer = ask(address, b"", "Forwarded: for=\"\r\n", &wrong()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"header\":\"forwarded\""), "{answer}");

    let front = Front { forwarded: forwarded(ForwardedField::XForwardedFor), ..Front::default() };
    let (world, frontend) = world_behind(front).await;
    world.person().await;
    guess(frontend.rest_addr().unwrap(), |last| (Vec::new(), format!("X-Forwarded-For: x, 192.0.2.{last}\r\n"))).await;

    // A stranger's word is not taken: he stays who he is.
    let networks = Networks::from_iter(["10.0.0.0/8".parse().unwrap()]);
    let strict = ForwardedFrom { networks, field: ForwardedField::Forwarded };
    let (world, frontend) = world_behind(Front { forwarded: Some(strict), ..Front::default() }).await;
    world.person().await;
    let address = frontend.rest_addr().unwrap();
    for n in 0..5 {
        ask(address, b"", &format!("Forwarded: for=192.0.2.{n}\r\n"), &wrong()).await;
    }
    // person() logged in at another frontend: here nobody has been before.
    let refused = ask(address, b"", "Forwarded: for=192.0.2.200\r\n", &wrong()).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
}

/// Connections that were measured of one request and, where there is SMTP, one greeting.
async fn measured(front: Front) -> u32 {
    let round_trips = RoundTrips::of_kernel().unwrap();
    let (_world, frontend) = world_behind(Front { round_trips: round_trips.clone(), ..front }).await;
    // Whatever it answers, it has taken the connection.
    ask(frontend.rest_addr().unwrap(), b"", "", &wrong()).await;
    if let Some(address) = frontend.smtp_addr() {
        let mut greeting = [0; 3];
        TcpStream::connect(address).await.unwrap().read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220");
    }
    let told = round_trips.take("seoul").map(|record| record.networks).unwrap_or_default();
    told.iter().map(|network| network.connections).sum()
}

#[tokio::test]
async fn clients_are_measured_and_proxies_are_not() {
    let shown = Shown::new();
    let mail = || Some(shown.load().server_config(&[]).unwrap());
    assert_eq!(measured(Front { mail: mail(), ..Front::default() }).await, 2);
    assert_eq!(measured(Front { proxies: here(), ..Front::default() }).await, 0);
    let forwarded = Some(ForwardedFrom { networks: here(), field: ForwardedField::Forwarded });
    assert_eq!(measured(Front { forwarded, ..Front::default() }).await, 0);
}
