//! The WebSocket of one user at one region.

use futures::StreamExt as _;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::DEADLINE;
use super::rest::Api;

/// An open event stream.
pub struct Events {
    stream: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Events {
    /// From `since` on; without it, from now on.
    pub async fn open(user: &Api, since: Option<u64>) -> Self {
        Self::try_open(user, since).await.expect("open a WebSocket")
    }

    /// The same, where the server may not take it.
    pub async fn try_open(user: &Api, since: Option<u64>) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let base = user.base.replace("http://", "ws://");
        let query = since.map_or_else(String::new, |since| format!("?since={since}"));
        let mut request = format!("{base}/v1/events{query}").into_client_request()?;
        let token = format!("Bearer {}", user.token).parse().expect("a token fits into a header");
        request.headers_mut().insert("Authorization", token);
        Ok(Self { stream: tokio_tungstenite::connect_async(request).await?.0 })
    }

    /// The next frame; `None` when the stream has ended, in whatever way.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a frame in time")?.ok()?;
            if message.is_text() {
                return Some(serde_json::from_str(message.to_text().expect("text")).expect("JSON"));
            }
            if message.is_close() {
                return None;
            }
        }
    }

    /// The next frame that tells of a message, and which one.
    pub async fn next_message(&mut self) -> (Value, String) {
        loop {
            let frame = self.next().await.expect("the stream goes on");
            let changes = frame["changes"].as_array().cloned().unwrap_or_default();
            if let Some(id) = changes.iter().find_map(|change| change["message_id"].as_str()) {
                return (frame, id.to_owned());
            }
        }
    }
}
