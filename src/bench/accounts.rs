//! Accounts that the load is for: signed up, logged in, counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::http::{self, Connection};
use super::target::Target;

const PASSWORD: &str = "bench password of no worth";
/// How often a sign-up that is refused for load is tried.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// One account with an open session.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) address: String,
    /// host:port of REST in its home region.
    pub(crate) rest: String,
    pub(crate) token: String,
    pub(crate) inbox: u64,
}

#[derive(Deserialize)]
struct Session {
    token: String,
}

#[derive(Deserialize)]
struct Folder {
    id: serde_json::Value,
    role: Option<String>,
    total: u64,
}

/// Signs up `count` new accounts, going round the regions.
pub(crate) async fn sign_up(target: &Target, count: usize) -> anyhow::Result<Vec<Account>> {
    let ready = target.ready();
    // Several runs against one cluster meet different accounts.
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut accounts = Vec::with_capacity(count);
    for n in 0..count {
        let region = &ready.regions[n % ready.regions.len()];
        let rest = region.rest.trim_start_matches("http://").to_owned();
        let address = format!("bench-{run}-{n}@{}", ready.domain);
        let mut connection = Connection::open(&rest).await?;
        let body = serde_json::json!({ "address": address, "password": PASSWORD, "name": "Bench" });
        // As the administrator, whose accounts are not counted against the network.
        let sign_up = http::post(&rest, "/v1/accounts", Some(&ready.admin_token), &body);
        ask(&mut connection, &sign_up, 201).await.context("sign up")?;
        accounts.push(open_session(&mut connection, address, rest).await?);
    }
    Ok(accounts)
}

/// An account that an earlier run signed up, seen from the first region.
pub(crate) async fn log_in(target: &Target, address: &str) -> anyhow::Result<Account> {
    let region = target.ready().regions.first().context("the cluster has no region")?;
    let rest = region.rest.trim_start_matches("http://").to_owned();
    let mut connection = Connection::open(&rest).await?;
    open_session(&mut connection, address.to_owned(), rest).await
}

async fn open_session(connection: &mut Connection, address: String, rest: String) -> anyhow::Result<Account> {
    let body = serde_json::json!({ "address": address, "password": PASSWORD });
    let answer = ask(connection, &http::post(&rest, "/v1/sessions", None, &body), 0).await.context("log in")?;
    let Session { token } = serde_json::from_slice(&answer).context("read the answer to a log-in")?;
    let mut account = Account { address, rest, token, inbox: 0 };
    account.inbox = inbox(connection, &account).await?.0;
    Ok(account)
}

/// Messages in all inboxes.
pub(crate) async fn delivered(accounts: &[Account]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for account in accounts {
        let mut connection = Connection::open(&account.rest).await?;
        sum += inbox(&mut connection, account).await?.1;
    }
    Ok(sum)
}

/// The inbox's id and how many messages it has.
async fn inbox(connection: &mut Connection, account: &Account) -> anyhow::Result<(u64, u64)> {
    let answer = ask(connection, &http::get(&account.rest, "/v1/folders", &account.token), 200).await?;
    // A list, or an object that holds one.
    let value: serde_json::Value = serde_json::from_slice(&answer).context("read the folders")?;
    let list = value.get("folders").cloned().unwrap_or(value);
    let folders: Vec<Folder> = serde_json::from_value(list).context("read the folders")?;
    let inbox =
        folders.into_iter().find(|folder| folder.role.as_deref().is_some_and(|r| r.eq_ignore_ascii_case("inbox")));
    let inbox = inbox.context("the account has no inbox")?;
    let id = match &inbox.id {
        serde_json::Value::String(text) => text.parse().context("read the inbox's id")?,
        other => other.as_u64().context("read the inbox's id")?,
    };
    Ok((id, inbox.total))
}

/// Asks until the answer has the status that is expected; 0 stands for any success.
async fn ask(connection: &mut Connection, request: &[u8], expected: u16) -> anyhow::Result<Vec<u8>> {
    for _ in 0..TRIES_MAX {
        let answer = connection.exchange(request).await?;
        match answer.status {
            status if status == expected || (expected == 0 && (200..300).contains(&status)) => return Ok(answer.body),
            429 | 503 => tokio::time::sleep(PAUSE).await,
            status => bail!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    bail!("the cluster stays too busy")
}
