//! One frontend: the protocols and the worker, wired.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use postrider_api::env::{Clock, Entropy};
use postrider_outgoing::web::Fetcher;
use thiserror::Error;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::account::password::PasswordCost;
use crate::account::{AccountOptions, Accounts, SignUpPolicy};
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::limits::Limiter;
use crate::network::Networks;
use crate::operating::OperatorSettings;
use crate::rest::{ClusterSecret, ForwardedFrom, MailNames, RestOptions, RestServer, RestStartError};
use crate::round_trips::RoundTrips;
use crate::smtp::{BlobSink, Door, SmtpLimits, SmtpOptions, SmtpServer, SubmissionOptions};
use crate::worker::{OutsideSettings, Worker, WorkerTimings};

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
    /// For every protocol that lets an account's owner or his programs in: REST and submission; `None` where neither runs.
    pub accounts: Option<AccountSettings>,
    /// REST and WebSocket.
    pub rest: Option<RestSettings>,
    /// SMTP.
    pub smtp: Option<SmtpSettings>,
    /// Emptying the queues.
    pub worker: Option<WorkerTimings>,
    /// How the worker sends to the outside; `None`: what is for there waits for another one.
    pub outside: Option<OutsideSettings>,
}

/// What is the same for every protocol that people log in by: attempts are counted together.
#[derive(Clone)]
pub struct AccountSettings {
    /// The same at every frontend of the cluster.
    pub cluster_secret: ClusterSecret,
    /// What one password hash costs.
    pub password_cost: PasswordCost,
    /// How much of what is let through.
    pub limiter: Limiter,
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
    /// Who may make accounts.
    pub sign_up: SignUpPolicy,
    /// Lets its holder make accounts where sign-up is closed, and read counters.
    pub admin_token: Option<String>,
    /// Who operates the cluster through this frontend; `None`: nobody.
    pub operators: Option<OperatorSettings>,
    /// What the region's frontends keep near and count together.
    pub cache: Cache,
    /// Fetches the images that messages show; without it none of the network are shown.
    pub fetcher: Option<Fetcher>,
    /// Renders what was counted, for `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Measures how far clients are.
    pub round_trips: RoundTrips,
    /// What is told of domains beside DNS; `None`: nothing.
    pub mail_names: Option<MailNames>,
}

/// SMTP.
pub struct SmtpSettings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How the server calls itself: in the greeting, in EHLO's answer and in trace fields.
    pub host: String,
    /// What stands behind `220 host ESMTP` in the greeting.
    pub banner: String,
    /// The certificate; without one STARTTLS is not offered, and nothing is submitted.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where programs submit mail with STARTTLS (587); `None`: nowhere.
    pub submission: Option<SocketAddr>,
    /// Where they begin with TLS (465); `None`: nowhere.
    pub submission_tls: Option<SocketAddr>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// How much and how long.
    pub limits: SmtpLimits,
    /// How many connections and messages of one network in a time.
    pub limiter: Limiter,
    /// Measures how far clients are.
    pub round_trips: RoundTrips,
}

/// Why a frontend did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// REST did not.
    #[error(transparent)]
    Rest(#[from] RestStartError),
    /// One of the SMTP addresses cannot be listened on.
    #[error("cannot listen on {addresses} for SMTP: {source}")]
    Smtp {
        /// Which addresses.
        addresses: String,
        /// Why.
        source: std::io::Error,
    },
    /// REST or submission is to run, and nobody has said how people log in.
    #[error("REST and submission want the settings of accounts")]
    AccountsMissing,
    /// The cost of password hashes is outside of what argon2 allows.
    #[error("the password cost cannot be used: {0}")]
    PasswordCost(argon2::Error),
}

/// A running frontend.
pub struct Frontend {
    rest: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
    submission: Option<SocketAddr>,
    submission_tls: Option<SocketAddr>,
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
            let mut frontend = Self {
                rest: None,
                smtp: None,
                submission: None,
                submission_tls: None,
                drain: drain.clone(),
                tasks: Vec::new(),
            };
            let FrontendOptions { region, cluster, blobs, clock, entropy, accounts, rest, smtp, worker, outside } =
                options;
            let accounts = match accounts {
                Some(settings) => Some((make_accounts(&settings, &region, &cluster, &clock, &entropy)?, settings)),
                None => None,
            };
            // Both listen before either serves: what starts half would be in the way of the next try.
            let rest = match rest {
                Some(settings) => {
                    let accounts = accounts.clone().ok_or(StartError::AccountsMissing)?;
                    let options = rest_options(settings, accounts, &region, &cluster, &blobs, &clock, &entropy);
                    Some(RestServer::bind(options, drain.clone()).await?)
                }
                None => None,
            };
            let smtp = match smtp {
                Some(settings) => {
                    let listens = [Some(settings.listen), settings.submission, settings.submission_tls];
                    let listens: Vec<String> =
                        listens.into_iter().flatten().map(|address| address.to_string()).collect();
                    let failed = |source| StartError::Smtp { addresses: listens.join(", "), source };
                    let options = smtp_options(settings, accounts, &region, &clock, &entropy)?;
                    let sink: Arc<dyn BlobSink> = Arc::new(blobs.clone());
                    let server =
                        SmtpServer::bind(options, Arc::clone(&cluster), sink, drain.clone()).await.map_err(failed)?;
                    frontend.smtp = server.local_addr(Door::Receive).map_err(failed)?;
                    frontend.submission = server.local_addr(Door::Submit).map_err(failed)?;
                    frontend.submission_tls = server.local_addr(Door::SubmitTls).map_err(failed)?;
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
                let worker = Worker::new(cluster, Arc::new(blobs), clock, entropy, timings, outside);
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

    /// Where submission listens with STARTTLS.
    pub fn submission_addr(&self) -> Option<SocketAddr> {
        self.submission
    }

    /// Where submission listens with TLS from the first byte.
    pub fn submission_tls_addr(&self) -> Option<SocketAddr> {
        self.submission_tls
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

fn make_accounts(
    settings: &AccountSettings,
    region: &str,
    cluster: &Arc<dyn Cluster>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<Accounts>, StartError> {
    let accounts = Accounts::new(AccountOptions {
        cluster: Arc::clone(cluster),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        region: region.to_owned(),
        token_key: settings.cluster_secret.key("postrider 2026 session token"),
        cost: settings.password_cost,
        limiter: settings.limiter.clone(),
    });
    accounts.map(Arc::new).map_err(StartError::PasswordCost)
}

fn rest_options(
    settings: RestSettings,
    (accounts, shared): (Arc<Accounts>, AccountSettings),
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
        accounts,
        cluster_secret: shared.cluster_secret,
        sign_up: settings.sign_up,
        admin_token: settings.admin_token,
        operators: settings.operators,
        limiter: shared.limiter,
        cache: settings.cache,
        fetcher: settings.fetcher,
        metrics: settings.metrics,
        round_trips: settings.round_trips,
        mail_names: settings.mail_names,
    }
}

fn smtp_options(
    settings: SmtpSettings,
    accounts: Option<(Arc<Accounts>, AccountSettings)>,
    region: &str,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<SmtpOptions, StartError> {
    let SmtpSettings { submission: listen, submission_tls: listen_tls, .. } = settings;
    let return_paths = accounts.as_ref().map(|(_, shared)| shared.cluster_secret.return_paths());
    let submission = match listen.is_some() || listen_tls.is_some() {
        true => {
            let (programs, _) = accounts.ok_or(StartError::AccountsMissing)?;
            Some(SubmissionOptions { listen, listen_tls, programs })
        }
        false => None,
    };
    Ok(SmtpOptions {
        listen: settings.listen,
        submission,
        return_paths,
        host: settings.host,
        banner: settings.banner,
        region: region.to_owned(),
        tls: settings.tls,
        proxies: settings.proxies,
        limits: settings.limits,
        limiter: settings.limiter,
        round_trips: settings.round_trips,
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
    })
}
