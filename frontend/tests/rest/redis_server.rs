//! A `redis-server` (Debian: redis-server) of a test's own, on a socket in a directory of its own. Unit tests include this file, too.

#![allow(dead_code)] // each of them uses its part of this

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest that a server takes to start on a loaded machine.
const START_MAX: Duration = Duration::from_secs(60);

pub(crate) struct RedisServer {
    dir: TempDir,
    arguments: Vec<String>,
    child: Child,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments than it needs.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(&dir, &arguments);
        let server = Self { dir, arguments, child };
        server.wait();
        server
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// As settings name it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Answers of `redis-cli`, raw.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(self.socket()).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).trim_end().to_owned()
    }

    /// What the server itself carries out, as a whole.
    pub(crate) fn eval(&self, script: &str) -> String {
        self.cli(&["EVAL", script, "0"])
    }

    /// How many keys begin so.
    pub(crate) fn count(&self, pattern: &str) -> usize {
        let count = self.eval(&format!("return #redis.call('KEYS', '{pattern}')"));
        count.parse().unwrap_or_else(|_| panic!("no number: {count:?}"))
    }

    /// How often a command was called.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// It answers nothing any more, but its socket is open.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Starts it again, empty.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.dir, &self.arguments);
        self.wait();
    }

    fn wait(&self) {
        let begun = Instant::now();
        while self.cli(&["PING"]) != "PONG" {
            assert!(begun.elapsed() < START_MAX, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(dir: &TempDir, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
    command.arg(dir.path().join("redis.sock")).arg("--dir").arg(dir.path()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server starts (Debian: apt-get install redis-server)")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A stopped one as well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
