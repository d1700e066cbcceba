//! The small forms of the campaigns that `./dev campaign NAME` runs at length (`tests/campaign/`). The kills have theirs in
//! `kill.rs` and `cold.rs`.
//!
//! What a campaign needs and this machine lacks (the suites of real mail, root for loop devices and network namespaces) is
//! said, and the campaign is passed over. In CI (`CI=true`) that fails, unless POSTRIDER_ALLOW_MISSING, a list with commas, names
//! what is not there: a green run means what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a campaign cannot do without.
#[derive(Debug, Clone, Copy)]
enum Need {
    Program(&'static str),
    /// A module of Perl's.
    Perl(&'static str),
    Root,
    Path(&'static str),
    Suites,
    /// The user-space network between namespaces.
    Wan,
}

#[test]
fn real_mail_comes_back_byte_for_byte_in_the_right_threads() {
    // The corpus that npm fetches belongs to the long form.
    small("real-mail", &[Need::Program("python3"), Need::Program("zstd"), Need::Perl("Mail::Thread"), Need::Suites]);
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let needs = [
        Need::Program("python3"),
        Need::Root,
        Need::Path("/dev/loop-control"),
        Need::Program("mkfs.ext4"),
        Need::Program("eatmydata"),
    ];
    small("power-cut", &needs);
}

#[test]
fn large_mail_over_a_wide_area_arrives_without_an_election() {
    let needs = [Need::Program("python3"), Need::Root, Need::Path("/dev/net/tun"), Need::Program("ip"), Need::Wan];
    small("wan", &needs);
}

#[test]
fn a_message_that_is_read_again_costs_one_round_trip_and_not_the_transfer() {
    let needs = [Need::Program("python3"), Need::Root, Need::Path("/dev/net/tun"), Need::Program("ip"), Need::Wan];
    small("near", &needs);
}

#[test]
fn names_lead_to_the_region_that_connections_reach_fastest() {
    let needs = [Need::Program("python3"), Need::Root, Need::Path("/dev/net/tun"), Need::Program("ip"), Need::Wan];
    small("nearest", &needs);
}

#[test]
fn the_name_server_is_measured_beside_knotd() {
    // How fast an optimized build has to be, the long form says.
    small("dns", &[Need::Program("python3"), Need::Program("knotd"), Need::Program("dnsperf")]);
}

#[test]
fn no_answer_is_stale_without_saying_so() {
    // Cutting regions off belongs to the long form.
    small("stale-reads", &[Need::Program("python3")]);
}

#[test]
fn mail_goes_out_beside_a_postfix_at_its_work() {
    let needs =
        [Need::Program("python3"), Need::Root, Need::Path("/usr/sbin/postfix"), Need::Path("/usr/sbin/smtp-sink")];
    small("outgoing", &needs);
}

#[test]
fn whatever_breaks_by_chance_every_promise_is_kept() {
    // What the machine does not allow (cuts, full disks), the drill leaves out and says so; half an hour belongs to the long form.
    small("chaos", &[Need::Program("python3")]);
}

fn small(name: &str, needs: &[Need]) {
    if let Some(missing) = needs.iter().find(|need| !is_there(**need)) {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        assert!(
            may_be_missing(missing.name(), &variable("CI"), &variable("POSTRIDER_ALLOW_MISSING")),
            "the campaign {name} cannot run: {missing:?} is not there; POSTRIDER_ALLOW_MISSING={} passes over it",
            missing.name()
        );
        println!("the campaign {name} is passed over: {missing:?} is not there");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaign").join(name);
    let output = Command::new(&script)
        .args(["small", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("POSTRIDER_BIN", env!("CARGO_BIN_EXE_postrider"))
        .env("POSTRIDER_SUITES", suites())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("run {}: {error}", script.display()));
    let (row, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{name}: {row}{said}");
    assert!(output.status.success(), "the campaign {name} found something: {row}\n{said}");
}

impl Need {
    /// As POSTRIDER_ALLOW_MISSING has it.
    fn name(self) -> &'static str {
        match self {
            Need::Program(name) | Need::Perl(name) | Need::Path(name) => name,
            Need::Root => "root",
            Need::Suites => "suites",
            Need::Wan => "wan",
        }
    }
}

fn may_be_missing(name: &str, ci: &str, allowed: &str) -> bool {
    ci != "true" || allowed.split(',').any(|allowed| allowed.trim() == name)
}

#[test]
fn in_ci_only_what_is_named_may_be_missing() {
    assert!(may_be_missing("suites", "", ""));
    assert!(!may_be_missing("suites", "true", ""));
    assert!(!may_be_missing("suites", "true", "wan"));
    assert!(may_be_missing("suites", "true", "wan, suites"));
}

fn is_there(need: Need) -> bool {
    match need {
        Need::Perl(module) => Command::new("perl")
            .arg(format!("-M{module}"))
            .args(["-e", "1"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        Need::Program(name) => Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        Need::Root => Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0"),
        Need::Path(path) => Path::new(path).exists(),
        Need::Suites => suites().join("mail").is_dir(),
        Need::Wan => std::env::var_os("POSTRIDER_WAN")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools/wan.py"), PathBuf::from)
            .is_file(),
    }
}

fn suites() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/suites");
    std::env::var_os("POSTRIDER_SUITES").map_or_else(beside, PathBuf::from)
}
