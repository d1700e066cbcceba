//! The checker: what was sent and acknowledged against what the mailboxes have.
//!
//! Whole-system tests go by the same file (`tests/harness/load.rs`); its own tests are in `books_tests.rs`.
//!
//! Invariant: no clock and no network. An attempt whose outcome is unknown may be there once or not at all; one that was
//! acknowledged is there exactly once, with its bytes, and is seen by whoever looks after the acknowledgement.

use std::collections::{BTreeMap, BTreeSet};

/// How a message went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Smtp,
    Rest,
}

/// What its sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A `250` behind the data, or a `2xx`.
    Acknowledged,
    /// Another answer: it may be there all the same only where the answer left that open.
    Refused,
    /// No answer.
    Unknown,
}

/// One message on its way to one mailbox.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// Names it: its subject, which no other message of the cluster has.
    pub(super) token: String,
    pub(super) mailbox: usize,
    pub(super) way: Way,
    pub(super) outcome: Outcome,
    /// Whether it has an attachment that is not in the command itself.
    pub(super) attached: bool,
}

/// What a mailbox has in the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    /// Copies by token.
    pub(super) copies: BTreeMap<String, u32>,
    /// Listed, but its bytes are not those that were sent, or cannot be read.
    pub(super) damaged: BTreeSet<String>,
}

/// The balance. Each list names messages by their tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Balance {
    pub(super) acknowledged: u64,
    /// Acknowledged and not there, or not as it was sent (P-1).
    pub(super) missing: Vec<String>,
    /// There more than once, acknowledged or not (P-6).
    pub(super) twice: Vec<String>,
    /// Acknowledged, and a read after that which was not marked stale did not show it (P-2).
    pub(super) hidden: Vec<String>,
}

impl Balance {
    /// Compares. `unseen`: what a reader looked for after the acknowledgement and did not see. Each mailbox is in `shown` at its own
    /// number; one that is not there has nothing.
    pub(super) fn of(attempts: &[Attempt], shown: &[Shown], unseen: &BTreeSet<String>) -> Self {
        let nothing = Shown::default();
        let mut balance = Self::default();
        for attempt in attempts {
            let mailbox = shown.get(attempt.mailbox).unwrap_or(&nothing);
            let copies = mailbox.copies.get(&attempt.token).copied().unwrap_or(0);
            if copies > 1 {
                balance.twice.push(attempt.token.clone());
            }
            if attempt.outcome != Outcome::Acknowledged {
                continue;
            }
            balance.acknowledged += 1;
            if copies == 0 || mailbox.damaged.contains(&attempt.token) {
                balance.missing.push(attempt.token.clone());
            } else if unseen.contains(&attempt.token) {
                balance.hidden.push(attempt.token.clone());
            }
        }
        balance
    }

    /// What was acknowledged of a mailbox and is not there yet.
    pub(super) fn lacking<'a>(attempts: &'a [Attempt], mailbox: usize, shown: &Shown) -> Vec<&'a str> {
        attempts
            .iter()
            .filter(|attempt| attempt.mailbox == mailbox && attempt.outcome == Outcome::Acknowledged)
            .filter(|attempt| !shown.copies.contains_key(&attempt.token))
            .map(|attempt| attempt.token.as_str())
            .collect()
    }
}
