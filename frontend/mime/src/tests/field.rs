//! What went wrong for others: inputs for faults that were reported of mail software, held against what is right.
//!
//! The inputs in `field/` are ours; beside a checkout there may be more of them, in the folder `field` next to the test suites.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::executor::block_on;
use jiff::Timestamp;
use postrider_api::pb;
use serde_json::{Value, json};

use super::super::{IngestLimits, attachment, render};
use super::memory::{Memory, checked, collect, stored};

/// A message as `GET /v1/messages/{id}` tells of it, as far as cases ask.
fn shown(raw: &[u8]) -> Value {
    let ingested = checked(raw, &IngestLimits::default());
    let (message, memory) = (&ingested.message, Memory::of(&ingested, 4096));
    let stored = stored(message);
    let record = pb::EmailRecord { parts: message.parts.clone(), ..pb::EmailRecord::default() };
    let rendered = block_on(render(&record, &stored, &memory)).unwrap();
    let envelope = message.envelope.clone().unwrap();
    let mailbox = |one: &pb::Mailbox| json!({ "name": one.name, "email": one.email });
    let mailboxes = |list: &[pb::Mailbox]| list.iter().map(mailbox).collect::<Vec<_>>();
    let attachments: Vec<Value> = message
        .parts
        .iter()
        .filter(|part| part.is_attachment)
        .map(|part| {
            let file = block_on(attachment(&stored, &part.path, &memory, None)).unwrap();
            let data = STANDARD.encode(collect(file.stream).unwrap());
            let (filename, content_type) = (&part.filename, &part.content_type);
            json!({ "filename": filename, "content_type": content_type, "size": part.decoded_size, "data": data })
        })
        .collect();
    json!({
        "subject": envelope.subject,
        "date": envelope.date_ms.map(|ms| Timestamp::from_millisecond(ms).unwrap().to_string()),
        "from": envelope.from.first().map(mailbox),
        "to": mailboxes(&envelope.to),
        "cc": mailboxes(&envelope.cc),
        "bcc": mailboxes(&envelope.bcc),
        "reply_to": mailboxes(&envelope.reply_to),
        "preview": message.preview,
        "body": rendered.text,
        "body_html": rendered.html,
        "attachments": attachments,
    })
}

/// Whether `found` says what `expected` says; what is not named there may be anything.
fn holds(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(expected, found)| holds(expected, found))
        }
        _ => expected == found,
    }
}

/// What a message does not have that it should.
fn failures(expect: &Value, found: &Value) -> Vec<String> {
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut missing = Vec::new();
    for (key, value) in expect.as_object().unwrap() {
        let is_so = match key.as_str() {
            "from_email_in" => value.as_array().unwrap().contains(&found["from"]["email"]),
            "date_in" => value.as_array().unwrap().contains(&found["date"]),
            "soft" => {
                missing.extend(failures(value, found));
                true
            }
            "body_words" => {
                let body = text("body");
                let preview = text("preview");
                let (in_body, in_preview): (Vec<&str>, Vec<&str>) =
                    (body.split_whitespace().collect(), preview.split_whitespace().collect());
                strings(value)
                    .iter()
                    .all(|word| in_body.contains(&word.as_str()) && in_preview.contains(&word.as_str()))
            }
            _ => match key.strip_suffix("_contains") {
                Some("body") => strings(value).iter().all(|part| text("body").contains(part)),
                Some("body_html") => strings(value).iter().all(|part| text("body_html").contains(part)),
                Some(other) => panic!("no case asks what {other} contains"),
                None => holds(value, &found[key]),
            },
        };
        if !is_so {
            missing.push(format!("{key} is not {value}"));
        }
    }
    missing
}

/// Runs all cases of a folder; gives their number.
fn run(folder: &Path) -> usize {
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases["cases"].as_array().unwrap() {
        let none = Vec::new();
        let list = |key: &str| case[key].as_array().unwrap_or(&none).clone();
        let files = std::iter::once(case["file"].clone()).chain(list("more_files"));
        let expectations = std::iter::once(case["expect"].clone()).chain(list("more_expect"));
        for (file, expect) in files.zip(expectations) {
            let file = file.as_str().unwrap().to_owned();
            let found = shown(&std::fs::read(folder.join(&file)).unwrap());
            for failure in failures(&expect, &found) {
                wrong.push(format!("{file}: {failure}\n  in {found}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    count
}

#[test]
fn what_went_wrong_for_others_is_right_here() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/field");
    assert!(run(&ours) >= 21);
    let suites =
        std::env::var_os("POSTRIDER_SUITES").map_or_else(|| PathBuf::from("../../../shared/suites"), PathBuf::from);
    let beside = suites.join("../field");
    if beside.join("cases.json").is_file() {
        assert!(run(&beside) > 0);
    } else {
        eprintln!("SKIPPED: no cases of the field at {}", beside.display());
    }
}

fn mail(header: &str, body: &str) -> Value {
    shown(format!("{header}\r\n\r\n{body}").as_bytes())
}

#[test]
fn authors_are_never_exchanged() {
    let from = |field: &str| mail(&format!("From: {field}"), "x")["from"].clone();
    assert_eq!(from("alice@bank.example <mallory@field.example>")["email"], "mallory@field.example");
    assert_eq!(from("\"alice@bank.example\" <mallory@field.example>")["name"], "alice@bank.example");
    for unreadable in [
        "alice@bank.example)mallory@field.example",
        "alice@bank.example; mallory@field.example",
        "<alice@bank.example> <mallory@field.example>",
        "alice @bank.example mallory",
        "alice smith@bank.example",
        "ali\u{202e}ce@bank.example",
    ] {
        let author = from(unreadable);
        assert_eq!(author["email"], "", "{author}");
        assert_ne!(author["name"], "", "{author}");
    }
    // Two authors are two, and the first is shown.
    assert_eq!(from("ann@field.example, bob@field.example")["email"], "ann@field.example");
}

#[test]
fn undeclared_characters_of_a_header_are_the_bodys() {
    let raw = b"From: \xbe\xc8\xb3\xe7 <a@x.example>\r\nSubject: \xbe\xc8\xb3\xe7\r\nContent-Type: text/plain; charset=cp949\r\n\r\n\xbe\xc8\xb3\xe7";
    let found = shown(raw);
    for text in [&found["from"]["name"], &found["subject"], &found["body"], &found["preview"]] {
        assert_eq!(text, "안녕");
    }
}

#[test]
fn names_of_files() {
    let filename = |fields: &str| mail(&format!("Subject: x\r\n{fields}"), "x")["attachments"][0]["filename"].clone();
    let disposition = |value: &str| filename(&format!("Content-Disposition: attachment; {value}"));
    assert_eq!(filename("Content-Type: application/pdf; name=\"=?euc-kr?B?vsiz5w==?=.pdf\""), "안녕.pdf");
    assert_eq!(
        filename("Content-Type: application/pdf; name=b.pdf\r\nContent-Disposition: attachment; filename=a.pdf"),
        "a.pdf"
    );
    assert_eq!(
        filename("Content-Type: application/pdf; name=b.pdf\r\nContent-Disposition: attachment; filename=\"\""),
        "b.pdf"
    );
    assert_eq!(disposition("filename=\"../../etc/passwd\""), "passwd");
    assert_eq!(disposition("filename=\"inv\u{202e}fdp.exe\""), "invfdp.exe");
    assert_eq!(disposition("filename*=utf-8''a%00b%0D%0Ac.pdf"), "ab  c.pdf");
    assert_eq!(disposition("filename=안녕.pdf"), "안녕.pdf");
    let long = disposition(&format!("filename=\"{}.pdf\"", "안".repeat(2000)));
    assert!(long.as_str().unwrap().ends_with("안.pdf") && long.as_str().unwrap().len() <= 1020);
}

#[test]
fn the_root_of_related_parts() {
    let related = |parameters: &str, parts: &[&str]| {
        let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
        mail(&format!("Content-Type: multipart/related; boundary=b{parameters}"), &format!("{parts}--b--\r\n"))
    };
    let picture = "Content-Type: image/png\r\nContent-ID: <p@x>\r\n\r\npng";
    let html = "Content-Type: text/html\r\nContent-ID: <r@x>\r\n\r\n<p>root</p>";
    let alternative = "Content-Type: multipart/alternative; boundary=c\r\nContent-ID: <r@x>\r\n\r\n--c\r\n\r\nplain\r\n\
                       --c\r\nContent-Type: text/html\r\n\r\n<p>root</p>\r\n--c--";
    for parameters in ["; start=\"<r@x>\"", "; start=r@x; type=text/html", "; type=\"text/html\""] {
        let found = related(parameters, &[picture, html]);
        assert_eq!(found["body_html"], "<p>root</p>", "{parameters}");
        assert_eq!(found["attachments"].as_array().unwrap().len(), 1, "{parameters}");
    }
    let found = related("; start=\"<r@x>\"", &[picture, alternative]);
    assert_eq!((&found["body"], &found["body_html"]), (&json!("plain"), &json!("<p>root</p>")));
    // A root that is not there is the first part.
    assert_eq!(related("; start=\"<none@x>\"", &[html, picture])["body_html"], "<p>root</p>");
}
