//! A Terraform provider of a Postrider cluster: what `postrider ctl` does, kept as it is configured.
//!
//! Invariant: a state never holds a private key, and waiting that ends early ends nothing: what the cluster has recorded goes on, and the
//! next apply finds it.

mod connection;
mod data;
pub mod documentation;
pub mod protocol;
mod provider;
mod resources;
mod sign_up;

pub use provider::PostriderProvider;
