//! Shared vocabulary: ids, commands, queries, outcomes, limits, and the generated protobuf types.
//!
//! Invariant: nothing here knows how state is stored, how consensus is reached, or what a client protocol looks like.
//! There are three shapes of data and no more: protobuf (wire, log and rows; [`pb`]), the domain types of [`id`], and the
//! REST view, which is the frontend's.

pub mod address;
pub mod audit;
pub mod certificates;
pub mod env;
pub mod feedback;
pub mod id;
pub mod identity;
pub mod impatient;
pub mod keyword;
pub mod limit;
pub mod map;
pub mod map_stream;
pub mod notify;
pub mod request;
pub mod tls;
pub mod trace;
pub mod version;

/// Types generated from `proto/postrider/v1/*.proto`; the comments there are their documentation.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod pb {
    tonic::include_proto!("postrider.v1");
}
