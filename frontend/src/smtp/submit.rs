//! From a submission to a promise: repaired, parsed, its blobs durable in two regions, then one `Send` in the sender's own shard: his
//! copy in Sent, the deliveries there and the queue entry for everybody else, together or not at all.
//!
//! Invariant (P-1, P-6): as [`commit`](super::commit) has it; and no other shard stands in for the sender's, which has his copy.
//! Recipients of ours in other residency zones get it by a command in each of their zones before that, so that what cannot be
//! reached costs nothing (as REST's `crossing` has it; without a plan, since no client asks again under one id).

use std::collections::BTreeMap;

use bytes::Bytes;
use postrider_api::id::{RequestId, ZoneId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, MailCategory, answer, query};
use postrider_api::request::of_step;
use postrider_mime::CutBlob;
use postrider_router::ReadMode;

use super::command::Wishes;
use super::commit::{Blobs, Committer, home, to_pb};
use super::content::Finished;
use super::envelope::{Outside, Recipient, Submission, Transaction};
use super::header;
use super::repair::repair;
use super::reply::{QueueId, Reply};
use crate::account::programs::Program;
use crate::category;

impl Committer {
    /// Makes one submission durable.
    ///
    /// # Errors
    /// The reply to the end of the message.
    pub(super) async fn submit(&self, transaction: Transaction) -> Result<QueueId, Reply> {
        let Transaction { id, mail_from, recipients, message, submission, .. } = transaction;
        let Submission { program, wishes, utf8, outside } = submission.ok_or(Reply::Broken)?;
        let Finished { bytes, trace, share } = message;
        let repaired = repair(bytes, trace, &program.address)?;
        let fields = header::fields(&repaired)?;
        let said = category::of_header(fields.iter().map(|field| (field.name, field.value)));
        let category = said.unwrap_or(program.category);
        let ingested = self.ingest(repaired).await?;
        let (own, abroad) = by_zone(recipients, program.user.zone());
        if !abroad.is_empty() {
            self.check_room(&program, ingested.message.size).await?;
        }
        for (zone, recipients) in abroad {
            self.hand_over(id, zone, &mail_from, recipients, &ingested.message, &ingested.blobs).await?;
        }
        let quota = Some((program.user, program.shard, ingested.message.size));
        let mut blobs = Blobs::new(ingested.blobs, id.to_bytes(), quota);
        let send = pb::Send {
            user_id: program.user.to_bytes(),
            mail_from,
            recipients: own.into_iter().map(to_pb).chain(outside.into_iter().map(remote)).collect(),
            message: Some(ingested.message),
            answered: Bytes::new(),
            options: options(wishes, utf8, category),
            draft: Bytes::new(),
            limits: self.sending,
        };
        let command = self.command(id, Op::Send(send));
        let mut until = self.clock.monotonic().saturating_add(self.commit);
        let sent = self.entrust(program.shard, &mut blobs, command, self.commit, &mut until).await;
        // Accounted until the command is gone, which holds the text.
        drop(share);
        sent.map_err(|miss| miss.reply())
    }

    /// Has another zone take the message for its recipients.
    async fn hand_over(
        &self,
        whole: RequestId,
        zone: ZoneId,
        mail_from: &str,
        recipients: Vec<Recipient>,
        message: &pb::NewMessage,
        cut: &[CutBlob],
    ) -> Result<(), Reply> {
        let id = of_step(whole, &format!("zone {zone}"));
        let home = home(&recipients);
        let name = self.views.newest().zone(home).ok_or(Reply::NoQuorum)?;
        let accept = pb::Accept {
            mail_from: mail_from.to_owned(),
            recipients: recipients.into_iter().map(to_pb).collect(),
            message: Some(message.clone()),
            submitted: true,
        };
        let blobs = Blobs::new(cut.to_vec(), id.to_bytes(), None);
        self.accept(id, home, &name, blobs, self.command(id, Op::Accept(accept))).await.map(|_| ())
    }

    /// Whether the copy in Sent has room, before other zones have the message.
    async fn check_room(&self, program: &Program, size: u64) -> Result<(), Reply> {
        let question = query::Query::CheckRecipient(pb::CheckRecipient { user_id: program.user.to_bytes(), size });
        let asked = self.cluster.query(program.shard, None, question, ReadMode::Consistent, 0, self.commit).await;
        match asked.map(|answered| answered.answer.answer) {
            Ok(Some(answer::Answer::Recipient(state))) if state.over_quota => Err(Reply::QuotaExceeded),
            Ok(Some(answer::Answer::Recipient(_))) => Ok(()),
            Ok(_) => Err(Reply::Broken),
            Err(error) => {
                tracing::debug!(%error, "the sender's shard does not answer");
                Err(Reply::NoQuorum)
            }
        }
    }
}

/// Those of the sender's own zone, and those of each other one.
fn by_zone(recipients: Vec<Recipient>, own: ZoneId) -> (Vec<Recipient>, BTreeMap<ZoneId, Vec<Recipient>>) {
    let (here, there): (Vec<_>, Vec<_>) = recipients.into_iter().partition(|recipient| recipient.user.zone() == own);
    let mut abroad = BTreeMap::<ZoneId, Vec<Recipient>>::new();
    for recipient in there {
        abroad.entry(recipient.user.zone()).or_default().push(recipient);
    }
    (here, abroad)
}

fn remote(outside: Outside) -> pb::Recipient {
    pb::Recipient {
        user_id: Bytes::new(),
        address: outside.address.as_str().to_owned(),
        notify: outside.reports.notify.0,
        original: outside.reports.original,
    }
}

/// `None` where nothing is asked for.
fn options(wishes: Wishes, utf8: bool, category: MailCategory) -> Option<pb::SendOptions> {
    let options = pb::SendOptions {
        envelope_id: wishes.envelope_id,
        return_content: wishes.return_content.into(),
        require_tls: wishes.require_tls,
        smtp_utf8: utf8,
        category: category.into(),
        ..pb::SendOptions::default()
    };
    (options != pb::SendOptions::default()).then_some(options)
}
