//! `POST /v1/uploads`: a file that is stored before the message that it goes with.
//!
//! Nothing is kept of an upload but the file in the object stores, pinned in the account's shard like the files of a message on its
//! way (ADR 055). It goes there piece by piece as it comes: a frontend holds one piece of each (ADR 154). Its id says what it is, under a key of
//! the cluster: any frontend opens it, for its account alone. The pins are over in an hour; what no message refers to by then goes with the next
//! sweep, so an upload that is not used, or that breaks off, leaves nothing.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequest, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, Mac};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use postrider_api::id::{BlobHash, UserId};
use postrider_api::limit::PIN_MS;
use postrider_mime::{BlobReadError, BlobSource as _, CutBlob};
use serde::Serialize;
use sha2::Sha256;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::account::Intent;
use crate::blobs::ZoneBlobs;
use crate::limits::LimitKind;
use crate::rest::bodies::append;
use crate::rest::extract::too_large;
use crate::rest::intent::Intents;
use crate::rest::limit::{UPLOAD_BYTES_MAX, UPLOAD_PIECE_BYTES};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::SendProblems;
use crate::rest::outgoing::Outgoing;
use crate::rest::problem::{Kind, Problem};
use crate::rest::send::{Admitted, Outbox};
use crate::rest::time::Time;
use crate::rest::upload::{Intake, Share};

/// The forms of an id: of a file in one piece, and of one in several, with how long each but the last is.
const WHOLE: u8 = 1;
const PIECES: u8 = 2;
/// Bytes of an id's tag: HMAC-SHA256, cut to 128 bits (RFC 2104 section 5).
const TAG_BYTES: usize = 16;
/// Pieces of one upload.
const PIECES_MAX: usize = UPLOAD_BYTES_MAX.div_ceil(UPLOAD_PIECE_BYTES);
/// The longest id, as text: form, length of a piece, hashes, length and time, tag.
const ID_BYTES_MAX: usize = (1 + 4 + 32 * PIECES_MAX + 8 + 8 + TAG_BYTES).div_ceil(3) * 4;
/// How long before the pin is over an upload is no longer taken: a message on its way pins anew, and clocks differ.
const MARGIN_MS: i64 = 5 * 60 * 1000;

/// What an upload's id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    /// What it consists of, in order.
    pieces: Vec<BlobHash>,
    /// How long each of them is but the last.
    piece_bytes: u32,
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
        let mut bytes = Vec::with_capacity(ID_BYTES_MAX);
        if let [_] = upload.pieces[..] {
            // As it always was: builds side by side open each other's.
            bytes.push(WHOLE);
        } else {
            bytes.push(PIECES);
            bytes.extend_from_slice(&upload.piece_bytes.to_be_bytes());
        }
        upload.pieces.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
        bytes.extend_from_slice(&upload.bytes.to_be_bytes());
        bytes.extend_from_slice(&upload.expires_ms.to_be_bytes());
        let tag = self.mac(user, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the id says; `None` of another's, of what is over, and of what is no id: which of them is not told.
    pub(crate) fn open(&self, user: UserId, id: &str, now_ms: i64) -> Option<Upload> {
        let bytes = if id.len() <= ID_BYTES_MAX { URL_SAFE_NO_PAD.decode(id).ok()? } else { return None };
        let (content, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        self.mac(user, content).verify_truncated_left(tag).ok()?;
        Upload::parse(content).filter(|upload| now_ms < upload.expires_ms)
    }
}

impl Upload {
    /// What was sealed.
    fn parse(content: &[u8]) -> Option<Self> {
        let (form, rest) = content.split_first()?;
        let (piece_bytes, rest) = match *form {
            WHOLE => (0, rest),
            PIECES => {
                let (piece_bytes, rest) = rest.split_first_chunk::<4>()?;
                (u32::from_be_bytes(*piece_bytes), rest)
            }
            _ => return None,
        };
        let (rest, expires) = rest.split_last_chunk::<8>()?;
        let (hashes, length) = rest.split_last_chunk::<8>()?;
        let (hashes, []) = hashes.as_chunks::<32>() else { return None };
        let pieces: Vec<BlobHash> = hashes.iter().copied().map(BlobHash).collect();
        let upload =
            Self { piece_bytes, bytes: u64::from_be_bytes(*length), expires_ms: i64::from_be_bytes(*expires), pieces };
        // So many pieces are so many bytes.
        let wanted = match upload.pieces.len() {
            0 => return None,
            1 => 1,
            _ => upload.bytes.div_ceil(u64::from(piece_bytes).max(1)),
        };
        (wanted == upload.pieces.len() as u64).then_some(upload)
    }

    /// Its pieces, each with its length.
    fn pieces(&self) -> impl Iterator<Item = (BlobHash, u64)> {
        let last = self.pieces.len() - 1;
        let piece_bytes = u64::from(self.piece_bytes);
        self.pieces.iter().enumerate().map(move |(place, hash)| {
            let length = if place == last { self.bytes - piece_bytes * last as u64 } else { piece_bytes };
            (*hash, length)
        })
    }
}

/// A file that comes in, and whose it is.
pub(crate) struct Uploading {
    admitted: Admitted,
    body: Body,
}

impl<S> FromRequest<S> for Uploading
where
    Mailboxes: FromRef<S>,
    Outbox: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let admitted = Admitted::of(&mut parts, state, check_announced).await?;
        let outbox = Outbox::from_ref(state);
        let counter = outbox.limiter.of_user(LimitKind::Uploads, admitted.caller.user);
        let counted = outbox.limiter.take_all(counter.as_slice()).await;
        counted.map_err(|refused| Problem::limited(Kind::TooManyRequests, &refused))?;
        Ok(Self { admitted, body })
    }
}

fn check_announced(headers: &HeaderMap) -> Result<(), Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced.is_some_and(|bytes| bytes > UPLOAD_BYTES_MAX as u64) {
        true => Err(too_large(UPLOAD_BYTES_MAX)),
        false => Ok(()),
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
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    Uploading { admitted, body }: Uploading,
) -> Result<(StatusCode, Json<UploadReceipt>), Problem> {
    let intent = intents.without_body(admitted.caller.user, &admitted.repeat)?;
    // The first of its pins is over before the others.
    let expires_ms = outbox.clock.wall_ms().saturating_add(PIN_MS - MARGIN_MS);
    let (pieces, bytes) = store((&mailboxes, &outbox), &admitted, &intent, body).await?;
    if pieces.is_empty() {
        return Err(Problem::new(Kind::InvalidBody).detail("an upload has at least one byte"));
    }
    let upload = Upload { pieces, piece_bytes: UPLOAD_PIECE_BYTES as u32, bytes, expires_ms };
    let upload_id = outbox.uploads.seal(admitted.caller.user, &upload);
    Ok((StatusCode::CREATED, Json(UploadReceipt { upload_id, size: bytes, expires_at: Time(expires_ms) })))
}

/// Stores a file as it comes: its pieces, and how long it is.
async fn store(
    (mailboxes, outbox): (&Mailboxes, &Outbox),
    admitted: &Admitted,
    intent: &Intent,
    body: Body,
) -> Result<(Vec<BlobHash>, u64), Problem> {
    let caller = &admitted.caller;
    let mut intake = Intake::new(body, UPLOAD_BYTES_MAX);
    let mut share = Share::new(outbox.memory.clone());
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    loop {
        let content = intake.next(UPLOAD_PIECE_BYTES, &mut share).await?;
        if content.is_empty() {
            return Ok((pieces, bytes));
        }
        let begun = Instant::now();
        let is_last = content.len() < UPLOAD_PIECE_BYTES;
        let length = content.len() as u64;
        bytes += length;
        let hashing = tokio::task::spawn_blocking(move || (BlobHash::of(&content), content));
        let (hash, content) = hashing.await.map_err(|_| Problem::internal("hashing an upload ended early"))?;
        mailboxes.pin_upload(caller, intent, pieces.len(), (hash, length), bytes).await?;
        outbox.bodies.put_all(caller.shard, vec![CutBlob { hash, content }]).await?;
        pieces.push(hash);
        if is_last {
            return Ok((pieces, bytes));
        }
        intake.stood_still(begun.elapsed());
    }
}

/// Puts the content of uploads where a message names them. It counts in the memory that the message holds.
pub(crate) async fn fetch(
    outbox: &Outbox,
    caller: &Caller,
    body: &mut Outgoing,
    share: &mut Share,
) -> Result<(), Problem> {
    let now_ms = outbox.clock.wall_ms();
    let blobs = outbox.bodies.of_shard(caller.shard)?;
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
        attachment.fetched = Some(read(&blobs, &upload).await?);
    }
    Ok(())
}

async fn read(blobs: &ZoneBlobs, upload: &Upload) -> Result<Bytes, Problem> {
    let failed = |error: BlobReadError| match error {
        BlobReadError::Missing(_) => unknown(),
        BlobReadError::Unavailable(_) => Problem::new(Kind::Unavailable).detail("no object store could give an upload"),
        BlobReadError::Damaged(_) => Problem::internal("an upload is damaged"),
    };
    let room = usize::try_from(upload.bytes).unwrap_or(0).min(UPLOAD_BYTES_MAX);
    let mut content = BytesMut::with_capacity(room);
    for (hash, length) in upload.pieces() {
        let stream = blobs.read(hash, 0..length).await.map_err(failed)?;
        append(&mut content, stream, failed).await?;
    }
    Ok(content.freeze())
}

/// For fuzzing: what the sealed part of an id says, whoever sealed it.
///
/// # Panics
/// When its pieces are not as long together as it says.
pub fn fuzz_upload(content: &[u8]) {
    if let Some(upload) = Upload::parse(content) {
        assert_eq!(upload.pieces().map(|(_, length)| length).sum::<u64>(), upload.bytes, "{upload:?}");
    }
}

fn unknown() -> Problem {
    Problem::new(Kind::UploadUnknown).member("field", "attachments.upload_id")
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};
    use proptest::prelude::*;

    use super::*;

    fn user(n: u16) -> UserId {
        UserId::new(ZoneId(1), Slot(n), [9; 12])
    }

    fn upload(pieces: usize, bytes: u64) -> Upload {
        let hashes = (0..pieces).map(|n| BlobHash([n as u8; 32])).collect();
        let piece_bytes = if pieces == 1 { 0 } else { UPLOAD_PIECE_BYTES as u32 };
        Upload { pieces: hashes, piece_bytes, bytes, expires_ms: 1000 }
    }

    #[test]
    fn an_id_opens_for_its_account_until_its_time() {
        let ids = UploadIds::new(&[7; 32]);
        let most = upload(PIECES_MAX, UPLOAD_BYTES_MAX as u64);
        for upload in [upload(1, 12), upload(2, UPLOAD_PIECE_BYTES as u64 + 1), most] {
            let id = ids.seal(user(1), &upload);
            assert!(id.len() <= ID_BYTES_MAX);
            let lengths: Vec<u64> = upload.pieces().map(|(_, length)| length).collect();
            assert_eq!(lengths.iter().sum::<u64>(), upload.bytes);
            assert_eq!(ids.open(user(1), &id, 999), Some(upload));
            assert_eq!(ids.open(user(1), &id, 1000), None);
            assert_eq!(ids.open(user(2), &id, 0), None);
            assert_eq!(UploadIds::new(&[8; 32]).open(user(1), &id, 0), None);
            for bad in ["", "x", &id[1..], &format!("{id}A"), &id.replace(&id[..1], "B"), &id.repeat(20)] {
                assert_eq!(ids.open(user(1), bad, 0), None, "{bad}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_by_somebody_else_has_as_many_pieces_as_bytes(content in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_upload(&content);
        }
    }
}
