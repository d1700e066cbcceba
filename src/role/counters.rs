//! What a process counts, and where Prometheus reads it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use metrics::{Unit, describe_gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::proc;

/// Upper bounds of what is measured in seconds. The lower ones tell a write in the own region from one over an ocean, the upper ones
/// are those of clients' patience.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Of what is counted in a batch.
const CHANGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// How often samples are folded together, and what the process uses is looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Makes this process's counters visible, at `listen` over plain HTTP where there is one.
///
/// # Errors
/// When nothing can listen there.
pub(crate) async fn install(listen: Option<SocketAddr>) -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new().upkeep_timeout(UPKEEP_EVERY);
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_changes".into()), &CHANGES)?;
    let handle = match listen {
        Some(address) => {
            let built = builder.with_http_listener(address).build();
            let (recorder, listener) = built.with_context(|| format!("metrics_listen: listen on {address}"))?;
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).context("install the recorder of counters")?;
            tokio::spawn(listener);
            handle
        }
        None => {
            let handle = builder.install_recorder().context("install the recorder of counters")?;
            tokio::spawn(keep_up(handle.clone()));
            handle
        }
    };
    describe();
    tokio::spawn(watch_process(SystemTime::now()));
    Ok(handle)
}

/// Describes everything that a process of any role counts.
pub(crate) fn describe() {
    postrider_api::certificates::describe_metrics();
    postrider_node::describe_metrics();
    postrider_frontend::describe_metrics();
    postrider_dns::describe_metrics();
    crate::telemetry::traces::describe();
    describe_process();
}

fn describe_process() {
    describe_gauge!("postrider_build_info", Unit::Count, "1; the label tells which build this is.");
    describe_gauge!("process_cpu_seconds_total", Unit::Seconds, "Time that the process has used on processors.");
    describe_gauge!("process_open_fds", Unit::Count, "Open files and sockets of the process.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory of the process.");
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "When the process started, seconds since 1970.");
}

/// Shows what the process uses, under the names that Prometheus' own libraries give it.
async fn watch_process(started: SystemTime) {
    let pid = std::process::id();
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("postrider_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!("process_start_time_seconds").set(started.as_secs_f64());
    loop {
        // Of the own process /proc tells always; where there is none, nothing is shown.
        if let Ok(seconds) = proc::cpu_seconds(pid) {
            metrics::gauge!("process_cpu_seconds_total").set(seconds);
        }
        if let Ok(bytes) = proc::resident_bytes(pid) {
            metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        if let Ok(files) = proc::open_files(pid) {
            metrics::gauge!("process_open_fds").set(files as f64);
        }
        tokio::time::sleep(UPKEEP_EVERY).await;
    }
}

/// Folds samples together also while nobody asks: they would be kept one by one until somebody does.
async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    //! Holds `docs/operating/metrics.md` against the code, and the code against itself: what is emitted is described, what is described is
    //! emitted, and every label has few values. `POSTRIDER_WRITE_METRICS=1 cargo test -p postrider page` writes the page anew.

    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    /// Every label that a metric may have, and what bounds its values. Never an address, an id or anything else that grows with use.
    const LABELS: &[(&str, &str)] = &[
        ("aspect", "what of a message is kept: parts and views, from a list in the code"),
        ("blame", "what a destination said of a source address: from a list in the code"),
        ("cause", "why a recipient was given up: from a list in the code"),
        ("certificate", "a certificate of a public authority that operators want, by its first name"),
        ("class", "the first digit of an SMTP reply"),
        ("code", "an enhanced status code of RFC 3463: those of the table of replies"),
        ("destination", "a class of `[outgoing.classes]`, 16 at most; everybody else is `other`"),
        ("direction", "`in` or `out`"),
        ("disposition", "what a receiver did, of DMARC's list; others are `other`"),
        ("dkim", "`pass` or `fail`"),
        ("fault", "what a refusal of a storage node says: from the protocol's list"),
        ("follower", "`search` or `tally`"),
        ("for", "what a step of the balancer is for: from a list in the code"),
        ("from", "who measured: `frontend` or `region`"),
        ("kind", "kinds of rows, of errors of Redis, or of reports: from lists in the code"),
        ("limit", "which limit: from a list in the code"),
        ("method", "an HTTP method (others are `other`), or a method of a gRPC service"),
        ("of", "what was synced: `content` or `directory`"),
        ("operation", "which request of S3"),
        ("outcome", "how it ended: from a list in the code"),
        ("path", "a route of REST, with its placeholders; what is none is `other`"),
        ("pool", "personal, transactional or bulk"),
        ("reason", "why it came to nothing: from a list in the code"),
        ("region", "a region of the cluster"),
        ("result", "what became of it: from a list in the code"),
        ("spf", "`pass` or `fail`"),
        ("state", "what a replica does: leader, follower, candidate, learner, stopped"),
        ("status", "an HTTP status"),
        ("tls", "how a session with a host outside is protected: from a list in the code"),
        ("type", "why a session failed, of RFC 8460's list; others are `other`"),
        ("verb", "created, updated, deleted; for search documents added, deleted, passed_by"),
        ("version", "the build's version: one value in a process"),
        ("zone", "a residency zone"),
    ];

    /// Rooms, by the beginning of their metrics' names, in the order of the page.
    const ROOMS: &[(&str, &str)] = &[
        ("postrider_smtp_", "SMTP and submission"),
        ("postrider_rest_", "REST and WebSocket"),
        ("postrider_worker_", "The worker"),
        ("postrider_outgoing_", "Mail to the outside"),
        ("postrider_router_", "The way to the storage nodes"),
        ("postrider_dns_", "Name servers"),
        ("postrider_node_", "Storage nodes"),
        ("postrider_raft_", "Consensus"),
        ("postrider_balance_", "The balancer"),
        ("postrider_sweep_", "Sweeps of the object stores"),
        ("postrider_blob_", "Object stores and their clients"),
        ("postrider_cache_", "What frontends keep near"),
        ("postrider_traces_", "Traces"),
        ("", "Everything else"),
    ];

    #[derive(Debug, Clone)]
    struct Described {
        kind: &'static str,
        unit: Option<Unit>,
        meaning: String,
    }

    /// Takes in descriptions, and counts nothing.
    #[derive(Default)]
    struct Descriptions(Mutex<BTreeMap<String, Described>>);

    impl Descriptions {
        fn take_in(&self, name: &KeyName, kind: &'static str, unit: Option<Unit>, meaning: &SharedString) {
            let described = Described { kind, unit, meaning: meaning.to_string() };
            let before = self.0.lock().unwrap().insert(name.as_str().to_owned(), described);
            assert!(before.is_none(), "{} is described twice", name.as_str());
        }
    }

    impl Recorder for Descriptions {
        fn describe_counter(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
            self.take_in(&key, "counter", unit, &meaning);
        }

        fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
            self.take_in(&key, "gauge", unit, &meaning);
        }

        fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
            self.take_in(&key, "histogram", unit, &meaning);
        }

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn described() -> BTreeMap<String, Described> {
        let descriptions = Descriptions::default();
        metrics::with_local_recorder(&descriptions, super::describe);
        descriptions.0.into_inner().unwrap()
    }

    /// A metric as the sources emit it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Emitted {
        kind: &'static str,
        labels: BTreeSet<String>,
    }

    /// All sources of the workspace that are linked into the binary.
    fn sources() -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().flatten() {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                let passed_over = ["target", "tests", "benches", "fuzz", "node_modules"].contains(&name.as_str());
                if entry.file_type().unwrap().is_dir() && !passed_over && !name.starts_with('.') {
                    left.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push(path);
                }
            }
        }
        found
    }

    /// What stands between the bracket that `text` begins behind and the one that closes it, cut at its outer commas.
    fn arguments(text: &str) -> Vec<&str> {
        let (mut depth, mut in_text, mut escaped, mut start) = (0, false, false, 0);
        let mut cut = Vec::new();
        for (at, c) in text.char_indices() {
            match c {
                _ if in_text && escaped => escaped = false,
                '\\' if in_text => escaped = true,
                '"' => in_text = !in_text,
                _ if in_text => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth > 0 => depth -= 1,
                ')' => {
                    cut.push(text[start..at].trim());
                    return cut.into_iter().filter(|argument| !argument.is_empty()).collect();
                }
                ',' if depth == 0 => {
                    cut.push(text[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        panic!("a bracket is not closed: {text:.60}");
    }

    fn literal(argument: &str) -> Option<&str> {
        argument.strip_prefix('"')?.split('"').next()
    }

    fn emitted() -> BTreeMap<String, Emitted> {
        let mut all: BTreeMap<String, Emitted> = BTreeMap::new();
        for path in sources() {
            let source = std::fs::read_to_string(&path).unwrap();
            // What a file tests with is not what it counts.
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for kind in ["counter", "gauge", "histogram"] {
                for (at, found) in source.match_indices(&format!("metrics::{kind}!(")) {
                    let arguments = arguments(&source[at + found.len()..]);
                    let here = format!("{}: {arguments:?}", path.display());
                    let name = literal(arguments[0]).unwrap_or_else(|| panic!("{here}: the name is not a literal"));
                    let labels = arguments[1..].iter().map(|label| {
                        assert!(label.contains("=>"), "{here}: labels are named where they are counted");
                        literal(label).unwrap_or_else(|| panic!("{here}: a label's name is not a literal")).to_owned()
                    });
                    let one = Emitted { kind, labels: labels.collect() };
                    let known = all.entry(name.to_owned()).or_insert_with(|| one.clone());
                    assert_eq!(*known, one, "{here}: it is counted otherwise elsewhere");
                }
            }
        }
        all
    }

    #[test]
    fn what_is_emitted_is_described_and_every_label_is_bounded() {
        let (described, emitted) = (described(), emitted());
        assert!(emitted.len() > 100, "the sources were found: {}", emitted.len());
        for (name, emission) in &emitted {
            let description = described.get(name).unwrap_or_else(|| {
                panic!("{name} is emitted and not described: the `described.rs` of its crate describes it")
            });
            assert_eq!(description.kind, emission.kind, "{name}");
            assert!(description.unit.is_some() && description.meaning.ends_with('.'), "{name}: {description:?}");
            for label in &emission.labels {
                assert!(
                    LABELS.iter().any(|(known, _)| known == label),
                    "{name}: say in LABELS what bounds the values of {label}; addresses, ids and names of clients are no labels"
                );
            }
        }
        for name in described.keys() {
            assert!(emitted.contains_key(name), "{name} is described, and nobody counts it");
        }
        for (label, _) in LABELS {
            assert!(
                emitted.values().any(|emission| emission.labels.contains(*label)),
                "no metric has the label {label}"
            );
        }
    }

    fn page() -> String {
        let (mut left, emitted) = (described(), emitted());
        let mut page = String::from(
            "# Metrics\n\n\
             Made of the code's own descriptions; a test holds it against them. Every process but `ctl` and `demo` serves them over plain HTTP at\n\
             `http://METRICS_LISTEN/metrics` (see [roles.md](roles.md)); a frontend also at REST's `/metrics`, to the holder of the admin token. A histogram\n\
             has `_bucket`, `_sum` and `_count`. A counter begins with the first of what it counts, and anew when its process starts. Rules, alerts and dashboards made of them are in\n\
             `deploy/prometheus` and `deploy/grafana`.\n",
        );
        for (prefix, title) in ROOMS {
            let here: Vec<String> = left.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            if here.is_empty() {
                continue;
            }
            write!(page, "\n## {title}\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n").unwrap();
            for name in here {
                let described = left.remove(&name).unwrap();
                let labels: Vec<String> = emitted[&name].labels.iter().map(|label| format!("`{label}`")).collect();
                let unit = described.unit.map_or("", |unit| unit.as_str());
                let row =
                    [format!("`{name}`"), described.kind.into(), unit.into(), labels.join(", "), described.meaning];
                writeln!(page, "| {} |", row.join(" | ")).unwrap();
            }
        }
        page.push_str("\n## Labels\n\nNone grows with use: no address, no id, no name that clients choose.\n\n| label | values |\n|---|---|\n");
        for (label, bound) in LABELS {
            writeln!(page, "| `{label}` | {bound} |").unwrap();
        }
        page
    }

    #[test]
    fn the_page_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating/metrics.md");
        if std::env::var_os("POSTRIDER_WRITE_METRICS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == page(), "{} is stale: POSTRIDER_WRITE_METRICS=1 writes it anew", path.display());
    }
}
