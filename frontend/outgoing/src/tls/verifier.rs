//! Which certificates a peer may show.
//!
//! Invariant: whichever it is, the peer proves that it has the certificate's key: signatures of the handshake are always checked.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::dane;
use crate::dns::Tlsa;
use crate::limit::CHAIN_MAX;

macro_rules! check_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Whatever is shown: encryption without authentication.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl AnyCertificate {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    check_signatures!();
}

/// What a TLSA record says (RFC 7672 section 3.1).
#[derive(Debug)]
pub(super) struct DaneCertificate {
    records: Arc<[Tlsa]>,
    provider: Arc<CryptoProvider>,
}

impl DaneCertificate {
    pub(super) fn new(records: Arc<[Tlsa]>, provider: Arc<CryptoProvider>) -> Self {
        Self { records, provider }
    }

    /// Usage 2: a certificate of the chain is an anchor, and the host's name and the dates count.
    fn by_anchor(
        &self,
        anchor: &CertificateDer<'_>,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end, chain, name, &[], now)
    }
}

impl ServerCertVerifier for DaneCertificate {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let matches = |usage: u8, certificate: &CertificateDer<'_>| {
            self.records.iter().any(|record| record.usage == usage && dane::matches(record, certificate))
        };
        // Usage 3: the key alone counts, no name and no date (RFC 7672 section 3.1.1).
        if matches(dane::DANE_EE, end) {
            return Ok(ServerCertVerified::assertion());
        }
        let in_chain = chain.iter().take(CHAIN_MAX).filter(|certificate| matches(dane::DANE_TA, certificate));
        // An anchor may stand in the record itself, and need not be sent then.
        let in_record = self.records.iter().filter(|record| record.usage == dane::DANE_TA);
        let in_record: Vec<_> = in_record.filter_map(dane::whole_certificate).collect();
        let mut last = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for anchor in in_chain.chain(&in_record) {
            match self.by_anchor(anchor, end, chain, name, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    check_signatures!();
}
