//! What an account's owner shows beside his password: set up, shown, and given up.
//!
//! Here a code is found right or wrong; whether it is still good is the shard's to say, in the command that it opens something with
//! (docs/adr/148-second-factors.md).
//!
//! Invariant: the secret and the recovery codes leave this module once, to their owner.
//! Invariant: codes are counted as passwords are, by themselves: who has the password and guesses codes is a stranger until one was right.

use std::net::IpAddr;

use bytes::Bytes;
use postrider_api::audit;
use postrider_api::env;
use postrider_api::id::{RequestId, ShardId, UserId};
use postrider_api::limit::RECOVERY_CODES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{Refusal, answer, query, second_factor_proof};
use postrider_api::request::of_step;
use postrider_router::ReadMode;

use crate::account::owner::Owner;
use crate::account::totp::{Secret, SecretSealer, Shown, grouped, recovery_code, recovery_hash};
use crate::account::{AccountError, Accounts, Intent, STEP_MAX, unexpected};

/// Bytes of a recovery code.
const RECOVERY_BYTES: usize = 10;

/// How it stands with an account.
pub struct Standing {
    /// Since when log-ins want it, milliseconds since the Unix epoch; `None`: they do not.
    pub confirmed_ms: Option<i64>,
    /// Recovery codes that were not used.
    pub recovery_codes: usize,
}

/// A secret that waits for its first code. Not `Debug`.
pub struct Begun {
    /// To be shown once.
    pub secret: Secret,
    /// The account's.
    pub address: String,
}

/// Whose code is checked.
pub(super) struct Holder<'a> {
    pub(super) user: UserId,
    pub(super) shard: ShardId,
    pub(super) address: &'a str,
    pub(super) peer: IpAddr,
}

impl Accounts {
    /// How it stands.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn second_factor(&self, owner: &Owner) -> Result<Standing, AccountError> {
        let record = self.second_factor_of(owner.user, owner.shard, Some(owner.proof.clone())).await?;
        let confirmed_ms = (record.confirmed_ms > 0).then_some(record.confirmed_ms);
        Ok(Standing { confirmed_ms, recovery_codes: record.recovery_hashes.len() })
    }

    /// Makes a secret, which counts once a code of it was shown. Asked again under the same intent, it is the same one.
    ///
    /// # Errors
    /// [`AccountError::SecondFactorThere`] where there is one; see [`AccountError`].
    pub async fn begin_second_factor(
        &self,
        owner: &Owner,
        password: String,
        intent: &Intent,
    ) -> Result<Begun, AccountError> {
        let proven = self.prove(owner, password).await?;
        let request = of_step(intent.request, "begin second factor");
        let secret = Secret::new(self.bits(owner, intent, request, 0));
        let sealed = self.sealer().seal(owner.user, &secret, &*self.entropy);
        let op = Op::BeginSecondFactor(pb::BeginSecondFactor {
            user_id: owner.user.to_bytes(),
            verified: proven.verified,
            sealed_secret: sealed.into(),
        });
        self.change_factor(owner, request, intent.fingerprint.clone(), op).await?;
        Ok(Begun { secret, address: proven.address })
    }

    /// Has log-ins want it, after a code was shown; gives the recovery codes.
    ///
    /// # Errors
    /// [`AccountError::WrongCode`], [`AccountError::NoSecondFactor`] where none was begun; see [`AccountError`].
    pub async fn confirm_second_factor(
        &self,
        owner: &Owner,
        code: &str,
        intent: &Intent,
    ) -> Result<Vec<String>, AccountError> {
        let record = self.second_factor_of(owner.user, owner.shard, Some(owner.proof.clone())).await?;
        if record.sealed_secret.is_empty() {
            return Err(AccountError::NoSecondFactor);
        }
        let address = self.address_of(owner).await?;
        let holder = Holder { user: owner.user, shard: owner.shard, address: &address, peer: owner.peer };
        // Recovery codes there are none yet.
        let Some(second_factor_proof::Shown::Step(step)) = self.checked(&holder, code, &record).await? else {
            return Err(AccountError::WrongCode);
        };
        let request = of_step(intent.request, "confirm second factor");
        let codes = self.recovery_codes(owner, intent, request);
        let op = Op::ConfirmSecondFactor(pb::ConfirmSecondFactor {
            user_id: owner.user.to_bytes(),
            sealed_secret: record.sealed_secret.clone(),
            step,
            recovery_hashes: hashes(owner.user, &codes),
        });
        let work = self.change_factor(owner, request, intent.fingerprint.clone(), op);
        self.audited_of_owner("second_factor.enable", vec![audit::user(owner.user)], work).await?;
        Ok(shown(&codes))
    }

    /// Makes other recovery codes; those of before are good for nothing.
    ///
    /// # Errors
    /// As [`Self::confirm_second_factor`].
    pub async fn replace_recovery_codes(
        &self,
        owner: &Owner,
        password: String,
        code: Option<&str>,
        intent: &Intent,
    ) -> Result<Vec<String>, AccountError> {
        let code = code.ok_or(AccountError::SecondFactorWanted)?;
        let proven = self.prove(owner, password).await?;
        let proof = self.owners_proof(owner, &proven.address, code).await?;
        let request = of_step(intent.request, "replace recovery codes");
        let codes = self.recovery_codes(owner, intent, request);
        let op = Op::ReplaceRecoveryCodes(pb::ReplaceRecoveryCodes {
            user_id: owner.user.to_bytes(),
            verified: proven.verified,
            second_factor: proof,
            recovery_hashes: hashes(owner.user, &codes),
        });
        let work = self.change_factor(owner, request, intent.fingerprint.clone(), op);
        self.audited_of_owner("second_factor.recovery_codes", vec![audit::user(owner.user)], work).await?;
        Ok(shown(&codes))
    }

    /// Has log-ins want a password alone again.
    ///
    /// # Errors
    /// [`AccountError::SecondFactorWanted`] without a code where there is one; see [`AccountError`].
    pub async fn remove_second_factor(
        &self,
        owner: &Owner,
        password: String,
        code: Option<&str>,
    ) -> Result<(), AccountError> {
        let proven = self.prove(owner, password).await?;
        let proof = match code {
            Some(code) => self.owners_proof(owner, &proven.address, code).await?,
            None => None,
        };
        let op = Op::RemoveSecondFactor(pb::RemoveSecondFactor {
            user_id: owner.user.to_bytes(),
            verified: proven.verified,
            second_factor: proof,
        });
        let request = RequestId(env::random(&*self.entropy));
        let work = self.change_factor(owner, request, Bytes::new(), op);
        self.audited_of_owner("second_factor.disable", vec![audit::user(owner.user)], work).await
    }

    /// What a log-in shows of it; `None` where the account has none, whatever was shown.
    pub(super) async fn prove_second_factor(
        &self,
        holder: &Holder<'_>,
        code: &str,
    ) -> Result<Option<pb::SecondFactorProof>, AccountError> {
        let record = self.second_factor_of(holder.user, holder.shard, None).await?;
        if record.confirmed_ms == 0 {
            return Ok(None);
        }
        let shown = self.checked(holder, code, &record).await?;
        Ok(Some(pb::SecondFactorProof { shown }))
    }

    /// Writes down that somebody came in by a recovery code: they are for when something was lost, or found by somebody else.
    pub(super) async fn note_recovery(&self, user: UserId) {
        let noted = self.audited_of_owner("second_factor.recover", vec![audit::user(user)], async { Ok(()) }).await;
        if let Err(error) = noted {
            tracing::warn!(%user, %error, "the audit log does not say that a recovery code was used");
        }
    }

    async fn owners_proof(
        &self,
        owner: &Owner,
        address: &str,
        code: &str,
    ) -> Result<Option<pb::SecondFactorProof>, AccountError> {
        let holder = Holder { user: owner.user, shard: owner.shard, address, peer: owner.peer };
        self.prove_second_factor(&holder, code).await
    }

    /// Finds what was shown right or wrong, and counts it.
    async fn checked(
        &self,
        holder: &Holder<'_>,
        code: &str,
        record: &pb::SecondFactorRecord,
    ) -> Result<Option<second_factor_proof::Shown>, AccountError> {
        // Under a name of its own: the right password makes nobody less of a stranger here.
        let counted = format!("{} second factor", holder.address);
        self.attempts.check(&counted, holder.peer).map_err(AccountError::TooManyAttempts)?;
        let attempt = self.attempts.begin(&counted, holder.peer).await.map_err(AccountError::TooManyAttempts)?;
        let found = match Shown::parse(code) {
            Some(Shown::Code(code)) => {
                let secret = self.sealer().open(holder.user, &record.sealed_secret);
                if secret.is_none() {
                    tracing::error!(user = %holder.user, "a second factor's secret does not open: it is of another cluster secret");
                }
                let step = secret.and_then(|secret| secret.step_of(code, self.clock.wall_ms()));
                step.map(second_factor_proof::Shown::Step)
            }
            Some(Shown::Recovery(code)) => {
                let hash = recovery_hash(holder.user, &code);
                let is_one = record.recovery_hashes.iter().any(|kept| **kept == hash[..]);
                is_one.then(|| second_factor_proof::Shown::RecoveryHash(Bytes::copy_from_slice(&hash)))
            }
            None => None,
        };
        if found.is_none() {
            metrics::counter!("postrider_rest_login_failures_total").increment(1);
            return Err(AccountError::WrongCode);
        }
        attempt.succeeded();
        Ok(found)
    }

    async fn second_factor_of(
        &self,
        user: UserId,
        shard: ShardId,
        session: Option<pb::SessionProof>,
    ) -> Result<pb::SecondFactorRecord, AccountError> {
        let query = query::Query::GetSecondFactor(pb::GetSecondFactor { user_id: user.to_bytes() });
        let answered = self.cluster.query(shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::SecondFactor(record)) => Ok(record),
            _ => Err(AccountError::Unexpected { step: "get second factor", answer: "another kind".to_owned() }),
        }
    }

    async fn address_of(&self, owner: &Owner) -> Result<String, AccountError> {
        let query = query::Query::GetAccount(pb::GetAccount { user_id: owner.user.to_bytes() });
        let session = Some(owner.proof.clone());
        let answered = self.cluster.query(owner.shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::Account(account)) => Ok(account.address),
            _ => Err(AccountError::Unexpected { step: "get account", answer: "another kind".to_owned() }),
        }
    }

    async fn change_factor(
        &self,
        owner: &Owner,
        request: RequestId,
        fingerprint: Bytes,
        op: Op,
    ) -> Result<(), AccountError> {
        match self.step(owner.shard, Some(owner.proof.clone()), request, fingerprint, op).await? {
            Ok(_) => Ok(()),
            Err(refused) => Err(match refused.refusal() {
                Refusal::PasswordChanged => AccountError::PasswordChanged,
                Refusal::FingerprintMismatch => AccountError::KeyMismatch,
                Refusal::AccountSuspended => AccountError::Suspended,
                Refusal::Conflict => AccountError::SecondFactorThere,
                Refusal::UnknownSecondFactor => AccountError::NoSecondFactor,
                Refusal::SecondFactorWanted => AccountError::SecondFactorWanted,
                Refusal::SecondFactorSpent => AccountError::WrongCode,
                _ => unexpected("change second factor", &refused),
            }),
        }
    }

    fn sealer(&self) -> SecretSealer {
        SecretSealer::new(&self.token_key)
    }

    fn recovery_codes(&self, owner: &Owner, intent: &Intent, request: RequestId) -> Vec<String> {
        let numbers = (0..RECOVERY_CODES_MAX).filter_map(|number| u8::try_from(number).ok());
        numbers.map(|number| recovery_code(&self.bits::<RECOVERY_BYTES>(owner, intent, request, number))).collect()
    }

    /// Random bits; those of a repeatable request are the same when it is asked again.
    fn bits<const N: usize>(&self, owner: &Owner, intent: &Intent, request: RequestId, number: u8) -> [u8; N] {
        if !intent.repeatable {
            return env::random(&*self.entropy);
        }
        let mut hasher = blake3::Hasher::new_derive_key("postrider 2026 second factor");
        hasher.update(&self.token_key);
        hasher.update(&owner.user.0);
        hasher.update(&request.0);
        hasher.update(&[number]);
        let mut bits = [0; N];
        hasher.finalize_xof().fill(&mut bits);
        bits
    }
}

fn hashes(user: UserId, codes: &[String]) -> Vec<Bytes> {
    codes.iter().map(|code| Bytes::copy_from_slice(&recovery_hash(user, code))).collect()
}

fn shown(codes: &[String]) -> Vec<String> {
    codes.iter().map(|code| grouped(code)).collect()
}
