//! Messages that we write: read back by the module itself, and by mail-parser.

use bytes::Bytes;
use futures::executor::block_on;
use mail_parser::MessageParser;
use postrider_api::id::MessageIdHash;
use postrider_api::limit::{NAME_BYTES_MAX, REFERENCES_MAX};
use postrider_api::pb;
use proptest::prelude::*;

use super::super::{Compose, ComposeAttachment, ComposeError, IngestLimits, attachment, compose, render};
use super::memory::{Memory, checked, collect, stored};

fn person(name: &str, email: &str) -> pb::Mailbox {
    pb::Mailbox { name: name.to_owned(), email: email.to_owned() }
}

fn draft() -> Compose {
    Compose {
        from: person("Ada Lovelace", "ada@postrider.example"),
        to: vec![person("안녕하세요", "kim@postrider.example"), person("", "한글@postrider.example")],
        cc: vec![person("Doe, \"John\"", "john@postrider.example")],
        bcc: vec![person("", "secret@postrider.example")],
        subject: "보고서: Zahlen für März".to_owned(),
        body: Some("Hello,\n\n안녕\r\nlast line".to_owned()),
        body_html: Some("<p>Hello, 안녕</p>".to_owned()),
        attachments: vec![
            ComposeAttachment {
                filename: "보고서.pdf".to_owned(),
                content_type: "application/pdf".to_owned(),
                content: Bytes::from_static(b"%PDF\0\r\n\n"),
            },
            ComposeAttachment {
                filename: "notes.txt".to_owned(),
                content_type: "text/plain; charset=utf-8".to_owned(),
                content: Bytes::from_static(b"one\ntwo\r\nthree\rfour"),
            },
        ],
        in_reply_to: Some("<one@x.example>".to_owned()),
        references: vec!["zero@x.example".to_owned(), "<one@x.example>".to_owned()],
        is_draft: false,
        date_ms: 1_790_000_000_000,
        message_id: "two@postrider.example".to_owned(),
    }
}

fn assert_lines(message: &[u8]) {
    assert!(message.ends_with(b"\r\n"));
    let text = String::from_utf8(message.to_vec()).expect("UTF-8");
    for line in text.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let draft = draft();
    let message = compose(&draft).unwrap();
    assert_lines(&message);
    assert_eq!(compose(&draft).unwrap(), message, "the same request gives the same bytes");
    let ingested = checked(&message, &IngestLimits::default());
    let envelope = ingested.message.envelope.clone().unwrap();
    assert_eq!(envelope.from, std::slice::from_ref(&draft.from));
    assert_eq!(envelope.to, draft.to);
    assert_eq!(envelope.cc, draft.cc);
    assert!(envelope.bcc.is_empty());
    assert_eq!(envelope.subject, draft.subject);
    assert_eq!(envelope.date_ms, Some(draft.date_ms));
    assert_eq!(envelope.message_id, draft.message_id);
    let hash = |id: &str| MessageIdHash::of(id.as_bytes()).to_bytes();
    assert_eq!(ingested.message.reference_hashes, [hash("zero@x.example"), hash("one@x.example")]);

    let record = pb::EmailRecord { parts: ingested.message.parts.clone(), ..pb::EmailRecord::default() };
    let (stored, memory) = (stored(&ingested.message), Memory::of(&ingested, 100));
    let shown = block_on(render(&record, &stored, &memory)).unwrap();
    assert_eq!(shown.text.as_deref().map(str::trim_end), Some("Hello,\r\n\r\n안녕\r\nlast line"));
    assert_eq!(shown.html.as_deref().map(str::trim_end), draft.body_html.as_deref());
    assert!(ingested.message.has_attachments);
    for (path, file) in ["2", "3"].into_iter().zip(&draft.attachments) {
        let read = block_on(attachment(&stored, path, &memory, None)).unwrap();
        assert_eq!(read.filename, file.filename);
        assert!(file.content_type.starts_with(&read.content_type));
        assert_eq!(collect(read.stream).unwrap(), file.content);
    }
}

#[test]
fn nobody_sees_the_bcc() {
    let message = String::from_utf8(compose(&draft()).unwrap()).unwrap();
    assert!(!message.to_lowercase().contains("bcc") && !message.contains("secret"));
}

#[test]
fn the_shape_is_as_small_as_it_can_be() {
    let types = |draft: &Compose| {
        let message = compose(draft).unwrap();
        let message = MessageParser::new().parse(&message).unwrap();
        message.parts.iter().map(|part| part.is_multipart()).collect::<Vec<_>>()
    };
    let mut draft = draft();
    assert_eq!(types(&draft), [true, true, false, false, false, false]);
    draft.attachments.clear();
    assert_eq!(types(&draft), [true, false, false]);
    draft.body_html = None;
    assert_eq!(types(&draft), [false]);
    draft.body = None;
    assert_eq!(types(&draft), [false]);
    draft.body_html = Some("<p>".to_owned());
    assert_eq!(types(&draft), [false]);
}

#[test]
fn a_line_break_is_refused_with_the_name_of_its_field() {
    for evil in ["a\r\nBcc: x@y.example", "a\nb", "a\rb", "a\0b", "a\u{2028}b", "a\u{85}b"] {
        let refused = |change: &dyn Fn(&mut Compose)| {
            let mut draft = draft();
            change(&mut draft);
            match compose(&draft).unwrap_err() {
                ComposeError::ControlCharacter { field }
                | ComposeError::MessageId { field }
                | ComposeError::ContentType { field }
                | ComposeError::Address { field, .. } => field,
                error @ ComposeError::TooLong { .. } => panic!("{error}"),
            }
        };
        let evil = evil.to_owned();
        assert_eq!(refused(&|draft| draft.subject = evil.clone()), "subject");
        assert_eq!(refused(&|draft| draft.from.name = evil.clone()), "from");
        assert_eq!(refused(&|draft| draft.to[0].name = evil.clone()), "to");
        assert_eq!(refused(&|draft| draft.to[0].email = format!("{evil}@x.example")), "to");
        assert_eq!(refused(&|draft| draft.cc[0].email = format!("a@x.example{evil}")), "cc");
        assert_eq!(refused(&|draft| draft.bcc[0].name = evil.clone()), "bcc");
        assert_eq!(refused(&|draft| draft.in_reply_to = Some(evil.clone())), "in_reply_to");
        assert_eq!(refused(&|draft| draft.references.push(evil.clone())), "references");
        assert_eq!(refused(&|draft| draft.message_id = evil.clone()), "message_id");
        assert_eq!(refused(&|draft| draft.attachments[0].filename = evil.clone()), "attachments.filename");
        assert_eq!(
            refused(&|draft| draft.attachments[0].content_type = format!("a/b{evil}")),
            "attachments.content_type"
        );
    }
    let nul = Compose { body: Some("a\0b".to_owned()), ..draft() };
    assert_eq!(compose(&nul), Err(ComposeError::ControlCharacter { field: "body" }));
}

#[test]
fn what_is_too_long_or_none_is_refused() {
    let long = Compose { subject: "s".repeat(1001), ..draft() };
    assert!(matches!(compose(&long), Err(ComposeError::TooLong { field: "subject", max: 1000, .. })));
    let many = Compose { to: vec![person("", "a@x.example"); 101], ..draft() };
    assert!(matches!(compose(&many), Err(ComposeError::TooLong { field: "to", max: 100, .. })));
    let name = Compose { from: person(&"n".repeat(NAME_BYTES_MAX + 1), "a@x.example"), ..draft() };
    assert!(matches!(compose(&name), Err(ComposeError::TooLong { field: "from", .. })));
    for content_type in ["pdf", "multipart/mixed", "a/", "a/b c", "multipart/Mixed; boundary=x"] {
        let mut draft = draft();
        draft.attachments[0].content_type = content_type.to_owned();
        assert_eq!(
            compose(&draft),
            Err(ComposeError::ContentType { field: "attachments.content_type" }),
            "{content_type}"
        );
    }
    let id = Compose { message_id: String::new(), ..draft() };
    assert_eq!(compose(&id), Err(ComposeError::MessageId { field: "message_id" }));
}

#[test]
fn the_newest_references_are_written() {
    let references = (0..500).map(|at| format!("{at}@x.example")).collect();
    let message = compose(&Compose { references, ..draft() }).unwrap();
    assert_lines(&message);
    let hashes = checked(&message, &IngestLimits::default()).message.reference_hashes;
    assert_eq!(hashes.len(), REFERENCES_MAX);
    assert_eq!(hashes.last(), Some(&MessageIdHash::of(b"499@x.example").to_bytes()));
}

#[test]
fn long_words_are_folded_or_encoded() {
    let mut draft = draft();
    draft.subject = "s".repeat(1000);
    draft.body = Some("b".repeat(5000));
    draft.body_html = None;
    draft.attachments[0].filename = "f".repeat(250);
    let message = compose(&draft).unwrap();
    assert_lines(&message);
    assert_eq!(checked(&message, &IngestLimits::default()).message.envelope.unwrap().subject, draft.subject);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_refused_or_gives_a_message(
        subject in "\\PC{0,80}|[\\x00-\\x7f]{0,40}",
        name in "\\PC{0,40}|[\\x00-\\x7f]{0,20}",
        body in "(\\PC|[\\x00-\\x7f]){0,300}",
        filename in "\\PC{0,40}|[\\x00-\\x7f]{0,20}",
        id in "\\PC{1,20}",
        content in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let file = ComposeAttachment { filename, content_type: String::new(), content: Bytes::from(content) };
        let draft = Compose { subject, from: person(&name, "ada@x.example"), body: Some(body), body_html: None, attachments: vec![file], message_id: id, ..draft() };
        let Ok(message) = compose(&draft) else { return Ok(()) };
        assert_lines(&message);
        let ingested = checked(&message, &IngestLimits::default());
        let envelope = ingested.message.envelope.clone().unwrap();
        prop_assert_eq!(&envelope.from[0].email, "ada@x.example");
        prop_assert_eq!(envelope.from.len(), 1);
        prop_assert_eq!(envelope.to.len(), draft.to.len());
        prop_assert!(envelope.bcc.is_empty());
        let (stored, memory) = (stored(&ingested.message), Memory::of(&ingested, 100));
        let file = block_on(attachment(&stored, "2", &memory, None)).unwrap();
        prop_assert_eq!(collect(file.stream).unwrap(), draft.attachments[0].content.to_vec());
    }
}
