//! The cluster's own DNS server: what a mail domain needs, answered with the region that is nearest to whoever asks.
//!
//! [`zone`] makes records from the plain description of a domain and of the regions; [`latency`] knows how far each network is
//! from each region; [`health`] which regions may be named; [`choice`] joins the three into an order of regions; [`server`]
//! speaks the protocol. [`ask`] asks other servers, to see what the world sees.
//!
//! Invariant: what is answered is a function of the bytes that came, who sent them, the zones, the measurements, the clock and
//! the seed. [`server::Responder::respond`] knows no socket, so what is fuzzed is what is served.
//!
//! Invariant: DNS never makes an outage worse. Measurements, health and weights order and leave out regions; where that would
//! leave none, they are ignored.
//!
//! Deliberately absent: the shard map, gRPC and configuration (the binary's), zone transfers, dynamic updates, recursion.

pub mod ask;
pub mod choice;
pub mod health;
pub mod latency;
pub mod region;
pub mod server;
pub mod zone;

mod described;

pub use described::describe_metrics;
