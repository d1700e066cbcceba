//! The version of a shard: which rows it holds and how apply behaves.
//!
//! One number a shard, in [`ShardRecord::version`]. A row of a new shape and a changed outcome are both switched on by
//! raising it, which only a log entry may do (`RaiseVersion`): during a roll from build N to N+1 every replica then changes at
//! the same index (P-12). A build refuses a shard that is newer than it knows, at the first row it reads, instead of misreading
//! it; a node looks at all of its shards before it serves any.
//!
//! Below the version that brings it, no row has a new field, for no command that writes one is carried out; from there on no
//! replica is of a build that does not know it. So no build reads and writes again a row with fields that it would lose.
//!
//! | version | since | what |
//! |---|---|---|
//! | 1 | 0.1.0 | the first |
//!
//! `shard/tests/data` keeps rows of every version; a test opens them.

use postrider_api::pb::ShardRecord;

use crate::Broken;

/// The version that a new shard starts with. It is not raised together with [`VERSION_MAX`]: a shard that is made while
/// old and new builds run side by side must be readable by both.
pub const VERSION_INITIAL: u32 = postrider_api::version::INITIAL;
/// The newest version that this build knows.
pub const VERSION_MAX: u32 = 1;

/// # Errors
/// When the shard is newer than this build.
pub fn check(record: &ShardRecord) -> Result<(), Broken> {
    if record.version > VERSION_MAX {
        return Err(Broken::Newer { found: record.version, known: VERSION_MAX });
    }
    Ok(())
}
