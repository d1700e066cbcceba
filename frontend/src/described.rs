//! What frontends and workers count, and what each of it means.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes this room's metrics to the recorder, and those of the router and of mail to the outside.
pub fn describe_metrics() {
    postrider_router::describe_metrics();
    postrider_outgoing::describe_metrics();
    describe_smtp();
    describe_rest();
    describe_cache();
    describe_worker();
}

fn describe_smtp() {
    describe_counter!("postrider_smtp_accepted_bytes_total", Unit::Bytes, "Messages that were accepted, as they came.");
    describe_counter!("postrider_smtp_connections_total", Unit::Count, "Connections of SMTP and submission.");
    describe_counter!(
        "postrider_smtp_elsewhere_messages_total",
        Unit::Count,
        "Messages that another shard took because the recipient's could not be reached."
    );
    describe_histogram!(
        "postrider_smtp_final_reply_seconds",
        Unit::Seconds,
        "From the end of a message to the reply that accepts or refuses it."
    );
    describe_counter!(
        "postrider_smtp_messages_total",
        Unit::Count,
        "Messages by the reply after their end; the code is the enhanced one (RFC 3463)."
    );
    describe_gauge!("postrider_smtp_open_connections", Unit::Count, "Open connections of SMTP and submission.");
    describe_counter!(
        "postrider_smtp_received_bytes_total",
        Unit::Bytes,
        "Bytes that came in over SMTP, commands included."
    );
    describe_counter!("postrider_smtp_replies_total", Unit::Count, "Replies by their first digit.");
    describe_counter!(
        "postrider_smtp_turned_away_connections_total",
        Unit::Count,
        "Connections that were refused before their session began, by the enhanced code."
    );
    describe_counter!(
        "postrider_proxy_headers_refused_total",
        Unit::Count,
        "Connections of proxies whose PROXY header was missing, late or wrong."
    );
    describe_counter!(
        "postrider_limited_total",
        Unit::Count,
        "What clients were refused because they had used up a limit."
    );
    describe_gauge!(
        "postrider_public_certificate_expires_seconds",
        Unit::Seconds,
        "When a certificate of a public authority expires, seconds since 1970."
    );
    describe_counter!(
        "postrider_public_certificate_orders_total",
        Unit::Count,
        "Certificates that this frontend ordered with a public authority, by what became of it."
    );
}

fn describe_rest() {
    describe_counter!(
        "postrider_app_password_failures_total",
        Unit::Count,
        "Log-ins of programs with a wrong name or password."
    );
    describe_counter!(
        "postrider_rest_answers_stalled_total",
        Unit::Count,
        "Answers that were given up because the client did not read on."
    );
    describe_counter!("postrider_rest_bad_tokens_total", Unit::Count, "Tokens that opened nothing.");
    describe_counter!("postrider_rest_login_failures_total", Unit::Count, "Log-ins with a wrong address or password.");
    describe_gauge!("postrider_rest_open_streams", Unit::Count, "Open streams of events (WebSocket and long polls).");
    describe_histogram!(
        "postrider_rest_request_seconds",
        Unit::Seconds,
        "From a request's head to the head of its answer. The path is the route, without what a client puts in."
    );
    describe_counter!("postrider_rest_requests_total", Unit::Count, "Requests by route and status.");
    describe_counter!(
        "postrider_rest_streams_stalled_total",
        Unit::Count,
        "Streams of events that were closed because the client did not read on."
    );
    describe_counter!("postrider_rest_tls_failures_total", Unit::Count, "Handshakes that came to nothing.");
    describe_counter!(
        "postrider_rest_turned_away_connections_total",
        Unit::Count,
        "Connections that were refused because there were too many."
    );
}

fn describe_cache() {
    describe_gauge!(
        "postrider_cache_breaker_open",
        Unit::Count,
        "1 while the region's Redis does not answer and requests go on without it."
    );
    describe_counter!("postrider_cache_breaker_opened_total", Unit::Count, "Times that Redis stopped answering.");
    describe_counter!("postrider_cache_hits_total", Unit::Count, "Content of messages that was near.");
    describe_counter!("postrider_cache_misses_total", Unit::Count, "Content of messages that was not near.");
    describe_counter!("postrider_cache_redis_errors_total", Unit::Count, "Questions to Redis that came to nothing.");
    describe_counter!(
        "postrider_cache_refused_total",
        Unit::Count,
        "What lay in the cache and was not ours: somebody else writes there, or under another secret."
    );
}

fn describe_worker() {
    describe_counter!(
        "postrider_blob_carried_total",
        Unit::Count,
        "Attachments that the worker carried to the regions of a target shard."
    );
    describe_counter!(
        "postrider_blob_puts_existed_total",
        Unit::Count,
        "Attachments that were put and were there already."
    );
    describe_counter!(
        "postrider_worker_forgotten_total",
        Unit::Count,
        "Transfers that their targets were told to forget."
    );
    describe_counter!("postrider_worker_given_up_total", Unit::Count, "Recipients of ours that were given up, by why.");
    describe_counter!(
        "postrider_worker_lapsed_total",
        Unit::Count,
        "Leases of queue entries that ended before their delivery did."
    );
    describe_counter!(
        "postrider_worker_outside_lost_total",
        Unit::Count,
        "Leases that were lost while mail was on its way to the outside."
    );
    describe_counter!(
        "postrider_worker_outside_total",
        Unit::Count,
        "Recipients outside by how one attempt was settled."
    );
    describe_gauge!("postrider_worker_polled_shards", Unit::Count, "Shards whose queues this worker waits at.");
    describe_counter!(
        "postrider_worker_recipients_total",
        Unit::Count,
        "Recipients of ours in other shards by how one attempt was settled."
    );
    describe_counter!(
        "postrider_worker_unforgotten_total",
        Unit::Count,
        "Transfers whose targets could not be told to forget them; they forget by themselves later."
    );
    describe_counter!(
        "postrider_worker_unsigned_total",
        Unit::Count,
        "Messages that left without a DKIM signature, because their domain has no keys."
    );
    describe_counter!(
        "postrider_dmarc_messages_total",
        Unit::Count,
        "Messages in our domains' names that DMARC reports of others tell of."
    );
    describe_counter!(
        "postrider_domain_reports_total",
        Unit::Count,
        "Reports of others about our domains that came in."
    );
    describe_counter!(
        "postrider_feedback_total",
        Unit::Count,
        "Bounces and complaints that came back, by what became of them."
    );
    describe_gauge!(
        "postrider_outgoing_region_workers",
        Unit::Count,
        "Workers of the region that divide what a destination bears."
    );
    describe_counter!("postrider_rest_images_total", Unit::Count, "Images of the network that messages show.");
    describe_counter!(
        "postrider_round_trips_total",
        Unit::Count,
        "Accepted connections whose round trip was asked for."
    );
    describe_counter!(
        "postrider_tlsrpt_failures_total",
        Unit::Count,
        "Sessions of others with our hosts that failed, by what their reports say (RFC 8460)."
    );
    describe_counter!(
        "postrider_tlsrpt_sessions_total",
        Unit::Count,
        "Sessions of others with our hosts that their reports tell of."
    );
    describe_counter!("postrider_unsubscribed_total", Unit::Count, "Recipients of bulk mail who used its link.");
}
