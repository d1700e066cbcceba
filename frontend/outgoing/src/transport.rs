//! One attempt: a message to the recipients of one destination, by whichever of its hosts takes it.

mod fate;
mod host;
mod way;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use postrider_api::env::{Clock, SystemClock};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::class::{Classes, other};
use crate::destination::{Destinations, Full, PerDestination, Place, Turns};
use crate::dns::{Dns, Domain};
use crate::limit::{CONNECTIONS_MAX, DESTINATIONS_MAX, HOSTS_TRIED_MAX, SMTP_PORT, Timeouts};
use crate::mta_sts::Policies;
use crate::pool::Pool;
use crate::route::{AddressPolicy, Route};
use crate::smtp::{self, Letter, RemoteRecipient, ReturnContent, Shape};
use crate::sources::{Blame, Category, Departure, Pools, Sources, Spent, blame};
use crate::tls::Tls;

pub use self::fate::{Attempt, Fate};
use self::host::Handing;

/// How long a destination's place is waited for: the queue has other mail to send meanwhile.
const PLACE_WAIT: Duration = Duration::from_secs(20);
/// How long it is remembered that a host does not keep to what it offers.
const QUIRK_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How soon a message comes back whose destination has all its connections taken.
const CROWDED: Duration = Duration::from_secs(5);

/// What a transport is made with.
pub struct TransportSettings {
    /// Our name in EHLO: one that leads back to the source addresses, or peers will not like us.
    pub helo: String,
    /// Which addresses may be connected to.
    pub addresses: AddressPolicy,
    /// Where connections are made from.
    pub sources: Sources,
    /// Tells the days of a warm-up.
    pub clock: Arc<dyn Clock>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Root certificates besides the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// A host that takes everything, instead of the destinations' own.
    pub relay: Option<Route>,
    /// The port of mail exchangers: 25, but for tests.
    pub port: u16,
    /// The port of MTA-STS policies: 443, but for tests.
    pub policy_port: u16,
    /// Which part this worker has of what its region may.
    pub turns: Arc<dyn Turns>,
    /// Connections to one destination at once that all workers of the region may have.
    pub connections_max: u32,
    /// Messages to one destination in a [`crate::limit::PACE_WINDOW`] that they all may begin; `None`: as many as go.
    pub messages_max: Option<u32>,
    /// What destinations are called in metrics.
    pub classes: Classes,
}

impl TransportSettings {
    /// The defaults, for a host of this name and a worker that counts with nobody.
    pub fn new(helo: &str) -> Self {
        Self {
            helo: helo.to_owned(),
            addresses: AddressPolicy::default(),
            sources: Sources::default(),
            clock: SystemClock::shared(),
            timeouts: Timeouts::default(),
            roots: Vec::new(),
            relay: None,
            port: SMTP_PORT,
            policy_port: 443,
            turns: Arc::new(crate::destination::Alone),
            connections_max: CONNECTIONS_MAX,
            messages_max: None,
            classes: Classes::default(),
        }
    }
}

/// A message on its way out.
#[derive(Debug, Clone)]
pub struct Outbound<'a> {
    /// The reverse-path; empty for the null one.
    pub mail_from: &'a str,
    /// ENVID (RFC 3461 section 4.4) as given, xtext; empty where there is none.
    pub envelope_id: &'a str,
    /// RET.
    pub return_content: ReturnContent,
    /// RFC 8689.
    pub require_tls: bool,
    /// The sender gave it with SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// The exact bytes, signed.
    pub body: &'a Bytes,
    /// Which source addresses it leaves from.
    pub category: Category,
    /// An operator's way for it.
    pub route: Option<&'a Route>,
}

/// Takes mail to where it goes.
pub struct Transport {
    settings: TransportSettings,
    dns: Arc<dyn Dns>,
    tls: Tls,
    policies: Policies,
    pool: Pool,
    destinations: Destinations,
    sources: Pools,
    /// Hosts that offer PIPELINING or CHUNKING and do not live up to it.
    quirks: Cache<Domain, ()>,
    /// The class of each destination whose hosts are known.
    classed: Cache<Domain, Arc<str>>,
}

impl Transport {
    /// Asks `dns`; no connection is made yet.
    pub fn new(dns: Arc<dyn Dns>, settings: TransportSettings) -> Self {
        let tls = Tls::new(Tls::roots(&settings.roots));
        let policies = Policies::new(Arc::clone(&dns), tls.clone(), settings.addresses, settings.policy_port);
        let limits = PerDestination { connections: settings.connections_max, messages: settings.messages_max };
        let destinations = Destinations::new(Arc::clone(&settings.turns), limits);
        let sources = Pools::new(settings.sources.clone(), Arc::clone(&settings.clock));
        let quirks = Cache::builder().max_capacity(DESTINATIONS_MAX).time_to_live(QUIRK_AGE).build();
        let classed = Cache::builder().max_capacity(DESTINATIONS_MAX).time_to_live(QUIRK_AGE).build();
        Self { settings, dns, tls, policies, pool: Pool::default(), destinations, sources, quirks, classed }
    }

    /// One attempt for the recipients of one destination domain; an attempt for each of them, in their order, at `deadline` at the
    /// latest. What had to be cut off after the end of the message had gone out is [`Fate::Unknown`]: leave it the time that
    /// [`Timeouts`] asks for.
    pub async fn attempt(
        &self,
        message: &Outbound<'_>,
        destination: &Domain,
        recipients: &[RemoteRecipient],
        deadline: Instant,
    ) -> Vec<Attempt> {
        let mut attempts = Attempts::new(recipients);
        if let Some(shape) = attempts.look_at(message) {
            let place_by = deadline.min(Instant::now() + PLACE_WAIT);
            match self.destinations.place(destination, place_by).await {
                Ok(place) => self.hand_over(message, shape, destination, &place, &mut attempts, deadline).await,
                Err(full) => attempts.settle_rest(&crowded(destination, full)),
            }
        }
        let class = self.classed.get(destination).unwrap_or_else(other);
        attempts.finish(&class)
    }

    async fn hand_over(
        &self,
        message: &Outbound<'_>,
        shape: Shape,
        destination: &Domain,
        place: &Place,
        attempts: &mut Attempts<'_>,
        deadline: Instant,
    ) {
        let route = message.route.or(self.settings.relay.as_ref());
        let way = match self.way(destination, route).await {
            Ok(way) => way,
            Err(fate) => return attempts.settle_rest(&fate),
        };
        if let Some(first) = way.hosts.first() {
            self.classed.insert(destination.clone(), self.settings.classes.of(&first.name));
        }
        let needs_utf8 = message.smtp_utf8 && (shape.is_header_eight_bit || !message.mail_from.is_ascii());
        let letter = Letter {
            mail_from: message.mail_from,
            envelope_id: message.envelope_id,
            return_content: message.return_content,
            require_tls: message.require_tls,
            needs_utf8: needs_utf8 || !message.mail_from.is_ascii(),
            shape,
            body: message.body,
        };
        let mut departure = match self.sources.depart(message.category, destination) {
            Ok(departure) => departure,
            Err(spent) => return attempts.settle_rest(&rests(spent)),
        };
        let sources = departure.addresses();
        let handing = Handing { way: &way, sources: &sources, letter: &letter, place, deadline };
        let mut last = None;
        for host in way.hosts.iter().take(HOSTS_TRIED_MAX) {
            if attempts.is_settled() || Instant::now() >= deadline {
                break;
            }
            match self.host(&handing, host, attempts).await {
                Ok(()) => {}
                // A refusal for good by one host is the destination's only where no other host says something else.
                Err(fate) => last = Some(fate.or_temporary(last)),
            }
        }
        if let Some(Fate::Deferred { destination: true, .. }) = &last
            && !attempts.is_settled()
        {
            place.is_dead();
        }
        let late = || Fate::deferred("4.4.7", format!("there was no time for {destination} in this attempt"));
        attempts.settle_rest(&last.unwrap_or_else(late));
        attempts.look_back(&mut departure);
    }
}

/// Recipients, and what became of each so far.
struct Attempts<'a> {
    recipients: &'a [RemoteRecipient],
    fates: Vec<Option<Fate>>,
}

impl<'a> Attempts<'a> {
    fn new(recipients: &'a [RemoteRecipient]) -> Self {
        Self { recipients, fates: vec![None; recipients.len()] }
    }

    /// Refuses what must not leave, before anybody is asked anything; `None` when nothing is left to do.
    fn look_at(&mut self, message: &Outbound<'_>) -> Option<Shape> {
        let shape = match smtp::shape(message.body) {
            Ok(shape) => shape,
            Err(error) => {
                self.settle_rest(&Fate::failed("5.6.0", error.to_string()));
                return None;
            }
        };
        if !message.mail_from.is_empty()
            && let Err(error) = smtp::check_path(message.mail_from)
        {
            self.settle_rest(&Fate::failed("5.1.7", format!("the sender: {error}")));
            return None;
        }
        for (recipient, fate) in self.recipients.iter().zip(&mut self.fates) {
            if let Err(error) = smtp::check_path(&recipient.address) {
                *fate = Some(Fate::failed("5.1.3", error.to_string()));
            }
        }
        (!self.is_settled()).then_some(shape)
    }

    fn is_settled(&self) -> bool {
        self.fates.iter().all(Option::is_some)
    }

    /// Those of whom nothing is known yet.
    fn open(&self) -> Vec<usize> {
        (0..self.fates.len()).filter(|index| self.fates[*index].is_none()).collect()
    }

    fn settle(&mut self, index: usize, fate: Fate) {
        self.fates[index] = Some(fate);
    }

    fn settle_rest(&mut self, fate: &Fate) {
        for open in self.fates.iter_mut().filter(|fate| fate.is_none()) {
            *open = Some(fate.clone());
        }
    }

    /// What the destination said of where the message came from. Mail that was refused for that alone is tried again, by another address or
    /// after the rest.
    fn look_back(&mut self, departure: &mut Departure) {
        let mut worst = None;
        for fate in self.fates.iter_mut().flatten() {
            let (reply, code, host, is_final) = match fate {
                Fate::Accepted { .. } | Fate::Unknown { .. } => {
                    departure.left();
                    continue;
                }
                Fate::Failed { reply, code, host } => (reply, code, host, true),
                Fate::Deferred { reply, code, host, .. } => (reply, code, host, false),
            };
            let blamed = if host.is_empty() { None } else { blame(code, reply) };
            if blamed == Some(Blame::Blocked) && is_final && departure.is_pooled() {
                *fate = Fate::Deferred {
                    reply: std::mem::take(reply),
                    code: "4.7.1".to_owned(),
                    destination: false,
                    retry_after: Some(departure.rest()),
                    host: std::mem::take(host),
                };
            }
            worst = match (worst, blamed) {
                (Some(Blame::Blocked), _) | (_, Some(Blame::Blocked)) => Some(Blame::Blocked),
                (worst, blamed) => blamed.or(worst),
            };
        }
        if let Some(blame) = worst {
            departure.blamed(blame);
        }
    }

    /// `class`: what the destination is called in metrics.
    fn finish(self, class: &Arc<str>) -> Vec<Attempt> {
        let unknown = || Fate::deferred("4.4.0", "nothing became of the attempt".to_owned());
        let each = self.recipients.iter().zip(self.fates);
        each.map(|(recipient, fate)| {
            let fate = fate.unwrap_or_else(unknown);
            let (destination, result) = (Arc::clone(class), fate.label());
            metrics::counter!("postrider_outgoing_recipients_total", "destination" => destination, "result" => result)
                .increment(1);
            Attempt { address: recipient.address.clone(), fate }
        })
        .collect()
    }
}

/// Others may send there meanwhile: it is not the destination that waits.
fn rests(spent: Spent) -> Fate {
    Fate::Deferred {
        reply: spent.why,
        code: "4.7.1".to_owned(),
        destination: false,
        retry_after: Some(spent.wait),
        host: String::new(),
    }
}

fn crowded(destination: &Domain, full: Full) -> Fate {
    let (reply, wait) = match full {
        Full::Connections => (format!("{destination} has all the connections that it may have"), CROWDED),
        Full::Elsewhere => (format!("other workers have all that {destination} may have"), CROWDED),
        Full::Pace => (format!("{destination} has all the messages that it may have at a time"), CROWDED),
        Full::Wait(wait) => (format!("{destination} took nothing a moment ago, and is left alone for now"), wait),
    };
    Fate::Deferred { reply, code: "4.4.5".to_owned(), destination: true, retry_after: Some(wait), host: String::new() }
}

#[cfg(test)]
mod peer;
#[cfg(test)]
mod tests;
