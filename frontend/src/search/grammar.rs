//! The query language.
//!
//! ```text
//! query     = *any                               ; all of them match
//! any       = term *("OR" term)                  ; OR joins its two neighbours: a b OR c is a (b OR c), as in Gmail
//! term      = ["-"] (group / phrase / condition / word)
//! group     = "(" query [")"]
//! phrase    = quote *any-character [quote]
//! condition = operator ":" (group / phrase / word)
//! ```
//!
//! A word is what stands between spaces, quotes and parentheses. Its parts (`ada@example.com`, `well-known`) match next to each other. Operators
//! are written in whatever case, `OR` and `AND` in capitals alone; `AND` says what standing side by side says. An operator before a group is
//! that of each word in it: `from:(ada OR grace)`.
//!
//! What is unfinished does what was meant: a quote or parenthesis that nobody closed ends with the text; a parenthesis that nobody opened, an `OR`
//! without a neighbour, a minus, an operator or parentheses around nothing, and words of ASCII punctuation alone are not there. A word before a colon that is
//! no operator is text. What is plainly wrong, `is:purple`, is an error with its place.

use std::ops::Range;

use postrider_api::keyword::Keywords;
use postrider_api::limit::{SEARCH_DEPTH_MAX, SEARCH_NODES_MAX, SEARCH_TEXT_BYTES_MAX};
use postrider_api::pb::search_node::Node;
use postrider_api::pb::{FolderRole, SearchField, SearchFolder, SearchNode, SearchText, search_folder};

use crate::search::asked::{Asked, BESIDE_NODES_MAX, all, any, depth, node, nodes};
use crate::search::value;

/// How a text is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Somebody is still typing: the last word may go on, and an operator's last value that is not one yet is no error.
    pub as_you_type: bool,
    /// What ages count from, milliseconds.
    pub now_ms: i64,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}")]
pub struct SyntaxError {
    /// Bytes of the text, between characters.
    pub at: Range<usize>,
    /// What is wrong there.
    pub wrong: Wrong,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// An operator has a value that it does not take.
    #[error("{operator}: takes {expected}")]
    Value {
        /// As the table writes it.
        operator: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// Nested too deep.
    #[error("a search nests at most {SEARCH_DEPTH_MAX} deep")]
    TooDeep,
    /// Too many conditions.
    #[error("a search has at most {NODES_MAX} words, phrases and conditions, each group, minus and OR counted")]
    TooMany,
    /// Too long.
    #[error("a search has at most {SEARCH_TEXT_BYTES_MAX} bytes")]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Text(SearchField),
    Has,
    Is,
    In,
    Label,
    Before,
    After,
    OlderThan,
    NewerThan,
    Larger,
    Smaller,
    List,
    MessageId,
}

const OPERATORS: [(&str, Operator); 18] = [
    ("from", Operator::Text(SearchField::From)),
    ("to", Operator::Text(SearchField::To)),
    ("cc", Operator::Text(SearchField::Cc)),
    ("bcc", Operator::Text(SearchField::Bcc)),
    ("subject", Operator::Text(SearchField::Subject)),
    ("filename", Operator::Text(SearchField::Filename)),
    ("has", Operator::Has),
    ("is", Operator::Is),
    ("in", Operator::In),
    ("label", Operator::Label),
    ("before", Operator::Before),
    ("after", Operator::After),
    ("older_than", Operator::OlderThan),
    ("newer_than", Operator::NewerThan),
    ("larger", Operator::Larger),
    ("smaller", Operator::Smaller),
    ("list", Operator::List),
    ("rfc822msgid", Operator::MessageId),
];

/// Folders by what they are for, whatever they are called.
const ROLES: [(&str, FolderRole); 8] = [
    ("inbox", FolderRole::Inbox),
    ("drafts", FolderRole::Drafts),
    ("draft", FolderRole::Drafts),
    ("sent", FolderRole::Sent),
    ("archive", FolderRole::Archive),
    ("junk", FolderRole::Junk),
    ("spam", FolderRole::Junk),
    ("trash", FolderRole::Trash),
];
/// Every folder, Junk and Trash as well.
const ANYWHERE: &str = "anywhere";
/// Conditions of a text, and what joins or denies them.
const NODES_MAX: usize = SEARCH_NODES_MAX - BESIDE_NODES_MAX;
/// Where nothing is looked for unless it is named.
const LEFT_OUT: [FolderRole; 2] = [FolderRole::Junk, FolderRole::Trash];

/// Straight quotes, and those that a telephone makes of them.
const QUOTES: [char; 4] = ['"', '\u{201c}', '\u{201d}', '\u{201e}'];
/// Also as East Asian keyboards write it.
const COLONS: [char; 2] = [':', '\u{ff1a}'];

impl Operator {
    fn named(name: &str) -> Option<(&'static str, Self)> {
        OPERATORS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// What its value is, where not every one is.
    fn expected(self) -> &'static str {
        match self {
            Operator::Has => "attachment",
            Operator::Is => "read, unread, flagged, starred or answered",
            Operator::Before | Operator::After => value::MOMENT,
            Operator::OlderThan | Operator::NewerThan => value::AGE,
            Operator::Larger | Operator::Smaller => value::SIZE,
            Operator::Text(_) | Operator::In | Operator::Label | Operator::List | Operator::MessageId => "text",
        }
    }
}

/// What `text` asks for.
///
/// # Errors
/// See [`Wrong`].
pub fn parse(text: &str, reading: Reading) -> Result<Asked, SyntaxError> {
    let mut parser = Parser::new(text, reading)?;
    let node = parser.query(Around::default())?;
    parser.asked(node)
}

/// What the operator `name` asks for with all of `text` as its value, as a parameter has it.
///
/// # Errors
/// See [`Wrong`].
///
/// # Panics
/// When there is no such operator.
pub fn parse_operator(name: &str, text: &str, reading: Reading) -> Result<Asked, SyntaxError> {
    let operator = Operator::named(name).expect("the caller names an operator of the table");
    let mut parser = Parser::new(text, Reading { as_you_type: false, ..reading })?;
    let value = Value { text, at: 0..text.len(), is_phrase: false, is_open: false };
    let node = parser.condition(operator, value)?;
    parser.asked(node)
}

/// What a term stands in.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    /// Of each word of the group.
    operator: Option<(&'static str, Operator)>,
    is_negated: bool,
    /// Parentheses.
    depth: usize,
}

/// What is compared.
struct Value<'t> {
    text: &'t str,
    at: Range<usize>,
    is_phrase: bool,
    /// It may go on.
    is_open: bool,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    reading: Reading,
    conditions: usize,
    /// The deepest parenthesis, and where it was opened.
    deepest: (usize, usize),
    named: Vec<FolderRole>,
    moves_with_time: bool,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, reading: Reading) -> Result<Self, SyntaxError> {
        if text.len() > SEARCH_TEXT_BYTES_MAX {
            let from = text.floor_char_boundary(SEARCH_TEXT_BYTES_MAX);
            return Err(SyntaxError { at: from..text.len(), wrong: Wrong::TooLong });
        }
        Ok(Self { text, at: 0, reading, conditions: 0, deepest: (0, 0), named: Vec::new(), moves_with_time: false })
    }

    fn asked(self, node: Option<SearchNode>) -> Result<Asked, SyntaxError> {
        if node.as_ref().is_some_and(|node| depth(node) > SEARCH_DEPTH_MAX) {
            return Err(SyntaxError { at: self.deepest.1..self.text.len(), wrong: Wrong::TooDeep });
        }
        if node.as_ref().is_some_and(|node| nodes(node) > NODES_MAX) {
            return Err(SyntaxError { at: 0..self.text.len(), wrong: Wrong::TooMany });
        }
        let without = LEFT_OUT.into_iter().filter(|role| !self.named.contains(role)).collect();
        Ok(Asked { node, without, moves_with_time: self.moves_with_time })
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Up to the end of the text, or of the group around.
    fn query(&mut self, around: Around) -> Result<Option<SearchNode>, SyntaxError> {
        let mut alternatives: Vec<Vec<SearchNode>> = Vec::new();
        let mut is_joined = false;
        loop {
            self.skip_space();
            match self.peek() {
                None => break,
                Some(')') if around.depth > 0 => break,
                Some(')') => self.at += 1,
                Some(_) if self.takes("OR") => is_joined = true,
                Some(_) if self.takes("AND") => {}
                Some(_) => {
                    let Some(term) = self.term(around)? else { continue };
                    match alternatives.last_mut() {
                        Some(last) if is_joined => last.push(term),
                        _ => alternatives.push(vec![term]),
                    }
                    is_joined = false;
                }
            }
        }
        Ok(all(alternatives.into_iter().filter_map(any).collect()))
    }

    /// Passes over `word` where it stands alone.
    fn takes(&mut self, word: &str) -> bool {
        let is_there = self.rest().strip_prefix(word).is_some_and(|rest| rest.chars().next().is_none_or(ends_word));
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn term(&mut self, around: Around) -> Result<Option<SearchNode>, SyntaxError> {
        let is_not = self.rest().starts_with('-') && !self.rest().starts_with("--");
        let around = Around { is_negated: around.is_negated || is_not, ..around };
        if is_not {
            self.at += 1;
        }
        let term = match self.peek() {
            Some('(') => self.group(around)?,
            Some(quote) if QUOTES.contains(&quote) => {
                let phrase = self.phrase(around);
                self.text_or(around, phrase)?
            }
            _ => self.word_or_condition(around)?,
        };
        Ok(if is_not { term.map(|term| node(Node::Not(Box::new(term)))) } else { term })
    }

    fn group(&mut self, around: Around) -> Result<Option<SearchNode>, SyntaxError> {
        let depth = around.depth + 1;
        if depth > SEARCH_DEPTH_MAX {
            return Err(SyntaxError { at: self.at..self.at + 1, wrong: Wrong::TooDeep });
        }
        if depth > self.deepest.0 {
            self.deepest = (depth, self.at);
        }
        self.at += 1;
        let inner = self.query(Around { depth, ..around })?;
        if self.peek() == Some(')') {
            self.at += 1;
        }
        Ok(inner)
    }

    fn phrase(&mut self, around: Around) -> Value<'t> {
        self.at += self.peek().map_or(0, char::len_utf8);
        let rest = self.rest();
        let closing = rest.find(QUOTES);
        let text = &rest[..closing.unwrap_or(rest.len())];
        let at = self.at..self.at + text.len();
        self.at = at.end;
        if closing.is_some() {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
        let is_open = closing.is_none() && self.may_go_on(text, around);
        Value { text, at, is_phrase: true, is_open }
    }

    fn word(&mut self, around: Around) -> Value<'t> {
        let rest = self.rest();
        let text = &rest[..rest.find(ends_word).unwrap_or(rest.len())];
        let at = self.at..self.at + text.len();
        self.at = at.end;
        Value { text, at, is_phrase: false, is_open: self.may_go_on(text, around) }
    }

    /// Whether `text`, which ends here, is what somebody types just now. What is excluded does not grow while he does.
    fn may_go_on(&self, text: &str, around: Around) -> bool {
        let is_last = self.at == self.text.len() && !text.ends_with(char::is_whitespace);
        is_last && self.reading.as_you_type && !around.is_negated
    }

    fn word_or_condition(&mut self, around: Around) -> Result<Option<SearchNode>, SyntaxError> {
        let word = self.word(around);
        let Some((operator, colon)) = operator_of(word.text) else { return self.text_or(around, word) };
        let value_at = word.at.start + colon;
        if value_at < word.at.end {
            let text = &word.text[colon..];
            return self.condition(operator, Value { text, at: value_at..word.at.end, ..word });
        }
        let around = Around { operator: Some(operator), ..around };
        self.skip_space();
        match self.peek() {
            Some('(') => self.group(around),
            Some(quote) if QUOTES.contains(&quote) => {
                let phrase = self.phrase(around);
                self.condition(operator, phrase)
            }
            Some(next) if next != '-' && next != ')' => {
                let value = self.word(around);
                if matches!(value.text, "OR" | "AND") || operator_of(value.text).is_some() {
                    // What follows is something of its own.
                    self.at = value.at.start;
                    return Ok(None);
                }
                self.condition(operator, value)
            }
            _ => Ok(None),
        }
    }

    /// The condition of the group's operator; without one, text anywhere.
    fn text_or(&mut self, around: Around, value: Value<'_>) -> Result<Option<SearchNode>, SyntaxError> {
        self.condition(around.operator.unwrap_or(("", Operator::Text(SearchField::Any))), value)
    }

    fn condition(
        &mut self,
        (name, operator): (&'static str, Operator),
        value: Value<'_>,
    ) -> Result<Option<SearchNode>, SyntaxError> {
        let at = value.at.clone();
        let is_open = value.is_open;
        if value.text.trim().is_empty() {
            return Ok(None);
        }
        let made = match operator {
            Operator::Text(_) if value.text.chars().all(|c| c.is_ascii_punctuation() || c.is_whitespace()) => None,
            Operator::Text(field) => Some(text(field, &value)),
            Operator::In => self.folder(&value),
            _ => match self.fixed(operator, value.text.trim()) {
                None if is_open => None,
                None => {
                    let wrong = Wrong::Value { operator: name, expected: operator.expected() };
                    return Err(SyntaxError { at, wrong });
                }
                made => made,
            },
        };
        if made.is_some() {
            self.conditions += 1;
        }
        if self.conditions > NODES_MAX {
            return Err(SyntaxError { at, wrong: Wrong::TooMany });
        }
        Ok(made.map(node))
    }

    fn folder(&mut self, value: &Value<'_>) -> Option<Node> {
        let name = value.text.trim();
        let role = ROLES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, role)| role);
        // A quoted name is a name; but whoever names Trash wants to see it, however he writes it.
        self.named.extend(role);
        let folder = match role.filter(|_| !value.is_phrase) {
            Some(role) => search_folder::Folder::Role(role.into()),
            None if name.eq_ignore_ascii_case(ANYWHERE) && !value.is_phrase => {
                self.named.extend(LEFT_OUT);
                return None;
            }
            None => search_folder::Folder::Name(name.to_owned()),
        };
        Some(Node::Folder(SearchFolder { folder: Some(folder) }))
    }

    /// `None`: the operator does not take this value.
    fn fixed(&mut self, operator: Operator, text: &str) -> Option<Node> {
        let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(text));
        let now_ms = self.reading.now_ms;
        self.moves_with_time |= matches!(operator, Operator::OlderThan | Operator::NewerThan);
        Some(match operator {
            Operator::Has if is_one_of(&["attachment", "attachments"]) => Node::HasAttachments(true),
            Operator::Is if is_one_of(&["read"]) => Node::Keywords(Keywords::SEEN.0),
            Operator::Is if is_one_of(&["unread"]) => Node::Not(Box::new(node(Node::Keywords(Keywords::SEEN.0)))),
            Operator::Is if is_one_of(&["flagged", "starred"]) => Node::Keywords(Keywords::FLAGGED.0),
            Operator::Is if is_one_of(&["answered"]) => Node::Keywords(Keywords::ANSWERED.0),
            Operator::Label => Node::Label(text.to_owned()),
            Operator::Before => Node::BeforeMs(value::moment(text)?),
            Operator::After => Node::SinceMs(value::moment(text)?),
            Operator::OlderThan => Node::BeforeMs(value::ago(text, now_ms)?),
            Operator::NewerThan => Node::SinceMs(value::ago(text, now_ms)?),
            Operator::Larger => Node::Larger(value::size(text)?),
            Operator::Smaller => Node::Smaller(value::size(text)?),
            Operator::List => Node::ListId(text.trim_matches(['<', '>']).to_owned()),
            Operator::MessageId => Node::MessageId(text.to_owned()),
            Operator::Has | Operator::Is | Operator::In | Operator::Text(_) => return None,
        })
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c == '(' || c == ')' || QUOTES.contains(&c)
}

/// The operator that a word begins with, and where its value begins.
fn operator_of(word: &str) -> Option<((&'static str, Operator), usize)> {
    let (at, colon) = word.char_indices().find(|(_, c)| COLONS.contains(c))?;
    Some((Operator::named(&word[..at])?, at + colon.len_utf8()))
}

fn text(field: SearchField, value: &Value<'_>) -> Node {
    // Parts of one word belong together; a plain word has one.
    let phrase = value.is_phrase || !value.text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Node::Text(SearchText { field: field.into(), text: value.text.to_owned(), phrase, prefix: value.is_open })
}

/// For fuzzing: what is read is within the limits, and an error points between characters.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_query(text: &str, reading: Reading) {
    match parse(text, reading) {
        Ok(asked) => {
            let (depth, nodes) = asked.node.as_ref().map_or((0, 0), |node| (depth(node), nodes(node)));
            assert!(depth <= SEARCH_DEPTH_MAX && nodes <= NODES_MAX, "{depth} deep, {nodes} in all");
        }
        Err(error) => assert!(text.get(error.at.clone()).is_some(), "{error:?} of {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-31T12:00:00Z.
    const NOW_MS: i64 = 1_774_958_400_000;
    const DAY_MS: i64 = 86_400_000;
    const FINISHED: Reading = Reading { as_you_type: false, now_ms: NOW_MS };
    const TYPING: Reading = Reading { as_you_type: true, now_ms: NOW_MS };

    /// A condition as one line: `+` all, `|` any, `!` not, `*` a prefix.
    fn shown(of: &SearchNode) -> String {
        let list = |nodes: &[SearchNode], sign: &str| {
            format!("({})", nodes.iter().map(shown).collect::<Vec<_>>().join(&format!(" {sign} ")))
        };
        match of.node.as_ref().expect("a node is something") {
            Node::All(nodes) => list(&nodes.nodes, "+"),
            Node::Any(nodes) => list(&nodes.nodes, "|"),
            Node::Not(not) => format!("!{}", shown(not)),
            Node::Text(text) => {
                let field = match text.field() {
                    SearchField::Any => String::new(),
                    field => format!("{}:", field.as_str_name().trim_start_matches("SEARCH_FIELD_").to_lowercase()),
                };
                let quote = if text.phrase { "'" } else { "" };
                format!("{field}{quote}{}{quote}{}", text.text, if text.prefix { "*" } else { "" })
            }
            Node::Folder(folder) => match folder.folder.as_ref().expect("a folder is something") {
                search_folder::Folder::Role(_) => format!("role:{:?}", role_of(folder)),
                search_folder::Folder::Name(name) => format!("folder:{name}"),
            },
            other => format!("{other:?}"),
        }
    }

    fn role_of(folder: &SearchFolder) -> FolderRole {
        match folder.folder {
            Some(search_folder::Folder::Role(role)) => FolderRole::try_from(role).expect("a role"),
            _ => FolderRole::None,
        }
    }

    fn read(text: &str, reading: Reading) -> String {
        let asked = parse(text, reading).unwrap_or_else(|error| panic!("{text}: {error}"));
        asked.node.as_ref().map_or_else(String::new, shown)
    }

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(read(text, FINISHED), *expected, "{text}");
        }
    }

    #[test]
    fn words_phrases_and_their_relations() {
        check(&[
            ("", ""),
            (" \t\u{3000} ", ""),
            ("budget", "budget"),
            ("budget 2026", "(budget + 2026)"),
            ("\"annual report\" budget", "('annual report' + budget)"),
            ("\u{201c}annual report\u{201d}", "'annual report'"),
            ("a OR b", "(a | b)"),
            ("a OR b OR c d", "((a | b | c) + d)"),
            ("a b OR c", "(a + (b | c))"),
            ("(a b) OR c", "((a + b) | c)"),
            ("a AND b", "(a + b)"),
            ("a or b and c", "(a + or + b + and + c)"),
            ("ORDER ANDES", "(ORDER + ANDES)"),
            ("-a b", "(!a + b)"),
            ("-\"a b\" -(c OR d) -from:e", "(!'a b' + !(c | d) + !from:e)"),
            ("a OR -b", "(a | !b)"),
            ("well-known ada@example.com", "('well-known' + 'ada@example.com')"),
            ("회의 東京都 Café", "('회의' + '東京都' + 'Café')"),
            ("東京\u{3000}大阪", "('東京' + '大阪')"),
            ("a\"b c\"d", "(a + 'b c' + d)"),
            ("f(x)", "(f + x)"),
            ("((a) (b (c)))", "(a + b + c)"),
            ("--verbose", "'--verbose'"),
            ("-OR", "!OR"),
            ("🎉", "'🎉'"),
        ]);
    }

    #[test]
    fn what_is_unfinished_does_what_was_meant() {
        check(&[
            ("\"annual report", "'annual report'"),
            ("\"", ""),
            ("\"\" a", "a"),
            ("a OR", "a"),
            ("OR a", "a"),
            ("a OR OR b", "(a | b)"),
            ("OR", ""),
            ("(a OR) b", "(a + b)"),
            ("()", ""),
            ("a ( ) b", "(a + b)"),
            ("a OR () b", "(a | b)"),
            ("-()", ""),
            ("(a (b", "(a + b)"),
            ("a) b)", "(a + b)"),
            ("a - b", "(a + b)"),
            ("-", ""),
            ("a -", "a"),
            ("(-)", ""),
            ("a & b ... -!", "(a + b)"),
            ("from:", ""),
            ("a from: ", "a"),
            ("from: to:b", "to:b"),
            ("from: OR b", "b"),
            ("from: -b", "!b"),
            ("(from:) a", "a"),
            ("larger: smaller:", ""),
        ]);
    }

    #[test]
    fn operators_of_text() {
        check(&[
            ("from:ada to:grace", "(from:ada + to:grace)"),
            ("cc:a bcc:b subject:c filename:d", "(cc:a + bcc:b + subject:c + filename:d)"),
            ("FROM:ada", "from:ada"),
            ("from: ada lovelace", "(from:ada + lovelace)"),
            ("from:\"Ada Lovelace\"", "from:'Ada Lovelace'"),
            ("from:(ada OR grace)", "(from:ada | from:grace)"),
            ("subject:(annual -\"old report\" from:ada)", "(subject:annual + !subject:'old report' + from:ada)"),
            ("-from:(ada grace)", "!(from:ada + from:grace)"),
            ("from\u{ff1a}ada", "from:ada"),
            ("filename:report.pdf", "filename:'report.pdf'"),
            ("subject:re:budget", "subject:'re:budget'"),
            // No operator.
            ("re: budget", "('re:' + budget)"),
            ("http://a.b/c", "'http://a.b/c'"),
            (":a", "':a'"),
            ("\"from:ada\"", "'from:ada'"),
        ]);
    }

    #[test]
    fn conditions() {
        let seen = format!("Keywords({})", Keywords::SEEN.0);
        let flagged = format!("Keywords({})", Keywords::FLAGGED.0);
        let since = format!("SinceMs({})", NOW_MS - 2 * DAY_MS);
        let before = format!("BeforeMs({})", NOW_MS - 365 * DAY_MS);
        check(&[
            ("has:attachment", "HasAttachments(true)"),
            ("is:read", &seen),
            ("is:UNREAD", &format!("!{seen}")),
            ("-is:unread", &format!("!!{seen}")),
            ("is:flagged", &flagged),
            ("is:starred", &flagged),
            ("is:(read OR starred)", &format!("({seen} | {flagged})")),
            ("is:answered", &format!("Keywords({})", Keywords::ANSWERED.0)),
            ("label:work", "Label(\"work\")"),
            ("label:\"to do\"", "Label(\"to do\")"),
            ("after:1970-01-02 before:1970/1/3", "(SinceMs(86400000) + BeforeMs(172800000))"),
            ("after:\"1970-01-02T00:00:00Z\"", "SinceMs(86400000)"),
            ("is:\"unread", &format!("!{seen}")),
            ("newer_than:2d", &since),
            ("older_than:1y", &before),
            ("larger:10k smaller:5M", "(Larger(10240) + Smaller(5242880))"),
            ("list:<dev.lists.example.org>", "ListId(\"dev.lists.example.org\")"),
            ("rfc822msgid:<1@example.org>", "MessageId(\"<1@example.org>\")"),
        ]);
    }

    #[test]
    fn junk_and_trash_only_when_they_are_named() {
        let (junk, trash) = (FolderRole::Junk, FolderRole::Trash);
        for (text, shown, without) in [
            ("a", "a", vec![junk, trash]),
            ("in:inbox", "role:Inbox", vec![junk, trash]),
            ("in:Travel", "folder:Travel", vec![junk, trash]),
            ("in:\"My Travel\"", "folder:My Travel", vec![junk, trash]),
            ("in:trash", "role:Trash", vec![junk]),
            ("in:spam a", "(role:Junk + a)", vec![trash]),
            ("in:JUNK", "role:Junk", vec![trash]),
            ("in:\"Trash\"", "folder:Trash", vec![junk]),
            ("in:(trash OR junk)", "(role:Trash | role:Junk)", vec![]),
            ("a in:anywhere", "a", vec![]),
            ("in:\"anywhere\"", "folder:anywhere", vec![junk, trash]),
            ("in:drafts OR in:sent OR in:archive", "(role:Drafts | role:Sent | role:Archive)", vec![junk, trash]),
        ] {
            let asked = parse(text, FINISHED).unwrap();
            assert_eq!(read(text, FINISHED), shown, "{text}");
            assert_eq!(asked.without, without, "{text}");
        }
    }

    #[test]
    fn the_last_word_goes_on_while_somebody_types() {
        for (text, expected) in [
            ("bud", "bud*"),
            ("annual bud", "(annual + bud*)"),
            ("bud ", "bud"),
            ("\"annual rep", "'annual rep'*"),
            ("\"annual rep\"", "'annual rep'"),
            ("\"annual ", "'annual '"),
            ("from:ad", "from:ad*"),
            ("from:(ad", "from:ad*"),
            ("(ad)", "ad"),
            // Nobody loses hits to the first letters of what he does not want.
            ("a -bud", "(a + !bud)"),
            ("a -(b bud", "(a + !(b + bud))"),
            ("a OR bud", "(a | bud*)"),
            // Not a value yet.
            ("a is:unr", "a"),
            ("a before:2026-1", "a"),
            ("a larger:", "a"),
            ("a has:att", "a"),
            ("label:wo", "Label(\"wo\")"),
        ] {
            assert_eq!(read(text, TYPING), expected, "{text}");
        }
        assert!(parse("is:unr a", TYPING).is_err(), "he has gone on");
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        for (text, at, expected) in [
            ("a is:purple b", "purple", "is: takes read, unread"),
            ("has:drive", "drive", "has: takes attachment"),
            ("é before:2026-02-30", "2026-02-30", "before: takes a date"),
            ("after:\"last week\" a", "last week", "after: takes a date"),
            ("older_than:3", "3", "older_than: takes an age"),
            ("newer_than:(1d x)", "x", "newer_than: takes an age"),
            ("larger:huge", "huge", "larger: takes a size"),
            ("-smaller:-1", "-1", "smaller: takes a size"),
        ] {
            let error = parse(text, FINISHED).unwrap_err();
            assert_eq!(&text[error.at.clone()], at, "{text}");
            assert!(error.to_string().starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn depth_number_and_length_are_bounded() {
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(read(&nested(SEARCH_DEPTH_MAX), FINISHED), "a");
        let error = parse(&nested(SEARCH_DEPTH_MAX + 1), FINISHED).unwrap_err();
        assert_eq!((error.at, error.wrong), (SEARCH_DEPTH_MAX..SEARCH_DEPTH_MAX + 1, Wrong::TooDeep));
        // Each level is three of a condition.
        let alternating = "-(a (b OR ".repeat(SEARCH_DEPTH_MAX / 2);
        assert_eq!(parse(&alternating, FINISHED).unwrap_err().wrong, Wrong::TooDeep);

        let words = |count: usize| "a ".repeat(count);
        assert!(parse(&words(NODES_MAX - 1), FINISHED).is_ok(), "and the list of them");
        assert_eq!(parse(&words(NODES_MAX), FINISHED).unwrap_err().wrong, Wrong::TooMany);
        let error = parse(&words(NODES_MAX + 1), FINISHED).unwrap_err();
        assert_eq!((error.at, error.wrong), (2 * NODES_MAX..2 * NODES_MAX + 1, Wrong::TooMany));
        assert_eq!(parse(&"-is:unread ".repeat(NODES_MAX / 2), FINISHED).unwrap_err().wrong, Wrong::TooMany);

        assert!(parse(&"a".repeat(SEARCH_TEXT_BYTES_MAX), FINISHED).is_ok());
        let error = parse(&"é".repeat(SEARCH_TEXT_BYTES_MAX), FINISHED).unwrap_err();
        assert_eq!((error.at.start, error.wrong), (SEARCH_TEXT_BYTES_MAX, Wrong::TooLong));
    }

    #[test]
    fn parameters_are_read_like_operators() {
        let shown_of = |asked: &Asked| asked.node.as_ref().map_or_else(String::new, shown);
        let folder = parse_operator("in", "To do, later", FINISHED).unwrap();
        assert_eq!((shown_of(&folder).as_str(), folder.without.len()), ("folder:To do, later", 2));
        let trash = parse_operator("in", "trash", TYPING).unwrap();
        let both = parse("a b", FINISHED).unwrap().and(trash);
        assert_eq!((shown_of(&both).as_str(), both.without), ("(a + b + role:Trash)", vec![FolderRole::Junk]));
        assert!(parse_operator("after", "soon", TYPING).is_err());
        assert!(parse("newer_than:1d", FINISHED).unwrap().and(folder).moves_with_time);
    }

    proptest! {
        /// Whatever is typed is read within the limits, and an error points between characters.
        #[test]
        fn anything_may_be_typed(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("(".to_owned()), Just(")".to_owned()), Just("\"".to_owned()), Just("-".to_owned()),
                    Just(" OR ".to_owned()), Just(" ".to_owned()), Just(":".to_owned()), Just("in:trash".to_owned()),
                    Just("from:".to_owned()), Just("before:".to_owned()), Just("2026-01-01".to_owned()), ".{0,4}",
                ],
                0..200,
            ),
            as_you_type: bool,
        ) {
            fuzz_query(&parts.concat(), Reading { as_you_type, now_ms: NOW_MS });
        }
    }
}
