//! `postrider ctl`: asks and steers a running cluster, with an operator's certificate.
//!
//! Exit codes: 0, everything is as it should be; 1, it is not, or it could not be found out.

mod account;
mod acme;
pub(crate) mod audit;
mod balance;
mod blobs;
mod bootstrap;
mod cert;
mod cluster;
mod digest;
mod dkim;
mod feedback;
mod operations;
pub(crate) mod plan;
mod policy;
pub(crate) mod queue;
pub(crate) mod records;
mod relocate;
mod search;
pub(crate) mod session;
mod shards;
mod status;
mod suppress;
pub(crate) mod table;
mod transfer;
mod upgrade;
mod user;
mod vacuum;
mod verify;
mod whereabouts;
pub(crate) mod whole;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postrider_operator::audit::Operator;

use self::audit::Wanted;
use self::session::Session;

/// Options of `postrider ctl`.
#[derive(Debug, Args)]
pub(crate) struct CtlArguments {
    /// gRPC addresses of one or more storage nodes; one that answers is enough.
    #[arg(long, value_name = "ADDR[,ADDR…]", value_delimiter = ',', global = true)]
    cluster: Vec<String>,
    /// Directory with ca.pem, cert.pem and key.pem of an operator [default: the one that the demo at these addresses made].
    #[arg(long, value_name = "DIR", env = "POSTRIDER_IDENTITY", global = true)]
    identity: Option<PathBuf>,
    /// For programs.
    #[arg(long, global = true)]
    json: bool,
    /// Who asks, for the audit log [default: the user of the operating system].
    #[arg(long = "as", value_name = "NAME", env = "POSTRIDER_OPERATOR", global = true)]
    operator: Option<String>,
    /// Why, for the audit log. Name nobody's address: it is kept for long.
    #[arg(long, value_name = "TEXT", global = true)]
    why: Option<String>,
    #[command(subcommand)]
    request: Request,
}

#[derive(Debug, Subcommand)]
enum Request {
    /// Make the cluster that a file describes, of nodes that run and hold nothing.
    Bootstrap {
        /// TOML file: zones with their domains and shards, regions, nodes.
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
    },
    /// The cluster's own certificate authority, and what it signs. No cluster is asked.
    #[command(subcommand)]
    Cert(cert::CertCommand),
    #[command(flatten)]
    Question(Question),
}

/// What is asked of a cluster that is there.
#[derive(Debug, Subcommand)]
enum Question {
    /// Nodes, and whether each shard has a primary and all its replicas, caught up.
    Status,
    /// All shards: primary, replicas, users, bytes; and more of them.
    Shards {
        #[command(subcommand)]
        command: Option<shards::ShardsCommand>,
    },
    /// Where a user's mailbox is.
    User {
        /// The address.
        address: String,
    },
    /// Where a message is: mailboxes, queues, what it waits for.
    Where {
        /// A Message-ID, with or without angle brackets, or the queue id of an SMTP reply.
        id: String,
    },
    /// Certificates of public authorities, which frontends order by ACME.
    #[command(subcommand)]
    Acme(acme::AcmeCommand),
    /// What waits in the queues and what was given up; try, give up, return or drop it.
    #[command(subcommand)]
    Queue(queue::Request),
    /// Hand a shard's lead to another of its replicas.
    Transfer {
        /// The shard.
        shard: u32,
        /// The node that shall lead.
        node: u64,
    },
    /// Move a replica of a shard from one node to another, and wait until it is done.
    Move {
        /// The shard.
        shard: u32,
        /// The node that has the replica.
        from: u64,
        /// The node that shall have it.
        to: u64,
    },
    /// An account: show, suspend, resume, delete, another password, sessions.
    Account {
        #[command(subcommand)]
        task: account::Task,
    },
    /// What operators and administrators did or looked at, who, when and why.
    Audit {
        /// From a time on (2026-11-30T08:00:00Z), or from so long ago on (30m, 24h, 7d).
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// An address, or a target as the log names it ("shard 1000").
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// The newest so many [default: 1000].
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Rewrite the nodes' files without what was deleted: now, and not within a week.
    Vacuum {
        /// One node alone.
        #[arg(long, value_name = "NODE")]
        node: Option<u64>,
    },
    /// Give a shard its replicas on exactly these nodes (1, 3, 5 or 7), and wait until it is done.
    Replicas {
        /// The shard.
        shard: u32,
        /// The nodes.
        #[arg(value_delimiter = ',', required = true)]
        nodes: Vec<u64>,
    },
    /// Make a region the home of a shard, where its primary is, and wait until it is there.
    Home {
        /// The shard.
        shard: u32,
        /// The region; it has a replica.
        region: String,
    },
    /// The cluster's nodes.
    #[command(subcommand)]
    Node(cluster::NodeCommand),
    /// The cluster's regions.
    #[command(subcommand)]
    Region(cluster::RegionCommand),
    /// The domains that mail is accepted for.
    #[command(subcommand)]
    Domain(cluster::DomainCommand),
    /// What shards, and the new accounts of domains, are held to.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// The keys that a domain's mail is signed with.
    #[command(subcommand)]
    Dkim(dkim::DkimCommand),
    /// What came back of mail that left: bounces and complaints.
    #[command(subcommand)]
    Feedback(feedback::Request),
    /// To whom accounts do not send any more.
    #[command(subcommand)]
    Suppress(suppress::Request),
    /// Changes of shards and nodes that run or have ended, the newest first.
    Operations {
        #[command(subcommand)]
        command: Option<operations::OperationsCommand>,
    },
    /// What should move, and why: lost replicas, nodes that are being emptied, homes, uneven nodes. Nothing is done.
    Plan(plan::PlanArguments),
    /// Do what `plan` shows until nothing is left to do. Interrupted, it goes on.
    Balance,
    /// Recompute all counters, quotas and indexes of every replica and compare.
    Verify,
    /// The search indexes: how they are, building one anew, checking them.
    #[command(subcommand)]
    Search(search::Task),
    /// A roll to a new build: which builds run where, what groups have switched on, and its end.
    #[command(subcommand)]
    Upgrade(upgrade::Task),
    /// The object stores: how their sweeps stand, and sweeps at once.
    Blobs {
        #[command(subcommand)]
        about: blobs::About,
    },
    /// Digests of a shard's replicas at the same index.
    Digest {
        /// The shard.
        shard: u32,
    },
}

/// Whether what was asked about is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

impl Verdict {
    fn exit_code(self) -> ExitCode {
        match self {
            Verdict::Good => ExitCode::SUCCESS,
            Verdict::Bad => ExitCode::FAILURE,
        }
    }
}

/// Asks, prints, and tells by the exit code.
pub(crate) async fn run(arguments: CtlArguments) -> anyhow::Result<ExitCode> {
    let question = match arguments.request {
        Request::Cert(command) => return cert::run(command).map(Verdict::exit_code),
        Request::Bootstrap { plan } => return bootstrap::run(&plan, arguments.identity).await.map(Verdict::exit_code),
        Request::Question(question) => question,
    };
    let session = Session::open(arguments.cluster, arguments.identity, arguments.json).await?;
    let session = session.for_operator(Operator::new(arguments.operator, arguments.why));
    let verdict = match question {
        Question::Status => status::run(&session).await?,
        Question::Shards { command } => shards::run(&session, command).await?,
        Question::User { address } => user::run(&session, &address).await?,
        Question::Where { id } => whereabouts::run(&session, &id).await?,
        Question::Acme(command) => acme::run(&session, command).await?,
        Question::Queue(request) => queue::run(&session, request).await?,
        Question::Transfer { shard, node } => transfer::run(&session, shard, node).await?,
        Question::Account { task } => account::run(&session, task).await?,
        Question::Move { shard, from, to } => relocate::run_move(&session, shard, from, to).await?,
        Question::Replicas { shard, nodes } => relocate::run_replicas(&session, shard, nodes).await?,
        Question::Home { shard, region } => relocate::run_home(&session, shard, region).await?,
        Question::Node(command) => cluster::run_node(&session, command).await?,
        Question::Region(command) => cluster::run_region(&session, command).await?,
        Question::Domain(command) => cluster::run_domain(&session, command).await?,
        Question::Policy(command) => policy::run(&session, command).await?,
        Question::Dkim(command) => dkim::run(&session, command).await?,
        Question::Feedback(request) => feedback::run(&session, request).await?,
        Question::Suppress(request) => suppress::run(&session, request).await?,
        Question::Plan(arguments) => plan::run(&session, &arguments).await?,
        Question::Balance => balance::run(&session).await?,
        Question::Operations { command } => operations::run(&session, command).await?,
        Question::Audit { since, target, limit } => audit::run(&session, Wanted { since, target, limit }).await?,
        Question::Vacuum { node } => vacuum::run(&session, node).await?,
        Question::Verify => verify::run(&session).await?,
        Question::Search(task) => search::run(&session, task).await?,
        Question::Upgrade(task) => upgrade::run(&session, task).await?,
        Question::Blobs { about } => blobs::run(&session, &about).await?,
        Question::Digest { shard } => digest::run(&session, shard).await?,
    };
    Ok(verdict.exit_code())
}
