//! The webmail's page and files, beside the interface that the page uses.
//!
//! Invariant: the page's paths are not the interface's. Whatever is below `/v1` answers as `/openapi.json` says, whoever asks.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderMap;

use crate::rest::problem::{Kind, Problem};
use crate::rest::regions::Regions;

/// The paths of the webmail. `/` is [`crate::rest::docs::root`]'s, which knows browsers from programs.
pub(crate) fn paths<S>() -> Router<S>
where
    Regions: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    let files = format!("{}{{*file}}", postrider_webmail::FILES);
    let router = Router::new().route(&files, get(file)).route("/sw.js", get(worker));
    let router = postrider_webmail::PAGES.iter().fold(router, |router, path| router.route(path, get(page)));
    postrider_webmail::OPERATORS_PAGES.iter().fold(router, |router, path| router.route(path, get(operators_page)))
}

/// The page, wherever in it.
pub(crate) async fn page(State(regions): State<Regions>, headers: HeaderMap) -> Response {
    let origins = regions.elsewhere();
    postrider_webmail::page(&headers, origins.iter().map(String::as_str)).map(Body::from)
}

async fn operators_page(headers: HeaderMap) -> Response {
    postrider_webmail::operators_page(&headers).map(Body::from)
}

async fn worker(headers: HeaderMap) -> Response {
    postrider_webmail::worker(&headers).map(Body::from)
}

async fn file(Path(file): Path<String>, headers: HeaderMap) -> Response {
    match postrider_webmail::file(&file, &headers) {
        Some(response) => response.map(Body::from),
        None => Problem::new(Kind::NotFound).into_response(),
    }
}
