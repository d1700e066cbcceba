//! A server on loopback and a client that says exactly what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use postrider_api::env::SystemEntropy;
use postrider_api::id::{BlobHash, ShardId, UserId};
use postrider_api::pb;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{BlobPutError, BlobSink, Door, SmtpLimits, SmtpOptions, SmtpServer};
use crate::cluster::mail::{self, Kept, MailCluster};
use crate::limits::{LimitTable, Limiter};
use crate::network::Networks;
use crate::round_trips::RoundTrips;
use postrider_mime::CutBlob;
use postrider_outgoing::return_path::ReturnPaths;

/// Of the cluster.
pub(super) const SECRET: [u8; 32] = [9; 32];

/// The machine may be slow; nothing here waits for this long when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const A: ShardId = ShardId(1000);
pub(super) const B: ShardId = ShardId(1001);
pub(super) const C: ShardId = ShardId(1002);

/// Blob storage in memory.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) blobs: Mutex<Vec<(ShardId, BlobHash, Bytes)>>,
    pub(super) fails: Mutex<bool>,
    /// Shards none of whose regions has a store that works.
    pub(super) fails_for: Mutex<Vec<ShardId>>,
}

#[async_trait]
impl BlobSink for Stored {
    async fn put_all(&self, map: &pb::ShardMap, shard: ShardId, blobs: Vec<CutBlob>) -> Result<(), BlobPutError> {
        if *self.fails.lock() || self.fails_for.lock().contains(&shard) {
            return Err(BlobPutError::Unavailable("one region".to_owned()));
        }
        assert!(map.shards.iter().any(|known| known.id == shard.0), "shard {shard} is not in the map");
        self.blobs.lock().extend(blobs.into_iter().map(|blob| (shard, blob.hash, blob.content)));
        Ok(())
    }
}

/// A server for one test, with `ada` in shard A, `bob` in B and a postmaster in A.
pub(super) struct Harness {
    pub(super) cluster: Arc<MailCluster>,
    pub(super) stored: Arc<Stored>,
    pub(super) address: SocketAddr,
    pub(super) drain: CancellationToken,
    pub(super) server: JoinHandle<()>,
    pub(super) ada: UserId,
    pub(super) bob: UserId,
}

pub(super) fn options() -> SmtpOptions {
    SmtpOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        host: "mx.postrider.example".to_owned(),
        banner: "Postrider".to_owned(),
        region: "seoul".to_owned(),
        tls: None,
        proxies: Networks::default(),
        return_paths: Some(ReturnPaths::new(&SECRET)),
        submission: None,
        limits: SmtpLimits::default(),
        limiter: Limiter::local(LimitTable::default(), [1; 32], mail::CLOCK.clone()),
        round_trips: RoundTrips::default(),
        clock: mail::CLOCK.clone(),
        entropy: SystemEntropy::shared(),
    }
}

impl Harness {
    pub(super) async fn start() -> Self {
        Self::start_with(options()).await
    }

    pub(super) async fn limited(change: impl FnOnce(&mut SmtpLimits)) -> Self {
        let mut options = options();
        change(&mut options.limits);
        Self::start_with(options).await
    }

    pub(super) async fn start_with(options: SmtpOptions) -> Self {
        let cluster = MailCluster::new(3);
        let ada = cluster.add_user("ada", A);
        let bob = cluster.add_user("bob", B);
        cluster.add_user("postmaster", A);
        let stored = Arc::new(Stored::default());
        let drain = CancellationToken::new();
        let server = SmtpServer::bind(options, Arc::clone(&cluster) as _, Arc::clone(&stored) as _, drain.clone())
            .await
            .unwrap();
        let address = server.local_addr(Door::Receive).unwrap().unwrap();
        let server = tokio::spawn(server.run());
        Self { cluster, stored, address, drain, server, ada, bob }
    }

    pub(super) async fn connect(&self) -> Client<TcpStream> {
        let mut client = Client::new(TcpStream::connect(self.address).await.unwrap());
        client.expect(220).await;
        client
    }

    /// The same from another address of this host.
    pub(super) async fn connect_from(&self, address: &str) -> Client<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        let mut client = Client::new(socket.connect(self.address).await.unwrap());
        client.expect(220).await;
        client.ask("EHLO client.example\r\n", 250).await;
        client
    }

    /// A client that has said EHLO.
    pub(super) async fn greeted(&self) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.ask("EHLO client.example\r\n", 250).await;
        client
    }

    /// A client that may begin with content.
    pub(super) async fn addressed(&self) -> Client<TcpStream> {
        let mut client = self.greeted().await;
        client.address("ada").await;
        client
    }

    /// Sends one message to Ada in a connection of its own; the reply to its end.
    pub(super) async fn deliver(&self, content: &[u8]) -> String {
        let mut client = self.addressed().await;
        client.ask("DATA\r\n", 354).await;
        client.send(&[content, b".\r\n"].concat()).await;
        client.reply().await
    }

    /// Ada's only message, without the trace fields.
    pub(super) fn only_message(&self) -> Vec<u8> {
        let inbox = self.cluster.inbox(self.ada);
        assert_eq!(inbox.len(), 1);
        without_trace(&inbox[0])
    }
}

/// What the client sent of a message.
pub(super) fn without_trace(kept: &Kept) -> Vec<u8> {
    let raw = kept.raw();
    let text = String::from_utf8_lossy(&raw).into_owned();
    assert!(text.starts_with("Return-Path: <"), "{text}");
    let mut at = text.find("\r\nReceived: ").expect("a Received field") + 2;
    loop {
        at += raw[at..].windows(2).position(|pair| pair == b"\r\n").expect("the field ends") + 2;
        if !matches!(raw.get(at), Some(b' ' | b'\t')) {
            return raw[at..].to_vec();
        }
    }
}

/// The client's side of a connection.
pub(super) struct Client<S> {
    pub(super) stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads").expect("the connection holds");
        self.stream.flush().await.expect("the connection holds");
    }

    /// One whole reply, its lines joined.
    pub(super) async fn reply(&mut self) -> String {
        self.next().await.expect("a reply before the end of the connection")
    }

    async fn next(&mut self) -> Option<String> {
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
            match timeout(PATIENCE, self.stream.read(&mut more)).await.expect("the server answers") {
                Ok(read) if read > 0 => self.input.extend_from_slice(&more[..read]),
                _ => return None,
            }
        }
    }

    #[track_caller]
    fn check(reply: &str, code: u16) {
        assert!(reply.starts_with(&code.to_string()), "wanted {code}, got {reply}");
    }

    pub(super) async fn expect(&mut self, code: u16) -> String {
        let reply = self.reply().await;
        Self::check(&reply, code);
        reply
    }

    pub(super) async fn ask(&mut self, text: &str, code: u16) -> String {
        self.send(text.as_bytes()).await;
        let reply = self.reply().await;
        assert!(reply.starts_with(&code.to_string()), "{text:?}: wanted {code}, got {reply}");
        reply
    }

    /// Sends the pieces one by one, with a pause behind each, until the server says something. Its words must come before the
    /// last piece has gone: while it is still sent to, and not because that has stopped.
    pub(super) async fn trickle(&mut self, pieces: impl IntoIterator<Item = &[u8]>, pause: Duration) -> String {
        for piece in pieces {
            self.send(piece).await;
            if let Ok(reply) = timeout(pause, self.next()).await {
                return reply.expect("a reply before the end of the connection");
            }
        }
        panic!("the server bears it");
    }

    /// MAIL and RCPT.
    pub(super) async fn address(&mut self, name: &str) {
        self.ask("MAIL FROM:<sender@client.example>\r\n", 250).await;
        self.ask(&format!("RCPT TO:<{name}@{}>\r\n", mail::DOMAIN), 250).await;
    }

    /// What still comes until the server closes.
    pub(super) async fn rest(&mut self) -> Vec<String> {
        let mut replies = Vec::new();
        while let Some(reply) = self.next().await {
            replies.push(reply);
        }
        replies
    }

    pub(super) async fn expect_closed(&mut self) {
        assert_eq!(self.rest().await, Vec::<String>::new());
    }
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
