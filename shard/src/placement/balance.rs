//! The cluster shall be put right and evened out. Placement's leader plans it and begins its steps, which are operations of their own.

use postrider_api::pb;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;

use crate::placement::operation;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

/// One runs at a time: the same once more is the one that runs.
pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: pb::Balance) -> Result<Made, Stop> {
    let is_running =
        |known: &pb::Operation| !operation::has_ended(known) && matches!(known.kind, Some(Kind::Balance(_)));
    if let Some(running) = operation::all(turn.rows)?.iter().find(|known| is_running(known)) {
        return Ok(operation::begun(running.id));
    }
    Ok(operation::begun(operation::begin(turn, Kind::Balance(command), String::new())?))
}
