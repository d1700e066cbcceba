//! One mailbox's changes, followed from leader to leader.
//!
//! Invariant: each change comes once and none is left out, whatever ends the streams underneath: a stream is opened anew
//! from the last change that was handed on, and what is not newer than that is dropped.

use std::time::Duration;

use futures::Stream;
use futures::stream;
use postrider_api::id::{ModSeq, ShardId, UserId};
use postrider_api::pb::{self, watch_event::Event};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, Streaming};

use crate::error::RouteError;
use crate::peer::Peer;
use crate::pursuit::{Errand, Intent, Pursuit, Step};
use crate::router::Router;

/// A watch looks for a leader as long as its reader wants it to.
const FOR_EVER: Duration = Duration::MAX;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchItem {
    /// Changes, oldest first, each newer than all before it.
    Changes(pb::ChangePage),
    /// Changes since the last item are forgotten: read the mailbox anew. The watch goes on from here.
    Gone(ModSeq),
    /// Nothing has changed up to here.
    Heartbeat(ModSeq),
}

impl Router {
    /// Follows a mailbox's changes with a higher modseq than `since`. While the shard has no leader the stream is silent; it
    /// ends after an error, and errors are only those that asking again does not cure.
    pub fn watch(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        user: UserId,
        since: ModSeq,
    ) -> impl Stream<Item = Result<WatchItem, RouteError>> + Send + use<> {
        let watch = Watch { router: self.clone(), shard, session, user, since, source: None, over: false };
        stream::unfold(watch, |mut watch| async move {
            let item = watch.next().await?;
            watch.over = item.is_err();
            Some((item, watch))
        })
    }
}

struct Watch {
    router: Router,
    shard: ShardId,
    session: Option<pb::SessionProof>,
    user: UserId,
    /// Everything up to here was handed on.
    since: ModSeq,
    source: Option<Source>,
    over: bool,
}

struct Source {
    events: Streaming<pb::WatchEvent>,
    peer: std::sync::Arc<Peer>,
    /// Held for the watch's place on its connection.
    _place: OwnedSemaphorePermit,
}

/// Why a stream gave no item.
enum Lost {
    Failed(Status),
    Fault(pb::Fault),
    Silent,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchItem, RouteError>> {
        if self.over {
            return None;
        }
        let router = self.router.clone();
        let errand = Errand::new(self.shard, Intent::Read, FOR_EVER);
        let mut pursuit = Pursuit::new(&router.core, errand);
        loop {
            let (peer, lost) = match self.source.take() {
                Some(mut source) => match self.receive(&mut source).await {
                    Ok(Some(item)) => {
                        self.source = Some(source);
                        return Some(Ok(item));
                    }
                    Ok(None) => {
                        self.source = Some(source);
                        continue;
                    }
                    Err(lost) => (source.peer, lost),
                },
                None => match self.open(&mut pursuit).await {
                    Ok(Ok(source)) => {
                        self.source = Some(source);
                        continue;
                    }
                    Ok(Err(lost)) => lost,
                    Err(error) => return Some(Err(error)),
                },
            };
            let step = match lost {
                Lost::Failed(status) => pursuit.failed(&peer, &status),
                Lost::Fault(fault) => pursuit.refused(&peer, fault),
                Lost::Silent => pursuit.ran_out(&peer),
            };
            match step {
                // No leader for long is no reason to end: who watches wants to go on when there is one again.
                Step::Give(RouteError::NoQuorum | RouteError::Busy | RouteError::TimedOut { .. }) => {
                    pursuit = Pursuit::new(&router.core, errand);
                    tokio::time::sleep(router.core.options.timings.backoff_max).await;
                }
                Step::Give(error) => return Some(Err(error)),
                Step::Again(pause) => {
                    if let Err(error) = pursuit.pause(pause).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    async fn open(
        &self,
        pursuit: &mut Pursuit<'_>,
    ) -> Result<Result<Source, (std::sync::Arc<Peer>, Lost)>, RouteError> {
        let peer = pursuit.target().await?;
        // A process that watches this much through one node is over its limit, and says so (P-13).
        let (mut service, place) = peer.watch_service().ok_or(RouteError::Busy)?;
        let request = pb::WatchRequest {
            shard: self.shard.0,
            session: self.session.clone(),
            user_id: self.user.to_bytes(),
            since: self.since.0,
        };
        Ok(match tokio::time::timeout(pursuit.attempt(&peer), service.watch(request)).await {
            Ok(Ok(events)) => Ok(Source { events: events.into_inner(), peer, _place: place }),
            Ok(Err(status)) => Err((peer, Lost::Failed(status))),
            Err(_) => Err((peer, Lost::Silent)),
        })
    }

    /// The next item of a stream; `Ok(None)` where an event held nothing new.
    async fn receive(&mut self, source: &mut Source) -> Result<Option<WatchItem>, Lost> {
        let silence = self.router.core.options.timings.watch_silence;
        let event = match tokio::time::timeout(silence, source.events.message()).await {
            Err(_) => return Err(Lost::Silent),
            Ok(Err(status)) => return Err(Lost::Failed(status)),
            Ok(Ok(None)) => return Err(Lost::Failed(Status::unavailable("the stream ended"))),
            Ok(Ok(Some(event))) => event,
        };
        if !matches!(event.event, Some(Event::Fault(_))) {
            source.peer.suspicion.answered();
            self.router.core.leads(self.shard, &source.peer.address);
        }
        Ok(match event.event {
            Some(Event::Fault(fault)) => return Err(Lost::Fault(fault)),
            Some(Event::Changes(page)) => self.advance(page).map(WatchItem::Changes),
            Some(Event::Gone(modseq)) => {
                self.since = ModSeq(modseq);
                Some(WatchItem::Gone(self.since))
            }
            Some(Event::Heartbeat(heartbeat)) => {
                // The stream's position: everything up to it was sent before.
                self.since = self.since.max(ModSeq(heartbeat.modseq));
                Some(WatchItem::Heartbeat(self.since))
            }
            None => None,
        })
    }

    fn advance(&mut self, mut page: pb::ChangePage) -> Option<pb::ChangePage> {
        page.changes.retain(|change| change.modseq > self.since.0);
        page.changes.sort_by_key(|change| change.modseq);
        self.since = ModSeq(page.changes.last()?.modseq);
        Some(page)
    }
}
