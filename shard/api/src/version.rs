//! Versions of a shard, and which of them a command needs.
//!
//! A shard is at one version (`shard/src/format.rs` says what each brought). A command that an older build would read
//! otherwise, or not at all, names the version that it requires. Until the shard is raised to it, every replica refuses the
//! command, of whatever build; from then on no replica is of a build that does not know it (P-12).
//!
//! [`required`] is the one table: a proposer takes the version from it, and a leader refuses what names less. An op, or a field
//! of one, that a later build adds gets its version here.

use crate::pb::{self, command::Op};

/// The version that every build knows, and that a new shard begins with.
pub const INITIAL: u32 = 1;

/// What each version brought, for those who decide whether to raise one; `shard/src/format.rs` has more.
pub const CHANGES: &[(u32, &str)] = &[(1, "the first")];

/// The version that `command` needs.
pub fn required(command: &pb::Command) -> u32 {
    match &command.op {
        // Nothing that can be carried out; whoever knows what it says has named the version.
        None => command.requires,
        Some(op) => of_op(op),
    }
}

/// The version that brought the op, or the newest of the fields that it carries.
fn of_op(op: &Op) -> u32 {
    match op {
        Op::CreateAccount(_)
        | Op::UpdateProfile(_)
        | Op::OpenSession(_)
        | Op::CloseSession(_)
        | Op::CreateFolder(_)
        | Op::UpdateFolder(_)
        | Op::DeleteFolder(_)
        | Op::UpdateMessages(_)
        | Op::Accept(_)
        | Op::Send(_)
        | Op::PlanSend(_)
        | Op::Deliver(_)
        | Op::Settle(_)
        | Op::Forget(_)
        | Op::CreateLabel(_)
        | Op::UpdateLabel(_)
        | Op::DeleteLabel(_)
        | Op::ManageQueue(_)
        | Op::ChangePassword(_)
        | Op::EndSession(_)
        | Op::SuspendAccount(_)
        | Op::ResumeAccount(_)
        | Op::DeleteAccount(_)
        | Op::DrainAccount(_)
        | Op::FinishDeletion(_)
        | Op::DropRecipient(_)
        | Op::CreateAppPassword(_)
        | Op::DeleteAppPassword(_)
        | Op::UseAppPassword(_)
        | Op::BeginSecondFactor(_)
        | Op::ConfirmSecondFactor(_)
        | Op::ReplaceRecoveryCodes(_)
        | Op::RemoveSecondFactor(_)
        | Op::UseSession(_)
        | Op::SaveDraft(_)
        | Op::RecordFeedback(_)
        | Op::Suppress(_)
        | Op::Unsuppress(_)
        | Op::SetCategory(_)
        | Op::SuppressForDomain(_)
        | Op::UnsuppressForDomain(_)
        | Op::PinBlobs(_)
        | Op::UnpinBlobs(_)
        | Op::CondemnBlobs(_)
        | Op::PardonBlobs(_)
        | Op::StartSweep(_)
        | Op::AdvanceSweep(_)
        | Op::CloseAddress(_)
        | Op::RetireAddress(_)
        | Op::ReserveAddress(_)
        | Op::ActivateAddress(_)
        | Op::ReleaseAddress(_)
        | Op::RegisterRegion(_)
        | Op::RegisterNode(_)
        | Op::PlaceShard(_)
        | Op::AddDomain(_)
        | Op::SetReplicas(_)
        | Op::SetHome(_)
        | Op::DrainNode(_)
        | Op::ActivateNode(_)
        | Op::RemoveNode(_)
        | Op::RemoveRegion(_)
        | Op::RemoveDomain(_)
        | Op::CancelOperation(_)
        | Op::RecordStep(_)
        | Op::FinishOperation(_)
        | Op::RecordAudit(_)
        | Op::ReportBuild(_)
        | Op::SetVersion(_)
        | Op::RecordVersion(_)
        | Op::CancelSend(_)
        | Op::AddDkimKey(_)
        | Op::RetireDkimKey(_)
        | Op::RemoveDkimKey(_)
        | Op::UpdateRegion(_)
        | Op::RecordLiveness(_)
        | Op::GiveUpNode(_)
        | Op::Balance(_)
        | Op::SetPolicy(_)
        | Op::RemovePolicy(_)
        | Op::SetShardPolicy(_)
        | Op::SetDomainPolicy(_)
        | Op::WantCertificate(_)
        | Op::ForgetCertificate(_)
        | Op::ClaimOrders(_)
        | Op::RecordOrder(_)
        | Op::RecordCertificate(_)
        | Op::RaiseVersion(_) => INITIAL,
    }
}

/// A version as rows and messages carry it: where nothing stands, the first is meant.
pub fn or_initial(version: u32) -> u32 {
    version.max(INITIAL)
}
