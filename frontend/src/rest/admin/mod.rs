//! `/v1/admin` for operators: what the cluster is made of and how it is, and of what `ctl` does the few things that are safe to do from a
//! page.
//!
//! Invariant: every handler takes [`Operator`](operator::Operator), so nobody else gets further than that. Whatever changes something stands
//! in the audit log before it happens, with who and why ([`Operator::carry_out`](operator::Operator)).
//! Invariant: no handler reads a message, a folder or a session of an account.

pub(crate) mod accounts;
pub(crate) mod cluster;
pub(crate) mod domains;
pub(crate) mod log;
pub(crate) mod moves;
pub(crate) mod operator;
pub(crate) mod queues;
pub(crate) mod stores;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rest::Handles;

/// Their paths, with their documentation.
pub(super) fn paths() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(operator::who))
        .routes(routes!(cluster::overview))
        .routes(routes!(cluster::shards))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::activate))
        .routes(routes!(moves::operations))
        .routes(routes!(moves::plan))
        .routes(routes!(moves::balance))
        .routes(routes!(queues::list))
        .routes(routes!(queues::hold))
        .routes(routes!(queues::release))
        .routes(routes!(stores::search))
        .routes(routes!(stores::blobs))
        .routes(routes!(domains::list))
        .routes(routes!(domains::check))
        .routes(routes!(accounts::read))
        .routes(routes!(accounts::suspend))
        .routes(routes!(accounts::resume))
        .routes(routes!(log::list))
}
