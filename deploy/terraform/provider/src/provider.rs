//! The provider's configuration, and what it has.

use crate::connection::Connection;
use crate::protocol::resource::{DataSource, Done, Provider, Resource};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::Object;
use crate::{data, resources};

/// The provider `postrider`.
pub struct PostriderProvider {
    resources: Vec<Box<dyn Resource<Connection>>>,
    data_sources: Vec<Box<dyn DataSource<Connection>>>,
}

impl PostriderProvider {
    /// With everything that it has.
    #[must_use]
    pub fn new() -> Self {
        Self { resources: resources::all(), data_sources: data::all() }
    }
}

impl Default for PostriderProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl Provider for PostriderProvider {
    type Connection = Connection;

    fn name(&self) -> &'static str {
        "postrider"
    }

    fn schema(&self) -> Schema {
        let text = |name, description| Attribute::optional(name, Type::Text, description);
        Schema {
            description: "Keeps a Postrider cluster as it is configured: what mail it takes, where shards are, which nodes bear them. It speaks with \
                          storage nodes as `postrider ctl` does, with an operator's certificate; everything that it changes stands in the audit log. \
                          The cluster itself is made by `modules/cluster`.",
            attributes: vec![
                Attribute::optional(
                    "nodes",
                    Type::texts(),
                    "gRPC addresses (`HOST:PORT`) of storage nodes; one that answers is enough. Environment: `POSTRIDER_CLUSTER`, with commas.",
                ),
                text(
                    "identity",
                    "Directory with `ca.pem`, `cert.pem` and `key.pem` of an operator, as `postrider ctl cert` makes it. Environment: \
                     `POSTRIDER_IDENTITY`.",
                ),
                text("authority", "Instead of `identity`: the cluster's authority, PEM or the path of a file. Environment: `POSTRIDER_CA`."),
                text("certificate", "The operator's certificate, PEM or the path of a file. Environment: `POSTRIDER_CERT`."),
                text("key", "Its private key, PEM or the path of a file. Environment: `POSTRIDER_KEY`.").sensitive(),
                Attribute::optional(
                    "frontends",
                    Type::texts(),
                    "Where frontends serve REST (`https://HOST` or `http://HOST:PORT`): accounts are made there. Environment: \
                     `POSTRIDER_FRONTENDS`, with commas.",
                ),
                text("frontends_authority", "Who signs the frontends' certificates, PEM or the path of a file, beside those that this machine trusts."),
                text(
                    "admin_token",
                    "The administrator's token of the frontends: not needed where anybody may sign up. Environment: `POSTRIDER_ADMIN_TOKEN`.",
                )
                .sensitive(),
                text(
                    "cluster_secret_file",
                    "The frontends' secret (`cursor_secret_file`), under which private keys of DKIM are sealed: needed for `dkim_rotation`. \
                     Environment: `POSTRIDER_CLUSTER_SECRET_FILE`.",
                ),
                text("operator", "Who asks, for the audit log; by default the user of the operating system. Environment: `POSTRIDER_OPERATOR`."),
                text("why", "Why, for the audit log. Name nobody's address: it is kept for long."),
            ],
        }
    }

    fn configure(&self, config: &Object) -> Done<Connection> {
        Connection::configure(config)
    }

    fn resources(&self) -> &[Box<dyn Resource<Connection>>] {
        &self.resources
    }

    fn data_sources(&self) -> &[Box<dyn DataSource<Connection>>] {
        &self.data_sources
    }
}
