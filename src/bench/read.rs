//! Reading over REST: list pages and whole messages, in mailboxes of different sizes.

use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use postrider_api::limit::PAGE_ROWS_MAX;

use super::accounts::{self, Account};
use super::http::{self, Connection};
use super::load::{self, Outcome, Turns};
use super::report::RestLine;
use super::smtp;
use super::target::Target;
use super::{ReadLoad, SmtpLoad, Until};

/// Connections that fill the mailbox before it is read.
const FILL_CONNECTIONS: usize = 16;
/// Messages whose reading is measured; more of them say nothing else.
const READ_IDS_MAX: usize = 1000;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    List,
    Message,
}

/// Fills a mailbox with `messages` and reads it.
pub(crate) async fn measure(target: &Target, load: &ReadLoad, messages: usize, what: What) -> anyhow::Result<RestLine> {
    let accounts = accounts::sign_up(target, 1).await.context("make an account")?;
    let account = accounts.first().context("no account was made")?.clone();
    eprintln!("filling a mailbox with {messages} messages");
    let fill = SmtpLoad {
        size: load.size,
        connections: vec![],
        recipients: 1,
        rate: None,
        accounts: 1,
        extent: super::Extent { seconds: 0, count: Some(messages as u64) },
        unpadded: false,
    };
    smtp::fill(target, &fill, &accounts, FILL_CONNECTIONS.min(messages)).await?;
    let paths = match what {
        What::List => vec![format!("/v1/folders/{}/messages?limit={}", account.inbox, load.page)],
        What::Message => message_paths(&account).await?,
    };
    let (until, host) = (load.extent.until(), account.rest.clone());
    eprintln!("reading with {} connections", load.connections);
    let admin_token = target.ready().admin_token.clone();
    let mut outcome = read(&host, &account, &admin_token, paths, load.connections, until).await?;
    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    let per_second = outcome.done as f64 / outcome.took.as_secs_f64();
    Ok(RestLine {
        what: if what == What::List { "list" } else { "message" },
        mailbox: messages,
        connections: load.connections,
        answered: outcome.done,
        refused: outcome.failed,
        per_second,
        p50_ms: outcome.latency.percentile_ms(0.5),
        p99_ms: outcome.latency.percentile_ms(0.99),
    })
}

async fn read(
    host: &str,
    account: &Account,
    admin_token: &str,
    paths: Vec<String>,
    connections: usize,
    until: Until,
) -> anyhow::Result<Outcome> {
    let requests: Vec<Vec<u8>> =
        paths.iter().map(|path| http::get_measured(host, path, &account.token, admin_token)).collect();
    let host = host.to_owned();
    load::run(connections, until, None, move |_, turns: Turns| {
        let (host, requests) = (host.clone(), requests.clone());
        async move {
            let mut connection = Connection::open(&host).await?;
            let mut outcome = Outcome::default();
            while let Some(turn) = turns.take() {
                let request = &requests[usize::try_from(turn).unwrap_or(0) % requests.len()];
                let begin = Instant::now();
                let answer = connection.exchange(request).await?;
                if answer.status == 200 {
                    outcome.latency.push(begin.elapsed());
                    outcome.done += 1;
                    outcome.bytes += answer.body.len() as u64;
                } else {
                    outcome.failed += 1;
                }
            }
            Ok(outcome)
        }
    })
    .await
}

/// Paths of the newest messages of the inbox.
async fn message_paths(account: &Account) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::open(&account.rest).await?;
    let mut paths = Vec::new();
    let mut cursor = String::new();
    while paths.len() < READ_IDS_MAX {
        let path = format!("/v1/folders/{}/messages?limit={PAGE_ROWS_MAX}{cursor}", account.inbox);
        let answer = connection.exchange(&http::get(&account.rest, &path, &account.token)).await?;
        if answer.status != 200 {
            bail!("list the inbox: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        let page: serde_json::Value = serde_json::from_slice(&answer.body).context("read a page")?;
        let rows = page["messages"].as_array().context("a page has no messages")?;
        paths.extend(rows.iter().filter_map(|row| Some(format!("/v1/messages/{}", row["id"].as_str()?))));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(!paths.is_empty(), "the inbox is empty");
    Ok(paths)
}
