//! One page of a range: the one loop that bounds what a query over many rows answers.

use std::iter::Peekable;

use bytes::Bytes;
use postrider_api::limit::{PAGE_ROWS_MAX, REPLY_BYTES_MAX};

use crate::Broken;
use crate::key::{KeyBytes, KeyRange};
use crate::store::{Direction, Reader, Row, StoreError};

/// Rows of one page, bytes: a page that is full of large rows ends early and says that there is more. Below half of what a
/// reply may have: the threads that answer write it, and the row which goes over still fits. A page of the largest lines of a list, which
/// have 22 KB each, is whole.
pub(crate) const PAGE_BYTES_MAX: usize = REPLY_BYTES_MAX / 3;

/// Some rows of a range, from its first on.
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    /// Whether others follow.
    pub(crate) more: bool,
}

/// Reads the first rows of `range`: at most `limit`, or as many as a page has where that is 0 or more. `decode` makes what the
/// page holds of a row, and says how many bytes that is.
pub(crate) fn read<T>(
    reader: &impl Reader,
    range: &KeyRange,
    limit: u32,
    decode: impl FnMut(KeyBytes, Bytes) -> Result<(T, usize), Broken>,
) -> Result<Page<T>, Broken> {
    take(reader.scan(range, Direction::Forward), limit, decode)
}

/// The same of two ranges whose keys differ in their table alone: in the order of what stands behind it.
pub(crate) fn read_both<T>(
    reader: &impl Reader,
    [one, other]: [&KeyRange; 2],
    limit: u32,
    decode: impl FnMut(KeyBytes, Bytes) -> Result<(T, usize), Broken>,
) -> Result<Page<T>, Broken> {
    let one = reader.scan(one, Direction::Forward).peekable();
    let other = reader.scan(other, Direction::Forward).peekable();
    take(Both { one, other }, limit, decode)
}

/// Two scans as one, whatever the tables of their keys.
struct Both<I: Iterator> {
    one: Peekable<I>,
    other: Peekable<I>,
}

impl<I: Iterator<Item = Result<Row, StoreError>>> Iterator for Both<I> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let other_first = match (self.one.peek(), self.other.peek()) {
            (Some(Ok((one, _))), Some(Ok((other, _)))) => other.as_ref()[1..] < one.as_ref()[1..],
            (one, other) => one.is_none() || matches!(other, Some(Err(_))),
        };
        if other_first { self.other.next() } else { self.one.next() }
    }
}

fn take<T>(
    rows: impl Iterator<Item = Result<Row, StoreError>>,
    limit: u32,
    mut decode: impl FnMut(KeyBytes, Bytes) -> Result<(T, usize), Broken>,
) -> Result<Page<T>, Broken> {
    let rows_max = rows_max(limit);
    let mut page = Page { rows: Vec::new(), more: false };
    let mut bytes = 0;
    for found in rows {
        let (key, value) = found?;
        if page.rows.len() == rows_max || bytes > PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let (row, row_bytes) = decode(key, value)?;
        bytes += row_bytes;
        page.rows.push(row);
    }
    Ok(page)
}

/// How many rows a page has.
pub(crate) fn rows_max(limit: u32) -> usize {
    match limit {
        0 => PAGE_ROWS_MAX as usize,
        limit => limit.min(PAGE_ROWS_MAX) as usize,
    }
}
