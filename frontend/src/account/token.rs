//! Session tokens: base64url of the user's id and a secret of 256 bits. Shards keep the secret's hash only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use postrider_api::env::{self, Entropy};
use postrider_api::id::{RequestId, UserId};
use postrider_api::pb;

/// Characters of a token: 48 bytes in base64url.
pub const TOKEN_CHARS: usize = 64;

/// A session's token. Not `Debug`: it must not get into a log.
#[derive(Clone)]
pub struct Token {
    user: UserId,
    secret: [u8; 32],
}

impl Token {
    /// A token with a new secret.
    pub fn random(user: UserId, entropy: &dyn Entropy) -> Self {
        Self { user, secret: env::random(entropy) }
    }

    /// The one token of a repeatable request: asked again, the client gets the same.
    pub fn derived(user: UserId, key: &[u8; 32], request: RequestId) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&user.0);
        hasher.update(&request.0);
        Self { user, secret: *hasher.finalize().as_bytes() }
    }

    /// `None` when the text is no token. Exactly the form that [`Self::text`] writes: no padding, no stray bits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TOKEN_CHARS {
            return None;
        }
        let mut bytes = [0; 48];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let (user, secret) = bytes.split_first_chunk::<16>()?;
        Some(Self { user: UserId(*user), secret: secret.try_into().ok()? })
    }

    /// The token as its owner carries it.
    pub fn text(&self) -> String {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&self.user.0);
        bytes[16..].copy_from_slice(&self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose token it claims to be; true only once a shard has checked the proof.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// What the shard knows of the secret.
    pub fn hash(&self) -> Bytes {
        Bytes::copy_from_slice(blake3::hash(&self.secret).as_bytes())
    }

    /// What every request of the session carries to the shard.
    pub fn proof(&self) -> pb::SessionProof {
        pb::SessionProof { user_id: self.user.to_bytes(), token_hash: self.hash() }
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    #[test]
    fn one_text_per_token() {
        let token = Token::random(UserId::new(ZoneId(1), Slot(7), [9; 12]), &SystemEntropy);
        let text = token.text();
        assert_eq!(text.len(), TOKEN_CHARS);
        let parsed = Token::parse(&text).unwrap();
        assert_eq!(parsed.user(), token.user());
        assert_eq!(parsed.hash(), token.hash());
        for bad in [&text[1..], &format!("{text}A"), &format!("{}=", &text[1..]), &format!("{}+", &text[1..]), ""] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_derived_token_depends_on_everything() {
        let user = UserId::new(ZoneId(1), Slot(7), [9; 12]);
        let token = |user, key: u8, request: u8| Token::derived(user, &[key; 32], RequestId([request; 16])).text();
        assert_eq!(token(user, 1, 1), token(user, 1, 1));
        assert_ne!(token(user, 1, 1), token(user, 2, 1));
        assert_ne!(token(user, 1, 1), token(user, 1, 2));
        assert_ne!(token(user, 1, 1), token(UserId::new(ZoneId(1), Slot(8), [9; 12]), 1, 1));
    }
}
