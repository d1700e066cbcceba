//! What a person types into a search box, as a condition on messages: one language for REST and for every protocol to come.
//!
//! Invariant: what leaves here is within SEARCH_* of `postrider_api::limit`; a node never refuses it as too large or too deep.

mod asked;
mod grammar;
mod value;

pub use asked::Asked;
pub use grammar::{Reading, SyntaxError, Wrong, fuzz_query, parse, parse_operator};
