//! The two records of everything that operators do (ADR 070): how they are made, and how they are read as one line.

use std::collections::HashMap;

use postrider_api::audit;
use postrider_api::pb::{AuditOutcome, AuditRecord};

/// Bytes of what went wrong that are kept.
const DETAIL_BYTES_MAX: usize = 1000;

/// What is written down before anything happens. `action` is `room.verb`; `targets` name one thing under each of its names
/// ([`postrider_api::audit`]).
pub fn begun(operator: &str, action: &str, targets: impl IntoIterator<Item = String>, why: &str) -> AuditRecord {
    AuditRecord {
        operator: operator.to_owned(),
        action: action.to_owned(),
        targets: targets.into_iter().collect(),
        why: why.to_owned(),
        ..AuditRecord::default()
    }
}

/// What is written down when what `of` tells of is over; `error`: in what words it went wrong.
pub fn ended(of: u64, error: Option<&str>) -> AuditRecord {
    let (outcome, detail) = match error {
        None => (AuditOutcome::Done, String::new()),
        Some(error) => (AuditOutcome::Failed, audit::without_addresses(error)),
    };
    let detail = detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned();
    AuditRecord { of, outcome: outcome.into(), detail, ..AuditRecord::default() }
}

/// One action with its end.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditLine {
    /// Its beginning.
    pub record: AuditRecord,
    /// How it ended, where that is known.
    pub end: Option<AuditRecord>,
}

impl AuditLine {
    /// `done`, `failed`, or `not known`.
    pub fn outcome(&self) -> &'static str {
        match self.end.as_ref().map(AuditRecord::outcome) {
            Some(AuditOutcome::Done) => "done",
            Some(AuditOutcome::Failed) => "failed",
            Some(AuditOutcome::Unspecified) | None => "not known",
        }
    }
}

/// Joins ends with beginnings in records that come the newest first.
#[derive(Debug, Default)]
pub struct AuditOutcomes {
    ends: HashMap<u64, AuditRecord>,
}

impl AuditOutcomes {
    /// The next older record; a line once it is a beginning.
    pub fn take(&mut self, record: AuditRecord) -> Option<AuditLine> {
        if record.of != 0 {
            self.ends.insert(record.of, record);
            return None;
        }
        let end = self.ends.remove(&record.sequence);
        Some(AuditLine { record, end })
    }

    /// The newest end whose beginning has not come yet: whoever goes on later begins there.
    pub fn newest_open(&self) -> Option<u64> {
        self.ends.values().map(|record| record.sequence).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, of: u64, error: Option<&str>) -> AuditRecord {
        let record =
            if of == 0 { begun("ada", "node.drain", ["node 3".to_owned()], "disks") } else { ended(of, error) };
        AuditRecord { sequence, ..record }
    }

    #[test]
    fn an_end_is_told_with_its_beginning() {
        let mut outcomes = AuditOutcomes::default();
        assert_eq!(outcomes.take(record(9, 5, None)), None);
        assert_eq!(outcomes.take(record(8, 7, Some("nobody has ada@x.example"))), None);
        assert_eq!(outcomes.newest_open(), Some(9));
        let failed = outcomes.take(record(7, 0, None)).unwrap();
        assert_eq!(
            (failed.outcome(), failed.end.as_ref().unwrap().detail.as_str()),
            ("failed", "nobody has [address]")
        );
        assert_eq!(outcomes.take(record(6, 0, None)).unwrap().outcome(), "not known");
        assert_eq!(outcomes.take(record(5, 0, None)).unwrap().outcome(), "done");
        assert_eq!(outcomes.newest_open(), None);
    }
}
