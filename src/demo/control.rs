//! A socket in the demo's directory, so that `postrider demo restart` and `add-node` reach the demo that runs there.
//!
//! One line asks (`restart node 2`, `restart node 2 /another/binary`, `add-node seoul`), one line answers (`ok …` or `error …`). The directory belongs to its owner alone, and
//! so does the socket.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::local::Job;

const SOCKET: &str = "demo.sock";
/// The longest request, bytes.
const LINE_BYTES_MAX: u64 = 8 * 1024;

/// Requests that wait for the demo to have time.
const REQUESTS_AHEAD: usize = 16;
/// Who has connected must have asked by then.
const ASK_MAX: Duration = Duration::from_secs(10);

const USAGE: &[u8] =
    b"error: restart node ID | frontend REGION | store REGION | dns REGION [BINARY], or add-node REGION\n";

/// Listens for requests.
pub(crate) struct Control {
    requests: mpsc::Receiver<Request>,
    /// Stops listening when this is dropped.
    _listening: JoinSet<()>,
}

/// What the demo is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Start a process again that has ended, from another binary if one is given.
    Restart { job: Job, program: Option<PathBuf> },
    /// Start one storage node more.
    AddNode { region: String },
}

/// One request, and where its answer goes.
pub(crate) struct Request {
    pub(crate) errand: Errand,
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
        let (ask, requests) = mpsc::channel(REQUESTS_AHEAD);
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, ask));
        Ok(Self { requests, _listening: listening })
    }

    /// The next request that makes sense; others are answered already. None when the socket has failed. Loses nothing when
    /// it is dropped before it is done: the demo looks after its processes at the same time.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

async fn listen(listener: UnixListener, ask: mpsc::Sender<Request>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(tokio::time::timeout(ASK_MAX, hear(stream, ask.clone())));
                }
                Err(error) => {
                    tracing::error!(%error, "nobody can ask the demo any more");
                    return;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn hear(stream: UnixStream, ask: mpsc::Sender<Request>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if (&mut reader).take(LINE_BYTES_MAX).read_line(&mut line).await.is_err() {
        return;
    }
    let mut stream = reader.into_inner();
    match parse(line.trim()) {
        // A demo that stops hangs up.
        Some(errand) => drop(ask.send(Request { errand, stream }).await),
        // Whoever asks nonsense and hangs up needs no answer.
        None => drop(stream.write_all(USAGE).await),
    }
}

impl Request {
    /// Answers. An error here means that nobody waits for the answer any more.
    pub(crate) async fn answer(mut self, result: Result<String, String>) {
        let line = match result {
            Ok(said) => format!("ok {said}\n"),
            Err(error) => format!("error: {}\n", error.replace('\n', " ")),
        };
        drop(self.stream.write_all(line.as_bytes()).await);
    }
}

/// Asks the demo in `root` to start a process again, from another binary if one is given; answers its new process id.
pub(crate) async fn restart(root: &Path, job: &Job, program: Option<&Path>) -> anyhow::Result<u32> {
    let mut line = format!("restart {} {}", job.subcommand(), job.which());
    if let Some(program) = program {
        let path = program.to_str().filter(|path| !path.contains('\n')).context("the binary's path is no text")?;
        line.push(' ');
        line.push_str(path);
    }
    let said = ask(root, &line).await?;
    said.parse().with_context(|| format!("the demo answered: {said}"))
}

/// Asks the demo in `root` to start a storage node more in a region; answers its number and its process id.
pub(crate) async fn add_node(root: &Path, region: &str) -> anyhow::Result<(u64, u32)> {
    let said = ask(root, &format!("add-node {region}")).await?;
    let read = said.split_once(' ').and_then(|(id, pid)| Some((id.parse().ok()?, pid.parse().ok()?)));
    read.with_context(|| format!("the demo answered: {said}"))
}

async fn ask(root: &Path, line: &str) -> anyhow::Result<String> {
    let (short, _directory) = short_path(root)?;
    let mut stream = UnixStream::connect(short)
        .await
        .with_context(|| format!("no demo is running in {}: start it with `postrider demo`", root.display()))?;
    stream.write_all(format!("{line}\n").as_bytes()).await.context("ask the demo")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the demo's answer")?;
    match answer.trim().split_once(' ') {
        Some(("ok", said)) => Ok(said.to_owned()),
        _ => bail!("{}", answer.trim()),
    }
}

fn parse(line: &str) -> Option<Errand> {
    // A path may have spaces in it.
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    Some(match words[..] {
        ["restart", kind, which] => Errand::Restart { job: Job::parse(kind, which)?, program: None },
        ["restart", kind, which, path] => {
            Errand::Restart { job: Job::parse(kind, which)?, program: Some(PathBuf::from(path)) }
        }
        ["add-node", region] => Errand::AddNode { region: region.into() },
        _ => return None,
    })
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
        let mut control = Control::open(&root).unwrap();
        let demo = async {
            let request = control.next().await.unwrap();
            assert_eq!(request.errand, Errand::Restart { job: Job::Node { id: 2 }, program: None });
            request.answer(Ok("77".into())).await;
            let request = control.next().await.unwrap();
            let store = Job::Store { region: "seoul".into() };
            assert_eq!(request.errand, Errand::Restart { job: store, program: Some("/a b".into()) });
            request.answer(Err("it is running".into())).await;
            let request = control.next().await.unwrap();
            assert_eq!(request.errand, Errand::AddNode { region: "seoul".into() });
            request.answer(Ok("4 88".into())).await;
        };
        let asker = async {
            assert_eq!(restart(&root, &Job::Node { id: 2 }, None).await.unwrap(), 77);
            let error =
                restart(&root, &Job::Store { region: "seoul".into() }, Some(Path::new("/a b"))).await.unwrap_err();
            assert!(error.to_string().contains("it is running"), "{error}");
            assert_eq!(add_node(&root, "seoul").await.unwrap(), (4, 88));
        };
        tokio::join!(demo, asker);
    }

    #[tokio::test]
    async fn a_demo_that_is_busy_with_something_else_loses_no_request() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::open(dir.path()).unwrap();
        let (short, _directory) = short_path(dir.path()).unwrap();
        let mut slow = UnixStream::connect(short).await.unwrap();
        // The demo looks, has something else to do, and looks again, while somebody is half through with asking.
        for part in ["restart ", "node ", "2"] {
            slow.write_all(part.as_bytes()).await.unwrap();
            for _ in 0..100 {
                tokio::select! {
                    biased;
                    _ = control.next() => panic!("it was not asked yet"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        // Somebody else need not wait for the slow one.
        let asker = restart(dir.path(), &Job::Node { id: 1 }, None);
        let demo = async { control.next().await.unwrap().answer(Ok("5".into())).await };
        assert_eq!(tokio::join!(asker, demo).0.unwrap(), 5);
        slow.write_all(b"\n").await.unwrap();
        let request = control.next().await.unwrap();
        assert_eq!(request.errand, Errand::Restart { job: Job::Node { id: 2 }, program: None });
        request.answer(Ok("6".into())).await;
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "ok 6\n");
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::open(dir.path()).unwrap();
        tokio::select! {
            _ = control.next() => panic!("nonsense is no request"),
            answer = ask(dir.path(), "restart moon 1") => assert!(answer.is_err()),
        }
    }
}
