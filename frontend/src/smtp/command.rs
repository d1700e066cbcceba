//! What a command line says. The grammar is smtp-proto's; what it is more generous about than this server may be is checked
//! here, on lines that [`super::line`] has cut.
//!
//! Three things are read here and not by smtp-proto 0.2.5: the size of BDAT, because it reads a number of more than 19 digits
//! wrongly, and then chunk and commands would be confused; the text of a path, because it drops quotes and takes `<postmaster>`
//! for `<>`; and address literals, because it knows none.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use postrider_api::notify::Notify;
use postrider_api::pb::ReturnContent;
use smtp_proto::{
    Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_REQUIRETLS, MAIL_RET_FULL, MAIL_RET_HDRS,
    MAIL_SMTPUTF8, MailFrom, RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, RcptTo,
    Request,
};

use super::limit::{ENVELOPE_ID_BYTES_MAX, ORIGINAL_BYTES_MAX, SENDER_BYTES_MAX};
use super::reply::Reply;

/// What stands before an IPv6 address in a literal.
const IPV6_TAG: &str = "IPv6:";

/// A command that this server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO or EHLO.
    Hello {
        /// What the client calls itself.
        host: String,
        /// Whether it was EHLO.
        extended: bool,
    },
    /// MAIL.
    Mail {
        /// The reverse-path without angle brackets and source route; empty for the null reverse-path.
        path: String,
        /// SIZE, bytes; 0 without.
        size: u64,
        /// SMTPUTF8.
        utf8: bool,
        /// What submission takes beyond that.
        wishes: Wishes,
    },
    /// RCPT.
    Rcpt(Path, Reports),
    /// AUTH (RFC 4954).
    Auth {
        /// In upper case.
        mechanism: String,
        /// The initial response, as it came; `None` without.
        initial: Option<String>,
    },
    /// DATA.
    Data,
    /// BDAT.
    Chunk {
        /// Bytes.
        size: u64,
        /// LAST.
        last: bool,
    },
    /// STARTTLS.
    StartTls,
    /// RSET.
    Reset,
    /// NOOP.
    Noop,
    /// HELP.
    Help,
    /// VRFY.
    Verify,
    /// EXPN.
    Expand,
    /// QUIT.
    Quit,
    /// A command of some RFC that is not carried out here.
    NotImplemented,
}

/// What a submission may ask for with MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// ENVID (RFC 3461 section 4.4) as given, xtext; empty: none.
    pub envelope_id: String,
    /// RET (RFC 3461 section 4.3).
    pub return_content: ReturnContent,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// AUTH= (RFC 4954 section 5): who wrote it, of which nothing is believed.
    pub author: bool,
}

/// What a submission may ask for with RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// NOTIFY (RFC 3461 section 4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 section 4.2) as given; empty: none.
    pub original: String,
}

/// Who RCPT names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
    /// An address, as given but without quotes that are not needed.
    Mailbox(String),
}

/// Reads one line, CRLF included.
///
/// # Errors
/// The reply that says what is wrong with it. [`Reply::ChunkSyntax`] must end the connection, since nobody knows where the
/// chunk ends, and so must [`Reply::NotSmtp`].
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let text = printable(line)?;
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    match verb.to_ascii_uppercase().as_str() {
        "BDAT" => chunk(rest),
        // RFC 5321 section 4.1.1 and RFC 3207 section 4: these take no parameter.
        "DATA" | "RSET" | "QUIT" | "STARTTLS" if !rest.trim().is_empty() => Err(Reply::Syntax),
        "AUTH" => auth(rest),
        "ETRN" | "ATRN" | "TURN" | "BURL" | "LHLO" | "SEND" | "SOML" | "SAML" => Ok(Command::NotImplemented),
        "GET" | "POST" | "PUT" | "CONNECT" => Err(Reply::NotSmtp),
        "EXPN" => Ok(Command::Expand),
        "VRFY" if rest.trim().is_empty() => Err(Reply::Syntax),
        "VRFY" => Ok(Command::Verify),
        "MAIL" | "RCPT" => match without_literal(text) {
            Some(named) => request(named.as_bytes(), text, verb),
            None => request(line, text, verb),
        },
        _ => request(line, text, verb),
    }
}

/// `line` is for the grammar, `text` is what was said.
fn request(line: &[u8], text: &str, verb: &str) -> Result<Command, Reply> {
    match Request::parse(&mut line.iter()) {
        Ok(request) => command(request, text),
        Err(error) => Err(refusal(&error, verb)),
    }
}

/// The line with a name in place of an address literal (RFC 5321 section 4.1.3), when its path has one.
fn without_literal(text: &str) -> Option<String> {
    let path = path_text(text)?;
    let literal = path.rsplit_once('@')?.1;
    let address = literal.strip_prefix('[')?.strip_suffix(']')?;
    let valid = match address.split_at_checked(IPV6_TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(IPV6_TAG) => address.parse::<Ipv6Addr>().is_ok(),
        _ => address.parse::<Ipv4Addr>().is_ok(),
    };
    valid.then(|| text.replacen(literal, "literal.invalid", 1) + "\r\n")
}

fn command(request: Request<Cow<'_, str>>, line: &str) -> Result<Command, Reply> {
    match request {
        Request::Ehlo { host } => hello(&host, true),
        Request::Helo { host } => hello(&host, false),
        Request::Mail { from } => mail(&from, line),
        Request::Rcpt { to } => rcpt(&to, line),
        Request::Data => Ok(Command::Data),
        Request::StartTls => Ok(Command::StartTls),
        Request::Rset => Ok(Command::Reset),
        Request::Noop { .. } => Ok(Command::Noop),
        Request::Help { .. } => Ok(Command::Help),
        Request::Quit => Ok(Command::Quit),
        Request::Vrfy { .. } => Ok(Command::Verify),
        Request::Expn { .. } => Ok(Command::Expand),
        Request::Lhlo { .. }
        | Request::Bdat { .. }
        | Request::Auth { .. }
        | Request::Etrn { .. }
        | Request::Atrn { .. }
        | Request::Burl { .. } => Ok(Command::NotImplemented),
    }
}

fn refusal(error: &Error, verb: &str) -> Reply {
    match error {
        Error::UnknownCommand => Reply::UnknownCommand,
        Error::UnsupportedParameter { .. } => Reply::ParameterUnknown,
        Error::InvalidSenderAddress => Reply::SenderSyntax,
        Error::InvalidRecipientAddress => Reply::RecipientSyntax,
        Error::SyntaxError { .. } if verb.eq_ignore_ascii_case("MAIL") => Reply::SenderSyntax,
        Error::SyntaxError { .. } if verb.eq_ignore_ascii_case("RCPT") => Reply::RecipientSyntax,
        Error::SyntaxError { .. } if is_hello(verb) => Reply::HelloSyntax,
        Error::SyntaxError { .. }
        | Error::InvalidParameter { .. }
        | Error::NeedsMoreData { .. }
        | Error::ResponseTooLong
        | Error::InvalidResponse { .. } => Reply::Syntax,
    }
}

fn is_hello(verb: &str) -> bool {
    verb.eq_ignore_ascii_case("EHLO") || verb.eq_ignore_ascii_case("HELO")
}

/// The line without its CRLF, when it is UTF-8 (RFC 6531 section 3.4) without control characters.
fn printable(line: &[u8]) -> Result<&str, Reply> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| Reply::LineMalformed)?;
    if text.chars().any(|c| c.is_control() && c != '\t') { Err(Reply::LineMalformed) } else { Ok(text) }
}

/// RFC 3030 section 2: `BDAT SP chunk-size [SP LAST]`.
fn chunk(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let size = words
        .next()
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|word| word.parse().ok())
        .ok_or(Reply::ChunkSyntax)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Chunk { size, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => Ok(Command::Chunk { size, last: true }),
        _ => Err(Reply::ChunkSyntax),
    }
}

/// RFC 4954 section 4: `AUTH SP mechanism [SP initial-response]`.
fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let mechanism = words.next().filter(is_name).ok_or(Reply::Syntax)?.to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() {
        return Err(Reply::Syntax);
    }
    Ok(Command::Auth { mechanism, initial })
}

/// The value of a parameter behind the path, as it came.
fn parameter<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = split_path(line)?;
    let value = |word: &'a str| {
        let (key, value) = word.split_once('=')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    };
    behind.split_ascii_whitespace().find_map(value)
}

/// RFC 3461 section 4: what stands in xtext, and how much of it.
fn xtext(value: Option<&str>, bytes_max: usize) -> Result<String, Reply> {
    let Some(value) = value else { return Ok(String::new()) };
    let mut bytes = value.bytes();
    let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'+' => is_digit(bytes.next()) && is_digit(bytes.next()),
            byte => byte.is_ascii_graphic() && byte != b'=',
        };
        if !fits {
            return Err(Reply::Syntax);
        }
    }
    if value.is_empty() || value.len() > bytes_max { Err(Reply::Syntax) } else { Ok(value.to_owned()) }
}

/// A name or an address literal (RFC 5321 section 4.1.3). Underscores are against the rules and common.
fn hello(host: &str, extended: bool) -> Result<Command, Reply> {
    let fits = |c: char| c.is_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return Err(Reply::HelloSyntax);
    }
    Ok(Command::Hello { host: host.to_owned(), extended })
}

fn mail(from: &MailFrom<Cow<'_, str>>, line: &str) -> Result<Command, Reply> {
    if from.flags & MAIL_BODY_BINARYMIME != 0 {
        return Err(Reply::BinaryUnavailable);
    }
    let offered = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8 | MAIL_REQUIRETLS | MAIL_RET_FULL | MAIL_RET_HDRS;
    let foreign = from.flags & !offered != 0
        || from.trans_id.is_some()
        || from.by != 0
        || from.solicit.is_some()
        || from.mtrk.is_some()
        || from.hold_for != 0
        || from.hold_until != 0
        || from.mt_priority != 0;
    if foreign {
        return Err(Reply::ParameterUnknown);
    }
    let path = path_text(line).ok_or(Reply::SenderSyntax)?;
    // smtp-proto gives "" for `<postmaster>`: a reverse-path has a domain or is null.
    if from.address.is_empty() != path.is_empty() {
        return Err(Reply::SenderSyntax);
    }
    if path.len() > SENDER_BYTES_MAX {
        return Err(Reply::SenderTooLong);
    }
    let utf8 = from.flags & MAIL_SMTPUTF8 != 0;
    if !utf8 && !path.is_ascii() {
        return Err(Reply::Utf8Unannounced);
    }
    let return_content = match from.flags & (MAIL_RET_FULL | MAIL_RET_HDRS) {
        0 => ReturnContent::Unspecified,
        MAIL_RET_FULL => ReturnContent::Full,
        MAIL_RET_HDRS => ReturnContent::Headers,
        // Both.
        _ => return Err(Reply::Syntax),
    };
    let wishes = Wishes {
        envelope_id: xtext(parameter(line, "ENVID"), ENVELOPE_ID_BYTES_MAX)?,
        return_content,
        require_tls: from.flags & MAIL_REQUIRETLS != 0,
        author: from.auth.is_some(),
    };
    Ok(Command::Mail { path: path.to_owned(), size: from.size as u64, utf8, wishes })
}

fn rcpt(to: &RcptTo<Cow<'_, str>>, line: &str) -> Result<Command, Reply> {
    let offered = RCPT_NOTIFY_NEVER | RCPT_NOTIFY_SUCCESS | RCPT_NOTIFY_FAILURE | RCPT_NOTIFY_DELAY;
    if to.flags & !offered != 0 || to.rrvs != 0 {
        return Err(Reply::ParameterUnknown);
    }
    let reports = reports(to, line)?;
    let path = path_text(line);
    if !to.address.is_empty() {
        // A literal was replaced for the grammar; no mailbox of ours has one, so what is said of it is RCPT's answer.
        let literal = path.filter(|path| path.ends_with(']'));
        return Ok(Command::Rcpt(Path::Mailbox(literal.unwrap_or(&to.address).to_owned()), reports));
    }
    match path {
        Some(path) if path.eq_ignore_ascii_case("postmaster") => Ok(Command::Rcpt(Path::Postmaster, reports)),
        _ => Err(Reply::RecipientSyntax),
    }
}

fn reports(to: &RcptTo<Cow<'_, str>>, line: &str) -> Result<Reports, Reply> {
    let asked = [
        (RCPT_NOTIFY_NEVER, Notify::NEVER),
        (RCPT_NOTIFY_SUCCESS, Notify::SUCCESS),
        (RCPT_NOTIFY_FAILURE, Notify::FAILURE),
        (RCPT_NOTIFY_DELAY, Notify::DELAY),
    ];
    let of = |notify: Notify, (flag, one): &(u64, Notify)| if to.flags & flag != 0 { notify | *one } else { notify };
    let notify = asked.iter().fold(Notify::default(), of);
    if !notify.is_valid() {
        // RFC 3461 section 4.1: NEVER stands alone.
        return Err(Reply::Syntax);
    }
    let original = match parameter(line, "ORCPT") {
        None => String::new(),
        Some(original) => {
            let (kind, address) = original.split_once(';').ok_or(Reply::Syntax)?;
            xtext(Some(address), ORIGINAL_BYTES_MAX)?;
            format!("{};{address}", kind.to_ascii_lowercase())
        }
    };
    Ok(Reports { notify, original })
}

/// What stands between the angle brackets, without a source route (RFC 5321 appendix F.2: ignored).
fn path_text(line: &str) -> Option<&str> {
    let path = split_path(line)?.0.trim();
    if path.starts_with('@') { path.split_once(':').map(|(_, path)| path) } else { Some(path) }
}

/// What stands between the angle brackets, and what behind them.
fn split_path(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once('<')?;
    let mut quoted = false;
    let mut escaped = false;
    let end = rest.char_indices().find(|(_, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return true,
            _ => {}
        }
        false
    });
    let end = end?.0;
    Some((&rest[..end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Command, Reply> {
        parse(format!("{text}\r\n").as_bytes())
    }

    fn mail_of(path: &str, size: u64, utf8: bool) -> Result<Command, Reply> {
        Ok(Command::Mail { path: path.to_owned(), size, utf8, wishes: Wishes::default() })
    }

    fn rcpt_of(path: Path) -> Result<Command, Reply> {
        Ok(Command::Rcpt(path, Reports::default()))
    }

    #[test]
    fn senders() {
        assert_eq!(line("MAIL FROM:<>"), mail_of("", 0, false));
        assert_eq!(line("mail from:<a@b.example> SIZE=100 BODY=8BITMIME"), mail_of("a@b.example", 100, false));
        assert_eq!(line("MAIL FROM: <a@b.example>"), mail_of("a@b.example", 0, false));
        assert_eq!(line("MAIL FROM:<\"a > b\"@c.example>"), mail_of("\"a > b\"@c.example", 0, false));
        assert_eq!(line("MAIL FROM:<@x.example,@y.example:a@b.example>"), mail_of("a@b.example", 0, false));
        assert_eq!(line("MAIL FROM:<a@[192.0.2.1]> SIZE=1"), mail_of("a@[192.0.2.1]", 1, false));
        assert_eq!(line("MAIL FROM:<a@[ipv6:2001:db8::1]>"), mail_of("a@[ipv6:2001:db8::1]", 0, false));
        assert_eq!(line("MAIL FROM:<a@[192.0.2.256]>"), Err(Reply::SenderSyntax));
        assert_eq!(line("MAIL FROM:<ü@b.example> SMTPUTF8"), mail_of("ü@b.example", 0, true));
        assert_eq!(line("MAIL FROM:<ü@b.example>"), Err(Reply::Utf8Unannounced));
        assert_eq!(line("MAIL FROM:<a@b.example> BODY=BINARYMIME"), Err(Reply::BinaryUnavailable));
        assert_eq!(line("MAIL FROM:<a@b.example> XYZ=1"), Err(Reply::ParameterUnknown));
        assert_eq!(line("MAIL FROM:<a@b.example> SIZE=x"), Err(Reply::Syntax));
        for text in [
            "MAIL",
            "MAIL a@b.example",
            "MAIL FROM:a@b.example",
            "MAIL FROM:<a@b.example",
            "MAIL FROM:<postmaster>",
            "MAIL FROM:<a>",
        ] {
            assert_eq!(line(text), Err(Reply::SenderSyntax), "{text}");
        }
    }

    #[test]
    fn long_senders() {
        // Empty quotes count for nothing where the grammar bounds a local part, and for everything in the path.
        let path = |bytes: usize| {
            let rest = bytes - "a@b.example".len();
            format!("{}{}@b.example", "a".repeat(1 + rest % 2), "\"\"".repeat(rest / 2))
        };
        let longest = path(SENDER_BYTES_MAX);
        assert_eq!(longest.len(), SENDER_BYTES_MAX);
        assert_eq!(line(&format!("MAIL FROM:<{longest}>")), mail_of(&longest, 0, false));
        for bytes in [SENDER_BYTES_MAX + 1, 2000] {
            assert_eq!(line(&format!("MAIL FROM:<{}>", path(bytes))), Err(Reply::SenderTooLong), "{bytes}");
        }
    }

    #[test]
    fn recipients() {
        assert_eq!(line("RCPT TO:<Postmaster>"), rcpt_of(Path::Postmaster));
        assert_eq!(line("RCPT TO:<\"ada\"@b.example>"), rcpt_of(Path::Mailbox("ada@b.example".to_owned())));
        let literal = "a@[192.0.2.1]".to_owned();
        assert_eq!(line("RCPT TO:<a@[192.0.2.1]>"), rcpt_of(Path::Mailbox(literal)));
        for text in ["RCPT TO:<>", "RCPT TO:", "RCPT", "RCPT TO:<a@b@c>", "RCPT TO:<a>"] {
            assert_eq!(line(text), Err(Reply::RecipientSyntax), "{text}");
        }
    }

    #[test]
    fn what_submissions_ask_for() {
        let asked = line("MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ+2B31 REQUIRETLS AUTH=<> SIZE=7");
        let wishes = Wishes {
            envelope_id: "QQ+2B31".to_owned(),
            return_content: ReturnContent::Headers,
            require_tls: true,
            author: true,
        };
        assert_eq!(asked, Ok(Command::Mail { path: "a@b.example".to_owned(), size: 7, utf8: false, wishes }));
        assert_eq!(line("MAIL FROM:<a@b.example> RET=FULL RET=HDRS"), Err(Reply::Syntax));
        assert_eq!(line(&format!("MAIL FROM:<a@b.example> ENVID={}", "x".repeat(101))), Err(Reply::Syntax));
        let asked = line("RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@b.example");
        let reports =
            Reports { notify: Notify::SUCCESS | Notify::DELAY, original: "rfc822;Bob+2Bx@b.example".to_owned() };
        assert_eq!(asked, Ok(Command::Rcpt(Path::Mailbox("a@b.example".to_owned()), reports)));
        for bad in ["NOTIFY=NEVER,DELAY", "NOTIFY=", "NOTIFY=SOMETIMES", "ORCPT=rfc822", "ORCPT=rfc822;a+b"] {
            assert_eq!(line(&format!("RCPT TO:<a@b.example> {bad}")), Err(Reply::Syntax), "{bad}");
        }
        let auth = |mechanism: &str, initial: Option<&str>| {
            Ok(Command::Auth { mechanism: mechanism.to_owned(), initial: initial.map(str::to_owned) })
        };
        assert_eq!(line("auth plain AGE="), auth("PLAIN", Some("AGE=")));
        assert_eq!(line("AUTH SCRAM-SHA-256"), auth("SCRAM-SHA-256", None));
        assert_eq!(line("AUTH LOGIN ="), auth("LOGIN", Some("=")));
        for bad in ["AUTH", "AUTH PLAIN a b", "AUTH PL@IN"] {
            assert_eq!(line(bad), Err(Reply::Syntax), "{bad}");
        }
    }

    #[test]
    fn chunks() {
        assert_eq!(line("BDAT 10"), Ok(Command::Chunk { size: 10, last: false }));
        assert_eq!(line("bdat 0 last"), Ok(Command::Chunk { size: 0, last: true }));
        for text in
            ["BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 1 LAST x", "BDAT 1 FIRST", "BDAT 99999999999999999999999"]
        {
            assert_eq!(line(text), Err(Reply::ChunkSyntax), "{text}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(line("EHLO x.example"), Ok(Command::Hello { host: "x.example".to_owned(), extended: true }));
        assert_eq!(line("HELO [IPv6:::1]"), Ok(Command::Hello { host: "[IPv6:::1]".to_owned(), extended: false }));
        assert_eq!(line("EHLO"), Err(Reply::HelloSyntax));
        assert_eq!(line("EHLO (x)"), Err(Reply::HelloSyntax));
        assert_eq!(line("DATA now"), Err(Reply::Syntax));
        assert_eq!(line("STARTTLS x"), Err(Reply::Syntax));
        assert_eq!(line("TURN"), Ok(Command::NotImplemented));
        assert_eq!(line("EXPN list"), Ok(Command::Expand));
        assert_eq!(line("VRFY"), Err(Reply::Syntax));
        assert_eq!(line("VRFY x"), Ok(Command::Verify));
        assert_eq!(line("NOOP anything"), Ok(Command::Noop));
        assert_eq!(line("HELP"), Ok(Command::Help));
        assert_eq!(line("GET / HTTP/1.1"), Err(Reply::NotSmtp));
        assert_eq!(line("WIZ"), Err(Reply::UnknownCommand));
        assert_eq!(line(""), Err(Reply::UnknownCommand));
        assert_eq!(line("NOOP \0"), Err(Reply::LineMalformed));
        assert_eq!(parse(b"NOOP \xff\r\n"), Err(Reply::LineMalformed));
    }
}
