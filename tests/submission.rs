//! Programs that we did not write send mail through submission of a real cluster: swaks, msmtp, curl, nodemailer and Python's smtplib, with
//! STARTTLS and with TLS from the first byte, by each mechanism that they know; and are refused as the page says, in a time that tells nobody why.
//! What the suite of clients sends without a password is taken as mail from anywhere.
//!
//! A program that is not on this machine is named and passed over; at least Python is there. nodemailer is looked for in NODE_PATH, and else fetched
//! once by npm.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::rest::Api;
use harness::{Cluster, Options, Region};
use reqwest::Method;
use serde_json::{Value, json};

/// What npm fetches: the suite wants both.
const NODE_PACKAGES: [&str; 2] = ["nodemailer@10", "imapflow@1"];

/// Where one program sends from and to.
struct Sender<'a> {
    region: &'a Region,
    /// What it trusts.
    authority: PathBuf,
    address: &'a str,
    password: &'a str,
    to: &'a str,
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").arg("-c").arg(format!("command -v {program}")).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn run(command: &mut Command, input: &str) -> (bool, String) {
    use std::io::Write as _;
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.expect("the program starts");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

impl Sender<'_> {
    fn letter(&self, subject: &str) -> String {
        format!("From: {}\r\nTo: {}\r\nSubject: {subject}\r\n\r\n.A dot first.\r\nHello.\r\n", self.address, self.to)
    }

    /// The name that the demo's certificates have, for a program that checks it.
    fn host(&self) -> String {
        format!("mx-{}.postrider.example", self.region.name)
    }

    fn port(address: &str) -> &str {
        address.rsplit_once(':').expect("an address has a port").1
    }

    fn curl(&self, is_tls: bool, subject: &str) -> (bool, String) {
        let address = if is_tls { &self.region.submissions } else { &self.region.submission };
        let (host, port) = (self.host(), Self::port(address));
        let scheme = if is_tls { "smtps" } else { "smtp" };
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--ssl-reqd", "--noproxy", "*", "--max-time", "60"]);
        command.arg("--resolve").arg(format!("{host}:{port}:{}", self.region.address));
        command.arg("--cacert").arg(&self.authority).arg("--user").arg(format!("{}:{}", self.address, self.password));
        command.args(["--mail-from", self.address, "--mail-rcpt", self.to, "--upload-file", "-"]);
        run(command.arg(format!("{scheme}://{host}:{port}")), &self.letter(subject))
    }

    fn swaks(&self, mechanism: &str, subject: &str) -> (bool, String) {
        let mut command = Command::new("swaks");
        command.args(["--server", &self.region.submission, "--tls", "--auth", mechanism]);
        command.args(["--auth-user", self.address, "--auth-password", self.password]);
        command.args(["--from", self.address, "--to", self.to, "--h-Subject", subject, "--body", "Hello."]);
        run(&mut command, "")
    }

    fn msmtp(&self, mechanism: &str, subject: &str) -> (bool, String) {
        let (host, port) = self.region.submission.rsplit_once(':').expect("an address has a port");
        let mut command = Command::new("msmtp");
        command.args(["--file=/dev/null", "--tls=on", "--tls-starttls=on", "--tls-certcheck=off"]);
        command.args([&format!("--host={host}"), &format!("--port={port}"), &format!("--auth={mechanism}")]);
        command.args([&format!("--from={}", self.address), &format!("--user={}", self.address)]);
        command.args([&format!("--passwordeval=echo {}", self.password), self.to]);
        run(&mut command, &self.letter(subject).replace('\r', ""))
    }

    fn nodemailer(&self, modules: &Path, is_tls: bool, mechanism: &str, subject: &str) -> (bool, String) {
        let address = if is_tls { &self.region.submissions } else { &self.region.submission };
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        let script = format!(
            "const ca = require('fs').readFileSync({authority:?});\n\
             const options = {{host: {host:?}, port: {port}, secure: {is_tls}, requireTLS: true, authMethod: {mechanism:?},\n\
             auth: {{user: {user:?}, pass: {password:?}}}, tls: {{ca, servername: {name:?}}}}};\n\
             const mail = {{from: {user:?}, to: {to:?}, subject: {subject:?}, text: '.\\n.x \u{fc}', html: '<b>x</b>',\n\
             attachments: [{{filename: '\u{e4}.bin', content: Buffer.alloc(50000)}}]}};\n\
             require('nodemailer').createTransport(options).sendMail(mail).then(\n\
             sent => {{ console.log(sent.response); process.exit(/^250/.test(sent.response) ? 0 : 1); }},\n\
             error => {{ console.error(error); process.exit(1); }});\n",
            authority = self.authority,
            user = self.address,
            password = self.password,
            name = self.host(),
            to = self.to,
        );
        run(Command::new("node").arg("-").env("NODE_PATH", modules), &script)
    }

    /// By smtplib, with `more` done before the message is sent.
    fn smtplib(&self, is_tls: bool, subject: &str) -> (bool, String) {
        let address = if is_tls { &self.region.submissions } else { &self.region.submission };
        let script = format!(
            "import smtplib, ssl, email.message\n\
             c = ssl.create_default_context(cafile={authority:?}); c.check_hostname = False\n\
             host, port = {address:?}.rsplit(':', 1)\n\
             s = smtplib.SMTP_SSL(host, int(port), context=c, timeout=60) if {tls} else smtplib.SMTP(host, int(port), timeout=60)\n\
             {starttls}\n\
             s.login({user:?}, {password:?})\n\
             m = email.message.EmailMessage()\n\
             m['From'] = {user:?}; m['To'] = {to:?}; m['Bcc'] = 'secret@postrider.example'; m['Subject'] = {subject:?}\n\
             m.set_content('Hello, ünïcode.')\n\
             m.add_attachment(b'f' * 300000, maintype='application', subtype='pdf', filename='f.pdf')\n\
             s.sendmail({user:?}, [{to:?}], m.as_bytes(policy=m.policy.clone(linesep='\\r\\n'))); s.quit()\n",
            authority = self.authority,
            tls = if is_tls { "True" } else { "False" },
            starttls = if is_tls { "pass" } else { "s.starttls(context=c)" },
            user = self.address,
            password = self.password,
            to = self.to,
        );
        run(Command::new("python3").arg("-"), &script)
    }
}

/// Where nodemailer is: in NODE_PATH, or where it was fetched to. `None` where it is not to be had, which is said aloud, and fails in CI.
fn nodemailer() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let given = std::env::var_os("NODE_PATH").map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>());
    let places = given.unwrap_or_default().into_iter().chain([fetched.join("node_modules")]);
    let is_here = |modules: &PathBuf| modules.join("nodemailer/package.json").is_file();
    if is_there("node") {
        if let Some(modules) = places.clone().find(is_here) {
            return Some(modules);
        }
        std::fs::create_dir_all(&fetched).expect("make a folder");
        let mut install = Command::new("npm");
        install
            .args(["install", "--silent", "--no-save", "--no-audit", "--no-fund"])
            .args(NODE_PACKAGES)
            .current_dir(&fetched);
        let installed = install.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if installed.is_ok_and(|status| status.success()) {
            return places.into_iter().find(is_here);
        }
    }
    let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
    let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == "nodemailer");
    assert!(is_passed_over, "no node, or no nodemailer; POSTRIDER_ALLOW_MISSING=nodemailer passes over it");
    eprintln!("PASSED OVER: no node, or no nodemailer");
    None
}

/// What the programs that are here make of the subjects that they sent under.
fn send_with_all(sender: &Sender<'_>) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut sent = |what: &str, (succeeded, said): (bool, String)| {
        assert!(succeeded, "{what}: {said}");
        subjects.push(what.to_owned());
    };
    sent("smtplib-starttls", sender.smtplib(false, "smtplib-starttls"));
    sent("smtplib-tls", sender.smtplib(true, "smtplib-tls"));
    if is_there("curl") {
        sent("curl-starttls", sender.curl(false, "curl-starttls"));
        sent("curl-tls", sender.curl(true, "curl-tls"));
    }
    for mechanism in ["PLAIN", "LOGIN"] {
        if is_there("swaks") {
            let what = format!("swaks-{mechanism}");
            sent(&what, sender.swaks(mechanism, &what));
        }
    }
    for mechanism in ["plain", "login", "scram-sha-256"] {
        if is_there("msmtp") {
            let what = format!("msmtp-{mechanism}");
            sent(&what, sender.msmtp(mechanism, &what));
        }
    }
    if let Some(modules) = nodemailer() {
        for (is_tls, mechanism) in [(false, "PLAIN"), (false, "LOGIN"), (true, "PLAIN")] {
            let what = format!("nodemailer-{mechanism}-{is_tls}");
            sent(&what, sender.nodemailer(&modules, is_tls, mechanism, &what));
        }
    }
    for program in ["curl", "swaks", "msmtp"].into_iter().filter(|program| !is_there(program)) {
        eprintln!("{program} is not on this machine, and passed over");
    }
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_we_did_not_write_send_mail() {
    let cluster = Cluster::start(Options::default()).await;
    let (seoul, frankfurt) = (cluster.region("seoul"), cluster.region("frankfurt"));
    let ada = Api::sign_up(seoul, "ada@postrider.example").await;
    let bob = Api::sign_up(frankfurt, "bob@postrider.example").await;
    let made = json!({"name": "programs", "scopes": ["smtp"]});
    let made = ada.change(Method::POST, "/v1/app-passwords", made).await;
    let password = made["password"].as_str().expect("a password").to_owned();
    let authority = cluster.data_dir().join("tls/ca.pem");
    let to = "bob@postrider.example";
    let sender = |region, password| Sender {
        region,
        authority: authority.clone(),
        address: "ada@postrider.example",
        password,
        to,
    };
    // Any region's frontend does.
    let subjects = tokio::task::block_in_place(|| send_with_all(&sender(frankfurt, password.as_str())));
    let inbox = bob.inbox().await;
    let received: Vec<&str> = inbox.iter().map(|message| message["subject"].as_str().expect("a subject")).collect();
    for subject in &subjects {
        assert_eq!(received.iter().filter(|one| *one == subject).count(), 1, "{subject}: {received:?}");
    }
    assert_eq!(ada.folder("sent").await["total"], subjects.len());
    nobody_learns_of_bcc(&bob, &inbox).await;

    // Refused clearly: a wrong password, a revoked one, and another's name.
    tokio::task::block_in_place(|| is_refused(&sender(seoul, "wrong-password"), "535"));
    let path = format!("/v1/app-passwords/{}", made["id"].as_str().expect("an id"));
    let revoked = ada.ask(Method::DELETE, &path, None).await.expect("an answer");
    assert_eq!(revoked.status().as_u16(), 204);
    tokio::task::block_in_place(|| is_refused(&sender(seoul, password.as_str()), "535"));
    let made = ada.change(Method::POST, "/v1/app-passwords", json!({"name": "again", "scopes": ["smtp"]})).await;
    let again = made["password"].as_str().expect("a password");
    tokio::task::block_in_place(|| foreign_names_are_refused(&sender(seoul, again)));
    assert_eq!(bob.inbox().await.len(), inbox.len());
}

async fn nobody_learns_of_bcc(bob: &Api, inbox: &[Value]) {
    for message in inbox {
        let raw = bob.bytes(&format!("/v1/messages/{}/raw", message["id"].as_str().expect("an id"))).await;
        let raw = String::from_utf8_lossy(&raw).to_lowercase();
        assert!(!raw.contains("secret@") && !raw.contains("\nbcc:"), "{raw}");
        assert!(raw.contains("with esmtpsa id "), "{raw}");
    }
}

fn is_refused(sender: &Sender<'_>, code: &str) {
    let (succeeded, said) = sender.smtplib(false, "refused");
    assert!(!succeeded && said.contains(code), "{said}");
    let (succeeded, said) = sender.smtplib(true, "refused");
    assert!(!succeeded && said.contains(code), "{said}");
}

/// MAIL FROM, and From.
fn foreign_names_are_refused(sender: &Sender<'_>) {
    let script = |envelope: &str, from: &str| {
        format!(
            "import smtplib, ssl\n\
             c = ssl.create_default_context(cafile={:?}); c.check_hostname = False\n\
             host, port = {:?}.rsplit(':', 1)\n\
             s = smtplib.SMTP_SSL(host, int(port), context=c, timeout=60); s.login({:?}, {:?})\n\
             s.sendmail({envelope:?}, [{:?}], 'From: {from}\\r\\nSubject: foreign\\r\\n\\r\\nx\\r\\n')\n",
            sender.authority, sender.region.submissions, sender.address, sender.password, sender.to
        )
    };
    for (envelope, from, code) in
        [("bob@postrider.example", sender.address, "5.7.1"), (sender.address, "bob@postrider.example", "5.7.60")]
    {
        let (succeeded, said) = run(Command::new("python3").arg("-"), &script(envelope, from));
        assert!(!succeeded && said.contains("550") && said.contains(code), "{said}");
    }
    assert!(Path::new(&sender.authority).exists());
}

/// Times of AUTH, in turn for each kind of wrong credentials: argv has host, port, attempts, and then kind and credentials. A line of each kind.
const TIME_AUTH: &str = r#"
import base64, random, smtplib, ssl, sys, time
host, port, attempts, rest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
context = ssl._create_unverified_context()
tries = [tuple(rest[at:at + 3]) for at in range(0, len(rest), 3)] * attempts
random.Random(15).shuffle(tries)
times = {}
for kind, user, password in tries:
    # A connection of its own each, so that no one of them pays for those before.
    with smtplib.SMTP_SSL(host, port, context=context, timeout=60) as server:
        server.ehlo()
        response = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        begun = time.perf_counter()
        code, said = server.docmd("AUTH", "PLAIN " + response)
        times.setdefault(kind, []).append((time.perf_counter() - begun, code, said))
answers = {(code, said) for each in times.values() for _, code, said in each}
assert len(answers) == 1, answers
for kind, each in times.items():
    print(kind, *(int(took * 1e6) for took, _, _ in each))
"#;

/// Who is refused learns neither from the words nor from the time whether somebody has the address, or had the password. A bound on ranks: of two
/// refusals of different kinds either is the longer one about as often. Where one kind spared the hashing, which is most of the work, it
/// would be the shorter one nearly always.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_wrong_and_revoked_are_refused_alike_and_as_fast() {
    const ACCOUNTS: usize = 4;
    /// Of each address: fewer than are let through of one network.
    const ATTEMPTS: usize = 12;
    /// In how many of a hundred pairs the one may be the longer.
    const LONGER: std::ops::RangeInclusive<usize> = 10..=90;
    let cluster = Cluster::start(Options::default()).await;
    let region = cluster.region("seoul");
    let (host, port) = region.submissions.rsplit_once(':').expect("an address");
    let mut arguments = vec![host.to_owned(), port.to_owned(), ATTEMPTS.to_string()];
    for n in 0..ACCOUNTS {
        let (wrong, revoked) = (format!("wrong{n}@postrider.example"), format!("revoked{n}@postrider.example"));
        let mut password = String::new();
        for address in [&wrong, &revoked] {
            let user = Api::sign_up(region, address).await;
            let made = json!({"name": "a program", "scopes": ["smtp"]});
            let made = user.change(Method::POST, "/v1/app-passwords", made).await;
            password = made["password"].as_str().expect("a password").to_owned();
            if *address == revoked {
                let path = format!("/v1/app-passwords/{}", made["id"].as_str().expect("an id"));
                assert_eq!(user.ask(Method::DELETE, &path, None).await.expect("an answer").status().as_u16(), 204);
            }
        }
        for (kind, address) in
            [("unknown", format!("nobody{n}@postrider.example")), ("wrong", wrong), ("revoked", revoked)]
        {
            arguments.extend([kind.to_owned(), address, password.clone()]);
        }
    }
    let timed = move || run(Command::new("python3").arg("-").args(&arguments), TIME_AUTH);
    let (succeeded, said) = tokio::task::block_in_place(timed);
    assert!(succeeded, "{said}");
    let times: Vec<(&str, Vec<u64>)> = said
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().expect("a kind"), words.map(|word| word.parse().expect("microseconds")).collect())
        })
        .collect();
    assert_eq!(times.len(), 3, "{said}");
    for (place, (one, first)) in times.iter().enumerate() {
        for (other, second) in &times[..place] {
            assert_eq!((first.len(), second.len()), (ACCOUNTS * ATTEMPTS, ACCOUNTS * ATTEMPTS));
            let longer =
                first.iter().flat_map(|a| second.iter().map(move |b| a > b)).filter(|is_longer| *is_longer).count();
            let percent = longer * 100 / (first.len() * second.len());
            println!("{one} took longer than {other} in {percent} % of pairs");
            assert!(LONGER.contains(&percent), "{one} took longer than {other} in {percent} % of pairs:\n{said}");
        }
    }
}

/// The suite that drives real clients sends by each of them, without a password: to users of ours that is mail from anywhere. What it reads
/// by IMAP and POP3 has nothing to do with this server.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_suite_of_clients_sends_arrives() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/suites");
    let script = std::env::var_os("POSTRIDER_SUITES").map_or_else(beside, PathBuf::from).join("clients/clients.sh");
    if !script.is_file() {
        let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
        let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == "suites");
        assert!(is_passed_over, "no {}; POSTRIDER_ALLOW_MISSING=suites passes over it", script.display());
        return eprintln!("PASSED OVER: no {}", script.display());
    }
    let cluster = Cluster::start(Options::default()).await;
    let region = cluster.region("seoul");
    let bob = Api::sign_up(region, "bob@postrider.example").await;
    let (sent, said) = tokio::task::block_in_place(|| {
        let mut command = Command::new("bash");
        command.arg(&script).env("SMTP", &region.smtp).env("RCPT", &bob.address);
        // Nobody listens there.
        command.env("IMAP", "127.0.0.1:9").env("POP", "127.0.0.1:9").env("U", "nobody").env("P", "nothing");
        let modules = nodemailer();
        if let Some(modules) = &modules {
            command.env("NODE_PATH", modules);
        }
        let (_, said) = run(&mut command, "");
        let mut sent = Vec::new();
        for (client, is_there) in [
            ("swaks", is_there("swaks")),
            ("msmtp", is_there("msmtp")),
            ("curl-smtp", is_there("curl")),
            ("nodemailer", modules.is_some_and(|modules| modules.join("imapflow").is_dir())),
        ] {
            if is_there {
                assert!(said.lines().any(|line| line == format!("PASS {client}")), "{client}: {said}");
                sent.push(client);
            }
        }
        (sent, said)
    });
    let inbox = bob.inbox().await;
    assert_eq!(inbox.len(), sent.len(), "{sent:?}: {said}");
}
