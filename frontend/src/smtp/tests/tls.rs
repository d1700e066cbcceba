//! STARTTLS (RFC 3207).

use std::sync::Arc;

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::{Client, Harness, options};

struct Secure {
    harness: Harness,
    connector: TlsConnector,
}

impl Secure {
    async fn start() -> Self {
        let signed = rcgen::generate_simple_self_signed(["mx.postrider.example".to_owned()]).unwrap();
        let certificate = signed.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut options = options();
        options.tls = Some(Arc::new(server));
        Self { harness: Harness::start_with(options).await, connector: TlsConnector::from(Arc::new(client)) }
    }

    async fn secure(&self, plain: Client<TcpStream>) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let name = ServerName::try_from("mx.postrider.example").unwrap();
        self.connector.connect(name, plain.stream).await.map(Client::new)
    }
}

#[tokio::test]
async fn mail_over_tls() {
    let secure = Secure::start().await;
    let mut plain = secure.harness.connect().await;
    plain.ask("STARTTLS\r\n", 503).await;
    let reply = plain.ask("EHLO client.example\r\n", 250).await;
    assert!(reply.contains("STARTTLS"), "{reply}");
    plain.ask("MAIL FROM:<>\r\n", 250).await;
    plain.ask("STARTTLS\r\n", 503).await;
    plain.ask("RSET\r\n", 250).await;
    plain.ask("STARTTLS\r\n", 220).await;
    let mut client = secure.secure(plain).await.unwrap();
    // RFC 3207 section 4.2: what was said before does not count.
    client.ask("MAIL FROM:<>\r\n", 503).await;
    let reply = client.ask("EHLO client.example\r\n", 250).await;
    assert!(!reply.contains("STARTTLS"), "{reply}");
    client.ask("STARTTLS\r\n", 503).await;
    client.address("ada").await;
    client.ask("DATA\r\n", 354).await;
    client.ask("secret\r\n.\r\n", 250).await;
    client.ask("QUIT\r\n", 221).await;
    client.expect_closed().await;
    let raw = String::from_utf8(secure.harness.cluster.inbox(secure.harness.ada)[0].raw()).unwrap();
    assert!(raw.contains("with ESMTPS id"), "{raw}");
}

#[tokio::test]
async fn commands_injected_before_tls_are_dropped() {
    // CVE-2011-0411: what somebody on the way adds behind STARTTLS must not be taken for the client's within TLS.
    let secure = Secure::start().await;
    let mut plain = secure.harness.greeted().await;
    plain.ask("STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@client.example>\r\n", 220).await;
    let mut client = secure.secure(plain).await.unwrap();
    client.ask("NOOP\r\n", 250).await;
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 503).await;
    client.ask("EHLO client.example\r\n", 250).await;
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 503).await;
}

#[tokio::test]
async fn a_handshake_that_fails_closes() {
    let secure = Secure::start().await;
    let mut plain = secure.harness.greeted().await;
    plain.ask("STARTTLS\r\n", 220).await;
    plain.stream.write_all(b"EHLO this is no TLS\r\nMAIL FROM:<>\r\n").await.unwrap();
    let mut rest = Vec::new();
    // A TLS alert or nothing, but no SMTP reply; the connection may also be reset.
    let _read_or_reset = plain.stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"250") && !rest.starts_with(b"503"), "{rest:?}");
    // The server goes on.
    secure.harness.greeted().await;
}
