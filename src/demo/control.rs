//! A socket in the demo's directory, so that `postrider demo restart` reaches the demo that runs there.
//!
//! One line asks (`restart node 2`), one line answers (`ok PID` or `error …`). The directory belongs to its owner alone, and
//! so does the socket.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::process::Job;

const SOCKET: &str = "demo.sock";
/// The longest request, bytes.
const LINE_BYTES_MAX: u64 = 256;

/// Listens for requests.
pub(crate) struct Control {
    listener: UnixListener,
}

/// One request, and where its answer goes.
pub(crate) struct Request {
    pub(crate) job: Job,
    stream: UnixStream,
}

impl Control {
    /// Opens the socket. The directory's lock is held: a socket that is there was left by a demo that is gone.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(SOCKET);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
        let (short, _directory) = short_path(root)?;
        let listener = UnixListener::bind(short).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener })
    }

    /// The next request that makes sense; others are answered here.
    pub(crate) async fn next(&self) -> std::io::Result<Request> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            if (&mut reader).take(LINE_BYTES_MAX).read_line(&mut line).await.is_err() {
                continue;
            }
            let mut stream = reader.into_inner();
            match parse(line.trim()) {
                Some(job) => return Ok(Request { job, stream }),
                // Whoever asks nonsense and hangs up needs no answer.
                None => drop(stream.write_all(b"error: restart node ID | frontend REGION | store REGION\n").await),
            }
        }
    }
}

impl Request {
    /// Answers. An error here means that nobody waits for the answer any more.
    pub(crate) async fn answer(mut self, result: Result<u32, String>) {
        let line = match result {
            Ok(pid) => format!("ok {pid}\n"),
            Err(error) => format!("error: {}\n", error.replace('\n', " ")),
        };
        drop(self.stream.write_all(line.as_bytes()).await);
    }
}

/// Asks the demo in `root` to start a process again; answers its new process id.
pub(crate) async fn restart(root: &Path, what: &str, which: &str) -> anyhow::Result<u32> {
    let (short, _directory) = short_path(root)?;
    let mut stream = UnixStream::connect(short)
        .await
        .with_context(|| format!("no demo is running in {}: start it with `postrider demo`", root.display()))?;
    stream.write_all(format!("restart {what} {which}\n").as_bytes()).await.context("ask the demo")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the demo's answer")?;
    match answer.trim().split_once(' ') {
        Some(("ok", pid)) => pid.parse().with_context(|| format!("the demo answered: {answer}")),
        _ => bail!("{}", answer.trim()),
    }
}

fn parse(line: &str) -> Option<Job> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["restart", "node", id] => Some(Job::Node { id: id.parse().ok()? }),
        ["restart", "frontend", region] => Some(Job::Frontend { region: region.into() }),
        ["restart", "store", region] => Some(Job::Store { region: region.into() }),
        _ => None,
    }
}

/// A socket's path has at most 107 bytes, a directory's may have more: the way through an open directory is always short.
fn short_path(root: &Path) -> anyhow::Result<(PathBuf, File)> {
    let directory = File::open(root).with_context(|| format!("open {}", root.display()))?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())), directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_the_demo_and_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("d".repeat(150));
        std::fs::create_dir(&root).unwrap();
        let control = Control::open(&root).unwrap();
        let demo = async {
            let request = control.next().await.unwrap();
            assert_eq!(request.job, Job::Node { id: 2 });
            request.answer(Ok(77)).await;
            control.next().await.unwrap().answer(Err("it is running".into())).await;
        };
        let asker = async {
            assert_eq!(restart(&root, "node", "2").await.unwrap(), 77);
            let error = restart(&root, "store", "seoul").await.unwrap_err();
            assert!(error.to_string().contains("it is running"), "{error}");
        };
        tokio::join!(demo, asker);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(dir.path()).unwrap();
        tokio::select! {
            _ = control.next() => panic!("nonsense is no request"),
            answer = restart(dir.path(), "moon", "1") => assert!(answer.is_err()),
        }
    }
}
