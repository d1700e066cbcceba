//! Where a shard's lead is: it goes away from this node, or to the region that an operator wants it in.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, OperationStep};
use postrider_raft::{GroupStatus, MemberError};

use super::{Progress, Reconciler, StepError};
use crate::map::takes_nothing;
use crate::replicas::group;

impl Reconciler {
    /// Hands the lead to the first other voter that can take it, those of the home region first.
    pub(crate) async fn hand_over(&self, shard: ShardId, status: &GroupStatus) -> Result<(), MemberError> {
        self.hand_over_among(shard, status, |_| true).await
    }

    /// The same, to one of some nodes. One that is to lead nothing takes it only where nobody else does.
    pub(super) async fn hand_over_among(
        &self,
        shard: ShardId,
        status: &GroupStatus,
        may_lead: impl Fn(NodeId) -> bool,
    ) -> Result<(), MemberError> {
        let map = self.map.get();
        let home = map.as_ref().and_then(|map| map.shard(shard)).map_or("", |placed| placed.home_region.as_str());
        let takes_nothing = |id: u64| map.as_ref().and_then(|map| map.node(NodeId(id))).is_some_and(takes_nothing);
        let others = status.voters.iter().filter(|(id, _)| id.0 != self.node.0 && may_lead(NodeId(id.0)));
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|(id, member)| {
            let matched = status.matched.get(*id).copied().flatten();
            (takes_nothing(id.0), member.region != home, std::cmp::Reverse(matched), **id)
        });
        let mut last = MemberError::Impossible { reason: "there is no other voter that may lead".to_owned() };
        for (id, _) in others {
            match self.replicas.host.transfer(group(shard), *id).await {
                Ok(()) => return Ok(()),
                Err(error @ MemberError::Impossible { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The shard's home is another region now: its lead goes there.
    pub(super) async fn step_home(
        &self,
        shard: ShardId,
        operation: &pb::Operation,
        home: &pb::SetHome,
        status: &GroupStatus,
    ) -> Result<Progress, StepError> {
        let map = self.map.get().ok_or(StepError::Changed)?;
        let is_home = |id: NodeId| map.node(id).is_some_and(|node| node.region == home.region);
        if is_home(self.node) {
            return self.finish(operation.id, Vec::new()).await;
        }
        match self.hand_over_among(shard, status, is_home).await {
            Ok(()) => Err(StepError::NotLeader),
            Err(MemberError::Impossible { reason }) => Ok(Progress::Waits(OperationStep::HandingOver, reason)),
            Err(error) => Err(error.into()),
        }
    }
}
