//! The SDK's client, told to do what we need and nothing else.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::options::{S3Options, Security};
use crate::BlobError;

/// Tries of one request in all. What fails twice is down: another region is asked, and a repair follows later.
const TRIES_MAX: u32 = 2;
/// Pause before the second.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long an idle connection is kept. Shorter than the server's patience (`server/mod.rs`).
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Idle connections kept.
const IDLE_CONNECTIONS_MAX: usize = 64;

pub(super) fn build(options: &S3Options, security: Security) -> Result<Client, BlobError> {
    let roots = match (&options.trusted_roots, security) {
        (_, Security::Loopback | Security::Plain) => TrustStore::empty(),
        (Some(pem), Security::Tls) => TrustStore::empty().with_pem_certificate(pem.clone()),
        (None, Security::Tls) => TrustStore::empty().with_native_roots(true),
    };
    let tls = TlsContext::builder().with_trust_store(roots).build();
    let tls = tls.map_err(|_| BlobError::Invalid { what: "the trusted roots cannot be used" })?;
    let http = Builder::new()
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls);
    let timeouts = TimeoutConfig::builder().connect_timeout(options.timeouts.connect).build();
    let retries = RetryConfig::standard().with_max_attempts(TRIES_MAX).with_initial_backoff(BACKOFF);
    let credentials = Credentials::new(&options.access_key, &options.secret_key, None, None, "postrider");
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(options.region_name.clone()))
        .endpoint_url(&options.endpoint)
        .force_path_style(true)
        .credentials_provider(credentials)
        // Static credentials: nothing to cache, nothing to look up.
        .identity_cache(IdentityCache::no_cache())
        .http_client(http.build_https())
        .timeout_config(timeouts)
        .retry_config(retries)
        // Bodies have the time-outs of `S3Store`, and the checksum that it gives them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}
