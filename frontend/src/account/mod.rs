//! Accounts: signing up, logging in and out. No HTTP here: REST uses it now, other protocols will.
//!
//! Invariant: a password is never logged, never stored and never hashed outside [`password::Passwords`]; a session's secret
//! leaves this module only inside the [`token::Token`] that its owner gets.

pub mod app_passwords;
pub mod attempts;
mod audit;
pub mod closing;
mod fair_queue;
pub mod feedback;
pub mod login;
pub mod owner;
pub mod password;
pub mod programs;
mod room;
pub mod scram;
pub mod second_factor;
pub mod sessions;
pub mod signup;
pub mod token;
pub mod totp;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::address::AddressError;
use postrider_api::env::{self, Clock, Entropy};
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_router::RouteError;
use thiserror::Error;

use crate::account::attempts::Attempts;
use crate::account::password::{HashBusy, PasswordCost, PasswordRule, Passwords};
use crate::cluster::Cluster;
use crate::limits::{Limiter, Moments, Refused};

/// How long one step against the cluster may take: without a quorum a caller is told within five seconds.
pub const STEP_MAX: Duration = Duration::from_millis(4_500);

/// Who may make an account.
#[derive(Clone)]
pub enum SignUpPolicy {
    /// Everybody.
    Open,
    /// Whoever holds the administrator's token.
    Closed,
}

/// Why an account was not made, or a session not opened.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The address has no valid form.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address is in a domain that this cluster does not serve.
    #[error("{domain} is not one of this service's domains")]
    DomainOutside {
        /// In A-labels.
        domain: String,
    },
    /// Somebody has the address.
    #[error("the address is taken")]
    AddressTaken,
    /// The password breaks a rule.
    #[error(transparent)]
    Password(#[from] PasswordRule),
    /// The name is too long or holds a control character.
    #[error("a name has at most {max} bytes and no control characters", max = postrider_api::limit::NAME_BYTES_MAX)]
    Name,
    /// No such address, or another password: which of them is not told.
    #[error("the address or the password is wrong")]
    WrongCredentials,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The current password is another one.
    #[error("the current password is another one")]
    WrongPassword,
    /// Somebody else changed the password at the same time.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// The account has a second factor, and nothing was shown of it.
    #[error("a code is wanted beside the password")]
    SecondFactorWanted,
    /// The code is wrong, or was used.
    #[error("the code is wrong, or was used already")]
    WrongCode,
    /// There is one already.
    #[error("the account has a second factor")]
    SecondFactorThere,
    /// There is none.
    #[error("the account has no second factor")]
    NoSecondFactor,
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// There is no such application password.
    #[error("there is no such application password")]
    NoAppPassword,
    /// Nobody has the address.
    #[error("there is no such account")]
    NoAccount,
    /// The account has as many suppressed addresses as it may.
    #[error("an account has at most {max} suppressed addresses", max = postrider_api::limit::SUPPRESSIONS_MAX)]
    SuppressionsTooMany,
    /// The account has as many application passwords as it may.
    #[error("an account has at most {max} application passwords", max = postrider_api::limit::APP_PASSWORDS_MAX)]
    AppPasswordsTooMany,
    /// Too many attempts from this peer or for this address.
    #[error("too many attempts")]
    TooManyAttempts(Refused),
    /// Too many passwords are being hashed.
    #[error(transparent)]
    Busy(#[from] HashBusy),
    /// The idempotency key was used with another request.
    #[error("this idempotency key was used with another request")]
    KeyMismatch,
    /// The session that this idempotency key opened is over.
    #[error("the session that this idempotency key opened is over")]
    KeySpent,
    /// The cluster has no shard for the account.
    #[error("there is no shard for this account yet")]
    NoShard,
    /// The cluster did not carry it out, or is not known to have.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A shard answered what it may not.
    #[error("a shard gave an unexpected answer to {step}: {answer}")]
    Unexpected {
        /// What was asked.
        step: &'static str,
        /// What came; holds no personal data.
        answer: String,
    },
}

/// Sameness of a request (P-6).
#[derive(Clone)]
pub struct Intent {
    /// The same for the same request asked again.
    pub request: RequestId,
    /// Keyed hash of what the client sent; empty without an idempotency key.
    pub fingerprint: Bytes,
    /// Whether the client named an idempotency key, and may thus ask again.
    pub repeatable: bool,
}

/// What accounts need of their surroundings.
pub struct AccountOptions {
    /// The storage cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Region of this frontend; new accounts live here.
    pub region: String,
    /// From the cluster's secret: session tokens of repeatable requests are derived from it.
    pub token_key: [u8; 32],
    /// What one password hash costs.
    pub cost: PasswordCost,
    /// How many attempts are let through.
    pub limiter: Limiter,
}

/// Makes accounts and sessions.
pub struct Accounts {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    region: String,
    token_key: [u8; 32],
    passwords: Passwords,
    attempts: Attempts,
    /// When the use of a session was last noted, as far as this process knows.
    uses: Moments,
}

impl Accounts {
    /// Hashes one password that nobody has: log-ins of unknown addresses are compared with it.
    ///
    /// # Errors
    /// When `options.cost` is outside of what argon2 allows.
    pub fn new(options: AccountOptions) -> Result<Self, argon2::Error> {
        Ok(Self {
            passwords: Passwords::new(options.cost, &*options.entropy)?,
            attempts: Attempts::new(options.limiter, Arc::clone(&options.clock)),
            uses: Moments::new(),
            cluster: options.cluster,
            clock: options.clock,
            entropy: options.entropy,
            region: options.region,
            token_key: options.token_key,
        })
    }

    /// One step of something larger: its request id is derived, so that whoever asks again resumes.
    async fn step(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        request: RequestId,
        fingerprint: Bytes,
        op: Op,
    ) -> Result<Result<pb::outcome::Result, pb::Refused>, AccountError> {
        let command = pb::Command {
            request: request.to_bytes(),
            fingerprint,
            entropy: Bytes::copy_from_slice(&env::random::<16>(&*self.entropy)),
            op: Some(op),
            ..pb::Command::default()
        };
        let outcome = self.cluster.propose(shard, session, command, STEP_MAX).await?;
        match outcome.result {
            Some(pb::outcome::Result::Refused(refused)) => Ok(Err(refused)),
            Some(result) => Ok(Ok(result)),
            None => Err(AccountError::Unexpected { step: "a command", answer: "no outcome".to_owned() }),
        }
    }
}

/// What a refusal that no caller can mend looks like.
fn unexpected(step: &'static str, refused: &pb::Refused) -> AccountError {
    AccountError::Unexpected { step, answer: format!("{:?}", refused.refusal()) }
}

/// What a result of the wrong kind looks like.
fn unexpected_result(step: &'static str) -> AccountError {
    AccountError::Unexpected { step, answer: "an outcome of another kind".to_owned() }
}
