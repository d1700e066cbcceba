//! A zone as a file says the same as the server does.

mod support;

use hickory_proto::rr::Name;
use hickory_proto::serialize::txt::Parser;
use postrider_dns::zone::file;
use postrider_dns::zone::tree::Zone;
use support::{domain, regions};

#[test]
fn what_is_printed_can_be_read_and_is_all() {
    let zone = Zone::build(&domain("example.org"), &regions()).unwrap();
    let text = file::print(&zone);
    let origin = Name::from_ascii("example.org.").unwrap();
    let (_, sets) =
        Parser::new(text.as_str(), None, Some(origin)).parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let records: usize = sets.values().map(|set| set.records_count()).sum();
    assert_eq!(records, file::lines(&zone).len(), "{text}");
    assert!(text.lines().nth(2).unwrap().starts_with("example.org. "), "the domain itself comes first:\n{text}");
    for part in [
        "mail.example.org. 30 IN A 192.0.2.3",
        "IN MX 30 mx-frankfurt.example.org.",
        "IN CAA 0 issue \"letsencrypt.org\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_domain_that_cannot_be_served_is_told_with_its_field() {
    let mut no_region = domain("example.org");
    no_region.regions = vec!["mars".into()];
    let mut no_name = domain("example.org");
    no_name.name = "bad name..".into();
    let mut alias = domain("example.org");
    alias.own = "mail IN CNAME www".into();
    for (bad, field) in [(no_region, "regions"), (no_name, "domain"), (alias, "CNAME")] {
        let error = Zone::build(&bad, &regions()).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}
