//! Stateless protocols in front of the storage cluster: SMTP, REST and WebSocket, and the worker that empties the queues.
//!
//! Invariant: nothing acknowledged depends on this process living on: what a client was promised is in a shard before it is
//! told. Any frontend can be killed, and clients go on with another.

pub mod account;
pub mod acme;
pub mod blobs;
pub mod budget;
pub mod cache;
pub mod category;
pub mod cluster;
pub mod limits;
pub mod network;
pub mod operating;
pub mod proxy;
pub mod rest;
pub mod round_trips;
pub mod sasl;
pub mod search;
pub mod smtp;
pub mod worker;

mod described;
mod frontend;
#[cfg(test)]
mod nearby;
mod pins;
mod place;
mod suppressed;
mod trouble;

pub use described::describe_metrics;
pub use frontend::{AccountSettings, Frontend, FrontendOptions, RestSettings, SmtpSettings, StartError};
