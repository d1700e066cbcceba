//! The end of a server that runs in its test's process.

use std::time::Duration;

use tokio::runtime::Runtime;

/// What ending may take on a machine that is busy with other things.
const GENEROUS: Duration = Duration::from_secs(60);

/// Ends a runtime as `kill -9` and a wait for the process would: its tasks are dropped where they wait, and nothing of it
/// answers any more when this returns.
pub fn end(runtime: Runtime) {
    // Not on the caller's thread: it may be one that runs tasks, which tokio does not let wait for a runtime.
    let ended = std::thread::spawn(move || runtime.shutdown_timeout(GENEROUS));
    // A thread of it that panicked has said so.
    drop(ended.join());
}
