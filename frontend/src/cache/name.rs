//! What a value is of, and under which key it lies.

use postrider_api::id::{BlobHash, EmailId, UserId};

/// Version of keys, seals and contents. What an older or newer build has put is not found by this one.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// What of a message a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aspect {
    /// What a reader sees: the row's part that never changes, and the rendering.
    View = 1,
    /// What it takes to give back its bytes, but for blobs.
    Stored = 2,
    /// A blob of it.
    Blob = 3,
}

impl Aspect {
    /// For counters.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Stored => "stored",
            Self::Blob => "blob",
        }
    }
}

/// What a value is of: it is sealed to this, and to nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) aspect: Aspect,
    bytes: Vec<u8>,
}

impl Name {
    pub(crate) fn of_message(aspect: Aspect, user: UserId, message: EmailId) -> Self {
        Self::new(aspect, user, &message.0)
    }

    pub(crate) fn of_blob(user: UserId, blob: &BlobHash) -> Self {
        Self::new(Aspect::Blob, user, &blob.0)
    }

    /// An aspect's ids have one length, so no two names have the same bytes.
    fn new(aspect: Aspect, user: UserId, id: &[u8]) -> Self {
        let mut bytes = vec![FORMAT_VERSION, aspect as u8];
        bytes.extend_from_slice(&user.0);
        bytes.extend_from_slice(id);
        Self { aspect, bytes }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where a value lies: a keyed hash, from which nobody learns whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) [u8; 16]);

impl Key {
    /// As Redis knows it.
    pub(crate) fn text(&self) -> String {
        format!("postrider:{FORMAT_VERSION}:v:{}", hex::encode(self.0))
    }
}
