//! What others would do with a mail service that sends, against a real cluster and a host outside that keeps every byte it gets: an open relay, fields that
//! are written into a header, recipients in Bcc who become known, reports to people who sent nothing, mail that goes round, a second message smuggled out in
//! the first, and messages that are bombs.

mod harness;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use harness::outside::{Sink, Taken, dns};
use harness::rest::Api;
use harness::smtp::{Client, SENDER, Sent, text};
use harness::{Cluster, DEADLINE, Options, Region, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Nobody else of this machine's tests listens there.
const AT: Ipv4Addr = Ipv4Addr::new(127, 99, 25, 9);
/// Outside, and its host is here: whom a forged message names.
const VICTIM: &str = "victim@far.example";

struct World {
    cluster: Cluster,
    host: Sink,
    region: Region,
    ada: Api,
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_who_would_abuse_it() {
    let Some(host) = Sink::listen(AT, Duration::ZERO).await else { return };
    let resolver = dns(&[("far.example", AT)]).await;
    let cluster = Cluster::start(Options { resolver: Some(resolver), ..Options::default() }).await;
    let region = cluster.ready().regions[0].clone();
    let ada = Api::sign_up(&region, "ada@postrider.example").await;
    let world = World { cluster, host, region, ada };
    world.relays_nothing().await;
    world.writes_no_fields_for_others().await;
    world.tells_nobody_of_bcc().await;
    world.smuggles_nothing_out().await;
    world.sends_nothing_round_and_no_report_to_whoever_is_named().await;
    world.bears_bombs().await;
    // All of it that left was asked for, once.
    assert_eq!(world.cluster.ctl(&["queue", "list"]).await.0, json!([]));
    assert!(world.host.duplicates().is_empty());
    world.cluster.assert_consistent().await;
}

impl World {
    async fn client(&self) -> Client {
        Client::connect(&self.region.smtp).await.expect("connect")
    }

    async fn refused(&self, from: &str, to: &str) -> String {
        match self.client().await.address(from, &[to]).await {
            Ok(Some(Sent::Refused { code: 550..=559, text, .. })) => text,
            other => panic!("{from} to {to}: {other:?}"),
        }
    }

    async fn relays_nothing(&self) {
        // A stranger, somebody who says that he is one of ours, and nobody.
        for from in [SENDER, &self.ada.address, ""] {
            for to in [VICTIM, "\"victim@far.example\"@postrider.example", "victim%far.example@postrider.example"] {
                let said = self.refused(from, to).await;
                assert!(said.contains(" 5.1.") || said.contains(" 5.7."), "{said}");
            }
        }
        assert_eq!(self.host.count(), 0);
    }

    async fn writes_no_fields_for_others(&self) {
        let broken = "x\r\nBcc: victim@far.example";
        let file = json!([{"filename": broken, "data": "aGk="}]);
        let kind = json!([{"filename": "x", "content_type": "text/plain\r\nBcc: victim@far.example", "data": "aGk="}]);
        for body in [
            json!({"to": [self.ada.address], "subject": broken}),
            json!({"to": [{"name": broken, "email": self.ada.address}]}),
            json!({"to": [format!("{}\r\nRCPT TO:<{VICTIM}>", self.ada.address)]}),
            json!({"to": ["a b@far.example> NOTIFY=NEVER"]}),
            json!({"to": [self.ada.address], "attachments": file}),
            json!({"to": [self.ada.address], "attachments": kind}),
        ] {
            let answer = self.ada.ask(Method::POST, "/v1/messages", Some(body.clone())).await.expect("an answer");
            let status = answer.status();
            if status != StatusCode::ACCEPTED {
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
                continue;
            }
            // What is taken is written so that it is no line of the header.
            let id = answer.json::<Value>().await.expect("JSON")["id"].as_str().expect("an id").to_owned();
            let raw = String::from_utf8_lossy(&self.ada.bytes(&format!("/v1/messages/{id}/raw")).await).into_owned();
            assert!(!raw.to_lowercase().contains("\nbcc:"), "{body}: {raw}");
        }
        assert_eq!(self.host.count(), 0);
    }

    /// Sends one message by REST, and gives back what the host has of it.
    async fn sent(&self, body: Value, copies: usize) -> Vec<Taken> {
        let before = self.host.count();
        self.ada.change(Method::POST, "/v1/messages", body).await;
        until("the host has it", || self.host.count() >= before + copies).await;
        self.host.taken().split_off(before)
    }

    async fn tells_nobody_of_bcc(&self) {
        let body =
            json!({"to": ["bob@far.example", self.ada.address], "bcc": ["hidden@far.example"], "subject": "To Bob"});
        let taken = self.sent(body, 1).await;
        let everybody: Vec<&str> = taken.iter().flat_map(|taken| taken.recipients.iter().map(String::as_str)).collect();
        assert!(everybody.contains(&"bob@far.example") && everybody.contains(&"hidden@far.example"), "{everybody:?}");
        let row = self.ada.until_subject("To Bob").await;
        let here = self.ada.bytes(&format!("/v1/messages/{}/raw", row["id"].as_str().expect("an id"))).await;
        for raw in taken.iter().map(|taken| &taken.raw).chain([&here]) {
            let raw = String::from_utf8_lossy(raw).to_lowercase();
            assert!(!raw.contains("hidden") && !raw.contains("\nbcc:"), "{raw}");
        }
    }

    /// Of every byte that leaves, CR and LF stand together only, and a message that looks like the end of one is one message.
    async fn smuggles_nothing_out(&self) {
        let second =
            "MAIL FROM:<ceo@postrider.example>\r\nRCPT TO:<victim@far.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";
        for (n, end) in
            ["\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n\0.\r\n", "\u{2028}.\u{2028}"].iter().enumerate()
        {
            let subject = format!("Two in one {n}");
            let text = format!("first{end}{second}{end}");
            let body = json!({"to": ["bob@far.example"], "subject": subject, "body": text, "body_html": text});
            let answer = self.ada.ask(Method::POST, "/v1/messages", Some(body)).await.expect("an answer");
            match answer.status() {
                StatusCode::ACCEPTED => {}
                // A control character that no text has.
                status => assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{end:?}"),
            }
        }
        // By SMTP it is said at once, to strangers and to programs alike (`frontend/tests/rest/submission.rs`).
        for end in ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n"] {
            let message = format!("Subject: x\r\n\r\nfirst{end}{second}\r\n");
            let said = self.client().await.send(&[&self.ada.address], message.as_bytes()).await;
            assert!(matches!(said, Sent::Refused { code: 500..=599, after_data: true, .. }), "{end:?}: {said:?}");
        }
        let begin = Instant::now();
        while self.ada.get("/v1/outbox").await["messages"] != json!([]) {
            assert!(begin.elapsed() < DEADLINE, "everything that was taken leaves");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for taken in self.host.taken() {
            let bare = |at: usize| match taken.raw[at] {
                b'\r' => taken.raw.get(at + 1) != Some(&b'\n'),
                b'\n' => at == 0 || taken.raw[at - 1] != b'\r',
                _ => false,
            };
            let raw = String::from_utf8_lossy(&taken.raw);
            assert!(!(0..taken.raw.len()).any(bare), "{raw}");
            assert!(!taken.recipients.iter().any(|recipient| recipient == VICTIM), "{raw}");
            assert_ne!(taken.id, "", "{raw}");
        }
        let smuggled = self.host.taken().into_iter().filter(|taken| taken.raw.starts_with(b"Subject: smuggled"));
        assert_eq!(smuggled.count(), 0);
    }

    async fn sends_nothing_round_and_no_report_to_whoever_is_named(&self) {
        let before = self.host.count();
        // Nobody of this name is told to whoever brings it, while he is here to hear it.
        self.refused(VICTIM, "nobody@postrider.example").await;
        self.refused("", "nobody@postrider.example").await;
        // A way back that this cluster has not made.
        self.refused("", "b0=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@postrider.example").await;
        // It has been through a hundred hosts.
        let hops = "Received: from a.example by b.example; Mon, 30 Nov 2026 10:00:00 +0000\r\n".repeat(101);
        let round = format!("{hops}Subject: round\r\n\r\nx\r\n");
        let said = self.client().await.send(&[&self.ada.address], round.as_bytes()).await;
        assert!(matches!(&said, Sent::Refused { code: 554, text, .. } if text.contains("5.4.6")), "{said:?}");
        // A bounce of a bounce, asked-for answers, and mail to somebody who takes it: nothing comes of any of them.
        let mut client = self.client().await;
        for (from, fields) in [
            ("", "Subject: Undelivered\r\nAuto-Submitted: auto-replied\r\n"),
            (
                VICTIM,
                "Subject: please\r\nDisposition-Notification-To: victim@far.example\r\nReturn-Receipt-To: victim@far.example\r\n",
            ),
        ] {
            assert_eq!(client.address(from, &[&self.ada.address]).await.expect("an answer"), None);
            let said = client.content(format!("{fields}\r\nx\r\n").as_bytes()).await.expect("an answer");
            assert!(matches!(said, Sent::Accepted(_)), "{said:?}");
        }
        self.ada.until_subject("please").await;
        // Ada's own mail that fails is told to her alone, and nobody is told of that.
        let body = json!({"to": ["nobody@far.example"], "subject": "fails"});
        self.ada.change(Method::POST, "/v1/messages", body).await;
        self.ada.until_subject("Your message could not be delivered").await;
        assert_eq!(self.ada.get("/v1/outbox").await["messages"], json!([]));
        assert_eq!(self.host.count(), before);
    }

    /// What is small on its way in and large afterwards, or deep, or many.
    async fn bears_bombs(&self) {
        let mut client = self.client().await;
        let deep: String = (0..5000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
            .collect::<String>();
        let wide = format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n",
            "--b\r\nContent-Disposition: attachment; filename=x\r\n\r\n\r\n".repeat(20_000)
        );
        let named = format!("To: {}\r\n\r\nx\r\n", "<a@b.example>,".repeat(30_000).replace(">,<", ">,\r\n <"));
        for (n, bomb) in [deep, wide, named].iter().enumerate() {
            let subject = format!("bomb {n}");
            let message = format!("Subject: {subject}\r\n{bomb}");
            match client.send(&[&self.ada.address], message.as_bytes()).await {
                Sent::Accepted(_) => {
                    let row = self.ada.until_subject(&subject).await;
                    // Whoever has it can read it, and have it back as it was.
                    let path = format!("/v1/messages/{}", row["id"].as_str().expect("an id"));
                    self.ada.get(&path).await;
                    let raw = self.ada.bytes(&format!("{path}/raw")).await;
                    assert!(raw.ends_with(message.as_bytes()), "{subject}");
                }
                Sent::Refused { code: 550..=559, .. } => {}
                other => panic!("{subject}: {other:?}"),
            }
        }
        // It serves as before.
        let said = client.send(&[&self.ada.address], &text("after the bombs", "x")).await;
        assert!(matches!(said, Sent::Accepted(_)), "{said:?}");
        self.ada.until_subject("after the bombs").await;
        let many: Vec<String> = (0..101).map(|n| format!("r{n}@far.example")).collect();
        let answer = self.ada.ask(Method::POST, "/v1/messages", Some(json!({"to": many}))).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}
