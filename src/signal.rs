//! When a process stops: on SIGTERM and SIGINT, or when the process that started it is gone.
//!
//! A parent that wants its children to go with it gives each the reading end of a pipe as standard input, keeps the writing
//! end, and names the pipe in [`LIFELINE`]. However the parent ends, `kill -9` included, the kernel closes the writing end
//! and the child reads the end of the file. Whoever starts the same command line with another standard input starts a
//! process that stands alone: the pipe that is named is not the one that it has.

use std::io::{Read as _, pipe};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Environment variable: the pipe on standard input whose end means "stop", as the kernel names it (`pipe:[INODE]`).
pub(crate) const LIFELINE: &str = "POSTRIDER_LIFELINE";

/// What a parent holds of one child; dropping it tells the child to stop.
pub(crate) struct Lifeline {
    _writer: std::io::PipeWriter,
}

impl Lifeline {
    /// A new pipe: what to keep, what to give to the child as standard input, and its name for [`LIFELINE`].
    pub(crate) fn new() -> std::io::Result<(Self, Stdio, String)> {
        let (reader, writer) = pipe()?;
        let name = pipe_name(reader.as_raw_fd())?;
        Ok((Self { _writer: writer }, Stdio::from(reader), name))
    }
}

fn pipe_name(descriptor: i32) -> std::io::Result<String> {
    Ok(std::fs::read_link(format!("/proc/self/fd/{descriptor}"))?.to_string_lossy().into_owned())
}

/// Resolves once when the process should stop, with the reason.
pub(crate) struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    parent: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// From here on signals no longer end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
            parent: watch_parent()?,
        })
    }

    /// Waits for the first of the reasons.
    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = gone(&mut self.parent) => "the parent process is gone",
        }
    }
}

async fn gone(parent: &mut Option<oneshot::Receiver<()>>) {
    match parent {
        Some(receiver) => {
            // The sender is dropped without a word only when the thread dies: then nobody watches, and stopping is safe.
            let _ = receiver.await;
            *parent = None;
        }
        None => std::future::pending().await,
    }
}

/// Reads standard input to its end on a thread of its own, when it is the pipe that the parent named.
fn watch_parent() -> anyhow::Result<Option<oneshot::Receiver<()>>> {
    let Ok(expected) = std::env::var(LIFELINE) else { return Ok(None) };
    if !pipe_name(0).is_ok_and(|name| name == expected) {
        return Ok(None);
    }
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("lifeline".into())
        .spawn(move || {
            let mut byte = [0; 1];
            // Nobody writes: both an end of file and an error mean that the other side is gone.
            while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
            // The receiver is gone when the process is stopping anyway.
            let _ = sender.send(());
        })
        .context("start the thread that watches the parent process")?;
    Ok(Some(receiver))
}
