//! Where in a text the words are that were looked for.

use std::ops::{ControlFlow, Range};

use postrider_api::id::{EmailId, UserId};
use postrider_api::pb;
use postrider_mime::terms;
use postrider_shard::store::Reader;

use super::extract::{each_text, head};
use super::fault::SearchError;
use super::mailbox::Mailbox;
use super::plan::{Element, Query};
use super::words::field;

/// A snippet, bytes.
const SNIPPET_BYTES_MAX: usize = 240;
/// Of that, before the first mark, bytes.
const BEFORE_BYTES: usize = 60;
/// Marks of one text.
const MARKS_MAX: usize = 50;
/// Of a message's texts, what is kept for the next search, bytes.
const BEGINNING_BYTES_MAX: usize = 16 * 1024;
/// Text of one part that is looked through, bytes.
const LOOKED_AT_BYTES_MAX: usize = 256 * 1024;
/// Of that at a time, bytes; and by how much one piece reaches into the next.
const PIECE_BYTES: usize = 1024;
const OVERLAP_BYTES: usize = 256;

/// What is marked of a subject.
pub(super) fn subject_marks(subject: &str, query: &Query) -> Vec<pb::SearchMark> {
    marks(&found(subject, query, field::SUBJECT), 0..subject.len())
}

/// The words around what was found in a message's text, or its preview.
pub(super) fn snippet(
    rows: &impl Reader,
    user: UserId,
    mailbox: &Mailbox,
    at: usize,
    preview: &str,
    query: &Query,
) -> Result<(String, Vec<pb::SearchMark>), SearchError> {
    let marked = found(preview, query, field::BODY);
    let mut snippet = (preview.to_owned(), marks(&marked, 0..preview.len()));
    let is_wanted = query.atoms.iter().any(|atom| atom.scores && atom.fields.contains(&field::BODY));
    // What the list shows anyway is the best place to show what was found.
    if is_wanted && marked.is_empty() {
        let email = mailbox.email(at);
        if let Some(found) = around(&mailbox.text(at, || beginning(rows, user, email))?, query) {
            return Ok(found);
        }
        each_text(rows, user, email, |text| match around(&text, query) {
            Some(found) => {
                snippet = found;
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        })?;
    }
    Ok(snippet)
}

/// How the texts of a message begin.
fn beginning(rows: &impl Reader, user: UserId, email: EmailId) -> Result<String, SearchError> {
    let mut beginning = String::new();
    each_text(rows, user, email, |text| {
        beginning.push_str(head(&text, BEGINNING_BYTES_MAX - beginning.len()));
        beginning.push('\n');
        if beginning.len() < BEGINNING_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(beginning)
}

/// The best stretch of a text, which is looked at a piece at a time: most of it is not looked at once something was found.
fn around(text: &str, query: &Query) -> Option<(String, Vec<pb::SearchMark>)> {
    let mut at = 0;
    while at < text.len().min(LOOKED_AT_BYTES_MAX) {
        // Pieces overlap, so that what stands across their end is whole in one of them.
        let piece = head(&text[at..], PIECE_BYTES);
        if !found(piece, query, field::BODY).is_empty() {
            let mut start = at.saturating_sub(BEFORE_BYTES);
            while !text.is_char_boundary(start) {
                start += 1;
            }
            let text = folded(head(&text[start..], 2 * PIECE_BYTES));
            let found = found(&text, query, field::BODY);
            let range = best(&text, &found)?;
            let marks = marks(&found, range.clone());
            return Some((text[range].to_owned(), marks));
        }
        if at + piece.len() == text.len() {
            break;
        }
        let mut step = piece.len().saturating_sub(OVERLAP_BYTES).max(1);
        while !piece.is_char_boundary(step) {
            step += 1;
        }
        at += step;
    }
    None
}

/// White space as one space each.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    folded
}

/// A term that one of the query's elements stands for.
struct Match {
    position: u32,
    /// Which: a bit for each element of each atom, in their order.
    elements: u64,
    source: Range<usize>,
}

/// Elements that are told apart.
const ELEMENTS_MAX: usize = 64;

/// Where one of the words of the query stands, in order.
fn found(text: &str, query: &Query, of: u8) -> Vec<Range<usize>> {
    let mut atoms: Vec<&[Element]> = Vec::new();
    let mut elements: Vec<&Element> = Vec::new();
    for atom in query.atoms.iter().filter(|atom| atom.scores && atom.fields.contains(&of)) {
        if elements.len() + atom.elements.len() <= ELEMENTS_MAX {
            atoms.push(&atom.elements);
            elements.extend(&atom.elements);
        }
    }
    if elements.is_empty() {
        return Vec::new();
    }
    let mut matches: Vec<Match> = Vec::new();
    terms::cut(text, |term| {
        let bit = |(n, element): (usize, &&Element)| u64::from(element.matches(term.text)) << n;
        let bits = elements.iter().enumerate().map(bit).fold(0, |bits, bit| bits | bit);
        if bits != 0 {
            matches.push(Match { position: term.position, elements: bits, source: term.source.clone() });
        }
    });
    let mut found: Vec<Range<usize>> = Vec::new();
    for start in 0..matches.len() {
        let mut bit = 0;
        let mut longest = 0;
        for atom in &atoms {
            let is_there = (0..atom.len()).all(|n| {
                let there = matches.get(start + n);
                there.is_some_and(|one| {
                    one.position == matches[start].position + n as u32 && one.elements >> (bit + n) & 1 == 1
                })
            });
            if is_there {
                longest = longest.max(atom.len());
            }
            bit += atom.len();
        }
        if longest > 0 {
            let range = matches[start].source.start..matches[start + longest - 1].source.end;
            match found.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => found.push(range),
            }
        }
    }
    found
}

/// The stretch with the most marks.
fn best(text: &str, found: &[Range<usize>]) -> Option<Range<usize>> {
    let room = SNIPPET_BYTES_MAX - BEFORE_BYTES;
    let marks_from = |n: usize| found[n..].iter().take_while(|mark| mark.end <= found[n].start + room).count();
    let first = (0..found.len()).take(MARKS_MAX).max_by_key(|n| (marks_from(*n), std::cmp::Reverse(*n)))?;
    let mut start = found[first].start.saturating_sub(BEFORE_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start > 0 {
        // From the beginning of a word, where there is one before the mark.
        start += text[start..found[first].start].find(' ').map_or(0, |space| space + 1);
    }
    let end = start + head(&text[start..], SNIPPET_BYTES_MAX).len();
    Some(start..end)
}

fn marks(found: &[Range<usize>], within: Range<usize>) -> Vec<pb::SearchMark> {
    let inside = found.iter().filter(|mark| mark.start >= within.start && mark.end <= within.end).take(MARKS_MAX);
    let mark = |mark: &Range<usize>| pb::SearchMark {
        offset: (mark.start - within.start) as u32,
        length: (mark.end - mark.start) as u32,
    };
    inside.map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Atom, Plan};
    use super::*;

    fn query(words: &[&str]) -> Query {
        let element = |word: &&str| Element { text: (*word).to_owned(), is_prefix: false };
        let atom = |word| Atom { fields: vec![field::BODY], elements: vec![element(word)], scores: true };
        Query { plan: Plan::All(vec![]), atoms: words.iter().map(atom).collect() }
    }

    #[test]
    fn the_best_place_is_shown_and_marked() {
        let text =
            folded(&format!("one   {} Café and\n\ncafe with one {}", "far away ".repeat(80), "behind ".repeat(80)));
        let found = found(&text, &query(&["cafe", "one"]), field::BODY);
        let range = best(&text, &found).unwrap();
        let marks = marks(&found, range.clone());
        let snippet = &text[range];
        assert!(snippet.len() <= SNIPPET_BYTES_MAX);
        let marked: Vec<&str> =
            marks.iter().map(|mark| &snippet[mark.offset as usize..(mark.offset + mark.length) as usize]).collect();
        assert_eq!(marked, ["Café", "cafe", "one"]);
    }

    #[test]
    fn pairs_that_overlap_are_one_mark() {
        let found = found("ab 東京都知事", &query(&["東京", "京都"]), field::BODY);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], 3..12);
    }
}
