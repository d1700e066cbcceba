//! How mail leaves: names are asked, hosts are chosen, policies are kept, the message is handed over, and it is signed.
//!
//! * [`Transport::attempt`] takes one message to the hosts of one destination, for many recipients at once, and says of each what
//!   became of it. Nothing else of this crate opens a connection to a peer.
//! * [`web::Fetcher`] fetches what a reader of a message asks for, without telling of him.
//! * [`dkim`] signs; [`dns`] asks; [`return_path`] says where a bounce comes back to; the rest serves them.
//!
//! Invariant: what the peer acknowledged is [`Fate::Accepted`]; what it may have taken without our knowing is [`Fate::Unknown`];
//! only what it certainly did not take is [`Fate::Deferred`] or [`Fate::Failed`].
//! Invariant: no connection is opened to an address that was not looked at after it was resolved ([`route`]): names lead to private
//! networks only where the operator allows it.
//! Invariant: where a policy (DANE, MTA-STS, REQUIRETLS) asks for TLS, nothing leaves without it; what the policy says is not known
//! is no policy only where the standard says so.
//! Invariant: modules import downwards only: `transport`, `pool`, `sources`, `destination`, `class`, `smtp`, `mta_sts`, `web`, `dane`, `tls`, `route`, `dns`,
//! `limit`; `dkim`, `return_path` and `unsubscribe` stand alone. Nothing here knows shards.

pub mod class;
pub mod dane;
pub mod destination;
pub mod dkim;
pub mod dns;
pub mod limit;
pub mod mta_sts;
pub mod return_path;
pub mod route;
pub mod seal;
pub mod smtp;
pub mod sources;
pub mod unsubscribe;
pub mod web;

mod described;
mod pool;
mod tls;
mod transport;

pub use described::describe_metrics;
pub use sources::Category;
pub use transport::{Attempt, Fate, Outbound, Transport, TransportSettings};
