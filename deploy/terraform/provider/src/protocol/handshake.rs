//! How Terraform and its plugin find each other: a cookie in the environment, one line on standard output, and gRPC on a socket of the file
//! system, under TLS with a certificate that the line carries.
//!
//! Terraform's own certificate has a P-521 key, which ring does not verify, so that it is not asked for. The socket lies in a directory that
//! only this user may enter, and the kernel says who connects.

use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::stream::StreamExt as _;
use postrider_api::env::{SystemEntropy, random};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::companions::Companions;
use super::resource::Provider;
use super::service::{self, Service};

/// By which a program knows that Terraform has started it: public, the same for every provider.
const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");
/// The versions of the provider's protocol that Terraform speaks, with commas between them.
const VERSIONS_VARIABLE: &str = "PLUGIN_PROTOCOL_VERSIONS";
/// Terraform's certificate: it is there where the connection shall be under TLS.
const CLIENT_CERTIFICATE_VARIABLE: &str = "PLUGIN_CLIENT_CERT";
/// Where sockets of plugins go, where somebody has said so.
const SOCKET_DIR_VARIABLE: &str = "PLUGIN_UNIX_SOCKET_DIR";
/// The version of the handshake itself.
const CORE_VERSION: u32 = 1;
/// The version of the provider's protocol.
const VERSION: u32 = 6;
/// The name in the certificate, which Terraform verifies.
const SERVER_NAME: &str = "localhost";
/// The most that one side of a call may weigh, bytes; Terraform's own limit is above it.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Between two looks whether Terraform is still there.
const PARENT_EVERY: Duration = Duration::from_secs(1);

/// Why nothing is served.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// Somebody else than Terraform has started this.
    #[error(
        "this is a provider, which Terraform starts by itself: put it where `terraform` looks for providers, or name its directory in \
         `dev_overrides` of the CLI configuration"
    )]
    NotByTerraform,
    /// This Terraform is too old.
    #[error("this provider speaks protocol {VERSION}, Terraform only {spoken}: Terraform 1.0 or newer is needed")]
    Version {
        /// Which Terraform speaks.
        spoken: String,
    },
    /// The certificate could not be made.
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The socket could not be opened.
    #[error("open a socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The server ended.
    #[error("serve: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until Terraform asks for the end, or is gone.
///
/// # Errors
/// When it could not begin, or ended by itself.
pub async fn serve(provider: impl Provider) -> Result<(), HandshakeError> {
    let said = |name: &str| std::env::var(name).ok();
    check(said(COOKIE.0).as_deref(), said(VERSIONS_VARIABLE).as_deref())?;
    // Where two libraries bring one each, TLS does not choose by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = said(CLIENT_CERTIFICATE_VARIABLE).map(|_| Certificate::make()).transpose()?;
    let dir = said(SOCKET_DIR_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from);
    let socket = Socket::make(&dir)?;
    let listener = UnixListener::bind(&socket.path)?;
    let mine = std::fs::metadata(&socket.dir)?.uid();
    let peers = UnixListenerStream::new(listener)
        .filter(move |peer| std::future::ready(!peer.as_ref().is_ok_and(|peer| !is_of(peer, mine))));

    let (end, stop) = (CancellationToken::new(), CancellationToken::new());
    let companions = Companions::new(end.clone());
    let mut server = Server::builder();
    if let Some(certificate) = &certificate {
        let identity = Identity::from_pem(&certificate.pem, &certificate.key_pem);
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    let provider = service::pb_server(Service::new(provider, stop.clone()), MESSAGE_BYTES_MAX);
    let router = server
        .add_service(provider)
        .add_service(companions.broker())
        .add_service(companions.controller())
        .add_service(companions.stdio())
        .add_service(companions.health());
    announce(&line(&socket.path, certificate.as_ref()))?;
    let watch = tokio::spawn(until_alone(end.clone()));
    let served = router.serve_with_incoming_shutdown(peers, end.clone().cancelled_owned()).await;
    stop.cancel();
    watch.abort();
    Ok(served?)
}

fn check(cookie: Option<&str>, versions: Option<&str>) -> Result<(), HandshakeError> {
    if cookie != Some(COOKIE.1) {
        return Err(HandshakeError::NotByTerraform);
    }
    match versions {
        Some(spoken) if !spoken.split(',').any(|version| version.trim() == VERSION.to_string()) => {
            Err(HandshakeError::Version { spoken: spoken.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What Terraform reads to know where to connect.
fn line(socket: &Path, certificate: Option<&Certificate>) -> String {
    let certificate = certificate.map(|certificate| STANDARD_NO_PAD.encode(&certificate.der)).unwrap_or_default();
    format!("{CORE_VERSION}|{VERSION}|unix|{}|grpc|{certificate}", socket.display())
}

fn announce(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Whether a peer runs as this user.
fn is_of(peer: &UnixStream, user: u32) -> bool {
    let of = peer.peer_cred().map(|cred| cred.uid());
    if !of.as_ref().is_ok_and(|of| *of == user) {
        tracing::warn!("a connection of another user is refused");
        return false;
    }
    true
}

/// Ends the process when Terraform was killed: nobody would ask it to end. Ctrl-C is Terraform's to handle, which asks for a stop.
async fn until_alone(end: CancellationToken) {
    let parent = parent_id();
    let mut looks = tokio::time::interval(PARENT_EVERY);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            interrupted = tokio::signal::ctrl_c() => {
                if let Err(error) = interrupted {
                    tracing::warn!(%error, "Ctrl-C cannot be waited for");
                    return;
                }
            }
        }
        if parent_id() != parent {
            tracing::warn!("Terraform is gone; what the cluster has recorded goes on");
            end.cancel();
            return;
        }
    }
}

struct Certificate {
    der: Vec<u8>,
    pem: String,
    key_pem: String,
}

impl Certificate {
    /// For this one run.
    fn make() -> Result<Self, rcgen::Error> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        Ok(Self { der: made.cert.der().to_vec(), pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() })
    }
}

/// A place for a socket in a directory that is this user's alone; both are gone when this is dropped.
struct Socket {
    dir: PathBuf,
    path: PathBuf,
}

impl Socket {
    fn make(parent: &Path) -> std::io::Result<Self> {
        let dir = parent.join(format!("postrider-{}", hex::encode(random::<8>(&SystemEntropy))));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let path = dir.join("provider");
        Ok(Self { dir, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terraform_is_served() {
        assert!(matches!(check(None, None), Err(HandshakeError::NotByTerraform)));
        assert!(matches!(check(Some("other"), Some("6")), Err(HandshakeError::NotByTerraform)));
        assert!(
            matches!(check(Some(COOKIE.1), Some("4,5")), Err(HandshakeError::Version { spoken }) if spoken == "4,5")
        );
        assert!(check(Some(COOKIE.1), Some("5,6")).is_ok());
        assert!(check(Some(COOKIE.1), None).is_ok());
    }

    #[test]
    fn the_line_says_where_and_under_which_certificate() {
        let path = Path::new("/tmp/a/provider");
        assert_eq!(line(path, None), "1|6|unix|/tmp/a/provider|grpc|");
        let certificate = Certificate::make().unwrap();
        let line = line(path, Some(&certificate));
        let told = line.split('|').nth(5).unwrap();
        assert_eq!(STANDARD_NO_PAD.decode(told).unwrap(), certificate.der);
        assert!(!told.contains('='));
    }

    #[test]
    fn the_socket_is_this_users_alone() {
        let parent = std::env::temp_dir();
        let socket = Socket::make(&parent).unwrap();
        assert_eq!(std::fs::metadata(&socket.dir).unwrap().mode() & 0o777, 0o700);
        let dir = socket.dir.clone();
        drop(socket);
        assert!(!dir.exists());
    }
}
