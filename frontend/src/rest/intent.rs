//! Sameness of requests: the Idempotency-Key of a client (P-6).
//!
//! Invariant: the fingerprint is a keyed hash. It is stored in logs and rows, and a plain hash of a body with a password in
//! it would be an invitation to guess.

use std::io;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use postrider_api::address::Address;
use postrider_api::env::{self, Entropy};
use postrider_api::id::{RequestId, UserId};
use postrider_api::request;
use serde::Serialize;

use crate::account::Intent;
use crate::rest::limit::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::rest::problem::{Kind, Problem};

/// A request's Idempotency-Key, if it has one, and what the request is.
pub(crate) struct Repeat(Option<Keyed>);

struct Keyed {
    key: String,
    method: Method,
    path: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Repeat {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut fields = parts.headers.get_all("idempotency-key").iter();
        let Some(field) = fields.next() else { return Ok(Self(None)) };
        let key = field.to_str().ok().filter(|key| {
            let fits = !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX;
            fits && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        });
        match (key, fields.next()) {
            (Some(key), None) => Ok(Self(Some(Keyed {
                key: key.to_owned(),
                method: parts.method.clone(),
                path: parts.uri.path().to_owned(),
            }))),
            _ => Err(Problem::new(Kind::InvalidHeader).detail(format!(
                "Idempotency-Key is given once, with 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"
            ))),
        }
    }
}

/// Makes intents.
#[derive(Clone)]
pub(crate) struct Intents {
    key: [u8; 32],
    entropy: Arc<dyn Entropy>,
}

impl Intents {
    /// All frontends of a cluster have the same key: a client may ask again at another one.
    pub(crate) fn new(key: [u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self { key, entropy }
    }

    /// The intent of a request with a body. Two bodies are the same when they mean the same: neither white space nor the
    /// order of members counts.
    pub(crate) fn of<B: Serialize>(&self, scope: UserId, repeat: &Repeat, body: &B) -> Result<Intent, Problem> {
        let Some(keyed) = &repeat.0 else {
            let request = RequestId(env::random(&*self.entropy));
            return Ok(Intent { request, fingerprint: Bytes::new(), repeatable: false });
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(keyed.method.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(keyed.path.as_bytes());
        hasher.update(&[0]);
        serde_json::to_writer(io::BufWriter::new(&mut hasher), body)
            .map_err(|_| Problem::internal("a body cannot be written as JSON"))?;
        let fingerprint = Bytes::copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let request = request::of_idempotency_key(scope, &keyed.key);
        Ok(Intent { request, fingerprint, repeatable: true })
    }

    /// The intent of a request without a body.
    pub(crate) fn without_body(&self, scope: UserId, repeat: &Repeat) -> Result<Intent, Problem> {
        self.of(scope, repeat, &())
    }
}

/// Whom a key belongs to while there is no session: whoever names this address. What is no address belongs to nobody else.
pub(crate) fn address_scope(address: &str) -> UserId {
    let hash = match Address::parse(address) {
        Ok(address) => blake3::hash(address.as_str().as_bytes()),
        Err(_) => blake3::hash(address.as_bytes()),
    };
    let mut scope = [0; 16];
    scope.copy_from_slice(&hash.as_bytes()[..16]);
    UserId(scope)
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    fn repeat(key: &str, path: &str) -> Repeat {
        Repeat(Some(Keyed { key: key.to_owned(), method: Method::POST, path: path.to_owned() }))
    }

    #[test]
    fn same_request_same_intent() {
        let intents = Intents::new([5; 32], SystemEntropy::shared());
        let (ada, bob) = (UserId::new(ZoneId(1), Slot(1), [1; 12]), UserId::new(ZoneId(1), Slot(1), [2; 12]));
        let of = |user, key: &str, path: &str, body: &str| {
            let intent = intents.of(user, &repeat(key, path), &body).unwrap();
            (intent.request, intent.fingerprint)
        };
        let first = of(ada, "k", "/v1/messages", "hello");
        assert_eq!(first, of(ada, "k", "/v1/messages", "hello"));
        assert_ne!(first.0, of(bob, "k", "/v1/messages", "hello").0);
        assert_ne!(first.0, of(ada, "l", "/v1/messages", "hello").0);
        assert_ne!(first.1, of(ada, "k", "/v1/messages", "hallo").1);
        assert_ne!(first.1, of(ada, "k", "/v1/folders", "hello").1);
    }

    #[test]
    fn without_a_key_each_request_is_its_own() {
        let intents = Intents::new([5; 32], SystemEntropy::shared());
        let user = UserId::new(ZoneId(1), Slot(1), [1; 12]);
        let request = || intents.of(user, &Repeat(None), &"body").unwrap().request;
        assert_ne!(request(), request());
    }

    #[test]
    fn one_scope_per_address() {
        assert_eq!(address_scope("Ada@X.example"), address_scope("ada@x.example"));
        assert_ne!(address_scope("ada@x.example"), address_scope("bob@x.example"));
    }
}
