//! Whether somebody gets mail here: the directory, then room in his mailbox.
//!
//! Invariant: "no such mailbox" comes from a consistent read of the directory in the same RCPT, and "not our domain" from one of
//! placement, never from memory: a stale no would lose mail. Only "yes" is remembered, for a short time; a mailbox that goes within it is as if it had gone a moment
//! after the message came.
//! Invariant (P-5): a mailbox that cannot be asked for room is taken to have some; its own shard decides when the message
//! gets there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_api::address::{Address, RemoteAddress};
use postrider_api::env::Clock;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, AddressStatus, answer, query};
use postrider_outgoing::return_path::{Origin, PathError, ReturnPaths};
use postrider_router::ReadMode;

use super::command::{Path, Reports};
use super::congestion::Congestion;
use super::envelope::{Addressee, Recipient};
use super::intake::Intake;
use super::limit::SmtpLimits;
use super::reply::Reply;
use super::view::Views;
use crate::account::programs::Program;
use crate::cluster::Cluster;
use crate::suppressed;

/// A message announced larger than this is always asked room for, bytes.
const SIZE_UNASKED_MAX: u64 = 1024 * 1024;

/// Answers RCPT.
pub(super) struct Recipients {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    trusted: Duration,
    room_trusted: Duration,
    question: Duration,
    quota_question: Duration,
    known: moka::sync::Cache<Address, Known>,
    return_paths: Option<ReturnPaths>,
    views: Arc<Views>,
    congestion: Arc<Congestion>,
    intake: Arc<Intake>,
}

#[derive(Clone, Copy)]
struct Known {
    user: UserId,
    shard: ShardId,
    /// When the directory was read, on the monotonic clock.
    read_at: Duration,
    /// When the mailbox last had room, or could not be asked.
    room_at: Option<Duration>,
}

impl Recipients {
    /// Asks `cluster`. Without `return_paths` what would be one is an address like others.
    pub(super) fn new(
        cluster: Arc<dyn Cluster>,
        return_paths: Option<ReturnPaths>,
        views: Arc<Views>,
        congestion: Arc<Congestion>,
        intake: Arc<Intake>,
        clock: Arc<dyn Clock>,
        limits: &SmtpLimits,
    ) -> Self {
        Self {
            cluster,
            clock,
            trusted: limits.recipient_trusted,
            room_trusted: limits.room_trusted,
            question: limits.question,
            quota_question: limits.quota_question,
            known: moka::sync::Cache::new(limits.recipients_remembered_max as u64),
            return_paths,
            views,
            congestion,
            intake,
        }
    }

    /// Who `path` is, to the client at `peer`. `size`: of the message as announced, bytes; 0 without. `is_null`: the reverse-path is.
    ///
    /// # Errors
    /// The reply to RCPT.
    pub(super) async fn resolve(
        &self,
        path: &Path,
        peer: IpAddr,
        size: u64,
        is_null: bool,
    ) -> Result<Recipient, Reply> {
        let (given, address) = self.address(path).await?;
        let paths = self.return_paths.as_ref();
        if let Some(origin) = paths.and_then(|paths| paths.read(address.as_str(), self.clock.wall_ms())) {
            return self.sender(origin, is_null, given, address).await;
        }
        let remembered = self.remembered(&address);
        let known = match remembered {
            Some(known) => known,
            None => self.look_up(&address).await?,
        };
        if self.congestion.is_at(known.user) {
            return Err(Reply::RecipientQueueFull);
        }
        self.intake.admit(peer, known.user, size)?;
        let known = match self.with_room(known, size).await {
            // What is remembered is older than the mailbox's word: the account may have been deleted since.
            Err(Reply::RecipientNotReady) if remembered.is_some() => match self.look_up(&address).await {
                Ok(known) => self.with_room(known, size).await,
                Err(reply) => Err(reply),
            },
            known => known,
        };
        match known {
            Ok(known) => {
                self.known.insert(address.clone(), known);
                let Known { user, shard, .. } = known;
                Ok(Recipient { user, shard, given, address, reports: Reports::default(), returned: None })
            }
            Err(reply) => {
                self.known.invalidate(&address);
                Err(reply)
            }
        }
    }

    /// Who `path` is to one of our users, who sends: one of ours, whose mailbox is not asked for room, since what finds none waits;
    /// or somebody outside.
    ///
    /// # Errors
    /// The reply to RCPT.
    pub(super) async fn addressee(&self, path: &Path) -> Result<Addressee, Reply> {
        if let Path::Mailbox(given) = path {
            let remote = RemoteAddress::parse(given).map_err(|_| Reply::RecipientInvalid)?;
            if !self.is_ours(remote.domain()).await? {
                return Ok(Addressee::Outside(remote));
            }
        }
        let (given, address) = self.address(path).await?;
        let known = match self.remembered(&address) {
            Some(known) => known,
            None => self.look_up(&address).await?,
        };
        self.known.insert(address.clone(), known);
        let Known { user, shard, .. } = known;
        Ok(Addressee::Here(Recipient { user, shard, given, address, reports: Reports::default(), returned: None }))
    }

    /// The same verdicts, where a program's account does not refuse to send there. What cannot be asked now is found with the message.
    pub(super) async fn without_suppressed(
        &self,
        program: &Program,
        mut verdicts: Vec<Result<Addressee, Reply>>,
    ) -> Vec<Result<Addressee, Reply>> {
        let outside = |verdict: &Result<Addressee, Reply>| match verdict {
            Ok(Addressee::Outside(address)) => Some(address.as_str().to_owned()),
            Ok(Addressee::Here(_)) | Err(_) => None,
        };
        let addresses: Vec<String> = verdicts.iter().filter_map(outside).collect();
        if addresses.is_empty() {
            return verdicts;
        }
        let own = pb::CheckSuppressed { user_id: program.user.to_bytes(), addresses: addresses.clone() };
        let question = query::Query::CheckSuppressed(own);
        let domain = program.address.rsplit_once('@').map_or("", |(_, domain)| domain);
        let (asked, of_domain) = futures::join!(
            self.cluster.query(program.shard, None, question, ReadMode::Consistent, 0, self.quota_question),
            suppressed::for_domain(&*self.cluster, domain, addresses, self.quota_question),
        );
        let mut suppressed = match asked.map(|answered| answered.answer.answer) {
            Ok(Some(answer::Answer::Suppressions(found))) => found.suppressions,
            Ok(_) => {
                tracing::error!(shard = program.shard.0, "a shard answered something else than suppressions");
                return verdicts;
            }
            Err(error) => {
                tracing::debug!(%error, shard = program.shard.0, "suppressions not checked");
                return verdicts;
            }
        };
        match of_domain {
            Ok(of_domain) => suppressed.extend(of_domain),
            // Whoever sends it asks again.
            Err(error) => tracing::debug!(%error, "suppressions of a domain not checked"),
        }
        for verdict in &mut verdicts {
            if outside(verdict).is_some_and(|address| suppressed::of(&suppressed, &address).is_some()) {
                *verdict = Err(Reply::RecipientSuppressed);
            }
        }
        verdicts
    }

    /// Whose message it is that comes back to a return path. He is not asked for room: what came back counts also where the
    /// mailbox is full.
    async fn sender(
        &self,
        origin: Result<Origin, PathError>,
        is_null: bool,
        given: String,
        address: Address,
    ) -> Result<Recipient, Reply> {
        let origin = origin.map_err(|error| match error {
            PathError::Forged => Reply::ReturnPathForged,
            PathError::Expired => Reply::ReturnPathExpired,
        })?;
        if !is_null {
            return Err(Reply::ReturnPathNotNull);
        }
        match self.cluster.locate(origin.sender, self.question).await {
            Ok(Some(shard)) => {
                let (user, reports) = (origin.sender, Reports::default());
                Ok(Recipient { user, shard, given, address, reports, returned: Some(origin) })
            }
            Ok(None) => Err(Reply::RecipientUnknown),
            Err(error) => {
                tracing::warn!(%error, "the directory did not answer where a sender lives");
                Err(Reply::RecipientUnknownNow)
            }
        }
    }

    /// Whether a domain, in A-labels, is one of ours.
    async fn is_ours(&self, domain: &str) -> Result<bool, Reply> {
        if self.views.newest().has_domain(domain) {
            return Ok(true);
        }
        // The map may be old, and a permanent no would lose mail.
        match self.cluster.zone_of_domain(domain, self.question).await {
            Ok(zone) => Ok(zone.is_some()),
            Err(error) => {
                tracing::warn!(%error, "placement did not say whether a domain is ours");
                Err(Reply::RecipientUnknownNow)
            }
        }
    }

    /// The address in its canonical form, if it is of one of our domains.
    async fn address(&self, path: &Path) -> Result<(String, Address), Reply> {
        let view = self.views.newest();
        let Some(first) = view.first_domain() else {
            // A cluster that was just made, or a map that has not come: nothing is known of any domain.
            return Err(Reply::RecipientUnknownNow);
        };
        let given = match path {
            Path::Mailbox(given) => given.clone(),
            Path::Postmaster => format!("postmaster@{first}"),
        };
        let address = Address::parse(&given).map_err(|_| Reply::RecipientInvalid)?;
        match self.is_ours(address.domain()).await? {
            true => Ok((given, address)),
            false => Err(Reply::RelayDenied),
        }
    }

    fn remembered(&self, address: &Address) -> Option<Known> {
        let now = self.clock.monotonic();
        self.known.get(address).filter(|known| now.saturating_sub(known.read_at) < self.trusted)
    }

    async fn look_up(&self, address: &Address) -> Result<Known, Reply> {
        let read_at = self.clock.monotonic();
        let record = match self.cluster.look_up(address, self.question).await {
            Ok(Some(record)) => record,
            Ok(None) => return Err(Reply::RecipientUnknown),
            Err(error) => {
                tracing::warn!(%error, "the directory did not answer a recipient");
                return Err(Reply::RecipientUnknownNow);
            }
        };
        match record.status() {
            AddressStatus::Active => {}
            // Its account is being deleted: it will not come back.
            AddressStatus::Closed | AddressStatus::Quarantined => return Err(Reply::RecipientUnknown),
            AddressStatus::Reserved | AddressStatus::Unspecified => return Err(Reply::RecipientNotReady),
        }
        let Ok(user) = UserId::try_from(&record.user_id) else {
            tracing::error!("the directory has an address without a user id");
            return Err(Reply::Broken);
        };
        Ok(Known { user, shard: ShardId(record.shard), read_at, room_at: None })
    }

    async fn with_room(&self, known: Known, size: u64) -> Result<Known, Reply> {
        let now = self.clock.monotonic();
        let is_trusted = known.room_at.is_some_and(|at| now.saturating_sub(at) < self.room_trusted);
        if is_trusted && size <= SIZE_UNASKED_MAX {
            return Ok(known);
        }
        let question = query::Query::CheckRecipient(pb::CheckRecipient { user_id: known.user.to_bytes(), size });
        let answered =
            self.cluster.query(known.shard, None, question, ReadMode::Consistent, 0, self.quota_question).await;
        match answered.map(|answered| answered.answer.answer) {
            Ok(Some(answer::Answer::Recipient(state))) if !state.active => Err(Reply::RecipientNotReady),
            Ok(Some(answer::Answer::Recipient(state))) if state.suspended => Err(Reply::RecipientSuspended),
            Ok(Some(answer::Answer::Recipient(state))) if state.over_quota => Err(Reply::MailboxFull),
            Ok(Some(answer::Answer::Recipient(state))) if state.queue_full => Err(Reply::RecipientQueueFull),
            Ok(Some(answer::Answer::Recipient(_))) => Ok(Known { room_at: Some(now), ..known }),
            // The directory says that he is there, his shard does not: the account is just being made or moved.
            Ok(Some(answer::Answer::NotFound(_))) => Err(Reply::RecipientNotReady),
            Ok(_) => {
                tracing::error!(shard = known.shard.0, "a shard answered something else than a recipient's state");
                Err(Reply::Broken)
            }
            Err(error) => {
                tracing::debug!(%error, shard = known.shard.0, "room not checked");
                Ok(Known { room_at: Some(self.clock.monotonic()), ..known })
            }
        }
    }
}
