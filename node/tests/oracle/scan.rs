//! What a search finds, by looking at every message of the mailbox: the simplest thing that could be right, slow and by itself.
//!
//! It shares with the index what a text of a message is (`postrider_mime::searchable`) and where a text is cut (`terms::cut`), because these *are* the
//! definition of what is found, and have tests of their own. It shares nothing of how an index keeps terms, of how a query is planned, nor of how
//! what was not indexed yet is joined. In particular a run of Hangul, Han or Kana is compared here character by character, where the index has
//! pairs.

use std::collections::BTreeMap;

use bytes::Bytes;
use postrider_api::id::{EmailId, MessageIdHash};
use postrider_api::pb::search_node::Node;
use postrider_api::pb::{self, FolderRole, SearchField, search_folder};
use postrider_mime::terms::{self, TermKind};
use postrider_mime::{Searchable, searchable};

/// A piece of a text that is compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    /// A word or a symbol, folded.
    Word(String),
    /// A character of a run that is written without spaces.
    Char(String),
    /// Where such a run ends.
    End,
}

/// The texts of one field, each by itself: nothing stands next to each other across two of them.
type Texts = Vec<Vec<Unit>>;

/// What never changes of a message.
pub struct Content {
    fields: BTreeMap<Field, Texts>,
    list: Vec<String>,
    message_id: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    From,
    To,
    Cc,
    Bcc,
    Subject,
    Body,
    Filename,
}

/// One message as it is now.
pub struct Message {
    /// Its line of a list.
    pub row: pb::ListRow,
    /// What never changes of it.
    pub content: std::rc::Rc<Content>,
}

/// A mailbox as it is now.
#[derive(Default)]
pub struct Mailbox {
    /// In no order.
    pub messages: Vec<Message>,
    /// All of them.
    pub folders: Vec<pb::FolderRecord>,
    /// All of them.
    pub labels: Vec<pb::LabelRecord>,
}

fn units(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    terms::cut(text, |term| match term.kind {
        TermKind::Whole => units.push(Unit::Word(term.text.to_owned())),
        TermKind::Pair => units.push(Unit::Char(term.text.chars().take(1).collect())),
        TermKind::Last => units.extend([Unit::Char(term.text.to_owned()), Unit::End]),
    });
    units
}

/// A phrase: a run at its end may go on in the mail.
fn wanted(text: &str) -> Vec<Unit> {
    let mut units = units(text);
    units.pop_if(|last| *last == Unit::End);
    units
}

/// Whether the units stand in the text next to each other.
fn stands(text: &[Unit], wanted: &[Unit], is_prefix: bool) -> bool {
    text.windows(wanted.len()).any(|window| {
        let last = wanted.len() - 1;
        window.iter().zip(wanted).enumerate().all(|(n, (found, wanted))| match (found, wanted) {
            (Unit::Word(found), Unit::Word(wanted)) if is_prefix && n == last => found.starts_with(wanted.as_str()),
            (found, wanted) => found == wanted,
        })
    })
}

impl Content {
    /// Of a message's rows.
    pub fn of(record: &pb::EmailRecord, stored: &pb::StoredBody) -> Self {
        let Searchable { bodies, alternatives, attachments, list_id } =
            searchable(record, stored).expect("a message is whole");
        let mut fields: BTreeMap<Field, Texts> = BTreeMap::new();
        let mut add = |field, text: &str| fields.entry(field).or_default().push(units(text));
        let envelope = record.envelope.clone().unwrap_or_default();
        add(Field::Subject, &envelope.subject);
        let people = [
            (Field::From, envelope.from),
            (Field::To, envelope.to),
            (Field::Cc, envelope.cc),
            (Field::Bcc, envelope.bcc),
        ];
        for (field, mailboxes) in people {
            for mailbox in mailboxes {
                add(field, &mailbox.name);
                add(field, &mailbox.email);
            }
        }
        record.parts.iter().for_each(|part| add(Field::Filename, &part.filename));
        bodies.iter().chain(&alternatives).chain(&attachments).for_each(|text| add(Field::Body, text));
        let list = list_id.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        Self { fields, list, message_id: record.message_id_hash.clone() }
    }

    fn texts(&self, of: SearchField) -> impl Iterator<Item = &Vec<Unit>> {
        let fields: &[Field] = match of {
            SearchField::Any => {
                &[Field::From, Field::To, Field::Cc, Field::Bcc, Field::Subject, Field::Body, Field::Filename]
            }
            SearchField::From => &[Field::From],
            SearchField::To => &[Field::To, Field::Cc, Field::Bcc],
            SearchField::Cc => &[Field::Cc],
            SearchField::Bcc => &[Field::Bcc],
            SearchField::Subject => &[Field::Subject],
            SearchField::Body => &[Field::Body],
            SearchField::Filename => &[Field::Filename],
        };
        fields.iter().filter_map(|field| self.fields.get(field)).flatten()
    }

    fn has(&self, of: SearchField, wanted: &[Unit], is_prefix: bool) -> bool {
        wanted.is_empty() || self.texts(of).any(|text| stands(text, wanted, is_prefix))
    }
}

impl Mailbox {
    /// Every message that matches, newest first.
    pub fn matching(&self, search: &pb::Search) -> Vec<&Message> {
        let is_hit = |message: &&Message| {
            !search.without().any(|role| role == self.folder(message).role())
                && search.query.as_ref().is_none_or(|node| self.matches(node, message))
        };
        let mut hits: Vec<&Message> = self.messages.iter().filter(is_hit).collect();
        hits.sort_by(|a, b| b.row.email_id.cmp(&a.row.email_id));
        hits
    }

    fn folder(&self, message: &Message) -> &pb::FolderRecord {
        let folder = self.folders.iter().find(|folder| folder.folder_id == message.row.folder_id);
        folder.expect("a message's folder exists")
    }

    fn matches(&self, node: &pb::SearchNode, message: &Message) -> bool {
        let (row, content) = (&message.row, &message.content);
        match node.node.as_ref().expect("a node is something") {
            Node::All(list) => list.nodes.iter().all(|node| self.matches(node, message)),
            Node::Any(list) => list.nodes.iter().any(|node| self.matches(node, message)),
            Node::Not(not) => !self.matches(not, message),
            Node::Text(text) if text.phrase => content.has(text.field(), &wanted(&text.text), text.prefix),
            Node::Text(text) => {
                // What is written together stands together; the last that has a term may go on.
                let words: Vec<Vec<Unit>> =
                    text.text.split_whitespace().map(wanted).filter(|word| !word.is_empty()).collect();
                let last = words.len().wrapping_sub(1);
                let is_there =
                    |(n, word): (usize, &Vec<Unit>)| content.has(text.field(), word, text.prefix && n == last);
                words.iter().enumerate().all(is_there)
            }
            Node::Folder(folder) => {
                let is_in = self.folder(message);
                match folder.folder.as_ref().expect("a folder is something") {
                    search_folder::Folder::Role(role) => i32::from(is_in.role()) == *role,
                    search_folder::Folder::Name(name) => is_in.name.to_lowercase() == name.to_lowercase(),
                }
            }
            Node::Label(name) => {
                let label = self.labels.iter().find(|label| label.name.to_lowercase() == name.to_lowercase());
                label.is_some_and(|label| row.labels.contains(&label.label_id))
            }
            Node::Keywords(bits) => row.keywords & bits == *bits,
            Node::HasAttachments(wanted) => row.has_attachments == *wanted,
            Node::Larger(size) => row.size > *size,
            Node::Smaller(size) => row.size < *size,
            Node::SinceMs(ms) => arrived(row) >= *ms,
            Node::BeforeMs(ms) => arrived(row) < *ms,
            Node::ListId(list) => {
                let wanted: Vec<String> = list.to_lowercase().split('.').map(str::to_owned).collect();
                content.list.windows(wanted.len()).any(|window| window == wanted)
            }
            Node::MessageId(id) => {
                let id = id.trim_start_matches('<').trim_end_matches('>');
                content.message_id == MessageIdHash::of(id.as_bytes()).to_bytes()
            }
        }
    }
}

fn arrived(row: &pb::ListRow) -> i64 {
    EmailId::try_from(&row.email_id).expect("a row has an id").ms()
}

/// The roles that are left out unless they are named.
pub const LEFT_OUT: [FolderRole; 2] = [FolderRole::Junk, FolderRole::Trash];

#[test]
fn a_text_is_compared_piece_by_piece() {
    let has = |text: &str, phrase: &str, is_prefix: bool| stands(&units(text), &wanted(phrase), is_prefix);
    assert!(has("내일 회의를 합니다", "회의", false) && has("내일 회의를 합니다", "의", false));
    assert!(!has("회 의", "회의", false) && !has("회의", "의회", false));
    assert!(has("東京都と大阪", "東京", false) && has("東京都", "京都", false) && !has("東京 都", "東京都", false));
    assert!(has("Das Café an der STRASSE", "cafe an", false) && !has("Das Café an der STRASSE", "cafe der", false));
    assert!(has("Straße", "stras", true) && !has("Straße", "stras", false));
    // A run that something follows has to end there.
    assert!(has("東京 tower", "東京 tower", false) && !has("東京都 tower", "東京 tower", false));
}
