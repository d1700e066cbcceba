//! Real mail servers take what we send: Postfix and Exim, which the test starts itself. Their logs say that it was encrypted and taken;
//! the signatures of what they delivered are judged by dkimpy and by OpenDKIM.

mod peers;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use peers::{Kind, Peer, judged, opendkim};
use postrider_outgoing::dkim::{Algorithm, DkimKey, Signer, sign, txt_value};
use postrider_outgoing::dns::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};
use postrider_outgoing::smtp::{RemoteRecipient, ReturnContent};
use postrider_outgoing::{Category, Fate, Outbound, Transport, TransportSettings};

/// The host of `far.example`.
const HOST: &str = "mx.far.example";
const DEADLINE: Duration = Duration::from_secs(60);

/// One domain with one host, here.
struct Here;

#[async_trait]
impl Dns for Here {
    async fn exchangers(&self, _: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        let host = Some(HOST.parse().expect("a name"));
        Ok(Answer::of(vec![Exchanger { preference: 10, host }], false))
    }

    async fn addresses(&self, _: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        let here = (family == Family::V4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Answer::of(here.into_iter().collect(), false))
    }

    async fn tlsa(&self, _: &Domain, _: u16) -> Result<Answer<Tlsa>, DnsError> {
        Ok(Answer::none(false, false))
    }

    async fn txt(&self, _: &str) -> Result<Answer<String>, DnsError> {
        Ok(Answer::none(true, false))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_our_mail_encrypted_and_the_signatures_hold() {
    takes_our_mail(Kind::Postfix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_takes_our_mail_encrypted_and_the_signatures_hold() {
    takes_our_mail(Kind::Exim).await;
}

async fn takes_our_mail(kind: Kind) {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let Some(peer) = Peer::start(kind, "far.example", address, None) else { return };
    let mut settings = TransportSettings::new("near.example");
    settings.addresses.allow_private = true;
    settings.port = address.port();
    let transport = Transport::new(Arc::new(Here), settings);
    let signers: Vec<Signer> = [(Algorithm::RsaSha256, "rsa"), (Algorithm::Ed25519, "ed")]
        .map(|(algorithm, selector)| Signer {
            domain: "near.example".parse().expect("a name"),
            selector: selector.to_owned(),
            key: DkimKey::generate(algorithm).expect("a key"),
        })
        .into();
    let text = "From: Ada <ada@near.example>\r\nTo: Bob <bob@far.example>\r\nSubject:  Folded\r\n  and   spaced \r\n\
        Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <m1@near.example>\r\n\r\n\
        Hello  there \t \r\n.\r\n..two\r\n\r\n\r\n";
    let fields = sign(text.as_bytes(), &signers, 1_790_000_000).expect("it is signed");
    let body = Bytes::from([&fields, text.as_bytes()].concat());
    let message = Outbound {
        mail_from: "ada@near.example",
        envelope_id: "",
        return_content: ReturnContent::Unspecified,
        require_tls: false,
        smtp_utf8: false,
        body: &body,
        category: Category::Personal,
        route: None,
    };
    let to: Vec<_> = ["bob@far.example", "eve@far.example"]
        .map(|address| RemoteRecipient { address: address.to_owned(), ..RemoteRecipient::default() })
        .into();
    let destination = "far.example".parse().expect("a name");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    for attempt in transport.attempt(&message, &destination, &to, deadline).await {
        let Fate::Accepted { reply, host, .. } = attempt.fate else { panic!("{attempt:?}\n{}", peer.log()) };
        let said = if kind == Kind::Postfix { "queued as" } else { "OK id=" };
        assert!(reply.starts_with("250 ") && reply.contains(said), "{reply}");
        assert_eq!(host, HOST);
    }
    peer.until("both have it", |peer| !peer.delivered().is_empty() && peer.deliveries() == 2);
    assert!(peer.took_encrypted(), "{}", peer.log());
    let published = |signer: &Signer| {
        let name = format!("{}._domainkey.near.example", signer.selector);
        let public = signer.key.public_key().expect("it has one");
        (name, txt_value(signer.key.algorithm(), &public).expect("a record"))
    };
    let records: Vec<_> = signers.iter().map(published).collect();
    // With its own fields on top.
    let delivered = peer.delivered().remove(0);
    // RSA and Ed25519.
    if let Some(verdicts) = opendkim::verdicts(&delivered, &records) {
        assert_eq!(verdicts, [true, true], "{delivered}");
        let changed = delivered.replace("Hello", "Hallo");
        assert_eq!(opendkim::verdicts(&changed, &records), Some(vec![false, false]));
        let others = delivered.replace("<ada@", "<eve@");
        assert_eq!(opendkim::verdicts(&others, &records), Some(vec![false, false]));
    }
    if let Some(said) = judged(&delivered, &records) {
        assert_eq!(said, "[True, True]");
        let changed = delivered.replace("Hello", "Hallo");
        let said = judged(&changed, &records).expect("it was here a moment ago");
        assert!(said.contains("body hash mismatch"), "{said}");
    }
}
