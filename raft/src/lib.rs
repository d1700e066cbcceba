//! Consensus host: many Raft groups on one node. It knows bytes, not mail.
//!
//! A [`Host`] keeps one log database and one state database for all groups of a node, one writer that fsyncs once for
//! everything that waits, and one set of connections per peer. What the bytes mean is up to a [`Machine`] per group.
//!
//! Invariant: openraft's types stop inside this crate.
//! Invariant: the log is the only write-ahead log. The state database has none of its own, so it may never hold, on
//! disk, the effect of an entry that the local log has not synced, and no entry is purged before its effect is on disk.
//! Invariant: time, network and faults come in from outside ([`Clock`], [`transport::Transport`], [`Faults`]), so that
//! a simulation can put its own in their place.

mod beat;
mod blocking;
mod campaign;
mod clock;
mod config;
#[cfg(test)]
mod conformance;
mod described;
mod election;
mod error;
mod faults;
mod flusher;
mod host;
mod ids;
mod lease;
pub mod log;
mod machine;
mod options;
mod park;
mod quiesce;
mod replica;
mod snapshot;
mod state;
mod stats;
mod status;
pub mod transport;
mod types;
pub mod wire;

pub use clock::{Clock, SystemClock};
pub use described::describe_metrics;
pub use error::{GroupError, MemberError, OpenError, ProposeError, ReadError};
pub use faults::{FaultPoint, Faults, Injected, NoFaults};
pub use host::{Host, Proposed};
pub use ids::{GroupId, GroupIdentity, Incarnation, Member, NodeId};
pub use machine::{Committed, Machine, MachineError, MachineFactory};
pub use options::{COMMAND_BYTES_MAX, HostOptions, KEEPALIVE_MS_MAX, Limits, PeerTls, Timings};
pub use snapshot::block::{BlockError, Row, decode_block};
pub use state::key::state_prefix;
pub use stats::HostStats;
pub use status::{GroupStatus, Role};
