//! What came to a return path of ours: a report, or one of the many letters that hosts write instead of one.
//!
//! Whoever it comes from, it is about a message that was sent: the return path is the proof of that, not what is read here. Read is only what
//! it means for whom, and in doubt nothing: an answer that somebody wrote or had his program write is no bounce.

use postrider_api::feedback::{code_in, is_unknown, of_reply};
use postrider_api::limit::{FEEDBACK_ADDRESSES_MAX, FEEDBACK_DETAIL_BYTES_MAX, FEEDBACK_ITEMS_MAX};
use postrider_api::pb::{Feedback, FeedbackKind, FeedbackSource};

use super::fields;
use super::read::{Complaint, ReadRecipient, read_delivery_report};
use crate::charset::to_text;
use crate::decode::decoded_head;
use crate::html::html_to_text;
use crate::structure::{self, Structure};
use crate::text::in_line;

/// Bytes of the header that are looked at.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a letter's text that are looked at: what a host has to say stands at its beginning.
const TEXT_BYTES_MAX: usize = 32 * 1024;
/// An address, bytes (RFC 5321 section 4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;
/// Who writes letters of hosts, in lower case: the beginnings of local parts.
const HOSTS: [&str; 5] = ["mailer-daemon", "postmaster", "mdaemon", "mail-daemon", "bounce"];
/// What they are about, in lower case.
const SUBJECTS: [&str; 10] = [
    "undeliver",
    "delivery status",
    "delivery fail",
    "delivery has failed",
    "delivery notification",
    "failure notice",
    "mail delivery",
    "returned mail",
    "returned to sender",
    "could not be delivered",
];
/// Where the message itself begins that is given back, in lower case.
const COPIES: [&str; 4] = ["copy of the message", "original message", "return-path:", "received: from"];

/// What a message that came to a return path says, of each recipient it names; nothing where it is no bounce.
pub fn returned(raw: &[u8]) -> Vec<Feedback> {
    match read_delivery_report(raw) {
        Some(report) => report.recipients.iter().filter_map(of_report).take(FEEDBACK_ITEMS_MAX).collect(),
        None => of_letter(raw).into_iter().collect(),
    }
}

/// What a complaint says; nothing of one that is none, or that is withdrawn (`not-spam`, RFC 6430).
pub fn complained(complaint: &Complaint) -> Option<Feedback> {
    if matches!(complaint.kind.as_str(), "not-spam" | "auth-failure" | "dmarc") {
        return None;
    }
    Some(Feedback {
        kind: FeedbackKind::Complaint.into(),
        source: FeedbackSource::Complaint.into(),
        addresses: complaint.recipients.iter().take(FEEDBACK_ADDRESSES_MAX).cloned().collect(),
        code: String::new(),
        detail: in_line(&complaint.kind, FEEDBACK_DETAIL_BYTES_MAX),
    })
}

fn of_report(recipient: &ReadRecipient) -> Option<Feedback> {
    // RFC 3464 section 2.3.3: whoever is delayed is tried again, and who has it has it.
    if recipient.action != "failed" {
        return None;
    }
    let ReadRecipient { address, original, status, diagnostic, .. } = recipient;
    // What the host said itself is closer to it than what the reporter makes of it, where it says anything.
    let said = code_in(diagnostic).unwrap_or(status);
    let kind = match of_reply(said, diagnostic) {
        FeedbackKind::Unspecified => FeedbackKind::Soft,
        kind => kind,
    };
    let addresses = [address, original].into_iter().filter(|address| !address.is_empty()).cloned().collect();
    Some(feedback(kind, FeedbackSource::Report, addresses, said, diagnostic))
}

fn of_letter(raw: &[u8]) -> Option<Feedback> {
    let headers = fields::groups(&raw[..raw.len().min(HEADER_BYTES_MAX)], 1);
    let header = headers.first()?;
    let value = |name| header.value(name).unwrap_or_default().to_ascii_lowercase();
    let (from, subject) = (value("From"), value("Subject"));
    let is_of_host = is_host(&from)
        || header.value("X-Failed-Recipients").is_some()
        || SUBJECTS.iter().any(|words| subject.contains(words));
    // RFC 3834 section 5: somebody's program answers.
    let is_answer = value("Auto-Submitted").contains("auto-replied")
        || header.value("X-Autoreply").is_some()
        || header.value("X-Autorespond").is_some()
        || value("Precedence").contains("auto_reply");
    if is_answer && !is_of_host {
        return None;
    }
    let text = text(raw)?;
    let own = text.lines().take_while(|line| {
        let line = line.to_ascii_lowercase();
        !COPIES.iter().any(|copy| line.contains(copy))
    });
    let own: Vec<&str> = own.collect();
    let refusal = own.iter().enumerate().find_map(|(at, line)| {
        let kind = of_reply("", line);
        // A reply goes on in the next line where the letter is narrow.
        let said = || [*line, own.get(at + 1).copied().unwrap_or_default()].join(" ");
        (kind != FeedbackKind::Unspecified).then(said)
    });
    let unknown = || own.iter().find(|line| is_unknown(line)).map(|line| (FeedbackKind::Hard, (*line).to_owned()));
    let (kind, said) = match refusal {
        // Many numbers look like codes; in a host's letter they are.
        Some(said) if is_of_host || code_in(&said).is_some() => (of_reply("", &said), said),
        _ if is_of_host => unknown().unwrap_or_else(|| (FeedbackKind::Soft, subject.clone())),
        _ => return None,
    };
    let failed = header.values("X-Failed-Recipients").flat_map(addresses_in);
    let mut named: Vec<String> = failed.chain(own.iter().flat_map(|line| addresses_in(line))).collect();
    let mut seen = std::collections::HashSet::new();
    named.retain(|address| seen.insert(address.to_lowercase()));
    named.truncate(FEEDBACK_ADDRESSES_MAX);
    Some(feedback(kind, FeedbackSource::ReturnPath, named, code_in(&said).unwrap_or_default(), &said))
}

/// Whether the address of a From field, in lower case, is one that hosts write with.
fn is_host(from: &str) -> bool {
    let address = from.rsplit_once('<').map_or(from, |(_, address)| address);
    HOSTS.iter().any(|host| address.trim_start().starts_with(host))
}

fn feedback(kind: FeedbackKind, source: FeedbackSource, addresses: Vec<String>, code: &str, said: &str) -> Feedback {
    // RFC 3463 section 2: class, subject and detail of at most three digits.
    let code = if code_in(code) == Some(code) { code } else { "" };
    Feedback {
        kind: kind.into(),
        source: source.into(),
        addresses,
        code: code.to_owned(),
        detail: in_line(said, FEEDBACK_DETAIL_BYTES_MAX),
    }
}

/// The first text of a message.
fn text(raw: &[u8]) -> Option<String> {
    let Structure { nodes, .. } = structure::parse(raw);
    let node = nodes.iter().find(|node| node.header.content_type.starts_with("text/"))?;
    let bytes = decoded_head(node.header.encoding, &raw[node.body.clone()], TEXT_BYTES_MAX);
    let text = to_text(&bytes, &node.header.charset);
    Some(match node.header.content_type == "text/html" {
        true => html_to_text(&text),
        false => text.into_owned(),
    })
}

/// What looks like an address.
fn addresses_in(line: &str) -> impl Iterator<Item = String> {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "<>()[]\"',;".contains(c);
    let is_address = |word: &&str| {
        let (local, domain) = word.rsplit_once('@').unwrap_or_default();
        !local.is_empty() && domain.contains('.') && word.len() <= ADDRESS_BYTES_MAX
    };
    line.split(ends).map(|word| word.trim_end_matches(['.', ':', '?', '!'])).filter(is_address).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(header: &str, text: &str) -> Vec<Feedback> {
        returned(format!("{header}\r\nContent-Type: text/plain\r\n\r\n{}", text.replace('\n', "\r\n")).as_bytes())
    }

    fn kinds(found: &[Feedback]) -> Vec<FeedbackKind> {
        found.iter().map(Feedback::kind).collect()
    }

    #[test]
    fn reports_say_who_failed_and_of_the_others_nothing() {
        let block = |address: &str, action: &str, status: &str, said: &str| {
            format!(
                "\r\nFinal-Recipient: rfc822; {address}\r\nAction: {action}\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {said}\r\n"
            )
        };
        let raw = format!(
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n\
             --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.far.example\r\n{}{}{}{}--b--\r\n",
            block("Bob@far.example", "failed", "5.1.1", "550 5.1.1 nobody"),
            block("cleo@far.example", "failed", "5.0.0", "552 5.2.2 mailbox full"),
            block("dan@far.example", "delayed", "4.4.1", "no answer"),
            block("eve@far.example", "delivered", "2.0.0", "ok"),
        );
        let found = returned(raw.as_bytes());
        assert_eq!(kinds(&found), [FeedbackKind::Hard, FeedbackKind::Soft]);
        assert_eq!((found[0].addresses[0].as_str(), found[0].code.as_str()), ("Bob@far.example", "5.1.1"));
        assert_eq!((found[1].code.as_str(), found[1].source()), ("5.2.2", FeedbackSource::Report));
    }

    #[test]
    fn letters_of_hosts_are_understood() {
        let qmail = letter(
            "From: MAILER-DAEMON@far.example\r\nSubject: failure notice",
            "Hi. This is the qmail-send program at far.example.\nI'm afraid I wasn't able to deliver your message to the following addresses.\n\n\
             <bob@far.example>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n--- Below this line is a copy of the message.\n\n\
             To: cleo@far.example\n",
        );
        assert_eq!(kinds(&qmail), [FeedbackKind::Hard]);
        assert_eq!(qmail[0].addresses, ["bob@far.example"]);
        assert_eq!((qmail[0].code.as_str(), qmail[0].source()), ("5.1.1", FeedbackSource::ReturnPath));
        let exim = letter(
            "From: Mail Delivery System <Mailer-Daemon@mx.far.example>\r\nX-Failed-Recipients: bob@far.example\r\nAuto-Submitted: auto-replied",
            "A message that you sent could not be delivered.\n\n  bob@far.example\n    SMTP error from remote mail server after RCPT TO:<bob@far.example>:\n    550 No such user\n",
        );
        assert_eq!(kinds(&exim), [FeedbackKind::Hard]);
        let full =
            letter("From: postmaster@far.example\r\nSubject: x", "452 4.2.2 The mailbox of bob@far.example is full.\n");
        assert_eq!(kinds(&full), [FeedbackKind::Soft]);
        let plain = letter("Subject: Undeliverable: Hello", "The recipient does not want to say why.\n");
        assert_eq!(kinds(&plain), [FeedbackKind::Soft]);
        let words = letter("Subject: Returned mail", "There is no such user: bob@far.example.\n");
        assert_eq!(kinds(&words), [FeedbackKind::Hard]);
        let html = returned(
            b"From: <mailer-daemon@far.example>\r\nContent-Type: text/html\r\n\r\n<p>550 5.1.1 &lt;bob@far.example&gt; <b>unknown user</b></p>",
        );
        assert_eq!((kinds(&html), html[0].addresses[0].as_str()), (vec![FeedbackKind::Hard], "bob@far.example"));
    }

    #[test]
    fn answers_are_no_bounces() {
        for (header, text) in [
            (
                "From: bob@far.example\r\nAuto-Submitted: auto-replied\r\nSubject: On holiday",
                "I am back on 5.1.1 or so.\n",
            ),
            ("From: bob@far.example\r\nSubject: Re: Hello", "Thank you. Order 550 5000 has come.\n"),
            ("From: bob@far.example\r\nPrecedence: auto_reply\r\nSubject: Ticket", "550 5.1.1 nobody\n"),
            ("From: bob@far.example\r\nSubject: x", ""),
        ] {
            assert_eq!(letter(header, text), [], "{header}");
        }
        assert_eq!(returned(b""), []);
    }

    #[test]
    fn what_is_endless_is_bounded() {
        let text = "bob@far.example 550 5.1.1 x ".repeat(100_000);
        let found = letter("From: mailer-daemon@far.example", &text);
        assert_eq!(found[0].addresses.len(), 1);
        assert!(found[0].detail.len() <= FEEDBACK_DETAIL_BYTES_MAX);
        let many: String = (0..1000).map(|n| format!("b{n}@far.example\n")).collect();
        let found = letter("From: mailer-daemon@far.example", &format!("550 5.1.1 x\n{many}"));
        assert_eq!(found[0].addresses.len(), FEEDBACK_ADDRESSES_MAX);
    }
}
