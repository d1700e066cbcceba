//! Who may call what. The one table; every method names its row, and every command its own.

use postrider_api::identity::Role;
use postrider_api::pb::{self, command::Op, query};
use tonic::Status;

/// Proposals and reads.
pub(crate) const SHARD_CALLS: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Ctl];
/// Questions; [`may_ask`] narrows it for most.
pub(crate) const QUESTIONS: &[Role] = WATCH_MAP;
/// Mailbox watches.
pub(crate) const WATCH: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Ctl];
/// The shard map, by stream or by question. It is all that a name server may know.
pub(crate) const WATCH_MAP: &[Role] = &[Role::Frontend, Role::Worker, Role::Node, Role::Dns, Role::Ctl];
/// The queue. A frontend has a worker in it.
pub(crate) const QUEUE: &[Role] = &[Role::Worker, Role::Frontend];
/// Operations on the node and its replicas.
pub(crate) const ADMIN: &[Role] = &[Role::Ctl, Role::Node];
/// Consensus among nodes.
pub(crate) const CONSENSUS: &[Role] = &[Role::Node];

/// What people do, through a frontend.
const PEOPLE: &[Role] = &[Role::Frontend];
/// What moves mail on. A frontend has a worker in it.
const MAIL: &[Role] = &[Role::Frontend, Role::Worker];
/// What comes in. An operator brings the report of what he returns.
const RECEIVED: &[Role] = &[Role::Frontend, Role::Worker, Role::Ctl];
/// What an operator decides.
const OPERATOR: &[Role] = &[Role::Ctl];
/// Whoever acts for operators and administrators: a frontend does for who holds the administrator's token.
const AUDITED: &[Role] = &[Role::Ctl, Role::Frontend];
/// The same, and what nodes begin by themselves.
const AUDITED_OR_NODES: &[Role] = &[Role::Ctl, Role::Frontend, Role::Node];
/// What people do with their own accounts, and an operator with anybody's.
const PEOPLE_AND_OPERATOR: &[Role] = &[Role::Frontend, Role::Ctl];
/// The step of a deletion that does not wait for the shard's leader: whoever asks for the deletion takes it as well.
const CLOSERS: &[Role] = &[Role::Frontend, Role::Ctl, Role::Node];
/// What an operator decides, and nodes in their work as well.
const OPERATOR_OR_NODES: &[Role] = &[Role::Ctl, Role::Node];
/// What nodes record of their own work.
const NODES: &[Role] = &[Role::Node];
/// Not by itself: under its fence, by `SettleQueue`, or not over the network at all.
const NOBODY: &[Role] = &[];

/// Who may propose a command.
fn proposers(op: &Op) -> &'static [Role] {
    match op {
        Op::CreateAccount(_)
        | Op::UpdateProfile(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::CreateFolder(_)
        | Op::UpdateFolder(_)
        | Op::DeleteFolder(_)
        | Op::CreateLabel(_)
        | Op::UpdateLabel(_)
        | Op::DeleteLabel(_)
        | Op::UpdateMessages(_)
        | Op::Send(_)
        | Op::PlanSend(_)
        | Op::CancelSend(_)
        | Op::CreateAppPassword(_)
        | Op::UseAppPassword(_)
        | Op::BeginSecondFactor(_)
        | Op::ConfirmSecondFactor(_)
        | Op::ReplaceRecoveryCodes(_)
        | Op::UseSession(_)
        | Op::SaveDraft(_)
        | Op::ReserveAddress(_)
        | Op::ActivateAddress(_)
        | Op::ReleaseAddress(_) => PEOPLE,
        Op::Accept(_) => RECEIVED,
        // What came back comes in where everything does.
        Op::RecordFeedback(_) => PEOPLE,
        Op::Deliver(_) | Op::Forget(_) => MAIL,
        Op::ManageQueue(_) => OPERATOR,
        // The leader's own, of its own group.
        Op::Settle(_) | Op::RaiseVersion(_) => NOBODY,
        Op::PinBlobs(_) | Op::UnpinBlobs(_) => MAIL,
        Op::StartSweep(_) => OPERATOR_OR_NODES,
        Op::CondemnBlobs(_) | Op::PardonBlobs(_) | Op::AdvanceSweep(_) => NODES,
        Op::RegisterRegion(_)
        | Op::PlaceShard(_)
        | Op::AddDomain(_)
        | Op::Balance(_)
        | Op::SetPolicy(_)
        | Op::RemovePolicy(_)
        | Op::SetShardPolicy(_)
        | Op::SetDomainPolicy(_)
        | Op::WantCertificate(_)
        | Op::ForgetCertificate(_)
        | Op::DrainNode(_)
        | Op::ActivateNode(_)
        | Op::RemoveNode(_)
        | Op::RemoveRegion(_)
        | Op::UpdateRegion(_)
        | Op::RemoveDomain(_)
        | Op::SetVersion(_) => OPERATOR,
        // A node registers its own address, carries the balancer's steps out, and gives up what does not end.
        Op::RegisterNode(_) | Op::SetReplicas(_) | Op::SetHome(_) | Op::CancelOperation(_) => OPERATOR_OR_NODES,
        Op::RecordStep(_)
        | Op::FinishOperation(_)
        | Op::ReportBuild(_)
        | Op::RecordVersion(_)
        | Op::RecordLiveness(_)
        | Op::GiveUpNode(_) => NODES,
        // Frontends have what opens the keys.
        Op::ClaimOrders(_) | Op::RecordOrder(_) | Op::RecordCertificate(_) => PEOPLE,
        Op::RecordAudit(_) => AUDITED_OR_NODES,
        Op::AddDkimKey(_)
        | Op::RetireDkimKey(_)
        | Op::RemoveDkimKey(_)
        | Op::SuppressForDomain(_)
        | Op::UnsuppressForDomain(_) => AUDITED,
        Op::ChangePassword(_)
        | Op::DeleteAccount(_)
        | Op::EndSession(_)
        | Op::DeleteAppPassword(_)
        | Op::RemoveSecondFactor(_)
        | Op::Suppress(_)
        | Op::Unsuppress(_) => PEOPLE_AND_OPERATOR,
        Op::SuspendAccount(_) | Op::ResumeAccount(_) | Op::SetCategory(_) => OPERATOR,
        Op::CloseAddress(_) => CLOSERS,
        Op::DrainAccount(_) | Op::FinishDeletion(_) | Op::DropRecipient(_) | Op::RetireAddress(_) => NODES,
    }
}

/// Who may ask a question.
fn askers(query: &query::Query) -> &'static [Role] {
    match query {
        // What operators did is for operators to read.
        query::Query::ListAudit(_) => OPERATOR,
        query::Query::GetCredentials(_) | query::Query::GetSecondFactor(_) => PEOPLE,
        query::Query::GetShardMap(_) => WATCH_MAP,
        _ => SHARD_CALLS,
    }
}

/// Refuses a question that is not the caller's to ask. One that asks nothing is refused by who reads it.
#[allow(clippy::result_large_err)] // tonic's own error type; every caller returns it as it is
pub(crate) fn may_ask(role: Role, query: Option<&pb::Query>) -> Result<(), Status> {
    match query.and_then(|query| query.query.as_ref()) {
        Some(query) if !askers(query).contains(&role) => {
            Err(Status::permission_denied(format!("a {role} may not ask this")))
        }
        _ => Ok(()),
    }
}

/// Refuses a command that is not the caller's to propose. One without an op is refused by who reads it.
#[allow(clippy::result_large_err)] // tonic's own error type; every caller returns it as it is
pub(crate) fn may_propose(role: Role, command: &pb::Command) -> Result<(), Status> {
    match command.op.as_ref() {
        Some(Op::Settle(_)) => Err(Status::permission_denied("an entry is settled under its lease's fence only")),
        // Without a password only an operator.
        Some(
            Op::ChangePassword(pb::ChangePassword { verified, .. })
            | Op::DeleteAccount(pb::DeleteAccount { verified, .. })
            | Op::BeginSecondFactor(pb::BeginSecondFactor { verified, .. })
            | Op::ReplaceRecoveryCodes(pb::ReplaceRecoveryCodes { verified, .. })
            | Op::RemoveSecondFactor(pb::RemoveSecondFactor { verified, .. }),
        ) if role != Role::Ctl && verified.is_empty() => {
            Err(Status::permission_denied("an account's owner proves himself by its password"))
        }
        Some(op) if !proposers(op).contains(&role) => {
            Err(Status::permission_denied(format!("a {role} may not propose this")))
        }
        _ => Ok(()),
    }
}
