//! Random searches, made of the words of the mail that they are for.

use postrider_api::id::UserId;
use postrider_api::limit::{SEARCH_NODES_MAX, SEARCH_TEXT_BYTES_MAX};
use postrider_api::pb::search_node::Node;
use postrider_api::pb::{
    self, FolderRole, SearchField, SearchNode, SearchNodes, SearchSort, SearchText, search_folder,
};

use super::random::Random;
use super::scan::LEFT_OUT;

/// Nodes, each word one of its own, and bytes of text.
fn size(of: &SearchNode) -> (usize, usize) {
    let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
    match of.node.as_ref().expect("a node is something") {
        Node::All(list) | Node::Any(list) => list.nodes.iter().map(size).fold((1, 0), add),
        Node::Not(not) => add((1, 0), size(not)),
        Node::Text(text) => (text.text.split_whitespace().count().max(1), text.text.len()),
        Node::Label(name) => (1, name.len()),
        Node::ListId(text) | Node::MessageId(text) => (1, text.len()),
        _ => (1, 0),
    }
}

/// Characters of a text that the vocabulary keeps.
const TEXT_CHARS_MAX: usize = 4_000;

/// Texts as they stand in the mail.
#[derive(Default)]
pub struct Vocabulary {
    texts: Vec<String>,
    /// Of messages.
    pub message_ids: Vec<String>,
    /// When the first and the last message arrived, milliseconds.
    pub times: (i64, i64),
    /// Names of labels and folders, some of which are not there.
    pub names: Vec<String>,
}

impl Vocabulary {
    /// Takes in a text.
    pub fn add(&mut self, text: &str) {
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        if text.chars().any(char::is_alphanumeric) {
            self.texts.push(text);
        }
    }

    /// Words of one text that follow each other, as they stand there.
    fn words(&self, random: &mut Random, count: usize) -> String {
        let words: Vec<&str> = random.of(&self.texts).split_whitespace().collect();
        let first = random.below(words.len());
        words[first..(first + count).min(words.len())].join(" ")
    }

    /// A part of a word, from its beginning on or not.
    fn part(&self, random: &mut Random, from_its_beginning: bool) -> String {
        let word: Vec<char> = self.words(random, 1).chars().collect();
        let first = if from_its_beginning { 0 } else { random.below(word.len()) };
        let count = 1 + random.below((word.len() - first).min(6));
        word[first..first + count].iter().collect()
    }

    fn text(&self, random: &mut Random) -> SearchText {
        let fields = [
            SearchField::Any,
            SearchField::Any,
            SearchField::Any,
            SearchField::Subject,
            SearchField::Body,
            SearchField::From,
            SearchField::To,
            SearchField::Cc,
            SearchField::Bcc,
            SearchField::Filename,
        ];
        let count = 2 + random.below(3);
        let (text, phrase, prefix) = match random.below(10) {
            0..=2 => (self.words(random, 1), random.one_in(2), false),
            3 | 4 => (self.words(random, count), true, false),
            5 => (self.words(random, count), false, false),
            6 | 7 => (self.part(random, true), random.one_in(2), true),
            8 => (self.part(random, false), true, false),
            _ => (format!("{} {}", self.words(random, count), self.part(random, true)), random.one_in(2), true),
        };
        // Nobody types as he reads.
        let text = match random.below(6) {
            0 => text.to_uppercase(),
            1 => text.to_lowercase(),
            _ => text,
        };
        SearchText { field: (*random.of(&fields)).into(), text, phrase, prefix }
    }

    fn condition(&self, random: &mut Random) -> Node {
        let span = (self.times.1 - self.times.0).max(1) as usize;
        let time = self.times.0 + random.below(span) as i64;
        match random.below(12) {
            0 => Node::Keywords(1 << random.below(3)),
            1 => Node::Keywords(0b11),
            2 => Node::HasAttachments(random.one_in(2)),
            3 => Node::Larger(200 + random.below(8_000) as u64),
            4 => Node::Smaller(200 + random.below(8_000) as u64),
            5 => Node::SinceMs(time),
            6 => Node::BeforeMs(time),
            7 => Node::Label(self.name(random)),
            8 => Node::Folder(pb::SearchFolder { folder: Some(search_folder::Folder::Name(self.name(random))) }),
            9 => {
                let roles =
                    [FolderRole::Inbox, FolderRole::Archive, FolderRole::Trash, FolderRole::Junk, FolderRole::Drafts];
                let role = (*random.of(&roles)).into();
                Node::Folder(pb::SearchFolder { folder: Some(search_folder::Folder::Role(role)) })
            }
            10 => Node::ListId(
                (*random.of(&["lists.example.org", "dev.lists", "dev.lists.example.org", "DEV", "none"])).to_owned(),
            ),
            _ => Node::MessageId(random.of(&self.message_ids).clone()),
        }
    }

    fn name(&self, random: &mut Random) -> String {
        let name = random.of(&self.names);
        if random.one_in(2) { name.to_uppercase() } else { name.clone() }
    }

    fn node(&self, random: &mut Random, depth: usize) -> SearchNode {
        let list = |random: &mut Random| {
            let count = if random.one_in(12) { 0 } else { 2 + random.below(3) };
            SearchNodes { nodes: (0..count).map(|_| self.node(random, depth - 1)).collect() }
        };
        let node = match if depth == 0 { random.below(7) } else { random.below(12) } {
            0..=4 => Node::Text(self.text(random)),
            5 | 6 => self.condition(random),
            7 | 8 => Node::All(list(random)),
            9 | 10 => Node::Any(list(random)),
            _ => Node::Not(Box::new(self.node(random, depth - 1))),
        };
        SearchNode { node: Some(node) }
    }

    /// A condition that a node takes.
    fn query(&self, random: &mut Random) -> SearchNode {
        loop {
            let depth = random.below(4);
            let node = self.node(random, depth);
            let (nodes, bytes) = size(&node);
            if nodes <= SEARCH_NODES_MAX && bytes <= SEARCH_TEXT_BYTES_MAX {
                return node;
            }
        }
    }

    /// One search, from its first page on.
    pub fn search(&self, random: &mut Random, user: UserId) -> pb::Search {
        let by_relevance = random.one_in(4);
        let without: &[FolderRole] = match random.below(4) {
            0 => &[],
            1 => &LEFT_OUT[..1],
            _ => &LEFT_OUT,
        };
        pb::Search {
            user_id: user.to_bytes(),
            query: (!random.one_in(40)).then(|| self.query(random)),
            sort: if by_relevance { SearchSort::Relevance } else { SearchSort::Date }.into(),
            limit: *random.of(&[200, 200, 200, 1, 3, 50]),
            after: None,
            threads: random.one_in(6),
            without: without.iter().map(|role| i32::from(*role)).collect(),
        }
    }
}
