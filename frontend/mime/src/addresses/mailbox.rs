//! One member of a list: a mailbox, or something that is shown as it stands.

use super::super::encoded_word::{Words, decoded};
use super::super::lexical::unquoted;
use super::HeaderMailbox;
use super::token::{Kind, Token};

/// The mailbox that a member is; `None` where nothing stands.
pub(super) fn read(text: &str, member: &[Token<'_>]) -> Option<HeaderMailbox> {
    let (first, last) = (member.first()?, member.last()?);
    let as_it_stands = || {
        let name = decoded(text[first.start..last.end].trim_ascii()).into_owned();
        Some(HeaderMailbox { name, email: String::new() })
    };
    let mut angles = angles(member).filter_map(|angle| Some((angle_address(&member[angle.clone()])?, angle)));
    if let Some((email, angle)) = angles.next() {
        let (before, after) = (&member[..angle.start], &member[angle.end..]);
        // Two addresses for one mailbox: nobody can say which is meant.
        if angles.next().is_some() || after.iter().any(|token| token.kind == Kind::Special(b'@')) {
            return as_it_stands();
        }
        return Some(HeaderMailbox { name: name_of(before, after), email });
    }
    let is_special = |special: u8| member.iter().any(|token| token.kind == Kind::Special(special));
    if member.iter().all(|token| matches!(token.kind, Kind::Comment(_))) {
        // RFC 5322 section 4.4: a member may be empty but for comments.
        return None;
    }
    if let Some(email) = address(member) {
        return Some(HeaderMailbox { name: comment_name(member), email });
    }
    if is_special(b'@') || is_special(b'<') {
        return as_it_stands();
    }
    let name = phrase(member.iter());
    if name.is_empty() { as_it_stands() } else { Some(HeaderMailbox { name, email: String::new() }) }
}

/// What stands in angle brackets, brackets included. The last bracket may be missing; one within another begins anew.
fn angles<'m>(member: &'m [Token<'_>]) -> impl Iterator<Item = std::ops::Range<usize>> + 'm {
    let mut opened = None;
    member.iter().enumerate().filter_map(move |(at, token)| {
        let is_last = at + 1 == member.len();
        match token.kind {
            Kind::Special(b'<') => {
                opened = Some(at);
                None
            }
            Kind::Special(b'>') => opened.take().map(|open| open..at + 1),
            _ if is_last => opened.take().map(|open| open..at + 1),
            _ => None,
        }
    })
}

/// The address in angle brackets, behind its route (RFC 5322 section 4.4: SHOULD be ignored).
fn angle_address(angle: &[Token<'_>]) -> Option<String> {
    let inner = match &angle[1..] {
        [inner @ .., Token { kind: Kind::Special(b'>'), .. }] => inner,
        inner => inner,
    };
    let is_comment = |token: &&Token<'_>| matches!(token.kind, Kind::Comment(_));
    let first = inner.iter().find(|token| !is_comment(token))?;
    let skipped = match first.kind {
        Kind::Special(b'@' | b',') => inner.iter().position(|token| token.kind == Kind::Special(b':'))? + 1,
        // A link, as some programs copy it from a page.
        Kind::Atom(scheme) if scheme.eq_ignore_ascii_case("mailto") => {
            inner.iter().position(|token| token.kind == Kind::Special(b':')).map_or(0, |colon| colon + 1)
        }
        _ => 0,
    };
    address(&inner[skipped..])
}

/// An address (RFC 5322 section 3.4.1) and nothing else, but for comments. White space stands around dots and the at sign only: two
/// words beside each other are no local part.
fn address(tokens: &[Token<'_>]) -> Option<String> {
    let mut tokens = tokens.iter().map(|token| token.kind).filter(|kind| !matches!(kind, Kind::Comment(_)));
    let mut local = Local::default();
    loop {
        match tokens.next()? {
            Kind::Special(b'@') => break,
            Kind::Special(b'.') => local.dot(),
            Kind::Atom(atom) => local.word(atom, false)?,
            Kind::Quoted(inner) => local.word(&unquoted(inner), true)?,
            _ => return None,
        }
    }
    let mut email = local.finish()?;
    email.push('@');
    let domain = email.len();
    let mut is_word_due = true;
    for kind in tokens {
        match kind {
            Kind::Atom(label) if is_word_due => email.push_str(label),
            Kind::Literal(literal) if is_word_due && email.len() == domain => {
                email.extend(literal.chars().filter(|c| !c.is_ascii_whitespace()));
            }
            Kind::Special(b'.') if !is_word_due => email.push('.'),
            _ => return None,
        }
        is_word_due = !is_word_due;
    }
    // The dot that ends a name in the DNS says nothing.
    let length = email.trim_end_matches('.').len();
    email.truncate(length);
    (length > domain && !email.chars().any(is_unseen)).then_some(email)
}

/// A local part while its words come.
#[derive(Default)]
struct Local {
    text: String,
    /// What stands there begins with, or holds, a word.
    has_word: bool,
    needs_quotes: bool,
    is_behind_word: bool,
}

impl Local {
    /// Dots at the ends and beside each other are not allowed, and are real addresses of a large provider's.
    fn dot(&mut self) {
        self.text.push('.');
        self.is_behind_word = false;
    }

    fn word(&mut self, word: &str, is_quoted: bool) -> Option<()> {
        if self.is_behind_word {
            return None;
        }
        self.text.push_str(word);
        self.needs_quotes |= is_quoted && !is_dot_atom(word);
        (self.has_word, self.is_behind_word) = (true, true);
        Some(())
    }

    fn finish(self) -> Option<String> {
        if !self.has_word {
            return None;
        }
        if !self.needs_quotes {
            return Some(self.text);
        }
        let mut quoted = String::with_capacity(self.text.len() + 2);
        quoted.push('"');
        for c in self.text.chars() {
            if matches!(c, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        Some(quoted)
    }
}

/// Whether a word needs no quotes. What an encoded word begins with keeps them, because outside of quotes it would be one.
fn is_dot_atom(word: &str) -> bool {
    let is_atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 0x80;
    !word.contains("=?") && word.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// What no eye sees in an address, and makes it another one: controls, what turns the direction of text, what has no width.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The name of a mailbox in angle brackets: the phrase, or else a comment.
fn name_of(before: &[Token<'_>], after: &[Token<'_>]) -> String {
    let name = phrase(before.iter().chain(after));
    if !name.is_empty() {
        return name;
    }
    let comments = if comment_name(after).is_empty() { before } else { after };
    comment_name(comments)
}

/// Programs that know no phrase write the name into a comment behind the address; a few before it. One within it is none.
fn comment_name(tokens: &[Token<'_>]) -> String {
    let text = |token: Option<&Token<'_>>| match token?.kind {
        Kind::Comment(inner) => Some(decoded(&unquoted(inner)).trim_ascii().to_owned()),
        _ => None,
    };
    text(tokens.last()).or_else(|| text(tokens.first())).unwrap_or_default()
}

/// A phrase (RFC 5322 sections 3.2.5 and 4.1): words apart, dots where they stand, comments left out.
fn phrase<'t, 'a: 't>(tokens: impl Iterator<Item = &'t Token<'a>>) -> String {
    // A quoted string says what it holds once its escapes are gone, and encoded words in it are decoded although they must not
    // stand there.
    let tokens: Vec<(&Token<'_>, String)> = tokens
        .map(|token| match token.kind {
            Kind::Quoted(inner) => (token, unquoted(inner)),
            _ => (token, String::new()),
        })
        .collect();
    let mut words = Words::default();
    let mut is_first = true;
    let mut is_apart = false;
    let mut last = None;
    for (token, content) in &tokens {
        is_apart |= token.is_apart;
        let is_word = |kind: Kind<'_>| matches!(kind, Kind::Quoted(_) | Kind::Atom(_) | Kind::Encoded(_));
        let is_quoted = |kind: Kind<'_>| matches!(kind, Kind::Quoted(_));
        let is_beside =
            last.is_some_and(|last| is_word(last) && is_word(token.kind) && (is_quoted(last) || is_quoted(token.kind)));
        // Angle brackets that hold no address are no part of a name either.
        if matches!(token.kind, Kind::Comment(_) | Kind::Special(b'<' | b'>')) {
            is_apart = true;
            continue;
        }
        if !is_first && (is_apart || is_beside) {
            words.push_space(" ");
        }
        match token.kind {
            Kind::Atom(atom) | Kind::Literal(atom) => words.push_text(atom),
            Kind::Encoded(word) => words.push_word(word),
            Kind::Quoted(_) => words.push_unstructured(content),
            Kind::Special(byte) => words.push_text(char::from(byte).encode_utf8(&mut [0; 4])),
            Kind::Comment(_) => {}
        }
        (is_first, is_apart, last) = (false, false, Some(token.kind));
    }
    words.finish().trim_ascii().to_owned()
}
