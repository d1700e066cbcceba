//! Who holds the administrator's token.

use http::HeaderMap;

use crate::rest::credentials::bearer;

/// The token's hash. Without a token nobody is the administrator.
#[derive(Clone)]
pub(crate) struct Administrator(Option<blake3::Hash>);

impl Administrator {
    /// Whoever shows `token`.
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self(token.map(|token| blake3::hash(token.as_bytes())))
    }

    /// Whether a request shows the token.
    pub(crate) fn asks(&self, headers: &HeaderMap) -> bool {
        let shown = bearer(headers).map(|token| blake3::hash(token.as_bytes()));
        self.is(shown)
    }

    /// Whether a request shows the token in a field of its own, beside another one.
    pub(crate) fn is_named(&self, headers: &HeaderMap, field: &str) -> bool {
        self.is(headers.get(field).map(|token| blake3::hash(token.as_bytes())))
    }

    fn is(&self, shown: Option<blake3::Hash>) -> bool {
        // Hashes of blake3 are compared in constant time.
        matches!((shown, self.0), (Some(shown), Some(token)) if shown == token)
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn without_a_token_nobody_is() {
        let shows = |token: &str| HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
        assert!(Administrator::new(Some("a")).asks(&shows("a")));
        assert!(!Administrator::new(Some("a")).asks(&shows("b")));
        assert!(!Administrator::new(Some("a")).asks(&HeaderMap::new()));
        assert!(!Administrator::new(None).asks(&shows("")));
        assert!(!Administrator::new(None).asks(&HeaderMap::new()));
    }
}
