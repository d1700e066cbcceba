//! Reading and writing a mailbox under its owner's session.
//!
//! Invariant (P-9): every query and every command names the user of the session that the shard checks in the same call. No
//! handler can name another one: what it may ask for is within the caller's mailbox, or it is not there.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponseParts, ResponseParts};
use bytes::Bytes;
use futures::stream::BoxStream;
use http::header::WARNING;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use postrider_api::env::{self, Entropy};
use postrider_api::id::{BlobHash, ModSeq, ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{Missing, answer, outcome, query};
use postrider_api::request;
use postrider_router::{Answered, ReadMode, RouteError, WatchItem};

use crate::account::owner::Owner;
use crate::account::token::Token;
use crate::account::{AccountError, Intent};
use crate::cluster::Cluster;
use crate::pins::{self, PinError};
use crate::rest::accounts::problem;
use crate::rest::bodies::Bodies;
use crate::rest::credentials::{self, Effect};
use crate::rest::extract::Peer;
use crate::rest::impostors::Impostors;
use crate::rest::limit::CLUSTER_CALL_MAX;
use crate::rest::problem::{Kind, Problem};
use crate::rest::rates::{Quota, Rates};
use postrider_mime::CutBlob;

/// Placements of one shard that a message is tried under: one moves once in a while, and takes minutes.
const PLACEMENTS_MAX: usize = 3;

/// How old a stale answer may be, milliseconds (P-4). A client that sees it knows that it reads from a minority.
pub(crate) const STALE_MS: HeaderName = HeaderName::from_static("postrider-stale-ms");
/// The mailbox's modseq behind a write: a later read may ask for it as `min_modseq`.
pub(crate) const MODSEQ: HeaderName = HeaderName::from_static("postrider-modseq");

/// Whoever holds a token. True once a shard has answered under the proof.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The user that the token names.
    pub(crate) user: UserId,
    /// His mailbox's shard.
    pub(crate) shard: ShardId,
    /// What the shard checks.
    pub(crate) proof: pb::SessionProof,
    /// Who shows the token.
    peer: IpAddr,
}

impl Caller {
    /// As accounts know whoever asks.
    pub(crate) fn owner(&self) -> Owner {
        Owner { user: self.user, shard: self.shard, proof: self.proof.clone(), peer: self.peer }
    }
}

#[cfg(test)]
impl Caller {
    /// Of a test, from nowhere.
    pub(crate) fn of(user: UserId, shard: ShardId, proof: pb::SessionProof) -> Self {
        Self { user, shard, proof, peer: IpAddr::from([127, 0, 0, 1]) }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    Mailboxes: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let peer = Peer::from_request_parts(parts, state).await?;
        let token = credentials::token(parts, Effect::of(&parts.method))?;
        Mailboxes::from_ref(state).admitted(token.user(), token.proof(), peer, parts).await
    }
}

/// How fresh an answer is; writes the header fields of a stale one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness(Option<u64>);

impl Freshness {
    /// Whether a leader answered.
    pub(crate) fn is_current(self) -> bool {
        self.0.is_none()
    }

    /// Of an answer that was put together from two.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

impl IntoResponseParts for Freshness {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if let Some(stale_ms) = self.0 {
            // RFC 7234 section 5.5.1; RFC 9111 dropped the field, which keeps old caches and their readers right.
            parts.headers_mut().insert(WARNING, HeaderValue::from_static("110 postrider \"Response is Stale\""));
            parts.headers_mut().insert(STALE_MS, HeaderValue::from(stale_ms));
        }
        Ok(parts)
    }
}

/// The modseq behind a write, as a header field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written(pub ModSeq);

impl IntoResponseParts for Written {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.headers_mut().insert(MODSEQ, HeaderValue::from(self.0.0));
        Ok(parts)
    }
}

/// An answer and how fresh it is.
pub(crate) struct Read {
    /// The answer; never `NotFound`, and `Unchanged` only where that was asked for.
    pub(crate) answer: answer::Answer,
    /// For the response.
    pub(crate) freshness: Freshness,
    /// The mailbox's modseq before its rows were read, where it was asked for.
    pub(crate) modseq: Option<ModSeq>,
}

/// The mailboxes of the cluster.
#[derive(Clone)]
pub(crate) struct Mailboxes {
    cluster: Arc<dyn Cluster>,
    entropy: Arc<dyn Entropy>,
    impostors: Impostors,
    rates: Rates,
}

impl Mailboxes {
    /// Over a cluster.
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        entropy: Arc<dyn Entropy>,
        impostors: Impostors,
        rates: Rates,
    ) -> Self {
        Self { cluster, entropy, impostors, rates }
    }

    /// The cluster itself.
    pub(crate) fn cluster(&self) -> &Arc<dyn Cluster> {
        &self.cluster
    }

    /// Whom a proof names, counted as one more request of the account.
    pub(crate) async fn admitted(
        &self,
        user: UserId,
        proof: pb::SessionProof,
        peer: Peer,
        parts: &Parts,
    ) -> Result<Caller, Problem> {
        let caller = self.named(user, proof, peer).await?;
        let left = self.rates.admit(caller.user, &caller.proof.token_hash, &self.impostors, &parts.headers);
        Quota::note(parts, left.await?);
        Ok(caller)
    }

    /// Who a token names and where his mailbox is. A token of nobody is a 401 like one that is over.
    pub(crate) async fn caller(&self, token: &Token, peer: Peer) -> Result<Caller, Problem> {
        self.named(token.user(), token.proof(), peer).await
    }

    async fn named(&self, user: UserId, proof: pb::SessionProof, Peer(peer): Peer) -> Result<Caller, Problem> {
        self.impostors.admit(&proof.token_hash, peer)?;
        let shard =
            if self.impostors.is_nobody(user) { None } else { self.cluster.locate(user, CLUSTER_CALL_MAX).await? };
        let Some(shard) = shard else {
            self.impostors.remember_nobody(user);
            self.impostors.count(&proof.token_hash, peer);
            return Err(Problem::new(Kind::Unauthenticated));
        };
        Ok(Caller { user, shard, proof, peer })
    }

    /// A token that was given out just now, or that a shard has accepted.
    pub(crate) fn prove(&self, token_hash: &Bytes) {
        self.impostors.prove(token_hash);
    }

    /// Whether the caller's token opened something a while ago: he is who it says, as far as what he may take of others goes.
    pub(crate) fn is_proven(&self, caller: &Caller) -> bool {
        self.impostors.is_proven(&caller.proof.token_hash)
    }

    /// What a call under the caller's proof tells about the token: it was answered, or `refused`.
    pub(crate) fn learn(&self, caller: &Caller, refused: Option<&RouteError>) {
        match refused {
            None => self.impostors.prove(&caller.proof.token_hash),
            Some(RouteError::Unauthenticated) => self.impostors.count(&caller.proof.token_hash, caller.peer),
            Some(_) => {}
        }
    }

    /// Reads; stale when the leader cannot be reached (P-4).
    pub(crate) async fn read(&self, caller: &Caller, query: query::Query, min_modseq: u64) -> Result<Read, Problem> {
        self.ask(caller, query, ReadMode::StaleOk, min_modseq).await
    }

    /// Reads what a write depends on: consistent, or not at all.
    pub(crate) async fn read_consistent(&self, caller: &Caller, query: query::Query) -> Result<Read, Problem> {
        self.ask(caller, query, ReadMode::Consistent, 0).await
    }

    /// Reads a mailbox unless its modseq is still `known`: then the answer is `Unchanged`.
    pub(crate) async fn read_unless(
        &self,
        caller: &Caller,
        query: query::Query,
        known: Option<ModSeq>,
        min: u64,
    ) -> Result<Read, Problem> {
        let session = Some(caller.proof.clone());
        let is_search = is_search(&query);
        let answered = self.cluster.query_unless(caller.shard, session, query, known, min, CLUSTER_CALL_MAX).await;
        self.answered(caller, answered, is_search)
    }

    async fn ask(&self, caller: &Caller, query: query::Query, mode: ReadMode, min: u64) -> Result<Read, Problem> {
        let session = Some(caller.proof.clone());
        let is_search = is_search(&query);
        let answered = self.cluster.query(caller.shard, session, query, mode, min, CLUSTER_CALL_MAX).await;
        self.answered(caller, answered, is_search)
    }

    fn answered(
        &self,
        caller: &Caller,
        answered: Result<Answered, RouteError>,
        is_search: bool,
    ) -> Result<Read, Problem> {
        self.learn(caller, answered.as_ref().err());
        let Answered { answer, stale_ms, modseq } = match answered {
            // What a search costs is known where it is carried out: it says what to ask instead.
            Err(RouteError::Malformed { detail }) if is_search => {
                return Err(Problem::new(Kind::InvalidSearch).detail(detail));
            }
            answered => answered?,
        };
        match answer.answer {
            Some(answer::Answer::NotFound(missing)) => Err(absent(missing.missing())),
            Some(answer) => Ok(Read { answer, freshness: Freshness(stale_ms), modseq }),
            None => Err(Problem::internal("a shard answered a query with nothing")),
        }
    }

    /// Writes, at most once under the intent's request id.
    pub(crate) async fn write(
        &self,
        caller: &Caller,
        intent: Intent,
        op: Op,
    ) -> Result<Result<outcome::Result, pb::Refused>, Problem> {
        let command = self.command(intent, op);
        let session = Some(caller.proof.clone());
        let outcome = self.cluster.propose(caller.shard, session, command, CLUSTER_CALL_MAX).await;
        self.learn(caller, outcome.as_ref().err());
        given(outcome?)
    }

    /// Has a shard take a message: its blobs first, then the command, at most once under the intent's request id. `caller`: whose
    /// session it is made under; without one it is for people who live elsewhere, like mail that comes in.
    pub(crate) async fn deposit(
        &self,
        (shard, caller): (ShardId, Option<&Caller>),
        bodies: &Bodies,
        blobs: &[CutBlob],
        intent: Intent,
        op: Op,
    ) -> Result<Result<outcome::Result, pb::Refused>, Problem> {
        let command = self.command(intent, op);
        let session = || caller.map(|caller| caller.proof.clone());
        for _ in 0..PLACEMENTS_MAX {
            self.pin((shard, caller), &command, blobs).await?;
            let put = bodies.put_all(shard, blobs.to_vec()).await;
            let epoch = put.inspect_err(|_| {
                if !blobs.is_empty() {
                    pins::unpin(&self.cluster, shard, &command.request);
                }
            })?;
            let outcome = self.cluster.propose_at(shard, epoch, session(), command.clone(), CLUSTER_CALL_MAX).await;
            if let Some(caller) = caller {
                self.learn(caller, outcome.as_ref().err());
            }
            match outcome {
                // The blobs have to be where the shard is now.
                Err(RouteError::Moved) => {}
                outcome => return given(outcome?),
            }
        }
        Err(RouteError::Moved.into())
    }

    /// Pins the blobs in the shard that will refer to them, before they are looked for in the stores (P-11). It says no where the
    /// caller's quota has no room: nothing of the message is stored then.
    async fn pin(
        &self,
        (shard, caller): (ShardId, Option<&Caller>),
        command: &pb::Command,
        blobs: &[CutBlob],
    ) -> Result<(), Problem> {
        if blobs.is_empty() {
            return Ok(());
        }
        let size = match &command.op {
            Some(Op::Send(send)) => send.message.as_ref().map_or(0, |message| message.size),
            Some(Op::SaveDraft(save)) => save.message.as_ref().map_or(0, |message| message.size),
            _ => 0,
        };
        let quota = caller.map(|caller| (caller.user, size));
        let session = caller.map(|caller| caller.proof.clone());
        let refs = pins::of_cut(blobs);
        let pinned = pins::pin(&*self.cluster, shard, session, &command.request, refs, quota, CLUSTER_CALL_MAX).await;
        if let (Some(caller), Err(PinError::Route(error))) = (caller, &pinned) {
            self.learn(caller, Some(error));
        }
        pinned.map_err(|error| match error {
            PinError::QuotaExceeded(detail) => Problem::new(Kind::QuotaExceeded).detail(detail),
            PinError::Condemned => {
                Problem::new(Kind::Unavailable).detail("a file of the same content is just being deleted")
            }
            PinError::Refused(detail) => Problem::internal(&detail),
            PinError::Route(error) => error.into(),
        })
    }

    /// Pins a file that comes before its message, for as long as pins last.
    pub(crate) async fn pin_upload(
        &self,
        caller: &Caller,
        intent: &Intent,
        number: usize,
        (hash, bytes): (BlobHash, u64),
        bytes_so_far: u64,
    ) -> Result<(), Problem> {
        let step = if number == 0 { "upload".to_owned() } else { format!("upload {number}") };
        let request = request::of_step(intent.request, &step).to_bytes();
        let refs = vec![pb::BlobRef { hash: hash.to_bytes(), bytes }];
        let session = Some(caller.proof.clone());
        let quota = Some((caller.user, bytes_so_far));
        let pinned = pins::pin(&*self.cluster, caller.shard, session, &request, refs, quota, CLUSTER_CALL_MAX).await;
        pinned.map_err(|error| match error {
            PinError::QuotaExceeded(detail) => Problem::new(Kind::QuotaExceeded).detail(detail),
            PinError::Condemned => {
                Problem::new(Kind::Unavailable).detail("a file of the same content is just being deleted")
            }
            // The same key with another file.
            PinError::Refused(_) if intent.repeatable => Problem::new(Kind::KeyMismatch),
            PinError::Refused(detail) => Problem::internal(&detail),
            PinError::Route(error) => {
                self.learn(caller, Some(&error));
                error.into()
            }
        })
    }

    fn command(&self, intent: Intent, op: Op) -> pb::Command {
        pb::Command {
            request: intent.request.to_bytes(),
            fingerprint: intent.fingerprint,
            entropy: Bytes::copy_from_slice(&env::random::<16>(&*self.entropy)),
            op: Some(op),
            ..pb::Command::default()
        }
    }

    /// What became of a write, if it has been asked for before. Whoever does a lot before he writes spares it himself, and what
    /// has changed since then (a recipient who is gone) makes no other answer of it.
    pub(crate) async fn first_outcome(
        &self,
        caller: &Caller,
        intent: &Intent,
    ) -> Result<Option<Result<outcome::Result, pb::Refused>>, Problem> {
        if !intent.repeatable {
            return Ok(None);
        }
        let query = query::Query::GetOutcome(pb::GetOutcome {
            user_id: caller.user.to_bytes(),
            request: intent.request.to_bytes(),
            fingerprint: intent.fingerprint.clone(),
        });
        match self.read_consistent(caller, query).await {
            Ok(Read { answer: answer::Answer::Outcome(outcome), .. }) => given(outcome).map(Some),
            Ok(_) => Err(wrong_answer()),
            Err(problem) if problem.kind() == Kind::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Writes what ends in a modseq.
    pub(crate) async fn change(&self, caller: &Caller, intent: Intent, op: Op) -> Result<ModSeq, Problem> {
        match self.write(caller, intent, op).await? {
            Ok(outcome::Result::Changed(changed)) => Ok(ModSeq(changed.modseq)),
            Ok(_) => Err(Problem::internal("a shard answered a change with an outcome of another kind")),
            Err(refused) => Err(Problem::refused(&refused)),
        }
    }

    /// What an account's step under the caller's session ended in.
    pub(crate) fn told<T>(&self, caller: &Caller, ended: Result<T, AccountError>) -> Result<T, Problem> {
        if let Err(AccountError::Route(error)) = &ended {
            self.learn(caller, Some(error));
        }
        ended.map_err(problem)
    }

    /// The caller's changes behind `since`.
    pub(crate) fn watch(&self, caller: &Caller, since: ModSeq) -> BoxStream<'static, Result<WatchItem, RouteError>> {
        self.cluster.watch(caller.shard, Some(caller.proof.clone()), caller.user, since)
    }
}

fn is_search(query: &query::Query) -> bool {
    matches!(query, query::Query::Search(_) | query::Query::Suggest(_))
}

fn given(outcome: pb::Outcome) -> Result<Result<outcome::Result, pb::Refused>, Problem> {
    match outcome.result {
        Some(outcome::Result::Refused(refused)) => Ok(Err(refused)),
        Some(result) => Ok(Ok(result)),
        None => Err(Problem::internal("a shard answered a command with nothing")),
    }
}

fn absent(missing: Missing) -> Problem {
    match missing {
        Missing::Changes => Problem::new(Kind::ResyncRequired),
        Missing::Session => Problem::new(Kind::Unauthenticated),
        _ => Problem::new(Kind::NotFound),
    }
}

/// What an answer of the wrong kind is.
pub(crate) fn wrong_answer() -> Problem {
    Problem::internal("a shard answered a query with another kind of answer")
}
