//! A DNS that says what a test needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;

use super::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};

/// What it says; of what it says nothing there is nothing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Said {
    pub(crate) exchangers: BTreeMap<String, Result<Answer<Exchanger>, DnsError>>,
    pub(crate) addresses: BTreeMap<(String, bool), Result<Answer<IpAddr>, DnsError>>,
    pub(crate) tlsa: BTreeMap<String, Result<Answer<Tlsa>, DnsError>>,
    pub(crate) txt: BTreeMap<String, Vec<String>>,
    /// Whether DNSSEC proves it.
    pub(crate) is_secure: bool,
}

impl Said {
    pub(crate) fn mx(mut self, domain: &str, hosts: &[(u16, &str)]) -> Self {
        let exchanger =
            |(preference, host): &(u16, &str)| Exchanger { preference: *preference, host: host.parse().ok() };
        let answer = Answer::of(hosts.iter().map(exchanger).collect(), self.is_secure);
        self.exchangers.insert(domain.to_owned(), Ok(answer));
        self
    }

    pub(crate) fn at(mut self, host: &str, addresses: &[&str]) -> Self {
        for is_v4 in [true, false] {
            let of = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap());
            let of: Vec<_> = of.filter(|address| address.is_ipv4() == is_v4).collect();
            self.addresses.insert((host.to_owned(), is_v4), Ok(Answer::of(of, self.is_secure)));
        }
        self
    }

    pub(crate) fn has_txt(mut self, name: &str, text: &str) -> Self {
        self.txt.entry(name.to_owned()).or_default().push(text.to_owned());
        self
    }

    pub(crate) fn has_tlsa(mut self, host: &str, records: Vec<Tlsa>) -> Self {
        self.tlsa.insert(host.to_owned(), Ok(Answer::of(records, self.is_secure)));
        self
    }
}

#[async_trait]
impl Dns for Said {
    async fn exchangers(&self, domain: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        let known = self.addresses.contains_key(&(domain.to_string(), true));
        self.exchangers.get(domain.as_str()).cloned().unwrap_or(Ok(Answer::none(known, self.is_secure)))
    }

    async fn addresses(&self, host: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        let key = (host.to_string(), family == Family::V4);
        self.addresses.get(&key).cloned().unwrap_or(Ok(Answer::none(true, self.is_secure)))
    }

    async fn tlsa(&self, host: &Domain, _: u16) -> Result<Answer<Tlsa>, DnsError> {
        self.tlsa.get(host.as_str()).cloned().unwrap_or(Ok(Answer::none(false, self.is_secure)))
    }

    async fn txt(&self, name: &str) -> Result<Answer<String>, DnsError> {
        let records = self.txt.get(name).cloned().unwrap_or_default();
        Ok(Answer::of(records, self.is_secure))
    }
}
