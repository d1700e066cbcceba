//! Object keys as file names, and back.
//!
//! Every segment of a key (what lies between slashes) becomes one name below the bucket's directory: percent-encoded,
//! then `.obj` for the last segment and `.dir` for the others. So no name can be `.` or `..`, a key and a longer key
//! that begins with it do not collide, and the mapping has exactly one inverse.
//!
//! Invariant: `key_of_path(path_of_key(k)) == k`, and a path that decodes is the path of what it decodes to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest key, bytes of UTF-8: S3's own limit.
pub const KEY_BYTES_MAX: usize = 1024;
/// Most segments of a key: bounds the depth of the tree.
pub const KEY_SEGMENTS_MAX: usize = 16;
/// Longest file name, bytes (NAME_MAX of Linux).
const NAME_BYTES_MAX: usize = 255;
const OBJECT: &[u8] = b".obj";
const DIRECTORY: &[u8] = b".dir";

/// Why a key has no path, or a path no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No key at all.
    #[error("the key is empty")]
    Empty,
    /// Over one of the limits above.
    #[error("the key is too long or has too many segments")]
    TooLong,
    /// Nothing that this module wrote.
    #[error("not the name of an object")]
    Foreign,
}

/// What one file name stands for, with its segment of the key decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The last segment.
    Object(String),
    /// A segment with more behind it.
    Directory(String),
}

/// Where an object lies, relative to its bucket's directory.
pub fn path_of_key(key: &str) -> Result<PathBuf, KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    let mut path = PathBuf::new();
    let mut segments = key.split('/').peekable();
    let mut count = 0;
    while let Some(segment) = segments.next() {
        count += 1;
        let suffix = if segments.peek().is_some() { DIRECTORY } else { OBJECT };
        let name = encode(segment, suffix);
        if count > KEY_SEGMENTS_MAX || name.len() > NAME_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        path.push(OsStr::from_bytes(&name));
    }
    Ok(path)
}

/// The key of a path relative to its bucket's directory. Takes any path and never panics; fuzzed.
pub fn key_of_path(path: &Path) -> Result<String, KeyError> {
    let names: Vec<&[u8]> = path.as_os_str().as_bytes().split(|b| *b == b'/').collect();
    if names.len() > KEY_SEGMENTS_MAX {
        return Err(KeyError::TooLong);
    }
    let mut key = String::new();
    let last = names.len() - 1; // split gives at least one part
    for (index, name) in names.iter().enumerate() {
        match (decode_name(name)?, index == last) {
            (Name::Directory(segment), false) => {
                key.push_str(&segment);
                key.push('/');
            }
            (Name::Object(segment), true) => key.push_str(&segment),
            _ => return Err(KeyError::Foreign),
        }
    }
    match key.len() {
        0 => Err(KeyError::Empty),
        1..=KEY_BYTES_MAX => Ok(key),
        _ => Err(KeyError::TooLong),
    }
}

/// Reads one file name.
pub fn decode_name(name: &[u8]) -> Result<Name, KeyError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    if let Some(segment) = name.strip_suffix(OBJECT) {
        return decode(segment).map(Name::Object);
    }
    let segment = name.strip_suffix(DIRECTORY).ok_or(KeyError::Foreign)?;
    decode(segment).map(Name::Directory)
}

/// What stands for itself in a name. The dot may: a suffix follows, so neither `.` nor `..` can come out.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

fn encode(segment: &str, suffix: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut name = Vec::with_capacity(segment.len() + suffix.len());
    for byte in segment.bytes() {
        if is_plain(byte) {
            name.push(byte);
        } else {
            name.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    name.extend_from_slice(suffix);
    name
}

fn decode(name: &[u8]) -> Result<String, KeyError> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        rest = if is_plain(*first) {
            bytes.push(*first);
            tail
        } else {
            let [b'%', high, low, tail @ ..] = rest else { return Err(KeyError::Foreign) };
            let byte = digit(*high)? << 4 | digit(*low)?;
            // One spelling for each key: what stands for itself, or is a slash, is never written as %XX.
            if is_plain(byte) || byte == b'/' {
                return Err(KeyError::Foreign);
            }
            bytes.push(byte);
            tail
        };
    }
    String::from_utf8(bytes).map_err(|_| KeyError::Foreign)
}

/// Upper case only: one spelling for each key.
fn digit(byte: u8) -> Result<u8, KeyError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(KeyError::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn our_own_keys_read_well_on_disk() {
        assert_eq!(path_of_key("eu/ab/abcd").unwrap(), Path::new("eu.dir/ab.dir/abcd.obj"));
    }

    #[test]
    fn escapes_stay_inside() {
        for key in ["..", "../../etc/passwd", "/etc/passwd", "a/../../b", ".", "a//b", "a/", "\0", "%2E%2E/x", "..%2f"]
        {
            let path = path_of_key(key).unwrap();
            assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{key:?}: {path:?}");
            assert_eq!(key_of_path(&path).as_deref(), Ok(key));
        }
    }

    #[test]
    fn limits() {
        assert_eq!(path_of_key(""), Err(KeyError::Empty));
        assert_eq!(path_of_key(&"a/".repeat(600)), Err(KeyError::TooLong));
        assert_eq!(path_of_key(&"a/".repeat(KEY_SEGMENTS_MAX)), Err(KeyError::TooLong));
        assert!(path_of_key(&"a/".repeat(KEY_SEGMENTS_MAX - 1)).is_ok());
        assert!(path_of_key(&"a".repeat(251)).is_ok());
        assert_eq!(path_of_key(&"a".repeat(252)), Err(KeyError::TooLong));
        assert_eq!(path_of_key(&" ".repeat(84)), Err(KeyError::TooLong), "three bytes each once encoded");
    }

    #[test]
    fn other_spellings_are_foreign() {
        for path in [
            "a",
            "a.dir",
            "%61.obj",
            "%2F.obj",
            "%e2%82%ac.obj",
            "%FF.obj",
            "%4.obj",
            "a.obj/b.obj",
            "./a.obj",
            "a b.obj",
        ] {
            assert_eq!(key_of_path(Path::new(path)), Err(KeyError::Foreign), "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in "[a-c/.% é\\x00]{1,60}") {
            if let Ok(path) = path_of_key(&key) {
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert_eq!(key_of_path(&path), Ok(key));
            } else {
                prop_assert!(key.split('/').count() > KEY_SEGMENTS_MAX || key.len() * 3 + 4 > NAME_BYTES_MAX);
            }
        }

        #[test]
        fn every_path_that_decodes_is_the_path_of_its_key(
            path in prop_oneof![".{0,80}", "([a%/.4E]{0,6}(\\.obj|\\.dir|/)){0,5}"]
        ) {
            if let Ok(key) = key_of_path(Path::new(&path)) {
                prop_assert_eq!(path_of_key(&key), Ok(PathBuf::from(path)));
            }
        }

        #[test]
        fn different_keys_have_different_paths(a in "[ab/%.]{1,8}", b in "[ab/%.]{1,8}") {
            prop_assert_eq!(a == b, path_of_key(&a) == path_of_key(&b));
        }
    }
}
