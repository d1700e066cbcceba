//! The words that operators read for what is a number in the map and in rows.

use postrider_api::id::ShardId;
use postrider_api::pb::{self, AccountState, NodeState, ShardKind};

/// What a shard holds, by its number.
pub fn shard_kind(shard: u32) -> &'static str {
    match ShardId(shard).kind() {
        Some(ShardKind::Placement) => "placement",
        Some(ShardKind::Directory) => "directory",
        Some(ShardKind::Mailbox) => "mailbox",
        Some(ShardKind::Unspecified) | None => "-",
    }
}

/// How placement has a node.
pub fn node_state(node: &pb::Node) -> &'static str {
    match (node.state(), node.operation) {
        _ if node.given_up_ms != 0 => "given up",
        _ if node.silent_since_ms != 0 => "silent",
        (NodeState::Active, _) => "active",
        (NodeState::Draining, 0) => "drained",
        (NodeState::Draining, _) => "draining",
    }
}

/// What may be done with an account.
pub fn account_state(state: AccountState) -> &'static str {
    match state {
        AccountState::Active => "active",
        AccountState::Suspended => "suspended",
        AccountState::Deleting => "deleting",
    }
}
