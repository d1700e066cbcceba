//! Leases of queue entries. They live in the leader's memory and cost the log nothing.

mod handler;
mod inheritance;
mod table;

pub(crate) use handler::Leases;
