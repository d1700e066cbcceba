//! The sockets of a server, and its life.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::{io, thread};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::respond::Responder;
use super::{tcp, udp};

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Over UDP and TCP. Port 0: any that is free for both, for tests.
    pub listen: Vec<SocketAddr>,
    /// Threads for UDP at each address; `None`: one for each core.
    pub threads: Option<NonZero<usize>>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is nothing to listen at.
    #[error("listen: no address")]
    NoAddress,
    /// An address cannot be had.
    #[error("listen at {address}: {error}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// There is no thread to be had.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop_threads: Arc<AtomicBool>,
    stop_tasks: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Listens at all addresses, or at none.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn start(options: &ServerOptions, responder: Arc<Responder>) -> Result<Self, ListenError> {
        if options.listen.is_empty() {
            return Err(ListenError::NoAddress);
        }
        let cores = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let count = options.threads.unwrap_or_else(cores).get();
        let mut addresses = Vec::new();
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for &wanted in &options.listen {
            let error = |error| ListenError::Bind { address: wanted, error };
            // TCP first: it says whether the port is free, which UDP sockets that share one do not.
            let listener = TcpListener::bind(wanted).await.map_err(error)?;
            let address = listener.local_addr().map_err(error)?;
            for _ in 0..count {
                sockets.push(udp::bind(address).map_err(error)?);
            }
            listeners.push(listener);
            addresses.push(address);
        }
        let stop_threads = Arc::new(AtomicBool::new(false));
        let (stop_tasks, stopped) = watch::channel(false);
        let threads = sockets
            .into_iter()
            .enumerate()
            .map(|(number, socket)| udp::serve(number, socket, responder.clone(), stop_threads.clone()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                stop_threads.store(true, Ordering::Release);
                ListenError::Thread(error)
            })?;
        let tasks = listeners
            .into_iter()
            .map(|listener| tokio::spawn(tcp::serve(listener, responder.clone(), stopped.clone())))
            .collect();
        Ok(Self { addresses, stop_threads, stop_tasks, threads, tasks })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops listening, and waits until what was being answered is.
    pub async fn stop(self) {
        self.stop_threads.store(true, Ordering::Release);
        self.stop_tasks.send_replace(true);
        for task in self.tasks {
            let _ = task.await; // it does not panic; if it did, it has stopped
        }
        let threads = self.threads;
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}
