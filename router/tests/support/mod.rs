//! Three fake nodes and a router.

pub mod authority;
mod ending;
pub mod fake;

use std::time::Duration;

use authority::Authority;
use fake::FakeNode;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::id::{ShardId, ZoneId};
use postrider_api::identity::Role;
use postrider_api::pb::{self, ShardKind};
use postrider_router::{Router, RouterOptions, RouterTimings};

/// The number of the one zone.
pub const WORLD: ZoneId = ZoneId(1);
pub const SHARD: ShardId = ShardId(1000);
/// What a call may take on a machine that is busy with other things.
pub const GENEROUS: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub nodes: Vec<FakeNode>,
    authority: Authority,
}

impl Cluster {
    pub fn start() -> Self {
        let authority = Authority::new();
        let identity = authority.issue(Role::Node);
        let cluster = Self { nodes: (0..3).map(|_| FakeNode::start(&identity)).collect(), authority };
        cluster.publish(1, 1);
        cluster
    }

    /// Gives every node a map.
    pub fn publish(&self, version: u64, epoch: u64) {
        let regions = ["seoul", "frankfurt", "virginia"];
        let nodes = (1..).zip(&self.nodes).zip(regions);
        let shard = |id: u32, kind: ShardKind| pb::Shard {
            id,
            kind: kind.into(),
            replicas: vec![1, 2, 3],
            home_region: "seoul".to_owned(),
            epoch,
            zone: "world".to_owned(),
            slot_last: 0xffff,
            ..Default::default()
        };
        let map = pb::ShardMap {
            version,
            nodes: nodes
                .map(|((id, node), region)| pb::Node {
                    id,
                    region: region.to_owned(),
                    address: node.address.clone(),
                    ..Default::default()
                })
                .collect(),
            shards: vec![
                shard(1, ShardKind::Placement),
                shard(2, ShardKind::Directory),
                shard(1000, ShardKind::Mailbox),
            ],
            zones: vec![pb::Zone { name: "world".to_owned(), id: WORLD.0.into() }],
            domains: vec![pb::Domain {
                name: "postrider.example".to_owned(),
                zone: "world".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        for node in &self.nodes {
            node.stage.map.send_replace(map.clone());
        }
    }

    pub async fn router(&self, change: impl FnOnce(&mut RouterTimings)) -> Router {
        self.router_as(Role::Frontend, change).await
    }

    pub async fn router_as(&self, role: Role, change: impl FnOnce(&mut RouterTimings)) -> Router {
        let mut options = RouterOptions::new(
            self.nodes.iter().map(|node| node.address.clone()).collect(),
            "seoul".to_owned(),
            self.authority.issue(role),
            SystemClock::shared(),
            SystemEntropy::shared(),
        );
        // Probes are calls too, and these tests count calls.
        options.timings.probe = Duration::from_secs(3600);
        change(&mut options.timings);
        Router::connect(options).await.unwrap()
    }

    pub fn not_leader(&self, leader: Option<usize>) -> pb::fault::Fault {
        pb::fault::Fault::NotLeader(pb::NotLeader {
            leader: leader.map(|at| at as u64 + 1),
            leader_address: leader.map_or_else(String::new, |at| self.nodes[at].address.clone()),
        })
    }
}

pub fn command() -> pb::Command {
    pb::Command { op: Some(pb::command::Op::Forget(pb::Forget::default())), ..Default::default() }
}
