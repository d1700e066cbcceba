//! Hard peers: each ends as the standards say, with one copy at the peer wherever the protocol allows that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use postrider_api::notify::Notify;

use super::peer::{Act, Authority, Peer};
use super::*;
use crate::dns::said::Said;
use crate::dns::{DnsError, Tlsa};

const ALL: &[&str] = &["PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"];
const BODY: &[u8] = b"From: <ada@near.example>\r\nSubject: Hi\r\n\r\nHello\r\n.\r\n..two\r\nend\r\n";

fn destination() -> Domain {
    "far.example".parse().unwrap()
}

fn to(addresses: &[&str]) -> Vec<RemoteRecipient> {
    addresses
        .iter()
        .map(|address| RemoteRecipient { address: (*address).to_owned(), ..RemoteRecipient::default() })
        .collect()
}

fn message(body: &Bytes) -> Outbound<'_> {
    Outbound {
        mail_from: "ada@near.example",
        envelope_id: "",
        return_content: ReturnContent::Unspecified,
        require_tls: false,
        smtp_utf8: false,
        body,
        category: Category::Personal,
        route: None,
    }
}

/// The destination with one host, at the peer's address.
fn one_host() -> Said {
    Said::default().mx("far.example", &[(10, "mx.far.example")]).at("mx.far.example", &["127.0.0.1"])
}

fn transport(dns: Said, peer: &Peer, change: impl FnOnce(&mut TransportSettings)) -> Transport {
    let mut settings = TransportSettings::new("near.example");
    settings.addresses.allow_private = true;
    settings.port = peer.address.port();
    change(&mut settings);
    Transport::new(Arc::new(dns), settings)
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

async fn send(transport: &Transport, addresses: &[&str]) -> Vec<Fate> {
    let body = Bytes::from_static(BODY);
    let attempts = transport.attempt(&message(&body), &destination(), &to(addresses), in_time()).await;
    attempts.into_iter().map(|attempt| attempt.fate).collect()
}

fn short() -> Timeouts {
    let step = Duration::from_millis(400);
    Timeouts {
        connect: Duration::from_secs(10),
        greeting: step,
        hello: step,
        mail: step,
        rcpt: step,
        data: step,
        block: step,
        end: step,
        quit: step,
    }
}

/// In a word: what became of him, with its code and whether the destination is to blame.
fn word(fate: &Fate) -> String {
    match fate {
        Fate::Accepted { .. } => "accepted".to_owned(),
        Fate::Deferred { code, destination, .. } => {
            format!("deferred {code}{}", if *destination { " all" } else { "" })
        }
        Fate::Failed { code, .. } => format!("failed {code}"),
        Fate::Unknown { .. } => "unknown".to_owned(),
    }
}

#[tokio::test]
async fn one_transaction_takes_the_message_to_many_and_the_connection_is_used_again() {
    for extensions in [ALL, &["CHUNKING", "PIPELINING"], &[]] {
        let peer = Peer::start("127.0.0.1:0", extensions, None, |_, _| None).await;
        let transport = transport(one_host(), &peer, |_| {});
        for _ in 0..3 {
            let fates = send(&transport, &["bob@far.example", "eve@far.example"]).await;
            assert!(fates.iter().all(|fate| matches!(fate, Fate::Accepted { .. })), "{fates:?}");
        }
        let taken = peer.taken();
        assert_eq!((taken.len(), peer.sessions()), (3, 1));
        assert!(taken.iter().all(|taken| taken.body == BODY && taken.rcpt.len() == 2));
    }
}

#[tokio::test]
async fn what_a_peer_says_at_each_step_is_what_becomes_of_the_message() {
    for (step, says, becomes) in [
        ("GREETING", "421 4.3.2 later\r\n", "deferred 4.3.2 all"),
        ("GREETING", "554 5.7.1 no\r\n", "failed 5.7.1"),
        ("EHLO", "421 4.3.2 later\r\n", "deferred 4.3.2 all"),
        ("MAIL", "451 4.3.0 later\r\n", "deferred 4.3.0"),
        ("MAIL", "421 4.7.0 too many\r\n", "deferred 4.7.0 all"),
        ("MAIL", "550 5.7.1 not you\r\n", "failed 5.7.1"),
        ("RCPT", "450 4.2.0 greylisted\r\n", "deferred 4.2.0"),
        ("RCPT", "550 5.1.1 nobody\r\n", "failed 5.1.1"),
        ("RCPT", "550-first\r\n550 second\r\n", "failed 5.0.0"),
        ("RCPT", "552 too many recipients\r\n", "deferred 4.0.0"),
        ("RCPT", "552 5.2.2 full\r\n", "failed 5.2.2"),
        ("DATA", "451 4.3.0 later\r\n", "deferred 4.3.0"),
        ("DATA", "554 5.7.1 no\r\n", "failed 5.7.1"),
        (".", "451 4.3.0 later\r\n", "deferred 4.3.0"),
        (".", "554 5.7.1 spam\r\n", "failed 5.7.1"),
        (".", "552 5.3.4 too large after all\r\n", "failed 5.3.4"),
        // What is no reply.
        ("GREETING", "HTTP/1.1 200 OK\r\n", "deferred 4.5.0 all"),
        ("EHLO", "250-a\r\n550 b\r\n", "deferred 4.5.0 all"),
        ("MAIL", "what?\r\n", "deferred 4.5.0 all"),
        ("RCPT", "\r\n", "deferred 4.5.0 all"),
        ("DATA", "250 go on\r\n", "deferred 4.5.0 all"),
        (".", "what?\r\n", "unknown"),
        (".", "354 go on\r\n", "unknown"),
    ] {
        for extensions in [ALL, &[]] {
            let act = move |_: usize, command: &str| command.starts_with(step).then_some(Act::Say(says));
            let peer = Peer::start("127.0.0.1:0", extensions, None, act).await;
            let fates = send(&transport(one_host(), &peer, |_| {}), &["bob@far.example"]).await;
            assert_eq!(word(&fates[0]), becomes, "{step}: {says} {fates:?}");
            assert!(peer.taken().len() <= usize::from(becomes == "unknown"), "{step}: {says}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_closes_or_hangs_leaves_the_message_here_until_its_end_went_out() {
    for act in [Act::Close, Act::Hang] {
        for (step, becomes) in [
            ("GREETING", "deferred 4.4.2 all"),
            ("EHLO", "deferred 4.4.2 all"),
            ("MAIL", "deferred 4.4.2 all"),
            ("RCPT", "deferred 4.4.2 all"),
            ("DATA", "deferred 4.4.2 all"),
            (".", "unknown"),
        ] {
            let done = act.clone();
            let script = move |_: usize, command: &str| command.starts_with(step).then(|| done.clone());
            let peer = Peer::start("127.0.0.1:0", ALL, None, script).await;
            let transport = transport(one_host(), &peer, |settings| settings.timeouts = short());
            let fates = send(&transport, &["bob@far.example"]).await;
            assert_eq!(word(&fates[0]), becomes, "{step} {act:?}: {fates:?}");
            assert_eq!(peer.taken().len(), usize::from(becomes == "unknown"));
        }
    }
}

#[tokio::test]
async fn a_peer_that_closes_in_mid_message_does_not_have_it() {
    let script = |_: usize, command: &str| (command == "BODY").then_some(Act::Close);
    let peer = Peer::start("127.0.0.1:0", ALL, None, script).await;
    // Far more than the buffers between the two hold: the end of the message has certainly not gone out.
    let mut body = b"Subject: long\r\n\r\n".to_vec();
    body.resize(64 * 1024 * 1024, b'x');
    let body = Bytes::from(body);
    let transport = transport(one_host(), &peer, |_| {});
    let fates = transport.attempt(&message(&body), &destination(), &to(&["bob@far.example"]), in_time()).await;
    // The peer says that it takes a million bytes.
    assert_eq!(word(&fates[0].fate), "failed 5.3.4");
    let peer = Peer::start("127.0.0.1:0", &["PIPELINING"], None, script).await;
    let transport = self::transport(one_host(), &peer, |_| {});
    let fates = transport.attempt(&message(&body), &destination(), &to(&["bob@far.example"]), in_time()).await;
    assert_eq!(word(&fates[0].fate), "deferred 4.4.2 all");
    assert!(peer.taken().is_empty());
}

#[tokio::test]
async fn a_peer_that_is_slow_is_waited_for() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, command| {
        if command == "." {
            // In the peer's own thread of this test's runtime: the reply comes late.
            std::thread::sleep(Duration::from_millis(600));
        }
        None
    })
    .await;
    let fates = send(&transport(one_host(), &peer, |_| {}), &["bob@far.example"]).await;
    assert_eq!((word(&fates[0]).as_str(), peer.taken().len()), ("accepted", 1));
}

#[tokio::test]
async fn one_who_is_refused_does_not_keep_it_from_the_others() {
    let script = |_: usize, command: &str| {
        let says = [("RCPT TO:<eve", "550 5.1.1 nobody\r\n"), ("RCPT TO:<gil", "450 4.2.0 greylisted\r\n")];
        says.iter().find(|(begins, _)| command.starts_with(begins)).map(|(_, says)| Act::Say(says))
    };
    for extensions in [ALL, &[]] {
        let peer = Peer::start("127.0.0.1:0", extensions, None, script).await;
        let fates =
            send(&transport(one_host(), &peer, |_| {}), &["eve@far.example", "bob@far.example", "gil@far.example"])
                .await;
        let words: Vec<_> = fates.iter().map(word).collect();
        assert_eq!(words, ["failed 5.1.1", "accepted", "deferred 4.2.0"]);
        assert_eq!(peer.taken().len(), 1);
    }
}

#[tokio::test]
async fn whoever_is_too_many_comes_in_the_next_transaction_of_the_same_session() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let script = move |_: usize, command: &str| {
        // Asked twice for each command by the peer above: five pairs for each transaction.
        match command {
            "." => _ = count.swap(0, std::sync::atomic::Ordering::SeqCst),
            _ if command.starts_with("RCPT") => {
                let asked = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                return (asked >= 10).then_some(Act::Say("452 4.5.3 too many recipients\r\n"));
            }
            _ => {}
        }
        None
    };
    let peer = Peer::start("127.0.0.1:0", ALL, None, script).await;
    let addresses: Vec<String> = (0..12).map(|number| format!("r{number}@far.example")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let fates = send(&transport(one_host(), &peer, |_| {}), &addresses).await;
    assert!(fates.iter().all(|fate| matches!(fate, Fate::Accepted { .. })), "{fates:?}");
    let sizes: Vec<_> = peer.taken().iter().map(|taken| taken.rcpt.len()).collect();
    assert_eq!((sizes, peer.sessions()), (vec![5, 5, 2], 1));
}

#[tokio::test]
async fn the_next_host_is_tried_when_the_first_is_down_or_busy() {
    let busy = Peer::start("127.0.0.1:0", ALL, None, |_, command| {
        (command == "GREETING").then_some(Act::SayAndClose("421 4.3.2 busy\r\n"))
    })
    .await;
    let second = Peer::start(&format!("127.0.0.2:{}", busy.address.port()), ALL, None, |_, _| None).await;
    let dns = Said::default()
        .mx("far.example", &[(5, "down.far.example"), (10, "mx1.far.example"), (20, "mx2.far.example")])
        .at("down.far.example", &["127.0.0.3"])
        .at("mx1.far.example", &["127.0.0.1"])
        .at("mx2.far.example", &["127.0.0.2"]);
    let fates = send(&transport(dns, &busy, |_| {}), &["bob@far.example"]).await;
    assert_eq!((word(&fates[0]).as_str(), second.taken().len(), busy.sessions()), ("accepted", 1, 1));
}

#[tokio::test]
async fn a_destination_that_is_down_is_to_be_tried_again() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let dns = Said::default().mx("far.example", &[(10, "mx.far.example")]).at("mx.far.example", &["127.0.0.4"]);
    assert_eq!(word(&send(&transport(dns, &peer, |_| {}), &["bob@far.example"]).await[0]), "deferred 4.4.1 all");
}

#[tokio::test]
async fn names_decide_before_anybody_is_connected_to() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let null = Said::default().mx("far.example", &[(0, ".")]);
    assert_eq!(word(&send(&transport(null, &peer, |_| {}), &["bob@far.example"]).await[0]), "failed 5.1.10");
    assert_eq!(word(&send(&transport(Said::default(), &peer, |_| {}), &["b@far.example"]).await[0]), "failed 5.1.2");
    let mut bogus = one_host();
    bogus.exchangers.insert("far.example".into(), Err(DnsError::Bogus("far.example".into())));
    assert_eq!(word(&send(&transport(bogus, &peer, |_| {}), &["b@far.example"]).await[0]), "deferred 4.7.5 all");
    let inside = transport(one_host(), &peer, |settings| settings.addresses.allow_private = false);
    let fates = send(&inside, &["bob@far.example"]).await;
    assert_eq!(word(&fates[0]), "failed 5.4.4");
    assert_eq!(peer.sessions(), 0);
}

#[tokio::test]
async fn nothing_leaves_that_a_peer_could_read_as_something_else() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let transport = transport(one_host(), &peer, |_| {});
    for body in [&b"a: b\r\n\r\nx\n.\r\nMAIL FROM:<e@e>\r\n"[..], b"a: b\r\n\r\nx\r.\r\n", b"a: b\n\nx"] {
        let body = Bytes::from_static(body);
        let fates = transport.attempt(&message(&body), &destination(), &to(&["bob@far.example"]), in_time()).await;
        assert_eq!(word(&fates[0].fate), "failed 5.6.0");
    }
    let fates = send(&transport, &["bob@far.example>\r\nRCPT TO:<eve@far.example", "bob@far.example"]).await;
    assert_eq!(fates.iter().map(word).collect::<Vec<_>>(), ["failed 5.1.3", "accepted"]);
    assert!(peer.commands().iter().all(|command| !command.contains("eve")));
    assert_eq!(peer.taken().len(), 1);
}

#[tokio::test]
async fn a_peer_that_drops_what_is_pipelined_gets_its_commands_one_by_one() {
    let script = |_: usize, command: &str| command.starts_with("MAIL").then_some(Act::DropTheRest);
    let peer = Peer::start("127.0.0.1:0", ALL, None, script).await;
    let transport = transport(one_host(), &peer, |settings| settings.timeouts = short());
    for _ in 0..2 {
        let fates = send(&transport, &["bob@far.example", "eve@far.example"]).await;
        assert!(fates.iter().all(|fate| matches!(fate, Fate::Accepted { .. })), "{fates:?}");
    }
    assert_eq!(peer.taken().len(), 2);
    assert_eq!(peer.sessions(), 2, "it is remembered");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_nobody_used_it_is_replaced() {
    let script = |session: usize, command: &str| {
        let is_second = session == 1 && ["RSET", "MAIL FROM:<late@near.example>"].contains(&command);
        is_second.then_some(Act::SayAndClose("421 4.4.2 idle\r\n"))
    };
    let peer = Peer::start("127.0.0.1:0", &[], None, script).await;
    let transport = transport(one_host(), &peer, |_| {});
    send(&transport, &["bob@far.example"]).await;
    let body = Bytes::from_static(BODY);
    let late = Outbound { mail_from: "late@near.example", ..message(&body) };
    let fates = transport.attempt(&late, &destination(), &to(&["bob@far.example"]), in_time()).await;
    assert_eq!((word(&fates[0].fate).as_str(), peer.taken().len(), peer.sessions()), ("accepted", 2, 2));
}

#[tokio::test]
async fn a_server_that_knows_no_ehlo_is_greeted_with_helo() {
    let script = |_: usize, command: &str| command.starts_with("EHLO").then_some(Act::Say("502 5.5.1 what?\r\n"));
    let peer = Peer::start("127.0.0.1:0", ALL, None, script).await;
    let fates = send(&transport(one_host(), &peer, |_| {}), &["bob@far.example"]).await;
    assert_eq!(word(&fates[0]), "accepted");
    assert!(peer.commands().contains(&"HELO near.example".to_owned()));
}

#[tokio::test]
async fn what_the_peer_does_not_take_is_refused_with_its_reason() {
    let utf8 = Bytes::from("Subject: Grüße\r\n\r\nHello\r\n");
    let peer = Peer::start("127.0.0.1:0", &["8BITMIME"], None, |_, _| None).await;
    let transport = transport(one_host(), &peer, |_| {});
    let bob = to(&["bob@far.example"]);
    let message = Outbound { smtp_utf8: true, ..message(&utf8) };
    let fates = transport.attempt(&message, &destination(), &bob, in_time()).await;
    assert_eq!(word(&fates[0].fate), "failed 5.6.7");
    // All is ASCII: SMTPUTF8 is not needed, though it was asked for.
    let ascii = Bytes::from_static(BODY);
    let fates = transport.attempt(&Outbound { body: &ascii, ..message.clone() }, &destination(), &bob, in_time()).await;
    assert_eq!(word(&fates[0].fate), "accepted");
    // A recipient whose address is not, beside one whose is.
    let fates = send(&transport, &["jörg@far.example", "bob@far.example"]).await;
    assert_eq!(fates.iter().map(word).collect::<Vec<_>>(), ["failed 5.6.7", "accepted"]);
    let old = Peer::start("127.0.0.1:0", &["SIZE 20"], None, |_, _| None).await;
    let transport = self::transport(one_host(), &old, |_| {});
    assert_eq!(word(&send(&transport, &["bob@far.example"]).await[0]), "failed 5.3.4");
    let eight_bit = Bytes::from("a: b\r\n\r\nü\r\n");
    let fates = transport.attempt(&self::message(&eight_bit), &destination(), &bob, in_time()).await;
    assert_eq!(word(&fates[0].fate), "failed 5.6.3");
    assert!(old.commands().iter().all(|command| !command.starts_with("MAIL")));
}

#[tokio::test]
async fn what_the_sender_wants_to_be_told_goes_along() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let transport = transport(one_host(), &peer, |_| {});
    let body = Bytes::from_static(BODY);
    let message = Outbound { envelope_id: "a+2Bb+20c", return_content: ReturnContent::Headers, ..message(&body) };
    let recipient = RemoteRecipient {
        address: "bob@far.example".to_owned(),
        notify: Notify::SUCCESS | Notify::FAILURE,
        original: "rfc822;b+3Db@far.example".to_owned(),
    };
    let fates = transport.attempt(&message, &destination(), &[recipient], in_time()).await;
    assert!(matches!(&fates[0].fate, Fate::Accepted { relayed: false, .. }));
    let taken = peer.taken();
    assert_eq!(taken[0].mail, format!("MAIL FROM:<ada@near.example> SIZE={} RET=HDRS ENVID=a+2Bb+20c", BODY.len()));
    assert_eq!(taken[0].rcpt, ["RCPT TO:<bob@far.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+3Db@far.example"]);
    let plain = Peer::start("127.0.0.1:0", &[], None, |_, _| None).await;
    let fates = send(&self::transport(one_host(), &plain, |_| {}), &["bob@far.example"]).await;
    assert!(matches!(&fates[0], Fate::Accepted { relayed: true, .. }));
}

#[tokio::test]
async fn a_configured_route_takes_what_the_destination_does_not() {
    let peer = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let dns = Said::default().at("relay.example", &["127.0.0.1"]);
    let route = Route { host: "relay.example".parse().unwrap(), port: peer.address.port() };
    let transport = transport(dns, &peer, |settings| settings.relay = Some(route));
    assert_eq!(word(&send(&transport, &["bob@far.example"]).await[0]), "accepted");
}

#[tokio::test]
async fn tls_that_is_nice_to_have_is_used_and_done_without_where_it_does_not_work() {
    let (server, _) = Authority::new().server("somebody.else.example");
    // A certificate of another name, from nobody known: better than none.
    let peer = Peer::start("127.0.0.1:0", ALL, Some(server.clone()), |_, _| None).await;
    assert_eq!(word(&send(&transport(one_host(), &peer, |_| {}), &["bob@far.example"]).await[0]), "accepted");
    assert!(peer.taken()[0].is_encrypted);
    // Offered, and broken in each way: said no to, said nonsense to, closed, more in the buffer than was asked for.
    for act in [Act::Say("454 4.7.0 not now\r\n"), Act::SayAndClose("220 go\r\nnonsense"), Act::Close, Act::Inject] {
        let done = act.clone();
        let script = move |_: usize, command: &str| (command == "STARTTLS").then(|| done.clone());
        let peer = Peer::start("127.0.0.1:0", ALL, Some(server.clone()), script).await;
        let fates = send(&transport(one_host(), &peer, |_| {}), &["bob@far.example"]).await;
        assert_eq!((word(&fates[0]).as_str(), peer.sessions()), ("accepted", 2), "{act:?}");
        assert!(!peer.taken()[0].is_encrypted);
    }
}

fn tlsa(usage: u8, certificate: &[u8]) -> Tlsa {
    let data = ring::digest::digest(&ring::digest::SHA256, certificate).as_ref().to_vec();
    Tlsa { usage, selector: 0, matching: 1, data }
}

fn secure() -> Said {
    let said = Said { is_secure: true, ..Said::default() };
    said.mx("far.example", &[(10, "mx.far.example")]).at("mx.far.example", &["127.0.0.1"])
}

#[tokio::test]
async fn dane_decides_which_certificate_it_is() {
    let authority = Authority::new();
    let (server, certificate) = authority.server("mx.far.example");
    let (other, other_certificate) = authority.server("somebody.else.example");
    let rogue = Authority::new();
    let peer = |server: &Arc<ServerConfig>| Peer::start("127.0.0.1:0", ALL, Some(server.clone()), |_, _| None);
    for (server, records, becomes) in [
        (&server, vec![tlsa(3, &certificate)], "accepted"),
        // Usage 3 is about the certificate, not about its name.
        (&other, vec![tlsa(3, &other_certificate)], "accepted"),
        (&server, vec![tlsa(3, &other_certificate)], "deferred 4.7.5 all"),
        (&server, vec![tlsa(2, &authority.certificate)], "accepted"),
        // Usage 2 is about the name as well.
        (&other, vec![tlsa(2, &authority.certificate)], "deferred 4.7.5 all"),
        (&server, vec![tlsa(2, &rogue.certificate)], "deferred 4.7.5 all"),
        // An anchor that stands in the record is one, and that of nobody in the chain is none.
        (
            &server,
            vec![Tlsa { usage: 2, selector: 0, matching: 0, data: rogue.certificate.to_vec() }],
            "deferred 4.7.5 all",
        ),
        // Records of uses that are not for SMTP: encrypted, by whomever.
        (&other, vec![tlsa(1, &certificate)], "accepted"),
    ] {
        let peer = peer(server).await;
        let dns = secure().has_tlsa("mx.far.example", records.clone());
        let fates = send(&transport(dns, &peer, |_| {}), &["bob@far.example"]).await;
        assert_eq!(word(&fates[0]), becomes, "{records:?} {fates:?}");
        assert!(peer.taken().iter().all(|taken| taken.is_encrypted));
    }
    // A host that has records and offers no TLS gets nothing; nor does one whose records are bogus.
    let plain = Peer::start("127.0.0.1:0", ALL, None, |_, _| None).await;
    let dns = secure().has_tlsa("mx.far.example", vec![tlsa(3, &certificate)]);
    assert_eq!(word(&send(&transport(dns, &plain, |_| {}), &["bob@far.example"]).await[0]), "deferred 4.7.10 all");
    let mut dns = secure();
    dns.tlsa.insert("mx.far.example".into(), Err(DnsError::Bogus("x".into())));
    assert_eq!(word(&send(&transport(dns, &plain, |_| {}), &["bob@far.example"]).await[0]), "deferred 4.7.5 all");
    // What is not proven is none.
    let dns = one_host().has_tlsa("mx.far.example", vec![tlsa(3, &certificate)]);
    assert_eq!(word(&send(&transport(dns, &plain, |_| {}), &["bob@far.example"]).await[0]), "accepted");
}

/// A host that serves one policy, and says how often it was asked.
async fn policy_host(authority: &Authority, name: &str, answer: String) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let (server, _) = authority.server(name);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(server.clone()).accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            assert!(request.starts_with(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n"));
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            stream.write_all(answer.as_bytes()).await.ok();
            stream.shutdown().await.ok();
        }
    });
    (port, asked)
}

fn policy(mode: &str, host: &str) -> String {
    let text = format!("version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 86400\r\n");
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

#[tokio::test]
async fn a_policy_is_kept_where_it_is_enforced_and_only_there() {
    let authority = Authority::new();
    let (good, _) = authority.server("mx.far.example");
    let (bad, _) = authority.server("somebody.else.example");
    let sts =
        |said: Said| said.has_txt("_mta-sts.far.example", "v=STSv1; id=1").at("mta-sts.far.example", &["127.0.0.1"]);
    let redirect = "HTTP/1.1 301 Moved\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n".to_owned();
    let long = format!("{}{}", policy("enforce", "nobody.example").replace("Content-Length", "X"), "x".repeat(100_000));
    let of_name = "mta-sts.far.example";
    for (tls, host, answer, becomes) in [
        (Some(&good), of_name, policy("enforce", "mx.far.example"), "accepted"),
        (Some(&bad), of_name, policy("enforce", "mx.far.example"), "deferred 4.7.5 all"),
        (None, of_name, policy("enforce", "mx.far.example"), "deferred 4.7.10 all"),
        (Some(&good), of_name, policy("enforce", "*.other.example"), "deferred 4.7.5 all"),
        // Only tested: neither the name nor the certificate matters.
        (Some(&bad), of_name, policy("testing", "*.other.example"), "accepted"),
        (Some(&bad), of_name, policy("none", "x.example"), "accepted"),
        // No policy: its host has another name, it leads elsewhere, it never ends.
        (Some(&bad), "other.example", policy("enforce", "nobody.example"), "accepted"),
        (Some(&bad), of_name, redirect, "accepted"),
        (Some(&bad), of_name, long, "accepted"),
    ] {
        let (port, asked) = policy_host(&authority, host, answer.clone()).await;
        let peer = Peer::start("127.0.0.1:0", ALL, tls.cloned(), |_, _| None).await;
        let roots = vec![authority.certificate.clone()];
        let transport = transport(sts(one_host()), &peer, |settings| {
            settings.roots = roots;
            settings.policy_port = port;
        });
        for _ in 0..2 {
            let fates = send(&transport, &["bob@far.example"]).await;
            assert_eq!(word(&fates[0]), becomes, "{answer} {fates:?}");
        }
        assert!(asked.load(std::sync::atomic::Ordering::SeqCst) <= 1, "it is remembered");
    }
}

#[tokio::test]
async fn mail_that_must_be_encrypted_all_the_way_goes_only_there() {
    let authority = Authority::new();
    let (server, certificate) = authority.server("mx.far.example");
    let body = Bytes::from_static(BODY);
    let message = Outbound { require_tls: true, ..message(&body) };
    let bob = to(&["bob@far.example"]);
    let known = || secure().has_tlsa("mx.far.example", vec![tlsa(3, &certificate)]);
    for (extensions, dns, becomes) in [
        (&["REQUIRETLS"][..], known(), "accepted"),
        (&[], known(), "failed 5.7.30"),
        (&["REQUIRETLS"], one_host(), "failed 5.7.30"),
    ] {
        let peer = Peer::start("127.0.0.1:0", extensions, Some(server.clone()), |_, _| None).await;
        let transport = transport(dns, &peer, |_| {});
        let fates = transport.attempt(&message, &destination(), &bob, in_time()).await;
        assert_eq!(word(&fates[0].fate), becomes);
        assert!(peer.taken().iter().all(|taken| taken.mail.contains("REQUIRETLS")));
    }
}
