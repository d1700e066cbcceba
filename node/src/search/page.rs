//! One page of hits.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use postrider_api::id::{EmailId, UserId};
use postrider_api::limit::{PAGE_ROWS_MAX, SEARCH_TOTAL_MAX};
use postrider_api::pb;
use postrider_shard::store::Reader;
use prost::Message;

use super::ask::{Scores, Source, in_folders};
use super::fault::SearchError;
use super::mailbox::{self, Mailbox};
use super::plan::{self, Query};
use super::snippet;

/// Hits of one page, bytes: the same as a page of a list.
const PAGE_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A hit in the order of the answer: its score, or 0, and its number.
type Hit = (u64, usize);

/// Answers a search.
pub(super) fn page(
    rows: &impl Reader,
    source: &Source<'_>,
    search: &pb::Search,
) -> Result<pb::SearchPage, SearchError> {
    let query = plan::plan(rows, source.user, search.query.as_ref())?;
    let without: Vec<pb::FolderRole> = search.without().collect();
    let without = plan::folders_with(rows, source.user, &without)?;
    let by_relevance = search.sort() == pb::SearchSort::Relevance;
    let mut scores = by_relevance.then(|| Scores::new(source.mailbox.length()));
    let mut found = source.answer(&query, scores.as_mut())?;
    if !without.is_empty() {
        found.without(&in_folders(source.mailbox, &without));
    }
    source.limit.check()?;
    let mut hits: Vec<Hit> =
        found.descending().map(|at| (scores.as_ref().map_or(0, |scores| scores.of(at)), at)).collect();
    if by_relevance {
        hits.sort_unstable_by_key(|(score, at)| Reverse((*score, *at)));
    }
    let mut in_thread = BTreeMap::new();
    if search.threads {
        hits.retain(|(_, at)| {
            let count = in_thread.entry(source.mailbox.threads[*at]).or_insert(0u32);
            *count += 1;
            *count == 1
        });
    }
    let total = hits.len() as u64;
    let first = match &search.after {
        None => 0,
        Some(after) => behind(source.mailbox, &hits, after, by_relevance)?,
    };
    let limit = match search.limit {
        0 => PAGE_ROWS_MAX,
        limit => limit.min(PAGE_ROWS_MAX),
    };
    let mut page = pb::SearchPage { total: total.min(SEARCH_TOTAL_MAX), ..Default::default() };
    page.total_is_bound = total > SEARCH_TOTAL_MAX;
    let mut bytes = 0;
    for (score, at) in &hits[first..] {
        if page.hits.len() == limit as usize || bytes >= PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let mut hit = hit(rows, source.user, source.mailbox, *at, &query)?;
        hit.score = *score;
        hit.thread_hits = in_thread.get(&source.mailbox.threads[*at]).copied().unwrap_or(0);
        bytes += hit.encoded_len();
        page.hits.push(hit);
        source.limit.check()?;
    }
    Ok(page)
}

/// Where the hits behind a position begin; the one at it may be gone.
fn behind(
    mailbox: &Mailbox,
    hits: &[Hit],
    after: &pb::SearchPosition,
    by_relevance: bool,
) -> Result<usize, SearchError> {
    let id = EmailId::try_from(&after.email_id)
        .map_err(|error| SearchError::Malformed(format!("after.email_id: {error}")))?;
    let score = if by_relevance { after.score } else { 0 };
    Ok(hits.partition_point(|(of, at)| (*of, mailbox.ids[*at]) >= (score, id.0)))
}

fn hit(
    rows: &impl Reader,
    user: UserId,
    mailbox: &Mailbox,
    at: usize,
    query: &Query,
) -> Result<pb::SearchHit, SearchError> {
    let row = mailbox::line(rows, user, mailbox, at)?;
    let subject_marks = snippet::subject_marks(&row.subject, query);
    let (snippet, marks) = snippet::snippet(rows, user, mailbox, at, &row.preview, query)?;
    Ok(pb::SearchHit { row: Some(row), snippet, marks, subject_marks, ..Default::default() })
}
