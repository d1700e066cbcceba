//! What `ctl` was told beside the cluster: the certificate's place, and how to print.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use postrider_api::tls::TlsIdentity;
pub(crate) use postrider_operator::DEADLINE;
use postrider_operator::audit::Operator;
use serde::Serialize;

use crate::local;

/// An open cluster, and how what it says is printed. Asks like the operator's session that it is one of.
pub(crate) struct Session {
    cluster: postrider_operator::Session,
    pub(crate) json: bool,
    /// Where the operator's certificate is.
    pub(super) identity_dir: PathBuf,
}

impl Deref for Session {
    type Target = postrider_operator::Session;

    fn deref(&self) -> &Self::Target {
        &self.cluster
    }
}

impl Session {
    /// Connects with the certificate in `identity`, or the one that is known for these addresses.
    pub(crate) async fn open(cluster: Vec<String>, identity: Option<PathBuf>, json: bool) -> anyhow::Result<Self> {
        ensure!(!cluster.is_empty(), "--cluster ADDR[,ADDR…]: the gRPC address of at least one storage node is needed");
        let dir = identity_dir(&cluster, identity)?;
        let identity = TlsIdentity::load(&dir.join("ca.pem"), &dir.join("cert.pem"), &dir.join("key.pem"))
            .with_context(|| format!("use the certificate in {}", dir.display()))?;
        let cluster = postrider_operator::Session::connect(cluster, identity, Operator::default()).await?;
        Ok(Self { cluster, json, identity_dir: dir })
    }

    /// The same for somebody of whom the audit log shall tell.
    pub(crate) fn for_operator(mut self, operator: Operator) -> Self {
        self.cluster.operator = operator;
        self
    }

    /// Prints `value` for programs.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string_pretty(value)?);
        Ok(())
    }
}

fn identity_dir(cluster: &[String], identity: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = identity {
        return Ok(dir);
    }
    for address in cluster {
        if let Some(dir) = local::identity_of(address)?.filter(|dir| Path::is_dir(dir)) {
            return Ok(dir);
        }
    }
    bail!("no certificate is known for {}: give --identity DIR or POSTRIDER_IDENTITY", cluster.join(", "))
}
