//! The SMTP server: RFC 5321 with STARTTLS (3207), 8BITMIME (6152), SMTPUTF8 (6531), PIPELINING (2920), CHUNKING (3030),
//! SIZE (1870) and ENHANCEDSTATUSCODES (2034). One machine for mail that comes in and for mail that our users' programs submit
//! (RFC 6409), which adds TLS from the first byte (8314), AUTH (4954), DSN (3461) and REQUIRETLS (8689).
//!
//! ```text
//!  server ── a socket ──▶ connection ── bytes ──▶ session (pure) ──▶ line, command, content
//!                              │ ◀── what it wants to know ──┘
//!                              ├── recipient: directory, room in the mailbox
//!                              ├── programs:  application passwords
//!                              ├── feedback:  what came back of mail of ours, in its sender's shard
//!                              ├── commit:    mime::ingest, blobs in two regions, one Accept in one shard
//!                              └── submit:    repaired, and one Send in the sender's shard
//! ```
//!
//! Invariant: [`session`] has no I/O, so a fuzzer drives it as the network does ([`fuzz`]).
//! Invariant: every reply is in [`reply`], every limit in [`limit`].
//! Invariant: nobody's mail is relayed but that of a program that has logged in, in its account's own name.

pub mod command;
pub mod content;
pub mod envelope;
pub mod fuzz;
pub mod limit;
pub mod line;
pub mod reply;
pub mod session;

mod auth;
mod commit;
mod congestion;
mod connection;
mod feedback;
mod header;
mod intake;
mod measure;
mod pace;
mod recipient;
pub(crate) mod repair;
mod reports;
mod server;
mod submit;
mod view;

pub use commit::{BlobPutError, BlobSink};
pub use limit::SmtpLimits;
pub use server::{Door, Service, SmtpOptions, SmtpServer, SubmissionOptions};

#[cfg(test)]
mod tests;
