//! What a name server counts, and what each of it means.

use metrics::{Unit, describe_counter, describe_gauge};

/// Describes this room's metrics to the recorder.
pub fn describe_metrics() {
    describe_counter!(
        "postrider_dns_answers_total",
        Unit::Count,
        "Questions by what became of them: missing is a name or type that is not there; dropped were more than one network gets."
    );
    describe_gauge!("postrider_dns_prefixes", Unit::Count, "Networks whose round trips are known.");
    describe_gauge!("postrider_dns_region_serves", Unit::Count, "1 while a region is among the answers.");
    describe_counter!(
        "postrider_dns_region_changes_total",
        Unit::Count,
        "Times that a region left the answers or came back, by what was seen of its health."
    );
    describe_counter!(
        "postrider_dns_signatures_total",
        Unit::Count,
        "Signatures that were made; those that were kept are not counted."
    );
    describe_gauge!("postrider_dns_zones", Unit::Count, "Domains that are served.");
    describe_counter!(
        "postrider_dns_measured_networks_total",
        Unit::Count,
        "Networks whose round trips were taken in, from frontends of the region or from other name servers."
    );
}
