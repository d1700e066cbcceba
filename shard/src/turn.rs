//! One command's turn: what every verb needs beside its own arguments.

use bytes::Bytes;
use postrider_api::id::{ModSeq, RequestId, ShardId, UserId};
use postrider_api::pb::{self, Refusal, ShardRecord};

use crate::key::Key;
use crate::mailbox::threads::MergesLeft;
use crate::store::{Rows, StoreError};
use crate::{Broken, format, row};

/// Bytes of a command's entropy.
const ENTROPY_BYTES: usize = 16;
/// The latest time that rows see, milliseconds: in the year 6429. A UUIDv7 has 48 bits for it, and one wild clock must not
/// push a mailbox out of them.
const TIME_MS_MAX: i64 = 1 << 47;
const ENTROPY_CONTEXT: &str = "postrider 2026 command entropy";

/// Why a verb ends early.
pub(crate) enum Stop {
    /// The command is refused; nothing was written.
    Refused(pb::Refused),
    /// The replica must stop.
    Broken(Broken),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Broken(error.into())
    }
}

/// A refusal with its sentence.
pub(crate) fn refuse(refusal: Refusal, detail: impl Into<String>) -> Stop {
    Stop::Refused(pb::Refused { refusal: refusal.into(), detail: detail.into(), users: Vec::new() })
}

/// A refusal of a command that no proposer should have made.
pub(crate) fn malformed(detail: impl Into<String>) -> Stop {
    refuse(Refusal::Malformed, detail)
}

/// An id in a command.
pub(crate) fn id<'b, T>(bytes: &'b Bytes, field: &str) -> Result<T, Stop>
where
    T: TryFrom<&'b Bytes, Error = postrider_api::id::IdError>,
{
    T::try_from(bytes).map_err(|error| malformed(format!("{field}: {error}")))
}

/// Rows, time, randomness, and what those outside are told afterwards.
pub(crate) struct Turn<'t, T: Rows> {
    pub(crate) rows: &'t mut T,
    pub(crate) shard: ShardId,
    /// The command's place in the log.
    pub(crate) index: u64,
    /// Milliseconds; never goes back from one command to the next.
    pub(crate) now: i64,
    /// Of the whole shard; written when the turn ends.
    pub(crate) state: ShardRecord,
    /// What the command is known by, if by anything.
    pub(crate) request: Option<RequestId>,
    entropy: Bytes,
    draws: u64,
    /// Changes of this command so far.
    pub(crate) tail_next: u32,
    /// What may still be moved between threads.
    pub(crate) merges_left: MergesLeft,
    pub(crate) touched: Vec<(UserId, ModSeq)>,
    pub(crate) queue_due: Option<i64>,
    pub(crate) map_changed: bool,
    /// An account began to be deleted.
    pub(crate) deletions: bool,
}

impl<'t, T: Rows> Turn<'t, T> {
    pub(crate) fn begin(shard: ShardId, rows: &'t mut T, index: u64, command: &pb::Command) -> Result<Self, Broken> {
        let mut state = match row::get::<ShardRecord>(rows, Key::Shard)? {
            Some(state) => state,
            None => ShardRecord { version: format::VERSION_INITIAL, ..Default::default() },
        };
        format::check(&state)?;
        let now = command.at_ms.min(TIME_MS_MAX).max(state.now_ms);
        state.now_ms = now;
        Ok(Self {
            rows,
            shard,
            index,
            now,
            state,
            // One that is no id is refused before the command is looked at.
            request: RequestId::try_from(&command.request).ok(),
            entropy: command.entropy.clone(),
            draws: 0,
            tail_next: 0,
            merges_left: MergesLeft::default(),
            touched: Vec::new(),
            queue_due: None,
            map_changed: false,
            deletions: false,
        })
    }

    /// Refuses a command that will need random bits and brings none.
    pub(crate) fn demand_entropy(&self) -> Result<(), Stop> {
        match self.entropy.len() {
            ENTROPY_BYTES => Ok(()),
            found => Err(malformed(format!("entropy has {found} bytes, {ENTROPY_BYTES} are wanted"))),
        }
    }

    /// Random bits: a function of the command's entropy and of how often this was called before.
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut hasher = blake3::Hasher::new_derive_key(ENTROPY_CONTEXT);
        hasher.update(&self.entropy);
        hasher.update(&self.draws.to_be_bytes());
        self.draws += 1;
        let mut bits = [0; N];
        hasher.finalize_xof().fill(&mut bits);
        bits
    }
}
