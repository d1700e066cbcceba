//! The world outside of a cluster: a DNS server for some domains, and hosts that take their mail and count it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

/// What may be named in POSTRIDER_ALLOW_MISSING where nothing can listen at port 25.
const NEEDED: &str = "port25";
/// A connection that broke: what was taken on it so long before may not be settled yet.
const SETTLING: Duration = Duration::from_secs(10);

/// A DNS server for domains with one host each, `mx.` and the domain: MX and A records, and for everything else that there is none.
pub async fn dns(hosts: &[(&str, Ipv4Addr)]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("it has an address");
    let hosts: BTreeMap<String, Ipv4Addr> = hosts.iter().map(|(domain, host)| (format!("{domain}."), *host)).collect();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut query).await else { continue };
            if let Some(answer) = answer(&query[..length], &hosts) {
                socket.send_to(&answer, from).await.ok();
            }
        }
    });
    address
}

/// RFC 1035 section 4.1: the question again, and one record where there is one.
fn answer(query: &[u8], hosts: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(std::str::from_utf8(query.get(at..at + length)?).ok()?);
        name.push('.');
        at += length;
    }
    name.make_ascii_lowercase();
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let data = match kind {
        // Of preference 10, before the name that was asked for.
        15 if hosts.contains_key(&name) => Some([&[0, 10, 2][..], b"mx", &[0xc0, 12]].concat()),
        1 => name.strip_prefix("mx.").and_then(|domain| hosts.get(domain)).map(|host| host.octets().to_vec()),
        _ => None,
    };
    let mut answer = query[..2].to_vec();
    answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    if let Some(data) = data {
        answer.extend_from_slice(&[0xc0, 12]);
        answer.extend_from_slice(&kind.to_be_bytes());
        answer.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        answer.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend_from_slice(&data);
    }
    Some(answer)
}

/// A message that a host took.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its Message-ID.
    pub id: String,
    /// Its recipients, as RCPT named them.
    pub recipients: Vec<String>,
    /// As it came, without the stuffing.
    pub raw: Vec<u8>,
    /// When the host said that it has it.
    pub at: Instant,
    connection: u64,
}

#[derive(Default)]
struct Books {
    taken: Vec<Taken>,
    connections: u64,
    /// Connections that ended without QUIT, and when.
    broken: BTreeMap<u64, Instant>,
}

/// A host that takes everything but for `nobody`. It is gone, with its connections, when this is dropped.
pub struct Sink {
    books: Arc<Mutex<Books>>,
    listens: JoinHandle<()>,
}

impl Sink {
    /// Listens at port 25. It thinks for so long about each message. `None` where nobody may listen there, which is said aloud, and fails in CI.
    pub async fn listen(at: Ipv4Addr, thinks: Duration) -> Option<Self> {
        let listener = match TcpListener::bind((at, 25)).await {
            Ok(listener) => listener,
            Err(error) => {
                let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
                let is_passed_over =
                    std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == NEEDED);
                assert!(is_passed_over, "{at}:25: {error}; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs it");
                eprintln!("PASSED OVER: nothing can listen at {at}:25 ({error})");
                return None;
            }
        };
        let books = Arc::<Mutex<Books>>::default();
        let told = Arc::clone(&books);
        let listens = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut books = told.lock().expect("nobody panics with it");
                    books.connections += 1;
                    books.connections
                };
                connections.spawn(serve(stream, number, thinks, Arc::clone(&told)));
                while connections.try_join_next().is_some() {}
            }
        });
        Some(Self { books, listens })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("nobody panics with it")
    }

    /// How many it has taken, each copy counted.
    pub fn count(&self) -> usize {
        self.books().taken.len()
    }

    /// Everything that it has taken, in that order.
    pub fn taken(&self) -> Vec<Taken> {
        self.books().taken.clone()
    }

    /// Everybody whom it has something for.
    pub fn recipients(&self) -> BTreeSet<String> {
        self.books().taken.iter().flat_map(|taken| taken.recipients.iter().cloned()).collect()
    }

    /// Messages of which it has more than one copy, and how many too many.
    pub fn duplicates(&self) -> BTreeMap<String, usize> {
        let mut copies = BTreeMap::<String, usize>::new();
        for taken in &self.books().taken {
            *copies.entry(taken.id.clone()).or_default() += 1;
        }
        copies.into_iter().filter(|(_, count)| *count > 1).map(|(id, count)| (id, count - 1)).collect()
    }

    /// Messages that it took on connections which broke soon after: whoever brought them may not have written down that it has them.
    pub fn cut(&self) -> BTreeMap<String, usize> {
        let books = self.books();
        let mut cut = BTreeMap::<String, usize>::new();
        for taken in &books.taken {
            if books.broken.get(&taken.connection).is_some_and(|at| at.saturating_duration_since(taken.at) < SETTLING) {
                *cut.entry(taken.id.clone()).or_default() += 1;
            }
        }
        cut
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

async fn serve(stream: TcpStream, number: u64, thinks: Duration, books: Arc<Mutex<Books>>) {
    let said_goodbye = converse(stream, number, thinks, &books).await.unwrap_or(false);
    if !said_goodbye {
        books.lock().expect("nobody panics with it").broken.insert(number, Instant::now());
    }
}

/// Whether the client ended it with QUIT.
async fn converse(stream: TcpStream, number: u64, thinks: Duration, books: &Mutex<Books>) -> std::io::Result<bool> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx ESMTP\r\n").await?;
    let (mut line, mut recipients) = (String::new(), Vec::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(false);
        }
        let command = line.to_ascii_uppercase();
        let reply = match command.get(..4) {
            Some("EHLO") => "250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            Some("RCPT") if command.contains("NOBODY") => "550 5.1.1 There is nobody of this name\r\n",
            Some("RCPT") => {
                recipients.extend(line.split(['<', '>']).nth(1).map(str::to_owned));
                "250 2.1.5 Ok\r\n"
            }
            Some("DATA") => "354 Go on\r\n",
            Some("QUIT") => {
                stream.write_all(b"221 2.0.0 Bye\r\n").await?;
                return Ok(true);
            }
            _ => "250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
        if !command.starts_with("DATA") {
            continue;
        }
        let raw = message(&mut stream).await?;
        tokio::time::sleep(thinks).await;
        let id = header(&raw, "message-id").unwrap_or_default();
        let recipients = std::mem::take(&mut recipients);
        let taken = Taken { id, recipients, raw, at: Instant::now(), connection: number };
        books.lock().expect("nobody panics with it").taken.push(taken);
        stream.write_all(b"250 2.0.0 Taken\r\n").await?;
    }
}

async fn message(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(message);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// The value of a header field that stands on one line.
fn header(raw: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    let mut fields = text.lines().take_while(|line| !line.is_empty());
    fields.find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
