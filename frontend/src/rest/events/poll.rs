//! `GET /v1/events/poll`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures::StreamExt;
use postrider_api::id::ModSeq;
use postrider_router::WatchItem;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::rest::events::begin;
use crate::rest::events::frame::{Frame, Told};
use crate::rest::events::streams::{Place, Streams};
use crate::rest::extract::Params;
use crate::rest::limit::{POLL_S_DEFAULT, POLL_S_MAX};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::EventProblems;
use crate::rest::problem::{Kind, Problem};

/// How long to wait, and for what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PollParams {
    /// Changes behind this one. Without it the answer comes at once and says where the mailbox stands.
    since: Option<u64>,
    /// How long to wait for a change, 0 to 60 seconds; 30 unless given.
    #[param(minimum = 0, maximum = 60)]
    timeout_s: Option<u32>,
}

/// Wait for changes.
#[utoipa::path(
    get, path = "/v1/events/poll", operation_id = "poll_events", tag = "events", params(PollParams),
    responses((status = 200, description = "Changes, or none when the time is over", body = Frame), EventProblems),
    security(("token" = [])),
)]
pub(crate) async fn poll(
    State(mailboxes): State<Mailboxes>,
    State(streams): State<Streams>,
    caller: Caller,
    Params(params): Params<PollParams>,
) -> Result<Json<Frame>, Problem> {
    let wait_s = params.timeout_s.unwrap_or(POLL_S_DEFAULT);
    if wait_s > POLL_S_MAX {
        return Err(Problem::new(Kind::InvalidQuery).detail(format!("timeout_s is 0 to {POLL_S_MAX}")));
    }
    let since = begin(&mailboxes, &caller, params.since).await?;
    if params.since.is_none() {
        return Ok(Json(Frame { modseq: since.0, changes: Vec::new() }));
    }
    let place = streams.open(caller.user)?;
    let waiting = first_frame(&mailboxes, &caller, since, &place);
    let wait = Duration::from_secs(u64::from(wait_s)).max(FIRST_LOOK_MIN);
    match tokio::time::timeout(wait, waiting).await {
        Ok(frame) => frame.map(Json),
        Err(_) => Ok(Json(Frame { modseq: since.0, changes: Vec::new() })),
    }
}

/// `timeout_s=0` asks for what is there already: that takes a round trip, too.
const FIRST_LOOK_MIN: Duration = Duration::from_secs(1);

async fn first_frame(mailboxes: &Mailboxes, caller: &Caller, since: ModSeq, place: &Place) -> Result<Frame, Problem> {
    let mut told = Told::since(since);
    let mut changes = mailboxes.watch(caller, since);
    loop {
        let item = tokio::select! {
            item = changes.next() => item,
            () = place.stopping() => return Ok(Frame { modseq: since.0, changes: Vec::new() }),
        };
        match item {
            Some(Ok(WatchItem::Changes(page))) => {
                if let Some(frame) = told.frame(page)? {
                    return Ok(frame);
                }
            }
            Some(Ok(WatchItem::Heartbeat(_))) => {}
            Some(Ok(WatchItem::Gone(modseq))) => {
                return Err(Problem::new(Kind::ResyncRequired).member("modseq", modseq.0));
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Problem::new(Kind::Unavailable)),
        }
    }
}
