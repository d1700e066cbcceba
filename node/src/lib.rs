//! The storage node: joins consensus and mail, and serves both over gRPC.
//!
//! Each replica of a shard is a Raft group of [`postrider_raft`] whose machine is the shard's state machine of
//! [`postrider_shard`]; the services check who calls, ask consensus, and read rows.
//!
//! Invariant: nothing here decides what a command means. What must be the same on every replica is in `shard`; what is here
//! may differ from node to node: leases, watches, clocks, who leads.
//!
//! Invariant: every method checks the role in the caller's certificate against the one table in `roles`.

mod admin;
mod balance;
mod budget;
mod calls;
mod clock;
mod deletion;
mod described;
mod digest;
mod fault;
mod follow;
mod gauges;
mod http;
mod hub;
mod judges;
mod lease;
mod load;
mod machine;
mod map;
mod map_keeper;
mod node;
mod options;
mod peers;
mod placement;
mod propose;
mod query;
mod received;
mod reconcile;
mod registrar;
mod removal;
mod replicas;
mod roles;
mod scan;
mod search;
mod server;
mod shard_service;
mod steward;
mod subject;
mod sweep;
mod trail;
mod vacuum;
mod versions;
mod watch;

pub use described::describe_metrics;
pub use node::{Node, StartError};
pub use options::{BalanceOptions, CapacityOptions, NodeLimits, NodeOptions, NodeTimings};
pub use sweep::SweepOptions;
