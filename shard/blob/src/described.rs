//! What stores of attachments and their clients count, and what each of it means.

use metrics::{Unit, describe_counter, describe_histogram};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    describe_counter!(
        "postrider_blob_bytes_total",
        Unit::Bytes,
        "Content that the embedded object store took in or gave out."
    );
    describe_histogram!(
        "postrider_blob_commit_batch_changes",
        Unit::Count,
        "Changes that the embedded object store made durable together."
    );
    describe_counter!(
        "postrider_blob_corrupt_reads_total",
        Unit::Count,
        "Copies that a store gave and whose hash was not theirs."
    );
    describe_counter!("postrider_blob_fsyncs_total", Unit::Count, "Syncs of the embedded object store to its disk.");
    describe_counter!(
        "postrider_blob_hedged_reads_total",
        Unit::Count,
        "Reads that asked a second region because the first took long."
    );
    describe_counter!(
        "postrider_blob_puts_skipped_total",
        Unit::Count,
        "Writes that passed over a region because too much was under way to it."
    );
    describe_counter!(
        "postrider_blob_repairs_total",
        Unit::Count,
        "Copies that were found missing or damaged in passing, and what became of each."
    );
    describe_histogram!(
        "postrider_blob_request_seconds",
        Unit::Seconds,
        "How long the embedded object store took for a request, up to the head of the answer."
    );
    describe_counter!("postrider_blob_requests_total", Unit::Count, "Requests to the embedded object store.");
    describe_counter!(
        "postrider_blob_resumed_reads_total",
        Unit::Count,
        "Reads that broke and went on at another region's store."
    );
    describe_histogram!(
        "postrider_blob_store_seconds",
        Unit::Seconds,
        "How long an object store took for a request, as its client sees it."
    );
}
