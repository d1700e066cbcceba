//! Which nodes are silent, and which of them are to be given up: a failure detector that knows no network.
//!
//! Invariant: silence is evidence only while this node hears most of the others, and only if it was looked for several times in a row. A
//! leader that is cut off, or whose process stood still, finds nothing.
//! Invariant: a node is given up by the time that placement has recorded, never by what one leader remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postrider_api::id::NodeId;
use postrider_api::pb;

/// Looks in a row in which a node did not answer before that counts as silence.
const MISSES_MIN: u32 = 3;

/// Remembers who did not answer, look by look.
#[derive(Debug, Default)]
pub(super) struct Detector {
    /// When the last look began, on the monotonic clock.
    looked: Option<Duration>,
    /// Looks in a row without an answer.
    misses: BTreeMap<NodeId, u32>,
}

/// One look at all nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'l> {
    /// When it began, on the monotonic clock.
    pub(super) began: Duration,
    /// The time, milliseconds since the Unix epoch.
    pub(super) wall_ms: i64,
    /// The nodes, as placement has them.
    pub(super) nodes: &'l [pb::Node],
    /// Those that answered this node, or others whom it asked.
    pub(super) answering: &'l BTreeSet<NodeId>,
}

/// How the detector judges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Looks that are further apart say nothing together.
    pub(super) gap_max: Duration,
    /// A node that is silent for so long is given up; `None`: never.
    pub(super) dead_after: Option<Duration>,
}

/// What is to be recorded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// They have fallen silent.
    pub(super) silent: Vec<u64>,
    /// They were recorded as silent, and answer.
    pub(super) answering: Vec<u64>,
    /// They are silent since then for so long that they are to be given up.
    pub(super) dead: Vec<(NodeId, i64)>,
}

impl Detector {
    /// Takes in one look.
    pub(super) fn judge(&mut self, look: Look<'_>, rules: Rules) -> Findings {
        let stood_still = self.looked.is_some_and(|last| look.began.saturating_sub(last) > rules.gap_max);
        self.looked = Some(look.began);
        if stood_still || !hears_most(look) {
            self.misses.clear();
            // Whoever answers is there all the same.
            return Findings { answering: returned(look), ..Default::default() };
        }
        let mut findings = Findings { answering: returned(look), ..Default::default() };
        let mut misses = BTreeMap::new();
        for node in look.nodes.iter().filter(|node| !look.answering.contains(&NodeId(node.id))) {
            let id = NodeId(node.id);
            let missed = self.misses.get(&id).copied().unwrap_or(0).saturating_add(1);
            misses.insert(id, missed);
            if missed < MISSES_MIN {
                continue;
            }
            if node.silent_since_ms == 0 {
                findings.silent.push(node.id);
            } else if node.given_up_ms == 0 && rules.is_over(node.silent_since_ms, look.wall_ms) {
                findings.dead.push((id, node.silent_since_ms));
            }
        }
        self.misses = misses;
        findings
    }
}

impl Rules {
    fn is_over(&self, since_ms: i64, now_ms: i64) -> bool {
        let silent = Duration::from_millis(now_ms.saturating_sub(since_ms).max(0).unsigned_abs());
        self.dead_after.is_some_and(|after| silent >= after)
    }
}

/// Whether more than half of the nodes that are not given up answer.
fn hears_most(look: Look<'_>) -> bool {
    let expected = look.nodes.iter().filter(|node| node.given_up_ms == 0);
    let (mut all, mut heard) = (0_usize, 0_usize);
    for node in expected {
        all += 1;
        heard += usize::from(look.answering.contains(&NodeId(node.id)));
    }
    heard * 2 > all
}

fn returned(look: Look<'_>) -> Vec<u64> {
    let recorded = look.nodes.iter().filter(|node| node.silent_since_ms != 0 || node.given_up_ms != 0);
    recorded.filter(|node| look.answering.contains(&NodeId(node.id))).map(|node| node.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { gap_max: Duration::from_secs(20), dead_after: Some(Duration::from_secs(30)) };

    /// Five nodes, a look every five seconds.
    struct World {
        detector: Detector,
        nodes: Vec<pb::Node>,
        now: u64,
    }

    impl World {
        fn new() -> Self {
            let nodes = (1..=5).map(|id| pb::Node { id, ..Default::default() }).collect();
            Self { detector: Detector::default(), nodes, now: 0 }
        }

        /// A look that hears these; placement records what was found but for who is dead.
        fn look(&mut self, heard: &[u64]) -> Findings {
            self.look_after(5, heard)
        }

        fn look_after(&mut self, seconds: u64, heard: &[u64]) -> Findings {
            self.now += seconds;
            let answering = heard.iter().copied().map(NodeId).collect();
            let wall_ms = i64::try_from(self.now * 1000).unwrap();
            let look =
                Look { began: Duration::from_secs(self.now), wall_ms, nodes: &self.nodes, answering: &answering };
            let found = self.detector.judge(look, RULES);
            for node in &mut self.nodes {
                if found.silent.contains(&node.id) {
                    node.silent_since_ms = wall_ms;
                }
                if found.answering.contains(&node.id) {
                    (node.silent_since_ms, node.given_up_ms) = (0, 0);
                }
            }
            found
        }
    }

    #[test]
    fn a_node_is_silent_after_several_looks_and_dead_after_its_time() {
        let mut world = World::new();
        let four = [1, 2, 3, 4];
        assert_eq!(world.look(&four), Findings::default());
        assert_eq!(world.look(&four), Findings::default());
        assert_eq!(world.look(&four), Findings { silent: vec![5], ..Default::default() });
        let since = world.nodes[4].silent_since_ms;
        for _ in 0..5 {
            assert_eq!(world.look(&four), Findings::default());
        }
        assert_eq!(world.look(&four), Findings { dead: vec![(NodeId(5), since)], ..Default::default() });
        world.nodes[4].given_up_ms = since + 30_000;
        assert_eq!(world.look(&four), Findings::default(), "once");
        assert_eq!(world.look(&[1, 2, 3, 4, 5]), Findings { answering: vec![5], ..Default::default() });
        assert_eq!(world.look(&[1, 2, 3, 4, 5]), Findings::default());
    }

    #[test]
    fn one_answer_ends_the_silence() {
        let mut world = World::new();
        for round in 0..20 {
            let heard: &[u64] = if round % 3 == 2 { &[1, 2, 3, 4, 5] } else { &[1, 2, 3, 4] };
            assert_eq!(world.look(heard), Findings::default(), "{round}");
        }
    }

    #[test]
    fn a_leader_that_is_cut_off_finds_nobody_dead() {
        let mut world = World::new();
        for _ in 0..50 {
            assert_eq!(world.look(&[1, 2]), Findings::default());
        }
        // The cut heals but for one: it counts from now.
        assert_eq!(world.look(&[1, 2, 3, 4]), Findings::default());
        assert_eq!(world.look(&[1, 2, 3, 4]), Findings::default());
        assert_eq!(world.look(&[1, 2, 3, 4]).silent, [5]);
    }

    #[test]
    fn a_process_that_stood_still_forgets_what_it_saw() {
        let mut world = World::new();
        world.look(&[1, 2, 3, 4]);
        world.look(&[1, 2, 3, 4]);
        // What it asked before it stopped has timed out meanwhile.
        assert_eq!(world.look_after(600, &[1, 2, 3, 4]), Findings::default());
        assert_eq!(world.look(&[1, 2, 3, 4, 5]), Findings::default());
    }

    #[test]
    fn a_new_leader_needs_evidence_of_its_own() {
        let mut world = World::new();
        world.nodes[4].silent_since_ms = 1;
        world.now = 1000;
        assert_eq!(world.look(&[1, 2, 3, 4]), Findings::default());
        assert_eq!(world.look(&[1, 2, 3, 4]), Findings::default());
        assert_eq!(world.look(&[1, 2, 3, 4]).dead, [(NodeId(5), 1)]);
    }

    #[test]
    fn those_that_are_given_up_count_for_no_majority() {
        let mut world = World::new();
        for node in &mut world.nodes[2..] {
            (node.silent_since_ms, node.given_up_ms) = (1, 2);
        }
        for _ in 0..3 {
            world.look(&[1]);
        }
        assert_eq!(world.nodes[1].silent_since_ms, 0, "one of two is no majority");
        let never = Rules { dead_after: None, ..RULES };
        assert!(!never.is_over(0, i64::MAX) && RULES.is_over(0, 30_000) && !RULES.is_over(1, 30_000));
    }
}
