//! What the shard map said last, for a start while no storage node can be reached.

use std::path::Path;

use anyhow::Context as _;
use postrider_api::pb;
use prost::Message as _;

use crate::files::{self, Access};

const FILE: &str = "shard-map";

/// Keeps what zones are made of: domains with their public keys, regions, residency zones and certificates without their keys.
pub(super) fn keep(dir: &Path, map: &pb::ShardMap) -> anyhow::Result<()> {
    let public = |domain: &pb::Domain| {
        let mut domain = domain.clone();
        domain.dkim_keys.iter_mut().for_each(|key| key.wrapped_private_key.clear());
        domain
    };
    let certificate = |certificate: &pb::PublicCertificate| pb::PublicCertificate {
        wrapped_private_key: Default::default(),
        ..certificate.clone()
    };
    let kept = pb::ShardMap {
        version: map.version,
        domains: map.domains.iter().map(public).collect(),
        regions: map.regions.clone(),
        zones: map.zones.clone(),
        public_certificates: map.public_certificates.iter().map(certificate).collect(),
        ..pb::ShardMap::default()
    };
    files::write_atomically(&dir.join(FILE), &kept.encode_to_vec(), Access::Public)
}

/// `None`: nothing was kept yet.
pub(super) fn load(dir: &Path) -> anyhow::Result<Option<pb::ShardMap>> {
    let path = dir.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let map = pb::ShardMap::decode(bytes.as_slice());
            map.map(Some).with_context(|| format!("{} is damaged: remove it", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let key = pb::DkimKey {
            selector: "s1".into(),
            public_key: vec![1].into(),
            wrapped_private_key: vec![2].into(),
            ..Default::default()
        };
        let domain = pb::Domain { name: "example.org".into(), dkim_keys: vec![key], ..Default::default() };
        let certificate = pb::PublicCertificate {
            name: "mx.example.org".into(),
            chain: vec![1].into(),
            wrapped_private_key: vec![2].into(),
            ..Default::default()
        };
        let public_certificates = vec![certificate];
        let map = pb::ShardMap { version: 7, domains: vec![domain], public_certificates, ..Default::default() };
        keep(dir.path(), &map).unwrap();
        let loaded = load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.version, 7);
        let key = &loaded.domains[0].dkim_keys[0];
        assert!(!key.public_key.is_empty() && key.wrapped_private_key.is_empty());
        let certificate = &loaded.public_certificates[0];
        assert!(!certificate.chain.is_empty() && certificate.wrapped_private_key.is_empty());
    }
}
