//! An SMTP client just large enough for the demo's sample mail and for drills: it brings mail in the way that all mail comes in,
//! and says of each transaction what became of it.
//!
//! Invariant: never sends a transaction again. What was not answered is unknown, and whoever asks decides.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest reply line that is read, bytes (RFC 5321 section 4.5.3.1.5: 512).
const REPLY_LINE_BYTES_MAX: usize = 4096;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a reply may take: an accept waits for its shards at most that long.
const REPLY_MAX: Duration = Duration::from_secs(30);
/// What begins the text of a reply that accepted a message (frontend/src/smtp/reply.rs), before the queue id.
const QUEUED_AS: &str = "queued as ";

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// 250 behind the data: it is durable.
    Accepted(String),
    /// A reply that is not what was hoped for.
    Refused(String),
    /// The connection ended, or was too slow, before the reply.
    Unknown(String),
}

/// The shard of the queue entry that an accepting reply names (`250 2.0.0 OK: queued as 1003-7`).
pub(crate) fn queue_shard(reply: &str) -> Option<u32> {
    let (_, id) = reply.rsplit_once(QUEUED_AS)?;
    id.split_once('-')?.0.parse().ok()
}

/// One SMTP connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A reply of another code than the one that was hoped for.
#[derive(Debug)]
struct Reply {
    code: u16,
    text: String,
}

impl Client {
    /// Connects and greets.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await;
        let stream = connecting.with_context(|| format!("connect to {address}: it does not answer"))?;
        let stream = stream.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.expect(220).await?;
        client.say("EHLO sample.example").await?;
        client.expect(250).await?;
        Ok(client)
    }

    /// One message for `recipients`. After anything but [`Sent::Accepted`] the connection is of no more use.
    pub(crate) async fn send(&mut self, from: &str, recipients: &[String], message: &[u8]) -> Sent {
        match self.transaction(from, recipients, message).await {
            Ok(Ok(text)) => Sent::Accepted(text),
            Ok(Err(reply)) => Sent::Refused(reply.text),
            Err(error) => Sent::Unknown(format!("{error:#}")),
        }
    }

    /// Says goodbye.
    pub(crate) async fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT").await?;
        self.expect(221).await.map(drop)
    }

    /// The text of the last reply, or the first that is another than it should be.
    async fn transaction(
        &mut self,
        from: &str,
        recipients: &[String],
        message: &[u8],
    ) -> anyhow::Result<Result<String, Reply>> {
        let envelope = std::iter::once((format!("MAIL FROM:<{from}> BODY=8BITMIME"), 250))
            .chain(recipients.iter().map(|recipient| (format!("RCPT TO:<{recipient}>"), 250)))
            .chain(std::iter::once(("DATA".to_owned(), 354)));
        for (line, wanted) in envelope {
            self.say(&line).await?;
            let reply = self.reply().await?;
            if reply.code != wanted {
                return Ok(Err(reply));
            }
        }
        self.stream.write_all(&stuffed(message)).await.context("send the message")?;
        let reply = self.reply().await?;
        Ok(if reply.code == 250 { Ok(reply.text) } else { Err(reply) })
    }

    async fn say(&mut self, line: &str) -> anyhow::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.with_context(|| format!("send {line}"))
    }

    async fn expect(&mut self, code: u16) -> anyhow::Result<String> {
        let reply = self.reply().await?;
        if reply.code != code {
            bail!("the server said: {}", reply.text);
        }
        Ok(reply.text)
    }

    /// Reads a whole reply (RFC 5321 section 4.2.1: a hyphen after the code means that more lines follow).
    async fn reply(&mut self) -> anyhow::Result<Reply> {
        let read = async {
            loop {
                let mut line = String::new();
                let count = self.stream.read_line(&mut line).await.context("read a reply")?;
                if count == 0 || count > REPLY_LINE_BYTES_MAX {
                    bail!("the server ended the conversation");
                }
                if line.as_bytes().get(3) == Some(&b'-') {
                    continue;
                }
                let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Ok(Reply { code, text: line.trim_end().to_owned() });
            }
        };
        tokio::time::timeout(REPLY_MAX, read).await.context("the server does not answer in time")?
    }
}

/// The message with its dots doubled (RFC 5321 section 4.5.2) and its end marked.
pub(crate) fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let mut line_start = true;
    for byte in message {
        if line_start && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        line_start = *byte == b'\n';
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_the_start_of_lines_only() {
        assert_eq!(stuffed(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n");
        assert_eq!(stuffed(b"a"), b"a\r\n.\r\n");
    }

    #[test]
    fn a_reply_names_the_shard_that_took_the_message() {
        assert_eq!(queue_shard("250 2.0.0 OK: queued as 1003-7"), Some(1003));
        assert_eq!(queue_shard("250 2.0.0 OK"), None);
        assert_eq!(queue_shard("250 2.0.0 OK: queued as many"), None);
    }
}
