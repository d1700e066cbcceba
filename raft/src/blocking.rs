//! Work that blocks a thread for a moment, and on which somebody waits.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Work panicked.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Self(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default())
    }
}

/// The threads of the runtime, as far as work holds them that takes a moment, or much longer when the disk does. Cheap to clone.
///
/// Invariant: one thread is left that looks after connections and timers, whatever the disk does, and it is awake within [`WATCH_EVERY`]. tokio wakes
/// none when a task wakes one other, so the thread that has just heard of a message may be the only one awake, and would hear of nothing more while it
/// is held. A thread of our own wakes another when that lasts.
#[derive(Clone)]
pub(crate) struct Threads {
    /// One permit for each thread but the last.
    free: Arc<Semaphore>,
    /// How often a thread was held.
    holds: Arc<AtomicU64>,
}

/// A thread that is held longer than this is noticed.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// Who finds no thread that may be held waits so long for one.
const FREE_WITHIN: Duration = Duration::from_millis(3);

impl Threads {
    /// The threads of the caller's runtime, watched as long as this lives.
    ///
    /// # Errors
    /// When there is no thread to watch them.
    pub(crate) fn watch() -> std::io::Result<Self> {
        let runtime = Handle::current();
        let most = runtime.metrics().num_workers() - 1;
        let threads = Self { free: Arc::new(Semaphore::new(most)), holds: Arc::default() };
        if most > 0 {
            let (free, holds) = (Arc::downgrade(&threads.free), threads.holds.clone());
            let watch = move || {
                let mut before = 0;
                while let Some(free) = free.upgrade() {
                    let (is_held, now) = (free.available_permits() < most, holds.load(Ordering::Relaxed));
                    drop(free);
                    if is_held && now == before {
                        runtime.spawn(async {});
                    }
                    before = now;
                    std::thread::sleep(WATCH_EVERY);
                }
            };
            std::thread::Builder::new().name("raft-watch".to_owned()).spawn(watch)?;
        }
        Ok(threads)
    }

    /// The right to hold the caller's thread as long as what is returned lives; none for the last one.
    pub(crate) fn hold(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.free.try_acquire().ok()?;
        self.holds.fetch_add(1, Ordering::Relaxed);
        Some(permit)
    }

    /// The same; waits a moment for those who hold all others.
    pub(crate) async fn hold_soon(&self) -> Option<SemaphorePermit<'_>> {
        if let Some(permit) = self.hold() {
            return Some(permit);
        }
        if Handle::current().metrics().num_workers() == 1 {
            return None;
        }
        let permit = tokio::time::timeout(FREE_WITHIN, self.free.acquire()).await.ok()?.ok()?;
        self.holds.fetch_add(1, Ordering::Relaxed);
        Some(permit)
    }
}

/// Runs `work`, which takes a moment, and turns a panic into an error.
///
/// # Errors
/// [`Panicked`], if `work` did.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::of(&*payload))
}

/// Runs `work`, which may block, on the very thread that its caller is on, whose other tasks another thread takes over if it
/// lasts: nobody has to be woken for it to begin, or to go on once it has ended. On a runtime of one thread there is no
/// other that could take over, and `work` goes to a thread of its own.
///
/// # Errors
/// [`Panicked`], if `work` did.
pub(crate) async fn here<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
            Ok(payload) => Panicked::of(&*payload),
            Err(error) => Panicked(error.to_string()),
        });
    }
    tokio::task::block_in_place(|| caught(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn both_ways() {
        assert_eq!(here(|| 7).await.expect("it ran"), 7);
        let panicked = here(|| -> u32 { panic!("at the disco") }).await.expect_err("it panicked");
        assert_eq!(panicked.to_string(), "panicked: at the disco");
    }

    #[tokio::test]
    async fn on_one_thread() {
        both_ways().await;
        let threads = Threads::watch().expect("watched");
        assert!(threads.hold().is_none() && threads.hold_soon().await.is_none(), "it is the last one");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_thread_is_left_and_awake() {
        use std::io::Write;

        use tokio::io::AsyncReadExt;

        let threads = Threads::watch().expect("watched");
        let held = threads.hold().expect("there are two");
        assert!(threads.hold().is_none() && threads.hold_soon().await.is_none(), "there are two");
        drop(held);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut near = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (far, _) = listener.accept().expect("accepted");
        far.set_nonblocking(true).expect("set");
        let mut far = tokio::net::TcpStream::from_std(far).expect("a stream");
        let (tell, told) = std::sync::mpsc::channel();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            tell.send(()).expect("somebody waits");
        });
        // The thread that hears of the connection is held until a timer goes off, of which it would hear as well.
        let holder = tokio::spawn(async move {
            far.read_u8().await.expect("a byte");
            let _held = threads.hold().expect("there are two");
            told.recv_timeout(Duration::from_secs(60)).expect("the other thread looks at timers");
        });
        near.write_all(&[7]).expect("written");
        holder.await.expect("no panic");
        timer.await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn on_many_threads_the_others_go_on() {
        both_ways().await;
        // One worker: that whom this waits for runs at all shows that another thread has taken over.
        let (tell, told) = std::sync::mpsc::channel();
        let task = tokio::spawn(async move {
            tokio::spawn(async move { tell.send(()).expect("somebody waits") });
            let caller = std::thread::current().id();
            let ran_on = here(move || {
                told.recv().expect("the other task runs");
                std::thread::current().id()
            });
            assert_eq!(ran_on.await.expect("it ran"), caller);
        });
        task.await.expect("no panic");
    }
}
