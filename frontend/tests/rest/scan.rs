//! What a node's index answers, in the simplest way: every row of the mailbox is looked at. It knows whole words of the subject, of
//! the names and addresses and of the first words alone: what REST makes of an answer is tested with it, not what is found.

use postrider_api::id::EmailId;
use postrider_api::keyword::Keywords;
use postrider_api::limit::SEARCH_NODES_MAX;
use postrider_api::pb::search_node::Node;
use postrider_api::pb::{self, FolderRole, SearchField, answer, query, search_folder};

/// Asks the shard.
pub(crate) type Ask<'a> = &'a dyn Fn(query::Query) -> answer::Answer;

/// A page of the search.
pub(crate) fn search(search: &pb::Search, ask: Ask<'_>) -> pb::SearchPage {
    let nodes = search.query.as_ref().map_or(0, nodes);
    assert!(nodes <= SEARCH_NODES_MAX, "{nodes} nodes: a storage node refuses it");
    let mailbox = Mailbox::read(search, ask);
    let mut rows: Vec<&pb::ListRow> = mailbox.rows.iter().filter(|row| mailbox.is_hit(search, row)).collect();
    let by_relevance = search.sort() == pb::SearchSort::Relevance;
    let score = |row: &pb::ListRow| if by_relevance { row.subject.len() as u64 } else { 0 };
    rows.sort_by_key(|row| std::cmp::Reverse((score(row), row.email_id.clone())));
    let all = rows.clone();
    if search.threads {
        let mut seen = Vec::new();
        rows.retain(|row| {
            let is_first = !seen.contains(&row.thread_id);
            seen.push(row.thread_id.clone());
            is_first
        });
    }
    let total = rows.len() as u64;
    if let Some(after) = &search.after {
        let score_of_after = if by_relevance { after.score } else { 0 };
        rows.retain(|row| (score(row), &row.email_id) < (score_of_after, &after.email_id));
    }
    let more = rows.len() > search.limit as usize;
    rows.truncate(search.limit as usize);
    let hits = rows.into_iter().map(|row| pb::SearchHit {
        score: if by_relevance { score(row) } else { 0 },
        snippet: row.preview.clone(),
        marks: words_of(search).filter_map(|word| mark(&row.preview, &word)).collect(),
        subject_marks: words_of(search).filter_map(|word| mark(&row.subject, &word)).collect(),
        thread_hits: if search.threads {
            all.iter().filter(|hit| hit.thread_id == row.thread_id).count() as u32
        } else {
            0
        },
        row: Some(row.clone()),
    });
    pb::SearchPage { hits: hits.collect(), total, total_is_bound: false, more }
}

/// Whoever has written.
pub(crate) fn suggest(suggest: &pb::Suggest, ask: Ask<'_>) -> pb::Suggestions {
    let everything = pb::Search { user_id: suggest.user_id.clone(), ..Default::default() };
    let mut suggestions: Vec<pb::Suggestion> = Vec::new();
    for row in Mailbox::read(&everything, ask).rows {
        let Some(person) = row.from.into_iter().next() else { continue };
        if !person.name.to_lowercase().starts_with(&suggest.prefix.to_lowercase()) {
            continue;
        }
        match suggestions.iter_mut().find(|known| known.person.as_ref() == Some(&person)) {
            Some(known) => known.heard += 1,
            None => {
                suggestions.push(pb::Suggestion { person: Some(person), written: 0, heard: 1, last_ms: row.date_ms })
            }
        }
    }
    suggestions.truncate(suggest.limit as usize);
    pb::Suggestions { suggestions }
}

fn nodes(of: &pb::SearchNode) -> usize {
    match &of.node {
        Some(Node::All(list) | Node::Any(list)) => 1 + list.nodes.iter().map(nodes).sum::<usize>(),
        Some(Node::Not(not)) => 1 + nodes(not),
        _ => 1,
    }
}

struct Mailbox {
    rows: Vec<pb::ListRow>,
    folders: Vec<pb::FolderRecord>,
    labels: Vec<pb::LabelRecord>,
}

impl Mailbox {
    fn read(search: &pb::Search, ask: Ask<'_>) -> Self {
        let user_id = search.user_id.clone();
        let folders = match ask(query::Query::ListFolders(pb::ListFolders { user_id: user_id.clone() })) {
            answer::Answer::Folders(folders) => folders.folders,
            other => panic!("folders were answered with {other:?}"),
        };
        let labels = match ask(query::Query::ListLabels(pb::ListLabels { user_id: user_id.clone() })) {
            answer::Answer::Labels(labels) => labels.labels,
            other => panic!("labels were answered with {other:?}"),
        };
        let mut rows = Vec::new();
        for folder in &folders {
            let list = pb::ListMessages {
                user_id: user_id.clone(),
                folder_id: folder.folder_id,
                limit: 200,
                ..Default::default()
            };
            match ask(query::Query::ListMessages(list)) {
                answer::Answer::Messages(page) => rows.extend(page.rows),
                other => panic!("messages were answered with {other:?}"),
            }
        }
        Self { rows, folders, labels }
    }

    fn is_hit(&self, search: &pb::Search, row: &pb::ListRow) -> bool {
        !search.without().any(|role| role == self.role(row))
            && search.query.as_ref().is_none_or(|node| self.matches(node, row))
    }

    fn folder(&self, row: &pb::ListRow) -> &pb::FolderRecord {
        self.folders.iter().find(|folder| folder.folder_id == row.folder_id).expect("a message's folder exists")
    }

    fn role(&self, row: &pb::ListRow) -> FolderRole {
        self.folder(row).role()
    }

    fn matches(&self, node: &pb::SearchNode, row: &pb::ListRow) -> bool {
        match node.node.as_ref().expect("a node is something") {
            Node::All(list) => list.nodes.iter().all(|node| self.matches(node, row)),
            Node::Any(list) => list.nodes.iter().any(|node| self.matches(node, row)),
            Node::Not(not) => !self.matches(not, row),
            Node::Text(text) => words(&text.text).iter().all(|word| has(text.field(), word, text.prefix, row)),
            Node::Folder(folder) => match folder.folder.as_ref().expect("a folder is something") {
                search_folder::Folder::Role(role) => *role == i32::from(self.role(row)),
                search_folder::Folder::Name(name) => self.folder(row).name.eq_ignore_ascii_case(name),
            },
            Node::Label(name) => {
                let label = self.labels.iter().find(|label| label.name.eq_ignore_ascii_case(name));
                label.is_some_and(|label| row.labels.contains(&label.label_id))
            }
            Node::Keywords(bits) => Keywords(row.keywords).has(Keywords(*bits)),
            Node::HasAttachments(wanted) => row.has_attachments == *wanted,
            Node::Larger(size) => row.size > *size,
            Node::Smaller(size) => row.size < *size,
            Node::SinceMs(ms) => arrived(row) >= *ms,
            Node::BeforeMs(ms) => arrived(row) < *ms,
            Node::ListId(_) | Node::MessageId(_) => panic!("rows of lists have no such field"),
        }
    }
}

fn arrived(row: &pb::ListRow) -> i64 {
    EmailId::try_from(&row.email_id).expect("a row has an id").ms()
}

fn has(field: SearchField, word: &str, is_prefix: bool, row: &pb::ListRow) -> bool {
    let people = |people: &[pb::Mailbox]| {
        people.iter().map(|person| format!("{} {}", person.name, person.email)).collect::<Vec<_>>().join(" ")
    };
    let text = match field {
        SearchField::From => people(&row.from),
        SearchField::To => people(&row.to),
        SearchField::Subject => row.subject.clone(),
        SearchField::Body => row.preview.clone(),
        SearchField::Any => format!("{} {} {} {}", people(&row.from), people(&row.to), row.subject, row.preview),
        SearchField::Cc | SearchField::Bcc | SearchField::Filename => panic!("rows of lists have no such field"),
    };
    words(&text).iter().any(|known| known == word || is_prefix && known.starts_with(word))
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

fn words_of(search: &pb::Search) -> impl Iterator<Item = String> {
    fn collect(node: &pb::SearchNode, into: &mut Vec<String>) {
        match node.node.as_ref() {
            Some(Node::All(list) | Node::Any(list)) => list.nodes.iter().for_each(|node| collect(node, into)),
            Some(Node::Text(text)) => into.extend(words(&text.text)),
            _ => {}
        }
    }
    let mut words = Vec::new();
    search.query.iter().for_each(|node| collect(node, &mut words));
    words.into_iter().take(1)
}

fn mark(text: &str, word: &str) -> Option<pb::SearchMark> {
    let offset = text.to_lowercase().find(word)?;
    Some(pb::SearchMark { offset: offset as u32, length: word.len() as u32 })
}
