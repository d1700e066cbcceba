//! What the consensus host counts, and what each of it means.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    describe_counter!(
        "postrider_raft_applied_entries_total",
        Unit::Count,
        "Log entries that were applied to the state of a replica."
    );
    describe_counter!(
        "postrider_raft_ballot_frames_total",
        Unit::Count,
        "Frames by which a node has asked another for the votes of many groups, or told it whom they have elected."
    );
    describe_counter!(
        "postrider_raft_campaigns_total",
        Unit::Count,
        "Elections that a replica here has stood for, because its leader was silent."
    );
    describe_counter!(
        "postrider_raft_clock_jumps_total",
        Unit::Count,
        "Times that a clock jumped or the process was stopped; reads ask the quorum for a while."
    );
    describe_counter!(
        "postrider_raft_elected_parked_total",
        Unit::Count,
        "Idle groups in which a replica here was elected without starting their consensus."
    );
    describe_histogram!(
        "postrider_raft_election_seconds",
        Unit::Seconds,
        "How long it took to elect the leaders of a batch of idle groups, from standing to leading."
    );
    describe_counter!(
        "postrider_raft_flushes_failed_total",
        Unit::Count,
        "Flushes of the state database that failed, and are tried again."
    );
    describe_counter!(
        "postrider_raft_leads_given_up_total",
        Unit::Count,
        "Leads that were given up because the disk of the log did not answer."
    );
    describe_gauge!("postrider_raft_log_bytes", Unit::Bytes, "Size of the log's segment files.");
    describe_gauge!("postrider_raft_log_segments", Unit::Count, "Segment files of the log.");
    describe_counter!(
        "postrider_raft_log_syncs_total",
        Unit::Count,
        "Times that the log was synced to disk; one sync serves all groups that wait."
    );
    describe_counter!("postrider_raft_log_written_bytes", Unit::Bytes, "Written to the log, over all time.");
    describe_counter!(
        "postrider_raft_other_incarnation_total",
        Unit::Count,
        "Messages that were refused because they were for another making of the group."
    );
    describe_counter!(
        "postrider_raft_parked_total",
        Unit::Count,
        "Times that the consensus of an idle group was taken down here."
    );
    describe_counter!(
        "postrider_raft_proposals_refused_total",
        Unit::Count,
        "Proposals that were refused because too much was under way."
    );
    describe_counter!(
        "postrider_raft_replicas_stopped_total",
        Unit::Count,
        "Replicas that have stopped after an error; each is tried again unless the error lasts."
    );
    describe_counter!(
        "postrider_raft_snapshot_streams_resumed_total",
        Unit::Count,
        "Snapshots that went on where their stream had broken."
    );
    describe_gauge!(
        "postrider_raft_state_blob_bytes",
        Unit::Bytes,
        "Size of the blob files of the state database: message bodies."
    );
    describe_gauge!(
        "postrider_raft_state_blob_garbage_bytes",
        Unit::Bytes,
        "Of that, what nobody needs any more and is still to be collected."
    );
    describe_counter!("postrider_raft_state_flushes_total", Unit::Count, "Flushes of the state database.");
    describe_histogram!(
        "postrider_raft_unpark_seconds",
        Unit::Seconds,
        "How long it took to start the consensus of a parked group."
    );
    describe_counter!(
        "postrider_raft_unparked_total",
        Unit::Count,
        "Times that the consensus of a parked group was started."
    );
    describe_counter!("postrider_raft_wakes_total", Unit::Count, "Times that an idle group was woken by use.");
}
