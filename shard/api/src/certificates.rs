//! The certificate that a process shows, to its clients or to the others of the cluster, read again when its files change.
//!
//! Invariant: what is shown has been checked whole: a chain that can be read, with the key that belongs to it. Files that are being
//! replaced, or were replaced by something else, change nothing but the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};
use thiserror::Error;
use tokio::sync::watch;

/// How often the files are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A certificate with its chain, or a key, bytes. Real ones have a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why files hold no certificate that can be shown.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM, or not of what it should be.
    #[error("{} holds {what} that cannot be read: {source}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The two do not belong together, or are not fit for TLS.
    #[error("{} and its key cannot be used: {source}", path.display())]
    Unfit {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate and its key in two PEM files. Shown by what [`Self::server_config`] gives, and kept up by [`Self::keep_up`].
pub struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    /// Whether the paths are of files; what was given as text stays as it is.
    is_of_files: bool,
    provider: Arc<CryptoProvider>,
    shown: RwLock<Arc<CertifiedKey>>,
    seen: RwLock<Seen>,
}

/// What the files held when they were last looked at.
struct Seen {
    files: Files,
    is_fit: bool,
}

#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What became of looking at the files again.
#[derive(Debug)]
pub enum Reloaded {
    /// They are as they were.
    Same,
    /// What they hold now is shown from now on.
    New,
    /// They cannot be used: what was shown is shown still.
    Broken(CertificateError),
}

impl Certificates {
    /// Reads and checks both files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        Self::of(cert, key, Files { cert: read(cert)?, key: read(key)? }, true)
    }

    /// Of a certificate (or a chain, the end first) and its key in PEM, which never change.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn of_pem(cert: Vec<u8>, key: Vec<u8>) -> Result<Arc<Self>, CertificateError> {
        Self::of(Path::new("the certificate"), Path::new("the key"), Files { cert, key }, false)
    }

    fn of(cert: &Path, key: &Path, files: Files, is_of_files: bool) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let shown = certified(cert, key, &files, &provider)?;
        let (cert, key) = (cert.to_owned(), key.to_owned());
        Ok(Arc::new(Self {
            cert,
            key,
            is_of_files,
            provider,
            shown: RwLock::new(shown),
            seen: RwLock::new(Seen { files, is_fit: true }),
        }))
    }

    /// Looks at the files again. The same broken files are an error once, and [`Reloaded::Same`] then, unless somebody `asks`.
    pub fn reload(&self, asks: bool) -> Reloaded {
        match self.try_reload(asks) {
            Ok(reloaded) => reloaded,
            Err(error) => Reloaded::Broken(error),
        }
    }

    fn try_reload(&self, asks: bool) -> Result<Reloaded, CertificateError> {
        if !self.is_of_files {
            return Ok(Reloaded::Same);
        }
        let files = Files { cert: read(&self.cert)?, key: read(&self.key)? };
        let mut seen = self.seen.write();
        if seen.files == files && (seen.is_fit || !asks) {
            return Ok(Reloaded::Same);
        }
        let certified = certified(&self.cert, &self.key, &files, &self.provider);
        *seen = Seen { files, is_fit: certified.is_ok() };
        *self.shown.write() = certified?;
        Ok(Reloaded::New)
    }

    /// What is shown now.
    pub fn shown(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.read())
    }

    /// A listener's side of TLS 1.2 and 1.3 that shows the certificate to whoever comes, and speaks one of `protocols` (ALPN).
    ///
    /// # Errors
    /// When the versions do not fit the cipher suites, which they do.
    pub fn server_config(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
        server_config(Arc::clone(self) as _, protocols)
    }

    /// Looks at the files every [`LOOK_INTERVAL`], and when `wanted` changes, until its sender is gone. What it finds is
    /// logged.
    pub async fn keep_up(self: Arc<Self>, mut wanted: watch::Receiver<()>) {
        let mut said_unreadable = false;
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
                wanted = wanted.changed() => match wanted {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
            let files = Arc::clone(&self);
            // Files may stand on a disk that hangs.
            let Ok(reloaded) = tokio::task::spawn_blocking(move || files.reload(asked)).await else { return };
            let certificate = self.cert.display();
            match reloaded {
                Reloaded::Same if asked => tracing::info!(%certificate, "the certificate is as it was"),
                Reloaded::Same => {}
                Reloaded::New => {
                    metrics::counter!("postrider_certificate_reloads_total", "result" => "new").increment(1);
                    tracing::info!(%certificate, "a new certificate is shown from now on");
                }
                Reloaded::Broken(error) => {
                    let is_unreadable = matches!(error, CertificateError::Read { .. });
                    if !is_unreadable || !said_unreadable || asked {
                        metrics::counter!("postrider_certificate_reloads_total", "result" => "broken").increment(1);
                        tracing::error!(%certificate, %error, "the new certificate cannot be used; the old one is shown still");
                    }
                    said_unreadable = is_unreadable;
                    continue;
                }
            }
            said_unreadable = false;
        }
    }
}

/// A listener's side of TLS 1.2 and 1.3 that shows clients what `shown` chooses, and speaks one of `protocols` (ALPN).
///
/// # Errors
/// When the versions do not fit the cipher suites, which they do.
pub fn server_config(
    shown: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        write!(f, "Certificates({})", self.cert.display())
    }
}

/// Describes what is counted here to the recorder.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "postrider_certificate_reloads_total",
        metrics::Unit::Count,
        "Certificates of processes and listeners whose files had changed: new ones that are shown, and broken ones that are not."
    );
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {length} bytes"))));
    }
    std::fs::read(path).map_err(failed)
}

fn certified(
    cert: &Path,
    key: &Path,
    files: &Files,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_slice_iter(&files.cert).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(pem(cert, "a certificate"))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: cert.to_owned() });
    }
    let secret = PrivateKeyDer::from_pem_slice(&files.key).map_err(pem(key, "a key"))?;
    // Also checks that the key is the certificate's.
    let certified = CertifiedKey::from_der(chain, secret, provider)
        .map_err(|source| CertificateError::Unfit { path: cert.to_owned(), source })?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = Self { dir: tempfile::tempdir().unwrap() };
            place.write(&signed("a.example"));
            place
        }

        fn paths(&self) -> (PathBuf, PathBuf) {
            (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"))
        }

        fn write(&self, (cert, key): &(String, String)) {
            std::fs::write(self.paths().0, cert).unwrap();
            std::fs::write(self.paths().1, key).unwrap();
        }

        fn load(&self) -> Result<Arc<Certificates>, CertificateError> {
            Certificates::load(&self.paths().0, &self.paths().1)
        }
    }

    fn signed(name: &str) -> (String, String) {
        let signed = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (signed.cert.pem(), signed.signing_key.serialize_pem())
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.shown.read().cert[0].to_vec()
    }

    #[test]
    fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
        let place = Place::new();
        let certificates = place.load().unwrap();
        let first = shown(&certificates);
        assert!(matches!(certificates.reload(false), Reloaded::Same));
        // Half of a replacement: the new certificate with the old key.
        let second = signed("b.example");
        std::fs::write(place.paths().0, &second.0).unwrap();
        assert!(matches!(certificates.reload(false), Reloaded::Broken(CertificateError::Unfit { .. })));
        assert!(matches!(certificates.reload(false), Reloaded::Same), "said once");
        assert!(matches!(certificates.reload(true), Reloaded::Broken(_)), "and to whoever asks");
        assert_eq!(shown(&certificates), first);
        place.write(&second);
        assert!(matches!(certificates.reload(false), Reloaded::New));
        let second = shown(&certificates);
        assert_ne!(second, first);
        for broken in
            ["", "-----BEGIN CERTIFICATE-----\nAAAA", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            std::fs::write(place.paths().0, broken).unwrap();
            assert!(matches!(certificates.reload(false), Reloaded::Broken(_)), "{broken:?}");
            assert_eq!(shown(&certificates), second);
        }
        std::fs::remove_file(place.paths().0).unwrap();
        assert!(matches!(certificates.reload(false), Reloaded::Broken(CertificateError::Read { .. })));
        assert_eq!(shown(&certificates), second);
    }

    #[test]
    fn what_is_wrong_at_the_start_is_said() {
        let place = Place::new();
        place.write(&(signed("a.example").0, signed("b.example").1));
        let error = place.load().unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        place.write(&(signed("a.example").0, "no key".to_owned()));
        let error = place.load().unwrap_err().to_string();
        assert!(error.contains("key.pem holds a key that cannot be read"), "{error}");
    }
}
