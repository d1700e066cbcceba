//! The checker must say so when a message is lost, doubled or hidden.

use std::collections::BTreeSet;

use super::books::{Attempt, Balance, Outcome, Shown, Way};

fn attempt(token: &str, mailbox: usize, outcome: Outcome) -> Attempt {
    Attempt { token: token.into(), mailbox, way: Way::Smtp, outcome, attached: false }
}

fn shown(copies: &[(&str, u32)]) -> Shown {
    let copies = copies.iter().map(|(token, count)| ((*token).to_owned(), *count)).collect();
    Shown { copies, damaged: BTreeSet::new() }
}

fn attempts() -> Vec<Attempt> {
    vec![
        attempt("a", 0, Outcome::Acknowledged),
        attempt("b", 0, Outcome::Unknown),
        attempt("c", 1, Outcome::Acknowledged),
        attempt("d", 1, Outcome::Refused),
    ]
}

#[test]
fn what_is_there_once_is_kept_and_what_is_unknown_may_be_either() {
    for unknown in [0, 1] {
        let mailboxes = [shown(&[("a", 1), ("b", unknown)]), shown(&[("c", 1)])];
        let balance = Balance::of(&attempts(), &mailboxes, &BTreeSet::new());
        assert_eq!(balance, Balance { acknowledged: 2, ..Balance::default() });
    }
}

#[test]
fn a_lost_message_is_missing() {
    let balance = Balance::of(&attempts(), &[shown(&[("a", 1)]), shown(&[])], &BTreeSet::new());
    assert_eq!(balance.missing, ["c"]);
    // In another mailbox it is lost as well, and so it is where no mailbox could be read.
    let balance = Balance::of(&attempts(), &[shown(&[("a", 1), ("c", 1)])], &BTreeSet::new());
    assert_eq!(balance.missing, ["c"]);
    assert_eq!(Balance::lacking(&attempts(), 1, &shown(&[])), ["c"]);
    assert!(Balance::lacking(&attempts(), 1, &shown(&[("c", 1)])).is_empty());
}

#[test]
fn a_message_with_other_bytes_is_missing() {
    let mut damaged = shown(&[("c", 1)]);
    damaged.damaged.insert("c".into());
    let balance = Balance::of(&attempts(), &[shown(&[("a", 1)]), damaged], &BTreeSet::new());
    assert_eq!(balance.missing, ["c"]);
}

#[test]
fn a_doubled_message_is_twice_whether_it_was_acknowledged_or_not() {
    let mailboxes = [shown(&[("a", 2), ("b", 2)]), shown(&[("c", 1), ("d", 3)])];
    let balance = Balance::of(&attempts(), &mailboxes, &BTreeSet::new());
    assert_eq!(balance.twice, ["a", "b", "d"]);
    assert!(balance.missing.is_empty());
}

#[test]
fn a_message_that_a_later_read_did_not_show_is_hidden() {
    let mailboxes = [shown(&[("a", 1)]), shown(&[("c", 1)])];
    let unseen = BTreeSet::from(["c".to_owned(), "b".to_owned()]);
    let balance = Balance::of(&attempts(), &mailboxes, &unseen);
    assert_eq!(balance.hidden, ["c"], "nobody was promised to see b");
    assert!(balance.missing.is_empty(), "it is there now");
}
