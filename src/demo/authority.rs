//! The demo's own certificate authority, and a certificate for each process that names its role.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use postrider_api::identity::{NODE_TLS_NAME, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::files::{self, Access};

/// PEM files of one process.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Signs certificates; its key is kept in the demo's directory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    dir: PathBuf,
}

impl Authority {
    /// The authority kept in `dir`, made now if there is none.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        files::make_directory(dir)?;
        let key_pem = files::keep_secret(&dir.join("ca.key"), || {
            Ok(KeyPair::generate().context("make the authority's key")?.serialize_pem())
        })?;
        let key = KeyPair::from_pem(&key_pem).with_context(|| format!("read {}", dir.join("ca.key").display()))?;
        let params = authority_params();
        let ca_path = dir.join("ca.pem");
        let ca_pem = match files::read_if_there(&ca_path)? {
            Some(pem) => pem,
            None => {
                let pem = params.self_signed(&key).context("sign the authority's certificate")?.pem();
                files::write_atomically(&ca_path, pem.as_bytes(), Access::Public)?;
                pem
            }
        };
        Ok(Self { issuer: Issuer::new(params, key), ca_pem, dir: dir.to_owned() })
    }

    /// The certificate of a process with `role`, reached at `address`. What is there is kept.
    pub(crate) fn process(
        &self,
        name: &str,
        role: Role,
        address: Option<Ipv4Addr>,
    ) -> anyhow::Result<CertificateFiles> {
        let mut names = vec![SanType::URI(role.uri().try_into().context("a role's URI")?)];
        if role == Role::Node {
            names.push(SanType::DnsName(NODE_TLS_NAME.try_into().context("the nodes' name")?));
        }
        names.extend(address.map(|address| SanType::IpAddress(address.into())));
        self.issue(self.files_of(name), name, names)
    }

    /// The certificate that SMTP clients see: a host name, no role.
    pub(crate) fn mail_host(&self, name: &str, host: &str, address: Ipv4Addr) -> anyhow::Result<CertificateFiles> {
        let host = SanType::DnsName(host.try_into().with_context(|| format!("{host} as a host name"))?);
        self.issue(self.files_of(name), name, vec![host, SanType::IpAddress(address.into())])
    }

    /// A directory for `postrider ctl --identity`: `ca.pem`, `cert.pem`, `key.pem`.
    pub(crate) fn operator(&self, dir: &Path) -> anyhow::Result<()> {
        files::make_directory(dir)?;
        let ca = dir.join("ca.pem");
        if files::read_if_there(&ca)?.is_none() {
            files::write_atomically(&ca, self.ca_pem.as_bytes(), Access::Public)?;
        }
        let role = SanType::URI(Role::Ctl.uri().try_into().context("a role's URI")?);
        let files = CertificateFiles { ca, cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        self.issue(files, "operator", vec![role])?;
        Ok(())
    }

    fn files_of(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            ca: self.dir.join("ca.pem"),
            cert: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        }
    }

    fn issue(&self, files: CertificateFiles, name: &str, names: Vec<SanType>) -> anyhow::Result<CertificateFiles> {
        if files.cert.exists() && files.key.exists() {
            return Ok(files);
        }
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("sign {name}'s certificate"))?;
        // The key first: a certificate that is there has its key.
        files::write_atomically(&files.key, key.serialize_pem().as_bytes(), Access::Secret)?;
        files::write_atomically(&files.cert, certificate.pem().as_bytes(), Access::Public)?;
        Ok(files)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Postrider demo authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_and_keys_are_secret() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let issue = || {
            let authority = Authority::open(dir.path()).unwrap();
            authority.process("node-1", Role::Node, Some(Ipv4Addr::new(127, 0, 1, 1))).unwrap()
        };
        let first = std::fs::read(issue().cert).unwrap();
        let again = issue();
        assert_eq!(std::fs::read(again.cert).unwrap(), first);
        for key in [again.key, dir.path().join("ca.key")] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_certificate_names_its_role() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        authority.operator(&dir.path().join("ctl")).unwrap();
        let pem = std::fs::read(dir.path().join("ctl/cert.pem")).unwrap();
        let identity = postrider_api::tls::TlsIdentity::load(
            &dir.path().join("ctl/ca.pem"),
            &dir.path().join("ctl/cert.pem"),
            &dir.path().join("ctl/key.pem"),
        )
        .unwrap();
        assert_eq!(identity.cert_pem, pem);
        assert!(identity.endpoint("127.0.0.1:1").is_ok());
    }
}
