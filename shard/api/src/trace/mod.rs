//! Traces: what one request or message did, in which process, and for how long (docs/adr/151-traces-are-decided-at-their-end.md).
//!
//! A [`Span`] is open while something is done; spans know their parent, and all that come of one request or message have one
//! [`TraceId`]. Between processes a [`Context`] goes along: in gRPC's metadata ([`grpc`]), in a command on its way through the log, with a
//! queue lease, with what a watch tells.
//!
//! Invariant: without a [`Keeper`] that was installed nothing is made, read or remembered: each function here costs a look at whether
//! there is one.
//! Invariant: nothing that is decided about mail depends on a trace.

mod context;
pub mod grpc;
mod ids;
mod keeper;
mod span;

pub use context::{CONTEXT_BYTES, Context, TRACEPARENT, TraceId};
pub use keeper::{Ended, Keeper, KeeperSettings, Kind, Lost, Value, install};
pub use keeper::{SPANS_HELD_MAX, SPANS_PER_TRACE_MAX};
pub use span::{Span, child, continued, current, current_id, is_on, quoted_id, remote, root};
