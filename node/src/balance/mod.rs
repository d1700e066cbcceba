//! The balancer at work: placement's leader looks at the cluster, plans what should move, and has each step recorded as an operation, which
//! the shard's own leader then carries out (`reconcile/`).
//!
//! Invariant: a step is recorded before it begins, and nothing else is remembered. Whoever leads placement next plans from what it sees, and
//! what runs counts against the bounds.
//! Invariant: a node is given up by placement's word, in the time of its commands ([`detector`]).

mod begin;
mod detector;
pub(crate) mod look;
mod make;
mod mandate;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::limit::LIVENESS_NODES_MAX;
use postrider_api::pb::{self, command::Op};
use postrider_balance::observed::{self, Observed, Reports};
use postrider_balance::step::Step;
use postrider_balance::{Plan, plan};
use tokio_util::sync::CancellationToken;

use crate::map::{Map, MapView};
use crate::options::BalanceOptions;
use crate::peers::Peers;
use crate::placement::{Placement, PlacementError};
use crate::replicas::Replicas;
use detector::{Detector, Rules};
use look::Lookout;
use mandate::Mandate;

/// The pause between two rounds, also where the map changes often.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause is at least so many times what the last plan took: planning never keeps a processor busy.
const PLANNING_SHARE: u32 = 4;
/// How often nodes are asked what they hold: bytes change slowly.
const REPORTS_EVERY: Duration = Duration::from_secs(60);
/// What was said this long ago is good enough to say that nothing is left to do.
const REPORTS_FRESH: Duration = Duration::from_secs(10);
/// Looks that are further apart than so many periods say nothing together: the process stood still.
const GAP_PERIODS: u32 = 5;

/// Looks after the cluster while this node leads placement.
pub(crate) struct Balancer {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) placement: Placement,
    pub(crate) peers: Peers,
    pub(crate) lookout: Lookout,
    pub(crate) options: BalanceOptions,
    /// What a call to another node may take.
    pub(crate) peer_call: Duration,
    pub(crate) stop: CancellationToken,
}

/// What is remembered in one term as leader.
#[derive(Default)]
struct Tenure {
    term: u64,
    detector: Detector,
    looks: usize,
    looked: Option<Duration>,
    answering: Arc<BTreeSet<NodeId>>,
    reported: Option<Duration>,
    reports: Arc<Reports>,
    /// What was seen when nothing could begin: seen again, it is not planned again.
    idle: Option<Seen>,
    /// What the last plan took.
    planning: Duration,
    /// What operations were said to wait for.
    told: BTreeMap<u64, String>,
}

/// What a plan depends on.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    version: u64,
    answering: Arc<BTreeSet<NodeId>>,
    reported: Option<Duration>,
}

impl Balancer {
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut changes = self.map.changes();
        let mut tenure = Tenure::default();
        loop {
            tokio::time::sleep(PAUSE.max(tenure.planning * PLANNING_SHARE)).await;
            match self.replicas.leading(ShardId::PLACEMENT) {
                Ok(term) => {
                    if tenure.term != term {
                        tenure = Tenure { term, ..Default::default() };
                    }
                    if let Err(error) = self.round(&mut tenure).await {
                        tracing::debug!(%error, "the cluster is looked after in the next round");
                    }
                }
                Err(_) => tenure = Tenure::default(),
            }
            // The map lives as long as this does.
            drop(tokio::time::timeout(self.until_due(&tenure), changes.changed()).await);
        }
    }

    fn now(&self) -> Duration {
        self.replicas.clock.monotonic()
    }

    fn until_due(&self, tenure: &Tenure) -> Duration {
        let since = tenure.looked.map_or(Duration::MAX, |last| self.now().saturating_sub(last));
        if tenure.term == 0 { self.options.look_every() } else { self.options.look_every().saturating_sub(since) }
    }

    async fn round(&self, tenure: &mut Tenure) -> Result<(), PlacementError> {
        let mut map = self.placement.newest().await?;
        if self.until_due(tenure).is_zero() {
            self.look(&map, tenure).await?;
            map = self.placement.newest().await?;
        }
        let mandate = Mandate::of(&map, &self.options);
        if !mandate.is_empty() {
            self.balance(map, &mandate, tenure).await?;
        }
        Ok(())
    }

    // --- who is there ---

    async fn look(&self, map: &MapView, tenure: &mut Tenure) -> Result<(), PlacementError> {
        let began = self.now();
        tenure.looked = Some(began);
        tenure.looks = tenure.looks.wrapping_add(1);
        tenure.answering = Arc::new(self.lookout.answering(map, tenure.looks).await);
        let look = detector::Look {
            began,
            wall_ms: self.replicas.clock.wall_ms(),
            nodes: &map.map.nodes,
            answering: &tenure.answering,
        };
        // A look at nodes that do not answer takes as long as two calls: the others' word, and this node's own.
        let period = self.options.look_every() + self.peer_call * 3;
        let rules = Rules { gap_max: period * GAP_PERIODS, dead_after: self.options.dead_after };
        let findings = tenure.detector.judge(look, rules);
        for id in &findings.silent {
            tracing::warn!(node = id, "a node does not answer");
        }
        for id in &findings.answering {
            tracing::info!(node = id, "a node answers again");
        }
        if !findings.silent.is_empty() || !findings.answering.is_empty() {
            self.record(findings.silent, findings.answering).await?;
        }
        for (node, since_ms) in findings.dead {
            self.give_up(node, since_ms).await?;
        }
        metrics::gauge!("postrider_balance_silent_nodes")
            .set(map.map.nodes.len().saturating_sub(tenure.answering.len()) as f64);
        Ok(())
    }

    async fn record(&self, silent: Vec<u64>, answering: Vec<u64>) -> Result<(), PlacementError> {
        let answering = answering.chunks(LIVENESS_NODES_MAX).map(|part| (Vec::new(), part.to_vec()));
        let silent = silent.chunks(LIVENESS_NODES_MAX).map(|part| (part.to_vec(), Vec::new()));
        for (silent, answering) in answering.chain(silent) {
            self.placement.propose(Op::RecordLiveness(pb::RecordLiveness { silent, answering })).await?;
        }
        Ok(())
    }

    // --- what moves ---

    async fn balance(&self, map: Arc<MapView>, mandate: &Mandate, tenure: &mut Tenure) -> Result<(), PlacementError> {
        let is_new = |node: &NodeId| !tenure.reports.has(*node);
        let lacks_some = tenure.answering.iter().any(is_new) && self.is_older(tenure.reported, REPORTS_FRESH);
        if lacks_some || self.is_older(tenure.reported, REPORTS_EVERY) {
            self.ask_for_reports(&map, tenure).await;
        }
        let seen = tenure.seen(&map);
        if tenure.idle.as_ref() == Some(&seen) && !mandate.is_told() {
            return Ok(());
        }
        let Some(planned) = self.plan(&map, tenure).await else { return Ok(()) };
        let is_calm = planned.waiting_shards == 0
            && map.map.nodes.iter().all(|node| node.silent_since_ms == 0 || node.given_up_ms != 0);
        let allowed: Vec<(&Step, u64)> =
            planned.steps.iter().filter_map(|step| Some((step, mandate.parent_of(step, &map, is_calm)?))).collect();
        metrics::gauge!("postrider_balance_blocked_shards").set(planned.blocked_shards as f64);
        metrics::gauge!("postrider_balance_waiting_shards").set(planned.waiting_shards as f64);
        // What was refused is asked for again once something has changed, or a minute later.
        let begun = if tenure.idle.as_ref() == Some(&seen) { 0 } else { self.begin(&allowed).await? };
        tenure.idle = (begun == 0).then_some(seen);
        self.go_on(mandate, &map, &planned, begun == 0, tenure).await
    }

    fn is_older(&self, at: Option<Duration>, age: Duration) -> bool {
        at.is_none_or(|at| self.now().saturating_sub(at) > age)
    }

    async fn ask_for_reports(&self, map: &MapView, tenure: &mut Tenure) {
        tenure.reports = Arc::new(self.lookout.reports(map, &tenure.answering).await);
        tenure.reported = Some(self.now());
    }

    /// Plans on a thread of its own: of a large cluster it takes seconds.
    async fn plan(&self, map: &Arc<MapView>, tenure: &mut Tenure) -> Option<Plan> {
        let began = self.now();
        let (map, reports, answering) = (map.clone(), tenure.reports.clone(), tenure.answering.clone());
        let limits = self.options.limits;
        let planned = tokio::task::spawn_blocking(move || {
            let given_up = BTreeSet::new();
            let view = observed::view(Observed {
                map: &map.map,
                reports: &reports,
                answering: &answering,
                given_up: &given_up,
            });
            plan(&view, &limits)
        });
        let planned = planned.await;
        tenure.planning = self.now().saturating_sub(began);
        match planned {
            Ok(Ok(planned)) => Some(planned),
            Ok(Err(error)) => {
                tracing::error!(%error, "the shard map does not hang together, and nothing is planned");
                None
            }
            // The node shuts down.
            Err(_) => None,
        }
    }
}

impl Tenure {
    fn seen(&self, map: &MapView) -> Seen {
        Seen { version: map.map.version, answering: self.answering.clone(), reported: self.reported }
    }
}
