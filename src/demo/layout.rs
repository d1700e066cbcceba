//! Where everything of a demo cluster is: addresses, ports, files. Chosen once, kept in `cluster.json`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::files::{self, Access};
use crate::initial::{self, Place, ZoneShape};
use crate::local::state_dir;
use crate::telemetry::traces::TracesConfig;

/// The domain of the first zone.
pub(crate) const DOMAIN: &str = "postrider.example";

/// A residency zone of the demo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    /// Whose mail is in it.
    pub(crate) domain: &'static str,
    regions: [&'static str; REGIONS_PER_ZONE],
}

/// Regions of a zone: what survives the loss of one.
pub(crate) const REGIONS_PER_ZONE: usize = 3;

/// As many of them as the demo is asked for.
pub(crate) const ZONES: [Zone; 2] = [
    Zone { name: "demo", domain: DOMAIN, regions: ["seoul", "frankfurt", "virginia"] },
    Zone { name: "second", domain: "second.example", regions: ["osaka", "paris", "oregon"] },
];
/// Further regions of the first zone that hold nothing at first: shards can move to them.
const SPARE_REGIONS: [&str; 3] = ["tokyo", "warsaw", "texas"];
/// The number of [`SPARE_REGIONS`].
const SPARE_REGIONS_MAX: u32 = 3;
const _: () = assert!(SPARE_REGIONS.len() == SPARE_REGIONS_MAX as usize);
/// The number of [`ZONES`].
const ZONES_MAX: u32 = 2;
const _: () = assert!(ZONES.len() == ZONES_MAX as usize);
const ZONES_DEFAULT: u32 = 1;

/// Of REST in every region.
pub(crate) const REST_PORT: u16 = 8080;
const SMTP_PORT: u16 = 2525;
pub(crate) const SUBMISSION_PORT: u16 = 2587;
pub(crate) const SUBMISSIONS_PORT: u16 = 2465;
const GRPC_PORT_BASE: u16 = 7100;
const METRICS_PORT_BASE: u16 = 7300;
const FRONTEND_METRICS_PORT: u16 = 9101;
const DNS_METRICS_PORT: u16 = 9102;
const STORE_METRICS_PORT: u16 = 9103;
const STORE_PORT: u16 = 9000;
/// Above those that only root may have, and not mDNS's.
const DNS_PORT: u16 = 5300;
/// Where name servers are told of round trips.
const ROUND_TRIPS_PORT: u16 = 5301;

/// Where a directory keeps its shape.
const SHAPE: &str = "cluster.json";

const SHARDS_DEFAULT: u32 = 6;
const SHARDS_MAX: u32 = 10_000;
const NODES_PER_REGION_DEFAULT: u32 = 1;
/// The ports from [`GRPC_PORT_BASE`] to [`METRICS_PORT_BASE`] are the nodes'.
const NODES_PER_REGION_MAX: u32 = 32;
/// The same ports: the highest number of a node.
const NODES_MAX: u16 = METRICS_PORT_BASE - GRPC_PORT_BASE - 1;

/// What the command line asks for; what it leaves open is taken from the directory, or else the default.
pub(crate) struct Wish {
    pub(crate) zones: Option<u32>,
    pub(crate) shards: Option<u32>,
    pub(crate) nodes_per_region: Option<u32>,
    pub(crate) spare_regions: Option<u32>,
    /// Second number of the loopback addresses: 127.BLOCK.1.1 and so on.
    pub(crate) block: u8,
    /// Each region in the network namespace that has its name, instead of on the loopback.
    pub(crate) namespaces: bool,
}

/// The shape of a cluster, as its directory keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    zones: u32,
    /// Mailbox shards of each zone.
    shards: u32,
    nodes_per_region: u32,
    #[serde(default)]
    spare_regions: u32,
    /// Regions that got a node more, in that order.
    #[serde(default)]
    added_nodes: Vec<String>,
    block: u8,
}

impl Shape {
    fn write(&self, root: &Path) -> anyhow::Result<()> {
        files::write_atomically(&root.join(SHAPE), &serde_json::to_vec_pretty(self)?, Access::Public)
    }
}

/// One region of the demo.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) zone: &'static Zone,
    pub(crate) address: Ipv4Addr,
    pub(crate) nodes: Vec<NodePlace>,
}

impl Region {
    pub(crate) fn rest(&self) -> String {
        format!("{}:{REST_PORT}", self.address)
    }

    pub(crate) fn smtp(&self) -> String {
        format!("{}:{SMTP_PORT}", self.address)
    }

    pub(crate) fn submission(&self) -> String {
        format!("{}:{SUBMISSION_PORT}", self.address)
    }

    /// Submission with TLS from the first byte.
    pub(crate) fn submissions(&self) -> String {
        format!("{}:{SUBMISSIONS_PORT}", self.address)
    }

    pub(crate) fn store(&self) -> String {
        format!("{}:{STORE_PORT}", self.address)
    }

    pub(crate) fn dns(&self) -> String {
        format!("{}:{DNS_PORT}", self.address)
    }

    pub(crate) fn frontend_metrics(&self) -> SocketAddr {
        (self.address, FRONTEND_METRICS_PORT).into()
    }

    pub(crate) fn dns_metrics(&self) -> SocketAddr {
        (self.address, DNS_METRICS_PORT).into()
    }

    pub(crate) fn store_metrics(&self) -> SocketAddr {
        (self.address, STORE_METRICS_PORT).into()
    }

    /// Where its name server is told of round trips.
    pub(crate) fn round_trips(&self) -> String {
        format!("{}:{ROUND_TRIPS_PORT}", self.address)
    }

    /// The name of its name server.
    pub(crate) fn ns_host(&self) -> String {
        format!("ns-{}.{}", self.name, self.zone.domain)
    }

    /// The name that its SMTP server greets with.
    pub(crate) fn mail_host(&self) -> String {
        format!("mx-{}.{}", self.name, self.zone.domain)
    }
}

/// Where one storage node listens.
#[derive(Debug, Clone)]
pub(crate) struct NodePlace {
    pub(crate) id: u64,
    pub(crate) grpc: String,
    pub(crate) metrics: String,
}

impl NodePlace {
    fn new(id: u64, address: Ipv4Addr) -> Self {
        // The limit on nodes keeps these below the next range of ports.
        let offset = u16::try_from(id).unwrap_or(u16::MAX);
        Self {
            id,
            grpc: format!("{address}:{}", GRPC_PORT_BASE.saturating_add(offset)),
            metrics: format!("{address}:{}", METRICS_PORT_BASE.saturating_add(offset)),
        }
    }
}

/// The whole cluster on paper.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    /// Of all zones, those of the first zone first, and spare ones last.
    pub(crate) regions: Vec<Region>,
    pub(crate) zones: &'static [Zone],
    /// Mailbox shards of each zone.
    pub(crate) shards: u32,
    /// Whether each region is in the network namespace that has its name.
    pub(crate) namespaces: bool,
    /// The DNS server that is asked for everything outside; `None`: nothing goes there. Of this run only.
    pub(crate) resolver: Option<SocketAddr>,
    /// Where all processes send traces. Of this run only.
    pub(crate) traces: Option<TracesConfig>,
    /// Whether the storage nodes keep search indexes. Of this run only.
    pub(crate) search: bool,
    /// Whether nodes that are gone are replaced, and what is uneven moves, by itself. Of this run only.
    pub(crate) balances: bool,
}

impl Layout {
    /// The layout that `root` has, or a new one that is written there.
    pub(crate) fn open(root: &Path, wish: &Wish) -> anyhow::Result<Self> {
        files::make_directory(root)?;
        let root = root.canonicalize().with_context(|| format!("find {}", root.display()))?;
        let shape = match files::read_json::<Shape>(&root.join(SHAPE))? {
            Some(shape) => {
                agree("--zones", wish.zones, shape.zones, &root)?;
                agree("--shards", wish.shards, shape.shards, &root)?;
                agree("--nodes-per-region", wish.nodes_per_region, shape.nodes_per_region, &root)?;
                agree("--spare-regions", wish.spare_regions, shape.spare_regions, &root)?;
                Shape { block: wish.block, ..shape }
            }
            None => {
                let shape = Shape {
                    zones: wish.zones.unwrap_or(ZONES_DEFAULT),
                    shards: wish.shards.unwrap_or(SHARDS_DEFAULT),
                    nodes_per_region: wish.nodes_per_region.unwrap_or(NODES_PER_REGION_DEFAULT),
                    spare_regions: wish.spare_regions.unwrap_or(0),
                    added_nodes: Vec::new(),
                    block: wish.block,
                };
                ensure!((1..=ZONES_MAX).contains(&shape.zones), "--zones: 1 to {ZONES_MAX}");
                ensure!((1..=SHARDS_MAX).contains(&shape.shards), "--shards: 1 to {SHARDS_MAX}");
                ensure!(
                    (1..=NODES_PER_REGION_MAX).contains(&shape.nodes_per_region),
                    "--nodes-per-region: 1 to {NODES_PER_REGION_MAX}"
                );
                ensure!(shape.spare_regions <= SPARE_REGIONS_MAX, "--spare-regions: at most {SPARE_REGIONS_MAX}");
                shape.write(&root)?;
                shape
            }
        };
        Ok(Self::new(root, &shape, wish.namespaces))
    }

    fn new(root: PathBuf, shape: &Shape, namespaces: bool) -> Self {
        let mut regions = Vec::new();
        let mut id = 0;
        // Checked where the shape comes from; a directory that somebody has edited has at least one zone.
        let count = usize::try_from(shape.zones.clamp(1, ZONES_MAX)).unwrap_or(1);
        let zones = &ZONES[..count];
        let spare = SPARE_REGIONS.iter().take(shape.spare_regions as usize).map(|name| (&zones[0], *name));
        let named = zones.iter().flat_map(|zone| zone.regions.iter().map(move |name| (zone, *name))).chain(spare);
        for (index, (zone, name)) in (1..).zip(named) {
            let address = match namespaces {
                false => Ipv4Addr::new(127, shape.block, index, 1),
                true => Ipv4Addr::new(10, 240, 0, index),
            };
            let nodes = (0..shape.nodes_per_region)
                .map(|_| {
                    id += 1;
                    NodePlace::new(id, address)
                })
                .collect();
            regions.push(Region { name, zone, address, nodes });
        }
        for name in &shape.added_nodes {
            if let Some(region) = regions.iter_mut().find(|region| region.name == name) {
                id += 1;
                region.nodes.push(NodePlace::new(id, region.address));
            }
        }
        Self {
            root,
            regions,
            zones,
            shards: shape.shards,
            namespaces,
            resolver: None,
            traces: None,
            search: true,
            balances: true,
        }
    }

    /// One node more in a region, with the next number; the directory keeps it.
    pub(crate) fn add_node(&mut self, region: &str) -> anyhow::Result<u64> {
        let id = self.nodes().map(|(_, node)| node.id).max().unwrap_or(0) + 1;
        let known = self.regions.iter().map(|region| region.name).collect::<Vec<_>>().join(", ");
        let Some(place) = self.regions.iter_mut().find(|place| place.name == region) else {
            bail!("there is no region {region:?}, but {known}");
        };
        ensure!(
            place.nodes.len() < NODES_PER_REGION_MAX as usize && id <= u64::from(NODES_MAX),
            "{region} has {} nodes of {id}: no more fit on its ports",
            place.nodes.len()
        );
        let mut shape: Shape = files::read_json(&self.root.join(SHAPE))?.context("the directory has lost its shape")?;
        shape.added_nodes.push(region.to_owned());
        shape.write(&self.root)?;
        place.nodes.push(NodePlace::new(id, place.address));
        Ok(id)
    }

    /// All storage nodes, each with its region.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Region, &NodePlace)> {
        self.regions.iter().flat_map(|region| region.nodes.iter().map(move |node| (region, node)))
    }

    /// The regions of one zone.
    pub(crate) fn regions_of(&self, zone: &Zone) -> Vec<&Region> {
        self.regions.iter().filter(|region| region.zone == zone).collect()
    }

    /// What each shard is and who holds it: round the regions of its zone but the spare ones, and round the nodes of a region.
    pub(crate) fn shard_places(&self) -> anyhow::Result<Vec<Place<'static>>> {
        let shape = |zone: &Zone| {
            let regions = self.regions_of(zone).into_iter().take(REGIONS_PER_ZONE);
            let nodes = |region: &Region| region.nodes.iter().map(|node| node.id).collect();
            ZoneShape {
                regions: regions.map(|region| (region.name, nodes(region))).collect(),
                shards: self.shards,
                replicas: REGIONS_PER_ZONE,
            }
        };
        initial::places(&self.zones.iter().map(shape).collect::<Vec<_>>())
    }

    /// The directory of one process: its configuration, log and data.
    pub(crate) fn process_dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Certificates of the processes.
    pub(crate) fn tls_dir(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// What `postrider ctl --identity` takes.
    pub(crate) fn ctl_dir(&self) -> PathBuf {
        self.root.join("ctl")
    }

    /// Secrets of the cluster.
    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.root.join("secrets")
    }
}

fn agree(option: &str, wished: Option<u32>, kept: u32, root: &Path) -> anyhow::Result<()> {
    match wished {
        Some(wished) if wished != kept => bail!(
            "{option} {wished}: the cluster in {} was made with {kept}; leave the option out, or take another --data-dir",
            root.display()
        ),
        _ => Ok(()),
    }
}

/// Where the demo lives when nobody says otherwise: `$XDG_STATE_HOME/postrider/demo`, `~/.local/state` by default.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    Ok(state_dir().context("neither XDG_STATE_HOME nor HOME is set: give --data-dir")?.join("demo"))
}

#[cfg(test)]
mod tests {
    use postrider_api::id::ShardId;

    use super::*;

    fn layout(zones: u32, shards: u32, nodes_per_region: u32) -> Layout {
        shaped(Shape { zones, shards, nodes_per_region, spare_regions: 0, added_nodes: Vec::new(), block: 0 })
    }

    fn shaped(shape: Shape) -> Layout {
        Layout::new(PathBuf::from("/nowhere"), &shape, false)
    }

    #[test]
    fn spare_regions_hold_nothing() {
        let without = layout(2, 4, 1);
        let with = shaped(Shape {
            zones: 2,
            shards: 4,
            nodes_per_region: 1,
            spare_regions: 3,
            added_nodes: Vec::new(),
            block: 0,
        });
        assert_eq!(with.shard_places().unwrap(), without.shard_places().unwrap());
        let spare: Vec<_> = with.regions[6..].iter().map(|region| (region.name, region.zone.name)).collect();
        assert_eq!(spare, SPARE_REGIONS.map(|name| (name, "demo")));
    }

    #[test]
    fn every_shard_has_one_replica_in_each_region() {
        for (shards, nodes) in [(1, 1), (6, 1), (7, 3)] {
            let layout = layout(1, shards, nodes);
            let region_of = |id: u64| layout.nodes().find(|(_, node)| node.id == id).unwrap().0.name;
            for place in layout.shard_places().unwrap() {
                let mut regions: Vec<_> = place.replicas.iter().map(|id| region_of(*id)).collect();
                assert_eq!(regions[0], place.home_region, "the home is first: {place:?}");
                regions.sort_unstable();
                assert_eq!(regions, ["frankfurt", "seoul", "virginia"], "{place:?}");
            }
        }
    }

    #[test]
    fn a_zone_has_everything_of_its_own() {
        let layout = layout(2, 4, 1);
        let addresses: Vec<String> = layout.regions.iter().map(|region| region.address.to_string()).collect();
        assert_eq!(addresses[..3], ["127.0.1.1", "127.0.2.1", "127.0.3.1"]);
        assert_eq!(addresses[3..], ["127.0.4.1", "127.0.5.1", "127.0.6.1"]);
        let places = layout.shard_places().unwrap();
        let ids: Vec<u32> = places.iter().map(|place| place.shard.0).collect();
        assert_eq!(ids, [1, 2, 3, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007]);
        for place in &places {
            let of_zone = layout.regions_of(&ZONES[place.zone]);
            let nodes: Vec<u64> = of_zone.iter().flat_map(|region| region.nodes.iter().map(|node| node.id)).collect();
            assert!(place.replicas.iter().all(|node| nodes.contains(node)), "{place:?}");
            assert!(of_zone.iter().any(|region| region.name == place.home_region), "{place:?}");
        }
        assert_eq!(places.iter().filter(|place| place.zone == 1).count(), 5);
    }

    #[test]
    fn several_nodes_of_a_region_share_the_shards() {
        let layout = layout(1, 12, 2);
        let mut held = std::collections::BTreeMap::new();
        for place in layout.shard_places().unwrap().iter().filter(|place| place.shard >= ShardId::MAILBOX_FIRST) {
            for replica in &place.replicas {
                *held.entry(*replica).or_insert(0) += 1;
            }
        }
        assert_eq!(held.into_values().collect::<Vec<_>>(), [6; 6]);
    }

    #[test]
    fn a_directory_keeps_its_shape() {
        let dir = tempfile::tempdir().unwrap();
        let wish = |shards| Wish {
            zones: None,
            shards,
            nodes_per_region: None,
            spare_regions: None,
            block: 0,
            namespaces: false,
        };
        assert_eq!(Layout::open(dir.path(), &wish(Some(4))).unwrap().shards, 4);
        assert_eq!(Layout::open(dir.path(), &wish(None)).unwrap().shards, 4);
        let mut layout = Layout::open(dir.path(), &wish(None)).unwrap();
        assert_eq!((layout.add_node("seoul").unwrap(), layout.add_node("virginia").unwrap()), (4, 5));
        assert!(layout.add_node("atlantis").unwrap_err().to_string().contains("seoul, frankfurt, virginia"));
        let places = |layout: &Layout| layout.nodes().map(|(r, n)| (r.name, n.id, n.grpc.clone())).collect::<Vec<_>>();
        assert_eq!(places(&layout)[1], ("seoul", 4, "127.0.1.1:7104".to_owned()));
        assert_eq!(places(&Layout::open(dir.path(), &wish(None)).unwrap()), places(&layout));
        let error = Layout::open(dir.path(), &wish(Some(5))).unwrap_err();
        assert!(error.to_string().contains("was made with 4"), "{error}");
    }
}
