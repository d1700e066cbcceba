//! HTML parsed as browsers parse it (HTML Standard, section 13.2), within bounds.
//!
//! A parser by the book can be made to work for hours: it looks through all open elements for most tags, opens formatting elements
//! again in every paragraph, and compares each attribute of a tag with those before it. So tags are looked at between tokenizer and
//! tree: what would be nested too deep is left out, attributes that no list names are dropped, and the document ends where it has as
//! many nodes as it may.

use std::cell::Cell;

use html5ever::TokenizerResult;
use html5ever::buffer_queue::BufferQueue;
use html5ever::interface::tree_builder::TreeSink as _;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts};

use crate::allow;
use crate::dom::{Handle, Node, Tree};
use crate::limit::{ATTRIBUTES_MAX, DEPTH_MAX, NODES_MAX, TAG_SEPARATORS_MAX};

/// A document taken apart.
pub(crate) struct Parsed {
    /// Its nodes; the first is the document.
    pub(crate) nodes: Vec<Node>,
    /// Attributes that would have run a script.
    pub(crate) handlers: u32,
    /// Whether there was more of it.
    pub(crate) is_truncated: bool,
}

/// Takes a document apart.
pub(crate) fn parse(html: &str) -> Parsed {
    // Without scripts `noscript` is what readers see, in the frame that shows it as well.
    let options = TreeBuilderOpts { scripting_enabled: false, drop_doctype: true, ..TreeBuilderOpts::default() };
    let gate = Gate {
        builder: TreeBuilder::new(Tree::new(), options),
        tokens: Cell::new(0),
        handlers: Cell::new(0),
        is_truncated: Cell::new(false),
    };
    let tokenizer = Tokenizer::new(gate, TokenizerOpts::default());
    if !feed(&tokenizer, html) {
        tokenizer.sink.is_truncated.set(true);
    }
    tokenizer.end();
    let Gate { builder, handlers, is_truncated, .. } = tokenizer.sink;
    Parsed { nodes: builder.sink.finish(), handlers: handlers.get(), is_truncated: is_truncated.get() }
}

/// What is given to the tokenizer at once, bytes: a tag is looked at between two of these.
const STEP_BYTES: usize = 4 * 1024;

/// Whether all of it was taken.
fn feed(tokenizer: &Tokenizer<Gate>, html: &str) -> bool {
    let mut input = Input { tokenizer, queue: BufferQueue::default(), open: None };
    let mut rest = html;
    // Piece by piece, each up to the next `<`: only there does a tag begin.
    while !rest.is_empty() {
        if tokenizer.sink.is_full() {
            return false;
        }
        let begins_tag = rest.starts_with('<');
        if begins_tag {
            // What was open and is not any more is known before the next can be.
            if input.give("<") {
                input.open = None;
            }
            rest = &rest[1..];
        }
        let end = rest.bytes().position(|byte| byte == b'<').unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        if !input.piece(piece, begins_tag) {
            return false;
        }
        rest = behind;
    }
    true
}

struct Input<'a> {
    tokenizer: &'a Tokenizer<Gate>,
    queue: BufferQueue,
    /// What no token has come of yet.
    open: Option<Open>,
}

/// What the tokenizer is in the middle of.
struct Open {
    is_tag: bool,
    separators: usize,
}

impl Input<'_> {
    /// Whether a token came while `text` was read.
    fn give(&self, text: &str) -> bool {
        let before = self.tokenizer.sink.tokens.get();
        self.queue.push_back(StrTendril::from_slice(text));
        while !matches!(self.tokenizer.feed(&self.queue), TokenizerResult::Done) {}
        self.tokenizer.sink.tokens.get() != before
    }

    /// Reads what stands behind one `<` and before the next. Whether a tag that is not over has few enough attributes.
    fn piece(&mut self, piece: &str, begins_tag: bool) -> bool {
        if begins_tag && self.open.is_none() {
            let name = piece.strip_prefix('/').unwrap_or(piece);
            self.open = Some(Open { is_tag: name.starts_with(|c: char| c.is_ascii_alphabetic()), separators: 0 });
        }
        let mut rest = piece;
        while !rest.is_empty() {
            let end = if rest.len() <= STEP_BYTES { rest.len() } else { rest.floor_char_boundary(STEP_BYTES) };
            let (step, behind) = rest.split_at(end);
            if self.give(step) {
                self.open = None;
            }
            if let Some(open) = &mut self.open {
                let separates = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'/');
                open.separators += step.bytes().filter(separates).count();
                if open.is_tag && open.separators > TAG_SEPARATORS_MAX {
                    return false;
                }
            }
            rest = behind;
        }
        true
    }
}

/// Stands between tokenizer and tree.
struct Gate {
    builder: TreeBuilder<Handle, Tree>,
    tokens: Cell<u64>,
    handlers: Cell<u32>,
    is_truncated: Cell<bool>,
}

impl Gate {
    fn is_full(&self) -> bool {
        self.builder.sink.len() >= NODES_MAX
    }

    /// A tag with what may be of its attributes; `None` where there is no room for the element.
    fn tag(&self, mut tag: Tag) -> Option<Tag> {
        if tag.kind == TagKind::EndTag {
            tag.attrs.clear();
            return Some(tag);
        }
        let handlers = tag.attrs.iter().filter(|attribute| is_handler(&attribute.name.local)).count();
        self.handlers.set(self.handlers.get().saturating_add(u32::try_from(handlers).unwrap_or(u32::MAX)));
        tag.attrs.retain(|attribute| allow::is_read(&attribute.name.local));
        tag.attrs.truncate(ATTRIBUTES_MAX);
        let is_deep = self.builder.sink.depth() >= DEPTH_MAX && !allow::is_leaf(&tag.name);
        if is_deep {
            self.is_truncated.set(true);
        }
        (!is_deep).then_some(tag)
    }
}

/// HTML Standard, section 8.1.8: every event handler's attribute begins so, and no other attribute does.
fn is_handler(name: &str) -> bool {
    name.len() > 2 && name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("on"))
}

impl TokenSink for Gate {
    type Handle = Handle;

    fn process_token(&self, token: Token, line: u64) -> TokenSinkResult<Handle> {
        let token = match token {
            // These come in the middle of a tag as well.
            Token::ParseError(_) => return TokenSinkResult::Continue,
            Token::TagToken(tag) => match self.tag(tag) {
                Some(tag) => Token::TagToken(tag),
                None => {
                    self.tokens.set(self.tokens.get() + 1);
                    return TokenSinkResult::Continue;
                }
            },
            token => token,
        };
        self.tokens.set(self.tokens.get() + 1);
        // The end closes what is open, however full it is.
        if self.is_full() && token != Token::EOFToken {
            self.is_truncated.set(true);
            return TokenSinkResult::Continue;
        }
        match self.builder.process_token(token, line) {
            // There are none here, and nothing waits for them.
            TokenSinkResult::Script(_) | TokenSinkResult::EncodingIndicator(_) => TokenSinkResult::Continue,
            result => result,
        }
    }

    fn end(&self) {
        self.builder.end();
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&self) -> bool {
        self.builder.adjusted_current_node_present_but_not_in_html_namespace()
    }
}

/// How deep the deepest node is.
#[cfg(test)]
pub(crate) fn depth(nodes: &[Node]) -> usize {
    let mut deepest = 0;
    let mut stack = vec![(crate::dom::ROOT, 0)];
    while let Some((place, depth)) = stack.pop() {
        deepest = deepest.max(depth);
        stack.extend(nodes[place].children.iter().map(|child| (*child, depth + 1)));
    }
    deepest
}
