//! What every request goes through: limits of its head and of its time, counters, and header fields of every answer.

use std::time::Duration;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request};
use postrider_api::trace::{self, Span};
use tokio::time::Instant;

use crate::rest::limit::{HEADERS_BYTES_MAX, POLL_S_MAX, REQUEST_MAX, SEND_REQUEST_MAX, URI_BYTES_MAX};
use crate::rest::problem::{Kind, Problem};
use crate::rest::rates::Quota;

/// A path that is not there.
pub(crate) async fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}

/// A method that a path does not have; axum adds the Allow field.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed)
}

/// Lets a request through.
pub(crate) async fn pass(request: Request<Body>, next: Next) -> Response {
    let method = method_name(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    let mut span = span_of(method, path);
    let response = span.scope(answer(request, next, method, path)).await;
    let status = response.status();
    span.set("http.response.status_code", u32::from(status.as_u16()));
    if status.is_server_error() {
        span.fail(status.canonical_reason().unwrap_or("server error"));
    }
    response
}

/// A request's beginning of a trace. One that a client names is not gone on with: strangers do not choose what is kept here.
fn span_of(method: &'static str, path: &str) -> Span {
    if matches!(path, "/healthz" | "/readyz" | "/metrics" | "/v1/ping") {
        // Asked all day long by machines.
        return Span::default();
    }
    let mut span = trace::root("request", trace::Kind::Server);
    span.rename(|| format!("{method} {path}"));
    // How long they take is up to the client.
    if matches!(path, "/v1/events/poll" | "/v1/uploads") { span.patient() } else { span }
}

async fn answer(mut request: Request<Body>, next: Next, method: &'static str, path: &str) -> Response {
    let started = Instant::now();
    let limit = time_limit(request.method(), path);
    // A write that is cut off may be carried out nevertheless.
    let kind_of_time_out = if request.method().is_safe() { Kind::RequestTimeout } else { Kind::OutcomeUnknown };
    let quota = Quota::default();
    request.extensions_mut().insert(quota.clone());
    let mut response = match check_head(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(kind_of_time_out).into_response(),
        },
    };
    let headers = response.headers_mut();
    quota.write(headers);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    count(method, path, response.status().as_u16(), started.elapsed());
    response
}

fn check_head(request: &Request<Body>) -> Result<(), Problem> {
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri > URI_BYTES_MAX {
        return Err(Problem::new(Kind::UriTooLong).member("bytes_max", URI_BYTES_MAX));
    }
    if header_bytes(request.headers()) > HEADERS_BYTES_MAX {
        return Err(Problem::new(Kind::HeadersTooLarge).member("bytes_max", HEADERS_BYTES_MAX));
    }
    Ok(())
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Until the head of the answer. What streams behind it is bounded by who reads it.
fn time_limit(method: &Method, path: &str) -> Duration {
    match path {
        "/v1/messages" | "/v1/uploads" | "/v1/drafts" | "/v1/drafts/{draft_id}/send" if method == Method::POST => {
            SEND_REQUEST_MAX
        }
        "/v1/drafts/{draft_id}" if method == Method::PUT => SEND_REQUEST_MAX,
        "/v1/events/poll" => REQUEST_MAX + Duration::from_secs(u64::from(POLL_S_MAX)),
        _ => REQUEST_MAX,
    }
}

/// Counters have one series a method: what clients invent is one more.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn count(method: &'static str, path: &str, status: u16, took: Duration) {
    let (path, status) = (path.to_owned(), status.to_string());
    metrics::histogram!("postrider_rest_request_seconds", "method" => method, "path" => path.clone())
        .record(took.as_secs_f64());
    metrics::counter!("postrider_rest_requests_total", "method" => method, "path" => path, "status" => status)
        .increment(1);
}
