//! `GET /v1/messages/{message_id}/attachments/{attachment_id}`: the decoded file, whole or a range (RFC 9110 section 14).

use std::str::FromStr;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use postrider_api::id::EmailId;

use crate::rest::bodies::{Bodies, held, unreadable};
use crate::rest::extract::{Params, PathIds};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::messages::{SANDBOX, logged};
use crate::rest::openapi::{FileProblems, MinModseq};
use crate::rest::problem::{Kind, Problem};
use postrider_mime::{self as mime, AttachmentError, ByteRange};

/// A part's number within its message: "2", "1.3".
pub(crate) struct PartPath(String);

/// A part's number, characters: deeper than any message that is taken apart.
const PART_PATH_CHARS_MAX: usize = 255;

impl FromStr for PartPath {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| {
            let canonical = text.starts_with(|first: char| ('1'..='9').contains(&first));
            canonical && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let fits = text.len() <= PART_PATH_CHARS_MAX && text.split('.').all(number);
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}

/// Read an attached file, decoded. One range is served (RFC 9110 section 14.2).
#[utoipa::path(
    get, path = "/v1/messages/{message_id}/attachments/{attachment_id}", operation_id = "read_attachment", tag = "messages",
    params(
        ("message_id" = String, Path, description = "The message"),
        ("attachment_id" = String, Path, description = "The attachment, as the message names it"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`"),
        MinModseq
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A range of it", body = Vec<u8>, content_type = "application/octet-stream"),
        FileProblems
    ),
    security(("token" = [])),
)]
pub(crate) async fn read(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    caller: Caller,
    PathIds(message, PartPath(part)): PathIds<EmailId, PartPath>,
    Params(params): Params<MinModseq>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let turn = bodies.early_turn(&mailboxes, &caller).await?;
    let read = bodies.near().stored(&mailboxes, &bodies, &caller, message, params.get()).await?;
    let (stored, blobs, freshness) = read;
    // Only what the message lists as attached: the bodies have their own path.
    let listed = stored.parts.iter().any(|candidate| candidate.path == part && candidate.is_attachment);
    if !listed {
        return Err(Problem::new(Kind::NotFound));
    }
    let turn = turn.or_now(&bodies, &caller).await?;
    let range = wanted_range(&headers);
    let file = match mime::attachment(&stored, &part, &blobs, range).await {
        Ok(file) => file,
        Err(AttachmentError::NotFound) => return Err(Problem::new(Kind::NotFound)),
        Err(AttachmentError::OutOfRange { length }) => return Ok(out_of_range(length)),
        Err(AttachmentError::Raw(error)) => return Err(unreadable(&error)),
    };
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, content_type(&file.content_type, &file.charset));
    fields.insert(CONTENT_DISPOSITION, disposition(&file.filename));
    fields.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(file.range.end - file.range.start));
    let status = if range.is_some() {
        let value = format!("bytes {}-{}/{}", file.range.start, file.range.end.saturating_sub(1), file.length);
        fields.insert(CONTENT_RANGE, HeaderValue::try_from(value).expect("digits and punctuation are a field value"));
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    Ok(held((status, freshness, fields, Body::from_stream(logged(file.stream))).into_response(), turn))
}

/// The range that is asked for, where exactly one is. If-Range is not served: without validators the whole is right.
fn wanted_range(headers: &HeaderMap) -> Option<ByteRange> {
    if headers.contains_key(http::header::IF_RANGE) {
        return None;
    }
    let mut fields = headers.get_all(RANGE).iter();
    let field = fields.next()?;
    if fields.next().is_some() { None } else { ByteRange::parse(field.to_str().ok()?) }
}

fn out_of_range(length: u64) -> Response {
    let mut response = Problem::new(Kind::RangeNotSatisfiable).member("length", length).into_response();
    let value = HeaderValue::try_from(format!("bytes */{length}")).expect("digits and punctuation are a field value");
    response.headers_mut().insert(CONTENT_RANGE, value);
    response
}

/// The sender's media type where it has the form of one (RFC 9110 section 8.3.1), and his charset where it is a token.
fn content_type(declared: &str, charset: &str) -> HeaderValue {
    let value = match declared.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {
            if kind.eq_ignore_ascii_case("text") && is_token(charset) {
                format!("{declared}; charset={charset}")
            } else {
                declared.to_owned()
            }
        }
        _ => "application/octet-stream".to_owned(),
    };
    HeaderValue::try_from(value).expect("tokens are a field value")
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What RFC 8187 section 3.2.1 lets stand for itself.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A file to save, never to show (RFC 6266). Only the last piece of what the sender wrote as a path is its name.
fn disposition(filename: &str) -> HeaderValue {
    let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let value = if name.is_empty() {
        "attachment".to_owned()
    } else {
        // Readers of RFC 8187 take the second; for others a plain name without anything that would have to be quoted.
        let plain: String = name
            .chars()
            .map(|c| if c == ' ' || c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') { c } else { '_' })
            .collect();
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, ATTRIBUTE))
    };
    HeaderValue::try_from(value).expect("printable ASCII is a field value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn part_paths() {
        for good in ["1", "2.1", "10.2.3"] {
            assert!(good.parse::<PartPath>().is_ok(), "{good}");
        }
        for bad in ["", "0", "01", "1.", ".1", "1..2", "a", "1/2", "-1", "１"] {
            assert!(bad.parse::<PartPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_files() {
        assert_eq!(disposition(""), "attachment");
        assert_eq!(disposition("a.txt"), "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt");
        assert_eq!(
            disposition("/etc/\"q\" €.txt"),
            "attachment; filename=\"_q_ _.txt\"; filename*=UTF-8''%22q%22%20%E2%82%AC.txt"
        );
        assert_eq!(
            disposition("..\\..\\x\r\nSet-Cookie: a"),
            "attachment; filename=\"xSet-Cookie: a\"; filename*=UTF-8''xSet-Cookie%3A%20a"
        );
    }

    #[test]
    fn media_types() {
        assert_eq!(content_type("text/plain", "utf-8"), "text/plain; charset=utf-8");
        assert_eq!(content_type("image/png", "utf-8"), "image/png");
        assert_eq!(content_type("text/plain\r\nx: y", ""), "application/octet-stream");
        assert_eq!(content_type("", ""), "application/octet-stream");
        assert_eq!(content_type("text/plain", "a\"b"), "text/plain");
    }

    proptest! {
        #[test]
        fn any_name_is_one_field(name in ".*", declared in ".*", charset in ".*") {
            let value = disposition(&name);
            let text = value.to_str().unwrap();
            prop_assert!(text.starts_with("attachment"));
            prop_assert!(text.matches('"').count() <= 2);
            content_type(&declared, &charset);
        }
    }
}
