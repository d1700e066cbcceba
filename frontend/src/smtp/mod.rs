//! The receiving SMTP server: RFC 5321 with STARTTLS (3207), 8BITMIME (6152), SMTPUTF8 (6531), PIPELINING (2920),
//! CHUNKING (3030), SIZE (1870) and ENHANCEDSTATUSCODES (2034).
//!
//! ```text
//!  server ── a socket ──▶ connection ── bytes ──▶ session (pure) ──▶ line, command, content
//!                              │ ◀── what it wants to know ──┘
//!                              ├── recipient: directory, room in the mailbox
//!                              └── commit:    mime::ingest, blobs in two regions, one Accept in one shard
//! ```
//!
//! Invariant: [`session`] has no I/O, so a fuzzer drives it as the network does ([`fuzz`]).
//! Invariant: every reply is in [`reply`], every limit in [`limit`].
//! Deliberately absent: relaying to other hosts, authentication, submission.

pub mod command;
pub mod content;
pub mod envelope;
pub mod fuzz;
pub mod limit;
pub mod line;
pub mod reply;
pub mod session;

mod commit;
mod congestion;
mod connection;
mod header;
mod intake;
mod measure;
mod pace;
mod recipient;
mod server;
mod view;

pub use commit::{BlobPutError, BlobSink};
pub use limit::SmtpLimits;
pub use server::{Service, SmtpOptions, SmtpServer};

#[cfg(test)]
mod tests;
