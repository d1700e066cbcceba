//! A frontend that serves, and people who use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{SystemClock, SystemEntropy, random};
use postrider_api::id::{BodyId, EmailId, RequestId, ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome;
use postrider_blob::{BlobStore, MemoryStore, Replicated};
use postrider_dns::zone::domain::{MtaSts, Policy};
use postrider_frontend::account::SignUpPolicy;
use postrider_frontend::account::password::PasswordCost;
use postrider_frontend::blobs::Blobs;
use postrider_frontend::cache::{Cache, CacheSettings};
use postrider_frontend::cluster::Cluster as _;
use postrider_frontend::limits::{Limit, LimitKind, LimitTable};
use postrider_frontend::network::Networks;
use postrider_frontend::rest::{ClusterSecret, ForwardedFrom, MailNames};
use postrider_frontend::round_trips::RoundTrips;
use postrider_frontend::smtp::{BlobSink, SmtpLimits};
use postrider_frontend::{AccountSettings, Frontend, FrontendOptions, RestSettings, SmtpSettings};
use postrider_mime::{CutBlob, IngestLimits, ingest};
use postrider_outgoing::web::Fetcher;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{DOMAIN, MemoryCluster, REGIONS, SECOND_DOMAIN, SECOND_REGIONS, SECOND_SHARDS, SHARDS};
use crate::operators::operators;

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const ADMIN_TOKEN: &str = "the administrator's token";
/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) cluster: MemoryCluster,
    pub(crate) blobs: Blobs,
    /// Of all regions, those of the first zone first.
    pub(crate) stores: Vec<Arc<MemoryStore>>,
    pub(crate) frontend: Frontend,
    /// Nobody.
    pub(crate) client: Client,
    names: AtomicU32,
}

/// Somebody with an account, logged in.
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) user: UserId,
    pub(crate) address: String,
    pub(crate) shard: ShardId,
}

impl Person {
    /// The folder of a role.
    pub(crate) async fn folder(&self, role: &str) -> String {
        let folders = self.client.get("/v1/folders").await.ok();
        let folder = folders.as_array().unwrap().iter().find(|folder| folder["role"] == role);
        folder.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// The messages of a folder, newest first.
    pub(crate) async fn messages(&self, role: &str) -> Vec<Value> {
        let folder = self.folder(role).await;
        let page = self.client.get(&format!("/v1/folders/{folder}/messages?limit=200")).await.ok();
        page["messages"].as_array().unwrap().clone()
    }
}

/// What stands before a frontend's clients.
#[derive(Default)]
pub(crate) struct Front {
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) proxies: Networks,
    pub(crate) forwarded: Option<ForwardedFrom>,
    pub(crate) requests_per_account_per_minute: u32,
    /// With this certificate, mail comes in and is submitted.
    pub(crate) mail: Option<Arc<rustls::ServerConfig>>,
    /// Messages that one account may send at once; 0: as many as it likes.
    pub(crate) messages_per_account: u32,
    pub(crate) cache: CacheSettings,
    pub(crate) round_trips: RoundTrips,
    /// The frontend has no operator's certificate.
    pub(crate) without_operators: bool,
    /// With this, images of the network are shown.
    pub(crate) fetcher: Option<Fetcher>,
}

/// A frontend of one region over a cluster.
pub(crate) async fn frontend(cluster: &MemoryCluster, blobs: &Blobs, region: &str, sign_up: SignUpPolicy) -> Frontend {
    frontend_with(cluster, blobs, region, sign_up, 0).await
}

/// The same, with a limit of requests for each account.
pub(crate) async fn frontend_with(
    cluster: &MemoryCluster,
    blobs: &Blobs,
    region: &str,
    sign_up: SignUpPolicy,
    requests_per_account_per_minute: u32,
) -> Frontend {
    let front = Front { requests_per_account_per_minute, ..Front::default() };
    frontend_behind(front, cluster, blobs, region, sign_up).await
}

/// The same behind something.
pub(crate) async fn frontend_behind(
    front: Front,
    cluster: &MemoryCluster,
    blobs: &Blobs,
    region: &str,
    sign_up: SignUpPolicy,
) -> Frontend {
    let quick = Some(Limit { burst: 5, refill: Duration::from_secs(600) });
    let table = LimitTable::default()
        .with(LimitKind::WrongPasswords, quick)
        .with(LimitKind::WrongPasswordsKnown, quick)
        .with(LimitKind::WrongPasswordsOfAddress, quick)
        .with(LimitKind::SentMessages, Limit::per_hour(front.messages_per_account))
        .with(LimitKind::Requests, Limit::per_minute(front.requests_per_account_per_minute));
    let secret = ClusterSecret::new(vec![7; 32]).unwrap();
    let cache = Cache::new(&front.cache, &secret, SystemClock::shared(), SystemEntropy::shared()).unwrap();
    if front.cache.redis.is_some() {
        eventually("Redis answers", async || cache.is_shared()).await;
    }
    let limiter = cache.limiter(table);
    let options = FrontendOptions {
        region: region.to_owned(),
        cluster: Arc::new(cluster.clone()),
        blobs: blobs.clone(),
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
        accounts: Some(AccountSettings {
            cluster_secret: secret,
            password_cost: PasswordCost { kib: 64, passes: 1, lanes: 1 },
            limiter: limiter.clone(),
        }),
        rest: Some(RestSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: front.tls,
            proxies: front.proxies,
            forwarded: front.forwarded,
            sign_up,
            admin_token: Some(ADMIN_TOKEN.to_owned()),
            operators: (!front.without_operators).then(|| operators(cluster)),
            cache,
            fetcher: front.fetcher,
            metrics: None,
            round_trips: front.round_trips.clone(),
            mail_names: Some(mail_names()),
        }),
        smtp: front.mail.map(|tls| SmtpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: "mx.postrider.example".to_owned(),
            banner: "Postrider".to_owned(),
            tls: Some(tls),
            submission: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            submission_tls: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            proxies: Networks::default(),
            limits: SmtpLimits::default(),
            limiter,
            round_trips: front.round_trips,
        }),
        worker: None,
        outside: None,
    };
    Frontend::start(options).await.unwrap()
}

fn mail_names() -> MailNames {
    let hosts = REGIONS.into_iter().chain(SECOND_REGIONS).map(|name| (name.to_owned(), format!("mx-{name}.example")));
    let without = Policy { mta_sts: MtaSts::None, ..Policy::default() };
    MailNames {
        policy: Policy { mta_sts: MtaSts::Enforce, ..Policy::default() },
        domains: [(SECOND_DOMAIN.to_owned(), without)].into(),
        mail_hosts: hosts.collect(),
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) async fn client_of(frontend: &Frontend) -> Client {
    Client::connect(format!("http://{}", frontend.rest_addr().unwrap())).await
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SignUpPolicy::Open).await
    }

    pub(crate) async fn with(sign_up: SignUpPolicy) -> Self {
        Self::behind(Front::default(), sign_up).await
    }

    /// With a cache.
    pub(crate) async fn near(cache: CacheSettings) -> Self {
        Self::behind(Front { cache, ..Front::default() }, SignUpPolicy::Open).await
    }

    /// With something before its clients.
    pub(crate) async fn behind(front: Front, sign_up: SignUpPolicy) -> Self {
        let cluster = MemoryCluster::new(SystemClock::shared());
        let regions = REGIONS.into_iter().chain(SECOND_REGIONS);
        let stores: Vec<Arc<MemoryStore>> = regions.map(|region| Arc::new(MemoryStore::new(region))).collect();
        let dynamic = stores.iter().map(|store| Arc::clone(store) as Arc<dyn BlobStore>).collect();
        let blobs = Blobs::new(Replicated::new(dynamic, "seoul", SystemClock::shared()));
        let frontend = frontend_behind(front, &cluster, &blobs, "seoul", sign_up).await;
        let client = client_of(&frontend).await;
        Self { cluster, blobs, stores, frontend, client, names: AtomicU32::new(0) }
    }

    /// Somebody new at this frontend's region.
    pub(crate) async fn person(&self) -> Person {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        self.person_called(&format!("person{number}@{DOMAIN}")).await
    }

    pub(crate) async fn person_called(&self, address: &str) -> Person {
        let account = json!({"address": address, "password": PASSWORD, "name": "Somebody"});
        let made = self.client.post("/v1/accounts", &account).await.ok();
        let client = self.log_in(address).await;
        let user = made["user_id"].as_str().unwrap().parse().unwrap();
        let shard = if address.ends_with(SECOND_DOMAIN) { SECOND_SHARDS[0].0 } else { SHARDS[0].0 };
        Person { client, user, address: address.to_owned(), shard }
    }

    pub(crate) async fn log_in(&self, address: &str) -> Client {
        let credentials = json!({"address": address, "password": PASSWORD});
        let session = self.client.post("/v1/sessions", &credentials).await.ok();
        self.client.with_token(session["token"].as_str().unwrap())
    }

    /// Delivers raw mail as SMTP does: parsed, blobs durable, one command.
    pub(crate) async fn deliver(&self, to: &Person, raw: impl Into<Vec<u8>>) -> EmailId {
        let body_id = BodyId(random(&SystemEntropy));
        let ingested = ingest(&Bytes::from(raw.into()), body_id, &IngestLimits::default());
        let request = Bytes::copy_from_slice(&random::<16>(&SystemEntropy));
        let mut refs: Vec<pb::BlobRef> = ingested.blobs.iter().map(blob_ref).collect();
        refs.sort_by(|a, b| a.hash.cmp(&b.hash));
        if !refs.is_empty() {
            let pin = pb::PinBlobs { request: request.clone(), blobs: refs, ..Default::default() };
            let pinned = self.cluster.apply(to.shard, command(Op::PinBlobs(pin))).result;
            assert!(matches!(pinned, Some(outcome::Result::Done(_))), "{pinned:?}");
        }
        BlobSink::put_all(&self.blobs, &self.cluster.map(), to.shard, ingested.blobs).await.unwrap();
        let recipient =
            pb::Recipient { user_id: to.user.to_bytes(), address: to.address.clone(), ..Default::default() };
        let accept = pb::Accept {
            mail_from: "outside@elsewhere.example".to_owned(),
            recipients: vec![recipient],
            message: Some(ingested.message),
            submitted: false,
        };
        match self.cluster.apply(to.shard, pb::Command { request, ..command(Op::Accept(accept)) }).result {
            Some(outcome::Result::Accepted(accepted)) => EmailId::try_from(&accepted.deliveries[0].email_id).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Uploads a file; its id.
    pub(crate) async fn upload(&self, of: &Person, content: &[u8]) -> String {
        let uploaded =
            of.client.send_raw(Method::POST, "/v1/uploads", HeaderMap::new(), Some(content.to_vec())).await.ok();
        assert_eq!(uploaded["size"], content.len());
        uploaded["upload_id"].as_str().unwrap().to_owned()
    }

    /// Delivers a short message.
    pub(crate) async fn deliver_text(&self, to: &Person, subject: &str) -> EmailId {
        self.deliver(to, text(subject)).await
    }
}

pub(crate) fn command(op: Op) -> pb::Command {
    pb::Command {
        request: RequestId(random(&SystemEntropy)).to_bytes(),
        entropy: Bytes::copy_from_slice(&random::<16>(&SystemEntropy)),
        op: Some(op),
        ..pb::Command::default()
    }
}

/// A short message.
pub(crate) fn text(subject: &str) -> String {
    format!(
        "From: Ada <ada@elsewhere.example>\r\nTo: Bob <bob@{DOMAIN}>\r\nSubject: {subject}\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@elsewhere.example>\r\n\r\nHello, {subject}.\r\n"
    )
}

fn blob_ref(blob: &CutBlob) -> pb::BlobRef {
    pb::BlobRef { hash: blob.hash.to_bytes(), bytes: blob.content.len() as u64 }
}
