//! What mail to the outside counts, and what each of it means.

use metrics::{Unit, describe_counter};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    describe_counter!(
        "postrider_outgoing_mta_sts_total",
        Unit::Count,
        "Policies of MTA-STS: fetched, failed to be fetched, and hosts that a policy in testing would have refused."
    );
    describe_counter!(
        "postrider_outgoing_recipients_total",
        Unit::Count,
        "Recipients outside by what one attempt came to, and by the class of their destination."
    );
    describe_counter!(
        "postrider_outgoing_sessions_total",
        Unit::Count,
        "Sessions with hosts outside by how they are protected."
    );
    describe_counter!(
        "postrider_outgoing_tls_fallback_total",
        Unit::Count,
        "Hosts whose TLS did not work and that got mail without, as nothing asked for it."
    );
    describe_counter!(
        "postrider_outgoing_source_blamed_total",
        Unit::Count,
        "Answers of destinations that slowed or suspended one of the pool's source addresses there."
    );
}
