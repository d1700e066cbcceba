//! Recipients outside of a leased entry: from where they wait to what their hosts said, and what their sender is told of it.
//!
//! What a shard hands out and takes back (ADR 110):
//! - A recipient without a `user_id` is one outside, named by his address byte for byte. He is in a lease when he is due: alone, or with
//!   others of the entry.
//! - `parked`: an older entry is tried for his destination. He is not to be tried; what is due is to tell his sender.
//! - Age is the lease's time less `since_ms`, never `created_ms`: what is sent later, or again, has waited since then only.
//! - `destination`: nobody of that domain, or of his `route`, would have got through; all of its mail waits behind one. What was said to him
//!   alone (4yz at RCPT) is without, and he has a time of his own. `retry_ms` 0 has the shard choose it by his attempts.
//! - Somebody of another residency zone, whose message was sent for later, waits the same way, and is handed over when he is due (`crossing`).
//! - A report is filed in the apply that takes out whom it tells of.
//!
//! Invariant: nothing is sent under a lease that is not this worker's any more, as far as it can know: it is prolonged while hosts take
//! their time (ADR 115), and work stops when that fails.
//! Invariant: what hosts were told and did not answer is settled as unknown, counted, and tried again. What they did answer is told to the
//! shard until it takes it, or somebody else has the entry (ADR 116).

mod crossing;
mod report;
mod signing;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use postrider_api::id::UserId;
use postrider_api::limit::{
    DELAY_WARNING_MS, DESTINATION_RETRY_MS_MAX, OUTGOING_AGE_MS_MAX, OUTGOING_RETRY_MS_MAX, OUTGOING_RETRY_MS_MIN,
    PEER_REPLY_BYTES_MAX,
};
use postrider_api::notify::Notify;
use postrider_api::pb::{self, Hindrance, MailCategory, PendingRecipient, RecipientResult, Settlement};
use postrider_api::trace::{self, Kind};
use postrider_outgoing::dkim::KeySealer;
use postrider_outgoing::dns::Domain;
use postrider_outgoing::return_path::{Origin, ReturnPaths};
use postrider_outgoing::route::Route;
use postrider_outgoing::smtp::{RemoteRecipient, ReturnContent};
use postrider_outgoing::unsubscribe::{self, UnsubscribeTokens};
use postrider_outgoing::{Category, Fate, Outbound, Transport};
use postrider_router::RouteError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use self::signing::Signers;
use super::delivery::{Deliveries, Entry};
use super::lease::{Lapsed, Lease};
use super::limit::{DESTINATIONS_AT_ONCE_MAX, OUTSIDE_ATTEMPT, OUTSIDE_BYTES_MAX, OUTSIDE_MAX, REASON_BYTES_MAX};
use super::poller::milliseconds;
use crate::blobs::Blobs;
use crate::suppressed;

/// A place in [`OUTSIDE_BYTES_MAX`] is so many bytes.
const BYTES_OF_PLACE: usize = 1024;

/// How a worker sends to the outside.
pub struct OutsideSettings {
    /// What takes mail to its hosts.
    pub transport: Arc<Transport>,
    /// Where attachments are read from.
    pub blobs: Blobs,
    /// Opens the keys that mail is signed with; `None`: this process does not have the secret, and mail of domains with keys waits.
    pub keys: Option<KeySealer>,
    /// Writes the reverse-paths of mail whose sender lives here; `None`: they are the senders' addresses.
    pub return_paths: Option<ReturnPaths>,
    /// Makes the links by which recipients of bulk mail get no more of it; `None`: there are none.
    pub unsubscribe: Option<UnsubscribeLinks>,
    /// Who says it, in reports.
    pub host: String,
}

/// Links of RFC 8058.
pub struct UnsubscribeLinks {
    /// Makes what is behind the path.
    pub tokens: UnsubscribeTokens,
    /// The frontends' REST, as the world reaches it: `https://api.example.com`.
    pub base: String,
}

/// Sends to the outside.
pub(super) struct Outside {
    settings: OutsideSettings,
    signers: Signers,
    places: Semaphore,
    bytes: Semaphore,
}

/// What became of an entry's recipients outside, and the lease under which it is settled.
pub(super) struct Taken<'a> {
    pub(super) settled: Settled,
    /// Prolonged until it was lost, if it was.
    pub(super) lease: Mutex<Lease>,
    /// Held until the shard has been told.
    _places: [SemaphorePermit<'a>; 2],
}

/// What the shard is told of recipients outside.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) results: Vec<RecipientResult>,
    pub(super) report: Option<pb::NewMessage>,
}

impl Settled {
    /// Of what was tried, with what the sender is told of it by `host`.
    fn of(host: &str, deliveries: &Deliveries, entry: &Entry, mut tried: Vec<Tried<'_>>, raw: Option<&Bytes>) -> Self {
        tried.iter_mut().for_each(|tried| tried.expire(entry));
        let report = report::compose(host, deliveries, entry, &mut tried, raw);
        tried.iter().for_each(|tried| tried.count(entry));
        Self { results: tried.into_iter().map(|tried| tried.result).collect(), report }
    }
}

/// One recipient, and what became of him in this attempt.
struct Tried<'a> {
    pending: &'a PendingRecipient,
    result: RecipientResult,
    /// Who said it; empty where it was us.
    host: String,
}

/// Recipients who go one way.
struct Group<'a> {
    destination: Domain,
    route: Option<Route>,
    recipients: Vec<&'a PendingRecipient>,
}

impl<'a> Group<'a> {
    /// The same, one by one.
    fn alone(self) -> impl Iterator<Item = Group<'a>> {
        let Self { destination, route, recipients } = self;
        recipients.into_iter().map(move |only| Group {
            destination: destination.clone(),
            route: route.clone(),
            recipients: vec![only],
        })
    }
}

impl UnsubscribeLinks {
    /// A message with its link on top.
    fn on_top(&self, sender: UserId, recipient: &str, raw: &Bytes) -> Bytes {
        let url = format!("{}/v1/unsubscribe/{}", self.base, self.tokens.token(sender, recipient));
        [unsubscribe::fields(&url).as_bytes(), raw].concat().into()
    }
}

/// Whether a message gets links: bulk mail whose author has not seen to it himself.
fn wants_link(entry: &Entry, raw: &[u8]) -> bool {
    let header = &raw[..memchr::memmem::find(raw, b"\r\n\r\n").unwrap_or(raw.len())];
    let has_own = header.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.trim_ascii_end().eq_ignore_ascii_case(b"list-unsubscribe")
    });
    entry.options.category() == MailCategory::Bulk && !has_own
}

/// This worker does not try him now: he waits, for one that does.
fn waits(pending: &PendingRecipient, reason: &str, retry_ms: u32) -> RecipientResult {
    let settlement = if pending.parked { Settlement::Waits } else { Settlement::Held };
    RecipientResult {
        address: pending.address.clone(),
        settlement: settlement.into(),
        reason: cut(reason, REASON_BYTES_MAX),
        retry_ms,
        ..RecipientResult::default()
    }
}

/// This worker reaches nobody outside: those who live in another zone of the cluster get theirs, the others wait. With the lease under which it is
/// settled; `None`: it was lost.
pub(super) async fn without(
    deliveries: &Deliveries,
    entry: &Entry,
    lease: &Lease,
    fence: pb::Fence,
) -> Option<(Settled, Lease)> {
    let held = Mutex::new(lease.clone());
    let attempt = async {
        let due = |pending: &&PendingRecipient| !pending.parked && pending.hindrance() == Hindrance::None;
        let (due, others): (Vec<_>, Vec<_>) = entry.outside.iter().partition(due);
        let (tried, rest) = crossing::cross(deliveries, entry, due).await;
        // Reports come from the sender's own domain: this process has no name outside.
        let host = entry.mail_from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        let mut settled = Settled::of(host, deliveries, entry, tried, None);
        let wait = |pending| waits(pending, "no worker sends to the outside", OUTGOING_RETRY_MS_MIN);
        settled.results.extend(rest.into_iter().chain(others).map(wait));
        settled
    };
    tokio::select! {
        settled = attempt => Some((settled, held.into_inner())),
        () = keep(deliveries, entry, fence, &held) => None,
    }
}

/// This worker has no place for the entry.
pub(super) fn put_off(entry: &Entry, reason: &str, retry_ms: u32) -> Settled {
    let results = entry.outside.iter().map(|pending| waits(pending, reason, retry_ms)).collect();
    Settled { results, report: None }
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

impl Outside {
    pub(super) fn new(settings: OutsideSettings) -> Self {
        let signers = Signers::new(settings.keys.clone());
        let places = Semaphore::new(OUTSIDE_MAX);
        let bytes = Semaphore::new(OUTSIDE_BYTES_MAX / BYTES_OF_PLACE);
        Self { settings, signers, places, bytes }
    }

    /// A place for the entry; `None`: there is none, and its recipients wait where they waited.
    pub(super) fn place(&self, entry: &Entry) -> Option<[SemaphorePermit<'_>; 2]> {
        // Messages are in memory as a whole.
        let size = usize::try_from(entry.message.size).unwrap_or(OUTSIDE_BYTES_MAX);
        let places = (size / BYTES_OF_PLACE + 1).min(OUTSIDE_BYTES_MAX / BYTES_OF_PLACE);
        let room = self.bytes.try_acquire_many(u32::try_from(places).unwrap_or(u32::MAX)).ok()?;
        Some([self.places.try_acquire().ok()?, room])
    }

    /// Tries those of the entry who are outside, and prolongs the lease meanwhile. `None`: it was lost.
    pub(super) async fn take<'a>(
        &'a self,
        deliveries: &Deliveries,
        entry: &Entry,
        lease: &Lease,
        fence: pb::Fence,
        places: [SemaphorePermit<'a>; 2],
    ) -> Option<Taken<'a>> {
        let held = Mutex::new(lease.clone());
        // Hosts take their time.
        let mut span = trace::child("send outside", Kind::Client).patient();
        span.set("postrider.recipients", entry.outside.len());
        let settled = tokio::select! {
            settled = span.scope(self.attempt(deliveries, entry)) => settled,
            () = keep(deliveries, entry, fence, &held) => {
                metrics::counter!("postrider_worker_outside_lost_total").increment(1);
                tracing::warn!(source = entry.source.0, entry = entry.id.0, "a lease was lost while mail was on its way");
                span.fail("the lease was lost");
                return None;
            }
        };
        // Whoever only waits behind others was not tried.
        let has_failed =
            |result: &RecipientResult| matches!(result.settlement(), Settlement::Failed | Settlement::Deferred);
        if settled.results.iter().any(has_failed) {
            span.fail("a host did not take it");
        }
        Some(Taken { settled, lease: held, _places: places })
    }

    async fn attempt(&self, deliveries: &Deliveries, entry: &Entry) -> Settled {
        let raw = self.load(deliveries, entry).await;
        let (parked, due): (Vec<_>, Vec<_>) = entry.outside.iter().partition(|pending| pending.parked);
        let (hindered, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|pending| pending.hindrance() != Hindrance::None);
        let (suppressed, due) = self.suppressed(deliveries, entry, due).await;
        let (crossed, due) = crossing::cross(deliveries, entry, due).await;
        let mut tried: Vec<Tried<'_>> = match &raw {
            Ok(raw) => self.send(deliveries, entry, raw, due).await,
            Err(why) => {
                due.into_iter().map(|pending| ours(pending, waits(pending, why, OUTGOING_RETRY_MS_MIN))).collect()
            }
        };
        tried.extend(suppressed);
        tried.extend(crossed);
        tried.extend(hindered.into_iter().map(hinder));
        tried.extend(parked.into_iter().map(|pending| {
            let result = RecipientResult {
                address: pending.address.clone(),
                settlement: Settlement::Waits.into(),
                reason: pending.reason.clone(),
                ..RecipientResult::default()
            };
            ours(pending, result)
        }));
        Settled::of(&self.settings.host, deliveries, entry, tried, raw.ok().as_ref())
    }

    /// Those whom no account of the sender's domain sends to, and the others. Where the directory does not say, everybody waits.
    async fn suppressed<'a>(
        &self,
        deliveries: &Deliveries,
        entry: &Entry,
        due: Vec<&'a PendingRecipient>,
    ) -> (Vec<Tried<'a>>, Vec<&'a PendingRecipient>) {
        let domain = entry.mail_from.rsplit_once('@').map_or("", |(_, domain)| domain);
        if entry.sender.is_none() || domain.is_empty() {
            return (Vec::new(), due);
        }
        let addresses = due.iter().map(|pending| pending.address.clone()).collect();
        let limit = deliveries.timings.locate;
        match suppressed::for_domain(&*deliveries.cluster, domain, addresses, limit).await {
            Ok(found) => {
                let (of_list, due): (Vec<_>, Vec<_>) =
                    due.into_iter().partition(|pending| suppressed::of(&found, &pending.address).is_some());
                let why = |pending: &PendingRecipient| {
                    let record = suppressed::of(&found, &pending.address);
                    record.map(|record| suppressed::sentence(domain, record)).unwrap_or_default()
                };
                (of_list.into_iter().map(|pending| suppress(pending, why(pending))).collect(), due)
            }
            Err(error) => {
                let why = format!("the directory does not say whom {domain} sends to: {error}");
                let wait = |pending| ours(pending, waits(pending, &why, OUTGOING_RETRY_MS_MIN));
                (due.into_iter().map(wait).collect(), Vec::new())
            }
        }
    }

    /// The bytes that were submitted.
    async fn load(&self, deliveries: &Deliveries, entry: &Entry) -> Result<Bytes, String> {
        let map = deliveries.cluster.map();
        let blobs = self.settings.blobs.of_shard(&map, entry.source);
        let blobs = blobs.ok_or("the shard's stores are not known yet")?.map_err(|error| error.to_string())?;
        let body = entry.message.body.clone().unwrap_or_default();
        let body = pb::BodyRecord { compression: body.compression, text: body.text, text_length: body.text_length };
        let stored = pb::StoredBody {
            pieces: entry.message.pieces.clone(),
            parts: entry.message.parts.clone(),
            body: Some(body),
        };
        let read = async {
            let stream = postrider_mime::raw(&stored, &blobs).await?;
            let append = |mut whole: BytesMut, piece: Bytes| async move {
                whole.extend_from_slice(&piece);
                Ok(whole)
            };
            stream.try_fold(BytesMut::new(), append).await
        };
        let raw = tokio::time::timeout(deliveries.timings.carry, read).await;
        let raw = raw.map_err(|_| "the message cannot be read in time".to_owned())?;
        raw.map(BytesMut::freeze).map_err(|error| format!("the message cannot be read now: {error}"))
    }

    async fn send<'a>(
        &self,
        deliveries: &Deliveries,
        entry: &Entry,
        raw: &Bytes,
        due: Vec<&'a PendingRecipient>,
    ) -> Vec<Tried<'a>> {
        let (mut groups, mut tried) = grouped(due);
        let links = self.settings.unsubscribe.as_ref().filter(|_| wants_link(entry, raw));
        let sender = entry.sender.filter(|_| links.is_some());
        if sender.is_some() {
            // Each gets a link of his own.
            groups = groups.into_iter().flat_map(Group::alone).collect();
        }
        let mut letters = Vec::with_capacity(groups.len());
        for group in groups {
            let with_link = match (links, sender, &group.recipients[..]) {
                (Some(links), Some(sender), [only]) => Some(links.on_top(sender, &only.address, raw)),
                _ => None,
            };
            letters.push((group, with_link));
        }
        let map = deliveries.cluster.map();
        let at_s = deliveries.clock.wall_ms() / 1000;
        let plain = match letters.iter().any(|(_, with_link)| with_link.is_none()) {
            true => self.signers.signed(&map, entry, raw, at_s),
            false => Ok(Bytes::new()),
        };
        let mut signed = Vec::with_capacity(letters.len());
        for (group, with_link) in letters {
            let body = match with_link {
                Some(raw) => self.signers.signed(&map, entry, &raw, at_s),
                None => plain.clone(),
            };
            match body {
                Ok(body) => signed.push((group, body)),
                Err(why) => {
                    tracing::error!(source = entry.source.0, entry = entry.id.0, why, "a message cannot be signed");
                    tried.extend(
                        group
                            .recipients
                            .into_iter()
                            .map(|pending| ours(pending, waits(pending, &why, OUTGOING_RETRY_MS_MIN))),
                    );
                }
            }
        }
        let mut sending: Vec<BoxFuture<'_, Vec<Tried<'_>>>> = Vec::with_capacity(signed.len());
        for (group, body) in signed {
            sending.push(self.send_group(entry, body, group).boxed());
        }
        let sent: Vec<_> = stream::iter(sending).buffer_unordered(DESTINATIONS_AT_ONCE_MAX).collect().await;
        tried.extend(sent.into_iter().flatten());
        tried
    }

    async fn send_group<'a>(&self, entry: &Entry, body: Bytes, group: Group<'a>) -> Vec<Tried<'a>> {
        let options = &entry.options;
        let mail_from = self.reverse_path(entry, &group.recipients);
        let message = Outbound {
            mail_from: &mail_from,
            envelope_id: &options.envelope_id,
            return_content: match options.return_content() {
                pb::ReturnContent::Unspecified => ReturnContent::Unspecified,
                pb::ReturnContent::Full => ReturnContent::Full,
                pb::ReturnContent::Headers => ReturnContent::Headers,
            },
            require_tls: options.require_tls,
            smtp_utf8: options.smtp_utf8,
            body: &body,
            category: match options.category() {
                MailCategory::Personal => Category::Personal,
                MailCategory::Transactional => Category::Transactional,
                MailCategory::Bulk => Category::Bulk,
            },
            route: group.route.as_ref(),
        };
        let recipient = |pending: &&PendingRecipient| RemoteRecipient {
            address: pending.address.clone(),
            notify: Notify(pending.notify),
            original: pending.original.clone(),
        };
        let recipients: Vec<_> = group.recipients.iter().map(recipient).collect();
        let deadline = Instant::now() + OUTSIDE_ATTEMPT;
        let attempts = self.settings.transport.attempt(&message, &group.destination, &recipients, deadline).await;
        group.recipients.into_iter().zip(attempts).map(|(pending, attempt)| Tried::of(pending, attempt.fate)).collect()
    }

    /// What a bounce of this message to these recipients comes back to. A report has the null one, and stays without.
    fn reverse_path<'e>(&self, entry: &'e Entry, recipients: &[&PendingRecipient]) -> Cow<'e, str> {
        let domain = entry.mail_from.rsplit_once('@').map(|(_, domain)| domain);
        let (Some(paths), Some(sender), Some(domain)) = (&self.settings.return_paths, entry.sender, domain) else {
            return Cow::Borrowed(&entry.mail_from);
        };
        let recipient = match recipients {
            // At most RECIPIENTS_MAX.
            [only] => u8::try_from(only.number).unwrap_or_default(),
            _ => 0,
        };
        let sent_ms = entry.created_ms.max(entry.options.not_before_ms);
        Cow::Owned(paths.path(&Origin { sender, entry: entry.id, recipient }, domain, sent_ms))
    }
}

/// Prolongs the lease, whenever a third of it has gone, until it is lost.
pub(super) async fn keep(deliveries: &Deliveries, entry: &Entry, fence: pb::Fence, held: &Mutex<Lease>) {
    let timings = &deliveries.timings;
    let mut pause = Duration::ZERO;
    loop {
        let lease = held.lock().clone();
        let fresh = lease.left().saturating_sub(timings.lease * 2 / 3);
        tokio::time::sleep(fresh.max(pause).min(lease.left())).await;
        let asked = Lease::asked(Arc::clone(&deliveries.boot_clock), timings.lease);
        let lease_ms = milliseconds(timings.lease);
        let prolong = |limit| deliveries.cluster.prolong_lease(entry.source, entry.id.0, fence, lease_ms, limit);
        match lease.within(Duration::ZERO, timings.settle, prolong).await {
            Ok(Ok(())) => {
                *held.lock() = asked;
                pause = Duration::ZERO;
            }
            Ok(Err(RouteError::LeaseLost)) | Err(Lapsed) => return,
            Ok(Err(error)) => {
                tracing::info!(source = entry.source.0, entry = entry.id.0, %error, "a lease is not prolonged yet");
                pause = (pause * 2).clamp(timings.poll_pause_min, timings.poll_pause_max);
            }
        }
    }
}

fn ours(pending: &PendingRecipient, result: RecipientResult) -> Tried<'_> {
    Tried { pending, result, host: String::new() }
}

/// He is not sent to, whatever his hosts would say.
fn hinder(pending: &PendingRecipient) -> Tried<'_> {
    match pending.hindrance() {
        Hindrance::Suppressed => suppress(pending, pending.hindrance_why.clone()),
        Hindrance::SenderSuspended | Hindrance::None => {
            ours(pending, waits(pending, "the sender's account is suspended", DESTINATION_RETRY_MS_MAX))
        }
    }
}

/// He is not sent to any more (RFC 3463 section 3.8: the sender's own policy).
fn suppress(pending: &PendingRecipient, why: String) -> Tried<'_> {
    let fate = Fate::Failed { reply: why, code: "5.7.1".to_owned(), host: String::new() };
    let mut tried = Tried::of(pending, fate);
    tried.result.suppressed = true;
    tried
}

/// By domain and route; and whoever has none that can be read.
fn grouped(due: Vec<&PendingRecipient>) -> (Vec<Group<'_>>, Vec<Tried<'_>>) {
    let (mut groups, mut unreadable) = (Vec::<Group<'_>>::new(), Vec::new());
    for pending in due {
        let domain = pending.address.rsplit_once('@').map_or("", |(_, domain)| domain).parse::<Domain>();
        let route = match pending.route.is_empty() {
            true => Ok(None),
            false => pending.route.parse::<Route>().map(Some),
        };
        match (domain, route) {
            (Ok(destination), Ok(route)) => {
                match groups.iter_mut().find(|group| group.destination == destination && group.route == route) {
                    Some(group) => group.recipients.push(pending),
                    None => groups.push(Group { destination, route, recipients: vec![pending] }),
                }
            }
            (Err(error), _) => {
                let fate = Fate::Failed { reply: error.to_string(), code: "5.1.2".to_owned(), host: String::new() };
                unreadable.push(Tried::of(pending, fate));
            }
            (_, Err(error)) => {
                unreadable.push(ours(pending, waits(pending, &format!("his route: {error}"), OUTGOING_RETRY_MS_MIN)))
            }
        }
    }
    (groups, unreadable)
}

impl<'a> Tried<'a> {
    fn of(pending: &'a PendingRecipient, fate: Fate) -> Self {
        let mut result = RecipientResult { address: pending.address.clone(), ..RecipientResult::default() };
        let mut say = |settlement: Settlement, reply: String, code: String, host: &str| {
            let reason = if host.is_empty() { reply.clone() } else { format!("{host} said: {reply}") };
            result.settlement = settlement.into();
            result.reason = cut(&reason, REASON_BYTES_MAX);
            result.reply = cut(&reply, PEER_REPLY_BYTES_MAX);
            result.code = code;
        };
        let host = match fate {
            Fate::Accepted { reply, host, relayed } => {
                say(Settlement::Delivered, reply, "2.0.0".to_owned(), &host);
                result.relayed = relayed;
                host
            }
            Fate::Deferred { reply, code, destination, retry_after, host } => {
                say(Settlement::Deferred, reply, code, &host);
                result.destination = destination;
                result.retry_ms = retry_after.map_or(0, milliseconds).min(OUTGOING_RETRY_MS_MAX);
                host
            }
            Fate::Failed { reply, code, host } => {
                say(Settlement::Failed, reply, code, &host);
                host
            }
            Fate::Unknown { reply, host } => {
                let reply = format!("{reply}; {host} may have the message");
                say(Settlement::Deferred, reply, "4.4.2".to_owned(), "");
                result.unknown = true;
                host
            }
        };
        Self { pending, result, host }
    }

    /// Whoever has waited for too long is given up.
    fn expire(&mut self, entry: &Entry) {
        let waited = matches!(self.result.settlement(), Settlement::Deferred | Settlement::Held | Settlement::Waits);
        if waited && self.age_ms(entry) > OUTGOING_AGE_MS_MAX {
            let days = OUTGOING_AGE_MS_MAX / (24 * 60 * 60 * 1000);
            let last = [&self.result.reply, &self.result.reason, &self.pending.reply, &self.pending.reason];
            let last = last.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
            // It is not the host that gives him up.
            let last = match std::mem::take(&mut self.host) {
                host if host.is_empty() => last,
                host => format!("{host} said: {last}"),
            };
            self.result.settlement = Settlement::Failed.into();
            self.result.reason = cut(&format!("given up after {days} days: {last}"), REASON_BYTES_MAX);
            // RFC 3463 section 3.5: delivery time expired.
            self.result.code = "5.4.7".to_owned();
        }
    }

    fn age_ms(&self, entry: &Entry) -> i64 {
        entry.leased_ms.saturating_sub(self.pending.since_ms)
    }

    /// Whether his sender is to be told now that he waits.
    fn is_late(&self, entry: &Entry) -> bool {
        self.age_ms(entry) > DELAY_WARNING_MS && !self.pending.delay_reported
    }

    /// Counts, and says so where mail will not arrive. Addresses are not logged (P-9).
    fn count(&self, entry: &Entry) {
        let result = match self.result.settlement() {
            Settlement::Delivered => "delivered",
            Settlement::Failed => {
                let (code, told) = (&self.result.code, self.result.reported);
                tracing::info!(
                    source = entry.source.0,
                    entry = entry.id.0,
                    code,
                    told,
                    "a recipient outside was given up"
                );
                "failed"
            }
            _ if self.result.unknown => "unknown",
            Settlement::Waits => "waits",
            _ => "deferred",
        };
        metrics::counter!("postrider_worker_outside_total", "result" => result).increment(1);
    }
}
