//! `ctl queue return`: the sender is told, then the entry leaves the error queue.
//!
//! Invariant (P-6): the report's request id is made of the entry, so asking again after a lost answer makes no second report;
//! and the entry goes only once the report is in the sender's mailbox.

use std::ops::Range;
use std::pin::pin;

use anyhow::{Context as _, bail, ensure};
use futures::{TryStreamExt as _, stream};
use postrider_api::address::Address;
use postrider_api::env::{SystemClock, SystemEntropy, random};
use postrider_api::id::{BlobHash, BodyId, EntryId, ShardId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressStatus, QueueAction, answer::Answer, command::Op, query::Query};
use postrider_mime::dsn::{DeliveryReport, ReportedRecipient, Returned, delivery_report};
use postrider_mime::{self as mime, BlobReadError, BlobSource, BlobStream, IngestLimits};

use super::manage::{Meant, propose};
use super::{Choice, entry_of};
use crate::ctl::Verdict;
use crate::ctl::session::{DEADLINE, Session};

/// Bytes of the message that are read for its header.
const HEADER_BYTES_MAX: usize = 1024 * 1024;
const REQUEST_CONTEXT: &str = "postrider 2026 report of a returned queue entry";

pub(super) async fn run(session: &Session, choice: &Choice) -> anyhow::Result<Verdict> {
    let (shard, entry) = entry_of(&choice.entry)?;
    let asked = pb::GetQueueEntry { entry: entry.0, with_body: true };
    let found = match session.ask(shard.0, Query::GetQueueEntry(asked)).await? {
        Answer::QueueEntry(found) => found,
        Answer::NotFound(_) => bail!("{shard}-{entry} is in no queue"),
        other => bail!("shard {shard} gave an answer to another question: {other:?}"),
    };
    let failed = found.failed.with_context(|| format!("{shard}-{entry}: nobody of it was given up (queue give-up)"))?;
    let all = failed.recipients.iter().map(|recipient| (recipient.address.clone(), recipient.user_id.clone()));
    let meant = Meant::choose(all.collect(), &choice.recipient)?;
    ensure!(
        !failed.mail_from.is_empty(),
        "{shard}-{entry} has the null reverse-path: nobody is to be told (RFC 5321 section 4.5.5)"
    );
    let sender = Address::parse(&failed.mail_from).with_context(|| format!("the reverse-path {}", failed.mail_from))?;
    let work = async {
        let header = header(failed.message.as_ref(), found.body).await?;
        tell(session, &sender, shard, entry, &failed, &meant, header).await?;
        propose(session, shard, entry, &meant, true, QueueAction::Drop, "").await
    };
    let targets = [format!("queue entry {shard}-{entry}"), postrider_api::audit::address(&sender)];
    session.audited("queue.return", targets, work).await?;
    println!(
        "{shard}-{entry}: {} was told that it could not be delivered to {}.",
        sender.as_str(),
        meant.addresses.join(", ")
    );
    Ok(Verdict::Good)
}

/// Puts the report into the sender's inbox.
async fn tell(
    session: &Session,
    sender: &Address,
    shard: ShardId,
    entry: EntryId,
    failed: &pb::FailedRecord,
    meant: &Meant,
    header: Vec<u8>,
) -> anyhow::Result<()> {
    let domains = &session.map().domains;
    let is_ours = domains.iter().any(|domain| domain.name.eq_ignore_ascii_case(sender.domain()));
    ensure!(
        is_ours,
        "{} is outside of this service's domains, and this version sends nothing there: retry it or drop it",
        sender.as_str()
    );
    let found = session.router.look_up(sender, DEADLINE).await.context("ask the directory for the sender")?;
    let record = found
        .filter(|record| record.status() == AddressStatus::Active)
        .with_context(|| format!("nobody has the address {}", sender.as_str()))?;
    let request = report_request(shard, entry, &meant.addresses);
    let report = DeliveryReport {
        reporting_mta: sender.domain().to_owned(),
        to: sender.as_str().to_owned(),
        arrival_ms: failed.created_ms,
        date_ms: SystemClock::shared().wall_ms(),
        message_id: format!("{}@{}", hex::encode(request), sender.domain()),
        envelope_id: failed.options.as_ref().map(|options| options.envelope_id.clone()).unwrap_or_default(),
        recipients: failed
            .recipients
            .iter()
            .filter(|recipient| meant.addresses.contains(&recipient.address))
            .map(|recipient| ReportedRecipient {
                address: recipient.address.clone(),
                original: recipient.original.clone(),
                status: "5.0.0".to_owned(),
                reason: recipient.reason.clone(),
                ..ReportedRecipient::default()
            })
            .collect(),
        remark: session.operator.why.clone(),
        returned: Returned::Header(header),
    };
    let raw = delivery_report(&report);
    let ingested = mime::ingest(&raw.into(), BodyId(random(&SystemEntropy)), &IngestLimits::default());
    ensure!(ingested.blobs.is_empty(), "the report is too large");
    let command = pb::Command {
        request: request.to_vec().into(),
        entropy: random::<16>(&SystemEntropy).to_vec().into(),
        op: Some(Op::Accept(pb::Accept {
            mail_from: String::new(),
            recipients: vec![pb::Recipient {
                user_id: record.user_id,
                address: sender.as_str().to_owned(),
                ..Default::default()
            }],
            message: Some(ingested.message),
            submitted: false,
        })),
        ..pb::Command::default()
    };
    let outcome = session.router.propose(ShardId(record.shard), None, command, DEADLINE).await;
    match outcome.context("store the report")?.result {
        Some(Made::Accepted(_)) => Ok(()),
        Some(Made::Refused(refused)) => bail!("the sender's shard {}: {}", record.shard, refused.detail),
        other => bail!("shard {} gave an outcome of another kind: {other:?}", record.shard),
    }
}

/// The same for the same recipients of the same entry.
fn report_request(shard: ShardId, entry: EntryId, addresses: &[String]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(REQUEST_CONTEXT);
    hasher.update(&shard.0.to_be_bytes());
    hasher.update(&entry.0.to_be_bytes());
    for address in addresses {
        hasher.update(address.as_bytes());
        hasher.update(&[0]);
    }
    let mut request = [0; 16];
    hasher.finalize_xof().fill(&mut request);
    request
}

/// The header section of the message, as it arrived. Blobs are never part of it.
async fn header(message: Option<&pb::NewMessage>, body: Option<pb::BodyRecord>) -> anyhow::Result<Vec<u8>> {
    let message = message.context("the entry has no message")?;
    let stored = pb::StoredBody { pieces: message.pieces.clone(), parts: message.parts.clone(), body };
    let mut stream = pin!(mime::raw(&stored, &NoBlobs).await.context("read the message")?);
    let mut header = Vec::new();
    while header.len() < HEADER_BYTES_MAX
        && let Some(bytes) = stream.try_next().await.context("read the message's header")?
    {
        header.extend_from_slice(&bytes);
        if header.windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    Ok(header)
}

/// What a header needs of the blob stores: it ends before the first blob begins, which is opened and never read.
#[derive(Clone)]
struct NoBlobs;

impl BlobSource for NoBlobs {
    async fn read(&self, hash: BlobHash, _range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        Ok(Box::pin(stream::once(async move { Err(BlobReadError::Unavailable(hash)) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_own_request_id() {
        let ada = ["ada@x.example".to_owned()];
        let first = report_request(ShardId(1000), EntryId(7), &ada);
        assert_eq!(first, report_request(ShardId(1000), EntryId(7), &ada));
        assert_ne!(first, report_request(ShardId(1000), EntryId(8), &ada));
        assert_ne!(first, report_request(ShardId(1001), EntryId(7), &ada));
        assert_ne!(first, report_request(ShardId(1000), EntryId(7), &["bob@x.example".to_owned()]));
    }
}
