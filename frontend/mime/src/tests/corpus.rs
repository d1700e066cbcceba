//! Real and tortuous mail: the way in and back, and the structure that others see in it.

use bytes::Bytes;
use postrider_api::id::MessageIdHash;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::IngestLimits;
use super::super::structure;
use super::memory::checked;
use super::suite::{Mail, corpus};

const TRACE: &[u8] = b"Return-Path: <a@b.example>\r\nReceived: from c.example ([192.0.2.1])\r\n\tby d.example with ESMTP id 1;\r\n\tFri, 20 Nov 2026 12:00:00 +0000\r\n";
/// Everything that can be cut is cut.
const SMALL: IngestLimits = IngestLimits { blob_bytes_min: 64, literal_bytes_max: 200 };

fn arrived(mail: &Mail) -> Vec<u8> {
    [TRACE, &mail.crlf()].concat()
}

#[test]
fn every_message_comes_back_byte_for_byte() {
    for (name, count) in [("easy-ham-1", 2500), ("torture", 511)] {
        let Some(mails) = corpus(name) else { return };
        assert_eq!(mails.len(), count);
        for mail in &mails {
            checked(&arrived(mail), &IngestLimits::default());
            checked(&mail.bytes, &IngestLimits::default());
            checked(&arrived(mail), &SMALL);
        }
    }
}

#[test]
fn ids_are_those_that_the_suite_found() {
    let Some(mails) = corpus("easy-ham-1") else { return };
    let hash = |id: &serde_json::Value| MessageIdHash::of(id.as_str().unwrap().as_bytes()).to_bytes();
    let mut with_references = 0;
    for mail in &mails {
        let message = checked(&arrived(mail), &IngestLimits::default()).message;
        match &mail.manifest["message_id"] {
            serde_json::Value::Null => assert_eq!(message.message_id_hash, Bytes::new(), "{}", mail.file),
            id => assert_eq!(message.message_id_hash, hash(id), "{}", mail.file),
        }
        let mut expected: Vec<Bytes> = mail.manifest["references"].as_array().unwrap().iter().map(hash).collect();
        if expected.is_empty() {
            expected.extend(mail.manifest["in_reply_to"].as_array().unwrap().first().map(hash));
        }
        let (mut found, mut expected) = (message.reference_hashes, expected);
        with_references += usize::from(!found.is_empty());
        found.sort();
        expected.sort();
        expected.dedup();
        assert_eq!(found, expected, "{}", mail.file);
    }
    assert!(with_references > 1000, "{with_references} messages refer to others");
}

/// Where we see another tree than Python's `email`, and mean it.
const OTHER_TREES: [&str; 5] = [
    // Not a media type in any reading: Python passes it on, we call it bytes.
    "hyperkitty/unconvertable_msg-2.txt.000.eml",
    // A comment behind the type: Python keeps it.
    "mime-tools-in/crlf.hdr.000.eml",
    // Python takes a delivery status, and what stands for an external body, apart as if they were messages.
    "python-email/msg_16.txt",
    "python-email/msg_36.txt",
    "python-email/msg_43.txt.000.eml",
];

#[test]
fn the_tree_is_the_one_that_another_parser_sees() {
    let Some(mails) = corpus("torture") else { return };
    let (mut same, mut other) = (0, Vec::new());
    for mail in mails.iter().filter(|mail| mail.manifest["python_defects"].as_array().is_some_and(Vec::is_empty)) {
        let theirs: Vec<&str> =
            mail.manifest["python_types"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let ours: Vec<String> =
            structure::parse(&mail.crlf()).nodes.into_iter().map(|node| node.header.content_type).collect();
        if ours == theirs {
            same += 1;
        } else if !OTHER_TREES.iter().any(|known| mail.file.ends_with(known)) {
            other.push(format!("{}: {ours:?} and not {theirs:?}", mail.file));
        }
    }
    assert!(same > 450, "{same} trees are the same");
    assert!(other.is_empty(), "{} same, {} other:\n{}", same, other.len(), other.join("\n"));
}

#[test]
fn mutated_mail_comes_back_too() {
    let Some(mails) = corpus("torture") else { return };
    let mutations =
        (0..mails.len(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..20));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(600) });
    runner
        .run(&mutations, |(mail, mutations)| {
            let mut bytes = arrived(&mails[mail]);
            // A large message is slow to check and no more telling.
            bytes.truncate(40_000);
            for (at, byte, kind) in mutations {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            checked(&bytes, &SMALL);
            checked(&bytes, &IngestLimits::default());
            Ok(())
        })
        .unwrap();
}
