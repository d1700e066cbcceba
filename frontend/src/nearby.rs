//! For tests: a DNS in which the hosts of every domain are this machine, and a transport that goes there.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use postrider_outgoing::TransportSettings;
use postrider_outgoing::dns::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};

/// Every domain has one host, itself, here.
pub(crate) struct Here;

#[async_trait]
impl Dns for Here {
    async fn exchangers(&self, domain: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        Ok(Answer::of(vec![Exchanger { preference: 10, host: Some(domain.clone()) }], false))
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

/// Of a transport whose hosts listen here, at this port.
pub(crate) fn settings(port: u16) -> TransportSettings {
    let mut settings = TransportSettings::new("near.example");
    settings.addresses.allow_private = true;
    settings.port = port;
    settings
}
