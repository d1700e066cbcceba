//! Processes of a measurement: the example's own binary, told what to do line by line, each answered with one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::{Failure, cpu};

/// One that was started.
pub(crate) struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this binary with other arguments, and waits for its first line.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut process = Self { child, to, from: BufReader::new(from) };
        process.answer()?;
        Ok(process)
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{line}")?)
    }

    pub(crate) fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.from.read_line(&mut line)? {
            0 => Err("a process has ended".into()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// Tells and hears.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, Failure> {
        self.tell(line)?;
        self.answer()
    }

    /// Kills it, as a crash would, and waits until it has gone.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn status(&self, field: &str) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(field)).ok_or_else(|| format!("no {field}"))?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? << 10)
    }

    /// Memory in RAM, bytes.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        self.status("VmRSS:")
    }

    /// The most memory in RAM that there was since [`Self::forget_peak`], bytes.
    pub(crate) fn memory_peak(&self) -> Result<u64, Failure> {
        self.status("VmHWM:")
    }

    /// From now on counts for [`Self::memory_peak`] (proc(5), `clear_refs`).
    pub(crate) fn forget_peak(&self) -> Result<(), Failure> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// Processor time.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&self.child.id().to_string())
    }
}

/// Tells all, then hears all: they work side by side.
pub(crate) fn ask(processes: &mut [Process], line: &str) -> Result<Vec<String>, Failure> {
    for process in processes.iter_mut() {
        process.tell(line)?;
    }
    processes.iter_mut().map(Process::answer).collect()
}

/// Ends them all, and waits for it.
pub(crate) fn end(processes: Vec<Process>) -> Result<(), Failure> {
    for mut process in processes {
        drop(process.to);
        process.child.wait()?;
    }
    Ok(())
}

/// In one that was started: the next line. Empty when the other one has gone.
pub(crate) async fn next_line() -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    Ok(read.await??)
}
