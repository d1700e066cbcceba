//! Conditional reads (RFC 9110 section 13): whoever has an answer already is told that it still holds.
//!
//! An entity tag is weak: it says that an answer means the same, not that it is the same byte for byte. There are two kinds.
//!
//! - **Of a mailbox's state**, for lists, folders, labels, conversations and searches: the modseq at which the rows were read. Everything in a
//!   mailbox that changes takes the next one (P-10), so while it is the same, so is each of these answers. The shard compares it, behind its check of the
//!   session and before it reads a row.
//! - **Of a message**: what may change of its row. The rest of a message never does.
//!
//! Invariant (P-9): a tag counts only for the account, the path and the query that it was given for; a 304 is given only where the shard has found the
//! session open in the same read.

use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb;
use postrider_api::pb::{answer, query};
use prost::Message as _;

use crate::rest::mailboxes::{Caller, Freshness, Mailboxes, Read};
use crate::rest::problem::Problem;

/// Raised whenever an answer made of the same rows means something else: tags of before then open nothing.
const FORM: u8 = 1;
/// Bytes of a tag's hash.
const HASH_BYTES: usize = 16;
/// Tags of one request that are looked at: a client has one, or a few.
const TAGS_MAX: usize = 16;

/// Makes entity tags. All frontends of a cluster have the same key, and know each other's.
#[derive(Clone)]
pub(crate) struct EntityTags {
    key: [u8; 32],
}

impl EntityTags {
    /// With a key of the cluster's.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn hash(&self, user: UserId, kind: u8, parts: [&[u8]; 2]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[FORM, kind]).update(env!("CARGO_PKG_VERSION").as_bytes()).update(&[0]).update(&user.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..HASH_BYTES])
    }

    /// Of what `resource` shows of a mailbox at `modseq`.
    fn of_state(&self, user: UserId, resource: &str, modseq: ModSeq) -> String {
        let hash = self.hash(user, 0, [resource.as_bytes(), &modseq.0.to_be_bytes()]);
        format!("{}.{hash}", modseq.0)
    }

    /// Of what may change of a message; the id stands for the rest.
    fn of_message(&self, user: UserId, record: &pb::EmailRecord) -> String {
        let state = pb::EmailRecord {
            email_id: record.email_id.clone(),
            thread_id: record.thread_id.clone(),
            folder_id: record.folder_id,
            keywords: record.keywords,
            labels: record.labels.clone(),
            modseq: record.modseq,
            ..Default::default()
        };
        self.hash(user, 1, [&state.encode_to_vec(), &[]])
    }
}

/// What a request says of the answers that its client has.
#[derive(Clone)]
pub(crate) struct Conditional {
    tags: EntityTags,
    /// Path and query.
    resource: String,
    /// The opaque parts of the tags in If-None-Match.
    known: Vec<String>,
}

impl<S> FromRequestParts<S> for Conditional
where
    EntityTags: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let resource = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let fields = parts.headers.get_all(IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
        let known = fields.flat_map(|field| field.split(',')).filter_map(opaque).take(TAGS_MAX).collect();
        Ok(Self { tags: EntityTags::from_ref(state), resource, known })
    }
}

/// What stands between the quotes of a tag, weak or not: RFC 9110 section 13.1.2 compares by that alone. Ours have no comma in it.
fn opaque(tag: &str) -> Option<String> {
    let tag = tag.trim();
    let quoted = tag.strip_prefix("W/").unwrap_or(tag);
    Some(quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

impl Conditional {
    /// The newest state that the client has this answer of.
    fn state(&self, user: UserId) -> Option<ModSeq> {
        let modseq = |tag: &String| {
            let modseq = ModSeq(tag.split_once('.')?.0.parse().ok()?);
            (self.tags.of_state(user, &self.resource, modseq) == *tag).then_some(modseq)
        };
        self.known.iter().filter_map(modseq).max()
    }

    /// Reads unless the client has what is there.
    pub(crate) async fn read(
        &self,
        mailboxes: &Mailboxes,
        caller: &Caller,
        query: query::Query,
        min_modseq: u64,
    ) -> Result<Conditioned, Problem> {
        let known = self.state(caller.user);
        let read = mailboxes.read_unless(caller, query, known, min_modseq).await?;
        let tag = read.modseq.map(|modseq| self.tags.of_state(caller.user, &self.resource, modseq));
        let tag = EntityTag(tag);
        Ok(match (&read.answer, known) {
            (answer::Answer::Unchanged(_), Some(_)) => Conditioned::Unchanged(Unchanged(read.freshness, tag)),
            _ => Conditioned::Changed(read, tag),
        })
    }

    /// Whether the client may have the message already.
    pub(crate) fn may_know_message(&self) -> bool {
        !self.known.is_empty()
    }

    /// The tag of a message.
    pub(crate) fn tag(&self, caller: &Caller, record: &pb::EmailRecord) -> EntityTag {
        EntityTag(Some(self.tags.of_message(caller.user, record)))
    }

    /// That the client has the message as it is, where it has.
    pub(crate) fn unchanged(
        &self,
        caller: &Caller,
        state: &pb::EmailRecord,
        freshness: Freshness,
    ) -> Option<Unchanged> {
        let tag = self.tags.of_message(caller.user, state);
        self.known.contains(&tag).then_some(Unchanged(freshness, EntityTag(Some(tag))))
    }
}

/// What a conditional read ended in.
#[expect(clippy::large_enum_variant, reason = "it is matched where it is returned, and kept nowhere")]
pub(crate) enum Conditioned {
    /// The client has it.
    Unchanged(Unchanged),
    /// What is there, and its tag.
    Changed(Read, EntityTag),
}

/// The ETag field of an answer. None where the shard did not say of which state it is.
#[derive(Debug)]
pub(crate) struct EntityTag(Option<String>);

impl EntityTag {
    /// Of an answer that is another one a moment later, though nothing has changed.
    pub(crate) fn none() -> Self {
        Self(None)
    }
}

impl IntoResponseParts for EntityTag {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if let Some(field) = self.0.and_then(|tag| HeaderValue::try_from(format!("W/\"{tag}\"")).ok()) {
            parts.headers_mut().insert(ETAG, field);
        }
        Ok(parts)
    }
}

/// 304: the client has it already.
#[derive(Debug)]
pub(crate) struct Unchanged(Freshness, EntityTag);

impl IntoResponse for Unchanged {
    fn into_response(self) -> Response {
        (StatusCode::NOT_MODIFIED, self.0, self.1, ()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    fn user(number: u8) -> UserId {
        UserId::new(ZoneId(1), Slot(1), [number; 12])
    }

    fn asked(resource: &str, fields: &[&str]) -> Conditional {
        let known = fields.iter().flat_map(|field| field.split(',')).filter_map(opaque).collect();
        Conditional { tags: EntityTags::new([1; 32]), resource: resource.to_owned(), known }
    }

    #[test]
    fn a_tag_counts_where_it_was_given() {
        let tag = EntityTags::new([1; 32]).of_state(user(1), "/v1/folders", ModSeq(7));
        let weak = format!("W/\"{tag}\"");
        for field in [weak.clone(), format!("\"{tag}\""), format!("\"x\", {weak} ,\"9.x\"")] {
            assert_eq!(asked("/v1/folders", &[&field]).state(user(1)), Some(ModSeq(7)), "{field}");
        }
        assert_eq!(asked("/v1/folders", &["*", "7", "W/\"\"", &weak]).state(user(1)), Some(ModSeq(7)));
        assert_eq!(asked("/v1/folders", &[&weak]).state(user(2)), None, "another account");
        assert_eq!(asked("/v1/folders?min_modseq=1", &[&weak]).state(user(1)), None, "another query");
        assert_eq!(asked("/v1/labels", &[&weak]).state(user(1)), None, "another path");
        let other = Conditional { tags: EntityTags::new([2; 32]), ..asked("/v1/folders", &[&weak]) };
        assert_eq!(other.state(user(1)), None, "another cluster");
        let forged = weak.replacen("7.", "8.", 1);
        assert_eq!(asked("/v1/folders", &[&forged]).state(user(1)), None, "another state");
        let older = EntityTags::new([1; 32]).of_state(user(1), "/v1/folders", ModSeq(3));
        assert_eq!(asked("/v1/folders", &[&format!("\"{older}\""), &weak]).state(user(1)), Some(ModSeq(7)));
    }

    #[test]
    fn a_message_has_another_tag_with_whatever_changes() {
        let tags = EntityTags::new([1; 32]);
        let record = pb::EmailRecord { folder_id: 1, modseq: 7, ..Default::default() };
        let tag = tags.of_message(user(1), &record);
        assert_eq!(tag, tags.of_message(user(1), &record.clone()));
        assert_ne!(tag, tags.of_message(user(2), &record));
        assert_ne!(tag, tags.of_message(user(1), &pb::EmailRecord { modseq: 8, ..record.clone() }));
        for changed in [
            pb::EmailRecord { labels: vec![7], ..record.clone() },
            pb::EmailRecord { folder_id: 2, ..record.clone() },
            pb::EmailRecord { keywords: 1, ..record.clone() },
            pb::EmailRecord { thread_id: vec![1; 16].into(), ..record.clone() },
            pb::EmailRecord { email_id: vec![1; 16].into(), ..record.clone() },
        ] {
            assert_ne!(tag, tags.of_message(user(1), &changed), "{changed:?}");
        }
    }
}
