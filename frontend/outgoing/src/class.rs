//! What destinations are called in metrics: the big receivers by the names of their hosts, and everybody else together.
//!
//! Invariant: there are no more names than the operator has given, and one for all others: no label grows with whom people write to.

use std::sync::Arc;

use thiserror::Error;

use crate::dns::Domain;
use crate::limit::{CLASS_NAME_BYTES_MAX, CLASS_SUFFIXES_MAX, CLASSES_MAX};

/// What is in no class.
pub const OTHER: &str = "other";

/// Receivers whose hosts have these names, where nothing else is configured.
const KNOWN: &[(&str, &[&str])] = &[
    ("apple", &["icloud.com"]),
    ("google", &["google.com", "googlemail.com"]),
    ("microsoft", &["outlook.com", "mx.microsoft"]),
    ("yahoo", &["yahoodns.net"]),
];

/// A class that cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ClassError {
    /// Metrics have a series of each.
    #[error("at most {CLASSES_MAX} classes, each of at most {CLASS_SUFFIXES_MAX} suffixes")]
    TooMany,
    /// It is a label.
    #[error("{0}: a class is called by 1 to {CLASS_NAME_BYTES_MAX} of a-z, 0-9, - and _, and not \"{OTHER}\"")]
    Name(String),
    /// It is no name of the DNS.
    #[error("{0}: no name of hosts")]
    Suffix(String),
}

/// The classes of destinations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Classes(Arc<[Class]>);

#[derive(Debug)]
struct Class {
    name: Arc<str>,
    /// What the names of its hosts end with, label by label.
    suffixes: Vec<Domain>,
}

impl Default for Classes {
    fn default() -> Self {
        let known = KNOWN.iter().map(|(name, suffixes)| Class {
            name: (*name).into(),
            suffixes: suffixes.iter().filter_map(|suffix| suffix.parse().ok()).collect(),
        });
        Self(known.collect())
    }
}

impl Classes {
    /// Each name with what the names of its hosts end with. The first that fits counts.
    ///
    /// # Errors
    /// See [`ClassError`].
    pub fn new(classes: impl IntoIterator<Item = (String, Vec<String>)>) -> Result<Self, ClassError> {
        let mut all = Vec::new();
        for (name, suffixes) in classes {
            if all.len() == CLASSES_MAX || suffixes.len() > CLASS_SUFFIXES_MAX {
                return Err(ClassError::TooMany);
            }
            let is_label = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            if !(1..=CLASS_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_label) || name == OTHER {
                return Err(ClassError::Name(name));
            }
            let parse = |suffix: String| suffix.parse::<Domain>().map_err(|_| ClassError::Suffix(suffix));
            let suffixes = suffixes.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            all.push(Class { name: name.into(), suffixes });
        }
        Ok(Self(all.into()))
    }

    /// The class of whoever has this host.
    pub(crate) fn of(&self, host: &Domain) -> Arc<str> {
        let class = self.0.iter().find(|class| class.suffixes.iter().any(|suffix| is_below(host, suffix)));
        class.map_or_else(other, |class| Arc::clone(&class.name))
    }
}

/// The class of whoever is in none.
pub(crate) fn other() -> Arc<str> {
    OTHER.into()
}

/// Whether a name is another one, or ends with it behind a dot.
fn is_below(name: &Domain, suffix: &Domain) -> bool {
    let front = name.as_str().strip_suffix(suffix.as_str());
    front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: &Classes, host: &str) -> String {
        classes.of(&host.parse().unwrap()).to_string()
    }

    #[test]
    fn hosts_tell_the_class() {
        let classes = Classes::default();
        assert_eq!(classes.0.iter().map(|class| class.suffixes.len()).sum::<usize>(), 6, "each is a name");
        assert_eq!(of(&classes, "gmail-smtp-in.l.google.com"), "google");
        assert_eq!(of(&classes, "Example-org.mail.protection.OUTLOOK.com"), "microsoft");
        for stranger in ["notgoogle.com", "google.com.example", "mx.example.org", "com"] {
            assert_eq!(of(&classes, stranger), OTHER, "{stranger}");
        }
        let own = Classes::new([("uni".to_owned(), vec!["ac.example".to_owned()])]).unwrap();
        assert_eq!((of(&own, "mx.a.ac.example").as_str(), of(&own, "mx.google.com").as_str()), ("uni", OTHER));
    }

    #[test]
    fn what_would_grow_or_is_no_label_is_refused() {
        let one = |name: &str, suffix: &str| Classes::new([(name.to_owned(), vec![suffix.to_owned()])]).unwrap_err();
        for name in ["", "Big", "a b", OTHER, &"x".repeat(CLASS_NAME_BYTES_MAX + 1)] {
            assert_eq!(one(name, "a.example"), ClassError::Name(name.to_owned()));
        }
        assert_eq!(one("a", "not a name"), ClassError::Suffix("not a name".to_owned()));
        let many = (0..=CLASSES_MAX).map(|n| (format!("c{n}"), Vec::new()));
        assert_eq!(Classes::new(many).unwrap_err(), ClassError::TooMany);
    }
}
