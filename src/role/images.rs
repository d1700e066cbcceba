//! `[images]`: images of the network that messages show.

use postrider_outgoing::route::AddressPolicy;
use postrider_outgoing::web::Fetcher;
use serde::{Deserialize, Serialize};

use super::outgoing::OutgoingConfig;

/// Whether a frontend fetches the images that messages show.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImagesConfig {
    /// Without it nobody sees an image that is not in the message itself.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// Whether they may lie at private, loopback and other addresses that are not of the Internet, and at whatever port: only where no stranger's mail is
    /// read, since whoever sends a message chooses what is asked for.
    #[serde(default)]
    pub(crate) allow_private_addresses: bool,
}

fn yes() -> bool {
    true
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self { enabled: true, allow_private_addresses: false }
    }
}

impl ImagesConfig {
    /// What fetches, by the names that the resolver of `[outgoing]` knows.
    pub(crate) fn fetcher(&self, outgoing: &OutgoingConfig) -> anyhow::Result<Option<Fetcher>> {
        if !self.enabled {
            return Ok(None);
        }
        let addresses = AddressPolicy { allow_private: self.allow_private_addresses };
        Ok(Some(Fetcher::new(outgoing.resolver()?, &[], addresses)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_the_internet() {
        let config: ImagesConfig = toml::from_str("").unwrap();
        assert!(config.enabled && !config.allow_private_addresses);
        assert!(toml::from_str::<ImagesConfig>("enable = false").is_err());
    }
}
