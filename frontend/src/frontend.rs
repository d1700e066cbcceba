//! One frontend: the protocols and the worker, wired.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use postrider_api::env::{Clock, Entropy};
use thiserror::Error;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::account::SignUpPolicy;
use crate::account::password::PasswordCost;
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::limits::Limiter;
use crate::network::Networks;
use crate::rest::{ClusterSecret, ForwardedFrom, RestOptions, RestServer, RestStartError};
use crate::smtp::{BlobSink, SmtpLimits, SmtpOptions, SmtpServer};
use crate::worker::{Worker, WorkerTimings};

/// What a frontend is told when it starts. What is `None` is not run.
pub struct FrontendOptions {
    /// Region of this frontend.
    pub region: String,
    /// The storage cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The object stores.
    pub blobs: Blobs,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// REST and WebSocket.
    pub rest: Option<RestSettings>,
    /// SMTP.
    pub smtp: Option<SmtpSettings>,
    /// Emptying the queues.
    pub worker: Option<WorkerTimings>,
}

/// REST and WebSocket.
pub struct RestSettings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS with this certificate, [`PROTOCOLS`](crate::rest::PROTOCOLS) by ALPN; without it HTTP is plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// Where proxies stand that name the client in each request.
    pub forwarded: Option<ForwardedFrom>,
    /// The same at every frontend of the cluster.
    pub cluster_secret: ClusterSecret,
    /// Who may make accounts.
    pub sign_up: SignUpPolicy,
    /// Lets its holder make accounts where sign-up is closed, and read counters.
    pub admin_token: Option<String>,
    /// What one password hash costs.
    pub password_cost: PasswordCost,
    /// How much of what is let through.
    pub limiter: Limiter,
    /// What the region's frontends keep near and count together.
    pub cache: Cache,
    /// Renders what was counted, for `/metrics`.
    pub metrics: Option<PrometheusHandle>,
}

/// SMTP.
pub struct SmtpSettings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How the server calls itself: in the greeting, in EHLO's answer and in trace fields.
    pub host: String,
    /// What stands behind `220 host ESMTP` in the greeting.
    pub banner: String,
    /// The certificate for STARTTLS; without one it is not offered.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// How much and how long.
    pub limits: SmtpLimits,
    /// How many connections and messages of one network in a time.
    pub limiter: Limiter,
}

/// Why a frontend did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// REST did not.
    #[error(transparent)]
    Rest(#[from] RestStartError),
    /// The SMTP address cannot be listened on.
    #[error("cannot listen on {address} for SMTP: {source}")]
    Smtp {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A running frontend.
pub struct Frontend {
    rest: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
    drain: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Frontend {
    /// Listens, serves and works. Returns once it does.
    ///
    /// # Errors
    /// When a protocol cannot start; none of them runs then.
    pub fn start(options: FrontendOptions) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async move {
            let drain = CancellationToken::new();
            let mut frontend = Self { rest: None, smtp: None, drain: drain.clone(), tasks: Vec::new() };
            let FrontendOptions { region, cluster, blobs, clock, entropy, rest, smtp, worker } = options;
            // Both listen before either serves: what starts half would be in the way of the next try.
            let rest = match rest {
                Some(settings) => {
                    let options = rest_options(settings, &region, &cluster, &blobs, &clock, &entropy);
                    Some(RestServer::bind(options, drain.clone()).await?)
                }
                None => None,
            };
            let smtp = match smtp {
                Some(settings) => {
                    let address = settings.listen;
                    let failed = |source| StartError::Smtp { address, source };
                    let options = smtp_options(settings, &region, &clock, &entropy);
                    let sink: Arc<dyn BlobSink> = Arc::new(blobs.clone());
                    let server =
                        SmtpServer::bind(options, Arc::clone(&cluster), sink, drain.clone()).await.map_err(failed)?;
                    frontend.smtp = Some(server.local_addr().map_err(failed)?);
                    Some(server)
                }
                None => None,
            };
            if let Some(server) = rest {
                frontend.rest = Some(server.local_addr());
                frontend.tasks.push(("rest", tokio::spawn(server.run())));
            }
            if let Some(server) = smtp {
                frontend.tasks.push(("smtp", tokio::spawn(server.run())));
            }
            if let Some(timings) = worker {
                let worker = Worker::new(cluster, Arc::new(blobs), clock, entropy, timings);
                frontend.tasks.push(("worker", tokio::spawn(worker.run(drain))));
            }
            Ok(frontend)
        })
    }

    /// Where REST listens.
    pub fn rest_addr(&self) -> Option<SocketAddr> {
        self.rest
    }

    /// Where SMTP listens.
    pub fn smtp_addr(&self) -> Option<SocketAddr> {
        self.smtp
    }

    /// Takes nothing new, finishes what was accepted, and returns when everything has ended.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.drain.cancel();
            for (room, task) in self.tasks {
                report(room, task.await);
            }
        })
    }
}

fn report(room: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(room, %error, "a part of the frontend did not end well");
    }
}

fn rest_options(
    settings: RestSettings,
    region: &str,
    cluster: &Arc<dyn Cluster>,
    blobs: &Blobs,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> RestOptions {
    RestOptions {
        listen: settings.listen,
        tls: settings.tls,
        proxies: settings.proxies,
        forwarded: settings.forwarded,
        cluster: Arc::clone(cluster),
        blobs: blobs.clone(),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        region: region.to_owned(),
        cluster_secret: settings.cluster_secret,
        sign_up: settings.sign_up,
        admin_token: settings.admin_token,
        password_cost: settings.password_cost,
        limiter: settings.limiter,
        cache: settings.cache,
        metrics: settings.metrics,
    }
}

fn smtp_options(
    settings: SmtpSettings,
    region: &str,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> SmtpOptions {
    SmtpOptions {
        listen: settings.listen,
        host: settings.host,
        banner: settings.banner,
        region: region.to_owned(),
        tls: settings.tls,
        proxies: settings.proxies,
        limits: settings.limits,
        limiter: settings.limiter,
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
    }
}
