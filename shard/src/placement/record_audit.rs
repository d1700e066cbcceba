//! The audit log: what operators and administrators are about to do or to look at, and what became of it.
//!
//! Invariant: a record is appended and never changed. The end of something is a record of its own, so whoever dies between
//! the two leaves a beginning whose end is not known. The only way out is time or number, the oldest first.

use postrider_api::limit::{AUDIT_MS, AUDIT_RECORDS_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AuditOutcome, AuditPage, AuditRecord, ListAudit, Refusal};
use prost::Message;

use crate::key::{Key, KeyRange};
use crate::query::QueryError;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, page, row};

/// Operator, certificate, action or one target, bytes.
const WORD_BYTES_MAX: usize = 256;
/// Why, or what went wrong, bytes.
const SENTENCE_BYTES_MAX: usize = 1000;
/// Names of one target.
const TARGETS_MAX: usize = 8;
/// Records that one command removes: more than it adds, so the log does not grow beyond its bounds.
const TRIMMED_MAX: usize = 4;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordAudit) -> Result<Made, Stop> {
    let record = command.record.as_ref().ok_or_else(|| malformed("record: is missing"))?;
    check(record)?;
    if record.of != 0 && (record.of > turn.state.audit_last || record.of <= turn.state.audit_floor) {
        return Err(refuse(Refusal::Conflict, format!("record.of: {} is not in the audit log", record.of)));
    }
    turn.state.audit_last += 1;
    let sequence = turn.state.audit_last;
    let record = AuditRecord { sequence, at_ms: turn.now, ..record.clone() };
    row::put(turn.rows, Key::Audit(sequence), &record);
    trim(turn, AUDIT_RECORDS_MAX)?;
    Ok(Made::Audited(pb::Audited { sequence }))
}

fn check(record: &AuditRecord) -> Result<(), Stop> {
    for (field, text) in
        [("certificate", &record.certificate), ("operator", &record.operator), ("action", &record.action)]
    {
        check_text(field, text, WORD_BYTES_MAX)?;
    }
    for (field, text) in [("why", &record.why), ("detail", &record.detail)] {
        check_text(field, text, SENTENCE_BYTES_MAX)?;
    }
    if record.targets.len() > TARGETS_MAX {
        return Err(malformed(format!("record.targets: at most {TARGETS_MAX}")));
    }
    for target in &record.targets {
        check_text("targets", target, WORD_BYTES_MAX)?;
    }
    match (record.of, record.outcome()) {
        (0, AuditOutcome::Unspecified) if record.action.is_empty() => Err(malformed("record.action: is missing")),
        (0, AuditOutcome::Unspecified) => Ok(()),
        (0, _) => Err(malformed("record.outcome: says how something ended that is not named")),
        (_, AuditOutcome::Unspecified) => Err(malformed("record.outcome: is missing")),
        (_, _) if !record.action.is_empty() || !record.targets.is_empty() => {
            Err(malformed("record.action: stands in the record of the beginning"))
        }
        (_, _) => Ok(()),
    }
}

fn check_text(field: &str, text: &str, bytes_max: usize) -> Result<(), Stop> {
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(malformed(format!("record.{field}: at most {bytes_max} bytes and no control characters")));
    }
    Ok(())
}

/// Removes the oldest records that are one too many, or too old. What was begun before the floor and ends behind it has lost
/// its beginning; its end goes with its own time.
fn trim(turn: &mut Turn<'_, impl Rows>, records_max: u64) -> Result<(), Broken> {
    for _ in 0..TRIMMED_MAX {
        let oldest = turn.state.audit_floor + 1;
        if oldest >= turn.state.audit_last {
            return Ok(());
        }
        let key = Key::Audit(oldest);
        let is_one_too_many = turn.state.audit_last - turn.state.audit_floor > records_max;
        if !is_one_too_many {
            let record: AuditRecord = row::need(turn.rows, key)?;
            if turn.now.saturating_sub(record.at_ms) <= AUDIT_MS {
                return Ok(());
            }
        }
        row::delete(turn.rows, key);
        turn.state.audit_floor = oldest;
    }
    Ok(())
}

/// A page of the log, the newest first.
pub(crate) fn answer(reader: &impl Reader, query: &ListAudit) -> Result<Answer, QueryError> {
    let page = page::read(reader, &KeyRange::audit_before(query.before), query.limit, |key, value| {
        let record = row::decode_row::<AuditRecord>(key, value)?.1;
        let bytes = record.encoded_len();
        Ok((record, bytes))
    })?;
    let read = page.rows.len();
    // Time does not go back from one record to the next, so whatever follows one that is too old is too old as well.
    let records: Vec<AuditRecord> = page.rows.into_iter().take_while(|record| record.at_ms >= query.since_ms).collect();
    let more = page.more && records.len() == read;
    Ok(Answer::Audit(AuditPage { records, more }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, Txn};
    use postrider_api::id::ShardId;

    #[test]
    fn one_too_many_goes() {
        let mut store = MemoryStore::new();
        for index in 1..=50 {
            let below = store.clone();
            let mut txn = Txn::new(&below);
            let mut turn = Turn::begin(ShardId::PLACEMENT, &mut txn, index, &pb::Command::default()).unwrap();
            turn.state.audit_last += 1;
            let record = AuditRecord { sequence: turn.state.audit_last, ..Default::default() };
            row::put(turn.rows, Key::Audit(record.sequence), &record);
            trim(&mut turn, 10).unwrap();
            let state = turn.state;
            assert_eq!(state.audit_last - state.audit_floor, index.min(10));
            row::put(turn.rows, Key::Shard, &state);
            store.write(txn.into_writes());
        }
        let verified = crate::verify(&store).unwrap();
        assert_eq!(verified.differences, Vec::<String>::new());
    }
}
