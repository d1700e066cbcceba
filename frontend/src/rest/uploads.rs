//! `POST /v1/uploads`: a file that is stored before the message that it goes with.
//!
//! Nothing is kept of an upload but the file in the object stores, pinned in the account's shard like the files of a message on its
//! way (ADR 055). Its id says what it is, under a key of the cluster: any frontend opens it, for its account alone. The pin is over in
//! an hour; what no message refers to by then goes with the next sweep, so an upload that is not used leaves nothing.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use hmac::{Hmac, Mac};
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode};
use postrider_api::id::{BlobHash, UserId};
use postrider_api::limit::PIN_MS;
use postrider_mime::{BlobReadError, BlobSource as _, CutBlob};
use serde::Serialize;
use sha2::Sha256;
use utoipa::ToSchema;

use crate::limits::LimitKind;
use crate::rest::bodies::Bodies;
use crate::rest::extract::too_large;
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::UPLOAD_BYTES_MAX;
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::SendProblems;
use crate::rest::outgoing::Outgoing;
use crate::rest::problem::{Kind, Problem};
use crate::rest::send::{Outbox, sender};
use crate::rest::time::Time;
use crate::rest::turns::Turn;
use crate::rest::upload::{Share, take_in};

/// Which form of id this is.
const VERSION: u8 = 1;
/// Bytes of an id's tag: HMAC-SHA256, cut to 128 bits (RFC 2104 section 5).
const TAG_BYTES: usize = 16;
/// Hash, length and time.
const CONTENT_BYTES: usize = 1 + 32 + 8 + 8;
/// How long before the pin is over an upload is no longer taken: a message on its way pins anew, and clocks differ.
const MARGIN_MS: i64 = 5 * 60 * 1000;

/// What an upload's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upload {
    hash: BlobHash,
    pub(crate) bytes: u64,
    expires_ms: i64,
}

/// Makes and opens ids of uploads.
#[derive(Clone)]
pub(crate) struct UploadIds {
    mac: Hmac<Sha256>,
}

impl UploadIds {
    /// All frontends of a cluster have the same key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    fn mac(&self, user: UserId, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&user.0);
        mac.update(content);
        mac
    }

    fn seal(&self, user: UserId, upload: &Upload) -> String {
        let mut bytes = Vec::with_capacity(CONTENT_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&upload.hash.0);
        bytes.extend_from_slice(&upload.bytes.to_be_bytes());
        bytes.extend_from_slice(&upload.expires_ms.to_be_bytes());
        let tag = self.mac(user, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the id says; `None` of another's, of what is over, and of what is no id: which of them is not told.
    pub(crate) fn open(&self, user: UserId, id: &str, now_ms: i64) -> Option<Upload> {
        let bytes = URL_SAFE_NO_PAD.decode(id).ok().filter(|bytes| bytes.len() == CONTENT_BYTES + TAG_BYTES)?;
        let (content, tag) = bytes.split_at(CONTENT_BYTES);
        self.mac(user, content).verify_truncated_left(tag).ok()?;
        let (hash, rest) = content.strip_prefix(&[VERSION])?.split_first_chunk::<32>()?;
        let (length, expires) = rest.split_first_chunk::<8>()?;
        let upload = Upload {
            hash: BlobHash(*hash),
            bytes: u64::from_be_bytes(*length),
            expires_ms: i64::from_be_bytes(expires.try_into().ok()?),
        };
        (now_ms < upload.expires_ms).then_some(upload)
    }
}

/// A file that came in, and whose it is.
pub(crate) struct Uploaded {
    caller: Caller,
    repeat: Repeat,
    content: Bytes,
    /// Held until it is stored.
    _held: (Share, Turn),
}

impl<S> FromRequest<S> for Uploaded
where
    Mailboxes: FromRef<S>,
    Outbox: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let repeat = Repeat::from_request_parts(&mut parts, state).await?;
        let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > UPLOAD_BYTES_MAX as u64) {
            return Err(too_large(UPLOAD_BYTES_MAX));
        }
        // As of a message to send: the shard has checked the session before anything is held for it.
        sender(&Mailboxes::from_ref(state), &caller).await?;
        let outbox = Outbox::from_ref(state);
        let turn = outbox.turn(&caller).await?;
        let counter = outbox.limiter.of_user(LimitKind::Uploads, caller.user);
        let counted = outbox.limiter.take_all(counter.as_slice()).await;
        counted.map_err(|refused| Problem::limited(Kind::TooManyRequests, &refused))?;
        let (content, share) = take_in(body, outbox.memory.clone()).await?;
        if content.len() > UPLOAD_BYTES_MAX {
            return Err(too_large(UPLOAD_BYTES_MAX));
        }
        if content.is_empty() {
            return Err(Problem::new(Kind::InvalidBody).detail("an upload has at least one byte"));
        }
        Ok(Self { caller, repeat, content, _held: (share, turn) })
    }
}

/// A file that waits for its message.
#[derive(Serialize, ToSchema)]
pub(crate) struct UploadReceipt {
    /// For `attachments` of a message or a draft. It works for its account only, as often as that likes.
    upload_id: String,
    /// Bytes.
    size: u64,
    /// From then on it is gone, unless a message has it.
    expires_at: Time,
}

/// Upload a file before the message that it goes with: the body is the file, whatever its media type.
#[utoipa::path(
    post, path = "/v1/uploads", operation_id = "upload", tag = "messages",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Under the same key there is one upload, of one content")),
    responses((status = 201, description = "It is stored, for an hour", body = UploadReceipt), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn upload(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    uploaded: Uploaded,
) -> Result<(StatusCode, Json<UploadReceipt>), Problem> {
    let Uploaded { caller, repeat, content, _held } = uploaded;
    let intent = intents.without_body(caller.user, &repeat)?;
    let hashing = tokio::task::spawn_blocking(move || (BlobHash::of(&content), content));
    let (hash, content) = hashing.await.map_err(|_| Problem::internal("hashing an upload ended early"))?;
    let size = content.len() as u64;
    let expires_ms = outbox.clock.wall_ms().saturating_add(PIN_MS - MARGIN_MS);
    mailboxes.pin_upload(&caller, &intent, hash, size).await?;
    bodies.put_all(caller.shard, vec![CutBlob { hash, content }]).await?;
    let upload_id = outbox.uploads.seal(caller.user, &Upload { hash, bytes: size, expires_ms });
    Ok((StatusCode::CREATED, Json(UploadReceipt { upload_id, size, expires_at: Time(expires_ms) })))
}

/// Puts the content of uploads where a message names them. It counts in the memory that the message holds.
pub(crate) async fn fetch(
    outbox: &Outbox,
    bodies: &Bodies,
    caller: &Caller,
    body: &mut Outgoing,
    share: &mut Share,
) -> Result<(), Problem> {
    let now_ms = outbox.clock.wall_ms();
    let mut held = share.used();
    for attachment in &mut body.attachments {
        let Some(id) = &attachment.upload_id else { continue };
        let upload = outbox.uploads.open(caller.user, id, now_ms).ok_or_else(unknown)?;
        held = held.saturating_add(usize::try_from(upload.bytes).unwrap_or(usize::MAX));
        if held > crate::rest::limit::SEND_BODY_BYTES_MAX {
            return Err(
                Problem::new(Kind::MessageTooLarge).member("bytes_max", postrider_api::limit::MESSAGE_BYTES_MAX)
            );
        }
        share.grow_to(held).await?;
        attachment.fetched = Some(read(bodies, caller, &upload).await?);
    }
    Ok(())
}

async fn read(bodies: &Bodies, caller: &Caller, upload: &Upload) -> Result<Bytes, Problem> {
    let failed = |error: BlobReadError| match error {
        BlobReadError::Missing(_) => unknown(),
        BlobReadError::Unavailable(_) => Problem::new(Kind::Unavailable).detail("no object store could give an upload"),
        BlobReadError::Damaged(_) => Problem::internal("an upload is damaged"),
    };
    let stream = bodies.of_shard(caller.shard)?.read(upload.hash, 0..upload.bytes).await.map_err(failed)?;
    let room = usize::try_from(upload.bytes).unwrap_or(0).min(UPLOAD_BYTES_MAX);
    let read = stream.map_err(failed).try_fold(BytesMut::with_capacity(room), async |mut content, chunk| {
        content.extend_from_slice(&chunk);
        Ok(content)
    });
    Ok(read.await?.freeze())
}

fn unknown() -> Problem {
    Problem::new(Kind::UploadUnknown).member("field", "attachments.upload_id")
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    #[test]
    fn an_id_opens_for_its_account_until_its_time() {
        let ids = UploadIds::new(&[7; 32]);
        let user = |n| UserId::new(ZoneId(1), Slot(n), [9; 12]);
        let upload = Upload { hash: BlobHash([3; 32]), bytes: 12, expires_ms: 1000 };
        let id = ids.seal(user(1), &upload);
        assert_eq!(ids.open(user(1), &id, 999), Some(upload));
        assert_eq!(ids.open(user(1), &id, 1000), None);
        assert_eq!(ids.open(user(2), &id, 0), None);
        assert_eq!(UploadIds::new(&[8; 32]).open(user(1), &id, 0), None);
        for bad in ["", "x", &id[1..], &format!("{id}A"), &id.replace(&id[..1], "B")] {
            assert_eq!(ids.open(user(1), bad, 0), None, "{bad}");
        }
    }
}
