//! REST v1, WebSocket and long-poll, the OpenAPI document and what operators ask.
//!
//! Invariant (P-9): a handler reaches a mailbox only through [`mailboxes`], under the session that the request shows.
//! Invariant: every error is a row of [`problem`]'s table; every limit a constant of [`limit`].

pub mod limit;

mod accounts;
pub(crate) mod acme_challenges;
mod admin;
mod administration;
mod administrator;
mod app_passwords;
mod attachments;
mod bodies;
mod conditional;
mod credentials;
mod crossing;
mod cursor;
mod docs;
mod drafts;
mod events;
mod exchanges;
mod extract;
mod feedback;
mod folders;
mod forwarded;
mod found;
mod gate;
mod grants;
mod html_view;
mod images;
mod impostors;
mod intent;
mod json;
mod labels;
mod lists;
mod mail_names;
mod mailboxes;
mod messages;
mod name;
mod near;
mod openapi;
mod operations;
mod outbox;
mod outgoing;
mod problem;
mod profile;
mod rates;
mod regions;
mod search;
mod second_factor;
mod send;
mod server;
mod sessions;
mod shares;
mod time;
mod turns;
mod unsubscribe;
mod updates;
mod upload;
mod uploads;
mod view;
mod webmail;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use postrider_api::env::{Clock, Entropy};
use postrider_outgoing::return_path::ReturnPaths;
use postrider_outgoing::unsubscribe::UnsubscribeTokens;
use postrider_outgoing::web::Fetcher;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::account::{Accounts, SignUpPolicy};
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::limits::Limiter;
use crate::network::Networks;
use crate::operating::OperatorSettings;
use crate::rest::accounts::SignUpGate;
use crate::rest::admin::operator::Operators;
use crate::rest::administrator::Administrator;
use crate::rest::bodies::Bodies;
use crate::rest::conditional::EntityTags;
use crate::rest::cursor::Cursors;
use crate::rest::events::streams::Streams;
use crate::rest::grants::Grants;
use crate::rest::images::Images;
use crate::rest::impostors::Impostors;
use crate::rest::intent::Intents;
use crate::rest::mailboxes::Mailboxes;
use crate::rest::near::Near;
use crate::rest::operations::{OpenApiDocument, Operations};
use crate::rest::rates::Rates;
use crate::rest::regions::Regions;
use crate::rest::search::Searches;
use crate::rest::send::Outbox;
use crate::rest::server::{Door, ServerLimits};
use crate::rest::unsubscribe::Unsubscribing;
use crate::rest::uploads::UploadIds;
use crate::round_trips::RoundTrips;

pub use crate::rest::cursor::fuzz_cursor;
pub use crate::rest::forwarded::{ForwardedField, ForwardedFrom, fuzz_forwarded};
pub use crate::rest::grants::fuzz_grant;
pub use crate::rest::mail_names::MailNames;
pub use crate::rest::uploads::fuzz_upload;
pub use crate::rest::view::fuzz_color;

/// What REST's listener speaks over TLS (ALPN), first what it takes if it can.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// What REST needs.
pub struct RestOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS with this certificate, [`PROTOCOLS`] by ALPN; without it HTTP is plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// Where proxies stand that name the client in each request.
    pub forwarded: Option<ForwardedFrom>,
    /// The storage cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The object stores.
    pub blobs: Blobs,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Region of this frontend.
    pub region: String,
    /// The same at every frontend of the cluster: cursors and repeated requests are understood everywhere.
    pub cluster_secret: ClusterSecret,
    /// Who may make accounts.
    pub sign_up: SignUpPolicy,
    /// Lets its holder make accounts where sign-up is closed, and read counters.
    pub admin_token: Option<String>,
    /// Who operates the cluster through this frontend; `None`: nobody.
    pub operators: Option<OperatorSettings>,
    /// Who has an account.
    pub accounts: Arc<Accounts>,
    /// How much of what is let through.
    pub limiter: Limiter,
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

/// A secret of at least 32 random bytes that all frontends of a cluster share. Not `Debug`.
#[derive(Clone)]
pub struct ClusterSecret(Vec<u8>);

/// Shortest cluster secret, bytes.
pub const CLUSTER_SECRET_BYTES_MIN: usize = 32;

/// A cluster secret that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster secret has at least {CLUSTER_SECRET_BYTES_MIN} bytes")]
pub struct SecretTooShort;

impl ClusterSecret {
    /// # Errors
    /// When it has fewer than [`CLUSTER_SECRET_BYTES_MIN`] bytes.
    pub fn new(secret: Vec<u8>) -> Result<Self, SecretTooShort> {
        if secret.len() < CLUSTER_SECRET_BYTES_MIN { Err(SecretTooShort) } else { Ok(Self(secret)) }
    }

    /// A key for one purpose.
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }

    /// Where reports on mail that leaves come back to: what a worker writes, every frontend reads.
    pub fn return_paths(&self) -> ReturnPaths {
        ReturnPaths::new(&self.key("postrider 2026 return paths"))
    }

    /// Links by which recipients get no more of somebody's mail: what a worker makes, every frontend takes.
    pub fn unsubscribe_tokens(&self) -> UnsubscribeTokens {
        UnsubscribeTokens::new(&self.key("postrider 2026 unsubscribe links"))
    }
}

/// What handlers take as `State`: each only what it uses.
#[derive(Clone, FromRef)]
struct Handles {
    mailboxes: Mailboxes,
    accounts: Arc<Accounts>,
    administrator: Administrator,
    operators: Operators,
    sign_up: Arc<SignUpGate>,
    intents: Intents,
    cursors: Arc<Cursors>,
    tags: EntityTags,
    searches: Searches,
    bodies: Bodies,
    unsubscribe: Arc<Unsubscribing>,
    outbox: Outbox,
    grants: Grants,
    images: Images,
    streams: Streams,
    operations: Arc<Operations>,
    regions: Regions,
    document: OpenApiDocument,
}

/// Why REST did not start.
#[derive(Debug, thiserror::Error)]
pub enum RestStartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The OpenAPI document cannot be written.
    #[error("the OpenAPI document cannot be written: {0}")]
    Document(serde_json::Error),
}

/// A REST server that listens.
pub struct RestServer {
    listener: TcpListener,
    router: Router,
    door: Door,
    streams: Streams,
    drain: CancellationToken,
    address: SocketAddr,
}

impl RestServer {
    /// Listens; whoever connects now is served once [`Self::run`] runs. It ends when `drain` is cancelled.
    ///
    /// # Errors
    /// See [`RestStartError`].
    pub async fn bind(mut options: RestOptions, drain: CancellationToken) -> Result<Self, RestStartError> {
        let failed = |source| RestStartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let streams = Streams::new(drain.clone());
        let door = Door {
            tls: options.tls.take(),
            proxies: std::mem::take(&mut options.proxies),
            forwarded: options.forwarded.take(),
            round_trips: options.round_trips.clone(),
        };
        let router = router(options, streams.clone())?;
        Ok(Self { listener, router, door, streams, drain, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `drain` is cancelled: then no new connections, open requests end, event streams close with 1001, all
    /// within [`limit::DRAIN_MAX`].
    pub async fn run(self) {
        let Self { listener, router, door, streams, drain, .. } = self;
        let serving = server::serve(listener, router, door, ServerLimits::default(), drain.clone());
        let streams_end = async {
            drain.cancelled().await;
            if tokio::time::timeout(limit::DRAIN_MAX, streams.ended()).await.is_err() {
                tracing::warn!("event streams were cut off: they did not end in time");
            }
        };
        tokio::join!(serving, streams_end);
    }
}

fn router(options: RestOptions, streams: Streams) -> Result<Router, RestStartError> {
    let (router, api) = paths().split_for_parts();
    let document = serde_json::to_vec(&openapi::with_cookies(api)).map_err(RestStartError::Document)?;
    let mail_names = mail_names::paths(options.mail_names.clone(), Arc::clone(&options.cluster));
    let acme_challenges = acme_challenges::paths(Arc::clone(&options.cluster));
    let handles = handles(options, streams, OpenApiDocument(Bytes::from(document)));
    Ok(router
        .merge(webmail::paths())
        .merge(mail_names)
        .merge(acme_challenges)
        .fallback(gate::not_found)
        .method_not_allowed_fallback(gate::method_not_allowed)
        .layer(middleware::from_fn(gate::pass))
        .with_state(handles))
}

fn handles(options: RestOptions, streams: Streams, document: OpenApiDocument) -> Handles {
    let RestOptions { cluster, clock, entropy, cluster_secret: secret, .. } = options;
    let administrator = Administrator::new(options.admin_token.as_deref());
    let limiter = options.limiter;
    let impostors = Impostors::new(limiter.clone());
    let (rates, sending) = (Rates::new(limiter.clone(), administrator.clone()), limiter);
    let near = Near::new(options.cache, Arc::clone(&cluster), options.region.clone());
    let bodies = Bodies::new(options.blobs, Arc::clone(&cluster), near);
    Handles {
        mailboxes: Mailboxes::new(Arc::clone(&cluster), Arc::clone(&entropy), impostors, rates),
        accounts: options.accounts,
        sign_up: Arc::new(SignUpGate::new(options.sign_up, administrator.clone())),
        administrator,
        operators: Operators::new(options.operators, Arc::clone(&entropy)),
        intents: Intents::new(secret.key("postrider 2026 request fingerprint"), Arc::clone(&entropy)),
        cursors: Arc::new(Cursors::new(&secret.key("postrider 2026 cursor"))),
        unsubscribe: Arc::new(Unsubscribing::new(
            Arc::clone(&cluster),
            secret.unsubscribe_tokens(),
            Arc::clone(&entropy),
        )),
        tags: EntityTags::new(secret.key("postrider 2026 entity tag")),
        grants: Grants::new(&secret.key("postrider 2026 grant"), Arc::clone(&clock)),
        images: Images::new(options.fetcher),
        searches: Searches::new(Arc::clone(&clock)),
        outbox: Outbox::new(
            bodies.clone(),
            Arc::clone(&clock),
            entropy,
            sending,
            UploadIds::new(&secret.key("postrider 2026 upload")),
        ),
        bodies,
        streams,
        regions: Regions::new(Arc::clone(&cluster), options.region.clone()),
        operations: Arc::new(Operations::new(cluster, clock, options.region, options.metrics)),
        document,
    }
}

/// Every path, with its documentation.
fn paths() -> OpenApiRouter<Handles> {
    OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(accounts::sign_up))
        .routes(routes!(accounts::log_in, sessions::list))
        .routes(routes!(accounts::log_out))
        .routes(routes!(accounts::delete))
        .routes(routes!(sessions::end))
        .routes(routes!(second_factor::read, second_factor::begin, second_factor::remove))
        .routes(routes!(second_factor::confirm))
        .routes(routes!(second_factor::replace))
        .routes(routes!(app_passwords::list, app_passwords::create))
        .routes(routes!(app_passwords::remove))
        .routes(routes!(profile::read, profile::patch))
        .routes(routes!(profile::change_password))
        .routes(routes!(folders::list, folders::create))
        .routes(routes!(folders::rename, folders::remove))
        .routes(routes!(labels::list, labels::create))
        .routes(routes!(labels::patch, labels::remove))
        .routes(routes!(lists::messages))
        .routes(routes!(lists::labelled))
        .routes(routes!(lists::threads))
        .routes(routes!(lists::thread))
        .routes(routes!(search::messages))
        .routes(routes!(search::threads))
        .routes(routes!(search::suggest))
        .routes(routes!(send::send))
        .routes(routes!(uploads::upload))
        .routes(routes!(outbox::list))
        .routes(routes!(outbox::read))
        .routes(routes!(outbox::cancel))
        .routes(routes!(feedback::list))
        .routes(routes!(feedback::suppressions))
        .routes(routes!(feedback::suppress, feedback::unsuppress))
        .routes(routes!(drafts::create))
        .routes(routes!(drafts::replace, drafts::remove))
        .routes(routes!(drafts::send))
        .routes(routes!(updates::batch))
        .routes(routes!(messages::read, updates::patch, updates::remove))
        .routes(routes!(messages::raw))
        .routes(routes!(html_view::view))
        .routes(routes!(images::remote))
        .routes(routes!(images::part))
        .routes(routes!(attachments::read))
        .routes(routes!(events::websocket::events))
        .routes(routes!(events::poll::poll))
        .routes(routes!(regions::list))
        .routes(routes!(regions::ping))
        .routes(routes!(unsubscribe::ask, unsubscribe::unsubscribe))
        .routes(routes!(administration::feedback))
        .routes(routes!(administration::suppressions))
        .routes(routes!(administration::suppress, administration::unsuppress))
        .routes(routes!(administration::domain_suppressions))
        .routes(routes!(administration::suppress_for_domain, administration::unsuppress_for_domain))
        .merge(admin::paths())
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::openapi_json))
        .routes(routes!(docs::root))
        .routes(routes!(docs::page))
        .routes(routes!(docs::markdown))
        .routes(routes!(docs::script))
        .routes(routes!(docs::style))
}

/// The OpenAPI document, for who checks it.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi() -> Result<String, serde_json::Error> {
    openapi::with_cookies(paths().into_openapi()).to_pretty_json()
}
