//! One page of a range: the one loop that bounds what a query over many rows answers.

use bytes::Bytes;
use postrider_api::limit::{PAGE_ROWS_MAX, REPLY_BYTES_MAX};

use crate::Broken;
use crate::key::{KeyBytes, KeyRange};
use crate::store::{Direction, Reader};

/// Rows of one page, bytes: a page that is full of large rows ends early and says that there is more. Half of what a reply
/// may have, so that the row which goes over still fits.
pub(crate) const PAGE_BYTES_MAX: usize = REPLY_BYTES_MAX / 2;

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
    mut decode: impl FnMut(KeyBytes, Bytes) -> Result<(T, usize), Broken>,
) -> Result<Page<T>, Broken> {
    let rows_max = rows_max(limit);
    let mut page = Page { rows: Vec::new(), more: false };
    let mut bytes = 0;
    for found in reader.scan(range, Direction::Forward) {
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
