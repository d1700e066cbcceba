//! A cluster's certificate authority in a directory, and the certificates that it signs: one for each process that names its role, for
//! operators, and for hosts that clients meet.
//!
//! What is there is kept, so that everything may be done again; whoever wants another certificate says so.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postrider_api::identity::{DNS_TLS_NAME, Holder, NODE_TLS_NAME, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::files::{self, Access};

/// For clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// What is good for longer than this was made to be good for ever.
const EXPIRING_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// The authority's certificate and key in its directory.
const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// An operator's certificate in its directory.
const OPERATOR_CERT: &str = "cert.pem";

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
        Self { ca: dir.join(CA_CERT), cert: dir.join(OPERATOR_CERT), key: dir.join("key.pem") }
    }

    /// Those of a certificate that is there, whose key and authority are beside it.
    pub(crate) fn of_certificate(cert: &Path) -> Self {
        let dir = cert.parent().unwrap_or(Path::new(""));
        let of_operator = Self::of_operator(dir);
        match of_operator.cert == cert {
            true => of_operator,
            false => Self { key: cert.with_extension("key"), cert: cert.to_owned(), ..of_operator },
        }
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
    /// How long it is good for; `None`: for ever.
    pub(crate) good_for: Option<Duration>,
}

impl Subject {
    /// A process or an operator.
    pub(crate) fn of_role(name: &str, role: Role, addresses: Vec<IpAddr>) -> Self {
        Self { name: name.into(), role: Some(role), hosts: Vec::new(), addresses, good_for: None }
    }

    /// What clients of mail see: a host name, no role.
    pub(crate) fn of_host(name: &str, host: &str, addresses: Vec<IpAddr>) -> Self {
        Self { name: name.into(), role: None, hosts: vec![host.into()], addresses, good_for: None }
    }

    /// As a certificate of this authority has it.
    pub(crate) fn of(holder: Holder) -> Self {
        // A role brings its own.
        let served = |host: &String| [NODE_TLS_NAME, DNS_TLS_NAME].contains(&host.as_str());
        let seconds = holder.expires_s.saturating_sub(holder.begins_s);
        let good_for = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_sub(BACKDATED);
        Self {
            name: holder.common_name,
            role: holder.role,
            hosts: holder.hosts.into_iter().filter(|host| !served(host)).collect(),
            addresses: holder.addresses,
            good_for: Some(good_for).filter(|good_for| *good_for < EXPIRING_MAX),
        }
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
            self.replace(&files, subject)?;
        }
        Ok(files)
    }

    /// The same, with another key in place of what is there.
    pub(crate) fn replace(&self, files: &CertificateFiles, subject: &Subject) -> anyhow::Result<()> {
        if files::read_if_there(&files.ca)?.as_ref() != Some(&self.ca_pem) {
            files::write_atomically(&files.ca, self.ca_pem.as_bytes(), Access::Public)?;
        }
        self.sign(&files.cert, &files.key, subject)
    }

    /// Key and certificate alone, in place of what is there. A process that follows them goes on with the old ones until both are new.
    ///
    /// # Errors
    /// When a name is none, or a file cannot be written.
    pub(crate) fn sign(&self, cert: &Path, key_file: &Path, subject: &Subject) -> anyhow::Result<()> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, &subject.name);
        params.subject_alt_names = subject.alternative_names()?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(good_for) = subject.good_for {
            let epoch = date_time_ymd(1970, 1, 1);
            let now = std::time::UNIX_EPOCH.elapsed().context("the clock is before 1970")?;
            params.not_before = epoch + now.saturating_sub(BACKDATED);
            params.not_after = epoch + now + good_for;
        }
        let signed = params.signed_by(&key, &self.issuer);
        let certificate = signed.with_context(|| format!("sign the certificate of {}", subject.name))?;
        // The key first: a certificate that is there has its key.
        files::write_atomically(key_file, key.serialize_pem().as_bytes(), Access::Secret)?;
        files::write_atomically(cert, certificate.pem().as_bytes(), Access::Public)
    }
}

/// Who holds the first certificate of a PEM file.
///
/// # Errors
/// When there is none, or it names a role that there is not.
pub(crate) fn holder(pem: &[u8]) -> anyhow::Result<Holder> {
    let der = CertificateDer::from_pem_slice(pem).context("no certificate in PEM")?;
    Ok(Holder::of(&der)?)
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
        Authority::open(dir.path()).unwrap().replace(&again, &subject).unwrap();
        assert_ne!(std::fs::read(&again.cert).unwrap(), first, "replaced is another one");
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
        let holder = holder(&std::fs::read(out.join("cert.pem")).unwrap()).unwrap();
        assert_eq!((holder.common_name.as_str(), holder.role), ("ada", Some(Role::Ctl)));
        assert!(identity.endpoint("127.0.0.1:1").is_ok());
    }

    #[test]
    fn a_certificate_is_renewed_for_whom_it_was_and_for_as_long() {
        const DAY_S: i64 = 24 * 60 * 60;
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_make(dir.path(), "An authority").unwrap();
        let files = CertificateFiles::of_process(dir.path(), "dns-seoul");
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let mut subject = Subject::of_role("dns-seoul", Role::Dns, addresses);
        subject.hosts.push("ns-seoul.example.org".into());
        let renewed = |subject: &Subject| {
            authority.sign(&files.cert, &files.key, subject).unwrap();
            let first = std::fs::read(&files.cert).unwrap();
            let before = holder(&first).unwrap();
            authority.sign(&files.cert, &files.key, &Subject::of(before.clone())).unwrap();
            let second = std::fs::read(&files.cert).unwrap();
            assert_ne!(first, second);
            (before, holder(&second).unwrap())
        };
        for (good_for, days) in [(None, 700_000..800_000), (Some(Duration::from_secs(30 * DAY_S as u64)), 30..31)] {
            subject.good_for = good_for;
            let (before, after) = renewed(&subject);
            assert_eq!(before.hosts, [DNS_TLS_NAME, "ns-seoul.example.org"]);
            assert!(days.contains(&((after.expires_s - after.begins_s) / DAY_S)), "{after:?}");
            let timeless = |holder| Holder { begins_s: 0, expires_s: 0, ..holder };
            assert_eq!(timeless(after), timeless(before));
        }
        load(&CertificateFiles { ca: dir.path().join("ca.pem"), ..files });
        let operator = CertificateFiles::of_certificate(Path::new("ada/cert.pem"));
        assert_eq!(operator.key, Path::new("ada/key.pem"));
        assert_eq!(CertificateFiles::of_certificate(Path::new("node-1.pem")).key, Path::new("node-1.key"));
    }

    #[test]
    fn an_authority_of_another_directory_or_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = Authority::open(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("ca.key"), "{error:#}");
        let nameless =
            Subject { name: "x".into(), role: None, hosts: Vec::new(), addresses: Vec::new(), good_for: None };
        let authority = Authority::open_or_make(dir.path(), "An authority").unwrap();
        assert!(authority.issue(CertificateFiles::of_process(dir.path(), "x"), &nameless).is_err());
    }
}
