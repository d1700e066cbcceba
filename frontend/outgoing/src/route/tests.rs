//! Which hosts, which addresses, and which of them first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::dns::said::Said;

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

#[tokio::test]
async fn exchangers_come_by_preference_and_by_chance_within_one() {
    let dns = Said::default().mx("far.example", &[(20, "c.example"), (10, "a.example"), (10, "b.example")]);
    let mut firsts = BTreeSet::new();
    for _ in 0..200 {
        let found = hosts(&dns, &domain("far.example")).await.unwrap().hosts;
        assert_eq!(found[2], domain("c.example"));
        firsts.insert(found[0].clone());
    }
    assert_eq!(firsts.len(), 2);
}

#[tokio::test]
async fn a_null_mx_is_permanent_and_none_beside_others() {
    let dns = Said::default().mx("no.example", &[(0, ".")]).mx("odd.example", &[(0, "."), (10, "a.example")]);
    let error = hosts(&dns, &domain("no.example")).await.unwrap_err();
    assert_eq!((error.code(), error.is_permanent()), ("5.1.10", true));
    assert_eq!(hosts(&dns, &domain("odd.example")).await.unwrap().hosts, [domain("a.example")]);
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_host() {
    let dns = Said::default().at("only6.example", &["2606:4700::1"]).at("empty.example", &[]);
    assert_eq!(hosts(&dns, &domain("only6.example")).await.unwrap().hosts, [domain("only6.example")]);
    assert_eq!(hosts(&dns, &domain("empty.example")).await.unwrap_err().code(), "5.4.4");
    assert_eq!(hosts(&dns, &domain("absent.example")).await.unwrap_err().code(), "5.1.2");
}

#[tokio::test]
async fn what_is_bogus_or_silent_is_temporary_and_no_implicit_mx() {
    let mut dns = Said::default().at("far.example", &["8.8.8.8"]);
    for error in
        [DnsError::Bogus("far.example".into()), DnsError::Failed { name: "far.example".into(), why: "x".into() }]
    {
        dns.exchangers.insert("far.example".into(), Err(error));
        assert!(!hosts(&dns, &domain("far.example")).await.unwrap_err().is_permanent());
    }
}

#[test]
fn only_what_is_public_is_connected_to() {
    for address in [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "198.19.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fec0::1",
        "3fff::1",
        "100::1",
        "4000::1",
    ] {
        let parsed: IpAddr = address.parse().unwrap();
        assert!(not_public(parsed).is_some(), "{address}");
        assert_eq!(AddressPolicy { allow_private: true }.refusal(parsed), None);
    }
    for address in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700::1", "2a00:1450::1", "64:ff9b::808:808"] {
        assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
    }
}

#[tokio::test]
async fn a_host_that_leads_inside_is_refused_by_the_address_that_would_be_used() {
    let dns = Said::default().at("evil.example", &["127.0.0.1", "::1"]);
    let policy = AddressPolicy::default();
    let error = connect(&dns, &domain("evil.example"), 25, policy, &[], Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nothing listens at the others.
    let dns = Said::default().at("two.example", &["::1", "127.0.0.9", "127.0.0.1"]);
    let policy = AddressPolicy { allow_private: true };
    let reached = connect(&dns, &domain("two.example"), port, policy, &[], Duration::from_secs(20)).await.unwrap();
    assert_eq!(reached.peer, listener.local_addr().unwrap());
    let from: IpAddr = "127.0.0.5".parse().unwrap();
    let reached = connect(&dns, &domain("two.example"), port, policy, &[from], Duration::from_secs(20)).await.unwrap();
    assert_eq!(reached.stream.local_addr().unwrap().ip(), from);
}

#[test]
fn routes_are_read() {
    let route: Route = "Relay.example:2525".parse().unwrap();
    assert_eq!((route.host.as_str(), route.port), ("relay.example", 2525));
    assert_eq!("relay.example".parse::<Route>().unwrap().port, 25);
    assert!("relay.example:0".parse::<Route>().is_err() && "relay.example:x".parse::<Route>().is_err());
}
