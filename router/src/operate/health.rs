//! Whether every shard is whole: a primary, and all replicas running and caught up.

use std::collections::BTreeMap;
use std::fmt;

use postrider_api::pb;

use super::survey::{NodeReport, primary_of, replicas_of};

/// Shards that are not whole, each list in the order of the shard map.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Nobody leads them.
    pub without_primary: Vec<u32>,
    /// A replica is on a node that does not answer, or has stopped, or is not there.
    pub missing_replicas: Vec<u32>,
    /// All replicas run, and one has not applied what the primary had committed.
    pub behind: Vec<u32>,
}

impl Lacks {
    /// All of them are whole.
    pub fn nothing(&self) -> bool {
        *self == Self::default()
    }

    /// By what the nodes say; `marks`: what each shard's replicas have to have applied ([`committed`]).
    pub fn of(map: &pb::ShardMap, reports: &[NodeReport], marks: &BTreeMap<u32, u64>) -> Self {
        let mut lacks = Self::default();
        for shard in &map.shards {
            if primary_of(shard.id, reports).is_none() {
                lacks.without_primary.push(shard.id);
            }
            let running: Vec<_> = replicas_of(shard.id, reports)
                .filter(|(node, replica)| shard.replicas.contains(node) && replica.stopped_reason.is_empty())
                .collect();
            if running.len() < shard.replicas.len() {
                lacks.missing_replicas.push(shard.id);
            } else if let Some(mark) = marks.get(&shard.id)
                && running.iter().any(|(_, replica)| replica.applied < *mark)
            {
                lacks.behind.push(shard.id);
            }
        }
        lacks
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("without primary", &self.without_primary),
            ("missing a replica", &self.missing_replicas),
            ("catching up", &self.behind),
        ];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, shards)| !shards.is_empty())
            .map(|(what, shards)| format!("{what}: {}", list(shards)))
            .collect();
        f.write_str(&parts.join("; "))
    }
}

/// Numbers of shards, for people.
fn list(shards: &[u32]) -> String {
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What the primary of each shard has committed.
pub fn committed(map: &pb::ShardMap, reports: &[NodeReport]) -> BTreeMap<u32, u64> {
    let of = |shard: &pb::Shard| {
        let primary = primary_of(shard.id, reports)?;
        let (_, replica) = replicas_of(shard.id, reports).find(|(node, _)| *node == primary)?;
        Some((shard.id, replica.committed))
    };
    map.shards.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::AdminError;

    fn map() -> pb::ShardMap {
        let shard = pb::Shard { id: 1000, replicas: vec![1, 2, 3], ..Default::default() };
        pb::ShardMap { shards: vec![shard], ..Default::default() }
    }

    /// Nodes 1 to 3 with one replica each that has applied so much; node 1 leads and has committed 10.
    fn reports(applied: [u64; 3]) -> Vec<NodeReport> {
        (1..)
            .zip(applied)
            .map(|(id, applied)| {
                let role = if id == 1 { pb::ReplicaRole::Leader } else { pb::ReplicaRole::Follower };
                let replica = pb::ReplicaStatus {
                    shard: 1000,
                    role: role.into(),
                    term: 1,
                    committed: 10,
                    applied,
                    ..Default::default()
                };
                let status = pb::StatusReply { node: id, replicas: vec![replica], ..Default::default() };
                NodeReport { node: pb::Node { id, ..Default::default() }, status: Ok(status) }
            })
            .collect()
    }

    fn lacks(reports: &[NodeReport]) -> Lacks {
        Lacks::of(&map(), reports, &committed(&map(), reports))
    }

    #[test]
    fn whole_is_a_primary_and_every_replica_at_what_it_has_committed() {
        assert!(lacks(&reports([10, 10, 12])).nothing());
        let behind = lacks(&reports([10, 10, 9]));
        assert_eq!(behind, Lacks { behind: vec![1000], ..Default::default() });
        assert_eq!(behind.to_string(), "catching up: 1000");
    }

    #[test]
    fn a_replica_that_is_down_stopped_or_absent_is_missing() {
        let missing = Lacks { missing_replicas: vec![1000], ..Default::default() };
        let mut down = reports([10; 3]);
        down[2].status = Err(AdminError::Unreachable { address: "a:1".into(), detail: "refused".into() });
        assert_eq!(lacks(&down), missing);
        let mut stopped = reports([10; 3]);
        stopped[1].status.as_mut().unwrap().replicas[0].stopped_reason = "broken".into();
        assert_eq!(lacks(&stopped), missing);
        let mut absent = reports([10; 3]);
        absent[1].status.as_mut().unwrap().replicas.clear();
        assert_eq!(lacks(&absent), missing);
        // A replica elsewhere does not stand in for one of the map.
        let mut elsewhere = reports([10; 3]);
        elsewhere[1].node.id = 4;
        assert_eq!(lacks(&elsewhere), missing);
    }

    #[test]
    fn without_a_leader_there_is_no_primary() {
        let mut leaderless = reports([10; 3]);
        leaderless[0].status.as_mut().unwrap().replicas[0].role = pb::ReplicaRole::Follower.into();
        assert_eq!(lacks(&leaderless), Lacks { without_primary: vec![1000], ..Default::default() });
    }
}
