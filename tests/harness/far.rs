//! A domain outside, `far.example`: a DNS server that names its one host, and the host, which takes everything and keeps it with its envelope.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// What may be named in POSTRIDER_ALLOW_MISSING where nothing can listen at port 25.
const NEEDED: &str = "port25";

/// A message as the host took it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub mail_from: String,
    pub recipients: Vec<String>,
    /// Without what SMTP puts around it.
    pub content: Vec<u8>,
}

/// The domain.
pub struct Far {
    pub taken: Arc<Mutex<Vec<Message>>>,
    pub resolver: SocketAddr,
}

/// Starts both; `None` where port 25 is not to be had, and that is allowed.
pub async fn start(at: Ipv4Addr) -> Option<Far> {
    let listener = match TcpListener::bind((at, 25)).await {
        Ok(listener) => listener,
        Err(error) => {
            let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
            let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == NEEDED);
            assert!(is_passed_over, "{at}:25: {error}; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs it");
            eprintln!("PASSED OVER: nothing can listen at {at}:25 ({error})");
            return None;
        }
    };
    let taken = Arc::<Mutex<Vec<Message>>>::default();
    let told = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let taken = Arc::clone(&told);
            tokio::spawn(async move { serve(stream, taken).await.ok() });
        }
    });
    Some(Far { taken, resolver: dns(at).await })
}

async fn serve(stream: TcpStream, taken: Arc<Mutex<Vec<Message>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx.far.example ESMTP\r\n").await?;
    let mut message = Message::default();
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned());
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match (verb.as_str(), path) {
            ("EHLO", _) => "250-mx.far.example\r\n250 8BITMIME\r\n",
            ("MAIL", Some(path)) => {
                message = Message { mail_from: path, ..Message::default() };
                "250 2.1.0 Ok\r\n"
            }
            ("RCPT", Some(path)) => {
                message.recipients.push(path);
                "250 2.1.5 Ok\r\n"
            }
            ("DATA", _) => "354 Go on\r\n",
            _ => "250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
        if verb == "DATA" {
            loop {
                let mut line = Vec::new();
                stream.read_until(b'\n', &mut line).await?;
                if line == b".\r\n" {
                    break;
                }
                message.content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
            taken.lock().expect("nobody panics here").push(std::mem::take(&mut message));
            stream.write_all(b"250 2.0.0 Taken\r\n").await?;
        }
    }
}

/// MX and A records of one host, and of everything else that there is none.
async fn dns(host: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("it has an address");
    tokio::spawn(async move {
        let mut query = [0; 1500];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut query).await else { continue };
            if let Some(answer) = answer(&query[..length], host) {
                socket.send_to(&answer, from).await.ok();
            }
        }
    });
    address
}

/// RFC 1035 section 4.1: the question again, and one record where there is one.
fn answer(query: &[u8], host: Ipv4Addr) -> Option<Vec<u8>> {
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
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let data = match (name.to_ascii_lowercase().as_str(), kind) {
        ("far.example.", 15) => Some([&[0, 10, 2][..], b"mx", &[0xc0, 12]].concat()),
        ("mx.far.example.", 1) => Some(host.octets().to_vec()),
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
