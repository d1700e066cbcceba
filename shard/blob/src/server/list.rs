//! One page of a bucket's keys, in the order of their bytes and in bounded memory.
//!
//! Keys below a directory all begin with its part of the key and a slash. So if a directory sorts as its segment and a
//! slash, and an object as its segment, then walking the tree in that order gives the keys in theirs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::format::{BLOCK_BYTES, FOOTER_BYTES};
use super::key::{Name, decode_name};
use super::object::Version;

/// Entries of one directory held in memory at a time; a directory with more is read again.
const ENTRIES_MAX: usize = 1024;

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) version: Version,
}

/// A part of the list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    pub(crate) truncated: bool,
}

/// Up to `limit` objects whose keys begin with `prefix` and come after `after`. Blocks.
pub(crate) fn page(bucket: &Path, prefix: &str, after: &str, limit: usize) -> io::Result<Page> {
    let mut walk = Walk { prefix, after, limit, page: Page::default() };
    walk.directory(bucket, "")?;
    Ok(walk.page)
}

/// A file name, and whether keys go on below it.
struct Entry {
    file_name: OsString,
    is_directory: bool,
}

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    page: Page,
}

impl Walk<'_> {
    /// Visits a directory whose keys begin with `at`. Goes as deep as keys have segments, which are bounded.
    fn directory(&mut self, directory: &Path, at: &str) -> io::Result<()> {
        let mut floor: Option<String> = None;
        loop {
            let (entries, more) = self.entries(directory, at, floor.as_deref())?;
            for (key, entry) in &entries {
                if self.page.truncated {
                    return Ok(());
                }
                let path = directory.join(&entry.file_name);
                if entry.is_directory {
                    self.directory(&path, key)?;
                } else {
                    self.object(&path, key)?;
                }
            }
            match entries.into_iter().next_back() {
                Some((last, _)) if more => floor = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// The smallest wanted keys (of objects) and key beginnings (of directories) above `floor`, and whether there are
    /// more.
    fn entries(&self, directory: &Path, at: &str, floor: Option<&str>) -> io::Result<(BTreeMap<String, Entry>, bool)> {
        let mut found = BTreeMap::new();
        let mut more = false;
        let listed = match fs::read_dir(directory) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((found, false)),
            Err(error) => return Err(error),
        };
        for entry in listed {
            let file_name = entry?.file_name();
            let (key, is_directory) = match decode_name(file_name.as_bytes()) {
                Ok(Name::Object(segment)) => (format!("{at}{segment}"), false),
                Ok(Name::Directory(segment)) => (format!("{at}{segment}/"), true),
                Err(_) => continue, // not ours: no key
            };
            if !self.wants(&key, is_directory) || floor.is_some_and(|floor| key.as_str() <= floor) {
                continue;
            }
            found.insert(key, Entry { file_name, is_directory });
            if found.len() > ENTRIES_MAX {
                found.pop_last();
                more = true;
            }
        }
        Ok((found, more))
    }

    /// Whether the key, or one below the directory, can be on the page.
    fn wants(&self, key: &str, is_directory: bool) -> bool {
        let prefix = key.starts_with(self.prefix) || (is_directory && self.prefix.starts_with(key));
        let after = key > self.after || (is_directory && self.after.starts_with(key));
        prefix && after
    }

    fn object(&mut self, path: &Path, key: &str) -> io::Result<()> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // deleted meanwhile
            Err(error) => return Err(error),
        };
        if self.page.rows.len() == self.limit {
            self.page.truncated = true;
            return Ok(());
        }
        let version = match Version::of(path) {
            Ok(version) => version,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // deleted meanwhile
            Err(error) => return Err(error),
        };
        let (len, modified) = (content_len(metadata.len()), metadata.modified()?);
        self.page.rows.push(Row { key: key.to_owned(), len, modified, version });
        Ok(())
    }
}

/// The content's length in a file of `file_len` bytes; 0 for what is no whole object.
fn content_len(file_len: u64) -> u64 {
    let body = file_len.saturating_sub(FOOTER_BYTES as u64);
    body - body.div_ceil(BLOCK_BYTES as u64 + 4) * 4
}

#[cfg(test)]
mod tests {
    use super::super::format::file_len_of;
    use super::super::key::path_of_key;
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;

    fn bucket_with(keys: &[String]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for key in keys {
            let path = dir.path().join(path_of_key(key).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().set_len(file_len_of(key.len() as u64).unwrap()).unwrap();
        }
        dir
    }

    #[test]
    fn more_entries_than_are_held_at_a_time() {
        let mut keys: Vec<String> = (0..ENTRIES_MAX * 2 + 10).map(|n| format!("k{n}")).collect();
        let dir = bucket_with(&keys);
        keys.sort();
        let page = page(dir.path(), "", "", usize::MAX).unwrap();
        assert_eq!(page.rows.iter().map(|row| &row.key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        assert!(!page.truncated);
    }

    #[test]
    fn lengths_are_of_the_content() {
        for len in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
            assert_eq!(content_len(file_len_of(len).unwrap()), len);
        }
        assert_eq!(content_len(3), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_page_is_what_sorting_all_keys_gives(
            keys in prop::collection::btree_set("[ab/-]{1,5}", 0..30), prefix in "[ab/]{0,2}", after in "[ab/-]{0,3}", limit in 1usize..6
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let dir = bucket_with(&keys);
            let all: Vec<&String> = keys.iter().filter(|k| k.starts_with(&prefix) && **k > after).collect();
            let page = page(dir.path(), &prefix, &after, limit).unwrap();
            prop_assert_eq!(page.rows.iter().map(|row| &row.key).collect::<Vec<_>>(), all.iter().take(limit).copied().collect::<Vec<_>>());
            prop_assert_eq!(page.truncated, all.len() > limit);
            prop_assert!(page.rows.iter().all(|row| row.len == row.key.len() as u64));
        }
    }
}
