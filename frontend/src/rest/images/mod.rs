//! `GET /v1/proxy/image` and `GET /v1/proxy/part`: images of the network, and of the message itself, by addresses that a view gave out.

mod fetched;
mod kind;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use postrider_mime::{self as mime, AttachmentError};

use crate::rest::bodies::{Bodies, held, unreadable};
use crate::rest::grants::{GrantParam, Granted, Target};
use crate::rest::mailboxes::Mailboxes;
use crate::rest::messages::{SANDBOX, logged};
use crate::rest::openapi::ImageProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::profile::get_account;

pub(crate) use fetched::Images;
pub(crate) use kind::ImageKind;

/// How long a browser keeps an image: as long as one goes back and forth between messages, not longer than one is likely to be logged in.
const KEPT: HeaderValue = HeaderValue::from_static("private, max-age=600");

/// Read an image of the network that a message shows. It is fetched by this service: the sender's host learns nothing of who reads.
#[utoipa::path(
    get, path = "/v1/proxy/image", operation_id = "proxy_image", tag = "messages", params(GrantParam),
    responses(
        (status = 200, description = "The image", body = Vec<u8>, content_type = "application/octet-stream"),
        ImageProblems
    ),
    security(()),
)]
pub(crate) async fn remote(
    State(mailboxes): State<Mailboxes>,
    State(images): State<Images>,
    granted: Granted,
) -> Result<Response, Problem> {
    let Granted { caller, target: Target::Remote(url) } = granted else {
        return Err(Problem::new(Kind::NotFound));
    };
    // Nothing is fetched for a session that is over.
    if !mailboxes.is_proven(&caller) {
        mailboxes.read(&caller, get_account(&caller), 0).await?;
    }
    let image = images.get(caller.user, &url).await?;
    Ok((head(image.kind, image.bytes.len() as u64), image.bytes).into_response())
}

/// Read an image that is a part of the message which shows it.
#[utoipa::path(
    get, path = "/v1/proxy/part", operation_id = "proxy_part", tag = "messages", params(GrantParam),
    responses(
        (status = 200, description = "The image", body = Vec<u8>, content_type = "application/octet-stream"),
        ImageProblems
    ),
    security(()),
)]
pub(crate) async fn part(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    granted: Granted,
) -> Result<Response, Problem> {
    let Granted { caller, target: Target::Part(message, part) } = granted else {
        return Err(Problem::new(Kind::NotFound));
    };
    let turn = bodies.early_turn(&mailboxes, &caller).await?;
    let (stored, blobs, freshness) = bodies.near().stored(&mailboxes, &bodies, &caller, message, 0).await?;
    let turn = turn.or_now(&bodies, &caller).await?;
    let file = match mime::attachment(&stored, &part, &blobs, None).await {
        Ok(file) => file,
        Err(AttachmentError::Raw(error)) => return Err(unreadable(&error)),
        Err(_) => return Err(Problem::new(Kind::NotFound)),
    };
    let mut rest = file.stream;
    let mut start = BytesMut::new();
    while start.len() < kind::HEAD_BYTES
        && let Some(piece) = rest.try_next().await.map_err(|error| unreadable(&error))?
    {
        start.extend_from_slice(&piece);
    }
    let kind = ImageKind::of(&start).ok_or_else(unavailable)?;
    let whole = stream::once(async move { Ok::<Bytes, mime::RawError>(start.freeze()) }).chain(rest);
    let body = Body::from_stream(logged(Box::pin(whole)));
    Ok(held((freshness, head(kind, file.length), body).into_response(), turn))
}

fn head(kind: ImageKind, length: u64) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(kind.media_type())),
        (CONTENT_LENGTH, HeaderValue::from(length)),
        (CONTENT_SECURITY_POLICY, SANDBOX),
        (CACHE_CONTROL, KEPT),
    ])
}

/// Why is not told: whoever sends a message could learn by it what stands around this service.
fn unavailable() -> Problem {
    Problem::new(Kind::ImageUnavailable)
}
