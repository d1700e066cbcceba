//! What is broken now, on disk before it is broken: whoever finds the journal can put everything right.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::files::{self, Access};

const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";

/// As the file has it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Entries {
    drill: String,
    /// What is broken, the oldest first.
    broken: Vec<Fault>,
}

/// The journal of one installation; no two drills have it at once.
pub(super) struct Journal {
    path: PathBuf,
    entries: Entries,
    _lock: File,
}

impl Journal {
    /// Takes the directory for a drill, or for healing what an earlier one left.
    pub(super) fn open(dir: &Path, drill: &str) -> anyhow::Result<Self> {
        files::make_directory(dir)?;
        let lock_path = dir.join(LOCK);
        let lock = File::create(&lock_path).with_context(|| format!("open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("a drill is running in {} already: wait, or stop it with Ctrl-C", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", lock_path.display()));
            }
        }
        let path = dir.join(JOURNAL);
        let entries = files::read_json(&path)?.unwrap_or_else(|| Entries { drill: drill.into(), broken: Vec::new() });
        Ok(Self { path, entries, _lock: lock })
    }

    /// What is broken, the newest first: the order in which it is healed.
    pub(super) fn broken(&self) -> Vec<Fault> {
        self.entries.broken.iter().rev().cloned().collect()
    }

    /// The drill that wrote it.
    pub(super) fn drill(&self) -> &str {
        &self.entries.drill
    }

    /// Before something is broken.
    pub(super) fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.entries.broken.push(fault.clone());
        self.write()
    }

    /// After it is healed. With nothing left the journal is gone.
    pub(super) fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        if let Some(at) = self.entries.broken.iter().rposition(|broken| broken == fault) {
            self.entries.broken.remove(at);
        }
        if self.entries.broken.is_empty() && self.path.exists() {
            return std::fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()));
        }
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        files::write_atomically(&self.path, &serde_json::to_vec_pretty(&self.entries)?, Access::Public)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Ways, Who};
    use super::*;

    #[test]
    fn what_is_broken_outlives_the_drill() {
        let dir = tempfile::tempdir().unwrap();
        let kill = Fault::Kill { who: Who::Node(2) };
        let cut = Fault::Cut { region: "seoul".into(), ways: Ways::Out };
        {
            let mut journal = Journal::open(dir.path(), "chaos").unwrap();
            journal.begin(&kill).unwrap();
            journal.begin(&cut).unwrap();
            let second = Journal::open(dir.path(), "roll").err().unwrap();
            assert!(second.to_string().contains("running"), "{second}");
        }
        let mut journal = Journal::open(dir.path(), "heal").unwrap();
        assert_eq!(journal.drill(), "chaos");
        assert_eq!(journal.broken(), [cut.clone(), kill.clone()]);
        journal.end(&cut).unwrap();
        drop(journal);
        let mut journal = Journal::open(dir.path(), "heal").unwrap();
        assert_eq!(journal.broken(), std::slice::from_ref(&kill));
        journal.end(&kill).unwrap();
        assert!(!dir.path().join(JOURNAL).exists());
    }
}
