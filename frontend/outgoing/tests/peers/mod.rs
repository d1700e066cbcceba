//! Mail servers of others, which a test starts itself on a loopback address: Postfix and Exim. Both offer STARTTLS with a certificate that nobody
//! has signed, keep what is for their domain in a Maildir, and give everything else to one host, encrypted.
//!
//! Nothing is installed here. What is missing is said aloud, and fails in CI unless POSTRIDER_ALLOW_MISSING names it.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part of this

pub mod opendkim;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);
const POSTFIX: &str = "/usr/sbin/postfix";
/// Debian's packages of Exim and Postfix exclude each other, so `./dev` unpacks the one beside the other and says where.
const EXIM_VARIABLE: &str = "POSTRIDER_EXIM";
const EXIM: &str = "/usr/sbin/exim4";
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

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postfix,
    Exim,
}

/// How a server is started.
struct Settings<'a> {
    root: &'a Path,
    domain: &'a str,
    address: SocketAddr,
    next: Option<SocketAddr>,
}

/// A running server.
pub struct Peer {
    kind: Kind,
    dir: TempDir,
    pub address: SocketAddr,
    child: Child,
}

/// Postfix's log, and those of Exim.
const LOGS: [&str; 4] = ["log", "mainlog", "rejectlog", "paniclog"];

impl Peer {
    /// Starts the host `mx.` and `domain`; what is not for `domain` goes to `next`. `None` where the server is not here.
    pub fn start(kind: Kind, domain: &str, address: SocketAddr, next: Option<SocketAddr>) -> Option<Self> {
        if !kind.may_run() {
            return None;
        }
        let dir = tempfile::tempdir_in("/tmp").expect("a directory");
        let root = dir.path();
        // Its processes run as others.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).expect("open the directory");
        for name in ["conf", "queue/pid", "data", "mail"] {
            std::fs::create_dir_all(root.join(name)).expect("make a directory");
        }
        own(&root.join("mail"), "nobody");
        certificate(root);
        let settings = Settings { root, domain, address, next };
        let child = match kind {
            Kind::Postfix => start_postfix(&settings),
            Kind::Exim => start_exim(&settings),
        };
        let peer = Self { kind, dir, address, child };
        peer.until("it listens", |_| TcpStream::connect(address).is_ok());
        Some(peer)
    }

    pub fn log(&self) -> String {
        // Exim has three: of what it did, of whom it refused, of what went wrong.
        let read = |name: &&str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        LOGS.iter().map(read).collect()
    }

    /// Waits for something that its log or its Maildir tells.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < DEADLINE, "{:?}, never: {what}\n{}", self.kind, self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it has delivered, with the ends of lines that mail has.
    pub fn delivered(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("mail/inbox/new")) else { return Vec::new() };
        files
            .map(|file| {
                let text = std::fs::read_to_string(file.expect("a file").path()).expect("read it: it is ASCII");
                text.replace('\n', "\r\n")
            })
            .collect()
    }

    /// Whether its log says that it took a message over an encrypted connection.
    pub fn took_encrypted(&self) -> bool {
        let log = self.log();
        match self.kind {
            Kind::Postfix => log.contains("Anonymous TLS connection established from"),
            Kind::Exim => log.lines().any(|line| line.contains(" <= ") && line.contains(" P=esmtps X=TLS1.")),
        }
    }

    /// How many recipients its log says that it delivered to: here, or at the next host.
    pub fn deliveries(&self) -> usize {
        let mark = match self.kind {
            Kind::Postfix => "status=sent",
            Kind::Exim => " => ",
        };
        let additional = if self.kind == Kind::Exim { self.log().matches(" -> ").count() } else { 0 };
        self.log().matches(mark).count() + additional
    }

    /// Whether its log says that the next host took something, over an encrypted connection, with 250.
    pub fn gave_encrypted(&self) -> bool {
        let log = self.log();
        match self.kind {
            Kind::Postfix => {
                log.contains("TLS connection established to")
                    && log.lines().any(|line| line.contains("/smtp[") && line.contains("status=sent (250 "))
            }
            Kind::Exim => log
                .lines()
                .any(|line| line.contains(" T=out ") && line.contains(" X=TLS1.") && line.contains("C=\"250 ")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let root = self.dir.path();
        match self.kind {
            // Its master takes its processes with it.
            Kind::Postfix => {
                let mut stop = Command::new(POSTFIX);
                stop.arg("-c").arg(root.join("conf")).arg("stop").stdout(Stdio::null()).stderr(Stdio::null());
                stop.status().ok();
            }
            Kind::Exim => {}
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Kind {
    /// What POSTRIDER_ALLOW_MISSING calls it.
    fn needed(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Postfix => PathBuf::from(POSTFIX),
            Self::Exim => std::env::var_os(EXIM_VARIABLE).map_or_else(|| PathBuf::from(EXIM), PathBuf::from),
        }
    }

    fn may_run(self) -> bool {
        // Whoever owns /proc/self is who runs this.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let program = self.program();
        if is_root && program.exists() && (self == Self::Postfix || may_unshare()) {
            return true;
        }
        let why = format!("no root, or no {}: it takes none of our mail, and gives us none", program.display());
        may_be_passed_over(self.needed(), &why);
        false
    }
}

/// Says what is missing, and fails in CI unless it is named.
fn may_be_passed_over(needed: &str, why: &str) {
    let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
    let is_allowed = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == needed);
    assert!(is_allowed, "{why}; POSTRIDER_ALLOW_MISSING={needed} passes over what needs it");
    eprintln!("PASSED OVER: {why}");
}

/// Whether a process may have mounts of its own.
fn may_unshare() -> bool {
    Command::new("unshare")
        .args(["--mount", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn own(path: &Path, user: &str) {
    assert!(Command::new("chown").arg(user).arg(path).status().expect("run chown").success());
}

fn certificate(root: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["somebody.else.example".to_owned()]).expect("a certificate");
    std::fs::write(root.join("cert.pem"), made.cert.pem()).expect("write it");
    std::fs::write(root.join("key.pem"), made.signing_key.serialize_pem()).expect("write it");
}

fn start_postfix(settings: &Settings<'_>) -> Child {
    let root = settings.root;
    own(&root.join("data"), "postfix");
    let conf = root.join("conf");
    std::fs::write(conf.join("main.cf"), main_cf(settings)).expect("write the configuration");
    std::fs::write(conf.join("master.cf"), master_cf(settings.address)).expect("write the configuration");
    let postfix = |what: &str| {
        let mut command = Command::new(POSTFIX);
        command.arg("-c").arg(&conf).arg(what).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Makes the directories of its queue.
    postfix("check").status().expect("run postfix");
    postfix("start-fg").spawn().expect("start postfix")
}

fn main_cf(&Settings { root, domain, next, .. }: &Settings<'_>) -> String {
    let root = root.display();
    let next = match next {
        Some(next) => format!(
            "relayhost = [{}]:{}\nmynetworks = 127.0.0.0/8\nsmtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\n\
             smtp_host_lookup = native\nsmtp_dns_support_level = disabled\n",
            next.ip(),
            next.port()
        ),
        None => String::new(),
    };
    format!(
        "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
         maillog_file = {root}/log\nmaillog_file_prefixes = /tmp\nmail_owner = postfix\nsetgid_group = postdrop\n\
         daemon_directory = /usr/lib/postfix/sbin\ncommand_directory = /usr/sbin\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.{domain}\nmydestination =\n\
         virtual_mailbox_domains = {domain}\nvirtual_mailbox_base = {root}/mail\n\
         virtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
         virtual_minimum_uid = 100\nalias_maps =\nalias_database =\nsmtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\nsmtpd_tls_cert_file = {root}/cert.pem\nsmtpd_tls_key_file = {root}/key.pem\n{next}"
    )
}

fn master_cf(address: SocketAddr) -> String {
    format!(
        "{address} inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nerror unix - - n - - error\n\
         virtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
         smtp unix - - n - - smtp\nretry unix - - n - - error\nscache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

/// Debian's Exim looks up its own user by name at every start. Where that user is not there, because the package was only unpacked, it sees one:
/// in a mount namespace of its own, so that the machine stays as it was.
fn start_exim(settings: &Settings<'_>) -> Child {
    let root = settings.root;
    for name in ["queue", "data"] {
        own(&root.join(name), "nobody");
    }
    for name in LOGS {
        std::fs::write(root.join(name), "").expect("make its log");
        own(&root.join(name), "nobody");
    }
    let conf = root.join("conf/exim.conf");
    std::fs::write(&conf, exim_conf(settings)).expect("write the configuration");
    let names = |file: &str, line: &str| {
        let mut text = std::fs::read_to_string(file).expect("read the machine's names");
        if !text.lines().any(|known| known.starts_with("Debian-exim:")) {
            text.push_str(line);
        }
        let copy = root.join(file.trim_start_matches("/etc/"));
        std::fs::write(&copy, text).expect("write names");
        copy
    };
    let passwd = names("/etc/passwd", "Debian-exim:x:65534:65534::/:/usr/sbin/nologin\n");
    let group = names("/etc/group", "Debian-exim:x:65534:\n");
    let script = "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group && exec \"$3\" -C \"$4\" -bdf";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).args([passwd, group, Kind::Exim.program(), conf]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start exim")
}

fn exim_conf(&Settings { root, domain, address, next }: &Settings<'_>) -> String {
    let (root, here, port) = (root.display(), address.ip(), address.port());
    let exim = Kind::Exim.program();
    let next = next.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    format!(
        "exim_path = {}\ndeliver_drop_privilege = true\nprimary_hostname = mx.{domain}\nspool_directory = {root}/queue\n\
         log_file_path = {root}/%slog\npid_file_path = {root}/data/pid\nexim_user = nobody\nexim_group = nogroup\n\
         never_users =\nlocal_interfaces = {here}\ndaemon_smtp_ports = {port}\ntls_advertise_hosts = *\n\
         tls_certificate = {root}/cert.pem\ntls_privatekey = {root}/key.pem\nacl_smtp_rcpt = accept\n\
         acl_smtp_data = accept\nlog_selector = +tls_cipher\nhost_lookup =\nkeep_environment =\n\
         domainlist ours = {domain}\n\
         begin routers\nhere:\n  driver = accept\n  domains = +ours\n  transport = keep\n\
         there:\n  driver = manualroute\n  route_list = * {}\n  transport = out\n  self = send\n\
         begin transports\nkeep:\n  driver = appendfile\n  directory = {root}/mail/inbox\n  maildir_format\n\
         \x20 user = nobody\n  group = nogroup\n\
         out:\n  driver = smtp\n  port = {}\n  hosts_require_tls = *\n  tls_verify_certificates =\n\
         begin retry\n* * F,1h,1s\n",
        exim.display(),
        next.ip(),
        next.port()
    )
}

/// What dkimpy says of each signature, by these records; `None` where it is not here.
pub fn judged(message: &str, records: &[(String, String)]) -> Option<String> {
    use std::io::Write as _;
    let mut command = Command::new(PYTHON);
    command.arg("-c").arg(VERIFY);
    for (name, value) in records {
        command.arg(name).arg(value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(message.as_bytes()).ok()?;
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
