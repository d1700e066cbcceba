//! Application passwords: made for one program, shown once, revoked alone. A program never holds the account's own password.
//!
//! Invariant: the password leaves this module once, to its owner; what the shard gets are keys that do not tell it.

use bytes::Bytes;
use postrider_api::address::Address;
use postrider_api::env::{self, Entropy};
use postrider_api::id::{AppPasswordId, RequestId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AppScope, MailCategory, Refusal, answer, outcome, query};
use postrider_api::request::of_step;
use postrider_router::ReadMode;

use crate::account::owner::Owner;
use crate::account::scram::{ITERATIONS, Keys};
use crate::account::{AccountError, Accounts, Intent, STEP_MAX, unexpected, unexpected_result};

/// Letters of a password: 130 random bits.
const LETTERS: usize = 26;
/// Letters between two hyphens; what remains goes to the last group.
const GROUP_LETTERS: usize = 5;
const GROUPS: usize = LETTERS / GROUP_LETTERS;
/// RFC 4648 section 6, in lower case: no two letters of it look alike in most typefaces.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// A salt, bytes.
pub(super) const SALT_BYTES: usize = 16;

/// A password that was just made. Not `Debug`: it must not get into a log.
pub struct Made {
    /// Says which.
    pub id: AppPasswordId,
    /// Milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// To be shown once.
    pub password: String,
}

/// An application password as its owner sees it.
pub struct AppPassword {
    /// Says which.
    pub id: AppPasswordId,
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<AppScope>,
    /// What is sent by it is where no header field says it.
    pub category: MailCategory,
    /// Milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// The same; `None`: never used.
    pub last_used_ms: Option<i64>,
}

impl Accounts {
    /// Makes one. Asked again under the same intent, it is the same one.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn create_app_password(
        &self,
        owner: &Owner,
        name: String,
        scopes: &[AppScope],
        category: MailCategory,
        intent: &Intent,
    ) -> Result<Made, AccountError> {
        let request = of_step(intent.request, "create app password");
        let password = match intent.repeatable {
            true => self.derived(owner, request),
            false => random(&*self.entropy),
        };
        let salt = self.salt_of(owner).await?;
        let (salt, keys) = self.derive_keys(password.clone(), salt).await?;
        let create = pb::CreateAppPassword {
            user_id: owner.user.to_bytes(),
            name,
            scopes: bits(scopes),
            keys: Some(keys.to_pb(&salt, ITERATIONS)),
            category: category.into(),
        };
        let (session, fingerprint) = (Some(owner.proof.clone()), intent.fingerprint.clone());
        match self.step(owner.shard, session, request, fingerprint, Op::CreateAppPassword(create)).await? {
            Ok(outcome::Result::AppPasswordMade(made)) => {
                let id = AppPasswordId::try_from(&made.app_password_id).map_err(|error| AccountError::Unexpected {
                    step: "create app password",
                    answer: error.to_string(),
                })?;
                Ok(Made { id, created_ms: made.created_ms, password })
            }
            Ok(_) => Err(unexpected_result("create app password")),
            Err(refused) => Err(match refused.refusal() {
                Refusal::AppPasswordsTooMany => AccountError::AppPasswordsTooMany,
                Refusal::FingerprintMismatch => AccountError::KeyMismatch,
                Refusal::AccountSuspended => AccountError::Suspended,
                _ => unexpected("create app password", &refused),
            }),
        }
    }

    /// All of the account's, the newest first.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn app_passwords(&self, owner: &Owner) -> Result<Vec<AppPassword>, AccountError> {
        let query = query::Query::ListAppPasswords(pb::ListAppPasswords { user_id: owner.user.to_bytes() });
        let session = Some(owner.proof.clone());
        let answered = self.cluster.query(owner.shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::AppPasswords(all)) => Ok(all.app_passwords.iter().filter_map(listed).collect()),
            _ => Err(AccountError::Unexpected { step: "list app passwords", answer: "another kind".to_owned() }),
        }
    }

    /// Revokes one: nobody logs in with it from the answer on.
    ///
    /// # Errors
    /// [`AccountError::NoAppPassword`] where there is none of this id; see [`AccountError`].
    pub async fn delete_app_password(&self, owner: &Owner, id: AppPasswordId) -> Result<(), AccountError> {
        let request = RequestId(env::random(&*self.entropy));
        let delete = pb::DeleteAppPassword { user_id: owner.user.to_bytes(), app_password_id: id.to_bytes() };
        let session = Some(owner.proof.clone());
        match self.step(owner.shard, session, request, Bytes::new(), Op::DeleteAppPassword(delete)).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.refusal() == Refusal::UnknownAppPassword => Err(AccountError::NoAppPassword),
            Err(refused) => Err(unexpected("delete app password", &refused)),
        }
    }

    /// The salt of all of the account's: that of those which it has.
    async fn salt_of(&self, owner: &Owner) -> Result<Vec<u8>, AccountError> {
        let credentials = self.ask_credentials(owner.user, owner.shard, 0).await?;
        let credentials = credentials.ok_or(AccountError::NoSession)?;
        let existing = credentials.app_passwords.iter().find_map(|line| line.record.as_ref()?.keys.as_ref());
        Ok(match existing {
            Some(keys) => keys.salt.to_vec(),
            None => self.first_salt(&credentials.address).to_vec(),
        })
    }

    /// The salt that an address has before it has an application password, whether or not somebody has the address: a server
    /// names the salt to whoever asks.
    pub(super) fn first_salt(&self, address: &str) -> [u8; SALT_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("postrider 2026 application password salt");
        hasher.update(&self.token_key);
        // One address has one form, however somebody writes it.
        let canonical = Address::parse(address);
        hasher.update(canonical.as_ref().map_or(address, Address::as_str).as_bytes());
        let mut salt = [0; SALT_BYTES];
        hasher.finalize_xof().fill(&mut salt);
        salt
    }

    /// Away from the threads that serve others.
    async fn derive_keys(&self, password: String, salt: Vec<u8>) -> Result<(Vec<u8>, Keys), AccountError> {
        let deriving = tokio::task::spawn_blocking(move || {
            let keys = Keys::of(password.as_bytes(), &salt, ITERATIONS);
            (salt, keys)
        });
        deriving
            .await
            .map_err(|_| AccountError::Unexpected { step: "derive keys", answer: "the task ended early".to_owned() })
    }

    /// The one password of a repeatable request: asked again, its owner gets the same.
    fn derived(&self, owner: &Owner, request: RequestId) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("postrider 2026 application password");
        hasher.update(&self.token_key);
        hasher.update(&owner.user.0);
        hasher.update(&request.0);
        let mut bits = [0; LETTERS];
        hasher.finalize_xof().fill(&mut bits);
        text(&bits)
    }

    /// What lets programs in to an account; `None`: there is no such account.
    pub(super) async fn ask_credentials(
        &self,
        user: postrider_api::id::UserId,
        shard: postrider_api::id::ShardId,
        scopes: u32,
    ) -> Result<Option<pb::Credentials>, AccountError> {
        let query = query::Query::GetCredentials(pb::GetCredentials { user_id: user.to_bytes(), scopes });
        let answered = self.cluster.query(shard, None, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        match answered.answer.answer {
            Some(answer::Answer::Credentials(credentials)) => Ok(Some(credentials)),
            Some(answer::Answer::NotFound(_)) => Ok(None),
            _ => Err(AccountError::Unexpected { step: "get credentials", answer: "another kind".to_owned() }),
        }
    }
}

/// Scopes as rows have them.
fn bits(scopes: &[AppScope]) -> u32 {
    scopes.iter().fold(0, |bits, scope| bits | *scope as u32)
}

fn scopes(bits: u32) -> Vec<AppScope> {
    [AppScope::SmtpSubmission, AppScope::Imap].into_iter().filter(|scope| bits & *scope as u32 != 0).collect()
}

/// `None` for a line without an id or a record, which no shard writes.
fn listed(line: &pb::AppPassword) -> Option<AppPassword> {
    let record = line.record.as_ref()?;
    Some(AppPassword {
        id: AppPasswordId::try_from(&line.app_password_id).ok()?,
        name: record.name.clone(),
        scopes: scopes(record.scopes),
        category: record.category(),
        created_ms: record.created_ms,
        last_used_ms: (record.last_used_ms > 0).then_some(record.last_used_ms),
    })
}

fn random(entropy: &dyn Entropy) -> String {
    text(&env::random::<LETTERS>(entropy))
}

/// Five bits of each byte are a letter.
fn text(random: &[u8; LETTERS]) -> String {
    let mut text = String::with_capacity(LETTERS + GROUPS);
    for (place, byte) in random.iter().enumerate() {
        if place > 0 && place % GROUP_LETTERS == 0 && place / GROUP_LETTERS < GROUPS {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_26_letters_in_groups() {
        let letters: [u8; LETTERS] = std::array::from_fn(|n| n as u8);
        assert_eq!(text(&letters), "abcde-fghij-klmno-pqrst-uvwxyz");
        assert_eq!(text(&[255; LETTERS]), "77777-77777-77777-77777-777777");
    }
}
