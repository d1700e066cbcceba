//! What the sender is told: a delivery status notification, filed in his inbox with what it tells of.
//!
//! Invariant: nobody is told of what becomes of a report: a message with the null reverse-path, or whose sender does not live here,
//! has none.

use bytes::Bytes;
use postrider_api::env::random;
use postrider_api::id::BodyId;
use postrider_api::limit::OUTGOING_AGE_MS_MAX;
use postrider_api::notify::Notify;
use postrider_api::pb::{self, Settlement};
use postrider_mime::IngestLimits;
use postrider_mime::dsn::{Action, DeliveryReport, ReportedRecipient, Returned, delivery_report};

use super::Tried;
use crate::worker::delivery::{Deliveries, Entry};

/// The report on those of whom there is something to say, who are marked as reported; `None` where there is nobody.
pub(super) fn compose(
    host: &str,
    deliveries: &Deliveries,
    entry: &Entry,
    tried: &mut [Tried<'_>],
    raw: Option<&Bytes>,
) -> Option<pb::NewMessage> {
    if entry.sender.is_none() || entry.mail_from.is_empty() {
        return None;
    }
    let mut recipients = Vec::new();
    for tried in tried.iter_mut() {
        if let Some(action) = action(entry, tried) {
            tried.result.reported = true;
            recipients.push(reported(entry, tried, action));
        }
    }
    if recipients.is_empty() {
        return None;
    }
    let is_failure = recipients.iter().any(|recipient| recipient.action == Action::Failed);
    let returned = match (raw, entry.options.return_content()) {
        (None, _) => Returned::Nothing,
        // RFC 3461 section 4.3: the whole message comes back with a failure only.
        (Some(raw), pb::ReturnContent::Full) if is_failure => Returned::Whole(raw.to_vec()),
        (Some(raw), _) => Returned::Header(header(raw)),
    };
    let report = DeliveryReport {
        reporting_mta: host.to_owned(),
        to: entry.mail_from.clone(),
        arrival_ms: entry.created_ms,
        date_ms: deliveries.clock.wall_ms(),
        message_id: format!("{}@{host}", hex::encode(random::<16>(&*deliveries.entropy))),
        envelope_id: entry.options.envelope_id.clone(),
        recipients,
        remark: String::new(),
        returned,
    };
    let ingest = |report: &DeliveryReport| {
        let raw = Bytes::from(delivery_report(report));
        postrider_mime::ingest(&raw, BodyId(random(&*deliveries.entropy)), &IngestLimits::default())
    };
    let mut ingested = ingest(&report);
    // What is given back may have parts that belong into blob storage: then it is the header alone.
    if !ingested.blobs.is_empty()
        && let Some(raw) = raw
    {
        ingested = ingest(&DeliveryReport { returned: Returned::Header(header(raw)), ..report });
    }
    if !ingested.blobs.is_empty() {
        tracing::error!(source = entry.source.0, entry = entry.id.0, "a report is too large to be filed");
        tried.iter_mut().for_each(|tried| tried.result.reported = false);
        return None;
    }
    Some(ingested.message)
}

/// What is to be said of a recipient, if anything is (RFC 3461 section 5.2).
fn action(entry: &Entry, tried: &Tried<'_>) -> Option<Action> {
    let notify = Notify(tried.pending.notify);
    let (action, asked) = match tried.result.settlement() {
        Settlement::Failed => (Action::Failed, Notify::FAILURE),
        Settlement::Delivered if tried.result.relayed => (Action::Relayed, Notify::SUCCESS),
        Settlement::Deferred | Settlement::Held | Settlement::Waits if tried.is_late(entry) => {
            (Action::Delayed, Notify::DELAY)
        }
        _ => return None,
    };
    notify.tells(asked).then_some(action)
}

fn reported(entry: &Entry, tried: &Tried<'_>, action: Action) -> ReportedRecipient {
    let Tried { pending, result, host } = tried;
    let said = [&result.reply, &result.reason, &pending.reply, &pending.reason];
    let said = said.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    // What was given up for its age is not what the host said last.
    let reason = if action == Action::Failed && host.is_empty() { result.reason.clone() } else { said };
    let code = if result.code.is_empty() { pending.code.clone() } else { result.code.clone() };
    ReportedRecipient {
        address: pending.address.clone(),
        original: pending.original.clone(),
        action,
        status: match action {
            // RFC 3464 section 2.3.4: the class is that of the action.
            Action::Failed => with_class('5', &code),
            Action::Delayed => with_class('4', &code),
            Action::Relayed | Action::Delivered => with_class('2', &code),
        },
        remote_mta: host.clone(),
        reason,
        last_attempt_ms: if pending.parked { 0 } else { entry.leased_ms },
        retry_until_ms: pending.since_ms.saturating_add(OUTGOING_AGE_MS_MAX),
    }
}

fn with_class(class: char, code: &str) -> String {
    match code.split_once('.') {
        Some((_, rest)) => format!("{class}.{rest}"),
        None => format!("{class}.0.0"),
    }
}

fn header(raw: &[u8]) -> Vec<u8> {
    raw[..memchr::memmem::find(raw, b"\r\n\r\n").map_or(raw.len(), |end| end + 2)].to_vec()
}
