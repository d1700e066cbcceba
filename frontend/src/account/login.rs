//! Logging in and out.
//!
//! Invariant: an address that nobody has and a wrong password differ neither in the answer nor in the hashing behind it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::address::Address;
use postrider_api::env;
use postrider_api::id::{RequestId, ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AccountState, AddressStatus, Refusal, answer, query, second_factor_proof};
use postrider_api::request;
use postrider_router::ReadMode;

use crate::account::fair_queue::Standing;
use crate::account::second_factor::Holder;
use crate::account::token::Token;
use crate::account::{AccountError, Accounts, Intent, STEP_MAX, password, unexpected};
use crate::network::Network;

/// The step that opens a session, as its request id is derived.
const OPEN_SESSION: &str = "open session";

/// How long a session lasts.
pub const SESSION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An open session.
pub struct Session {
    /// The account.
    pub user: UserId,
    /// What the client shows from now on.
    pub token: Token,
    /// Milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// Where a session is opened from.
pub struct Client {
    /// Whoever holds the connection.
    pub peer: IpAddr,
    /// What the program calls itself, at most [`USER_AGENT_BYTES_MAX`](postrider_api::limit::USER_AGENT_BYTES_MAX) bytes.
    pub user_agent: String,
}

/// The account behind an address.
struct Known {
    user: UserId,
    shard: ShardId,
    password_hash: String,
    is_suspended: bool,
}

impl Accounts {
    /// Opens a session.
    ///
    /// # Errors
    /// [`AccountError::WrongCredentials`] for an unknown address as for a wrong password; [`AccountError::SecondFactorWanted`] where
    /// the account wants a code and there is none, [`AccountError::WrongCode`]; see [`AccountError`].
    pub async fn log_in(
        &self,
        address: &str,
        password: String,
        code: Option<&str>,
        intent: &Intent,
        client: &Client,
    ) -> Result<Session, AccountError> {
        let peer = client.peer;
        let parsed = Address::parse(address).ok();
        // What is no address is counted by what was written, shortened so that nothing large is hashed.
        let counted = parsed.as_ref().map_or_else(|| address.get(..64).unwrap_or("?"), Address::as_str);
        let is_known = self.attempts.check(counted, peer).map_err(AccountError::TooManyAttempts)?;
        let known = match &parsed {
            Some(address) => self.find(address).await?,
            None => None,
        };
        let standing = if is_known { Standing::Known } else { Standing::Stranger };
        let turn = self.passwords.turn_to_log_in(Network::of(peer), standing).await?;
        // Again, since others may have failed while this one waited; and counted before it is compared, so that those who have
        // turns at once are no more than those who come one by one.
        let attempt = self.attempts.begin(counted, peer).await.map_err(AccountError::TooManyAttempts)?;
        let stored = known.as_ref().map(|known| known.password_hash.clone());
        let password = if password.len() > password::PASSWORD_BYTES_MAX { String::new() } else { password };
        let (matches, turn) = turn.verify(password, stored).await?;
        match known {
            Some(known) if matches => {
                attempt.succeeded();
                drop(turn);
                // Only who has the password is told so.
                if known.is_suspended {
                    return Err(AccountError::Suspended);
                }
                let code = code.map(|code| (counted, code));
                self.open(&known, code, intent, client).await
            }
            _ => {
                metrics::counter!("postrider_rest_login_failures_total").increment(1);
                Err(AccountError::WrongCredentials)
            }
        }
    }

    /// Ends the session that the token opened. Each time under a request id of its own: ending is idempotent by itself, and
    /// under an id that was used before, the shard would answer for the session that it ended then.
    ///
    /// # Errors
    /// When the cluster cannot say that it is over.
    pub async fn log_out(&self, shard: ShardId, session: pb::SessionProof) -> Result<(), AccountError> {
        let request = RequestId(env::random(&*self.entropy));
        let close = pb::CloseSession { user_id: session.user_id.clone(), token_hash: session.token_hash.clone() };
        match self.step(shard, Some(session), request, Bytes::new(), Op::CloseSession(close)).await? {
            Ok(_) => Ok(()),
            Err(refused) => Err(unexpected("close session", &refused)),
        }
    }

    /// An address that nobody has costs the same calls as one that somebody has: how long the answer takes must not tell.
    async fn find(&self, address: &Address) -> Result<Option<Known>, AccountError> {
        let Some((user, shard)) = self.whereabouts(address).await? else { return Ok(None) };
        let query = query::Query::GetAccount(pb::GetAccount { user_id: user.to_bytes() });
        let answered = self.cluster.query(shard, None, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            // It is as good as gone, and its hash is.
            Some(answer::Answer::Account(account)) if account.state() == AccountState::Deleting => Ok(None),
            Some(answer::Answer::Account(account)) => {
                let is_suspended = account.state() == AccountState::Suspended;
                Ok(Some(Known { user, shard, password_hash: account.password_hash, is_suspended }))
            }
            Some(answer::Answer::NotFound(_)) => Ok(None),
            _ => Err(AccountError::Unexpected { step: "get account", answer: "another kind".to_owned() }),
        }
    }

    /// Who has an address and where he is, or somebody who is not there.
    pub(super) async fn whereabouts(&self, address: &Address) -> Result<Option<(UserId, ShardId)>, AccountError> {
        let record = self.cluster.look_up(address, STEP_MAX).await?;
        match record.filter(|record| record.status() == AddressStatus::Active) {
            Some(record) => {
                let user = UserId::try_from(&record.user_id)
                    .map_err(|error| AccountError::Unexpected { step: "look up", answer: error.to_string() })?;
                Ok(Some((user, ShardId(record.shard))))
            }
            None => Ok(self.nobody(address)),
        }
    }

    /// A user who is not there, and always the same shard of those where he might be.
    fn nobody(&self, address: &Address) -> Option<(UserId, ShardId)> {
        let hash = blake3::keyed_hash(&self.token_key, address.as_str().as_bytes());
        let (id, rest) = hash.as_bytes().split_first_chunk::<16>()?;
        let draw = u64::from_be_bytes(*rest.first_chunk()?);
        let map = self.cluster.map();
        // Where the domain is ours, he might be in its zone only.
        let zone = map.domains.iter().find(|domain| domain.name == address.domain()).map(|domain| &domain.zone);
        let might =
            |shard: &&pb::Shard| shard.kind() == pb::ShardKind::Mailbox && zone.is_none_or(|zone| *zone == shard.zone);
        let shards: Vec<_> = map.shards.iter().filter(might).collect();
        // The remainder is below the number of shards, which fits.
        let chosen = draw.checked_rem(shards.len() as u64)? as usize;
        Some((UserId(*id), ShardId(shards[chosen].id)))
    }

    async fn open(
        &self,
        known: &Known,
        code: Option<(&str, &str)>,
        intent: &Intent,
        client: &Client,
    ) -> Result<Session, AccountError> {
        let proof = match code {
            Some((address, code)) => {
                let holder = Holder { user: known.user, shard: known.shard, address, peer: client.peer };
                match self.prove_second_factor(&holder, code).await {
                    // Asked again under its key a code is an old one; the session that it opened tells.
                    Err(AccountError::WrongCode) if self.has_opened(known, intent).await? => None,
                    proof => proof?,
                }
            }
            None => None,
        };
        let shown = proof.as_ref().and_then(|proof| proof.shown.as_ref());
        let is_recovery = matches!(shown, Some(second_factor_proof::Shown::RecoveryHash(_)));
        let request = request::of_step(intent.request, OPEN_SESSION);
        let token = if intent.repeatable {
            Token::derived(known.user, &self.token_key, request)
        } else {
            Token::random(known.user, &*self.entropy)
        };
        let session_ms = i64::try_from(SESSION_MAX.as_millis()).unwrap_or(i64::MAX);
        let expires_at_ms = self.clock.wall_ms().saturating_add(session_ms);
        let open = pb::OpenSession {
            user_id: known.user.to_bytes(),
            token_hash: token.hash(),
            expires_at_ms,
            verified: request::password_digest(&known.password_hash),
            peer: client.peer.to_canonical().to_string(),
            user_agent: client.user_agent.clone(),
            second_factor: proof,
        };
        let op = Op::OpenSession(open);
        match self.step(known.shard, None, request, intent.fingerprint.clone(), op).await? {
            Ok(_) => {}
            Err(refused) if refused.refusal() == Refusal::FingerprintMismatch => return Err(AccountError::KeyMismatch),
            // Suspended, deleted, or given another password while this log-in was under way.
            Err(refused) => {
                return Err(match refused.refusal() {
                    Refusal::AccountSuspended => AccountError::Suspended,
                    Refusal::SecondFactorWanted => AccountError::SecondFactorWanted,
                    Refusal::SecondFactorSpent => AccountError::WrongCode,
                    Refusal::PasswordChanged | Refusal::UnknownUser => AccountError::WrongCredentials,
                    _ => unexpected("open session", &refused),
                });
            }
        }
        self.note_opened(&token.hash());
        if is_recovery {
            self.note_recovery(known.user).await;
        }
        let expires_at_ms = if intent.repeatable { self.first_expiry(known, &token).await? } else { expires_at_ms };
        Ok(Session { user: known.user, token, expires_at_ms })
    }

    /// Whether a log-in under this intent has opened a session.
    async fn has_opened(&self, known: &Known, intent: &Intent) -> Result<bool, AccountError> {
        if !intent.repeatable {
            return Ok(false);
        }
        let get = pb::GetOutcome {
            user_id: known.user.to_bytes(),
            request: request::of_step(intent.request, OPEN_SESSION).to_bytes(),
            fingerprint: intent.fingerprint.clone(),
        };
        let query = query::Query::GetOutcome(get);
        let answered = self.cluster.query(known.shard, None, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        Ok(match answered.answer.answer {
            Some(answer::Answer::Outcome(outcome)) => matches!(outcome.result, Some(pb::outcome::Result::Done(_))),
            _ => false,
        })
    }

    /// A repeated log-in names the expiry of the first: what the shard holds.
    async fn first_expiry(&self, known: &Known, token: &Token) -> Result<i64, AccountError> {
        let get = pb::GetSession { user_id: known.user.to_bytes(), token_hash: token.hash() };
        let query = query::Query::GetSession(get);
        let answered = self.cluster.query(known.shard, None, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::Session(session)) => Ok(session.expires_at_ms),
            Some(answer::Answer::NotFound(_)) => Err(AccountError::KeySpent),
            _ => Err(AccountError::Unexpected { step: "get session", answer: "another kind".to_owned() }),
        }
    }
}
