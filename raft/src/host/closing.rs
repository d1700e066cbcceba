//! Whether the host is closing, known to its background tasks without keeping the host alive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Closing {
    closed: AtomicBool,
    told: Notify,
}

impl Closing {
    /// Closes; false when it was closed before.
    pub(crate) fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.told.notify_waiters();
        first
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits for `pause`, or until the host closes. True while it is open.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        let told = self.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if self.is_closed() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => !self.is_closed(),
            () = told => false,
        }
    }
}
