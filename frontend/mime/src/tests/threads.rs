//! Threads of real mail: the hashes that ingest makes join the same messages as the ids that stand in the mail.
//!
//! What is expected is computed here, from the headers as text, by the rule that the suites call `refs`: References, or else the
//! first id of In-Reply-To; who shares an id is of one thread.

use std::collections::HashMap;
use std::hash::Hash;

use bytes::Bytes;

use super::super::IngestLimits;
use super::memory::checked;
use super::suite::{Mail, corpus};

/// Sets that grow together.
struct Sets<K> {
    parents: HashMap<K, K>,
}

impl<K: Clone + Eq + Hash> Sets<K> {
    fn root(&mut self, key: &K) -> K {
        let mut at = key.clone();
        loop {
            let parent = self.parents.entry(at.clone()).or_insert_with(|| at.clone()).clone();
            if parent == at {
                return at;
            }
            at = parent;
        }
    }

    fn join(&mut self, one: &K, other: &K) {
        let (one, other) = (self.root(one), self.root(other));
        self.parents.insert(one, other);
    }
}

/// Numbers threads in the order in which they are met, so that two ways to name them can be compared.
fn numbered<K: Clone + Eq + Hash>(own: &[K], sets: &mut Sets<K>) -> Vec<usize> {
    let mut numbers = HashMap::new();
    own.iter()
        .map(|id| {
            let next = numbers.len();
            *numbers.entry(sets.root(id)).or_insert(next)
        })
        .collect()
}

/// The first field of that name, its lines as they stand.
fn field(mail: &str, name: &str) -> String {
    let mut found = None;
    for line in mail.split('\n').take_while(|line| !line.trim_end_matches('\r').is_empty()) {
        if line.starts_with([' ', '\t']) {
            if let Some(Some(value)) = &mut found {
                *value = format!("{value}\n{line}");
            }
            continue;
        }
        if let Some(Some(value)) = found {
            return value;
        }
        let is_it = line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        found = Some(is_it.then(|| line.to_owned()));
    }
    found.flatten().unwrap_or_default()
}

/// `<([^<>\s]+)>`, by splitting.
fn ids(value: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for piece in value.split('<').skip(1) {
        if let Some((id, _)) = piece.split_once('>')
            && !id.is_empty()
            && !id.contains(char::is_whitespace)
        {
            ids.push(id.to_owned());
        }
    }
    ids
}

/// A fixed shuffle, so that a failure can be seen again.
fn shuffled(mut mails: Vec<Mail>) -> Vec<Mail> {
    let mut state = 20_261_120u64;
    for at in (1..mails.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        mails.swap(at, (state >> 33) as usize % (at + 1));
    }
    mails
}

fn check(mails: &[Mail]) {
    let (mut by_text, mut by_hash) = (Sets { parents: HashMap::new() }, Sets { parents: HashMap::new() });
    let (mut own_texts, mut own_hashes): (Vec<String>, Vec<Bytes>) = (Vec::new(), Vec::new());
    for mail in mails {
        let text = String::from_utf8_lossy(&mail.bytes).into_owned();
        let Some(own) = ids(&field(&text, "Message-ID")).into_iter().next() else { continue };
        let mut references = ids(&field(&text, "References"));
        if references.is_empty() {
            references.extend(ids(&field(&text, "In-Reply-To")).into_iter().take(1));
        }
        references.iter().for_each(|id| by_text.join(&own, id));
        own_texts.push(own);

        let message = checked(&mail.crlf(), &IngestLimits::default()).message;
        message.reference_hashes.iter().for_each(|hash| by_hash.join(&message.message_id_hash, hash));
        own_hashes.push(message.message_id_hash);
    }
    let (expected, found) = (numbered(&own_texts, &mut by_text), numbered(&own_hashes, &mut by_hash));
    assert_eq!(found, expected);
    let threads = expected.iter().max().unwrap() + 1;
    assert!(threads > 500 && threads < own_texts.len() - 500, "{threads} threads of {} messages", own_texts.len());
}

#[test]
fn threads_are_those_of_the_headers_in_any_order() {
    let Some(mails) = corpus("easy-ham-1") else { return };
    check(&mails);
    check(&shuffled(mails));
}
