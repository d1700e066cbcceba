//! `postrider bench` against a small cluster: what it prints is complete, for people and for programs.

mod harness;

use harness::{Cluster, Options, run};
use serde_json::Value;

/// Messages of each measurement.
const COUNT: &str = "20";

#[tokio::test(flavor = "multi_thread")]
async fn a_small_measurement_is_complete() {
    let cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let report: Value =
        serde_json::from_str(&bench(&cluster, &["--json", "smtp", "--connections", "2", "--rate", "50"]).await)
            .expect("the report is JSON");
    assert!(positive(&report["disk"]["fdatasyncs_per_second"]), "{report}");
    assert!(positive(&report["disk"]["sequential_mb_per_second"]), "{report}");
    assert!(report.get("rest").is_none(), "nothing was read: {report}");
    let lines = report["smtp"].as_array().expect("a list");
    let [line] = &lines[..] else { panic!("{report}") };
    assert_eq!(line["connections"], 2, "{line}");
    // Two recipients for each message.
    let counts = ["acknowledged", "refused", "expected", "delivered"].map(|name| line[name].as_u64());
    assert_eq!(counts, [Some(20), Some(0), Some(40), Some(40)], "{line}");
    for name in [
        "seconds",
        "messages_per_second",
        "reply_p50_ms",
        "reply_p99_ms",
        "due_p99_ms",
        "cpu_ms_per_message",
        "written_per_byte",
        "log_syncs_per_message",
    ] {
        assert!(positive(&line[name]), "{name}: {line}");
    }
    // The last of twenty is due after 19/50 s.
    assert!(line["seconds"].as_f64() >= Some(0.38), "{line}");

    let table = bench(&cluster, &["list", "--messages", "10", "--page", "5"]).await;
    assert!(table.contains("fdatasync"), "{table}");
    let cells: Vec<&str> =
        table.lines().find(|line| line.starts_with("list")).expect("a line of the table").split_whitespace().collect();
    // What, mailbox, connections, rate, two percentiles, answered, refused.
    assert_eq!(cells.len(), 8, "{table}");
    assert_eq!((cells[1], cells[6], cells[7]), ("10", COUNT, "0"), "{table}");
}

/// What it prints, when it succeeds.
async fn bench(cluster: &Cluster, words: &[&str]) -> String {
    let ready_file = cluster.ready_file();
    let mut all = vec!["bench", "--ready-file"];
    let path = ready_file.to_string_lossy();
    all.push(&path);
    all.extend_from_slice(words);
    all.extend(["--count", COUNT, "--size", "2000"]);
    if words.contains(&"smtp") {
        all.extend(["--accounts", "3", "--recipients", "2"]);
    }
    let output = run(&all).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}
