//! Who may ask for what. s3s checks the signature; what it would also let pass ends here.

use http::{HeaderMap, header};
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

/// What `backend.rs` implements.
const OPERATIONS: [&str; 7] =
    ["CreateBucket", "DeleteObject", "GetObject", "HeadBucket", "HeadObject", "ListObjectsV2", "PutObject"];

/// `x-amz-` headers that are understood. Any other asks for something that would silently not happen (metadata, tags,
/// encryption, locks, access lists), so it is refused.
const HEADERS: [&str; 8] = [
    "x-amz-checksum-mode",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
    "x-amz-user-agent",
    "x-amz-checksum-type",
];

/// Lets pass: requests signed in the Authorization header with AWS4-HMAC-SHA256, for one of our operations. Presigned
/// URLs and version 2 signatures (which do not cover the body) are not needed by anyone here.
pub(crate) struct Gate;

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let signature = cx.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let version_4 = signature.is_some_and(|value| value.starts_with(b"AWS4-HMAC-SHA256"));
        if cx.credentials().is_none() || !version_4 {
            return Err(s3_error!(AccessDenied, "sign the request with AWS Signature Version 4"));
        }
        if !OPERATIONS.contains(&cx.s3_op().name()) {
            return Err(s3_error!(NotImplemented, "{} is not served here", cx.s3_op().name()));
        }
        match unknown_header(cx.headers()) {
            Some(name) => Err(s3_error!(NotImplemented, "{name} is not served here")),
            None => Ok(()),
        }
    }
}

fn unknown_header(headers: &HeaderMap) -> Option<&str> {
    let known = |name: &str| HEADERS.contains(&name) || (name.starts_with("x-amz-checksum-") && name.len() < 32);
    headers.keys().map(|name| name.as_str()).find(|name| name.starts_with("x-amz-") && !known(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_forgotten_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-date", "now".parse().unwrap());
        headers.insert("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=".parse().unwrap());
        assert_eq!(unknown_header(&headers), None);
        headers.insert("x-amz-meta-color", "blue".parse().unwrap());
        assert_eq!(unknown_header(&headers), Some("x-amz-meta-color"));
    }
}
