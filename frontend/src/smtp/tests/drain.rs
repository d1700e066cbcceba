//! Going down without losing what was begun.

use std::time::Duration;

use super::harness::{Client, Harness, PATIENCE};

#[tokio::test]
async fn idle_clients_are_told_and_transactions_finished() {
    let harness = Harness::start().await;
    let mut idle = harness.greeted().await;
    let mut busy = harness.addressed().await;
    let mut sending = harness.addressed().await;
    sending.ask("DATA\r\n", 354).await;
    harness.drain.cancel();
    let reply = idle.expect(421).await;
    assert!(reply.contains("4.3.2"), "{reply}");
    idle.expect_closed().await;
    busy.ask("DATA\r\n", 354).await;
    busy.ask("one\r\n.\r\n", 250).await;
    busy.expect(421).await;
    busy.expect_closed().await;
    // A message pipelined behind the one that is finished is not begun.
    sending.send(b"two\r\n.\r\nMAIL FROM:<>\r\n").await;
    sending.expect(250).await;
    sending.expect(421).await;
    sending.expect_closed().await;
    tokio::time::timeout(PATIENCE, harness.server).await.expect("the server ends").expect("without a panic");
    assert_eq!(harness.cluster.kept(), 2);
    assert!(tokio::net::TcpStream::connect(harness.address).await.is_err());
}

#[tokio::test]
async fn draining_ends_although_a_client_does_not() {
    let harness = Harness::limited(|limits| limits.drain = Duration::from_millis(200)).await;
    let mut stuck = harness.addressed().await;
    stuck.ask("DATA\r\n", 354).await;
    harness.drain.cancel();
    tokio::time::timeout(PATIENCE, harness.server).await.expect("the server ends").expect("without a panic");
    assert_eq!(harness.cluster.kept(), 0);
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing() {
    let harness = Harness::limited(|limits| limits.content_bytes_max = 700_000).await;
    for _ in 0..5 {
        let mut client = harness.addressed().await;
        client.ask("DATA\r\n", 354).await;
        client.send(&b"0123456789\r\n".repeat(15_000)).await;
        drop(client);
    }
    // All of the memory is there again, some time after the last has gone.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut client: Client<_> = harness.addressed().await;
        client.ask("DATA\r\n", 354).await;
        client.send(&[&b"0123456789\r\n".repeat(20_000)[..], b".\r\n"].concat()).await;
        let reply = client.reply().await;
        if reply.starts_with("250") {
            break;
        }
        assert!(reply.starts_with("452") && tokio::time::Instant::now() < deadline, "{reply}");
    }
    assert_eq!(harness.cluster.kept(), 1);
}
