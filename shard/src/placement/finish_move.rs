//! A move is over: the shard has its new replicas, or keeps the old ones.
//!
//! The command says which move it ends. Whoever carried out an earlier one and is late must not end the one that runs now,
//! whose replica may not have caught up.

use postrider_api::id::ShardId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Move, Refusal};

use crate::key::Key;
use crate::placement::{changed, done, shard};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::FinishMove) -> Result<Made, Stop> {
    let mut placed = shard(turn.rows, command.shard)?;
    let key = Key::Move(ShardId(command.shard));
    let running: Move = row::get(turn.rows, key)?
        .ok_or_else(|| refuse(Refusal::Conflict, format!("no move of shard {} is running", command.shard)))?;
    if (running.from, running.to, running.started_ms) != (command.from, command.to, command.started_ms) {
        let Move { shard, from, to, started_ms } = running;
        let detail = format!("shard {shard}: another move is running, from {from} to {to}, begun at {started_ms} ms");
        return Err(refuse(Refusal::Conflict, detail));
    }
    if command.done {
        for replica in &mut placed.replicas {
            if *replica == running.from {
                *replica = running.to;
            }
        }
        placed.epoch += 1;
        row::put(turn.rows, Key::Shards(ShardId(command.shard)), &placed);
    }
    row::delete(turn.rows, key);
    changed(turn);
    Ok(done())
}
