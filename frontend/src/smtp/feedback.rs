//! What came back of mail that our users sent: recorded in the sender's shard before the message itself is taken.
//!
//! Invariant: nothing is recorded but what a return path of ours proves to be about a message of ours: that it came to one, or, of a
//! complaint, that the message that is complained of was sent with one. What is recorded once more changes nothing, so whoever brings a
//! message again, since it could not be stored, is told the same.

use bytes::Bytes;
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, outcome};
use postrider_api::request::of_step;
use postrider_mime::dsn::{complained, complaint, returned};
use postrider_outgoing::return_path::{Origin, ReturnPaths};

use super::commit::Committer;
use super::envelope::Recipient;
use super::limit::INLINE_INGEST_BYTES_MAX;
use super::reply::Reply;

/// What a complaint is in (RFC 5965 section 2).
const FEEDBACK_REPORT: &str = "message/feedback-report";

/// What came back of one message of ours.
struct Came {
    origin: Origin,
    items: Vec<pb::Feedback>,
}

impl Committer {
    /// Records what a message that came in says of mail of ours; most say nothing of any.
    ///
    /// # Errors
    /// The reply to the end of the message, where it cannot be recorded now.
    pub(super) async fn take_feedback(
        &self,
        whole: RequestId,
        recipients: &[Recipient],
        raw: &Bytes,
        message: &pb::NewMessage,
    ) -> Result<(), Reply> {
        let origins: Vec<Origin> = recipients.iter().filter_map(|recipient| recipient.returned).collect();
        let is_complaint = message.parts.iter().any(|part| part.content_type == FEEDBACK_REPORT);
        if origins.is_empty() && !is_complaint {
            return Ok(());
        }
        let (raw, paths, now_ms) = (raw.clone(), self.return_paths.clone(), self.clock.wall_ms());
        let read = move || read(&raw, &origins, is_complaint, paths.as_ref(), now_ms);
        let came = if message.size <= INLINE_INGEST_BYTES_MAX as u64 {
            read()
        } else {
            tokio::task::spawn_blocking(read).await.map_err(|error| {
                tracing::error!(%error, "what came back could not be read");
                Reply::Broken
            })?
        };
        for Came { origin, items } in came {
            self.record(whole, &origin, items).await?;
        }
        Ok(())
    }

    async fn record(&self, whole: RequestId, origin: &Origin, items: Vec<pb::Feedback>) -> Result<(), Reply> {
        let Some(shard) = self.shard_of(origin).await? else { return Ok(()) };
        let id = of_step(whole, &format!("feedback {}-{}", origin.entry, origin.recipient));
        let record = pb::RecordFeedback {
            user_id: origin.sender.to_bytes(),
            entry: origin.entry.0,
            recipient: origin.recipient.into(),
            items,
        };
        let command = self.command(id, Op::RecordFeedback(record));
        let proposed = self.cluster.propose(shard, None, command, self.commit).await;
        let result = match proposed.map(|outcome| outcome.result) {
            Ok(Some(outcome::Result::FeedbackRecorded(recorded))) if !recorded.is_known => "unknown",
            Ok(Some(outcome::Result::FeedbackRecorded(recorded))) if recorded.recorded == 0 => "known",
            Ok(Some(outcome::Result::FeedbackRecorded(_))) => "recorded",
            Ok(other) => {
                tracing::error!(shard = shard.0, ?other, "what came back of a message was not recorded");
                return Err(Reply::Broken);
            }
            Err(error) => {
                tracing::info!(shard = shard.0, %error, "what came back of a message is not recorded yet");
                return Err(Reply::NoQuorum);
            }
        };
        metrics::counter!("postrider_feedback_total", "result" => result).increment(1);
        Ok(())
    }

    /// `None`: the account has gone meanwhile.
    async fn shard_of(&self, origin: &Origin) -> Result<Option<ShardId>, Reply> {
        self.cluster.locate(origin.sender, self.commit).await.map_err(|error| {
            tracing::warn!(%error, "the directory did not answer where a sender lives");
            Reply::NoQuorum
        })
    }
}

fn read(raw: &[u8], origins: &[Origin], is_complaint: bool, paths: Option<&ReturnPaths>, now_ms: i64) -> Vec<Came> {
    let complaint = if is_complaint { complaint(raw) } else { None };
    if let Some(complaint) = complaint {
        let Some(item) = complained(&complaint) else { return Vec::new() };
        // Whom the message that is complained of was sent to, by the path that it was sent with.
        let named = [&complaint.return_path, &complaint.mail_from].into_iter();
        let proven = named.filter_map(|path| paths?.read(path, now_ms)?.ok()).next();
        let origin = proven.or(origins.first().copied());
        if origin.is_none() {
            metrics::counter!("postrider_feedback_total", "result" => "unproven").increment(1);
        }
        return origin.map(|origin| Came { origin, items: vec![item] }).into_iter().collect();
    }
    let items = if origins.is_empty() { Vec::new() } else { returned(raw) };
    if items.is_empty() {
        return Vec::new();
    }
    origins.iter().map(|origin| Came { origin: *origin, items: items.clone() }).collect()
}
