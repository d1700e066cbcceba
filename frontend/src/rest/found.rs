//! What a client sees of a search: hits turned into JSON, beside [`crate::rest::view`].
//!
//! Nodes count bytes of UTF-8; a client counts what its strings are made of. Marks leave here in UTF-16 code units, which `String.slice` of
//! JavaScript and the strings of Java, C# and Swift's `NSString` take as they are.

use postrider_api::pb;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::problem::Problem;
use crate::rest::time::Time;
use crate::rest::view::{Id, Mailbox, MessageSummary};

/// A part of a text, in UTF-16 code units: `text.slice(start, end)` in JavaScript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Mark {
    /// Of its first.
    start: usize,
    /// Behind its last.
    end: usize,
}

/// A part of a message's text around what matched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snippet {
    /// Plain text, never markup; the preview where nothing in the text matched.
    text: String,
    /// What matched in it, from the beginning to the end.
    marks: Vec<Mark>,
}

/// A message that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundMessage {
    /// The message.
    #[serde(flatten)]
    pub(crate) message: MessageSummary,
    /// Where its text matched.
    snippet: Snippet,
    /// Where its subject matched.
    subject_marks: Vec<Mark>,
}

/// A conversation that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundThread {
    /// The conversation.
    id: Id,
    /// How many of its messages match.
    hits: u32,
    /// The first of them in the order of the search.
    pub(crate) first: FoundMessage,
}

/// How many match.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Total {
    /// So many.
    count: u64,
    /// Exactly; otherwise at least so many.
    exact: bool,
}

impl Total {
    /// Of a page.
    pub(crate) fn of(page: &pb::SearchPage) -> Self {
        Self { count: page.total, exact: !page.total_is_bound }
    }
}

/// Somebody whom the user has written to or heard from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acquaintance {
    /// Name and address.
    #[serde(flatten)]
    mailbox: Mailbox,
    /// Messages to them.
    written: u32,
    /// Messages from them.
    heard: u32,
    /// The newest of these.
    last_at: Time,
}

impl TryFrom<pb::SearchHit> for FoundMessage {
    type Error = Problem;

    fn try_from(hit: pb::SearchHit) -> Result<Self, Problem> {
        let row = hit.row.ok_or_else(|| Problem::internal("a hit without its row"))?;
        let subject_marks = marks(&row.subject, &hit.subject_marks)?;
        let snippet = Snippet { marks: marks(&hit.snippet, &hit.marks)?, text: hit.snippet };
        Ok(Self { message: row.try_into()?, snippet, subject_marks })
    }
}

impl TryFrom<pb::SearchHit> for FoundThread {
    type Error = Problem;

    fn try_from(hit: pb::SearchHit) -> Result<Self, Problem> {
        let hits = hit.thread_hits;
        let first = FoundMessage::try_from(hit)?;
        Ok(Self { id: first.message.thread_id, hits, first })
    }
}

impl TryFrom<pb::Suggestion> for Acquaintance {
    type Error = Problem;

    fn try_from(suggestion: pb::Suggestion) -> Result<Self, Problem> {
        let person = suggestion.person.ok_or_else(|| Problem::internal("a suggestion of nobody"))?;
        let pb::Suggestion { written, heard, last_ms, .. } = suggestion;
        Ok(Self { mailbox: person.into(), written, heard, last_at: Time(last_ms) })
    }
}

/// Bytes of `text` as code units. One pass: marks rise.
fn marks(text: &str, of: &[pb::SearchMark]) -> Result<Vec<Mark>, Problem> {
    let wrong = || Problem::internal("a mark of a hit is not within its text");
    let (mut byte, mut unit) = (0, 0);
    let mut unit_at = |at: usize| {
        unit += text.get(byte..at)?.chars().map(char::len_utf16).sum::<usize>();
        byte = at;
        Some(unit)
    };
    let mut mark = |mark: &pb::SearchMark| {
        let start = usize::try_from(mark.offset).ok()?;
        let end = start.checked_add(usize::try_from(mark.length).ok()?)?;
        Some(Mark { start: unit_at(start)?, end: unit_at(end)? })
    };
    of.iter().map(|of| mark(of).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_what_javascript_counts() {
        let text = "Café 🎉 東京 end";
        let at = |part: &str| {
            let offset = u32::try_from(text.find(part).unwrap()).unwrap();
            pb::SearchMark { offset, length: u32::try_from(part.len()).unwrap() }
        };
        let shown = marks(text, &["Café", "🎉", "東京", "end"].map(at)).unwrap();
        let units: Vec<u16> = text.encode_utf16().collect();
        let parts: Vec<String> =
            shown.iter().map(|mark| String::from_utf16(&units[mark.start..mark.end]).unwrap()).collect();
        assert_eq!(parts, ["Café", "🎉", "東京", "end"]);
        assert_eq!(shown[1], Mark { start: 5, end: 7 });
    }

    #[test]
    fn a_mark_that_is_not_in_the_text_is_an_error() {
        let mark = |offset, length| pb::SearchMark { offset, length };
        for wrong in [vec![mark(0, 9)], vec![mark(1, 1)], vec![mark(2, 1), mark(0, 2)], vec![mark(u32::MAX, u32::MAX)]]
        {
            assert!(marks("é.b", &wrong).is_err(), "{wrong:?}");
        }
    }
}
