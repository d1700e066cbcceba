//! An answer to every search that owes nothing to an index, and random questions to hold both against.

pub mod mail;
pub mod questions;
pub mod random;
pub mod scan;
