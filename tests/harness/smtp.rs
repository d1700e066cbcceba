//! An SMTP client for tests. It never sends a transaction again: what was not answered with 250 is unknown.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// How long a reply may take: nothing hangs.
const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// Who sends, where nothing else is said.
pub const SENDER: &str = "sender@outside.example";

/// Base64 lines of 57 bytes each: 200 KB, above the 128 KiB from which a part goes to the object stores.
const ATTACHMENT_LINES: usize = 3600;

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// 250: it is durable.
    Accepted(String),
    /// A reply that is not 250, and where it came: the recipient, or the end of the data.
    Refused { code: u16, text: String, after_data: bool },
    /// The connection ended before the reply.
    Unknown,
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: &str) -> std::io::Result<Self> {
        let mut client = Self { stream: BufReader::new(TcpStream::connect(address).await?) };
        client.expect(220).await?;
        client.say("EHLO test.example\r\n").await?;
        client.expect(250).await?;
        Ok(client)
    }

    /// One transaction. `message` has CRLF lines.
    pub async fn send(&mut self, recipients: &[&str], message: &[u8]) -> Sent {
        match self.transaction(recipients, message).await {
            Ok(sent) => sent,
            Err(_) => Sent::Unknown,
        }
    }

    async fn transaction(&mut self, recipients: &[&str], message: &[u8]) -> std::io::Result<Sent> {
        match self.address(SENDER, recipients).await? {
            Some(refused) => Ok(refused),
            None => self.content(message).await,
        }
    }

    /// MAIL and RCPT; what was refused, if anything.
    pub async fn address(&mut self, from: &str, recipients: &[&str]) -> std::io::Result<Option<Sent>> {
        self.say(&format!("MAIL FROM:<{from}> BODY=8BITMIME\r\n")).await?;
        let (code, text) = self.reply().await?;
        if code != 250 {
            return Ok(Some(Sent::Refused { code, text, after_data: false }));
        }
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>\r\n")).await?;
            let (code, text) = self.reply().await?;
            if code != 250 {
                self.say("RSET\r\n").await?;
                self.reply().await?;
                return Ok(Some(Sent::Refused { code, text, after_data: false }));
            }
        }
        Ok(None)
    }

    /// DATA and the message, after [`Self::address`].
    pub async fn content(&mut self, message: &[u8]) -> std::io::Result<Sent> {
        self.say("DATA\r\n").await?;
        let (code, text) = self.reply().await?;
        if code != 354 {
            return Ok(Sent::Refused { code, text, after_data: false });
        }
        self.stream.get_mut().write_all(&stuffed(message)).await?;
        let (code, text) = self.reply().await?;
        Ok(if code == 250 { Sent::Accepted(text) } else { Sent::Refused { code, text, after_data: true } })
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(line.as_bytes()).await
    }

    async fn expect(&mut self, code: u16) -> std::io::Result<()> {
        let (got, text) = self.reply().await?;
        if got == code { Ok(()) } else { Err(std::io::Error::other(format!("{got} {text}"))) }
    }

    async fn reply(&mut self) -> std::io::Result<(u16, String)> {
        let read = async {
            loop {
                let mut line = String::new();
                if self.stream.read_line(&mut line).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                if line.as_bytes().get(3) != Some(&b'-') {
                    let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                    return Ok((code, line.trim_end().to_owned()));
                }
            }
        };
        match tokio::time::timeout(REPLY_DEADLINE, read).await {
            Ok(reply) => reply,
            Err(_) => panic!("an SMTP reply takes longer than {} s", REPLY_DEADLINE.as_secs()),
        }
    }
}

/// One message over a connection of its own, accepted.
pub async fn deliver(server: &str, recipients: &[&str], message: &[u8]) -> String {
    let mut client = Client::connect(server).await.expect("connect to SMTP");
    match client.send(recipients, message).await {
        Sent::Accepted(text) => text,
        other => panic!("not accepted: {other:?}"),
    }
}

/// A small text message.
pub fn text(subject: &str, body: &str) -> Vec<u8> {
    format!(
        "From: Sender <sender@outside.example>\r\nTo: someone@postrider.example\r\nSubject: {subject}\r\n\
         Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{}@outside.example>\r\n\r\n{body}\r\n",
        subject.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    )
    .into_bytes()
}

/// A message with an attachment that is too large to stay inside a command.
pub fn attachment(subject: &str) -> Vec<u8> {
    let line = format!("{}\r\n", "QUJD".repeat(19));
    format!(
        "From: Sender <sender@outside.example>\r\nTo: someone@postrider.example\r\nSubject: {subject}\r\n\
         MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"data.bin\"\r\n\r\n{}",
        line.repeat(ATTACHMENT_LINES)
    )
    .into_bytes()
}

fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}
