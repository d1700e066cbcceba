//! The OpenAPI document: what handlers share, and what stands around their paths.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response,
    ResponseBuilder, ServerBuilder,
};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::rest::credentials;
use crate::rest::events::frame::{Frame, Resync};
use crate::rest::problem::{Kind, TYPE_PREFIX};

/// `?min_modseq=`, alone.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MinModseq {
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

impl MinModseq {
    /// 0: any.
    pub(crate) fn get(&self) -> u64 {
        self.min_modseq.unwrap_or(0)
    }
}

/// `If-None-Match`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // the field is read by `conditional.rs`; this is for the document
pub(crate) struct IfNoneMatch {
    /// The `ETag` of an answer that the client has: while it holds, the answer is 304.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// 304.
pub(crate) struct NotModified;

impl IntoResponses for NotModified {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let response = ResponseBuilder::new().description("The answer with the given `ETag` still holds").build();
        BTreeMap::from([("304".to_owned(), response.into())])
    }
}

/// A problem document (RFC 9457). Further members belong to its type.
#[derive(Serialize, ToSchema)]
#[allow(dead_code)] // the shape of what `problem.rs` writes, for the document
pub(crate) struct ProblemDocument {
    /// `urn:postrider:problem:` and the kind.
    #[serde(rename = "type")]
    #[schema(example = "urn:postrider:problem:not_found")]
    kind: String,
    /// The same for each problem of its type.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong in this case.
    detail: Option<String>,
    /// Where the frontend traces: the request's trace, for whoever asks its operators (W3C Trace Context).
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: Option<String>,
}

/// Which kinds a set of problems has, by status.
fn responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_str().to_owned()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status, problem_response(&kinds).into())).collect()
}

fn problem_response(kinds: &[Kind]) -> Response {
    let lines: Vec<_> = kinds.iter().map(|kind| format!("`{TYPE_PREFIX}{}`: {}", kind.slug(), kind.title())).collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).build();
    ResponseBuilder::new().description(lines.join("\n\n")).content("application/problem+json", content).build()
}

/// What any request may meet.
const ANY: &[Kind] = &[
    Kind::MethodNotAllowed,
    Kind::UriTooLong,
    Kind::HeadersTooLarge,
    Kind::RequestTimeout,
    Kind::Internal,
    Kind::Stopping,
];
/// What a request of the cluster may meet.
const CLUSTER: &[Kind] = &[Kind::NoQuorum, Kind::Busy, Kind::Unavailable];
/// What a request with a JSON body may meet.
const JSON: &[Kind] =
    &[Kind::MediaTypeUnsupported, Kind::BodyTooLarge, Kind::BodyUnreadable, Kind::MalformedJson, Kind::InvalidBody];

macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident = [$($set:expr),*] + [$($kind:ident),*];)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let mut kinds: Vec<Kind> = Vec::new();
                $(kinds.extend_from_slice($set);)*
                kinds.extend_from_slice(&[$(Kind::$kind),*]);
                responses(&kinds)
            }
        }
    )*};
}

problem_sets! {
    /// Of reads under a session.
    ReadProblems = [ANY, CLUSTER] + [Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidQuery, InvalidCursor, Behind];
    /// Of searches.
    SearchProblems = [ANY, CLUSTER] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidQuery, InvalidSearch, InvalidCursor, Behind
    ];
    /// Of writes under a session.
    WriteProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidHeader, OutcomeUnknown, KeyMismatch, FolderExists, FolderProtected,
        FoldersTooMany, FolderUnknown, LabelExists, LabelsTooMany, LabelUnknown, MessageLabelsTooMany, BatchTooLarge,
        QuotaExceeded
    ];
    /// Of signing up and logging in.
    AccountProblems = [ANY, CLUSTER, JSON] + [
        WrongCredentials, SecondFactorRequired, WrongCode, AccountSuspended, SignUpClosed, TooManyAttempts, AddressInvalid, DomainOutside, AddressTaken, PasswordRule,
        InvalidHeader, OutcomeUnknown, KeyMismatch, KeySpent
    ];
    /// Of what an account's owner does with it.
    OwnerProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, WrongPassword, PasswordChanged, PasswordRule,
        SecondFactorRequired, WrongCode, SecondFactorExists,
        AppPasswordsTooMany, InvalidHeader, OutcomeUnknown, KeyMismatch, NotFound
    ];
    /// Of sending.
    SendProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, InvalidHeader, OutcomeUnknown, KeyMismatch, AddressInvalid, RecipientUnknown, NotFound,
        NotAvailableYet, RecipientSuppressed, SendingSlowed, ReplyUnknown, MessageTooLarge, QuotaExceeded, QueueFull, TooLate, SentTooMuch, UploadUnknown
    ];
    /// Of changing whom an account does not send to.
    SuppressionProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, InvalidHeader, OutcomeUnknown, KeyMismatch, AddressInvalid, NotFound,
        SuppressionsTooMany
    ];
    /// Of what administrators do.
    AdministrationProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, NotFound, InvalidQuery, InvalidCursor, DomainOutside, AddressInvalid, OutcomeUnknown, SuppressionsTooMany
    ];
    /// Of what operators do.
    OperatorProblems = [ANY, CLUSTER, JSON] + [
        Unauthenticated, NotOperator, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidQuery, InvalidCursor, Behind,
        OutcomeUnknown, ActionRefused
    ];
    /// Of unsubscribing.
    UnsubscribeProblems = [ANY, CLUSTER] + [NotFound, BodyUnreadable, InvalidBody, OutcomeUnknown, SuppressionsTooMany];
    /// Of reading files.
    FileProblems = [ANY, CLUSTER] + [Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidQuery, Behind, RangeNotSatisfiable];
    /// Of images that messages show.
    ImageProblems = [ANY, CLUSTER] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, NotFound, InvalidQuery, Behind, ImageUnavailable
    ];
    /// Of event streams.
    EventProblems = [ANY, CLUSTER] + [
        Unauthenticated, CrossSite, AccountSuspended, TooManyRequests, TooManyAttempts, InvalidQuery, TooManyStreams, ResyncRequired, UpgradeRequired
    ];
    /// Of what anybody may ask with parameters.
    QueryProblems = [ANY] + [NotFound, InvalidQuery];
    /// Of what operators ask.
    OperationProblems = [ANY] + [NotReady];
    /// Of reading counters.
    MetricsProblems = [ANY] + [Unauthenticated];
}

/// The document around the paths.
pub(crate) fn document() -> OpenApi {
    let tag = |name: &str, text: &str| TagBuilder::new().name(name).description(Some(text)).build();
    let mut components = Components::new();
    add_schema::<ProblemDocument>(&mut components);
    // What goes over the WebSocket, which OpenAPI has no place for.
    add_schema::<Frame>(&mut components);
    add_schema::<Resync>(&mut components);
    components.add_security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(credentials::NAME))));
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Postrider")
                .version("1")
                .description(Some(DESCRIPTION))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .servers(Some([ServerBuilder::new().url("/").description(Some("This frontend")).build()]))
        .tags(Some([
            tag("accounts", "Signing up, logging in and out"),
            tag("profile", "The account itself"),
            tag("folders", "Folders"),
            tag("labels", "Labels of one's own"),
            tag("messages", "Messages and their files"),
            tag("threads", "Conversations"),
            tag("search", "Finding messages, conversations and people"),
            tag("events", "Changes as they happen"),
            tag("regions", "Where else a client could go"),
            tag("administration", "For who administers domains, and for operators"),
            tag("operations", "For those who run it"),
        ]))
        .components(Some(components))
        .build()
}

/// How a request shows its session.
const TOKEN: &str = "token";
const COOKIE: &str = "cookie";

/// Says of every path that takes a token of an account that it takes a browser's cookie as well.
pub(crate) fn with_cookies(mut document: OpenApi) -> OpenApi {
    let token = SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, []);
    for (path, item) in &mut document.paths.paths {
        // The administrator's, which is in no cookie.
        let is_accounts = path.starts_with("/v1/") && path != "/v1/accounts";
        let methods = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for security in methods.into_iter().flatten().filter_map(|operation| operation.security.as_mut()) {
            if is_accounts && security.contains(&token) {
                security.push(SecurityRequirement::new::<_, [&str; 0], &str>(COOKIE, []));
            }
        }
    }
    document
}

fn add_schema<T: ToSchema>(components: &mut Components) {
    let mut schemas = Vec::new();
    T::schemas(&mut schemas);
    schemas.push((T::name().into_owned(), T::schema()));
    components.schemas.extend(schemas);
}

const DESCRIPTION: &str = "Mail over REST. Errors are problem documents (RFC 9457). Times are RFC 3339 in UTC. Ids are text.\n\n\
Log in with `POST /v1/sessions` and send the token as `Authorization: Bearer`. A page of this origin may keep it in a cookie that no script reads instead.\n\n\
An answer with the header `Postrider-Stale-Ms` was read where no leader can be reached, and is at most that old.\n\n\
Every write of folders, labels or messages answers with the header `Postrider-Modseq`; a read with `min_modseq` of that value sees the write, or is 503.";
