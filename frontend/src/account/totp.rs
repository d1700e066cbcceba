//! One-time passwords by time (RFC 6238), their secrets as they lie in shards, and recovery codes.
//!
//! Invariant: no clock and no network; which code was taken already is for the shard to say.

use std::fmt;

use postrider_api::env::{self, Entropy};
use postrider_api::id::UserId;
use postrider_api::limit::TOTP_STEP_MS;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// A secret, bytes. RFC 4226 section 4, R6: 160 bits are recommended.
pub const SECRET_BYTES: usize = 20;
/// Digits of a code (RFC 4226 section 5.3: at least six).
pub const DIGITS: usize = 6;
/// Codes are taken modulo that.
const MODULUS: u32 = 1_000_000;
/// How many steps a code may be early or late (RFC 6238 section 5.2 recommends one for what is late; clocks of telephones are early, too).
const STEPS_APART: u64 = 1;
/// Letters of a recovery code: 80 random bits, which nobody guesses within what attempts are let through.
const RECOVERY_LETTERS: usize = 16;
/// Letters between two hyphens.
const GROUP_LETTERS: usize = 4;
/// What is shown of either, with spaces, bytes.
const SHOWN_BYTES_MAX: usize = 64;
/// RFC 4648 section 6.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What somebody shows beside his password. Not `Debug`: it opens something.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    /// A code of an authenticator.
    Code(u32),
    /// A recovery code, in its canonical form.
    Recovery(String),
}

impl Shown {
    /// Reads what was typed: spaces and hyphens do not count, nor does the case of letters. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > SHOWN_BYTES_MAX {
            return None;
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        if text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::Code);
        }
        let text = text.to_ascii_uppercase();
        let is_recovery = text.len() == RECOVERY_LETTERS && text.bytes().all(|byte| ALPHABET.contains(&byte));
        is_recovery.then_some(Self::Recovery(text))
    }
}

/// Reads whatever somebody types; for fuzzing.
pub fn fuzz_shown(text: &str) {
    match Shown::parse(text) {
        Some(Shown::Code(code)) => assert!(code < MODULUS, "six digits"),
        Some(Shown::Recovery(code)) => {
            assert!(Shown::parse(&grouped(&code)) == Some(Shown::Recovery(code)), "its canonical form is itself");
        }
        None => {}
    }
}

/// A secret. Its `Debug` says nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(super) fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// As authenticators take it: RFC 4648 section 6, without padding, of which 160 bits need none.
    pub fn text(&self) -> String {
        base32(&self.0)
    }

    /// For a QR code: what most authenticators understand.
    pub fn uri(&self, address: &str) -> String {
        let label: String = address.bytes().map(escaped).collect();
        format!("otpauth://totp/Postrider:{label}?secret={}&issuer=Postrider", self.text())
    }

    /// The code of a time step (RFC 4226 section 5.3 with the step as counter).
    fn code(&self, step: u64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let bytes = tag.as_ref();
        let offset = bytes.last().map_or(0, |last| usize::from(last & 0xf));
        let word = bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word));
        (word & 0x7fff_ffff) % MODULUS
    }

    /// The newest step whose code this is, of those that are taken now.
    pub fn step_of(&self, code: u32, now_ms: i64) -> Option<u64> {
        let now = u64::try_from(now_ms / TOTP_STEP_MS).unwrap_or(0);
        // Each is compared, whichever it is.
        let steps = now.saturating_sub(STEPS_APART)..=now.saturating_add(STEPS_APART);
        steps.filter(|step| self.code(*step) == code).max()
    }
}

/// A byte of an address in a URI (RFC 3986 section 2.3).
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// Five bits a letter; what is left over of the last byte is dropped.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    text
}

/// A recovery code of random bits, in its canonical form.
pub(super) fn recovery_code(bits: &[u8; RECOVERY_LETTERS * 5 / 8]) -> String {
    base32(bits)
}

/// As it is shown.
pub(super) fn grouped(code: &str) -> String {
    let letters: Vec<char> = code.chars().collect();
    let groups: Vec<String> = letters.chunks(GROUP_LETTERS).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// What a shard keeps of a recovery code. It has too many bits to be guessed from its hash, so the hash needs no salt but its owner.
pub(super) fn recovery_hash(user: UserId, code: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("postrider 2026 recovery code");
    hasher.update(&user.0);
    hasher.update(code.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The form of what is sealed.
const FORMAT_VERSION: u8 = 1;
/// Before the sealed bytes: version and nonce.
const HEAD_BYTES: usize = 1 + NONCE_LEN;

/// Seals and opens secrets: AES-256-GCM under a key of the account's own, so that nonces can be random and no secret is another's.
pub(super) struct SecretSealer([u8; 32]);

impl SecretSealer {
    /// Under what frontends share.
    pub(super) fn new(shared: &[u8; 32]) -> Self {
        Self(blake3::derive_key("postrider 2026 second factor secrets", shared))
    }

    fn aead(&self, user: UserId) -> LessSafeKey {
        let key = blake3::keyed_hash(&self.0, &user.0);
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("a hash has as many bytes as a key");
        LessSafeKey::new(key)
    }

    pub(super) fn seal(&self, user: UserId, secret: &Secret, entropy: &dyn Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = env::random(entropy);
        let mut sealed = vec![FORMAT_VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&secret.0);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .aead(user)
            .seal_in_place_separate_tag(nonce, Aad::from(user.0), &mut sealed[HEAD_BYTES..])
            .expect("a secret is far shorter than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// `None`: it was sealed under another secret, for another account or by a newer build, or is damaged.
    pub(super) fn open(&self, user: UserId, sealed: &[u8]) -> Option<Secret> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *version != FORMAT_VERSION {
            return None;
        }
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.aead(user).open_in_place(nonce, Aad::from(user.0), &mut content).ok()?;
        Some(Secret(<[u8; SECRET_BYTES]>::try_from(&*opened).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    fn of_rfc() -> Secret {
        Secret(*b"12345678901234567890")
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA1: the last six of its eight digits.
        for (at_s, code) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            let step = at_s / 30;
            assert_eq!(of_rfc().code(step), code, "{at_s}");
            let now_ms = i64::try_from(at_s * 1000).unwrap();
            for apart_ms in [-30_000, 0, 30_000] {
                assert_eq!(of_rfc().step_of(code, now_ms + apart_ms), Some(step), "{at_s} {apart_ms}");
            }
            assert_eq!(of_rfc().step_of(code, now_ms + 60_000), None);
            assert!(step < 2 || of_rfc().step_of(code, now_ms - 60_000).is_none());
        }
    }

    #[test]
    fn secrets_are_written_as_authenticators_take_them() {
        assert_eq!(of_rfc().text(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let uri = of_rfc().uri("ada+x@xn--bcher-kva.example");
        assert_eq!(
            uri,
            "otpauth://totp/Postrider:ada%2Bx@xn--bcher-kva.example?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Postrider"
        );
        assert_eq!(format!("{:?}", of_rfc()), "Secret");
    }

    #[test]
    fn what_is_typed_is_read_as_it_was_meant() {
        assert!(Shown::parse("012 345") == Some(Shown::Code(12_345)));
        assert!(Shown::parse(" 999999 ") == Some(Shown::Code(999_999)));
        let code = recovery_code(&[0xf0; 10]);
        assert_eq!(grouped(&code).len(), 19);
        assert!(Shown::parse(&grouped(&code).to_lowercase()) == Some(Shown::Recovery(code)));
        for none in ["", "12345", "1234567", "12345x", "ABCD-EFGH-IJKL-MNO1", "١٢٣٤٥٦", &" ".repeat(100)] {
            assert!(Shown::parse(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_secret_opens_for_its_account_under_its_key_alone() {
        let user = |n| UserId::new(ZoneId(1), Slot(1), [n; 12]);
        let sealer = SecretSealer::new(&[1; 32]);
        let sealed = sealer.seal(user(1), &of_rfc(), &SystemEntropy);
        assert_eq!(sealer.open(user(1), &sealed), Some(of_rfc()));
        assert!(sealed.len() <= postrider_api::limit::SEALED_SECRET_BYTES_MAX);
        assert_eq!(sealer.open(user(2), &sealed), None);
        assert_eq!(SecretSealer::new(&[2; 32]).open(user(1), &sealed), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open(user(1), &damaged), None, "{at}");
            assert_eq!(sealer.open(user(1), &sealed[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_recovery_code_is_its_owners() {
        let user = |n| UserId::new(ZoneId(1), Slot(1), [n; 12]);
        assert_ne!(recovery_hash(user(1), "ABCD"), recovery_hash(user(2), "ABCD"));
        assert_ne!(recovery_hash(user(1), "ABCD"), recovery_hash(user(1), "ABCE"));
    }
}
