//! The state machines from outside: commands in, outcomes and queries out.
//!
//! Random runs are compared with a naive model ([`model`]), over memory and RocksDB, in batches of any size, from a snapshot,
//! and with requests that come again; after each run `verify` finds nothing.

mod accounts;
mod app_passwords;
mod audit;
mod blobs;
mod certificates;
mod data;
mod dedup;
mod directory;
mod drafts;
mod folders;
mod harness;
mod labels;
mod mailbox;
mod model;
mod operations;
mod outside;
mod placement;
mod planted;
mod queue;
mod quota;
mod random;
mod refused;
mod replay;
mod roll;
mod second_factor;
mod sending;
mod sessions;
mod steps;
mod suites;
mod threads;
mod versions;
