//! SMTP behind a proxy that speaks the PROXY protocol.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::harness::{Client, Harness, options};
use crate::network::Networks;
use crate::proxy::header::SIGNATURE;

/// PROXY, TCP over IPv4, from `client`.
fn header(client: Ipv4Addr, tlvs: &[u8]) -> Vec<u8> {
    let rest = [&client.octets()[..], &[10, 0, 0, 1], &4711_u16.to_be_bytes(), &25_u16.to_be_bytes(), tlvs].concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[0x21, 0x11], &length, &rest].concat()
}

/// A health check of the proxy itself.
fn local() -> Vec<u8> {
    [&SIGNATURE[..], &[0x20, 0x00, 0, 0]].concat()
}

async fn harness(network: &str) -> Harness {
    let mut options = options();
    options.proxies = Networks::from_iter([network.parse().unwrap()]);
    options.limits.connections_per_peer_max = 2;
    Harness::start_with(options).await
}

async fn connect(harness: &Harness, header: &[u8]) -> Client<TcpStream> {
    let mut client = Client::new(TcpStream::connect(harness.address).await.unwrap());
    client.send(header).await;
    client
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_names() {
    let harness = harness("127.0.0.0/8").await;
    let tlvs = [0x01, 0, 4, b's', b'm', b't', b'p', 0x20, 0, 0];
    let mut client = connect(&harness, &header(Ipv4Addr::new(192, 0, 2, 7), &tlvs)).await;
    client.expect(220).await;
    client.ask("EHLO client.example\r\n", 250).await;
    client.address("ada").await;
    client.ask("DATA\r\n", 354).await;
    client.ask("Subject: x\r\n\r\nx\r\n.\r\n", 250).await;
    let raw = String::from_utf8(harness.cluster.inbox(harness.ada)[0].raw()).unwrap();
    assert!(raw.contains("Received: from client.example ([192.0.2.7])\r\n"), "{raw}");
}

#[tokio::test]
async fn a_header_and_a_command_may_come_in_one_piece() {
    let harness = harness("127.0.0.1").await;
    let mut client = connect(&harness, &[&header(Ipv4Addr::new(192, 0, 2, 7), &[])[..], b"NOOP\r\n"].concat()).await;
    client.expect(220).await;
    client.expect(250).await;
    let mut check = connect(&harness, &local()).await;
    check.expect(220).await;
}

#[tokio::test]
async fn clients_are_limited_and_not_their_proxy() {
    let harness = harness("127.0.0.1").await;
    let mut open = Vec::new();
    for last in 1..6 {
        let mut client = connect(&harness, &header(Ipv4Addr::new(192, 0, 2, last), &[])).await;
        client.expect(220).await;
        open.push(client);
    }
    let again = header(Ipv4Addr::new(192, 0, 2, 1), &[]);
    let mut second = connect(&harness, &again).await;
    second.expect(220).await;
    let reply = connect(&harness, &again).await.expect(421).await;
    assert!(reply.contains("from your address"), "{reply}");
}

#[tokio::test]
async fn what_is_no_header_is_refused_at_once() {
    let harness = harness("127.0.0.1").await;
    let too_long = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    for wrong in [b"EHLO client.example\r\n", &b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 25\r\n"[..], b"x", &too_long] {
        let mut client = connect(&harness, wrong).await;
        let reply = client.expect(421).await;
        assert!(reply.contains("PROXY protocol version 2"), "{reply}");
        client.expect_closed().await;
    }
    // Who is no proxy needs none, and has no say in who he is.
    let mut direct = harness.connect_from("127.0.0.9").await;
    direct.ask("NOOP\r\n", 250).await;
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let harness = harness("127.0.0.1").await;
    let began = std::time::Instant::now();
    let mut client = connect(&harness, &SIGNATURE[..5]).await;
    let reply = client.expect(421).await;
    assert!(reply.contains("PROXY protocol version 2"), "{reply}");
    assert!(began.elapsed() >= crate::proxy::HEADER_WAIT_MAX - Duration::from_millis(100));
}
