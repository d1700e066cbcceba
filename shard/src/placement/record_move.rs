//! A replica begins to move. It is recorded first, so that whoever leads next carries it on.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Move, Refusal, Shard};

use crate::key::Key;
use crate::placement::{check_node, done, rules, set, shard};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordMove) -> Result<Made, Stop> {
    let placed = shard(turn.rows, command.shard)?;
    check_node(turn.rows, NodeId(command.to))?;
    let key = Key::Move(ShardId(command.shard));
    if let Some(running) = row::get::<Move>(turn.rows, key)? {
        if (running.from, running.to) == (command.from, command.to) {
            return Ok(done());
        }
        let detail = format!("shard {}: a move from {} to {} is running", command.shard, running.from, running.to);
        return Err(refuse(Refusal::Conflict, detail));
    }
    if !placed.replicas.contains(&command.from) || placed.replicas.contains(&command.to) {
        let detail = format!("shard {} has its replicas on {:?}", command.shard, placed.replicas);
        return Err(refuse(Refusal::Conflict, detail));
    }
    let replicas = placed.replicas.iter().map(|node| if *node == command.from { command.to } else { *node });
    let moved = Shard { replicas: replicas.collect(), ..placed.clone() };
    rules::check_replicas(turn.rows, "to", &moved)?;
    let started = Move { shard: command.shard, from: command.from, to: command.to, started_ms: turn.now };
    set(turn, key, &started)?;
    Ok(done())
}
