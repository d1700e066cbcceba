//! What an operator does with a running cluster: asked of whoever leads, recorded in the audit log before it happens, followed to its end.
//! `postrider ctl` and the Terraform provider are two faces of this room; neither prints here.
//!
//! Errors are sentences ([`anyhow::Error`]): whoever is here shows them to an operator. What placement or a shard would not do is a
//! [`Refused`] at their root, which a program can look for.
//!
//! Invariant (ADR 070): what cannot be written into the audit log is not done.

pub mod account;
pub mod audit;
pub mod dkim;
pub mod growth;
pub mod operation;
pub mod plan;
mod session;

pub use session::{DEADLINE, Refused, Session};
