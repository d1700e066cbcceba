//! What operators see of a cluster and write down of what they do, for `ctl` and the operator's page alike: asked of the nodes, or made of
//! what the shards answered. Nothing here prints, and nothing but [`survey`] asks.

mod audit;
mod destinations;
mod health;
mod names;
mod operation;
mod survey;
mod sweep;

pub use audit::{AuditLine, AuditOutcomes, begun, ended};
pub use destinations::{DestinationSummary, is_for};
pub use health::{Lacks, committed};
pub use names::{account_state, node_state, shard_kind};
pub use operation::{OperationSummary, parent_of};
pub use survey::{NodeIndexes, NodeReport, counters_of, primary_of, replicas_of};
pub use sweep::{is_whole, percent, phase};
