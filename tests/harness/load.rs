//! Mail under load, and the books about it: what was acknowledged must be there once, what is unknown at most once.

#[path = "../../src/drill/books.rs"]
mod books;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::books::{Balance, Outcome, Shown, Way};
use super::Cluster;
use super::rest::Api;
use super::smtp::{Client, Sent};

/// Bytes of an attachment, decoded: more than what stays inside a command.
const ATTACHMENT_BYTES: usize = 160 * 1024;
/// How long what was acknowledged may take from a queue to its mailboxes: the lease of a worker that was killed lapses after
/// 30 s, and then there may be many.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(180);
/// After a connection that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What is sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// SMTP servers, ip:port. Connections go round them, and on to the next when one fails.
    pub servers: Vec<String>,
    /// Who gets mail; each message has one or, every seventh, two of them.
    pub recipients: Vec<String>,
    /// Every how many messages one goes to all of them; 0 for none.
    pub everyone_every: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Every how many messages there is an attachment; 0 for none.
    pub attachment_every: u64,
    /// Distinguishes the messages of several loads in one cluster.
    pub name: String,
    /// Between two messages of a connection: a load that goes on for as long as somebody else takes has a bound on what it leaves.
    pub pause: Duration,
}

impl Plan {
    /// Mail for these users at every frontend, each message with an attachment.
    pub fn everywhere(cluster: &Cluster, users: &[Api], name: &str) -> Self {
        Self {
            servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
            recipients: users.iter().map(|user| user.address.clone()).collect(),
            everyone_every: 0,
            connections: 4,
            attachment_every: 1,
            name: name.into(),
            pause: Duration::ZERO,
        }
    }
}

/// One transaction.
#[derive(Debug)]
pub struct Attempt {
    pub number: u64,
    pub recipients: Vec<String>,
    pub sent: Sent,
    pub began: Instant,
    pub ended: Instant,
}

/// How attempts have ended so far.
#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// A load that runs.
pub struct Load {
    plan: Plan,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    tasks: JoinSet<Vec<Attempt>>,
}

impl Load {
    pub fn start(plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let numbers = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for connection in 0..plan.connections {
            let (plan, stop) = (plan.clone(), Arc::clone(&stop));
            let (counts, numbers) = (Arc::clone(&counts), Arc::clone(&numbers));
            tasks.spawn(async move { sender(connection, &plan, &stop, &counts, &numbers).await });
        }
        Self { plan, stop, counts, tasks }
    }

    /// Messages that were acknowledged so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Waits until this many more have been acknowledged.
    pub async fn until_accepted(&self, more: u64) {
        until_rises(&self.counts.accepted, more, "acknowledged").await;
    }

    /// Waits until messages have been refused that were begun after now.
    pub async fn until_refused(&self) {
        // Each connection has one under way at most.
        until_rises(&self.counts.refused, 2 * self.plan.connections as u64, "refused").await;
    }

    /// Ends the load.
    pub async fn finish(mut self) -> Books {
        self.stop.store(true, Ordering::Relaxed);
        let mut attempts = Vec::new();
        while let Some(part) = self.tasks.join_next().await {
            attempts.extend(part.expect("a sender ends well"));
        }
        Books { plan: self.plan, attempts }
    }
}

/// What was sent and what became of it.
pub struct Books {
    plan: Plan,
    pub attempts: Vec<Attempt>,
}

impl Books {
    pub fn accepted(&self) -> usize {
        self.attempts.iter().filter(|attempt| matches!(attempt.sent, Sent::Accepted(_))).count()
    }

    /// Whether anybody of the load's recipients is `address`.
    pub fn writes_to(&self, address: &str) -> bool {
        self.plan.recipients.iter().any(|known| known == address)
    }

    /// The longest time between two acknowledgements for `address`, from `moment` to the end of the load.
    pub fn longest_pause(&self, moment: Instant, address: &str) -> Duration {
        let mut ends: Vec<Instant> = self
            .attempts
            .iter()
            .filter(|attempt| {
                matches!(attempt.sent, Sent::Accepted(_)) && attempt.recipients.iter().any(|r| r == address)
            })
            .map(|attempt| attempt.ended)
            .filter(|ended| *ended > moment)
            .collect();
        ends.push(moment);
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Compares with the mailboxes. Waits for what may still be on its way from a queue, then counts every copy.
    pub async fn check(&self, users: &[Api]) {
        for user in users {
            self.until_complete(user).await;
            self.check_mailbox(user).await;
        }
    }

    /// What was not acknowledged is in the mailboxes of all its recipients or of none: they came with one command. Waits for
    /// what may still be on its way from a queue. For when every acknowledged message has arrived ([`Self::check`]).
    pub async fn check_all_or_nothing(&self, users: &[Api]) {
        let begin = Instant::now();
        loop {
            let mut have = BTreeMap::new();
            for user in users {
                have.insert(user.address.as_str(), copies(&user.inbox().await));
            }
            let counts = |attempt: &Attempt| -> Vec<usize> {
                let subject = self.subject(attempt);
                let count = |user: &String| have[user.as_str()].get(&subject).map_or(0, Vec::len);
                attempt.recipients.iter().map(count).collect()
            };
            let whole = |counts: &[usize]| counts.iter().all(|n| *n == 0) || counts.iter().all(|n| *n == 1);
            let halves: Vec<_> = self
                .attempts
                .iter()
                .map(|attempt| (self.subject(attempt), counts(attempt)))
                .filter(|(_, counts)| !whole(counts))
                .collect();
            if halves.is_empty() {
                return;
            }
            let twice = halves.iter().find(|(_, counts)| counts.iter().any(|n| *n > 1));
            assert!(twice.is_none(), "a message is there twice: {twice:?}");
            assert!(
                begin.elapsed() < ARRIVAL_DEADLINE,
                "{} messages have arrived for some of their recipients alone, {:?} among them",
                halves.len(),
                halves.first()
            );
            tokio::time::sleep(PAUSE * 5).await;
        }
    }

    async fn until_complete(&self, user: &Api) {
        let attempts = self.for_judge(user);
        let begin = Instant::now();
        loop {
            let shown = shown(&user.inbox().await);
            let missing = Balance::lacking(&attempts, 0, &shown);
            if missing.is_empty() {
                return;
            }
            assert!(
                begin.elapsed() < ARRIVAL_DEADLINE,
                "{} acknowledged messages of {} are missing, {:?} among them",
                missing.len(),
                user.address,
                missing.first()
            );
            tokio::time::sleep(PAUSE * 5).await;
        }
    }

    async fn check_mailbox(&self, user: &Api) {
        let rows = user.inbox().await;
        let copies = copies(&rows);
        let balance = Balance::of(&self.for_judge(user), &[shown(&rows)], &BTreeSet::new());
        assert!(balance.twice.is_empty(), "{} has some messages twice: {:?}", user.address, balance.twice);
        assert!(balance.missing.is_empty(), "{} has lost messages: {:?}", user.address, balance.missing);
        for attempt in self.accepted_for(user).filter(|attempt| self.has_attachment(attempt.number)) {
            let id = &copies[&self.subject(attempt)][0];
            let raw = user.bytes(&format!("/v1/messages/{id}/raw")).await;
            let message = self.message(attempt.number);
            assert!(
                raw.ends_with(&message),
                "{} comes back byte for byte below its trace fields",
                self.subject(attempt)
            );
        }
        // The list is newest first, and so are ids: arrival order.
        let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        assert!(ids.is_sorted_by(|a, b| a > b), "ids fall along the list of {}", user.address);
        let modseqs: Vec<u64> = user.changes(0).await.iter().filter_map(|frame| frame["modseq"].as_u64()).collect();
        assert!(modseqs.is_sorted_by(|a, b| a < b), "modseqs rise along the feed of {}: {modseqs:?}", user.address);
    }

    fn accepted_for<'a>(&'a self, user: &'a Api) -> impl Iterator<Item = &'a Attempt> {
        self.attempts
            .iter()
            .filter(|attempt| matches!(attempt.sent, Sent::Accepted(_)) && attempt.recipients.contains(&user.address))
    }

    /// The attempts for a user, as the checker of drills has them.
    fn for_judge(&self, user: &Api) -> Vec<books::Attempt> {
        let of = |attempt: &Attempt| books::Attempt {
            token: self.subject(attempt),
            mailbox: 0,
            way: Way::Smtp,
            outcome: match attempt.sent {
                Sent::Accepted(_) => Outcome::Acknowledged,
                Sent::Refused { .. } => Outcome::Refused,
                Sent::Unknown => Outcome::Unknown,
            },
            attached: self.has_attachment(attempt.number),
        };
        self.attempts.iter().filter(|attempt| attempt.recipients.contains(&user.address)).map(of).collect()
    }

    fn subject(&self, attempt: &Attempt) -> String {
        subject(&self.plan, attempt.number)
    }

    fn has_attachment(&self, number: u64) -> bool {
        has_attachment(&self.plan, number)
    }

    fn message(&self, number: u64) -> Vec<u8> {
        message(&self.plan, number)
    }
}

/// As the checker of drills has it: how often each message is there.
fn shown(rows: &[serde_json::Value]) -> Shown {
    let count = |ids: &Vec<String>| u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let copies = copies(rows).iter().map(|(subject, ids)| (subject.clone(), count(ids))).collect();
    Shown { copies, ..Shown::default() }
}

fn copies(rows: &[serde_json::Value]) -> BTreeMap<String, Vec<String>> {
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        copies.entry(text("subject")).or_default().push(text("id"));
    }
    copies
}

async fn until_rises(count: &AtomicU64, more: u64, what: &str) {
    let wanted = count.load(Ordering::Relaxed) + more;
    let begin = Instant::now();
    loop {
        let now = count.load(Ordering::Relaxed);
        if now >= wanted {
            return;
        }
        assert!(begin.elapsed() < super::DEADLINE * 2, "{more} more messages are {what}: {now} of {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn sender(
    connection: usize,
    plan: &Plan,
    stop: &AtomicBool,
    counts: &Counts,
    numbers: &AtomicU64,
) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut server = connection;
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = client.as_mut() else {
            match Client::connect(&plan.servers[server % plan.servers.len()]).await {
                Ok(open) => client = Some(open),
                Err(_) => {
                    server += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            continue;
        };
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let recipients = recipients(plan, number);
        let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let message = message(plan, number);
        let began = Instant::now();
        let sent = open.send(&names, &message).await;
        match &sent {
            Sent::Accepted(_) => {
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(plan.pause).await;
            }
            // 421 and the like: this server is going.
            Sent::Refused { code: 421, .. } | Sent::Unknown => {
                client = None;
                server += 1;
            }
            Sent::Refused { .. } => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
        attempts.push(Attempt { number, recipients, sent, began, ended: Instant::now() });
    }
    attempts
}

fn recipients(plan: &Plan, number: u64) -> Vec<String> {
    if plan.everyone_every != 0 && number.is_multiple_of(plan.everyone_every) {
        return plan.recipients.clone();
    }
    let at = |n: u64| plan.recipients[usize::try_from(n).unwrap_or(0) % plan.recipients.len()].clone();
    if number % 7 == 3 && plan.recipients.len() > 1 { vec![at(number), at(number + 1)] } else { vec![at(number)] }
}

fn subject(plan: &Plan, number: u64) -> String {
    format!("{} {number:06}", plan.name)
}

fn has_attachment(plan: &Plan, number: u64) -> bool {
    plan.attachment_every != 0 && number.is_multiple_of(plan.attachment_every)
}

/// The message with this number, the same bytes each time it is asked for.
fn message(plan: &Plan, number: u64) -> Vec<u8> {
    let subject = subject(plan, number);
    let mut text = format!(
        "From: Load <load@outside.example>\r\nTo: you@postrider.example\r\nSubject: {subject}\r\n\
         Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{}.{number}@outside.example>\r\nMIME-Version: 1.0\r\n",
        plan.name
    );
    if has_attachment(plan, number) {
        let boundary = format!("=_{number}");
        let _ = write!(
            text,
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\n\
             {subject}\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Disposition: attachment; filename=\"{number}.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        );
        push_base64(&mut text, &plan.name, number);
        let _ = write!(text, "--{boundary}--\r\n");
    } else {
        let _ = write!(text, "\r\n{subject}\r\n{}", "All of this must be there.\r\n".repeat(40));
    }
    text.into_bytes()
}

/// Base64 of bytes that only this number of this load has, in lines of 76 characters.
fn push_base64(text: &mut String, name: &str, number: u64) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let name = name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let mut state = (number ^ name.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..ATTACHMENT_BYTES / 57 {
        for _ in 0..76 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(ALPHABET[(state >> 58) as usize]));
        }
        text.push_str("\r\n");
    }
}
