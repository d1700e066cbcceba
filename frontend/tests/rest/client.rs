//! A client that checks every answer against the OpenAPI document before a test sees it.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::schema::mismatch;

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    document: Value,
    token: Option<String>,
}

/// An answer whose body is here.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: bytes::Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// The slug of a problem; a success is none.
    pub(crate) fn problem(&self) -> String {
        assert!(!self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.bytes));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16(), "{document}");
        let kind = document["type"].as_str().expect("a problem has a type");
        kind.strip_prefix("urn:postrider:problem:").expect("ours").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

/// Answers are looked at as they come: nobody is led elsewhere.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none())
}

/// Paths of what a frontend tells of domains by the host that is asked for.
const TOLD_BY_HOST: [&str; 3] = ["/.well-known/", "/mail/config-", "/autodiscover/"];

impl Client {
    pub(crate) async fn connect(base: String) -> Self {
        let http = builder().build().expect("a client");
        let document = http.get(format!("{base}/openapi.json")).send().await.expect("an answer");
        let document = serde_json::from_slice(&document.bytes().await.expect("a body")).expect("JSON");
        Self { http, base, document, token: None }
    }

    /// The same from another address of this machine: the server counts it as another network.
    pub(crate) fn from(&self, address: std::net::IpAddr) -> Self {
        let http = builder().local_address(address).build().expect("a client");
        Self { http, ..self.clone() }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("logged in")
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn post_once(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.send(Method::POST, path, &[("idempotency-key", key)], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let mut fields = HeaderMap::new();
        if bytes.is_some() {
            fields.insert("content-type", HeaderValue::from_static("application/json"));
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a field name");
            fields.append(name, value.parse().expect("a field value"));
        }
        self.send_raw(method, path, fields, bytes).await
    }

    pub(crate) async fn send_raw(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Answer {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request = request.headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, bytes: response.bytes().await.expect("a body") };
        self.check(&method, path, &answer);
        answer
    }

    /// Panics when the document does not say that there may be such an answer.
    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
        let Some(operation) = self.operation(method, path) else {
            // What is told of domains to programs that know where they ask (RFC 8461 and others) is none of the API.
            if TOLD_BY_HOST.iter().any(|beginning| path.to_lowercase().starts_with(beginning)) {
                return;
            }
            let expected = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::URI_TOO_LONG];
            assert!(expected.contains(&answer.status), "{method} {path} is not in the document, but {}", answer.status);
            return;
        };
        let at = format!("{method} {path} {}", answer.status);
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{at}: the document does not know the status");
        let Some(content) = response["content"].as_object() else {
            assert!(answer.bytes.is_empty(), "{at}: the document knows no content");
            return;
        };
        let (media_type, content) = content.iter().next().expect("a media type");
        let declared = answer.header("content-type").unwrap_or_default();
        match media_type.as_str() {
            "application/json" | "application/problem+json" => {
                assert_eq!(declared, media_type, "{at}");
                let place = if media_type == "application/json" { "body" } else { "problem" };
                let wrong = mismatch(&self.document, &content["schema"], &answer.json(), place);
                assert_eq!(wrong, None, "{at}");
            }
            "application/octet-stream" => {}
            other => assert!(declared.starts_with(other), "{at}: {declared}"),
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let path = path.split('?').next().expect("a path");
        let paths = self.document["paths"].as_object().expect("paths");
        let exact = paths.get(path);
        let matching =
            exact.or_else(|| paths.iter().find(|(template, _)| fits(template, path)).map(|(_, item)| item))?;
        matching.get(method.as_str().to_lowercase())
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let piece = |(wanted, found): (&&str, &&str)| wanted == found || wanted.starts_with('{') && !found.is_empty();
    template.len() == path.len() && template.iter().zip(&path).all(piece)
}
