//! Signing up: three commands in two shards. `Reserve` (directory), `Create` (mailbox), `Activate` (directory).
//!
//! Invariant: each step's request id is derived from the request's, so that whoever asks again, at any frontend, resumes
//! where it stopped and gets the first answer; an address is never active before its mailbox exists.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use postrider_api::address::{self, Address};
use postrider_api::audit;
use postrider_api::env;
use postrider_api::id::{ShardId, UserId, ZoneId};
use postrider_api::limit::{NAME_BYTES_MAX, QUOTA_BYTES_DEFAULT};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Outcome;
use postrider_api::pb::{AddressStatus, Refusal};
use postrider_api::request;
use postrider_outgoing::return_path::is_reserved;
use postrider_router::RouteError;

use crate::account::fair_queue::Standing;
use crate::account::{AccountError, Accounts, Intent, STEP_MAX, password, unexpected, unexpected_result};
use crate::network::Network;

/// Administrators are not counted by where they are: they wait in one line.
const ADMINISTRATOR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What somebody signs up with.
pub struct SignUp {
    /// In any case; kept in canonical form.
    pub address: String,
    /// Plain.
    pub password: String,
    /// What others see beside the address.
    pub name: String,
}

/// A new account.
#[derive(Debug)]
pub struct SignedUp {
    /// The account's id.
    pub user: UserId,
    /// The canonical address.
    pub address: String,
    /// Where the mailbox is at home.
    pub region: String,
}

impl Accounts {
    /// Makes an account for an administrator, and says so in the audit log.
    ///
    /// # Errors
    /// As [`Self::sign_up`].
    pub async fn sign_up_by_administrator(&self, sign_up: SignUp, intent: &Intent) -> Result<SignedUp, AccountError> {
        let address = check_sign_up(&sign_up)?;
        self.audited("account.create", vec![audit::address(&address)], self.sign_up(sign_up, intent, None)).await
    }

    /// Makes an account. `peer` is counted, unless an administrator asks (`None`).
    ///
    /// # Errors
    /// See [`AccountError`]; after [`AccountError::Route`] the same intent may be asked again.
    pub async fn sign_up(
        &self,
        sign_up: SignUp,
        intent: &Intent,
        peer: Option<IpAddr>,
    ) -> Result<SignedUp, AccountError> {
        let address = check_sign_up(&sign_up)?;
        if let Some(peer) = peer {
            self.attempts.take_sign_up(peer).await.map_err(AccountError::TooManyAttempts)?;
        }
        let zone = self.cluster.zone_of_domain(address.domain(), STEP_MAX).await?;
        let zone = zone.ok_or_else(|| AccountError::DomainOutside { domain: address.domain().to_owned() })?;
        let directory = self.cluster.directory_shard(zone, address.slot()).ok_or(RouteError::UnknownShard)?;
        // Looked up before anything is hashed: whoever tries names costs a read. Whoever asks again after his sign-up succeeded
        // finds his own address taken, and only the directory shard can tell that it is his.
        let resumed = match self.is_taken(&address).await? {
            true if !intent.repeatable => return Err(AccountError::AddressTaken),
            true => Some(self.reserve(directory, zone, &address, intent).await?),
            false => None,
        };
        // Hashed before anything is reserved: a crowded frontend leaves no reservation behind.
        let (network, standing) = match peer {
            Some(peer) => (Network::of(peer), Standing::Stranger),
            None => (Network::of(ADMINISTRATOR), Standing::Known),
        };
        let turn = self.passwords.turn_to_sign_up(network, standing).await?;
        let password_hash = turn.hash(sign_up.password, env::random(&*self.entropy)).await?;
        let (user, shard) = match resumed {
            Some(resumed) => resumed,
            None => self.reserve(directory, zone, &address, intent).await?,
        };
        let region = self.home_region(shard);
        let create = pb::CreateAccount {
            user_id: user.to_bytes(),
            address: address.as_str().to_owned(),
            name: sign_up.name,
            password_hash,
            quota_bytes: QUOTA_BYTES_DEFAULT,
            home_region: region.clone(),
        };
        let created = self.create(shard, create, intent).await;
        if let Err(error) = created {
            if matches!(error, AccountError::Unexpected { .. }) {
                // The mailbox was refused for good: nobody will resume, so the address is given back.
                self.release(directory, &address, user, intent).await;
            }
            return Err(error);
        }
        self.activate(directory, &address, user, intent).await?;
        Ok(SignedUp { user, address: address.as_str().to_owned(), region })
    }

    /// Whether somebody has the address. One that is only reserved may be given back, or be that of this sign-up.
    async fn is_taken(&self, address: &Address) -> Result<bool, AccountError> {
        let record = self.cluster.look_up(address, STEP_MAX).await?;
        Ok(record.is_some_and(|record| record.status() == AddressStatus::Active))
    }

    /// A resumed sign-up gets the user and the shard of the first attempt.
    async fn reserve(
        &self,
        directory: ShardId,
        zone: ZoneId,
        address: &Address,
        intent: &Intent,
    ) -> Result<(UserId, ShardId), AccountError> {
        let (user, shard) = self.place(zone, address).await.ok_or(AccountError::NoShard)?;
        let reserve =
            pb::ReserveAddress { address: address.as_str().to_owned(), user_id: user.to_bytes(), shard: shard.0 };
        let request = request::of_step(intent.request, "reserve");
        let op = Op::ReserveAddress(reserve);
        match self.step(directory, None, request, intent.fingerprint.clone(), op).await? {
            Ok(Outcome::Reserved(reserved)) => {
                let user = UserId::try_from(&reserved.user_id)
                    .map_err(|error| AccountError::Unexpected { step: "reserve", answer: error.to_string() })?;
                Ok((user, ShardId(reserved.shard)))
            }
            Ok(_) => Err(unexpected_result("reserve")),
            Err(refused) => Err(match refused.refusal() {
                Refusal::AddressTaken => AccountError::AddressTaken,
                Refusal::FingerprintMismatch => AccountError::KeyMismatch,
                _ => unexpected("reserve", &refused),
            }),
        }
    }

    async fn create(&self, shard: ShardId, create: pb::CreateAccount, intent: &Intent) -> Result<(), AccountError> {
        let request = request::of_step(intent.request, "create");
        match self.step(shard, None, request, Bytes::new(), Op::CreateAccount(create)).await? {
            Ok(_) => Ok(()),
            // An earlier attempt made it, longer ago than requests are remembered.
            Err(refused) if refused.refusal() == Refusal::AccountExists => Ok(()),
            Err(refused) => Err(unexpected("create", &refused)),
        }
    }

    async fn activate(
        &self,
        directory: ShardId,
        address: &Address,
        user: UserId,
        intent: &Intent,
    ) -> Result<(), AccountError> {
        let request = request::of_step(intent.request, "activate");
        let activate = pb::ActivateAddress { address_hash: hash_of(address), user_id: user.to_bytes() };
        match self.step(directory, None, request, Bytes::new(), Op::ActivateAddress(activate)).await? {
            Ok(_) => Ok(()),
            Err(refused) => Err(unexpected("activate", &refused)),
        }
    }

    async fn release(&self, directory: ShardId, address: &Address, user: UserId, intent: &Intent) {
        let request = request::of_step(intent.request, "release");
        let release = pb::ReleaseAddress { address_hash: hash_of(address), user_id: user.to_bytes() };
        if let Err(error) = self.step(directory, None, request, Bytes::new(), Op::ReleaseAddress(release)).await {
            tracing::warn!(%user, %error, "an address stays reserved: it could not be given back");
        }
    }

    /// The home of a shard; this frontend's region while the map does not tell.
    fn home_region(&self, shard: ShardId) -> String {
        let map = self.cluster.map();
        let found = map.shards.iter().find(|candidate| candidate.id == shard.0);
        found.map_or_else(|| self.region.clone(), |shard| shard.home_region.clone())
    }
}

/// How a command names an address that its shard knows.
fn hash_of(address: &Address) -> Bytes {
    Bytes::copy_from_slice(&address::hash_of(address.as_str()))
}

/// What can be said of a sign-up without asking anybody.
fn check_sign_up(sign_up: &SignUp) -> Result<Address, AccountError> {
    let address = Address::parse(&sign_up.address)?;
    // What comes there comes to whoever sent the message that it is about.
    if is_reserved(address.local_part()) {
        return Err(AccountError::AddressTaken);
    }
    password::check_rules(&sign_up.password)?;
    if sign_up.name.len() > NAME_BYTES_MAX || sign_up.name.chars().any(char::is_control) {
        return Err(AccountError::Name);
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postrider_api::env::{SystemClock, SystemEntropy};
    use postrider_api::id::RequestId;

    use super::*;
    use crate::account::AccountOptions;
    use crate::account::password::PasswordCost;
    use crate::cluster::mail::{DOMAIN, MailCluster};
    use crate::limits::{LimitTable, Limiter};

    #[tokio::test]
    async fn a_taken_address_costs_no_hash() {
        let cluster = MailCluster::new(1);
        cluster.add_user("ada", ShardId::MAILBOX_FIRST);
        let accounts = Accounts::new(AccountOptions {
            cluster: Arc::clone(&cluster) as _,
            clock: SystemClock::shared(),
            entropy: SystemEntropy::shared(),
            region: "seoul".to_owned(),
            token_key: [1; 32],
            cost: PasswordCost { kib: 64, passes: 1, lanes: 1 },
            limiter: Limiter::local(LimitTable::default(), [1; 32], SystemClock::shared()),
        })
        .unwrap();
        let intent = Intent { request: RequestId([1; 16]), fingerprint: Bytes::new(), repeatable: false };
        let sign_up = |name: &str| SignUp {
            address: format!("{name}@{DOMAIN}"),
            password: "correct horse battery".to_owned(),
            name: String::new(),
        };
        // Somebody hashes, and does not come to an end: whoever has to hash waits.
        let here = Network::of(ADMINISTRATOR);
        let _hashing = accounts.passwords.turn_to_sign_up(here, Standing::Stranger).await.unwrap();
        let taken = accounts.sign_up(sign_up("ada"), &intent, None).await;
        assert!(matches!(taken, Err(AccountError::AddressTaken)), "{taken:?}");
        let free = std::pin::pin!(accounts.sign_up(sign_up("bob"), &intent, None));
        assert!(futures::poll!(free).is_pending());
    }
}
