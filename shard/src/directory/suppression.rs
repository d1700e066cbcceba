//! To whom no account of a domain sends any more: what the domain's administrator has said for all of them. It is kept where the slot of the
//! domain's name is, so one question to one shard answers for all recipients of a message.

use postrider_api::address::RemoteAddress;
use postrider_api::limit::{DOMAIN_SUPPRESSIONS_MAX, RECIPIENTS_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{
    self, CheckDomainSuppressed, ListDomainSuppressions, Refusal, SuppressionCount, SuppressionReason,
    SuppressionRecord, Suppressions,
};

use crate::key::{Key, KeyRange, domain_hash, name_hash};
use crate::query::{QueryError, malformed as no_question};
use crate::sending::suppression::{check_detail, counts};
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, domain, page, row};

pub(crate) fn key(domain: &str, address: &str) -> Key {
    Key::DomainSuppression(domain_hash(domain), name_hash(&address.to_lowercase()))
}

pub(crate) fn add(turn: &mut Turn<'_, impl Rows>, command: &pb::SuppressForDomain) -> Result<Made, Stop> {
    check_domain(&command.domain)?;
    let address = RemoteAddress::parse(&command.address).map_err(|error| malformed(format!("address: {error}")))?;
    check_detail(&command.detail)?;
    let (key, count_key) = (key(&command.domain, address.as_str()), count_key(&command.domain));
    if row::get::<SuppressionRecord>(turn.rows, key)?.is_none() {
        let mut count = row::get::<SuppressionCount>(turn.rows, count_key)?.unwrap_or_default();
        if count.addresses >= DOMAIN_SUPPRESSIONS_MAX {
            let detail = format!("{DOMAIN_SUPPRESSIONS_MAX} addresses are suppressed already: some have to go first");
            return Err(refuse(Refusal::SuppressionsTooMany, detail));
        }
        count.addresses += 1;
        row::put(turn.rows, count_key, &count);
    }
    let record = SuppressionRecord {
        address: address.as_str().to_owned(),
        reason: SuppressionReason::Manual.into(),
        detail: command.detail.clone(),
        since_ms: turn.now,
        until_ms: command.until_ms,
    };
    row::put(turn.rows, key, &record);
    Ok(Made::Done(pb::Done {}))
}

/// Once more is no error.
pub(crate) fn remove(turn: &mut Turn<'_, impl Rows>, command: &pb::UnsuppressForDomain) -> Result<Made, Stop> {
    check_domain(&command.domain)?;
    let (key, count_key) = (key(&command.domain, &command.address), count_key(&command.domain));
    if row::get::<SuppressionRecord>(turn.rows, key)?.is_some() {
        let mut count: SuppressionCount = row::need(turn.rows, count_key)?;
        let left = count.addresses.checked_sub(1);
        count.addresses = left.ok_or_else(|| Broken::corrupt(count_key, "addresses would fall below zero"))?;
        row::delete(turn.rows, key);
        match count.addresses {
            0 => row::delete(turn.rows, count_key),
            _ => row::put(turn.rows, count_key, &count),
        }
    }
    Ok(Made::Done(pb::Done {}))
}

fn count_key(domain: &str) -> Key {
    Key::DomainSuppressionCount(domain_hash(domain))
}

fn check_domain(name: &str) -> Result<(), Stop> {
    match domain::is_canonical(name) {
        true => Ok(()),
        false => Err(malformed("domain: lower-case A-labels are wanted")),
    }
}

pub(crate) fn answer(reader: &impl Reader, query: &ListDomainSuppressions) -> Result<Answer, QueryError> {
    let mut range = KeyRange::domain_suppressions(domain_hash(&query.domain));
    if !query.after.is_empty() {
        range = range.behind(key(&query.domain, &query.after));
    }
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        Ok((row::decode_row::<SuppressionRecord>(key, value)?.1, bytes))
    })?;
    Ok(Answer::Suppressions(Suppressions { suppressions: page.rows, more: page.more }))
}

/// Those of the addresses that are not sent to now.
pub(crate) fn answer_suppressed(
    reader: &impl Reader,
    now_ms: i64,
    query: &CheckDomainSuppressed,
) -> Result<Answer, QueryError> {
    if query.addresses.len() > RECIPIENTS_MAX {
        return Err(no_question(format!("addresses: at most {RECIPIENTS_MAX}")));
    }
    let mut suppressions = Vec::new();
    for address in &query.addresses {
        let record = row::get::<SuppressionRecord>(reader, key(&query.domain, address))?;
        suppressions.extend(record.filter(|record| counts(record, now_ms)));
    }
    Ok(Answer::Suppressions(Suppressions { suppressions, more: false }))
}
