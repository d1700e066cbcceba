//! Every row of a shard against its index, both ways: what the index lacks, what it has too much or twice, and whose words are others
//! than the row's.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_api::id::{ShardId, UserId};
use postrider_api::pb;
use postrider_shard::Broken;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use rocksdb::DB;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, TERMINATED};

use super::ask::Source;
use super::fault::SearchError;
use super::index::{Opened, View};
use super::indexer::read;
use super::schema::{prefix, user_of};
use super::words::field;
use super::{Inner, Search};
use crate::budget::Budget;
use crate::replicas::{Replicas, read_snapshot};
use crate::scan::{self, Gone, Place, ScanReader};

/// Differences that are listed of one shard.
const DIFFERENCES_MAX: usize = 1000;
/// An operator waits for it as long as it takes.
const PATIENT: Budget = Budget { bytes: usize::MAX, time: Duration::from_secs(24 * 60 * 60) };

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Messages.
    pub(crate) checked: u64,
    pub(crate) differences: Vec<String>,
}

impl Search {
    /// Holds every message of a shard against the index, and every document of the index against the rows. An index that is being built
    /// has no differences: queries do not ask it.
    pub(crate) async fn checked(
        &self,
        replicas: &Replicas,
        shard: ShardId,
        place: Place,
    ) -> Result<Checked, pb::Fault> {
        if !self.inner.enabled {
            return Ok(Checked::default());
        }
        let (inner, db) = (self.inner.clone(), replicas.db.clone());
        let checked = scan::on_thread(move |gone| {
            let checked = inner.check(&db, shard, gone);
            drop(place);
            checked
        });
        let checked = checked.await.ok_or_else(|| crate::fault::fault(pb::fault::Fault::Unknown(pb::Unknown {})))?;
        checked.map_err(SearchError::told)
    }
}

impl Inner {
    pub(super) fn check(&self, db: &DB, shard: ShardId, gone: &Gone) -> Result<Checked, SearchError> {
        let mut checked = Checked::default();
        let users = read_snapshot(&db.snapshot(), shard, |rows| users(&ScanReader::new(*rows, gone)))?;
        for user in &users {
            let found = self.at_one_moment(db, (shard, *user), PATIENT, gone, |rows, source| of_user(rows, source));
            let (messages, differences) = found?;
            checked.checked += messages;
            checked.differences.extend(differences);
            if checked.differences.len() >= DIFFERENCES_MAX {
                return Ok(checked);
            }
        }
        if let Ok(Some(found)) = self.shards.find(shard, UserId([0; 16]))
            && let Some(view) = &found.view
        {
            let strangers = strangers(view, &users)?;
            // Whoever was made since then is none.
            let now = read_snapshot(&db.snapshot(), shard, |rows| users_there(rows, &strangers))?;
            let gone = strangers.into_iter().filter(|user| !now.contains(user));
            // What is still to be committed may be the end of the account.
            let is_behind = view.through < found.through;
            checked.differences.extend(
                gone.filter(|_| !is_behind)
                    .map(|user| format!("search: the index has messages of {user}, who is not here")),
            );
            match Opened::open(&self.shards.dir(shard)).and_then(|opened| opened.damaged()) {
                Ok(0) => {}
                Ok(damaged) => {
                    checked.differences.push(format!("search: {damaged} files of the index are not what was written"));
                }
                Err(error) => checked.differences.push(format!("search: the index cannot be read: {error}")),
            }
        }
        Ok(checked)
    }
}

fn users(rows: &impl Reader) -> Result<Vec<UserId>, Broken> {
    let mut users = Vec::new();
    for found in rows.scan(&KeyRange::table(Table::Accounts), Direction::Forward) {
        if let Key::Account(user) = Key::decode(found?.0.as_ref())? {
            users.push(user);
        }
    }
    Ok(users)
}

fn users_there(rows: &impl Reader, users: &[UserId]) -> Result<Vec<UserId>, Broken> {
    let mut there = Vec::new();
    for user in users {
        if rows.get(&Key::Account(*user).bytes())?.is_some() {
            there.push(*user);
        }
    }
    Ok(there)
}

/// Users of the index who are not among these. One step a user: the dictionary is left where his terms begin.
fn strangers(view: &View, users: &[UserId]) -> Result<Vec<UserId>, SearchError> {
    let mut strangers = Vec::new();
    for segment in &view.segments {
        let mut from: Vec<u8> = Vec::new();
        loop {
            let mut stream = segment.words.terms().range().ge(&from).into_stream()?;
            if !stream.advance() {
                break;
            }
            let Some(user) = user_of(stream.key()) else {
                return Err(SearchError::Damaged("a term has no user".to_owned()));
            };
            if users.binary_search(&user).is_err() && alive(segment, user)? > 0 {
                strangers.push(user);
            }
            from = prefix(user).into_bytes();
            from.push(0xff);
        }
    }
    strangers.sort_unstable();
    strangers.dedup();
    Ok(strangers)
}

fn alive(segment: &super::index::Segment, user: UserId) -> Result<usize, SearchError> {
    let mut count = 0;
    each_of(segment, user, |_| count += 1)?;
    Ok(count)
}

/// Gives each document of a user that was not deleted.
fn each_of(segment: &super::index::Segment, user: UserId, mut take: impl FnMut(u32)) -> Result<(), SearchError> {
    let mut term = prefix(user);
    term.push(char::from(field::ANY_MESSAGE));
    let Some(info) = segment.words.terms().get(term.as_bytes())? else { return Ok(()) };
    let mut postings = segment.words.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
    let mut doc = postings.doc();
    while doc != TERMINATED {
        if !segment.reader.is_deleted(doc) {
            take(doc);
        }
        doc = postings.advance();
    }
    Ok(())
}

fn of_user(rows: &impl Reader, source: &Source<'_>) -> Result<(u64, Vec<String>), SearchError> {
    // What the index has, by the change that made it; with how often, and the checksum.
    let mut indexed: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let mut add = |sequence: u64, checksum: u32| {
        let (count, known) = indexed.entry(sequence).or_default();
        *count += 1;
        *known = checksum;
    };
    for segment in source.segments() {
        each_of(segment, source.user, |doc| add(segment.sequence.get_val(doc), segment.checksum.get_val(doc) as u32))?;
    }
    for (_, doc) in source.recent.docs() {
        add(doc.sequence, doc.words.checksum());
    }
    let (mut checked, mut differences) = (0, Vec::new());
    for at in source.mailbox.live().descending() {
        source.limit.check()?;
        checked += 1;
        let (email, sequence) = (source.mailbox.email(at), source.mailbox.sequence(at));
        let Some(doc) = read(rows, source.user, email, sequence)? else {
            differences.push(format!("search: message {email} of {} is in the change feed and not there", source.user));
            continue;
        };
        match indexed.remove(&sequence) {
            None => differences.push(format!("search: message {email} of {} is not in the index", source.user)),
            Some((1, checksum)) if checksum == doc.words.checksum() => {}
            Some((1, _)) => differences.push(format!("search: message {email} of {} has other words", source.user)),
            Some((n, _)) => {
                differences.push(format!("search: message {email} of {} is in the index {n} times", source.user))
            }
        }
    }
    // What was deleted a moment ago is taken out with the next commit.
    if source.is_committed {
        let left = indexed.into_keys();
        differences.extend(left.map(|sequence| {
            format!("search: the index has change {sequence} of {}, which is no message", source.user)
        }));
    }
    Ok((checked, differences))
}
