//! A certificate authority for tests.

use postrider_api::identity::{NODE_TLS_NAME, Role};
use postrider_api::tls::TlsIdentity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, role: Role) -> TlsIdentity {
        let names = if role == Role::Node { vec![NODE_TLS_NAME.to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::URI(role.uri().try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        // Its files are read once, and nobody keeps it up.
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let (ca, cert) = (write("ca.pem", self.pem.clone()), write("cert.pem", certificate.pem()));
        TlsIdentity::load(&ca, &cert, &write("key.pem", key.serialize_pem())).unwrap()
    }
}
