//! BDAT (RFC 3030).

use super::harness::Harness;

#[tokio::test]
async fn chunks_make_a_message() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    client.ask("BDAT 12\r\nSubject: a\r\n", 250).await;
    client.ask("BDAT 0\r\n", 250).await;
    // A dot is a dot here, and a chunk may end anywhere.
    client.ask("BDAT 4\r\n\r\n.\r", 250).await;
    client.ask("BDAT 7 LAST\r\n\nhello\n", 550).await;
    assert_eq!(harness.cluster.kept(), 0);
    let mut client = harness.addressed().await;
    client.send(b"BDAT 12\r\nSubject: a\r\nBDAT 4\r\n\r\n.\rBDAT 8 LAST\r\n\nhello\r\nRSET\r\n").await;
    for _ in 0..4 {
        client.expect(250).await;
    }
    assert_eq!(harness.only_message(), b"Subject: a\r\n\r\n.\r\nhello\r\n");
}

#[tokio::test]
async fn an_empty_last_chunk_ends_a_message() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    client.ask("BDAT 7\r\nA: b\r\n\r", 250).await;
    client.ask("BDAT 1\r\n\n", 250).await;
    client.ask("BDAT 0 LAST\r\n", 250).await;
    assert_eq!(harness.only_message(), b"A: b\r\n\r\n");
}

#[tokio::test]
async fn refused_chunks_are_taken_and_thrown_away() {
    let harness = Harness::start().await;
    let mut client = harness.connect().await;
    client.ask("BDAT 6 LAST\r\nQUIT\r\n", 503).await;
    client.ask("EHLO x.example\r\n", 250).await;
    client.ask("BDAT 6\r\nQUIT\r\n", 503).await;
    client.ask("MAIL FROM:<>\r\n", 250).await;
    client.ask("BDAT 6 LAST\r\nQUIT\r\n", 503).await;
    client.ask("RCPT TO:<nobody@postrider.example>\r\n", 550).await;
    client.ask("BDAT 6 LAST\r\nQUIT\r\n", 503).await;
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 250).await;
    client.ask("BDAT 6 LAST\r\nfine\r\n", 250).await;
    assert_eq!(harness.only_message(), b"fine\r\n");
}

#[tokio::test]
async fn only_chunks_follow_chunks() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    client.ask("BDAT 3\r\nA\r\n", 250).await;
    client.ask("DATA\r\n", 503).await;
    client.ask("MAIL FROM:<>\r\n", 503).await;
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 503).await;
    client.ask("NOOP\r\n", 250).await;
    client.ask("RSET\r\n", 250).await;
    client.ask("BDAT 3 LAST\r\nB\r\n", 503).await;
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn chunks_are_bounded() {
    let harness = Harness::limited(|limits| limits.message_bytes_max = 1000).await;
    let mut client = harness.addressed().await;
    client.send(b"BDAT 2000\r\n").await;
    client.send(&b"x".repeat(2000)).await;
    let reply = client.expect(552).await;
    assert!(reply.contains("5.3.4"), "{reply}");
    client.address("ada").await;
    client
        .send(&[b"BDAT 600\r\n".as_slice(), &b"x".repeat(600), b"BDAT 600 LAST\r\n", &b"x".repeat(600)].concat())
        .await;
    client.expect(250).await;
    client.expect(552).await;
    // So large that waiting for its end makes no sense.
    client.address("ada").await;
    client.ask("BDAT 99999999999\r\n", 552).await;
    client.expect_closed().await;
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn a_size_that_cannot_be_read_closes() {
    for size in ["", "x", "-1", "99999999999999999999999999", "1 LAST x"] {
        let harness = Harness::start().await;
        let mut client = harness.addressed().await;
        client.ask(&format!("BDAT {size}\r\nQUIT\r\n"), 501).await;
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn chunks_hold_lines_too() {
    for content in ["a\nb\r\n", "a\rb\r\n", "a\r"] {
        let harness = Harness::start().await;
        let mut client = harness.addressed().await;
        client.ask(&format!("BDAT {} LAST\r\n{content}", content.len()), 550).await;
        client.expect_closed().await;
        assert_eq!(harness.cluster.kept(), 0);
    }
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    client.ask("BDAT 4 LAST\r\na\0\r\n", 550).await;
    client.ask("NOOP\r\n", 250).await;
    client.ask("MAIL FROM:<> BODY=BINARYMIME\r\n", 555).await;
}
