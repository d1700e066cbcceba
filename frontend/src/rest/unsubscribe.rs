//! `/v1/unsubscribe`: where the links of bulk mail lead (RFC 8058). Nobody logs in: the link is the proof.
//!
//! Invariant: GET changes nothing. Filters follow links before people do (RFC 8058 section 1).

use std::sync::Arc;

use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use postrider_api::address::RemoteAddress;
use postrider_api::env::{self, Entropy};
use postrider_api::id::{RequestId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, Refusal, SuppressionReason, outcome};
use postrider_outgoing::unsubscribe::{UnsubscribeTokens, is_one_click};

use crate::cluster::Cluster;
use crate::rest::limit::{BODY_WAIT_MAX, CLUSTER_CALL_MAX};
use crate::rest::openapi::UnsubscribeProblems;
use crate::rest::problem::{Kind, Problem};

/// A form of one field, bytes; some programs send more of them.
const FORM_BYTES_MAX: usize = 4096;
/// Nothing of the page runs, and nothing is loaded for it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Takes recipients from senders' mail.
pub(crate) struct Unsubscribing {
    cluster: Arc<dyn Cluster>,
    tokens: UnsubscribeTokens,
    entropy: Arc<dyn Entropy>,
}

impl Unsubscribing {
    /// Of links that the workers of this cluster have made.
    pub(crate) fn new(cluster: Arc<dyn Cluster>, tokens: UnsubscribeTokens, entropy: Arc<dyn Entropy>) -> Self {
        Self { cluster, tokens, entropy }
    }

    fn read(&self, token: &str) -> Result<(UserId, RemoteAddress), Problem> {
        self.tokens.read(token).ok_or_else(|| Problem::new(Kind::NotFound))
    }

    async fn suppress(&self, sender: UserId, recipient: &RemoteAddress) -> Result<(), Problem> {
        // An account that has gone sends nothing any more.
        let Some(shard) = self.cluster.locate(sender, CLUSTER_CALL_MAX).await? else { return Ok(()) };
        let suppress = pb::Suppress {
            user_id: sender.to_bytes(),
            address: recipient.as_str().to_owned(),
            reason: SuppressionReason::Unsubscribed.into(),
            detail: String::new(),
            until_ms: 0,
        };
        let command = pb::Command {
            request: RequestId(env::random(&*self.entropy)).to_bytes(),
            op: Some(Op::Suppress(suppress)),
            ..pb::Command::default()
        };
        match self.cluster.propose(shard, None, command, CLUSTER_CALL_MAX).await?.result {
            Some(outcome::Result::Done(_)) => Ok(()),
            Some(outcome::Result::Refused(refused)) if refused.refusal() == Refusal::UnknownUser => Ok(()),
            Some(outcome::Result::Refused(refused)) => Err(Problem::refused(&refused)),
            _ => Err(Problem::internal("an unsubscription had an outcome of another kind")),
        }
    }
}

/// A form of a POST, whatever it says that it is: programs that unsubscribe send it in two types (RFC 8058 section 3.2).
pub(crate) struct Form(String);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let collecting =
            tokio::time::timeout(BODY_WAIT_MAX, Limited::new(request.into_body(), FORM_BYTES_MAX).collect());
        let body = collecting.await.map_err(|_| Problem::new(Kind::RequestTimeout))?;
        let bytes: Bytes = body.map_err(|_| Problem::new(Kind::BodyUnreadable))?.to_bytes();
        Ok(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl Form {
    /// Also as `multipart/form-data`, in which the name and the value stand apart.
    fn is_one_click(&self) -> bool {
        let Self(text) = self;
        is_one_click(text) || (text.contains("name=\"List-Unsubscribe\"") && text.contains("One-Click"))
    }
}

/// Ask a person whether to unsubscribe.
#[utoipa::path(
    get, path = "/v1/unsubscribe/{token}", operation_id = "ask_unsubscribe", tag = "messages",
    params(("token" = String, Path, description = "What stands in the link")),
    responses((status = 200, description = "A page with a button", body = String, content_type = "text/html"), UnsubscribeProblems),
    security(()),
)]
pub(crate) async fn ask(
    State(unsubscribing): State<Arc<Unsubscribing>>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let (_, recipient) = unsubscribing.read(&token)?;
    let form = "<form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\"><button>Unsubscribe</button></form>";
    let text = format!("<p>Get no more mail of this sender at {}?</p>{form}", escaped(recipient.as_str()));
    Ok(page(StatusCode::OK, &text))
}

/// Unsubscribe with one click (RFC 8058). Once more is no error.
#[utoipa::path(
    post, path = "/v1/unsubscribe/{token}", operation_id = "unsubscribe", tag = "messages",
    params(("token" = String, Path, description = "What stands in the link")),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`List-Unsubscribe=One-Click`"),
    responses((status = 200, description = "The sender sends no more to the recipient", body = String, content_type = "text/html"), UnsubscribeProblems),
    security(()),
)]
pub(crate) async fn unsubscribe(
    State(unsubscribing): State<Arc<Unsubscribing>>,
    Path(token): Path<String>,
    form: Form,
) -> Result<Response, Problem> {
    let (sender, recipient) = unsubscribing.read(&token)?;
    if !form.is_one_click() {
        return Err(Problem::new(Kind::InvalidBody).detail("List-Unsubscribe=One-Click is wanted (RFC 8058)"));
    }
    unsubscribing.suppress(sender, &recipient).await?;
    metrics::counter!("postrider_unsubscribed_total").increment(1);
    let text = format!("<p>{} gets no more mail of this sender.</p>", escaped(recipient.as_str()));
    Ok(page(StatusCode::OK, &text))
}

fn page(status: StatusCode, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Unsubscribe</title><body style=\"font:1rem sans-serif;margin:3rem auto;max-width:40rem\"><main>{text}</main></body></html>"
    );
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, html).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_in_both_of_its_types() {
        let form = |text: &str| Form(text.to_owned()).is_one_click();
        assert!(form("List-Unsubscribe=One-Click"));
        assert!(form("--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n"));
        assert!(!form("") && !form("One-Click"));
        assert_eq!(escaped("\"<a&b>\"@far.example"), "&quot;&lt;a&amp;b&gt;&quot;@far.example");
    }
}
