//! Certificates that a public authority issues to the cluster (RFC 8555): which are wanted, who orders, what was issued. Private keys are
//! here sealed, for frontends; no storage node can open them.
//!
//! Invariant: one frontend orders at a time. Whatever an order records names the claim that it goes under, and is refused once the claim
//! has expired or is another's.

use postrider_api::limit::{
    ACME_ACCOUNT_BYTES_MAX, ACME_ANSWER_BYTES_MAX, CERTIFICATE_CHAIN_BYTES_MAX, CERTIFICATE_KEY_BYTES_MAX,
    CERTIFICATE_NAMES_MAX, ORDER_CLAIM_MS_MAX, PUBLIC_CERTIFICATES_MAX,
};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AcmeRecord, CertificateProof, OrderClaim, PublicCertificate, Refusal};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::{NAME_BYTES_MAX, REASON_BYTES_MAX, check_text, done, remove, set};
use crate::row;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};

/// Who claims the orders, bytes: drawn by chance for each claim.
const HOLDER_BYTES: usize = 16;
/// RFC 1035 section 2.3.4, as text.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// How long after the first failure of an order it is tried again; twice as long after each further one. Authorities count failures
/// by the hour, five a name.
const RETRY_MS: i64 = 2 * 60 * 1000;
/// At most.
const RETRY_MS_MAX: i64 = 12 * 60 * 60 * 1000;

/// One more, or one that is there for other names or by another proof. Whatever kept its order waiting is over.
pub(crate) fn want(turn: &mut Turn<'_, impl Rows>, command: &pb::WantCertificate) -> Result<Made, Stop> {
    let name = check_names(&command.names, command.proof())?;
    let key = Key::PublicCertificate(name_hash(name));
    let wanted = match row::get::<PublicCertificate>(turn.rows, key)? {
        Some(was) => {
            let wanted_ms = match was.names == command.names {
                true => was.wanted_ms,
                // Always another wish, also within one millisecond.
                false => turn.now.max(was.wanted_ms + 1),
            };
            PublicCertificate {
                names: command.names.clone(),
                proof: command.proof,
                wanted_ms,
                failures: 0,
                failure: String::new(),
                retry_ms: 0,
                ..was
            }
        }
        None => {
            let known = turn.rows.scan(&KeyRange::table(Table::PublicCertificates), Direction::Forward).count();
            if known >= PUBLIC_CERTIFICATES_MAX {
                let detail = format!("there are {known} certificates, which is the most");
                return Err(refuse(Refusal::Conflict, detail));
            }
            PublicCertificate {
                name: name.to_owned(),
                names: command.names.clone(),
                proof: command.proof,
                wanted_ms: turn.now,
                ..PublicCertificate::default()
            }
        }
    };
    set(turn, key, &wanted)?;
    Ok(done())
}

/// It is neither shown nor ordered any more.
pub(crate) fn forget(turn: &mut Turn<'_, impl Rows>, command: &pb::ForgetCertificate) -> Result<Made, Stop> {
    remove(turn, Key::PublicCertificate(name_hash(&command.name)), &command.name)?;
    Ok(done())
}

/// Nobody else orders for so long. For no time: the claim is given back.
pub(crate) fn claim(turn: &mut Turn<'_, impl Rows>, command: &pb::ClaimOrders) -> Result<Made, Stop> {
    if command.holder.len() != HOLDER_BYTES {
        return Err(malformed(format!("holder: {HOLDER_BYTES} bytes")));
    }
    check_text("region", &command.region, NAME_BYTES_MAX)?;
    if !(0..=ORDER_CLAIM_MS_MAX).contains(&command.claim_ms) {
        return Err(malformed(format!("claim_ms: 0 to {ORDER_CLAIM_MS_MAX}")));
    }
    let record: AcmeRecord = row::get(turn.rows, Key::Acme)?.unwrap_or_default();
    let claim = match &record.claim {
        Some(claim) if claim.holder != command.holder && claim.until_ms > turn.now => {
            // It is another's: nothing is left to be given back.
            if command.claim_ms == 0 {
                return Ok(done());
            }
            return Err(refuse(Refusal::Conflict, format!("a frontend of {} orders", claim.region)));
        }
        _ if command.claim_ms == 0 => None,
        _ => Some(OrderClaim {
            holder: command.holder.clone(),
            region: command.region.clone(),
            until_ms: turn.now + command.claim_ms,
        }),
    };
    set(turn, Key::Acme, &AcmeRecord { claim, ..record })?;
    Ok(done())
}

/// What an order has come to: an account, what the authority will ask for, or a failure.
pub(crate) fn record_order(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordOrder) -> Result<Made, Stop> {
    let record = claimed(turn, &command.holder)?;
    if let Some(account) = &command.account {
        if account.directory.is_empty() || account.wrapped_credentials.is_empty() {
            return Err(malformed("account: its directory and its credentials are wanted"));
        }
        if account.directory.len() + account.wrapped_credentials.len() > ACME_ACCOUNT_BYTES_MAX {
            return Err(malformed(format!("account: at most {ACME_ACCOUNT_BYTES_MAX} bytes")));
        }
        set(turn, Key::Acme, &AcmeRecord { account: Some(account.clone()), ..record })?;
    }
    if command.name.is_empty() {
        return Ok(done());
    }
    check_text("failure", &command.failure, REASON_BYTES_MAX)?;
    if command.challenges.len() > CERTIFICATE_NAMES_MAX {
        return Err(malformed(format!("challenges: at most {CERTIFICATE_NAMES_MAX}")));
    }
    for challenge in &command.challenges {
        check_host(&challenge.host)?;
        let bytes = challenge.token.len() + challenge.answer.len();
        if challenge.token.is_empty() || challenge.answer.is_empty() || bytes > ACME_ANSWER_BYTES_MAX {
            let detail = format!("challenges: token and answer have 2 to {ACME_ANSWER_BYTES_MAX} bytes together");
            return Err(malformed(detail));
        }
    }
    let (key, was) = wanted(turn, &command.name)?;
    let next = match command.failure.is_empty() {
        true => PublicCertificate { challenges: command.challenges.clone(), ..was },
        false => PublicCertificate {
            challenges: Vec::new(),
            failures: was.failures.saturating_add(1),
            failure: command.failure.clone(),
            retry_ms: turn.now + (RETRY_MS << was.failures.min(16)).min(RETRY_MS_MAX),
            ..was
        },
    };
    set(turn, key, &next)?;
    Ok(done())
}

/// It was issued.
pub(crate) fn record(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordCertificate) -> Result<Made, Stop> {
    claimed(turn, &command.holder)?;
    for (field, bytes, max) in [
        ("chain", &command.chain, CERTIFICATE_CHAIN_BYTES_MAX),
        ("wrapped_private_key", &command.wrapped_private_key, CERTIFICATE_KEY_BYTES_MAX),
    ] {
        if bytes.is_empty() || bytes.len() > max {
            return Err(malformed(format!("{field}: 1 to {max} bytes")));
        }
    }
    if command.begins_ms >= command.expires_ms {
        return Err(malformed("expires_ms: it expires before it begins"));
    }
    let (key, was) = wanted(turn, &command.name)?;
    let key_since_ms = match was.wrapped_private_key == command.wrapped_private_key {
        true => was.key_since_ms,
        false => turn.now,
    };
    let issued = PublicCertificate {
        chain: command.chain.clone(),
        wrapped_private_key: command.wrapped_private_key.clone(),
        begins_ms: command.begins_ms,
        expires_ms: command.expires_ms,
        issued_for_ms: command.issued_for_ms,
        key_since_ms,
        challenges: Vec::new(),
        failures: 0,
        failure: String::new(),
        retry_ms: 0,
        ..was
    };
    set(turn, key, &issued)?;
    Ok(done())
}

/// Refused unless the claim is this holder's.
fn claimed(turn: &Turn<'_, impl Rows>, holder: &[u8]) -> Result<AcmeRecord, Stop> {
    let record: AcmeRecord = row::get(turn.rows, Key::Acme)?.unwrap_or_default();
    match &record.claim {
        Some(claim) if claim.holder == holder && claim.until_ms > turn.now => Ok(record),
        _ => Err(refuse(Refusal::Conflict, "holder: the claim has expired, or is another's")),
    }
}

fn wanted(turn: &Turn<'_, impl Rows>, name: &str) -> Result<(Key, PublicCertificate), Stop> {
    let key = Key::PublicCertificate(name_hash(name));
    match row::get(turn.rows, key)? {
        Some(certificate) => Ok((key, certificate)),
        None => Err(refuse(Refusal::Conflict, format!("name: no certificate {name:?} is wanted"))),
    }
}

/// The name that a certificate is known by: its first.
fn check_names(names: &[String], proof: CertificateProof) -> Result<&str, Stop> {
    let Some(first) = names.first() else { return Err(malformed("names: one at least")) };
    if names.len() > CERTIFICATE_NAMES_MAX {
        return Err(malformed(format!("names: at most {CERTIFICATE_NAMES_MAX}")));
    }
    if proof == CertificateProof::Unspecified {
        return Err(malformed("proof: is missing, or none that is known"));
    }
    for (at, name) in names.iter().enumerate() {
        let host = name.strip_prefix("*.");
        if host.is_some() && proof != CertificateProof::Dns {
            // RFC 8555 section 8.3 is about one host; authorities accept it for no wildcard.
            return Err(malformed(format!("names: {name:?} wants proof by DNS")));
        }
        check_host(host.unwrap_or(name))?;
        if names.iter().take(at).any(|other| other == name) {
            return Err(malformed(format!("names: {name:?} is named twice")));
        }
    }
    Ok(first)
}

/// A host name of lower-case A-labels, below some other.
fn check_host(host: &str) -> Result<(), Stop> {
    let is_label = |label: &str| {
        let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && label.bytes().all(is_inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > HOST_BYTES_MAX || !host.contains('.') || !host.split('.').all(is_label) {
        return Err(malformed(format!("names: {host:?} is no host name of lower-case A-labels")));
    }
    Ok(())
}
