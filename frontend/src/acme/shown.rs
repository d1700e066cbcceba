//! The certificates that were issued, as listeners show them: by the name that a client asks for, and what files hold to everybody else.
//!
//! Invariant: what is shown has been checked whole, and has not expired.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use postrider_api::certificates::Certificates;
use postrider_api::env::Clock;
use postrider_api::identity::Holder;
use postrider_api::pb;
use postrider_dns::zone::build::TTL_S;
use postrider_outgoing::seal::Sealer;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// How long a new key is known before senders of mail are shown it: until then resolvers may have TLSA records without it, and who
/// verifies by them sends no mail (RFC 7671 section 8.1: two TTLs).
pub const KEY_KNOWN_MIN: Duration = Duration::from_secs(2 * TTL_S as u64);

/// What a private key is sealed to.
pub(super) fn key_name(certificate: &str) -> Vec<u8> {
    format!("certificate\0{certificate}").into_bytes()
}

/// A chain in PEM with the key (PKCS #8, DER) that belongs to it.
pub(super) fn certified(chain: &[u8], key: Vec<u8>, provider: &CryptoProvider) -> Result<CertifiedKey, rustls::Error> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| rustls::Error::General(format!("the chain: {error}")))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    CertifiedKey::from_der(chain, key, provider)
}

/// The certificates of the shard map, opened.
pub struct PublicCertificates {
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    provider: CryptoProvider,
    opened: RwLock<Vec<Arc<Opened>>>,
}

struct Opened {
    name: String,
    hosts: Vec<String>,
    expires_ms: i64,
    key_since_ms: i64,
    /// What it was opened from.
    chain: Bytes,
    wrapped: Bytes,
    shown: Arc<CertifiedKey>,
}

impl PublicCertificates {
    /// None so far.
    pub fn new(sealer: Sealer, clock: Arc<dyn Clock>) -> Arc<Self> {
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(Self { sealer, clock, provider, opened: RwLock::default() })
    }

    /// Shows what the map has, as it changes.
    pub async fn follow(self: Arc<Self>, mut changes: watch::Receiver<Arc<pb::ShardMap>>) {
        loop {
            let map = changes.borrow_and_update().clone();
            self.take_up(&map);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shows what the map has, from the next connection on. What cannot be opened leaves what was shown before.
    pub fn take_up(&self, map: &pb::ShardMap) {
        let before = self.opened.read().clone();
        let issued = map.public_certificates.iter().filter(|certificate| !certificate.chain.is_empty());
        let mut now = Vec::new();
        for certificate in issued {
            let known = before.iter().find(|known| known.name == certificate.name);
            let is_same = |known: &Opened| {
                (&known.chain, &known.wrapped) == (&certificate.chain, &certificate.wrapped_private_key)
            };
            now.extend(match known.cloned() {
                Some(known) if is_same(&known) => Some(known),
                known => match self.open(certificate) {
                    Ok(opened) => {
                        tracing::info!(certificate = certificate.name, "a public certificate is shown from now on");
                        Some(Arc::new(opened))
                    }
                    Err(error) => {
                        tracing::error!(certificate = certificate.name, error, "a public certificate cannot be shown");
                        known
                    }
                },
            });
        }
        for opened in &now {
            let expires =
                metrics::gauge!("postrider_public_certificate_expires_seconds", "certificate" => opened.name.clone());
            expires.set(opened.expires_ms as f64 / 1000.0);
        }
        *self.opened.write() = now;
    }

    fn open(&self, certificate: &pb::PublicCertificate) -> Result<Opened, String> {
        let said = |error: &dyn fmt::Display| error.to_string();
        let wrapped = &certificate.wrapped_private_key;
        let key = self.sealer.open(&key_name(&certificate.name), wrapped).map_err(|error| said(&error))?;
        let shown = certified(&certificate.chain, key, &self.provider).map_err(|error| said(&error))?;
        let first = shown.cert.first().ok_or_else(|| said(&"the chain is empty"))?;
        let holder = Holder::of(first).map_err(|error| said(&error))?;
        Ok(Opened {
            name: certificate.name.clone(),
            hosts: holder.hosts,
            expires_ms: certificate.expires_ms,
            key_since_ms: certificate.key_since_ms,
            chain: certificate.chain.clone(),
            wrapped: wrapped.clone(),
            shown: Arc::new(shown),
        })
    }

    /// The one that is for this host, whose key has been known for so long. Of several one that names it (another's wildcard has another
    /// key), and of those the one that is good for longest.
    fn of(&self, host: &str, known_min: Duration) -> Option<Arc<CertifiedKey>> {
        let now = self.clock.wall_ms();
        let known_min = i64::try_from(known_min.as_millis()).unwrap_or(i64::MAX);
        let opened = self.opened.read();
        let fit = opened.iter().filter(|opened| {
            opened.expires_ms > now
                && now.saturating_sub(opened.key_since_ms) >= known_min
                && opened.hosts.iter().any(|name| covers(name, host))
        });
        let is_named = |opened: &Opened| opened.hosts.iter().any(|name| name.eq_ignore_ascii_case(host));
        fit.max_by_key(|opened| (is_named(opened), opened.expires_ms)).map(|opened| Arc::clone(&opened.shown))
    }
}

/// Whether a name in a certificate is for this host: RFC 6125 section 6.4.3, a wildcard is one whole label.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(above) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(above))
        }
        None => name.eq_ignore_ascii_case(host),
    }
}

/// What one listener shows.
pub struct Shown {
    /// To whom no public one fits.
    pub files: Arc<Certificates>,
    /// By the name that is asked for.
    pub public: Arc<PublicCertificates>,
    /// The name that is meant where a client says none; senders of mail mostly do not.
    pub host: Option<String>,
    /// How long a public certificate's key must have been known.
    pub known_min: Duration,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().or(self.host.as_deref());
        let public = host.and_then(|host| self.public.of(host, self.known_min));
        Some(public.unwrap_or_else(|| self.files.shown()))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({:?}, {:?})", self.files, self.host)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use postrider_api::env::SystemEntropy;

    use super::*;

    const SEALED: &str = "test";

    #[derive(Debug)]
    struct At(AtomicI64);

    impl Clock for At {
        fn wall_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn issued(name: &str, hosts: &[&str], secret: &[u8; 32]) -> pb::PublicCertificate {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let signed = rcgen::generate_simple_self_signed(hosts).unwrap();
        let sealer = Sealer::new(SEALED, secret);
        pb::PublicCertificate {
            name: name.into(),
            chain: signed.cert.pem().into_bytes().into(),
            wrapped_private_key: sealer
                .seal(&key_name(name), &signed.signing_key.serialize_der(), &SystemEntropy)
                .into(),
            key_since_ms: 1_000,
            expires_ms: 1_000_000,
            ..pb::PublicCertificate::default()
        }
    }

    fn map(certificates: &[pb::PublicCertificate]) -> pb::ShardMap {
        pb::ShardMap { public_certificates: certificates.to_vec(), ..pb::ShardMap::default() }
    }

    #[test]
    fn the_name_chooses_once_its_key_is_known_and_until_it_expires() {
        let clock = Arc::new(At(AtomicI64::new(2_000)));
        let public = PublicCertificates::new(Sealer::new(SEALED, &[7; 32]), clock.clone());
        let certificates = [
            issued("a.example", &["a.example", "*.b.example"], &[7; 32]),
            issued("c.example", &["c.example"], &[7; 32]),
        ];
        public.take_up(&map(&certificates));
        let shown = |host: &str| public.of(host, Duration::ZERO).map(|shown| shown.cert[0].to_vec());
        let first = shown("a.example").unwrap();
        assert_eq!(shown("X.B.example"), Some(first.clone()), "names have no case");
        assert!(shown("c.example").is_some_and(|other| other != first));
        for none in ["b.example", "x.y.b.example", ".b.example", "example", ""] {
            assert_eq!(shown(none), None, "{none}");
        }
        assert!(public.of("a.example", Duration::from_secs(1)).is_some());
        assert!(public.of("a.example", Duration::from_secs(2)).is_none(), "its key is not known for so long");
        clock.0.store(1_000_000, Ordering::Relaxed);
        assert_eq!(shown("a.example"), None, "it has expired");
    }

    #[test]
    fn what_does_not_open_leaves_what_was_shown() {
        let clock = Arc::new(At(AtomicI64::new(2_000)));
        let public = PublicCertificates::new(Sealer::new(SEALED, &[7; 32]), clock);
        let first = issued("a.example", &["a.example"], &[7; 32]);
        public.take_up(&map(std::slice::from_ref(&first)));
        let shown = || public.of("a.example", Duration::ZERO).map(|shown| shown.cert[0].to_vec());
        let before = shown();
        assert!(before.is_some());
        // Of another cluster, and a chain of another key.
        let foreign = issued("a.example", &["a.example"], &[8; 32]);
        public.take_up(&map(std::slice::from_ref(&foreign)));
        assert_eq!(shown(), before);
        public.take_up(&map(&[pb::PublicCertificate { chain: foreign.chain, ..first.clone() }]));
        assert_eq!(shown(), before);
        public.take_up(&map(&[issued("a.example", &["a.example"], &[7; 32])]));
        assert!(shown().is_some_and(|after| Some(after) != before), "a renewed one");
        public.take_up(&map(&[]));
        assert_eq!(shown(), None, "it is wanted no more");
    }
}
