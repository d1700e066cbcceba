//! Mailboxes as a client of REST sees them, at any region.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::env::{SystemEntropy, random};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long a connection may take: a region that is gone is left soon.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long is asked for something that will certainly be answered, once the cluster is whole.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Says that an answer may be old (docs/api/rest.md).
const STALE: &str = "postrider-stale-ms";
/// Requests with it are not counted against what an account may ask.
const ADMIN_TOKEN: &str = "postrider-admin-token";
/// Rows of a page, the most that a server gives.
const PAGE_ROWS: usize = 200;
/// Rows in which a message is looked for that was acknowledged just now: each mailbox has one writer.
const NEWEST_ROWS: usize = 20;

/// A mailbox with an open session.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    pub(super) address: String,
    pub(super) token: String,
    /// The shard that has it.
    pub(super) shard: u32,
    pub(super) inbox: String,
}

/// What a write was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// `2xx`; whether the mailbox has it already.
    Done { delivered: bool },
    /// Nothing was sent: there is nobody.
    Away,
    /// Refused, with the reason: it changed nothing.
    Refused(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

/// What a read after an acknowledgement saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Yes,
    No,
    /// The answer was marked stale.
    Stale,
    /// There was none.
    Refused,
}

/// A client of all regions.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    http: reqwest::Client,
    admin_token: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Row>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) subject: String,
}

impl Rest {
    pub(super) fn new(admin_token: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(CONNECT_MAX).timeout(ANSWER_MAX).build();
        Ok(Self { http: http.context("make an HTTP client")?, admin_token })
    }

    /// Signs up and logs in. The shard is not known here.
    pub(super) async fn sign_up(&self, base: &str, address: &str, password: &str) -> anyhow::Result<Mailbox> {
        let body = json!({ "address": address, "password": password, "name": "Drill" });
        let bearer = self.admin_token.clone().unwrap_or_default();
        self.insist(Method::POST, &format!("{base}/v1/accounts"), &bearer, Some(&body)).await.context("sign up")?;
        let body = json!({ "address": address, "password": password });
        let session = self.insist(Method::POST, &format!("{base}/v1/sessions"), "", Some(&body)).await;
        let session: Value = serde_json::from_slice(&session.context("log in")?).context("read a session")?;
        let token = session.get("token").and_then(Value::as_str).context("a session has no token")?.to_owned();
        let folders = self.insist(Method::GET, &format!("{base}/v1/folders"), &token, None).await?;
        let folders: Vec<Value> = serde_json::from_slice(&folders).context("read the folders")?;
        let text = |folder: &Value, field: &str| folder.get(field).and_then(Value::as_str).map(str::to_owned);
        let is_inbox = |folder: &&Value| text(folder, "role").is_some_and(|role| role.eq_ignore_ascii_case("inbox"));
        let inbox = folders.iter().find(is_inbox).and_then(|folder| text(folder, "id"));
        Ok(Mailbox { address: address.into(), token, shard: 0, inbox: inbox.context("the account has no inbox")? })
    }

    /// Sends a message to oneself; `token` names the request, too, so that asking again is the same.
    pub(super) async fn send(&self, base: &str, mailbox: &Mailbox, token: &str) -> Written {
        let body = json!({ "to": [mailbox.address], "subject": token, "body": text_of(token) });
        let request = self.request(Method::POST, &format!("{base}/v1/messages"), &mailbox.token);
        let answer = match request.header("Idempotency-Key", token).json(&body).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Written::Away,
            Err(error) => return Written::Unknown(format!("{error}")),
        };
        let status = answer.status();
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) if status.is_success() => return Written::Unknown(format!("{error}")),
            Err(error) => format!("{error}"),
        };
        if status.is_success() {
            // Null where everybody has the message already (docs/api/rest.md).
            let outbox = serde_json::from_str::<Value>(&text).ok().and_then(|body| body.get("outbox_id").cloned());
            return Written::Done { delivered: outbox == Some(Value::Null) };
        }
        match text.contains("outcome_unknown") {
            true => Written::Unknown(format!("{status} {text}")),
            false => Written::Refused(format!("{status} {text}")),
        }
    }

    /// Whether the newest of the inbox show a message.
    pub(super) async fn shows(&self, base: &str, mailbox: &Mailbox, token: &str) -> Seen {
        let url = format!("{base}/v1/folders/{}/messages?limit={NEWEST_ROWS}", mailbox.inbox);
        let Ok(answer) = self.request(Method::GET, &url, &mailbox.token).send().await else { return Seen::Refused };
        if answer.status() != StatusCode::OK {
            return Seen::Refused;
        }
        if answer.headers().contains_key(STALE) {
            return Seen::Stale;
        }
        match answer.json::<Page>().await {
            Ok(page) if page.messages.iter().any(|row| row.subject == token) => Seen::Yes,
            Ok(_) => Seen::No,
            Err(_) => Seen::Refused,
        }
    }

    /// Everything in the inbox, by its subjects.
    pub(super) async fn list(
        &self,
        bases: &[String],
        mailbox: &Mailbox,
    ) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/folders/{}/messages?limit={PAGE_ROWS}{cursor}", mailbox.inbox);
            let page = self.anywhere(bases, &path, &mailbox.token).await.context("list the inbox")?;
            let page: Page = serde_json::from_slice(&page).context("read a page of the inbox")?;
            for row in page.messages {
                rows.entry(row.subject).or_default().push(row.id);
            }
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(rows),
            }
        }
    }

    /// The bytes of a message.
    pub(super) async fn raw(&self, bases: &[String], mailbox: &Mailbox, id: &str) -> anyhow::Result<Vec<u8>> {
        self.anywhere(bases, &format!("/v1/messages/{id}/raw"), &mailbox.token).await
    }

    /// A current answer of whichever region gives one.
    async fn anywhere(&self, bases: &[String], path: &str, token: &str) -> anyhow::Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        let mut said = String::new();
        for base in bases.iter().cycle() {
            match self.request(Method::GET, &format!("{base}{path}"), token).send().await {
                Ok(answer) if answer.status() == StatusCode::OK && !answer.headers().contains_key(STALE) => {
                    match answer.bytes().await {
                        Ok(bytes) => return Ok(bytes.to_vec()),
                        Err(error) => said = error.to_string(),
                    }
                }
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => bail!("{path} at {base}: 404"),
                Ok(answer) => said = answer.status().to_string(),
                Err(error) => said = error.to_string(),
            }
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("{path}: no current answer within {} s: {said}", PATIENCE.as_secs())
    }

    /// Asks one region until it has done it.
    async fn insist(&self, method: Method, url: &str, bearer: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        // Asked again it is the same (P-6).
        let key = hex::encode(random::<16>(&SystemEntropy));
        loop {
            let mut request = self.request(method.clone(), url, bearer);
            if method == Method::POST {
                request = request.header("Idempotency-Key", &key);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let said = match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    return Ok(answer.bytes().await.context("read an answer")?.to_vec());
                }
                Ok(answer) => {
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_default();
                    let again = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
                    if !again {
                        bail!("{url}: {status} {text}");
                    }
                    format!("{status} {text}")
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                bail!("{url}: {said}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&self, method: Method, url: &str, bearer: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, url);
        if !bearer.is_empty() {
            request = request.bearer_auth(bearer);
        }
        if let Some(token) = &self.admin_token {
            request = request.header(ADMIN_TOKEN, token);
        }
        request
    }
}

/// What a message of REST says, so that it is known again.
pub(super) fn text_of(token: &str) -> String {
    format!("This is {token}. All of it must be there.")
}

/// Subjects that are in a list, and how often.
pub(super) fn counts(rows: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, u32> {
    rows.iter().map(|(subject, ids)| (subject.clone(), u32::try_from(ids.len()).unwrap_or(u32::MAX))).collect()
}
