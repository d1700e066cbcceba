//! One command, applied.

use postrider_api::id::{ModSeq, ShardId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ShardKind};

use crate::key::Key;
use crate::raise_version::not_enabled;
use crate::store::{Reader, Rows, Txn};
use crate::turn::{Stop, Turn, malformed};
use crate::{Broken, blobs, dedup, directory, mailbox, placement, queue, raise_version, row, sending, tail};

/// What a command made of the shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The answer, the same on every replica.
    pub outcome: pb::Outcome,
    /// Mailboxes that changed, with their newest modseq: whoever watches them is to wake.
    pub touched: Vec<(UserId, ModSeq)>,
    /// A queue entry was made or changed and is due at this time, milliseconds.
    pub queue_due: Option<i64>,
    /// The shard map has a new version.
    pub map_changed: bool,
    /// An account began to be deleted: the leader is to go on with it.
    pub deletions: bool,
    /// Rows that the tail of changes has got.
    pub changes: u32,
}

/// Applies the command at `index` of the log over `txn`.
///
/// A refused command writes nothing but its dedup row and the shard's clock; one that requires a newer version than the shard
/// has been raised to has no dedup row either.
///
/// # Errors
/// A corrupt row, a broken invariant, or an op or a version that this build does not know in a shard that is to know it: the
/// transaction is to be dropped and the replica to stop. Whoever proposes has to keep such a command out of the log.
pub fn apply(
    shard: ShardId,
    txn: &mut Txn<'_, impl Reader>,
    index: u64,
    command: &pb::Command,
) -> Result<Applied, Broken> {
    let mut turn = Turn::begin(shard, txn, index, command)?;
    dedup::trim(&mut turn)?;
    directory::quarantine::trim(&mut turn)?;
    tail::trim(&mut turn)?;
    blobs::pin::trim(&mut turn)?;
    sending::sent::trim(&mut turn)?;
    let outcome = if command.requires > turn.state.version {
        // Before anything else is read in it: this build may know nothing of what it says (P-12).
        pb::Outcome { result: Some(Made::Refused(not_enabled(command.requires, turn.state.version))) }
    } else {
        once(&mut turn, command)?
    };
    row::put(turn.rows, Key::Shard, &turn.state);
    Ok(Applied {
        outcome,
        touched: turn.touched,
        queue_due: turn.queue_due,
        map_changed: turn.map_changed,
        deletions: turn.deletions,
        changes: turn.tail_next,
    })
}

/// The outcome of the command, or of the first with its request id (P-6).
fn once(turn: &mut Turn<'_, impl Rows>, command: &pb::Command) -> Result<pb::Outcome, Broken> {
    let op = command.op.as_ref().ok_or(Broken::UnknownOp { index: turn.index })?;
    match dedup::first_outcome(turn, command) {
        Ok(Some(first)) => {
            // Pinned once more before it was asked again.
            blobs::pin::end_of_turn(turn, op)?;
            Ok(first)
        }
        Ok(None) => {
            let outcome = carry_out(turn, op)?;
            blobs::pin::end_of_turn(turn, op)?;
            dedup::keep(turn, command, &outcome);
            Ok(outcome)
        }
        Err(Stop::Refused(refused)) => Ok(pb::Outcome { result: Some(Made::Refused(refused)) }),
        Err(Stop::Broken(broken)) => Err(broken),
    }
}

fn carry_out(turn: &mut Turn<'_, impl Rows>, op: &Op) -> Result<pb::Outcome, Broken> {
    let (written, state) = (turn.rows.written(), turn.state);
    let result = match dispatch(turn, op) {
        Ok(made) => made,
        Err(Stop::Refused(refused)) => {
            if turn.rows.written() != written || turn.state != state {
                return Err(Broken::RefusedAfterWriting { detail: refused.detail });
            }
            Made::Refused(refused)
        }
        Err(Stop::Broken(broken)) => return Err(broken),
    };
    Ok(pb::Outcome { result: Some(result) })
}

fn dispatch(turn: &mut Turn<'_, impl Rows>, op: &Op) -> Result<Made, Stop> {
    if home(op).is_some_and(|home| turn.shard.kind() != Some(home)) {
        return Err(malformed(format!("shard {} does not take commands of this kind", turn.shard)));
    }
    match op {
        Op::CreateAccount(c) => mailbox::create_account::apply(turn, c),
        Op::UpdateProfile(c) => mailbox::update_profile::apply(turn, c),
        Op::OpenSession(c) => mailbox::open_session::apply(turn, c),
        Op::CloseSession(c) => mailbox::close_session::apply(turn, c),
        Op::CreateFolder(c) => mailbox::create_folder::apply(turn, c),
        Op::UpdateFolder(c) => mailbox::update_folder::apply(turn, c),
        Op::DeleteFolder(c) => mailbox::delete_folder::apply(turn, c),
        Op::CreateLabel(c) => mailbox::create_label::apply(turn, c),
        Op::UpdateLabel(c) => mailbox::update_label::apply(turn, c),
        Op::DeleteLabel(c) => mailbox::delete_label::apply(turn, c),
        Op::UpdateMessages(c) => mailbox::update_messages::apply(turn, c),
        Op::Accept(c) => mailbox::accept::apply(turn, c),
        Op::Send(c) => mailbox::send::apply(turn, c),
        Op::PlanSend(c) => mailbox::plan_send::apply(turn, c),
        Op::Deliver(c) => mailbox::deliver::apply(turn, c),
        Op::Settle(c) => queue::settle::apply(turn, c),
        Op::Forget(c) => dedup::forget(turn, c),
        Op::ManageQueue(c) => queue::manage::apply(turn, c),
        Op::ChangePassword(c) => mailbox::change_password::apply(turn, c),
        Op::EndSession(c) => mailbox::end_session::apply(turn, c),
        Op::SuspendAccount(c) => mailbox::suspend_account::apply(turn, c),
        Op::ResumeAccount(c) => mailbox::resume_account::apply(turn, c),
        Op::DeleteAccount(c) => mailbox::delete_account::apply(turn, c),
        Op::DrainAccount(c) => mailbox::drain_account::apply(turn, c),
        Op::FinishDeletion(c) => mailbox::finish_deletion::apply(turn, c),
        Op::DropRecipient(c) => queue::drop_recipient::apply(turn, c),
        Op::CancelSend(c) => queue::cancel::apply(turn, c),
        Op::CreateAppPassword(c) => mailbox::create_app_password::apply(turn, c),
        Op::DeleteAppPassword(c) => mailbox::delete_app_password::apply(turn, c),
        Op::UseAppPassword(c) => mailbox::use_app_password::apply(turn, c),
        Op::BeginSecondFactor(c) => mailbox::begin_second_factor::apply(turn, c),
        Op::ConfirmSecondFactor(c) => mailbox::confirm_second_factor::apply(turn, c),
        Op::ReplaceRecoveryCodes(c) => mailbox::replace_recovery_codes::apply(turn, c),
        Op::RemoveSecondFactor(c) => mailbox::remove_second_factor::apply(turn, c),
        Op::UseSession(c) => mailbox::use_session::apply(turn, c),
        Op::SaveDraft(c) => mailbox::save_draft::apply(turn, c),
        Op::SetCategory(c) => mailbox::set_category::apply(turn, c),
        Op::RecordFeedback(c) => sending::feedback::apply(turn, c),
        Op::Suppress(c) => sending::suppression::apply(turn, c),
        Op::Unsuppress(c) => sending::suppression::remove(turn, c),
        Op::PinBlobs(c) => blobs::pin::apply(turn, c),
        Op::UnpinBlobs(c) => blobs::pin::unpin(turn, c),
        Op::CondemnBlobs(c) => blobs::condemn::apply(turn, c),
        Op::PardonBlobs(c) => blobs::condemn::pardon(turn, c),
        Op::ReserveAddress(c) => directory::reserve_address::apply(turn, c),
        Op::ActivateAddress(c) => directory::activate_address::apply(turn, c),
        Op::ReleaseAddress(c) => directory::release_address::apply(turn, c),
        Op::CloseAddress(c) => directory::close_address::apply(turn, c),
        Op::RetireAddress(c) => directory::retire_address::apply(turn, c),
        Op::SuppressForDomain(c) => directory::suppression::add(turn, c),
        Op::UnsuppressForDomain(c) => directory::suppression::remove(turn, c),
        Op::RegisterRegion(c) => placement::register_region::apply(turn, c),
        Op::RegisterNode(c) => placement::register_node::apply(turn, c),
        Op::PlaceShard(c) => placement::place_shard::apply(turn, c),
        Op::AddDomain(c) => placement::add_domain::apply(turn, c),
        Op::RecordAudit(c) => placement::record_audit::apply(turn, c),
        Op::SetReplicas(c) => placement::set_replicas::apply(turn, c),
        Op::SetHome(c) => placement::set_home::apply(turn, c),
        Op::DrainNode(c) => placement::drain_node::apply(turn, c),
        Op::ActivateNode(c) => placement::activate_node::apply(turn, c),
        Op::RemoveNode(c) => placement::remove_node::apply(turn, c),
        Op::RemoveRegion(c) => placement::remove_region::apply(turn, c),
        Op::UpdateRegion(c) => placement::update_region::apply(turn, c),
        Op::RemoveDomain(c) => placement::remove_domain::apply(turn, c),
        Op::CancelOperation(c) => placement::cancel_operation::apply(turn, c),
        Op::RecordStep(c) => placement::record_step::apply(turn, c),
        Op::FinishOperation(c) => placement::finish_operation::apply(turn, c),
        Op::ReportBuild(c) => placement::report_build::apply(turn, c),
        Op::SetVersion(c) => placement::set_version::apply(turn, c),
        Op::RecordVersion(c) => placement::record_version::apply(turn, c),
        Op::AddDkimKey(c) => placement::dkim_keys::add(turn, c),
        Op::RetireDkimKey(c) => placement::dkim_keys::retire(turn, c),
        Op::RemoveDkimKey(c) => placement::dkim_keys::remove(turn, c),
        Op::RecordLiveness(c) => placement::record_liveness::apply(turn, c),
        Op::GiveUpNode(c) => placement::give_up_node::apply(turn, c),
        Op::Balance(c) => placement::balance::apply(turn, *c),
        Op::SetPolicy(c) => placement::policy::set_policy(turn, c),
        Op::RemovePolicy(c) => placement::policy::remove_policy(turn, c),
        Op::SetShardPolicy(c) => placement::policy::set_of_shard(turn, c),
        Op::SetDomainPolicy(c) => placement::policy::set_of_domain(turn, c),
        Op::WantCertificate(c) => placement::certificates::want(turn, c),
        Op::ForgetCertificate(c) => placement::certificates::forget(turn, c),
        Op::ClaimOrders(c) => placement::certificates::claim(turn, c),
        Op::RecordOrder(c) => placement::certificates::record_order(turn, c),
        Op::RecordCertificate(c) => placement::certificates::record(turn, c),
        Op::RaiseVersion(c) => raise_version::apply(turn, c),
        Op::StartSweep(c) => placement::sweep::start(turn, c),
        Op::AdvanceSweep(c) => placement::sweep::advance(turn, c),
    }
}

/// The kind of shard that takes an op; `None` for what every shard takes.
fn home(op: &Op) -> Option<ShardKind> {
    Some(match op {
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
        | Op::Accept(_)
        | Op::Send(_)
        | Op::PlanSend(_)
        | Op::Deliver(_)
        | Op::Settle(_)
        | Op::Forget(_)
        | Op::ManageQueue(_)
        | Op::ChangePassword(_)
        | Op::EndSession(_)
        | Op::SuspendAccount(_)
        | Op::ResumeAccount(_)
        | Op::DeleteAccount(_)
        | Op::DrainAccount(_)
        | Op::FinishDeletion(_)
        | Op::DropRecipient(_)
        | Op::CancelSend(_)
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
        | Op::PinBlobs(_)
        | Op::UnpinBlobs(_)
        | Op::CondemnBlobs(_)
        | Op::PardonBlobs(_) => ShardKind::Mailbox,
        Op::ReserveAddress(_)
        | Op::ActivateAddress(_)
        | Op::ReleaseAddress(_)
        | Op::CloseAddress(_)
        | Op::RetireAddress(_)
        | Op::SuppressForDomain(_)
        | Op::UnsuppressForDomain(_) => ShardKind::Directory,
        Op::RegisterRegion(_)
        | Op::RegisterNode(_)
        | Op::PlaceShard(_)
        | Op::AddDomain(_)
        | Op::RecordAudit(_)
        | Op::SetReplicas(_)
        | Op::SetHome(_)
        | Op::DrainNode(_)
        | Op::ActivateNode(_)
        | Op::RemoveNode(_)
        | Op::RemoveRegion(_)
        | Op::UpdateRegion(_)
        | Op::RemoveDomain(_)
        | Op::CancelOperation(_)
        | Op::RecordStep(_)
        | Op::FinishOperation(_)
        | Op::ReportBuild(_)
        | Op::SetVersion(_)
        | Op::RecordVersion(_)
        | Op::AddDkimKey(_)
        | Op::RetireDkimKey(_)
        | Op::RemoveDkimKey(_)
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
        | Op::StartSweep(_)
        | Op::AdvanceSweep(_) => ShardKind::Placement,
        Op::RaiseVersion(_) => return None,
    })
}
