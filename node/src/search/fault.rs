//! Why a search has no answer.

use postrider_api::pb;
use postrider_shard::store::StoreError;
use postrider_shard::{Broken, QueryError};
use thiserror::Error;

use crate::fault;

#[derive(Debug, Error)]
pub(super) enum SearchError {
    /// The question makes no sense, or asks for more than any may: the caller can ask otherwise.
    #[error("{0}")]
    Malformed(String),
    /// It takes longer, or reads more, than any may.
    #[error("the search takes more than any may: look for something that is rarer, or in one folder")]
    TooCostly,
    /// So many words begin like this that they are not looked through.
    #[error("query: more than {most} words begin with '{prefix}': write on")]
    PrefixTooCommon { prefix: String, most: usize },
    /// Too much of the mailbox is not in the index, and there is too much to read it instead.
    #[error("the search index is being built, and the mailbox is too large to be searched without it: try again later")]
    Unready,
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The index cannot be read: it is thrown away.
    #[error("the search index cannot be read: {0}")]
    Damaged(String),
}

impl From<StoreError> for SearchError {
    fn from(error: StoreError) -> Self {
        Broken::from(error).into()
    }
}

impl From<std::io::Error> for SearchError {
    fn from(error: std::io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<tantivy::TantivyError> for SearchError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl SearchError {
    /// As callers get it.
    pub(super) fn told(self) -> pb::Fault {
        match self {
            Self::Broken(broken) => fault::of_query(QueryError::Broken(broken)),
            Self::Unready | Self::Damaged(_) => fault::unready(self.to_string()),
            Self::Malformed(detail) => fault::malformed(detail),
            Self::TooCostly | Self::PrefixTooCommon { .. } => fault::too_much(self.to_string()),
        }
    }
}
