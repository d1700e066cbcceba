//! Where an operation stands, for whoever asks. It steers nothing: who carries it on looks at what is.

use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::key::Key;
use crate::placement::{REASON_BYTES_MAX, check_text, done, operation};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordStep) -> Result<Made, Stop> {
    check_text("waits_for", &command.waits_for, REASON_BYTES_MAX)?;
    let mut running = operation::running(turn.rows, command.id)?;
    running.step = command.step().into();
    // Why it was cancelled stays.
    if !command.waits_for.is_empty() || running.state() == pb::OperationState::Running {
        running.waits_for.clone_from(&command.waits_for);
    }
    running.stepped_ms = turn.now;
    // Not a change of the map, which does not tell this.
    row::put(turn.rows, Key::Operation(running.id), &running);
    Ok(done())
}
