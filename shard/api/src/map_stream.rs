//! A stream of the shard map's updates, taken in no faster than they can be used.
//!
//! Invariant: whoever follows the map spends at most a fifth of one core on it, however fast it changes: what has come meanwhile is taken in
//! together (P-13).

use std::time::Duration;

use tonic::{Status, Streaming};

use crate::map;
use crate::pb::MapUpdate;

/// After an update the follower rests so many times as long as it took to take it in.
const REST: u32 = 4;
/// It rests no longer than this.
const REST_MAX: Duration = Duration::from_secs(2);

/// The updates that one node sends.
pub struct MapUpdates {
    stream: Streaming<MapUpdate>,
    rest: Duration,
    /// Taken from the stream, and does not go together with what came before it.
    next: Option<MapUpdate>,
}

impl MapUpdates {
    /// Of a stream that has just been opened.
    pub fn new(stream: Streaming<MapUpdate>) -> Self {
        Self { stream, rest: Duration::ZERO, next: None }
    }

    /// All that has come; waits for the first of it. `None` at the end of the stream.
    ///
    /// # Errors
    /// When the stream has ended with one.
    pub async fn next(&mut self) -> Result<Option<MapUpdate>, Status> {
        tokio::time::sleep(std::mem::take(&mut self.rest)).await;
        let first = match self.next.take() {
            Some(first) => Some(first),
            None => self.stream.message().await?,
        };
        let Some(mut sum) = first else { return Ok(None) };
        while let Some(next) = self.ready().await? {
            match map::together(sum, next) {
                Ok(both) => sum = both,
                Err((first, second)) => {
                    self.next = Some(second);
                    return Ok(Some(first));
                }
            }
        }
        Ok(Some(sum))
    }

    /// What the last update took to take in.
    pub fn took(&mut self, took: Duration) {
        self.rest = took.saturating_mul(REST).min(REST_MAX);
    }

    /// What has come already. The end of the stream is told by the next call that waits.
    async fn ready(&mut self) -> Result<Option<MapUpdate>, Status> {
        tokio::select! {
            biased;
            message = self.stream.message() => message,
            () = std::future::ready(()) => Ok(None),
        }
    }
}
