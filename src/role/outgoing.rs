//! `[outgoing]`: how mail leaves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use postrider_frontend::blobs::Blobs;
use postrider_frontend::limits::RegionWorkers;
use postrider_frontend::rest::ClusterSecret;
use postrider_frontend::worker::{OutsideSettings, UnsubscribeLinks};
use postrider_outgoing::class::Classes;
use postrider_outgoing::dkim::{KEYS_PURPOSE, KeySealer};
use postrider_outgoing::dns::{Dnssec, Resolver, ResolverSettings};
use postrider_outgoing::limit::{CONNECTIONS_MAX, PACE_WINDOW};
use postrider_outgoing::sources::{Source, Sources, WarmUp};
use postrider_outgoing::{Transport, TransportSettings};
use serde::{Deserialize, Serialize};

/// How mail leaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutgoingConfig {
    /// Whether this process sends to the outside at all; what is for there waits for one that does.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// The name in EHLO and in reports; without one SMTP's, or the machine's.
    pub(crate) helo: Option<String>,
    /// The DNS server that is asked; without one those that the system names.
    pub(crate) resolver: Option<SocketAddr>,
    /// Whether answers of the DNS are validated: without it there is no DANE.
    #[serde(default = "yes")]
    pub(crate) dnssec: bool,
    /// File with DNSKEY records to validate from, instead of the root's.
    pub(crate) trust_anchors: Option<PathBuf>,
    /// Whether mail may go to private, loopback and other addresses that are not of the Internet.
    #[serde(default)]
    pub(crate) allow_private_destinations: bool,
    /// `host` or `host:port` that takes all mail, instead of the destinations' own hosts.
    pub(crate) relay: Option<String>,
    /// Connections to one destination at once: of all of the region's workers together where they have a Redis, else of each.
    #[serde(default = "connections_per_destination")]
    pub(crate) connections_per_destination: u32,
    /// Messages to one destination in a minute, of the same; absent: as many as go.
    pub(crate) messages_per_minute: Option<u32>,
    /// What destinations are called in metrics, by what the names of their hosts end with; absent: the big receivers that we know.
    pub(crate) classes: Option<BTreeMap<String, Vec<String>>>,
    /// Whether a message's reverse-path names it and its recipient, for what comes back to be matched to it.
    #[serde(default = "yes")]
    pub(crate) return_paths: bool,
    /// The frontends' REST as the world reaches it, `https://api.example.com`: bulk mail gets links by which its recipients unsubscribe.
    pub(crate) unsubscribe_url: Option<String>,
    /// Addresses that connections are made from.
    #[serde(default)]
    pub(crate) sources: SourcesConfig,
}

/// Addresses that connections are made from, by what mail it is; where there is none, the system chooses.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourcesConfig {
    /// From people.
    #[serde(default)]
    pub(crate) personal: Vec<SourceConfig>,
    /// From programs, to those who wait for it.
    #[serde(default)]
    pub(crate) transactional: Vec<SourceConfig>,
    /// To many.
    #[serde(default)]
    pub(crate) bulk: Vec<SourceConfig>,
}

/// An address alone, or a new one with its warm-up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum SourceConfig {
    /// It is known.
    Known(IpAddr),
    /// Nobody knows it yet.
    New(NewSourceConfig),
}

/// A new address.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSourceConfig {
    /// Which.
    pub(crate) address: IpAddr,
    /// The first day on which it sends, in UTC.
    pub(crate) warm_up_from: String,
    /// Messages that it sends to one destination on that day, the next and so on.
    pub(crate) warm_up: Vec<u32>,
}

impl SourceConfig {
    fn source(self) -> anyhow::Result<Source> {
        let NewSourceConfig { address, warm_up_from, warm_up } = match self {
            Self::Known(address) => return Ok(Source::from(address)),
            Self::New(new) => new,
        };
        let first = warm_up_from.parse::<jiff::civil::Date>();
        let first = first.with_context(|| format!("warm_up_from of {address}: a day is wanted, 2026-11-30"))?;
        ensure!(!warm_up.is_empty(), "warm_up of {address}: it names no day");
        let day = first.to_zoned(jiff::tz::TimeZone::UTC).context("warm_up_from")?.timestamp().as_second();
        const DAY_S: i64 = 24 * 60 * 60;
        Ok(Source { address, warm_up: Some(WarmUp { first_day: day.div_euclid(DAY_S), messages: warm_up }) })
    }
}

fn yes() -> bool {
    true
}

fn connections_per_destination() -> u32 {
    CONNECTIONS_MAX
}

impl Default for OutgoingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            helo: None,
            resolver: None,
            dnssec: true,
            trust_anchors: None,
            allow_private_destinations: false,
            relay: None,
            connections_per_destination: CONNECTIONS_MAX,
            messages_per_minute: None,
            classes: None,
            return_paths: true,
            unsubscribe_url: None,
            sources: SourcesConfig::default(),
        }
    }
}

impl OutgoingConfig {
    /// Who is asked for names.
    pub(crate) fn resolver(&self) -> anyhow::Result<Arc<Resolver>> {
        let dnssec = match (self.dnssec, &self.trust_anchors) {
            (false, _) => Dnssec::Off,
            (true, None) => Dnssec::Root,
            (true, Some(file)) => Dnssec::File(file.clone()),
        };
        let settings = ResolverSettings { server: self.resolver, dnssec };
        Resolver::new(&settings).map(Arc::new).context("outgoing.resolver")
    }

    /// What the worker sends with; `None` where it does not. `host` is the name where the configuration has none; `region`: who else sends
    /// there, where that is known.
    pub(crate) fn settings(
        &self,
        host: &str,
        blobs: &Blobs,
        secret: Option<&ClusterSecret>,
        region: Option<RegionWorkers>,
    ) -> anyhow::Result<Option<OutsideSettings>> {
        if !self.enabled {
            return Ok(None);
        }
        ensure!(self.connections_per_destination > 0, "outgoing.connections_per_destination is at least 1");
        let host = self.helo.as_deref().unwrap_or(host);
        let mut settings = TransportSettings::new(host);
        settings.connections_max = self.connections_per_destination;
        settings.messages_max = self.messages_per_minute.map(in_window).transpose()?;
        if let Some(classes) = &self.classes {
            settings.classes = Classes::new(classes.clone()).context("outgoing.classes")?;
        }
        if let Some(region) = region {
            settings.turns = Arc::new(region);
        }
        settings.addresses.allow_private = self.allow_private_destinations;
        settings.relay = self.relay.as_deref().map(str::parse).transpose().context("outgoing.relay")?;
        let SourcesConfig { personal, transactional, bulk } = self.sources.clone();
        let pool = |configs: Vec<SourceConfig>| {
            configs
                .into_iter()
                .map(SourceConfig::source)
                .collect::<anyhow::Result<Vec<_>>>()
                .context("outgoing.sources")
        };
        settings.sources =
            Sources { personal: pool(personal)?, transactional: pool(transactional)?, bulk: pool(bulk)? };
        let unsubscribe = match (&self.unsubscribe_url, secret) {
            (None, _) => None,
            (Some(_), None) => bail!("outgoing.unsubscribe_url wants cursor_secret_file: links are made under it"),
            (Some(url), Some(secret)) => {
                ensure!(url.starts_with("https://"), "outgoing.unsubscribe_url: RFC 8058 asks for https");
                let base = url.trim_end_matches('/').to_owned();
                Some(UnsubscribeLinks { tokens: secret.unsubscribe_tokens(), base })
            }
        };
        Ok(Some(OutsideSettings {
            unsubscribe,
            transport: Arc::new(Transport::new(self.resolver()?, settings)),
            blobs: blobs.clone(),
            keys: secret.map(|secret| KeySealer::new(&secret.key(KEYS_PURPOSE))),
            return_paths: secret.filter(|_| self.return_paths).map(ClusterSecret::return_paths),
            host: host.to_owned(),
        }))
    }
}

/// So many messages a minute as a window counts them: as many in each of its windows, and no more in any minute.
fn in_window(per_minute: u32) -> anyhow::Result<u32> {
    let windows = u32::try_from(60 / PACE_WINDOW.as_secs()).context("a window is a part of a minute")?;
    ensure!(per_minute >= windows, "outgoing.messages_per_minute is at least {windows}, or absent");
    Ok(per_minute / windows)
}

/// The machine's name.
pub(crate) fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_internet() {
        let config: OutgoingConfig = toml::from_str("").unwrap();
        assert!(config.enabled && config.dnssec && !config.allow_private_destinations && config.resolver.is_none());
        let text = "resolver = \"127.0.0.1:5300\"\ndnssec = false\n[sources]\nbulk = [\"192.0.2.1\"]\n";
        assert_eq!(toml::from_str::<OutgoingConfig>(text).unwrap().sources.bulk.len(), 1);
        let text = "[sources]\nbulk = [\"192.0.2.1\", {address = \"192.0.2.2\", warm_up_from = \"1970-01-11\", warm_up = [50, 100]}]\n";
        let mut bulk = toml::from_str::<OutgoingConfig>(text).unwrap().sources.bulk;
        let warm_up = bulk.remove(1).source().unwrap().warm_up.unwrap();
        assert_eq!((warm_up.first_day, warm_up.messages), (10, vec![50, 100]));
        assert_eq!(bulk.remove(0).source().unwrap().warm_up, None);
        let text = "messages_per_minute = 65\n[classes]\nuni = [\"ac.example\"]\n";
        let config: OutgoingConfig = toml::from_str(text).unwrap();
        assert_eq!(config.messages_per_minute.map(in_window).unwrap().unwrap(), 10);
        assert!(Classes::new(config.classes.unwrap()).is_ok() && in_window(5).is_err());
        assert!(toml::from_str::<OutgoingConfig>("resolvr = \"x\"").is_err());
    }
}
