//! What a caller gets when there is no answer.

use thiserror::Error;

/// Why a call has no answer. Each variant asks something else of the caller.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// No replica of the shard leads with a quorum; certainly not carried out. SMTP 451, REST 503 with Retry-After.
    #[error("the shard has no quorum now; try again later")]
    NoQuorum,
    /// The shard is overloaded; certainly not carried out. Try again later.
    #[error("the shard is overloaded; try again later")]
    Busy,
    /// The time is up.
    #[error("no answer in time{}", if *.may_have_happened { "; it may have been carried out" } else { "" })]
    TimedOut {
        /// Whether an attempt ended without telling. Only the same request id may be tried again then.
        may_have_happened: bool,
    },
    /// No such session, or it has expired.
    #[error("no such session")]
    Unauthenticated,
    /// The session is one of an account that is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// The shard map knows no such shard, node or slot.
    #[error("the shard map does not know it")]
    UnknownShard,
    /// The shard has other replicas than the caller took for granted; certainly not carried out. The map knows them by now.
    #[error("the shard has other replicas now")]
    Moved,
    /// The command or answer is too large.
    #[error("larger than {max} bytes")]
    TooLarge {
        /// The limit, bytes.
        max: u64,
    },
    /// No replica within reach has applied `min_modseq`.
    #[error("no replica within reach is that new")]
    Behind,
    /// This process's certificate does not allow the call.
    #[error("the certificate does not allow it: {detail}")]
    Forbidden {
        /// What the node said.
        detail: String,
    },
    /// The queue lease is not the current one: somebody else has the entry now.
    #[error("the lease is lost")]
    LeaseLost,
    /// The request is none that the shard understands: a mistake of the caller.
    #[error("malformed request: {detail}")]
    Malformed {
        /// Which part of it.
        detail: String,
    },
    /// It was understood, and asks for more than any may: put otherwise, it is answered.
    #[error("too costly: {detail}")]
    TooCostly {
        /// What is too much.
        detail: String,
    },
    /// What it is answered from is being built: later it is answered.
    #[error("not yet: {detail}")]
    Unready {
        /// What is being built.
        detail: String,
    },
    /// Stored bytes did not decode or an invariant is broken; an operator must look.
    #[error("corrupt state: {detail}")]
    Corrupt {
        /// Which row.
        detail: String,
    },
}

impl RouteError {
    /// Whether something is wrong on our side, and not with what was asked for.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::NoQuorum
            | Self::Busy
            | Self::TimedOut { .. }
            | Self::UnknownShard
            | Self::Forbidden { .. }
            | Self::Malformed { .. }
            | Self::Unready { .. }
            | Self::Corrupt { .. } => true,
            Self::Unauthenticated
            | Self::Suspended
            | Self::Moved
            | Self::TooLarge { .. }
            | Self::Behind
            | Self::LeaseLost
            | Self::TooCostly { .. } => false,
        }
    }

    /// What it is called in traces.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NoQuorum => "no quorum",
            Self::Busy => "busy",
            Self::TimedOut { may_have_happened: true } => "no answer in time, it may have been carried out",
            Self::TimedOut { may_have_happened: false } => "no answer in time",
            Self::Unauthenticated => "no such session",
            Self::Suspended => "suspended",
            Self::UnknownShard => "unknown shard",
            Self::Moved => "moved",
            Self::TooLarge { .. } => "too large",
            Self::Behind => "behind",
            Self::Forbidden { .. } => "forbidden",
            Self::LeaseLost => "lease lost",
            Self::Malformed { .. } => "malformed",
            Self::TooCostly { .. } => "too costly",
            Self::Unready { .. } => "unready",
            Self::Corrupt { .. } => "corrupt",
        }
    }
}

/// Why a router could not start.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// No seed was given.
    #[error("no node address was given")]
    NoNodes,
    /// No seed gave a shard map in time.
    #[error("no shard map from any of {tried} nodes: {last}")]
    NoMap {
        /// How many addresses were tried.
        tried: usize,
        /// What went wrong with the last.
        last: String,
    },
    /// The certificates cannot be used, or an address is none.
    #[error("cannot connect to {address}: {detail}")]
    Unusable {
        /// Which address.
        address: String,
        /// Why.
        detail: String,
    },
}
