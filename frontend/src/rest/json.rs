//! JSON answers that may be long, written into one buffer.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::rest::problem::Problem;

/// What a buffer begins with, bytes: a list page of 50 lines fits with its usual subjects and previews. The library's own writer begins
/// with 128 and checks its buffer for each piece of text, which was a tenth of the work on a page.
const CAPACITY: usize = 32 * 1024;

/// A body of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(CAPACITY);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => {
                // An answer may wait for a slow client: what is not used of the buffer is given back.
                body.shrink_to_fit();
                ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
            }
            Err(_) => Problem::internal("an answer cannot be written as JSON").into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use http::StatusCode;
    use serde::ser::Error as _;

    use super::*;

    #[tokio::test]
    async fn a_page_is_json_and_says_so() {
        let rows: Vec<String> = (0..5_000).map(|n| format!("line {n} \"\u{e9}\"")).collect();
        let response = Json(&rows).into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(body.len() > CAPACITY);
        assert_eq!(serde_json::from_slice::<Vec<String>>(&body).unwrap(), rows);
    }

    struct Unwritable;

    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("no"))
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error_of_ours() {
        assert_eq!(Json(Unwritable).into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
