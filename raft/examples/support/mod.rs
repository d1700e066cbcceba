//! What measurements of the host share.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_raft::{Host, HostOptions, MachineFactory, Member, NodeId};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// What may go wrong in a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Appends of 4 KiB, each with an fdatasync, per second.
pub(crate) fn disk_syncs(dir: &Path) -> Result<f64, Failure> {
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let block = vec![7_u8; 4 << 10];
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&block)?;
        file.sync_data()?;
        count += 1;
    }
    std::fs::remove_file(dir.join("probe"))?;
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

/// Processor time of a process so far, by its folder in `/proc`.
pub(crate) fn cpu(process: &str) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().ok_or("no stat")?.split(' ').collect();
    Ok(Duration::from_millis((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?) * 10))
}

/// Three members at free loopback addresses.
pub(crate) fn members() -> Result<BTreeMap<NodeId, Member>, Failure> {
    let member = |id| {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        Ok((NodeId(id), Member { address, region: format!("r{id}") }))
    };
    (1..=3).map(member).collect()
}

/// Opens a host in `dir` and serves it at its address.
pub(crate) async fn serve(
    node: NodeId,
    member: &Member,
    dir: &Path,
    machines: Arc<dyn MachineFactory>,
) -> Result<Host, Failure> {
    let host = Host::open(HostOptions::new(node, dir), machines).await?;
    let listener = TcpListener::bind(member.address.parse::<SocketAddr>()?).await?;
    let server = postrider_raft::transport::tune(tonic::transport::Server::builder())
        .add_service(host.service())
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    Ok(host)
}
