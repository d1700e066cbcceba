//! An index built from nothing, beside the one thread that follows: the other shards go on meanwhile, and searches in this one read the rows.

use std::time::{Duration, Instant};

use postrider_api::id::{ShardId, UserId};
use postrider_api::pb;
use postrider_shard::Broken;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use postrider_shard::tail;

use super::Inner;
use super::fault::SearchError;
use super::index::Build;
use super::indexer::read;
use super::mailbox::sequences;
use super::pace::Pace;
use super::shards::{Progress, remove};
use crate::replicas::read_snapshot;
use crate::scan::{Gone, ScanReader};

/// Messages between two rests.
const STEP: u64 = 32;
/// After one that has failed.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether the node shuts down meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Builds a shard's index, and wakes the indexer.
pub(super) fn build(inner: &Inner, shard: ShardId, gone: &Gone) {
    // The shards stand in line.
    let turn = inner.builds.lock();
    let built = if gone.has_left() { Ok(false) } else { whole(inner, shard, gone) };
    drop(turn);
    match built {
        Ok(true) => metrics::counter!("postrider_node_follower_rebuilds_total", "follower" => "search").increment(1),
        Ok(false) => return,
        Err(error) => {
            tracing::error!(shard = shard.0, %error, "the search index cannot be built; it is tried again");
            metrics::counter!("postrider_node_search_failures_total").increment(1);
            remove(&inner.shards.build_dir(shard));
            let until = Instant::now() + PAUSE;
            while Instant::now() < until && !gone.has_left() {
                std::thread::sleep(LOOK_EVERY);
            }
            inner.shards.state(shard).lock().building = None;
        }
    }
    inner.wake(shard);
}

/// Whether it came to its end.
fn whole(inner: &Inner, shard: ShardId, gone: &Gone) -> Result<bool, SearchError> {
    let Some((db, _)) = inner.source.get() else { return Ok(false) };
    let dir = inner.shards.build_dir(shard);
    remove(&dir);
    let build = Build::begin(&dir)?;
    let through = read_snapshot(&db.snapshot(), shard, |rows| {
        let rows = ScanReader::new(*rows, gone);
        let through = tail::newest(&rows)?.unwrap_or(tail::floor(&rows)?.saturating_sub(1));
        add_all(inner, shard, &rows, &build, gone)?;
        Ok::<_, SearchError>(through)
    })?;
    if gone.has_left() {
        return Ok(false);
    }
    build.end(through)?;
    Ok(inner.shards.replace(shard, through)?)
}

fn add_all(inner: &Inner, shard: ShardId, rows: &impl Reader, build: &Build, gone: &Gone) -> Result<(), SearchError> {
    let state = inner.shards.state(shard);
    let (users, of) = users(rows)?;
    let mut progress = Progress { done: 0, of };
    let mut pace = Pace::begin();
    for user in users {
        for (email, sequence) in sequences(rows, user)? {
            if let Some(doc) = read(rows, user, email, sequence)? {
                build.add(&doc)?;
            }
            progress.done += 1;
            if progress.done.is_multiple_of(STEP) {
                if gone.has_left() {
                    return Ok(());
                }
                // Gone where the replica was removed meanwhile.
                if let Some(building) = &mut state.lock().building {
                    *building = progress;
                }
                pace.rest();
            }
        }
    }
    Ok(())
}

/// Everybody in the shard, and how many messages they have.
fn users(rows: &impl Reader) -> Result<(Vec<UserId>, u64), SearchError> {
    let (mut users, mut messages) = (Vec::new(), 0);
    for found in rows.scan(&KeyRange::table(Table::Accounts), Direction::Forward) {
        let (key, value) = found?;
        if let Key::Account(user) = Key::decode(key.as_ref()).map_err(Broken::from)? {
            let account: pb::AccountRecord = prost::Message::decode(value).unwrap_or_default();
            messages += account.messages;
            users.push(user);
        }
    }
    Ok((users, messages))
}
