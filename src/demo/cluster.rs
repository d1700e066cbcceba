//! The demo's cluster as it runs: its processes, and the order in which they come up.

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::env::{Clock, Entropy};
use postrider_api::identity::Role;
use postrider_api::pb;
use postrider_api::tls::TlsIdentity;
use postrider_router::{AdminClient, BootstrapPlan, RouterOptions, bootstrap};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config;
use super::layout::{self, Layout};
use super::process::{self, Death, Processes};
use super::secrets::Secrets;
use crate::authority::{Authority, CertificateFiles, Subject};
use crate::ctl::session::Session;
use crate::ctl::whole;
use crate::files::{self, Access};
use crate::local::{self, Job};

/// How long a process may take until it answers: a machine with two cores may be busy with something else.
const UP_DEADLINE: Duration = Duration::from_secs(120);
/// How long a frontend may take to say whether it is ready, each time it is asked.
const READY_ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long all shards may take to have their primaries and all their replicas, caught up.
const WHOLE_DEADLINE: Duration = Duration::from_secs(120);
/// How long the processes of a demo that was killed may take to end: as long as they take when a demo stops them.
const REMAINS_DEADLINE: Duration = process::STOP_DEADLINE.saturating_add(Duration::from_secs(10));
/// How long ports may still be held by processes that no record tells of: somebody started them from their command lines.
const PORTS_DEADLINE: Duration = Duration::from_secs(12);
/// Pause between two looks at something that is not there yet.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a process that was killed may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(5);

/// Processes, certificates and secrets of one demo.
pub(crate) struct Cluster {
    layout: Layout,
    processes: Processes,
    deaths: mpsc::Receiver<Death>,
    secrets: Secrets,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Cluster {
    /// Makes certificates, secrets and configurations; starts nothing.
    pub(crate) fn prepare(layout: Layout, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> anyhow::Result<Self> {
        let authority = Authority::open_or_make(&layout.tls_dir(), "Postrider demo authority")?;
        files::make_directory(&layout.ctl_dir())?;
        let operator = Subject::of_role("operator", Role::Ctl, Vec::new());
        authority.issue(CertificateFiles::of_operator(&layout.ctl_dir()), &operator)?;
        let secrets = Secrets::open(&layout.secrets_dir(), &*entropy)?;
        config::write_all(&layout, &authority, &secrets)?;
        let (processes, deaths) = Processes::new(&layout.root)?;
        Ok(Self { layout, processes, deaths, secrets, clock, entropy })
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    pub(crate) fn admin_token(&self) -> &str {
        &self.secrets.admin_token
    }

    /// The next process that ends although nobody stopped it.
    pub(crate) async fn next_death(&mut self) -> Death {
        match self.deaths.recv().await {
            Some(death) => death,
            // `processes` holds a sender as long as this lives.
            None => std::future::pending().await,
        }
    }

    /// Waits for the processes of a demo that was killed: each notices by itself, finishes what was accepted, and has its
    /// databases open until the end, whereas its port is free before that.
    pub(crate) async fn until_remains_are_gone(&self) -> anyhow::Result<()> {
        let until = Instant::now() + REMAINS_DEADLINE;
        loop {
            let remains = process::remains(&self.layout.root)?;
            if remains.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "of the demo before this one there still run, after {} s: {}. End them with kill -9: that loses nothing",
                    REMAINS_DEADLINE.as_secs(),
                    remains.join(", ")
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Refuses to start beside somebody who has the ports.
    pub(crate) async fn check_ports(&self) -> anyhow::Result<()> {
        if self.layout.namespaces {
            // They are not this namespace's ports; a process that cannot listen says so itself.
            return Ok(());
        }
        let wanted = self.layout.regions.iter().flat_map(|region| {
            let nodes = region.nodes.iter().flat_map(|node| {
                [(node.grpc.clone(), "a storage node"), (node.metrics.clone(), "a storage node's counters")]
            });
            let others = [
                (region.rest(), "REST"),
                (region.smtp(), "SMTP"),
                (region.submission(), "submission"),
                (region.submissions(), "submission"),
                (region.store(), "an object store"),
                (region.dns(), "DNS"),
                (region.frontend_metrics().to_string(), "a frontend's counters"),
                (region.dns_metrics().to_string(), "a name server's counters"),
                (region.store_metrics().to_string(), "an object store's counters"),
                (region.round_trips(), "a name server"),
            ];
            nodes.chain(others).collect::<Vec<_>>()
        });
        let until = Instant::now() + PORTS_DEADLINE;
        for (address, what) in wanted {
            // std sets SO_REUSEADDR: connections that linger do not count, a listener does.
            while let Err(error) = TcpListener::bind(&address) {
                if error.kind() != std::io::ErrorKind::AddrInUse || Instant::now() > until {
                    bail!(
                        "{address} ({what}) cannot be used: {error}. See who has it with `ss -ltnp`; another demo stops with \
                         Ctrl-C"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Object stores and storage nodes, until all of them answer.
    pub(crate) async fn start_storage(&mut self) -> anyhow::Result<()> {
        let stores = self.layout.regions.iter().map(|region| Job::Store { region: region.name.into() });
        let nodes = self.layout.nodes().map(|(_, node)| Job::Node { id: node.id });
        for job in stores.chain(nodes).collect::<Vec<_>>() {
            self.start(&job)?;
        }
        let stores: Vec<String> = self.layout.regions.iter().map(super::layout::Region::store).collect();
        let identity = self.operator()?;
        let nodes: Vec<String> = self.layout.nodes().map(|(_, node)| node.grpc.clone()).collect();
        let up = async {
            for store in stores {
                until_up(&store, || tokio::net::TcpStream::connect(store.clone())).await?;
            }
            for node in nodes {
                let client = AdminClient::connect(&node, &identity)?;
                until_up(&node, || client.status()).await?;
            }
            Ok(())
        };
        Self::unless_death(&self.processes, &mut self.deaths, up).await
    }

    /// Makes placement, directory and mailbox shards, once in a directory; a bootstrap that was interrupted is done again.
    pub(crate) async fn bootstrap(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.tell_ctl() {
            // A home directory that cannot be written to costs a convenience, not the cluster.
            eprintln!(
                "postrider: `postrider ctl` will need --identity {}, for its default cannot be kept: {error:#}",
                self.layout.ctl_dir().display()
            );
        }
        let marker = self.layout.root.join("bootstrapped");
        if marker.exists() {
            return Ok(());
        }
        let nodes = self.layout.nodes().map(|(_, node)| node.grpc.clone()).collect();
        let region = self.layout.regions[0].name.to_owned();
        let options =
            RouterOptions::new(nodes, region, self.operator()?, Arc::clone(&self.clock), Arc::clone(&self.entropy));
        let plan = self.plan()?;
        let made = async {
            bootstrap(options, &plan, UP_DEADLINE, |_| ()).await.context("make the cluster")?;
            Ok(())
        };
        Self::unless_death(&self.processes, &mut self.deaths, made).await?;
        files::write_atomically(&marker, b"", Access::Public)
    }

    /// Frontends, until all of them say that they can serve.
    pub(crate) async fn start_frontends(&mut self) -> anyhow::Result<()> {
        for region in self.layout.regions.iter().map(|region| region.name.to_owned()).collect::<Vec<_>>() {
            self.start(&Job::Frontend { region })?;
        }
        let addresses: Vec<String> = self.layout.regions.iter().map(super::layout::Region::rest).collect();
        let up = async {
            let http = reqwest::Client::builder().timeout(READY_ANSWER_MAX).build().context("make an HTTP client")?;
            for address in addresses {
                let url = format!("http://{address}/readyz");
                until_up(&url, || async { http.get(&url).send().await?.error_for_status() }).await?;
            }
            Ok(())
        };
        Self::unless_death(&self.processes, &mut self.deaths, up).await
    }

    /// Name servers, until all of them take connections.
    pub(crate) async fn start_name_servers(&mut self) -> anyhow::Result<()> {
        for region in self.layout.regions.iter().map(|region| region.name.to_owned()).collect::<Vec<_>>() {
            self.start(&Job::Dns { region })?;
        }
        let addresses: Vec<String> = self.layout.regions.iter().map(super::layout::Region::dns).collect();
        let up = async {
            for address in addresses {
                until_up(&address, || tokio::net::TcpStream::connect(address.clone())).await?;
            }
            Ok(())
        };
        Self::unless_death(&self.processes, &mut self.deaths, up).await
    }

    /// Waits until every shard that was made is whole, by the test of `ctl status`.
    pub(crate) async fn until_whole(&mut self) -> anyhow::Result<()> {
        let nodes = self.layout.nodes().map(|(_, node)| node.grpc.clone()).collect();
        let (identity, root) = (self.layout.ctl_dir(), self.layout.root.clone());
        let shards = self.layout.shard_places()?.len();
        let whole = async {
            let session = Session::open(nodes, Some(identity), false).await?;
            let until = Instant::now() + WHOLE_DEADLINE;
            loop {
                let look = whole::look(&session).await;
                let known = session.map().shards.len();
                if known >= shards && look.lacks.nothing() {
                    return Ok(());
                }
                if Instant::now() > until {
                    bail!(
                        "not every shard is whole after {} s: {known} of {shards} are in the shard map; {}. What the nodes \
                         say is in their logs under {}",
                        WHOLE_DEADLINE.as_secs(),
                        look.lacks,
                        root.display()
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        Self::unless_death(&self.processes, &mut self.deaths, whole).await
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts one storage node more in a region, and waits until it answers: it joins the cluster by itself. Answers its number and its
    /// process id.
    pub(crate) async fn add_node(&mut self, region: &str) -> anyhow::Result<(u64, u32)> {
        let id = self.layout.add_node(region)?;
        let authority = Authority::open(&self.layout.tls_dir())?;
        let (place, node) =
            self.layout.nodes().find(|(_, node)| node.id == id).context("the layout has the node that was added")?;
        let address = node.grpc.clone();
        config::write_nodes(&self.layout, &authority, place, &self.secrets)?;
        let pid = self.start(&Job::Node { id })?;
        let client = AdminClient::connect(&address, &self.operator()?)?;
        until_up(&address, || client.status()).await?;
        if let Err(error) = self.tell_ctl() {
            eprintln!("postrider: `postrider ctl` does not know node {id} by its address: {error:#}");
        }
        Ok((id, pid))
    }

    /// Starts a process again that has ended, from another binary if one is given; answers its process id.
    pub(crate) async fn restart(&mut self, job: &Job, program: Option<&Path>) -> anyhow::Result<u32> {
        let known = match job {
            Job::Node { id } => self.layout.nodes().any(|(_, node)| node.id == *id),
            Job::Frontend { region } | Job::Store { region } | Job::Dns { region } => {
                self.layout.regions.iter().any(|r| r.name == region)
            }
        };
        if !known {
            bail!("there is no {}", job.name());
        }
        let until = Instant::now() + GONE_DEADLINE;
        while self.processes.is_running(job) {
            if Instant::now() > until {
                bail!("{} is running", job.name());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.start_from(job, program)
    }

    /// Stops what clients see first, so that nothing that was accepted is refused by what stands behind.
    pub(crate) async fn stop(&mut self) {
        self.processes.stop(|job| matches!(job, Job::Frontend { .. })).await;
        self.processes.stop(|_| true).await;
    }

    fn start(&mut self, job: &Job) -> anyhow::Result<u32> {
        self.start_from(job, None)
    }

    fn start_from(&mut self, job: &Job, program: Option<&Path>) -> anyhow::Result<u32> {
        let config = config::path(&self.layout, job);
        let namespace = match job {
            _ if !self.layout.namespaces => None,
            Job::Node { id } => {
                self.layout.nodes().find(|(_, node)| node.id == *id).map(|(region, _)| region.name.to_owned())
            }
            Job::Frontend { region } | Job::Store { region } | Job::Dns { region } => Some(region.clone()),
        };
        self.processes.start(job.clone(), &config, namespace.as_deref(), program)
    }

    fn operator(&self) -> anyhow::Result<TlsIdentity> {
        let dir = self.layout.ctl_dir();
        Ok(TlsIdentity::load(&dir.join("ca.pem"), &dir.join("cert.pem"), &dir.join("key.pem"))?)
    }

    fn plan(&self) -> anyhow::Result<BootstrapPlan> {
        let regions = self.layout.regions.iter().map(|region| pb::Region {
            name: region.name.into(),
            zone: region.zone.name.into(),
            store_address: region.store(),
            api_url: format!("http://{}", region.rest()),
            ..pb::Region::default()
        });
        let nodes = self.layout.nodes().map(|(region, node)| pb::Node {
            id: node.id,
            region: region.name.into(),
            address: node.grpc.clone(),
            ..pb::Node::default()
        });
        let places = self.layout.shard_places()?;
        let shards = places.iter().map(|place| place.shard(self.layout.zones[place.zone].name));
        let domain =
            |zone: &layout::Zone| pb::Domain { name: zone.domain.into(), zone: zone.name.into(), ..Default::default() };
        let domains = self.layout.zones.iter().map(domain);
        Ok(BootstrapPlan {
            regions: regions.collect(),
            nodes: nodes.collect(),
            shards: shards.collect(),
            domains: domains.collect(),
        })
    }

    /// Leaves word for `postrider ctl --cluster ADDRESS` of where the certificate for these addresses is.
    fn tell_ctl(&self) -> anyhow::Result<()> {
        let state = local::state_dir().context("neither XDG_STATE_HOME nor HOME is set")?;
        let dir = state.join("clusters");
        files::make_directory(&dir)?;
        let identity: PathBuf = self.layout.ctl_dir();
        for (_, node) in self.layout.nodes() {
            let text = format!("{}\n", identity.display());
            files::write_atomically(&dir.join(&node.grpc), text.as_bytes(), Access::Public)?;
        }
        Ok(())
    }

    /// Waits for `work`, and gives up at once when a process dies meanwhile.
    async fn unless_death<T>(
        processes: &Processes,
        deaths: &mut mpsc::Receiver<Death>,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            done = work => done,
            Some(death) = deaths.recv() => {
                bail!("{} {}. The end of its log, {}", death.job.name(), death.how, processes.log_tail(&death.job))
            }
        }
    }
}

/// Tries until it works.
async fn until_up<T, E, F, Fut>(what: &str, attempt: F) -> anyhow::Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Into<anyhow::Error>,
{
    let until = Instant::now() + UP_DEADLINE;
    loop {
        match attempt().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error.into().context(format!("{what} does not answer")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
