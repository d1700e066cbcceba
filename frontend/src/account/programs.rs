//! Programs that act for an account by an application password: SMTP submission now, other protocols later.
//!
//! Invariant: an address that nobody has, a password that is wrong and one that was revoked differ neither in the answer nor in the
//! calls and the hashing behind it. The account's own password opens nothing here.
//! Invariant: attempts are counted with those of log-ins: whoever guesses gets no more guesses by another protocol.

use std::net::IpAddr;
use std::num::NonZeroU32;

use bytes::Bytes;
use postrider_api::address::Address;
use postrider_api::env;
use postrider_api::id::{AppPasswordId, RequestId, ShardId, UserId};
use postrider_api::limit::{APP_PASSWORD_USE_MS, APP_PASSWORDS_MAX};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AppScope, MailCategory};

use crate::account::app_passwords::SALT_BYTES;
use crate::account::fair_queue::Standing;
use crate::account::scram::{ITERATIONS, KEY_BYTES, Keys};
use crate::account::{AccountError, Accounts, STEP_MAX, password};
use crate::network::Network;

/// A program that may act for an account.
#[derive(Debug, Clone)]
pub struct Program {
    /// The account.
    pub user: UserId,
    /// Its shard.
    pub shard: ShardId,
    /// Its address, in canonical form.
    pub address: String,
    /// What it sends is where no header field says it.
    pub category: MailCategory,
    app_password: AppPasswordId,
    scope: AppScope,
}

/// A SCRAM exchange between its two steps. Not `Debug`: it holds keys.
pub struct Scram {
    /// As the attempt is counted.
    counted: String,
    found: Option<Found>,
    /// What the server says of the password.
    pub salt: Vec<u8>,
    /// The same.
    pub iterations: u32,
    scope: AppScope,
}

struct Found {
    user: UserId,
    shard: ShardId,
    credentials: pb::Credentials,
}

impl Program {
    /// For a session that no cluster stands behind.
    pub(crate) fn of_test(user: UserId, address: &str) -> Self {
        Self {
            user,
            shard: ShardId::MAILBOX_FIRST,
            address: address.to_owned(),
            category: MailCategory::Personal,
            app_password: AppPasswordId([0; 16]),
            scope: AppScope::SmtpSubmission,
        }
    }
}

impl Scram {
    /// The same: it lets nobody in.
    pub(crate) fn of_nobody(name: &str) -> Self {
        let (salt, iterations) = (vec![0; SALT_BYTES], ITERATIONS.get());
        Self { counted: name.to_owned(), found: None, salt, iterations, scope: AppScope::SmtpSubmission }
    }
}

impl Accounts {
    /// Lets a program in that sends the application password itself.
    ///
    /// # Errors
    /// [`AccountError::WrongCredentials`] for an unknown address as for a wrong password; see [`AccountError`].
    pub async fn log_in_program(
        &self,
        name: &str,
        password: String,
        scope: AppScope,
        peer: IpAddr,
    ) -> Result<Program, AccountError> {
        let parsed = Address::parse(name).ok();
        let counted = counted(name, parsed.as_ref());
        let is_known = self.attempts.check(counted, peer).map_err(AccountError::TooManyAttempts)?;
        let found = self.find_credentials(parsed.as_ref(), scope).await?;
        let (salt, iterations) = self.salt_for(counted, found.as_ref());
        let standing = if is_known { Standing::Known } else { Standing::Stranger };
        let turn = self.passwords.turn_to_log_in(Network::of(peer), standing).await?;
        // Again, and counted before it is compared: see `log_in`.
        let attempt = self.attempts.begin(counted, peer).await.map_err(AccountError::TooManyAttempts)?;
        let password = if password.len() > password::PASSWORD_BYTES_MAX { String::new() } else { password };
        let rounds = NonZeroU32::new(iterations).unwrap_or(ITERATIONS);
        let (sent, _turn) = turn.run(move || Keys::of(password.as_bytes(), &salt, rounds)).await?;
        match self.let_in(found, scope, |keys| keys.is_same(&sent)) {
            Some((let_in, _)) => {
                attempt.succeeded();
                let_in
            }
            None => Err(wrong()),
        }
    }

    /// Begins a SCRAM exchange: says nothing of whether somebody has the address.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn begin_scram(&self, name: &str, scope: AppScope, peer: IpAddr) -> Result<Scram, AccountError> {
        let parsed = Address::parse(name).ok();
        let counted = counted(name, parsed.as_ref()).to_owned();
        self.attempts.check(&counted, peer).map_err(AccountError::TooManyAttempts)?;
        let found = self.find_credentials(parsed.as_ref(), scope).await?;
        let (salt, iterations) = self.salt_for(&counted, found.as_ref());
        Ok(Scram { counted, found, salt, iterations, scope })
    }

    /// Ends it: lets the program in whose `proof` is right for what was `said`, and gives the server's signature.
    ///
    /// # Errors
    /// As [`Self::log_in_program`].
    pub async fn end_scram(
        &self,
        scram: Scram,
        said: &[u8],
        proof: &[u8; KEY_BYTES],
        peer: IpAddr,
    ) -> Result<(Program, [u8; KEY_BYTES]), AccountError> {
        let attempt = self.attempts.begin(&scram.counted, peer).await.map_err(AccountError::TooManyAttempts)?;
        match self.let_in(scram.found, scram.scope, |keys| keys.is_proven(said, proof)) {
            Some((let_in, keys)) => {
                attempt.succeeded();
                Ok((let_in?, keys.signature(said)))
            }
            None => Err(wrong()),
        }
    }

    /// Whether a program that was let in may still act: its password was not revoked, nor its account suspended or deleted.
    ///
    /// # Errors
    /// When the account's shard does not say.
    pub async fn is_still_in(&self, program: &Program) -> Result<bool, AccountError> {
        let credentials = self.ask_credentials(program.user, program.shard, program.scope as u32).await?;
        Ok(credentials.is_some_and(|credentials| {
            let id = program.app_password.to_bytes();
            !credentials.suspended && credentials.app_passwords.iter().any(|line| line.app_password_id == id)
        }))
    }

    /// Which of the account's passwords is the one that is meant. Only who has it is told that the account is suspended.
    fn let_in(
        &self,
        found: Option<Found>,
        scope: AppScope,
        is_meant: impl Fn(&Keys) -> bool,
    ) -> Option<(Result<Program, AccountError>, Keys)> {
        let lines = found.as_ref().map_or(&[][..], |found| found.credentials.app_passwords.as_slice());
        // As many comparisons for everybody as for an account with as many passwords as it may have, whichever of them it is.
        let nobody = Keys { stored: [0; KEY_BYTES], server: [0; KEY_BYTES] };
        let mut meant = None;
        for place in 0..lines.len().max(APP_PASSWORDS_MAX) {
            let keys = lines.get(place).and_then(|line| Keys::of_pb(line.record.as_ref()?.keys.as_ref()?));
            if is_meant(keys.as_ref().unwrap_or(&nobody)) {
                meant = meant.or(keys.map(|keys| (place, keys)));
            }
        }
        let (place, keys) = meant?;
        let Found { user, shard, mut credentials } = found?;
        let line = credentials.app_passwords.swap_remove(place);
        let (id, record) = (AppPasswordId::try_from(&line.app_password_id).ok()?, line.record?);
        if credentials.suspended {
            return Some((Err(AccountError::Suspended), keys));
        }
        if self.clock.wall_ms().saturating_sub(record.last_used_ms) >= APP_PASSWORD_USE_MS {
            self.note_use(user, shard, id);
        }
        let category = record.category();
        Some((Ok(Program { user, shard, address: credentials.address, category, app_password: id, scope }), keys))
    }

    /// In its own time: nobody waits for it, and where it fails the next log-in notes it.
    fn note_use(&self, user: UserId, shard: ShardId, id: AppPasswordId) {
        let used = pb::UseAppPassword { user_id: user.to_bytes(), app_password_id: id.to_bytes() };
        let command = pb::Command {
            request: RequestId(env::random(&*self.entropy)).to_bytes(),
            entropy: Bytes::copy_from_slice(&env::random::<16>(&*self.entropy)),
            op: Some(Op::UseAppPassword(used)),
            ..pb::Command::default()
        };
        let cluster = std::sync::Arc::clone(&self.cluster);
        tokio::spawn(async move {
            if let Err(error) = cluster.propose(shard, None, command, STEP_MAX).await {
                tracing::debug!(%user, %error, "the use of an application password was not noted");
            }
        });
    }

    /// The same calls for an address that nobody has.
    async fn find_credentials(
        &self,
        address: Option<&Address>,
        scope: AppScope,
    ) -> Result<Option<Found>, AccountError> {
        let Some(address) = address else { return Ok(None) };
        let Some((user, shard)) = self.whereabouts(address).await? else { return Ok(None) };
        let credentials = self.ask_credentials(user, shard, scope as u32).await?;
        Ok(credentials.map(|credentials| Found { user, shard, credentials }))
    }

    /// The salt and the iterations of the account's passwords, or those that it would have.
    fn salt_for(&self, counted: &str, found: Option<&Found>) -> (Vec<u8>, u32) {
        let first = self.first_salt(counted);
        let lines = found.iter().flat_map(|found| &found.credentials.app_passwords);
        let keys =
            lines.filter_map(|line| line.record.as_ref()?.keys.as_ref()).find(|keys| keys.salt.len() == SALT_BYTES);
        match keys {
            Some(keys) => (keys.salt.to_vec(), keys.iterations),
            None => (first.to_vec(), ITERATIONS.get()),
        }
    }
}

/// What is no address is counted by what was written, shortened so that nothing large is hashed.
fn counted<'a>(name: &'a str, parsed: Option<&'a Address>) -> &'a str {
    parsed.map_or_else(|| name.get(..64).unwrap_or("?"), Address::as_str)
}

fn wrong() -> AccountError {
    metrics::counter!("postrider_app_password_failures_total").increment(1);
    AccountError::WrongCredentials
}
