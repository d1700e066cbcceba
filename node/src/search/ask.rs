//! A plan answered: for each condition the set of messages for which it holds, from the index and from the words of those messages
//! that it does not have yet, and then one set made of all.

use std::time::Instant;

use postrider_api::id::UserId;
use tantivy::postings::{Postings, SegmentPostings, TermInfo};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, TERMINATED};

use super::bits::Bits;
use super::fault::SearchError;
use super::index::{Segment, View};
use super::mailbox::Mailbox;
use super::plan::{Atom, Element, Plan, Query};
use super::recent::Recent;
use super::schema;
use super::words::field;
use crate::scan::Gone;

/// Different words that the beginning of one may stand for, in all segments together. What stands for more is written on.
const PREFIX_TERMS_MAX: usize = 20_000;
/// Messages between two looks at the clock.
const LOOK_EVERY: usize = 4096;

/// When a search ends that is not over by then.
pub(super) struct Limit<'l> {
    pub(super) until: Instant,
    pub(super) gone: &'l Gone,
}

impl Limit<'_> {
    pub(super) fn check(&self) -> Result<(), SearchError> {
        match Instant::now() >= self.until || self.gone.has_left() {
            true => Err(SearchError::TooCostly),
            false => Ok(()),
        }
    }
}

/// Where the words of a mailbox's messages are.
pub(super) struct Source<'s> {
    pub(super) user: UserId,
    pub(super) mailbox: &'s Mailbox,
    pub(super) view: Option<&'s View>,
    /// Messages that the view does not have.
    pub(super) recent: &'s Recent,
    /// The view has everything up to the moment of the rows, deletions included.
    pub(super) is_committed: bool,
    pub(super) limit: &'s Limit<'s>,
}

/// The scores of messages, where they are asked for.
pub(super) struct Scores {
    scores: Vec<u64>,
    lengths: Vec<u8>,
}

impl Scores {
    pub(super) fn new(length: usize) -> Self {
        Self { scores: vec![0; length], lengths: vec![0; length] }
    }

    /// How well a message answers: of the message and the query alone. What is said in fewer words is said of it.
    pub(super) fn of(&self, at: usize) -> u64 {
        self.scores[at] * 64 / (16 + u64::from(self.lengths[at]))
    }
}

/// What a field's words are worth.
fn weight(of: u8) -> u64 {
    match of {
        field::SUBJECT => 8,
        field::FROM => 6,
        field::TO | field::FILENAME => 4,
        field::CC | field::BCC => 3,
        _ => 2,
    }
}

/// The first occurrence counts most.
fn saturated(frequency: u32) -> u64 {
    let frequency = u64::from(frequency);
    frequency * 256 / (frequency + 1)
}

impl Source<'_> {
    /// The messages for which the query holds, those that have been deleted not among them.
    pub(super) fn answer(&self, query: &Query, scores: Option<&mut Scores>) -> Result<Bits, SearchError> {
        let mut asked = Asked { source: self, atoms: &query.atoms, found: vec![None; query.atoms.len()], scores };
        let mut found = asked.plan(&query.plan)?;
        if asked.scores.is_some() {
            // What another branch has made needless counts all the same: a score is of the whole query.
            (0..query.atoms.len()).filter(|at| query.atoms[*at].scores).try_for_each(|at| asked.atom(at).map(drop))?;
        }
        found.and(&self.mailbox.live());
        Ok(found)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        self.view.map_or(&[], |view| &view.segments)
    }

    /// The terms of a segment that an element stands for.
    fn infos(
        &self,
        segment: &Segment,
        of: u8,
        element: &Element,
        terms: &mut usize,
    ) -> Result<Vec<TermInfo>, SearchError> {
        let mut key = schema::prefix(self.user);
        key.push(char::from(of));
        key.push_str(&element.text);
        if !element.is_prefix {
            return Ok(segment.words.terms().get(key.as_bytes())?.into_iter().collect());
        }
        let mut infos = Vec::new();
        let mut stream = segment.words.terms().range().ge(key.as_bytes()).into_stream()?;
        while stream.advance() && stream.key().starts_with(key.as_bytes()) {
            *terms += 1;
            if *terms > PREFIX_TERMS_MAX {
                return Err(SearchError::PrefixTooCommon { prefix: element.text.clone(), most: PREFIX_TERMS_MAX });
            }
            infos.push(stream.value().clone());
        }
        Ok(infos)
    }

    /// Gives each message of a list: its number, the document and how often.
    pub(super) fn postings(
        &self,
        segment: &Segment,
        info: &TermInfo,
        option: IndexRecordOption,
        seen: &mut usize,
        mut take: impl FnMut(usize, u32, u32),
    ) -> Result<(), SearchError> {
        let mut postings = segment.words.read_postings_from_terminfo(info, option)?;
        let mut doc = postings.doc();
        while doc != TERMINATED {
            *seen += 1;
            if seen.is_multiple_of(LOOK_EVERY) {
                self.limit.check()?;
            }
            if let Some(at) = self.mailbox.number(segment.sequence.get_val(doc)) {
                take(at, doc, postings.term_freq());
            }
            doc = postings.advance();
        }
        Ok(())
    }
}

/// A query while it is answered.
struct Asked<'a, 's> {
    source: &'a Source<'s>,
    atoms: &'a [Atom],
    found: Vec<Option<Bits>>,
    scores: Option<&'a mut Scores>,
}

impl Asked<'_, '_> {
    fn plan(&mut self, plan: &Plan) -> Result<Bits, SearchError> {
        let mailbox = self.source.mailbox;
        let length = mailbox.length();
        Ok(match plan {
            Plan::All(plans) => {
                let mut all = mailbox.live();
                for plan in plans {
                    if all.is_empty() {
                        break;
                    }
                    all.and(&self.plan(plan)?);
                }
                all
            }
            Plan::Any(plans) => {
                let mut any = Bits::none(length);
                for plan in plans {
                    any.or(&self.plan(plan)?);
                }
                any
            }
            Plan::Not(plan) => {
                let mut others = mailbox.live();
                others.without(&self.plan(plan)?);
                others
            }
            Plan::Atom(at) => self.atom(*at)?.clone(),
            Plan::Folders(folders) => in_folders(mailbox, folders),
            Plan::Label(None) => Bits::none(length),
            Plan::Label(Some(label)) => {
                let mut with = Bits::none(length);
                mailbox.labelled(*label).for_each(|at| with.set(at));
                with
            }
            Plan::Keywords(wanted) => Bits::from_fn(length, |at| mailbox.keywords[at] & wanted == *wanted),
            Plan::Size(bound) => {
                let mut found = Bits::none(length);
                let mut seen = 0;
                let any = Element { text: String::new(), is_prefix: false };
                for segment in self.source.segments() {
                    for info in self.source.infos(segment, field::ANY_MESSAGE, &any, &mut 0)? {
                        self.source.postings(segment, &info, IndexRecordOption::Basic, &mut seen, |at, doc, _| {
                            if bound.holds(segment.size.get_val(doc)) {
                                found.set(at);
                            }
                        })?;
                    }
                }
                self.source.recent.docs().filter(|(_, doc)| bound.holds(doc.size)).for_each(|(at, _)| found.set(at));
                found
            }
            Plan::SinceMs(ms) => {
                let first = mailbox.before_ms(*ms);
                Bits::from_fn(length, |at| at >= first)
            }
            Plan::BeforeMs(ms) => {
                let end = mailbox.before_ms(*ms);
                Bits::from_fn(length, |at| at < end)
            }
        })
    }

    fn atom(&mut self, at: usize) -> Result<&Bits, SearchError> {
        if self.found[at].is_none() {
            let atom = &self.atoms[at];
            let found = find(self.source, atom, self.scores.as_deref_mut().filter(|_| atom.scores))?;
            self.found[at] = Some(found);
        }
        Ok(self.found[at].get_or_insert_with(|| Bits::none(0)))
    }
}

/// The messages in some folders.
pub(super) fn in_folders(mailbox: &Mailbox, folders: &[u32]) -> Bits {
    match folders {
        [] => Bits::none(mailbox.length()),
        [one] => Bits::from_fn(mailbox.length(), |at| mailbox.folders[at] == *one),
        some => Bits::from_fn(mailbox.length(), |at| some.contains(&mailbox.folders[at])),
    }
}

/// How often an atom is found in each message, one field at a time.
struct Frequencies {
    of: Vec<u32>,
    touched: Vec<usize>,
}

impl Frequencies {
    fn add(&mut self, at: usize, frequency: u32) {
        if self.of[at] == 0 {
            self.touched.push(at);
        }
        self.of[at] = self.of[at].saturating_add(frequency);
    }
}

fn find(source: &Source<'_>, atom: &Atom, mut scores: Option<&mut Scores>) -> Result<Bits, SearchError> {
    let length = source.mailbox.length();
    let mut found = Bits::none(length);
    let scored = scores.as_ref().map_or(0, |_| length);
    let mut frequencies = Frequencies { of: vec![0; scored], touched: Vec::new() };
    let (mut seen, mut terms) = (0, 0);
    for of in &atom.fields {
        for segment in source.segments() {
            let mut hit = |at: usize, doc: u32, frequency: u32| {
                found.set(at);
                if let Some(scores) = scores.as_deref_mut() {
                    frequencies.add(at, frequency);
                    scores.lengths[at] = segment.length.get_val(doc) as u8;
                }
            };
            match &atom.elements[..] {
                [element] => {
                    let option = if scored > 0 { IndexRecordOption::WithFreqs } else { IndexRecordOption::Basic };
                    for info in source.infos(segment, *of, element, &mut terms)? {
                        source.postings(segment, &info, option, &mut seen, &mut hit)?;
                    }
                }
                elements => {
                    let infos = |element| source.infos(segment, *of, element, &mut terms);
                    let infos = elements.iter().map(infos).collect::<Result<Vec<_>, _>>()?;
                    phrase(source, segment, &infos, &mut seen, &mut hit)?;
                }
            }
        }
        source.limit.check()?;
        source.recent.find(*of, &atom.elements, |at, doc, frequency| {
            found.set(at);
            if let Some(scores) = scores.as_deref_mut() {
                frequencies.add(at, frequency);
                scores.lengths[at] = doc.words.length();
            }
        });
        if let Some(scores) = scores.as_deref_mut() {
            for at in frequencies.touched.drain(..) {
                scores.scores[at] += weight(*of) * saturated(std::mem::take(&mut frequencies.of[at]));
            }
        }
    }
    Ok(found)
}

/// Values that are in all lists.
fn together(places: &mut [Vec<u32>]) -> usize {
    let Some((first, others)) = places.split_first_mut() else { return 0 };
    others.iter_mut().for_each(|list| list.sort_unstable());
    first.iter().filter(|place| others.iter().all(|list| list.binary_search(place).is_ok())).count()
}

/// Finds elements next to each other: the rarest leads, the others are asked for its messages only.
fn phrase(
    source: &Source<'_>,
    segment: &Segment,
    infos: &[Vec<TermInfo>],
    seen: &mut usize,
    hit: &mut impl FnMut(usize, u32, u32),
) -> Result<(), SearchError> {
    if infos.iter().any(Vec::is_empty) {
        return Ok(());
    }
    let open =
        |info: &TermInfo| segment.words.read_postings_from_terminfo(info, IndexRecordOption::WithFreqsAndPositions);
    let mut lists: Vec<Vec<SegmentPostings>> =
        infos.iter().map(|infos| infos.iter().map(open).collect()).collect::<Result<_, _>>()?;
    let weight = |infos: &Vec<TermInfo>| infos.iter().map(|info| u64::from(info.doc_freq)).sum::<u64>();
    let lead = (0..infos.len()).min_by_key(|n| weight(&infos[*n])).unwrap_or(0);
    let mut docs = Vec::new();
    for info in &infos[lead] {
        let mut postings = segment.words.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
        let mut doc = postings.doc();
        while doc != TERMINATED {
            docs.push(doc);
            doc = postings.advance();
        }
    }
    docs.sort_unstable();
    docs.dedup();
    let count = lists.len();
    let mut places = vec![Vec::new(); count];
    'docs: for doc in docs {
        *seen += 1;
        if seen.is_multiple_of(LOOK_EVERY / 4) {
            source.limit.check()?;
        }
        let Some(at) = source.mailbox.number(segment.sequence.get_val(doc)) else { continue };
        for (n, list) in lists.iter_mut().enumerate() {
            places[n].clear();
            for postings in list {
                if postings.doc() < doc {
                    postings.seek(doc);
                }
                if postings.doc() == doc {
                    postings.append_positions_with_offset((count - n) as u32, &mut places[n]);
                }
            }
            if places[n].is_empty() {
                continue 'docs;
            }
        }
        let frequency = together(&mut places);
        if frequency > 0 {
            hit(at, doc, frequency as u32);
        }
    }
    Ok(())
}
