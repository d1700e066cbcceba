//! How to reach a region's object store.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;

use crate::BlobError;

/// How long to wait for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, retries included, beside what the body needs.
    pub answer: Duration,
    /// The slowest acceptable transfer of a body, bytes a second.
    pub bytes_per_second_min: u64,
    /// For the next piece of a body that is being read.
    pub idle: Duration,
}

impl Default for S3Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            answer: Duration::from_secs(5),
            // 25 MB over a shared 100 Mbit/s must get through with others beside it.
            bytes_per_second_min: 1024 * 1024,
            idle: Duration::from_secs(5),
        }
    }
}

impl S3Timeouts {
    /// For a request that carries `bytes`.
    pub(crate) fn of(&self, bytes: u64) -> Duration {
        let transfer_ms = bytes.saturating_mul(1000) / self.bytes_per_second_min.max(1);
        self.answer + Duration::from_millis(transfer_ms)
    }
}

/// How to reach a region's object store.
#[derive(Clone)]
pub struct S3Options {
    /// Our name of the region; also the signing region.
    pub region_name: String,
    /// `https://host[:port]`, or `http://` on loopback.
    pub endpoint: String,
    /// The bucket that holds all zones of that region.
    pub bucket: String,
    /// Static credentials; none are ever looked up in the environment or in an instance's metadata.
    pub access_key: String,
    /// Their secret part.
    pub secret_key: String,
    /// How long to wait.
    pub timeouts: S3Timeouts,
    /// Whether a put makes a missing bucket. For the embedded server; a real one's buckets are an operator's business.
    pub create_bucket: bool,
    /// Whether plain HTTP is allowed off loopback, on a network that is protected otherwise. Bodies are signed then.
    pub allow_plain: bool,
    /// PEM certificates to trust for `https://` in place of the system's.
    pub trusted_roots: Option<Vec<u8>>,
}

/// What protects a body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    Tls,
    Loopback,
    Plain,
}

impl S3Options {
    /// Options with default time-outs; a missing bucket is made if the endpoint is plain HTTP, as the embedded server's is.
    pub fn new(
        region_name: impl Into<String>,
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        let endpoint = endpoint.into();
        Self {
            region_name: region_name.into(),
            create_bucket: endpoint.starts_with("http://"),
            endpoint,
            bucket: bucket.into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            timeouts: S3Timeouts::default(),
            allow_plain: false,
            trusted_roots: None,
        }
    }

    pub(crate) fn check(&self) -> Result<Security, BlobError> {
        let invalid = |what| Err(BlobError::Invalid { what });
        let Ok(uri) = self.endpoint.parse::<Uri>() else { return invalid("the endpoint is not a URL") };
        let Some(host) = uri.host() else { return invalid("the endpoint has no host") };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return invalid("the endpoint is only scheme, host and port");
        }
        if self.region_name.is_empty()
            || self.bucket.is_empty()
            || self.access_key.is_empty()
            || self.secret_key.is_empty()
        {
            return invalid("region, bucket and keys of an object store cannot be empty");
        }
        match uri.scheme_str() {
            Some("https") => Ok(Security::Tls),
            Some("http") if is_loopback(host) => Ok(Security::Loopback),
            Some("http") if self.allow_plain => Ok(Security::Plain),
            Some("http") => invalid("plain http to an object store is allowed on loopback only"),
            _ => invalid("the endpoint is neither https nor http"),
        }
    }
}

/// Addresses only: a name, even `localhost`, can be made to lead elsewhere.
fn is_loopback(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region_name, endpoint, bucket, timeouts, .. } = self;
        f.debug_struct("S3Options")
            .field("region_name", region_name)
            .field("endpoint", endpoint)
            .field("bucket", bucket)
            .field("timeouts", timeouts)
            .finish_non_exhaustive() // keys stay out of logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: &str, allow_plain: bool) -> Result<Security, BlobError> {
        S3Options { allow_plain, ..S3Options::new("seoul", endpoint, "mail", "key", "secret") }.check()
    }

    #[test]
    fn plain_http_stays_on_loopback() {
        assert_eq!(check("https://s3.example.com", false), Ok(Security::Tls));
        assert_eq!(check("http://127.0.2.1:9000", false), Ok(Security::Loopback));
        assert_eq!(check("http://[::1]:9000/", false), Ok(Security::Loopback));
        assert_eq!(check("http://10.0.0.1:9000", true), Ok(Security::Plain));
        for endpoint in ["http://10.0.0.1", "http://localhost", "ftp://127.0.0.1", "127.0.0.1:9000", "https://a/b", ""]
        {
            assert!(check(endpoint, false).is_err(), "{endpoint:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = S3Options::new("seoul", "https://a", "mail", "the-key", "the-secret");
        let printed = format!("{options:?}");
        assert!(!printed.contains("the-key") && !printed.contains("the-secret"));
    }

    #[test]
    fn larger_bodies_get_more_time() {
        let timeouts = S3Timeouts::default();
        assert_eq!(timeouts.of(0), timeouts.answer);
        assert_eq!(timeouts.of(10 * 1024 * 1024), timeouts.answer + Duration::from_secs(10));
    }
}
