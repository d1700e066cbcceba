//! Whose mailbox a command changes or a query reads: a session opens its own and no other (P-9).

use bytes::Bytes;
use postrider_api::id::UserId;
use postrider_api::pb::{self, command::Op, query};

use crate::fault::{malformed, unauthenticated};

/// Refuses a session for another mailbox than its own, and for what belongs to no mailbox at all.
pub(crate) fn check(proof: &pb::SessionProof, subject: Option<&Bytes>) -> Result<(), pb::Fault> {
    match subject {
        Some(user) if *user == proof.user_id => Ok(()),
        _ => Err(unauthenticated()),
    }
}

/// A user id that a request carries.
pub(crate) fn user(user_id: &Bytes) -> Result<UserId, pb::Fault> {
    UserId::try_from(user_id).map_err(|error| malformed(error.to_string()))
}

/// The user whose mailbox a command changes in his own name.
pub(crate) fn of_command(command: &pb::Command) -> Option<&Bytes> {
    match command.op.as_ref()? {
        Op::UpdateProfile(c) => Some(&c.user_id),
        Op::OpenSession(c) => Some(&c.user_id),
        Op::CloseSession(c) => Some(&c.user_id),
        Op::CreateFolder(c) => Some(&c.user_id),
        Op::UpdateFolder(c) => Some(&c.user_id),
        Op::DeleteFolder(c) => Some(&c.user_id),
        Op::CreateLabel(c) => Some(&c.user_id),
        Op::UpdateLabel(c) => Some(&c.user_id),
        Op::DeleteLabel(c) => Some(&c.user_id),
        Op::UpdateMessages(c) => Some(&c.user_id),
        Op::Send(c) => Some(&c.user_id),
        Op::PlanSend(c) => Some(&c.user_id),
        Op::ChangePassword(c) => Some(&c.user_id),
        Op::EndSession(c) => Some(&c.user_id),
        Op::DeleteAccount(c) => Some(&c.user_id),
        Op::CreateAppPassword(c) => Some(&c.user_id),
        Op::DeleteAppPassword(c) => Some(&c.user_id),
        Op::UseAppPassword(c) => Some(&c.user_id),
        Op::BeginSecondFactor(c) => Some(&c.user_id),
        Op::ConfirmSecondFactor(c) => Some(&c.user_id),
        Op::ReplaceRecoveryCodes(c) => Some(&c.user_id),
        Op::RemoveSecondFactor(c) => Some(&c.user_id),
        Op::UseSession(c) => Some(&c.user_id),
        Op::SaveDraft(c) => Some(&c.user_id),
        Op::Suppress(c) => Some(&c.user_id),
        Op::Unsuppress(c) => Some(&c.user_id),
        Op::PinBlobs(c) => Some(&c.user_id),
        Op::CancelSend(c) => Some(&c.user_id),
        Op::UnpinBlobs(_)
        | Op::CondemnBlobs(_)
        | Op::PardonBlobs(_)
        | Op::StartSweep(_)
        | Op::AdvanceSweep(_)
        | Op::CreateAccount(_)
        | Op::Accept(_)
        | Op::Deliver(_)
        | Op::Settle(_)
        | Op::RecordFeedback(_)
        | Op::Forget(_)
        | Op::ManageQueue(_)
        | Op::ReserveAddress(_)
        | Op::ActivateAddress(_)
        | Op::ReleaseAddress(_)
        | Op::RegisterRegion(_)
        | Op::RegisterNode(_)
        | Op::PlaceShard(_)
        | Op::AddDomain(_)
        | Op::RecordAudit(_)
        | Op::SuspendAccount(_)
        | Op::SetCategory(_)
        | Op::ResumeAccount(_)
        | Op::DrainAccount(_)
        | Op::FinishDeletion(_)
        | Op::DropRecipient(_)
        | Op::CloseAddress(_)
        | Op::SuppressForDomain(_)
        | Op::UnsuppressForDomain(_)
        | Op::RetireAddress(_)
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
        | Op::RaiseVersion(_) => None,
    }
}

/// The user whose mailbox a query reads.
pub(crate) fn of_query(query: &pb::Query) -> Option<&Bytes> {
    match query.query.as_ref()? {
        query::Query::GetAccount(q) => Some(&q.user_id),
        query::Query::GetSession(q) => Some(&q.user_id),
        query::Query::ListFolders(q) => Some(&q.user_id),
        query::Query::ListMessages(q) => Some(&q.user_id),
        query::Query::ListLabels(q) => Some(&q.user_id),
        query::Query::ListLabelMessages(q) => Some(&q.user_id),
        query::Query::GetMessage(q) => Some(&q.user_id),
        query::Query::GetBody(q) => Some(&q.user_id),
        query::Query::ListThreads(q) => Some(&q.user_id),
        query::Query::GetThread(q) => Some(&q.user_id),
        query::Query::ListChanges(q) => Some(&q.user_id),
        query::Query::CheckRecipient(q) => Some(&q.user_id),
        query::Query::GetOutcome(q) => Some(&q.user_id),
        query::Query::ListSessions(q) => Some(&q.user_id),
        query::Query::ListAppPasswords(q) => Some(&q.user_id),
        query::Query::GetSecondFactor(q) => Some(&q.user_id),
        query::Query::Search(q) => Some(&q.user_id),
        query::Query::Suggest(q) => Some(&q.user_id),
        query::Query::ListOutbox(q) => Some(&q.user_id),
        query::Query::GetOutbox(q) => Some(&q.user_id),
        query::Query::ListFeedback(q) => Some(&q.user_id),
        query::Query::ListSuppressions(q) => Some(&q.user_id),
        query::Query::CheckSuppressed(q) => Some(&q.user_id),
        query::Query::GetSending(q) => Some(&q.user_id),
        // Its keys are for whoever lets programs in, and for no session.
        query::Query::GetCredentials(_)
        | query::Query::ListBlobs(_)
        | query::Query::ListDestinations(_)
        | query::Query::ListSweeps(_)
        | query::Query::ListQueue(_)
        | query::Query::ListFailed(_)
        | query::Query::GetQueueEntry(_)
        | query::Query::GetShardStats(_)
        | query::Query::FindMessageId(_)
        | query::Query::LookUpAddress(_)
        | query::Query::LocateUser(_)
        | query::Query::ListDomainSuppressions(_)
        | query::Query::CheckDomainSuppressed(_)
        | query::Query::GetShardMap(_)
        | query::Query::ListAudit(_)
        | query::Query::ListDeletions(_)
        | query::Query::FindRecipient(_)
        | query::Query::GetOperation(_)
        | query::Query::ListOperations(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_api::pb::fault::Fault;

    #[test]
    fn a_session_opens_its_own_mailbox_only() {
        let (ada, bob) = (Bytes::from_static(&[1; 16]), Bytes::from_static(&[2; 16]));
        let proof = pb::SessionProof { user_id: ada.clone(), token_hash: Bytes::from_static(&[9; 32]) };
        assert!(check(&proof, Some(&ada)).is_ok());
        for subject in [Some(&bob), None] {
            let refused = check(&proof, subject).unwrap_err();
            assert!(matches!(refused.fault, Some(Fault::Unauthenticated(_))));
        }
        let query = pb::Query {
            query: Some(query::Query::GetBody(pb::GetBody { user_id: bob.clone(), ..Default::default() })),
        };
        assert_eq!(of_query(&query), Some(&bob));
        let command = pb::Command { op: Some(Op::Accept(pb::Accept::default())), ..Default::default() };
        assert_eq!(of_command(&command), None);
    }
}
