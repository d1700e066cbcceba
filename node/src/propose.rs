//! Commands on their way into the log.

use std::sync::Arc;

use postrider_api::id::ShardId;
use postrider_api::pb::{self, Refusal, command::Op, fault::Fault, outcome::Result as Made, propose_reply};
use postrider_api::request::session_id;
use postrider_api::trace::{self, Kind};
use prost::Message;

use crate::clock::{Confidence, STAMP_AHEAD_MS_MAX, Trust};
use crate::fault;
use crate::map::Map;
use crate::received::Received;
use crate::replicas::Replicas;
use crate::subject;

/// Takes in proposals.
#[derive(Clone)]
pub(crate) struct Proposer {
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) trust: Arc<Trust>,
}

impl Proposer {
    /// `command` is what the request brings.
    pub(crate) async fn handle(&self, request: pb::ProposeRequest, command: Received) -> pb::ProposeReply {
        let began = self.replicas.clock.monotonic();
        let proposed = self.propose(request, command).await;
        let took = self.replicas.clock.monotonic().saturating_sub(began);
        metrics::histogram!("postrider_node_propose_seconds").record(took);
        if let Err(fault) = &proposed {
            fault::count("propose", fault);
        }
        reply(proposed)
    }

    async fn propose(&self, request: pb::ProposeRequest, command: Received) -> Result<(u64, pb::Outcome), pb::Fault> {
        let shard = ShardId(request.shard);
        self.replicas.leading(shard)?;
        self.check_epoch(shard, request.epoch)?;
        if let Some(refused) = command.check()? {
            return Ok((0, pb::Outcome { result: Some(Made::Refused(refused)) }));
        }
        if let Some(proof) = &request.session {
            subject::check(proof, subject::of_command(command.command()))?;
            let applied = self.replicas.barrier(shard).await?;
            let held = self.replicas.session_holds(shard, proof);
            if held.is_err()
                && ends_session(command.command(), proof)
                && let Some(outcome) = self.replicas.first_outcome(shard, command.command())?
            {
                return Ok((applied, outcome));
            }
            held?;
        }
        let is_mail = matches!(command.command().op, Some(Op::Accept(_)));
        let (index, outcome) = self.submit(shard, command).await?;
        if is_mail && is_for_nobody(&outcome) {
            self.follow_with_nothing(shard).await;
        }
        Ok((index, outcome))
    }

    /// Puts an entry that says nothing behind the newest one. A group's newest entry is never purged: the one that brought mail for
    /// whoever was deleted would stay on the disks until something else happens in the shard (ADR 072).
    async fn follow_with_nothing(&self, shard: ShardId) {
        let Ok(version) = self.replicas.version(shard) else { return }; // logged by whoever needs it
        let nothing = Op::RaiseVersion(pb::RaiseVersion { version });
        let command = Received::of(pb::Command { op: Some(nothing), ..Default::default() });
        if let Err(fault) = self.submit(shard, command).await {
            tracing::info!(shard = shard.0, fault = ?fault.fault, "mail for nobody is the last entry of a log for now");
        }
    }

    /// Stamps a command that was checked with this leader's time, and has it committed and applied.
    pub(crate) async fn submit(&self, shard: ShardId, command: Received) -> Result<(u64, pb::Outcome), pb::Fault> {
        let mut span = trace::child("commit", Kind::Internal);
        span.set("postrider.shard", shard.0);
        let entry = command.stamped(self.stamp(shard)?, span.context())?;
        drop(command);
        let proposed = self.replicas.propose(shard, entry).await;
        match &proposed {
            Ok(proposed) => span.set("postrider.index", proposed.index),
            // Whoever asks finds the leader.
            Err(pb::Fault { fault: Some(Fault::NotLeader(_)) }) => {}
            Err(fault) => span.fail(fault::name(fault)),
        }
        drop(span);
        let proposed = proposed?;
        let outcome = pb::Outcome::decode(proposed.reply).map_err(|error| fault::corrupt(&error))?;
        Ok((proposed.index, outcome))
    }

    /// The time for a command. A clock that nobody stands for stamps nothing: this node is no leader then, and whoever asks
    /// looks for another, to whom the steward hands the lead where the clock is wrong.
    fn stamp(&self, shard: ShardId) -> Result<i64, pb::Fault> {
        let (now_ms, confidence) = self.trust.read();
        let may = match confidence {
            Confidence::Witnessed => true,
            Confidence::None => false,
            // There is nobody to whom this time could be wrong.
            Confidence::Alone => self.replicas.votes_alone(shard),
            Confidence::Plausible => {
                self.replicas.votes_alone(shard)
                    || now_ms <= self.replicas.now_ms(shard)?.saturating_add(STAMP_AHEAD_MS_MAX)
            }
        };
        if may { Ok(now_ms) } else { Err(fault::not_leader(None, None)) }
    }

    /// Refuses whoever works with an older map, and gives him the newer entry.
    pub(crate) fn check_epoch(&self, shard: ShardId, epoch: u64) -> Result<(), pb::Fault> {
        if epoch == 0 {
            return Ok(());
        }
        let Some(map) = self.map.get() else { return Ok(()) };
        match map.shard(shard) {
            Some(current) if current.epoch > epoch => {
                Err(fault::fault(Fault::StaleEpoch(pb::StaleEpoch { current: Some(Box::new(current.clone())) })))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the accounts of all recipients were deleted.
fn is_for_nobody(outcome: &pb::Outcome) -> bool {
    matches!(&outcome.result, Some(Made::Refused(refused)) if refused.refusal() == Refusal::UnknownUser)
}

/// Whether the command ends the very session that it is proposed under: asked again, it finds the session gone because it was
/// carried out. Of another command under a session that does not hold nothing is told, not even what became
/// of it (P-9).
fn ends_session(command: &pb::Command, proof: &pb::SessionProof) -> bool {
    match &command.op {
        Some(Op::CloseSession(close)) => close.token_hash == proof.token_hash,
        Some(Op::EndSession(end)) => {
            let own = <[u8; 32]>::try_from(proof.token_hash.as_ref()).map(|hash| session_id(&hash));
            own.is_ok_and(|own| end.session_id == own[..])
        }
        Some(Op::DeleteAccount(_)) => true,
        _ => false,
    }
}

pub(crate) fn reply(proposed: Result<(u64, pb::Outcome), pb::Fault>) -> pb::ProposeReply {
    let (index, result) = match proposed {
        Ok((index, outcome)) => (index, propose_reply::Result::Outcome(outcome)),
        Err(fault) => (0, propose_reply::Result::Fault(fault)),
    };
    pb::ProposeReply { result: Some(result), index }
}
