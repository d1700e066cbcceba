//! Clusters of hosts in one process, over real loopback gRPC.

#![allow(dead_code, reason = "each test binary uses its part of this")]

pub(crate) mod mesh;
pub(crate) mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_raft::{
    Committed, GroupId, GroupStatus, Host, HostOptions, Incarnation, Machine, MachineError, MachineFactory, Member,
    NodeId, OpenError, ProposeError, Role, state_prefix,
};
use rocksdb::{DB, WriteBatch};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The machine is slow at times.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const GROUP: GroupId = GroupId(1);
/// The making of every group of the tests.
pub(crate) const MADE: Incarnation = Incarnation(1);

/// Keeps every command under its id (its first eight bytes), counts how often it was applied, and replies with its
/// place: enough to see a lost command, a repeated one, and another order.
pub(crate) struct Ledger {
    group: GroupId,
}

/// The rows of a ledger: id to (place, times applied, command).
pub(crate) type Rows = BTreeMap<u64, (u64, u64, Vec<u8>)>;

impl Ledger {
    fn key(group: GroupId, rest: &[u8]) -> Vec<u8> {
        let mut key = state_prefix(group).to_vec();
        key.extend_from_slice(rest);
        key
    }

    fn count_key(group: GroupId) -> Vec<u8> {
        Self::key(group, b"n")
    }

    fn id_key(group: GroupId, id: u64) -> Vec<u8> {
        let mut rest = vec![b'c'];
        rest.extend_from_slice(&id.to_be_bytes());
        Self::key(group, &rest)
    }
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// A command that breaks the machine.
pub(crate) const POISON: &[u8] = b"poison!!";
/// A command that makes it panic.
pub(crate) const PANIC: &[u8] = b"panic!!!";

impl Machine for Ledger {
    fn apply(&self, db: &DB, batch: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        let fail = |error: rocksdb::Error| MachineError(error.to_string());
        let mut count = db.get(Self::count_key(self.group)).map_err(fail)?.map_or(0, |row| be64(&row));
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        let mut replies = Vec::new();
        for command in commands {
            if &command.payload[..] == POISON {
                return Err(MachineError("poisoned".to_owned()));
            }
            assert!(&command.payload[..] != PANIC, "asked to panic");
            let id = be64(&command.payload);
            let key = Self::id_key(self.group, id);
            let before = match seen.get(&id) {
                Some(times) => *times,
                None => db.get(&key).map_err(fail)?.map_or(0, |row| be64(&row[8..])),
            };
            seen.insert(id, before + 1);
            count += 1;
            let mut row = count.to_be_bytes().to_vec();
            row.extend_from_slice(&(before + 1).to_be_bytes());
            row.extend_from_slice(&command.payload);
            batch.put(key, row);
            replies.push(Bytes::copy_from_slice(&count.to_be_bytes()));
        }
        batch.put(Self::count_key(self.group), count.to_be_bytes());
        Ok(replies)
    }

    fn applied(&self, _: u64) {}

    fn restored(&self, _: u64) {}
}

pub(crate) struct Ledgers;

impl MachineFactory for Ledgers {
    fn machine(&self, group: GroupId) -> Arc<dyn Machine> {
        Arc::new(Ledger { group })
    }
}

/// All rows of a group's ledger at `db`.
pub(crate) fn rows(db: &DB, group: GroupId) -> Rows {
    let prefix = Ledger::key(group, b"c");
    let mut rows = Rows::new();
    for item in db.iterator(rocksdb::IteratorMode::From(&prefix, rocksdb::Direction::Forward)) {
        let (key, row) = item.expect("a row");
        let Some(id) = key.strip_prefix(&prefix[..]) else { break };
        rows.insert(be64(id), (be64(&row), be64(&row[8..]), row[16..].to_vec()));
    }
    rows
}

/// A command of `bytes` bytes with `id` in front.
pub(crate) fn command(id: u64, bytes: usize) -> Bytes {
    let mut command = id.to_be_bytes().to_vec();
    // Not compressible, not the same in each command.
    let mut word = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while command.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        command.extend_from_slice(&word.to_be_bytes());
    }
    command.truncate(bytes.max(8));
    command.into()
}

/// Waits until `done` says so.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut done: impl FnMut() -> F) -> T {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < until, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Tweak = Arc<dyn Fn(&mut HostOptions) + Send + Sync>;

/// A host and its server.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) host: Option<Host>,
    server: Option<JoinHandle<()>>,
    tweak: Tweak,
}

impl Node {
    pub(crate) fn host(&self) -> &Host {
        self.host.as_ref().expect("the node runs")
    }

    /// Opens the host and serves it at its address.
    pub(crate) async fn start(&mut self) {
        let mut options = HostOptions::new(self.id, &self.dir);
        (self.tweak)(&mut options);
        let host = open(options).await;
        let listener = eventually("bind", || async { TcpListener::bind(self.address).await.ok() }).await;
        self.server = Some(tokio::spawn(host.listen(listener)));
        self.host = Some(host);
    }

    /// Cuts it off at once, then closes it.
    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // It was aborted: that is what it says.
            let _ = server.await;
        }
        if let Some(host) = self.host.take() {
            host.shutdown().await;
        }
    }
}

/// Opens a host; the directory may still be held by tasks of an earlier one that are on their way out.
pub(crate) async fn open(options: HostOptions) -> Host {
    eventually("open", || async {
        match Host::open(options.clone(), Arc::new(Ledgers)).await {
            Ok(host) => Some(host),
            Err(OpenError::Database { reason, .. }) if reason.to_lowercase().contains("lock") => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    dir: TempDir,
    tweak: Tweak,
}

impl Cluster {
    /// `count` hosts with one group over all of them, and a leader.
    pub(crate) async fn start(count: u64) -> Self {
        Self::start_with(count, |_| {}).await
    }

    pub(crate) async fn start_with(count: u64, tweak: impl Fn(&mut HostOptions) + Send + Sync + 'static) -> Self {
        let mut cluster = Self::empty(tweak);
        for _ in 0..count {
            cluster.add_node().await;
        }
        cluster.create(GROUP).await;
        cluster
    }

    pub(crate) fn empty(tweak: impl Fn(&mut HostOptions) + Send + Sync + 'static) -> Self {
        // Shows what happened when a test fails; a second cluster in the process finds it set up already.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self { nodes: Vec::new(), dir: tempfile::tempdir().expect("a directory"), tweak: Arc::new(tweak) }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn add_node(&mut self) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        drop(listener);
        self.add_node_at(address).await
    }

    pub(crate) async fn add_node_at(&mut self, address: SocketAddr) -> usize {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let mut node = Node {
            id,
            dir: self.dir.path().join(id.to_string()),
            address,
            host: None,
            server: None,
            tweak: self.tweak.clone(),
        };
        node.start().await;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(crate) fn member(&self, at: usize) -> Member {
        Member { address: self.nodes[at].address.to_string(), region: format!("r{at}") }
    }

    pub(crate) fn members(&self) -> BTreeMap<NodeId, Member> {
        (0..self.nodes.len()).map(|at| (self.nodes[at].id, self.member(at))).collect()
    }

    /// Creates `group` on all nodes, by the first one, and waits for its leader.
    pub(crate) async fn create(&self, group: GroupId) -> usize {
        for node in &self.nodes {
            node.host().open_replica(group, MADE).await.expect("a replica");
        }
        self.nodes[0].host().create_group(group, MADE, self.members()).await.expect("a group");
        self.leader_of(group).await
    }

    pub(crate) async fn leader(&self) -> usize {
        self.leader_of(GROUP).await
    }

    /// Which node leads, as soon as one leads that a quorum has confirmed.
    pub(crate) async fn leader_of(&self, group: GroupId) -> usize {
        eventually("a leader", || async {
            for (at, node) in self.nodes.iter().enumerate() {
                let Some(host) = &node.host else { continue };
                if host.status(group).is_some_and(|status| status.role == Role::Leader)
                    && host.read_barrier(group).await.is_ok()
                {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// The replicas of `group` on the nodes that run.
    pub(crate) fn statuses(&self, group: GroupId) -> Vec<GroupStatus> {
        self.nodes.iter().filter_map(|node| node.host.as_ref()?.status(group)).collect()
    }

    /// Waits until all running replicas are so, and returns the first one's term.
    pub(crate) async fn all(&self, group: GroupId, what: &str, is_so: impl Fn(&GroupStatus) -> bool) -> u64 {
        eventually(what, || async {
            let statuses = self.statuses(group);
            (!statuses.is_empty() && statuses.iter().all(&is_so)).then(|| statuses[0].term)
        })
        .await
    }

    /// Waits until all running replicas are quiesced, and returns the term.
    pub(crate) async fn asleep(&self, group: GroupId) -> u64 {
        self.all(group, "a silent group", |status| status.quiesced).await
    }

    /// Waits until all running replicas are parked, and returns the term.
    pub(crate) async fn parked(&self, group: GroupId) -> u64 {
        self.all(group, "parked replicas", |status| status.parked && status.quiesced).await
    }

    /// Which node says that it leads. Nobody is asked, so nobody is woken.
    pub(crate) fn leads(&self) -> usize {
        let leads = |at: &usize| {
            self.nodes[*at].host.as_ref().and_then(|host| host.status(GROUP)).is_some_and(|status| status.leads())
        };
        (0..self.nodes.len()).find(leads).expect("a leader")
    }

    /// Proposes to whoever leads until it is acknowledged, and returns its place. An unknown outcome is proposed again:
    /// the ledger shows it twice then.
    pub(crate) async fn put(&self, id: u64, bytes: usize) -> u64 {
        eventually("an acknowledgement", || async {
            for node in &self.nodes {
                let Some(host) = &node.host else { continue };
                match host.propose(GROUP, command(id, bytes)).await {
                    Ok(proposed) => return Some(be64(&proposed.reply)),
                    Err(
                        ProposeError::NotLeader { .. }
                        | ProposeError::NoQuorum
                        | ProposeError::Busy
                        | ProposeError::UnknownGroup,
                    ) => {}
                    Err(ProposeError::Unknown) => return None,
                    Err(error) => panic!("{error}"),
                }
            }
            None
        })
        .await
    }

    /// Waits until all running nodes have applied the same, and returns it.
    pub(crate) async fn settled(&self, group: GroupId) -> Rows {
        eventually("equal states", || async {
            let leader = self.leader_of(group).await;
            let status = self.nodes[leader].host().status(group)?;
            let expected = rows(&self.nodes[leader].host().state(), group);
            for node in &self.nodes {
                let Some(host) = &node.host else { continue };
                let Some(other) = host.status(group) else { continue };
                if other.applied < status.last_log || rows(&host.state(), group) != expected {
                    return None;
                }
            }
            Some(expected)
        })
        .await
    }

    pub(crate) async fn shutdown(&mut self) {
        for node in &mut self.nodes {
            node.stop().await;
        }
    }
}

/// All ids of `rows`, each applied once and with its own bytes.
pub(crate) fn check_exactly_once(rows: &Rows, ids: &BTreeSet<u64>, bytes: usize) {
    for id in ids {
        let (_, times, payload) = rows.get(id).unwrap_or_else(|| panic!("acknowledged {id} is missing"));
        assert_eq!(*times, 1, "{id} was applied {times} times");
        assert_eq!(&payload[..], &command(*id, bytes)[..], "{id} has other bytes");
    }
}
