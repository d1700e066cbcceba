//! Between the hosts.
//!
//! [`Transport`] and [`Link`] are all that consensus asks of a network, [`Inbox`] is all that a network asks of a host:
//! a simulation implements the first two and calls the third. In production [`tcp`] carries the messages, in [`frames`].
//!
//! Per peer there are two connections, shared by all groups, control (votes, heartbeats, transfers) and log (entries), so that a large
//! entry never delays a heartbeat; and one for each snapshot on its way.

pub(crate) mod addresses;
pub(crate) mod frames;
mod lane;
pub(crate) mod network;
mod sending;
mod service;
pub(crate) mod tcp;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::ids::{GroupIdentity, NodeId};
use crate::wire::{InstallAnswer, SnapshotPart, answer, message};

pub use service::refuse;
pub(crate) use service::{listen, serve};

/// What hosts speak with each other, as TLS names it in its handshake (ALPN, RFC 7301): whoever accepts connections for more than one
/// protocol tells by it which ones are a host's.
pub const ALPN: &[u8] = b"postrider-raft/1";

/// What a connection is made of: TCP, TLS on it, or what a test puts in their place.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// What kind of message, and so which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Votes, heartbeats, transfers: small and urgent.
    Control,
    /// Entries: large, in order.
    Log,
}

/// Why a message got no answer. It may have been delivered all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection, and none to be had right now: wait a little.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke with the message on its way: try again.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

/// The answer to a message, when it comes.
pub type Reply = oneshot::Receiver<Result<answer::Body, LinkError>>;

/// A way to one node.
pub trait Link: Send + Sync + 'static {
    /// Sends `body` to the replica of `group` there. Messages of one class arrive in the order of these calls'
    /// completion. Waits while too many bytes are on their way.
    fn send(&self, class: Class, group: GroupIdentity, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>>;

    /// Sends a snapshot: its head, its blocks, its tail. Answered once it has been installed.
    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'_, Result<InstallAnswer, LinkError>>;
}

/// Knows the way to every node.
pub trait Transport: Send + Sync + 'static {
    /// The link to `node` at `address`. Connects when first used.
    fn link(&self, node: NodeId, address: &str) -> Arc<dyn Link>;
}

/// Why a snapshot was not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The parts make no sense, or were damaged on the way.
    #[error("malformed snapshot: {0}")]
    Malformed(String),
    /// This node hosts no replica of the group.
    #[error("no replica of this group here")]
    UnknownGroup,
    /// The replica here belongs to another making of the group.
    #[error("the replica here is of another incarnation of the group")]
    OtherIncarnation,
    /// As many snapshots as a node takes at once are being received already.
    #[error("too many snapshots at once")]
    Busy,
    /// The stream broke. What has come is kept for a while.
    #[error("the snapshot ended early")]
    Interrupted,
    /// The replica has stopped, or the disk refused.
    #[error("not installed: {0}")]
    Failed(String),
}

/// Where a host takes messages in.
pub trait Inbox: Send + Sync + 'static {
    /// Delivers `body`, which `from` sent, to the replica of `group` here and returns its answer. The message takes its place in the
    /// replica's queue when the future is first polled.
    fn deliver(&self, from: NodeId, group: GroupIdentity, body: message::Body) -> BoxFuture<'static, answer::Body>;

    /// Receives a snapshot and installs it. What comes after the call is kept or installed also when the future is dropped.
    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'static, Result<InstallAnswer, InstallError>>;

    /// Who this host is: what is meant for another node is refused.
    fn node(&self) -> NodeId;

    /// A peer that has connected says where it is reached itself; empty: nothing.
    fn reached(&self, peer: NodeId, address: String);

    /// Where others than `peer` are reached, as they have said.
    fn told_by_others(&self, peer: NodeId) -> Vec<(NodeId, String)>;

    /// Whether the host has closed: its peers must look for the one that takes its place.
    fn closed(&self) -> bool;
}
