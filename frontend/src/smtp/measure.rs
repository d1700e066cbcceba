//! What the SMTP server counts.

use std::time::Duration;

use super::reply::{QueueId, Reply};

const CLASSES: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

/// A connection is open until this is dropped.
pub(super) struct Open;

impl Open {
    pub(super) fn new() -> Self {
        metrics::counter!("postrider_smtp_connections_total").increment(1);
        metrics::gauge!("postrider_smtp_open_connections").increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("postrider_smtp_open_connections").decrement(1);
    }
}

/// A connection was turned away before its session began.
pub(super) fn turned_away(reply: Reply) {
    let code = reply.row().enhanced;
    metrics::counter!("postrider_smtp_turned_away_connections_total", "code" => code).increment(1);
}

/// Bytes came in.
pub(super) fn received(bytes: usize) {
    metrics::counter!("postrider_smtp_received_bytes_total").increment(bytes as u64);
}

/// Replies went out.
pub(super) fn replies(classes: &mut [u64; 6]) {
    for (class, count) in CLASSES.iter().zip(classes.iter_mut()).filter(|(_, count)| **count > 0) {
        metrics::counter!("postrider_smtp_replies_total", "class" => *class).increment(std::mem::take(count));
    }
}

/// A message came to its end.
pub(super) fn message(bytes: usize, took: Duration, outcome: &Result<QueueId, Reply>) {
    let (result, code) = match outcome {
        Ok(_) => ("accepted", "2.0.0"),
        Err(reply) => ("refused", reply.row().enhanced),
    };
    metrics::counter!("postrider_smtp_messages_total", "result" => result, "code" => code).increment(1);
    metrics::histogram!("postrider_smtp_final_reply_seconds", "result" => result).record(took.as_secs_f64());
    if outcome.is_ok() {
        metrics::counter!("postrider_smtp_accepted_bytes_total").increment(bytes as u64);
    }
}
