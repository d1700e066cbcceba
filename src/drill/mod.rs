//! `postrider drill`: breaks something of a running cluster on purpose, under load, heals it, and says which promises were kept.
//!
//! Invariant: what is broken is in the journal before it is broken, and is healed however the drill ends: by its end, a promise at
//! risk, Ctrl-C, a failure of its own; and by `postrider drill heal` after `kill -9`.
//!
//! The order of a drill: the cluster is whole, or nothing is begun; accounts of its own; a load that remembers what was acknowledged; calm, the
//! break, its end, until the cluster is whole again; everything is read back; replicas look at themselves and at each other.

mod books;
#[cfg(test)]
mod books_tests;
mod chaos;
mod check;
mod cut;
mod disk;
mod fault;
mod hands;
mod installation;
mod journal;
mod kind;
mod load;
mod page;
mod report;
mod rest;
mod scene;
mod steer;
mod timeline;
mod verdict;
mod watch;

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use postrider_api::address::Address;
use postrider_api::env::{SystemEntropy, random};

use self::fault::Ways;
use self::hands::{Hands, Hooks};
use self::installation::{Installation, Region};
use self::journal::Journal;
use self::kind::{Aim, Kind, Wish};
use self::load::{Load, Plan};
use self::rest::{Mailbox, Rest};
use self::scene::Scene;
use self::steer::Ctl;
use self::timeline::Timeline;
use self::verdict::{Measured, Summary, Verdict};
use self::watch::Watch;
use crate::ctl::session::{DEADLINE, Session};
use crate::files::{self, Access};
use crate::signal::Stop;

/// In the demo's directory: journal and lock.
const DRILL_DIR: &str = "drill";
/// In the demo's directory: the operator's certificate.
const CTL_DIR: &str = "ctl";
/// Most mailboxes under load: each is signed up, at the cost of a password hash.
const MAILBOXES_MAX: u32 = 1_000;
/// Most messages a second.
const RATE_MAX: u32 = 10_000;
/// The longest that anything stays broken, or that chaos lasts, seconds.
const LONG_MAX_S: u64 = 24 * 3_600;
/// How long a load may take to have its first message from every mailbox acknowledged.
const FIRST_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// How long a mailbox may take to be written to once the cluster is whole.
const WRITTEN_MAX: Duration = Duration::from_secs(90);
/// The load goes on for so long after the cluster is whole again.
const CALM_AFTER: Duration = Duration::from_secs(2);

/// Options of `postrider drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArguments {
    /// What to drill.
    name: Kind,
    /// The directory of a running demo, whose processes are broken directly.
    #[arg(long, value_name = "DIR", conflicts_with = "installation", required_unless_present = "installation")]
    demo: Option<PathBuf>,
    /// Another installation: a JSON file with its regions and nodes (docs/operating/drills.md). Hooks break and heal it.
    #[arg(long, value_name = "FILE", requires_all = ["identity", "hook_break", "hook_heal", "state_dir"])]
    installation: Option<PathBuf>,
    /// Directory with ca.pem, cert.pem and key.pem of an operator [default: the demo's].
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Command that breaks what POSTRIDER_FAULT, POSTRIDER_ROLE, POSTRIDER_NODE and POSTRIDER_REGION say.
    #[arg(long, value_name = "COMMAND", conflicts_with = "demo")]
    hook_break: Option<String>,
    /// Command that puts it right again, whatever its state is.
    #[arg(long, value_name = "COMMAND", conflicts_with = "demo")]
    hook_heal: Option<String>,
    /// Where the journal is kept [default: DIR/drill of a demo].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The region that is broken [default: that of the node that leads the most mailboxes].
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// The storage node that is broken [default: the one that leads the most mailboxes].
    #[arg(long, value_name = "N")]
    node: Option<u64>,
    /// Of `cut-region`: which way nothing gets through.
    #[arg(long, value_enum, default_value_t = Ways::Both)]
    ways: Ways,
    /// Of `roll`: the binary that the processes are started from, where they stay.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How long it stays broken, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=LONG_MAX_S))]
    hold: u64,
    /// How long the load runs before anything is broken, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=LONG_MAX_S))]
    calm: u64,
    /// Of `chaos`: how long, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONG_MAX_S))]
    seconds: u64,
    /// Of `chaos`: what comes up in which order [default: another one each time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Mailboxes under load.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAILBOXES_MAX)))]
    mailboxes: u32,
    /// Messages a second.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: u32,
    /// The longest pause of a mailbox at which P-7 or P-8 count as kept, milliseconds [default: as promised, 3000 or 500].
    #[arg(long, value_name = "MS")]
    pause_max: Option<u64>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// For programs: one object on standard output.
    #[arg(long)]
    json: bool,
    /// Write a page with a timeline.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Drills, prints, and tells by the exit code: 0, every promise was kept; 1, one was not, or it could not be found out.
pub(crate) async fn run(arguments: DrillArguments) -> anyhow::Result<ExitCode> {
    ensure!(
        arguments.binary.is_none() || arguments.name == Kind::Roll,
        "--binary is for `postrider drill roll`: nothing else starts every process anew"
    );
    let mut stop = Stop::listen()?;
    let mut scene = open(&arguments).await?;
    if arguments.name == Kind::Heal {
        return heal(&mut scene).await;
    }
    ensure!(
        scene.journal.broken().is_empty(),
        "the drill {} was interrupted and has left something broken: `postrider drill heal` with the same options first",
        scene.journal.drill()
    );
    if let Some(lacks) = scene.lacks().await {
        bail!("the cluster is not whole, and nothing is broken on top of that: {lacks}");
    }
    let (domain, regions) = under_load(&scene, &arguments)?;
    let names: Vec<String> = regions.iter().map(|region| region.name.clone()).collect();
    let wish = Wish {
        kind: arguments.name,
        region: arguments.region.clone(),
        node: arguments.node,
        ways: arguments.ways,
        hold: Duration::from_secs(arguments.hold),
        chaos: Duration::from_secs(arguments.seconds),
        seed: arguments.seed.unwrap_or_else(|| u64::from_ne_bytes(random::<8>(&SystemEntropy))),
    };
    let aim = Aim::decide(&scene, &wish, &names).await?;
    let what = aim.say(&scene);
    eprintln!(
        "{}: {what}.\n{} mailboxes get {} messages a second meanwhile, in {}.",
        arguments.name.name(),
        arguments.mailboxes,
        arguments.rate,
        names.join(", ")
    );
    if !arguments.yes && !agreed()? {
        bail!("nothing was done");
    }
    let held = tokio::select! {
        held = hold(&mut scene, &arguments, &aim, &domain, regions) => held,
        reason = stop.wait() => Err(anyhow::anyhow!("interrupted: {reason}")),
    };
    // However it ended: what is broken is healed before anything is said.
    let left = scene.heal_all().await;
    let (measured, mailboxes) = match (held, left) {
        (Ok(done), Ok(_)) => done,
        (Ok(_), Err(left)) => return Err(left),
        (Err(error), Ok(healed)) if healed > 0 => {
            return Err(error.context("the drill was ended early; everything is healed"));
        }
        (Err(error), Ok(_)) => return Err(error),
        (Err(error), Err(left)) => return Err(error.context(format!("{left:#}"))),
    };
    let summary = Summary::new(&arguments.name.name(), &measured, arguments.name.bound(arguments.pause_max));
    let events = scene.timeline.events();
    if let Some(path) = &arguments.report {
        let page = page::html(&summary, &events, &what, &mailboxes);
        files::write_atomically(path, page.as_bytes(), Access::Public)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
        // Why, for who looks at the log of what ran it.
        eprint!("{}", report::text(&summary, &events));
    } else {
        print!("{}", report::text(&summary, &events));
    }
    Ok(match summary.verdict {
        Verdict::Kept => ExitCode::SUCCESS,
        Verdict::Broken => ExitCode::FAILURE,
    })
}

/// Everything that a drill needs and that is there before it.
async fn open(arguments: &DrillArguments) -> anyhow::Result<Scene> {
    let name = arguments.name.name();
    let (installation, hands, identity, state_dir) = match (&arguments.demo, &arguments.installation) {
        (Some(demo), _) => {
            let root = demo.canonicalize().with_context(|| format!("find {}", demo.display()))?;
            let installation = Installation::of_demo(&root)?;
            let hands = Hands::of_demo(&root, installation.clone());
            let identity = arguments.identity.clone().unwrap_or_else(|| root.join(CTL_DIR));
            (installation, hands, identity, arguments.state_dir.clone().unwrap_or_else(|| root.join(DRILL_DIR)))
        }
        (None, Some(file)) => {
            let given =
                |option: &Option<String>| option.clone().context("--hook-break and --hook-heal are both needed");
            let hooks = Hooks {
                break_command: given(&arguments.hook_break)?,
                heal_command: given(&arguments.hook_heal)?,
                drill: name.clone(),
            };
            let identity = arguments.identity.clone().context("--identity is needed")?;
            let state_dir = arguments.state_dir.clone().context("--state-dir is needed")?;
            (Installation::read(file)?, Hands::Hooks(hooks), identity, state_dir)
        }
        (None, None) => bail!("--demo DIR or --installation FILE: which cluster?"),
    };
    let binary = arguments
        .binary
        .as_ref()
        .map(|path| path.canonicalize().with_context(|| format!("find {}", path.display())))
        .transpose()?;
    let journal = Journal::open(&state_dir, &name)?;
    let addresses = installation.addresses();
    let session = Session::open(addresses.clone(), Some(identity.clone()), false).await?;
    Ok(Scene {
        hands,
        journal,
        installation,
        ctl: Ctl { addresses, identity },
        session: Arc::new(session),
        timeline: Timeline::new(),
        watch: None,
        binary,
    })
}

/// `drill heal`.
async fn heal(scene: &mut Scene) -> anyhow::Result<ExitCode> {
    let drill = scene.journal.drill().to_owned();
    match scene.heal_all().await? {
        0 => println!("Nothing is broken by a drill."),
        healed => {
            scene.until_whole().await?;
            println!("{healed} things that {drill} had broken are healed; the cluster is whole.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The domain of the drill's accounts, and the regions that serve them: those of one residency zone.
fn under_load(scene: &Scene, arguments: &DrillArguments) -> anyhow::Result<(String, Vec<Region>)> {
    let map = scene.session.map();
    let region = match (&arguments.region, arguments.node) {
        (Some(region), _) => scene.installation.region(region)?,
        (None, Some(node)) => scene.installation.region_of(node)?,
        (None, None) => scene.installation.regions.first().context("the installation has no region")?,
    };
    let zone_of = |name: &str| map.regions.iter().find(|known| known.name == name).map(|known| known.zone.clone());
    let zone =
        zone_of(&region.name).with_context(|| format!("the cluster does not know the region {}", region.name))?;
    let domain = match &scene.installation.domain {
        Some(domain) if map.domains.iter().any(|known| known.name == *domain && known.zone == zone) => domain.clone(),
        _ => {
            let domain = map.domains.iter().find(|domain| domain.zone == zone);
            domain.with_context(|| format!("the zone {zone} has no domain to make accounts in"))?.name.clone()
        }
    };
    let in_zone = |region: &&Region| zone_of(&region.name).as_ref() == Some(&zone);
    Ok((domain, scene.installation.regions.iter().filter(in_zone).cloned().collect()))
}

/// Asks on the terminal.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("--yes is needed where nobody can be asked");
    }
    eprint!("Go on? Type yes: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the answer")?;
    Ok(line.trim() == "yes")
}

/// The drill itself; what it measured, and the addresses of the mailboxes.
async fn hold(
    scene: &mut Scene,
    arguments: &DrillArguments,
    aim: &Aim,
    domain: &str,
    regions: Vec<Region>,
) -> anyhow::Result<(Measured, Vec<String>)> {
    let rest = Rest::new(scene.installation.admin_token.clone())?;
    // Several drills of one cluster meet different accounts and messages.
    let run = format!("drill-{}", hex::encode(random::<5>(&SystemEntropy)));
    scene.timeline.phase("signing up", false);
    let mailboxes = sign_up(scene, &rest, arguments.mailboxes, &run, domain, &regions).await?;
    let addresses: Vec<String> = mailboxes.iter().map(|mailbox| mailbox.address.clone()).collect();
    let shards: Vec<u32> = mailboxes.iter().map(|mailbox| mailbox.shard).collect::<BTreeSet<_>>().into_iter().collect();
    scene.watch = Some(Watch::start(Arc::clone(&scene.session), scene.timeline.clone()));
    scene.timeline.phase("calm", false);
    let load = Load::start(Plan { regions, mailboxes, rate: arguments.rate, run }, &rest, &scene.timeline);
    until_begun(&load, addresses.len()).await?;
    tokio::time::sleep(Duration::from_secs(arguments.calm)).await;
    perform(scene, aim, &shards).await?;
    scene.timeline.phase("until the cluster is whole", true);
    // Not whole in time is a finding, and no reason not to look at the rest.
    let recovered = async {
        scene.until_whole().await?;
        until_all_written(&scene.timeline, addresses.len()).await
    };
    if let Err(error) = recovered.await {
        scene.timeline.note(format!("{error:#}"));
        scene.timeline.with(|events| events.whole_ms = None);
    }
    scene.timeline.phase("calm", false);
    tokio::time::sleep(CALM_AFTER).await;
    let (plan, notes) = load.finish().await?;
    scene.watch = None;
    scene.timeline.phase("reading everything back", false);
    let balance = check::read_back(&plan, &notes, &rest, &scene.timeline).await?;
    scene.timeline.phase("replicas look at themselves", false);
    let (verified, equal) = check::look_within(&scene.session, &scene.ctl, &scene.timeline).await;
    scene.timeline.end();
    let events = scene.timeline.events();
    let measured = Measured {
        balance,
        last_refused_s: events.last_refused_s(),
        recovered_s: events.recovered_s(),
        longest_pause_ms: events.longest_pause_ms(),
        verified,
        equal,
    };
    Ok((measured, addresses))
}

/// Breaks and heals, unless something goes wrong that the drill did not break: then it is over at once.
async fn perform(scene: &mut Scene, aim: &Aim, shards: &[u32]) -> anyhow::Result<()> {
    let Some(alarm) = scene.watch.as_ref().map(Watch::alarm) else { return aim.perform(scene, shards).await };
    tokio::select! {
        performed = aim.perform(scene, shards) => performed,
        why = watch::raised(alarm) => bail!("a promise is at risk beyond the drill: {why}"),
    }
}

async fn until_begun(load: &Load, mailboxes: usize) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + FIRST_MAX;
    while usize::try_from(load.acknowledged()).unwrap_or(usize::MAX) < mailboxes {
        ensure!(
            tokio::time::Instant::now() < until,
            "{} messages were acknowledged in {} s: there is no load to drill under",
            load.acknowledged(),
            FIRST_MAX.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The cluster has recovered when every mailbox has taken a message since it was whole: routes and connections recover, too.
async fn until_all_written(timeline: &Timeline, mailboxes: usize) -> anyhow::Result<()> {
    let begin = timeline.now_ms();
    let until = tokio::time::Instant::now() + WRITTEN_MAX;
    loop {
        let written: BTreeSet<usize> = timeline.with(|events| {
            let since = events.pauses.iter().rev().filter(|pause| pause.from_ms >= begin);
            since.map(|pause| pause.mailbox).collect()
        });
        if written.len() == mailboxes {
            let now = timeline.now_ms();
            timeline.with(|events| events.whole_ms = Some(now));
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < until,
            "the cluster is whole, and {} of {mailboxes} mailboxes took nothing for {} s",
            mailboxes - written.len(),
            WRITTEN_MAX.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Accounts of this drill, going round the regions, and the shard of each.
async fn sign_up(
    scene: &Scene,
    rest: &Rest,
    count: u32,
    run: &str,
    domain: &str,
    regions: &[Region],
) -> anyhow::Result<Vec<Mailbox>> {
    let mut mailboxes = Vec::new();
    for (number, region) in (0..count).zip(regions.iter().cycle()) {
        let address = format!("{run}-{number}@{domain}");
        let password = hex::encode(random::<16>(&SystemEntropy));
        let mailbox = rest.sign_up(&region.rest, &address, &password).await;
        let mailbox = mailbox.with_context(|| format!("make the account {address} at {}", region.name))?;
        let parsed = Address::parse(&address).with_context(|| format!("{address} is no address"))?;
        let record = scene.session.router.look_up(&parsed, DEADLINE).await.context("ask the directory")?;
        let record = record.with_context(|| format!("nobody has the address {address}"))?;
        mailboxes.push(Mailbox { shard: record.shard, ..mailbox });
    }
    Ok(mailboxes)
}
