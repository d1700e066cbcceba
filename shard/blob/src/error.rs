//! What can go wrong with a blob; each variant changes what a caller does.

use thiserror::Error;

/// Why a blob was not stored or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobError {
    /// No copy is there. Of a referenced blob this is a broken P-11.
    #[error("no such blob")]
    NotFound,
    /// A copy is there, but its bytes are not what the hash says: read another copy, mend this one.
    #[error("the copy in region {region} is not what its hash says")]
    Corrupt {
        /// Where the bad copy is.
        region: String,
    },
    /// The store cannot answer now; whether a put or a delete took effect is unknown. Try again, or another region.
    #[error("the store of region {region} is unavailable: {outage}")]
    Unavailable {
        /// Which store.
        region: String,
        /// In what way.
        outage: Outage,
    },
    /// Fewer regions than [`crate::COPIES_MIN`] have the blob: it must not be referenced. Try again.
    #[error("{durable} of {needed} regions have the blob durably")]
    TooFewCopies {
        /// Regions that have it.
        durable: usize,
        /// Regions that are needed.
        needed: usize,
    },
    /// Never to be stored; the sender must send less.
    #[error("a blob may have at most {max} bytes")]
    TooLarge {
        /// [`crate::BLOB_BYTES_MAX`], or what the reader was ready to take.
        max: u64,
    },
    /// The store knows us not, or grants us too little: an operator has to act, trying again does not help.
    #[error("the store of region {region} refuses our credentials")]
    Denied {
        /// Which store.
        region: String,
    },
    /// The request makes no sense: a mistake of the caller or of the configuration.
    #[error("{what}")]
    Invalid {
        /// What is wrong, as a sentence.
        what: &'static str,
    },
}

impl BlobError {
    /// Whether the same call may succeed later without anybody acting.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TooFewCopies { .. })
    }

    pub(crate) fn unavailable(region: &str, outage: Outage) -> Self {
        Self::Unavailable { region: region.to_owned(), outage }
    }

    pub(crate) fn corrupt(region: &str) -> Self {
        Self::Corrupt { region: region.to_owned() }
    }
}

/// In what way a store is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Outage {
    /// No connection, or it broke.
    #[error("no connection")]
    Connection,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It answered that it has too much to do (503 SlowDown, 429).
    #[error("too busy")]
    Busy,
    /// It answered with an error of its own (5xx), or with something that is no answer.
    #[error("it fails")]
    Failing,
    /// It failed a moment ago and is being left alone for now.
    #[error("it failed a moment ago")]
    Resting,
}
