//! What is answered, message by message.

mod support;

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use postrider_dns::health::Seen;
use postrider_dns::server::Transport;
use postrider_dns::zone::Zones;
use support::{HandClock, Question, Setup, data, domain, pem, regions, responder};

fn types(records: &[hickory_proto::rr::Record]) -> Vec<RecordType> {
    records.iter().map(|record| record.record_type()).collect()
}

#[test]
fn everything_a_mail_domain_needs_is_there() {
    let responder = responder(Setup::default());
    for (name, rtype, part) in [
        ("example.org", RecordType::SOA, "ns-seoul.example.org. hostmaster.example.org. 2026113001"),
        ("example.org", RecordType::NS, "ns-frankfurt.example.org."),
        ("example.org", RecordType::MX, "mx-seoul.example.org."),
        ("mail.example.org", RecordType::A, "192.0.2.1"),
        ("mx.example.org", RecordType::AAAA, "2001:db8::1"),
        ("api.example.org", RecordType::A, "192.0.2.1"),
        ("example.org", RecordType::TXT, "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1"),
        ("r1._domainkey.example.org", RecordType::TXT, "v=DKIM1; k=rsa; h=sha256; p="),
        ("e1._domainkey.example.org", RecordType::TXT, "v=DKIM1; k=ed25519"),
        ("_dmarc.example.org", RecordType::TXT, "v=DMARC1; p=reject; rua=mailto:postmaster@example.org"),
        ("_mta-sts.example.org", RecordType::TXT, "v=STSv1; id="),
        ("_smtp._tls.example.org", RecordType::TXT, "v=TLSRPTv1; rua=mailto:postmaster@example.org"),
        ("example.org", RecordType::CAA, "0 issue \"letsencrypt.org\""),
        ("mx-virginia.example.org", RecordType::A, "192.0.2.2"),
        ("ns-virginia.example.org", RecordType::A, "192.0.2.102"),
        ("_25._tcp.mx-seoul.example.org", RecordType::TLSA, "3 1 1 "),
        ("_submissions._tcp.example.org", RecordType::SRV, "0 1 465 mail.example.org."),
        ("_imaps._tcp.example.org", RecordType::SRV, "0 0 0 ."),
        ("_postrider._tcp.example.org", RecordType::SRV, "0 1 443 mx-seoul.example.org."),
        ("autoconfig.example.org", RecordType::A, "192.0.2.1"),
        ("mta-sts.example.org", RecordType::A, "192.0.2.1"),
    ] {
        let answer = Question::new(name, rtype).ask_by(&responder, Transport::Tcp).unwrap();
        assert!(answer.metadata.authoritative, "{name}");
        let found = data(&answer.answers);
        assert!(found.iter().any(|data| data.contains(part)), "{name} {rtype}: {found:?}");
    }
    let mx = Question::new("example.org", RecordType::MX).ask(&responder);
    assert_eq!(mx.answers.len(), 3, "all regions");
    assert!(!mx.additionals.is_empty(), "with addresses");
}

#[test]
fn what_an_authority_looks_for_is_there_while_it_is_ordered() {
    let responder = responder(Setup::default());
    let question = Question::new("_acme-challenge.mx.example.org", RecordType::TXT);
    assert!(question.ask(&responder).answers.is_empty());
    let mut ordered = domain("example.org");
    let texts = [("mx.example.org", "one"), ("mx.example.org", "two"), ("other.example", "three")];
    ordered.challenges = texts.map(|(host, text)| (host.to_owned(), text.to_owned())).to_vec();
    responder.set_zones(Zones::build(&[ordered], &regions()).0);
    let answer = question.ask(&responder);
    let mut found = data(&answer.answers);
    found.sort();
    assert_eq!(found.len(), 2, "of a host and of the wildcard below it: {found:?}");
    assert!(found[0].contains("one") && found[1].contains("two"), "{found:?}");
    assert!(answer.answers.iter().all(|record| record.ttl == 1), "it is another one the next time");
}

#[test]
fn the_operators_records_stand_beside_ours() {
    let responder = responder(Setup::default());
    let alias = Question::new("www.example.org", RecordType::A).ask(&responder);
    assert_eq!(types(&alias.answers), [RecordType::CNAME, RecordType::A]);
    let out = Question::new("alias.example.org", RecordType::A).ask(&responder);
    assert_eq!(types(&out.answers), [RecordType::CNAME], "its end is somebody else's");
    let wild = Question::new("any.thing.dev.example.org", RecordType::A).ask(&responder);
    assert_eq!(data(&wild.answers), ["192.0.2.80"]);
    assert_eq!(wild.answers[0].name.to_string(), "any.thing.dev.example.org.");
    let texts = Question::new("example.org", RecordType::TXT).ask(&responder);
    assert_eq!(texts.answers.len(), 2, "{texts:?}");
    let empty = Question::new("b.c.example.org", RecordType::TXT).ask(&responder);
    assert_eq!(empty.metadata.response_code, ResponseCode::NoError, "it is there for the name below it");
    let referral = Question::new("host.lab.example.org", RecordType::A).ask(&responder);
    assert!(!referral.metadata.authoritative && referral.answers.is_empty());
    assert_eq!(types(&referral.authorities), [RecordType::NS]);
    assert_eq!(data(&referral.additionals), ["192.0.2.53"]);
}

#[test]
fn what_is_not_there_is_denied_and_what_is_not_ours_refused() {
    let responder = responder(Setup::default());
    let missing = Question::new("nothing.example.org", RecordType::A).ask(&responder);
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(types(&missing.authorities), [RecordType::SOA]);
    assert_eq!(missing.authorities[0].ttl, 60);
    let other_type = Question::new("mail.example.org", RecordType::TXT).ask(&responder);
    assert_eq!(other_type.metadata.response_code, ResponseCode::NoError);
    assert_eq!(types(&other_type.authorities), [RecordType::SOA]);
    for (name, rtype) in [
        ("example.net", RecordType::A),
        ("org", RecordType::SOA),
        (".", RecordType::NS),
        ("example.org", RecordType::AXFR),
        ("example.org", RecordType::IXFR),
    ] {
        let answer = Question::new(name, rtype).ask_by(&responder, Transport::Tcp).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name} {rtype}");
        assert!(answer.answers.is_empty() && !answer.metadata.authoritative);
    }
    let any = Question::new("example.org", RecordType::ANY).ask(&responder);
    assert_eq!(types(&any.answers), [RecordType::HINFO]);
    let pseudo = Question::new("example.org", RecordType::Unknown(128)).ask(&responder);
    assert_eq!(pseudo.metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn the_question_comes_back_letter_by_letter() {
    let responder = responder(Setup::default());
    let answer = Question::new("MaIl.eXample.ORG", RecordType::A).ask(&responder);
    assert_eq!(answer.queries[0].name.to_ascii(), "MaIl.eXample.ORG.");
    assert_eq!(answer.answers.len(), 1);
}

#[test]
fn denial_is_compact_and_tells_nothing_of_other_names() {
    let responder = responder(Setup { key: Some(pem()), ..Setup::default() });
    let missing = Question::new("nothing.example.org", RecordType::A).signed().ask(&responder);
    assert_eq!(missing.metadata.response_code, ResponseCode::NoError, "as the proof says");
    use RecordType::{NSEC, RRSIG, SOA};
    assert_eq!(types(&missing.authorities), [SOA, RRSIG, NSEC, RRSIG]);
    assert_eq!(missing.authorities[2].name.to_string(), "nothing.example.org.");
    let proof = missing.authorities[2].data.to_string();
    assert!(proof.starts_with("\\000.nothing.example.org."), "{proof}");
    // The client that understands (RFC 9824 section 5.1) gets the plain code.
    let mut asked = Question::new("nothing.example.org", RecordType::A).signed();
    asked.message.edns.as_mut().unwrap().flags_mut().z = 0x4000;
    let told = asked.ask(&responder);
    assert_eq!(told.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(told.edns.unwrap().flags().z, 0x4000);
    // Without signatures it is as it ever was.
    let plain = Question::new("nothing.example.org", RecordType::A).ask(&responder);
    assert_eq!(plain.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(types(&plain.authorities), [SOA]);
    let referral = Question::new("lab.example.org", RecordType::A).signed().ask(&responder);
    assert_eq!(types(&referral.authorities), [RecordType::NS, NSEC, RRSIG], "not ours: NS is not signed");
}

#[test]
fn the_subnet_is_echoed_and_its_scope_is_honest() {
    let responder = responder(Setup::default());
    let option = |answer: &hickory_proto::op::Message| {
        let edns = answer.edns.as_ref().expect("EDNS");
        let option = edns.option(hickory_proto::rr::rdata::opt::EdnsCode::Subnet).expect("the option");
        Vec::<u8>::try_from(option).unwrap()
    };
    let asked = |name, rtype| Question::new(name, rtype).subnet("203.0.113.0").ask(&responder);
    assert_eq!(option(&asked("mail.example.org", RecordType::A)), [0, 1, 24, 0, 203, 0, 113], "all get the same yet");
    let client = "203.0.113.9".parse().unwrap();
    let sample = postrider_dns::latency::sample::Sample::of(client, Duration::from_millis(3));
    let now_s = u64::try_from(postrider_api::env::SystemClock::shared().wall_ms() / 1000).unwrap();
    responder.chooser().record(1, &[sample; 20], now_s);
    let tailored = asked("mail.example.org", RecordType::A);
    assert_eq!(option(&tailored), [0, 1, 24, 24, 203, 0, 113]);
    assert_eq!(data(&tailored.answers), ["192.0.2.2"]);
    assert_eq!(option(&asked("example.org", RecordType::TXT))[3], 0, "the same for all");
    let mx = asked("example.org", RecordType::MX);
    assert_eq!(data(&mx.answers)[0], "10 mx-virginia.example.org.");
    let hidden = Question::new("mail.example.org", RecordType::A).option(8, &[0, 1, 0, 0]).ask(&responder);
    assert_eq!(option(&hidden), [0, 1, 0, 0]);
    let malformed = Question::new("mail.example.org", RecordType::A).option(8, &[0, 1, 24, 0, 1]).ask(&responder);
    assert_eq!(malformed.metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn what_does_not_fit_is_truncated_with_its_opt() {
    let responder = responder(Setup { key: Some(pem()), ..Setup::default() });
    let long = "r1._domainkey.example.org";
    let plain = Question::new(long, RecordType::TXT);
    let cut = plain.ask(&responder);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_none());
    let mut small = Question::new(long, RecordType::TXT).signed();
    small.message.edns.as_mut().unwrap().set_max_payload(600);
    let cut = small.ask(&responder);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
    let whole = small.ask_by(&responder, Transport::Tcp).unwrap();
    assert!(!whole.metadata.truncation);
    let Some(RData::TXT(txt)) = whole.answers.first().map(|record| &record.data) else { panic!("{whole:?}") };
    assert!(txt.txt_data.len() >= 3 && txt.txt_data.iter().all(|part| part.len() <= 255));
    // Addresses beside an answer go first.
    let mut mx = Question::new("example.org", RecordType::MX).signed();
    mx.message.edns.as_mut().unwrap().set_max_payload(512);
    let mx = mx.ask(&responder);
    assert!(!mx.metadata.truncation && mx.answers.len() == 4 && mx.additionals.is_empty(), "{mx:?}");
}

#[test]
fn a_flood_is_limited_unless_the_client_is_known_to_be_there() {
    let clock = Arc::new(HandClock::default());
    clock.forward(Duration::from_secs(60));
    let responder = responder(Setup { answers_per_second: 5, clock: clock.clone(), ..Setup::default() });
    let question = Question::new("mail.example.org", RecordType::A);
    let answers: Vec<_> = (0..200).map(|_| question.ask_by(&responder, Transport::Udp)).collect();
    let whole = answers.iter().flatten().filter(|answer| !answer.metadata.truncation).count();
    let slipped = answers.iter().flatten().filter(|answer| answer.metadata.truncation).count();
    assert_eq!((whole, slipped), (20, 90));
    let over_tcp = (0..200).filter_map(|_| question.ask_by(&responder, Transport::Tcp)).count();
    assert_eq!(over_tcp, 200);
    clock.forward(Duration::from_secs(60));
    let first = Question::new("mail.example.org", RecordType::A).option(10, &[9; 8]).ask(&responder);
    let cookie = first.edns.unwrap();
    let cookie = cookie.option(hickory_proto::rr::rdata::opt::EdnsCode::Cookie).unwrap();
    let cookie = Vec::<u8>::try_from(cookie).unwrap();
    assert_eq!(cookie.len(), 24);
    let known = Question::new("mail.example.org", RecordType::A).option(10, &cookie);
    let whole = (0..200).filter_map(|_| known.ask_by(&responder, Transport::Udp));
    assert_eq!(whole.filter(|answer| !answer.metadata.truncation).count(), 200);
}

#[test]
fn a_region_that_dies_is_gone_and_is_back_when_it_serves() {
    let responder = responder(Setup::default());
    let report = |region, seen, second| responder.chooser().report(region, seen, Duration::from_secs(second));
    let named = || {
        let mut named: Vec<String> = (0..200)
            .flat_map(|_| data(&Question::new("mail.example.org", RecordType::A).ask(&responder).answers))
            .collect();
        named.sort();
        named.dedup();
        named
    };
    assert!(named().contains(&"192.0.2.1".to_owned()));
    report(0, Seen::Nothing, 1);
    report(0, Seen::Nothing, 2);
    assert_eq!(named(), ["192.0.2.2", "192.0.2.3"]);
    let mx = Question::new("example.org", RecordType::MX).ask(&responder);
    assert_eq!(mx.answers.len(), 2);
    for region in 1..3 {
        report(region, Seen::Nothing, 1);
        report(region, Seen::Nothing, 2);
    }
    assert_eq!(Question::new("example.org", RecordType::MX).ask(&responder).answers.len(), 3, "all are given");
    for second in 3..20 {
        report(0, Seen::Serves, second);
    }
    assert_eq!(named(), ["192.0.2.1"]);
}

#[test]
fn another_version_another_class_and_a_signed_question() {
    let responder = responder(Setup::default());
    let mut version = Question::new("example.org", RecordType::A).signed();
    version.message.edns.as_mut().unwrap().set_version(1);
    let answer = version.ask(&responder);
    // 16, which TSIG calls BADSIG.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.unwrap().version(), 0);
    let mut chaos = Question::new("version.bind", RecordType::TXT);
    chaos.message.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    assert_eq!(chaos.ask(&responder).metadata.response_code, ResponseCode::Refused);
}
