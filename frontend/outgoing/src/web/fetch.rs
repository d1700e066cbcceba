//! GET, with redirects that are looked at like the first URL.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::time::timeout;
use url::{Host, Url};

use super::connection::{OpenError, open};
use crate::dns::{Dns, Domain};
use crate::route::{AddressPolicy, ConnectError};
use crate::tls::Tls;

/// How much and how long.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// The body, bytes.
    pub bytes_max: usize,
    /// Redirects that are followed.
    pub redirects_max: usize,
    /// From the first look-up to the last byte.
    pub time_max: Duration,
}

/// Why there is nothing.
#[derive(Debug, Error)]
pub enum FetchError {
    /// It is no URL of the web, names no host, or names a port of another service.
    #[error("it is not fetched from there: {0}")]
    Url(&'static str),
    /// The host was not reached, or may not be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There are no root certificates.
    #[error("there are no root certificates to know its host by")]
    NoRoots,
    /// The answer broke off.
    #[error("its host's answer broke off: {0}")]
    Http(#[from] hyper::Error),
    /// Only 200 has what was asked for.
    #[error("its host answers {0}")]
    Status(StatusCode),
    /// Too many redirects, or one that leads nowhere.
    #[error("its host leads elsewhere: {0}")]
    Redirect(&'static str),
    /// It is larger than it may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// It was not there in time.
    #[error("it takes longer than {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl FetchError {
    /// Whether nothing was asked, because it may not be.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Open(OpenError::Connect(ConnectError::Refused { .. })))
    }
}

/// Fetches. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    dns: Arc<dyn Dns>,
    tls: Tls,
    addresses: AddressPolicy,
}

impl Fetcher {
    /// Asks `dns`, knows hosts by the system's root certificates and `roots`. Where `addresses` allows private ones (tests), any port is
    /// fetched from as well.
    pub fn new(dns: Arc<dyn Dns>, roots: &[CertificateDer<'static>], addresses: AddressPolicy) -> Self {
        Self { dns, tls: Tls::new(Tls::roots(roots)), addresses }
    }

    /// What is at `url`, which accepts what `accept` says (RFC 9110 section 12.5.1).
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, url: &str, accept: &'static str, limits: FetchLimits) -> Result<Bytes, FetchError> {
        let url = Url::parse(url).map_err(|_| FetchError::Url("it is no URL"))?;
        let fetching = self.follow(url, accept, limits);
        timeout(limits.time_max, fetching).await.unwrap_or(Err(FetchError::TimedOut(limits.time_max)))
    }

    async fn follow(&self, mut url: Url, accept: &'static str, limits: FetchLimits) -> Result<Bytes, FetchError> {
        for _ in 0..=limits.redirects_max {
            match self.step(&url, accept, limits).await? {
                Step::Here(body) => return Ok(body),
                Step::Elsewhere(next) => {
                    if url.scheme() == "https" && next.scheme() != "https" {
                        return Err(FetchError::Redirect("from HTTPS to what anybody on the way reads"));
                    }
                    url = next;
                }
            }
        }
        Err(FetchError::Redirect("too often"))
    }

    async fn step(&self, url: &Url, accept: &'static str, limits: FetchLimits) -> Result<Step, FetchError> {
        let (host, port, is_https) = self.place(url)?;
        let tls = match is_https {
            true => Some(self.tls.https().ok_or(FetchError::NoRoots)?),
            false => None,
        };
        let mut connection = open(&*self.dns, tls, (&host, port), self.addresses, limits.time_max).await?;
        let response = connection.send(request(url, &host, accept)?).await?;
        match response.status() {
            StatusCode::OK => body(response.into_body(), limits.bytes_max).await.map(Step::Here),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                let next = location.and_then(|location| url.join(location).ok());
                next.map(Step::Elsewhere).ok_or(FetchError::Redirect("to nowhere"))
            }
            status => Err(FetchError::Status(status)),
        }
    }

    /// The host and port of a URL, and whether it is asked by HTTPS.
    fn place(&self, url: &Url) -> Result<(Domain, u16, bool), FetchError> {
        let (is_https, standard) = match url.scheme() {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err(FetchError::Url("it is not of the web")),
        };
        let Some(Host::Domain(name)) = url.host() else { return Err(FetchError::Url("its host has no name")) };
        let host = name.parse().map_err(|_| FetchError::Url("its host's name is none"))?;
        let port = url.port().unwrap_or(standard);
        if port != standard && !self.addresses.allow_private {
            return Err(FetchError::Url("its port is not the web's"));
        }
        Ok((host, port, is_https))
    }
}

/// Where one request leads.
enum Step {
    Here(Bytes),
    Elsewhere(Url),
}

fn request(url: &Url, host: &Domain, accept: &'static str) -> Result<Request<Empty<Bytes>>, FetchError> {
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    Request::get(if path.is_empty() { "/" } else { path })
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "Postrider")
        .header(header::ACCEPT, HeaderValue::from_static(accept))
        .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::new())
        .map_err(|_| FetchError::Url("no request can be made of it"))
}

async fn body(body: Incoming, bytes_max: usize) -> Result<Bytes, FetchError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(FetchError::TooLarge(bytes_max));
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(bytes_max)),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(FetchError::Http(*error)),
            Err(_) => Err(FetchError::TooLarge(bytes_max)),
        },
    }
}
