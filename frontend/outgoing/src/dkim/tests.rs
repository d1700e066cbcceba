//! Keys, what is published of them, and what is signed. That others accept the signatures is shown in `tests/real_peers.rs`.

use postrider_api::env::SystemEntropy;
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::canonical::{self, Field};
use super::*;
use crate::dns::Domain;
use crate::seal::SealError;

fn domain() -> Domain {
    "near.example".parse().unwrap()
}

#[test]
fn relaxed_forms_are_those_of_the_rfc() {
    // RFC 6376 section 3.4.5.
    let message = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n";
    let (fields, body) = canonical::split(message);
    let mut header = Vec::new();
    for field in &fields {
        canonical::field(field, &mut header);
        header.extend_from_slice(b"\r\n");
    }
    assert_eq!(header, b"a:X\r\nb:Y Z\r\n");
    let expected = ring::digest::digest(&ring::digest::SHA256, b" C\r\nD E\r\n");
    assert_eq!(canonical::body_hash(body), expected.as_ref());
    // Section 3.4.4: an empty body is empty.
    let empty = ring::digest::digest(&ring::digest::SHA256, b"");
    assert_eq!(canonical::body_hash(b"\r\n\r\n"), empty.as_ref());
    let mut out = Vec::new();
    canonical::field(&Field { name: b"Subject", value: b" \r\n \t " }, &mut out);
    assert_eq!(out, b"subject:");
}

#[test]
fn a_key_of_each_kind_signs_and_is_published() {
    for algorithm in [Algorithm::Ed25519, Algorithm::RsaSha256] {
        let key = DkimKey::generate(algorithm).unwrap();
        let public = key.public_key().unwrap();
        let text = txt_value(algorithm, &public).unwrap();
        let signature = key.sign(b"data").unwrap();
        match algorithm {
            Algorithm::Ed25519 => {
                assert!(text.starts_with("v=DKIM1; k=ed25519; p="));
                let hash = ring::digest::digest(&ring::digest::SHA256, b"data");
                UnparsedPublicKey::new(&ED25519, &public[12..]).verify(hash.as_ref(), &signature).unwrap();
            }
            Algorithm::RsaSha256 => {
                assert!(text.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"), "2048 bits: {text}");
                // Behind the head of a SubjectPublicKeyInfo of this size.
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public[24..]).verify(b"data", &signature).unwrap();
            }
        }
        let again = DkimKey::of_pkcs8(algorithm, key.pkcs8().to_vec()).unwrap();
        assert_eq!(again.public_key().unwrap(), public);
        assert!(DkimKey::of_pkcs8(algorithm, b"nonsense".to_vec()).is_err());
    }
}

#[test]
fn a_sealed_key_opens_under_its_own_name_only() {
    let key = DkimKey::generate(Algorithm::Ed25519).unwrap();
    let sealer = KeySealer::new(&[7; 32]);
    let sealed = sealer.seal(&domain(), "s1", &key, &SystemEntropy);
    assert!(!sealed.windows(16).any(|window| key.pkcs8().windows(16).any(|part| part == window)));
    let opened = sealer.open(&domain(), "s1", Algorithm::Ed25519, &sealed).unwrap();
    assert_eq!(opened.pkcs8(), key.pkcs8());
    let foreign = |sealer: &KeySealer, domain: &Domain, selector: &str, sealed: &[u8]| {
        sealer.open(domain, selector, Algorithm::Ed25519, sealed).err()
    };
    assert_eq!(foreign(&KeySealer::new(&[8; 32]), &domain(), "s1", &sealed), Some(Sealed::Seal(SealError::Foreign)));
    assert_eq!(foreign(&sealer, &domain(), "s2", &sealed), Some(Sealed::Seal(SealError::Foreign)));
    assert_eq!(
        foreign(&sealer, &"other.example".parse().unwrap(), "s1", &sealed),
        Some(Sealed::Seal(SealError::Foreign))
    );
    let mut newer = sealed.clone();
    newer[0] = 2;
    assert_eq!(foreign(&sealer, &domain(), "s1", &newer), Some(Sealed::Seal(SealError::Newer(2))));
    for cut in 0..sealed.len() {
        assert!(foreign(&sealer, &domain(), "s1", &sealed[..cut]).is_some());
    }
}

#[test]
fn what_a_reader_goes_by_is_signed_once_more_than_it_stands_there() {
    let signers: Vec<_> = [Algorithm::Ed25519, Algorithm::RsaSha256]
        .into_iter()
        .map(|algorithm| Signer {
            domain: domain(),
            selector: "s1".to_owned(),
            key: DkimKey::generate(algorithm).unwrap(),
        })
        .collect();
    let message = b"From: a@near.example\r\nTo: b@far.example\r\nSubject: x\r\nList-Id: <l>\r\n\r\nbody\r\n";
    let text = String::from_utf8(sign(message, &signers, 1_790_000_000).unwrap()).unwrap();
    assert_eq!(text.matches("DKIM-Signature: v=1; a=").count(), 2);
    assert!(text.lines().all(|line| line.len() <= 200) && text.ends_with("\r\n"));
    let unfolded = text.replace("\r\n\t ", "");
    assert!(unfolded.contains("h=From:From:Sender:Reply-To:To:To:"), "{unfolded}");
    assert!(unfolded.contains(":Subject:Subject:") && unfolded.contains(":List-Id;"), "{unfolded}");
}
