//! Delivery by SMTP: transactions one after the other on each connection, commands in one segment as PIPELINING allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::SmtpLoad;
use super::accounts::{self, Account};
use super::corpus::{Corpus, Template};
use super::load::{self, Outcome, Turns};
use super::report::SmtpLine;
use super::target::Target;
use super::usage::Usage;

/// How long the last messages may take into the mailboxes.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// The longest reply, bytes.
const REPLY_BYTES_MAX: usize = 16 * 1024;

/// One line of the table.
pub(crate) async fn measure(target: &Target, load: &SmtpLoad, connections: usize) -> anyhow::Result<SmtpLine> {
    let accounts = accounts::sign_up(target, load.accounts).await.context("make accounts")?;
    eprintln!("{connections} connections, {} bytes, {} recipients", load.size, load.recipients);
    let before = Usage::read_when_idle(target).await?;
    let (mut outcome, source) = send(target, load, &accounts, connections, &Arc::default()).await?;
    let expected = outcome.done * load.recipients as u64;
    let delivered = until_delivered(&accounts, expected).await?;
    let loaded = Usage::read(target).await?;
    let idle = Usage::read_when_idle(target).await?;
    let replicas = target.ready().replicas();
    Ok(line(connections, source, &mut outcome, (expected, delivered), (before, loaded, idle), replicas))
}

/// Puts mail into mailboxes without measuring it.
pub(crate) async fn fill(
    target: &Target,
    load: &SmtpLoad,
    accounts: &[Account],
    connections: usize,
) -> anyhow::Result<()> {
    let (outcome, _) = send(target, load, accounts, connections, &Arc::default()).await?;
    let delivered = until_delivered(accounts, outcome.done).await?;
    ensure!(
        outcome.failed == 0 && delivered == outcome.done,
        "{} messages were refused, {delivered} of {} delivered",
        outcome.failed,
        outcome.done
    );
    Ok(())
}

/// Mail that arrives while something else is measured, until `over`.
pub(crate) async fn arrive(
    target: &Target,
    load: &SmtpLoad,
    accounts: &[Account],
    connections: usize,
    over: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let (outcome, _) = send(target, load, accounts, connections, over).await?;
    ensure!(outcome.failed == 0, "{} messages were refused", outcome.failed);
    Ok(())
}

/// Sends, and says what the messages were made of.
async fn send(
    target: &Target,
    load: &SmtpLoad,
    accounts: &[Account],
    connections: usize,
    over: &Arc<AtomicBool>,
) -> anyhow::Result<(Outcome, &'static str)> {
    let (size, recipients, unpadded) = (load.size, load.recipients, load.unpadded);
    let corpus = tokio::task::spawn_blocking(Corpus::open).await.context("read the corpus")?;
    let source = corpus.source;
    let servers: Vec<String> = target.ready().regions.iter().map(|region| region.smtp.clone()).collect();
    let addresses: Vec<String> = accounts.iter().map(|account| account.address.clone()).collect();
    let over = Arc::clone(over);
    let connect = move |n: usize, turns: Turns| {
        let over = Arc::clone(&over);
        let server = servers[n % servers.len()].clone();
        let addresses = addresses.clone();
        let templates = corpus.templates(size, n, unpadded);
        async move { Sender::new(&server, addresses, templates, recipients).await?.run(n, turns, &over).await }
    };
    Ok((load::run(connections, load.extent.until(), load.rate, connect).await?, source))
}

/// Counts until everything is there, or the time is up.
async fn until_delivered(accounts: &[Account], expected: u64) -> anyhow::Result<u64> {
    let until = Instant::now() + DELIVERY_DEADLINE;
    loop {
        let delivered = accounts::delivered(accounts).await?;
        if delivered >= expected || Instant::now() > until {
            return Ok(delivered);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn line(
    connections: usize,
    source: &'static str,
    outcome: &mut Outcome,
    (expected, delivered): (u64, u64),
    (before, loaded, idle): (Usage, Usage, Usage),
    replicas: usize,
) -> SmtpLine {
    let done = outcome.done.max(1) as f64;
    let replicas = replicas as f64;
    SmtpLine {
        connections,
        text: source,
        acknowledged: outcome.done,
        refused: outcome.failed,
        expected,
        delivered,
        seconds: outcome.took.as_secs_f64(),
        messages_per_second: outcome.done as f64 / outcome.took.as_secs_f64(),
        reply_p50_ms: outcome.latency.percentile_ms(0.5),
        reply_p99_ms: outcome.latency.percentile_ms(0.99),
        due_p99_ms: outcome.from_due.percentile_ms(0.99),
        cpu_ms_per_message: (loaded.cpu_seconds - before.cpu_seconds) * 1000.0 / done,
        written_per_byte: (idle.write_bytes - before.write_bytes) as f64 / replicas / outcome.bytes.max(1) as f64,
        log_syncs_per_message: (loaded.log_syncs - before.log_syncs) / replicas / done,
    }
}

/// One connection.
struct Sender {
    stream: TcpStream,
    addresses: Vec<String>,
    templates: Vec<Template>,
    recipients: usize,
    reply: Vec<u8>,
}

impl Sender {
    async fn new(
        server: &str,
        addresses: Vec<String>,
        templates: Vec<Template>,
        recipients: usize,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let mut sender = Self { stream, addresses, templates, recipients, reply: Vec::new() };
        ensure!(sender.replies(1).await? == [220], "the server does not greet");
        sender.stream.write_all(b"EHLO load.example\r\n").await.context("greet")?;
        ensure!(sender.replies(1).await? == [250], "the server refuses EHLO");
        Ok(sender)
    }

    async fn run(mut self, n: usize, turns: Turns, over: &AtomicBool) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        while let Some((turn, due)) = turns.take_due().await {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let which = usize::try_from(turn).unwrap_or(n);
            let mut envelope = String::from("MAIL FROM:<bench@load.example>\r\n");
            for step in 0..self.recipients {
                let address = &self.addresses[(which + step) % self.addresses.len()];
                envelope.push_str("RCPT TO:<");
                envelope.push_str(address);
                envelope.push_str(">\r\n");
            }
            envelope.push_str("DATA\r\n");
            self.stream.write_all(envelope.as_bytes()).await.context("send an envelope")?;
            let codes = self.replies(self.recipients + 2).await?;
            if codes.last() != Some(&354) {
                outcome.failed += 1;
                self.stream.write_all(b"RSET\r\n").await.context("reset")?;
                self.replies(1).await?;
                continue;
            }
            let count = self.templates.len();
            let template = &mut self.templates[(which + n) % count];
            let size = template.size() as u64;
            self.stream.write_all(template.numbered(turn)).await.context("send a message")?;
            let sent = Instant::now();
            if self.replies(1).await? == [250] {
                outcome.latency.push(sent.elapsed());
                outcome.from_due.push(due.elapsed());
                outcome.done += 1;
                outcome.bytes += size;
            } else {
                outcome.failed += 1;
            }
        }
        Ok(outcome)
    }

    /// The codes of the next `count` replies (RFC 5321 section 4.2.1: lines with a hyphen are continued).
    async fn replies(&mut self, count: usize) -> anyhow::Result<Vec<u16>> {
        let mut codes = Vec::with_capacity(count);
        loop {
            while let Some(end) = self.reply.iter().position(|byte| *byte == b'\n') {
                let code = self.reply.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
                let last = self.reply.get(3) != Some(&b'-');
                self.reply.drain(..=end);
                if last {
                    codes.push(code.context("a reply has no code")?);
                }
            }
            if codes.len() >= count {
                return Ok(codes);
            }
            if self.reply.len() > REPLY_BYTES_MAX {
                bail!("a reply is too long");
            }
            let read = self.stream.read_buf(&mut self.reply).await.context("read a reply")?;
            ensure!(read > 0, "the server closed the connection");
        }
    }
}
