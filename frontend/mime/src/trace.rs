//! The header fields that SMTP puts on top of a message: `Return-Path:` and `Received:` (RFC 5321 section 4.4).
//!
//! Invariant: whatever a client said, each function gives exactly one header field, and lines of at most 998 bytes.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;

/// A word that a client gave, as it goes into a trace field, bytes.
const WORD_BYTES_MAX: usize = 255;

/// What one SMTP transaction knows about itself.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client said in EHLO or HELO.
    pub helo: &'a str,
    /// The client's name by reverse look-up, where that was done.
    pub client_name: Option<&'a str>,
    /// The client's address.
    pub client_ip: IpAddr,
    /// This host.
    pub by: &'a str,
    /// How the message was handed over.
    pub protocol: Protocol,
    /// What the logs call the transaction.
    pub id: &'a str,
    /// The recipient, where there is exactly one: with several, naming one tells him about no other (RFC 5321 section 7.6).
    pub recipient: Option<&'a str>,
    /// When it arrived, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// The `with` word of a trace field (RFC 3848; RFC 6531 section 4.3 for the UTF8 forms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// EHLO rather than HELO. The others imply it.
    pub esmtp: bool,
    /// After STARTTLS, or on a port that begins with TLS.
    pub tls: bool,
    /// After AUTH.
    pub auth: bool,
    /// MAIL with SMTPUTF8.
    pub utf8: bool,
}

impl Protocol {
    /// The registered word.
    pub fn keyword(self) -> &'static str {
        match (self.utf8, self.tls, self.auth) {
            (true, false, false) => "UTF8SMTP",
            (true, false, true) => "UTF8SMTPA",
            (true, true, false) => "UTF8SMTPS",
            (true, true, true) => "UTF8SMTPSA",
            (false, false, false) if self.esmtp => "ESMTP",
            (false, false, false) => "SMTP",
            (false, false, true) => "ESMTPA",
            (false, true, false) => "ESMTPS",
            (false, true, true) => "ESMTPSA",
        }
    }
}

/// `Return-Path:` with the sender of MAIL FROM; empty for the null reverse-path.
pub fn return_path(mail_from: &str) -> String {
    format!("Return-Path: <{}>\r\n", path(mail_from))
}

/// `Received:` of one transaction, folded, with its CRLF.
pub fn received(received: &Received<'_>) -> String {
    let mut field = format!("Received: from {} (", word(received.helo));
    if let Some(name) = received.client_name {
        field.push_str(&word(name));
        field.push(' ');
    }
    // RFC 5321 section 4.1.3: an address literal names IPv6.
    let ip = match received.client_ip.to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let by = word(received.by);
    let keyword = received.protocol.keyword();
    let id = word(received.id);
    // Writing to a String cannot fail.
    let _ = write!(field, "{ip})\r\n\tby {by} with {keyword} id {id}");
    if let Some(recipient) = received.recipient {
        let _ = write!(field, "\r\n\tfor <{}>", path(recipient));
    }
    let _ = write!(field, ";\r\n\t{}\r\n", date(received.at_ms));
    field
}

/// RFC 5322 section 3.3, in UTC.
pub fn date(at_ms: i64) -> String {
    // A time outside of the years -9999..=9999 can only come from a broken clock; the epoch says so more plainly than a refusal.
    let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// One word without white space, comments or anything that would end the field.
fn word(text: &str) -> String {
    let word: String = bounded(text)
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c,
            '.' | '-' | '_' | ':' | '[' | ']' | '+' | '=' | '/' | '@' | '$' | '~' | '#' => c,
            c if !c.is_ascii() && c.is_alphanumeric() => c,
            _ => '?',
        })
        .collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

/// An address between angle brackets: what could end them, or the line, is gone.
fn path(text: &str) -> String {
    bounded(text).filter(|c| !c.is_control() && !matches!(c, '<' | '>' | '\u{2028}' | '\u{2029}')).collect()
}

fn bounded(text: &str) -> impl Iterator<Item = char> {
    let mut bytes = 0;
    text.chars().take_while(move |c| {
        bytes += c.len_utf8();
        bytes <= WORD_BYTES_MAX
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn sample<'a>(helo: &'a str, recipient: Option<&'a str>) -> Received<'a> {
        Received {
            helo,
            client_name: None,
            client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            by: "mx.postrider.example",
            protocol: Protocol { esmtp: true, tls: true, ..Protocol::default() },
            id: "1000-42",
            recipient,
            at_ms: 1_790_000_000_000,
        }
    }

    #[test]
    fn reads_as_rfc_5321_section_4_4_says() {
        assert_eq!(
            received(&sample("client.example", Some("ada@postrider.example"))),
            "Received: from client.example ([192.0.2.7])\r\n\tby mx.postrider.example with ESMTPS id 1000-42\r\n\t\
             for <ada@postrider.example>;\r\n\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
        );
        let v6 = Received { client_ip: IpAddr::V6(Ipv6Addr::LOCALHOST), ..sample("x", None) };
        assert!(received(&v6).starts_with("Received: from x ([IPv6:::1])\r\n"));
        assert_eq!(return_path(""), "Return-Path: <>\r\n");
        assert_eq!(return_path("a@b.example"), "Return-Path: <a@b.example>\r\n");
    }

    #[test]
    fn keywords_are_the_registered_ones() {
        let all = |esmtp, tls, auth, utf8| Protocol { esmtp, tls, auth, utf8 }.keyword();
        assert_eq!(all(false, false, false, false), "SMTP");
        assert_eq!(all(true, false, false, false), "ESMTP");
        assert_eq!(all(true, true, true, false), "ESMTPSA");
        assert_eq!(all(true, false, false, true), "UTF8SMTP");
        assert_eq!(all(true, true, false, true), "UTF8SMTPS");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_says_ends_the_field(helo in "\\PC*|[\\x00-\\x7f]*", to in "\\PC*|[\\x00-\\x7f]*") {
            for field in [received(&sample(&helo, Some(&to))), return_path(&to)] {
                prop_assert!(field.ends_with("\r\n"));
                let lines: Vec<&str> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
                for (at, line) in lines.iter().enumerate() {
                    prop_assert!(line.len() <= 998);
                    prop_assert!(!line.contains(['\r', '\n', '\0']));
                    prop_assert_eq!(at > 0, line.starts_with('\t'));
                }
            }
        }
    }
}
