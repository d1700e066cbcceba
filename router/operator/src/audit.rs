//! Every command that changes something or looks into mail is written into the audit log first.
//!
//! Invariant: what cannot be written down is not done. The beginning stands in the placement group's log before anything
//! happens; the end follows, and where it does not, the log says that it is not known.

use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use postrider_api::id::ShardId;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, outcome::Result as Made};
use postrider_router::operate;

use crate::session::Session;

/// What the kernel says where nobody has logged in.
const NO_LOGIN: &str = "4294967295";

/// Who asks, and why.
#[derive(Debug, Clone, Default)]
pub struct Operator {
    /// As the log names him.
    pub name: String,
    /// Why; names nobody's address, since it is kept for long.
    pub why: String,
}

impl Operator {
    /// Whoever runs this process, unless he says that he is somebody else.
    #[must_use]
    pub fn new(named: Option<String>, why: Option<String>) -> Self {
        Self { name: named.unwrap_or_else(os_user), why: why.unwrap_or_default() }
    }
}

/// The user who has logged in, also behind `sudo`; where the kernel does not tell, the user of this process.
fn os_user() -> String {
    let logged_in = std::fs::read_to_string("/proc/self/loginuid").ok().map(|text| text.trim().to_owned());
    let own = || std::fs::metadata("/proc/self").ok().map(|about| about.uid().to_string());
    let uid = logged_in.filter(|uid| !uid.is_empty() && uid != NO_LOGIN).or_else(own);
    let name = uid.as_deref().and_then(|uid| name_of(uid, Path::new("/etc/passwd")));
    name.or(uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "unknown".to_owned())
}

fn name_of(uid: &str, passwd: &Path) -> Option<String> {
    let passwd = std::fs::read_to_string(passwd).ok()?;
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid))?;
    line.split(':').next().map(str::to_owned)
}

impl Session {
    /// Writes down what is about to happen, lets it happen, and writes down how it ended.
    ///
    /// `action` is `room.verb`; `targets` name one thing under each of its names ([`postrider_api::audit`]).
    ///
    /// # Errors
    /// What `work` says; and when nothing could be written down, before it began.
    pub async fn audited<T>(
        &self,
        action: &str,
        targets: impl IntoIterator<Item = String>,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let begun = self.record(operate::begun(&self.operator.name, action, targets, &self.operator.why));
        let of = begun.await.context("write into the audit log; nothing was done")?;
        let worked = work.await;
        let error = worked.as_ref().err().map(|error| format!("{error:#}"));
        let ended = operate::ended(of, error.as_deref());
        if let Err(error) = self.record(ended).await {
            tracing::error!("the audit log does not say how this ended: {error:#}");
        }
        worked
    }

    async fn record(&self, record: pb::AuditRecord) -> anyhow::Result<u64> {
        let op = Op::RecordAudit(pb::RecordAudit { record: Some(record) });
        match self.propose(ShardId::PLACEMENT, op).await? {
            Made::Audited(audited) => Ok(audited.sequence),
            Made::Refused(refused) => bail!("{}", refused.detail),
            other => bail!("placement gave an outcome of another kind: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_names_of_the_system() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n").unwrap();
        assert_eq!(name_of("1000", file.path()).as_deref(), Some("ada"));
        assert_eq!(name_of("100", file.path()), None);
        assert!(!os_user().is_empty());
    }
}
