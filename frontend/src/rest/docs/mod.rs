//! `/docs`: a page that shows `/openapi.json` and tries its paths out. It needs nothing from anywhere else.
//!
//! Invariant: the page's policy allows this origin only, and no inline script or style.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};

use crate::rest::openapi::OperationProblems;

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

/// This interface, to browse and to try out.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "operations",
    responses((status = 200, description = "A page", body = String, content_type = "text/html"), OperationProblems),
    security(()),
)]
pub(crate) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("page.html"))
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
