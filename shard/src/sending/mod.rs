//! What a user sends to the outside, and what comes of it: which messages something may still come back of ([`sent`]), what came
//! back ([`feedback`]), to whom nothing is sent any more ([`suppression`]), and how much he may send ([`standing`]).
//!
//! Invariant: everything here is in the sender's own shard and changes in the apply that it follows from, so whichever frontend takes
//! his next message knows of it (ADR 122, ADR 123).
//! Invariant: what is said is counted once: of each recipient of each message the worst that was said stands, and only what is worse is
//! news. A report that comes again changes nothing.
//! Invariant: every table is bounded: messages by time, the rest by number for each user.

pub(crate) mod feedback;
pub(crate) mod read;
pub(crate) mod sent;
pub(crate) mod standing;
pub(crate) mod suppression;
