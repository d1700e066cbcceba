//! The SDK's errors, sorted by what they make us do. One table for all operations.

use aws_sdk_s3::error::ProvideErrorMetadata;

use crate::Outage;

pub(super) type SdkError<E> = aws_sdk_s3::error::SdkError<E>;

/// An operation's error that can carry S3's code.
pub(super) trait Coded: ProvideErrorMetadata {}

impl<E: ProvideErrorMetadata> Coded for E {}

/// What a failed request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    NotFound,
    NoBucket,
    /// A conditional put found the object.
    Exists,
    BucketExists,
    /// Another conditional put of the key is in progress.
    Conflict,
    /// The store knows that its copy is bad.
    Damaged,
    Denied,
    TooLarge,
    BadRange,
    /// Any other 4xx: the store will say the same again.
    Refused,
    Out(Outage),
}

pub(super) fn failure<E: Coded>(error: SdkError<E>) -> Failure {
    match error {
        SdkError::ServiceError(context) => of_answer(context.err().code(), context.raw().status().as_u16()),
        SdkError::ResponseError(context) => match context.raw().status().as_u16() {
            // An answer that does not parse.
            200..=299 => Failure::Out(Outage::Failing),
            status => of_answer(None, status),
        },
        SdkError::TimeoutError(_) => Failure::Out(Outage::Timeout),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Failure::Out(Outage::Timeout),
        SdkError::DispatchFailure(_) => Failure::Out(Outage::Connection),
        // ConstructionFailure, and what the SDK may add: nothing was sent, and sending it again gives the same.
        _ => Failure::Refused,
    }
}

/// Codes first: HEAD has no body, so there the status alone must do.
fn of_answer(code: Option<&str>, status: u16) -> Failure {
    match (code, status) {
        (Some("NoSuchBucket"), _) => Failure::NoBucket,
        (Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists"), _) => Failure::BucketExists,
        (Some("EntityTooLarge"), _) => Failure::TooLarge,
        (Some("SlowDown" | "ServiceUnavailable" | "RequestTimeout"), _) => Failure::Out(Outage::Busy),
        (_, 404) => Failure::NotFound,
        (_, 412) => Failure::Exists,
        (_, 409) => Failure::Conflict,
        (_, 416) => Failure::BadRange,
        // Only the embedded server has it: backend.rs, DAMAGED_STATUS.
        (_, 422) => Failure::Damaged,
        (_, 401 | 403) => Failure::Denied,
        (_, 413) => Failure::TooLarge,
        (_, 429 | 503) => Failure::Out(Outage::Busy),
        // BadDigest: the body changed on its way, so another try is worth it.
        (Some("BadDigest" | "IncompleteBody"), _) => Failure::Out(Outage::Connection),
        (_, 400..=499) => Failure::Refused,
        _ => Failure::Out(Outage::Failing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_before_the_status() {
        assert_eq!(of_answer(Some("NoSuchBucket"), 404), Failure::NoBucket);
        assert_eq!(of_answer(Some("NoSuchKey"), 404), Failure::NotFound);
        assert_eq!(of_answer(None, 404), Failure::NotFound);
        assert_eq!(of_answer(Some("PreconditionFailed"), 412), Failure::Exists);
        assert_eq!(of_answer(Some("BucketAlreadyOwnedByYou"), 409), Failure::BucketExists);
        assert_eq!(of_answer(Some("ConditionalRequestConflict"), 409), Failure::Conflict);
        assert_eq!(of_answer(Some("SignatureDoesNotMatch"), 403), Failure::Denied);
        assert_eq!(of_answer(Some("InternalError"), 500), Failure::Out(Outage::Failing));
        assert_eq!(of_answer(Some("SlowDown"), 503), Failure::Out(Outage::Busy));
        assert_eq!(of_answer(Some("BadDigest"), 400), Failure::Out(Outage::Connection));
        assert_eq!(of_answer(Some("InvalidRequest"), 400), Failure::Refused);
    }
}
