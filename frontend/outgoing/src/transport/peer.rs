//! A peer that does what a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::smtp::Stream;

/// What a peer does instead of what it would.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Says this, whatever it is, and goes on as if it had said what it would.
    Say(&'static str),
    /// The same, and closes.
    SayAndClose(&'static str),
    /// Closes.
    Close,
    /// Says nothing, for ever.
    Hang,
    /// Takes the command, and forgets whatever else has come by then.
    DropTheRest,
    /// Says 220 to STARTTLS with more behind it.
    Inject,
}

/// A message that a peer took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) mail: String,
    pub(super) rcpt: Vec<String>,
    pub(super) body: Vec<u8>,
    pub(super) is_encrypted: bool,
}

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sessions: usize,
    pub(super) commands: Vec<String>,
    pub(super) taken: Vec<Taken>,
}

type Script = Arc<dyn Fn(usize, &str) -> Option<Act> + Send + Sync>;

/// A peer.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Seen>>,
}

impl Peer {
    /// A peer that offers these extensions and keeps to `script`: asked with the number of the session, from 1, and a command;
    /// `GREETING` and `.` are the beginning and the end of a message.
    pub(super) async fn start(
        at: &str,
        extensions: &'static [&'static str],
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script: Script = Arc::new(script);
        let told = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = {
                    let mut seen = told.lock();
                    seen.sessions += 1;
                    seen.sessions
                };
                let (seen, script, tls) = (Arc::clone(&told), Arc::clone(&script), tls.clone());
                let mut session = Session { number, seen, script, extensions, tls, is_encrypted: false };
                tokio::spawn(async move { session.serve(Box::new(stream)).await });
            }
        });
        Self { address, seen }
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.seen.lock().taken.clone()
    }

    pub(super) fn sessions(&self) -> usize {
        self.seen.lock().sessions
    }

    pub(super) fn commands(&self) -> Vec<String> {
        self.seen.lock().commands.clone()
    }
}

struct Session {
    number: usize,
    seen: Arc<Mutex<Seen>>,
    script: Script,
    extensions: &'static [&'static str],
    tls: Option<Arc<ServerConfig>>,
    is_encrypted: bool,
}

/// Whether the session goes on.
enum Next {
    On,
    Encrypt,
    End,
}

impl Session {
    async fn serve(&mut self, stream: Box<dyn Stream>) -> Option<()> {
        let mut stream = BufReader::new(stream);
        if !matches!(self.reply(&mut stream, "GREETING", "220 peer.example\r\n").await?, Next::On) {
            return None;
        }
        loop {
            match self.transaction(&mut stream).await? {
                Next::Encrypt => {
                    let acceptor = TlsAcceptor::from(self.tls.clone()?);
                    let encrypted = acceptor.accept(stream.into_inner()).await.ok()?;
                    stream = BufReader::new(Box::new(encrypted) as Box<dyn Stream>);
                    self.is_encrypted = true;
                }
                Next::On => {}
                Next::End => return None,
            }
        }
    }

    async fn reply(&self, stream: &mut BufReader<Box<dyn Stream>>, command: &str, usual: &str) -> Option<Next> {
        self.seen.lock().commands.push(command.trim_end().to_owned());
        let (text, next) = match (self.script)(self.number, command.trim_end()) {
            None => (usual.to_owned(), Next::On),
            Some(Act::Say(text)) => (text.to_owned(), Next::On),
            Some(Act::SayAndClose(text)) => (text.to_owned(), Next::End),
            Some(Act::Close) => return None,
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::DropTheRest) => {
                let waiting = stream.buffer().len();
                stream.consume(waiting);
                (usual.to_owned(), Next::On)
            }
            Some(Act::Inject) => ("220 go\r\n250 injected\r\n".to_owned(), Next::On),
        };
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        Some(next)
    }

    /// Commands until one transaction is over.
    async fn transaction(&mut self, stream: &mut BufReader<Box<dyn Stream>>) -> Option<Next> {
        let (mut mail, mut rcpt) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" => self.hello(),
                "STARTTLS" => "220 go\r\n".to_owned(),
                "DATA" => "354 go\r\n".to_owned(),
                "BDAT" => String::new(),
                _ => "250 2.0.0 ok\r\n".to_owned(),
            };
            let says_no = |act: Option<Act>| matches!(act, Some(Act::Say(text)) if !text.starts_with(['2', '3']));
            let is_no = says_no((self.script)(self.number, &line));
            match self.reply(stream, &line, &usual).await? {
                Next::On => {}
                other => return Some(other),
            }
            match verb.as_str() {
                "MAIL" => mail = line,
                "RCPT" if !is_no => rcpt.push(line),
                "STARTTLS" if !is_no => return Some(Next::Encrypt),
                "DATA" if !is_no => return self.message(stream, mail, rcpt, None).await,
                "BDAT" => {
                    let size = line.split(' ').nth(1).unwrap().parse().unwrap();
                    return self.message(stream, mail, rcpt, Some(size)).await;
                }
                "QUIT" => return Some(Next::End),
                _ => {}
            }
        }
    }

    fn hello(&self) -> String {
        let mut lines = vec!["peer.example".to_owned()];
        lines.extend(self.extensions.iter().map(|extension| (*extension).to_owned()));
        if self.tls.is_some() && !self.is_encrypted {
            lines.push("STARTTLS".to_owned());
        }
        let last = lines.len() - 1;
        let line = |(index, line): (usize, String)| format!("250{}{line}\r\n", if index == last { ' ' } else { '-' });
        lines.into_iter().enumerate().map(line).collect()
    }

    async fn message(
        &mut self,
        stream: &mut BufReader<Box<dyn Stream>>,
        mail: String,
        rcpt: Vec<String>,
        size: Option<usize>,
    ) -> Option<Next> {
        let mut body = Vec::new();
        if let Some(size) = size {
            body.resize(size, 0);
            stream.read_exact(&mut body).await.ok()?;
        } else {
            if let Some(Act::Close) = (self.script)(self.number, "BODY") {
                return None;
            }
            loop {
                let mut line = Vec::new();
                if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                    return None;
                }
                if line == b".\r\n" {
                    break;
                }
                body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
        }
        let is_no = matches!((self.script)(self.number, "."), Some(Act::Say(text)) if text.starts_with(['4', '5']));
        if !is_no {
            let is_encrypted = self.is_encrypted;
            self.seen.lock().taken.push(Taken { mail, rcpt, body, is_encrypted });
        }
        self.reply(stream, ".", "250 2.0.0 taken\r\n").await
    }
}

/// A certificate of an authority that only the test knows.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A server of this name, with its certificate.
    pub(super) fn server(&self, name: &str) -> (Arc<ServerConfig>, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone(), self.certificate.clone()], private)
            .unwrap();
        (Arc::new(config), certificate)
    }
}
