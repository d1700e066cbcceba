//! An SMTP client just large enough to bring the sample mail in the way that all mail comes in.

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest reply line that is read, bytes (RFC 5321 section 4.5.3.1.5: 512).
const REPLY_LINE_BYTES_MAX: usize = 4096;

/// One SMTP connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and greets.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.expect("220").await?;
        client.command("EHLO sample.example", "250").await?;
        Ok(client)
    }

    /// One message for `recipients`; answers what the server said to it.
    pub(crate) async fn send(&mut self, from: &str, recipients: &[String], message: &[u8]) -> anyhow::Result<String> {
        self.command(&format!("MAIL FROM:<{from}> BODY=8BITMIME"), "250").await?;
        for recipient in recipients {
            self.command(&format!("RCPT TO:<{recipient}>"), "250").await?;
        }
        self.command("DATA", "354").await?;
        self.stream.write_all(&stuffed(message)).await.context("send the message")?;
        self.expect("250").await
    }

    /// Says goodbye.
    pub(crate) async fn quit(mut self) -> anyhow::Result<()> {
        self.command("QUIT", "221").await?;
        Ok(())
    }

    async fn command(&mut self, line: &str, expected: &str) -> anyhow::Result<String> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.with_context(|| format!("send {line}"))?;
        self.expect(expected).await.with_context(|| format!("after {line}"))
    }

    /// Reads a whole reply (RFC 5321 section 4.2.1: a hyphen after the code means that more lines follow).
    async fn expect(&mut self, expected: &str) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            let count = self.stream.read_line(&mut line).await.context("read a reply")?;
            if count == 0 || count > REPLY_LINE_BYTES_MAX {
                bail!("the server ended the conversation");
            }
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            if !line.starts_with(expected) {
                bail!("the server said: {}", line.trim_end());
            }
            return Ok(line.trim_end().to_owned());
        }
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
}
