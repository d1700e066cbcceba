//! Refusals as callers get them, with their cure.

use postrider_api::pb::{self, fault::Fault};
use postrider_raft::{GroupStatus, MemberError, ProposeError, ReadError};
use postrider_shard::QueryError;

pub(crate) fn fault(fault: Fault) -> pb::Fault {
    pb::Fault { fault: Some(fault) }
}

pub(crate) fn malformed(detail: impl Into<String>) -> pb::Fault {
    fault(Fault::Malformed(pb::MalformedRequest { detail: detail.into() }))
}

pub(crate) fn unknown_group() -> pb::Fault {
    fault(Fault::UnknownGroup(pb::UnknownGroup {}))
}

pub(crate) fn busy() -> pb::Fault {
    fault(Fault::Busy(pb::Busy {}))
}

pub(crate) fn no_quorum() -> pb::Fault {
    fault(Fault::NoQuorum(pb::NoQuorum {}))
}

pub(crate) fn unauthenticated() -> pb::Fault {
    fault(Fault::Unauthenticated(pb::Unauthenticated {}))
}

pub(crate) fn suspended() -> pb::Fault {
    fault(Fault::Suspended(pb::Suspended {}))
}

/// More than any may ask.
pub(crate) fn too_much(detail: impl Into<String>) -> pb::Fault {
    fault(Fault::TooCostly(pb::TooCostly { detail: detail.into() }))
}

/// What it is answered from is being built.
pub(crate) fn unready(detail: impl Into<String>) -> pb::Fault {
    fault(Fault::Unready(pb::Unready { detail: detail.into() }))
}

pub(crate) fn lease_lost() -> pb::Fault {
    fault(Fault::LeaseLost(pb::LeaseLost {}))
}

/// Whom this replica follows, with the address where that is known: the membership carries it.
pub(crate) fn not_leader(status: Option<&GroupStatus>, leader: Option<postrider_raft::NodeId>) -> pb::Fault {
    let leader_address = leader
        .and_then(|leader| status.and_then(|status| status.voters.get(&leader).or(status.learners.get(&leader))))
        .map(|member| member.address.clone())
        .unwrap_or_default();
    fault(Fault::NotLeader(pb::NotLeader { leader: leader.map(|leader| leader.0), leader_address }))
}

fn stopped(reason: String) -> pb::Fault {
    fault(Fault::Stopped(pb::StoppedReplica { reason }))
}

pub(crate) fn of_propose(error: ProposeError, status: Option<&GroupStatus>) -> pb::Fault {
    match error {
        ProposeError::NotLeader { leader } => not_leader(status, leader),
        ProposeError::NoQuorum => no_quorum(),
        ProposeError::Busy => busy(),
        ProposeError::UnknownGroup => unknown_group(),
        ProposeError::TooLarge { max } => fault(Fault::TooLarge(pb::TooLarge { max: max as u64 })),
        ProposeError::Unknown => fault(Fault::Unknown(pb::Unknown {})),
        ProposeError::Stopped { reason } => stopped(reason),
    }
}

pub(crate) fn of_read(error: ReadError, status: Option<&GroupStatus>) -> pb::Fault {
    match error {
        ReadError::NotLeader { leader } => not_leader(status, leader),
        ReadError::NoQuorum => no_quorum(),
        ReadError::UnknownGroup => unknown_group(),
        ReadError::Stopped { reason } => stopped(reason),
    }
}

/// `None` where only words tell what is wrong.
pub(crate) fn of_member(error: &MemberError, status: Option<&GroupStatus>) -> Option<pb::Fault> {
    match error {
        MemberError::NotLeader { leader } => Some(not_leader(status, *leader)),
        MemberError::NoQuorum => Some(no_quorum()),
        MemberError::UnknownGroup => Some(unknown_group()),
        MemberError::InProgress => Some(busy()),
        MemberError::Unknown => Some(fault(Fault::Unknown(pb::Unknown {}))),
        MemberError::Stopped { reason } => Some(stopped(reason.clone())),
        MemberError::UnknownMember { .. } | MemberError::Impossible { .. } => None,
    }
}

/// Stored bytes that cannot be read: told to the caller, and logged here where an operator looks.
pub(crate) fn corrupt(error: &dyn std::error::Error) -> pb::Fault {
    let detail = error.to_string();
    tracing::error!(error = %detail, "stored state cannot be read");
    fault(Fault::Corrupt(pb::Corrupt { detail }))
}

pub(crate) fn of_query(error: QueryError) -> pb::Fault {
    match error {
        QueryError::Malformed { detail } => malformed(detail),
        QueryError::Broken(broken) => corrupt(&broken),
    }
}

/// What a refusal is called in counters and traces.
pub(crate) fn name(fault: &pb::Fault) -> &'static str {
    match &fault.fault {
        Some(Fault::NotLeader(_)) => "not_leader",
        Some(Fault::NoQuorum(_)) => "no_quorum",
        Some(Fault::Busy(_)) => "busy",
        Some(Fault::StaleEpoch(_)) => "stale_epoch",
        Some(Fault::UnknownGroup(_)) => "unknown_group",
        Some(Fault::Unknown(_)) => "unknown",
        Some(Fault::TooLarge(_)) => "too_large",
        Some(Fault::Unauthenticated(_)) => "unauthenticated",
        Some(Fault::Behind(_)) => "behind",
        Some(Fault::Stopped(_)) => "stopped",
        Some(Fault::LeaseLost(_)) => "lease_lost",
        Some(Fault::Malformed(_)) => "malformed",
        Some(Fault::Corrupt(_)) => "corrupt",
        Some(Fault::Suspended(_)) => "suspended",
        Some(Fault::TooCostly(_)) => "too_costly",
        Some(Fault::Unready(_)) => "unready",
        None => "none",
    }
}

/// Counts a refusal by what it says.
pub(crate) fn count(method: &'static str, fault: &pb::Fault) {
    let kind = name(fault);
    metrics::counter!("postrider_node_refusals_total", "method" => method, "fault" => kind).increment(1);
}
