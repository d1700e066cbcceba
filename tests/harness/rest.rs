//! A client of REST v1 for tests.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{DEADLINE, Region};

/// How long one request may take: nothing hangs.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// A user with an open session, seen through one region.
#[derive(Debug, Clone)]
pub struct Api {
    pub base: String,
    pub token: String,
    pub user_id: String,
    pub address: String,
    pub password: String,
    pub http: reqwest::Client,
}

impl Api {
    /// Signs up at a region and logs in there.
    pub async fn sign_up(region: &Region, address: &str) -> Self {
        let http = client();
        let password = format!("the password of {address}");
        let body = json!({ "address": address, "password": password, "name": address });
        let answer = http.post(format!("{}/v1/accounts", region.rest)).json(&body).send().await.expect("sign up");
        assert_eq!(answer.status(), StatusCode::CREATED, "sign up {address}: {:?}", answer.text().await);
        Self::log_in(region, address, &password).await
    }

    /// Logs in at a region.
    pub async fn log_in(region: &Region, address: &str, password: &str) -> Self {
        let http = client();
        let body = json!({ "address": address, "password": password });
        let begin = Instant::now();
        loop {
            let sent = http.post(format!("{}/v1/sessions", region.rest)).json(&body).send().await;
            let said = match sent {
                Ok(answer) if answer.status().is_success() => {
                    let session: Value = answer.json().await.expect("JSON");
                    return Self {
                        base: region.rest.clone(),
                        token: session["token"].as_str().expect("a token").into(),
                        user_id: session["user_id"].as_str().expect("a user id").into(),
                        address: address.into(),
                        password: password.into(),
                        http,
                    };
                }
                // A shard between two primaries: try again, as clients do.
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => "503".to_owned(),
                Ok(answer) => panic!("log in {address}: {} {:?}", answer.status(), answer.text().await),
                Err(error) => error.to_string(),
            };
            assert!(begin.elapsed() < DEADLINE, "log in {address}: {said}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Another session of the same user at the same region.
    pub async fn log_in_again(user: &Self) -> Self {
        let region = Region { rest: user.base.clone(), ..Region::default() };
        Self::log_in(&region, &user.address, &user.password).await
    }

    /// The same session through another region.
    pub fn at(&self, region: &Region) -> Self {
        Self { base: region.rest.clone(), ..self.clone() }
    }

    /// One request, one answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> reqwest::Result<reqwest::Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await
    }

    /// A GET that is answered with 200, after as many 503 as it takes.
    pub async fn get(&self, path: &str) -> Value {
        let begin = Instant::now();
        loop {
            match self.ask(Method::GET, path, None).await {
                Ok(answer) if answer.status() == StatusCode::OK => return answer.json().await.expect("JSON"),
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    panic!("GET {path}: {} {:?}", answer.status(), answer.text().await)
                }
                said => assert!(begin.elapsed() < DEADLINE, "GET {path}: {said:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The bytes of a GET that is answered with 200, after as many 503 as it takes.
    pub async fn bytes(&self, path: &str) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            match self.ask(Method::GET, path, None).await {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    return answer.bytes().await.expect("a body").to_vec();
                }
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    panic!("GET {path}: {} {:?}", answer.status(), answer.text().await)
                }
                said => assert!(begin.elapsed() < DEADLINE, "GET {path}: {said:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A change that is carried out.
    pub async fn change(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.ask(method.clone(), path, Some(body)).await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    /// The folder with a role.
    pub async fn folder(&self, role: &str) -> Value {
        let folders = self.get("/v1/folders").await;
        let list = folders.as_array().unwrap_or_else(|| panic!("folders are a list: {folders}"));
        let found = list.iter().find(|f| f["role"].as_str().is_some_and(|have| have.eq_ignore_ascii_case(role)));
        found.unwrap_or_else(|| panic!("no folder {role}: {folders}")).clone()
    }

    /// Every message of the inbox, newest first, over all pages.
    pub async fn inbox(&self) -> Vec<Value> {
        let id = self.folder("inbox").await["id"].as_str().expect("a folder's id").to_owned();
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/folders/{id}/messages?limit=200{cursor}")).await;
            rows.extend(page["messages"].as_array().expect("messages").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// Waits for a message with this subject in the inbox.
    pub async fn until_subject(&self, subject: &str) -> Value {
        let begin = Instant::now();
        loop {
            if let Some(row) = self.inbox().await.into_iter().find(|row| row["subject"] == subject) {
                return row;
            }
            assert!(begin.elapsed() < DEADLINE, "{subject:?} arrives for {}", self.address);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Everything that has changed behind `since`, in order, by long-poll.
    pub async fn changes(&self, mut since: u64) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.get(&format!("/v1/events/poll?since={since}&timeout_s=0")).await;
            if frame["changes"].as_array().is_none_or(Vec::is_empty) {
                return frames;
            }
            since = frame["modseq"].as_u64().expect("a modseq");
            frames.push(frame);
        }
    }
}

/// Waits until the region's frontend says that it can serve.
pub async fn until_serving(region: &Region) {
    let (http, url, begin) = (client(), format!("{}/readyz", region.rest), Instant::now());
    loop {
        let said = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
        match said {
            Ok(_) => return,
            Err(error) => assert!(begin.elapsed() < DEADLINE, "the frontend of {} serves: {error}", region.name),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(REQUEST_DEADLINE).build().expect("an HTTP client")
}
