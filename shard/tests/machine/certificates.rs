//! Certificates of public authorities: which are wanted, who orders, what was issued.

use bytes::Bytes;
use postrider_api::limit::{ORDER_CLAIM_MS_MAX, PUBLIC_CERTIFICATES_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, CertificateProof, PublicCertificate, Refusal};

use crate::harness::Machine;
use crate::placement::{machine, map};

const MINUTE_MS: i64 = 60 * 1000;

fn want(names: &[&str], proof: CertificateProof) -> Op {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Op::WantCertificate(pb::WantCertificate { names, proof: proof.into() })
}

fn holder(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 16])
}

fn claim(byte: u8, claim_ms: i64) -> Op {
    Op::ClaimOrders(pb::ClaimOrders { holder: holder(byte), region: "seoul".to_owned(), claim_ms })
}

fn issued(byte: u8, name: &str, chain: &str, key: &str, issued_for_ms: i64) -> Op {
    Op::RecordCertificate(pb::RecordCertificate {
        holder: holder(byte),
        name: name.to_owned(),
        chain: chain.to_owned().into(),
        wrapped_private_key: key.to_owned().into(),
        begins_ms: 1,
        expires_ms: 2,
        issued_for_ms,
    })
}

fn progress(byte: u8, name: &str) -> pb::RecordOrder {
    pb::RecordOrder { holder: holder(byte), name: name.to_owned(), ..pb::RecordOrder::default() }
}

fn known(machine: &Machine, name: &str) -> PublicCertificate {
    map(machine).public_certificates.into_iter().find(|known| known.name == name).expect("it is wanted")
}

#[test]
fn one_orders_at_a_time_and_whoever_lost_the_claim_records_nothing() {
    let mut machine = machine();
    machine.done(want(&["a.example.org", "b.example.org"], CertificateProof::Http));
    machine.done(claim(1, MINUTE_MS));
    assert_eq!(machine.refused(claim(2, MINUTE_MS)).0, Refusal::Conflict);
    // What is not held is not given back.
    machine.done(claim(2, 0));
    assert_eq!(map(&machine).acme.unwrap().claim.unwrap().holder, holder(1));
    let wish = known(&machine, "a.example.org").wanted_ms;
    assert_eq!(machine.refused(issued(2, "a.example.org", "chain", "key", wish)).0, Refusal::Conflict);

    let account = pb::AcmeAccount { directory: "https://acme.example".into(), wrapped_credentials: "x".into() };
    machine.done(Op::RecordOrder(pb::RecordOrder { account: Some(account.clone()), ..progress(1, "") }));
    let challenge = pb::AcmeChallenge { host: "a.example.org".into(), token: "token".into(), answer: "answer".into() };
    let recorded = pb::RecordOrder { challenges: vec![challenge.clone()], ..progress(1, "a.example.org") };
    machine.done(Op::RecordOrder(recorded.clone()));
    assert_eq!(known(&machine, "a.example.org").challenges, [challenge]);

    // The claim is over: another one has it, and the first records nothing any more.
    machine.now += MINUTE_MS;
    machine.done(claim(2, MINUTE_MS));
    assert_eq!(machine.refused(Op::RecordOrder(recorded)).0, Refusal::Conflict);
    assert_eq!(machine.refused(issued(1, "a.example.org", "chain", "key", wish)).0, Refusal::Conflict);
    machine.done(issued(2, "a.example.org", "chain", "key", wish));
    let first = known(&machine, "a.example.org");
    assert_eq!((first.chain.as_ref(), first.issued_for_ms, first.challenges.len()), (&b"chain"[..], wish, 0));
    machine.done(claim(2, 0));
    let record = map(&machine).acme.unwrap();
    assert_eq!((record.claim, record.account), (None, Some(account)));

    // A renewal keeps the time since which its key is known; another key begins anew.
    machine.now += MINUTE_MS;
    machine.done(claim(3, MINUTE_MS));
    machine.done(issued(3, "a.example.org", "renewed", "key", wish));
    assert_eq!(known(&machine, "a.example.org").key_since_ms, first.key_since_ms);
    machine.done(issued(3, "a.example.org", "renewed", "other key", wish));
    assert!(known(&machine, "a.example.org").key_since_ms > first.key_since_ms);
    assert_eq!(
        machine.refused(issued(3, "b.example.org", "chain", "key", 1)).0,
        Refusal::Conflict,
        "it is not known by this"
    );
    machine.assert_verified();
}

#[test]
fn a_failure_waits_longer_each_time_until_it_is_wanted_again() {
    let mut machine = machine();
    machine.done(want(&["a.example.org"], CertificateProof::Dns));
    machine.done(claim(1, ORDER_CLAIM_MS_MAX));
    let fail = || Op::RecordOrder(pb::RecordOrder { failure: "no such name".into(), ..progress(1, "a.example.org") });
    let mut waits = Vec::new();
    for _ in 0..12 {
        machine.done(fail());
        let failed = known(&machine, "a.example.org");
        waits.push((failed.retry_ms - machine.now) / MINUTE_MS);
    }
    assert_eq!(waits[..4], [2, 4, 8, 16]);
    assert_eq!(waits[11], 12 * 60);
    let failed = known(&machine, "a.example.org");
    assert_eq!((failed.failures, failed.failure.as_str()), (12, "no such name"));
    machine.done(want(&["a.example.org"], CertificateProof::Dns));
    let again = known(&machine, "a.example.org");
    assert_eq!((again.failures, again.retry_ms, again.wanted_ms), (0, 0, failed.wanted_ms));
    // Other names are another wish.
    machine.done(want(&["a.example.org", "*.a.example.org"], CertificateProof::Dns));
    assert!(known(&machine, "a.example.org").wanted_ms > failed.wanted_ms);
    machine.done(Op::ForgetCertificate(pb::ForgetCertificate { name: "a.example.org".to_owned() }));
    assert!(map(&machine).public_certificates.is_empty());
    assert_eq!(machine.refused(fail()).0, Refusal::Conflict, "it is wanted no more");
    machine.assert_verified();
}

#[test]
fn what_no_authority_would_issue_is_refused() {
    let mut machine = machine();
    let long = format!("{}.example.org", "a".repeat(64));
    for (names, proof) in [
        (&[][..], CertificateProof::Http),
        (&["localhost"], CertificateProof::Http),
        (&["A.example.org"], CertificateProof::Http),
        (&["a..example.org"], CertificateProof::Http),
        (&["-a.example.org"], CertificateProof::Http),
        (&["a_b.example.org"], CertificateProof::Http),
        (&[long.as_str()], CertificateProof::Http),
        (&["a.example.org", "a.example.org"], CertificateProof::Http),
        (&["*.example.org"], CertificateProof::Http),
        (&["*.*.example.org"], CertificateProof::Dns),
        (&["a.example.org"], CertificateProof::Unspecified),
    ] {
        assert_eq!(machine.refused(want(names, proof)).0, Refusal::Malformed, "{names:?} {proof:?}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("h{n}.example.org")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(machine.refused(want(&many, CertificateProof::Http)).0, Refusal::Malformed);
    machine.done(want(&many[..100], CertificateProof::Http));
    for broken in [claim(1, -1), claim(1, ORDER_CLAIM_MS_MAX + 1)] {
        assert_eq!(machine.refused(broken).0, Refusal::Malformed);
    }
    for n in 1..PUBLIC_CERTIFICATES_MAX {
        machine.done(want(&[format!("n{n}.example.org").as_str()], CertificateProof::Http));
    }
    assert_eq!(machine.refused(want(&["more.example.org"], CertificateProof::Http)).0, Refusal::Conflict);
}
