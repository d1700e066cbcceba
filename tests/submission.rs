//! Programs that we did not write send mail through submission of a real cluster: swaks, msmtp, curl and Python's smtplib, with
//! STARTTLS and with TLS from the first byte, by each mechanism that they know; and are refused as the page says.
//!
//! A program that is not on this machine is named and passed over; at least Python is there.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::rest::Api;
use harness::{Cluster, Options, Region};
use reqwest::Method;
use serde_json::{Value, json};

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
