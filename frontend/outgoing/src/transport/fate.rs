//! What became of a recipient in one attempt.

use std::time::Duration;

use crate::dns::Domain;
use crate::smtp::{Reply, Trouble};

/// One recipient's attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// As he was given.
    pub address: String,
    /// What became of him.
    pub fate: Fate,
}

/// What became of a recipient. `reply` is the peer's, or our own sentence where no peer said anything; `host` is whom it was said by,
/// empty where nobody was reached; `code` is an enhanced status (RFC 3463).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The peer has it, and answers for it from now on.
    Accepted {
        /// The reply to the end of the message.
        reply: String,
        /// Whose.
        host: String,
        /// The peer tells nobody of the delivery: who asked to be told is told by us (RFC 3461 section 5.2.2).
        relayed: bool,
    },
    /// To be tried again.
    Deferred {
        /// What was said.
        reply: String,
        /// Class 4.
        code: String,
        /// The destination took no mail at all, of nobody.
        destination: bool,
        /// Not before so long.
        retry_after: Option<Duration>,
        /// Who said it.
        host: String,
    },
    /// Not to be tried again.
    Failed {
        /// What was said.
        reply: String,
        /// Class 5.
        code: String,
        /// Who said it.
        host: String,
    },
    /// The connection was cut between the end of the message and the reply to it: the peer may have it.
    Unknown {
        /// What happened.
        reply: String,
        /// Whom with.
        host: String,
    },
}

impl Fate {
    /// Our own refusal.
    pub(crate) fn failed(code: &str, reply: String) -> Self {
        Self::Failed { reply, code: code.to_owned(), host: String::new() }
    }

    /// The destination was not reached.
    pub(crate) fn deferred(code: &str, reply: String) -> Self {
        Self::Deferred { reply, code: code.to_owned(), destination: true, retry_after: None, host: String::new() }
    }

    /// What a peer's refusal means; `destination`: for whatever comes.
    pub(crate) fn of_reply(reply: &Reply, host: &Domain, destination: bool) -> Self {
        let (code, text, host) = (reply.status(), reply.to_string(), host.to_string());
        match reply.is_permanent() {
            true => Self::Failed { reply: text, code, host },
            false => {
                // A reply of no class that says so is one to try again.
                let code = if reply.is_transient() { code } else { "4.5.0".to_owned() };
                let destination = destination || reply.code == 421;
                Self::Deferred { reply: text, code, destination, retry_after: None, host }
            }
        }
    }

    /// What a failed connection means.
    pub(crate) fn of_trouble(trouble: &Trouble, host: &Domain) -> Self {
        let code = match trouble {
            Trouble::Closed(_) | Trouble::TimedOut(_) | Trouble::Broken(..) => "4.4.2",
            Trouble::Malformed(..) | Trouble::OutOfStep(..) => "4.5.0",
        };
        Self::Deferred {
            reply: trouble.to_string(),
            code: code.to_owned(),
            destination: true,
            retry_after: None,
            host: host.to_string(),
        }
    }

    /// Of two hosts' answers the one that leaves hope.
    pub(crate) fn or_temporary(self, before: Option<Self>) -> Self {
        match (self, before) {
            (Self::Failed { .. }, Some(before @ Self::Deferred { .. })) => before,
            (now, _) => now,
        }
    }

    /// In a word, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Deferred { .. } => "deferred",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
        }
    }
}
