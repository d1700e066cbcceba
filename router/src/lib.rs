//! Finding the right node: the shard map kept fresh by stream, who leads each shard, retries that are safe because of
//! request ids, and which region is near.
//!
//! Invariant: the router holds hints and no truth. Whatever its caches say, a replica checks leadership, epoch and session
//! itself and answers with the cure; a lost cache costs round trips, never a wrong answer.
//!
//! Invariant (P-6): a command goes out again only under the request id it had before, so a retry after an ambiguous end is
//! the same command to the state machine.

mod admin;
mod backoff;
mod bootstrap;
mod described;
mod directory;
mod error;
mod fresh_map;
mod latency;
mod map;
mod map_watch;
pub mod operate;
mod options;
mod peer;
mod pursuit;
mod queue;
mod router;
mod suspicion;
mod watch;

pub use admin::{AdminClient, AdminError};
pub use bootstrap::{BootstrapError, BootstrapPlan, bootstrap};
pub use described::describe_metrics;
pub use error::{ConnectError, RouteError};
pub use options::{RouterLimits, RouterOptions, RouterTimings};
pub use router::{Answered, ReadMode, Router};
pub use watch::WatchItem;
