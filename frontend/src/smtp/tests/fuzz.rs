//! A small form of the fuzz target, in every test run.

use proptest::prelude::*;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::fuzz::{drive, drive_submission};

/// Pieces of sessions, right and wrong.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        "EHLO x.example\r\n",
        "HELO x\r\n",
        "MAIL FROM:<>\r\n",
        "MAIL FROM:<a@b.example> SIZE=100\r\n",
        "MAIL FROM:<a@b.example> SIZE=9999\r\n",
        "RCPT TO:<a@x.example>\r\n",
        "rcpt to:<ab@x.example>\r\nRCPT TO:<b@x.example>\r\n",
        "RCPT TO:<>\r\n",
        "RCPT TO:<postmaster>\r\n",
        "DATA\r\n",
        "Subject: a\r\n\r\n.a\r\n..\r\n",
        "\r\n.\r\n",
        ".\r\n",
        "\n.\n",
        "\n.\r\n",
        "\r.\r\n",
        "\r",
        "\n",
        "\r\n",
        "\0",
        "BDAT 5\r\nab\r\nc",
        "BDAT 0\r\n",
        "BDAT 3 LAST\r\nx\r\n",
        "BDAT 99999999999999999999\r\n",
        "BDAT 5000\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY a\r\n",
        "HELP\r\n",
        "QUIT\r\n",
        "WIZ\r\n",
        ".",
    ]);
    prop_oneof![
        8 => fixed.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (1usize..6000).prop_map(|length| vec![b'x'; length]),
        1 => (1usize..3000).prop_map(|length| format!("RCPT TO:<{}@x.example>\r\n", "a".repeat(length)).into_bytes()),
    ]
}

/// Pieces of submissions.
fn submitted() -> impl Strategy<Value = Vec<u8>> {
    let right = STANDARD.encode("\0ada@postrider.example\0right");
    let first = STANDARD.encode("n,,n=ada@postrider.example,r=x");
    let last = STANDARD.encode(format!("c=biws,r=x,p={}", STANDARD.encode([0; 32])));
    let log_in = format!("EHLO x\r\nAUTH PLAIN {right}\r\n");
    let begin = format!("{log_in}MAIL FROM:<ada@postrider.example>\r\nRCPT TO:<bob@far.example>\r\nDATA\r\n");
    prop::sample::select(vec![
        format!("{begin}From: ada@postrider.example\r\nBcc: x@y\r\n z\r\nDate: d\r\n\r\nBcc: x\r\n.\r\n"),
        begin,
        log_in,
        "AUTH PLAIN\r\n".to_owned(),
        "AUTH LOGIN\r\n".to_owned(),
        format!("AUTH SCRAM-SHA-256 {first}\r\n{last}\r\n"),
        format!("{right}\r\n"),
        "*\r\n".to_owned(),
        "=\r\n".to_owned(),
        "MAIL FROM:<ada@postrider.example> RET=FULL ENVID=x AUTH=<>\r\n".to_owned(),
        "MAIL FROM:<bob@postrider.example>\r\n".to_owned(),
        "RCPT TO:<bob@far.example> NOTIFY=NEVER ORCPT=rfc822;bob@far.example\r\n".to_owned(),
        "RCPT TO:<bob@[192.0.2.1]>\r\n".to_owned(),
        "From: ada@postrider.example\r\n".to_owned(),
        "Bcc: bob@far.example\r\n".to_owned(),
        " folded\r\n".to_owned(),
    ])
    .prop_map(String::into_bytes)
}

fn session() -> impl Strategy<Value = Vec<u8>> {
    let opening = prop_oneof![
        1 => Just(Vec::new()),
        3 => Just(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\n".to_vec()),
        2 => Just(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\n".to_vec()),
    ];
    (opening, prop::collection::vec(piece(), 0..30)).prop_map(|(opening, pieces)| [opening, pieces.concat()].concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_reads(session in session(), reads in prop::collection::vec(1usize..200, 1..10)) {
        let mut rest = &session[..];
        let mut split = Vec::new();
        let mut reads = reads.iter().cycle();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at((*reads.next().unwrap()).min(rest.len()));
            split.push(head);
            rest = tail;
        }
        // What the session makes of its bytes does not depend on how the network cut them.
        prop_assert_eq!(drive(split), drive([&session[..]]));
    }

    #[test]
    fn noise_with_tls(noise in prop::collection::vec(prop_oneof![piece(), Just(b"STARTTLS\r\n".to_vec())], 0..30)) {
        drive(noise.iter().map(Vec::as_slice));
    }

    #[test]
    fn submissions(pieces in prop::collection::vec(prop_oneof![2 => piece(), 3 => submitted()], 0..30), reads in 1usize..50) {
        let session = pieces.concat();
        prop_assert_eq!(drive_submission(session.chunks(reads)), drive_submission([&session[..]]));
    }

    #[test]
    fn what_is_accepted_was_sent_within_one_message(pieces in prop::collection::vec(piece(), 0..20)) {
        // However the content is made up, a second message can only be accepted behind a true end of the first.
        let content = pieces.concat();
        let outcome = drive([b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\n".as_slice(), &content]);
        for message in &outcome.accepted {
            prop_assert!(!message.contains(&0));
            let mut last = 0;
            for (index, byte) in message.iter().enumerate() {
                match byte {
                    b'\n' => prop_assert_eq!(last, b'\r', "a bare LF at {}", index),
                    _ => prop_assert_ne!(last, b'\r', "a bare CR before {}", index),
                }
                last = *byte;
            }
        }
    }
}
