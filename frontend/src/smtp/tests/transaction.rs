//! Transactions as they should go, and commands in and out of order.

use super::harness::{Harness, without_trace};
use crate::cluster::mail::DOMAIN;

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let harness = Harness::start().await;
    let sent = b"Subject: hello\r\n\r\nline\r\n.with a dot\r\n..two\r\n";
    let stuffed = b"Subject: hello\r\n\r\nline\r\n..with a dot\r\n...two\r\n";
    let reply = harness.deliver(stuffed).await;
    assert!(reply.starts_with("250 2.0.0 ") && reply.contains("queued as 1000-"), "{reply}");
    let inbox = harness.cluster.inbox(harness.ada);
    assert_eq!(without_trace(&inbox[0]), sent);
    assert_eq!(inbox[0].mail_from, "sender@client.example");
    let raw = String::from_utf8(inbox[0].raw()).unwrap();
    assert!(
        raw.starts_with("Return-Path: <sender@client.example>\r\nReceived: from client.example ([127.0.0.1])\r\n"),
        "{raw}"
    );
    assert!(
        raw.contains("by mx.postrider.example with ESMTP id ") && raw.contains("for <ada@postrider.example>;"),
        "{raw}"
    );
}

#[tokio::test]
async fn what_is_offered() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    let reply = client.ask("EHLO client.example\r\n", 250).await;
    for word in ["PIPELINING", "SIZE 36700160", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"] {
        assert!(reply.contains(word), "{reply}");
    }
    assert!(!reply.contains("STARTTLS") && !reply.contains("BINARYMIME") && !reply.contains("AUTH"), "{reply}");
    let reply = client.ask("HELO client.example\r\n", 250).await;
    assert_eq!(reply, "250 mx.postrider.example\r\n");
    client.ask("STARTTLS\r\n", 502).await;
}

#[tokio::test]
async fn small_commands() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    client.ask("NOOP\r\n", 250).await;
    client.ask("HELP\r\n", 214).await;
    client.ask("VRFY ada\r\n", 252).await;
    client.ask("EXPN list\r\n", 502).await;
    client.ask("TURN\r\n", 502).await;
    client.ask("AUTH PLAIN AAAA\r\n", 502).await;
    client.ask("RSET\r\n", 250).await;
    client.ask("WIZARD\r\n", 500).await;
    client.ask("QUIT\r\n", 221).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn order_is_kept() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    let rcpt = format!("RCPT TO:<ada@{DOMAIN}>\r\n");
    client.ask("MAIL FROM:<>\r\n", 503).await;
    client.ask(&rcpt, 503).await;
    client.ask("DATA\r\n", 503).await;
    client.ask("EHLO x.example\r\n", 250).await;
    client.ask(&rcpt, 503).await;
    client.ask("DATA\r\n", 503).await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask("DATA\r\n", 503).await;
    client.ask("MAIL FROM:<>\r\n", 503).await;
    client.ask(&rcpt, 250).await;
    client.ask("RSET\r\n", 250).await;
    client.ask(&rcpt, 503).await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask(&rcpt, 250).await;
    // RFC 5321 section 4.1.4: EHLO ends a transaction as RSET does.
    client.ask("EHLO x.example\r\n", 250).await;
    client.ask("DATA\r\n", 503).await;
}

#[tokio::test]
async fn several_messages_on_one_connection() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    for number in 0..3 {
        client.address("ada").await;
        client.ask("DATA\r\n", 354).await;
        client.ask(&format!("Subject: {number}\r\n\r\n.\r\n"), 250).await;
    }
    let inbox = harness.cluster.inbox(harness.ada);
    let subjects: Vec<_> = inbox.iter().map(without_trace).collect();
    assert_eq!(subjects, [b"Subject: 0\r\n\r\n", b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n"]);
}

#[tokio::test]
async fn pipelined_in_one_packet() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    let transaction = |text: &str| {
        format!(
            "MAIL FROM:<>\r\nRCPT TO:<ada@{DOMAIN}>\r\nRCPT TO:<nobody@{DOMAIN}>\r\nRCPT TO:<bob@{DOMAIN}>\r\nDATA\r\n{text}\r\n.\r\n"
        )
    };
    let whole = transaction("one") + &transaction("two") + "QUIT\r\n";
    client.send(whole.as_bytes()).await;
    let replies = client.rest().await;
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..3]).collect();
    let each = ["250", "250", "550", "250", "354", "250"];
    assert_eq!(codes, [&each[..], &each[..], &["221"]].concat());
    let inbox = harness.cluster.inbox(harness.ada);
    assert_eq!(inbox.iter().map(without_trace).collect::<Vec<_>>(), [b"one\r\n", b"two\r\n"]);
}

#[tokio::test]
async fn byte_by_byte() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    let whole =
        format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ada@{DOMAIN}>\r\nDATA\r\nSubject: a\r\n\r\n..b\r\n.\r\nQUIT\r\n");
    for byte in whole.as_bytes() {
        client.send(&[*byte]).await;
    }
    assert_eq!(client.rest().await.len(), 6);
    assert_eq!(harness.only_message(), b"Subject: a\r\n\r\n.b\r\n");
}

#[tokio::test]
async fn recipients_and_domains() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask("RCPT TO:<ADA@Postrider.Example>\r\n", 250).await;
    client.ask("RCPT TO:<@relay.example:ada@postrider.example>\r\n", 250).await;
    client.ask("RCPT TO:<postmaster>\r\n", 250).await;
    let reply = client.ask("RCPT TO:<nobody@postrider.example>\r\n", 550).await;
    assert!(reply.contains("5.1.1"), "{reply}");
    for foreign in ["ada@other.example", "ada@postrider.example.evil.example", "ada%other.example@mx.postrider.example"]
    {
        let reply = client.ask(&format!("RCPT TO:<{foreign}>\r\n"), 550).await;
        assert!(reply.contains("5.7.1"), "{foreign}: {reply}");
    }
    client.ask("RCPT TO:<\"a b\"@postrider.example>\r\n", 553).await;
    client.ask("RCPT TO:<ada@[127.0.0.1]>\r\n", 553).await;
    client.ask("RCPT TO:<>\r\n", 501).await;
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    // Named twice, delivered once.
    assert_eq!(harness.cluster.inbox(harness.ada).len(), 1);
}

#[tokio::test]
async fn without_a_postmaster_there_is_none() {
    let harness = Harness::start().await;
    let postmaster = harness.cluster.add_user("postmaster", super::harness::A);
    harness.cluster.remove_user(postmaster);
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask("RCPT TO:<postmaster>\r\n", 550).await;
}

#[tokio::test]
async fn utf8_addresses() {
    let harness = Harness::start().await;
    let user = harness.cluster.add_user("한글", super::harness::A);
    let mut client = harness.greeted().await;
    let reply = client.ask("MAIL FROM:<보낸이@client.example>\r\n", 553).await;
    assert!(reply.contains("5.6.7"), "{reply}");
    client.ask("MAIL FROM:<a@client.example>\r\n", 250).await;
    client.ask("RCPT TO:<한글@postrider.example>\r\n", 553).await;
    client.ask("RSET\r\n", 250).await;
    client.ask("MAIL FROM:<보낸이@client.example> BODY=8BITMIME SMTPUTF8\r\n", 250).await;
    client.ask("RCPT TO:<한글@postrider.example>\r\n", 250).await;
    client.ask("DATA\r\n", 354).await;
    client.ask("Subject: 안녕\r\n\r\n.\r\n", 250).await;
    let inbox = harness.cluster.inbox(user);
    let raw = String::from_utf8(inbox[0].raw()).unwrap();
    assert!(raw.contains("with UTF8SMTP id") && raw.contains("for <한글@postrider.example>"), "{raw}");
}
