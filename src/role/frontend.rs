//! `postrider frontend`: SMTP, REST and WebSocket, and a worker unless it stands elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use postrider_api::certificates::{self, Certificates};
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::account::password::PasswordCost;
use postrider_frontend::acme;
use postrider_frontend::acme::shown::{KEY_KNOWN_MIN, PublicCertificates, Shown};
use postrider_frontend::cache::Cache;
use postrider_frontend::cluster::Cluster;
use postrider_frontend::limits::{Limit, LimitKind, LimitTable};
use postrider_frontend::network::Networks;
use postrider_frontend::rest::limit::REQUESTS_PER_ACCOUNT_PER_MINUTE;
use postrider_frontend::rest::{ClusterSecret, ForwardedField, ForwardedFrom, PROTOCOLS};
use postrider_frontend::smtp::SmtpLimits;
use postrider_frontend::smtp::limit::{
    CONNECTIONS_PER_NETWORK_PER_MINUTE, MESSAGES_PER_ACCOUNT_PER_HOUR, MESSAGES_PER_NETWORK_PER_MINUTE,
    RECIPIENTS_PER_ACCOUNT_PER_HOUR,
};
use postrider_frontend::worker::WorkerTimings;
use postrider_frontend::{AccountSettings, Frontend, FrontendOptions, RestSettings, SmtpSettings};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::acme::AcmeConfig;
use super::backend::Backend;
use super::cache::CacheConfig;
use super::images::ImagesConfig;
use super::operators::OperatorsConfig;
use super::outgoing::OutgoingConfig;
use super::{ClusterConfig, StoreConfig, round_trips};
use crate::signal::Stop;
use crate::telemetry::traces::{self, Process, TracesConfig};

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
    /// Where counters are served over plain HTTP at /metrics, beside REST's, which wants the admin token; not at all when it is left out.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// A name server's configuration, for what is told of domains over HTTPS (MTA-STS, autoconfig); without it nothing is. Only its
    /// `[[regions]]`, `[policy]` and `[domains]` are looked at.
    pub(crate) dns_config: Option<PathBuf>,
    /// gRPC addresses (HOST:PORT) of the region's name servers, which are told how far clients are; none: it is not measured.
    #[serde(default)]
    pub(crate) name_servers: Vec<String>,
    /// Who operates the cluster at this frontend's `/admin`; without it nobody does.
    pub(crate) operators: Option<OperatorsConfig>,
    /// The storage nodes.
    pub(crate) cluster: ClusterConfig,
    /// REST and WebSocket.
    pub(crate) rest: RestConfig,
    /// Receiving mail.
    pub(crate) smtp: SmtpConfig,
    /// How mail leaves, where this process is a worker.
    #[serde(default)]
    pub(crate) outgoing: OutgoingConfig,
    /// Images of the network that messages show.
    #[serde(default)]
    pub(crate) images: ImagesConfig,
    /// What the region's frontends keep near.
    #[serde(default)]
    pub(crate) cache: CacheConfig,
    /// Which traces are kept, and where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<TracesConfig>,
    /// Certificates of a public authority; without it this frontend orders none, and shows those that others have ordered.
    pub(crate) acme: Option<AcmeConfig>,
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
    /// Requests that one account gets in a minute; 0: as many as it likes.
    #[serde(default = "requests_per_account_per_minute")]
    pub(crate) requests_per_account_per_minute: u32,
    /// Networks of proxies whose connections begin with a PROXY protocol header, version 2.
    #[serde(default, skip_serializing_if = "Networks::is_empty")]
    pub(crate) proxy_protocol_from: Networks,
    /// HTTPS; without it HTTP is plain.
    pub(crate) tls: Option<CertificateConfig>,
    /// Proxies that name the client in each request.
    pub(crate) forwarded: Option<ForwardedConfig>,
}

/// What a listener shows to its clients, in PEM. Read again when the files change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateConfig {
    /// The certificate, with its chain.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// Proxies that name the client in each request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardedConfig {
    /// Their networks.
    pub(crate) from: Networks,
    /// What they write: `forwarded` (RFC 7239) or `x-forwarded-for`. The other one is not looked at.
    #[serde(default)]
    pub(crate) field: ForwardedField,
}

/// Receiving mail, and submission.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SmtpConfig {
    /// Where SMTP listens.
    pub(crate) listen: SocketAddr,
    /// Where programs submit mail with STARTTLS (587); without it nowhere.
    pub(crate) submission_listen: Option<SocketAddr>,
    /// Where they do with TLS from the first byte (465); without it nowhere.
    pub(crate) submissions_listen: Option<SocketAddr>,
    /// The name that it greets with.
    pub(crate) host: String,
    /// Certificate for STARTTLS; without it and its key STARTTLS is not offered.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
    /// Networks of proxies whose connections begin with a PROXY protocol header, version 2.
    #[serde(default, skip_serializing_if = "Networks::is_empty")]
    pub(crate) proxy_protocol_from: Networks,
    /// Connections that one client network gets in a minute; 0: as many as it likes.
    #[serde(default = "connections_per_network_per_minute")]
    pub(crate) connections_per_network_per_minute: u32,
    /// Messages that one client network gets in a minute; 0: as many as it likes.
    #[serde(default = "messages_per_network_per_minute")]
    pub(crate) messages_per_network_per_minute: u32,
    /// Messages that one account sends in an hour, by REST and submission together; 0: as many as it likes.
    #[serde(default = "messages_per_account_per_hour")]
    pub(crate) messages_per_account_per_hour: u32,
    /// Their recipients; 0: as many as it likes.
    #[serde(default = "recipients_per_account_per_hour")]
    pub(crate) recipients_per_account_per_hour: u32,
}

fn requests_per_account_per_minute() -> u32 {
    REQUESTS_PER_ACCOUNT_PER_MINUTE
}

fn connections_per_network_per_minute() -> u32 {
    CONNECTIONS_PER_NETWORK_PER_MINUTE
}

fn messages_per_network_per_minute() -> u32 {
    MESSAGES_PER_NETWORK_PER_MINUTE
}

fn messages_per_account_per_hour() -> u32 {
    MESSAGES_PER_ACCOUNT_PER_HOUR
}

fn recipients_per_account_per_hour() -> u32 {
    RECIPIENTS_PER_ACCOUNT_PER_HOUR
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
    let (rest_certificate, smtp_certificate) = (config.rest.certificate()?, config.smtp.certificate()?);
    let authority = config.acme.as_ref().map(|acme| acme.settings(&config.region)).transpose()?;
    let public = PublicCertificates::new(acme::sealer(&secret), SystemClock::shared());
    let rest_tls = shown(rest_certificate.as_ref(), &public, PROTOCOLS, None, Duration::ZERO)?;
    let host = Some(config.smtp.host.as_str());
    let smtp_tls = shown(smtp_certificate.as_ref(), &public, &[], host, KEY_KNOWN_MIN)?;
    let forwarded = config.rest.forwarded()?;
    let mail_names =
        config.dns_config.as_deref().map(super::dns::config::mail_names).transpose().context("dns_config")?;
    let operators = match &config.operators {
        Some(operators) => Some(operators.check(&config.region, &config.cluster, config.dns_config.as_deref())?),
        None => None,
    };
    let cache = config.cache.settings()?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let metrics = super::counters::install(config.metrics_listen).await?;
    let process = Process { role: "frontend", region: config.region.clone(), node: None };
    traces::start(config.traces.as_ref(), &process)?;
    // Its counters want the recorder.
    let cache = Cache::new(&cache, &secret, SystemClock::shared(), SystemEntropy::shared()).context("cache")?;
    let limiter = cache.limiter(config.limits());
    let mut stop = Stop::listen()?;
    let backend = Backend::new(&config.region, &config.cluster, &config.stores).await?;
    let name_servers = round_trips::connect(&config.name_servers, &backend.identity).context("name_servers")?;
    let round_trips = round_trips::measure(&name_servers);
    let Some(router) = backend.connect(&mut stop).await? else { return Ok(()) };
    let operators = match operators {
        Some(operators) => {
            let Some(settings) = operators.connect(&mut stop).await? else { return Ok(()) };
            Some(settings)
        }
        None => None,
    };
    let router: Arc<dyn Cluster> = Arc::new(router);
    let fetcher = config.images.fetcher(&config.outgoing)?;
    let outside = match config.worker {
        true => config.outgoing.settings(&config.smtp.host, &backend.blobs, Some(&secret), cache.region_workers())?,
        false => None,
    };
    let http_listen = config.acme.as_ref().and_then(|acme| acme.http_listen);
    let ordering = acme::Service::start(http_listen, authority, &router, &secret).await.context("acme.http_listen")?;
    public.take_up(&router.map());
    let following = tokio::spawn(public.follow(router.map_changes()));
    let options = FrontendOptions {
        region: config.region.clone(),
        cluster: Arc::clone(&router),
        blobs: backend.blobs,
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
        accounts: Some(AccountSettings {
            cluster_secret: secret,
            password_cost: PasswordCost::default(),
            limiter: limiter.clone(),
        }),
        rest: Some(RestSettings {
            listen: config.rest.listen,
            tls: rest_tls,
            proxies: config.rest.proxy_protocol_from,
            forwarded,
            sign_up: if config.rest.open_sign_up { SignUpPolicy::Open } else { SignUpPolicy::Closed },
            admin_token,
            operators,
            cache,
            fetcher,
            metrics: Some(metrics),
            round_trips: round_trips.clone(),
            mail_names,
        }),
        smtp: Some(SmtpSettings {
            listen: config.smtp.listen,
            host: config.smtp.host,
            banner: BANNER.into(),
            tls: smtp_tls,
            submission: config.smtp.submission_listen,
            submission_tls: config.smtp.submissions_listen,
            proxies: config.smtp.proxy_protocol_from,
            limits: SmtpLimits::default(),
            limiter,
            round_trips: round_trips.clone(),
        }),
        worker: config.worker.then(WorkerTimings::default),
        outside,
    };
    let frontend = Frontend::start(options).await.context("start the frontend")?;
    let (rest, smtp) = (frontend.rest_addr(), frontend.smtp_addr());
    let (submission, submissions) = (frontend.submission_addr(), frontend.submission_tls_addr());
    tracing::info!(region = config.region, ?rest, ?smtp, ?submission, ?submissions, "frontend serves");
    let (wanted, looks) = watch::channel(());
    for certificate in [rest_certificate, smtp_certificate].into_iter().flatten() {
        tokio::spawn(certificate.keep_up(looks.clone()));
    }
    let telling = tokio::spawn(round_trips::tell(round_trips, config.region, name_servers));
    let reason = loop {
        tokio::select! {
            reason = stop.wait() => break reason,
            _ = hang_up.recv() => {
                tracing::info!("SIGHUP: certificates are read again");
                wanted.send_replace(());
            }
        }
    };
    tracing::info!(reason, "frontend stops");
    telling.abort();
    following.abort();
    drop(wanted);
    tokio::join!(frontend.shutdown(), ordering.stop());
    Ok(())
}

/// What a listener shows: what files hold, or the public certificate of the name that is asked for. `None` where there are no files.
fn shown(
    files: Option<&Arc<Certificates>>,
    public: &Arc<PublicCertificates>,
    protocols: &[&[u8]],
    host: Option<&str>,
    known_min: Duration,
) -> Result<Option<Arc<ServerConfig>>, rustls::Error> {
    let Some(files) = files else { return Ok(None) };
    let (files, public) = (Arc::clone(files), Arc::clone(public));
    let shown = Shown { files, public, host: host.map(str::to_owned), known_min };
    certificates::server_config(Arc::new(shown), protocols).map(Some)
}

impl FrontendRoleConfig {
    /// What clients get in a time.
    fn limits(&self) -> LimitTable {
        LimitTable::default()
            .with(LimitKind::Requests, Limit::per_minute(self.rest.requests_per_account_per_minute))
            .with(LimitKind::Connections, Limit::per_minute(self.smtp.connections_per_network_per_minute))
            .with(LimitKind::Messages, Limit::per_minute(self.smtp.messages_per_network_per_minute))
            .with(LimitKind::SentMessages, Limit::per_hour(self.smtp.messages_per_account_per_hour))
            .with(LimitKind::SentRecipients, Limit::per_hour(self.smtp.recipients_per_account_per_hour))
    }
}

impl RestConfig {
    fn certificate(&self) -> anyhow::Result<Option<Arc<Certificates>>> {
        let Some(files) = &self.tls else { return Ok(None) };
        Certificates::load(&files.cert, &files.key).context("rest.tls").map(Some)
    }

    fn forwarded(&self) -> anyhow::Result<Option<ForwardedFrom>> {
        let Some(forwarded) = &self.forwarded else { return Ok(None) };
        ensure!(!forwarded.from.is_empty(), "rest.forwarded.from names no network: nobody would be believed");
        Ok(Some(ForwardedFrom { networks: forwarded.from.clone(), field: forwarded.field }))
    }
}

impl SmtpConfig {
    /// What is shown within TLS; `None` when it is not offered.
    fn certificate(&self) -> anyhow::Result<Option<Arc<Certificates>>> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Certificates::load(cert, key).context("smtp.cert and smtp.key").map(Some),
            (None, None) if self.submission_listen.or(self.submissions_listen).is_some() => {
                bail!(
                    "smtp.submission_listen and smtp.submissions_listen want smtp.cert and smtp.key: passwords are taken over TLS only"
                )
            }
            (None, None) => Ok(None),
            _ => bail!("smtp.cert and smtp.key belong together: one of them is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_network_names_its_key() {
        let text = "listen = \"127.0.0.1:0\"\nproxy_protocol_from = [\"10.0.0.1/8\"]\n";
        let error = toml::from_str::<RestConfig>(text).unwrap_err().to_string();
        assert!(error.contains("proxy_protocol_from") && error.contains("10.0.0.1/8"), "{error}");
        let text = "listen = \"127.0.0.1:0\"\n[forwarded]\nfrom = [\"10.0.0.0/8\"]\nfield = \"x-forwarded-for\"\n";
        let forwarded = toml::from_str::<RestConfig>(text).unwrap().forwarded().unwrap().unwrap();
        assert_eq!(forwarded.field, ForwardedField::XForwardedFor);
        let text = "listen = \"127.0.0.1:0\"\n[forwarded]\nfrom = []\n";
        assert!(toml::from_str::<RestConfig>(text).unwrap().forwarded().is_err());
    }
}
