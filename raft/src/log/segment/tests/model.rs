//! What a log must hold, kept the plain way, and random steps for both.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use crate::types::{Command, LogId, Payload, Vote, log_id};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ModelGroup {
    hosted: bool,
    /// Which making of the group.
    making: u64,
    vote: Option<(u64, u64)>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (u64, usize)>,
}

pub(super) type Model = BTreeMap<u32, ModelGroup>;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Of this making.
    Host(u32, u64),
    Forget(u32),
    /// Some entries behind the last one.
    Append(u32, Vec<usize>),
    Vote(u32),
    Committed(u32),
    /// So many entries from the end.
    Truncate(u32, u64),
    /// So many entries from the front.
    Purge(u32, u64),
    Reclaim,
    Vacuum,
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let group = 0..3u32;
    prop_oneof![
        2 => (group.clone(), 1..3u64).prop_map(|(group, making)| Step::Host(group, making)),
        1 => group.clone().prop_map(Step::Forget),
        6 => (group.clone(), prop::collection::vec(0..3_000usize, 1..4)).prop_map(|(group, sizes)| Step::Append(group, sizes)),
        2 => group.clone().prop_map(Step::Vote),
        2 => group.clone().prop_map(Step::Committed),
        2 => (group.clone(), 1..4u64).prop_map(|(group, count)| Step::Truncate(group, count)),
        4 => (group, 1..12u64).prop_map(|(group, count)| Step::Purge(group, count)),
        2 => Just(Step::Reclaim),
        1 => Just(Step::Vacuum),
    ]
}

pub(super) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let fill = (index as u8) ^ (term as u8);
    Entry { log_id: log_id(term, index), payload: Payload::Normal(Command(vec![fill; bytes].into())) }
}

/// The operation that `step` is where the model stands, and the model after it; none when it makes no sense there.
pub(super) fn plan(model: &Model, step: &Step, term: u64) -> Option<(GroupId, LogOp, Model)> {
    let mut after = model.clone();
    let (group, op) = match step {
        Step::Host(group, making) => {
            let rows = after.entry(*group).or_default();
            if rows.making != *making {
                // As consensus does: a replica of one making goes before one of another comes.
                if rows.hosted {
                    return None;
                }
                *rows = ModelGroup { making: *making, ..ModelGroup::default() };
            }
            rows.hosted = true;
            (*group, LogOp::Host(Incarnation(*making)))
        }
        Step::Forget(group) => {
            let rows = after.get_mut(group)?;
            *rows = ModelGroup { vote: rows.vote, making: rows.making, ..ModelGroup::default() };
            (*group, LogOp::Forget)
        }
        Step::Append(group, sizes) => {
            let rows = after.entry(*group).or_default();
            // As consensus does: a group is hosted before anything is written for it.
            if !rows.hosted {
                return None;
            }
            let last = rows.entries.last_key_value().map(|(index, _)| *index);
            let first = last.map_or(types::next_index(rows.purged.as_ref()), |last| last + 1);
            // Now and then with news of what is committed.
            let committed = last.filter(|_| sizes.len() > 1).map(|last| log_id(rows.entries[&last].0, last));
            rows.committed = committed.or(rows.committed);
            let entries: Vec<Entry> = (first..).zip(sizes).map(|(index, size)| entry(term, index, *size)).collect();
            rows.entries.extend((first..).zip(sizes).map(|(index, size)| (index, (term, *size))));
            (*group, LogOp::Append { entries, committed })
        }
        Step::Vote(group) => {
            let rows = after.entry(*group).or_default();
            // As consensus does: only who hosts a replica votes.
            if !rows.hosted {
                return None;
            }
            rows.vote = Some((term, 9));
            (*group, LogOp::Vote(Vote::new(term, NodeId(9))))
        }
        Step::Committed(group) => {
            let rows = after.get_mut(group).filter(|rows| rows.hosted)?;
            let (index, (term, _)) = rows.entries.last_key_value()?;
            rows.committed = Some(log_id(*term, *index));
            (*group, LogOp::Committed(rows.committed))
        }
        Step::Truncate(group, count) => {
            let rows = after.get_mut(group)?;
            let last = *rows.entries.last_key_value()?.0;
            let from = (last + 1).saturating_sub(*count).max(*rows.entries.first_key_value()?.0);
            rows.entries.split_off(&from);
            (*group, LogOp::Truncate { from })
        }
        Step::Purge(group, count) => {
            let rows = after.get_mut(group)?;
            let (index, (term, _)) = rows.entries.iter().nth(*count as usize - 1).map(|(i, e)| (*i, *e))?;
            rows.entries = rows.entries.split_off(&(index + 1));
            let upto = log_id(term, index);
            rows.purged = Some(upto);
            (*group, LogOp::Purge { upto })
        }
        Step::Reclaim | Step::Vacuum => return None,
    };
    Some((GroupId(group), op, after))
}

/// What the log says, in the model's terms.
pub(super) fn read(log: &SegmentLog) -> Result<Model, LogError> {
    let mut model = Model::new();
    let hosted = log.groups()?;
    for group in 0..3u32 {
        let head = log.head(GroupId(group))?;
        let entries = log.entries(GroupId(group), 0..u64::MAX, usize::MAX)?;
        assert_eq!(entries.last().map(|entry| entry.log_id).or(head.purged), head.last);
        let entries = entries.into_iter().map(|found| {
            let index = found.log_id.index;
            let term = found.log_id.leader_id.term;
            let Payload::Normal(command) = &found.payload else { panic!("only commands were written") };
            assert_eq!(found, entry(term, index, command.0.len()));
            (index, (term, command.0.len()))
        });
        let is_hosted = hosted.iter().any(|(hosted, _)| hosted.0 == group);
        let making = log.shelf.lock().index.group(GroupId(group)).map_or(0, |rows| rows.incarnation.0);
        let rows = ModelGroup {
            hosted: is_hosted,
            making: if is_hosted || head.vote.is_some() { making } else { 0 },
            vote: head.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for.0)),
            committed: head.committed,
            purged: head.purged,
            entries: entries.collect(),
        };
        if rows != ModelGroup::default() {
            model.insert(group, rows);
        }
    }
    Ok(model)
}

pub(super) fn tidy(mut model: Model) -> Model {
    // Where there is neither a replica nor a vote nothing depends on which making it was.
    model.values_mut().filter(|rows| !rows.hosted && rows.vote.is_none()).for_each(|rows| rows.making = 0);
    model.retain(|_, rows| *rows != ModelGroup::default());
    model
}

/// Does `steps` and returns every state that may be found after the power is gone: the last one that was synced, and all
/// that came after it.
pub(super) fn run(log: &SegmentLog, steps: &[Step], mut model: Model) -> Vec<Model> {
    let mut possible = vec![tidy(model.clone())];
    for (at, step) in steps.iter().enumerate() {
        match step {
            // What they would free waits for the next time when the disk refuses.
            Step::Reclaim => drop(log.reclaim()),
            Step::Vacuum => drop(log.vacuum()),
            _ => {}
        }
        let Some((group, op, after)) = plan(&model, step, at as u64 + 1) else { continue };
        let sync = op.wants_sync();
        match log.write(&[(group, op)]) {
            Ok(_) => {
                model = after;
                if sync {
                    possible.clear();
                }
                possible.push(tidy(model.clone()));
                assert_eq!(read(log).expect("readable"), tidy(model.clone()), "after {step:?}");
            }
            Err(_) => {
                // Unknown, and not there for now.
                possible.push(tidy(after));
                possible.push(tidy(model.clone()));
            }
        }
    }
    possible
}
