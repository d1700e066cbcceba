//! The forms in which a built file lies in `dist/`: as it is, and compressed when it was built.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// A form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// RFC 7932.
    Brotli,
    /// RFC 1952. Browsers take Brotli only where nobody on the way can change what they get, so a plain port needs this one.
    Gzip,
    /// As it is.
    Identity,
}

impl Encoding {
    /// Smallest first.
    const ALL: [Self; 3] = [Self::Brotli, Self::Gzip, Self::Identity];

    /// Those that whoever asks takes, the smallest first. Who says nothing gets files as they are.
    pub(crate) fn taken(headers: &HeaderMap) -> impl Iterator<Item = Self> {
        let accepted: Vec<_> =
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect();
        Self::ALL.into_iter().filter(move |encoding| encoding.is_taken(&accepted))
    }

    fn is_taken(self, accepted: &[&str]) -> bool {
        let Some(token) = self.token() else { return true };
        let mut codings = accepted.iter().flat_map(|value| value.split(','));
        codings.any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case(token) && !is_refused(weight)
        })
    }

    fn token(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }

    /// What `Content-Encoding` says.
    pub(crate) fn header(self) -> Option<HeaderValue> {
        self.token().map(HeaderValue::from_static)
    }

    /// What stands behind a file's name for this form.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
            Self::Identity => "",
        }
    }

    /// The name under which this form of a file lies.
    pub(crate) fn name(self, path: &str) -> String {
        format!("{path}{}", self.suffix())
    }

    /// The compressed form that a name is of.
    pub(crate) fn of_name(path: &str) -> Option<Self> {
        [Self::Brotli, Self::Gzip].into_iter().find(|encoding| path.ends_with(encoding.suffix()))
    }
}

/// `q=0`, however it is written (RFC 9110 section 12.4.2).
fn is_refused(weight: &str) -> bool {
    weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}
