//! Passwords: their rules, and their argon2id hashes in bounded memory.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use postrider_api::env::{self, Entropy};
use thiserror::Error;

use crate::account::fair_queue::{self, FairQueue, Standing};
use crate::network::Network;

/// Shortest password, characters (NIST SP 800-63B section 5.1.1.2: at least 8).
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Memory of one hash, KiB. OWASP's password storage sheet: 19 MiB with two passes.
pub const ARGON2_KIB: u32 = 19 * 1024;
/// Passes over that memory.
pub const ARGON2_PASSES: u32 = 2;
/// Lanes of that memory.
pub const ARGON2_LANES: u32 = 1;
/// Log-ins that hash at once: 4 x 19 MiB is what a flood of them may take.
pub const LOG_INS_HASHING_MAX: usize = 4;
/// Log-ins that may wait for one of them.
pub const LOG_INS_WAITING_MAX: usize = 512;
/// Sign-ups that hash at once. One: a flood of them takes at most a fifth of the hashing from those who have an account.
pub const SIGN_UPS_HASHING_MAX: usize = 1;
/// Sign-ups that may wait for it.
pub const SIGN_UPS_WAITING_MAX: usize = 64;
/// How long one of them waits at most.
pub const HASH_WAIT_MAX: Duration = Duration::from_secs(10);

/// What one hash costs.
#[derive(Debug, Clone, Copy)]
pub struct PasswordCost {
    /// Memory, KiB.
    pub kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self { kib: ARGON2_KIB, passes: ARGON2_PASSES, lanes: ARGON2_LANES }
    }
}

/// Which rule a new password breaks.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PasswordRule {
    /// Shorter than [`PASSWORD_CHARS_MIN`].
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Longer than [`PASSWORD_BYTES_MAX`].
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

/// Checks the rules.
///
/// # Errors
/// The rule that is broken.
pub fn check_rules(password: &str) -> Result<(), PasswordRule> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordRule::TooLong);
    }
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(PasswordRule::TooShort);
    }
    Ok(())
}

/// The PHC string of a new password, hashed where it is called: for a program that hashes one, not for a server.
///
/// # Errors
/// When the cost of this build is outside of what argon2 allows.
pub fn hash_once(password: &str, entropy: &dyn Entropy) -> Result<String, argon2::Error> {
    let PasswordCost { kib, passes, lanes } = PasswordCost::default();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(kib, passes, lanes, None)?);
    Ok(hash(&argon2, password.as_bytes(), &env::random::<16>(entropy)))
}

/// Too many hashes run and wait.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("too many log-ins or sign-ups at once")]
pub struct HashBusy;

/// Hashes and verifies passwords.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// Of a password that nobody has.
    nobody: Arc<str>,
    log_ins: FairQueue,
    sign_ups: FairQueue,
}

impl Passwords {
    pub(super) fn new(cost: PasswordCost, entropy: &dyn Entropy) -> Result<Self, argon2::Error> {
        let params = Params::new(cost.kib, cost.passes, cost.lanes, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, &env::random::<32>(entropy), &env::random::<16>(entropy));
        Ok(Self {
            argon2,
            nobody: nobody.into(),
            log_ins: FairQueue::new(LOG_INS_HASHING_MAX, LOG_INS_WAITING_MAX),
            sign_ups: FairQueue::new(SIGN_UPS_HASHING_MAX, SIGN_UPS_WAITING_MAX),
        })
    }

    /// Waits for a turn to compare a password, in rotation with other networks.
    ///
    /// # Errors
    /// When too many wait, or the turn does not come within [`HASH_WAIT_MAX`].
    pub(super) async fn turn_to_log_in(&self, network: Network, standing: Standing) -> Result<Turn<'_>, HashBusy> {
        Ok(Turn { passwords: self, turn: turn(&self.log_ins, network, standing).await? })
    }

    /// Waits for a turn to hash a new password, among sign-ups only.
    ///
    /// # Errors
    /// As [`Self::turn_to_log_in`].
    pub(super) async fn turn_to_sign_up(&self, network: Network, standing: Standing) -> Result<Turn<'_>, HashBusy> {
        Ok(Turn { passwords: self, turn: turn(&self.sign_ups, network, standing).await? })
    }
}

async fn turn(queue: &FairQueue, network: Network, standing: Standing) -> Result<fair_queue::Turn, HashBusy> {
    match tokio::time::timeout(HASH_WAIT_MAX, queue.turn(network, standing)).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(HashBusy),
    }
}

/// The right to hash once.
pub(super) struct Turn<'a> {
    passwords: &'a Passwords,
    turn: fair_queue::Turn,
}

impl Turn<'_> {
    /// The PHC string of a new password.
    pub(super) async fn hash(self, password: String, salt: [u8; 16]) -> Result<String, HashBusy> {
        let argon2 = self.passwords.argon2.clone();
        let (hash, _turn) = self.run(move || hash(&argon2, password.as_bytes(), &salt)).await?;
        Ok(hash)
    }

    /// Whether the password is the one that was hashed, and the turn, to be kept until the attempt is counted for what it was: the
    /// next one begins when it is dropped. Without a hash it works as long, and the answer is no.
    pub(super) async fn verify(
        self,
        password: String,
        stored: Option<String>,
    ) -> Result<(bool, fair_queue::Turn), HashBusy> {
        let argon2 = self.passwords.argon2.clone();
        let nobody = Arc::clone(&self.passwords.nobody);
        self.run(move || {
            let known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(&nobody);
            // A row that holds no PHC string opens for nobody.
            let matches = PasswordHash::new(stored)
                .is_ok_and(|stored| argon2.verify_password(password.as_bytes(), &stored).is_ok());
            known && matches
        })
        .await
    }

    /// The turn goes with the work: a caller who gives up does not make room while the memory is in use.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, fair_queue::Turn), HashBusy> {
        let turn = self.turn;
        let task = tokio::task::spawn_blocking(move || (work(), turn));
        // The task neither panics nor is it cancelled, except while the process ends.
        task.await.map_err(|_| HashBusy)
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8; 16]) -> String {
    argon2
        .hash_password_with_salt(password, salt)
        .expect("argon2 takes passwords below 4 GiB and salts of 16 bytes, and its parameters were checked")
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use postrider_api::env::SystemEntropy;

    use super::*;

    fn here() -> Network {
        Network::of(IpAddr::from([192, 0, 2, 1]))
    }

    fn cheap() -> Passwords {
        Passwords::new(PasswordCost { kib: 64, passes: 1, lanes: 1 }, &SystemEntropy).unwrap()
    }

    #[test]
    fn rules() {
        assert_eq!(check_rules("1234567"), Err(PasswordRule::TooShort));
        assert_eq!(check_rules("가나다라마바사"), Err(PasswordRule::TooShort));
        assert_eq!(check_rules("12345678"), Ok(()));
        assert_eq!(check_rules(&"x".repeat(256)), Ok(()));
        assert_eq!(check_rules(&"x".repeat(257)), Err(PasswordRule::TooLong));
    }

    #[tokio::test]
    async fn hash_and_verify() {
        let passwords = cheap();
        let turn = passwords.turn_to_sign_up(here(), Standing::Stranger).await.unwrap();
        let hash = turn.hash("correct horse".to_owned(), [1; 16]).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        let verify = async |password: &str, stored: Option<&str>| {
            let turn = passwords.turn_to_log_in(here(), Standing::Stranger).await.unwrap();
            turn.verify(password.to_owned(), stored.map(str::to_owned)).await.unwrap().0
        };
        assert!(verify("correct horse", Some(&hash)).await);
        assert!(!verify("correct hors", Some(&hash)).await);
        assert!(!verify("correct horse", None).await);
        assert!(!verify("correct horse", Some("no PHC string")).await);
    }

    #[tokio::test]
    async fn the_crowd_is_bounded() {
        let passwords = cheap();
        let mut turns = Vec::new();
        for _ in 0..LOG_INS_HASHING_MAX {
            turns.push(passwords.turn_to_log_in(here(), Standing::Stranger).await.unwrap());
        }
        let crowd = LOG_INS_WAITING_MAX + 10;
        let waiting =
            (0..crowd).map(|_| async { passwords.turn_to_log_in(here(), Standing::Stranger).await.map(drop) });
        let all = futures::future::join_all(waiting);
        let release = async {
            // Everybody has asked by the time that this future is polled again.
            tokio::task::yield_now().await;
            drop(turns);
        };
        let (answers, ()) = futures::join!(all, release);
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 10);
    }

    #[tokio::test]
    async fn sign_ups_do_not_stand_in_the_way_of_log_ins() {
        let passwords = cheap();
        let hashing = passwords.turn_to_sign_up(here(), Standing::Stranger).await.unwrap();
        let waiting = (0..SIGN_UPS_WAITING_MAX).map(|_| passwords.turn_to_sign_up(here(), Standing::Stranger));
        let mut waiting = futures::future::join_all(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(passwords.turn_to_sign_up(here(), Standing::Stranger).await.is_err(), "the queue is full");
        // Nobody has to leave for a log-in to come first.
        let log_in = std::pin::pin!(passwords.turn_to_log_in(here(), Standing::Stranger));
        assert!(futures::poll!(log_in).is_ready());
        drop(hashing);
    }
}
