//! A real mail server takes what we send: Postfix, which the test starts itself on a loopback address. Its log says that it was encrypted
//! and taken; the signatures of what it delivered are judged by dkimpy.
//!
//! Nothing is installed here. What is missing is said aloud, and fails in CI unless POSTRIDER_ALLOW_MISSING names it.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use postrider_outgoing::dkim::{Algorithm, DkimKey, Signer, sign, txt_value};
use postrider_outgoing::dns::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};
use postrider_outgoing::smtp::{RemoteRecipient, ReturnContent};
use postrider_outgoing::{Category, Fate, Outbound, Transport, TransportSettings};

const NEEDED: &str = "postfix";
const DEADLINE: Duration = Duration::from_secs(60);
const POSTFIX: &str = "/usr/sbin/postfix";
/// Debian's own Python, whose packages dkimpy is one of.
const PYTHON: &str = "/usr/bin/python3";
const VERIFY: &str = r#"
import dkim, sys
records = dict(zip(sys.argv[1::2], sys.argv[2::2]))
message = sys.stdin.buffer.read()
count = message.count(b"DKIM-Signature:")
find = lambda name, timeout=5: records.get(name.decode().rstrip("."), "").encode()
print([dkim.DKIM(message).verify(idx=index, dnsfunc=find) for index in range(count)])
"#;

/// One domain with one host, here.
struct Here;

#[async_trait]
impl Dns for Here {
    async fn exchangers(&self, _: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        let host = Some("mx.far.example".parse().expect("a name"));
        Ok(Answer::of(vec![Exchanger { preference: 10, host }], false))
    }

    async fn addresses(&self, _: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        let here = (family == Family::V4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Answer::of(here.into_iter().collect(), false))
    }

    async fn tlsa(&self, _: &Domain, _: u16) -> Result<Answer<Tlsa>, DnsError> {
        Ok(Answer::none(false, false))
    }

    async fn txt(&self, _: &str) -> Result<Answer<String>, DnsError> {
        Ok(Answer::none(true, false))
    }
}

/// A Postfix of the test's own.
struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Postfix {
    fn start() -> Self {
        let dir = tempfile::tempdir_in("/tmp").expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let root = dir.path();
        // Its processes run as others.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).expect("open the directory");
        for name in ["conf", "queue/pid", "data", "mail"] {
            std::fs::create_dir_all(root.join(name)).expect("make a directory");
        }
        own(&root.join("data"), "postfix");
        own(&root.join("mail"), "nobody");
        certificate(root);
        std::fs::write(root.join("conf/main.cf"), main_cf(root)).expect("write the configuration");
        std::fs::write(root.join("conf/master.cf"), master_cf(port)).expect("write the configuration");
        let conf = root.join("conf");
        let postfix = |what: &str| {
            let mut command = Command::new(POSTFIX);
            command.arg("-c").arg(&conf).arg(what).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        // Makes the directories of its queue.
        postfix("check").status().expect("run postfix");
        let child = postfix("start-fg").spawn().expect("start postfix");
        let postfix = Self { dir, port, child };
        postfix
            .until("it listens", |postfix| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, postfix.port)).is_ok());
        postfix
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < DEADLINE, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it has delivered.
    fn delivered(&self) -> Vec<Vec<u8>> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("mail/inbox/new")) else { return Vec::new() };
        files.map(|file| std::fs::read(file.expect("a file").path()).expect("read it")).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Its master takes its processes with it.
        let conf = self.dir.path().join("conf");
        Command::new(POSTFIX).arg("-c").arg(conf).arg("stop").stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn own(path: &Path, user: &str) {
    assert!(Command::new("chown").arg(user).arg(path).status().expect("run chown").success());
}

fn certificate(root: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["somebody.else.example".to_owned()]).expect("a certificate");
    std::fs::write(root.join("cert.pem"), made.cert.pem()).expect("write it");
    std::fs::write(root.join("key.pem"), made.signing_key.serialize_pem()).expect("write it");
}

fn main_cf(root: &Path) -> String {
    let root = root.display();
    format!(
        "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
         maillog_file = {root}/log\nmaillog_file_prefixes = /tmp\nmail_owner = postfix\nsetgid_group = postdrop\n\
         daemon_directory = /usr/lib/postfix/sbin\ncommand_directory = /usr/sbin\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.far.example\nmydestination =\n\
         virtual_mailbox_domains = far.example\nvirtual_mailbox_base = {root}/mail\n\
         virtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
         virtual_minimum_uid = 100\nalias_maps =\nalias_database =\nsmtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\nsmtpd_tls_cert_file = {root}/cert.pem\nsmtpd_tls_key_file = {root}/key.pem\n"
    )
}

fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nerror unix - - n - - error\n\
         virtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

fn may_run() -> bool {
    // Whoever owns /proc/self is who runs this.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if is_root && PathBuf::from(POSTFIX).exists() {
        return true;
    }
    let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
    let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == NEEDED);
    assert!(is_passed_over, "no root, or no Postfix; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs them");
    eprintln!("PASSED OVER: no root, or no {POSTFIX}: nobody else takes our mail");
    false
}

/// What dkimpy says of each signature; `None` where it is not here.
fn judged(message: &[u8], records: &[(String, String)]) -> Option<String> {
    use std::io::Write as _;
    let mut command = Command::new(PYTHON);
    command.arg("-c").arg(VERIFY);
    for (name, value) in records {
        command.arg(name).arg(value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(message).ok()?;
    let output = child.wait_with_output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("No module named") {
        eprintln!(
            "PASSED OVER: {PYTHON} has no dkimpy (python3-dkim, python3-nacl): nobody else judges our signatures"
        );
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned() + &errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_our_mail_encrypted_and_the_signatures_hold() {
    if !may_run() {
        return;
    }
    let postfix = Postfix::start();
    let mut settings = TransportSettings::new("near.example");
    settings.addresses.allow_private = true;
    settings.port = postfix.port;
    let transport = Transport::new(Arc::new(Here), settings);
    let signers: Vec<Signer> = [(Algorithm::RsaSha256, "rsa"), (Algorithm::Ed25519, "ed")]
        .map(|(algorithm, selector)| Signer {
            domain: "near.example".parse().expect("a name"),
            selector: selector.to_owned(),
            key: DkimKey::generate(algorithm).expect("a key"),
        })
        .into();
    let text = "From: Ada <ada@near.example>\r\nTo: Bob <bob@far.example>\r\nSubject:  Folded\r\n  and   spaced \r\n\
        Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <m1@near.example>\r\n\r\n\
        Hello  there \t \r\n.\r\n..two\r\n\r\n\r\n";
    let fields = sign(text.as_bytes(), &signers, 1_790_000_000).expect("it is signed");
    let body = Bytes::from([&fields, text.as_bytes()].concat());
    let message = Outbound {
        mail_from: "ada@near.example",
        envelope_id: "",
        return_content: ReturnContent::Unspecified,
        require_tls: false,
        smtp_utf8: false,
        body: &body,
        category: Category::Personal,
        route: None,
    };
    let to: Vec<_> = ["bob@far.example", "eve@far.example"]
        .map(|address| RemoteRecipient { address: address.to_owned(), ..RemoteRecipient::default() })
        .into();
    let destination = "far.example".parse().expect("a name");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    for attempt in transport.attempt(&message, &destination, &to, deadline).await {
        let Fate::Accepted { reply, host, .. } = attempt.fate else { panic!("{attempt:?}\n{}", postfix.log()) };
        assert!(reply.starts_with("250 2.0.0 ") && reply.contains("queued as"), "{reply}");
        assert_eq!(host, "mx.far.example");
    }
    postfix.until("both have it", |postfix| postfix.delivered().len() == 2);
    let log = postfix.log();
    assert!(log.contains("Anonymous TLS connection established from"), "{log}");
    assert_eq!(log.matches("status=sent").count(), 2, "{log}");
    let published = |signer: &Signer| {
        let name = format!("{}._domainkey.near.example", signer.selector);
        let public = signer.key.public_key().expect("it has one");
        (name, txt_value(signer.key.algorithm(), &public).expect("a record"))
    };
    let records: Vec<_> = signers.iter().map(published).collect();
    let delivered = postfix.delivered().remove(0);
    // It keeps lines with LF, and puts its own fields on top.
    let delivered = String::from_utf8(delivered).expect("it is ASCII").replace('\n', "\r\n");
    if let Some(said) = judged(delivered.as_bytes(), &records) {
        assert_eq!(said, "[True, True]");
        let changed = delivered.replace("Hello", "Hallo");
        let said = judged(changed.as_bytes(), &records).expect("it was here a moment ago");
        assert!(said.contains("body hash mismatch"), "{said}");
    }
}
