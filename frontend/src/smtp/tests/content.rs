//! What a message may hold, and what ends it.

use super::harness::{A, Harness};

#[tokio::test]
async fn long_lines_and_undeclared_eight_bit_are_kept() {
    let harness = Harness::start().await;
    let mut content = b"Subject: \xe4\xf6\xfc\r\n\r\n".to_vec();
    content.extend((0..100_000u32).map(|number| match number.to_le_bytes()[0] {
        0 | b'\r' | b'\n' => b'x',
        byte => byte,
    }));
    content.extend_from_slice(b"\r\nend\r\n");
    let reply = harness.deliver(&content).await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(harness.only_message(), content);
}

#[tokio::test]
async fn only_crlf_dot_crlf_ends_a_message() {
    for smuggle in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\n"] {
        let harness = Harness::start().await;
        let mut client = harness.addressed().await;
        client.ask("DATA\r\n", 354).await;
        let behind =
            "MAIL FROM:<evil@client.example>\r\nRCPT TO:<bob@postrider.example>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n";
        client.send(format!("Subject: a\r\n\r\nbody{smuggle}{behind}").as_bytes()).await;
        let replies = client.rest().await;
        // One refusal at the first true end, and then the connection closes: nothing behind is a command.
        assert_eq!(replies.len(), 1, "{smuggle:?}: {replies:?}");
        assert!(replies[0].starts_with("550 5.6.0"), "{smuggle:?}: {replies:?}");
        assert_eq!(harness.cluster.kept(), 0, "{smuggle:?}");
    }
}

#[tokio::test]
async fn bare_line_endings_within_a_message_are_refused() {
    for content in ["a\nb\r\n", "a\rb\r\n", "a\r\r\n", "\n\r\n", "Subject: x\n\nbody\r\n"] {
        let harness = Harness::start().await;
        let reply = harness.deliver(content.as_bytes()).await;
        assert!(reply.starts_with("550 5.6.0"), "{content:?}: {reply}");
        assert_eq!(harness.cluster.kept(), 0);
    }
}

#[tokio::test]
async fn nul_is_refused_and_nothing_else_is_lost() {
    let harness = Harness::start().await;
    let mut client = harness.addressed().await;
    client.ask("DATA\r\n", 354).await;
    client.ask("Subject: a\0b\r\n\r\n.\r\n", 550).await;
    assert_eq!(harness.cluster.kept(), 0);
    client.address("ada").await;
    client.ask("DATA\r\n", 354).await;
    client.ask("fine\r\n.\r\n", 250).await;
    assert_eq!(harness.only_message(), b"fine\r\n");
}

#[tokio::test]
async fn announced_and_real_size_are_bounded() {
    let harness = Harness::limited(|limits| limits.message_bytes_max = 10_000).await;
    let mut client = harness.greeted().await;
    let reply = client.ask("MAIL FROM:<> SIZE=10001\r\n", 552).await;
    assert!(reply.contains("5.3.4"), "{reply}");
    client.ask("MAIL FROM:<> SIZE=10000\r\n", 250).await;
    client.ask("RCPT TO:<ada@postrider.example>\r\n", 250).await;
    client.ask("DATA\r\n", 354).await;
    client.send(&b"0123456789\r\n".repeat(200_000)).await;
    let reply = client.ask(".\r\n", 552).await;
    assert!(reply.contains("5.3.4"), "{reply}");
    assert_eq!(harness.cluster.kept(), 0);
    // The bound is on what the client sends, trace fields not counted, and the connection goes on.
    client.address("ada").await;
    client.ask("DATA\r\n", 354).await;
    let fits = b"01234567\r\n".repeat(1000);
    client.send(&fits).await;
    client.ask(".\r\n", 250).await;
    assert_eq!(harness.only_message(), fits);
}

#[tokio::test]
async fn the_memory_of_all_connections_is_bounded() {
    let harness = Harness::limited(|limits| limits.content_bytes_max = 700_000).await;
    let mut first = harness.addressed().await;
    first.ask("DATA\r\n", 354).await;
    first.send(&b"0123456789\r\n".repeat(20_000)).await;
    // Until the server has taken the first, the second would fit.
    let mut second;
    loop {
        second = harness.addressed().await;
        second.ask("DATA\r\n", 354).await;
        second.send(&[&b"0123456789\r\n".repeat(10_000)[..], b".\r\n"].concat()).await;
        let reply = second.reply().await;
        if reply.starts_with("452 4.3.1") {
            break;
        }
        assert!(reply.starts_with("250"), "{reply}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    first.ask(".\r\n", 250).await;
    second.address("ada").await;
    second.ask("DATA\r\n", 354).await;
    second.ask("small\r\n.\r\n", 250).await;
}

#[tokio::test]
async fn one_network_fills_only_its_part_of_the_memory() {
    const MESSAGE_BYTES: usize = 1024 * 1024;
    let harness = Harness::limited(|limits| {
        limits.message_bytes_max = MESSAGE_BYTES as u64;
        limits.content_bytes_max = 64 * MESSAGE_BYTES;
        limits.content_bytes_per_peer_max = 8 * MESSAGE_BYTES;
    })
    .await;
    let most = b"0123456789\r\n".repeat(80_000);
    // Each holds nearly a whole message and does not end it. Nobody but their own network notices.
    let mut slow = Vec::new();
    let refused = loop {
        let mut client = harness.connect_from("127.0.0.1").await;
        client.address("ada").await;
        client.send(b"DATA\r\n").await;
        let reply = client.reply().await;
        if !reply.starts_with("354") {
            break reply;
        }
        client.send(&most).await;
        slow.push(client);
        assert!(slow.len() <= 200, "one network takes all of the memory");
    };
    assert!(refused.starts_with("452 4.3.1") && refused.contains("your address"), "{refused}");
    let mut other = harness.connect_from("127.0.0.2").await;
    other.address("ada").await;
    other.ask("DATA\r\n", 354).await;
    other.send(&most).await;
    other.ask(".\r\n", 250).await;
    assert_eq!(harness.cluster.kept(), 1);
    // When they end, their network has its part again.
    drop(slow);
    loop {
        let mut client = harness.connect_from("127.0.0.1").await;
        client.address("ada").await;
        client.send(b"DATA\r\n").await;
        let reply = client.reply().await;
        if reply.starts_with("354") {
            client.ask("x\r\n.\r\n", 250).await;
            break;
        }
        assert!(reply.starts_with("452 4.3.1"), "{reply}");
    }
}

#[tokio::test]
async fn what_is_announced_takes_no_memory_before_it_comes() {
    let harness = Harness::limited(|limits| {
        limits.message_bytes_max = 1024 * 1024;
        limits.content_bytes_max = 5 * 1024 * 1024;
        limits.content_bytes_per_peer_max = 5 * 1024 * 1024;
    })
    .await;
    // Together they announce far more than there is, and none of them is in another's way.
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = harness.greeted().await;
        client.ask("MAIL FROM:<> SIZE=1000000\r\n", 250).await;
        client.ask("RCPT TO:<ada@postrider.example>\r\n", 250).await;
        client.ask("DATA\r\n", 354).await;
        clients.push(client);
    }
    for mut client in clients {
        client.ask("small\r\n.\r\n", 250).await;
    }
    assert_eq!(harness.cluster.kept(), 40);
}

#[tokio::test]
async fn a_sender_that_no_shard_would_take_is_refused_before_the_message() {
    let harness = Harness::start().await;
    let mut client = harness.greeted().await;
    let sender = format!("\"{}\"@client.example", "q".repeat(2000 - "\"\"@client.example".len()));
    let reply = client.ask(&format!("MAIL FROM:<{sender}>\r\n"), 501).await;
    assert!(reply.starts_with("501 5.1.7"), "{reply}");
    client.address("ada").await;
}

#[tokio::test]
async fn headers_and_hops_are_bounded() {
    let harness = Harness::start().await;
    let received = "Received: from a.example by b.example; now\r\n";
    let reply = harness.deliver((received.repeat(101) + "\r\n").as_bytes()).await;
    assert!(reply.starts_with("554 5.4.6"), "{reply}");
    let reply = harness.deliver(("A: b\r\n".repeat(10_001) + "\r\n").as_bytes()).await;
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let reply = harness.deliver((format!("A: {}\r\n", "b".repeat(1_100_000)) + "\r\n").as_bytes()).await;
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    assert_eq!(harness.cluster.kept(), 0);
    let reply = harness.deliver((received.repeat(100) + "\r\n").as_bytes()).await;
    assert!(reply.starts_with("250"), "{reply}");
}

#[tokio::test]
async fn large_parts_are_stored_before_the_message() {
    let harness = Harness::start().await;
    let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n";
    let content = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n\
         Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n{}--b--\r\n",
        line.repeat(8000)
    );
    *harness.stored.fails.lock() = true;
    let reply = harness.deliver(content.as_bytes()).await;
    assert!(reply.starts_with("451 4.3.1"), "{reply}");
    assert_eq!(harness.cluster.kept(), 0);
    *harness.stored.fails.lock() = false;
    let reply = harness.deliver(content.as_bytes()).await;
    assert!(reply.starts_with("250"), "{reply}");
    let blobs = harness.stored.blobs.lock();
    assert_eq!(blobs.len(), 1);
    assert_eq!((blobs[0].0, blobs[0].2.len()), (A, 8000 * 57));
    let inbox = harness.cluster.inbox(harness.ada);
    assert!(inbox[0].message.has_attachments && inbox[0].raw().len() < 10_000);
}
