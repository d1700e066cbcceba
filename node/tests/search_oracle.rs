//! Searches held against a naive scan of the mailbox: the same set, order, counts and rows, while messages arrive, are marked, moved, labelled and deleted.
//!
//! `POSTRIDER_SEARCH_QUERIES` (10,000 for a campaign), `POSTRIDER_SEARCH_MESSAGES` and `POSTRIDER_SEARCH_SEED` say how much; each failure names its seed.
//! Real mail is taken from `POSTRIDER_SUITES`, and left out where there is none.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod oracle;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use oracle::mail;
use oracle::questions::Vocabulary;
use oracle::random::Random;
use oracle::scan::{Content, Mailbox, Message};
use postrider_api::id::{BodyId, EmailId, UserId};
use postrider_api::pb::{self, SearchSort, answer, command::Op, outcome, query};
use postrider_mime::{IngestLimits, ingest};
use postrider_node::NodeTimings;
use postrider_router::{ReadMode, Router};
use support::mail::{bytes, command, sign_up};
use support::{Cluster, GENEROUS, MAILBOX};

const QUERIES_DEFAULT: u64 = 400;
const MESSAGES_DEFAULT: u64 = 240;
const SEED_DEFAULT: u64 = 20_261_130;
/// Searches between two rounds of changes.
const QUERIES_OF_A_ROUND: u64 = 40;
/// Changes of a round.
const CHANGES_OF_A_ROUND: usize = 6;
/// Pages of a search that are looked at; most have one.
const PAGES_MAX: usize = 4;

fn parameter(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// A mailbox in a cluster, and what the test knows of it.
struct World {
    router: Router,
    user: UserId,
    contents: BTreeMap<Bytes, Rc<Content>>,
    mailbox: Mailbox,
    vocabulary: Vocabulary,
    random: Random,
    made: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_finds_what_a_scan_finds() {
    let (queries, messages) = (
        parameter("POSTRIDER_SEARCH_QUERIES", QUERIES_DEFAULT),
        parameter("POSTRIDER_SEARCH_MESSAGES", MESSAGES_DEFAULT),
    );
    let seed = parameter("POSTRIDER_SEARCH_SEED", SEED_DEFAULT);
    println!("seed {seed}");
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    // Somebody else's mail has the same words.
    let other = sign_up(&router, "bob", MAILBOX).await;
    let user = sign_up(&router, "ada", MAILBOX).await;
    let mut world = World {
        router,
        user,
        contents: BTreeMap::new(),
        mailbox: Mailbox::default(),
        vocabulary: Vocabulary::default(),
        random: Random(seed),
        made: 0,
    };
    world.furnish().await;
    let max = usize::try_from(messages).unwrap();
    let real: Vec<_> = [("easy-ham-1.tar.zst", max / 3), ("torture.tar.zst", max / 8)]
        .into_iter()
        .flat_map(|(name, max)| mail::real(name, max))
        .collect();
    println!("{} messages are real", real.len());
    for raw in &real {
        world.deliver(&[world.user, other], raw).await;
    }
    while world.made + real.len() < max {
        let raw = mail::made_up(&mut world.random, world.made);
        world.made += 1;
        world.deliver(&[world.user, other], &raw).await;
    }
    let (mut asked, mut found) = (0, 0);
    while asked < queries {
        for _ in 0..CHANGES_OF_A_ROUND {
            world.change().await;
        }
        world.read().await;
        for _ in 0..QUERIES_OF_A_ROUND {
            let search = world.vocabulary.search(&mut world.random, world.user);
            found += world.check(&search).await;
            asked += 1;
        }
    }
    println!("{asked} searches, {found} hits, {} messages at the end", world.mailbox.messages.len());
    assert!(found > asked, "most of what is asked is there: {found} hits of {asked}");
}

impl World {
    async fn propose(&self, op: Op) -> outcome::Result {
        let outcome = self.router.propose(MAILBOX, None, command(op), GENEROUS).await.unwrap();
        outcome.result.unwrap()
    }

    async fn ask(&self, query: query::Query) -> answer::Answer {
        let answered = self.router.query(MAILBOX, None, query, ReadMode::Consistent, 0, GENEROUS).await;
        answered.unwrap().answer.answer.unwrap()
    }

    /// Folders and labels of one's own.
    async fn furnish(&mut self) {
        let user_id = self.user.to_bytes();
        for name in ["Projekte", "Übersicht 2026"] {
            let create = pb::CreateFolder { user_id: user_id.clone(), name: name.to_owned() };
            self.propose(Op::CreateFolder(create)).await;
        }
        for name in ["Work", "To do", "중요", "Größe"] {
            let create = pb::CreateLabel { user_id: user_id.clone(), name: name.to_owned(), color: 0 };
            self.propose(Op::CreateLabel(create)).await;
        }
        self.vocabulary.names = ["Projekte", "Übersicht 2026", "Work", "To do", "중요", "Größe", "Inbox", "nowhere"]
            .map(str::to_owned)
            .to_vec();
    }

    async fn deliver(&mut self, users: &[UserId], raw: &[u8]) {
        let limits = IngestLimits::default();
        let ingested = ingest(&Bytes::copy_from_slice(raw), BodyId(bytes()), &limits);
        if !ingested.blobs.is_empty() {
            // There is no object store here.
            return;
        }
        let recipient = |user: &UserId| pb::Recipient {
            user_id: user.to_bytes(),
            address: "a@postrider.example".to_owned(),
            ..Default::default()
        };
        let accept = pb::Accept {
            mail_from: "outside@elsewhere.example".to_owned(),
            recipients: users.iter().map(recipient).collect(),
            message: Some(ingested.message),
            ..Default::default()
        };
        match self.propose(Op::Accept(accept)).await {
            outcome::Result::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// One change of something.
    async fn change(&mut self) {
        let ids: Vec<Bytes> = self.mailbox.messages.iter().map(|message| message.row.email_id.clone()).collect();
        if ids.is_empty() || self.random.one_in(4) {
            let raw = mail::made_up(&mut self.random, self.made);
            self.made += 1;
            return self.deliver(&[self.user], &raw).await;
        }
        if self.random.one_in(20) {
            return self.rename().await;
        }
        let count = 1 + self.random.below(8);
        let chosen: BTreeSet<Bytes> = (0..count).map(|_| self.random.of(&ids).clone()).collect();
        let folder = self.random.of(&self.mailbox.folders).folder_id;
        let label = self.random.of(&self.mailbox.labels).label_id;
        let keyword = 1 << self.random.below(3);
        let kind = self.random.below(8);
        let update = |email_id: Bytes| {
            let update = pb::MessageUpdate { email_id, ..Default::default() };
            match kind {
                0 | 1 => pb::MessageUpdate { keywords_add: keyword, ..update },
                2 => pb::MessageUpdate { keywords_remove: keyword, ..update },
                3 => pb::MessageUpdate { labels_add: vec![label], ..update },
                4 => pb::MessageUpdate { labels_remove: vec![label], ..update },
                5 | 6 => pb::MessageUpdate { folder_id: Some(folder), ..update },
                _ => pb::MessageUpdate { delete: true, ..update },
            }
        };
        let updates = chosen.into_iter().map(update).collect();
        let update = pb::UpdateMessages { user_id: self.user.to_bytes(), updates };
        let updated = self.propose(Op::UpdateMessages(update)).await;
        // What an earlier change of the round has deleted is not there.
        assert!(matches!(updated, outcome::Result::Changed(_) | outcome::Result::Refused(_)), "{updated:?}");
    }

    async fn rename(&mut self) {
        let label_id = self.random.of(&self.mailbox.labels).label_id;
        let name = format!("Renamed {}", self.random.below(1000));
        self.vocabulary.names.push(name.clone());
        let update = pb::UpdateLabel { user_id: self.user.to_bytes(), label_id, name: Some(name), color: None };
        self.propose(Op::UpdateLabel(update)).await;
    }

    /// The mailbox as its rows have it.
    async fn read(&mut self) {
        let user_id = self.user.to_bytes();
        let folders = self.ask(query::Query::ListFolders(pb::ListFolders { user_id: user_id.clone() })).await;
        let answer::Answer::Folders(folders) = folders else { panic!("{folders:?}") };
        let labels = self.ask(query::Query::ListLabels(pb::ListLabels { user_id: user_id.clone() })).await;
        let answer::Answer::Labels(labels) = labels else { panic!("{labels:?}") };
        let mut mailbox = Mailbox { messages: Vec::new(), folders: folders.folders, labels: labels.labels };
        for folder in &mailbox.folders {
            let mut before = Bytes::new();
            loop {
                let list = pb::ListMessages {
                    user_id: user_id.clone(),
                    folder_id: folder.folder_id,
                    limit: 200,
                    before,
                    ..Default::default()
                };
                let page = self.ask(query::Query::ListMessages(list)).await;
                let answer::Answer::Messages(page) = page else { panic!("{page:?}") };
                before = page.rows.last().map(|row| row.email_id.clone()).unwrap_or_default();
                for row in page.rows {
                    let content = self.content(&row.email_id).await;
                    mailbox.messages.push(Message { row, content });
                }
                if !page.more {
                    break;
                }
            }
        }
        let times = mailbox.messages.iter().map(|message| EmailId::try_from(&message.row.email_id).unwrap().ms());
        self.vocabulary.times = (times.clone().min().unwrap(), times.max().unwrap() + 1);
        self.mailbox = mailbox;
    }

    /// What never changes of a message, and its words for questions.
    async fn content(&mut self, email_id: &Bytes) -> Rc<Content> {
        if let Some(known) = self.contents.get(email_id) {
            return Rc::clone(known);
        }
        let user_id = self.user.to_bytes();
        let get = pb::GetMessage { user_id: user_id.clone(), email_id: email_id.clone(), ..Default::default() };
        let record = self.ask(query::Query::GetMessage(get)).await;
        let answer::Answer::Message(record) = record else { panic!("{record:?}") };
        let get = pb::GetBody { user_id, email_id: email_id.clone() };
        let stored = self.ask(query::Query::GetBody(get)).await;
        let answer::Answer::Body(stored) = stored else { panic!("{stored:?}") };
        let envelope = record.envelope.clone().unwrap_or_default();
        let texts = postrider_mime::searchable(&record, &stored).unwrap();
        let people = envelope.from.iter().chain(&envelope.to).flat_map(|person| [&person.name, &person.email]);
        let files = record.parts.iter().map(|part| &part.filename);
        let bodies = texts.bodies.iter().chain(&texts.alternatives).chain(&texts.attachments);
        [&envelope.subject]
            .into_iter()
            .chain(people)
            .chain(files)
            .chain(bodies)
            .for_each(|text| self.vocabulary.add(text));
        self.vocabulary.message_ids.push(format!("made.{}@example.org", self.contents.len()));
        let content = Rc::new(Content::of(&record, &stored));
        self.contents.insert(email_id.clone(), Rc::clone(&content));
        content
    }

    /// The pages of a search, and what each of them says the total is.
    async fn pages(&self, search: &pb::Search, max: usize) -> (Vec<pb::SearchHit>, Vec<u64>, bool) {
        let (mut hits, mut totals) = (Vec::<pb::SearchHit>::new(), Vec::new());
        for _ in 0..max {
            let after = hits.last().map(|hit| pb::SearchPosition {
                email_id: hit.row.as_ref().unwrap().email_id.clone(),
                score: hit.score,
            });
            let page = self.ask(query::Query::Search(pb::Search { after, ..search.clone() })).await;
            let answer::Answer::Search(page) = page else { panic!("{search:?}: {page:?}") };
            assert!(page.hits.len() <= search.limit as usize && !page.total_is_bound, "{search:?}");
            assert!(!page.more || page.hits.len() == search.limit as usize, "{search:?}: a page that is not full");
            totals.push(page.total);
            hits.extend(page.hits);
            if !page.more {
                return (hits, totals, true);
            }
        }
        (hits, totals, false)
    }

    /// Holds one search against the scan; how many hits it has.
    async fn check(&self, search: &pb::Search) -> u64 {
        let expected = self.mailbox.matching(search);
        let by_relevance = search.sort() == SearchSort::Relevance;
        // The order by relevance is the index's own: it must be one, and the same for every question about the same messages.
        let scores: BTreeMap<Bytes, u64> = if by_relevance {
            let all = pb::Search { threads: false, limit: 200, ..search.clone() };
            let (hits, _, whole) = self.pages(&all, usize::MAX).await;
            assert!(whole);
            hits.into_iter().map(|hit| (hit.row.unwrap().email_id, hit.score)).collect()
        } else {
            BTreeMap::new()
        };
        let score = |row: &pb::ListRow| scores.get(&row.email_id).copied().unwrap_or(0);
        let mut rows: Vec<&pb::ListRow> = expected.iter().map(|message| &message.row).collect();
        if by_relevance {
            let found: BTreeSet<&Bytes> = scores.keys().collect();
            assert_eq!(found, rows.iter().map(|row| &row.email_id).collect(), "{}", self.explained(search, &found));
            rows.sort_by(|a, b| (score(b), &b.email_id).cmp(&(score(a), &a.email_id)));
        }
        let mut conversations: BTreeMap<&Bytes, u32> = BTreeMap::new();
        let mut firsts = Vec::new();
        for row in &rows {
            let hits = conversations.entry(&row.thread_id).or_default();
            *hits += 1;
            if *hits == 1 {
                firsts.push(*row);
            }
        }
        if search.threads {
            rows = firsts;
        }
        let (hits, totals, whole) = self.pages(search, PAGES_MAX).await;
        let found: Vec<&Bytes> = hits.iter().map(|hit| &hit.row.as_ref().unwrap().email_id).collect();
        let wanted: Vec<&Bytes> = rows.iter().map(|row| &row.email_id).collect();
        let seen = if whole { wanted.len() } else { hits.len() };
        assert_eq!(
            found,
            wanted[..seen.min(wanted.len())],
            "{}",
            self.explained(search, &found.iter().copied().collect())
        );
        for total in totals {
            assert_eq!(total, rows.len() as u64, "{search:?}");
        }
        for (hit, row) in hits.iter().zip(&rows) {
            assert_eq!(hit.row.as_ref(), Some(*row), "{search:?}: the row is as it is now");
            assert_eq!(hit.score, score(row), "{search:?}: a score depends on message and query alone");
            assert_eq!(hit.thread_hits, if search.threads { conversations[&row.thread_id] } else { 0 }, "{search:?}");
            check_marks(&hit.snippet, &hit.marks);
            check_marks(&row.subject, &hit.subject_marks);
        }
        rows.len() as u64
    }

    /// Which messages make the difference, for whoever mends it.
    fn explained(&self, search: &pb::Search, found: &BTreeSet<&Bytes>) -> String {
        let wanted = self.mailbox.matching(search);
        let wanted: BTreeSet<&Bytes> = wanted.iter().map(|message| &message.row.email_id).collect();
        let shown = |ids: Vec<&&Bytes>| {
            let row = |id: &&Bytes| self.mailbox.messages.iter().map(|m| &m.row).find(|row| row.email_id == **id);
            ids.iter().take(3).map(|id| format!("{:?}", row(id))).collect::<Vec<_>>().join("\n")
        };
        format!(
            "{search:?}\nnot found:\n{}\nfound and does not match:\n{}",
            shown(wanted.difference(found).collect()),
            shown(found.difference(&wanted).collect())
        )
    }
}

/// Within the text, rising, apart from each other.
fn check_marks(text: &str, marks: &[pb::SearchMark]) {
    let mut end = 0;
    for mark in marks {
        let (from, to) = (mark.offset as usize, (mark.offset + mark.length) as usize);
        assert!(from >= end && to > from && text.get(from..to).is_some(), "{marks:?} of {text:?}");
        end = to;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_oracle_is_asked_with_is_mail() {
    let mut random = Random(1);
    for number in 0..200 {
        let raw = mail::made_up(&mut random, number);
        let ingested = ingest(&Bytes::from(raw), BodyId(bytes()), &IngestLimits::default());
        let envelope = ingested.message.envelope.unwrap();
        assert!(ingested.blobs.is_empty() && !envelope.from.is_empty(), "{envelope:?}");
    }
}
