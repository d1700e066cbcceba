//! SMTP submission: who gets in, what he may send, and what becomes of it.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_frontend::account::SignUpPolicy;
use reqwest::StatusCode;
use ring::{digest, hmac, pbkdf2};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::{DOMAIN, SECOND_DOMAIN};
use crate::world::{Front, PASSWORD, PATIENCE, Person, World, eventually};

const HOST: &str = "mx.postrider.example";

/// A world where mail is submitted.
struct Mail {
    world: World,
    connector: TlsConnector,
}

/// The client's side of a connection.
struct Session<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S) -> Self {
        Self { stream, input: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the connection holds");
        self.stream.flush().await.expect("the connection holds");
    }

    /// One whole reply; `None` at the end of the connection.
    async fn reply(&mut self) -> Option<String> {
        loop {
            let mut lines = String::new();
            for line in self.input.split_inclusive(|byte| *byte == b'\n') {
                lines.push_str(std::str::from_utf8(line).unwrap());
                if line.ends_with(b"\r\n") && line[3] == b' ' {
                    self.input.drain(..lines.len());
                    return Some(lines);
                }
            }
            let mut more = [0; 4096];
            let reading = tokio::time::timeout(PATIENCE, self.stream.read(&mut more));
            match reading.await.expect("the server answers") {
                Ok(read) if read > 0 => self.input.extend_from_slice(&more[..read]),
                _ => return None,
            }
        }
    }

    async fn ask(&mut self, text: &str, code: u16) -> String {
        self.send(&format!("{text}\r\n")).await;
        let reply = self.reply().await.unwrap_or_default();
        assert!(reply.starts_with(&code.to_string()), "{text:?}: wanted {code}, got {reply:?}");
        reply
    }

    /// The text of a challenge.
    async fn challenge(&mut self, text: &str) -> String {
        let reply = self.ask(text, 334).await;
        String::from_utf8(STANDARD.decode(reply[4..].trim_end()).unwrap()).unwrap()
    }

    async fn plain(&mut self, name: &str, password: &str) -> String {
        self.send(&format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("\0{name}\0{password}")))).await;
        self.reply().await.unwrap()
    }

    /// The whole of SCRAM-SHA-256; the reply at its end.
    async fn scram(&mut self, name: &str, password: &str) -> String {
        let bare = format!("n={name},r=clientnonce");
        let first = self.challenge(&format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(format!("n,,{bare}")))).await;
        let part = |key: &str| first.split(',').find_map(|part| part.strip_prefix(key)).unwrap().to_owned();
        let (nonce, salt) = (part("r="), STANDARD.decode(part("s=")).unwrap());
        assert!(nonce.starts_with("clientnonce") && nonce.len() > 30, "{nonce}");
        let rounds = part("i=").parse::<std::num::NonZeroU32>().unwrap();
        assert!(rounds.get() >= 4096, "RFC 7677");
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        };
        let client_key = sign(&salted, "Client Key");
        let stored = digest::digest(&digest::SHA256, &client_key);
        let last = format!("c=biws,r={nonce}");
        let said = format!("{bare},{first},{last}");
        let proof: Vec<u8> = client_key.iter().zip(sign(stored.as_ref(), &said)).map(|(a, b)| a ^ b).collect();
        self.send(&format!("{}\r\n", STANDARD.encode(format!("{last},p={}", STANDARD.encode(proof))))).await;
        let reply = self.reply().await.unwrap();
        if !reply.starts_with("334 ") {
            return reply;
        }
        let signature = STANDARD.encode(sign(&sign(&salted, "Server Key"), &said));
        let shown = String::from_utf8(STANDARD.decode(reply[4..].trim_end()).unwrap()).unwrap();
        assert_eq!(shown, format!("v={signature}"), "the server has the keys, too");
        self.send("\r\n").await;
        self.reply().await.unwrap()
    }

    /// The reply to the end of a message.
    async fn submit(&mut self, from: &str, to: &[&str], message: &str) -> String {
        self.ask(&format!("MAIL FROM:<{from}>"), 250).await;
        for to in to {
            self.ask(&format!("RCPT TO:<{to}>"), 250).await;
        }
        self.ask("DATA", 354).await;
        self.send(&format!("{message}.\r\n")).await;
        self.reply().await.unwrap()
    }
}

impl Mail {
    async fn new() -> Self {
        Self::with(Front::default()).await
    }

    async fn with(front: Front) -> Self {
        let signed = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let certificate = signed.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let front = Front { mail: Some(Arc::new(server)), ..front };
        let world = World::behind(front, SignUpPolicy::Open).await;
        Self { world, connector: TlsConnector::from(Arc::new(client)) }
    }

    async fn connect(address: Option<SocketAddr>) -> Session<TcpStream> {
        Session::new(TcpStream::connect(address.unwrap()).await.unwrap())
    }

    async fn handshake(&self, stream: TcpStream) -> Session<TlsStream<TcpStream>> {
        let name = ServerName::try_from(HOST).unwrap();
        Session::new(self.connector.connect(name, stream).await.unwrap())
    }

    /// By 587, after STARTTLS and EHLO.
    async fn secure(&self) -> Session<TlsStream<TcpStream>> {
        let mut plain = Self::connect(self.world.frontend.submission_addr()).await;
        plain.reply().await.unwrap();
        plain.ask("EHLO client.example", 250).await;
        plain.ask("STARTTLS", 220).await;
        let mut session = self.handshake(plain.stream).await;
        session.ask("EHLO client.example", 250).await;
        session
    }

    /// The same, logged in.
    async fn logged_in(&self, person: &Person, password: &str) -> Session<TlsStream<TcpStream>> {
        let mut session = self.secure().await;
        let reply = session.plain(&person.address, password).await;
        assert!(reply.starts_with("235 2.7.0 "), "{reply}");
        session
    }

    /// By 465, after EHLO.
    async fn begun_with_tls(&self) -> Session<TlsStream<TcpStream>> {
        let plain = Self::connect(self.world.frontend.submission_tls_addr()).await;
        let mut session = self.handshake(plain.stream).await;
        assert!(session.reply().await.unwrap().starts_with("220 "));
        let offered = session.ask("EHLO client.example", 250).await;
        assert!(!offered.contains("STARTTLS"), "{offered}");
        session
    }

    /// Somebody with an application password: its path and the password.
    async fn somebody(&self) -> (Person, String, String) {
        let person = self.world.person().await;
        let made = app_password(&person).await;
        (person, made.0, made.1)
    }

    /// The raw message of a folder that has one.
    async fn only_raw(&self, person: &Person, role: &str) -> String {
        let messages = person.messages(role).await;
        assert_eq!(messages.len(), 1, "{role} of {}", person.address);
        let path = format!("/v1/messages/{}/raw", messages[0]["id"].as_str().unwrap());
        String::from_utf8(person.client.get(&path).await.bytes.to_vec()).unwrap()
    }
}

async fn app_password(person: &Person) -> (String, String) {
    let made = person.client.post("/v1/app-passwords", &json!({"name": "mail", "scopes": ["smtp"]})).await.ok();
    let path = format!("/v1/app-passwords/{}", made["id"].as_str().unwrap());
    (path, made["password"].as_str().unwrap().to_owned())
}

fn letter(from: &str, subject: &str) -> String {
    format!("From: {from}\r\nTo: somebody@{DOMAIN}\r\nSubject: {subject}\r\n\r\nHello.\r\n")
}

#[tokio::test]
async fn a_program_logs_in_by_each_mechanism() {
    let mail = Mail::new().await;
    let (ada, path, password) = mail.somebody().await;
    let name = ada.address.as_str();
    let encode = |text: &str| STANDARD.encode(text);
    let mut plain = mail.secure().await;
    assert_eq!(plain.challenge("AUTH PLAIN").await, "");
    plain.ask(&encode(&format!("{name}\0{name}\0{password}")), 235).await;
    plain.ask("AUTH PLAIN", 503).await;
    let mut login = mail.begun_with_tls().await;
    assert_eq!(login.challenge("AUTH LOGIN").await, "Username:");
    assert_eq!(login.challenge(&encode(&name.to_uppercase())).await, "Password:");
    login.ask(&encode(&password), 235).await;
    let mut login = mail.secure().await;
    assert_eq!(login.challenge(&format!("AUTH LOGIN {}", encode(name))).await, "Password:");
    login.ask(&encode(&password), 235).await;
    assert!(mail.secure().await.scram(name, &password).await.starts_with("235 "));
    // The newest is another one of the same account: its keys have the same salt.
    let (_, newer) = app_password(&ada).await;
    for password in [&password, &newer] {
        assert!(mail.secure().await.scram(name, password).await.starts_with("235 "));
    }
    // What its owner sees of it, once the shard has noted it.
    eventually("its use is noted", async || {
        let listed = ada.client.get("/v1/app-passwords").await.ok();
        let line = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|line| path.ends_with(line["id"].as_str().unwrap()))
            .unwrap()
            .clone();
        line["last_used_at"].is_string()
    })
    .await;
}

#[tokio::test]
async fn nothing_is_taken_before_tls_and_a_login() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let mut plain = Mail::connect(mail.world.frontend.submission_addr()).await;
    plain.reply().await.unwrap();
    let offered = plain.ask("EHLO client.example", 250).await;
    assert!(offered.contains("STARTTLS") && !offered.contains("AUTH"), "{offered}");
    assert!(plain.plain(&ada.address, &password).await.starts_with("538 5.7.11 "));
    assert!(plain.ask(&format!("MAIL FROM:<{}>", ada.address), 530).await.contains("5.7.0"));
    plain.ask("STARTTLS", 220).await;
    let mut session = mail.handshake(plain.stream).await;
    session.ask("AUTH PLAIN", 503).await;
    let offered = session.ask("EHLO client.example", 250).await;
    for word in ["AUTH SCRAM-SHA-256 PLAIN LOGIN", "DSN", "REQUIRETLS", "CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE "] {
        assert!(offered.contains(word), "{word}: {offered}");
    }
    session.ask(&format!("MAIL FROM:<{}>", ada.address), 530).await;
    session.ask("AUTH CRAM-MD5", 504).await;
    session.challenge("AUTH PLAIN").await;
    session.ask("*", 501).await;
    session.challenge("AUTH SCRAM-SHA-256").await;
    session.send("no base64!\r\n").await;
    assert!(session.reply().await.unwrap().starts_with("501 5.5.2 "));
    assert!(session.plain("bob", "").await.starts_with("501 5.5.2 "));
    assert!(session.reply().await.unwrap().starts_with("421 "), "the third that let nobody in");
    assert_eq!(session.reply().await, None);
    // Mail for us comes without.
    let mut port25 = Mail::connect(mail.world.frontend.smtp_addr()).await;
    port25.reply().await.unwrap();
    let offered = port25.ask("EHLO client.example", 250).await;
    assert!(!offered.contains("AUTH") && !offered.contains("DSN"), "{offered}");
    assert!(port25.plain(&ada.address, &password).await.starts_with("502 "));
}

#[tokio::test]
async fn a_wrong_an_unknown_and_a_revoked_password_are_one_answer() {
    let mail = Mail::new().await;
    let (ada, path, revoked) = mail.somebody().await;
    let (_, good) = app_password(&ada).await;
    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    let nobody = format!("nobody@{DOMAIN}");
    // The account's own password is as good as any wrong one. Five each: one more, and the limit would answer.
    let answers = [
        mail.secure().await.plain(&ada.address, "wrong").await,
        mail.secure().await.scram(&ada.address, "wrong").await,
        mail.secure().await.plain(&ada.address, &revoked).await,
        mail.secure().await.scram(&ada.address, &revoked).await,
        mail.secure().await.plain(&ada.address, PASSWORD).await,
        mail.secure().await.plain(&nobody, &good).await,
        mail.secure().await.scram(&nobody, &good).await,
    ];
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(answers[0].starts_with("535 5.7.8 "), "{}", answers[0]);
}

#[tokio::test]
async fn salts_do_not_tell_who_is_here() {
    let mail = Mail::new().await;
    let (ada, _, _) = mail.somebody().await;
    let bob = mail.world.person().await;
    let nobody = format!("nobody@{DOMAIN}");
    for name in [&ada.address, &bob.address, &nobody] {
        let first = STANDARD.encode(format!("n,,n={name},r=x"));
        let mut salts = Vec::new();
        for _ in 0..2 {
            let said = mail.secure().await.challenge(&format!("AUTH SCRAM-SHA-256 {first}")).await;
            salts.push(said.split_once(",s=").unwrap().1.to_owned());
        }
        assert_eq!(salts[0], salts[1], "the same each time");
        assert!(salts[0].ends_with("==,i=4096"), "{salts:?}");
    }
}

#[tokio::test]
async fn guesses_are_counted_with_those_of_log_ins() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    for _ in 0..5 {
        assert!(mail.secure().await.plain(&ada.address, "guess").await.starts_with("535 "));
    }
    assert!(mail.secure().await.plain(&ada.address, &password).await.starts_with("454 4.7.0 "));
    let credentials = json!({"address": ada.address, "password": "guess guess"});
    // Where she has logged in before, a password of hers is compared: five more, and no more than by either protocol alone.
    assert_eq!(mail.world.client.post("/v1/sessions", &credentials).await.problem(), "too_many_attempts");
}

#[tokio::test]
async fn a_message_is_sent_and_repaired_and_nobody_learns_of_bcc() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let (bob, cyd) = (mail.world.person().await, mail.world.person().await);
    let mut session = mail.logged_in(&ada, &password).await;
    let message = format!(
        "From: Ada <{}>\r\nTo: {}\r\nBcc: {},\r\n secret@{DOMAIN}\r\nSubject: hello\r\n\r\n..dot\r\nBcc: in the text\r\n",
        ada.address, bob.address, cyd.address
    );
    let reply = session.submit(&ada.address.to_uppercase(), &[&bob.address, &cyd.address], &message).await;
    assert!(reply.starts_with("250 2.0.0 OK: queued as 1000-"), "{reply}");
    let sent = mail.only_raw(&ada, "sent").await;
    for copy in [&sent, &mail.only_raw(&bob, "inbox").await, &mail.only_raw(&cyd, "inbox").await] {
        assert_eq!(copy, &sent, "the bytes that were sent are everybody's");
    }
    assert!(sent.starts_with("Received: from client.example ") && sent.contains(" with ESMTPSA id "), "{sent}");
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, ".dot\r\nBcc: in the text\r\n");
    assert!(!head.to_lowercase().contains("\r\nbcc") && !head.contains("secret"), "{head}");
    assert!(!head.contains(&cyd.address) && !head.contains("Return-Path"), "{head}");
    for field in ["\r\nDate: ", "\r\nMessage-ID: <"] {
        assert_eq!(head.matches(field).count(), 1, "{head}");
    }
    // What the author wrote himself stays as it is.
    let whole =
        format!("Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <own@x>\r\n{}", letter(&ada.address, "two"));
    let dan = mail.world.person().await;
    assert!(session.submit(&ada.address, &[&dan.address], &whole).await.starts_with("250 "));
    assert!(mail.only_raw(&dan, "inbox").await.ends_with(&whole));
    mail.world.cluster.verify();
}

#[tokio::test]
async fn nobody_sends_in_anothers_name() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let mut session = mail.logged_in(&ada, &password).await;
    for from in [bob.address.as_str(), "", "ada@elsewhere.example"] {
        assert!(session.ask(&format!("MAIL FROM:<{from}>"), 550).await.contains("5.7.1"), "{from}");
    }
    let (own, other) = (&ada.address, &bob.address);
    for head in [
        format!("From: {other}\r\n"),
        format!("From: {own}, {other}\r\n"),
        format!("From: {own}\r\nFrom: {other}\r\n"),
        format!("From: {own}\r\nSender: {other}\r\n"),
        format!("From: \"{own}\" <{other}>\r\n"),
        format!("From: {own} <{other}>\r\n"),
        String::new(),
    ] {
        let reply = session.submit(own, &[other], &format!("{head}Subject: x\r\n\r\ntext\r\n")).await;
        assert!(reply.starts_with("550 5.7.60 "), "{head:?}: {reply}");
    }
    // A header that another reader would go on reading.
    let hidden = format!("From: {own}\r\nno field\r\nBcc: {other}\r\n\r\ntext\r\n");
    assert!(session.submit(own, &[other], &hidden).await.starts_with("550 5.6.0 "));
    let folded = format!(" folded\r\nFrom: {own}\r\n\r\ntext\r\n");
    assert!(session.submit(own, &[other], &folded).await.starts_with("550 5.6.0 "));
    assert!(bob.messages("inbox").await.is_empty() && ada.messages("sent").await.is_empty());
}

#[tokio::test]
async fn what_was_revoked_sends_nothing_more() {
    let mail = Mail::new().await;
    let (ada, path, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let mut session = mail.logged_in(&ada, &password).await;
    assert!(session.submit(&ada.address, &[&bob.address], &letter(&ada.address, "one")).await.starts_with("250 "));
    ada.client.delete(&path).await;
    let refused = session.submit(&ada.address, &[&bob.address], &letter(&ada.address, "two")).await;
    assert!(refused.starts_with("550 5.7.8 "), "{refused}");
    assert_eq!(bob.messages("inbox").await.len(), 1);
}

#[tokio::test]
async fn nothing_is_smuggled_in() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    for end in ["\n.\r\n", "\r\n.\n", "\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n"] {
        let mut session = mail.logged_in(&ada, &password).await;
        session.ask(&format!("MAIL FROM:<{}>", ada.address), 250).await;
        session.ask(&format!("RCPT TO:<{}>", bob.address), 250).await;
        session.ask("DATA", 354).await;
        let head = letter(&ada.address, "first");
        let smuggled = format!(
            "{head}text{end}MAIL FROM:<{0}>\r\nRCPT TO:<{1}>\r\nDATA\r\nsecond\r\n.\r\n",
            ada.address, bob.address
        );
        session.send(&smuggled).await;
        let reply = session.reply().await.unwrap();
        assert!(reply.starts_with("550 5.6.0 "), "{end:?}: {reply}");
        assert_eq!(session.reply().await, None, "{end:?}: the connection ends there");
    }
    assert!(bob.messages("inbox").await.is_empty());
    // Nor behind a command, nor behind a response.
    let mut session = mail.secure().await;
    session.challenge("AUTH PLAIN").await;
    session.send("AAAA\nMAIL FROM:<x@y.example>\r\n").await;
    assert!(session.reply().await.unwrap().starts_with("500 "));
    assert_eq!(session.reply().await, None);
}

#[tokio::test]
async fn an_account_sends_only_so_much() {
    let mail = Mail::with(Front { messages_per_account: 2, ..Front::default() }).await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let mut session = mail.logged_in(&ada, &password).await;
    for subject in ["one", "two"] {
        let reply = session.submit(&ada.address, &[&bob.address], &letter(&ada.address, subject)).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    session.ask(&format!("MAIL FROM:<{}>", ada.address), 250).await;
    assert!(session.ask(&format!("RCPT TO:<{}>", bob.address), 450).await.contains("4.7.1"));
}

#[tokio::test]
async fn people_of_another_zone_get_it_too() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let zoe = mail.world.person_called(&format!("zoe@{SECOND_DOMAIN}")).await;
    let mut session = mail.logged_in(&ada, &password).await;
    let reply = session.submit(&ada.address, &[&bob.address, &zoe.address], &letter(&ada.address, "all")).await;
    assert!(reply.starts_with("250 "), "{reply}");
    let sent = mail.only_raw(&ada, "sent").await;
    assert_eq!(mail.only_raw(&bob, "inbox").await, sent);
    assert_eq!(mail.only_raw(&zoe, "inbox").await, sent);
    mail.world.cluster.verify();
}

#[tokio::test]
async fn recipients_of_ours_are_looked_up_at_once() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let mut session = mail.logged_in(&ada, &password).await;
    session.ask(&format!("MAIL FROM:<{}>", ada.address), 250).await;
    assert!(session.ask(&format!("RCPT TO:<nobody@{DOMAIN}>"), 550).await.contains("5.1.1"));
    for impossible in ["bob@[192.0.2.1]", "bob@-x-.example", "a..b@far.example"] {
        session.send(&format!("RCPT TO:<{impossible}>\r\n")).await;
        let reply = session.reply().await.unwrap();
        assert!(reply.starts_with("553 5.1.3 ") || reply.starts_with("501 5.1.3 "), "{impossible}: {reply}");
    }
    // Somebody who is not logged in gets nothing out.
    let mut port25 = Mail::connect(mail.world.frontend.smtp_addr()).await;
    port25.reply().await.unwrap();
    port25.ask("EHLO client.example", 250).await;
    port25.ask(&format!("MAIL FROM:<{}>", ada.address), 250).await;
    assert!(port25.ask("RCPT TO:<bob@far.example>", 550).await.contains("5.7.1"));
    port25.ask(&format!("RCPT TO:<{}> NOTIFY=NEVER", ada.address), 555).await;
    port25.ask("RSET", 250).await;
    port25.ask(&format!("MAIL FROM:<{}> RET=FULL", ada.address), 555).await;
}

#[tokio::test]
async fn a_large_file_goes_by_chunks() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let mut session = mail.begun_with_tls().await;
    assert!(session.plain(&ada.address, &password).await.starts_with("235 "));
    let file = STANDARD.encode(vec![b'f'; 200_000]);
    let lines: Vec<&str> = (0..file.len()).step_by(76).map(|at| &file[at..(at + 76).min(file.len())]).collect();
    let message = format!(
        "From: {}\r\nSubject: file\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        ada.address,
        lines.join("\r\n")
    );
    session.ask(&format!("MAIL FROM:<{}> SIZE={}", ada.address, message.len()), 250).await;
    session.ask(&format!("RCPT TO:<{}>", bob.address), 250).await;
    let (head, tail) = message.split_at(1000);
    session.send(&format!("BDAT {}\r\n{head}BDAT {} LAST\r\n{tail}", head.len(), tail.len())).await;
    assert!(session.reply().await.unwrap().starts_with("250 "));
    assert!(session.reply().await.unwrap().starts_with("250 2.0.0 OK: queued"));
    assert!(mail.only_raw(&bob, "inbox").await.ends_with(&message));
    mail.world.cluster.verify();
}

#[tokio::test]
async fn mail_to_the_outside_waits_in_the_outbox() {
    let mail = Mail::new().await;
    let (ada, _, password) = mail.somebody().await;
    let bob = mail.world.person().await;
    let mut session = mail.logged_in(&ada, &password).await;
    session.ask(&format!("MAIL FROM:<{}> RET=HDRS ENVID=QQ REQUIRETLS", ada.address), 250).await;
    for rcpt in [
        "RCPT TO:<Carol@Far.Example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;carol@far.example".to_owned(),
        "RCPT TO:<Carol@far.example>".to_owned(),
        format!("RCPT TO:<{}>", bob.address),
    ] {
        session.ask(&rcpt, 250).await;
    }
    session.ask("DATA", 354).await;
    let reply = session.ask(&format!("{}.", letter(&ada.address, "out")), 250).await;
    assert!(reply.contains("queued as 1000-"), "{reply}");
    assert_eq!(bob.messages("inbox").await.len(), 1, "who lives here has it");
    let outbox = ada.client.get("/v1/outbox").await.ok();
    let recipients = outbox["messages"][0]["recipients"].as_array().unwrap();
    assert_eq!(recipients.len(), 1, "named twice he gets it once: {outbox}");
    assert_eq!(recipients[0]["address"], "Carol@far.example");
    assert_eq!(outbox["messages"][0]["message_id"], ada.messages("sent").await[0]["id"]);
    mail.world.cluster.verify();
}
