//! `GET /v1/events`: WebSocket (RFC 6455).

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRef, FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use postrider_api::pb;
use postrider_api::pb::query;
use postrider_api::trace::{self, Context, Kind as SpanKind};
use postrider_router::{RouteError, WatchItem};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::account::token::Token;
use crate::rest::credentials::{self, Effect};
use crate::rest::events::frame::{Frame, Resync, ResyncType, Told};
use crate::rest::events::streams::{Place, Streams};
use crate::rest::events::{Since, begin};
use crate::rest::extract::{Params, Peer};
use crate::rest::limit::{
    CLIENT_FRAME_BYTES_MAX, FRAME_STALL_MAX, PING_INTERVAL, PONG_WAIT_MAX, SESSION_CHECK_INTERVAL,
};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::EventProblems;
use crate::rest::problem::{Kind, Problem};

/// The subprotocol.
pub(crate) const PROTOCOL: &str = "postrider.v1";
/// What a token is offered as among the subprotocols: browsers cannot set other fields.
const TOKEN_PROTOCOL: &str = "bearer.";

/// Why a stream ends, as close codes: RFC 6455 section 7.4.1, and 4000 to 4999 for our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The frontend stops: resume at another one.
    GoingAway,
    /// Something is wrong on our side.
    Internal,
    /// The shard does not answer: resume later.
    TryAgainLater,
    /// The session is over.
    Unauthenticated,
    /// `since` is too far back; the last frame says so.
    Resync,
}

impl Ending {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Ending::GoingAway => (1001, "this frontend is stopping"),
            Ending::Internal => (1011, "something is wrong on our side"),
            Ending::TryAgainLater => (1013, "the mailbox's shard does not answer now"),
            Ending::Unauthenticated => (4401, "the session is over"),
            Ending::Resync => (4410, "changes that far back are no longer kept"),
        };
        CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
    }
}

/// Whoever holds a token: in the Authorization field, among the subprotocols, or in a cookie.
pub(crate) struct StreamCaller(Caller);

impl<S> FromRequestParts<S> for StreamCaller
where
    Mailboxes: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let peer = Peer::from_request_parts(parts, state).await?;
        let token = match offered_token(&parts.headers) {
            Some(text) if !parts.headers.contains_key(AUTHORIZATION) => {
                Token::parse(text).ok_or_else(|| Problem::new(Kind::Unauthenticated))?
            }
            // Whatever page opens a stream reads it: no rule of browsers keeps it from another origin's.
            _ => credentials::token(parts, Effect::Changes)?,
        };
        Mailboxes::from_ref(state).caller(&token, peer).await.map(Self)
    }
}

fn offered_token(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|field| field.to_str().ok());
    let mut protocols = fields.flat_map(|field| field.split(',')).map(str::trim);
    protocols.find_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL))
}

/// Follow the changes of the mailbox, by WebSocket.
///
/// The token comes as `Authorization: Bearer`, or, from browsers, as a subprotocol: `Sec-WebSocket-Protocol: postrider.v1,
/// bearer.TOKEN`. The first frame says where the stream stands; each one's `modseq` resumes it, as `since`. A stream whose
/// `since` is too far back ends with a frame `{"type": "resync", "modseq": N}` and the code 4410; 4401 says that the session
/// is over, 1001 that this frontend stops, 1013 that the shard does not answer now.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "follow_events", tag = "events", params(Since),
    responses(
        (status = 101, description = "Text frames, each a `Frame`; the last may be a `Resync`"),
        EventProblems
    ),
    security(("token" = [])),
)]
pub(crate) async fn events(
    State(mailboxes): State<Mailboxes>,
    State(streams): State<Streams>,
    StreamCaller(caller): StreamCaller,
    Params(params): Params<Since>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| Problem::new(Kind::UpgradeRequired).detail(rejection.body_text()))?;
    let since = begin(&mailboxes, &caller, params.since).await?;
    let place = streams.open(caller.user)?;
    let upgrade =
        upgrade.protocols([PROTOCOL]).max_message_size(CLIENT_FRAME_BYTES_MAX).max_frame_size(CLIENT_FRAME_BYTES_MAX);
    let response = upgrade.on_upgrade(move |socket| async move {
        let changes = mailboxes.watch(&caller, since);
        let stream =
            Stream { socket, mailboxes, caller, changes, told: Told::since(since), heard: Instant::now(), place };
        stream.run().await;
    });
    Ok(response.into_response())
}

struct Stream {
    socket: WebSocket,
    mailboxes: Mailboxes,
    caller: Caller,
    changes: BoxStream<'static, Result<WatchItem, RouteError>>,
    told: Told,
    heard: Instant,
    place: Place,
}

/// The client is gone, or takes nothing: there is nobody to tell why.
struct Lost;

/// What ends a stream.
enum End {
    Told(Ending),
    Lost,
}

impl From<Lost> for End {
    fn from(_: Lost) -> Self {
        End::Lost
    }
}

impl Stream {
    async fn run(mut self) {
        if let End::Told(ending) = self.follow().await {
            self.close(ending).await;
        }
    }

    async fn follow(&mut self) -> End {
        let standing = Frame { modseq: self.told.position().0, changes: Vec::new() };
        if self.send_json(&standing).await.is_err() {
            return End::Lost;
        }
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        let mut check = interval_at(Instant::now() + SESSION_CHECK_INTERVAL, SESSION_CHECK_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                () = self.place.stopping() => Err(End::Told(Ending::GoingAway)),
                item = self.changes.next() => self.tell(item).await,
                message = self.socket.recv() => self.hear(message),
                _ = ping.tick() => self.ping().await.map_err(End::from),
                _ = check.tick() => self.check_session().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn tell(&mut self, item: Option<Result<WatchItem, RouteError>>) -> Result<(), End> {
        match item {
            Some(Ok(WatchItem::Changes(page))) => self.push(page).await,
            Some(Ok(WatchItem::Heartbeat(_))) => Ok(()),
            Some(Ok(WatchItem::Gone(modseq))) => {
                self.send_json(&Resync { kind: ResyncType::Resync, modseq: modseq.0 }).await?;
                Err(End::Told(Ending::Resync))
            }
            Some(Err(RouteError::Unauthenticated | RouteError::Suspended)) => Err(End::Told(Ending::Unauthenticated)),
            Some(Err(error)) => {
                tracing::info!(user = %self.caller.user, %error, "an event stream ends");
                Err(End::Told(Ending::TryAgainLater))
            }
            None => Err(End::Told(Ending::TryAgainLater)),
        }
    }

    /// Sends changes: the last step of the trace of what made the newest of them.
    async fn push(&mut self, page: pb::ChangePage) -> Result<(), End> {
        // A client that takes it slowly is no fault of ours.
        let mut span = trace::remote(Context::from_bytes(&page.trace), "push", SpanKind::Internal).patient();
        span.set("postrider.changes", page.changes.len());
        match self.told.frame(page) {
            Ok(Some(frame)) => Ok(span.scope(self.send_json(&frame)).await?),
            Ok(None) => Ok(()),
            Err(_) => Err(End::Told(Ending::Internal)),
        }
    }

    /// A client has nothing to say but that it is there, and that it goes.
    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match message {
            None | Some(Err(_) | Ok(Message::Close(_))) => Err(End::Lost),
            Some(Ok(_)) => {
                self.heard = Instant::now();
                Ok(())
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Lost> {
        if self.heard.elapsed() > PONG_WAIT_MAX {
            return Err(Lost);
        }
        self.send(Message::Ping(bytes::Bytes::new())).await
    }

    /// Whoever logs out, or lets his session expire, hears no more.
    async fn check_session(&mut self) -> Result<(), End> {
        let proof = &self.caller.proof;
        let get = pb::GetSession { user_id: proof.user_id.clone(), token_hash: proof.token_hash.clone() };
        match self.mailboxes.read(&self.caller, query::Query::GetSession(get), 0).await {
            Err(problem) if matches!(problem.kind(), Kind::Unauthenticated | Kind::NotFound) => {
                Err(End::Told(Ending::Unauthenticated))
            }
            // A shard that does not answer now is asked again; the stream itself says when it gives up.
            _ => Ok(()),
        }
    }

    async fn send_json(&mut self, frame: &impl Serialize) -> Result<(), Lost> {
        let text = serde_json::to_string(frame).map_err(|_| Lost)?;
        self.send(Message::text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Lost> {
        match tokio::time::timeout(FRAME_STALL_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Lost),
            Err(_) => {
                metrics::counter!("postrider_rest_streams_stalled_total").increment(1);
                Err(Lost)
            }
        }
    }

    async fn close(mut self, ending: Ending) {
        if self.send(Message::Close(Some(ending.frame()))).await.is_err() {
            return;
        }
        // The client's answer is awaited: closing with bytes unread would reset the connection under the close frame.
        let answer = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        if tokio::time::timeout(CLOSE_WAIT_MAX, answer).await.is_err() {
            tracing::debug!("a client did not answer the end of its event stream");
        }
    }
}

/// How long a client's answer to a close frame is awaited.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_among_subprotocols() {
        let headers = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(SEC_WEBSOCKET_PROTOCOL, field.parse().unwrap());
            }
            headers
        };
        assert_eq!(offered_token(&headers(&["postrider.v1, bearer.abc"])), Some("abc"));
        assert_eq!(offered_token(&headers(&["postrider.v1", "bearer.abc"])), Some("abc"));
        assert_eq!(offered_token(&headers(&["postrider.v1"])), None);
        assert_eq!(offered_token(&headers(&[])), None);
    }
}
