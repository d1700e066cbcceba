//! One host: a session, waiting or new, and the transactions that it takes.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::way::{Target, Way};
use super::{Attempts, Fate, Transport};
use crate::destination::Place;
use crate::dns::Domain;
use crate::limit::{RECIPIENTS_MAX, TRANSACTIONS_MAX};
use crate::pool::Purpose;
use crate::route::{self, ConnectError};
use crate::smtp::{Letter, OpenError, Opening, Outcome, RemoteRecipient, Session, Step, Trouble};
use crate::tls::{Security, server_name};

/// How often a host is begun with anew in one attempt: a session that had waited was closed, and what it offers does not hold.
const SESSIONS_MAX: usize = 3;

/// What is handed over, and how.
#[derive(Clone, Copy)]
pub(super) struct Handing<'a> {
    pub(super) way: &'a Way,
    pub(super) sources: &'a [IpAddr],
    pub(super) letter: &'a Letter<'a>,
    pub(super) place: &'a Place,
    pub(super) deadline: Instant,
}

/// What came of one session.
enum Round {
    /// Every recipient is settled, or refused the session altogether.
    Done,
    /// To be begun with anew: it was no fault of the message.
    Anew,
    /// The host took no mail.
    Host(Fate),
}

impl Transport {
    /// Gives the message to the open recipients by this host; an error says why the next host is to be tried for those who are left.
    pub(super) async fn host(
        &self,
        handing: &Handing<'_>,
        host: &Target,
        attempts: &mut Attempts<'_>,
    ) -> Result<(), Fate> {
        let Handing { way, sources, letter, place, deadline } = *handing;
        let security = match self.security(way, host, letter.require_tls).await {
            Ok(security) => security,
            Err(error) => return Err(Fate::deferred("4.7.5", error.to_string())),
        };
        if letter.require_tls && !(security.is_authenticated() && way.is_vouched_for()) {
            let reply = "the sender asks for TLS on the whole way, and neither DNSSEC nor MTA-STS vouches for the host";
            return Err(Fate::failed("5.7.30", reply.to_owned()));
        }
        let purpose = Purpose { host: host.name.clone(), port: host.port, security, sources: sources.to_vec() };
        for round in 0..SESSIONS_MAX {
            let waiting = if round == 0 { self.pool.take(&purpose) } else { None };
            let is_reused = waiting.is_some();
            let session = match waiting {
                Some(mut session) => {
                    session.set_deadline(deadline);
                    session
                }
                None => self.open(&purpose, place, deadline).await?,
            };
            match self.session(session, &purpose, is_reused, letter, place, attempts).await {
                Round::Done => return Ok(()),
                Round::Anew => {}
                Round::Host(fate) => return Err(fate),
            }
        }
        Err(Fate::of_trouble(&Trouble::Closed(Step::Mail), &host.name))
    }

    /// Connects, greets, encrypts. TLS that is only nice to have and does not work is done without, on a connection of its own
    /// (RFC 7435).
    async fn open(&self, purpose: &Purpose, place: &Place, deadline: Instant) -> Result<Session, Fate> {
        match self.open_once(purpose, true, deadline).await {
            Err(Opened::Session(OpenError::Tls(why))) if !purpose.security.is_required() => {
                tracing::debug!(host = %purpose.host, why, "TLS does not work; the message goes without");
                metrics::counter!("postrider_outgoing_tls_fallback_total").increment(1);
                self.open_once(purpose, false, deadline).await
            }
            opened => opened,
        }
        .map_err(|error| self.not_opened(&purpose.host, &error, place))
    }

    async fn open_once(&self, purpose: &Purpose, encrypt: bool, deadline: Instant) -> Result<Session, Opened> {
        let Self { dns, settings, tls, .. } = self;
        let patience = settings.timeouts.connect.min(deadline.saturating_duration_since(Instant::now()));
        let Purpose { host, port, security, sources } = purpose;
        let reached = route::connect(&**dns, host, *port, settings.addresses, sources, patience).await?;
        let config = match encrypt {
            true => Some(tls.config(security).ok_or(OpenError::Tls("there are no root certificates".to_owned()))?),
            false => None,
        };
        let name = server_name(host, reached.peer.ip());
        let opening = Opening {
            helo: &settings.helo,
            tls: config.map(|config| (Arc::clone(&config), name)),
            tls_required: security.is_required(),
            timeouts: &settings.timeouts,
            deadline,
        };
        let mut session = Session::open(Box::new(reached.stream), opening).await?;
        if self.quirks.contains_key(host) {
            session.without_pipelining();
        }
        metrics::counter!("postrider_outgoing_sessions_total", "tls" => tls_label(&session, security)).increment(1);
        Ok(session)
    }

    fn not_opened(&self, host: &Domain, error: &Opened, place: &Place) -> Fate {
        match error {
            Opened::Connect(error @ ConnectError::Refused { .. }) => Fate::failed("5.4.4", error.to_string()),
            Opened::Connect(error @ ConnectError::Dns(_)) => Fate::deferred("4.4.3", error.to_string()),
            Opened::Connect(error) => Fate::deferred("4.4.1", error.to_string()),
            Opened::Session(OpenError::Said(_, reply)) => {
                if reply.is_transient() {
                    place.too_much();
                }
                Fate::of_reply(reply, host, true)
            }
            Opened::Session(OpenError::Trouble(trouble)) => Fate::of_trouble(trouble, host),
            Opened::Session(error @ OpenError::NoTls) => Fate::deferred("4.7.10", format!("{host}: {error}")),
            Opened::Session(error @ OpenError::Tls(_)) => Fate::deferred("4.7.5", format!("{host}: {error}")),
        }
    }

    /// Transactions on one session until every open recipient is settled.
    async fn session(
        &self,
        mut session: Session,
        purpose: &Purpose,
        is_reused: bool,
        letter: &Letter<'_>,
        place: &Place,
        attempts: &mut Attempts<'_>,
    ) -> Round {
        let host = &purpose.host;
        loop {
            let open: Vec<usize> = attempts.open().into_iter().take(RECIPIENTS_MAX).collect();
            if open.is_empty() {
                break;
            }
            let recipients: Vec<RemoteRecipient> =
                open.iter().map(|index| attempts.recipients[*index].clone()).collect();
            let is_first = session.transactions() == 0 || is_reused;
            let offered = session.extensions().clone();
            let outcomes = session.send(letter, &recipients).await;
            if let Some(round) = self.broken(&outcomes, host, is_reused, is_first, offered.pipelining, place) {
                return round;
            }
            let (mut is_over, mut is_taken) = (false, false);
            for (index, outcome) in open.into_iter().zip(outcomes) {
                is_taken |= matches!(outcome, Outcome::Accepted(_));
                is_over |= ends(&outcome);
                if let Some(fate) = fate(outcome, host, !offered.dsn) {
                    attempts.settle(index, fate);
                }
            }
            if is_taken {
                place.went_well();
            }
            if is_over {
                return Round::Done;
            }
        }
        if session.transactions() < TRANSACTIONS_MAX {
            self.pool.put(purpose.clone(), session);
        } else {
            tokio::spawn(session.quit());
        }
        Round::Done
    }

    /// Whether the whole transaction came to nothing, and what is to be done then.
    fn broken(
        &self,
        outcomes: &[Outcome],
        host: &Domain,
        is_reused: bool,
        is_first: bool,
        is_pipelining: bool,
        place: &Place,
    ) -> Option<Round> {
        match outcomes.first()? {
            first if !outcomes.iter().all(|outcome| outcome == first) => None,
            // The peer closed while nobody used it.
            Outcome::Failed(trouble) if is_reused && is_first && is_before_data(trouble) => Some(Round::Anew),
            Outcome::Refused(reply) if is_reused && is_first && reply.code == 421 => Some(Round::Anew),
            // Many commands in one piece were too much for it, though it offers that.
            Outcome::Failed(trouble) if is_pipelining && is_before_data(trouble) => {
                tracing::info!(%host, %trouble, "a host does not keep to PIPELINING; commands go one by one for a day");
                self.quirks.insert(host.clone(), ());
                Some(Round::Anew)
            }
            Outcome::Failed(trouble) => Some(Round::Host(Fate::of_trouble(trouble, host))),
            Outcome::Refused(reply) if reply.code == 421 => {
                place.too_much();
                Some(Round::Host(Fate::of_reply(reply, host, true)))
            }
            _ => None,
        }
    }
}

/// What a session may fail at before the message.
fn is_before_data(trouble: &Trouble) -> bool {
    let (Trouble::Closed(step)
    | Trouble::TimedOut(step)
    | Trouble::Broken(step, _)
    | Trouble::Malformed(step, _)
    | Trouble::OutOfStep(step, _)) = trouble;
    matches!(step, Step::Mail | Step::Rcpt | Step::Reset)
}

/// Whether the session is of no more use.
fn ends(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) | Outcome::Unknown(_) => true,
        Outcome::Refused(reply) | Outcome::RefusedRecipient(reply) => reply.code == 421,
        Outcome::Accepted(_) | Outcome::Unfit(..) | Outcome::Again => false,
    }
}

/// `None`: in the next transaction.
fn fate(outcome: Outcome, host: &Domain, relayed: bool) -> Option<Fate> {
    let name = || host.to_string();
    Some(match outcome {
        Outcome::Accepted(reply) => Fate::Accepted { reply: reply.to_string(), host: name(), relayed },
        Outcome::RefusedRecipient(reply) | Outcome::Refused(reply) => Fate::of_reply(&reply, host, false),
        Outcome::Unfit(code, why) => Fate::Failed { reply: why, code: code.to_owned(), host: name() },
        Outcome::Failed(trouble) => Fate::of_trouble(&trouble, host),
        Outcome::Unknown(trouble) => Fate::Unknown { reply: trouble.to_string(), host: name() },
        Outcome::Again => return None,
    })
}

fn tls_label(session: &Session, security: &Security) -> &'static str {
    match (session.is_encrypted(), security) {
        (false, _) => "none",
        (true, Security::Opportunistic | Security::Encrypted) => "unauthenticated",
        (true, Security::Pkix) => "name",
        (true, Security::Dane(_)) => "dane",
    }
}

/// Why there is no session.
#[derive(Debug)]
enum Opened {
    Connect(ConnectError),
    Session(OpenError),
}

impl From<ConnectError> for Opened {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<OpenError> for Opened {
    fn from(error: OpenError) -> Self {
        Self::Session(error)
    }
}
