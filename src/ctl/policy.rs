//! `ctl policy`: what shards, and the new accounts of domains, are held to.

use clap::{Args, Subcommand, ValueEnum};
use postrider_api::audit;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, command::Op};
use serde::Serialize;

use super::Verdict;
use super::cluster::say;
use super::session::Session;
use super::table::{Align, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// All policies, and how many shards and domains are held to each.
    List,
    /// A new policy, or another form of one that is there. The balancer puts right what its shards lack then.
    Set(PolicyArguments),
    /// Remove one that no shard and no domain is held to.
    Remove {
        /// Its name.
        name: String,
    },
    /// Hold a shard to a policy of its zone.
    Shard {
        /// The shard.
        shard: u32,
        /// The policy; without it, none.
        policy: Option<String>,
    },
    /// Hold the new accounts of a domain to a policy of its zone: they get shards of that policy alone.
    Domain {
        /// The domain.
        domain: String,
        /// The policy; without it, none.
        policy: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// Its name.
    name: String,
    /// The residency zone, for ever.
    #[arg(long, value_name = "ZONE")]
    zone: String,
    /// Replicas of each shard: 1, 3, 5 or 7.
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u32,
    /// The regions that may hold one [default: every region of the zone].
    #[arg(long, value_name = "REGION[,REGION…]", value_delimiter = ',')]
    regions: Vec<String>,
    /// What has at most one replica.
    #[arg(long, value_enum, default_value_t = Spread::Regions)]
    spread: Spread,
    /// Where primaries should be [default: where each is at home, and evenly].
    #[arg(long, value_name = "REGION")]
    home: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spread {
    /// A region, and a failure domain that several regions share.
    Regions,
    /// A failure domain: a region may have several.
    Domains,
}

#[derive(Serialize)]
struct Line {
    name: String,
    zone: String,
    replicas: u32,
    /// Empty: every region of the zone.
    regions: Vec<String>,
    /// `regions` or `domains`.
    spread: &'static str,
    home: Option<String>,
    shards: usize,
    domains: usize,
}

pub(super) async fn run(session: &Session, command: PolicyCommand) -> anyhow::Result<Verdict> {
    match command {
        PolicyCommand::List => list(session),
        PolicyCommand::Set(PolicyArguments { name, zone, replicas, regions, spread, home }) => {
            let spread = match spread {
                Spread::Regions => pb::Spread::Regions,
                Spread::Domains => pb::Spread::Domains,
            };
            let (home, spread) = (home.unwrap_or_default(), spread.into());
            let policy = pb::Policy { name: name.clone(), zone, replicas, regions, spread, home };
            let set = Op::SetPolicy(pb::SetPolicy { policy: Some(policy) });
            session.place("policy.set", target(&name), set).await?;
            say(session, &format!("Policy {name} is set."))?;
            Ok(Verdict::Good)
        }
        PolicyCommand::Remove { name } => {
            let remove = Op::RemovePolicy(pb::RemovePolicy { name: name.clone() });
            session.place("policy.remove", target(&name), remove).await?;
            say(session, &format!("Policy {name} is removed."))?;
            Ok(Verdict::Good)
        }
        PolicyCommand::Shard { shard, policy } => {
            let name = policy.unwrap_or_default();
            let targets = [audit::shard(ShardId(shard))].into_iter().chain(target(&name));
            let set = Op::SetShardPolicy(pb::SetShardPolicy { shard, policy: name.clone() });
            session.place("policy.shard", targets, set).await?;
            say(session, &format!("Shard {shard} is held to {}.", named(&name)))?;
            Ok(Verdict::Good)
        }
        PolicyCommand::Domain { domain, policy } => {
            let name = policy.unwrap_or_default();
            let targets = [format!("domain {domain}")].into_iter().chain(target(&name));
            let set = Op::SetDomainPolicy(pb::SetDomainPolicy { domain: domain.clone(), policy: name.clone() });
            session.place("policy.domain", targets, set).await?;
            say(session, &format!("New accounts of {domain} are held to {}.", named(&name)))?;
            Ok(Verdict::Good)
        }
    }
}

fn target(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| format!("policy {name}"))
}

fn named(name: &str) -> String {
    if name.is_empty() { "no policy".to_owned() } else { format!("policy {name}") }
}

fn list(session: &Session) -> anyhow::Result<Verdict> {
    let map = session.map();
    let line = |policy: &pb::Policy| Line {
        name: policy.name.clone(),
        zone: policy.zone.clone(),
        replicas: policy.replicas,
        regions: policy.regions.clone(),
        spread: match policy.spread() {
            pb::Spread::Regions => "regions",
            pb::Spread::Domains => "domains",
        },
        home: (!policy.home.is_empty()).then(|| policy.home.clone()),
        shards: map.shards.iter().filter(|shard| shard.policy == policy.name).count(),
        domains: map.domains.iter().filter(|domain| domain.policy == policy.name).count(),
    };
    let lines: Vec<Line> = map.policies.iter().map(line).collect();
    if session.json {
        session.print_json(&lines)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[
        ("policy", Align::Left),
        ("zone", Align::Left),
        ("replicas", Align::Right),
        ("regions", Align::Left),
        ("one in a", Align::Left),
        ("home", Align::Left),
        ("shards", Align::Right),
        ("domains", Align::Right),
    ]);
    for Line { name, zone, replicas, regions, spread, home, shards, domains } in lines {
        let regions = if regions.is_empty() { "all".to_owned() } else { regions.join(",") };
        let spread = if spread == "regions" { "region" } else { "failure domain" };
        let home = home.unwrap_or_else(|| "-".to_owned());
        let (replicas, shards, domains) = (replicas.to_string(), shards.to_string(), domains.to_string());
        table.row([name, zone, replicas, regions, spread.to_owned(), home, shards, domains]);
    }
    table.print();
    Ok(Verdict::Good)
}
