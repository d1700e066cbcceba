//! `postrider_domain_records`: the DNS records that a domain needs, for those who keep its DNS elsewhere.

use std::net::IpAddr;

use async_trait::async_trait;
use postrider_api::pb;
use postrider_dns::region::Region;
use postrider_dns::zone::domain::{DkimKey, DmarcPolicy, Domain, MtaSts, Policy};
use postrider_dns::zone::file;
use postrider_dns::zone::tree::Zone;

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{DataSource, Done};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, Value, object};

pub(super) struct DomainRecords;

#[async_trait]
impl DataSource<Connection> for DomainRecords {
    fn name(&self) -> &'static str {
        "domain_records"
    }

    fn schema(&self) -> Schema {
        let region = vec![
            Attribute::required("name", Type::Text, "Its name in the cluster."),
            Attribute::required("addresses", Type::texts(), "Addresses of its frontends, as clients reach them."),
            Attribute::required("mail_host", Type::Text, "The name that its SMTP servers say of themselves."),
            Attribute::required("ns_host", Type::Text, "The name of its name server."),
            Attribute::optional(
                "ns_addresses",
                Type::texts(),
                "Addresses of its name server; without them those of the frontends.",
            ),
            Attribute::optional("outgoing", Type::texts(), "From where it sends mail, where that is not `addresses`."),
        ];
        let record = &[
            ("name", Type::Text),
            ("ttl", Type::Number),
            ("type", Type::Text),
            ("data", Type::Text),
            ("chosen", Type::Bool),
        ];
        Schema {
            description: "The DNS records that a domain needs: MX, SPF, DKIM, DMARC, MTA-STS and those for mail programs, for whoever keeps the domain's DNS \
                          elsewhere. `regions` are what `modules/cluster` and `postrider dns` are told as well; what `[policy]` of the name servers \
                          says beyond the attributes here is not known.",
            attributes: vec![
                Attribute::required("domain", Type::Text, "The domain; mail is accepted for it."),
                Attribute::required("regions", Type::NestedList(region), "What each region shows to the world."),
                Attribute::defaulted(
                    "spf_fails",
                    Type::Bool,
                    false,
                    "Whether mail from elsewhere fails SPF (`-all`) or is only suspect (`~all`).",
                ),
                Attribute::defaulted(
                    "dmarc",
                    Type::Text,
                    "none",
                    "What receivers shall do with mail that fails: `none`, `quarantine` or `reject`.",
                ),
                Attribute::defaulted("mta_sts", Type::Text, "testing", "`none`, `testing` or `enforce`."),
                Attribute::computed(
                    "records",
                    Type::objects(record),
                    "One record each. `chosen`: our name servers choose it for whoever asks.",
                ),
                Attribute::computed("zone_file", Type::Text, "All of them, as a zone file."),
            ],
        }
    }

    async fn read(&self, connection: &Connection, config: &Object) -> Done<Object> {
        let map = connection.map().await?;
        let zone = zone(&map, config)?;
        let record = |line: &file::Line| {
            Value::Object(object([
                ("name", line.name.clone().into()),
                ("ttl", line.ttl.into()),
                ("type", line.rtype.clone().into()),
                ("data", line.data.clone().into()),
                ("chosen", line.tailored.into()),
            ]))
        };
        let mut state = config.clone();
        state.insert("records".into(), Value::List(file::lines(&zone).iter().map(record).collect()));
        state.insert("zone_file".into(), file::print(&zone).into());
        Ok(state)
    }
}

fn zone(map: &pb::ShardMap, config: &Object) -> Done<Zone> {
    let wanted = config.text("domain").unwrap_or_default();
    let known = map.domains.iter().find(|domain| domain.name == wanted);
    let known = known.ok_or_else(|| {
        let detail =
            format!("Mail for {wanted} is not accepted: `postrider_domain` first, and `depends_on` that here.");
        Diagnostic::error("No such domain", detail).at("domain")
    })?;
    let regions = config.value("regions");
    let Value::List(regions) = regions else {
        return Err(Diagnostic::error("No regions", "At least one is wanted.").at("regions"));
    };
    let regions = regions.iter().map(region_of).collect::<Done<Vec<Region>>>()?;
    let of_zone = map.regions.iter().filter(|region| region.zone == known.zone).map(|region| region.name.clone());
    let domain = Domain {
        name: known.name.clone(),
        // Whoever keeps the zone elsewhere has a serial of his own, and one of ours would differ with every change of the cluster.
        serial: 1,
        regions: of_zone.collect(),
        dkim: known.dkim_keys.iter().filter_map(DkimKey::of).collect(),
        policy: policy_of(config)?,
        // Of the next minutes only.
        challenges: Vec::new(),
        own: String::new(),
    };
    Zone::build(&domain, &regions)
        .map_err(|error| Diagnostic::error(format!("The zone of {wanted} cannot be made"), error.to_string()))
}

fn policy_of(config: &Object) -> Done<Policy> {
    let wrong = |name: &str, words: &str| {
        Diagnostic::error(format!("Not a value of {name}"), format!("{words} are possible.")).at(name)
    };
    let dmarc = match config.text("dmarc") {
        Some("none") | None => DmarcPolicy::None,
        Some("quarantine") => DmarcPolicy::Quarantine,
        Some("reject") => DmarcPolicy::Reject,
        Some(_) => return Err(wrong("dmarc", "none, quarantine and reject")),
    };
    let mta_sts = match config.text("mta_sts") {
        Some("none") => MtaSts::None,
        Some("testing") | None => MtaSts::Testing,
        Some("enforce") => MtaSts::Enforce,
        Some(_) => return Err(wrong("mta_sts", "none, testing and enforce")),
    };
    Ok(Policy { spf_fails: config.flag("spf_fails").unwrap_or(false), dmarc, mta_sts, ..Policy::default() })
}

fn region_of(value: &Value) -> Done<Region> {
    let Value::Object(region) = value else {
        return Err(Diagnostic::error("No region", "An object is wanted.").at("regions"));
    };
    let text = |name: &str| region.text(name).unwrap_or_default().to_owned();
    let addresses = |name: &str| -> Done<Vec<IpAddr>> {
        let told = region.list_of_texts(name).unwrap_or_default();
        let parsed = told.iter().map(|address| {
            let wrong =
                |_| Diagnostic::error("Not an address", format!("{name}: {address:?} is no IP address.")).at("regions");
            address.parse().map_err(wrong)
        });
        parsed.collect()
    };
    let own = addresses("addresses")?;
    let ns_addresses = addresses("ns_addresses")?;
    Ok(Region {
        name: text("name"),
        mail_host: text("mail_host"),
        ns_host: text("ns_host"),
        ns_addresses: if ns_addresses.is_empty() { own.clone() } else { ns_addresses },
        addresses: own,
        outgoing: addresses("outgoing")?,
        tlsa: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domains_records_are_told() {
        let region = object([
            ("name", "seoul".into()),
            ("addresses", Value::texts(["192.0.2.1"])),
            ("mail_host", "mx-seoul.postrider.example".into()),
            ("ns_host", "ns-seoul.postrider.example".into()),
        ]);
        let map = pb::ShardMap {
            version: 7,
            domains: vec![pb::Domain { name: "postrider.example".into(), zone: "world".into(), ..Default::default() }],
            regions: vec![pb::Region { name: "seoul".into(), zone: "world".into(), ..Default::default() }],
            ..Default::default()
        };
        let config = |domain: &str, dmarc: &str| {
            let regions = Value::List(vec![Value::Object(region.clone())]);
            object([("domain", domain.into()), ("dmarc", dmarc.into()), ("regions", regions)])
        };
        let lines = file::lines(&zone(&map, &config("postrider.example", "reject")).unwrap());
        let has = |rtype: &str, part: &str| lines.iter().any(|line| line.rtype == rtype && line.data.contains(part));
        assert!(has("MX", "mx-seoul.postrider.example") && has("TXT", "p=reject") && has("TXT", "v=spf1"), "{lines:?}");
        assert_eq!(zone(&map, &config("other.example", "none")).err().unwrap().attribute.as_deref(), Some("domain"));
        assert_eq!(zone(&map, &config("postrider.example", "drop")).err().unwrap().attribute.as_deref(), Some("dmarc"));
    }
}
