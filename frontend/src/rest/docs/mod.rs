//! `/docs`: a page that shows `/openapi.json` and tries its paths out. It needs nothing from anywhere else. `/` leads programs there,
//! and browsers to the webmail.
//!
//! Invariant: the page's policy allows this origin only, and no inline script or style.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::rest::openapi::OperationProblems;
use crate::rest::regions::Regions;
use crate::rest::webmail;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

/// The webmail for who names `text/html` in `Accept`. Everybody else is led to `/docs`, and who reads the answer is told.
#[utoipa::path(
    get, path = "/", operation_id = "root", tag = "operations",
    responses(
        (status = 200, description = "The webmail", body = String, content_type = "text/html"),
        (status = 303, description = "See `/docs`", body = String, content_type = "text/plain"),
        OperationProblems,
    ),
    security(()),
)]
pub(crate) async fn root(State(regions): State<Regions>, headers: HeaderMap) -> Response {
    if postrider_webmail::reads_pages(&headers) {
        return webmail::page(State(regions), headers).await;
    }
    let headers = [
        (LOCATION, HeaderValue::from_static("/docs")),
        (VARY, HeaderValue::from_static("Accept")),
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (StatusCode::SEE_OTHER, headers, ROOT).into_response()
}

const ROOT: &str = "Postrider. The interface is shown, and can be tried out, at /docs; programs read it at /openapi.json.\n\
                    Whether this frontend is well: /healthz and /readyz.\n";

/// This interface, to browse and to try out.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "operations",
    responses((status = 200, description = "A page", body = String, content_type = "text/html"), OperationProblems),
    security(()),
)]
pub(crate) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("page.html"))
}

/// The page's script that shows markdown.
#[utoipa::path(
    get, path = "/docs/markdown.js", operation_id = "docs_markdown", tag = "operations",
    responses((status = 200, description = "A script", body = String, content_type = "text/javascript"), OperationProblems),
    security(()),
)]
pub(crate) async fn markdown() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("markdown.js"))
}

/// The page's script.
#[utoipa::path(
    get, path = "/docs/page.js", operation_id = "docs_script", tag = "operations",
    responses((status = 200, description = "A script", body = String, content_type = "text/javascript"), OperationProblems),
    security(()),
)]
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// The page's style.
#[utoipa::path(
    get, path = "/docs/page.css", operation_id = "docs_style", tag = "operations",
    responses((status = 200, description = "A style sheet", body = String, content_type = "text/css"), OperationProblems),
    security(()),
)]
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page.css"))
}
