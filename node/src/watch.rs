//! One mailbox's changes as they are applied.
//!
//! Invariant: a watch subscribes before it reads, and its position moves only past what it has sent: no gap, no repeat. What
//! it sends is applied, so it stays true whoever leads next.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use postrider_api::id::{ShardId, UserId};
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, Missing, answer, query, watch_event::Event};
use postrider_api::trace::{self, Context, Kind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::fault::{self, malformed};
use crate::hub::{Hub, Subscription};
use crate::options::NodeTimings;
use crate::replicas::Replicas;
use crate::subject;

/// Events that wait for a slow reader; past it, the watch reads no further.
const EVENTS_AHEAD: usize = 4;
/// How often a quiet watch looks whether this node still leads.
const TICK: Duration = Duration::from_secs(1);

pub(crate) type EventStream = Pin<Box<dyn Stream<Item = Result<pb::WatchEvent, Status>> + Send>>;

/// Serves watches.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) replicas: Replicas,
    pub(crate) hub: Arc<Hub>,
    pub(crate) timings: NodeTimings,
    pub(crate) stop: CancellationToken,
}

/// Where a watch's events go; an error when its reader has left.
type Events = mpsc::Sender<Result<pb::WatchEvent, Status>>;

/// Why a watch ends.
enum End {
    /// Told to the reader in the last event.
    Fault(pb::Fault),
    ReaderLeft,
}

impl From<pb::Fault> for End {
    fn from(fault: pb::Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Watcher {
    pub(crate) fn handle(&self, request: pb::WatchRequest) -> EventStream {
        let (events, stream) = mpsc::channel(EVENTS_AHEAD);
        let watcher = self.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = watcher.watch(request, &events) => ended,
                () = watcher.stop.cancelled() => Err(End::Fault(fault::not_leader(None, None))),
                () = events.closed() => Err(End::ReaderLeft),
            };
            if let Err(End::Fault(fault)) = ended {
                // The reader may have left in the same moment; nobody is there to be told then.
                let _ = events.send(Ok(pb::WatchEvent { event: Some(Event::Fault(fault)) })).await;
            }
        });
        Box::pin(ReceiverStream::new(stream))
    }

    async fn watch(&self, request: pb::WatchRequest, events: &Events) -> Result<(), End> {
        let shard = ShardId(request.shard);
        let user = subject::user(&request.user_id)?;
        if let Some(proof) = &request.session {
            subject::check(proof, Some(&request.user_id))?;
        }
        self.replicas.leading(shard)?;
        let changes = self.hub.subscribe(shard, user).ok_or_else(fault::busy)?;
        // A new leader may not have applied yet what the last one has told.
        self.replicas.barrier(shard).await?;
        let watch = Watch { watcher: self, shard, user, session: request.session, since: request.since, events };
        watch.follow(changes).await
    }
}

struct Watch<'a> {
    watcher: &'a Watcher,
    shard: ShardId,
    user: UserId,
    session: Option<pb::SessionProof>,
    /// Everything up to here was sent.
    since: u64,
    events: &'a Events,
}

impl Watch<'_> {
    async fn follow(mut self, mut changes: Subscription) -> Result<(), End> {
        let heartbeat = self.watcher.timings.heartbeat;
        self.check()?;
        self.send_changes(None).await?;
        // Said at once, so that a reader knows where he is.
        self.send(Event::Heartbeat(pb::Heartbeat { modseq: self.since })).await?;
        let mut quiet = Duration::ZERO;
        loop {
            tokio::select! {
                trace = changes.changed() => {
                    self.check()?;
                    // A reader that is slow is no fault of ours.
                    let mut span = trace::remote(trace, "watch", Kind::Internal).patient();
                    span.set("postrider.shard", self.shard.0);
                    if self.send_changes(span.context()).await? {
                        quiet = Duration::ZERO;
                    }
                }
                () = tokio::time::sleep(TICK) => {
                    self.check()?;
                    quiet += TICK;
                    if quiet >= heartbeat {
                        quiet = Duration::ZERO;
                        self.send(Event::Heartbeat(pb::Heartbeat { modseq: self.since })).await?;
                    }
                }
            }
        }
    }

    /// Whether this is still the place to watch, and the session still holds.
    fn check(&self) -> Result<(), pb::Fault> {
        let replicas = &self.watcher.replicas;
        let status = replicas.status(self.shard).ok_or_else(fault::unknown_group)?;
        if !status.leads() {
            return Err(fault::not_leader(Some(&status), status.leader));
        }
        // Cut off from the others: one of them may lead by now, and know more.
        let silence = status.quorum_ack_age_ms.map(Duration::from_millis);
        if silence.is_some_and(|silence| silence > self.watcher.timings.watch_without_quorum) {
            return Err(fault::no_quorum());
        }
        match &self.session {
            Some(proof) => replicas.session_holds(self.shard, proof),
            None => Ok(()),
        }
    }

    /// Sends everything behind `since`, page by page, with where the newest of it stands in a trace; whether there was anything.
    async fn send_changes(&mut self, trace: Option<Context>) -> Result<bool, End> {
        let mut any = false;
        loop {
            match self.read().await? {
                Page::Changes(mut page) => {
                    page.trace = trace.map(|context| context.to_bytes()).unwrap_or_default();
                    let more = page.more;
                    let Some(last) = page.changes.last() else { return Ok(any) };
                    let last = last.modseq;
                    any = true;
                    self.send(Event::Changes(page)).await?;
                    self.since = last;
                    if !more {
                        return Ok(any);
                    }
                }
                Page::Gone(modseq) => {
                    any = true;
                    self.send(Event::Gone(modseq)).await?;
                    self.since = modseq;
                }
            }
        }
    }

    async fn read(&self) -> Result<Page, pb::Fault> {
        let query = pb::ListChanges { user_id: self.user.to_bytes(), since: self.since, limit: PAGE_ROWS_MAX };
        let query = pb::Query { query: Some(query::Query::ListChanges(query)) };
        let replicas = &self.watcher.replicas;
        // Before the changes: what comes in between is told of once more rather than not at all.
        let modseq = replicas.read(self.shard, |reader| postrider_shard::modseq(reader, self.user));
        match replicas.answer(self.shard, query).await?.answer {
            Some(answer::Answer::Changes(page)) => Ok(Page::Changes(page)),
            Some(answer::Answer::NotFound(not_found)) if not_found.missing() == Missing::Changes => {
                let modseq = modseq.map_err(|error| fault::corrupt(&error))?;
                Ok(Page::Gone(modseq.map_or(0, |modseq| modseq.0)))
            }
            _ => Err(malformed("there is no such mailbox in this shard")),
        }
    }

    async fn send(&self, event: Event) -> Result<(), End> {
        self.events.send(Ok(pb::WatchEvent { event: Some(event) })).await.map_err(|_| End::ReaderLeft)
    }
}

enum Page {
    Changes(pb::ChangePage),
    /// What was between is forgotten.
    Gone(u64),
}
