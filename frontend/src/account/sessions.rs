//! The sessions of an account, for its owner to see and to end.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use postrider_api::env;
use postrider_api::id::RequestId;
use postrider_api::limit::SESSION_USE_MS;
use postrider_api::pb;
use postrider_api::pb::Refusal;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, query};
use postrider_api::request::session_id;
use postrider_router::ReadMode;

use crate::account::owner::Owner;
use crate::account::{AccountError, Accounts, STEP_MAX, unexpected};

/// One session as its owner sees it.
pub struct Listed {
    /// Says which, and opens nothing.
    pub id: [u8; 16],
    /// When it was opened, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it ends by itself.
    pub expires_at_ms: i64,
    /// Where it was opened from; `None` where that was not written down.
    pub peer: Option<IpAddr>,
    /// What the program called itself.
    pub user_agent: String,
    /// When it was last used, to within an hour, milliseconds since the Unix epoch; `None`: not since the hour in which it was opened.
    pub last_used_ms: Option<i64>,
    /// Whether it is the one that asks.
    pub is_current: bool,
}

impl Accounts {
    /// Every session of the account, the newest first.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn sessions(&self, owner: &Owner) -> Result<Vec<Listed>, AccountError> {
        let query = query::Query::ListSessions(pb::ListSessions { user_id: owner.user.to_bytes() });
        let session = Some(owner.proof.clone());
        let answered = self.cluster.query(owner.shard, session, query, ReadMode::Consistent, 0, STEP_MAX).await?;
        let Some(answer::Answer::Sessions(sessions)) = answered.answer.answer else {
            return Err(AccountError::Unexpected { step: "list sessions", answer: "another kind".to_owned() });
        };
        let own = <[u8; 32]>::try_from(owner.proof.token_hash.as_ref()).map(|hash| session_id(&hash)).ok();
        Ok(sessions.sessions.into_iter().filter_map(|line| listed(&line, own)).collect())
    }

    /// A session that was opened just now needs no note of its use.
    pub(super) fn note_opened(&self, token_hash: &Bytes) {
        self.is_use_due(token_hash);
    }

    /// Notes that a session is used, at most once an hour. It is not waited for, and lost where it cannot be written.
    pub fn note_use_of_session(&self, owner: &Owner) {
        if !self.is_use_due(&owner.proof.token_hash) {
            return;
        }
        let used = pb::UseSession { user_id: owner.user.to_bytes(), token_hash: owner.proof.token_hash.clone() };
        let command = pb::Command {
            request: RequestId(env::random(&*self.entropy)).to_bytes(),
            entropy: Bytes::copy_from_slice(&env::random::<16>(&*self.entropy)),
            op: Some(Op::UseSession(used)),
            ..pb::Command::default()
        };
        let (cluster, session) = (Arc::clone(&self.cluster), Some(owner.proof.clone()));
        let (user, shard) = (owner.user, owner.shard);
        tokio::spawn(async move {
            if let Err(error) = cluster.propose(shard, session, command, STEP_MAX).await {
                tracing::debug!(%user, %error, "the use of a session was not noted");
            }
        });
    }

    fn is_use_due(&self, token_hash: &Bytes) -> bool {
        let Ok(hash) = <[u8; 32]>::try_from(token_hash.as_ref()) else { return false };
        // Zero says that there was none.
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX).max(1);
        let hour = SESSION_USE_MS.unsigned_abs();
        let due = |before: u64| (before == 0 || now.saturating_sub(before) >= hour).then_some(now);
        self.uses.update(&hash, due).1
    }

    /// Ends one of them; it may be the one that asks.
    ///
    /// # Errors
    /// [`AccountError::NoSession`] where there is none of this id; see [`AccountError`].
    pub async fn end_session(&self, owner: &Owner, id: [u8; 16]) -> Result<(), AccountError> {
        let request = RequestId(env::random(&*self.entropy));
        let end = pb::EndSession { user_id: owner.user.to_bytes(), session_id: Bytes::copy_from_slice(&id) };
        let session = Some(owner.proof.clone());
        match self.step(owner.shard, session, request, Bytes::new(), Op::EndSession(end)).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.refusal() == Refusal::UnknownSession => Err(AccountError::NoSession),
            Err(refused) => Err(unexpected("end session", &refused)),
        }
    }
}

/// `None` for a line without an id or a session, which no shard writes.
fn listed(line: &pb::SessionLine, own: Option<[u8; 16]>) -> Option<Listed> {
    let id = line.session_id.as_ref().try_into().ok()?;
    let session = line.session.as_ref()?;
    Some(Listed {
        id,
        created_ms: session.created_ms,
        expires_at_ms: session.expires_at_ms,
        peer: session.peer.parse().ok(),
        user_agent: session.user_agent.clone(),
        last_used_ms: (session.last_used_ms > 0).then_some(session.last_used_ms),
        is_current: Some(id) == own,
    })
}
