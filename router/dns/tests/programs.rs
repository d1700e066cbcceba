//! Held against the programs that the world asks with: `dig`, `kdig`, `delv` and `unbound-host`, over real sockets.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_dns::health::Seen;
use postrider_dns::server::sign::Signer;
use postrider_dns::server::{Responder, Server, ServerOptions};
use support::{Setup, pem, responder};

/// Names and types that are there, and that a validator must find secure.
const THERE: &[(&str, &str)] = &[
    ("example.org", "SOA"),
    ("example.org", "NS"),
    ("example.org", "MX"),
    ("example.org", "TXT"),
    ("example.org", "CAA"),
    ("example.org", "DNSKEY"),
    ("mail.example.org", "A"),
    ("mail.example.org", "AAAA"),
    ("r1._domainkey.example.org", "TXT"),
    ("_dmarc.example.org", "TXT"),
    ("_25._tcp.mx-seoul.example.org", "TLSA"),
    ("_submissions._tcp.example.org", "SRV"),
    ("_postrider._tcp.example.org", "SRV"),
    ("www.example.org", "A"),
    ("any.dev.example.org", "A"),
    ("MAIL.Example.ORG", "A"),
];
/// Names and types that are not there, and that a validator must find denied.
const NOT_THERE: &[(&str, &str)] = &[
    ("nothing.example.org", "A"),
    ("a.b.nothing.example.org", "MX"),
    ("mail.example.org", "MX"),
    ("example.org", "A"),
    ("b.c.example.org", "TXT"),
    ("any.dev.example.org", "AAAA"),
    ("x\\032y.example.org", "A"),
];

struct Running {
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    responder: Arc<Responder>,
    key: String,
    port: String,
    dir: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let key = pem();
        let responder = responder(Setup { key: Some(key.clone()), ..Setup::default() });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = ServerOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], threads: None };
        let server = runtime.block_on(Server::start(&options, responder.clone())).unwrap();
        let port = server.addresses()[0].port().to_string();
        Self { runtime, server: Some(server), responder, key, port, dir: tempfile::tempdir().unwrap() }
    }

    fn dig(&self, arguments: &[&str]) -> String {
        let common = ["@127.0.0.1", "-p", &self.port, "+norecurse", "+tries=2", "+time=5"];
        run("dig", "bind9-dnsutils", &[&common[..], arguments].concat())
    }

    fn kdig(&self, arguments: &[&str]) -> String {
        run("kdig", "knot-dnsutils", &[&["@127.0.0.1", "-p", &self.port][..], arguments].concat())
    }

    /// The trust anchor: the key itself.
    fn delv(&self, name: &str, rtype: &str) -> String {
        let anchors = self.dir.path().join("anchors");
        let signer = Signer::new([self.key.as_str()]).unwrap();
        let line = signer.anchors("example.org").remove(0);
        let (_, key) = line.split_once("DNSKEY ").unwrap();
        let [flags, protocol, algorithm, public] = key.split(' ').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let text =
            format!("trust-anchors {{ \"example.org.\" static-key {flags} {protocol} {algorithm} \"{public}\"; }};\n");
        std::fs::write(&anchors, text).unwrap();
        let anchors = anchors.to_str().unwrap();
        let at = ["@127.0.0.1", "-p", &self.port, "-a", anchors, "+root=example.org", "+multiline", name, rtype];
        run("delv", "bind9-dnsutils", &at)
    }

    fn unbound(&self, name: &str, rtype: &str) -> String {
        let (config, anchors) = (self.dir.path().join("unbound.conf"), self.dir.path().join("anchor.zone"));
        std::fs::write(&anchors, Signer::new([self.key.as_str()]).unwrap().anchors("example.org").join("\n")).unwrap();
        let text = format!(
            "server:\n do-not-query-localhost: no\n trust-anchor-file: \"{}\"\n chroot: \"\"\n do-ip6: no\n\
             stub-zone:\n name: \"example.org\"\n stub-addr: 127.0.0.1@{}\n",
            anchors.display(),
            self.port
        );
        std::fs::write(&config, text).unwrap();
        run("unbound-host", "unbound-host", &["-C", config.to_str().unwrap(), "-v", "-t", rtype, name])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// What a program says. One that is not there fails the test: nothing else shows what it would.
fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); Debian: apt-get install {package}"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn delv_validates_what_is_there_and_what_is_not() {
    let running = Running::start();
    for (name, rtype) in THERE {
        let said = running.delv(name, rtype);
        assert!(said.contains("; fully validated"), "{name} {rtype}:\n{said}");
    }
    for (name, rtype) in NOT_THERE {
        let said = running.delv(name, rtype);
        assert!(said.contains("; negative response, fully validated"), "{name} {rtype}:\n{said}");
    }
}

#[test]
fn unbound_validates_what_is_there_and_what_is_not() {
    let running = Running::start();
    for (name, rtype) in THERE.iter().chain(NOT_THERE) {
        let said = running.unbound(&name.replace("\\032", "-"), rtype);
        assert!(said.contains("(secure)") && !said.contains("bogus"), "{name} {rtype}:\n{said}");
    }
    let given_away = running.unbound("lab.example.org", "DS");
    assert!(given_away.contains("(secure)"), "that it is not signed is proved:\n{given_away}");
}

#[test]
fn a_signature_of_another_key_is_bogus() {
    let mut running = Running::start();
    running.key = pem();
    let said = running.unbound("mail.example.org", "A");
    assert!(said.contains("BOGUS") || said.contains("(security failure)"), "{said}");
    let said = running.delv("mail.example.org", "A");
    assert!(!said.contains("fully validated"), "{said}");
}

#[test]
fn dig_and_kdig_read_all_of_it() {
    let running = Running::start();
    for (name, rtype) in THERE {
        let dig = running.dig(&["+dnssec", name, rtype]);
        assert!(dig.contains("status: NOERROR") && dig.contains(" aa") && dig.contains("RRSIG"), "{dig}");
        assert!(!dig.contains("WARNING") && !dig.contains("malformed"), "{dig}");
        let kdig = running.kdig(&["+dnssec", name, rtype]);
        assert!(kdig.contains("status: NOERROR") && !kdig.contains("WARNING"), "{kdig}");
    }
    let missing = running.dig(&["nothing.example.org", "A"]);
    assert!(missing.contains("status: NXDOMAIN") && missing.contains("SOA"), "{missing}");
    let foreign = running.kdig(&["example.net", "A"]);
    assert!(foreign.contains("status: REFUSED"), "{foreign}");
    let transfer = running.dig(&["example.org", "AXFR"]);
    assert!(transfer.contains("Transfer failed"), "{transfer}");
    let any = running.dig(&["example.org", "ANY", "+notcp"]);
    assert!(any.contains("HINFO\t\"RFC8482\" \"\""), "{any}");
    let nsid = running.kdig(&["+nsid", "example.org", "SOA"]);
    assert!(nsid.contains("\"seoul\""), "{nsid}");
}

#[test]
fn what_is_long_is_cut_over_udp_and_whole_over_tcp() {
    let running = Running::start();
    let long = "r1._domainkey.example.org";
    let cut = running.dig(&["+ignore", "+bufsize=512", long, "TXT"]);
    assert!(cut.contains("tc") && cut.contains("ANSWER: 0") && cut.contains("EDNS: version: 0"), "{cut}");
    let followed = running.dig(&["+bufsize=512", long, "TXT"]);
    assert!(followed.contains("(TCP)") && followed.contains("v=DKIM1; k=rsa"), "{followed}");
    let tcp = running.kdig(&["+tcp", "+keepopen", long, "TXT", "example.org", "MX"]);
    assert!(tcp.contains("v=DKIM1; k=rsa") && tcp.contains("mx-frankfurt.example.org."), "{tcp}");
}

#[test]
fn the_client_subnet_comes_back_with_its_scope() {
    let running = Running::start();
    let told = running.dig(&["+subnet=203.0.113.0/24", "mail.example.org", "A"]);
    assert!(told.contains("CLIENT-SUBNET: 203.0.113.0/24/0"), "nothing was measured yet: {told}");
    let client = "203.0.113.9".parse().unwrap();
    let sample = postrider_dns::latency::sample::Sample::of(client, Duration::from_millis(2));
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    running.responder.chooser().record(2, &[sample; 50], now_s);
    let tailored = running.dig(&["+subnet=203.0.113.77/24", "mail.example.org", "A"]);
    assert!(tailored.contains("CLIENT-SUBNET: 203.0.113.0/24/24"), "{tailored}");
    let odd = running.kdig(&["+subnet=203.0.112.0/21", "mail.example.org", "A"]);
    assert!(odd.contains("203.0.112.0/21/24"), "a longer prefix would get more: {odd}");
    let same_for_all = running.dig(&["+subnet=203.0.113.0/24", "example.org", "TXT"]);
    assert!(same_for_all.contains("CLIENT-SUBNET: 203.0.113.0/24/0"), "{same_for_all}");
    let hidden = running.dig(&["+subnet=0", "mail.example.org", "A"]);
    assert!(hidden.contains("status: NOERROR") && hidden.contains("CLIENT-SUBNET: 0.0.0.0/0/0"), "{hidden}");
    let six = running.dig(&["+subnet=2001:db8::/48", "mail.example.org", "AAAA"]);
    assert!(six.contains("CLIENT-SUBNET: 2001:db8::/48/0"), "{six}");
}

#[test]
fn cookies_are_taken_as_good() {
    let running = Running::start();
    let dig = running.dig(&["+cookie", "example.org", "SOA"]);
    assert!(dig.contains("(good)"), "{dig}");
    let kdig = running.kdig(&["+cookie", "+badcookie", "example.org", "SOA"]);
    assert!(kdig.contains("COOKIE") && kdig.contains("status: NOERROR"), "{kdig}");
}

#[test]
fn a_dead_region_is_out_of_answers_within_five_seconds() {
    let running = Running::start();
    let watched = running.responder.clone();
    let begun = Instant::now();
    let dead = begun + Duration::from_millis(500);
    // Looks once a second, as the role does.
    let looks = std::thread::spawn(move || {
        for _ in 0..6 {
            let now = Instant::now();
            let seen = if now < dead { Seen::Serves } else { Seen::Nothing };
            watched.chooser().report(0, seen, now - begun);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let gone = loop {
        let named = running.dig(&["+short", "mail.example.org", "A"]);
        if Instant::now() > dead && named.trim() != "192.0.2.1" && Instant::now() - dead > Duration::from_secs(1) {
            break Instant::now() - dead;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "still there: {named}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(gone < Duration::from_secs(5), "{gone:?}");
    for _ in 0..20 {
        assert_ne!(running.dig(&["+short", "mail.example.org", "A"]).trim(), "192.0.2.1");
    }
    looks.join().unwrap();
}

#[test]
fn malformed_messages_do_not_stop_it() {
    let running = Running::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = format!("127.0.0.1:{}", running.port);
    let mut state = 1u64;
    for length in 0..2000usize {
        let bytes: Vec<u8> = (0..length % 600)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let _ = socket.send_to(&bytes, &to); // a full buffer is one of the things that may happen
    }
    use std::io::Write as _;
    for garbage in [&[0u8][..], &[0xff, 0xff, 1, 2], &[0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        std::net::TcpStream::connect(&to).unwrap().write_all(garbage).unwrap();
    }
    let dig = running.dig(&["example.org", "SOA"]);
    assert!(dig.contains("status: NOERROR"), "{dig}");
}
