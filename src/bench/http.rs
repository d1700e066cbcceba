//! HTTP/1.1 over one kept connection, with no more than the measurement needs.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The largest answer that is read, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest header line, bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Read from the socket at a time, bytes: a list page fits.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// One connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// To host:port.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self { stream: BufReader::with_capacity(READ_BUFFER_BYTES, stream), line: String::new() })
    }

    /// Sends a request as it is and reads the answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream.write_all(request).await.context("send a request")?;
        self.next_line().await?;
        let status = self.line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no HTTP status: {}", self.line))?;
        let mut length = None;
        let mut chunked = false;
        loop {
            self.next_line().await?;
            if self.line.is_empty() {
                break;
            }
            let Some((name, value)) = self.line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
        let body = if chunked { self.chunks().await? } else { self.bytes(length.unwrap_or(0)).await? };
        Ok(Answer { status, body })
    }

    async fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            self.next_line().await?;
            let size = self.line.split(';').next().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
            let size = size.with_context(|| format!("no chunk size: {}", self.line))?;
            ensure!(body.len() + size <= BODY_BYTES_MAX, "the answer is too large");
            if size > 0 {
                body.extend(self.bytes(size).await?);
            }
            self.next_line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn bytes(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        ensure!(length <= BODY_BYTES_MAX, "the answer is too large");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.context("read an answer")?;
        Ok(body)
    }

    async fn next_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        let count = self.stream.read_line(&mut self.line).await.context("read an answer")?;
        ensure!(count > 0, "the server closed the connection");
        ensure!(count <= LINE_BYTES_MAX, "the answer is none");
        self.line.truncate(self.line.trim_end().len());
        Ok(())
    }
}

/// A GET with a token.
pub(crate) fn get(host: &str, path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// The same, not counted against what the account may ask: the administrator measures.
pub(crate) fn get_measured(host: &str, path: &str, token: &str, admin_token: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Postrider-Admin-Token: {admin_token}\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// A POST of JSON, with a token where one is needed.
pub(crate) fn post(host: &str, path: &str, token: Option<&str>, body: &serde_json::Value) -> Vec<u8> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One page as text, over a connection of its own.
pub(crate) async fn get_text(address: &str, path: &str) -> anyhow::Result<String> {
    let mut connection = Connection::open(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    let answer = connection.exchange(request.as_bytes()).await?;
    if answer.status != 200 {
        bail!("GET {path} at {address}: {}", answer.status);
    }
    String::from_utf8(answer.body).context("read text")
}
