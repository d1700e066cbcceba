//! What is fetched by HTTP: policies of MTA-STS, and the images of messages on behalf of who reads them.
//!
//! Invariant: a host is a name, its addresses are looked at, and the connection is made to one of those that were: whatever a name
//! says the second time, whatever a redirect leads to. Nothing of who asks goes with a request: no cookie, no referrer, no name.

mod connection;
mod fetch;
#[cfg(test)]
mod tests;

pub use connection::OpenError;
pub(crate) use connection::open;
pub use fetch::{FetchError, FetchLimits, Fetcher};
