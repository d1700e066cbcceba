//! What this machine keeps of clusters that run on it: which processes they are, and where the certificate for each is.
//!
//! The demo writes it; whoever asks, steers or hurts a cluster reads it, and need not know how a demo is made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;

/// In a demo's directory: what its processes are.
pub(crate) const RECORDS: &str = "processes.json";
/// In a process's directory: what it was started with.
pub(crate) const CONFIG: &str = "config.toml";

/// What one process is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    Store { region: String },
    Node { id: u64 },
    Frontend { region: String },
    Dns { region: String },
}

impl Job {
    /// Its name, and that of its directory.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.subcommand(), self.which())
    }

    /// The subcommand that runs it.
    pub(crate) fn subcommand(&self) -> &'static str {
        match self {
            Job::Store { .. } => "store",
            Job::Node { .. } => "node",
            Job::Frontend { .. } => "frontend",
            Job::Dns { .. } => "dns",
        }
    }

    /// Which of its kind: a node's number, or a region.
    pub(crate) fn which(&self) -> String {
        match self {
            Job::Node { id } => id.to_string(),
            Job::Store { region } | Job::Frontend { region } | Job::Dns { region } => region.clone(),
        }
    }

    /// The other way round from [`Self::subcommand`] and [`Self::which`].
    pub(crate) fn parse(kind: &str, which: &str) -> Option<Self> {
        let region = || which.to_owned();
        Some(match kind {
            "node" => Job::Node { id: which.parse().ok()? },
            "frontend" => Job::Frontend { region: region() },
            "store" => Job::Store { region: region() },
            "dns" => Job::Dns { region: region() },
            _ => return None,
        })
    }
}

/// A line of `processes.json`: enough to start the process again by hand or by a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) directory: PathBuf,
    pub(crate) command: Vec<String>,
    pub(crate) log: PathBuf,
}

impl ProcessRecord {
    /// Whether the process has not ended. Its id alone says nothing: the kernel gives it to others after a while.
    pub(crate) fn runs(&self) -> bool {
        // No such process, or one that ended and was not waited for: that one's command line is empty.
        let Ok(line) = std::fs::read_to_string(format!("/proc/{}/cmdline", self.pid)) else { return false };
        let words: Vec<&str> = line.split_terminator('\0').collect();
        // What starts it in a network namespace is gone from its command line once it runs.
        !words.is_empty() && self.command.ends_with(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    /// What it is for.
    pub(crate) fn job(&self) -> Option<Job> {
        let (kind, which) = self.name.split_once('-')?;
        Job::parse(kind, which)
    }
}

/// The processes of the demo in `root`, also those that have ended; none where there was no demo.
pub(crate) fn processes(root: &Path) -> anyhow::Result<Vec<ProcessRecord>> {
    Ok(files::read_json(&root.join(RECORDS))?.unwrap_or_default())
}

/// Postrider's own place for what outlives a process of this user: `$XDG_STATE_HOME/postrider`, in `~/.local/state` by default.
pub(crate) fn state_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state"))).map(|dir| dir.join("postrider"))
}

/// Where `postrider ctl` finds the certificate for a cluster that it knows only by the address of a node.
pub(crate) fn identity_of(node: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(state) = state_dir() else { return Ok(None) };
    Ok(files::read_if_there(&state.join("clusters").join(node))?.map(|path| PathBuf::from(path.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_name() {
        for job in [Job::Node { id: 7 }, Job::Store { region: "new-york".into() }, Job::Dns { region: "seoul".into() }]
        {
            let record = ProcessRecord {
                name: job.name(),
                pid: 1,
                directory: PathBuf::new(),
                command: Vec::new(),
                log: PathBuf::new(),
            };
            assert_eq!(record.job(), Some(job));
        }
        assert_eq!(Job::parse("moon", "1"), None);
        assert_eq!(Job::parse("node", "seoul"), None);
    }
}
