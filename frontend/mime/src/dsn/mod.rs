//! What became of mail, as mail: delivery status notifications that we write (RFC 3461 to 3464, RFC 6533), and those and complaints
//! (ARF, RFC 5965) that others send.
//!
//! Invariant: what is read is bounded and believed by nobody here: anybody can write a report about anything.

mod compose;
mod fields;
mod read;
mod returned;
mod xtext;

pub use compose::{Action, DeliveryReport, RETURNED_BYTES_MAX, ReportedRecipient, Returned, delivery_report};
pub use read::{Complaint, ReadRecipient, ReadReport, complaint, read_delivery_report};
pub use returned::{complained, returned};
pub use xtext::{from_xtext, is_xtext};
