//! What a replica may say in an election while its consensus is parked: Raft's own rules (Ongaro's dissertation, sections 3.4, 3.6.1 and
//! 4.2.3), on the two things that are kept of such a replica.
//!
//! Invariant: a vote never goes back, and of one term it is given once.
//! Invariant: no clock, no disk, no network here.

use crate::ids::NodeId;
use crate::types::{LogId, Vote};

/// Where a parked replica stands. Its log is committed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) vote: Vote,
    pub(crate) last_log: LogId,
}

impl Standing {
    /// The vote that it asks for when it stands.
    pub(crate) fn candidacy(&self, node: NodeId) -> Vote {
        Vote::new(self.vote.leader_id.term.saturating_add(1), node)
    }

    /// Whether it gives `vote` to a candidate whose log ends with `last_log`. The one that it has given already it gives again: its first
    /// answer may have been lost.
    pub(crate) fn grants(&self, vote: &Vote, last_log: Option<LogId>) -> bool {
        // Two candidates of a term cannot be compared: neither is at least the other.
        !vote.committed && *vote >= self.vote && last_log >= Some(self.last_log)
    }

    /// Whether it sleeps on under the leader whom a quorum has given `vote`: only with exactly the leader's log, since nobody brings it anything.
    pub(crate) fn follows(&self, vote: &Vote, last_log: Option<LogId>) -> bool {
        vote.committed && *vote >= self.vote && last_log == Some(self.last_log)
    }
}

/// The vote of a candidate whom a quorum has granted it.
pub(crate) fn won(vote: Vote) -> Vote {
    Vote { committed: true, ..vote }
}

/// How many votes decide among so many voters.
pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::types::log_id;

    fn standing(term: u64, node: u64, committed: bool, last: (u64, u64)) -> Standing {
        let vote = if committed { Vote::new_committed(term, NodeId(node)) } else { Vote::new(term, NodeId(node)) };
        Standing { vote, last_log: log_id(last.0, last.1) }
    }

    #[test]
    fn a_term_has_one_vote_and_a_log_that_lacks_something_gets_none() {
        let voter = standing(3, 1, true, (3, 10));
        let log = |term, index| Some(log_id(term, index));
        assert!(voter.grants(&Vote::new(4, NodeId(2)), log(3, 10)));
        assert!(!voter.grants(&Vote::new(4, NodeId(2)), log(3, 9)));
        assert!(!voter.grants(&Vote::new(4, NodeId(2)), log(2, 99)));
        assert!(!voter.grants(&Vote::new(4, NodeId(2)), None));
        assert!(!voter.grants(&Vote::new(3, NodeId(2)), log(3, 10)), "the term has its leader");
        assert!(!voter.grants(&Vote::new_committed(4, NodeId(2)), log(3, 10)), "a leader does not ask");
        let given = standing(4, 2, false, (3, 10));
        assert!(given.grants(&Vote::new(4, NodeId(2)), log(3, 10)), "again");
        assert!(!given.grants(&Vote::new(4, NodeId(3)), log(3, 10)));
        assert!(given.grants(&Vote::new(5, NodeId(3)), log(3, 10)));
        let led = standing(4, 2, true, (3, 10));
        assert!(!led.grants(&Vote::new(4, NodeId(2)), log(3, 10)), "who leads the term needs no vote any more");
    }

    #[test]
    fn it_sleeps_on_only_under_a_leader_with_its_log() {
        let voter = standing(4, 2, false, (3, 10));
        let log = Some(log_id(3, 10));
        assert!(voter.follows(&Vote::new_committed(4, NodeId(2)), log));
        assert!(voter.follows(&Vote::new_committed(5, NodeId(3)), log), "also under one for whom it has not voted");
        assert!(
            voter.follows(&Vote::new_committed(4, NodeId(3)), log),
            "nor if another has won the term for which it has voted"
        );
        assert!(!voter.follows(&Vote::new(4, NodeId(2)), log));
        assert!(!voter.follows(&Vote::new_committed(3, NodeId(1)), log));
        assert!(!voter.follows(&Vote::new_committed(4, NodeId(2)), Some(log_id(3, 11))));
        assert!(!voter.follows(&Vote::new_committed(4, NodeId(2)), Some(log_id(3, 9))));
    }

    /// One step of what may happen to replicas that stand at once.
    #[derive(Clone, Debug)]
    enum Step {
        /// It votes for itself and asks all.
        Stand(usize),
        /// The oldest, newest or any message between arrives.
        Arrive(usize),
        /// It is lost.
        Lose(usize),
        /// It arrives, and will again.
        Repeat(usize),
    }

    #[derive(Clone, Copy, Debug)]
    enum Letter {
        Asked { from: usize, to: usize, vote: Vote, last_log: LogId },
        Granted { from: usize, to: usize, vote: Vote },
        Leads { from: usize, to: usize, vote: Vote, last_log: LogId },
    }

    fn step(nodes: usize) -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0..nodes).prop_map(Step::Stand),
            5 => any::<usize>().prop_map(Step::Arrive),
            1 => any::<usize>().prop_map(Step::Lose),
            1 => any::<usize>().prop_map(Step::Repeat),
        ]
    }

    #[derive(Default)]
    struct World {
        standings: Vec<Standing>,
        granted: BTreeMap<(u64, usize), BTreeSet<usize>>,
        leaders: BTreeMap<u64, usize>,
        letters: Vec<Letter>,
    }

    fn node(at: usize) -> NodeId {
        NodeId(at as u64 + 1)
    }

    impl World {
        fn write(&mut self, at: usize, vote: Vote) {
            assert!(vote >= self.standings[at].vote, "a vote goes back");
            self.standings[at].vote = vote;
        }

        fn tell_all(&mut self, from: usize, letter: impl Fn(usize) -> Letter) {
            let others = (0..self.standings.len()).filter(|to| *to != from);
            self.letters.extend(others.map(letter).collect::<Vec<_>>());
        }

        fn count(&mut self, candidate: usize, by: usize, vote: Vote) {
            let term = vote.leader_id.term;
            let granted = self.granted.entry((term, candidate)).or_default();
            granted.insert(by);
            // It leads only if it has not voted for anybody else meanwhile.
            if granted.len() < quorum(self.standings.len()) || self.standings[candidate].vote != vote {
                return;
            }
            let before = self.leaders.insert(term, candidate);
            assert!(before.is_none_or(|before| before == candidate), "two leaders of term {term}");
            let last_log = self.standings[candidate].last_log;
            let most = self.standings.iter().filter(|standing| standing.last_log <= last_log).count();
            assert!(most >= quorum(self.standings.len()), "it lacks what is committed");
            self.write(candidate, won(vote));
            self.tell_all(candidate, |to| Letter::Leads { from: candidate, to, vote: won(vote), last_log });
        }

        fn arrive(&mut self, letter: Letter) {
            match letter {
                Letter::Asked { from, to, vote, last_log } => {
                    if self.standings[to].grants(&vote, Some(last_log)) {
                        self.write(to, vote);
                        self.letters.push(Letter::Granted { from: to, to: from, vote });
                    }
                }
                Letter::Granted { from, to, vote } => self.count(to, from, vote),
                Letter::Leads { from, to, vote, last_log } => {
                    if self.standings[to].follows(&vote, Some(last_log)) {
                        assert_eq!(self.leaders.get(&vote.leader_id.term), Some(&from));
                        self.write(to, vote);
                    }
                }
            }
        }

        fn take(&mut self, step: &Step) {
            let at = |which: &usize, letters: &[Letter]| (!letters.is_empty()).then(|| which % letters.len());
            match step {
                Step::Stand(candidate) => {
                    let standing = self.standings[*candidate];
                    let vote = standing.candidacy(node(*candidate));
                    self.write(*candidate, vote);
                    let (from, last_log) = (*candidate, standing.last_log);
                    self.tell_all(from, |to| Letter::Asked { from, to, vote, last_log });
                    self.count(from, from, vote);
                }
                Step::Arrive(which) => {
                    if let Some(at) = at(which, &self.letters) {
                        let letter = self.letters.swap_remove(at);
                        self.arrive(letter);
                    }
                }
                Step::Lose(which) => {
                    if let Some(at) = at(which, &self.letters) {
                        self.letters.swap_remove(at);
                    }
                }
                Step::Repeat(which) => {
                    if let Some(at) = at(which, &self.letters) {
                        self.arrive(self.letters[at]);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_term_has_two_leaders_and_a_leader_has_what_is_committed(
            lasts in prop_oneof![prop::collection::vec(8_u64..10, 3), prop::collection::vec(8_u64..10, 5)],
            steps in prop::collection::vec(step(3), 1..120),
        ) {
            let standings = lasts.iter().map(|last| standing(7, 1, true, (7, *last))).collect();
            let mut world = World { standings, ..World::default() };
            for step in &steps {
                world.take(step);
            }
        }
    }
}
