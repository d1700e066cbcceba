//! `postrider dns`: answers for the domains that the shard map has, naming the regions that are near and well.
//!
//! Invariant: it answers whether or not a storage node can be reached. What the shard map said last is kept beside the measured
//! round trips, and is served from the start on.

pub(crate) mod config;
pub(crate) mod describe;
mod known;
mod looks;
mod round_trips;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use postrider_api::env::{Clock, Entropy, SystemClock, SystemEntropy, random};
use postrider_api::id::NodeId;
use postrider_api::pb;
use postrider_dns::choice::Chooser;
use postrider_dns::latency::saved;
use postrider_dns::latency::table::{PREFIXES_MAX, Table};
use postrider_dns::server::sign::Signer;
use postrider_dns::server::{Responder, ResponderOptions, Server, ServerOptions};
use postrider_dns::zone::Zones;
use postrider_router::{ConnectError, Router, RouterOptions};
use tokio::task::JoinSet;

use self::config::DnsRoleConfig;
use self::describe::Described;
use self::round_trips::Exchange;
use crate::files;
use crate::signal::Stop;

/// How often the measured round trips are written to disk: what a crash may cost.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How often what the router measures to the other regions is taken over; it measures as often.
const PEERS_EVERY: Duration = Duration::from_secs(10);
/// The file of round trips in the data directory.
const ROUND_TRIPS: &str = "round-trips";

/// Answers until it is told to stop.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let config: DnsRoleConfig = super::read(config)?;
    if config.metrics_listen.is_some() {
        // Before anything counts.
        super::counters::install(config.metrics_listen).await?;
    }
    let described = Described::load(&config)?;
    let identity = config.cluster.tls.load()?;
    let _kept_up = crate::role::keep_up(&identity);
    let others = config.regions.iter().filter(|region| region.name != config.region);
    let others: Vec<String> = others.flat_map(|region| region.round_trips.clone()).collect();
    let others = crate::role::round_trips::connect(&others, &identity).context("regions: round_trips")?;
    let looks = config.regions.iter().map(|region| looks::read(&region.looks)).collect::<anyhow::Result<Vec<_>>>()?;
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let mut stop = Stop::listen()?;
    files::make_directory(&config.data_dir)?;
    let responder = Arc::new(Responder::new(options(&config, &described, &clock, &*entropy)?));
    let mut served = Served { described, responder: responder.clone(), domains: None };
    if let Some(map) = known::load(&config.data_dir)? {
        served.follow(&map);
    }
    let cluster = RouterOptions::new(
        config.cluster.nodes.clone(),
        config.region.clone(),
        identity.clone(),
        clock.clone(),
        entropy,
    );
    let options = ServerOptions { listen: config.listen.clone(), threads: None };
    let server = Server::start(&options, responder.clone()).await.context("start the name server")?;
    tracing::info!(region = config.region, listen = ?server.addresses(), zones = responder.zones().len(), "DNS answers");

    let mut watching = JoinSet::new();
    if let Some(listen) = config.round_trips_listen {
        let exchange = Exchange::new(responder.chooser().clone(), config.region.clone(), clock.clone());
        watching.spawn(round_trips::serve(exchange, listen, &identity).await?);
        watching.spawn(round_trips::tell(responder.chooser().clone(), others, clock.clone()));
    }
    for (region, looks) in looks.into_iter().enumerate() {
        watching.spawn(looks::watch(responder.chooser().clone(), region, looks, clock.clone()));
    }
    watching.spawn(save(responder.chooser().clone(), config.data_dir.clone()));
    let reason = tokio::select! {
        reason = stop.wait() => reason,
        ended = follow(cluster, &mut served, &config) => { ended?; "the shard map's stream ended" }
    };
    tracing::info!(reason, "DNS stops");
    watching.shutdown().await;
    server.stop().await;
    keep(responder.chooser(), &config.data_dir).await;
    Ok(())
}

fn options(
    config: &DnsRoleConfig,
    described: &Described,
    clock: &Arc<dyn Clock>,
    entropy: &dyn Entropy,
) -> anyhow::Result<ResponderOptions> {
    let names: Vec<String> = config.regions.iter().map(|region| region.name.clone()).collect();
    let own = names.iter().position(|name| *name == config.region);
    let own = own.with_context(|| format!("region: {} is none of [[regions]]", config.region))?;
    let path = config.data_dir.join(ROUND_TRIPS);
    let now_s = u64::try_from(clock.wall_ms() / 1000).unwrap_or(0);
    let table = match saved::load(&path, &names, PREFIXES_MAX, now_s) {
        Ok(table) => table.unwrap_or_else(|| Table::new(PREFIXES_MAX)),
        Err(error) => {
            // Measurements come again; names must be answered.
            let aside = path.with_extension("damaged");
            tracing::error!(%error, aside = %aside.display(), "the measured round trips are lost, and begin anew");
            std::fs::rename(&path, &aside).with_context(|| format!("set {} aside", path.display()))?;
            Table::new(PREFIXES_MAX)
        }
    };
    let chooser = Chooser::new(&described.regions, own, table, u64::from_be_bytes(random(entropy)));
    let keys =
        config.dnssec_key_files.iter().map(|path| super::read_secret(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let signer = match keys.as_slice() {
        [] => None,
        keys => Some(Signer::new(keys.iter().map(String::as_str)).context("dnssec_key_files")?),
    };
    let cookie_secret = match &config.cookie_secret_file {
        Some(path) => config::cookie_secret(&super::read_secret(path)?),
        None => random(entropy),
    };
    Ok(ResponderOptions {
        chooser: Arc::new(chooser),
        signer,
        cookie_secret,
        answers_per_second: config.answers_per_second,
        rate_secret: random(entropy),
        server_id: config.region.clone(),
        clock: clock.clone(),
    })
}

/// What is served, and from what it was made.
struct Served {
    described: Described,
    responder: Arc<Responder>,
    /// As the shard map had them when the zones were made.
    domains: Option<(Vec<pb::Domain>, Vec<pb::Region>, Vec<pb::PublicCertificate>)>,
}

impl Served {
    /// Makes the zones anew where the map has other domains, keys, regions or certificates. Returns whether it has.
    fn follow(&mut self, map: &pb::ShardMap) -> bool {
        let now = (map.domains.clone(), map.regions.clone(), map.public_certificates.clone());
        if self.domains.as_ref() == Some(&now) {
            return false;
        }
        self.responder.chooser().set_weights(&self.described.weights(map));
        let domains = self.described.domains(map);
        let (zones, refused) = Zones::build(&domains, &self.described.regions(map));
        for (domain, error) in refused {
            tracing::error!(domain, %error, "a domain cannot be served");
        }
        self.responder.set_zones(zones);
        self.domains = Some(now);
        true
    }
}

/// Follows the shard map, from the moment that a storage node gives one.
async fn follow(options: RouterOptions, served: &mut Served, config: &DnsRoleConfig) -> anyhow::Result<()> {
    let router = loop {
        match Router::connect(options.clone()).await {
            Ok(router) => break router,
            Err(error @ ConnectError::NoMap { .. }) => {
                tracing::warn!(%error, "waiting for a storage node; what was known last is answered");
            }
            Err(error) => return Err(error).context("connect to the storage nodes"),
        }
    };
    let mut changes = router.map_changes();
    let mut peers = tokio::time::interval(PEERS_EVERY);
    loop {
        let map = changes.borrow_and_update().clone();
        if served.follow(&map) {
            tracing::info!(version = map.version, zones = served.responder.zones().len(), "zones follow the shard map");
            // What cannot be kept is known again from the next node that answers.
            if let Err(error) = known::keep(&config.data_dir, &map) {
                tracing::warn!(error = format!("{error:#}"), "the shard map's domains are not kept");
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            _ = peers.tick() => served.responder.chooser().set_peers(&round_trips(&router, config)),
        }
    }
}

/// To each configured region, that of its nearest node.
fn round_trips(router: &Router, config: &DnsRoleConfig) -> Vec<Option<Duration>> {
    let map = router.map();
    let to = |region: &str| {
        let nodes = map.nodes.iter().filter(|node| node.region == region);
        nodes.filter_map(|node| router.latency(NodeId(node.id))).min()
    };
    config.regions.iter().map(|region| to(&region.name)).collect()
}

async fn save(chooser: Arc<Chooser>, dir: std::path::PathBuf) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        keep(&chooser, &dir).await;
    }
}

async fn keep(chooser: &Arc<Chooser>, dir: &Path) {
    let (chooser, path) = (chooser.clone(), dir.join(ROUND_TRIPS));
    let saved = tokio::task::spawn_blocking(move || chooser.save(&path)).await;
    match saved {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the measured round trips are not kept"),
        Err(error) => tracing::warn!(%error, "the measured round trips are not kept"),
    }
}
