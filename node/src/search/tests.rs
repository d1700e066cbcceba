//! An index over a database that the state machine itself fills. What it finds is held against a search that has no index and reads
//! the rows.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use postrider_api::id::{BodyId, EmailId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::pb::{self, answer::Answer, command::Op, search_node::Node};
use postrider_mime::{IngestLimits, ingest};
use postrider_shard::key::{KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use tempfile::TempDir;

use super::Search;
use super::fault::SearchError;
use super::run::Ask;
use crate::follow::tests::{Following, SHARD, State, start, user, wait};
use crate::scan::Gone;

/// A node's database, its indexes, and a follower that may run.
struct World {
    state: State,
    dir: TempDir,
    search: Search,
    following: Option<Following>,
    bodies: u8,
}

impl World {
    fn new(people: u16) -> Self {
        let mut state = State::new();
        state.grow(SHARD, people);
        let dir = tempfile::tempdir().unwrap();
        let search = Search::open(dir.path(), true);
        Self { state, dir, search, following: None, bodies: 0 }
    }

    /// Starts the node's part of it anew, as after a restart.
    fn run(&mut self) {
        self.end();
        self.search = Search::open(self.dir.path(), true);
        let indexer = self.search.indexer().unwrap();
        let following = start_reading(&self.state, &self.search, indexer);
        self.following = Some(following);
        self.catch_up();
    }

    fn end(&mut self) {
        if let Some(following) = self.following.take() {
            following.thread.stop();
        }
    }

    /// As a kill ends it: what is pending is lost.
    fn kill(&mut self) {
        drop(self.following.take());
    }

    fn catch_up(&self) {
        let following = self.following.as_ref().unwrap();
        wait("the index catches up", || {
            following.follow.changed(SHARD);
            self.search.inner.shards.watermark(SHARD) == Some(self.state.newest(SHARD))
        });
    }

    fn deliver(&mut self, to: &[UserId], raw: &str) {
        self.bodies += 1;
        let raw = Bytes::from(raw.replace('\n', "\r\n"));
        let message = ingest(&raw, BodyId([self.bodies; 16]), &IngestLimits::default()).message;
        let recipient = |user: &UserId| pb::Recipient {
            user_id: user.to_bytes(),
            address: "x@postrider.example".to_owned(),
            ..Default::default()
        };
        let recipients = to.iter().map(recipient).collect();
        let accept = pb::Accept { recipients, message: Some(message), ..Default::default() };
        self.state.apply(SHARD, Op::Accept(accept));
    }

    fn emails(&self, user: UserId) -> Vec<EmailId> {
        let rows = self.state.rows(SHARD);
        let ids = rows.scan(&KeyRange::user(Table::Emails, user), Direction::Forward).map(|row| {
            let (key, _) = row.unwrap();
            EmailId::try_from(&key.as_ref()[17..]).unwrap()
        });
        ids.collect()
    }

    fn update(&mut self, user: UserId, email: EmailId, update: pb::MessageUpdate) {
        let updates = vec![pb::MessageUpdate { email_id: email.to_bytes(), ..update }];
        self.state.apply(SHARD, Op::UpdateMessages(pb::UpdateMessages { user_id: user.to_bytes(), updates }));
    }

    fn ask(&self, search: &Search, wanted: &pb::Search) -> Result<pb::SearchPage, SearchError> {
        let ask = Ask::Search(wanted.clone());
        match search.inner.answer(&self.state.db, SHARD, &ask, &Gone::default())? {
            Answer::Search(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// The subjects that are found; by the index and by the rows alike, in every order.
    fn find(&self, user: UserId, node: &pb::SearchNode) -> Vec<String> {
        let plain = Search::open(Path::new("/nowhere"), false);
        let mut subjects = None;
        for sort in [pb::SearchSort::Relevance, pb::SearchSort::Date] {
            let wanted = pb::Search {
                user_id: user.to_bytes(),
                query: Some(node.clone()),
                sort: sort.into(),
                ..Default::default()
            };
            let found = self.ask(&self.search, &wanted).unwrap();
            assert_eq!(found, self.ask(&plain, &wanted).unwrap(), "{node:?}");
            assert_eq!(found.total, found.hits.len() as u64);
            let rows = found.hits.into_iter().map(|hit| hit.row.unwrap().subject);
            subjects = Some(rows.collect());
        }
        subjects.unwrap()
    }

    fn checked(&self) -> Vec<String> {
        self.search.inner.check(&self.state.db, SHARD, &Gone::default()).unwrap().differences
    }

    fn is_indexed(&self, user: UserId) -> bool {
        self.search.inner.shards.find(SHARD, user).is_ok_and(|found| found.is_some())
    }

    /// Everything on disk, nothing pending.
    fn commit(&self) {
        self.catch_up();
        self.search.inner.shards.commit(SHARD).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_reading(state: &State, search: &Search, indexer: super::Indexer) -> Following {
    let following = start(state, indexer, &[SHARD]);
    search.reads(&state.db, &following.follow);
    following
}

fn node(node: Node) -> pb::SearchNode {
    pb::SearchNode { node: Some(node) }
}

fn text(text: &str) -> pb::SearchNode {
    node(Node::Text(pb::SearchText { text: text.to_owned(), ..Default::default() }))
}

fn phrase(text: &str) -> pb::SearchNode {
    node(Node::Text(pb::SearchText { text: text.to_owned(), phrase: true, ..Default::default() }))
}

fn prefix(text: &str) -> pb::SearchNode {
    node(Node::Text(pb::SearchText { text: text.to_owned(), prefix: true, ..Default::default() }))
}

fn of(field: pb::SearchField, text: &str) -> pb::SearchNode {
    node(Node::Text(pb::SearchText { field: field.into(), text: text.to_owned(), ..Default::default() }))
}

fn mail(subject: &str, body: &str) -> String {
    format!(
        "From: Ada Lovelace <ada@mail.example>\nTo: Kim <kim@post.example>\nSubject: {subject}\n\
         Message-ID: <{subject}@mail.example>\nList-Id: <Talk.lists.example>\nContent-Type: text/plain; charset=utf-8\n\n{body}\n"
    )
}

const ADA: u16 = 0;
const BOB: u16 = 1;

/// A mailbox of several languages.
fn some_mail(world: &mut World) {
    let (ada, bob) = (user(ADA), user(BOB));
    world.deliver(&[ada], &mail("one", "The Café in der STRASSE, and 회의를 합니다"));
    world.deliver(&[ada, bob], &mail("two", "cafe tower 東京都 with party 🎉"));
    world.deliver(&[bob], &mail("three", "cafe only for the other"));
    world.deliver(&[ada], &mail("four", "a tower of cafes, tower after tower. İstanbul"));
}

fn assert_found(world: &World) {
    let (ada, bob) = (user(ADA), user(BOB));
    for (query, wanted) in [
        (text("cafe"), &["two", "one"][..]),
        (text("straße"), &["one"]),
        (text("회의"), &["one"]),
        (text("회"), &["one"]),
        (text("東京"), &["two"]),
        (text("都"), &["two"]),
        (text("大阪"), &[]),
        (text("🎉"), &["two"]),
        (text("istanbul"), &["four"]),
        (text("tower cafe"), &["two"]),
        (phrase("cafe tower"), &["two"]),
        (phrase("tower cafe"), &[]),
        (phrase("東京都 with"), &["two"]),
        (phrase("東京 with"), &[]),
        (prefix("caf"), &["four", "two", "one"]),
        (prefix("tower caf"), &["four", "two"]),
        (text("ada@mail.example"), &["four", "two", "one"]),
        (of(pb::SearchField::From, "lovelace"), &["four", "two", "one"]),
        (of(pb::SearchField::From, "kim"), &[]),
        (of(pb::SearchField::To, "post.example"), &["four", "two", "one"]),
        (of(pb::SearchField::Subject, "four"), &["four"]),
        (text("--"), &["four", "two", "one"]),
        (node(Node::ListId("talk.lists".to_owned())), &["four", "two", "one"]),
        (node(Node::ListId("lists.talk".to_owned())), &[]),
        (node(Node::MessageId("<two@mail.example>".to_owned())), &["two"]),
        (node(Node::HasAttachments(true)), &[]),
        (node(Node::Larger(10)), &["four", "two", "one"]),
        (node(Node::Smaller(10)), &[]),
        (node(Node::Not(Box::new(text("cafe")))), &["four"]),
        (node(Node::Any(pb::SearchNodes { nodes: vec![text("straße"), text("四"), text("party")] })), &["two", "one"]),
        (node(Node::All(pb::SearchNodes { nodes: vec![text("tower"), text("istanbul")] })), &["four"]),
    ] {
        assert_eq!(world.find(ada, &query), wanted, "{query:?}");
    }
    // The same words of somebody else.
    assert_eq!(world.find(bob, &text("cafe")), ["three", "two"]);
    assert_eq!(world.find(bob, &text("istanbul")), Vec::<String>::new());
}

#[test]
fn a_message_is_found_wherever_it_is_indexed_or_not() {
    let mut world = World::new(2);
    world.run();
    world.end();
    // Nobody follows: from the rows behind the watermark.
    some_mail(&mut world);
    assert!(world.is_indexed(user(ADA)));
    assert_found(&world);
    world.run();
    // Pending.
    assert_found(&world);
    world.commit();
    assert_found(&world);
    assert_eq!(world.checked(), Vec::<String>::new());
    // Some here, some there.
    world.deliver(&[user(ADA)], &mail("five", "one more cafe"));
    assert_eq!(world.find(user(ADA), &text("cafe")), ["five", "two", "one"]);
    world.catch_up();
    assert_eq!(world.find(user(ADA), &text("cafe")), ["five", "two", "one"]);
    world.end();
    world.run();
    assert_eq!(world.find(user(ADA), &text("cafe")), ["five", "two", "one"]);
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn what_changes_is_not_indexed_again() {
    let mut world = World::new(2);
    let ada = user(ADA);
    world.run();
    some_mail(&mut world);
    world.commit();
    let read = node(Node::Keywords(Keywords::SEEN.0));
    assert!(world.find(ada, &read).is_empty());
    let before = world.search.inner.shards.state(SHARD).lock().committed;
    for email in world.emails(ada) {
        world.update(ada, email, pb::MessageUpdate { keywords_add: Keywords::SEEN.0, ..Default::default() });
    }
    assert_eq!(world.find(ada, &read).len(), 3, "at once");
    world.catch_up();
    {
        let state = world.search.inner.shards.state(SHARD);
        let state = state.lock();
        assert!(state.pending.is_empty() && state.committed == before, "nothing is to be written");
    }
    let role = pb::search_folder::Folder::Role(pb::FolderRole::Trash.into());
    let in_trash = node(Node::Folder(pb::SearchFolder { folder: Some(role) }));
    assert!(world.find(ada, &in_trash).is_empty());
    let first = world.emails(ada)[0];
    world.update(ada, first, pb::MessageUpdate { delete: true, ..Default::default() });
    assert_eq!(world.find(ada, &in_trash), ["one"]);
    let without = pb::Search {
        user_id: ada.to_bytes(),
        query: Some(text("cafe")),
        without: vec![pb::FolderRole::Trash.into()],
        ..Default::default()
    };
    assert_eq!(world.ask(&world.search, &without).unwrap().total, 1);
    assert_eq!(world.find(ada, &text("cafe")).len(), 2);
    // And for good.
    world.update(ada, first, pb::MessageUpdate { delete: true, ..Default::default() });
    assert_eq!(world.find(ada, &text("cafe")), ["two"]);
    world.catch_up();
    assert_eq!(world.find(ada, &text("cafe")), ["two"]);
    world.commit();
    assert_eq!(world.find(ada, &text("cafe")), ["two"]);
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn pages_follow_each_other_in_both_orders() {
    let mut world = World::new(1);
    let ada = user(ADA);
    world.run();
    for n in 0..30 {
        let body = format!("word {}", "word other ".repeat(n % 5));
        world.deliver(&[ada], &mail(&format!("m{n}"), &body));
        if n == 15 {
            world.commit();
        }
    }
    for sort in [pb::SearchSort::Date, pb::SearchSort::Relevance] {
        let (mut after, mut seen) = (None, BTreeSet::new());
        loop {
            let wanted = pb::Search {
                user_id: ada.to_bytes(),
                query: Some(text("word")),
                sort: sort.into(),
                limit: 7,
                after,
                ..Default::default()
            };
            let page = world.ask(&world.search, &wanted).unwrap();
            assert_eq!((page.total, page.total_is_bound), (30, false));
            for hit in &page.hits {
                assert!(seen.insert(hit.row.as_ref().unwrap().email_id.clone()), "twice");
                assert!(!hit.marks.is_empty() && hit.snippet.contains("word"));
            }
            let last = page.hits.last().unwrap();
            after =
                Some(pb::SearchPosition { email_id: last.row.as_ref().unwrap().email_id.clone(), score: last.score });
            if !page.more {
                break;
            }
        }
        assert_eq!(seen.len(), 30);
    }
}

#[test]
fn an_index_that_is_deleted_or_damaged_is_built_anew() {
    let mut world = World::new(2);
    world.run();
    some_mail(&mut world);
    world.commit();
    let dir = world.search.inner.shards.dir(SHARD);
    // While the node runs. Who looks for it finds that it is gone,
    std::fs::remove_dir_all(&dir).unwrap();
    assert_found(&world);
    world.commit();
    assert_found(&world);
    assert_eq!(world.checked(), Vec::<String>::new());
    // and so does who writes, while others still have its files open.
    std::fs::remove_dir_all(&dir).unwrap();
    assert_found(&world);
    world.deliver(&[user(BOB)], &mail("none", "nothing"));
    world.catch_up();
    assert!(world.search.inner.shards.commit(SHARD).is_err());
    assert_found(&world);
    world.catch_up();
    assert_found(&world);
    world.commit();
    assert_eq!(world.checked(), Vec::<String>::new());
    // One file after the other, while the node is down.
    let files = |dir: &Path| -> Vec<_> {
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension != "lock")).collect()
    };
    for n in 0..files(&dir).len() {
        world.end();
        let file = files(&dir).into_iter().nth(n);
        let Some(file) = file else { break };
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        world.run();
        assert_found(&world);
        world.commit();
        assert_eq!(world.checked(), Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn an_older_copy_of_the_directory_and_a_kill_lose_nothing() {
    let mut world = World::new(2);
    let ada = user(ADA);
    world.run();
    world.deliver(&[ada], &mail("zero", "the first of all cafes"));
    world.commit();
    world.end();
    let dir = world.search.inner.shards.dir(SHARD);
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&dir, copy.path());
    world.run();
    some_mail(&mut world);
    world.commit();
    let zero = world.emails(ada)[0];
    world.update(ada, zero, pb::MessageUpdate { delete: true, ..Default::default() });
    world.update(ada, zero, pb::MessageUpdate { delete: true, ..Default::default() });
    world.commit();
    world.kill();
    std::fs::remove_dir_all(&dir).unwrap();
    copy_dir(copy.path(), &dir);
    world.run();
    assert_found(&world);
    world.commit();
    assert_eq!(world.checked(), Vec::<String>::new());
    // Pending when it is killed.
    world.deliver(&[ada], &mail("five", "one more cafe"));
    world.catch_up();
    world.kill();
    world.run();
    assert_eq!(world.find(ada, &text("cafe")), ["five", "two", "one"]);
    world.commit();
    assert_eq!(world.checked(), Vec::<String>::new());
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_index_ahead_of_the_rows_waits_for_them() {
    let mut world = World::new(2);
    world.run();
    some_mail(&mut world);
    let mut earlier = State::new();
    earlier.install(SHARD, &world.state);
    world.deliver(&[user(ADA)], &mail("five", "cafe that the crash took"));
    world.commit();
    world.end();
    // The database has lost what it had not flushed.
    world.state = earlier;
    world.search = Search::open(world.dir.path(), true);
    let following = start_reading(&world.state, &world.search, world.search.indexer().unwrap());
    world.following = Some(following);
    assert_found(&world);
    // The log brings it again.
    world.deliver(&[user(ADA)], &mail("five", "cafe that the crash took"));
    world.catch_up();
    assert_eq!(world.find(user(ADA), &text("cafe")), ["five", "two", "one"]);
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_lacks_the_tail_is_indexed_anew() {
    let mut world = World::new(2);
    world.run();
    world.commit();
    some_mail(&mut world);
    let newest = world.state.newest(SHARD);
    world.end();
    world.state.trim(SHARD, newest);
    world.search = Search::open(world.dir.path(), true);
    assert_found(&world);
    world.run();
    assert_found(&world);
    assert!(world.is_indexed(user(ADA)));
    world.commit();
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn what_is_too_much_is_refused() {
    let mut world = World::new(1);
    world.run();
    let mut deep = text("word");
    for _ in 0..40 {
        deep = node(Node::Not(Box::new(deep)));
    }
    let many = node(Node::Any(pb::SearchNodes { nodes: vec![text("word"); 300] }));
    let long = text(&"word ".repeat(2000));
    for query in [deep, many, long] {
        let wanted = pb::Search { user_id: user(ADA).to_bytes(), query: Some(query), ..Default::default() };
        assert!(matches!(world.ask(&world.search, &wanted), Err(SearchError::Malformed(_))));
    }
}

#[test]
fn people_are_suggested() {
    let mut world = World::new(2);
    world.run();
    some_mail(&mut world);
    world.deliver(&[user(ADA)], "From: Änne Müller <anne@shop.example>\nSubject: x\n\ny\n");
    for round in 0..2 {
        for (prefix, wanted) in [
            ("love", "ada@mail.example"),
            ("anne", "anne@shop.example"),
            ("mul", "anne@shop.example"),
            ("shop", "anne@shop.example"),
        ] {
            let ask = Ask::Suggest(pb::Suggest { user_id: user(ADA).to_bytes(), prefix: prefix.to_owned(), limit: 5 });
            let Answer::Suggestions(found) =
                world.search.inner.answer(&world.state.db, SHARD, &ask, &Gone::default()).unwrap()
            else {
                panic!()
            };
            let people: Vec<_> =
                found.suggestions.iter().map(|one| one.person.as_ref().unwrap().email.as_str()).collect();
            assert_eq!(people, [wanted], "{round} {prefix}");
            assert!(found.suggestions[0].heard > 0 && found.suggestions[0].written == 0);
        }
        world.commit();
    }
}

#[test]
fn what_was_deleted_goes_from_the_disk() {
    let mut world = World::new(2);
    let ada = user(ADA);
    world.run();
    some_mail(&mut world);
    world.commit();
    let first = world.emails(ada)[0];
    for _ in 0..2 {
        world.update(ada, first, pb::MessageUpdate { delete: true, ..Default::default() });
    }
    world.catch_up();
    let deleted = || {
        let found = world.search.inner.shards.find(SHARD, ada).unwrap().unwrap();
        let view = found.view.unwrap();
        view.segments.iter().map(|segment| segment.reader.num_deleted_docs()).sum::<u32>()
    };
    world.search.inner.shards.commit(SHARD).unwrap();
    assert_eq!(deleted(), 1);
    world.search.inner.shards.vacuum(SHARD).unwrap();
    assert_eq!(deleted(), 0);
    assert_eq!(world.find(ada, &text("cafe")), ["two"]);
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn a_disk_that_takes_nothing_stops_the_index_alone() {
    let mut world = World::new(2);
    let ada = user(ADA);
    world.run();
    // Where the index would stand is something else.
    let in_the_way = world.dir.path().join("search");
    std::fs::write(&in_the_way, b"").unwrap();
    some_mail(&mut world);
    world.catch_up();
    assert!(world.search.inner.shards.commit(SHARD).is_err());
    assert_found(&world);
    world.deliver(&[ada], &mail("five", "one more cafe"));
    world.catch_up();
    assert!(world.search.inner.shards.commit(SHARD).is_err());
    assert_eq!(world.find(ada, &text("cafe")), ["five", "two", "one"]);
    std::fs::remove_file(&in_the_way).unwrap();
    world.commit();
    assert_eq!(world.find(ada, &text("cafe")), ["five", "two", "one"]);
    assert_eq!(world.checked(), Vec::<String>::new());
    world.end();
    world.run();
    assert_eq!(world.find(ada, &text("cafe")), ["five", "two", "one"]);
}

#[test]
fn an_index_is_built_while_others_are_followed_and_searched() {
    let mut world = World::new(2);
    let ada = user(ADA);
    world.run();
    some_mail(&mut world);
    world.commit();
    assert!(world.search.rebuild(SHARD));
    assert_found(&world);
    wait("it is built", || world.search.inner.shards.state(SHARD).lock().building.is_none() && world.is_indexed(ada));
    world.deliver(&[ada], &mail("five", "one more cafe"));
    world.catch_up();
    assert_eq!(world.find(ada, &text("cafe")), ["five", "two", "one"]);
    world.commit();
    assert_eq!(world.checked(), Vec::<String>::new());
}

#[test]
fn text_and_html_that_differ_are_both_found() {
    let mut world = World::new(1);
    let ada = user(ADA);
    world.run();
    let both = |subject: &str, plain: &str, html: &str| {
        format!(
            "From: a@b.example\nSubject: {subject}\nContent-Type: multipart/alternative; boundary=y\n\n--y\n\
             Content-Type: text/plain\n\n{plain}\n--y\nContent-Type: text/html\n\n<p>{html}</p>\n--y--\n"
        )
    };
    world.deliver(&[ada], &both("same", "red green blue", "red <b>green</b> blue"));
    world.deliver(&[ada], &both("other", "red green blue", "red black blue"));
    for round in 0..2 {
        assert_eq!(world.find(ada, &phrase("red green blue")), ["other", "same"], "{round}");
        assert_eq!(world.find(ada, &phrase("black blue")), ["other"]);
        assert!(world.find(ada, &phrase("red blue")).is_empty(), "what stands between two words is not left out");
        world.commit();
    }
}
