//! Whose keys a message is signed with.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moka::sync::Cache;
use postrider_api::pb::{self, DkimAlgorithm};
use postrider_outgoing::dkim::{Algorithm, KeySealer, Signer, sign};
use postrider_outgoing::dns::Domain;

use crate::worker::delivery::Entry;

/// Keys that are kept opened.
const SIGNERS_MAX: u64 = 10_000;

/// Opens keys, and keeps them.
pub(super) struct Signers {
    keys: Option<KeySealer>,
    opened: Cache<Bytes, Arc<Signer>>,
}

impl Signers {
    pub(super) fn new(keys: Option<KeySealer>) -> Self {
        Self { keys, opened: Cache::new(SIGNERS_MAX) }
    }

    /// The message with its signatures on top; as it is where its domain has no keys. An error says why it has to wait: mail of a
    /// domain that has keys does not leave unsigned.
    pub(super) fn signed(&self, map: &pb::ShardMap, entry: &Entry, raw: &Bytes, at_s: i64) -> Result<Bytes, String> {
        let signers = self.of(map, entry)?;
        if signers.is_empty() {
            metrics::counter!("postrider_worker_unsigned_total").increment(1);
            return Ok(raw.clone());
        }
        let fields = sign(raw, signers.iter().map(|signer| &**signer), at_s).map_err(|error| error.to_string())?;
        let mut whole = BytesMut::with_capacity(fields.len() + raw.len());
        whole.extend_from_slice(&fields);
        whole.extend_from_slice(raw);
        Ok(whole.freeze())
    }

    /// The keys of the author's domain (RFC 7489 section 3.1: what receivers compare), or else of the reverse-path's.
    fn of(&self, map: &pb::ShardMap, entry: &Entry) -> Result<Vec<Arc<Signer>>, String> {
        let from = entry.message.envelope.iter().flat_map(|envelope| &envelope.from).map(|mailbox| &mailbox.email);
        let domains = from.chain([&entry.mail_from]).filter_map(|address| address.rsplit_once('@'));
        let ours = domains.filter_map(|(_, name)| name.parse::<Domain>().ok()).find_map(|domain| {
            let record = map.domains.iter().find(|record| record.name == domain.as_str())?;
            let keys: Vec<_> = record.dkim_keys.iter().filter(|key| key.retired_ms == 0).collect();
            (!keys.is_empty()).then_some((domain, keys))
        });
        let Some((domain, keys)) = ours else { return Ok(Vec::new()) };
        keys.into_iter().map(|key| self.open(&domain, key)).collect()
    }

    fn open(&self, domain: &Domain, key: &pb::DkimKey) -> Result<Arc<Signer>, String> {
        let wrapped = &key.wrapped_private_key;
        if let Some(signer) = self.opened.get(wrapped).filter(|signer| signer.domain == *domain) {
            return Ok(signer);
        }
        let why = |why: &dyn std::fmt::Display| format!("the DKIM key {} of {domain}: {why}", key.selector);
        let keys = self.keys.as_ref().ok_or_else(|| why(&"this worker does not have the secret that opens it"))?;
        let algorithm = match key.algorithm() {
            DkimAlgorithm::Ed25519Sha256 => Algorithm::Ed25519,
            DkimAlgorithm::RsaSha256 => Algorithm::RsaSha256,
            DkimAlgorithm::Unspecified => return Err(why(&"its algorithm is not known to this build")),
        };
        let opened = keys.open(domain, &key.selector, algorithm, wrapped).map_err(|error| why(&error))?;
        let signer = Arc::new(Signer { domain: domain.clone(), selector: key.selector.clone(), key: opened });
        self.opened.insert(wrapped.clone(), Arc::clone(&signer));
        Ok(signer)
    }
}
