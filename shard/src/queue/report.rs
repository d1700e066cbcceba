//! A delivery status notification, filed for the sender in the same apply as what it tells of (RFC 3461): a worker that dies has neither
//! lost it nor will bring it twice. What it tells of is decided here, of who waits at this moment; whoever composed it may be late.
//!
//! The sender's mailbox gets it like other mail: one that takes nothing now has it wait in the queue.

use postrider_api::pb::{NewMessage, Recipient, RecipientResult, Settlement};

use crate::Broken;
use crate::key::Key;
use crate::mailbox::accept::Plan;
use crate::mailbox::body;
use crate::mailbox::incoming::{Incoming, To};
use crate::queue::enqueue::{self, Submission};
use crate::queue::entry::{self, OpenEntry};
use crate::queue::settle::Results;
use crate::queue::who::Who;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

/// A report that will be filed.
pub(crate) struct Report<'c> {
    incoming: Incoming<'c>,
    plan: Plan,
}

impl<'c> Report<'c> {
    /// `None` where there is none, where nobody who still waits is told of, or where the sender or room for it is gone.
    pub(crate) fn prepare(
        turn: &Turn<'_, impl Rows>,
        entry: &OpenEntry,
        new: Option<&'c NewMessage>,
        results: &Results<'_>,
    ) -> Result<Option<Self>, Stop> {
        let Some(new) = new else { return Ok(None) };
        turn.demand_entropy()?;
        // The null reverse-path: nobody is told of what becomes of a report.
        let incoming = Incoming::of_command(Some(new), "")?;
        let key = Key::Queue(entry.id);
        let mut is_news = false;
        for pending in &entry.record.pending {
            let told =
                results.of(&Who::of_pending(key, pending)?).is_some_and(|result| tells(result, pending.delay_reported));
            is_news |= told;
        }
        let Some(sender) = entry::sender(key, &entry.record)?.filter(|_| is_news) else { return Ok(None) };
        body::check(turn, &incoming)?;
        let address = entry.record.mail_from.clone();
        let recipient = Recipient { user_id: sender.to_bytes(), address, ..Default::default() };
        let plan = Plan::make(turn, &incoming, &[To { who: Who::User(sender), recipient: &recipient }], 0)?;
        if plan.here.is_empty() && plan.waiting.is_empty() {
            return Ok(None);
        }
        match enqueue::check(turn, &incoming, &plan.waiting) {
            Ok(()) => Ok(Some(Self { incoming, plan })),
            Err(Stop::Refused(_)) => Ok(None),
            Err(broken) => Err(broken),
        }
    }

    /// Files it, once what it tells of has been written.
    pub(crate) fn file(self, turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
        let (deliveries, entry) = self.plan.carry_out(turn, &self.incoming, Submission::default())?;
        body::store(turn, &self.incoming, deliveries.len() as u64 + u64::from(entry.is_some()))
    }
}

/// Whether a result is in the report, and new.
fn tells(result: &RecipientResult, delay_reported: bool) -> bool {
    result.reported
        && match result.settlement() {
            Settlement::Failed | Settlement::Delivered => true,
            Settlement::Deferred | Settlement::Held | Settlement::Waits => !delay_reported,
            Settlement::Full | Settlement::Dropped | Settlement::Unspecified => false,
        }
}
