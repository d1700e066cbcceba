//! The operator's service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::identity::{Role, require};
use postrider_api::pb;
use postrider_api::pb::admin_service_server::AdminService;
use postrider_api::pb::{ReplicaRole, answer, query};
use postrider_raft::{GroupError, GroupStatus, Member};
use tonic::{Request, Response, Status};

use crate::digest;
use crate::fault;
use crate::lease::Leases;
use crate::map::Map;
use crate::moves::{Mover, admin_error};
use crate::replicas::{Replicas, group};
use crate::roles;
use crate::steward::Fitness;

/// Members of a new group.
const MEMBERS_MAX: usize = 16;
/// Differences that a verification lists; more of them say nothing new.
const DIFFERENCES_MAX: usize = 1000;

pub(crate) struct Admin {
    pub(crate) node: NodeId,
    pub(crate) region: String,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) mover: Mover,
    pub(crate) leases: Leases,
    pub(crate) fitness: Arc<Fitness>,
}

fn done() -> Response<pb::AdminReply> {
    Response::new(pb::AdminReply { ok: true, ..Default::default() })
}

fn refused(error: impl ToString) -> Response<pb::AdminReply> {
    Response::new(pb::AdminReply { ok: false, error: error.to_string(), fault: None })
}

fn group_error(error: &GroupError) -> Response<pb::AdminReply> {
    let fault = matches!(error, GroupError::UnknownGroup).then(fault::unknown_group);
    Response::new(pb::AdminReply { ok: false, error: error.to_string(), fault })
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
        let verified = self.replicas.scan(shard, |reader| postrider_shard::verify(reader)).await;
        let verified = verified.and_then(|verified| verified.map_err(|broken| fault::corrupt(&broken)));
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
        if shard.kind() != Some(request.kind()) {
            return Ok(refused(format!("shard {shard} is of another kind")));
        }
        match self.replicas.host.open_replica(group(shard)).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }

    async fn create_group(&self, request: Request<pb::CreateGroupRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let request = request.into_inner();
        let shard = ShardId(request.shard);
        if shard.kind() != Some(request.kind()) {
            return Ok(refused(format!("shard {shard} is of another kind")));
        }
        if request.members.len() > MEMBERS_MAX {
            return Ok(refused(format!("a group has at most {MEMBERS_MAX} members")));
        }
        let members: BTreeMap<_, _> = request
            .members
            .into_iter()
            .map(|node| (postrider_raft::NodeId(node.id), Member { address: node.address, region: node.region }))
            .collect();
        match self.replicas.host.create_group(group(shard), members).await {
            Ok(()) => Ok(done()),
            Err(error) => Ok(group_error(&error)),
        }
    }

    async fn r#move(&self, request: Request<pb::MoveRequest>) -> Result<Response<pb::AdminReply>, Status> {
        require(&request, roles::ADMIN)?;
        let request = request.into_inner();
        Ok(Response::new(self.mover.start(ShardId(request.shard), NodeId(request.from), NodeId(request.to)).await))
    }

    async fn remove_replica(
        &self,
        request: Request<pb::OpenReplicaRequest>,
    ) -> Result<Response<pb::AdminReply>, Status> {
        let role = require(&request, roles::ADMIN)?;
        let shard = ShardId(request.into_inner().shard);
        if let Err(reason) = self.may_remove(shard, role) {
            return Ok(refused(reason));
        }
        match self.replicas.host.remove_replica(group(shard)).await {
            Ok(()) => {
                self.replicas.machines.forget(shard);
                self.leases.forget(shard);
                Ok(done())
            }
            Err(error) => Ok(group_error(&error)),
        }
    }
}

impl Admin {
    /// A replica that is still a member goes only at the end of a move, and then the shard's leader asks for it: it has
    /// just seen the new membership agreed on.
    fn may_remove(&self, shard: ShardId, role: Role) -> Result<(), String> {
        let Some(map) = self.map.get() else { return Err("this node has no shard map yet".to_owned()) };
        let listed = map.shards.iter().any(|placed| placed.id == shard.0 && placed.replicas.contains(&self.node.0));
        let moving_away = map.moves.iter().any(|running| running.shard == shard.0 && running.from == self.node.0);
        if !listed || (role == Role::Node && moving_away) {
            return Ok(());
        }
        Err(format!("shard {shard} has a replica on this node by the shard map: move it first"))
    }

    fn replica(&self, shard: ShardId) -> Option<pb::ReplicaStatus> {
        let status = self.replicas.status(shard)?;
        let (users, bytes) = self.size(shard);
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
            users,
            bytes,
        })
    }

    /// Users and bytes of a replica; zeros where it has no rows yet.
    fn size(&self, shard: ShardId) -> (u64, u64) {
        let query = pb::Query { query: Some(query::Query::GetShardStats(pb::GetShardStats {})) };
        let now_ms = self.replicas.clock.wall_ms();
        let answered = self.replicas.read(shard, |reader| postrider_shard::query(shard, reader, now_ms, &query));
        match answered {
            Ok(pb::Answer { answer: Some(answer::Answer::ShardStats(record)) }) => (record.users, record.bytes),
            Ok(_) => (0, 0),
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "a shard's size cannot be read");
                (0, 0)
            }
        }
    }
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
