//! Terraform's plugin protocol, version 6: the handshake, values, schemas, and the service that drives what a provider has.
//!
//! Invariant: nothing here knows what a Postrider cluster is; nothing outside knows gRPC or MessagePack.

mod companions;
pub mod diagnostic;
pub mod fuzz;
pub mod handshake;
mod json;
pub mod log;
pub mod msgpack;
pub mod planning;
pub mod resource;
pub mod schema;
mod service;
pub mod timeout;
pub mod value;

/// Generated from `proto/*.proto`; the comments there are their documentation.
#[allow(missing_docs, unreachable_pub, clippy::all, dead_code)] // a message of nothing but nested ones is a struct, too
mod pb {
    pub mod provider {
        tonic::include_proto!("tfplugin6");
    }
    pub mod plugin {
        tonic::include_proto!("plugin");
    }
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
