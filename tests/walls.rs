//! The dependency walls: which room may name which, and which libraries stop where (docs/ARCHITECTURE.md).
//!
//! What counts is every declared dependency of every member, dev and build dependencies included: a wall that tests may climb
//! is none, but for the few doors of [`TEST_DOORS`]. A member without a row here fails, so that a new room has to be given its
//! place.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Who may name whom among the workspace's own packages.
const ROOMS: &[(&str, &[&str])] = &[
    ("postrider-api", &[]),
    ("postrider-blob", &["postrider-api"]),
    ("postrider-raft", &[]),
    ("postrider-shard", &["postrider-api"]),
    (
        "postrider-node",
        &[
            "postrider-raft",
            "postrider-shard",
            "postrider-blob",
            "postrider-balance",
            "postrider-mime",
            "postrider-api",
        ],
    ),
    // What should move is a pure function: docs/adr/125-the-balancer-is-a-pure-function.md.
    ("postrider-balance", &["postrider-api"]),
    ("postrider-router", &["postrider-api"]),
    // What operators do with a cluster that runs: docs/adr/150-a-terraform-provider-of-our-own.md.
    ("postrider-operator", &["postrider-router", "postrider-balance", "postrider-outgoing", "postrider-api"]),
    // Another face of it. The frontend is there for the rules of passwords and for the cluster's secret.
    (
        "postrider-terraform",
        &[
            "postrider-operator",
            "postrider-frontend",
            "postrider-balance",
            "postrider-dns",
            "postrider-outgoing",
            "postrider-api",
        ],
    ),
    // A way to regions, not to nodes: it is told of the shard map, and knows none. docs/adr/135-dns-of-our-own.md
    ("postrider-dns", &["postrider-api"]),
    (
        "postrider-frontend",
        &[
            "postrider-router",
            "postrider-dns",
            "postrider-blob",
            "postrider-mime",
            "postrider-outgoing",
            "postrider-sanitize",
            "postrider-webmail",
            "postrider-api",
        ],
    ),
    // HTML of others in, harmless HTML out: docs/adr/140-a-message-is-built-anew-on-our-side.md.
    ("postrider-sanitize", &[]),
    // How mail leaves: it knows peers, and nothing of shards.
    ("postrider-outgoing", &["postrider-api"]),
    // Files for browsers, and nothing of mail: docs/adr/130-the-webmail.md.
    ("postrider-webmail", &[]),
    // Mail as bytes, for those who propose it and for those who index it: docs/adr/095-text-is-read-where-it-is-indexed.md.
    ("postrider-mime", &["postrider-api"]),
    // Fuzz targets reach every decoder, and are linked into nothing.
    (
        "postrider-fuzz",
        &[
            "postrider-raft",
            "postrider-shard",
            "postrider-blob",
            "postrider-dns",
            "postrider-frontend",
            "postrider-mime",
            "postrider-outgoing",
            "postrider-sanitize",
            "postrider-terraform",
            "postrider-api",
        ],
    ),
    // The binary wires roles. The vocabulary and the object store's role: docs/adr/020-what-the-binary-may-name.md.
    (
        "postrider",
        &[
            "postrider-node",
            "postrider-balance",
            "postrider-frontend",
            "postrider-router",
            "postrider-operator",
            "postrider-dns",
            "postrider-mime",
            "postrider-outgoing",
            "postrider-api",
            "postrider-blob",
        ],
    ),
];

/// What only a room's tests may name, each with the reason.
const TEST_DOORS: &[(&str, &str)] = &[
    // The protocols are tested against a cluster in memory whose answers are the real state machines'.
    ("postrider-frontend", "postrider-shard"),
    // Nodes are tested through the client that the others use.
    ("postrider-node", "postrider-router"),
];

/// Libraries that stop inside some rooms: (name or prefix ended by `*`, who may name it, why).
const LIBRARIES: &[(&str, &[&str], &str)] = &[
    ("openraft*", &["postrider-raft"], "consensus types stop inside raft/"),
    ("rocksdb", &["postrider-raft", "postrider-shard", "postrider-node"], "frontends cannot name the storage engine"),
    ("librocksdb-sys", &[], "nobody goes below the rocksdb crate"),
    ("aws-*", &["postrider-blob"], "the S3 SDK is the blob crate's"),
    ("s3s*", &["postrider-blob"], "the embedded object store is the blob crate's"),
    ("tantivy", &["postrider-node"], "search indexes are the node's"),
    // The node's is for /metrics and /healthz alone.
    ("axum", &["postrider-frontend", "postrider-node"], "client protocols are the frontend's"),
    ("mail-parser", &["postrider-mime"], "no parser below proposing: apply reads what was parsed before"),
    ("mail-builder", &["postrider-mime"], "messages are composed in the room of mail as bytes"),
    ("smtp-proto", &["postrider-frontend"], "client protocols are the frontend's"),
    ("ammonia", &["postrider-sanitize"], "what senders wrote is made harmless in one place"),
    ("html5ever", &["postrider-sanitize"], "what senders wrote is made harmless in one place"),
    ("cssparser", &["postrider-sanitize"], "what senders wrote is made harmless in one place"),
    ("hickory-resolver", &["postrider-outgoing"], "what the world says of names is asked in one place"),
    ("rsa", &["postrider-outgoing"], "it makes keys of DKIM and does nothing else: ring signs"),
    ("redis", &["postrider-frontend"], "what frontends share is theirs"),
    (
        "hickory-proto",
        &["postrider-dns", "postrider-outgoing"],
        "names are answered and looked up in rooms of their own",
    ),
    ("opentelemetry*", &["postrider"], "spans are our own (ADR 151); how they travel to a collector is the binary's"),
    ("openssl*", &[], "TLS is rustls with ring"),
    ("native-tls", &[], "TLS is rustls with ring"),
];

/// The state machines, whose apply is pure, the planner, and what makes HTML harmless.
const PURE: &[&str] = &["postrider-shard", "postrider-balance", "postrider-sanitize"];

/// What these must not be able to name at all.
const IMPURE: &[&str] =
    &["tokio", "rand", "getrandom", "tonic", "reqwest", "hyper", "jiff", "chrono", "zstd", "mail-parser"];

/// One declared dependency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    for_tests: bool,
}

fn edge(from: &str, to: &str) -> Edge {
    Edge { from: from.into(), to: to.into(), for_tests: false }
}

fn edges(packages: &[Package]) -> BTreeSet<Edge> {
    let of = |package: &Package| {
        let from = package.name.to_string();
        let edge = |dependency: &cargo_metadata::Dependency| Edge {
            from: from.clone(),
            to: dependency.name.clone(),
            for_tests: dependency.kind == DependencyKind::Development,
        };
        package.dependencies.iter().map(edge).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of).collect()
}

fn names(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Every edge that crosses a wall, each with the reason of the wall.
fn violations(members: &[&str], edges: &BTreeSet<Edge>) -> Vec<String> {
    let mut found = Vec::new();
    for member in members {
        if !ROOMS.iter().any(|(room, _)| room == member) {
            found.push(format!("{member} has no place in the table of rooms"));
        }
    }
    for Edge { from, to, for_tests } in edges {
        if *for_tests && TEST_DOORS.contains(&(from.as_str(), to.as_str())) {
            continue;
        }
        if members.contains(&to.as_str()) {
            let allowed = ROOMS.iter().find(|(room, _)| room == from).map_or(&[][..], |(_, allowed)| allowed);
            if !allowed.contains(&to.as_str()) {
                found.push(format!("{from} -> {to}: not a way between rooms"));
            }
        }
        for (pattern, allowed, why) in LIBRARIES {
            if names(pattern, to) && !allowed.contains(&from.as_str()) {
                found.push(format!("{from} -> {to}: {why}"));
            }
        }
        if PURE.contains(&from.as_str()) && IMPURE.contains(&to.as_str()) {
            found.push(format!("{from} -> {to}: what is pure knows no clock, no randomness, no network and no codec"));
        }
    }
    found
}

#[test]
fn rooms_and_libraries_stay_behind_their_walls() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata of this workspace");
    let packages: Vec<Package> = metadata.workspace_packages().into_iter().cloned().collect();
    assert!(packages.len() >= ROOMS.len(), "all rooms are there: {}", packages.len());
    let members: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let found = violations(&members, &edges(&packages));
    assert!(found.is_empty(), "walls are crossed:\n{}", found.join("\n"));
}

#[test]
fn a_crossed_wall_is_found() {
    let members: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (from, to) in [
        ("postrider-frontend", "postrider-raft"),
        ("postrider-frontend", "rocksdb"),
        ("postrider-frontend", "openraft"),
        ("postrider-raft", "postrider-api"),
        ("postrider-router", "postrider-shard"),
        ("postrider-node", "openraft"),
        ("postrider-node", "aws-sdk-s3"),
        ("postrider-shard", "tokio"),
        ("postrider-balance", "rand"),
        ("postrider-shard", "postrider-mime"),
        ("postrider-frontend", "mail-parser"),
        ("postrider", "rocksdb"),
        ("postrider", "s3s"),
    ] {
        let found = violations(&members, &BTreeSet::from([edge(from, to)]));
        assert_eq!(found.len(), 1, "{from} -> {to} must be refused: {found:?}");
    }
}

#[test]
fn a_room_without_a_place_is_found() {
    let found = violations(&["postrider-cellar"], &BTreeSet::new());
    assert_eq!(found, ["postrider-cellar has no place in the table of rooms"]);
}

#[test]
fn an_allowed_way_is_not_refused() {
    let members: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let open = BTreeSet::from([edge("postrider-node", "postrider-raft"), edge("postrider-raft", "openraft")]);
    assert!(violations(&members, &open).is_empty());
}

#[test]
fn a_door_for_tests_is_none_for_the_code() {
    let members: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (from, to) in TEST_DOORS {
        let door = Edge { for_tests: true, ..edge(from, to) };
        assert!(violations(&members, &BTreeSet::from([door])).is_empty());
        assert_eq!(violations(&members, &BTreeSet::from([edge(from, to)])).len(), 1);
    }
}
