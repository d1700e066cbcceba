//! The way to the cluster: what the provider is configured with, connected at the first use.

use std::path::{Path, PathBuf};

use postrider_api::pb;
use postrider_api::tls::TlsIdentity;
use postrider_frontend::rest::ClusterSecret;
use postrider_operator::Session;
use postrider_operator::audit::Operator;
use postrider_outgoing::dkim::{KEYS_PURPOSE, KeySealer};
use tokio::sync::OnceCell;

use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::Done;
use crate::protocol::value::{Attributes as _, Object, Value};
use crate::sign_up::Frontends;

/// Why, for the audit log, where nothing else is said.
const WHY: &str = "by Terraform";

/// Where the operator's certificate is.
#[derive(Clone)]
enum IdentityAt {
    Directory(PathBuf),
    Parts { authority: String, certificate: String, key: String },
}

/// The way to the cluster.
pub struct Connection {
    nodes: Vec<String>,
    identity: Option<IdentityAt>,
    operator: Operator,
    secret_file: Option<PathBuf>,
    frontends: Frontends,
    /// Something that other resources are to tell first: nothing can be asked before.
    is_unknown: bool,
    session: OnceCell<Session>,
}

impl Connection {
    /// From a configuration and the environment. What is missing is said by whoever needs it.
    pub(crate) fn configure(config: &Object) -> Done<Self> {
        let from = |name: &str, variable: &str| from(config, name, variable);
        let list = |name: &str, variable: &str| {
            config.list_of_texts(name).unwrap_or_else(|| {
                let told = environment(variable).unwrap_or_default();
                told.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            })
        };
        let parts = ["authority", "certificate", "key"];
        let given = parts.iter().filter(|name| !config.value(name).is_null()).count();
        let directory = from("identity", "POSTRIDER_IDENTITY");
        let of_parts = || {
            let authority = from("authority", "POSTRIDER_CA")?;
            let (certificate, key) = (from("certificate", "POSTRIDER_CERT")?, from("key", "POSTRIDER_KEY")?);
            Some(IdentityAt::Parts { authority, certificate, key })
        };
        let identity = match (given, config.text("identity")) {
            (1.., Some(_)) => {
                let detail = "Either identity is given, a directory with all three, or authority, certificate and key.";
                return Err(Diagnostic::error("Two operators", detail).at("identity"));
            }
            (1.., None) => of_parts(),
            (0, _) => directory.map(|dir| IdentityAt::Directory(dir.into())).or_else(of_parts),
        };
        let authority = config.text("frontends_authority").map(pem).transpose()?;
        let why = config.text("why").unwrap_or(WHY).to_owned();
        Ok(Self {
            nodes: list("nodes", "POSTRIDER_CLUSTER"),
            identity,
            operator: Operator::new(from("operator", "POSTRIDER_OPERATOR"), Some(why)),
            secret_file: from("cluster_secret_file", "POSTRIDER_CLUSTER_SECRET_FILE").map(PathBuf::from),
            frontends: Frontends {
                urls: list("frontends", "POSTRIDER_FRONTENDS"),
                token: from("admin_token", "POSTRIDER_ADMIN_TOKEN"),
                authority,
            },
            is_unknown: !config.values().all(Value::is_known),
            session: OnceCell::new(),
        })
    }

    /// The open cluster.
    pub(crate) async fn session(&self) -> Done<&Session> {
        self.session.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Done<Session> {
        if self.is_unknown && (self.nodes.is_empty() || self.identity.is_none()) {
            let detail = "Part of the provider's configuration comes from resources that are not applied yet. Apply those first \
                          (`terraform apply -target=…`), or keep the cluster's making and its configuration apart.";
            return Err(Diagnostic::error("The provider's configuration is not known yet", detail));
        }
        if self.nodes.is_empty() {
            let detail =
                "Name the gRPC address of at least one storage node: nodes = [\"HOST:PORT\"], or POSTRIDER_CLUSTER.";
            return Err(Diagnostic::error("No cluster is named", detail));
        }
        let identity = match &self.identity {
            Some(IdentityAt::Directory(dir)) => {
                let read = TlsIdentity::load(&dir.join("ca.pem"), &dir.join("cert.pem"), &dir.join("key.pem"));
                read.map_err(|error| {
                    let detail = format!("{error}. `postrider ctl cert operator` makes the directory.");
                    Diagnostic::error("The operator's certificate cannot be read", detail)
                })?
            }
            Some(IdentityAt::Parts { authority, certificate, key }) => {
                let identity = TlsIdentity::of_pem(pem(authority)?, pem(certificate)?, pem(key)?);
                identity.map_err(|error| {
                    Diagnostic::error("The operator's certificate cannot be used", error.to_string())
                })?
            }
            None => {
                let detail = "Give identity = \"DIRECTORY\" (ca.pem, cert.pem and key.pem of an operator) or POSTRIDER_IDENTITY; or \
                              authority, certificate and key.";
                return Err(Diagnostic::error("No operator's certificate is named", detail));
            }
        };
        let opened = Session::connect(self.nodes.clone(), identity, self.operator.clone()).await;
        opened.map_err(|error| {
            let detail = format!(
                "{error:#}. Asked: {}. See that a node of them runs and is reached from here, and that the certificate is an operator's of this \
                 cluster: `postrider ctl --cluster {} status` asks the same way.",
                self.nodes.join(", "),
                self.nodes.join(",")
            );
            Diagnostic::error("The cluster cannot be asked", detail)
        })
    }

    /// The shard map as placement has it now.
    pub(crate) async fn map(&self) -> Done<pb::ShardMap> {
        Ok(self.session().await?.newest_map().await?)
    }

    /// Where accounts are made.
    pub(crate) fn frontends(&self) -> &Frontends {
        &self.frontends
    }

    /// What seals private keys of DKIM.
    pub(crate) fn sealer(&self) -> Done<KeySealer> {
        let Some(path) = &self.secret_file else {
            let detail = "Keys are sealed under the frontends' secret: give cluster_secret_file, or POSTRIDER_CLUSTER_SECRET_FILE.";
            return Err(Diagnostic::error("Keys of DKIM cannot be sealed", detail));
        };
        let unusable = |why: String| {
            Diagnostic::error("The frontends' secret cannot be used", format!("{}: {why}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        let secret =
            ClusterSecret::new(text.trim_end().as_bytes().to_vec()).map_err(|error| unusable(error.to_string()))?;
        Ok(KeySealer::new(&secret.key(KEYS_PURPOSE)))
    }
}

fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|told| !told.is_empty())
}

/// What is configured; what is null is the environment's to say.
fn from(config: &Object, name: &str, variable: &str) -> Option<String> {
    match config.value(name) {
        Value::Null => environment(variable),
        _ => config.text(name).map(str::to_owned),
    }
}

/// PEM, or the file that has it.
fn pem(told: &str) -> Done<Vec<u8>> {
    if told.contains("-----BEGIN") {
        return Ok(told.as_bytes().to_vec());
    }
    std::fs::read(Path::new(told)).map_err(|error| {
        Diagnostic::error(
            "A certificate or key cannot be read",
            format!("{told}: {error}. PEM or the path of a file is wanted."),
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::protocol::value::object;

    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_said_with_what_to_do() {
        let nothing =
            Connection { identity: None, nodes: Vec::new(), ..Connection::configure(&Object::new()).unwrap() };
        assert!(nothing.session().await.err().unwrap().detail.contains("POSTRIDER_CLUSTER"));
        let nodes = object([("nodes", Value::texts(["127.0.0.1:1"]))]);
        let without = Connection { identity: None, ..Connection::configure(&nodes).unwrap() };
        assert!(without.session().await.err().unwrap().detail.contains("POSTRIDER_IDENTITY"));
        let unknown = Connection::configure(&object([("nodes", Value::Unknown)])).unwrap();
        assert!(unknown.session().await.err().unwrap().summary.contains("not known yet"));
        let both = object([("identity", "a".into()), ("key", "b".into())]);
        assert_eq!(Connection::configure(&both).err().unwrap().attribute.as_deref(), Some("identity"));
    }

    #[test]
    fn pem_is_taken_as_it_is() {
        assert_eq!(pem("-----BEGIN CERTIFICATE-----\n").unwrap(), b"-----BEGIN CERTIFICATE-----\n");
        assert!(pem("/nowhere/at/all.pem").unwrap_err().detail.contains("/nowhere/at/all.pem"));
    }
}
