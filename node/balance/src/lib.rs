//! What should move: a pure function from a view of the cluster to a short, ordered list of steps.
//!
//! Whoever carries the steps out records each by the command that it names ([`step::Step::command`]), and asks again with a newer
//! view: nothing is remembered from one plan to the next.
//!
//! Invariant: no clock, no randomness, no network, no float, no iteration over hash maps. The same view and the same limits give the
//! same plan.
//! Invariant (P-7): no step puts two replicas of a shard where its policy wants one, or one where the policy allows none, and no step
//! leaves a group with fewer replicas that answer than a quorum of its old and of its new members needs.
//! Invariant: from any view, planning and carrying out ends. What is wrong gets less with every step that mends, and every step that evens out
//! lowers one number, the unevenness of the cell ([`even`]).
//!
//! The algorithm, and what was rejected: docs/adr/125-the-balancer-is-a-pure-function.md.

mod budget;
mod cell;
mod even;
pub mod evenness;
pub mod grow;
mod home;
mod judge;
pub mod least;
pub mod limits;
mod members;
mod mend;
pub mod observed;
mod place;
mod plan;
mod ranks;
pub mod simulated;
pub mod step;
pub mod trial;
pub mod view;

pub use plan::{Blocked, Plan, plan};
