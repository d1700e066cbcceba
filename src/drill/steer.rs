//! What a drill asks of the cluster itself, as an operator would: `postrider ctl`, in a process of its own.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;

/// Digests are asked for again so often when replicas did not come to the same index: under load they may not.
const DIGEST_TRIES: u32 = 3;

/// The command with an operator's certificate.
#[derive(Debug, Clone)]
pub(super) struct Ctl {
    pub(super) addresses: Vec<String>,
    pub(super) identity: PathBuf,
}

impl Ctl {
    /// What it says, and whether its exit code says that all is well.
    async fn ask(&self, words: &[String]) -> anyhow::Result<(Value, bool)> {
        let output = Command::new(std::env::current_exe().context("find this binary")?)
            .args(["ctl", "--json", "--why", "a drill", "--cluster", &self.addresses.join(","), "--identity"])
            .arg(&self.identity)
            .args(words)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run postrider ctl")?;
        match serde_json::from_slice(&output.stdout) {
            Ok(value) => Ok((value, output.status.success())),
            Err(_) => bail!("ctl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// Something that has to succeed.
    async fn make(&self, words: &[String]) -> anyhow::Result<()> {
        match self.ask(words).await? {
            (_, true) => Ok(()),
            (said, false) => bail!("ctl {}: {said}", words.join(" ")),
        }
    }

    pub(super) async fn drain(&self, node: u64) -> anyhow::Result<()> {
        self.make(&["node".into(), "drain".into(), node.to_string()]).await
    }

    pub(super) async fn activate(&self, node: u64) -> anyhow::Result<()> {
        self.make(&["node".into(), "activate".into(), node.to_string()]).await
    }

    pub(super) async fn transfer(&self, shard: u32, node: u64) -> anyhow::Result<()> {
        self.make(&["transfer".into(), shard.to_string(), node.to_string()]).await
    }

    pub(super) async fn relocate(&self, shard: u32, from: u64, to: u64) -> anyhow::Result<()> {
        self.make(&["move".into(), shard.to_string(), from.to_string(), to.to_string()]).await
    }

    /// The differences that `verify` finds, those not verified among them.
    pub(super) async fn differences(&self) -> anyhow::Result<Vec<String>> {
        let (verified, _) = self.ask(&["verify".into()]).await?;
        let list = verified.get("differences").and_then(Value::as_array).context("verify lists differences")?;
        Ok(list.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Whether all replicas of a shard hold the same.
    pub(super) async fn is_equal(&self, shard: u32, replicas: usize) -> anyhow::Result<bool> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.ask(&["digest".into(), shard.to_string()]).await {
                Ok((digest, equal)) => {
                    let asked = digest.get("digests").and_then(Value::as_object).map_or(0, serde_json::Map::len);
                    return Ok(equal && asked == replicas);
                }
                Err(error) if tried == DIGEST_TRIES => return Err(error),
                Err(_) => {}
            }
        }
    }
}
