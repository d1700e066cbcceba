//! The configuration files of the demo's processes, written anew at each start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use postrider_api::identity::Role;
use postrider_frontend::network::Networks;
use postrider_frontend::rest::limit::REQUESTS_PER_ACCOUNT_PER_MINUTE;
use serde::Serialize;

use super::layout::{DOMAIN, Layout, NodePlace, REST_PORT, Region, SUBMISSION_PORT, SUBMISSIONS_PORT};
use super::samples::PEOPLE;
use super::secrets::Secrets;
use crate::authority::{Authority, CertificateFiles, Subject};
use crate::files::{self, Access};
use crate::local::{self, Job};
use crate::role::cache::CacheConfig;
use crate::role::dns::config::{DnsRoleConfig, PolicyConfig, RegionConfig};
use crate::role::frontend::{FrontendRoleConfig, RestConfig, SmtpConfig};
use crate::role::images::ImagesConfig;
use crate::role::node::{BalanceConfig, CapacityConfig, NodeRoleConfig, SearchConfig};
use crate::role::operators::OperatorsConfig;
use crate::role::outgoing::OutgoingConfig;
use crate::role::store::StoreRoleConfig;
use crate::role::{ClusterConfig, StoreConfig, TlsFiles};

/// The bucket for attachments in every region.
const BUCKET: &str = "postrider";

/// Between two sweeps of the object stores, seconds: whoever tries things out sees garbage go.
const SWEEP_EVERY_S: u64 = 60;

/// What each node may take, bytes.
const NODE_BYTES: u64 = 64 << 30;
/// A node that is silent for so long is replaced, seconds: where another one of its region, or of a region more, can take its place.
const DEAD_AFTER_S: u64 = 30;

/// The configuration of one process.
pub(crate) fn path(layout: &Layout, job: &Job) -> PathBuf {
    layout.process_dir(&job.name()).join(local::CONFIG)
}

/// Writes those of a region's nodes, and the certificates that they name.
pub(crate) fn write_nodes(
    layout: &Layout,
    authority: &Authority,
    region: &Region,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    for node in &region.nodes {
        write(layout, &Job::Node { id: node.id }, &self::node(layout, authority, region, node, secrets)?)?;
    }
    Ok(())
}

/// Writes all of them, and the certificates that they name.
pub(crate) fn write_all(layout: &Layout, authority: &Authority, secrets: &Secrets) -> anyhow::Result<()> {
    for region in &layout.regions {
        write(layout, &Job::Store { region: region.name.into() }, &store(layout, region, secrets)?)?;
        write_nodes(layout, authority, region, secrets)?;
        write(layout, &Job::Frontend { region: region.name.into() }, &frontend(layout, authority, region, secrets)?)?;
    }
    // Behind the frontends, whose certificates they name.
    for region in &layout.regions {
        write(layout, &Job::Dns { region: region.name.into() }, &dns(layout, authority, region, secrets)?)?;
    }
    Ok(())
}

fn write(layout: &Layout, job: &Job, config: &impl Serialize) -> anyhow::Result<()> {
    files::make_directory(&layout.process_dir(&job.name()))?;
    let text = toml::to_string(config).with_context(|| format!("configuration of {}", job.name()))?;
    files::write_atomically(&path(layout, job), text.as_bytes(), Access::Public)
}

fn store(layout: &Layout, region: &Region, secrets: &Secrets) -> anyhow::Result<StoreRoleConfig> {
    let job = Job::Store { region: region.name.into() };
    Ok(StoreRoleConfig {
        listen: region.store().parse().context("the store's address")?,
        data_dir: layout.process_dir(&job.name()).join("objects"),
        access_key: secrets.store_access_key.clone(),
        secret_key_file: secrets.store_secret_key_file.clone(),
        metrics_listen: Some(region.store_metrics()),
        traces: layout.traces.clone(),
    })
}

fn node(
    layout: &Layout,
    authority: &Authority,
    region: &Region,
    node: &NodePlace,
    secrets: &Secrets,
) -> anyhow::Result<NodeRoleConfig> {
    let name = Job::Node { id: node.id }.name();
    let files =
        authority.issue(files_of(layout, &name), &Subject::of_role(&name, Role::Node, vec![region.address.into()]))?;
    Ok(NodeRoleConfig {
        node: node.id,
        region: region.name.into(),
        failure_domain: String::new(),
        listen: node.grpc.parse().context("the node's address")?,
        advertise: node.grpc.clone(),
        data_dir: layout.process_dir(&name).join("data"),
        seeds: layout.nodes().filter(|(_, other)| other.id != node.id).map(|(_, other)| other.grpc.clone()).collect(),
        metrics_listen: Some(node.metrics.parse().context("the node's counters' address")?),
        stores: stores(layout, secrets),
        sweep_every_s: Some(SWEEP_EVERY_S),
        search: SearchConfig { enabled: layout.search },
        balance: balance(layout),
        // All nodes are on one disk, which is nobody's alone.
        capacity: CapacityConfig { bytes: Some(NODE_BYTES), writes_per_s: None },
        traces: layout.traces.clone(),
        tls: tls(files),
    })
}

/// The demo looks after itself, and soon: whoever kills a node waits for what becomes of it.
fn balance(layout: &Layout) -> BalanceConfig {
    match layout.balances {
        true => BalanceConfig { dead_after_s: DEAD_AFTER_S, automatic: true },
        false => BalanceConfig { dead_after_s: 0, automatic: false },
    }
}

/// Clients' settings of every region's store.
fn stores(layout: &Layout, secrets: &Secrets) -> Vec<StoreConfig> {
    let stores = layout.regions.iter().map(|region| StoreConfig {
        region: region.name.into(),
        endpoint: format!("http://{}", region.store()),
        bucket: BUCKET.into(),
        access_key: secrets.store_access_key.clone(),
        secret_key_file: secrets.store_secret_key_file.clone(),
        // The network between namespaces never leaves this machine.
        allow_plain: layout.namespaces,
    });
    stores.collect()
}

/// A demo sends nothing to the world: only where a resolver of its own says what is outside.
fn outgoing(layout: &Layout) -> OutgoingConfig {
    OutgoingConfig {
        enabled: layout.resolver.is_some(),
        resolver: layout.resolver,
        dnssec: false,
        allow_private_destinations: true,
        ..OutgoingConfig::default()
    }
}

fn frontend(
    layout: &Layout,
    authority: &Authority,
    region: &Region,
    secrets: &Secrets,
) -> anyhow::Result<FrontendRoleConfig> {
    let name = Job::Frontend { region: region.name.into() }.name();
    let role = authority
        .issue(files_of(layout, &name), &Subject::of_role(&name, Role::Frontend, vec![region.address.into()]))?;
    let host = region.mail_host();
    let mail = mail_host(layout, authority, region)?;
    Ok(FrontendRoleConfig {
        region: region.name.into(),
        worker: true,
        cursor_secret_file: secrets.cursor_secret_file.clone(),
        admin_token_file: Some(secrets.admin_token_file.clone()),
        metrics_listen: Some(region.frontend_metrics()),
        cluster: cluster(layout, region, role),
        rest: RestConfig {
            listen: region.rest().parse().context("REST's address")?,
            open_sign_up: true,
            requests_per_account_per_minute: REQUESTS_PER_ACCOUNT_PER_MINUTE,
            proxy_protocol_from: Networks::default(),
            tls: None,
            forwarded: None,
        },
        smtp: SmtpConfig {
            listen: region.smtp().parse().context("SMTP's address")?,
            submission_listen: Some(region.submission().parse().context("submission's address")?),
            submissions_listen: Some(region.submissions().parse().context("submission's address within TLS")?),
            host,
            cert: Some(mail.cert),
            key: Some(mail.key),
            proxy_protocol_from: Networks::default(),
            // All of a demo's clients are one network.
            connections_per_network_per_minute: 0,
            messages_per_network_per_minute: 0,
            // Whoever tries a demo out sends as much as it takes.
            messages_per_account_per_hour: 0,
            recipients_per_account_per_hour: 0,
        },
        name_servers: vec![region.round_trips()],
        operators: Some(operators(layout, authority, region)?),
        dns_config: Some(self::path(layout, &Job::Dns { region: region.name.into() })),
        outgoing: outgoing(layout),
        // As of mail: nothing of the world is asked for anything.
        images: ImagesConfig { enabled: layout.resolver.is_some(), ..ImagesConfig::default() },
        cache: CacheConfig::default(),
        traces: layout.traces.clone(),
        acme: None,
        stores: stores(layout, secrets),
    })
}

/// The first of the samples' people operates the demo, at every frontend.
fn operators(layout: &Layout, authority: &Authority, region: &Region) -> anyhow::Result<OperatorsConfig> {
    let name = format!("operators-{}", region.name);
    let files = authority.issue(files_of(layout, &name), &Subject::of_role(&name, Role::Ctl, Vec::new()))?;
    let (first, ..) = PEOPLE.first().context("the samples have people")?;
    Ok(OperatorsConfig {
        accounts: vec![format!("{first}@{DOMAIN}")],
        tls: tls(files),
        resolver: Some(region.dns().parse().context("the name server's address")?),
    })
}

fn dns(layout: &Layout, authority: &Authority, region: &Region, secrets: &Secrets) -> anyhow::Result<DnsRoleConfig> {
    let name = Job::Dns { region: region.name.into() }.name();
    let role =
        authority.issue(files_of(layout, &name), &Subject::of_role(&name, Role::Dns, vec![region.address.into()]))?;
    let regions = layout.regions.iter().map(|region| {
        let mail = mail_host(layout, authority, region)?;
        Ok(RegionConfig {
            name: region.name.into(),
            addresses: vec![region.address.into()],
            mail_host: region.mail_host(),
            ns_host: region.ns_host(),
            ns_addresses: vec![region.address.into()],
            outgoing: Vec::new(),
            certificate_files: vec![mail.cert],
            round_trips: vec![region.round_trips()],
            looks: vec![format!("http://{}/readyz", region.rest()), format!("smtp://{}", region.smtp())],
        })
    });
    Ok(DnsRoleConfig {
        region: region.name.into(),
        listen: vec![region.dns().parse().context("the name server's address")?],
        round_trips_listen: Some(region.round_trips().parse().context("the name server's address for round trips")?),
        data_dir: layout.process_dir(&name).join("data"),
        cookie_secret_file: Some(secrets.dns_cookie_secret_file.clone()),
        dnssec_key_files: vec![secrets.dnssec_key_file.clone()],
        // All of a demo's clients are one network.
        answers_per_second: 0,
        metrics_listen: Some(region.dns_metrics()),
        cluster: cluster(layout, region, role),
        regions: regions.collect::<anyhow::Result<_>>()?,
        policy: PolicyConfig::with_ports(SUBMISSION_PORT, SUBMISSIONS_PORT, REST_PORT),
        domains: BTreeMap::default(),
    })
}

/// The certificate of a region's mail host.
fn mail_host(layout: &Layout, authority: &Authority, region: &Region) -> anyhow::Result<CertificateFiles> {
    let name = format!("mail-{}", region.name);
    let subject = Subject::of_host(&name, &region.mail_host(), vec![region.address.into()]);
    authority.issue(files_of(layout, &name), &subject)
}

fn files_of(layout: &Layout, name: &str) -> CertificateFiles {
    CertificateFiles::of_process(&layout.tls_dir(), name)
}

/// All nodes, those of the own region first.
fn cluster(layout: &Layout, region: &Region, files: CertificateFiles) -> ClusterConfig {
    let mut nodes: Vec<(&Region, &NodePlace)> = layout.nodes().collect();
    nodes.sort_by_key(|(other, _)| other.name != region.name);
    ClusterConfig { nodes: nodes.into_iter().map(|(_, node)| node.grpc.clone()).collect(), tls: tls(files) }
}

fn tls(files: CertificateFiles) -> TlsFiles {
    TlsFiles { ca: files.ca, cert: files.cert, key: files.key }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::pb;

    use super::super::layout::Wish;
    use super::*;

    #[test]
    fn what_is_written_is_what_the_roles_read() {
        let dir = tempfile::tempdir().unwrap();
        let wish = Wish {
            zones: Some(2),
            shards: None,
            nodes_per_region: Some(2),
            spare_regions: None,
            block: 0,
            namespaces: false,
        };
        let layout = Layout::open(dir.path(), &wish).unwrap();
        let authority = Authority::open_or_make(&layout.tls_dir(), "A demo").unwrap();
        let secrets = Secrets::open(&layout.secrets_dir(), &SystemEntropy).unwrap();
        write_all(&layout, &authority, &secrets).unwrap();
        let node: NodeRoleConfig = crate::role::read(&path(&layout, &Job::Node { id: 3 })).unwrap();
        assert_eq!((node.region.as_str(), node.seeds.len()), ("frankfurt", 11));
        node.tls.load().unwrap();
        let job = Job::Frontend { region: "virginia".into() };
        let frontend: FrontendRoleConfig = crate::role::read(&path(&layout, &job)).unwrap();
        assert_eq!(frontend.cluster.nodes[0], "127.0.3.1:7105");
        assert_eq!(frontend.stores.len(), 6);
        let job = Job::Store { region: "seoul".into() };
        let store: StoreRoleConfig = crate::role::read(&path(&layout, &job)).unwrap();
        assert_eq!(store.listen.to_string(), "127.0.1.1:9000");
        let job = Job::Dns { region: "oregon".into() };
        let dns: DnsRoleConfig = crate::role::read(&path(&layout, &job)).unwrap();
        let described = crate::role::dns::describe::Described::load(&dns).unwrap();
        assert_eq!((described.regions.len(), described.regions[0].tlsa.len()), (6, 1));
        // What a public authority issues is known of beside it, and what it looks for as well.
        let signed = rcgen::generate_simple_self_signed(["mx-seoul.postrider.example".to_owned()]).unwrap();
        let challenge = pb::AcmeChallenge {
            host: "mx-seoul.postrider.example".into(),
            answer: "text".into(),
            ..Default::default()
        };
        let map = pb::ShardMap {
            domains: ["postrider.example", "other.example"]
                .map(|name| pb::Domain { name: name.into(), ..Default::default() })
                .to_vec(),
            public_certificates: vec![pb::PublicCertificate {
                names: vec!["*.postrider.example".into()],
                proof: pb::CertificateProof::Dns.into(),
                chain: signed.cert.pem().into_bytes().into(),
                challenges: vec![challenge],
                ..Default::default()
            }],
            ..Default::default()
        };
        let tlsa: Vec<usize> = described.regions(&map).iter().map(|region| region.tlsa.len()).collect();
        assert_eq!(tlsa, [2, 2, 2, 1, 1, 1], "the mail hosts of the first zone are covered");
        let domains = described.domains(&map);
        assert_eq!(domains[0].challenges, [("mx-seoul.postrider.example".to_owned(), "text".to_owned())]);
        assert!(domains[1].challenges.is_empty());
    }
}
