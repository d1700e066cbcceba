//! Commands on their way into the log.

use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::limit::COMMAND_BYTES_MAX;
use postrider_api::pb::{self, fault::Fault, propose_reply};
use prost::Message;

use crate::fault::{self, malformed};
use crate::map::Map;
use crate::replicas::Replicas;
use crate::subject;

/// Takes in proposals.
#[derive(Clone)]
pub(crate) struct Proposer {
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
}

impl Proposer {
    pub(crate) async fn handle(&self, request: pb::ProposeRequest) -> pb::ProposeReply {
        let began = self.replicas.clock.monotonic();
        let proposed = self.propose(request).await;
        let took = self.replicas.clock.monotonic().saturating_sub(began);
        metrics::histogram!("postrider_node_propose_seconds").record(took);
        if let Err(fault) = &proposed {
            fault::count("propose", fault);
        }
        reply(proposed)
    }

    async fn propose(&self, request: pb::ProposeRequest) -> Result<(u64, pb::Outcome), pb::Fault> {
        let shard = ShardId(request.shard);
        let command = request.command.ok_or_else(|| malformed("there is no command"))?;
        self.replicas.leading(shard)?;
        self.check_epoch(shard, request.epoch)?;
        if let Some(proof) = &request.session {
            subject::check(proof, subject::of_command(&command))?;
            self.replicas.barrier(shard).await?;
            self.replicas.session_holds(shard, proof)?;
        }
        self.submit(shard, command).await
    }

    /// Stamps a command with this leader's time and has it committed and applied.
    pub(crate) async fn submit(
        &self,
        shard: ShardId,
        mut command: pb::Command,
    ) -> Result<(u64, pb::Outcome), pb::Fault> {
        command.at_ms = self.replicas.clock.wall_ms();
        let bytes = command.encoded_len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(fault::fault(Fault::TooLarge(pb::TooLarge { max: COMMAND_BYTES_MAX as u64 })));
        }
        let mut encoded = Vec::with_capacity(bytes);
        // A Vec grows as it must: encoding into one cannot fail.
        command.encode_raw(&mut encoded);
        drop(command);
        let proposed = self.replicas.propose(shard, Bytes::from(encoded)).await?;
        let outcome = pb::Outcome::decode(proposed.reply).map_err(|error| fault::corrupt(&error))?;
        Ok((proposed.index, outcome))
    }

    /// Refuses whoever works with an older map, and gives him the newer entry.
    pub(crate) fn check_epoch(&self, shard: ShardId, epoch: u64) -> Result<(), pb::Fault> {
        if epoch == 0 {
            return Ok(());
        }
        match self.map.shard(shard) {
            Some(current) if current.epoch > epoch => {
                Err(fault::fault(Fault::StaleEpoch(pb::StaleEpoch { current: Some(current) })))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn reply(proposed: Result<(u64, pb::Outcome), pb::Fault>) -> pb::ProposeReply {
    let (index, result) = match proposed {
        Ok((index, outcome)) => (index, propose_reply::Result::Outcome(outcome)),
        Err(fault) => (0, propose_reply::Result::Fault(fault)),
    };
    pb::ProposeReply { result: Some(result), index }
}
