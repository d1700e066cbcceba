//! Changes as they happen: WebSocket, and long-poll as its fallback.
//!
//! Invariant: what a client is told is in modseq order; whoever asks again with the modseq of the last frame that he got is
//! told everything behind it, and nothing twice.
//! Invariant: one frame of a stream is in memory; a client that takes none is dropped, and resumes where it was.

pub(crate) mod frame;
pub(crate) mod poll;
pub(crate) mod streams;
pub(crate) mod websocket;

use postrider_api::id::ModSeq;
use postrider_api::pb::answer;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::rest::mailboxes::{Caller, Mailboxes, wrong_answer};
use crate::rest::problem::{Kind, Problem};
use crate::rest::profile::get_account;

/// Where a stream begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// Changes behind this one; from now on unless given.
    since: Option<u64>,
}

/// Where the stream begins, checked against the mailbox; the session is checked in the same read.
async fn begin(mailboxes: &Mailboxes, caller: &Caller, since: Option<u64>) -> Result<ModSeq, Problem> {
    let read = mailboxes.read(caller, get_account(caller), 0).await?;
    let answer::Answer::Account(account) = read.answer else { return Err(wrong_answer()) };
    match since {
        None => Ok(ModSeq(account.modseq)),
        // A replica that is behind cannot tell.
        Some(since) if since > account.modseq && read.freshness.is_current() => {
            let detail = format!("since is {since}, but the mailbox's newest change is {}", account.modseq);
            Err(Problem::new(Kind::InvalidQuery).detail(detail))
        }
        Some(since) => Ok(ModSeq(since)),
    }
}
