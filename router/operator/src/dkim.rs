//! The keys that a domain's mail is signed with.
//!
//! Invariant: a private key leaves this process sealed, under the secret of frontends and workers: no storage node, no log, no state of
//! anybody's and no backup of one has it in the clear.

use anyhow::Context as _;
use postrider_api::env::SystemEntropy;
use postrider_api::pb::{self, DkimAlgorithm, command::Op};
use postrider_outgoing::dkim::{Algorithm, DkimKey, KeySealer, txt_value};
use postrider_outgoing::dns::Domain;

use crate::session::Session;

/// A key as the DNS tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The name of its record below `_domainkey`.
    pub selector: String,
    /// `rsa-sha256` or `ed25519-sha256`.
    pub algorithm: &'static str,
    /// Whether mail is signed with it still.
    pub signs: bool,
    /// The record's name, `SELECTOR._domainkey.DOMAIN`.
    pub record: String,
    /// The record's text.
    pub value: String,
}

impl Published {
    /// The record of a key of `domain`.
    ///
    /// # Errors
    /// When its public key is none.
    pub fn of(domain: &str, key: &pb::DkimKey) -> anyhow::Result<Self> {
        let (algorithm, word) = match key.algorithm() {
            DkimAlgorithm::Ed25519Sha256 => (Algorithm::Ed25519, "ed25519-sha256"),
            DkimAlgorithm::RsaSha256 | DkimAlgorithm::Unspecified => (Algorithm::RsaSha256, "rsa-sha256"),
        };
        Ok(Self {
            selector: key.selector.clone(),
            algorithm: word,
            signs: key.retired_ms == 0,
            record: format!("{}._domainkey.{domain}", key.selector),
            value: txt_value(algorithm, &key.public_key)?,
        })
    }
}

/// Makes a key, and has the domain's mail signed with it from now on.
///
/// # Errors
/// When the domain or the selector is none, or is taken.
pub async fn add(
    session: &Session,
    domain: &str,
    selector: &str,
    algorithm: Algorithm,
    sealer: &KeySealer,
) -> anyhow::Result<Published> {
    let name: Domain = domain.parse().context("domain")?;
    let told = match algorithm {
        Algorithm::RsaSha256 => DkimAlgorithm::RsaSha256,
        Algorithm::Ed25519 => DkimAlgorithm::Ed25519Sha256,
    };
    let key = DkimKey::generate(algorithm)?;
    let sealed = sealer.seal(&name, selector, &key, &SystemEntropy);
    let new = pb::DkimKey {
        selector: selector.to_owned(),
        algorithm: told.into(),
        public_key: key.public_key()?.into(),
        wrapped_private_key: sealed.into(),
        ..pb::DkimKey::default()
    };
    let published = Published::of(name.as_str(), &new)?;
    let add = Op::AddDkimKey(pb::AddDkimKey { domain: name.to_string(), key: Some(new) });
    session.place("dkim.add", [format!("domain {domain}")], add).await?;
    Ok(published)
}

/// Signs nothing with a key any more.
///
/// # Errors
/// When there is no such key.
pub async fn retire(session: &Session, domain: &str, selector: &str) -> anyhow::Result<()> {
    let retire = Op::RetireDkimKey(pb::RetireDkimKey { domain: domain.to_owned(), selector: selector.to_owned() });
    session.place("dkim.retire", [format!("domain {domain}")], retire).await.map(drop)
}

/// Forgets a key that was retired.
///
/// # Errors
/// When it was not.
pub async fn remove(session: &Session, domain: &str, selector: &str) -> anyhow::Result<()> {
    let remove = Op::RemoveDkimKey(pb::RemoveDkimKey { domain: domain.to_owned(), selector: selector.to_owned() });
    session.place("dkim.remove", [format!("domain {domain}")], remove).await.map(drop)
}
