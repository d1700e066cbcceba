//! Traces over gRPC: `traceparent` in the metadata of calls and, the other way, of their answers.
//!
//! A call within a span is a span of its own, and so is what the called process does for it. The answer says whether that process keeps its
//! part: then the caller does, and whoever it asks next.

use std::task::{Context as Poller, Poll};

use futures::future::{BoxFuture, Either};
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::context::{Context, TRACEPARENT};
use super::keeper::Kind;
use super::span::{self, Span};

fn read(headers: &HeaderMap) -> Option<Context> {
    Context::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

fn write(headers: &mut HeaderMap, context: Context) {
    // Digits and dashes.
    if let Ok(value) = HeaderValue::from_str(&context.traceparent()) {
        headers.insert(TRACEPARENT, value);
    }
}

/// What a call is called: "postrider.v1.ShardService/Propose" (OpenTelemetry's conventions for RPC spans).
fn name<B>(request: &Request<B>) -> String {
    request.uri().path().trim_start_matches('/').to_owned()
}

/// Errors that are no answer to what was asked.
fn judge(span: &mut Span, headers: &HeaderMap) {
    if let Some(status) = Status::from_header_map(headers)
        && status.code() != Code::Ok
    {
        span.fail(format!("{:?}", status.code()));
    }
}

/// The client's side of a connection.
#[derive(Debug, Clone)]
pub struct Traced<S>(pub S);

impl<S, B, R> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut span = span::child("", Kind::Client);
        let Some(context) = span.context() else { return Either::Left(self.0.call(request)) };
        span.rename(|| name(&request));
        write(request.headers_mut(), context);
        let calling = self.0.call(request);
        Either::Right(Box::pin(async move {
            // Unless there is an answer.
            span.fail("given up");
            let answered = calling.await;
            match &answered {
                Ok(response) => {
                    span.succeed();
                    judge(&mut span, response.headers());
                    span.heed(read(response.headers()));
                }
                Err(_) => span.fail("the connection failed"),
            }
            answered
        }))
    }
}

/// The server's side, for all of its services.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerLayer;

impl<S> Layer<S> for ServerLayer {
    type Service = Serving<S>;

    fn layer(&self, service: S) -> Serving<S> {
        Serving(service)
    }
}

/// A service whose calls are spans where the caller has one.
#[derive(Debug, Clone)]
pub struct Serving<S>(S);

impl<S, B, R> Service<Request<B>> for Serving<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut span = span::remote(read(request.headers()), "", Kind::Server);
        if !span.is_on() {
            return Either::Left(self.0.call(request));
        }
        span.rename(|| name(&request));
        let serving = span.scope(self.0.call(request));
        Either::Right(Box::pin(async move {
            let mut answered = serving.await;
            if let Ok(response) = &answered {
                judge(&mut span, response.headers());
            }
            // It ends first: what it was slow in or failed at is known then.
            if let (Some(context), Ok(response)) = (span.end(), &mut answered) {
                write(response.headers_mut(), context);
            }
            answered
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_written_and_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), None);
        let context = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap();
        write(&mut headers, context);
        assert_eq!(read(&headers), Some(context));
        headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
        assert_eq!(read(&headers), None);
        let request = Request::get("http://node/postrider.v1.ShardService/Propose").body(()).unwrap();
        assert_eq!(name(&request), "postrider.v1.ShardService/Propose");
    }

    /// Nobody traces in this process, or somebody's keeper is installed: the call goes through in any case.
    #[tokio::test]
    async fn a_call_goes_through_both_sides() {
        let inner = tower::service_fn(async |request: Request<()>| {
            let mut response = Response::new(request.headers().contains_key(TRACEPARENT));
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
            Ok::<_, std::convert::Infallible>(response)
        });
        let mut client = Traced(ServerLayer.layer(inner));
        let response = client.call(Request::new(())).await.unwrap();
        assert!(!response.body(), "nothing was current");
    }
}
