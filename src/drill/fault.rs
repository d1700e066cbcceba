//! What a drill breaks, as the journal keeps it: enough for another process to put it right.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::local::Job;

/// Whose processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Who {
    Node(u64),
    Frontend(String),
    Store(String),
    Dns(String),
    /// All processes of a region.
    Region(String),
}

impl Who {
    /// The role, for hooks.
    pub(super) fn role(&self) -> &'static str {
        match self {
            Who::Node(_) => "node",
            Who::Frontend(_) => "frontend",
            Who::Store(_) => "store",
            Who::Dns(_) => "dns",
            Who::Region(_) => "all",
        }
    }
}

impl From<&Job> for Who {
    fn from(job: &Job) -> Self {
        match job {
            Job::Node { id } => Who::Node(*id),
            Job::Frontend { region } => Who::Frontend(region.clone()),
            Job::Store { region } => Who::Store(region.clone()),
            Job::Dns { region } => Who::Dns(region.clone()),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(id) => write!(f, "node {id}"),
            Who::Frontend(region) => write!(f, "the frontend of {region}"),
            Who::Store(region) => write!(f, "the object store of {region}"),
            Who::Dns(region) => write!(f, "the name server of {region}"),
            Who::Region(region) => write!(f, "every process of {region}"),
        }
    }
}

/// Which way nothing gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ways {
    /// Neither to the region nor from it.
    Both,
    /// What the region sends reaches no other region.
    Out,
    /// What other regions send does not reach it.
    In,
}

impl Ways {
    pub(super) fn name(self) -> &'static str {
        match self {
            Ways::Both => "both",
            Ways::Out => "out",
            Ways::In => "in",
        }
    }
}

/// One thing that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub(super) enum Fault {
    /// Ended at once (SIGKILL); healed by starting it again.
    Kill { who: Who },
    /// Told to end (SIGTERM); healed by starting it again.
    Stop { who: Who },
    /// It holds its connections and answers nobody (SIGSTOP).
    Freeze { who: Who },
    /// It runs a part of the time.
    Slow { region: String },
    /// Its packets to or from other regions are lost.
    Cut { region: String, ways: Ways },
    /// The disk of its data has no room.
    FullDisk { node: u64 },
    /// It is emptied by the cluster, and takes part again afterwards.
    Drain { node: u64 },
}

impl Fault {
    /// As hooks are told.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::Stop { .. } => "stop",
            Fault::Freeze { .. } => "freeze",
            Fault::Slow { .. } => "slow",
            Fault::Cut { .. } => "cut",
            Fault::FullDisk { .. } => "full-disk",
            Fault::Drain { .. } => "drain",
        }
    }

    /// Whom it concerns.
    pub(super) fn who(&self) -> Who {
        match self {
            Fault::Kill { who } | Fault::Stop { who } | Fault::Freeze { who } => who.clone(),
            Fault::Slow { region } | Fault::Cut { region, .. } => Who::Region(region.clone()),
            Fault::FullDisk { node } | Fault::Drain { node } => Who::Node(*node),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who();
        match self {
            Fault::Kill { .. } => write!(f, "kill -9 of {who}"),
            Fault::Stop { .. } => write!(f, "stop of {who}"),
            Fault::Freeze { .. } => write!(f, "SIGSTOP of {who}"),
            Fault::Slow { region } => write!(f, "{region} is slow"),
            Fault::Cut { region, ways: Ways::Both } => write!(f, "{region} is cut off both ways"),
            Fault::Cut { region, ways: Ways::Out } => write!(f, "what {region} sends reaches no other region"),
            Fault::Cut { region, ways: Ways::In } => write!(f, "nothing of other regions reaches {region}"),
            Fault::FullDisk { .. } => write!(f, "the disk of {who} is full"),
            Fault::Drain { .. } => write!(f, "{who} is drained"),
        }
    }
}
