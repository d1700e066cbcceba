//! Policies: where the replicas of shards may be and how many there are, by name. A shard is held to one, and so are the new accounts of a domain.
//!
//! Invariant: everything that a policy allows is in its zone. What its shards lack after a change is put right by the balancer, step by step:
//! a shard keeps its replicas until then.

use postrider_api::id::ShardId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DomainRecord, Policy, Refusal, Shard, Spread};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::{changed, check_name, done, region, remove, set, shard, shards, zones};
use crate::row;
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};

/// Policies of one cluster.
const POLICIES_MAX: usize = 1024;
/// Regions that one names.
const REGIONS_MAX: usize = 64;

/// A new one, or another form of one that is there.
pub(crate) fn set_policy(turn: &mut Turn<'_, impl Rows>, command: &pb::SetPolicy) -> Result<Made, Stop> {
    let wanted = command.policy.as_ref().ok_or_else(|| malformed("policy: is missing"))?;
    check(turn, wanted)?;
    let key = Key::Policy(name_hash(&wanted.name));
    match row::get::<Policy>(turn.rows, key)? {
        Some(was) if was.zone != wanted.zone => {
            let detail = format!("policy.zone: {:?} is in zone {:?}, and stays there", wanted.name, was.zone);
            return Err(refuse(Refusal::Conflict, detail));
        }
        Some(_) => {}
        None => {
            let known = turn.rows.scan(&KeyRange::table(Table::Policies), Direction::Forward).count();
            if known >= POLICIES_MAX {
                return Err(refuse(Refusal::Conflict, format!("there are {known} policies, which is the most")));
            }
        }
    }
    set(turn, key, wanted)?;
    Ok(done())
}

fn check(turn: &Turn<'_, impl Rows>, policy: &Policy) -> Result<(), Stop> {
    check_name("policy.name", &policy.name)?;
    zones::check(turn.rows, "policy.zone", &policy.zone)?;
    if ![1, 3, 5, 7].contains(&policy.replicas) {
        return Err(malformed("policy.replicas: 1, 3, 5 or 7"));
    }
    if Spread::try_from(policy.spread).is_err() {
        return Err(malformed("policy.spread: none that is known"));
    }
    if policy.regions.len() > REGIONS_MAX {
        return Err(malformed(format!("policy.regions: at most {REGIONS_MAX}")));
    }
    let home = (!policy.home.is_empty()).then_some(&policy.home);
    for (at, name) in policy.regions.iter().chain(home).enumerate() {
        let known = region(turn.rows, "policy.regions, home", name)?;
        if known.zone != policy.zone {
            return Err(malformed(format!(
                "policy: region {name:?} is in zone {:?}, not {:?}",
                known.zone, policy.zone
            )));
        }
        if at < policy.regions.len() && policy.regions[..at].contains(name) {
            return Err(malformed(format!("policy.regions: {name:?} is named twice")));
        }
    }
    if home.is_some_and(|home| !policy.regions.is_empty() && !policy.regions.contains(home)) {
        return Err(malformed("policy.home: is none of its regions"));
    }
    Ok(())
}

/// Nothing is held to it any more.
pub(crate) fn remove_policy(turn: &mut Turn<'_, impl Rows>, command: &pb::RemovePolicy) -> Result<Made, Stop> {
    let name = &command.name;
    for placed in shards(turn.rows) {
        let placed = placed?;
        if placed.policy == *name {
            return Err(refuse(Refusal::Conflict, format!("shard {} is held to policy {name:?}", placed.id)));
        }
    }
    for found in turn.rows.scan(&KeyRange::table(Table::Domains), Direction::Forward) {
        let (key, value) = found?;
        let (_, record) = row::decode_row::<DomainRecord>(key, value)?;
        if record.policy == *name {
            return Err(refuse(Refusal::Conflict, format!("domain {} is held to policy {name:?}", record.domain)));
        }
    }
    remove(turn, Key::Policy(name_hash(name)), name)?;
    Ok(done())
}

/// A shard is held to it.
pub(crate) fn set_of_shard(turn: &mut Turn<'_, impl Rows>, command: &pb::SetShardPolicy) -> Result<Made, Stop> {
    let placed = shard(turn.rows, command.shard)?;
    check_of_zone(turn.rows, &command.policy, &placed.zone)?;
    let policy = command.policy.clone();
    set(turn, Key::Shards(ShardId(placed.id)), &Shard { policy, ..placed })?;
    Ok(done())
}

/// New accounts of a domain are.
pub(crate) fn set_of_domain(turn: &mut Turn<'_, impl Rows>, command: &pb::SetDomainPolicy) -> Result<Made, Stop> {
    let key = Key::Domain(name_hash(&command.domain));
    let Some(record) = row::get::<DomainRecord>(turn.rows, key)?.filter(|record| !record.removed) else {
        let detail = format!("domain: {:?} is none of this cluster's", command.domain);
        return Err(refuse(Refusal::UnknownDomain, detail));
    };
    check_of_zone(turn.rows, &command.policy, &record.zone)?;
    if record.policy != command.policy {
        row::put(turn.rows, key, &DomainRecord { policy: command.policy.clone(), ..record });
        changed(turn, key, &command.domain);
    }
    Ok(done())
}

/// Refused where there is no such policy, or it is of another zone; empty is none.
pub(crate) fn check_of_zone(reader: &impl Reader, name: &str, zone: &str) -> Result<(), Stop> {
    match of(reader, name)? {
        None if name.is_empty() => Ok(()),
        None => Err(refuse(Refusal::Conflict, format!("policy: there is no policy {name:?}"))),
        Some(policy) if policy.zone != zone => {
            Err(refuse(Refusal::Conflict, format!("policy: {name:?} is of zone {:?}, not {zone:?}", policy.zone)))
        }
        Some(_) => Ok(()),
    }
}

/// The policy of this name, if there is one.
pub(crate) fn of(reader: &impl Reader, name: &str) -> Result<Option<Policy>, Stop> {
    if name.is_empty() {
        return Ok(None);
    }
    Ok(row::get(reader, Key::Policy(name_hash(name)))?)
}
