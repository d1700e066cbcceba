//! What an operator may do with somebody's account. Each command stands in the audit log before it happens.

use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::address::{Address, hash_of};
use postrider_api::audit;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, answer::Answer, outcome::Result as Made, query::Query};

use crate::session::{DEADLINE, Refused, Session};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Whose account it is.
pub struct Account {
    /// As its owner writes it.
    pub address: Address,
    /// Its id.
    pub user: UserId,
    /// Where it is.
    pub shard: ShardId,
}

impl Account {
    /// As the audit log names it.
    #[must_use]
    pub fn targets(&self) -> [String; 2] {
        [audit::user(self.user), audit::address(&self.address)]
    }
}

/// The account of an address, if somebody has it.
///
/// # Errors
/// When it is no address, or the directory does not answer.
pub async fn look_up(session: &Session, address: &str) -> anyhow::Result<Option<Account>> {
    let address = Address::parse(address).with_context(|| format!("{address} is no address"))?;
    let found = session.router.look_up(&address, DEADLINE).await.context("ask the directory")?;
    let Some(record) = found else { return Ok(None) };
    let user = UserId::try_from(&record.user_id).context("read the directory's answer")?;
    Ok(Some(Account { address, user, shard: ShardId(record.shard) }))
}

/// The same; nobody is an error.
///
/// # Errors
/// As [`look_up`].
pub async fn find(session: &Session, address: &str) -> anyhow::Result<Account> {
    look_up(session, address).await?.with_context(|| format!("nobody has the address {address}"))
}

/// The account's record; `None` once the last of it is gone. Not in the audit log: whoever shows it to somebody writes that down.
///
/// # Errors
/// When its shard does not answer.
pub async fn record(session: &Session, account: &Account) -> anyhow::Result<Option<pb::AccountRecord>> {
    let get = Query::GetAccount(pb::GetAccount { user_id: account.user.to_bytes() });
    match session.ask(account.shard.0, get).await? {
        Answer::Account(record) => Ok(Some(record)),
        Answer::NotFound(_) => Ok(None),
        other => bail!("shard {} gave an answer to another question: {other:?}", account.shard),
    }
}

/// Nobody logs in, and sessions open nothing, until it is resumed. `receive`: mail for it is still taken.
///
/// # Errors
/// When the shard would not, or did not answer.
pub async fn suspend(session: &Session, account: &Account, receive: bool) -> anyhow::Result<()> {
    let op = Op::SuspendAccount(pb::SuspendAccount { user_id: account.user.to_bytes(), receive });
    session.audited("account.suspend", account.targets(), done(session, account.shard, op)).await
}

/// It is as it was before.
///
/// # Errors
/// When the shard would not, or did not answer.
pub async fn resume(session: &Session, account: &Account) -> anyhow::Result<()> {
    let op = Op::ResumeAccount(pb::ResumeAccount { user_id: account.user.to_bytes() });
    session.audited("account.resume", account.targets(), done(session, account.shard, op)).await
}

/// What its mail is, where neither a message nor the program that sends it says so.
///
/// # Errors
/// When the shard would not, or did not answer.
pub async fn set_category(session: &Session, account: &Account, category: pb::MailCategory) -> anyhow::Result<()> {
    let op = Op::SetCategory(pb::SetCategory { user_id: account.user.to_bytes(), category: category.into() });
    session.audited("account.category", account.targets(), done(session, account.shard, op)).await
}

/// Another password, hashed by the caller. All sessions end.
///
/// # Errors
/// When the shard would not, or did not answer.
pub async fn change_password(session: &Session, account: &Account, password_hash: String) -> anyhow::Result<()> {
    let op = Op::ChangePassword(pb::ChangePassword {
        user_id: account.user.to_bytes(),
        password_hash,
        ..Default::default()
    });
    session.audited("account.password", account.targets(), done(session, account.shard, op)).await
}

/// The account and everything that it has goes, by itself from now on. Nothing undoes it.
///
/// # Errors
/// When a shard would not, or did not answer.
pub async fn delete(session: &Session, account: &Account) -> anyhow::Result<()> {
    let begin = async {
        let op =
            Op::DeleteAccount(pb::DeleteAccount { user_id: account.user.to_bytes(), verified: Default::default() });
        done(session, account.shard, op).await?;
        // So that mail is turned away at once; the shard's leader does it as well.
        let directory = session.router.directory_shard(account.user.zone(), account.address.slot());
        let directory = directory.context("find the directory shard")?;
        let address_hash = hash_of(account.address.as_str()).to_vec().into();
        let close = pb::CloseAddress { address_hash, user_id: account.user.to_bytes() };
        session.propose(directory, Op::CloseAddress(close)).await.map(drop)
    };
    session.audited("account.delete", account.targets(), begin).await
}

/// Waits until the account's row, the last of it, is gone.
///
/// # Errors
/// When its shard does not answer.
pub async fn until_gone(session: &Session, account: &Account) -> anyhow::Result<()> {
    while record(session, account).await?.is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Carries out what ends in nothing but "done".
///
/// # Errors
/// When the shard would not ([`Refused`]), or did not answer.
pub async fn done(session: &Session, shard: ShardId, op: Op) -> anyhow::Result<()> {
    match session.propose(shard, op).await? {
        Made::Done(_) => Ok(()),
        Made::Refused(refused) => Err(anyhow::Error::new(Refused::from(refused)).context(format!("shard {shard}"))),
        other => bail!("shard {shard} gave an outcome of another kind: {other:?}"),
    }
}
