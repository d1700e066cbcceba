//! The operator's service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::identity::require;
use postrider_api::limit::PROBED_NODES_MAX;
use postrider_api::pb;
use postrider_api::pb::ReplicaRole;
use postrider_api::pb::admin_service_server::AdminService;
use postrider_api::version;
use postrider_raft::{GroupError, GroupStatus, Incarnation, Member, state_prefix};
use postrider_shard::store::RocksReader;
use postrider_shard::{Broken, Verified};
use tonic::{Request, Response, Status};

use crate::digest;
use crate::fault;
use crate::follow::Tallies;
use crate::load::LoadMeter;
use crate::map::{Map, MapView};
use crate::peers::Peers;
use crate::reconcile::{Wanted, admin_error};
use crate::removal::Remover;
use crate::replicas::{Replicas, group};
use crate::roles;
use crate::scan::{Place, ScanReader};
use crate::search::Search;
use crate::steward::Fitness;
use crate::vacuum::Vacuum;

/// Members of a new group.
const MEMBERS_MAX: usize = 16;
/// Differences that a verification lists; more of them say nothing new.
const DIFFERENCES_MAX: usize = 1000;

pub(crate) struct Admin {
    pub(crate) node: NodeId,
    pub(crate) region: String,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) remover: Remover,
    pub(crate) fitness: Arc<Fitness>,
    pub(crate) vacuum: Vacuum,
    pub(crate) tallies: Arc<Tallies>,
    pub(crate) search: Search,
    pub(crate) load: LoadMeter,
}

fn done() -> Response<pb::AdminReply> {
    Response::new(pb::AdminReply { ok: true, ..Default::default() })
}

fn refused(error: impl ToString) -> Response<pb::AdminReply> {
    Response::new(pb::AdminReply { ok: false, error: error.to_string(), ..Default::default() })
}

fn group_error(error: &GroupError) -> Response<pb::AdminReply> {
    let fault = matches!(error, GroupError::UnknownGroup).then(fault::unknown_group);
    let incarnation = if let GroupError::OtherIncarnation { hosted, .. } = error { hosted.0 } else { 0 };
    Response::new(pb::AdminReply { ok: false, error: error.to_string(), fault, incarnation })
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        require(&request, roles::ADMIN)?;
        let brief = request.into_inner().brief;
        let groups = if brief { Vec::new() } else { self.replicas.host.groups() };
        let replicas = groups.into_iter().filter_map(|group| self.replica(ShardId(group.0))).collect();
        Ok(Response::new(pb::StatusReply {
            node: self.node.0,
            region: self.region.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id().into(),
            replicas,
            wall_ms: self.replicas.clock.wall_ms(),
            leaving: self.fitness.leaving.load(Ordering::Relaxed),
        }))
    }

    async fn digest(&self, request: Request<pb::DigestRequest>) -> Result<Response<pb::DigestReply>, Status> {
        require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        Ok(Response::new(match digest::digest(&self.replicas, shard).await {
            Ok((applied, digest)) => pb::DigestReply { applied, digest: digest.to_vec().into(), fault: None },
            Err(fault) => pb::DigestReply { fault: Some(fault), ..Default::default() },
        }))
    }

    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Result<Response<pb::VerifyReply>, Status> {
        require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        if self.replicas.status(shard).is_none() {
            return Ok(Response::new(pb::VerifyReply { fault: Some(fault::unknown_group()), ..Default::default() }));
        }
        let verified = match self.replicas.scans.whole().await {
            Ok(place) => self.scan_to_verify(shard, place).await,
            Err(busy) => Err(busy),
        };
        let mut verified = verified.and_then(|verified| verified.map_err(|broken| fault::corrupt(&broken)));
        if let Ok(verified) = &mut verified
            && shard.kind() == Some(pb::ShardKind::Mailbox)
        {
            let searched = match self.replicas.scans.whole().await {
                Ok(place) => self.search.checked(&self.replicas, shard, place).await,
                Err(busy) => Err(busy),
            };
            match searched {
                Ok(searched) => {
                    verified.checked += searched.checked;
                    verified.differences.extend(searched.differences);
                }
                Err(fault) => {
                    return Ok(Response::new(pb::VerifyReply { fault: Some(fault), ..Default::default() }));
                }
            }
        }
        Ok(Response::new(match verified {
            Ok(mut verified) => {
                verified.differences.truncate(DIFFERENCES_MAX);
                pb::VerifyReply { checked: verified.checked, differences: verified.differences, fault: None }
            }
            Err(fault) => pb::VerifyReply { fault: Some(fault), ..Default::default() },
        }))
    }

    async fn transfer(&self, request: Request<pb::TransferRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let request = request.into_inner();
        let shard = ShardId(request.shard);
        match self.replicas.host.transfer(group(shard), postrider_raft::NodeId(request.to)).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(Response::new(admin_error(&error, self.replicas.status(shard).as_ref()))),
        }
    }

    async fn open_replica(&self, request: Request<pb::OpenReplicaRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let request = request.into_inner();
        let shard = ShardId(request.shard);
        if let Err(reason) = self.may_hold(shard, request.kind()) {
            return Ok(refused(reason));
        }
        match self.replicas.host.open_replica(group(shard), Incarnation(request.incarnation)).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }

    async fn create_group(&self, request: Request<pb::CreateGroupRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let request = request.into_inner();
        let shard = ShardId(request.shard);
        if let Err(reason) = self.may_hold(shard, request.kind()) {
            return Ok(refused(reason));
        }
        if request.members.len() > MEMBERS_MAX {
            return Ok(refused(format!("a group has at most {MEMBERS_MAX} members")));
        }
        let members: BTreeMap<_, _> = request
            .members
            .into_iter()
            .map(|node| (postrider_raft::NodeId(node.id), Member { address: node.address, region: node.region }))
            .collect();
        match self.replicas.host.create_group(group(shard), Incarnation(request.incarnation), members).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }

    async fn vacuum(&self, request: Request<pb::VacuumRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        match self.vacuum.now().await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }

    async fn search_status(
        &self,
        request: Request<pb::SearchStatusRequest>,
    ) -> Result<Response<pb::SearchStatusReply>, Status> {
        require(&request, roles::ADMIN)?;
        let (search, replicas) = (self.search.clone(), self.replicas.clone());
        let shards = tokio::task::spawn_blocking(move || search.status(&replicas));
        let shards = shards.await.map_err(|_| Status::unavailable("the node shuts down"))?;
        Ok(Response::new(pb::SearchStatusReply { shards }))
    }

    async fn rebuild_search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        if self.replicas.status(shard).is_none() {
            return Ok(group_error(&GroupError::UnknownGroup));
        }
        Ok(if self.search.rebuild(shard) { done() } else { refused("this node keeps no search indexes") })
    }

    async fn check_search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::VerifyReply>, Status> {
        require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        if self.replicas.status(shard).is_none() {
            return Ok(Response::new(pb::VerifyReply { fault: Some(fault::unknown_group()), ..Default::default() }));
        }
        let checked = match self.replicas.scans.whole().await {
            Ok(place) => self.search.checked(&self.replicas, shard, place).await,
            Err(busy) => Err(busy),
        };
        Ok(Response::new(match checked {
            Ok(checked) => pb::VerifyReply { checked: checked.checked, differences: checked.differences, fault: None },
            Err(fault) => pb::VerifyReply { fault: Some(fault), ..Default::default() },
        }))
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Result<Response<pb::ProbeReply>, Status> {
        require(&request, roles::ADMIN)?;
        let asked = request.into_inner().nodes;
        if asked.len() > PROBED_NODES_MAX {
            return Err(Status::invalid_argument(format!("nodes: at most {PROBED_NODES_MAX}")));
        }
        let answers = asked.into_iter().map(|id| async move {
            let node = self.map.node(NodeId(id))?;
            let peer = self.peers.status(&node.address, true).await.ok()?;
            (peer.status.node == id).then_some(id)
        });
        let answering = futures::future::join_all(answers).await.into_iter().flatten().collect();
        Ok(Response::new(pb::ProbeReply { answering }))
    }

    async fn load(&self, request: Request<pb::LoadRequest>) -> Result<Response<pb::LoadReply>, Status> {
        require(&request, roles::ADMIN)?;
        let meter = self.load.clone();
        let report = tokio::task::spawn_blocking(move || meter.report());
        report.await.map(Response::new).map_err(|_| Status::unavailable("the node shuts down"))
    }

    async fn remove_replica(
        &self,
        request: Request<pb::OpenReplicaRequest>,
    ) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        if let Err(reason) = self.may_remove(shard).await {
            return Ok(refused(reason));
        }
        match self.remover.remove(shard).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }
}

impl Admin {
    fn may_hold(&self, shard: ShardId, kind: pb::ShardKind) -> Result<(), String> {
        if self.fitness.removed.load(Ordering::Relaxed) {
            return Err(format!("node {} was removed from the cluster", self.node));
        }
        if shard.kind() != Some(kind) {
            return Err(format!("shard {shard} is of another kind"));
        }
        Ok(())
    }

    /// The map refuses early and with the way out. It allows nothing: that the shard's leader does.
    async fn may_remove(&self, shard: ShardId) -> Result<(), String> {
        let Some(map) = self.map.get() else { return Err("this node has no shard map yet".to_owned()) };
        if Wanted::of(&map, shard).is_some_and(|wanted| !wanted.excludes(self.node)) {
            return Err(format!("shard {shard} has a replica on this node by the shard map: move it first"));
        }
        if !self.remover.may_go(shard).await {
            return Err(format!("no leader of shard {shard} says that this node is no member of it"));
        }
        Ok(())
    }

    /// Rows against rows, and against what the changes have told.
    async fn scan_to_verify(&self, shard: ShardId, place: Place) -> Result<Result<Verified, Broken>, pb::Fault> {
        let (db, tallies) = (self.replicas.db.clone(), self.tallies.clone());
        let verify = move |rows: &ScanReader<'_>| {
            let mut verified = postrider_shard::verify(rows)?;
            let newer = RocksReader::new(&db, state_prefix(group(shard)));
            verified.differences.extend(tallies.differences(shard, rows, &newer)?);
            Ok(verified)
        };
        self.replicas.scan(shard, place, verify).await
    }

    fn replica(&self, shard: ShardId) -> Option<pb::ReplicaStatus> {
        let status = self.replicas.status(shard)?;
        let counts = self.replicas.counts(shard);
        let (role, stopped_reason) = role_of(&status);
        Some(pb::ReplicaStatus {
            shard: shard.0,
            role: role.into(),
            term: status.term,
            leader: status.leader.map(|leader| leader.0),
            last_log: status.last_log.unwrap_or(0),
            committed: status.committed.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
            flushed: status.flushed.unwrap_or(0),
            voters: status.voters.keys().map(|node| node.0).collect(),
            learners: status.learners.keys().map(|node| node.0).collect(),
            stopped_reason,
            users: counts.users,
            bytes: counts.bytes,
            version: version::or_initial(counts.version),
            incarnation: status.incarnation.0,
            members_elsewhere: self.map.get().map(|map| members_elsewhere(&status, &map)).unwrap_or_default(),
        })
    }
}

fn members_elsewhere(status: &GroupStatus, map: &MapView) -> Vec<u64> {
    let members = status.voters.iter().chain(&status.learners);
    let elsewhere =
        members.filter(|(id, member)| map.node(NodeId(id.0)).is_some_and(|node| node.address != member.address));
    elsewhere.map(|(id, _)| id.0).collect()
}

fn role_of(status: &GroupStatus) -> (ReplicaRole, String) {
    match &status.role {
        postrider_raft::Role::Leader => (ReplicaRole::Leader, String::new()),
        postrider_raft::Role::Follower => (ReplicaRole::Follower, String::new()),
        postrider_raft::Role::Candidate => (ReplicaRole::Candidate, String::new()),
        postrider_raft::Role::Learner => (ReplicaRole::Learner, String::new()),
        postrider_raft::Role::Stopped { reason } => (ReplicaRole::Stopped, reason.clone()),
    }
}
