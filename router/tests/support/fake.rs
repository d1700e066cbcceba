//! A storage node that does what a test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use postrider_api::identity::{self, Caller, Role};
use postrider_api::pb;
use postrider_api::pb::shard_service_server::{ShardService, ShardServiceServer};
use postrider_api::tls::{HTTP2, TlsIdentity, accept};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::ending::end;

/// What the fake node does with one proposal, query, lease or settlement.
#[derive(Clone)]
pub enum Act {
    Done,
    Fault(pb::fault::Fault),
    /// Carries it out, then loses the answer.
    DoneThenLost,
    /// Carries it out after this long.
    Late(Duration),
    /// Never answers.
    Silence,
}

type Play = Box<dyn FnMut(Call<'_>) -> Act + Send>;
type Streams = Box<dyn FnMut(pb::WatchRequest) -> Vec<pb::WatchEvent> + Send>;

pub enum Call<'a> {
    Propose(&'a pb::ProposeRequest),
    Query(&'a pb::QueryRequest),
    Lease,
    Settle,
}

pub struct Stage {
    pub map: watch::Sender<pb::ShardMap>,
    /// What placement says when it is asked, where that is newer than what the stream has told.
    pub newer_map: Mutex<Option<pb::ShardMap>>,
    pub play: Mutex<Play>,
    pub streams: Mutex<Streams>,
    /// How often each request id was carried out, and asked for.
    pub carried_out: Mutex<HashMap<Vec<u8>, u32>>,
    pub asked: Mutex<Vec<Vec<u8>>>,
}

impl Stage {
    pub fn plays(&self, play: impl FnMut(Call<'_>) -> Act + Send + 'static) {
        *self.play.lock() = Box::new(play);
    }

    pub fn streams(&self, streams: impl FnMut(pb::WatchRequest) -> Vec<pb::WatchEvent> + Send + 'static) {
        *self.streams.lock() = Box::new(streams);
    }
}

#[derive(Clone)]
struct Fake(Arc<Stage>);

pub struct FakeNode {
    pub address: String,
    pub stage: Arc<Stage>,
    server: Option<tokio::runtime::Runtime>,
}

impl FakeNode {
    /// A node in a runtime of its own, so that it can die at once.
    pub fn start(identity: &TlsIdentity) -> Self {
        let stage = Arc::new(Stage {
            map: watch::Sender::new(pb::ShardMap::default()),
            newer_map: Mutex::default(),
            play: Mutex::new(Box::new(|_| Act::Done)),
            streams: Mutex::new(Box::new(|_| Vec::new())),
            carried_out: Mutex::default(),
            asked: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = ShardServiceServer::with_interceptor(Fake(stage.clone()), |mut request: Request<()>| {
            let caller = Caller::of(request.peer_certs().as_deref().map(Vec::as_slice));
            request.extensions_mut().insert(caller);
            Ok(request)
        });
        let tls = identity.server_config(&[HTTP2]).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let incoming = Box::pin(accept(listener, tls, 16));
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, stage, server: Some(runtime) }
    }

    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            end(server);
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_of_map(request: &pb::QueryRequest) -> bool {
    let query = request.query.as_ref().and_then(|query| query.query.as_ref());
    matches!(query, Some(pb::query::Query::GetShardMap(_)))
}

fn fault(fault: pb::fault::Fault) -> pb::Fault {
    pb::Fault { fault: Some(fault) }
}

impl Fake {
    async fn act(&self, call: Call<'_>, id: Option<Vec<u8>>) -> Result<Option<pb::Fault>, Status> {
        if let Some(id) = &id {
            self.0.asked.lock().push(id.clone());
        }
        let act = (self.0.play.lock())(call);
        if let (Act::Done | Act::Late(_) | Act::DoneThenLost, Some(id)) = (&act, id) {
            // The state machine's dedup: the same request id is carried out once.
            self.0.carried_out.lock().entry(id).or_insert(1);
        }
        match act {
            Act::Done => Ok(None),
            Act::Late(pause) => {
                tokio::time::sleep(pause).await;
                Ok(None)
            }
            Act::Fault(why) => Ok(Some(fault(why))),
            Act::DoneThenLost => Err(Status::unavailable("the connection broke")),
            Act::Silence => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(Status::unavailable("slept"))
            }
        }
    }
}

#[tonic::async_trait]
impl ShardService for Fake {
    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeReply>, Status> {
        identity::require(&request, &[Role::Frontend])?;
        let request = request.into_inner();
        let id = pb::Command::decode(request.command.clone()).ok().map(|command| command.request.to_vec());
        let result = match self.act(Call::Propose(&request), id).await? {
            None => {
                pb::propose_reply::Result::Outcome(pb::Outcome { result: Some(pb::outcome::Result::Done(pb::Done {})) })
            }
            Some(fault) => pb::propose_reply::Result::Fault(fault),
        };
        Ok(Response::new(pb::ProposeReply { result: Some(result), index: 1 }))
    }

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<pb::QueryReply>, Status> {
        identity::require(&request, &[Role::Frontend])?;
        let request = request.into_inner();
        let stale = request.mode() == pb::ReadMode::Stale;
        let result = match self.act(Call::Query(&request), None).await? {
            None if is_of_map(&request) => {
                let map = self.0.newer_map.lock().clone().unwrap_or_else(|| self.0.map.borrow().clone());
                let update = Some(pb::map_update::Update::Whole(map));
                let answer = Some(pb::answer::Answer::ShardMap(pb::MapUpdate { update }));
                pb::query_reply::Result::Answer(pb::Answer { answer })
            }
            None => pb::query_reply::Result::Answer(pb::Answer {
                answer: Some(pb::answer::Answer::Address(pb::AddressRecord { shard: 1000, ..Default::default() })),
            }),
            Some(fault) => pb::query_reply::Result::Fault(fault),
        };
        let stale_ms = stale.then_some(1234);
        Ok(Response::new(pb::QueryReply { result: Some(result), stale_ms, applied: 1, modseq: None }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let events = (self.0.streams.lock())(request.into_inner());
        let (sender, receiver) = mpsc::channel(64);
        for event in events {
            sender.try_send(Ok(event)).unwrap();
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type WatchMapStream = Pin<Box<dyn Stream<Item = Result<pb::MapUpdate, Status>> + Send>>;

    async fn watch_map(&self, _: Request<pb::WatchMapRequest>) -> Result<Response<Self::WatchMapStream>, Status> {
        let whole = |map| pb::MapUpdate { update: Some(pb::map_update::Update::Whole(map)) };
        Ok(Response::new(Box::pin(WatchStream::new(self.0.map.subscribe()).map(move |map| Ok(whole(map))))))
    }

    async fn lease_queue(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseReply>, Status> {
        identity::require(&request, &[Role::Frontend])?;
        let result = match self.act(Call::Lease, None).await? {
            None => pb::lease_reply::Result::Entries(pb::LeasedEntries {
                entries: vec![pb::LeasedEntry { fence: Some(pb::Fence { term: 1, counter: 1 }), ..Default::default() }],
            }),
            Some(fault) => pb::lease_reply::Result::Fault(fault),
        };
        Ok(Response::new(pb::LeaseReply { result: Some(result) }))
    }

    async fn settle_queue(&self, request: Request<pb::SettleRequest>) -> Result<Response<pb::ProposeReply>, Status> {
        let request = request.into_inner();
        let id = pb::Command::decode(request.command.clone()).ok().map(|command| command.request.to_vec());
        let result = match self.act(Call::Settle, id).await? {
            None => pb::propose_reply::Result::Outcome(pb::Outcome::default()),
            Some(fault) => pb::propose_reply::Result::Fault(fault),
        };
        Ok(Response::new(pb::ProposeReply { result: Some(result), index: 1 }))
    }
}
