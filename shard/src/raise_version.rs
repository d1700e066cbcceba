//! The shard is raised to a newer version: what comes behind this command in the log is applied by its rules.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, Refused};

use crate::Broken;
use crate::format::VERSION_MAX;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

/// A build that does not know the version stops here, before it misreads anything. Placement has seen to it that none is a
/// member (`placement::record_version`).
pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RaiseVersion) -> Result<Made, Stop> {
    if command.version > VERSION_MAX {
        return Err(Stop::Broken(Broken::Newer { found: command.version, known: VERSION_MAX }));
    }
    if command.version < turn.state.version {
        let detail = format!("version: the shard is at {}, and never goes back", turn.state.version);
        return Err(refuse(Refusal::Conflict, detail));
    }
    turn.state.version = command.version;
    Ok(Made::Done(pb::Done {}))
}

/// The refusal of a command that requires more than a shard has been raised to, the same whatever the build reads in it.
pub fn not_enabled(requires: u32, version: u32) -> Refused {
    Refused {
        refusal: Refusal::VersionNotEnabled.into(),
        detail: format!("requires: version {requires}, the shard is at {version}"),
        ..Default::default()
    }
}
