//! A query from its message to its answer, on a thread of its own and at one moment of the rows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use postrider_api::id::{EmailId, ShardId, UserId};
use postrider_api::pb::{self, answer, query};
use postrider_shard::store::Reader;
use postrider_shard::tail::{self, Object, Verb};
use rocksdb::DB;

use super::ask::{Limit, Source};
use super::fault::SearchError;
use super::index::Doc;
use super::indexer::read;
use super::mailbox::Mailbox;
use super::shards::Found;
use super::{Inner, Search, page, suggest};
use crate::budget::{self, Budget, LARGE};
use crate::replicas::{Replicas, read_snapshot};
use crate::scan::{self, Gone, ScanReader};

/// Words that are held of messages which are not in the index, bytes.
const UNINDEXED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changes that are read at a time.
const CHANGES_AT_ONCE: usize = 1000;

/// What is asked.
pub(super) enum Ask {
    Search(pb::Search),
    Suggest(pb::Suggest),
}

impl Search {
    /// Whether it is a query for this, and not for the rows alone.
    pub(crate) fn answers(query: &pb::Query) -> bool {
        matches!(query.query, Some(query::Query::Search(_) | query::Query::Suggest(_)))
    }

    /// Answers it. Call behind whatever else a read of the shard's rows waits for.
    pub(crate) async fn answer(
        &self,
        replicas: &Replicas,
        shard: ShardId,
        query: pb::Query,
    ) -> Result<pb::Answer, pb::Fault> {
        let ask = match query.query {
            Some(query::Query::Search(search)) => Ask::Search(search),
            Some(query::Query::Suggest(suggest)) => Ask::Suggest(suggest),
            _ => return Err(crate::fault::malformed("this is no search")),
        };
        if shard.kind() != Some(pb::ShardKind::Mailbox) {
            return Err(crate::fault::malformed(format!("shard {shard} does not answer queries of this kind")));
        }
        let place = replicas.scans.find().await?;
        let (inner, db) = (self.inner.clone(), replicas.db.clone());
        let began = Instant::now();
        let answered = scan::on_thread(move |gone| {
            let answered = inner.answer(&db, shard, &ask, gone);
            drop(place);
            answered
        });
        let answered = answered.await.ok_or_else(|| crate::fault::fault(pb::fault::Fault::Unknown(pb::Unknown {})))?;
        metrics::histogram!("postrider_node_search_seconds").record(began.elapsed());
        match answered {
            Ok(answer) => Ok(pb::Answer { answer: Some(answer) }),
            Err(error) => Err(error.told()),
        }
    }
}

impl Inner {
    pub(super) fn answer(
        &self,
        db: &DB,
        shard: ShardId,
        ask: &Ask,
        gone: &Gone,
    ) -> Result<answer::Answer, SearchError> {
        let user = match ask {
            Ask::Search(search) => &search.user_id,
            Ask::Suggest(suggest) => &suggest.user_id,
        };
        let user = UserId::try_from(user).map_err(|error| SearchError::Malformed(format!("user_id: {error}")))?;
        self.at_one_moment(db, (shard, user), LARGE, gone, |rows, source| match ask {
            Ask::Search(search) => page::page(rows, source, search).map(answer::Answer::Search),
            Ask::Suggest(suggest) => suggest::suggest(rows, source, suggest).map(answer::Answer::Suggestions),
        })
    }

    /// Reads a mailbox's words and rows as they are at one moment.
    pub(super) fn at_one_moment<T>(
        &self,
        db: &DB,
        (shard, user): (ShardId, UserId),
        budget: Budget,
        gone: &Gone,
        ask: impl for<'r> FnOnce(&budget::BudgetReader<'r, ScanReader<'r>>, &Source<'_>) -> Result<T, SearchError>,
    ) -> Result<T, SearchError> {
        let kept = self.mailboxes.of(shard, user);
        let mut mailbox = kept.lock();
        // The index first and the rows after it: what the one has, the other has, too.
        let found = self.shards.find(shard, user).unwrap_or_else(|_damaged| {
            self.wake(shard);
            None
        });
        let limit = Limit { until: Instant::now() + budget.time, gone };
        let answered = read_snapshot(&db.snapshot(), shard, |rows| {
            let rows = ScanReader::new(*rows, gone);
            // The reader lives as long as what it reads of.
            let rows: &ScanReader<'_> = &rows;
            budget::within(rows, budget, |rows| {
                let caught_up = mailbox.catch_up(rows, user);
                // A scan ends early for a caller who has left.
                if caught_up.is_err() || gone.has_left() {
                    *mailbox = Mailbox::default();
                }
                caught_up?;
                limit.check()?;
                let behind = match &found {
                    Some(found) => behind(rows, user, found, &limit)?,
                    None => None,
                };
                let (view, indexed, missing) = match (&found, behind) {
                    (Some(found), Some(behind)) => (found.view.clone(), &found.docs[..], behind),
                    _ => {
                        metrics::counter!("postrider_node_search_unindexed_total").increment(1);
                        let live = mailbox.live();
                        let all = live.descending().map(|at| (mailbox.email(at), mailbox.sequence(at)));
                        (None, &[][..], all.collect())
                    }
                };
                let missing = read_missing(rows, user, &mut mailbox, missing, &limit)?;
                let docs = [indexed, &missing[..]].concat();
                let is_committed = view
                    .as_ref()
                    .is_some_and(|view| tail::newest(rows).is_ok_and(|newest| newest <= Some(view.through)));
                let mut recent = std::mem::take(&mut mailbox.recent);
                recent.bring(&docs, |sequence| mailbox.number(sequence));
                let view = view.as_deref();
                let source = Source { user, mailbox: &mailbox, view, recent: &recent, is_committed, limit: &limit };
                let answered = ask(rows, &source);
                mailbox.recent = recent;
                limit.check()?;
                answered
            })
        });
        self.mailboxes.used(shard, user, &mailbox);
        match answered {
            Some(answered) => answered,
            None if found.is_none() => Err(SearchError::Unready),
            None => Err(SearchError::TooCostly),
        }
    }
}

/// A message, and the change that made it.
type Made = (EmailId, u64);

/// The user's messages that came behind what was found, newest last; `None` where the rows do not tell: they have not come so far
/// themselves (after a crash the log brings it again), or the tail of changes does not reach back.
fn behind(
    rows: &impl Reader,
    user: UserId,
    found: &Found,
    limit: &Limit<'_>,
) -> Result<Option<Vec<Made>>, SearchError> {
    let (floor, through) = (tail::floor(rows)?, found.through);
    if through.saturating_add(1) < floor || tail::newest(rows)?.unwrap_or(floor.saturating_sub(1)) < through {
        return Ok(None);
    }
    let known: HashSet<u64> = found.docs.iter().map(|doc| doc.sequence).collect();
    let (mut made, mut from) = (Vec::new(), through + 1);
    loop {
        let changes = tail::read(rows, from, CHANGES_AT_ONCE)?;
        limit.check()?;
        for change in &changes.changes {
            if let (Object::Message(of, email), Verb::Created) = (change.object, change.verb)
                && of == user
                && !known.contains(&change.modseq.0)
            {
                made.push((email, change.modseq.0));
            }
        }
        match changes.changes.last() {
            Some(last) if changes.more => from = last.index + 1,
            _ => return Ok(Some(made)),
        }
    }
}

/// Reads messages that the index does not have; those that were read for the last search are here yet.
fn read_missing(
    rows: &impl Reader,
    user: UserId,
    mailbox: &mut Mailbox,
    missing: Vec<Made>,
    limit: &Limit<'_>,
) -> Result<Vec<Arc<Doc>>, SearchError> {
    let mut before = std::mem::take(&mut mailbox.unindexed);
    let (mut docs, mut bytes) = (Vec::with_capacity(missing.len()), 0);
    for (email, sequence) in missing {
        let doc = match before.remove(&sequence) {
            Some(doc) => Some(doc),
            None if limit.check().is_err() => return Err(SearchError::Unready),
            None => read(rows, user, email, sequence)?.map(Arc::new),
        };
        let Some(doc) = doc else { continue };
        bytes += doc.bytes();
        if bytes > UNINDEXED_BYTES_MAX {
            return Err(SearchError::Unready);
        }
        mailbox.unindexed.insert(sequence, doc.clone());
        docs.push(doc);
    }
    Ok(docs)
}
