//! The keys that a domain's mail is signed with (RFC 6376). Private ones are here sealed, for whoever signs; no storage node can open
//! them.
//!
//! A rotation overlaps: the new key is added and its record published, then the old one is retired (nothing is signed with it any
//! more), and removed when no mail that it has signed can still be on its way. So a key that is in use is never removed.

use postrider_api::limit::{DKIM_KEY_BYTES_MAX, DKIM_KEYS_MAX, DKIM_SELECTOR_BYTES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DkimAlgorithm, DkimKey, DomainRecord, Refusal};

use crate::key::{Key, name_hash};
use crate::placement::{changed, done};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

/// A new key. The same once more is no error.
pub(crate) fn add(turn: &mut Turn<'_, impl Rows>, command: &pb::AddDkimKey) -> Result<Made, Stop> {
    let new = command.key.as_ref().ok_or_else(|| malformed("key: is missing"))?;
    check(new)?;
    let (key, mut record) = domain(turn, &command.domain)?;
    let created_ms = turn.now;
    match record.dkim_keys.binary_search_by(|known| known.selector.cmp(&new.selector)) {
        Ok(at) if is_same(&record.dkim_keys[at], new) => return Ok(done()),
        Ok(_) => {
            let detail = format!("key.selector: {} has a key {:?} already", command.domain, new.selector);
            return Err(refuse(Refusal::Conflict, detail));
        }
        Err(_) if record.dkim_keys.len() >= DKIM_KEYS_MAX => {
            let detail = format!("{} has {DKIM_KEYS_MAX} keys: retired ones are to be removed first", command.domain);
            return Err(refuse(Refusal::DkimKeysTooMany, detail));
        }
        Err(at) => record.dkim_keys.insert(at, DkimKey { created_ms, retired_ms: 0, ..new.clone() }),
    }
    put(turn, key, &record);
    Ok(done())
}

/// Nothing is signed with it from now on.
pub(crate) fn retire(turn: &mut Turn<'_, impl Rows>, command: &pb::RetireDkimKey) -> Result<Made, Stop> {
    let (key, mut record) = domain(turn, &command.domain)?;
    let at = find(&record, &command.selector)?;
    if record.dkim_keys[at].retired_ms == 0 {
        record.dkim_keys[at].retired_ms = turn.now;
        put(turn, key, &record);
    }
    Ok(done())
}

/// It is gone. Once more is no error.
pub(crate) fn remove(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveDkimKey) -> Result<Made, Stop> {
    let (key, mut record) = domain(turn, &command.domain)?;
    let Ok(at) = find(&record, &command.selector) else { return Ok(done()) };
    if record.dkim_keys[at].retired_ms == 0 {
        let detail = format!("selector: {:?} of {} is in use: retire it first", command.selector, command.domain);
        return Err(refuse(Refusal::Conflict, detail));
    }
    record.dkim_keys.remove(at);
    put(turn, key, &record);
    Ok(done())
}

fn check(key: &DkimKey) -> Result<(), Stop> {
    let is_name = key.selector.split('.').all(|label| {
        let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !label.is_empty() && label.bytes().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
    });
    // RFC 6376 section 3.1: names of the DNS.
    if !is_name || key.selector.len() > DKIM_SELECTOR_BYTES_MAX {
        let detail = format!("key.selector: lower-case A-labels of at most {DKIM_SELECTOR_BYTES_MAX} bytes are wanted");
        return Err(malformed(detail));
    }
    if key.algorithm() == DkimAlgorithm::Unspecified {
        return Err(malformed("key.algorithm: is missing, or none that is known"));
    }
    for (field, bytes) in [("public_key", &key.public_key), ("wrapped_private_key", &key.wrapped_private_key)] {
        if bytes.is_empty() || bytes.len() > DKIM_KEY_BYTES_MAX {
            return Err(malformed(format!("key.{field}: 1 to {DKIM_KEY_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

fn is_same(known: &DkimKey, new: &DkimKey) -> bool {
    (known.algorithm, &known.public_key) == (new.algorithm, &new.public_key) && known.retired_ms == 0
}

/// A domain that mail is taken for.
fn domain(turn: &Turn<'_, impl Rows>, domain: &str) -> Result<(Key, DomainRecord), Stop> {
    let key = Key::Domain(name_hash(domain));
    match row::get::<DomainRecord>(turn.rows, key)? {
        Some(record) if !record.removed => Ok((key, record)),
        _ => Err(refuse(Refusal::UnknownDomain, format!("domain: {domain:?} is none of this cluster's"))),
    }
}

fn find(record: &DomainRecord, selector: &str) -> Result<usize, Stop> {
    record.dkim_keys.binary_search_by(|known| known.selector.as_str().cmp(selector)).map_err(|_| {
        let detail = format!("selector: {} has no key {selector:?}", record.domain);
        refuse(Refusal::UnknownDomain, detail)
    })
}

fn put(turn: &mut Turn<'_, impl Rows>, key: Key, record: &DomainRecord) {
    row::put(turn.rows, key, record);
    changed(turn, key, &record.domain);
}
