//! A query as the index is asked it: words cut into terms, names of folders and labels looked up, costs bounded.

use postrider_api::id::{MessageIdHash, UserId};
use postrider_api::limit::{SEARCH_DEPTH_MAX, SEARCH_NODES_MAX, SEARCH_TEXT_BYTES_MAX};
use postrider_api::pb::{self, search_folder, search_node};
use postrider_mime::terms::{self, TermKind};
use postrider_shard::key::{KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use prost::Message;

use super::extract::{head, hex};
use super::fault::SearchError;
use super::words::field;

/// A condition on the messages of one mailbox.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plan {
    All(Vec<Plan>),
    Any(Vec<Plan>),
    Not(Box<Plan>),
    /// The place of an [`Atom`].
    Atom(usize),
    /// In one of these folders.
    Folders(Vec<u32>),
    /// With this label of the user's own; `None`: there is none of the name.
    Label(Option<u32>),
    /// All of these keywords.
    Keywords(u32),
    Size(SizeBound),
    SinceMs(i64),
    BeforeMs(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeBound {
    Larger(u64),
    Smaller(u64),
}

impl SizeBound {
    pub(super) fn holds(self, size: u64) -> bool {
        match self {
            Self::Larger(bound) => size > bound,
            Self::Smaller(bound) => size < bound,
        }
    }
}

/// Terms next to each other in one of some fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Atom {
    pub(super) fields: Vec<u8>,
    /// At least one.
    pub(super) elements: Vec<Element>,
    /// Whether it counts for relevance: what must not be there does not.
    pub(super) scores: bool,
}

/// What stands at one place of an [`Atom`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) text: String,
    /// Terms that begin so.
    pub(super) is_prefix: bool,
}

impl Element {
    pub(super) fn matches(&self, term: &str) -> bool {
        if self.is_prefix { term.starts_with(&self.text) } else { term == self.text }
    }
}

/// A query ready to be asked.
pub(super) struct Query {
    pub(super) plan: Plan,
    pub(super) atoms: Vec<Atom>,
}

/// Makes a plan of what was asked.
pub(super) fn plan(rows: &impl Reader, user: UserId, node: Option<&pb::SearchNode>) -> Result<Query, SearchError> {
    let mut planner = Planner { rows, user, atoms: Vec::new(), nodes: 0, bytes: 0, folders: None };
    let plan = match node {
        Some(node) => planner.node(node, 0, true)?,
        None => Plan::All(Vec::new()),
    };
    Ok(Query { plan, atoms: planner.atoms })
}

/// The folders with one of these roles.
pub(super) fn folders_with(
    rows: &impl Reader,
    user: UserId,
    roles: &[pb::FolderRole],
) -> Result<Vec<u32>, SearchError> {
    if roles.is_empty() {
        return Ok(Vec::new());
    }
    let folders = read_folders(rows, user)?;
    Ok(folders.iter().filter(|folder| roles.contains(&folder.role())).map(|folder| folder.folder_id).collect())
}

fn read_folders(rows: &impl Reader, user: UserId) -> Result<Vec<pb::FolderRecord>, SearchError> {
    records(rows, Table::Folders, user)
}

fn records<M: Message + Default>(rows: &impl Reader, table: Table, user: UserId) -> Result<Vec<M>, SearchError> {
    let mut records = Vec::new();
    for found in rows.scan(&KeyRange::user(table, user), Direction::Forward) {
        let (key, value) = found?;
        let record = M::decode(value).map_err(|error| postrider_shard::Broken::Corrupt {
            table: table.name(),
            key: hex(key.as_ref()),
            reason: error.to_string(),
        })?;
        records.push(record);
    }
    Ok(records)
}

struct Planner<'p, R> {
    rows: &'p R,
    user: UserId,
    atoms: Vec<Atom>,
    nodes: usize,
    bytes: usize,
    folders: Option<Vec<pb::FolderRecord>>,
}

impl<R: Reader> Planner<'_, R> {
    fn node(&mut self, node: &pb::SearchNode, depth: usize, scores: bool) -> Result<Plan, SearchError> {
        use search_node::Node;
        self.nodes += 1;
        if depth > SEARCH_DEPTH_MAX {
            return Err(SearchError::Malformed(format!("query: nests deeper than {SEARCH_DEPTH_MAX}")));
        }
        self.check_nodes()?;
        let node = node
            .node
            .as_ref()
            .ok_or_else(|| SearchError::Malformed("query: has a condition that this build does not know".to_owned()))?;
        Ok(match node {
            Node::All(all) => Plan::All(self.nodes(all, depth, scores)?),
            Node::Any(any) => Plan::Any(self.nodes(any, depth, scores)?),
            Node::Not(not) => Plan::Not(Box::new(self.node(not, depth + 1, false)?)),
            Node::Text(text) => self.text(text, scores)?,
            Node::Folder(folder) => self.folder(folder)?,
            Node::Label(name) => self.label(name)?,
            Node::Keywords(keywords) => Plan::Keywords(*keywords),
            Node::HasAttachments(true) => self.exact(field::ATTACHMENTS, ""),
            Node::HasAttachments(false) => Plan::Not(Box::new(self.exact(field::ATTACHMENTS, ""))),
            Node::Larger(bytes) => Plan::Size(SizeBound::Larger(*bytes)),
            Node::Smaller(bytes) => Plan::Size(SizeBound::Smaller(*bytes)),
            Node::SinceMs(ms) => Plan::SinceMs(*ms),
            Node::BeforeMs(ms) => Plan::BeforeMs(*ms),
            Node::ListId(list) => self.list(list)?,
            Node::MessageId(id) => {
                self.charge(id)?;
                let id = id.trim().trim_start_matches('<').trim_end_matches('>');
                self.exact(field::MESSAGE_ID, &hex(&MessageIdHash::of(id.as_bytes()).0))
            }
        })
    }

    fn check_nodes(&self) -> Result<(), SearchError> {
        if self.nodes > SEARCH_NODES_MAX {
            return Err(SearchError::Malformed(format!(
                "query: has more than {SEARCH_NODES_MAX} words and conditions"
            )));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &pb::SearchNodes, depth: usize, scores: bool) -> Result<Vec<Plan>, SearchError> {
        nodes.nodes.iter().map(|node| self.node(node, depth + 1, scores)).collect()
    }

    fn charge(&mut self, text: &str) -> Result<(), SearchError> {
        self.bytes += text.len();
        if self.bytes > SEARCH_TEXT_BYTES_MAX {
            return Err(SearchError::Malformed(format!("query: has more than {SEARCH_TEXT_BYTES_MAX} bytes of text")));
        }
        Ok(())
    }

    fn atom(&mut self, atom: Atom) -> Plan {
        // A word that stands there twice is looked for once.
        let at = self.atoms.iter().position(|known| *known == atom).unwrap_or(self.atoms.len());
        if at == self.atoms.len() {
            self.atoms.push(atom);
        }
        Plan::Atom(at)
    }

    fn exact(&mut self, field: u8, term: &str) -> Plan {
        let element = Element { text: term.to_owned(), is_prefix: false };
        self.atom(Atom { fields: vec![field], elements: vec![element], scores: false })
    }

    /// Words that are written together are looked for next to each other: 東京都 is its pairs in their order, `foo.bar` two words in
    /// theirs.
    fn text(&mut self, text: &pb::SearchText, scores: bool) -> Result<Plan, SearchError> {
        self.charge(&text.text)?;
        let fields = fields(text.field());
        let groups: Vec<Vec<Element>> = match text.phrase {
            true => vec![elements(&text.text)],
            false => text.text.split_whitespace().map(elements).collect(),
        };
        let mut groups: Vec<Vec<Element>> = groups.into_iter().filter(|group| !group.is_empty()).collect();
        if text.prefix
            && let Some(last) = groups.last_mut().and_then(|group| group.last_mut())
        {
            last.is_prefix = true;
        }
        self.nodes += groups.len().saturating_sub(1);
        self.check_nodes()?;
        let atoms = groups.into_iter().map(|elements| self.atom(Atom { fields: fields.clone(), elements, scores }));
        let mut atoms: Vec<Plan> = atoms.collect();
        Ok(if atoms.len() == 1 { atoms.remove(0) } else { Plan::All(atoms) })
    }

    fn list(&mut self, list: &str) -> Result<Plan, SearchError> {
        self.charge(list)?;
        let list = list.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
        let labels = list.split('.').filter(|label| !label.is_empty());
        let elements: Vec<Element> = labels
            .map(|label| Element { text: head(label, terms::TERM_BYTES_MAX).to_owned(), is_prefix: false })
            .collect();
        Ok(match elements.is_empty() {
            true => Plan::All(Vec::new()),
            false => self.atom(Atom { fields: vec![field::LIST], elements, scores: false }),
        })
    }

    fn folder(&mut self, folder: &pb::SearchFolder) -> Result<Plan, SearchError> {
        if self.folders.is_none() {
            self.folders = Some(read_folders(self.rows, self.user)?);
        }
        let folders = self.folders.as_deref().unwrap_or_default();
        let is_it = |known: &&pb::FolderRecord| match &folder.folder {
            Some(search_folder::Folder::Role(role)) => known.role == *role,
            Some(search_folder::Folder::Name(name)) => is_same(&known.name, name),
            None => false,
        };
        Ok(Plan::Folders(folders.iter().filter(is_it).map(|folder| folder.folder_id).collect()))
    }

    fn label(&mut self, name: &str) -> Result<Plan, SearchError> {
        self.charge(name)?;
        let labels: Vec<pb::LabelRecord> = records(self.rows, Table::Labels, self.user)?;
        Ok(Plan::Label(labels.iter().find(|label| is_same(&label.name, name)).map(|label| label.label_id)))
    }
}

fn is_same(a: &str, b: &str) -> bool {
    a.trim().to_lowercase() == b.trim().to_lowercase()
}

fn fields(field: pb::SearchField) -> Vec<u8> {
    use pb::SearchField as Field;
    match field {
        Field::Any => {
            vec![field::FROM, field::TO, field::CC, field::BCC, field::SUBJECT, field::BODY, field::FILENAME]
        }
        Field::From => vec![field::FROM],
        Field::To => vec![field::TO, field::CC, field::BCC],
        Field::Cc => vec![field::CC],
        Field::Bcc => vec![field::BCC],
        Field::Subject => vec![field::SUBJECT],
        Field::Body => vec![field::BODY],
        Field::Filename => vec![field::FILENAME],
    }
}

/// The terms of a text as a query has them. The last character of a run is in the pair before it already, and is asked for only where
/// something follows: the run has to end there. A lone one is the beginning of the pairs that it stands in.
fn elements(text: &str) -> Vec<Element> {
    let mut cut = Vec::new();
    terms::cut(text, |term| cut.push((term.text.to_owned(), term.kind)));
    let mut is_lone = false;
    if let [.., last] = &cut[..]
        && last.1 == TermKind::Last
    {
        is_lone = !matches!(&cut[..], [.., before, _] if before.1 == TermKind::Pair);
        if !is_lone {
            cut.pop();
        }
    }
    let mut elements: Vec<Element> = cut.into_iter().map(|(text, _)| Element { text, is_prefix: false }).collect();
    if let Some(last) = elements.last_mut() {
        last.is_prefix = is_lone;
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let star = |element: Element| format!("{}{}", element.text, if element.is_prefix { "*" } else { "" });
        elements(text).into_iter().map(star).collect()
    }

    #[test]
    fn terms_of_a_query() {
        assert_eq!(shown("東京都"), ["東京", "京都"]);
        assert_eq!(shown("京"), ["京*"]);
        assert_eq!(shown("東京 tower"), ["東京", "京", "tower"]);
        assert_eq!(shown("foo.Bar"), ["foo", "bar"]);
        assert!(shown("--").is_empty());
    }
}
