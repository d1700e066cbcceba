//! What a refusal means for the one who was refused: whether he will ever be reached. The same for what a host says to a worker, what a
//! report quotes and what stands in a letter that is neither.

use crate::pb::FeedbackKind;

/// Details of RFC 3463 section 3.2 (class 5, subject 1) that are about the recipient's address and stay true: bad mailbox, bad
/// system, bad syntax, mailbox has moved, and RFC 7505's null MX. 5.1.4 (ambiguous) and 5.1.7 to 5.1.9 (the sender's) are not.
const ADDRESS_DETAILS: [&str; 5] = ["1", "2", "3", "6", "10"];
/// What hosts say that have no enhanced code for it, or another one; in lower case.
const UNKNOWN: [&str; 21] = [
    "user unknown",
    "unknown user",
    "no such user",
    "user not found",
    "user does not exist",
    "user doesn't exist",
    "unknown recipient",
    "recipient unknown",
    "recipient not found",
    "no such recipient",
    "invalid recipient",
    "invalid mailbox",
    "unknown mailbox",
    "no such mailbox",
    "no mailbox here",
    "mailbox not found",
    "mailbox does not exist",
    "mailbox unavailable or not local",
    "address does not exist",
    "account does not exist",
    "account has been disabled",
];

/// What it means for a recipient that this was said of him. `code`: an enhanced status (RFC 3463), or empty; `text`: the reply, with its own
/// codes or without. [`FeedbackKind::Unspecified`] where nothing was refused as far as can be seen.
pub fn of_reply(code: &str, text: &str) -> FeedbackKind {
    let enhanced = [parts(code), enhanced_in(text)].into_iter().flatten().next();
    let class = enhanced.map(|(class, ..)| class).or_else(|| basic_class(text));
    match (class, enhanced) {
        (Some(b'4'), _) => FeedbackKind::Soft,
        (Some(b'5'), Some((_, "1", detail))) if ADDRESS_DETAILS.contains(&detail) => FeedbackKind::Hard,
        // The mailbox is disabled.
        (Some(b'5'), Some((_, "2", "1"))) => FeedbackKind::Hard,
        // Of policy, of size and of security a recipient is no part, whatever words the host has for it.
        (Some(b'5'), Some((_, "3" | "6" | "7", _))) => FeedbackKind::Soft,
        (Some(b'5'), _) if is_unknown(text) => FeedbackKind::Hard,
        (Some(b'5'), _) => FeedbackKind::Soft,
        _ => FeedbackKind::Unspecified,
    }
}

/// Whether the words say that there is no such recipient.
pub fn is_unknown(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    UNKNOWN.iter().any(|phrase| text.contains(phrase))
}

/// The first enhanced status in a text, as `5.1.1`.
pub fn code_in(text: &str) -> Option<&str> {
    words(text).find(|word| parts(word).is_some())
}

fn enhanced_in(text: &str) -> Option<(u8, &str, &str)> {
    words(text).find_map(parts)
}

/// What may be a code, with the signs around it gone: `(5.1.1)`, `#5.1.1`, `550-5.1.1`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.len() >= 5)
}

/// Class, subject and detail (RFC 3463 section 2).
fn parts(code: &str) -> Option<(u8, &str, &str)> {
    let mut parts = code.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_code = matches!(class, "2" | "4" | "5") && is_number(subject) && is_number(detail) && parts.next().is_none();
    is_code.then(|| (class.as_bytes()[0], subject, detail))
}

/// The class of a reply code (RFC 5321 section 4.2.1) that begins the text or a line of it, or stands behind `said:` or `error:`.
fn basic_class(text: &str) -> Option<u8> {
    let begins = text.lines().chain(text.match_indices(": ").map(|(at, _)| &text[at + 2..]));
    begins.map(str::trim_start).find_map(|line| {
        let code = line.as_bytes().get(..3)?;
        let is_code = matches!(code[0], b'4' | b'5') && matches!(code[1], b'0'..=b'5') && code[2].is_ascii_digit();
        let ends = line.as_bytes().get(3).is_none_or(|next| matches!(next, b' ' | b'-'));
        (is_code && ends).then(|| code[0])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_say_is_understood() {
        use FeedbackKind::{Hard, Soft, Unspecified};
        for (code, text, kind) in [
            ("5.1.1", "550 5.1.1 <bob@far.example>: Recipient address rejected: User unknown", Hard),
            ("", "550-5.1.1 The email account that you tried to reach does not exist.", Hard),
            ("", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", Hard),
            ("5.0.0", "550 No such user here", Hard),
            ("", "550 Unknown user", Hard),
            ("", "host mx.far.example said: 550 No such user (in reply to RCPT TO command)", Hard),
            ("5.2.1", "550 5.2.1 The email account that you tried to reach is inactive.", Hard),
            ("5.2.2", "552 5.2.2 mailbox full", Soft),
            ("5.7.1", "550 5.7.1 Message rejected as spam; user unknown to our filters", Soft),
            ("5.1.8", "550 5.1.8 Sender address rejected: Domain not found", Soft),
            ("5.4.7", "given up after 5 days", Soft),
            ("4.1.1", "450 4.1.1 user unknown for now", Soft),
            ("", "421 closing", Soft),
            ("", "554 delivery error", Soft),
            ("", "I am on holiday until 5.1. and read my mail then", Unspecified),
            ("", "Your order 550 was sent", Unspecified),
            ("2.0.0", "250 2.0.0 OK", Unspecified),
            ("", "", Unspecified),
        ] {
            assert_eq!(of_reply(code, text), kind, "{code:?} {text:?}");
        }
    }

    #[test]
    fn codes_are_found() {
        assert_eq!(code_in("smtp; 550-5.1.1 (nobody)"), Some("5.1.1"));
        assert_eq!(code_in("#5.4.4 no route"), Some("5.4.4"));
        for text in ["version 15.1.1", "10.0.0.1", "5.1", "6.1.1", "5.1.1.1", ""] {
            assert_eq!(code_in(text), None, "{text:?}");
        }
    }
}
