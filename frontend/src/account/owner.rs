//! An account's owner, who proves himself by its password beside his session, and what he may change then.
//!
//! Invariant: what was proven is what the shard checks: the command names the password hash that the password was verified
//! against, so of two changes at once one is refused, and a password that is no longer right changes nothing.

use std::net::IpAddr;

use bytes::Bytes;
use postrider_api::env;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{Refusal, answer, query};
use postrider_api::request::{of_step, password_digest};
use postrider_router::ReadMode;

use crate::account::fair_queue::Standing;
use crate::account::{AccountError, Accounts, Intent, STEP_MAX, password, unexpected};
use crate::network::Network;

/// Whoever has a session of the account.
pub struct Owner {
    /// The account.
    pub user: UserId,
    /// Its shard.
    pub shard: ShardId,
    /// His session.
    pub proof: pb::SessionProof,
    /// Whoever holds the connection: wrong passwords count as those of a log-in do.
    pub peer: IpAddr,
}

/// An owner whose password was right.
pub(super) struct Proven {
    pub(super) address: String,
    /// What the shard compares.
    pub(super) verified: Bytes,
}

impl Accounts {
    /// Sets another password. Every session ends but the one that asks.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn change_password(
        &self,
        owner: &Owner,
        current: String,
        new: String,
        intent: &Intent,
    ) -> Result<(), AccountError> {
        password::check_rules(&new)?;
        let proven = self.prove(owner, current).await?;
        let turn = self.passwords.turn_to_log_in(Network::of(owner.peer), Standing::Known).await?;
        let password_hash = turn.hash(new, env::random(&*self.entropy)).await?;
        let change = pb::ChangePassword {
            user_id: owner.user.to_bytes(),
            verified: proven.verified,
            password_hash,
            keep_token_hash: owner.proof.token_hash.clone(),
        };
        let request = of_step(intent.request, "change password");
        let (session, fingerprint) = (Some(owner.proof.clone()), intent.fingerprint.clone());
        match self.step(owner.shard, session, request, fingerprint, Op::ChangePassword(change)).await? {
            Ok(_) => Ok(()),
            Err(refused) => Err(match refused.refusal() {
                Refusal::PasswordChanged => AccountError::PasswordChanged,
                Refusal::FingerprintMismatch => AccountError::KeyMismatch,
                _ => unexpected("change password", &refused),
            }),
        }
    }

    /// Whether a change of the password under this intent was carried out already: the current password is no longer what it
    /// was then.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn has_changed_password(&self, owner: &Owner, intent: &Intent) -> Result<bool, AccountError> {
        if !intent.repeatable {
            return Ok(false);
        }
        let get = pb::GetOutcome {
            user_id: owner.user.to_bytes(),
            request: of_step(intent.request, "change password").to_bytes(),
            fingerprint: intent.fingerprint.clone(),
        };
        let query = query::Query::GetOutcome(get);
        let session = Some(owner.proof.clone());
        let answered = self.cluster.query(owner.shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::NotFound(_)) => Ok(false),
            Some(answer::Answer::Outcome(outcome)) => match outcome.result {
                Some(pb::outcome::Result::Done(_)) => Ok(true),
                Some(pb::outcome::Result::Refused(refused)) if refused.refusal() == Refusal::FingerprintMismatch => {
                    Err(AccountError::KeyMismatch)
                }
                // It was refused; asked with the password of now it may go through.
                _ => Ok(false),
            },
            _ => Err(AccountError::Unexpected { step: "get outcome", answer: "another kind".to_owned() }),
        }
    }

    /// Verifies the password of the account whose session this is.
    pub(super) async fn prove(&self, owner: &Owner, password: String) -> Result<Proven, AccountError> {
        let query = query::Query::GetAccount(pb::GetAccount { user_id: owner.user.to_bytes() });
        let session = Some(owner.proof.clone());
        let answered = self.cluster.query(owner.shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        let account = match answered.answer.answer {
            Some(answer::Answer::Account(account)) => account,
            _ => return Err(AccountError::Unexpected { step: "get account", answer: "another kind".to_owned() }),
        };
        self.attempts.check(&account.address, owner.peer).map_err(AccountError::TooManyAttempts)?;
        // Whoever has a session is no stranger, wherever he is.
        let turn = self.passwords.turn_to_log_in(Network::of(owner.peer), Standing::Known).await?;
        // Again: others may have failed while this one waited.
        let attempt = self.attempts.begin(&account.address, owner.peer).await;
        let attempt = attempt.map_err(AccountError::TooManyAttempts)?;
        let password = if password.len() > password::PASSWORD_BYTES_MAX { String::new() } else { password };
        let (matches, _turn) = turn.verify(password, Some(account.password_hash.clone())).await?;
        if !matches {
            metrics::counter!("postrider_rest_login_failures_total").increment(1);
            return Err(AccountError::WrongPassword);
        }
        attempt.succeeded();
        Ok(Proven { address: account.address, verified: password_digest(&account.password_hash) })
    }
}
