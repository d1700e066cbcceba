//! Rows as records: protobuf in, protobuf out, and what does not decode is named.

use bytes::Bytes;
use postrider_api::id::IdError;
use postrider_api::pb;
use prost::Message;

use crate::Broken;
use crate::key::{Key, KeyBytes, Table};
use crate::store::{Reader, Rows};

/// The record under `key`.
pub(crate) fn get<M: Message + Default>(reader: &impl Reader, key: Key) -> Result<Option<M>, Broken> {
    match reader.get(&key.bytes())? {
        Some(value) => decode(key, value).map(Some),
        None => Ok(None),
    }
}

/// The record under `key`, which another row says is there.
pub(crate) fn need<M: Message + Default>(reader: &impl Reader, key: Key) -> Result<M, Broken> {
    get(reader, key)?.ok_or_else(|| Broken::missing(key))
}

/// Sets a record.
pub(crate) fn put(rows: &mut impl Rows, key: Key, record: &impl Message) {
    rows.put(key.bytes(), record.encode_to_vec().into());
}

/// Sets a row whose key says everything.
pub(crate) fn put_empty(rows: &mut impl Rows, key: Key) {
    rows.put(key.bytes(), Bytes::new());
}

/// Removes a row.
pub(crate) fn delete(rows: &mut impl Rows, key: Key) {
    rows.delete(key.bytes());
}

/// A record from a row's value.
pub(crate) fn decode<M: Message + Default>(key: Key, value: Bytes) -> Result<M, Broken> {
    M::decode(value).map_err(|error| Broken::corrupt(key, error.to_string()))
}

/// A row of a scan.
pub(crate) fn decode_row<M: Message + Default>(key: KeyBytes, value: Bytes) -> Result<(Key, M), Broken> {
    let key = Key::decode(key.as_ref())?;
    Ok((key, decode(key, value)?))
}

/// An id inside the record under `key`.
pub(crate) fn id<'b, T>(key: Key, bytes: &'b Bytes) -> Result<T, Broken>
where
    T: TryFrom<&'b Bytes, Error = IdError>,
{
    T::try_from(bytes).map_err(|error| Broken::corrupt(key, error.to_string()))
}

/// Whether the value under a key is a record of the key's table.
///
/// # Errors
/// The key or the value does not decode; the error names which.
pub fn check(key: &[u8], value: &Bytes) -> Result<Key, Broken> {
    fn as_record<M: Message + Default>(key: Key, value: &Bytes) -> Result<Key, Broken> {
        decode::<M>(key, value.clone()).map(|_| key)
    }
    let key = Key::decode(key)?;
    match key.table() {
        Table::Shard => as_record::<pb::ShardRecord>(key, value),
        Table::Accounts => as_record::<pb::AccountRecord>(key, value),
        Table::Sessions => as_record::<pb::SessionRecord>(key, value),
        Table::AppPasswords => as_record::<pb::AppPasswordRecord>(key, value),
        Table::SecondFactors => as_record::<pb::SecondFactorRecord>(key, value),
        Table::Folders => as_record::<pb::FolderRecord>(key, value),
        Table::FolderEmails | Table::UnreadEmails | Table::ReadEmails | Table::FlaggedEmails => {
            as_record::<pb::ListRow>(key, value)
        }
        Table::Labels => as_record::<pb::LabelRecord>(key, value),
        Table::LabelUnread | Table::LabelRead | Table::LabelHidden => as_record::<pb::ListRow>(key, value),
        Table::Emails => as_record::<pb::EmailRecord>(key, value),
        Table::Attachments => as_record::<pb::AttachmentRecord>(key, value),
        Table::Uids => as_record::<pb::UidRecord>(key, value),
        Table::Threads => as_record::<pb::ThreadRecord>(key, value),
        Table::MessageIds => as_record::<pb::MessageIdRecord>(key, value),
        Table::References => as_record::<pb::ReferencesRecord>(key, value),
        Table::FolderThreads => as_record::<pb::ThreadRow>(key, value),
        Table::Changes => as_record::<pb::ChangeRecord>(key, value),
        Table::Tail => as_record::<pb::TailRecord>(key, value),
        Table::BodyHeads => as_record::<pb::BodyHead>(key, value),
        Table::Blobs => as_record::<pb::BlobRecord>(key, value),
        Table::Pins => as_record::<pb::PinRecord>(key, value),
        Table::Dedup => as_record::<pb::DedupRecord>(key, value),
        Table::Transfers => as_record::<pb::TransferRecord>(key, value),
        Table::Queue => as_record::<pb::QueueRecord>(key, value),
        Table::Failed => as_record::<pb::FailedRecord>(key, value),
        Table::MailboxLines | Table::ShardLines | Table::DestinationLines => as_record::<pb::LineRecord>(key, value),
        Table::QueueDestinations => as_record::<pb::DestinationRecord>(key, value),
        Table::QueueRecipients | Table::QueueSenders => as_record::<pb::QueueCount>(key, value),
        Table::Addresses => as_record::<pb::AddressRecord>(key, value),
        Table::Regions => as_record::<pb::Region>(key, value),
        Table::Nodes => as_record::<pb::Node>(key, value),
        Table::Shards => as_record::<pb::Shard>(key, value),
        Table::Domains => as_record::<pb::DomainRecord>(key, value),
        Table::Policies => as_record::<pb::Policy>(key, value),
        Table::PublicCertificates => as_record::<pb::PublicCertificate>(key, value),
        Table::Acme => as_record::<pb::AcmeRecord>(key, value),
        Table::Zones => as_record::<pb::Zone>(key, value),
        Table::Audit => as_record::<pb::AuditRecord>(key, value),
        Table::Deletions => as_record::<pb::DeletionRecord>(key, value),
        Table::DeletedUsers => as_record::<pb::DeletedRecord>(key, value),
        Table::Operations => as_record::<pb::Operation>(key, value),
        Table::RemovedNodes => as_record::<pb::RemovedNode>(key, value),
        Table::MapChanges => as_record::<pb::MapChange>(key, value),
        Table::Sweeps => as_record::<pb::Sweep>(key, value),
        Table::SentMessages => as_record::<pb::SentRecord>(key, value),
        Table::Feedback => as_record::<pb::FeedbackRecord>(key, value),
        Table::Sending => as_record::<pb::SendingRecord>(key, value),
        Table::Suppressions | Table::DomainSuppressions => as_record::<pb::SuppressionRecord>(key, value),
        Table::DomainSuppressionCounts => as_record::<pb::SuppressionCount>(key, value),
        // Whatever bytes the message has.
        Table::Bodies => Ok(key),
        Table::Tombstones
        | Table::PinsByExpiry
        | Table::DedupByExpiry
        | Table::TransfersByExpiry
        | Table::QueueByDue
        | Table::DestinationEntries
        | Table::Outbox
        | Table::SentByExpiry
        | Table::UserAddresses
        | Table::Quarantine => match value.len() {
            0 => Ok(key),
            found => Err(Broken::corrupt(key, format!("{found} bytes where none are written"))),
        },
    }
}

/// For fuzzing: any bytes decode to the key that encodes to them, or are refused.
///
/// # Panics
/// When a key decodes that does not encode to the same bytes: that is the finding.
pub fn fuzz_key(data: &[u8]) {
    if let Ok(key) = Key::decode(data) {
        assert_eq!(key.bytes().as_ref(), data, "{key:?} has two encodings");
    }
}

/// For fuzzing: the first byte chooses the table, the rest is a value; every record decoder is reached.
pub fn fuzz_record(data: &[u8]) {
    let Some((choice, value)) = data.split_first() else { return };
    let table = Table::ALL[usize::from(*choice) % Table::ALL.len()];
    let mut key = vec![table as u8];
    key.resize(1 + table.key_bytes(), 0);
    // The verdict does not matter here: that there is one, without a panic, does.
    drop(check(&key, &Bytes::copy_from_slice(value)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_value_decodes_or_is_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for table in 0..Table::ALL.len() {
                let mut data = data.clone();
                data.insert(0, table as u8);
                fuzz_record(&data);
            }
        }
    }

    #[test]
    fn a_corrupt_row_names_its_table_and_key() {
        let key = Key::Account(postrider_api::id::UserId([7; 16]));
        let error = check(key.bytes().as_ref(), &Bytes::from_static(&[0xff])).unwrap_err().to_string();
        assert!(error.contains("accounts") && error.contains(&hex::encode(key.bytes())), "{error}");
        let tombstone = Key::Tombstone(postrider_api::id::UserId([7; 16]), postrider_api::id::ModSeq(1));
        assert!(check(tombstone.bytes().as_ref(), &Bytes::from_static(b"x")).is_err());
    }
}
