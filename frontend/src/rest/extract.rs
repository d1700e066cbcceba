//! What handlers take from a request, each with its own problem when it is not as it has to be.

use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use postrider_api::limit::USER_AGENT_BYTES_MAX;
use serde::de::DeserializeOwned;

use crate::rest::limit::{BODY_BYTES_MAX, BODY_WAIT_MAX, INLINE_JSON_BYTES_MAX};
use crate::rest::problem::{Kind, Problem};

/// The address of whoever holds the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub std::net::IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().copied();
        peer.ok_or_else(|| Problem::internal("the server did not say who holds the connection"))
    }
}

/// What the client's program calls itself, as far as a session keeps it: on one line, and shortened.
pub(crate) struct UserAgent(pub String);

impl<S: Send + Sync> FromRequestParts<S> for UserAgent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let field = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name: String = field.chars().filter(|c| !c.is_control()).collect();
        let end = name.floor_char_boundary(USER_AGENT_BYTES_MAX);
        Ok(Self(name[..end].to_owned()))
    }
}

/// A JSON body of at most `MAX` bytes.
pub(crate) struct JsonBody<T, const MAX: usize = BODY_BYTES_MAX>(pub T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync, const MAX: usize> FromRequest<S> for JsonBody<T, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_json_head(&parts.headers, MAX)?;
        parse_json(collect(body, MAX).await?).await.map(Self)
    }
}

/// Refuses what is no JSON, or says that it is too large, before a byte of it is read.
pub(crate) fn check_json_head(headers: &HeaderMap, max: usize) -> Result<(), Problem> {
    check_media_type(headers)?;
    check_length(headers, max)
}

/// What is large is parsed away from the threads that serve others.
pub(crate) async fn parse_json<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<T, Problem> {
    if bytes.len() <= INLINE_JSON_BYTES_MAX {
        return parse(&bytes);
    }
    let parsing = tokio::task::spawn_blocking(move || parse(&bytes));
    parsing.await.map_err(|_| Problem::internal("parsing a body ended early"))?
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::new(Kind::MediaTypeUnsupported))
    }
}

fn check_length(headers: &HeaderMap, max: usize) -> Result<(), Problem> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if length.is_some_and(|length: u64| length > max as u64) { Err(too_large(max)) } else { Ok(()) }
}

/// What a body of more than `max` bytes is to the client.
pub(crate) fn too_large(max: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge).detail(format!("at most {max} bytes")).member("bytes_max", max)
}

async fn collect(body: Body, max: usize) -> Result<Bytes, Problem> {
    let collecting = tokio::time::timeout(BODY_WAIT_MAX, Limited::new(body, max).collect());
    match collecting.await.map_err(|_| Problem::new(Kind::RequestTimeout).detail("the body did not arrive in time"))? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Err(_) => Err(Problem::new(Kind::BodyUnreadable)),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let kind = if error.is_data() { Kind::InvalidBody } else { Kind::MalformedJson };
        Problem::new(kind).detail(error.to_string()).member("line", error.line()).member("column", error.column())
    })
}

/// The query's parameters; unknown ones are refused by the type.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(params)| Self(params)).map_err(|rejection| {
            // The rejection's source names the parameter; its text has the reason in front.
            let reason =
                std::error::Error::source(&rejection).map_or_else(|| rejection.to_string(), ToString::to_string);
            Problem::new(Kind::InvalidQuery).detail(reason)
        })
    }
}

/// An id in the path. What is no id names nothing: 404, like an id that is not there.
pub(crate) struct PathId<T>(pub T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(|| Problem::new(Kind::NotFound))
    }
}

/// Two ids in the path.
pub(crate) struct PathIds<T, U>(pub T, pub U);

impl<T: FromStr, U: FromStr, S: Send + Sync> FromRequestParts<S> for PathIds<T, U> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let ids = path.ok().and_then(|Path((first, second))| Some(Self(first.parse().ok()?, second.parse().ok()?)));
        ids.ok_or_else(|| Problem::new(Kind::NotFound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)] // only parsed
        name: String,
    }

    #[test]
    fn what_is_wrong_with_json_is_said_with_its_place() {
        let kind = |text: &str| parse::<Sample>(text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind("{\"name\": "), Kind::MalformedJson);
        assert_eq!(kind("{\"name\": \"a\"} x"), Kind::MalformedJson);
        assert_eq!(kind("{\"name\": 7}"), Kind::InvalidBody);
        assert_eq!(kind("{\"name\": \"a\", \"nmae\": 1}"), Kind::InvalidBody);
        assert_eq!(kind("{\"name\": \"a\", \"name\": \"b\"}"), Kind::InvalidBody);
        assert!(parse::<Sample>(b"{\"name\": \"a\"}").is_ok());
        let deep = "[".repeat(100_000);
        assert_eq!(kind(&format!("{{\"other\": {deep}")), Kind::InvalidBody);
    }
}
