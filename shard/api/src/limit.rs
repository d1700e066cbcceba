//! Every limit that more than one room must agree on (P-13). Limits of one room live in that room.

/// A command as it stands in the log, bytes. Larger parts of any kind go to blob storage first.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// A message as it arrives, bytes. RFC 5321 section 4.5.3.1.7 asks for at least 64 KiB; 35 MiB is what an attachment of
/// 25 MiB needs in base64.
pub const MESSAGE_BYTES_MAX: u64 = 35 * 1024 * 1024;
/// A part whose decoded form is at least this large goes to blob storage, bytes.
pub const BLOB_BYTES_MIN: usize = 128 * 1024;
/// Recipients of one transaction. RFC 5321 section 4.5.3.1.8: at least 100.
pub const RECIPIENTS_MAX: usize = 100;
/// Ids taken from References, newest kept.
pub const REFERENCES_MAX: usize = 100;
/// Rows of one list page.
pub const PAGE_ROWS_MAX: u32 = 200;
/// Messages changed by one command.
pub const UPDATES_MAX: usize = 1000;
/// Folders of one user.
pub const FOLDERS_MAX: usize = 1000;
/// A folder name, bytes.
pub const FOLDER_NAME_BYTES_MAX: usize = 255;
/// Sessions of one user; the oldest to expire goes when one more is opened.
pub const SESSIONS_MAX: usize = 100;
/// An address, bytes. RFC 5321 section 4.5.3.1.3: a path of 256 with its brackets.
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Subject, preview and names as rows keep them, bytes.
pub const SUBJECT_BYTES_MAX: usize = 1000;
/// First words of a message in a list, bytes.
pub const PREVIEW_BYTES_MAX: usize = 256;
/// A person's name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Addresses kept of one header field in the list and message rows.
pub const HEADER_ADDRESSES_MAX: usize = 200;
/// MIME leaves kept of one message; what is beyond stays in the raw message.
pub const PARTS_MAX: usize = 1000;
/// How long a client's request id is remembered, milliseconds of command time.
pub const DEDUP_MS: i64 = 24 * 60 * 60 * 1000;
/// What a delivery may take a mailbox over its quota by, bytes: `Deliver` never bounces for quota.
pub const QUOTA_OVERRUN_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A new account's quota, bytes.
pub const QUOTA_BYTES_DEFAULT: u64 = 15 * 1024 * 1024 * 1024;
/// Tombstones kept of one user's change feed; older ones raise its floor.
pub const TOMBSTONES_MAX: u64 = 10_000;
/// One gRPC request to a storage node, bytes: a command and what goes with it.
pub const REQUEST_BYTES_MAX: usize = COMMAND_BYTES_MAX + 64 * 1024;
/// One gRPC reply or stream event of a storage node, bytes.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The shard map, bytes: about 500,000 shards, after which cells take over.
pub const MAP_BYTES_MAX: usize = 64 * 1024 * 1024;
