//! No stale read, ever: nodes are cut off, restarted, and their clocks jump, while everybody reads everywhere.
//!
//! The hosts talk through memory, so that any direction between two of them can be cut at any moment: messages on their way
//! are lost in an instant, and nobody is told. One command after the other is proposed; the state counts them. A read is
//! consistent if it shows at least the count that was acknowledged, or shown to anybody, before it began.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use postrider_raft::{Clock, Host, HostOptions, Member, NodeId, Role, SystemClock};
use support::mesh::{Mesh, ids};
use support::{GROUP, MADE, Rows, command, eventually, open, rows};

const NODES: usize = 3;
const BYTES: usize = 100;
/// How long what happens to the nodes lasts. A lease is 900 ms.
const CUT: Duration = Duration::from_millis(2_500);
/// How long everything is well again.
const CALM: Duration = Duration::from_millis(1_500);
const READERS_PER_NODE: usize = 2;

/// The system's clocks, and what was done to them.
struct Hands {
    since_boot_ms: AtomicU64,
    wall_ms: AtomicU64,
}

/// A jump of the wall clock, either way.
const JUMP_MS: u64 = 3_600_000;

impl Default for Hands {
    fn default() -> Self {
        // There is time to go back to.
        Self { since_boot_ms: AtomicU64::new(0), wall_ms: AtomicU64::new(10 * JUMP_MS) }
    }
}

impl Clock for Hands {
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
    fn since_boot(&self) -> Duration {
        SystemClock.since_boot() + Duration::from_millis(self.since_boot_ms.load(Ordering::Relaxed))
    }
    fn wall(&self) -> Duration {
        SystemClock.wall() + Duration::from_millis(self.wall_ms.load(Ordering::Relaxed))
    }
}

struct Node {
    id: NodeId,
    dir: PathBuf,
    clock: Arc<Hands>,
    /// None while it is down.
    host: RwLock<Option<Host>>,
}

struct World {
    mesh: Arc<Mesh>,
    nodes: Vec<Node>,
    acknowledged: AtomicU64,
    shown: AtomicU64,
    reads: AtomicU64,
    refused: AtomicU64,
    /// Nobody writes.
    held: AtomicBool,
    stopping: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl World {
    async fn start(dir: &Path) -> Arc<Self> {
        let nodes = (0..NODES).map(ids).map(|id| Node {
            id,
            dir: dir.join(id.to_string()),
            clock: Arc::default(),
            host: RwLock::new(None),
        });
        let world = Arc::new(Self {
            mesh: Arc::default(),
            nodes: nodes.collect(),
            acknowledged: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            held: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            faults: Mutex::default(),
        });
        for at in 0..NODES {
            world.up(at).await;
            world.host(at).expect("it runs").open_replica(GROUP, MADE).await.expect("a replica");
        }
        let member = |id: NodeId| Member { address: format!("memory:{id}"), region: format!("r{id}") };
        let members = (0..NODES).map(|at| (ids(at), member(ids(at)))).collect();
        world.host(0).expect("it runs").create_group(GROUP, MADE, members).await.expect("a group");
        world
    }

    fn host(&self, at: usize) -> Option<Host> {
        self.nodes[at].host.read().clone()
    }

    async fn up(&self, at: usize) {
        let node = &self.nodes[at];
        let mut options = HostOptions::new(node.id, &node.dir);
        options.transport = Some(self.mesh.place(node.id));
        options.clock = node.clock.clone();
        let host = open(options).await;
        self.mesh.join(&host.inbox());
        *node.host.write() = Some(host);
    }

    async fn down(&self, at: usize) {
        self.mesh.leave(self.nodes[at].id);
        let host = self.nodes[at].host.write().take();
        host.expect("it runs").shutdown().await;
    }

    /// Who leads, as soon as a quorum confirms it.
    async fn leader(&self) -> usize {
        eventually("a leader", || async {
            for at in 0..NODES {
                let Some(host) = self.host(at) else { continue };
                if host.status(GROUP).is_some_and(|status| status.role == Role::Leader)
                    && host.read_barrier(GROUP).await.is_ok()
                {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// Proposes whenever the node leads, or believes that it does. Each node has a writer: one that waits for a leader without a
    /// quorum must not keep the others from the next one.
    async fn write(self: Arc<Self>, at: usize) {
        let mut id = at as u64;
        while !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if self.held.load(Ordering::Relaxed) {
                continue;
            }
            let Some(host) = self.host(at) else { continue };
            if host.status(GROUP).is_none_or(|status| status.role != Role::Leader) {
                continue;
            }
            id += NODES as u64;
            if let Ok(proposed) = host.propose(GROUP, command(id, BYTES)).await {
                let place = u64::from_be_bytes(proposed.reply[..].try_into().expect("a place"));
                self.acknowledged.fetch_max(place, Ordering::SeqCst);
            }
        }
    }

    async fn read(self: Arc<Self>, at: usize) {
        while !self.stopping.load(Ordering::Relaxed) {
            let least = self.acknowledged.load(Ordering::SeqCst).max(self.shown.load(Ordering::SeqCst));
            let Some(host) = self.host(at) else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            if host.read_barrier(GROUP).await.is_err() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let count = count(&host);
            if count < least {
                self.faults.lock().push(format!("node {} shows {count} commands, and {least} were known", at + 1));
            }
            self.shown.fetch_max(count, Ordering::SeqCst);
            self.reads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Waits until all have applied the same.
    async fn settled(&self) -> Rows {
        eventually("equal states", || async {
            let leader = self.leader().await;
            let expected = rows(&self.host(leader)?.state(), GROUP);
            for at in 0..NODES {
                if rows(&self.host(at)?.state(), GROUP) != expected {
                    return None;
                }
            }
            Some(expected)
        })
        .await
    }
}

fn count(host: &Host) -> u64 {
    let mut key = postrider_raft::state_prefix(GROUP).to_vec();
    key.push(b'n');
    let row = host.state().get(key).expect("a read");
    row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().expect("a count")))
}

/// What happens to a leader while everybody reads.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// It is cut off, with the quorum's word still young.
    Isolated,
    /// It is heard and hears nothing.
    Deaf,
    /// It hears and is not heard.
    Mute,
    /// The follower whose word alone it still has is killed, comes back, and has forgotten what it promised; the third has been
    /// standing for election all the while, and lacks nothing.
    Forgotten,
    /// Its clocks tell of a minute's sleep.
    Asleep,
    /// It is cut off, and its wall clock jumps.
    Ahead,
    Behind,
}

/// Deals `blow` to whoever leads; then everything is well again for a while.
async fn deal(world: &World, blow: Blow) {
    let leader = world.leader().await;
    let (follower, third) = ((leader + 1) % NODES, (leader + 2) % NODES);
    let clock = &world.nodes[leader].clock;
    match blow {
        Blow::Isolated => world.mesh.isolate(leader, NODES),
        Blow::Deaf => [follower, third].into_iter().for_each(|other| world.mesh.silence(other, leader)),
        Blow::Mute => [follower, third].into_iter().for_each(|other| world.mesh.silence(leader, other)),
        Blow::Forgotten => {
            // Whoever lacks an entry is not elected: nobody writes until it may be.
            world.held.store(true, Ordering::Relaxed);
            world.settled().await;
            world.mesh.cut(leader, third);
            tokio::time::sleep(CUT).await;
            world.down(follower).await;
            world.mesh.cut(leader, follower);
            world.up(follower).await;
            world.held.store(false, Ordering::Relaxed);
        }
        Blow::Asleep => drop(clock.since_boot_ms.fetch_add(60_000, Ordering::Relaxed)),
        Blow::Ahead => {
            clock.wall_ms.fetch_add(JUMP_MS, Ordering::Relaxed);
            world.mesh.isolate(leader, NODES);
        }
        Blow::Behind => {
            clock.wall_ms.fetch_sub(JUMP_MS, Ordering::Relaxed);
            world.mesh.isolate(leader, NODES);
        }
    }
    tokio::time::sleep(CUT).await;
    world.mesh.heal();
    tokio::time::sleep(CALM).await;
    let faults = world.faults.lock();
    assert!(faults.is_empty(), "{} stale reads, {blow:?}: {:?}", faults.len(), &faults[..faults.len().min(5)]);
}

/// Deals `blows`, one after the other, while everybody reads and writes; then looks at what is there.
async fn no_read_is_stale(blows: &[Blow]) {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::start(dir.path()).await;
    world.leader().await;
    let writers = (0..NODES).map(|at| tokio::spawn(world.clone().write(at)));
    let readers = (0..NODES * READERS_PER_NODE).map(|at| tokio::spawn(world.clone().read(at % NODES)));
    let clients: Vec<_> = writers.chain(readers).collect();
    for blow in blows {
        let done = || (world.reads.load(Ordering::Relaxed), world.acknowledged.load(Ordering::SeqCst));
        let before = done();
        deal(&world, *blow).await;
        let after = done();
        assert!(after.0 > before.0 && after.1 > before.1, "nothing was done during {blow:?}: {before:?}, {after:?}");
    }
    world.stopping.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client");
    }
    assert!(world.faults.lock().is_empty(), "{:?}", world.faults.lock());
    assert!(world.refused.load(Ordering::Relaxed) > 0, "followers refuse consistent reads");
    // Everybody has the same in the end, and nothing that was acknowledged is missing.
    let acknowledged = world.acknowledged.load(Ordering::SeqCst);
    let last = world.settled().await.values().map(|(place, _, _)| *place).max();
    assert!(last >= Some(acknowledged), "{acknowledged} were acknowledged, the last is {last:?}");
    for at in 0..NODES {
        world.down(at).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_when_the_leader_is_cut_off_or_its_clock_jumps() {
    let blows = [Blow::Isolated, Blow::Deaf, Blow::Mute, Blow::Asleep, Blow::Ahead, Blow::Behind, Blow::Isolated];
    no_read_is_stale(&blows).await;
}

/// Fails nearly always when a replica votes right after its restart (`Probation`): whether the third stands within the time that the
/// leader still trusts is chance, so it is tried more than once.
#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_when_a_follower_forgets_its_promise() {
    no_read_is_stale(&[Blow::Forgotten; 5]).await;
}
