//! Small files that must be whole or absent: secrets, certificates, the ready file.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// The owner alone.
    Secret,
    /// Everybody.
    Public,
}

/// Writes `content` beside `path`, syncs it and renames it into place: a reader sees the old file or the new one.
pub(crate) fn write_atomically(path: &Path, content: &[u8], access: Access) -> anyhow::Result<()> {
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o644,
    };
    let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Makes a directory and those above it, for the owner alone.
pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the directory {}", path.display()))
}

/// The file's text, or what `make` gives, written as a secret: made once and kept.
pub(crate) fn keep_secret(path: &Path, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    if let Some(text) = read_if_there(path)? {
        return Ok(text);
    }
    let text = make()?;
    write_atomically(path, text.as_bytes(), Access::Secret)?;
    Ok(text)
}

/// The file's text; `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// The file as JSON; `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    read_if_there(path)?
        .map(|text| {
            serde_json::from_str(&text).with_context(|| format!("{} is not as this version writes it", path.display()))
        })
        .transpose()
}
