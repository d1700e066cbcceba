//! A shard's primary shall be in another region. It is over when the primary is there.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, OperationState, Refusal};

use crate::key::Key;
use crate::placement::{REASON_BYTES_MAX, check_text, done, node, operation, region, set, shard};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SetHome) -> Result<Made, Stop> {
    check_text("reason", &command.reason, REASON_BYTES_MAX)?;
    let mut placed = shard(turn.rows, command.shard)?;
    let home = region(turn.rows, "region", &command.region)?;
    if home.zone != placed.zone {
        return Err(malformed(format!(
            "region: {} is in zone {:?}, the shard in {:?}",
            home.name, home.zone, placed.zone
        )));
    }
    if placed.operation != 0 {
        let running = operation::running(turn.rows, placed.operation)?;
        return match &running.kind {
            Some(Kind::SetHome(set)) if running.state() == OperationState::Running && set.region == command.region => {
                Ok(operation::begun(running.id))
            }
            _ => {
                let detail = format!("shard {}: operation {} is changing it", placed.id, running.id);
                Err(refuse(Refusal::Conflict, detail))
            }
        };
    }
    if placed.home_region == home.name {
        return Ok(done());
    }
    let mut has_replica = false;
    for replica in &placed.replicas {
        has_replica |= node(turn.rows, NodeId(*replica))?.region == home.name;
    }
    if !has_replica {
        let detail = format!("shard {} has no replica in {}: give it one first", placed.id, home.name);
        return Err(refuse(Refusal::Conflict, detail));
    }
    placed.operation = operation::begin(turn, Kind::SetHome(command.clone()), placed.home_region.clone())?;
    placed.home_region = home.name;
    set(turn, Key::Shards(ShardId(placed.id)), &placed)?;
    Ok(operation::begun(placed.operation))
}
