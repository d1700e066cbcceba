//! What was sent for later is taken back before anybody gets it.

use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

pub(crate) fn apply(_turn: &mut Turn<'_, impl Rows>, _command: &pb::CancelSend) -> Result<Made, Stop> {
    Err(malformed("this build does not send to the outside"))
}
