//! `postrider_domain`: a domain that mail is accepted for, and the keys that its mail is signed with.
//!
//! Keys are named after `dkim_rotation`: whoever applies it twice finds what the first apply has made. No private key is in a plan, in a state
//! or in a log: it is made here, sealed, and sent to placement.

use async_trait::async_trait;
use postrider_api::env::SystemClock;
use postrider_api::pb::{self, DkimAlgorithm, command::Op};
use postrider_operator::dkim::{self, Published};
use postrider_operator::growth;
use postrider_outgoing::dkim::Algorithm;

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Presence, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, Value, object};

/// What a key has signed may be on its way for so long (RFC 5321 section 4.5.4.1: four to five days), with something to spare.
const RECORD_KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// Of a rotation's name: a selector is a label of the DNS, and the algorithm's name follows it.
const ROTATION_BYTES_MAX: usize = 40;

pub(super) struct Domain;

#[async_trait]
impl Resource<Connection> for Domain {
    fn name(&self) -> &'static str {
        "domain"
    }

    fn schema(&self) -> Schema {
        let record = &[
            ("selector", Type::Text),
            ("algorithm", Type::Text),
            ("signs", Type::Bool),
            ("name", Type::Text),
            ("value", Type::Text),
        ];
        Schema {
            description: "A domain that mail is accepted for. Destroying it refuses mail for it from then on; its accounts and its keys stay, for when it \
                          comes back.",
            attributes: vec![
                Attribute::required("name", Type::Text, "The domain, in lower-case A-labels.").replaces(),
                Attribute::new(
                    "zone",
                    Type::Text,
                    Presence::OptionalComputed,
                    "The residency zone of its mailboxes, for ever. May be left out where there is one.",
                )
                .replaces(),
                Attribute::optional(
                    "policy",
                    Type::Text,
                    "What new accounts of the domain are held to: they get shards of this policy.",
                ),
                Attribute::optional(
                    "dkim_rotation",
                    Type::Text,
                    "Names the keys that its mail is signed with, `ROTATION-ALGORITHM`. Another name (a month: `2026-12`) makes new keys, and signs \
                     nothing with the old ones any more, whose records stay for a week. A name is used once. Without it the keys are left alone. Where \
                     the cluster's name servers do not answer for the domain, publish `dkim_records` as soon as it is applied.",
                ),
                Attribute::defaulted(
                    "dkim_algorithms",
                    Type::set_of_texts(),
                    Value::texts(["ed25519", "rsa"]),
                    "`rsa` (which all receivers know) and `ed25519` (which some do).",
                ),
                Attribute::computed(
                    "dkim_records",
                    Type::objects(record),
                    "The TXT records that publish its keys: all there are, retired ones as well.",
                )
                .follows(&["dkim_rotation", "dkim_algorithms"]),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("postrider.example", "the domain")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        if config.text("dkim_rotation").is_some_and(|rotation| !is_rotation(rotation)) {
            let detail = format!(
                "Lower-case letters, digits and hyphens between them are wanted, at most {ROTATION_BYTES_MAX} bytes: \"2026-12\"."
            );
            wrong.push(Diagnostic::error("Not a name for keys", detail).at("dkim_rotation"));
        }
        let algorithms = config.list_of_texts("dkim_algorithms");
        if algorithms.is_some_and(|words| words.is_empty() || words.iter().any(|word| algorithm_of(word).is_none())) {
            wrong.push(
                Diagnostic::error("Not an algorithm", "`rsa`, `ed25519` or both are wanted.").at("dkim_algorithms"),
            );
        }
        wrong
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        let Some(domain) = find(&map, &state) else { return Ok(None) };
        let records: anyhow::Result<Vec<Value>> =
            domain.dkim_keys.iter().map(|key| record_of(&domain.name, key)).collect();
        let (rotation, algorithms) = rotation_of(domain, &state);
        let mut state = state;
        state.extend(object([
            ("zone", domain.zone.clone().into()),
            ("policy", super::text_or_null(&domain.policy, state.value("policy"))),
            ("dkim_rotation", rotation),
            ("dkim_algorithms", algorithms),
            ("dkim_records", Value::List(records?)),
        ]));
        Ok(Some(state))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        let name = planned.text("name").unwrap_or_default();
        let zone = growth::zone(&connection.map().await?, planned.text("zone"))?;
        let add = Op::AddDomain(pb::AddDomain { domain: name.to_owned(), zone });
        connection.session().await?.place("domain.add", target(name), add).await?;
        self.update(connection, &Object::new(), planned).await
    }

    async fn update(&self, connection: &Connection, _: &Object, planned: &Object) -> Done<()> {
        let map = connection.map().await?;
        let gone = || Diagnostic::error("No such domain", "Somebody has removed it meanwhile: plan again.");
        let domain = find(&map, planned).ok_or_else(gone)?;
        let policy = planned.text("policy").unwrap_or_default().to_owned();
        if domain.policy != policy {
            let set = Op::SetDomainPolicy(pb::SetDomainPolicy { domain: domain.name.clone(), policy });
            connection.session().await?.place("policy.domain", target(&domain.name), set).await?;
        }
        match planned.text("dkim_rotation") {
            Some(rotation) => rotate(connection, domain, rotation, planned).await,
            None => Ok(()),
        }
    }

    async fn delete(&self, connection: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        let name = prior.text("name").unwrap_or_default();
        let map = connection.map().await?;
        if find(&map, prior).is_some_and(|domain| !domain.policy.is_empty()) {
            // One that was removed keeps what it was held to, and nobody could remove the policy.
            let hold = Op::SetDomainPolicy(pb::SetDomainPolicy { domain: name.to_owned(), policy: String::new() });
            connection.session().await?.place("policy.domain", target(name), hold).await?;
        }
        let remove = Op::RemoveDomain(pb::RemoveDomain { domain: name.to_owned() });
        connection.session().await?.place("domain.remove", target(name), remove).await?;
        Ok(Vec::new())
    }

    fn import(&self, id: &str) -> Done<Object> {
        Ok(object([("name", id.into())]))
    }
}

fn target(name: &str) -> [String; 1] {
    [format!("domain {name}")]
}

fn find<'m>(map: &'m pb::ShardMap, state: &Object) -> Option<&'m pb::Domain> {
    let name = state.text("name").unwrap_or_default();
    map.domains.iter().find(|domain| domain.name == name)
}

fn is_rotation(name: &str) -> bool {
    let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let ends = [name.bytes().next(), name.bytes().next_back()];
    name.len() <= ROTATION_BYTES_MAX
        && name.bytes().all(is_inside)
        && ends.iter().all(|end| end.is_some_and(|byte| byte != b'-'))
}

fn algorithm_of(word: &str) -> Option<Algorithm> {
    match word {
        "rsa" => Some(Algorithm::RsaSha256),
        "ed25519" => Some(Algorithm::Ed25519),
        _ => None,
    }
}

fn word_of(key: &pb::DkimKey) -> &'static str {
    match key.algorithm() {
        DkimAlgorithm::Ed25519Sha256 => "ed25519",
        DkimAlgorithm::RsaSha256 | DkimAlgorithm::Unspecified => "rsa",
    }
}

fn selector(rotation: &str, algorithm: &str) -> String {
    format!("{rotation}-{algorithm}")
}

/// The rotation and the algorithms whose keys sign. What was recorded stays where it is so; of one that was just imported they are found out; null,
/// where somebody else has changed the keys.
fn rotation_of(domain: &pb::Domain, before: &Object) -> (Value, Value) {
    let signing: Vec<&pb::DkimKey> = domain.dkim_keys.iter().filter(|key| key.retired_ms == 0).collect();
    let words = || {
        let mut words: Vec<&str> = signing.iter().map(|key| word_of(key)).collect();
        words.sort_unstable();
        words
    };
    let is_named = |rotation: &str| signing.iter().all(|key| key.selector == selector(rotation, word_of(key)));
    let algorithms = before.value("dkim_algorithms").clone();
    let is_imported = before.value("zone").is_null();
    match before.text("dkim_rotation") {
        Some(rotation) => {
            let mut wanted = before.list_of_texts("dkim_algorithms").unwrap_or_default();
            wanted.sort_unstable();
            match is_named(rotation) && words() == wanted {
                true => (rotation.into(), algorithms),
                false => (Value::Null, algorithms),
            }
        }
        None if is_imported => {
            let name = signing.first().and_then(|key| key.selector.strip_suffix(word_of(key))?.strip_suffix('-'));
            match name {
                Some(rotation) if is_named(rotation) => (rotation.into(), Value::texts(words())),
                _ => (Value::Null, algorithms),
            }
        }
        None => (Value::Null, algorithms),
    }
}

/// Keys of this name sign, no others do, and what was retired long ago is gone.
async fn rotate(connection: &Connection, domain: &pb::Domain, rotation: &str, planned: &Object) -> Done<()> {
    let session = connection.session().await?;
    let algorithms = planned.list_of_texts("dkim_algorithms").unwrap_or_default();
    let wanted: Vec<String> = algorithms.iter().map(|word| selector(rotation, word)).collect();
    let is_retired = |name: &String| domain.dkim_keys.iter().any(|key| key.selector == *name && key.retired_ms != 0);
    if let Some(used) = wanted.iter().find(|name| is_retired(name)) {
        let detail = format!(
            "{} has a key {used:?} that is retired already, and a name is used once: choose another.",
            domain.name
        );
        return Err(Diagnostic::error("The name was used before", detail).at("dkim_rotation"));
    }
    let now = SystemClock::shared().wall_ms();
    for key in &domain.dkim_keys {
        let is_old = key.retired_ms != 0 && now.saturating_sub(key.retired_ms) > RECORD_KEPT_MS;
        if is_old && !wanted.contains(&key.selector) {
            dkim::remove(session, &domain.name, &key.selector).await?;
        }
    }
    for (word, name) in algorithms.iter().zip(&wanted) {
        let Some(algorithm) = algorithm_of(word) else { continue };
        if !domain.dkim_keys.iter().any(|key| key.selector == *name) {
            tracing::info!(domain = domain.name, selector = name, "a key is made");
            dkim::add(session, &domain.name, name, algorithm, &connection.sealer()?).await?;
        }
    }
    // Behind the new ones: mail is signed at every moment.
    for key in domain.dkim_keys.iter().filter(|key| key.retired_ms == 0 && !wanted.contains(&key.selector)) {
        dkim::retire(session, &domain.name, &key.selector).await?;
    }
    Ok(())
}

fn record_of(domain: &str, key: &pb::DkimKey) -> anyhow::Result<Value> {
    let Published { selector, algorithm, signs, record, value } = Published::of(domain, key)?;
    Ok(Value::Object(object([
        ("selector", selector.into()),
        ("algorithm", algorithm.into()),
        ("signs", signs.into()),
        ("name", record.into()),
        ("value", value.into()),
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(selector: &str, algorithm: DkimAlgorithm, retired_ms: i64) -> pb::DkimKey {
        pb::DkimKey { selector: selector.into(), algorithm: algorithm.into(), retired_ms, ..Default::default() }
    }

    fn domain(keys: Vec<pb::DkimKey>) -> pb::Domain {
        pb::Domain { name: "postrider.example".into(), dkim_keys: keys, ..Default::default() }
    }

    fn state(rotation: Value, zone: Value) -> Object {
        object([("dkim_rotation", rotation), ("dkim_algorithms", Value::texts(["ed25519", "rsa"])), ("zone", zone)])
    }

    #[test]
    fn keys_that_somebody_changed_are_a_difference() {
        let both = vec![
            key("2026-11-ed25519", DkimAlgorithm::Ed25519Sha256, 0),
            key("2026-11-rsa", DkimAlgorithm::RsaSha256, 0),
            key("old", DkimAlgorithm::RsaSha256, 1),
        ];
        let known = state("2026-11".into(), "world".into());
        assert_eq!(rotation_of(&domain(both.clone()), &known).0, Value::from("2026-11"));
        let mut retired = both.clone();
        retired[1].retired_ms = 2;
        assert_eq!(rotation_of(&domain(retired), &known).0, Value::Null, "one does not sign any more");
        let mut added = both.clone();
        added.push(key("by-hand", DkimAlgorithm::RsaSha256, 0));
        assert_eq!(rotation_of(&domain(added), &known).0, Value::Null, "another one signs");
        // Left alone, and just imported.
        assert_eq!(rotation_of(&domain(both.clone()), &state(Value::Null, "world".into())).0, Value::Null);
        let imported = rotation_of(&domain(both[..1].to_vec()), &state(Value::Null, Value::Null));
        assert_eq!(imported, (Value::from("2026-11"), Value::texts(["ed25519"])));
        assert_eq!(rotation_of(&domain(vec![]), &state(Value::Null, Value::Null)).0, Value::Null);
    }

    #[test]
    fn names_of_rotations_are_labels() {
        assert!(["2026-12", "a", "x1"].iter().all(|name| is_rotation(name)));
        assert!(!["", "-a", "a-", "A", "a.b", "a_b"].iter().any(|name| is_rotation(name)));
        let wrong = object([("dkim_rotation", "A".into()), ("dkim_algorithms", Value::texts(["dsa"]))]);
        assert_eq!(Domain.check(&wrong).len(), 2);
    }
}
