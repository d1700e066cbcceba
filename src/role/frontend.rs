//! `postrider frontend`: SMTP, REST and WebSocket, and a worker unless it stands elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use metrics_exporter_prometheus::PrometheusBuilder;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::account::attempts::AttemptLimits;
use postrider_frontend::account::password::PasswordCost;
use postrider_frontend::rest::ClusterSecret;
use postrider_frontend::rest::limit::REQUESTS_PER_ACCOUNT_PER_MINUTE;
use postrider_frontend::smtp::SmtpLimits;
use postrider_frontend::worker::WorkerTimings;
use postrider_frontend::{Frontend, FrontendOptions, RestSettings, SmtpSettings};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::{ClusterConfig, StoreConfig};
use crate::signal::Stop;

/// What stands behind the host's name in SMTP's greeting.
const BANNER: &str = "Postrider";

/// Settings of a frontend.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrontendRoleConfig {
    /// The region that it stands in; who signs up here has his home there.
    pub(crate) region: String,
    /// Whether this process also delivers what waits in queues.
    #[serde(default = "yes")]
    pub(crate) worker: bool,
    /// File with the secret that authenticates list cursors: the same at every frontend.
    pub(crate) cursor_secret_file: PathBuf,
    /// File with the token of operators; without it their part of REST is closed.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// The storage nodes.
    pub(crate) cluster: ClusterConfig,
    /// REST and WebSocket.
    pub(crate) rest: RestConfig,
    /// Receiving mail.
    pub(crate) smtp: SmtpConfig,
    /// The object stores of all regions.
    pub(crate) stores: Vec<StoreConfig>,
}

/// REST and WebSocket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestConfig {
    /// Where HTTP listens.
    pub(crate) listen: SocketAddr,
    /// Whether anybody may sign up.
    #[serde(default)]
    pub(crate) open_sign_up: bool,
    /// Requests that one account gets in a minute at this frontend; 0: as many as it likes.
    #[serde(default = "requests_per_account_per_minute")]
    pub(crate) requests_per_account_per_minute: u32,
}

/// Receiving mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SmtpConfig {
    /// Where SMTP listens.
    pub(crate) listen: SocketAddr,
    /// The name that it greets with.
    pub(crate) host: String,
    /// Certificate for STARTTLS; without it and its key STARTTLS is not offered.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
}

fn requests_per_account_per_minute() -> u32 {
    REQUESTS_PER_ACCOUNT_PER_MINUTE
}

fn yes() -> bool {
    true
}

/// Serves until it is told to stop.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let config: FrontendRoleConfig = super::read(config)?;
    let secret = ClusterSecret::new(super::read_secret(&config.cursor_secret_file)?.into_bytes())
        .with_context(|| format!("use the secret in {}", config.cursor_secret_file.display()))?;
    let admin_token = config.admin_token_file.as_deref().map(super::read_secret).transpose()?;
    let tls = config.smtp.tls()?;
    let metrics = PrometheusBuilder::new().install_recorder().context("install the recorder of counters")?;
    let mut stop = Stop::listen()?;
    let backend = Backend::new(&config.region, &config.cluster, &config.stores).await?;
    let Some(router) = backend.connect(&mut stop).await? else { return Ok(()) };
    let options = FrontendOptions {
        region: config.region.clone(),
        cluster: Arc::new(router),
        blobs: backend.blobs,
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
        rest: Some(RestSettings {
            listen: config.rest.listen,
            cluster_secret: secret,
            sign_up: if config.rest.open_sign_up { SignUpPolicy::Open } else { SignUpPolicy::Closed },
            admin_token,
            password_cost: PasswordCost::default(),
            attempts: AttemptLimits::default(),
            requests_per_account_per_minute: config.rest.requests_per_account_per_minute,
            metrics: Some(metrics),
        }),
        smtp: Some(SmtpSettings {
            listen: config.smtp.listen,
            host: config.smtp.host,
            banner: BANNER.into(),
            tls,
            limits: SmtpLimits::default(),
        }),
        worker: config.worker.then(WorkerTimings::default),
    };
    let frontend = Frontend::start(options).await.context("start the frontend")?;
    tracing::info!(region = config.region, rest = ?frontend.rest_addr(), smtp = ?frontend.smtp_addr(), "frontend serves");
    let reason = stop.wait().await;
    tracing::info!(reason, "frontend stops");
    frontend.shutdown().await;
    Ok(())
}

impl SmtpConfig {
    /// What STARTTLS shows; `None` when it is not offered.
    fn tls(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        let (cert, key) = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            _ => bail!("smtp.cert and smtp.key belong together: one of them is missing"),
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("read the certificate {}", cert.display()))?;
        let secret = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read the key {}", key.display()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .with_context(|| format!("use the certificate {}", cert.display()))?;
        Ok(Some(Arc::new(config)))
    }
}
