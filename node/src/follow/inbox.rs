//! What followers are told: which shards have something new. One note a shard and follower, whatever happens to it meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use postrider_api::id::ShardId;

/// Between two rounds notes gather: a shard that changes a thousand times a second is looked at twenty times.
const GATHER: Duration = Duration::from_millis(50);

/// What has happened to a shard since its follower last looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// The replica was opened, or a snapshot has replaced its state.
    pub(crate) restored: bool,
    /// The replica was removed; another may have come since.
    pub(crate) removed: bool,
}

/// What a follower finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Something about this shard; the shards take turns.
    Shard(ShardId, Note),
    /// Nothing for as long as it wanted to wait.
    Nothing,
    /// The node shuts down: what was taken in is to be kept, or, where it is torn down as by a kill, is not.
    Stop {
        /// Whether it is to be kept.
        keep: bool,
    },
}

#[derive(Default)]
struct State {
    notes: BTreeMap<ShardId, Note>,
    /// Whose turn it was last.
    last: Option<ShardId>,
    /// Whether to keep what was taken in; `None` while it runs.
    stopped: Option<bool>,
}

/// The notes for one follower.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    woken: Condvar,
}

impl Inbox {
    fn note(&self, shard: ShardId, change: impl FnOnce(&mut Note)) {
        let mut state = self.state.lock();
        let was_empty = state.notes.is_empty();
        change(state.notes.entry(shard).or_default());
        // It sleeps only when there is nothing.
        if was_empty {
            self.woken.notify_one();
        }
    }

    /// Takes the next shard's note, or waits for one; without `patience` for as long as it takes. Each shard has one turn a
    /// round.
    pub(crate) fn next(&self, patience: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        loop {
            if let Some(keep) = state.stopped {
                return Next::Stop { keep };
            }
            let behind = state.last.map_or(Bound::Unbounded, Bound::Excluded);
            if let Some(shard) = state.notes.range((behind, Bound::Unbounded)).next().map(|(shard, _)| *shard) {
                state.last = Some(shard);
                let note = state.notes.remove(&shard).unwrap_or_default();
                return Next::Shard(shard, note);
            }
            if state.notes.is_empty() {
                match patience {
                    None => self.woken.wait(&mut state),
                    Some(patience) => {
                        self.woken.wait_for(&mut state, patience);
                    }
                }
                if state.notes.is_empty() && state.stopped.is_none() {
                    return Next::Nothing;
                }
            }
            // A new round. Nobody is woken for what comes meanwhile.
            state.last = None;
            if state.stopped.is_none() {
                self.woken.wait_for(&mut state, GATHER);
            }
        }
    }

    /// The shard's turn comes again.
    pub(crate) fn again(&self, shard: ShardId) {
        self.state.lock().notes.entry(shard).or_default();
    }

    /// Waits, unless the node shuts down meanwhile.
    pub(crate) fn pause(&self, pause: Duration) {
        let mut state = self.state.lock();
        if state.stopped.is_none() {
            // Woken for a note it goes on a little early, which harms nothing.
            self.woken.wait_for(&mut state, pause);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped.is_some()
    }

    pub(crate) fn stop(&self, keep: bool) {
        self.state.lock().stopped.get_or_insert(keep);
        self.woken.notify_all();
    }
}

/// All followers' inboxes. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Follow {
    inboxes: Arc<[Arc<Inbox>]>,
}

impl Follow {
    pub(crate) fn new(followers: usize) -> Self {
        Self { inboxes: (0..followers).map(|_| Arc::default()).collect() }
    }

    pub(crate) fn inboxes(&self) -> &[Arc<Inbox>] {
        &self.inboxes
    }

    /// The tail of changes of the shard has grown.
    pub(crate) fn changed(&self, shard: ShardId) {
        self.inboxes.iter().for_each(|inbox| inbox.note(shard, |_| ()));
    }

    /// The replica was opened, or a snapshot has replaced its state.
    pub(crate) fn restored(&self, shard: ShardId) {
        self.inboxes.iter().for_each(|inbox| inbox.note(shard, |note| note.restored = true));
    }

    /// The replica was removed, with its rows.
    pub(crate) fn removed(&self, shard: ShardId) {
        self.inboxes.iter().for_each(|inbox| inbox.note(shard, |note| note.removed = true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_take_turns_and_notes_of_one_are_one() {
        let follow = Follow::new(1);
        let inbox = &follow.inboxes()[0];
        for shard in [3, 1, 2, 1, 3] {
            follow.changed(ShardId(shard));
        }
        follow.removed(ShardId(1));
        follow.restored(ShardId(1));
        let note = Note { restored: true, removed: true };
        assert_eq!(inbox.next(None), Next::Shard(ShardId(1), note));
        // The one that has something again comes behind those that wait.
        follow.changed(ShardId(1));
        assert_eq!(inbox.next(None), Next::Shard(ShardId(2), Note::default()));
        assert_eq!(inbox.next(None), Next::Shard(ShardId(3), Note::default()));
        assert_eq!(inbox.next(None), Next::Shard(ShardId(1), Note::default()));
        assert_eq!(inbox.next(Some(Duration::from_millis(1))), Next::Nothing);
    }

    #[test]
    fn whoever_waits_is_woken() {
        let follow = Follow::new(1);
        let inbox = follow.inboxes()[0].clone();
        let waits = std::thread::spawn(move || (inbox.next(None), inbox.next(None)));
        follow.changed(ShardId(7));
        // The second wait ends with the node.
        while !follow.inboxes()[0].state.lock().notes.is_empty() {
            std::thread::yield_now();
        }
        follow.inboxes()[0].stop(true);
        let ended = (Next::Shard(ShardId(7), Note::default()), Next::Stop { keep: true });
        assert_eq!(waits.join().unwrap(), ended);
    }
}
