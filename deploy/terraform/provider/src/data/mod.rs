//! What the provider can tell: one file for each, behind one trait.

mod cluster;
mod domain_records;
mod nodes;
mod plan;
mod shards;

use crate::connection::Connection;
use crate::protocol::resource::DataSource;

/// All of them, in the order of the documentation.
pub(crate) fn all() -> Vec<Box<dyn DataSource<Connection>>> {
    vec![
        Box::new(cluster::Cluster),
        Box::new(domain_records::DomainRecords),
        Box::new(nodes::Nodes),
        Box::new(plan::Plan),
        Box::new(shards::Shards),
    ]
}
