//! Logs and counters of a process.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Logs go to standard error: for people when that is a terminal, as JSON lines when it is not. `RUST_LOG` overrides
/// `default_filter`.
pub(crate) fn start(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
