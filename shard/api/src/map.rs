//! The shard map as it comes: the whole of it first, then what has changed.
//!
//! Lists of a map are sorted by number or name, as placement gives them, so that an entry is found and put in its place without an index.

use crate::pb::map_update::Update;
use crate::pb::{MapDelta, MapUpdate, ShardMap};

/// The version of the map that an update brings.
pub fn version(update: &MapUpdate) -> u64 {
    match &update.update {
        Some(Update::Whole(map)) => map.version,
        Some(Update::Delta(delta)) => end(delta),
        None => 0,
    }
}

/// Makes `map` the version that `delta` brings. `false`, and nothing happens, where the delta begins at a version behind the map's:
/// what is between is not known. A version that the map has already changes nothing either, and is no error.
pub fn apply(map: &mut ShardMap, delta: MapDelta) -> bool {
    let MapDelta {
        from_version,
        changed,
        regions_gone,
        nodes_gone,
        domains_gone,
        operations_gone,
        policies_gone,
        public_certificates_gone,
    } = delta;
    let changed = changed.unwrap_or_default();
    if from_version > map.version {
        return false;
    }
    if changed.version <= map.version {
        return true;
    }
    map.version = changed.version;
    map.target_version = changed.target_version;
    map.regions.retain(|region| !regions_gone.contains(&region.name));
    map.nodes.retain(|node| !nodes_gone.contains(&node.id));
    map.domains.retain(|domain| !domains_gone.contains(&domain.name));
    map.operations.retain(|operation| !operations_gone.contains(&operation.id));
    map.policies.retain(|policy| !policies_gone.contains(&policy.name));
    map.public_certificates.retain(|certificate| !public_certificates_gone.contains(&certificate.name));
    put_all(&mut map.regions, changed.regions, |region| region.name.clone());
    put_all(&mut map.nodes, changed.nodes, |node| node.id);
    put_all(&mut map.shards, changed.shards, |shard| shard.id);
    put_all(&mut map.domains, changed.domains, |domain| domain.name.clone());
    put_all(&mut map.zones, changed.zones, |zone| zone.id);
    put_all(&mut map.operations, changed.operations, |operation| operation.id);
    put_all(&mut map.policies, changed.policies, |policy| policy.name.clone());
    put_all(&mut map.public_certificates, changed.public_certificates, |certificate| certificate.name.clone());
    map.acme = changed.acme.or(map.acme.take());
    true
}

/// One delta that does what `earlier` and, behind it, `later` do. Where there is a gap between them they are given back.
///
/// # Errors
/// The two, as they were.
#[allow(clippy::result_large_err)] // both are what the caller had
pub fn merge(mut earlier: MapDelta, later: MapDelta) -> Result<MapDelta, (MapDelta, MapDelta)> {
    if later.from_version > end(&earlier) {
        return Err((earlier, later));
    }
    let mut changed = earlier.changed.take().unwrap_or_default();
    let newer = later.changed.unwrap_or_default();
    // What came after it was gone is there, and the other way round.
    earlier.regions_gone.retain(|name| newer.regions.iter().all(|region| region.name != *name));
    earlier.nodes_gone.retain(|id| newer.nodes.iter().all(|node| node.id != *id));
    earlier.domains_gone.retain(|name| newer.domains.iter().all(|domain| domain.name != *name));
    earlier.operations_gone.retain(|id| newer.operations.iter().all(|operation| operation.id != *id));
    earlier.policies_gone.retain(|name| newer.policies.iter().all(|policy| policy.name != *name));
    earlier.public_certificates_gone.retain(|name| newer.public_certificates.iter().all(|known| known.name != *name));
    let (regions_gone, nodes_gone) = (later.regions_gone.clone(), later.nodes_gone.clone());
    let (domains_gone, operations_gone) = (later.domains_gone.clone(), later.operations_gone.clone());
    let (policies_gone, certificates_gone) = (later.policies_gone.clone(), later.public_certificates_gone.clone());
    // As a map of their own, with nothing in it but changes.
    sort(&mut changed);
    let behind = MapDelta { from_version: changed.version, changed: Some(newer), ..later };
    apply(&mut changed, behind);
    earlier.regions_gone.extend(regions_gone);
    earlier.nodes_gone.extend(nodes_gone);
    earlier.domains_gone.extend(domains_gone);
    earlier.operations_gone.extend(operations_gone);
    earlier.policies_gone.extend(policies_gone);
    earlier.public_certificates_gone.extend(certificates_gone);
    Ok(MapDelta { changed: Some(changed), ..earlier })
}

/// One update that does what two that follow each other do. Where they do not go together they are given back.
///
/// # Errors
/// The two, as they were.
#[allow(clippy::result_large_err)] // both are what the caller had
pub fn together(first: MapUpdate, second: MapUpdate) -> Result<MapUpdate, (MapUpdate, MapUpdate)> {
    let update = match (first.update, second.update) {
        // Whatever came before it.
        (_, Some(Update::Whole(whole))) => Update::Whole(whole),
        (Some(Update::Whole(mut whole)), Some(Update::Delta(delta))) if delta.from_version <= whole.version => {
            apply(&mut whole, delta);
            Update::Whole(whole)
        }
        (Some(Update::Delta(earlier)), Some(Update::Delta(later))) => match merge(earlier, later) {
            Ok(both) => Update::Delta(both),
            Err((first, second)) => {
                let of = |delta| MapUpdate { update: Some(Update::Delta(delta)) };
                return Err((of(first), of(second)));
            }
        },
        (first, second) => return Err((MapUpdate { update: first }, MapUpdate { update: second })),
    };
    Ok(MapUpdate { update: Some(update) })
}

fn end(delta: &MapDelta) -> u64 {
    delta.changed.as_ref().map_or(0, |changed| changed.version)
}

/// Puts a map's lists into the order that [`apply`] relies on.
pub fn sort(map: &mut ShardMap) {
    map.regions.sort_by(|a, b| a.name.cmp(&b.name));
    map.nodes.sort_by_key(|node| node.id);
    map.shards.sort_by_key(|shard| shard.id);
    map.domains.sort_by(|a, b| a.name.cmp(&b.name));
    map.zones.sort_by_key(|zone| zone.id);
    map.operations.sort_by_key(|operation| operation.id);
    map.policies.sort_by(|a, b| a.name.cmp(&b.name));
    map.public_certificates.sort_by(|a, b| a.name.cmp(&b.name));
}

fn put_all<T, K: Ord>(list: &mut Vec<T>, changed: Vec<T>, key: impl Fn(&T) -> K) {
    let is_many = changed.len() > 64;
    let mut new = Vec::new();
    for entry in changed {
        match list.binary_search_by(|known| key(known).cmp(&key(&entry))) {
            Ok(at) => list[at] = entry,
            // Many new ones are put in together: each by itself would move all that stand behind it.
            Err(_) if is_many => new.push(entry),
            Err(at) => list.insert(at, entry),
        }
    }
    if !new.is_empty() {
        list.append(&mut new);
        list.sort_by_key(|entry| key(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use proptest::prelude::*;

    /// A change of one entry; the version rises with each.
    #[derive(Debug, Clone)]
    enum Step {
        Node(u64, bool),
        Shard(u32),
        Domain(u8, bool),
        Operation(u64, bool),
        Region(u8, bool),
        Policy(u8, bool),
        Certificate(u8, bool),
        Acme,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u64, any::<bool>()).prop_map(|(id, is_there)| Step::Node(id, is_there)),
            (0..6u32).prop_map(Step::Shard),
            (0..4u8, any::<bool>()).prop_map(|(id, is_there)| Step::Domain(id, is_there)),
            (0..4u64, any::<bool>()).prop_map(|(id, is_there)| Step::Operation(id, is_there)),
            (0..4u8, any::<bool>()).prop_map(|(id, is_there)| Step::Region(id, is_there)),
            (0..4u8, any::<bool>()).prop_map(|(id, is_there)| Step::Policy(id, is_there)),
            (0..4u8, any::<bool>()).prop_map(|(id, is_there)| Step::Certificate(id, is_there)),
            Just(Step::Acme),
        ]
    }

    /// The delta from `version` to the next that a step is.
    fn delta(version: u64, step: &Step) -> MapDelta {
        let mut changed = ShardMap { version: version + 1, ..Default::default() };
        let mut delta = MapDelta { from_version: version, ..Default::default() };
        let text = version.to_string();
        match *step {
            Step::Node(id, true) => changed.nodes.push(pb::Node { id, address: text, ..Default::default() }),
            Step::Node(id, false) => delta.nodes_gone.push(id),
            Step::Shard(id) => changed.shards.push(pb::Shard { id, epoch: version, ..Default::default() }),
            Step::Domain(id, true) => {
                changed.domains.push(pb::Domain { name: id.to_string(), zone: text, ..Default::default() })
            }
            Step::Domain(id, false) => delta.domains_gone.push(id.to_string()),
            Step::Operation(id, true) => {
                changed.operations.push(pb::Operation { id, waits_for: text, ..Default::default() });
            }
            Step::Operation(id, false) => delta.operations_gone.push(id),
            Step::Region(id, true) => {
                changed.regions.push(pb::Region { name: id.to_string(), zone: text, ..Default::default() });
            }
            Step::Region(id, false) => delta.regions_gone.push(id.to_string()),
            Step::Policy(id, true) => {
                changed.policies.push(pb::Policy { name: id.to_string(), zone: text, ..Default::default() });
            }
            Step::Policy(id, false) => delta.policies_gone.push(id.to_string()),
            Step::Certificate(id, true) => {
                let certificate = pb::PublicCertificate { name: id.to_string(), failure: text, ..Default::default() };
                changed.public_certificates.push(certificate);
            }
            Step::Certificate(id, false) => delta.public_certificates_gone.push(id.to_string()),
            Step::Acme => {
                let claim = pb::OrderClaim { region: text, ..Default::default() };
                changed.acme = Some(pb::AcmeRecord { claim: Some(claim), ..Default::default() });
            }
        }
        MapDelta { changed: Some(changed), ..delta }
    }

    proptest! {
        /// However the changes are cut into deltas, and however many of them a map has already, it becomes the same map.
        #[test]
        fn deltas_bring_every_older_version_to_the_newest(
            steps in proptest::collection::vec(step(), 1..40),
            cut in 0..40usize,
            known in 0..40usize,
        ) {
            let deltas: Vec<MapDelta> = (1..).zip(&steps).map(|(version, step)| delta(version, step)).collect();
            let start = ShardMap { version: 1, ..Default::default() };
            let mut versions = vec![start.clone()];
            for delta in &deltas {
                let mut next = versions.last().unwrap().clone();
                prop_assert!(apply(&mut next, delta.clone()));
                versions.push(next);
            }
            let newest = versions.last().unwrap();
            let cut = cut.min(deltas.len() - 1);
            let mut merged = deltas[cut].clone();
            for next in &deltas[cut + 1..] {
                merged = merge(merged, next.clone()).unwrap();
            }
            let known = known.min(deltas.len());
            let mut map = versions[known].clone();
            prop_assert_eq!(apply(&mut map, merged), known >= cut);
            prop_assert_eq!(&map, if known >= cut { newest } else { &versions[known] });
        }
    }

    #[test]
    fn many_new_entries_are_put_in_their_places() {
        let shards = |range: std::ops::Range<u32>| range.map(|id| pb::Shard { id, ..Default::default() }).collect();
        let mut map = ShardMap { version: 1, shards: shards(500..600), ..Default::default() };
        let changed = ShardMap { version: 2, shards: shards(0..1000), ..Default::default() };
        assert!(apply(&mut map, MapDelta { from_version: 1, changed: Some(changed), ..Default::default() }));
        assert_eq!(map.shards, shards(0..1000));
    }
}
