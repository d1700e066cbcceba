//! The server over real sockets, against a cluster in memory.

mod abuse;
mod chunking;
mod cluster;
mod content;
mod drain;
mod fuzz;
mod harness;
mod proxy;
mod returned;
mod smtplib;
mod tls;
mod transaction;
