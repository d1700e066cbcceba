//! A network in memory: any direction between two nodes can be cut at any moment, messages on their way are lost in an instant,
//! and nobody is told.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use postrider_raft::transport::{Class, Inbox, Link, LinkError, Reply, Transport};
use postrider_raft::wire::{InstallAnswer, SnapshotPart, answer, message, snapshot_part};
use postrider_raft::{GroupId, NodeId};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for a carrier.
const LETTERS_MAX: usize = 1_024;

/// The node at a place.
pub(crate) fn ids(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

/// A network in memory.
#[derive(Default)]
pub(crate) struct Mesh {
    inboxes: RwLock<BTreeMap<NodeId, Arc<dyn Inbox>>>,
    cuts: RwLock<HashSet<(NodeId, NodeId)>>,
    /// Parts after which a stream of a snapshot breaks. 0: never.
    stream_parts: AtomicU64,
    /// What streams of snapshots there were.
    streams: Mutex<Vec<Stream>>,
}

/// One stream of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) transfer: u64,
    /// Blocks that others before it have brought.
    pub(crate) before: u64,
    /// Parts that it has brought, its head among them.
    pub(crate) parts: u64,
}

impl Mesh {
    /// How `node` reaches the others.
    pub(crate) fn place(self: &Arc<Self>, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(Place { mesh: self.clone(), node })
    }

    /// From now on the others reach this one.
    pub(crate) fn join(&self, inbox: &Arc<dyn Inbox>) {
        self.inboxes.write().insert(inbox.node(), inbox.clone());
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.inboxes.write().remove(&node);
    }

    /// Breaks each stream of a snapshot after so many parts; 0: none any more.
    pub(crate) fn break_streams_after(&self, parts: u64) {
        self.stream_parts.store(parts, Ordering::SeqCst);
    }

    /// The streams of snapshots so far, in the order in which they began.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        self.streams.lock().clone()
    }

    fn inbox(&self, from: NodeId, to: NodeId) -> Option<Arc<dyn Inbox>> {
        if self.cuts.read().contains(&(from, to)) {
            return None;
        }
        self.inboxes.read().get(&to).filter(|inbox| !inbox.closed()).cloned()
    }

    /// `to` hears `from` no more.
    pub(crate) fn silence(&self, from: usize, to: usize) {
        self.cuts.write().insert((ids(from), ids(to)));
    }

    /// Neither hears the other any more.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.silence(one, other);
        self.silence(other, one);
    }

    /// Nobody of so many nodes hears the node any more, or it anybody.
    pub(crate) fn isolate(&self, node: usize, nodes: usize) {
        for other in (0..nodes).filter(|other| *other != node) {
            self.cut(node, other);
        }
    }

    pub(crate) fn heal(&self) {
        self.cuts.write().clear();
    }
}

impl Mesh {
    /// Passes on the parts of a snapshot, until the stream breaks.
    async fn pass(&self, mut parts: mpsc::Receiver<SnapshotPart>, feed: mpsc::Sender<SnapshotPart>) {
        let at = {
            let mut streams = self.streams.lock();
            streams.push(Stream { transfer: 0, before: 0, parts: 0 });
            streams.len() - 1
        };
        while let Some(part) = parts.recv().await {
            {
                let stream = &mut self.streams.lock()[at];
                if let Some(snapshot_part::Part::Head(head)) = &part.part {
                    (stream.transfer, stream.before) = (head.transfer, head.blocks);
                }
                let max = self.stream_parts.load(Ordering::SeqCst);
                if max != 0 && stream.parts == max {
                    return;
                }
                stream.parts += 1;
            }
            if feed.send(part).await.is_err() {
                return;
            }
        }
    }
}

struct Place {
    mesh: Arc<Mesh>,
    node: NodeId,
}

impl Transport for Place {
    fn link(&self, node: NodeId, _: &str) -> Arc<dyn Link> {
        let (queue, waiting) = mpsc::channel(LETTERS_MAX);
        tokio::spawn(carry(self.mesh.clone(), self.node, node, waiting));
        Arc::new(Wire { mesh: self.mesh.clone(), from: self.node, to: node, queue })
    }
}

struct Letter {
    group: GroupId,
    body: message::Body,
    tell: oneshot::Sender<Result<answer::Body, LinkError>>,
}

struct Wire {
    mesh: Arc<Mesh>,
    from: NodeId,
    to: NodeId,
    queue: mpsc::Sender<Letter>,
}

/// Delivers in order. What is cut off is lost without a word: its sender waits, as behind a real cut.
async fn carry(mesh: Arc<Mesh>, from: NodeId, to: NodeId, mut waiting: mpsc::Receiver<Letter>) {
    let mut lost = Vec::new();
    while let Some(letter) = waiting.recv().await {
        lost.retain(|tell: &oneshot::Sender<_>| !tell.is_closed());
        let Some(inbox) = mesh.inbox(from, to) else {
            lost.push(letter.tell);
            continue;
        };
        let mut delivery = inbox.deliver(from, letter.group, letter.body);
        // The first poll is what queues the message.
        let answered = futures::poll!(&mut delivery);
        let mesh = mesh.clone();
        tokio::spawn(async move {
            let answer = match answered {
                std::task::Poll::Ready(answer) => answer,
                std::task::Poll::Pending => delivery.await,
            };
            if mesh.inbox(to, from).is_some() {
                // Whoever has stopped waiting does not need to know.
                drop(letter.tell.send(Ok(answer)));
            }
        });
    }
}

impl Link for Wire {
    fn send(&self, _: Class, group: GroupId, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>> {
        Box::pin(async move {
            let (tell, reply) = oneshot::channel();
            let lost = |_| LinkError::Lost("the carrier has gone".to_owned());
            self.queue.send(Letter { group, body, tell }).await.map_err(lost)?;
            Ok(reply)
        })
    }

    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'_, Result<InstallAnswer, LinkError>> {
        Box::pin(async move {
            let unreachable = || LinkError::Unreachable("cut off".to_owned());
            let inbox = self.mesh.inbox(self.from, self.to).ok_or_else(unreachable)?;
            let (feed, fed) = mpsc::channel(1);
            let installing = inbox.install(fed);
            let (_, installed) = tokio::join!(self.mesh.pass(parts, feed), installing);
            installed.map_err(|error| LinkError::Lost(error.to_string()))
        })
    }
}
