//! Values with parameters (RFC 2045 section 5.1, RFC 2183, RFC 2231), read from the raw field.
//!
//! A parameter may be cut into segments, which stand in any order, encoded or not; its charset is named in the first and holds
//! for all. What senders write instead is read as well: encoded words in quoted strings, values without the quotes they need,
//! quotes within quotes, `encodeURIComponent`'s idea of what needs encoding.
//!
//! Invariant: linear in the field's length but for sorting the segments.

use super::charset::{Charset, to_text};
use super::decode::hex_value;
use super::encoded_word::decoded;
use super::lexical::{Brackets, unquoted};
use super::limit::PARAMETERS_MAX;

/// A value and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameterised {
    /// What stands before the first semicolon, without comments and white space.
    pub value: String,
    parameters: Vec<Parameter>,
}

/// One parameter as it stands, or one segment of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    /// In lower case, without what stands behind an asterisk.
    name: String,
    segment: Option<u32>,
    is_encoded: bool,
    value: String,
}

/// Reads a value; `text` is unfolded. Parameters behind the first [`PARAMETERS_MAX`] are not looked at.
pub fn parameters(text: &str) -> Parameterised {
    let mut reader = Reader { text, at: 0, brackets: Brackets::default(), quotes_stay_open: false };
    let value = reader.plain(false);
    let mut parameters = Vec::new();
    while parameters.len() < PARAMETERS_MAX && reader.skip_separators() {
        parameters.extend(reader.parameter());
    }
    Parameterised { value, parameters }
}

impl Parameterised {
    /// The parameter of that name, in lower case, decoded; `None` where there is none. One in the form of RFC 2231 goes before a
    /// plain one, which is written beside it for programs that do not know the form.
    pub fn get(&self, name: &str) -> Option<String> {
        let mut plain = None;
        let mut extended = None;
        let mut segments: Vec<&Parameter> = Vec::new();
        for parameter in self.parameters.iter().filter(|parameter| parameter.name == name) {
            match (parameter.segment, parameter.is_encoded) {
                (Some(_), _) => segments.push(parameter),
                (None, true) => extended = extended.or(Some(parameter)),
                (None, false) => plain = plain.or(Some(parameter)),
            }
        }
        // Of two segments with one number the first counts.
        segments.sort_by_key(|parameter| parameter.segment);
        segments.dedup_by_key(|parameter| parameter.segment);
        let extended = extended.map(|one| vec![one]).or((!segments.is_empty()).then_some(segments));
        let extended = extended.map(|segments| joined(&segments)).filter(|value| !value.is_empty());
        extended.or_else(|| Some(plain?.value.clone()))
    }

    /// The same, for a name that is shown: encoded words in it are decoded, although RFC 2047 section 5 forbids them there.
    pub fn name(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| decoded(&value).into_owned())
    }
}

/// The text of all segments of one parameter (RFC 2231 section 4.1).
fn joined(segments: &[&Parameter]) -> String {
    let first = segments[0];
    let (prefix, _) = if first.is_encoded { charset_and_language(&first.value) } else { ("", "") };
    let charset = prefix.split('\'').next().unwrap_or_default();
    let mut out = String::new();
    // Encoded segments beside each other are one run of bytes: a character may be cut over two of them.
    let mut bytes = Vec::new();
    for segment in segments {
        if segment.is_encoded {
            // Some senders repeat the charset in each segment.
            let is_repeated = !prefix.is_empty()
                && segment.value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
            let value = if is_repeated { &segment.value[prefix.len()..] } else { segment.value.as_str() };
            push_percent_decoded(value, &mut bytes);
        } else {
            out.push_str(&to_text(&bytes, charset));
            bytes.clear();
            out.push_str(&segment.value);
        }
    }
    out.push_str(&to_text(&bytes, charset));
    out
}

/// `charset'language'` and what follows; a value that has no such beginning is all text.
fn charset_and_language(value: &str) -> (&str, &str) {
    let is_charset = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%()".contains(&byte));
    let Some((charset, rest)) = value.split_once('\'').filter(|(charset, _)| is_charset(charset)) else {
        return ("", value);
    };
    match rest.split_once('\'') {
        Some((language, _)) if is_charset(language) => value.split_at(charset.len() + language.len() + 2),
        // One quote is forgotten now and then.
        None if !matches!(Charset::of(charset), Charset::Undeclared) => value.split_at(charset.len() + 1),
        _ => ("", value),
    }
}

fn push_percent_decoded(value: &str, out: &mut Vec<u8>) {
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push((hex_value(*high) << 4) | hex_value(*low));
                rest = tail;
            }
            _ => out.push(byte),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    brackets: Brackets,
    /// No quote from here on stands where a value ends.
    quotes_stay_open: bool,
}

impl Reader<'_> {
    /// Goes to the next name; `false` at the end.
    fn skip_separators(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b';' => self.at += 1,
                byte if byte.is_ascii_whitespace() => self.at += 1,
                b'(' => match self.brackets.comment(bytes, self.at) {
                    Some(end) => self.at = end,
                    None => return true,
                },
                _ => return true,
            }
        }
        false
    }

    /// Reads a name and its value; `None` where no value follows.
    fn parameter(&mut self) -> Option<Parameter> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
        let name = self.text[self.at..self.at + length].trim_ascii();
        self.at += length;
        if rest.get(length) != Some(&b'=') {
            return None;
        }
        self.at += 1;
        // A comment behind the name, if there is one, ends it.
        let name = name.split(['(', ' ', '\t']).next().unwrap_or_default();
        let mut pieces = name.split('*');
        let base = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let (segment, is_encoded) = match (pieces.next(), pieces.next()) {
            (None, _) => (None, false),
            (Some(""), _) => (None, true),
            (Some(number), star) => (Some(number.parse().ok()?), star == Some("")),
        };
        let is_name = matches!(base.as_str(), "name" | "filename");
        let value = self.value(is_name);
        (!base.is_empty()).then_some(Parameter { name: base, segment, is_encoded, value })
    }

    fn value(&mut self, is_name: bool) -> String {
        let bytes = self.text.as_bytes();
        self.at += bytes[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if bytes.get(self.at) == Some(&b'"')
            && let Some(end) = self.closing_quote(self.at)
        {
            let inner = &self.text[self.at + 1..end];
            self.at = end + 1;
            return if is_name { unquoted_name(inner) } else { unquoted(inner) };
        }
        let value = self.plain(is_name);
        value.strip_prefix('"').map(str::to_owned).unwrap_or(value)
    }

    /// The quote that closes the one at `open`: the first behind which a value can end, because some senders quote within quotes;
    /// else the first at all.
    fn closing_quote(&mut self, open: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut first = None;
        let mut at = open + 1;
        while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..)?) {
            at += found;
            if bytes[at] == b'\\' {
                at += 2;
                continue;
            }
            let behind = bytes[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
            if matches!(behind, None | Some(b';' | b'(')) {
                return Some(at);
            }
            first = first.or(Some(at));
            if self.quotes_stay_open {
                return first;
            }
            at += 1;
        }
        self.quotes_stay_open = true;
        first
    }

    /// Reads up to the next semicolon. A name keeps its parentheses, which senders do not quote; elsewhere, and behind all of a
    /// name, they are a comment.
    fn plain(&mut self, is_name: bool) -> String {
        let bytes = self.text.as_bytes();
        let mut out = String::new();
        let mut from = self.at;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b';' => break,
                b'(' => match self.brackets.comment(bytes, self.at) {
                    Some(end) if !is_name || self.is_behind_name(from, self.at, end) => {
                        out.push_str(&self.text[from..self.at]);
                        (self.at, from) = (end, end);
                    }
                    Some(_) | None => self.at += 1,
                },
                _ => self.at += 1,
            }
        }
        out.push_str(&self.text[from..self.at]);
        let trimmed = out.trim_ascii();
        if trimmed.len() == out.len() { out } else { trimmed.to_owned() }
    }

    /// Whether a comment is all that stands apart behind a name that is complete: that has an extension.
    fn is_behind_name(&self, from: usize, start: usize, end: usize) -> bool {
        let bytes = self.text.as_bytes();
        let is_apart = bytes[start - 1].is_ascii_whitespace();
        let behind = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace());
        is_apart && matches!(behind, None | Some(b';')) && bytes[from..start].contains(&b'.')
    }
}

/// What a quoted file name says. Some programs write a path of Windows there, and quote nothing in it.
fn unquoted_name(inner: &str) -> String {
    let is_path =
        matches!(inner.as_bytes(), [b'A'..=b'Z' | b'a'..=b'z', b':', b'\\', ..] | [b'\\', b'\\', b'A'..=b'z', ..]);
    if is_path { inner.to_owned() } else { unquoted(inner) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filename(text: &str) -> String {
        parameters(text).name("filename").unwrap_or_default()
    }

    #[test]
    fn plain_parameters() {
        let read = parameters("text/plain (really); charset=us-ascii (Plain text) ; Format = Flowed;; delsp=yes; x");
        assert_eq!(read.value, "text/plain");
        let get = |name: &str| read.get(name);
        assert_eq!(get("charset").as_deref(), Some("us-ascii"));
        assert_eq!(get("format").as_deref(), Some("Flowed"));
        assert_eq!(get("delsp").as_deref(), Some("yes"));
        assert_eq!(get("x"), None);
        assert_eq!(parameters("").value, "");
        assert_eq!(parameters("; a=b").get("a").as_deref(), Some("b"));
        assert_eq!(parameters("x; a=1; a=2").get("a").as_deref(), Some("1"));
    }

    #[test]
    fn quoted_strings() {
        assert_eq!(filename("x; filename=\"a; b (c).pdf\"; size=3"), "a; b (c).pdf");
        assert_eq!(filename("x; filename=\"a \\\"b\\\" \\\\ c.pdf\""), "a \"b\" \\ c.pdf");
        assert_eq!(filename("x; filename=\"Say \"hello\".pdf\"; size=3"), "Say \"hello\".pdf");
        assert_eq!(filename("x; filename=\"a.pdf\" size=3"), "a.pdf");
        assert_eq!(filename("x; filename=\"a.pdf"), "a.pdf");
        assert_eq!(filename("x; filename=\"a.pdf; size=3"), "a.pdf");
        assert_eq!(filename("x; filename=\"a.pdf\" (a comment); size=3"), "a.pdf");
        assert_eq!(filename("x; filename=\"C:\\docs\\a.pdf\""), "C:\\docs\\a.pdf");
        assert_eq!(parameters("x; filename=\"a\" junk; size=3").get("size").as_deref(), Some("3"));
    }

    #[test]
    fn values_without_the_quotes_they_need() {
        assert_eq!(filename("x; filename=annual report 2026.pdf; size=3"), "annual report 2026.pdf");
        assert_eq!(filename("x; filename=Rechnung (1).pdf"), "Rechnung (1).pdf");
        assert_eq!(filename("x; filename=report.pdf (final)"), "report.pdf");
        assert_eq!(filename("x; filename=report (1)"), "report (1)");
        assert_eq!(filename("x; filename=a=b@c.pdf"), "a=b@c.pdf");
        assert_eq!(filename("x; filename="), "");
    }

    #[test]
    fn segments_in_any_order() {
        assert_eq!(filename("x; filename*1=\"b.pdf\"; filename*0=\"a \""), "a b.pdf");
        assert_eq!(
            filename("x; filename*2=.hwp; filename*0*=euc-kr'ko'%C8%B8%C0%C7%B7%CF; filename*1*=%20%BA%B8%B0%ED%BC%AD"),
            "회의록 보고서.hwp"
        );
        assert_eq!(
            filename("x; filename*0*=iso-8859-1''R%E9sum%E9%20d; filename*1*=%E9finitif; filename*2=\".pdf\""),
            "Résumé définitif.pdf"
        );
        // A character cut over two segments; a percent sign that is text; a charset said again; more than ten.
        assert_eq!(filename("x; filename*0*=utf-8''a%EC%95; filename*1*=%88; filename*2=%20.pdf"), "a안%20.pdf");
        assert_eq!(filename("x; filename*0*=UTF-8''a%C3%A9; filename*1*=utf-8''%C3%A9.pdf"), "aéé.pdf");
        let many: String = (0..12).rev().map(|at| format!("; filename*{at}={at},")).collect();
        assert_eq!(filename(&format!("x{many}")), "0,1,2,3,4,5,6,7,8,9,10,11,");
        assert_eq!(filename("x; filename*0*=''%C3%A9; filename*1*=%C3%A9"), "éé");
        assert_eq!(filename("x; filename*0=a; filename*0=b; filename*1=c"), "ac");
        assert_eq!(filename("x; filename*1=a; filename*2=b.pdf"), "ab.pdf");
        assert_eq!(filename("x; FileName*0=\"a\"; FILENAME*1=\"b\""), "ab");
    }

    #[test]
    fn one_encoded_value() {
        assert_eq!(filename("x; filename*=UTF-8''Screenshot%209.00%E2%80%AFAM.png"), "Screenshot 9.00\u{202f}AM.png");
        assert_eq!(filename("x; filename*=utf-8'en'%e2%82%ac.txt; filename=\"EUR.txt\""), "€.txt");
        assert_eq!(filename("x; filename=\"EUR.txt\"; filename*=utf-8''%e2%82%ac.txt"), "€.txt");
        assert_eq!(filename("x; filename*=\"utf-8''na%C3%AFve.pdf\""), "naïve.pdf");
        assert_eq!(filename("x; filename*=na%C3%AFve.pdf"), "naïve.pdf");
        assert_eq!(filename("x; filename*=utf-8'na%C3%AFve.pdf"), "naïve.pdf");
        assert_eq!(filename("x; filename*=x-none''na%C3%AFve.pdf"), "naïve.pdf");
        assert_eq!(filename("x; filename*=utf-8''100%.pdf"), "100%.pdf");
        assert_eq!(filename("x; filename*=utf-8''; filename=a.pdf"), "a.pdf");
        assert_eq!(parameters("x; charset*=us-ascii'en'utf-8").get("charset").as_deref(), Some("utf-8"));
    }

    #[test]
    fn names_of_encode_uri_component() {
        assert_eq!(
            filename("x; filename*0*=utf-8''Plan%20(draft%202)%20it's; filename*1=.pdf"),
            "Plan (draft 2) it's.pdf"
        );
        assert_eq!(filename("x; filename*=UTF-8''Rechnung%20(1).pdf"), "Rechnung (1).pdf");
        assert_eq!(filename("x; filename*=UTF-8''it's%20(really!)%20*new*~.pdf; size=1"), "it's (really!) *new*~.pdf");
        assert_eq!(filename("x; filename*=it's%20John's.pdf"), "it's John's.pdf");
    }

    #[test]
    fn encoded_words_where_they_must_not_be() {
        assert_eq!(filename("x; filename=\"=?utf-8?B?7JWI64WV?=.pdf\""), "안녕.pdf");
        assert_eq!(filename("x; filename==?utf-8?Q?caf=C3=A9.pdf?=; size=3"), "café.pdf");
        assert_eq!(filename("x; filename=\"=?utf-8?Q?caf=C3?= =?utf-8?Q?=A9.pdf?=\""), "café.pdf");
        assert_eq!(filename("x; filename*0=\"=?utf-8?Q?caf=C3=A9\"; filename*1=\".pdf?=\""), "café.pdf");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(filename|\\*|[0-9]|=|;|'|%C3%A9|\"|\\(|\\)|\\\\| |utf-8|=\\?utf-8\\?q\\?|\\PC){0,50}") {
            let read = parameters(&text);
            read.get("filename");
            read.name("filename");
        }

        #[test]
        fn what_is_written_by_rfc_2231_is_read(name in "\\PC{1,40}", cut in 1usize..40) {
            // Percent-encoded byte by byte, cut anywhere but within an escape.
            let escapes: Vec<String> = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let segments: String = escapes
                .chunks(cut)
                .enumerate()
                .map(|(at, chunk)| format!(";\r\n filename*{at}*={}{}", if at == 0 { "utf-8''" } else { "" }, chunk.concat()))
                .collect();
            prop_assert_eq!(parameters(&format!("attachment{segments}")).get("filename"), Some(name));
        }
    }
}
