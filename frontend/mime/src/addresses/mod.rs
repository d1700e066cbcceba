//! Lists of mailboxes and groups, read from the raw field (RFC 5322 sections 3.4 and 4.4, RFC 6532).
//!
//! Comments stand anywhere and nest, local parts are quoted, routes and empty members are passed over, groups are flattened, words
//! of a name are separated as the grammar says. A member that is no mailbox by this grammar is shown as it stands, without an
//! address: what stands beside angle brackets is never one, and nothing is put together that stood apart.
//!
//! Invariant: linear in the field's length, without recursion. Members are read one by one, so that a caller takes what he wants.

mod mailbox;
mod token;

use token::{Kind, Token, Tokens};

/// A name and an address, as a header field gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderMailbox {
    /// Decoded; empty where there is none. Of a member that cannot be read: what stands there.
    pub name: String,
    /// In its simplest form: comments, routes and quotes without need are gone. Empty where the member is no mailbox.
    pub email: String,
}

/// What separates the members of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A comma, as RFC 5322 says: for authors, whom no second reading may exchange.
    Comma,
    /// A semicolon too, which some programs write between recipients.
    CommaOrSemicolon,
}

/// The mailboxes of a list, in order. `text` is an unfolded value.
pub fn addresses(text: &str, separator: Separator) -> Addresses<'_> {
    Addresses { text, tokens: Tokens::new(text), separator, in_group: false, next_angle: 0, is_cut: false }
}

/// Reads a list member by member.
#[derive(Debug)]
pub struct Addresses<'a> {
    text: &'a str,
    tokens: Tokens<'a>,
    separator: Separator,
    in_group: bool,
    /// Where the next comma or angle bracket is known to stand.
    next_angle: usize,
    is_cut: bool,
}

/// How far a member has come.
#[derive(PartialEq, Eq)]
enum Within {
    /// Outside of angle brackets.
    Phrase,
    /// Behind an angle bracket.
    Angle,
    /// Behind an angle bracket and an at sign: the domains of a route, which commas separate.
    Route,
}

impl<'a> Addresses<'a> {
    /// The same of a field that was cut off: its last member is not known whole, and half an address may be another one.
    pub(super) fn cut_off(self) -> Self {
        Self { is_cut: true, ..self }
    }

    /// The tokens of the next member, and whether a separator ends them. `None` at the end.
    fn member(&mut self) -> Option<(Vec<Token<'a>>, bool)> {
        let mut member: Vec<Token<'a>> = Vec::new();
        let mut within = Within::Phrase;
        let mut has_at = false;
        while let Some(token) = self.tokens.next() {
            match (token.kind, &within) {
                (Kind::Special(b'@' | b','), Within::Angle) if is_route(&member) => within = Within::Route,
                (Kind::Special(b','), Within::Phrase | Within::Angle) => return Some((member, true)),
                (Kind::Special(b';'), Within::Phrase | Within::Angle) if self.is_separated_at(token.end) => {
                    self.in_group = false;
                    return Some((member, true));
                }
                (Kind::Special(b':'), Within::Phrase) if !has_at && self.begins_group(token.end) => {
                    // The name of a group is nobody's.
                    member.clear();
                    self.in_group = true;
                    continue;
                }
                (Kind::Special(b':'), Within::Route) => within = Within::Angle,
                (Kind::Special(b'<'), _) => within = Within::Angle,
                (Kind::Special(b'>'), _) => within = Within::Phrase,
                (Kind::Special(b'@'), _) => has_at = true,
                _ => {}
            }
            member.push(token);
        }
        (!member.is_empty()).then_some((member, false))
    }

    /// Whether a semicolon that ends at `end` ends a member. Behind the last one it is a slip.
    fn is_separated_at(&self, end: usize) -> bool {
        self.in_group || self.separator == Separator::CommaOrSemicolon || self.text[end..].trim_ascii_start().is_empty()
    }

    /// Whether a colon that ends at `at` ends the name of a group. One that no semicolon closes is more likely a part of a name, if
    /// an address in angle brackets follows.
    fn begins_group(&mut self, at: usize) -> bool {
        if self.tokens.last_semicolon().is_some_and(|last| last >= at) {
            return true;
        }
        if self.next_angle < at {
            let rest = &self.text.as_bytes()[at..];
            self.next_angle = memchr::memchr2(b',', b'<', rest).map_or(self.text.len(), |found| at + found);
        }
        let between = &self.text[at..self.next_angle];
        !self.text[self.next_angle..].starts_with('<') || between.trim_ascii().is_empty()
    }
}

/// Whether an at sign, or a comma, behind `member` begins the domains of a route.
fn is_route(member: &[Token<'_>]) -> bool {
    let last = member.iter().rev().find(|token| !matches!(token.kind, Kind::Comment(_)));
    last.is_some_and(|token| token.kind == Kind::Special(b'<'))
}

impl Iterator for Addresses<'_> {
    type Item = HeaderMailbox;

    fn next(&mut self) -> Option<HeaderMailbox> {
        loop {
            let (member, is_ended) = self.member()?;
            if self.is_cut && !is_ended {
                return None;
            }
            let mailbox = mailbox::read(self.text, &member).unwrap_or_default();
            if mailbox != HeaderMailbox::default() {
                return Some(mailbox);
            }
        }
    }
}

#[cfg(test)]
mod tests;
