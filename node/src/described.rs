//! What a storage node counts, and what each of it means.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes this room's metrics to the recorder, and those of consensus and of the object stores below it.
pub fn describe_metrics() {
    postrider_raft::describe_metrics();
    postrider_blob::describe_metrics();
    describe_replicas();
    describe_requests();
    describe_upkeep();
    describe_search();
    describe_sweeps();
}

fn describe_replicas() {
    describe_gauge!("postrider_node_disk_free_bytes", Unit::Bytes, "Room that is left on the disk of the node's data.");
    describe_gauge!("postrider_node_disk_size_bytes", Unit::Bytes, "Size of that disk.");
    describe_gauge!(
        "postrider_node_leaders_without_quorum_count",
        Unit::Count,
        "Replicas that lead here and have heard no quorum for five seconds: nothing can be written there."
    );
    describe_gauge!(
        "postrider_node_members_behind_count",
        Unit::Count,
        "Members of groups that are led here which lack what is committed, at this moment."
    );
    describe_gauge!("postrider_node_replicas_count", Unit::Count, "Replicas of the node by what they do.");
    describe_gauge!("postrider_node_replicas_leaderless_count", Unit::Count, "Replicas that know of no leader.");
    describe_gauge!(
        "postrider_node_replicas_parked_count",
        Unit::Count,
        "Replicas whose consensus is taken down because nobody uses the group."
    );
}

fn describe_requests() {
    describe_counter!(
        "postrider_node_large_reads_total",
        Unit::Count,
        "Reads that outgrew their budget and went on on a thread of their own."
    );
    describe_counter!("postrider_node_lease_looks_total", Unit::Count, "Looks of workers at a shard's queue.");
    describe_histogram!(
        "postrider_node_propose_seconds",
        Unit::Seconds,
        "From a command's arrival at the node to its outcome."
    );
    describe_histogram!(
        "postrider_node_query_seconds",
        Unit::Seconds,
        "From a read's arrival at the node to its answer."
    );
    describe_counter!(
        "postrider_node_refusals_total",
        Unit::Count,
        "Requests that were refused, by what the refusal says."
    );
    describe_counter!(
        "postrider_node_unchanged_reads_total",
        Unit::Count,
        "Conditional reads that were answered by \"as you know it\"."
    );
    describe_gauge!(
        "postrider_node_watches_count",
        Unit::Count,
        "Open watches of mailboxes: push connections of clients that are served here."
    );
}

fn describe_upkeep() {
    describe_counter!("postrider_node_accounts_deleted_total", Unit::Count, "Accounts whose last row is gone.");
    describe_counter!(
        "postrider_node_changes_total",
        Unit::Count,
        "Changes that the node's replicas have applied, by what has changed and how."
    );
    describe_gauge!(
        "postrider_node_clock_behind_ms",
        Unit::Milliseconds,
        "How far this node's clock is behind that of the peer that is closest to it; below zero: ahead."
    );
    describe_counter!(
        "postrider_node_follow_failures_total",
        Unit::Count,
        "Times that a follower of changes could not go on; it is tried again."
    );
    describe_counter!(
        "postrider_node_follower_rebuilds_total",
        Unit::Count,
        "Times that a follower made what it derives anew, for one shard."
    );
    describe_counter!(
        "postrider_node_followers_lost_total",
        Unit::Count,
        "Followers of changes that have panicked, and stand still until the node starts again."
    );
    describe_counter!(
        "postrider_node_leads_sent_home_total",
        Unit::Count,
        "Leads that were handed to the shard's home region."
    );
    describe_gauge!(
        "postrider_node_objects_count",
        Unit::Count,
        "What the node's replicas hold, by kind. Every replica of a shard counts for itself."
    );
    describe_counter!(
        "postrider_node_vacuums_total",
        Unit::Count,
        "Times that the node rewrote its files without what was deleted."
    );
}

fn describe_search() {
    describe_counter!("postrider_node_search_commits_total", Unit::Count, "Commits of search indexes.");
    describe_counter!(
        "postrider_node_search_documents_total",
        Unit::Count,
        "Messages that search indexes took in, passed by or dropped."
    );
    describe_counter!(
        "postrider_node_search_failures_total",
        Unit::Count,
        "Times that a search index could not be written; it is tried again."
    );
    describe_counter!("postrider_node_search_merges_total", Unit::Count, "Merges of segments of search indexes.");
    describe_gauge!("postrider_node_search_pending_bytes", Unit::Bytes, "What search indexes have not committed yet.");
    describe_histogram!(
        "postrider_node_search_seconds",
        Unit::Seconds,
        "From a search's arrival at the node to its page of hits."
    );
    describe_counter!(
        "postrider_node_search_unindexed_total",
        Unit::Count,
        "Searches that read the mailbox, because there was no index or it was too far behind."
    );
}

fn describe_sweeps() {
    describe_counter!(
        "postrider_move_blobs_copied_total",
        Unit::Count,
        "Attachments that were copied to the new regions of shards that move."
    );
    describe_counter!(
        "postrider_sweep_failures_total",
        Unit::Count,
        "Times that a sweep of the object stores did not get on; it is tried again."
    );
    describe_counter!(
        "postrider_sweep_lost_total",
        Unit::Count,
        "Attachments that mailboxes refer to and no store has."
    );
    describe_gauge!(
        "postrider_sweep_number",
        Unit::Count,
        "The number of the sweep that runs or ran last, at the node that leads placement."
    );
    describe_counter!(
        "postrider_sweep_restored_total",
        Unit::Count,
        "Copies of attachments that were missing or damaged in this region and were restored."
    );
    describe_gauge!("postrider_sweep_running", Unit::Count, "1 while a sweep runs.");
    describe_gauge!("postrider_sweep_last_blobs", Unit::Count, "Attachments that the last sweep saw.");
    describe_gauge!("postrider_sweep_last_bytes", Unit::Bytes, "Their size.");
    describe_gauge!("postrider_sweep_last_missing", Unit::Count, "Copies that the last sweep found missing.");
    describe_gauge!("postrider_sweep_last_damaged", Unit::Count, "Copies that the last sweep found damaged.");
    describe_gauge!("postrider_sweep_last_restored", Unit::Count, "Copies that the last sweep restored.");
    describe_gauge!(
        "postrider_sweep_last_lost",
        Unit::Count,
        "Attachments that mailboxes refer to and that no store had in the last sweep."
    );
    describe_gauge!(
        "postrider_sweep_last_deleted",
        Unit::Count,
        "Attachments that the last sweep deleted, because nobody refers to them."
    );
    describe_gauge!("postrider_sweep_last_deleted_bytes", Unit::Bytes, "Their size.");
    describe_counter!(
        "postrider_balance_steps_total",
        Unit::Count,
        "Steps of the balancer that began, by what they are for."
    );
    describe_gauge!(
        "postrider_balance_silent_nodes",
        Unit::Count,
        "Nodes that do not answer the node that leads placement."
    );
    describe_gauge!(
        "postrider_balance_blocked_shards",
        Unit::Count,
        "Shards that should change and cannot, at the node that leads placement: no node may take what they lack."
    );
    describe_gauge!(
        "postrider_balance_waiting_shards",
        Unit::Count,
        "Shards that wait for their turn to change, at the node that leads placement."
    );
    describe_counter!(
        "postrider_node_leases_inherited_total",
        Unit::Count,
        "Leases for the outside that a new leader let go on."
    );
}
