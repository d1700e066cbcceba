//! What a certificate authority asks a host for (RFC 8555 section 8.3): answered by every frontend, whichever has ordered, by what the
//! shard map says.
//!
//! Invariant: an answer is one that an order has recorded. Nothing is made of what is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Uri};
use postrider_api::pb::CertificateProof;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::rest::problem::{Kind, Problem};
use crate::rest::server::{Door, ServerLimits, serve};

/// The paths; they are no part of REST.
pub(crate) fn paths<S: Clone + Send + Sync + 'static>(cluster: Arc<dyn Cluster>) -> Router<S> {
    Router::new().route("/.well-known/acme-challenge/{token}", get(answer)).with_state(cluster)
}

async fn answer(State(cluster): State<Arc<dyn Cluster>>, Path(token): Path<String>) -> Result<Response, Problem> {
    let map = cluster.map();
    let ordered = map.public_certificates.iter().filter(|certificate| certificate.proof() == CertificateProof::Http);
    let mut challenges = ordered.flat_map(|certificate| &certificate.challenges);
    let challenge =
        challenges.find(|challenge| challenge.token == token).ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], challenge.answer.clone()).into_response())
}

/// Plain HTTP, where the authority looks: it answers challenges, and sends everybody else to HTTPS.
pub(crate) struct ChallengeServer {
    listener: TcpListener,
    cluster: Arc<dyn Cluster>,
}

impl ChallengeServer {
    /// Listens.
    ///
    /// # Errors
    /// When it cannot be listened there.
    pub(crate) async fn bind(listen: SocketAddr, cluster: Arc<dyn Cluster>) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(listen).await?, cluster })
    }

    /// Serves until `drain`.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let router = paths(self.cluster).fallback(to_https);
        serve(self.listener, router, Door::default(), ServerLimits::default(), drain).await;
    }
}

/// Only what changes nothing: a form that was sent in the clear has been read already.
async fn to_https(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host)).unwrap_or_default();
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if !is_name || !matches!(method, Method::GET | Method::HEAD) {
        return Problem::new(Kind::NotFound).into_response();
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Redirect::permanent(&format!("https://{host}{path}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn redirected(method: Method, host: &str, path: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        let answer = to_https(method, Uri::from_static(path), headers).await;
        answer.headers().get(http::header::LOCATION).map(|location| location.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn who_reads_is_sent_to_https_of_the_same_host() {
        let sent = redirected(Method::GET, "mail.example.org:8080", "/a?b=c").await;
        assert_eq!(sent.as_deref(), Some("https://mail.example.org/a?b=c"));
        assert_eq!(redirected(Method::POST, "mail.example.org", "/a").await, None);
        for bad in ["", ":80", "evil.example/@", "[::1]:80"] {
            assert_eq!(redirected(Method::GET, bad, "/a").await, None, "{bad}");
        }
    }
}
