//! What the router counts, and what each of it means.

use metrics::{Unit, describe_counter};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    describe_counter!(
        "postrider_router_retries_total",
        Unit::Count,
        "Attempts at a storage node that came to nothing and were followed by another."
    );
    describe_counter!(
        "postrider_router_stale_reads_total",
        Unit::Count,
        "Reads that a replica answered which does not lead, because the leader could not be reached."
    );
}
