//! The operator's interface of one node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::limit::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use postrider_api::pb::{self, admin_service_client::AdminServiceClient};
use postrider_api::tls::TlsIdentity;
use postrider_api::trace::grpc::Traced;
use thiserror::Error;
use tonic::{Code, Response, Status};

use crate::peer::Wire;

/// What an operator's question may take.
const QUICK: Duration = Duration::from_secs(15);
/// What a digest or a verification may take: each reads a whole shard.
const LONG: Duration = Duration::from_secs(60 * 60);

/// Why a node did not do what an operator asked.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum AdminError {
    /// The node cannot be reached, or did not answer in time.
    #[error("{address}: {detail}")]
    Unreachable {
        /// The node.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// This process's certificate does not allow the call.
    #[error("{address} refuses this certificate: {detail}")]
    Forbidden {
        /// The node.
        address: String,
        /// What it said.
        detail: String,
    },
    /// The node understood and would not.
    #[error("{address}: {reason}")]
    Refused {
        /// The node.
        address: String,
        /// Its sentence.
        reason: String,
        /// What a program can act on, where there is something.
        fault: Option<Box<pb::Fault>>,
    },
    /// The node has a replica of another making of the group.
    #[error("{address}: {reason}")]
    OtherIncarnation {
        /// The node.
        address: String,
        /// Its sentence.
        reason: String,
        /// The making that it has a replica of.
        hosted: u64,
    },
}

/// Talks to one node, as `ctl` or another node.
#[derive(Clone)]
pub struct AdminClient {
    address: Arc<str>,
    service: AdminServiceClient<Wire>,
}

impl AdminClient {
    /// For a node that no map knows yet. Connects when it is first called.
    ///
    /// # Errors
    /// When `address` is none or the certificates cannot be used.
    pub fn connect(address: &str, identity: &TlsIdentity) -> Result<Self, AdminError> {
        let endpoint = identity
            .endpoint(address)
            .map_err(|error| AdminError::Unreachable { address: address.to_owned(), detail: error.to_string() })?;
        let service = AdminServiceClient::new(Traced(endpoint.connect_lazy()))
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(REPLY_BYTES_MAX);
        Ok(Self::new(address.into(), service))
    }

    pub(crate) fn new(address: Arc<str>, service: AdminServiceClient<Wire>) -> Self {
        Self { address, service }
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The node and its replicas.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn status(&self) -> Result<pb::StatusReply, AdminError> {
        let mut service = self.service.clone();
        self.call(QUICK, service.status(pb::StatusRequest::default())).await
    }

    /// What the node bears and can bear.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn load(&self) -> Result<pb::LoadReply, AdminError> {
        let mut service = self.service.clone();
        self.call(QUICK, service.load(pb::LoadRequest {})).await
    }

    /// Digest of this node's replica of `shard`, and the index it is of.
    ///
    /// # Errors
    /// When the node does not answer or has no such replica.
    pub async fn digest(&self, shard: ShardId) -> Result<pb::DigestReply, AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(LONG, service.digest(pb::DigestRequest { shard: shard.0 })).await?;
        self.unless_fault(reply.fault.clone(), reply)
    }

    /// Recomputes counters, quotas, indexes and references of this node's replica (P-10).
    ///
    /// # Errors
    /// When the node does not answer or has no such replica.
    pub async fn verify(&self, shard: ShardId) -> Result<pb::VerifyReply, AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(LONG, service.verify(pb::VerifyRequest { shard: shard.0 })).await?;
        self.unless_fault(reply.fault.clone(), reply)
    }

    /// Asks this node, which leads `shard`, to hand the lead to another replica; returns when it has it.
    ///
    /// # Errors
    /// When it did not come to that.
    pub async fn transfer(&self, shard: ShardId, to: NodeId) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(QUICK * 2, service.transfer(pb::TransferRequest { shard: shard.0, to: to.0 })).await?;
        self.accepted(reply)
    }

    /// Opens an empty replica of this making of the shard's group, which waits for a leader to fill it. Open already: nothing happens.
    ///
    /// # Errors
    /// When the node cannot; `OtherIncarnation` where it has a replica of another making.
    pub async fn open_replica(&self, shard: ShardId, incarnation: u64) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let request = pb::OpenReplicaRequest { incarnation, ..replica_request(shard) };
        let reply = self.call(QUICK, service.open_replica(request)).await?;
        self.accepted(reply)
    }

    /// Makes a group of replicas that were opened on `members` before; called on one of them. Made already: nothing
    /// happens.
    ///
    /// # Errors
    /// When the node cannot; `OtherIncarnation` where it has a replica of another making.
    pub async fn create_group(
        &self,
        shard: ShardId,
        incarnation: u64,
        members: Vec<pb::Node>,
    ) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let request = pb::CreateGroupRequest { shard: shard.0, kind: kind_of(shard), members, incarnation };
        let reply = self.call(QUICK, service.create_group(request)).await?;
        self.accepted(reply)
    }

    /// Removes this node's replica of a group that it is no member of any more, with its data.
    ///
    /// # Errors
    /// When it is still a member, or the node cannot.
    pub async fn remove_replica(&self, shard: ShardId) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(QUICK * 4, service.remove_replica(replica_request(shard))).await?;
        self.accepted(reply)
    }

    /// Rewrites the node's files without what was deleted; returns when that is done.
    ///
    /// # Errors
    /// When the node cannot.
    pub async fn vacuum(&self) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(LONG, service.vacuum(pb::VacuumRequest {})).await?;
        self.accepted(reply)
    }

    /// The search indexes of the node's replicas.
    ///
    /// # Errors
    /// When the node cannot be asked.
    pub async fn search_status(&self) -> Result<Vec<pb::SearchStatus>, AdminError> {
        let mut service = self.service.clone();
        Ok(self.call(QUICK, service.search_status(pb::SearchStatusRequest {})).await?.shards)
    }

    /// Throws away the node's search index of a shard; it is built anew in the background.
    ///
    /// # Errors
    /// When the node has none, or cannot be asked.
    pub async fn rebuild_search(&self, shard: ShardId) -> Result<(), AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(QUICK, service.rebuild_search(pb::SearchRequest { shard: shard.0 })).await?;
        self.accepted(reply)
    }

    /// Holds every row of a shard against the node's search index.
    ///
    /// # Errors
    /// When the node cannot.
    pub async fn check_search(&self, shard: ShardId) -> Result<pb::VerifyReply, AdminError> {
        let mut service = self.service.clone();
        let reply = self.call(LONG, service.check_search(pb::SearchRequest { shard: shard.0 })).await?;
        self.unless_fault(reply.fault.clone(), reply)
    }

    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) => {
                Err(AdminError::Forbidden { address: self.address.to_string(), detail: status.message().to_owned() })
            }
            Ok(Err(status)) => Err(self.unreachable(status.message())),
            Err(_) => Err(self.unreachable("no answer in time")),
        }
    }

    fn unreachable(&self, detail: &str) -> AdminError {
        AdminError::Unreachable { address: self.address.to_string(), detail: detail.to_owned() }
    }

    fn accepted(&self, reply: pb::AdminReply) -> Result<(), AdminError> {
        if reply.ok {
            return Ok(());
        }
        if reply.incarnation != 0 {
            let (address, reason) = (self.address.to_string(), reply.error);
            return Err(AdminError::OtherIncarnation { address, reason, hosted: reply.incarnation });
        }
        Err(AdminError::Refused {
            address: self.address.to_string(),
            reason: reply.error,
            fault: reply.fault.map(Box::new),
        })
    }

    fn unless_fault<T>(&self, fault: Option<pb::Fault>, reply: T) -> Result<T, AdminError> {
        let Some(fault) = fault else { return Ok(reply) };
        let reason = format!("{:?}", fault.fault);
        Err(AdminError::Refused { address: self.address.to_string(), reason, fault: Some(Box::new(fault)) })
    }
}

fn kind_of(shard: ShardId) -> i32 {
    shard.kind().unwrap_or(pb::ShardKind::Unspecified).into()
}

fn replica_request(shard: ShardId) -> pb::OpenReplicaRequest {
    pb::OpenReplicaRequest { shard: shard.0, kind: kind_of(shard), ..Default::default() }
}
