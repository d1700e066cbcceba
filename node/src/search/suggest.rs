//! People whom a user has written to or heard from, out of the terms that say who a message is from and to.

use std::collections::BTreeMap;

use postrider_api::id::UserId;
use postrider_api::limit::SUGGESTIONS_MAX;
use postrider_api::pb;
use postrider_mime::terms;
use postrider_shard::key::Key;
use postrider_shard::store::Reader;
use prost::Message;
use tantivy::schema::IndexRecordOption;

use super::ask::{Source, in_folders};
use super::bits::Bits;
use super::extract::NAME_BEHIND;
use super::fault::SearchError;
use super::plan;
use super::schema::{PREFIX_CHARS, prefix};
use super::words::field;

/// Names and addresses of one mailbox that are looked at.
const PEOPLE_MAX: usize = 200_000;
/// A word that is suggested for, bytes.
const PREFIX_BYTES_MAX: usize = 256;
/// Somebody who was written to is likelier than one who writes: newsletters write, and nobody answers them.
const WRITTEN_WEIGHT: u64 = 8;

/// One address.
#[derive(Default)]
struct Person {
    /// By how often it was used.
    names: BTreeMap<String, u32>,
    written: u32,
    heard: u32,
    last: Option<usize>,
}

/// Answers who begins so.
pub(super) fn suggest(
    rows: &impl Reader,
    source: &Source<'_>,
    suggest: &pb::Suggest,
) -> Result<pb::Suggestions, SearchError> {
    if suggest.prefix.len() > PREFIX_BYTES_MAX {
        return Err(SearchError::Malformed(format!("prefix: at most {PREFIX_BYTES_MAX} bytes")));
    }
    let own = own_address(rows, source.user)?;
    // Mail that the user does not want says nothing of whom it likes to write to.
    let unwanted = plan::folders_with(rows, source.user, &[pb::FolderRole::Junk, pb::FolderRole::Trash])?;
    let mut wanted = source.mailbox.live();
    wanted.without(&in_folders(source.mailbox, &unwanted));
    let mut sent = Bits::none(source.mailbox.length());
    let mut people = BTreeMap::new();
    each(source, field::SENDER, |address, _, at| {
        if address == own {
            sent.set(at);
        }
    })?;
    let looked_for = words(&suggest.prefix);
    let mut add = |address: &str, name: &str, at: usize, written: bool| {
        if address == own || !wanted.has(at) || sent.has(at) != written || !begins(address, name, &looked_for) {
            return;
        }
        if !people.contains_key(address) && people.len() >= PEOPLE_MAX {
            return;
        }
        let person: &mut Person = people.entry(address.to_owned()).or_default();
        if !name.is_empty() {
            *person.names.entry(name.to_owned()).or_default() += 1;
        }
        person.written += u32::from(written);
        person.heard += u32::from(!written);
        person.last = person.last.max(Some(at));
    };
    each(source, field::SENDER, |address, name, at| add(address, name, at, false))?;
    each(source, field::RECIPIENT, |address, name, at| add(address, name, at, true))?;
    Ok(ranked(source, people, suggest.limit))
}

fn own_address(rows: &impl Reader, user: UserId) -> Result<String, SearchError> {
    let account = rows.get(&Key::Account(user).bytes())?;
    Ok(account.and_then(|row| pb::AccountRecord::decode(row).ok()).unwrap_or_default().address.to_lowercase())
}

/// The words of a text, folded; the last may go on.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    terms::cut(text, |term| {
        if term.kind != terms::TermKind::Last || words.is_empty() {
            words.push(term.text.to_owned());
        }
    });
    words
}

/// Whether each of the words begins one of the name or of the address.
fn begins(address: &str, name: &str, looked_for: &[String]) -> bool {
    let mut missing: Vec<&String> = looked_for.iter().collect();
    for text in [name, address] {
        if !missing.is_empty() {
            terms::cut(text, |term| missing.retain(|word| !term.text.starts_with(word.as_str())));
        }
    }
    missing.is_empty()
}

/// Gives address, name and message for everybody in one role.
fn each(source: &Source<'_>, of: u8, mut take: impl FnMut(&str, &str, usize)) -> Result<(), SearchError> {
    let mut start = prefix(source.user);
    start.push(char::from(of));
    let (mut seen, mut people) = (0, 0);
    for segment in source.segments() {
        let mut stream = segment.words.terms().range().ge(start.as_bytes()).into_stream()?;
        while stream.advance() && stream.key().starts_with(start.as_bytes()) {
            people += 1;
            if people > PEOPLE_MAX {
                return Err(SearchError::TooCostly);
            }
            let Ok(person) = std::str::from_utf8(&stream.key()[PREFIX_CHARS + 1..]) else { continue };
            let (address, name) = person.split_once(NAME_BEHIND).unwrap_or((person, ""));
            let info = stream.value().clone();
            source.postings(segment, &info, IndexRecordOption::Basic, &mut seen, |at, _, _| take(address, name, at))?;
        }
    }
    source.recent.each(of, |person, at| {
        let (address, name) = person.split_once(NAME_BEHIND).unwrap_or((person, ""));
        take(address, name, at);
    });
    Ok(())
}

fn ranked(source: &Source<'_>, people: BTreeMap<String, Person>, limit: u32) -> pb::Suggestions {
    let mut people: Vec<(String, Person)> = people.into_iter().collect();
    let length = source.mailbox.length().max(1) as u64;
    people.sort_by_cached_key(|(address, person)| {
        let times = u64::from(person.written) * WRITTEN_WEIGHT + u64::from(person.heard);
        // Twice as much mail counts as much as to have been there today instead of at the very beginning.
        let lately = person.last.map_or(0, |at| at as u64) * 256 / length;
        let order = times.checked_ilog2().map_or(0, u64::from) * 256 + lately;
        (std::cmp::Reverse(order), address.clone())
    });
    let limit = if limit == 0 { SUGGESTIONS_MAX } else { limit.min(SUGGESTIONS_MAX) };
    let suggestions = people.into_iter().take(limit as usize).map(|(email, person)| {
        let name = person.names.into_iter().max_by_key(|(_, times)| *times).map(|(name, _)| name).unwrap_or_default();
        let ms = person.last.map_or(0, |at| source.mailbox.arrived_ms(at));
        pb::Suggestion {
            person: Some(pb::Mailbox { name, email }),
            written: person.written,
            heard: person.heard,
            last_ms: ms,
        }
    });
    pb::Suggestions { suggestions: suggestions.collect() }
}
