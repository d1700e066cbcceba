//! Mail under load while something is broken: one writer to each mailbox, by SMTP and by REST at every region, and readers.
//!
//! A client does what its protocol asks of it: after a refusal it comes again, at another region. An SMTP transaction without an answer
//! is never sent again (a new message takes its place); a request of REST is asked again under its key until its outcome is known.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::books::{Attempt, Outcome, Way};
use super::installation::Region;
use super::rest::{Mailbox, Rest, Seen, Written};
use super::timeline::{Refusal, Timeline};
use crate::smtp::{self, Sent};

/// Every so many messages of a mailbox one goes in by REST.
const REST_EVERY: u64 = 4;
/// Every so many one has an attachment.
const ATTACHED_EVERY: u64 = 10;
/// Which of them: one that goes in by SMTP.
const ATTACHED_AT: u64 = 5;
/// Lines of an attachment, 57 bytes each once decoded: more than what stays inside a command.
const ATTACHMENT_LINES: usize = 3_000;
/// After a refusal, before the next region is asked.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Between two reads of a region's reader.
const READ_EVERY: Duration = Duration::from_millis(250);
/// How long a writer may take to end: an answer that it waits for.
const FINISH_MAX: Duration = Duration::from_secs(90);
const SENDER: &str = "drill@outside.example";

/// What is sent to whom.
pub(super) struct Plan {
    pub(super) regions: Vec<Region>,
    pub(super) mailboxes: Vec<Mailbox>,
    /// Messages a second, of all writers together.
    pub(super) rate: u32,
    /// In every token of this drill and of no other.
    pub(super) run: String,
}

/// What writers and readers noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) attempts: Vec<Attempt>,
    /// Acknowledged, and a later read that was not marked did not show it.
    pub(super) unseen: BTreeSet<String>,
}

/// A load that runs.
pub(super) struct Load {
    plan: Arc<Plan>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: JoinSet<Notes>,
}

/// One task's view.
struct Client {
    plan: Arc<Plan>,
    rest: Rest,
    timeline: Timeline,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    rng: StdRng,
}

impl Load {
    pub(super) fn start(plan: Plan, rest: &Rest, timeline: &Timeline) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let plan = Arc::new(plan);
        let client = || Client {
            plan: Arc::clone(&plan),
            rest: rest.clone(),
            timeline: timeline.clone(),
            stop: Arc::clone(&stop),
            acknowledged: Arc::clone(&acknowledged),
            rng: StdRng::from_os_rng(),
        };
        let mut tasks = JoinSet::new();
        for mailbox in 0..plan.mailboxes.len() {
            tasks.spawn(client().write(mailbox));
        }
        for region in 0..plan.regions.len() {
            tasks.spawn(client().read(region));
        }
        Self { plan, stop, acknowledged, tasks }
    }

    /// Messages that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub(super) async fn finish(mut self) -> anyhow::Result<(Arc<Plan>, Notes)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut notes = Notes::default();
        let all = async {
            while let Some(part) = self.tasks.join_next().await {
                let part = part.context("a client of the drill failed")?;
                notes.attempts.extend(part.attempts);
                notes.unseen.extend(part.unseen);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(FINISH_MAX, all)
            .await
            .context("a client hangs: somebody neither answers nor hangs up")??;
        Ok((self.plan, notes))
    }
}

impl Client {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn refused(&self, mailbox: usize, region: &Region, said: String) {
        let at_ms = self.timeline.now_ms();
        self.timeline.refused(Refusal { at_ms, mailbox, region: region.name.clone(), said });
    }

    fn region(&self, at: usize) -> Option<&Region> {
        self.plan.regions.get(at % self.plan.regions.len().max(1))
    }

    /// Writes to one mailbox until the load is over.
    async fn write(mut self, mailbox: usize) -> Notes {
        let mut notes = Notes::default();
        let Some(whose) = self.plan.mailboxes.get(mailbox).cloned() else { return notes };
        let writers = u32::try_from(self.plan.mailboxes.len()).unwrap_or(u32::MAX);
        let every = Duration::from_secs(1) * writers / self.plan.rate.max(1);
        let (mut at, mut number) = (mailbox, 0_u64);
        let mut connection = None;
        // Since when the mailbox waits for an acknowledgement.
        let mut waits = None;
        // Not all at the same moment.
        tokio::time::sleep(every.mul_f64(self.rng.random::<f64>())).await;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_over() {
            if waits.is_none() {
                ticks.tick().await;
            }
            let since = *waits.get_or_insert_with(Instant::now);
            number += 1;
            let token = format!("{}-{mailbox}-{number}", self.plan.run);
            let Some(region) = self.region(at).cloned() else { return notes };
            let (way, attached) = match number.is_multiple_of(REST_EVERY) {
                true => (Way::Rest, false),
                false => (Way::Smtp, number % ATTACHED_EVERY == ATTACHED_AT),
            };
            let (outcome, delivered, said) = match way {
                Way::Rest => self.by_rest(mailbox, &whose, &token, &mut at).await,
                Way::Smtp => {
                    let message = message(&whose.address, &token, attached);
                    by_smtp(&region, &whose, &message, &mut connection).await
                }
            };
            if outcome == Outcome::Acknowledged {
                self.timeline.paused(mailbox, since, Instant::now());
                waits = None;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                // Nobody was refused by somebody who is not there: the next one is asked at once.
                if let Some(said) = said {
                    self.refused(mailbox, &region, said);
                }
                connection = None;
                at += 1;
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            let seen_at_once = outcome == Outcome::Acknowledged && delivered;
            notes.attempts.push(Attempt { token: token.clone(), mailbox, way, outcome, attached });
            if seen_at_once && self.look_for(&whose, &token).await == Seen::No {
                notes.unseen.insert(token);
            }
        }
        if let Some(since) = waits {
            self.timeline.paused(mailbox, since, Instant::now());
        }
        notes
    }

    /// Asks under the same key, region after region, until the outcome is known or the load is over.
    async fn by_rest(
        &self,
        mailbox: usize,
        whose: &Mailbox,
        token: &str,
        at: &mut usize,
    ) -> (Outcome, bool, Option<String>) {
        let mut unsure = false;
        loop {
            let Some(region) = self.region(*at) else { return (Outcome::Refused, false, None) };
            match self.rest.send(&region.rest, whose, token).await {
                Written::Done { delivered } => return (Outcome::Acknowledged, delivered, None),
                Written::Away if !unsure => return (Outcome::Refused, false, None),
                // A refusal says nothing of an earlier asking whose outcome is unknown.
                Written::Refused(said) if !unsure => return (Outcome::Refused, false, Some(said)),
                answer => {
                    unsure = true;
                    if let Written::Refused(said) | Written::Unknown(said) = answer {
                        self.refused(mailbox, region, said);
                    }
                    if self.is_over() {
                        return (Outcome::Unknown, false, None);
                    }
                    *at += 1;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Looks for what was just acknowledged, at some region.
    async fn look_for(&mut self, whose: &Mailbox, token: &str) -> Seen {
        let at = self.rng.random_range(0..self.plan.regions.len().max(1));
        let Some(region) = self.region(at) else { return Seen::Refused };
        let seen = self.rest.shows(&region.rest, whose, token).await;
        self.count(seen);
        seen
    }

    /// Reads at one region until the load is over.
    async fn read(mut self, region: usize) -> Notes {
        let mailboxes = self.plan.mailboxes.len().max(1);
        while !self.is_over() {
            let at = self.rng.random_range(0..mailboxes);
            if let (Some(region), Some(whose)) = (self.region(region), self.plan.mailboxes.get(at)) {
                // Nothing in particular: whether it is answered at all.
                let seen = self.rest.shows(&region.rest, whose, "").await;
                self.count(if seen == Seen::No { Seen::Yes } else { seen });
            }
            tokio::time::sleep(READ_EVERY).await;
        }
        Notes::default()
    }

    fn count(&self, seen: Seen) {
        self.timeline.with(|events| match seen {
            Seen::Yes | Seen::No => events.reads.current += 1,
            Seen::Stale => events.reads.stale += 1,
            Seen::Refused => events.reads.refused += 1,
        });
    }
}

/// One transaction; whether the mailbox has the message at the acknowledgement already, and what was said otherwise.
async fn by_smtp(
    region: &Region,
    whose: &Mailbox,
    message: &[u8],
    connection: &mut Option<smtp::Client>,
) -> (Outcome, bool, Option<String>) {
    if connection.is_none() {
        match smtp::Client::connect(&region.smtp).await {
            Ok(open) => *connection = Some(open),
            Err(_) => return (Outcome::Refused, false, None),
        }
    }
    let Some(open) = connection.as_mut() else { return (Outcome::Refused, false, None) };
    match open.send(SENDER, std::slice::from_ref(&whose.address), message).await {
        // What another shard took for it is on its way (P-5).
        Sent::Accepted(reply) => (Outcome::Acknowledged, smtp::queue_shard(&reply) == Some(whose.shard), None),
        Sent::Refused(said) => (Outcome::Refused, false, Some(said)),
        Sent::Unknown(said) => (Outcome::Unknown, false, Some(said)),
    }
}

/// The message of a token, the same bytes each time it is asked for.
pub(super) fn message(to: &str, token: &str, attached: bool) -> Vec<u8> {
    let mut text = format!(
        "From: Drill <{SENDER}>\r\nTo: <{to}>\r\nSubject: {token}\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <{token}@outside.example>\r\nMIME-Version: 1.0\r\n"
    );
    if attached {
        let boundary = format!("=_{token}");
        let _ = write!(
            text,
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\n\
             {token}\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Disposition: attachment; filename=\"{token}.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        );
        push_base64(&mut text, token);
        let _ = write!(text, "--{boundary}--\r\n");
    } else {
        let _ = write!(text, "\r\n{token}\r\n{}", "All of this must be there.\r\n".repeat(20));
    }
    text.into_bytes()
}

/// Base64 of bytes that only this token has, in lines of 76 characters.
fn push_base64(text: &mut String, token: &str) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = token.bytes().fold(1_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) | 1;
    for _ in 0..ATTACHMENT_LINES {
        for _ in 0..76 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state >> 58).unwrap_or(0);
            text.push(ALPHABET.get(at).copied().map_or('A', char::from));
        }
        text.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_each_time_and_none_is_like_another() {
        let attached = message("a@postrider.example", "run-0-5", true);
        assert_eq!(attached, message("a@postrider.example", "run-0-5", true));
        assert!(attached.len() > 200_000, "it goes to the object stores: {}", attached.len());
        let other = message("a@postrider.example", "run-0-6", true);
        assert_ne!(attached.get(1_000..2_000), other.get(1_000..2_000));
        assert!(String::from_utf8(attached).unwrap().split("\r\n").all(|line| line.len() <= 998));
    }
}
