//! Addresses of what a message shows: they open one thing, for one session, for a while.
//!
//! What a message shows is fetched by a frame that has no session to show (its origin is opaque, so no cookie and no token goes along). Its
//! address says under which session, sealed (AES-256-GCM) by a key of the cluster: any frontend opens it, nobody reads it or makes one.
//!
//! Invariant (P-9): what an address opens is asked of the shard under the session that it was given out to, and is over with it.
//! Invariant: the same thing has the same address within the hour, so that a browser asks for it once: the nonce is a keyed hash of
//! what is sealed, and two texts under one nonce are as unlikely as two hashes that meet.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use postrider_api::env::Clock;
use postrider_api::id::{EmailId, UserId};
use postrider_api::pb;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::rest::extract::{Params, Peer};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::problem::{Kind, Problem};

/// Which form of address this is.
const VERSION: u8 = 1;
/// What is rounded to when an address ends, milliseconds: addresses of the same hour are the same.
const STEP_MS: i64 = 60 * 60 * 1000;
/// Bytes before the target: version, user, the hash of the session's token, the end.
const HEAD_BYTES: usize = 1 + 16 + 32 + 8;

/// What an address opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An image of the network, by its URL.
    Remote(String),
    /// A part of a message, by its number.
    Part(EmailId, String),
}

const REMOTE: u8 = 1;
const PART: u8 = 2;

/// Gives addresses and opens them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Grants {
    seal: Arc<LessSafeKey>,
    nonce_key: [u8; 32],
    clock: Arc<dyn Clock>,
}

/// What an address says.
struct Grant {
    user: UserId,
    proof: pb::SessionProof,
    target: Target,
}

impl Grants {
    /// All frontends of a cluster have the same key.
    pub(crate) fn new(key: &[u8; 32], clock: Arc<dyn Clock>) -> Self {
        let part = |purpose| blake3::derive_key(purpose, key);
        let unbound = UnboundKey::new(&AES_256_GCM, &part("postrider 2026 grant content"));
        let seal = LessSafeKey::new(unbound.expect("a hash has as many bytes as a key"));
        Self { seal: Arc::new(seal), nonce_key: part("postrider 2026 grant nonce"), clock }
    }

    /// The text that opens `target` under the caller's session, for one to two hours.
    pub(crate) fn give(&self, caller: &Caller, target: &Target) -> String {
        let until_ms = (self.clock.wall_ms() / STEP_MS + 2) * STEP_MS;
        let mut content = vec![VERSION];
        content.extend_from_slice(&caller.user.0);
        content.extend_from_slice(&caller.proof.token_hash);
        content.extend_from_slice(&until_ms.to_be_bytes());
        match target {
            Target::Remote(url) => {
                content.push(REMOTE);
                content.extend_from_slice(url.as_bytes());
            }
            Target::Part(message, part) => {
                content.push(PART);
                content.extend_from_slice(&message.0);
                content.extend_from_slice(part.as_bytes());
            }
        }
        let hash = blake3::keyed_hash(&self.nonce_key, &content);
        let (nonce, _) = hash.as_bytes().split_first_chunk::<NONCE_LEN>().expect("a hash is longer than a nonce");
        let tag = self
            .seal
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut content)
            .expect("an address is far shorter than what the cipher takes");
        URL_SAFE_NO_PAD.encode([&nonce[..], &content, tag.as_ref()].concat())
    }

    /// What the text opens; `None` of what is over, was changed, or is of another cluster: which of them is not told.
    fn open(&self, text: &str) -> Option<Grant> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let content = self.seal.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        let (grant, until_ms) = Grant::read(content)?;
        (self.clock.wall_ms() < until_ms).then_some(grant)
    }
}

impl Grant {
    /// What was sealed, and until when it holds, milliseconds since the Unix epoch.
    fn read(content: &[u8]) -> Option<(Self, i64)> {
        let (head, target) = content.split_at_checked(HEAD_BYTES)?;
        let (user, head) = head.strip_prefix(&[VERSION])?.split_first_chunk::<16>()?;
        let (token_hash, until) = head.split_first_chunk::<32>()?;
        let (kind, target) = target.split_first()?;
        let target = match *kind {
            REMOTE => Target::Remote(String::from_utf8(target.to_vec()).ok()?),
            PART => {
                let (message, part) = target.split_first_chunk::<16>()?;
                Target::Part(EmailId(*message), String::from_utf8(part.to_vec()).ok()?)
            }
            _ => return None,
        };
        let user = UserId(*user);
        let proof = pb::SessionProof { user_id: user.to_bytes(), token_hash: Bytes::copy_from_slice(token_hash) };
        Some((Self { user, proof, target }, i64::from_be_bytes(until.try_into().ok()?)))
    }
}

/// `?grant=`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantParam {
    /// As the message's view has it.
    grant: String,
}

/// Whose address was asked for, and what it opens.
pub(crate) struct Granted {
    pub(crate) caller: Caller,
    pub(crate) target: Target,
}

impl<S> FromRequestParts<S> for Granted
where
    Mailboxes: FromRef<S>,
    Grants: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let peer = Peer::from_request_parts(parts, state).await?;
        let Params(param) = Params::<GrantParam>::from_request_parts(parts, state).await?;
        let grant = Grants::from_ref(state).open(&param.grant).ok_or_else(|| Problem::new(Kind::NotFound))?;
        let mailboxes = Mailboxes::from_ref(state);
        let caller = mailboxes.admitted(grant.user, grant.proof, peer, parts).await?;
        Ok(Self { caller, target: grant.target })
    }
}

/// Takes what an address of an image may be, whatever it is; for fuzzing.
pub fn fuzz_grant(text: &str) {
    let grants = Grants::new(&[7; 32], postrider_api::env::SystemClock::shared());
    assert!(grants.open(text).is_none(), "nobody makes an address without the key");
    // What is behind the seal is written by us, by whatever build.
    let _ = Grant::read(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use postrider_api::id::{ShardId, Slot, ZoneId};

    use super::*;

    struct Moment(AtomicI64);

    impl Clock for Moment {
        fn wall_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn caller(number: u8) -> Caller {
        let user = UserId::new(ZoneId(1), Slot(1), [number; 12]);
        let proof = pb::SessionProof { user_id: user.to_bytes(), token_hash: Bytes::copy_from_slice(&[number; 32]) };
        Caller::of(user, ShardId(1000), proof)
    }

    #[test]
    fn an_address_opens_what_it_was_given_for_until_its_time() {
        let clock = Arc::new(Moment(AtomicI64::new(10 * STEP_MS + 5)));
        let grants = Grants::new(&[1; 32], Arc::clone(&clock) as _);
        for target in
            [Target::Remote("https://img.example/x?y=1".to_owned()), Target::Part(EmailId([3; 16]), "1.2".to_owned())]
        {
            let text = grants.give(&caller(7), &target);
            let opened = grants.open(&text).unwrap();
            assert_eq!((opened.user, &opened.target), (caller(7).user, &target));
            assert_eq!(opened.proof, caller(7).proof);
            assert_eq!(grants.give(&caller(7), &target), text, "asked again it is the same");
            assert_ne!(grants.give(&caller(8), &target), text);
            assert!(Grants::new(&[2; 32], Arc::clone(&clock) as _).open(&text).is_none(), "another cluster's");
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                assert!(grants.open(std::str::from_utf8(&changed).unwrap()).is_none(), "{at}");
                assert!(grants.open(&text[..at]).is_none(), "{at}");
            }
            clock.0.store(12 * STEP_MS - 1, Ordering::Relaxed);
            assert!(grants.open(&text).is_some());
            clock.0.store(12 * STEP_MS, Ordering::Relaxed);
            assert!(grants.open(&text).is_none());
            clock.0.store(10 * STEP_MS + 5, Ordering::Relaxed);
        }
    }
}
