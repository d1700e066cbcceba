//! Every error that REST gives, in one table: RFC 9457 problem documents.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use postrider_api::pb;
use postrider_api::pb::Refusal;
use postrider_api::trace;
use postrider_router::RouteError;
use serde_json::{Map, Value};

use crate::limits::{RateLimitFields, Refused};

/// What a problem's type URI begins with. A URN: it names, nothing has to answer under it.
pub(crate) const TYPE_PREFIX: &str = "urn:postrider:problem:";

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        /// What is wrong. The documentation of each is its title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Kind {
            $(#[doc = $title] $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the table.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The end of the type URI.
            pub(crate) fn slug(self) -> &'static str {
                match self { $(Kind::$name => $slug),* }
            }

            /// The status of the response.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Kind::$name => StatusCode::$status),* }
            }

            /// The sentence that is the same for each problem of this kind.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Kind::$name => $title),* }
            }
        }
    };
}

problems! {
    // The request as HTTP.
    NotFound = "not_found", NOT_FOUND, "There is no such thing here.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "This path does not have this method.";
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The path and query are too long.";
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The header fields are too large.";
    InvalidHeader = "invalid_header", BAD_REQUEST, "A header field has a value that is not allowed.";
    InvalidQuery = "invalid_query", BAD_REQUEST, "A query parameter is unknown or has a value that is not allowed.";
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not one that this list gave to this account.";
    InvalidSearch = "invalid_search", BAD_REQUEST, "The search cannot be understood.";
    MediaTypeUnsupported = "media_type_unsupported", UNSUPPORTED_MEDIA_TYPE, "The body has to be application/json.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large.";
    BodyUnreadable = "body_unreadable", BAD_REQUEST, "The body did not arrive whole.";
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON.";
    InvalidBody = "invalid_body", UNPROCESSABLE_ENTITY, "The body is JSON, but not what this path takes.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long.";
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, "The range lies outside of the file.";
    ProxyHeader = "proxy_header", BAD_REQUEST, "A connection from this network has to begin with a PROXY protocol header, version 2.";
    TlsRequired = "tls_required", BAD_REQUEST, "This port speaks HTTPS.";
    UpgradeRequired = "upgrade_required", UPGRADE_REQUIRED, "This path speaks WebSocket over HTTP/1.1.";

    // Who asks.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "There is no open session with this token.";
    WrongCredentials = "wrong_credentials", UNAUTHORIZED, "The address or the password is wrong.";
    SecondFactorRequired = "second_factor_required", UNAUTHORIZED, "The password is right; this account wants a code beside it.";
    WrongCode = "wrong_code", FORBIDDEN, "The code is wrong, or was used already.";
    SignUpClosed = "sign_up_closed", FORBIDDEN, "Only an administrator makes accounts here.";
    WrongPassword = "wrong_password", FORBIDDEN, "The current password is another one.";
    CrossSite = "cross_site", FORBIDDEN, "Another site's page asked with this browser's session.";
    NotOperator = "not_operator", FORBIDDEN, "This is for operators of the cluster.";
    AccountSuspended = "account_suspended", FORBIDDEN, "The account is suspended.";
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "This account asks too much.";
    TooManyAttempts = "too_many_attempts", TOO_MANY_REQUESTS, "Too many attempts.";
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many open event streams.";

    // Accounts.
    AddressInvalid = "address_invalid", UNPROCESSABLE_ENTITY, "The address is not valid.";
    DomainOutside = "domain_outside", UNPROCESSABLE_ENTITY, "The domain is not served here.";
    AddressTaken = "address_taken", CONFLICT, "The address is taken.";
    PasswordChanged = "password_changed", CONFLICT, "The password was changed meanwhile.";
    PasswordRule = "password_rule", UNPROCESSABLE_ENTITY, "The password breaks a rule.";

    AppPasswordsTooMany = "app_passwords_too_many", CONFLICT, "The account has as many application passwords as it may.";
    SecondFactorExists = "second_factor_exists", CONFLICT, "The account has a second factor.";

    // Idempotency.
    KeyMismatch = "idempotency_key_mismatch", UNPROCESSABLE_ENTITY, "The idempotency key was used with another request.";
    KeySpent = "idempotency_key_spent", UNPROCESSABLE_ENTITY, "What the idempotency key made is over.";

    // Folders and messages.
    FolderExists = "folder_exists", CONFLICT, "There is a folder of this name.";
    FolderProtected = "folder_protected", CONFLICT, "This folder has a role and stays as it is.";
    FoldersTooMany = "folders_too_many", CONFLICT, "The account has as many folders as it may.";
    FolderUnknown = "folder_unknown", UNPROCESSABLE_ENTITY, "There is no folder to move to.";
    LabelExists = "label_exists", CONFLICT, "There is a label of this name.";
    LabelsTooMany = "labels_too_many", CONFLICT, "The account has as many labels as it may.";
    LabelUnknown = "label_unknown", UNPROCESSABLE_ENTITY, "There is no such label to add or to remove.";
    MessageLabelsTooMany = "message_labels_too_many", CONFLICT, "A message would have more labels than it may.";
    BatchTooLarge = "batch_too_large", PAYLOAD_TOO_LARGE, "These messages are too much for one change: name fewer at a time.";
    QuotaExceeded = "quota_exceeded", INSUFFICIENT_STORAGE, "The mailbox is full.";
    QueueFull = "queue_full", SERVICE_UNAVAILABLE, "Too much of your mail, or for one of the recipients, is waiting. Nothing was sent.";
    RecipientSuppressed = "recipient_suppressed", UNPROCESSABLE_ENTITY, "This account does not send to a recipient any more. Nothing was sent.";
    SendingSlowed = "sending_slowed", TOO_MANY_REQUESTS, "This account is slowed: it sends far more than it used to, or too much comes back. Nothing was sent.";
    SuppressionsTooMany = "suppressions_too_many", CONFLICT, "The account has as many suppressed addresses as it may.";
    TooLate = "too_late", CONFLICT, "Somebody may have the message already.";
    SentTooMuch = "sent_too_much", TOO_MANY_REQUESTS, "This account has sent too much in a short time.";
    UploadUnknown = "upload_unknown", UNPROCESSABLE_ENTITY, "There is no such upload, or its time is over.";
    RecipientUnknown = "recipient_unknown", UNPROCESSABLE_ENTITY, "A recipient does not exist.";
    NotAvailableYet = "not_available_yet", UNPROCESSABLE_ENTITY, "This field is not available yet.";
    ReplyUnknown = "reply_unknown", UNPROCESSABLE_ENTITY, "The message that is answered is not in this mailbox.";
    MessageTooLarge = "message_too_large", PAYLOAD_TOO_LARGE, "The message is too large.";
    ImageUnavailable = "image_unavailable", BAD_GATEWAY, "The image cannot be had, or is none that is shown.";
    ResyncRequired = "resync_required", GONE, "Changes that far back are no longer kept: read everything again.";

    // Operators.
    ActionRefused = "action_refused", CONFLICT, "The cluster refused this. Nothing was changed.";

    // The cluster.
    NoQuorum = "no_quorum", SERVICE_UNAVAILABLE, "The mailbox's shard has no quorum now. Nothing was changed.";
    Busy = "busy", SERVICE_UNAVAILABLE, "Overloaded. Nothing was changed.";
    Behind = "behind", SERVICE_UNAVAILABLE, "No replica within reach is as new as min_modseq.";
    OutcomeUnknown = "outcome_unknown", SERVICE_UNAVAILABLE, "No answer in time. It may have been carried out: ask again under the same idempotency key.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The cluster does not answer. Nothing was changed.";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "Not ready to serve.";
    Stopping = "stopping", SERVICE_UNAVAILABLE, "This frontend is stopping.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something is wrong on our side.";
}

/// Seconds after which it makes sense to ask a busy cluster again.
const RETRY_AFTER_S: u64 = 1;

/// When an account that is slowed may have something to send again: its count is of an hour.
const SLOWED_PAUSE: Duration = Duration::from_secs(10 * 60);

/// A problem document in the making.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Option<Cow<'static, str>>,
    retry_after_s: Option<u64>,
    limit: Option<Box<RateLimitFields>>,
    members: Map<String, Value>,
}

impl Problem {
    /// Of a kind, without detail. What is 503 says when to ask again.
    pub(crate) fn new(kind: Kind) -> Self {
        let retry = kind.status() == StatusCode::SERVICE_UNAVAILABLE;
        Self { kind, detail: None, retry_after_s: retry.then_some(RETRY_AFTER_S), limit: None, members: Map::new() }
    }

    /// Past a limit: which one, and when to ask again.
    pub(crate) fn limited(kind: Kind, refused: &Refused) -> Self {
        // Rounded up: whoever comes when he is told to is let through.
        let wait = Duration::from_secs(refused.wait.as_millis().div_ceil(1000) as u64);
        Self { limit: Some(Box::new(refused.fields())), ..Self::new(kind).retry_after(wait) }
    }

    /// What is wrong in this case. Only what the client sent or may know.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// An extension member (RFC 9457 section 3.2).
    #[must_use]
    pub(crate) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// When to ask again; at least a second is said.
    #[must_use]
    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_s = Some(after.as_secs().max(1));
        self
    }

    /// What is wrong in this case, if that was said.
    pub(crate) fn said(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Something that must not happen: logged here, told without its particulars.
    pub(crate) fn internal(what: &str) -> Self {
        tracing::error!(what, "request failed");
        Self::new(Kind::Internal)
    }

    /// A field of the body that is not as it has to be.
    pub(crate) fn field(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidBody).detail(detail).member("field", field)
    }

    /// What a shard's refusal is to the client, where nothing more is known about the request.
    pub(crate) fn refused(refused: &pb::Refused) -> Self {
        let kind = match refused.refusal() {
            Refusal::UnknownUser
            | Refusal::UnknownMessage
            | Refusal::UnknownFolder
            | Refusal::UnknownLabel
            | Refusal::UnknownAppPassword
            | Refusal::UnknownEntry => Kind::NotFound,
            Refusal::AppPasswordsTooMany => Kind::AppPasswordsTooMany,
            Refusal::FolderExists => Kind::FolderExists,
            Refusal::FolderProtected => Kind::FolderProtected,
            Refusal::FoldersTooMany => Kind::FoldersTooMany,
            Refusal::LabelExists => Kind::LabelExists,
            Refusal::LabelsTooMany => Kind::LabelsTooMany,
            Refusal::MessageLabelsTooMany => Kind::MessageLabelsTooMany,
            Refusal::UpdateTooLarge => Kind::BatchTooLarge,
            Refusal::QuotaExceeded => Kind::QuotaExceeded,
            // For a moment: the pin was over, or a sweep is at the same content.
            Refusal::BlobsNotPinned | Refusal::BlobCondemned => Kind::Unavailable,
            Refusal::FingerprintMismatch => Kind::KeyMismatch,
            Refusal::AddressTaken => Kind::AddressTaken,
            Refusal::QueueFull => Kind::QueueFull,
            // Both say to whom it belongs what it is about.
            Refusal::RecipientSuppressed => {
                return Self::new(Kind::RecipientSuppressed).detail(refused.detail.clone());
            }
            Refusal::SendingSlowed => {
                return Self::new(Kind::SendingSlowed).detail(refused.detail.clone()).retry_after(SLOWED_PAUSE);
            }
            Refusal::SuppressionsTooMany => Kind::SuppressionsTooMany,
            Refusal::TooLate => Kind::TooLate,
            Refusal::AccountSuspended => Kind::AccountSuspended,
            // A build that is newer than the shard: once it has been raised, the same request is carried out.
            Refusal::VersionNotEnabled => Kind::Unavailable,
            Refusal::Unspecified
            | Refusal::UnknownAddress
            | Refusal::SessionsTooMany
            | Refusal::Malformed
            | Refusal::AccountExists
            | Refusal::LeaseTooOld
            | Refusal::PasswordChanged
            | Refusal::UnknownSession
            | Refusal::UnknownShard
            | Refusal::UnknownNode
            | Refusal::NodeRemoved
            | Refusal::UnknownOperation
            | Refusal::UnknownDomain
            | Refusal::DkimKeysTooMany
            | Refusal::SecondFactorWanted
            | Refusal::SecondFactorSpent
            | Refusal::UnknownSecondFactor
            | Refusal::Conflict => {
                tracing::error!(refusal = ?refused.refusal(), detail = refused.detail, "a shard refused what REST checks");
                Kind::Internal
            }
        };
        Self::new(kind)
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NoQuorum => Self::new(Kind::NoQuorum),
            RouteError::Busy => Self::new(Kind::Busy),
            RouteError::TimedOut { may_have_happened: true } => Self::new(Kind::OutcomeUnknown),
            RouteError::TimedOut { may_have_happened: false } => Self::new(Kind::Unavailable),
            RouteError::Unauthenticated => Self::new(Kind::Unauthenticated),
            RouteError::Suspended => Self::new(Kind::AccountSuspended),
            RouteError::UnknownShard => {
                Self::new(Kind::Unavailable).detail("the shard map does not name the shard yet")
            }
            RouteError::Moved => Self::new(Kind::Unavailable).detail("the shard is moving"),
            RouteError::TooLarge { max } => Self::new(Kind::BodyTooLarge).member("bytes_max", max),
            RouteError::Behind => Self::new(Kind::Behind),
            RouteError::Unready { detail } => Self::new(Kind::Unavailable).detail(detail),
            RouteError::TooCostly { detail } => Self::new(Kind::InvalidSearch).detail(detail),
            RouteError::Forbidden { .. }
            | RouteError::LeaseLost
            | RouteError::Malformed { .. }
            | RouteError::Corrupt { .. } => {
                tracing::error!(%error, "the cluster refused a request");
                Self::new(Kind::Internal)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut document = Map::new();
        document.insert("type".to_owned(), format!("{TYPE_PREFIX}{}", self.kind.slug()).into());
        document.insert("title".to_owned(), self.kind.title().into());
        document.insert("status".to_owned(), self.kind.status().as_u16().into());
        if let Some(detail) = self.detail {
            document.insert("detail".to_owned(), detail.into());
        }
        document.extend(self.members);
        // What is wrong on our side is asked about: it is kept.
        let is_ours = self.kind.status().is_server_error();
        let trace = if is_ours { trace::quoted_id() } else { trace::current_id() };
        if let Some(trace) = trace {
            document.insert("trace_id".to_owned(), trace.to_string().into());
        }
        let mut response = Response::new(Body::from(Value::Object(document).to_string()));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(limit) = self.limit {
            limit.write(headers);
        }
        if self.kind.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postrider\""));
        }
        if self.kind.status() == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 section 15.5.22.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let slugs: HashSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
            assert!(kind.title().ends_with('.'), "{kind:?}");
        }
    }

    #[test]
    fn what_may_pass_says_when_to_ask_again() {
        let response = Problem::from(RouteError::NoQuorum).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
