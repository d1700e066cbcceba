//! A policy by HTTPS.

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use thiserror::Error;

use super::policy::{Policy, PolicyError};
use crate::dns::{Dns, Domain, DomainError};
use crate::limit::{POLICY_BYTES_MAX, POLICY_FETCH};
use crate::route::AddressPolicy;
use crate::tls::Tls;
use crate::web::{self, OpenError};

/// Why there is no policy.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("its host's name is none: {0}")]
    Host(#[from] DomainError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there are no root certificates to know its host by")]
    NoRoots,
    #[error("its host speaks no HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// RFC 8461 section 3.3: redirects are not followed, and only 200 is a policy.
    #[error("its host answers {0}")]
    Status(StatusCode),
    #[error("it is not text/plain")]
    ContentType,
    #[error("it cannot be read, or is longer than {POLICY_BYTES_MAX} bytes")]
    Body,
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("its host takes longer than {} s", POLICY_FETCH.as_secs())]
    TimedOut,
}

/// Fetches a domain's policy.
pub(super) async fn fetch(
    dns: &dyn Dns,
    tls: &Tls,
    addresses: AddressPolicy,
    port: u16,
    domain: &Domain,
) -> Result<Policy, FetchError> {
    let host: Domain = format!("mta-sts.{domain}").parse()?;
    let config = tls.https().ok_or(FetchError::NoRoots)?;
    let mut connection = web::open(dns, Some(config), (&host, port), addresses, POLICY_FETCH).await?;
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(header::HOST, host.as_str())
        .header(header::USER_AGENT, "Postrider")
        .body(Empty::<Bytes>::new())
        .expect("a fixed path and a host's name make a request");
    let response = connection.send(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/plain") {
        return Err(FetchError::ContentType);
    }
    let body = Limited::new(response.into_body(), POLICY_BYTES_MAX).collect().await.map_err(|_| FetchError::Body)?;
    let body = body.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|_| FetchError::Body)?;
    Ok(Policy::parse(text)?)
}
