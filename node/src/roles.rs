//! Who may call what. The one table; every method names its row.

use postrider_api::identity::Role;

/// Proposals and reads.
pub(crate) const SHARD_CALLS: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Ctl];
/// Mailbox watches.
pub(crate) const WATCH: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Ctl];
/// The shard map.
pub(crate) const WATCH_MAP: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Ctl];
/// The queue. A frontend has a worker in it.
pub(crate) const QUEUE: &[Role] = &[Role::Worker, Role::Frontend];
/// Operations on the node and its replicas.
pub(crate) const ADMIN: &[Role] = &[Role::Ctl, Role::Node];
/// Consensus among nodes.
pub(crate) const CONSENSUS: &[Role] = &[Role::Node];
