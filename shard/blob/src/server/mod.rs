//! The embedded object store: S3 on the file system, one process a region.
//!
//! Invariant: an answer means durable. `200` to a put, `412` to a conditional put that lost, and `200` to HEAD and GET
//! are given only when content and name would survive a power cut (P-1).
//!
//! Invariant: of concurrent conditional puts (`If-None-Match: *`) of one key exactly one gets `200`.
//!
//! Invariant: a kill or a power cut in the middle of a put leaves nothing or the whole object.
//!
//! Why not s3s-fs: `docs/adr/010-own-s3-backend.md`. Deliberately absent: multipart uploads, metadata, versions, access
//! lists, presigned URLs; a request for one is refused, not half obeyed. `Content-Type` and the like are not kept.
//!
//! Traffic is plain HTTP/1.1: the store listens on a loopback or otherwise protected network, its clients sign requests.

mod backend;
mod commit;
mod digest;
mod disk;
mod format;
mod gate;
pub mod key;
mod list;
mod object;
mod tree;
mod upload;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use postrider_api::impatient::Impatient;
use postrider_api::trace::{self, Kind};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use backend::{Backend, DOWNLOADS_MAX};
use commit::Committer;
use disk::{Disk, RealDisk};
use tree::Tree;

pub use tree::ServeError;

/// For fuzzing: a footer that is understood is one that this build writes, byte for byte.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_footer(data: &[u8]) {
    let mut bytes = [0; format::FOOTER_BYTES];
    let length = data.len().min(bytes.len());
    bytes[..length].copy_from_slice(&data[..length]);
    let check = |bytes: &[u8; format::FOOTER_BYTES], file_len| {
        if let Ok(footer) = format::Footer::decode(bytes, file_len) {
            assert_eq!(&footer.encode(), bytes);
            assert_eq!(format::file_len_of(footer.len), Some(file_len));
        }
    };
    check(&bytes, length as u64);
    // No fuzzer guesses a checksum: with the right one the rest is reached, with the length that it claims, too.
    let claimed = format::seal(&mut bytes);
    for file_len in [Some(length as u64), format::file_len_of(claimed)].into_iter().flatten() {
        check(&bytes, file_len);
    }
}

/// Connections at a time. Further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 512;
/// Longest time for a request's headers, and for an idle connection. Longer than clients keep idle connections
/// (`s3/client.rs`), so that ours do not meet a connection that is being closed.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what is written to it.
const WRITE_STALL_MAX: Duration = Duration::from_secs(20);
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// XML request bodies, bytes; only CreateBucket has one.
const XML_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for requests in flight when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept (usually: no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Clone)]
pub struct S3ServerOptions {
    /// Where objects lie. Made if missing; used by one server at a time.
    pub dir: PathBuf,
    /// Where to listen, for whoever binds the listener.
    pub address: SocketAddr,
    /// The one access key that is known.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// Serves until `shutdown` is ready, then finishes the requests in flight.
///
/// # Errors
/// If the directory cannot be used, or once the disk fails to sync: the process should then end, see
/// [`ServeError::SyncFailed`].
pub fn serve(
    options: S3ServerOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> BoxFuture<'static, Result<(), ServeError>> {
    serve_on(Arc::new(RealDisk), Limits::default(), options, listener, Box::pin(shutdown))
}

/// What tests have less of.
#[derive(Clone, Copy)]
struct Limits {
    write_stall_max: Duration,
    downloads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { write_stall_max: WRITE_STALL_MAX, downloads_max: DOWNLOADS_MAX }
    }
}

fn serve_on(
    disk: Arc<dyn Disk>,
    limits: Limits,
    options: S3ServerOptions,
    listener: TcpListener,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, Result<(), ServeError>> {
    Box::pin(async move {
        let (dir, tree_disk) = (options.dir.clone(), Arc::clone(&disk));
        let opening = tokio::task::spawn_blocking(move || Tree::open(&dir, tree_disk));
        let tree = opening.await.map_err(|stopped| ServeError::Thread { source: std::io::Error::other(stopped) })??;
        let (committer, thread) = Committer::start(disk)?;
        let service = service(&options, limits, Arc::new(tree), committer.clone());
        let served = accept(listener, service, limits, committer, shutdown).await;
        // All handles are gone now, so the thread ends as soon as its last batch is answered.
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the commit thread panicked");
        }
        served
    })
}

fn service(options: &S3ServerOptions, limits: Limits, tree: Arc<Tree>, committer: Committer) -> S3Service {
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_BYTES_MAX;
    config.post_object_max_file_size = 0; // form uploads: never
    let mut builder = S3ServiceBuilder::new(Backend::new(tree, committer, limits.downloads_max));
    builder.set_auth(SimpleAuth::from_single(options.access_key.clone(), options.secret_key.clone()));
    builder.set_access(gate::Gate);
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

async fn accept(
    listener: TcpListener,
    service: S3Service,
    limits: Limits,
    mut committer: Committer,
    mut shutdown: BoxFuture<'static, ()>,
) -> Result<(), ServeError> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let outcome = loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            () = committer.failure() => break Err(ServeError::SyncFailed),
            accepted = next_connection(&listener, &slots) => {
                let (stream, slot) = accepted;
                let stream = Impatient::new(stream, limits.write_stall_max);
                connections.spawn(connection(stream, slot, service.clone(), graceful.watcher()));
            }
        }
    };
    drop((listener, service, committer));
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections that did not end in time are closed");
    }
    connections.shutdown().await;
    outcome
}

async fn next_connection(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // Never closed, so the permit is always there.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "set TCP_NODELAY"); // slower, not wrong
                }
                return (stream, slot);
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: Impatient<TcpStream>,
    slot: Option<OwnedSemaphorePermit>,
    service: S3Service,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| answer(service.clone(), request)));
    if let Err(error) = watcher.watch(connection).await {
        // Clients come and go; what went wrong in a request has been logged there.
        tracing::debug!(%error, "a connection ended early");
    }
    drop(slot);
}

async fn answer(service: S3Service, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let start = Instant::now();
    let method = match *request.method() {
        Method::GET => "get",
        Method::PUT => "put",
        Method::HEAD => "head",
        Method::DELETE => "delete",
        // POST is form uploads, multipart uploads and batch deletes: s3s would read such bodies before it asks `gate`.
        _ => return Ok(status_only(StatusCode::METHOD_NOT_ALLOWED)),
    };
    let mut span = trace::root("object", Kind::Server);
    span.set("http.request.method", method);
    let response = match span.scope(service.call(request.map(Body::from))).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(error = ?error, "a request could not be answered");
            status_only(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    if response.status().is_server_error() {
        span.fail("server error");
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!("postrider_blob_requests_total", "method" => method, "status" => status).increment(1);
    metrics::histogram!("postrider_blob_request_seconds", "method" => method).record(start.elapsed().as_secs_f64());
    Ok(response)
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
