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
        std::fs::rename(&beside, path)?;
        sync_entry(path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Makes a directory and those above it, for the owner alone.
pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    make_with_parents(path).with_context(|| format!("make the directory {}", path.display()))
}

fn make_with_parents(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if parent(path) != path {
        make_with_parents(parent(path))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_entry(path),
        // Somebody else made it at the same time.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a directory holds outlives a power cut only once the directory itself is synced: the file's own sync is of its bytes.
fn sync_entry(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(parent(path))?.sync_all()
}

/// The directory that `path` is in; a bare name is in the working directory.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn directories_are_made_with_those_above_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_directory(&path).unwrap();
        make_directory(&path).unwrap();
        for made in [&path, &dir.path().join("a")] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(path.join("file"), "").unwrap();
        let error = make_directory(&path.join("file/c")).unwrap_err();
        assert!(format!("{error:#}").contains("file/c"), "{error:#}");
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"first", Access::Public).unwrap();
        write_atomically(&path, b"second", Access::Secret).unwrap();
        assert_eq!(read_if_there(&path).unwrap().as_deref(), Some("second"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_path_has_a_directory() {
        for (path, expected) in [("a/b", "a"), ("a", "."), ("/a", "/"), ("/", "/")] {
            assert_eq!(parent(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
