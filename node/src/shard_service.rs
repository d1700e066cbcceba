//! The service of shards: checks the caller's role and hands on.

use std::sync::Arc;

use futures::StreamExt;
use postrider_api::identity::{certificate_of, require};
use postrider_api::pb::command::Op;
use postrider_api::pb::shard_service_server::ShardService;
use postrider_api::{map, pb};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::lease::Leases;
use crate::map::Map;
use crate::propose::{self, Proposer};
use crate::query::Querier;
use crate::received::Received;
use crate::roles;
use crate::watch::{EventStream, Watcher};

pub(crate) struct Shards {
    pub(crate) proposer: Proposer,
    pub(crate) querier: Querier,
    pub(crate) watcher: Watcher,
    pub(crate) leases: Leases,
    pub(crate) map: Map,
    pub(crate) map_watches: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
}

/// Who asked for what the audit log tells is what this node has seen, whatever the caller writes: the one command that is
/// encoded anew, for it is not the caller's alone.
fn vouch(command: Received, certificate: &str) -> Received {
    match &command.command().op {
        Some(Op::RecordAudit(pb::RecordAudit { record: Some(record) })) => {
            let record = pb::AuditRecord { certificate: certificate.to_owned(), ..record.clone() };
            let op = Op::RecordAudit(pb::RecordAudit { record: Some(record) });
            Received::of(pb::Command { op: Some(op), ..command.command().clone() })
        }
        _ => command,
    }
}

#[tonic::async_trait]
impl ShardService for Shards {
    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeReply>, Status> {
        let role = require(&request, roles::SHARD_CALLS)?;
        let certificate = certificate_of(&request);
        let mut request = request.into_inner();
        let command = match Received::decode(std::mem::take(&mut request.command)) {
            Ok(command) => command,
            Err(fault) => return Ok(Response::new(propose::reply(Err(fault)))),
        };
        roles::may_propose(role, command.command())?;
        let command = vouch(command, &certificate);
        Ok(Response::new(self.proposer.handle(request, command).await))
    }

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<pb::QueryReply>, Status> {
        let role = require(&request, roles::QUESTIONS)?;
        let request = request.into_inner();
        roles::may_ask(role, request.query.as_ref())?;
        Ok(Response::new(self.querier.handle(request).await))
    }

    type WatchStream = EventStream;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<EventStream>, Status> {
        require(&request, roles::WATCH)?;
        Ok(Response::new(self.watcher.handle(request.into_inner())))
    }

    type WatchMapStream = futures::stream::BoxStream<'static, Result<pb::MapUpdate, Status>>;

    async fn watch_map(&self, request: Request<pb::WatchMapRequest>) -> Result<Response<Self::WatchMapStream>, Status> {
        require(&request, roles::WATCH_MAP)?;
        let mut known = request.into_inner().known_version;
        let place = self.map_watches.clone().try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted("too many map streams"))?;
        if self.map.get().is_none() {
            return Err(Status::unavailable("this node has no shard map yet"));
        }
        let mut is_first = true;
        let map = self.map.clone();
        let updates = WatchStream::new(self.map.changes()).filter_map(move |_| {
            // Held as long as the stream is.
            let _place = &place;
            let update = map.update_since(known);
            let newest = update.as_ref().map_or(0, map::version);
            // Several changes that come together are told together: then nothing is new at the later wakes.
            let is_news = std::mem::take(&mut is_first) || newest > known;
            known = known.max(newest);
            std::future::ready(update.filter(|_| is_news).map(Ok))
        });
        Ok(Response::new(updates.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn lease_queue(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseReply>, Status> {
        require(&request, roles::QUEUE)?;
        Ok(Response::new(self.leases.lease(request.into_inner()).await))
    }

    async fn settle_queue(&self, request: Request<pb::SettleRequest>) -> Result<Response<pb::ProposeReply>, Status> {
        require(&request, roles::QUEUE)?;
        Ok(Response::new(self.leases.settle(request.into_inner()).await))
    }
}
