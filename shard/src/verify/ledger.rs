//! What was expected, what was found, what differs.

use std::collections::BTreeMap;

use crate::Broken;
use crate::key::{Key, Table};
use crate::verify::{DIFFERENCES_MAX, Verified};

#[derive(Default)]
pub(crate) struct Ledger {
    found: BTreeMap<Table, u64>,
    expected: BTreeMap<Table, u64>,
    differences: Vec<String>,
}

impl Ledger {
    /// A row of the table is there.
    pub(crate) fn count(&mut self, table: Table) {
        *self.found.entry(table).or_default() += 1;
    }

    /// Rows of the table are accounted for.
    pub(crate) fn expect(&mut self, table: Table, rows: u64) {
        *self.expected.entry(table).or_default() += rows;
    }

    /// Names a difference, once: several checks meet the same broken row.
    pub(crate) fn differ(&mut self, difference: String) {
        if self.differences.len() < DIFFERENCES_MAX && !self.differences.contains(&difference) {
            self.differences.push(difference);
        }
    }

    /// Names a row that says something else than what it is derived from.
    pub(crate) fn compare<T: PartialEq + std::fmt::Debug>(&mut self, key: Key, what: &str, stored: T, derived: T) {
        if stored != derived {
            self.at(key, format!("{what} is {stored:?}, should be {derived:?}"));
        }
    }

    /// Names a difference at a key.
    pub(crate) fn at(&mut self, key: Key, difference: impl std::fmt::Display) {
        self.differ(format!("{} {}: {difference}", key.table().name(), hex::encode(key.bytes())));
    }

    /// What was read, or `None` for a broken row, which is a difference: whatever does not need it goes on. A store that cannot
    /// be read ends all.
    pub(crate) fn note<T>(&mut self, read: Result<T, Broken>) -> Result<Option<T>, Broken> {
        match read {
            Err(broken @ (Broken::Store(_) | Broken::Newer { .. })) => Err(broken),
            Err(broken) => {
                self.differ(broken.to_string());
                Ok(None)
            }
            Ok(read) => Ok(Some(read)),
        }
    }

    pub(crate) fn close(mut self) -> Verified {
        for table in Table::ALL {
            let found = self.found.get(table).copied().unwrap_or_default();
            let expected = self.expected.get(table).copied().unwrap_or_default();
            if found != expected {
                self.differ(format!("{}: {found} rows, {expected} are accounted for", table.name()));
            }
        }
        Verified { checked: self.found.values().sum(), differences: self.differences }
    }
}
