//! Cutting one region of a demo off, on one machine and without root: packets are dropped at the sockets themselves.
//!
//! All processes of a demo talk over the loopback, from one address: no rule of a firewall could tell whose packet it is. What can be
//! told is whose socket it is (`/proc/PID/fd`, `/proc/net/tcp`). So the drill borrows the sockets of the demo's processes
//! (pidfd_getfd(2), for who may trace them) and attaches a packet filter (socket(7), SO_ATTACH_FILTER) to each:
//!
//! - A connection that is there already gets a filter at the end that shall hear nothing; it drops everything, acknowledgements
//!   too, as a broken line does. Nobody is told, and TCP goes on trying until it is healed or gives up.
//! - A listener gets a filter that drops the first packet (SYN) of whoever is not known to be let through. Its TCP tries again after a
//!   second; by then it is known whose it is. So nothing gets through a cut by connecting anew, and what may connect takes a second more.
//!
//! A socket stays with its filter when the drill is killed; [`heal`] takes off every filter of every process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, Socket};

use super::fault::Ways;

/// Ports that a listener's filter can let through: two instructions each, of 4,096 (BPF_MAXINSNS).
const PORTS_MAX: usize = 1_900;

// Classic BPF (linux/filter.h), as far as these filters need it.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;
/// Where TCP's header has its flags (RFC 9293 section 3.1), bytes from its start, and two of them.
const FLAGS_AT: u32 = 13;
const SYN: u32 = 0x02;
const SYN_OR_ACK: u32 = 0x12;
const SOURCE_PORT_AT: u32 = 0;

/// States of `/proc/net/tcp` (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// A process of the demo: its id, and the region that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: u32,
    pub(super) region: String,
}

/// A cut as it is now; looked after until it is healed, since connections come and go.
pub(super) struct Cut {
    region: String,
    ways: Ways,
    /// Listeners that only processes of the cluster use. Clients, who use the others, are no part of the cut.
    inner: BTreeSet<SocketAddrV4>,
    /// Who comes to a listener and may: ports by listener. Kept so that a filter is attached only when it changes.
    allowed: BTreeMap<SocketAddrV4, BTreeSet<u16>>,
    /// Ends of connections that have their filter.
    silent: BTreeSet<u64>,
}

/// One line of `/proc/net/tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    state: u8,
    inode: u64,
}

/// What the kernel says at one moment.
struct Sockets {
    /// All connections of the machine, or of the network namespaces that the processes are in.
    lines: Vec<Line>,
    /// Those that are a member's.
    owned: Vec<Owned>,
}

/// A socket of one of the processes.
struct Owned {
    line: Line,
    member: usize,
    descriptor: i32,
}

impl Cut {
    /// Nothing is cut before the first [`Self::keep`].
    pub(super) fn new(region: &str, ways: Ways, inner: BTreeSet<SocketAddrV4>) -> Self {
        Self { region: region.into(), ways, inner, allowed: BTreeMap::new(), silent: BTreeSet::new() }
    }

    /// Looks at the sockets of all processes and silences what shall be silent.
    pub(super) fn keep(&mut self, members: &[Member]) -> anyhow::Result<()> {
        let Sockets { lines, owned: sockets } = sockets(members)?;
        // Who has the socket at an address that talks to another: the other end of a connection.
        let by_ends: BTreeMap<(SocketAddrV4, SocketAddrV4), usize> = sockets
            .iter()
            .filter(|socket| socket.line.state != LISTEN)
            .map(|socket| ((socket.line.local, socket.line.remote), socket.member))
            .collect();
        let region = |member: usize| members.get(member).map_or("", |member| member.region.as_str());
        for socket in sockets.iter().filter(|socket| socket.line.state == ESTABLISHED) {
            let Some(other) = by_ends.get(&(socket.line.remote, socket.line.local)) else { continue };
            if self.drops(region(*other), region(socket.member)) && !self.silent.contains(&socket.line.inode) {
                let drop_all = [SockFilter::new(RETURN, 0, 0, DROP)];
                if attach(members, socket, &drop_all)? {
                    self.silent.insert(socket.line.inode);
                }
            }
        }
        for listener in sockets.iter().filter(|socket| socket.line.state == LISTEN) {
            self.keep_listener(members, &lines, &sockets, listener)?;
        }
        Ok(())
    }

    /// Whether a packet from one region to another is lost.
    fn drops(&self, from: &str, to: &str) -> bool {
        let out = from == self.region && matches!(self.ways, Ways::Both | Ways::Out);
        let into = to == self.region && matches!(self.ways, Ways::Both | Ways::In);
        from != to && (out || into)
    }

    fn keep_listener(
        &mut self,
        members: &[Member],
        lines: &[Line],
        sockets: &[Owned],
        listener: &Owned,
    ) -> anyhow::Result<()> {
        let address = listener.line.local;
        let at = members.get(listener.member).map_or("", |member| member.region.as_str());
        // A listener that no other region is cut off from needs nothing.
        if !self.inner.contains(&address) || !members.iter().any(|member| self.drops(&member.region, at)) {
            return Ok(());
        }
        let of_cut_off: BTreeSet<u64> = sockets
            .iter()
            .filter(|socket| members.get(socket.member).is_some_and(|from| self.drops(&from.region, at)))
            .map(|socket| socket.line.inode)
            .collect();
        // An operator's `ctl` is no member, and gets through.
        let may: BTreeSet<u16> = lines
            .iter()
            .filter(|line| line.remote == address && line.state == SYN_SENT && !of_cut_off.contains(&line.inode))
            .map(|line| line.local.port())
            .take(PORTS_MAX)
            .collect();
        // A listener that has ended meanwhile is looked at again when its process is back.
        if self.allowed.get(&address) != Some(&may) && attach(members, listener, &only_from(&may))? {
            self.allowed.insert(address, may);
        }
        Ok(())
    }
}

/// Takes every filter off every socket of these processes.
pub(super) fn heal(members: &[Member]) -> anyhow::Result<()> {
    for socket in sockets(members)?.owned {
        if let Some(borrowed) = borrow(members, &socket)? {
            match borrowed.detach_filter() {
                Ok(()) => {}
                // It had none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("take a packet filter off a socket"),
            }
        }
    }
    Ok(())
}

/// Whether sockets of these processes may be borrowed at all: said before anything is broken.
pub(super) fn check(members: &[Member]) -> anyhow::Result<()> {
    for socket in sockets(members)?.owned {
        borrow(members, &socket)?;
    }
    Ok(())
}

/// Lets everything through but the first packet of whoever is not named.
fn only_from(ports: &BTreeSet<u16>) -> Vec<SockFilter> {
    let mut filter = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN_OR_ACK),
        SockFilter::new(IF_EQUAL, 1, 0, SYN),
        SockFilter::new(RETURN, 0, 0, PASS),
        SockFilter::new(LOAD_HALF, 0, 0, SOURCE_PORT_AT),
    ];
    for port in ports {
        filter.push(SockFilter::new(IF_EQUAL, 0, 1, u32::from(*port)));
        filter.push(SockFilter::new(RETURN, 0, 0, PASS));
    }
    filter.push(SockFilter::new(RETURN, 0, 0, DROP));
    filter
}

/// Whether the socket was still there.
fn attach(members: &[Member], socket: &Owned, filter: &[SockFilter]) -> anyhow::Result<bool> {
    match borrow(members, socket)? {
        Some(borrowed) => {
            borrowed.attach_filter(filter).context("attach a packet filter to a socket")?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// A descriptor of ours for another process's socket; `None` when process or socket are gone.
fn borrow(members: &[Member], socket: &Owned) -> anyhow::Result<Option<Socket>> {
    let Some(member) = members.get(socket.member) else { return Ok(None) };
    let borrowed = || -> rustix::io::Result<OwnedFd> {
        let pid = i32::try_from(member.pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
        pidfd_getfd(pidfd_open(pid, PidfdFlags::empty())?, socket.descriptor, PidfdGetfdFlags::empty())
    };
    match borrowed() {
        // The number may be another file's by now: a socket of the same inode is the one that was meant.
        Ok(descriptor) => Ok(is_inode(&descriptor, socket.line.inode).then(|| Socket::from(descriptor))),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => Ok(None),
        Err(rustix::io::Errno::PERM) => bail!(
            "the sockets of process {} may not be borrowed (pidfd_getfd): cutting a region off needs CAP_SYS_PTRACE, or \
             kernel.yama.ptrace_scope = 0 and the same user; in a container, --cap-add SYS_PTRACE",
            member.pid
        ),
        Err(error) => Err(error).with_context(|| format!("borrow a socket of process {}", member.pid)),
    }
}

fn is_inode(descriptor: &OwnedFd, inode: u64) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    link.is_ok_and(|link| link.to_str() == Some(&format!("socket:[{inode}]")))
}

/// All TCP sockets of these processes. The kernel's tables are read before the processes' files: whose socket it is, is known of all
/// that are in a table and still there.
fn sockets(members: &[Member]) -> anyhow::Result<Sockets> {
    let mut tables: BTreeMap<PathBuf, BTreeMap<u64, Line>> = BTreeMap::new();
    for member in members {
        // A process that is gone has no sockets.
        let Ok(namespace) = namespace(member) else { continue };
        if tables.contains_key(&namespace) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(format!("/proc/{}/net/tcp", member.pid)) else { continue };
        let lines = text.lines().skip(1).filter_map(parse).map(|line| (line.inode, line));
        tables.insert(namespace, lines.collect());
    }
    let mut owned = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let Some(table) = namespace(member).ok().and_then(|namespace| tables.get(&namespace)) else { continue };
        let entries = match std::fs::read_dir(format!("/proc/{}/fd", member.pid)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("list the files of process {}", member.pid)),
        };
        for entry in entries.flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            let inode = link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let descriptor = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(inode), Some(descriptor)) = (inode, descriptor)
                && let Some(line) = table.get::<u64>(&inode)
            {
                owned.push(Owned { line: line.clone(), member: index, descriptor });
            }
        }
    }
    Ok(Sockets { lines: tables.into_values().flat_map(BTreeMap::into_values).collect(), owned })
}

fn namespace(member: &Member) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{}/ns/net", member.pid))
}

/// A line of `/proc/net/tcp` (proc_pid_net(5)): number, local and remote address, state, and the inode as the tenth word.
fn parse(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(Line {
        local: address(words.get(1)?)?,
        remote: address(words.get(2)?)?,
        state: u8::from_str_radix(words.get(3)?, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// `0101007F:1F90`: the address as a number in the machine's own order, the port as one in the usual.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let line = parse(
            "   1: 0101007F:1F90 0100007F:A2F4 01 00000000:00000000 00:00000000 00000000     0        0 2514342 1 0000 20",
        )
        .unwrap();
        assert_eq!(line.local.to_string(), "127.0.1.1:8080");
        assert_eq!(line.remote.to_string(), "127.0.0.1:41716");
        assert_eq!((line.state, line.inode), (ESTABLISHED, 2_514_342));
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn a_cut_has_its_ways() {
        let cut = |ways| Cut::new("seoul", ways, BTreeSet::new());
        for (ways, out, into) in [(Ways::Both, true, true), (Ways::Out, true, false), (Ways::In, false, true)] {
            assert_eq!(cut(ways).drops("seoul", "frankfurt"), out);
            assert_eq!(cut(ways).drops("frankfurt", "seoul"), into);
            assert!(!cut(ways).drops("frankfurt", "virginia") && !cut(ways).drops("seoul", "seoul"));
        }
    }
}
