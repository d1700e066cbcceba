//! A network in memory: any direction between two nodes can be cut at any moment, messages on their way are lost in an instant,
//! and nobody is told.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use postrider_raft::transport::{Class, Inbox, Link, LinkError, Reply, Transport};
use postrider_raft::wire::{InstallAnswer, Refusal, SnapshotPart, answer, message, snapshot_part};
use postrider_raft::{GroupIdentity, NodeId};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for a carrier.
const LETTERS_MAX: usize = 1_024;

/// The node at a place.
pub(crate) fn ids(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

/// What goes wrong with streams of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Snag {
    #[default]
    Nothing,
    /// Each breaks after so many parts.
    Break(u64),
    /// The first breaks after so many parts, and its two ends do not hear each other any more.
    Part(u64),
    /// Each moves no more after so many parts: its sender gives it up, its receiver does not know.
    Hang(u64),
    /// The answer to the first is lost.
    Answer,
}

/// A network in memory.
#[derive(Default)]
pub(crate) struct Mesh {
    inboxes: RwLock<BTreeMap<NodeId, Arc<dyn Inbox>>>,
    cuts: RwLock<HashSet<(NodeId, NodeId)>>,
    snag: Mutex<Snag>,
    /// What streams of snapshots there were.
    streams: Mutex<Vec<Stream>>,
    /// Nodes of a build that knows no votes of many groups at once.
    old: RwLock<HashSet<NodeId>>,
    votes: Mutex<Votes>,
}

/// Questions for votes that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Votes {
    /// Of one group.
    pub(crate) single: usize,
    /// Frames with those of many groups, and what tells whom they have elected.
    pub(crate) frames: usize,
    /// Ballots in them.
    pub(crate) ballots: usize,
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

    /// From now on this goes wrong.
    pub(crate) fn snag(&self, snag: Snag) {
        *self.snag.lock() = snag;
    }

    /// From now on the node is of a build that knows no votes of many groups at once.
    pub(crate) fn make_old(&self, node: NodeId) {
        self.old.write().insert(node);
    }

    /// The questions for votes since this was asked last.
    pub(crate) fn votes(&self) -> Votes {
        std::mem::take(&mut *self.votes.lock())
    }

    /// Takes note of a message, and answers what its receiver would not understand.
    fn note(&self, to: NodeId, body: &message::Body) -> Option<answer::Body> {
        let mut votes = self.votes.lock();
        match body {
            message::Body::Vote(_) | message::Body::PreVote(_) => votes.single += 1,
            message::Body::Ballots(ballots) => {
                votes.frames += 1;
                votes.ballots += ballots.ballots.len();
                return self.old.read().contains(&to).then(|| answer::Body::Refused(Refusal::Malformed.into()));
            }
            _ => {}
        }
        None
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
    /// Passes on the parts of a snapshot. False when the stream has broken.
    async fn pass(
        &self,
        (from, to): (NodeId, NodeId),
        mut parts: mpsc::Receiver<SnapshotPart>,
        feed: mpsc::Sender<SnapshotPart>,
    ) -> bool {
        let at = {
            let mut streams = self.streams.lock();
            streams.push(Stream { transfer: 0, before: 0, parts: 0 });
            streams.len() - 1
        };
        while let Some(part) = parts.recv().await {
            let passed = {
                let stream = &mut self.streams.lock()[at];
                if let Some(snapshot_part::Part::Head(head)) = &part.part {
                    (stream.transfer, stream.before) = (head.transfer, head.blocks);
                }
                stream.parts += 1;
                stream.parts - 1
            };
            let snag = *self.snag.lock();
            match snag {
                Snag::Break(max) if passed == max => return self.broken(at),
                Snag::Part(max) if passed == max => {
                    self.cuts.write().extend([(from, to), (to, from)]);
                    return self.broken(at);
                }
                Snag::Hang(max) if passed == max => {
                    tokio::spawn(async move { feed.closed().await });
                    return self.broken(at);
                }
                _ => {}
            }
            if feed.send(part).await.is_err() {
                return true;
            }
        }
        true
    }

    fn broken(&self, at: usize) -> bool {
        self.streams.lock()[at].parts -= 1;
        false
    }

    /// Whether the answer to a stream is lost.
    fn loses_answer(&self) -> bool {
        let mut snag = self.snag.lock();
        let loses = *snag == Snag::Answer;
        if loses {
            *snag = Snag::Nothing;
        }
        loses
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
    group: GroupIdentity,
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
        if let Some(answer) = mesh.note(to, &letter.body) {
            // Whoever has stopped waiting does not need to know.
            drop(letter.tell.send(Ok(answer)));
            continue;
        }
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
    fn send(&self, _: Class, group: GroupIdentity, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>> {
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
            // Goes on by itself, as behind a connection that has broken.
            let installing = tokio::spawn(inbox.install(fed));
            let lost = || LinkError::Lost("the stream broke".to_owned());
            if !self.mesh.pass((self.from, self.to), parts, feed).await {
                return Err(lost());
            }
            let installed = installing.await.map_err(|_| lost())?;
            if self.mesh.loses_answer() {
                return Err(lost());
            }
            installed.map_err(|error| LinkError::Lost(error.to_string()))
        })
    }
}
