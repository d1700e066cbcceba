//! Work that blocks a thread for a moment, and on which somebody waits.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use tokio::runtime::{Handle, RuntimeFlavor};

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

/// Whether the caller's runtime has other threads than the caller's, which go on if a moment's work on this one takes longer than a moment.
pub(crate) fn is_one_of_many() -> bool {
    Handle::current().metrics().num_workers() > 1
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
