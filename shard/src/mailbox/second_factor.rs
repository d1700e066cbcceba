//! What an account's owner shows beside the password: one-time passwords (RFC 6238), and recovery codes for when their secret is lost.
//!
//! Frontends have the key that the secret is sealed under, and see codes; a shard sees neither. It keeps what must not happen twice: a code
//! opens one session, and so does a recovery code.
//!
//! Invariant: nothing that was shown is taken a second time, whoever shows it, and wherever (RFC 6238 section 5.2).

use std::collections::BTreeSet;

use bytes::Bytes;
use postrider_api::id::{ModSeq, UserId};
use postrider_api::limit::{RECOVERY_CODES_MAX, TOTP_STEP_MS, TOTP_STEPS_APART_MAX};
use postrider_api::pb::second_factor_proof::Shown;
use postrider_api::pb::{Refusal, SecondFactorProof, SecondFactorRecord};

use crate::key::Key;
use crate::store::{Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// A hash, bytes.
const HASH_BYTES: usize = 32;

/// The user's, confirmed or not.
pub(crate) fn of(reader: &impl Reader, user: UserId) -> Result<Option<SecondFactorRecord>, Broken> {
    row::get(reader, Key::SecondFactor(user))
}

/// The user's, if log-ins want it.
pub(crate) fn confirmed(reader: &impl Reader, user: UserId) -> Result<Option<SecondFactorRecord>, Broken> {
    Ok(of(reader, user)?.filter(|record| record.confirmed_ms > 0))
}

/// Writes it, and tells the account's followers.
pub(crate) fn keep(turn: &mut Turn<'_, impl Rows>, user: UserId, record: &SecondFactorRecord) {
    row::put(turn.rows, Key::SecondFactor(user), record);
    tail::push(turn, Object::Account(user), Verb::Updated, ModSeq(0));
}

/// Takes what was shown, if the account wants something shown. Nothing may be refused behind it: what is taken is spent.
pub(crate) fn pass(
    turn: &mut Turn<'_, impl Rows>,
    user: UserId,
    proof: Option<&SecondFactorProof>,
) -> Result<(), Stop> {
    let Some(record) = confirmed(turn.rows, user)? else { return Ok(()) };
    let record = spent(record, turn.now, proof)?;
    row::put(turn.rows, Key::SecondFactor(user), &record);
    Ok(())
}

/// The record once this was shown.
pub(crate) fn spent(
    mut record: SecondFactorRecord,
    now_ms: i64,
    proof: Option<&SecondFactorProof>,
) -> Result<SecondFactorRecord, Stop> {
    match proof.and_then(|proof| proof.shown.as_ref()) {
        None => Err(refuse(Refusal::SecondFactorWanted, "second_factor: the account has one, and none was shown")),
        Some(Shown::Step(step)) => {
            check_step(*step, now_ms)?;
            if *step <= record.last_step {
                return Err(refuse(Refusal::SecondFactorSpent, "second_factor.step: was taken, or a later one"));
            }
            record.last_step = *step;
            Ok(record)
        }
        Some(Shown::RecoveryHash(hash)) => {
            let before = record.recovery_hashes.len();
            record.recovery_hashes.retain(|kept| kept != hash);
            match record.recovery_hashes.len() < before {
                true => Ok(record),
                false => Err(refuse(Refusal::SecondFactorSpent, "second_factor.recovery_hash: was taken, or is none")),
            }
        }
    }
}

/// Refuses a step that is not of these minutes: one of the far future would keep the owner out until then.
pub(crate) fn check_step(step: u64, now_ms: i64) -> Result<(), Stop> {
    let now = u64::try_from(now_ms / TOTP_STEP_MS).unwrap_or(0);
    match step.abs_diff(now) <= TOTP_STEPS_APART_MAX {
        true => Ok(()),
        false => Err(malformed(format!("step: more than {TOTP_STEPS_APART_MAX} steps from now"))),
    }
}

/// Refuses what no frontend makes of recovery codes.
pub(crate) fn check_recovery_hashes(hashes: &[Bytes]) -> Result<(), Stop> {
    let different: BTreeSet<_> = hashes.iter().collect();
    if hashes.is_empty() || hashes.len() > RECOVERY_CODES_MAX || different.len() < hashes.len() {
        return Err(malformed(format!("recovery_hashes: 1 to {RECOVERY_CODES_MAX} different ones")));
    }
    if hashes.iter().any(|hash| hash.len() != HASH_BYTES) {
        return Err(malformed(format!("recovery_hashes: {HASH_BYTES} bytes each are wanted")));
    }
    Ok(())
}
