//! Too much of anything, and bytes that are no commands.

use std::time::Duration;

use super::super::limit::{COMMANDS_IDLE_MAX, ERRORS_MAX, RECIPIENTS_REFUSED_MAX};
use super::harness::Harness;
use crate::cluster::mail::DOMAIN;

#[tokio::test]
async fn bare_line_endings_in_commands_close() {
    for text in ["NOOP\nMAIL FROM:<>\r\n", "NOOP\rMAIL FROM:<>\r\n", "NOOP\r\r\nQUIT\r\n", "\nNOOP\r\n"] {
        let harness = Harness::start().await;
        let mut client = harness.greeted().await;
        client.send(text.as_bytes()).await;
        let replies = client.rest().await;
        assert_eq!(replies.len(), 1, "{text:?}: {replies:?}");
        assert!(replies[0].starts_with("500 5.5.2"), "{text:?}: {replies:?}");
    }
}

#[tokio::test]
async fn control_characters_and_other_charsets_are_no_commands() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("NOOP \0\r\n", 500).await;
    client.ask("NOOP \x1b[2J\r\n", 500).await;
    client.send(b"MAIL FROM:<\xe4@client.example>\r\n").await;
    client.expect(500).await;
    client.ask("NOOP\r\n", 250).await;
}

#[tokio::test]
async fn long_lines_are_refused_and_endless_ones_close() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask(&format!("NOOP {}\r\n", "x".repeat(506)), 500).await;
    client.ask(&format!("NOOP {}\r\n", "x".repeat(505)), 250).await;
    client.ask(&format!("NOOP {}\r\n", "x".repeat(20_000)), 500).await;
    client.ask("NOOP\r\n", 250).await;
    client.send(&vec![b'x'; 200_000]).await;
    client.expect(421).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn http_is_told_off() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<>\r\n").await;
    let replies = client.rest().await;
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert!(replies[0].starts_with("500"), "{replies:?}");
}

#[tokio::test]
async fn recipients_are_bounded() {
    let harness = Harness::start().await;
    let users: Vec<_> =
        (0..101).map(|number| harness.cluster.add_user(&format!("u{number}"), super::harness::A)).collect();
    let mut client = harness.greeted().await;
    let mut batch = "MAIL FROM:<>\r\n".to_owned();
    for number in 0..101 {
        batch += &format!("RCPT TO:<u{number}@{DOMAIN}>\r\n");
    }
    client.send(batch.as_bytes()).await;
    for _ in 0..101 {
        client.expect(250).await;
    }
    let reply = client.expect(452).await;
    assert!(reply.contains("4.5.3"), "{reply}");
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    assert!(users[..100].iter().all(|user| harness.cluster.inbox(*user).len() == 1));
    assert!(harness.cluster.inbox(users[100]).is_empty());
}

#[tokio::test]
async fn who_is_refused_or_named_twice_takes_nobodys_place() {
    let harness = Harness::start().await;
    let users: Vec<_> =
        (0..100).map(|number| harness.cluster.add_user(&format!("u{number}"), super::harness::A)).collect();
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    for number in 0..99 {
        client.ask(&format!("RCPT TO:<u{number}@{DOMAIN}>\r\n"), 250).await;
    }
    // One batch: whoever comes before the hundredth is no new recipient, and behind it there is none.
    let batch = [
        ("nobody@postrider.example", 550),
        ("u0@postrider.example", 250),
        ("", 501),
        ("ada@other.example", 550),
        ("ü@postrider.example", 553),
        ("U1@postrider.example", 250),
        ("u99@postrider.example", 250),
        ("u0@postrider.example", 452),
        ("nobody@postrider.example", 452),
        ("ü@postrider.example", 452),
    ];
    let lines: String = batch.iter().map(|(path, _)| format!("RCPT TO:<{path}>\r\n")).collect();
    client.send(lines.as_bytes()).await;
    for (path, code) in batch {
        let reply = client.reply().await;
        assert!(reply.starts_with(&code.to_string()), "<{path}>: wanted {code}, got {reply}");
    }
    client.ask("DATA\r\n", 354).await;
    client.ask("x\r\n.\r\n", 250).await;
    assert!(users.iter().all(|user| harness.cluster.inbox(*user).len() == 1));
}

#[tokio::test]
async fn every_line_of_a_batch_has_its_reply() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    let long = "x".repeat(3000);
    let batch = format!(
        "MAIL FROM:<>\r\nRCPT TO:<ada@{DOMAIN}>\r\nRCPT TO:<{long}@{DOMAIN}>\r\nRCPT TO:<>\r\nRCPT TO:<nobody@{DOMAIN}>\r\n\
         RCPT TO:<bob@{DOMAIN}>\r\nDATA\r\n"
    );
    client.send(batch.as_bytes()).await;
    for code in [250, 250, 500, 501, 550, 250, 354] {
        client.expect(code).await;
    }
}

#[tokio::test]
async fn errors_are_bounded() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.send("WIZARD\r\n".repeat(100).as_bytes()).await;
    let replies = client.rest().await;
    assert_eq!(replies.len(), ERRORS_MAX as usize + 2);
    assert!(replies[..replies.len() - 1].iter().all(|reply| reply.starts_with("500")));
    assert!(replies[replies.len() - 1].starts_with("421 4.7.0"));
}

#[tokio::test]
async fn commands_without_mail_are_bounded() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.send("NOOP\r\n".repeat(COMMANDS_IDLE_MAX as usize + 100).as_bytes()).await;
    let replies = client.rest().await;
    assert_eq!(replies.len(), COMMANDS_IDLE_MAX as usize);
    assert!(replies[replies.len() - 1].starts_with("421 4.7.0"));
}

#[tokio::test]
async fn harvesting_addresses_is_bounded() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    let batch: String =
        (0..RECIPIENTS_REFUSED_MAX + 50).map(|number| format!("RCPT TO:<n{number}@{DOMAIN}>\r\n")).collect();
    client.send(batch.as_bytes()).await;
    let replies = client.rest().await;
    assert_eq!(replies.len(), RECIPIENTS_REFUSED_MAX as usize + 2);
    assert!(replies[replies.len() - 1].starts_with("421 4.7.0"));
}

#[tokio::test]
async fn connections_are_bounded() {
    let harness = Harness::limited(|limits| (limits.connections_max, limits.connections_per_peer_max) = (100, 2)).await;
    let first = harness.greeted().await;
    let _second = harness.greeted().await;
    let mut third = super::harness::Client::new(tokio::net::TcpStream::connect(harness.address).await.unwrap());
    let reply = third.expect(421).await;
    assert!(reply.contains("4.7.0"), "{reply}");
    third.expect_closed().await;
    drop(first);
    super::harness::until("a place is free", || true).await;
    loop {
        let mut again = super::harness::Client::new(tokio::net::TcpStream::connect(harness.address).await.unwrap());
        if again.reply().await.starts_with("220") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let harness = Harness::limited(|limits| (limits.connections_max, limits.connections_per_peer_max) = (1, 10)).await;
    let _first = harness.greeted().await;
    let mut second = super::harness::Client::new(tokio::net::TcpStream::connect(harness.address).await.unwrap());
    let reply = second.expect(421).await;
    assert!(reply.contains("4.3.2"), "{reply}");
}

#[tokio::test]
async fn silence_is_bounded() {
    let harness = Harness::limited(|limits| limits.idle = Duration::from_millis(200)).await;
    let mut client = harness.greeted().await;
    let reply = client.expect(421).await;
    assert!(reply.contains("4.4.2"), "{reply}");
    client.expect_closed().await;
}

/// Between two pieces of what trickles in.
const PAUSE: Duration = Duration::from_millis(20);
/// A limit that is up long before [`PIECES`] have come.
const SHORT: Duration = Duration::from_millis(300);
const PIECES: usize = 500;

#[tokio::test]
async fn a_command_is_timed_as_a_whole() {
    let harness = Harness::limited(|limits| limits.idle = SHORT).await;
    let mut client = harness.greeted().await;
    let bytes = [b"NOOP ".as_slice(), &[b'x'; PIECES]].concat();
    let reply = client.trickle(bytes.chunks(1), PAUSE).await;
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    client.expect_closed().await;
}

#[tokio::test]
async fn a_command_that_came_whole_begins_the_time_anew() {
    let harness = Harness::limited(|limits| limits.idle = Duration::from_secs(2)).await;
    let mut client = harness.greeted().await;
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.ask("NOOP\r\n", 250).await;
    }
}

#[tokio::test]
async fn a_message_that_trickles_is_bounded() {
    let harness = Harness::limited(|limits| limits.content = SHORT).await;
    let mut client = harness.addressed().await;
    client.ask("DATA\r\n", 354).await;
    let reply = client.trickle(std::iter::repeat_n(b"a line\r\n".as_slice(), PIECES), PAUSE).await;
    assert!(reply.starts_with("421 4.4.2") && reply.contains("The message"), "{reply}");
    client.expect_closed().await;
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn a_message_in_chunks_is_timed_as_a_whole() {
    let harness = Harness::limited(|limits| limits.content = SHORT).await;
    let mut client = harness.addressed().await;
    let reply = loop_of_chunks(&mut client, "BDAT 3\r\nA\r\n").await;
    assert!(reply.contains("The message"), "{reply}");
    client.expect_closed().await;
    // Other commands between two chunks do not begin it anew either.
    let mut client = harness.addressed().await;
    client.ask("BDAT 3\r\nA\r\n", 250).await;
    let reply = loop_of_chunks(&mut client, "NOOP\r\n").await;
    assert!(reply.contains("The message"), "{reply}");
    assert_eq!(harness.cluster.kept(), 0);
}

/// Sends the same command until its answer is 421.
async fn loop_of_chunks(client: &mut super::harness::Client<tokio::net::TcpStream>, command: &str) -> String {
    for _ in 0..PIECES {
        client.send(command.as_bytes()).await;
        let reply = client.reply().await;
        if reply.starts_with("421 4.4.2") {
            return reply;
        }
        assert!(reply.starts_with("250"), "{reply}");
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the server bears it");
}

#[tokio::test]
async fn each_message_of_a_connection_has_its_own_time() {
    let harness = Harness::limited(|limits| limits.content = Duration::from_secs(2)).await;
    let mut client = harness.greeted().await;
    for _ in 0..15 {
        client.address("ada").await;
        client.ask("BDAT 3\r\nA\r\n", 250).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.ask("BDAT 3 LAST\r\nB\r\n", 250).await;
    }
    assert_eq!(harness.cluster.kept(), 15);
}

#[tokio::test]
async fn a_message_that_falls_behind_its_rate_is_given_up() {
    let harness = Harness::limited(|limits| {
        limits.content_grace = SHORT;
        limits.content_bytes_per_second_min = 1024 * 1024;
    })
    .await;
    let mut client = harness.addressed().await;
    client.ask("DATA\r\n", 354).await;
    // Much at once, and then next to nothing: what came buys no patience beyond the grace.
    client.send(&b"0123456789\r\n".repeat(200_000)).await;
    let reply = client.trickle(std::iter::repeat_n(b"a line\r\n".as_slice(), PIECES), PAUSE).await;
    assert!(reply.starts_with("421 4.4.2") && reply.contains("The message"), "{reply}");
    client.expect_closed().await;
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn a_connection_ends_some_time() {
    let harness = Harness::limited(|limits| limits.connection = Duration::from_millis(300)).await;
    let mut client = harness.greeted().await;
    let reply = client.expect(421).await;
    assert!(reply.contains("4.4.2"), "{reply}");
}
