//! Two processes of ours: what they show each other follows their files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use postrider_api::certificates::Reloaded;
use postrider_api::identity::{Caller, DNS_TLS_NAME, Holder, Role};
use postrider_api::tls::{HTTP2, TlsIdentity, accept};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let (key, dir) = (KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// In place of what is there.
    fn issue(&self, file: &str, role: Role, name: &str) {
        let mut params = CertificateParams::new(vec![DNS_TLS_NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::URI(role.uri().try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
    }

    fn load(&self, file: &str) -> TlsIdentity {
        let path = |ending: &str| self.path(&format!("{file}.{ending}"));
        TlsIdentity::load(&self.path("ca.pem"), &path("pem"), &path("key")).unwrap()
    }
}

/// Connects, and tells whom each side saw: the client the server, and the server the client.
async fn meet(client: &TlsIdentity, listener: TcpListener, server: &TlsIdentity) -> (Holder, Caller) {
    let address = listener.local_addr().unwrap();
    let mut accepted = Box::pin(accept(listener, server.server_config(&[HTTP2]).unwrap(), 1));
    let connecting = async {
        let connector = TlsConnector::from(Arc::new(client.client_config().unwrap()));
        let name = ServerName::try_from(DNS_TLS_NAME).unwrap();
        connector.connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap()
    };
    let (connected, accepted) = tokio::join!(connecting, accepted.next());
    let accepted = accepted.unwrap().unwrap();
    let seen = Holder::of(&connected.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    (seen, Caller::of(accepted.get_ref().1.peer_certificates()))
}

#[tokio::test]
async fn renewed_certificates_are_shown_from_the_next_connection_on() {
    let authority = Authority::new();
    authority.issue("server", Role::Dns, "first");
    authority.issue("client", Role::Frontend, "client");
    let (server, client) = (authority.load("server"), authority.load("client"));
    let listen = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let (seen, caller) = meet(&client, listen().await, &server).await;
    assert_eq!((seen.common_name.as_str(), seen.role), ("first", Some(Role::Dns)));
    assert_eq!(seen.hosts, [DNS_TLS_NAME]);
    assert_eq!(caller.require(&[Role::Frontend]).unwrap(), Role::Frontend);

    authority.issue("server", Role::Dns, "second");
    authority.issue("client", Role::Worker, "client");
    for identity in [&server, &client] {
        assert!(matches!(identity.certificates().reload(false), Reloaded::New));
    }
    let (seen, caller) = meet(&client, listen().await, &server).await;
    assert_eq!(seen.common_name, "second");
    assert_eq!(caller.require(&[Role::Worker]).unwrap(), Role::Worker);

    // Half of a replacement changes nothing.
    std::fs::write(authority.path("server.key"), "no key").unwrap();
    assert!(matches!(server.certificates().reload(false), Reloaded::Broken(_)));
    assert_eq!(meet(&client, listen().await, &server).await.0.common_name, "second");
}

#[test]
fn what_is_missing_is_named() {
    let authority = Authority::new();
    authority.issue("server", Role::Dns, "first");
    let load = |ca: &Path, key: &str| {
        TlsIdentity::load(ca, &authority.path("server.pem"), &authority.path(key)).unwrap_err().to_string()
    };
    assert!(load(&authority.path("ca.pem"), "nothing.key").contains("nothing.key"));
    assert!(load(&authority.path("no-ca.pem"), "server.key").contains("no-ca.pem"));
}
