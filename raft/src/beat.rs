//! Nodes ask each other, for all quiesced groups together, what heartbeats told each of them.
//!
//! A node on which groups sleep asks each node that leads some of them, by [`Beat`], whether it is there, and learns in the same
//! answer which groups it has woken. When a node does not answer for a lease, or answers in another life of its process, its
//! groups' members wake, and stand for election as after any silence.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::host::Inner;
use crate::ids::{GroupId, GroupIdentity, Incarnation, Member, NodeId};
use crate::quiesce::{ANSWER_MAX, Followed};
use crate::replica::Replica;
use crate::transport::{Class, Link};
use crate::wire::{Beat, BeatAnswer, Woken, answer, message};

/// A beat is for a node.
pub(crate) const NO_GROUP: GroupIdentity = GroupIdentity { id: GroupId(0), incarnation: Incarnation(0) };
/// Wakes that are remembered. Whoever is further behind wakes all.
const WAKES_MAX: usize = 8_192;
/// Of a node that was not heard for longer than this nothing is known: when no group follows it here, it is asked no more.
const SILENCE_KNOWN: Duration = Duration::from_secs(30);

/// What a host knows of quiesced groups beyond each of them.
pub(crate) struct Quiescence {
    /// Of this life of the process.
    life: u64,
    wakes: Mutex<Wakes>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    /// The ways to the nodes that were asked last: a connection that nobody else uses stays open between two beats.
    links: Mutex<Vec<Arc<dyn Link>>>,
    /// When a node last asked whether this one is there.
    askers: Mutex<BTreeMap<NodeId, Instant>>,
}

/// Groups that were led from here and woken, the newest last.
#[derive(Default)]
struct Wakes {
    last: u64,
    groups: VecDeque<(u64, GroupId)>,
}

/// A node that leads groups which are quiesced here.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    life: u64,
    wake: u64,
    /// When the newest beat that it has answered was sent: what it said then may have changed since.
    pub(crate) answered: Instant,
    /// When its last answer came: that it is there is as good as a heartbeat's word, however long the answer was on its way.
    pub(crate) heard: Instant,
}

impl Quiescence {
    pub(crate) fn new() -> Self {
        Self {
            // No two lives of a process have the same, also where the clock is a simulation's. 0 is nobody's.
            life: RandomState::new().hash_one(std::process::id()).max(1),
            wakes: Mutex::default(),
            peers: Mutex::default(),
            links: Mutex::default(),
            askers: Mutex::default(),
        }
    }

    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// A leader has asked a replica here to quiesce, so its node is there.
    pub(crate) fn hear(&self, leader: NodeId, life: u64, wake: u64) {
        let now = Instant::now();
        let new = Peer { life, wake, answered: now, heard: now };
        let mut peers = self.peers.lock();
        let peer = peers.entry(leader).or_insert(new);
        if peer.life != life {
            *peer = new;
        }
        peer.heard = now;
    }

    /// These nodes have just spoken.
    pub(crate) fn note_askers(&self, nodes: impl Iterator<Item = NodeId>) {
        let now = Instant::now();
        self.askers.lock().extend(nodes.map(|node| (node, now)));
    }

    pub(crate) fn note_wake(&self, group: GroupId) {
        let mut wakes = self.wakes.lock();
        wakes.last += 1;
        let last = wakes.last;
        wakes.groups.push_back((last, group));
        if wakes.groups.len() > WAKES_MAX {
            wakes.groups.pop_front();
        }
    }

    /// The newest wake.
    pub(crate) fn wake(&self) -> u64 {
        self.wakes.lock().last
    }

    /// Answers a node that asks.
    pub(crate) fn answer(&self, from: NodeId, beat: &Beat) -> BeatAnswer {
        self.askers.lock().insert(from, Instant::now());
        let wakes = self.wakes.lock();
        let oldest = wakes.groups.front().map_or(wakes.last + 1, |(wake, _)| *wake);
        let all = beat.life != self.life || beat.wake + 1 < oldest;
        let behind = wakes.groups.iter().rev().take_while(|(wake, _)| !all && *wake > beat.wake);
        let woken = behind.map(|(wake, group)| Woken { wake: *wake, group: group.0 }).collect();
        BeatAnswer { life: self.life, wake: wakes.last, woken, all }
    }

    /// Whether a node that leads, or led, silent groups here has lately stopped to answer.
    pub(crate) fn is_silent(&self, node: NodeId, lease: Duration) -> bool {
        let heard = self.peers.lock().get(&node).map(|peer| peer.heard.elapsed());
        heard.is_some_and(|silent| silent >= lease && silent < SILENCE_KNOWN)
    }

    /// A leader's node, if it lives the life that a replica was quiesced under.
    pub(crate) fn peer(&self, followed: &Followed) -> Option<Peer> {
        self.peers.lock().get(&followed.leader).filter(|peer| peer.life == followed.life).copied()
    }
}

impl Inner {
    /// How long ago a quorum of a quiesced leader's voters last asked for its node, milliseconds.
    pub(crate) fn quorum_asked_ms(&self, voters: &BTreeMap<NodeId, Member>) -> Option<u64> {
        let node = self.options.node;
        let askers = self.quiescence.askers.lock();
        let others = voters.keys().filter(|voter| **voter != node);
        let mut ages: Vec<Option<Duration>> = others.map(|voter| askers.get(voter).map(Instant::elapsed)).collect();
        // Those who never asked come last.
        ages.sort_unstable_by_key(|age| age.unwrap_or(Duration::MAX));
        // Half of them and itself are a quorum.
        match voters.len() / 2 {
            0 => Some(0),
            others => {
                ages.get(others - 1).copied().flatten().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Asks whether leaders' nodes are there, and wakes what slept under one that is not.
pub(crate) fn ask_leaders(host: &Arc<Inner>, replicas: &[Arc<Replica>], is_late: bool) {
    let lease = host.options.timings.lease();
    let beat_every = Duration::from_millis(host.options.timings.heartbeat_ms);
    let mut leaders = BTreeMap::new();
    for replica in replicas {
        let Some(followed) = replica.followed() else { continue };
        match host.quiescence.peer(&followed) {
            Some(peer) if is_late || peer.heard.elapsed() < lease => {
                leaders.entry(followed.leader).or_insert(followed.address);
            }
            Some(peer) => {
                tracing::debug!(group = %replica.group, leader = %followed.leader, "the leader's node is silent");
                // Others may have heard it last a beat later: until then they would give no vote. Of parked replicas they are asked again
                // soon, openraft asks once.
                let patience = if replica.parked().is_some() { Duration::ZERO } else { beat_every };
                replica.wake_to_wait(host, peer.heard + patience);
            }
            // It lives another life, in which it leads nothing yet.
            None => {
                tracing::debug!(group = %replica.group, leader = %followed.leader, "the leader's node was started anew");
                replica.wake_to_wait(host, Instant::now() - lease);
            }
        }
    }
    let mut links = Vec::with_capacity(leaders.len());
    for (leader, address) in leaders {
        let Some(peer) = host.quiescence.peers.lock().get(&leader).copied() else { continue };
        let link = host.network.transport.link(leader, &address);
        links.push(link.clone());
        let host = Arc::downgrade(host);
        // Not awaited: a node that does not answer must not keep the others from being asked.
        tokio::spawn(async move {
            let sent = Instant::now();
            let body = message::Body::Beat(Beat { life: peer.life, wake: peer.wake });
            let answer = tokio::time::timeout(ANSWER_MAX, ask(&*link, NO_GROUP, body)).await;
            if let (Ok(Some(answer::Body::Beat(beat))), Some(host)) = (answer, host.upgrade()) {
                take_in(&host, leader, sent, &beat);
            }
        });
    }
    *host.quiescence.links.lock() = links;
}

pub(crate) async fn ask(link: &dyn Link, group: GroupIdentity, body: message::Body) -> Option<answer::Body> {
    link.send(Class::Control, group, body).await.ok()?.await.ok()?.ok()
}

/// A leader's node has answered a beat.
fn take_in(host: &Inner, leader: NodeId, sent: Instant, beat: &BeatAnswer) {
    {
        let mut peers = host.quiescence.peers.lock();
        let Some(peer) = peers.get_mut(&leader) else { return };
        if peer.life != beat.life {
            // What sleeps under its life before is woken by the next look.
            *peer = Peer { life: beat.life, wake: beat.wake, answered: sent, heard: Instant::now() };
            return;
        }
        peer.heard = Instant::now();
        peer.answered = peer.answered.max(sent);
        peer.wake = peer.wake.max(beat.wake);
    }
    let wake = |replica: &Replica, wake: u64| {
        let is_later =
            |followed: &Followed| followed.leader == leader && followed.life == beat.life && followed.wake < wake;
        if replica.followed().as_ref().is_some_and(is_later) {
            tracing::debug!(group = %replica.group, %leader, "the leader has woken the group");
            replica.wake_to_wait(host, Instant::now());
        }
    };
    if beat.all {
        let replicas: Vec<Arc<Replica>> = host.replicas.read().values().cloned().collect();
        replicas.iter().for_each(|replica| wake(replica, beat.wake));
        return;
    }
    for woken in &beat.woken {
        if let Some(replica) = host.replica(GroupId(woken.group)) {
            wake(&replica, woken.wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: NodeId = NodeId(2);

    fn ask(quiescence: &Quiescence, wake: u64) -> BeatAnswer {
        quiescence.answer(ASKER, &Beat { life: quiescence.life, wake })
    }

    #[test]
    fn an_answer_names_what_was_woken_since() {
        let quiescence = Quiescence::new();
        assert_eq!(ask(&quiescence, 0), BeatAnswer { life: quiescence.life, wake: 0, woken: vec![], all: false });
        for group in [7, 8, 7] {
            quiescence.note_wake(GroupId(group));
        }
        let woken = |answer: BeatAnswer| answer.woken.iter().map(|woken| (woken.wake, woken.group)).collect::<Vec<_>>();
        assert_eq!(woken(ask(&quiescence, 0)), [(3, 7), (2, 8), (1, 7)]);
        assert_eq!(woken(ask(&quiescence, 2)), [(3, 7)]);
        assert_eq!(ask(&quiescence, 3), BeatAnswer { life: quiescence.life, wake: 3, woken: vec![], all: false });
    }

    #[test]
    fn whoever_knows_too_little_is_told_that_all_may_be_awake() {
        let quiescence = Quiescence::new();
        for group in 0..WAKES_MAX + 2 {
            quiescence.note_wake(GroupId(group as u32));
        }
        // Wakes 1 and 2 are forgotten.
        assert!(ask(&quiescence, 0).all && ask(&quiescence, 1).all);
        let answer = ask(&quiescence, 2);
        assert_eq!((answer.all, answer.woken.len()), (false, WAKES_MAX));
        let other = quiescence.answer(ASKER, &Beat { life: quiescence.life ^ 1, wake: WAKES_MAX as u64 + 2 });
        assert!(other.all && other.woken.is_empty());
    }

    #[test]
    fn every_life_has_its_own_number() {
        assert_ne!(Quiescence::new().life, Quiescence::new().life);
    }
}
