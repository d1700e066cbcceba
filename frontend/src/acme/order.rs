//! One order (RFC 8555 section 7.4): what the authority asks for is recorded in placement, for frontends and name servers to answer, and so is
//! what it issues.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use postrider_api::identity::Holder;
use postrider_api::pb::{self, AcmeChallenge, CertificateProof, PublicCertificate, command::Op};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::shown::{certified, key_name};
use super::{OrderError, Orders, client};

/// What other frontends and name servers get to hear of a challenge before the authority looks for it: they follow the map by a stream.
const SPREAD: Duration = Duration::from_secs(3);
/// How long the authority may take to look, and to issue.
const AUTHORITY: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_secs(1)).backoff(1.5).timeout(Duration::from_secs(150));

impl Orders {
    /// Orders a certificate under the claim of `holder`, and records it.
    pub(super) async fn order(&self, wanted: &PublicCertificate, holder: &Bytes) -> Result<(), OrderError> {
        let account = self.account(holder).await?;
        let identifiers: Vec<Identifier> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let kind = match wanted.proof() {
            CertificateProof::Dns => ChallengeType::Dns01,
            CertificateProof::Http | CertificateProof::Unspecified => ChallengeType::Http01,
        };
        let challenges = challenges(&mut order, &kind).await?;
        if !challenges.is_empty() {
            let record = pb::RecordOrder {
                holder: holder.clone(),
                name: wanted.name.clone(),
                challenges: challenges.clone(),
                ..pb::RecordOrder::default()
            };
            self.record(Op::RecordOrder(record)).await?;
            let is_known = |known: &PublicCertificate| known.name == wanted.name && known.challenges == challenges;
            self.until(|map| map.public_certificates.iter().any(is_known)).await?;
            tokio::time::sleep(SPREAD).await;
            set_ready(&mut order, &kind).await?;
        }
        match order.poll_ready(&AUTHORITY).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(OrderError::Unproved(complaints(&mut order).await)),
            // The order's own error says less than those of its parts.
            Err(instant_acme::Error::Api(problem)) => {
                let complaints = complaints(&mut order).await;
                return Err(OrderError::Unproved(if complaints.is_empty() { problem.to_string() } else { complaints }));
            }
            Err(error) => return Err(error.into()),
        }
        let (key, sealed) = self.key(wanted)?;
        order.finalize_csr(&request(&wanted.names, &key)?).await?;
        let chain = order.poll_certificate(&AUTHORITY).await?;
        let issued = checked(wanted, &chain, &key)?;
        let record = pb::RecordCertificate {
            holder: holder.clone(),
            name: wanted.name.clone(),
            chain: chain.into_bytes().into(),
            wrapped_private_key: sealed,
            begins_ms: issued.begins_s.saturating_mul(1000),
            expires_ms: issued.expires_s.saturating_mul(1000),
            issued_for_ms: wanted.wanted_ms,
        };
        self.record(Op::RecordCertificate(record)).await
    }

    /// The cluster's account with the authority, made now if there is none.
    async fn account(&self, holder: &Bytes) -> Result<Account, OrderError> {
        let directory = &self.settings.directory;
        let builder = client::builder(&self.settings.roots)?;
        let name = format!("account\0{directory}");
        let map = self.cluster.map();
        let known = map.acme.as_ref().and_then(|acme| acme.account.as_ref());
        if let Some(known) = known.filter(|known| known.directory == *directory) {
            let credentials = self.sealer.open(name.as_bytes(), &known.wrapped_credentials)?;
            let credentials: AccountCredentials =
                serde_json::from_slice(&credentials).map_err(instant_acme::Error::from)?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contacts: Vec<&str> = self.settings.contacts.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&new, directory.clone(), None).await?;
        let credentials = serde_json::to_vec(&credentials).map_err(instant_acme::Error::from)?;
        let wrapped_credentials = self.sealer.seal(name.as_bytes(), &credentials, &*self.entropy).into();
        let account_record = pb::AcmeAccount { directory: directory.clone(), wrapped_credentials };
        let record =
            pb::RecordOrder { holder: holder.clone(), account: Some(account_record), ..pb::RecordOrder::default() };
        self.record(Op::RecordOrder(record)).await?;
        Ok(account)
    }

    /// The certificate's key, and how it is sealed. A renewal keeps it: TLSA records tell of it (RFC 7671 section 5.1).
    fn key(&self, wanted: &PublicCertificate) -> Result<(KeyPair, Bytes), OrderError> {
        let unfit = |error: rcgen::Error| OrderError::Unfit(error.to_string());
        let name = key_name(&wanted.name);
        if !wanted.wrapped_private_key.is_empty() {
            let opened = self.sealer.open(&name, &wanted.wrapped_private_key)?;
            return Ok((KeyPair::try_from(opened).map_err(unfit)?, wanted.wrapped_private_key.clone()));
        }
        let key = KeyPair::generate().map_err(unfit)?;
        let sealed = self.sealer.seal(&name, &key.serialize_der(), &*self.entropy);
        Ok((key, sealed.into()))
    }
}

/// What the authority will look for, of each name that is not proved yet.
async fn challenges(order: &mut Order, kind: &ChallengeType) -> Result<Vec<AcmeChallenge>, OrderError> {
    let mut challenges = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Identifier::Dns(host) = authorization.identifier().identifier.clone() else { continue };
        let Some(challenge) = authorization.challenge(kind.clone()) else {
            return Err(OrderError::Unproved(format!("{host}: the authority does not offer this proof")));
        };
        let proof = challenge.key_authorization();
        let answer = match kind {
            ChallengeType::Dns01 => proof.dns_value(),
            _ => proof.as_str().to_owned(),
        };
        challenges.push(AcmeChallenge { host, token: challenge.token.clone(), answer });
    }
    Ok(challenges)
}

/// Has the authority look.
async fn set_ready(order: &mut Order, kind: &ChallengeType) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind.clone()) {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// What the authority has to say of names that were not proved.
async fn complaints(order: &mut Order) -> String {
    let mut complaints = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let name = state.identifier().to_string();
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        complaints.extend(errors.map(|error| format!("{name}: {error}")));
    }
    complaints.join("; ")
}

/// RFC 8555 section 7.4: a request that names all that was ordered, and nothing else.
fn request(names: &[String], key: &KeyPair) -> Result<Vec<u8>, OrderError> {
    let unfit = |error: rcgen::Error| OrderError::Unfit(error.to_string());
    let mut params = CertificateParams::new(names.to_vec()).map_err(unfit)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key).map_err(unfit)?.der().to_vec())
}

/// Whether it is what was ordered: for the key, and all the names.
fn checked(wanted: &PublicCertificate, chain: &str, key: &KeyPair) -> Result<Holder, OrderError> {
    let unfit = |error: &dyn std::fmt::Display| OrderError::Unfit(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = certified(chain.as_bytes(), key.serialize_der(), &provider).map_err(|error| unfit(&error))?;
    let first = certified.cert.first().ok_or_else(|| unfit(&"the chain is empty"))?;
    let holder = Holder::of(first).map_err(|error| unfit(&error))?;
    match wanted.names.iter().find(|name| !holder.hosts.contains(name)) {
        Some(missing) => Err(unfit(&format!("it is not for {missing}"))),
        None => Ok(holder),
    }
}
