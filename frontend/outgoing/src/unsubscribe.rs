//! Links by which a recipient of bulk mail gets no more of it, with one click (RFC 8058).
//!
//! A link names the sender and the recipient, and carries a tag that only this cluster can make: whoever has it can take himself from the
//! sender's mail, and can do nothing else with it. It counts for ever: mail is read late.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_api::address::RemoteAddress;
use postrider_api::id::UserId;
use postrider_api::limit::ADDRESS_BYTES_MAX;

use crate::return_path::is_same;

/// The form of what is in a token.
const FORM_VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
/// Version and sender.
const HEAD_BYTES: usize = 1 + 16;
/// Characters of the longest token.
const TOKEN_CHARS_MAX: usize = ((HEAD_BYTES + ADDRESS_BYTES_MAX + TAG_BYTES) * 4).div_ceil(3);

/// Makes and reads tokens of links.
#[derive(Clone)]
pub struct UnsubscribeTokens([u8; 32]);

impl UnsubscribeTokens {
    /// Under the secret of frontends and workers.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("postrider 2026 unsubscribe", secret))
    }

    /// For the mail of one sender to one recipient outside.
    pub fn token(&self, sender: UserId, recipient: &str) -> String {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + recipient.len() + TAG_BYTES);
        bytes.push(FORM_VERSION);
        bytes.extend_from_slice(&sender.0);
        bytes.extend_from_slice(recipient.as_bytes());
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose mail it is of, and to whom; `None` of a token that was not made here.
    pub fn read(&self, token: &str) -> Option<(UserId, RemoteAddress)> {
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (content, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        if !is_same(&self.tag(content), tag) {
            return None;
        }
        let (version, rest) = content.split_first()?;
        let (sender, recipient) = rest.split_first_chunk::<16>()?;
        let recipient = std::str::from_utf8(recipient).ok()?;
        (*version == FORM_VERSION).then_some((UserId(*sender), RemoteAddress::parse(recipient).ok()?))
    }

    fn tag(&self, content: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&self.0, content);
        std::array::from_fn(|at| hash.as_bytes()[at])
    }
}

/// The header fields of a message that has such a link (RFC 8058 section 3.1), to be put on top of it before it is signed.
pub fn fields(url: &str) -> String {
    format!("List-Unsubscribe: <{url}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
}

/// What a one-click POST has in its form (RFC 8058 section 3.2): the whole of it, or a part among others.
pub fn is_one_click(form: &str) -> bool {
    form.split('&').any(|pair| pair.trim() == "List-Unsubscribe=One-Click")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_of_one_sender_and_one_recipient() {
        let tokens = UnsubscribeTokens::new(&[1; 32]);
        let token = tokens.token(UserId([7; 16]), "Bob@far.example");
        let (sender, recipient) = tokens.read(&token).unwrap();
        assert_eq!((sender, recipient.as_str()), (UserId([7; 16]), "Bob@far.example"));
        assert!(UnsubscribeTokens::new(&[2; 32]).read(&token).is_none(), "another cluster's");
        let mut changed = URL_SAFE_NO_PAD.decode(&token).unwrap();
        changed[HEAD_BYTES] ^= 1;
        assert!(tokens.read(&URL_SAFE_NO_PAD.encode(changed)).is_none());
        for text in ["", "x", "\u{e9}", &"a".repeat(10_000)] {
            assert!(tokens.read(text).is_none(), "{text:.10}");
        }
    }

    #[test]
    fn the_fields_are_those_of_rfc_8058() {
        let fields = fields("https://api.near.example/v1/unsubscribe/abc");
        assert_eq!(
            fields,
            "List-Unsubscribe: <https://api.near.example/v1/unsubscribe/abc>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        );
        let longest = UnsubscribeTokens::new(&[1; 32]).token(UserId([7; 16]), &"a".repeat(ADDRESS_BYTES_MAX));
        assert!(longest.len() <= TOKEN_CHARS_MAX, "a line of a header has room for it");
        assert!(is_one_click("List-Unsubscribe=One-Click") && is_one_click("a=b&List-Unsubscribe=One-Click"));
        assert!(!is_one_click("") && !is_one_click("List-Unsubscribe=Two"));
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_by_chance(text in "[A-Za-z0-9_-]{0,80}") {
            prop_assert!(UnsubscribeTokens::new(&[1; 32]).read(&text).is_none());
        }
    }
}
