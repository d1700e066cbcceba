//! A cluster's certificate authority in a directory, and the certificates that it signs: one for each process that names its role, for
//! operators, and for hosts that clients meet.
//!
//! What is there is kept, so that everything may be done again; whoever wants another certificate says so.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use postrider_api::identity::{DNS_TLS_NAME, NODE_TLS_NAME, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::files::{self, Access};

/// The authority's certificate and key in its directory.
const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// PEM files of one process.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateFiles {
    /// Those of a process in `dir`.
    pub(crate) fn of_process(dir: &Path, name: &str) -> Self {
        Self { ca: dir.join(CA_CERT), cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    /// What `postrider ctl --identity` takes.
    pub(crate) fn of_operator(dir: &Path) -> Self {
        Self { ca: dir.join(CA_CERT), cert: dir.join("cert.pem"), key: dir.join("key.pem") }
    }
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its common name: which process, or which operator. The audit log tells it.
    pub(crate) name: String,
    /// What it may do in the cluster; none for a host that clients meet.
    pub(crate) role: Option<Role>,
    /// DNS names beside those that the role brings.
    pub(crate) hosts: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Subject {
    /// A process or an operator.
    pub(crate) fn of_role(name: &str, role: Role, addresses: Vec<IpAddr>) -> Self {
        Self { name: name.into(), role: Some(role), hosts: Vec::new(), addresses }
    }

    /// What clients of mail see: a host name, no role.
    pub(crate) fn of_host(name: &str, host: &str, addresses: Vec<IpAddr>) -> Self {
        Self { name: name.into(), role: None, hosts: vec![host.into()], addresses }
    }

    fn alternative_names(&self) -> anyhow::Result<Vec<SanType>> {
        let mut names = Vec::new();
        if let Some(role) = self.role {
            names.push(SanType::URI(role.uri().try_into().context("a role's URI")?));
        }
        let served = match self.role {
            Some(Role::Node) => Some(NODE_TLS_NAME),
            Some(Role::Dns) => Some(DNS_TLS_NAME),
            Some(Role::Frontend | Role::Worker | Role::Ctl) | None => None,
        };
        if let Some(name) = served {
            names.push(SanType::DnsName(name.try_into().with_context(|| format!("the name {name}"))?));
        }
        for host in &self.hosts {
            let name = host.as_str().try_into().with_context(|| format!("{host} as a host name"))?;
            names.push(SanType::DnsName(name));
        }
        names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        ensure!(!names.is_empty(), "{}: a certificate names a role, a host or an address", self.name);
        Ok(names)
    }
}

/// Signs certificates; its key is kept in its directory.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Authority {
    /// The authority kept in `dir`, made now under `name` if there is none.
    pub(crate) fn open_or_make(dir: &Path, name: &str) -> anyhow::Result<Self> {
        files::make_directory(dir)?;
        let key_path = dir.join(CA_KEY);
        let key_pem = files::keep_secret(&key_path, || {
            Ok(KeyPair::generate().context("make the authority's key")?.serialize_pem())
        })?;
        let ca_path = dir.join(CA_CERT);
        if files::read_if_there(&ca_path)?.is_none() {
            let key = KeyPair::from_pem(&key_pem).with_context(|| format!("read {}", key_path.display()))?;
            let pem = authority_params(name).self_signed(&key).context("sign the authority's certificate")?.pem();
            files::write_atomically(&ca_path, pem.as_bytes(), Access::Public)?;
        }
        Self::open(dir)
    }

    /// The authority kept in `dir`, whoever made it: `ca.pem` and `ca.key`.
    ///
    /// # Errors
    /// When it is not there, or its key cannot be used.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let read = |file: &str| -> anyhow::Result<(String, PathBuf)> {
            let path = dir.join(file);
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            Ok((text, path))
        };
        let (key_pem, key_path) = read(CA_KEY)?;
        let (ca_pem, ca_path) = read(CA_CERT)?;
        let key = KeyPair::from_pem(&key_pem).with_context(|| format!("use {}", key_path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).with_context(|| format!("use {}", ca_path.display()))?;
        Ok(Self { issuer, ca_pem })
    }

    /// A certificate and its key in `files`, with the authority's own beside them. What is there is kept.
    pub(crate) fn issue(&self, files: CertificateFiles, subject: &Subject) -> anyhow::Result<CertificateFiles> {
        if !(files.cert.exists() && files.key.exists() && files.ca.exists()) {
            self.renew(&files, subject)?;
        }
        Ok(files)
    }

    /// The same, with another key in place of what is there.
    pub(crate) fn renew(&self, files: &CertificateFiles, subject: &Subject) -> anyhow::Result<()> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, &subject.name);
        params.subject_alt_names = subject.alternative_names()?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&key, &self.issuer);
        let certificate = signed.with_context(|| format!("sign the certificate of {}", subject.name))?;
        if files::read_if_there(&files.ca)?.as_ref() != Some(&self.ca_pem) {
            files::write_atomically(&files.ca, self.ca_pem.as_bytes(), Access::Public)?;
        }
        // The key first: a certificate that is there has its key.
        files::write_atomically(&files.key, key.serialize_pem().as_bytes(), Access::Secret)?;
        files::write_atomically(&files.cert, certificate.pem().as_bytes(), Access::Public)
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postrider_api::tls::TlsIdentity;

    use super::*;

    fn load(files: &CertificateFiles) -> TlsIdentity {
        TlsIdentity::load(&files.ca, &files.cert, &files.key).unwrap()
    }

    #[test]
    fn certificates_are_kept_and_keys_are_secret() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject::of_role("node-1", Role::Node, vec![Ipv4Addr::new(127, 0, 1, 1).into()]);
        let issue = || {
            let authority = Authority::open_or_make(dir.path(), "An authority").unwrap();
            authority.issue(CertificateFiles::of_process(dir.path(), "node-1"), &subject).unwrap()
        };
        let first = std::fs::read(issue().cert).unwrap();
        let again = issue();
        assert_eq!(std::fs::read(&again.cert).unwrap(), first);
        for key in [&again.key, &dir.path().join("ca.key")] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        Authority::open(dir.path()).unwrap().renew(&again, &subject).unwrap();
        assert_ne!(std::fs::read(&again.cert).unwrap(), first, "renewed is another one");
        load(&again);
    }

    #[test]
    fn a_certificate_names_its_role() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_make(&dir.path().join("authority"), "An authority").unwrap();
        let out = dir.path().join("ctl");
        files::make_directory(&out).unwrap();
        let operator = Subject::of_role("ada", Role::Ctl, Vec::new());
        let files = authority.issue(CertificateFiles::of_operator(&out), &operator).unwrap();
        let identity = load(&files);
        assert_eq!(identity.cert_pem, std::fs::read(out.join("cert.pem")).unwrap());
        assert!(identity.endpoint("127.0.0.1:1").is_ok());
    }

    #[test]
    fn an_authority_of_another_directory_or_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = Authority::open(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("ca.key"), "{error:#}");
        let nameless = Subject { name: "x".into(), role: None, hosts: Vec::new(), addresses: Vec::new() };
        let authority = Authority::open_or_make(dir.path(), "An authority").unwrap();
        assert!(authority.issue(CertificateFiles::of_process(dir.path(), "x"), &nameless).is_err());
    }
}
