//! Every limit that more than one room must agree on (P-13). Limits of one room live in that room.

/// A command as it stands in the log, bytes. Larger parts of any kind go to blob storage first.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// What the leader adds to a command, bytes: its time, as a field of the longest encoding. A proposer leaves room for it.
pub const STAMP_BYTES_MAX: usize = 11;
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
/// Labels of one user.
pub const LABELS_MAX: usize = 1000;
/// A label's name, bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 255;
/// Labels of one message: each has a line of a list of its own, which is written again with every flag.
pub const MESSAGE_LABELS_MAX: usize = 20;
/// What one command that changes messages writes into lists, bytes: labels and many addresses multiply what a flag costs.
pub const UPDATE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Sessions of one user; the oldest to expire goes when one more is opened.
pub const SESSIONS_MAX: usize = 100;
/// How often the use of a session is noted, milliseconds.
pub const SESSION_USE_MS: i64 = 60 * 60 * 1000;
/// A sealed secret of a second factor, bytes.
pub const SEALED_SECRET_BYTES_MAX: usize = 128;
/// Recovery codes of one user.
pub const RECOVERY_CODES_MAX: usize = 10;
/// How long a one-time password is shown, milliseconds (RFC 6238 section 5.2: 30 seconds are recommended).
pub const TOTP_STEP_MS: i64 = 30_000;
/// How far the time step of a code may be from the shard's clock, steps: clocks of frontends and of whoever has the secret differ.
pub const TOTP_STEPS_APART_MAX: u64 = 10;
/// Application passwords of one user.
pub const APP_PASSWORDS_MAX: usize = 50;
/// An application password's name, bytes.
pub const APP_PASSWORD_NAME_BYTES_MAX: usize = 100;
/// How often the use of an application password is noted, milliseconds: a log-in costs no command.
pub const APP_PASSWORD_USE_MS: i64 = 60 * 60 * 1000;
/// The fewest iterations of a SCRAM key. RFC 7677 section 4: at least 4,096. More would only cost: what is hashed are 130 random
/// bits.
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;
/// The most: whoever logs in makes a frontend and his own program work them off.
pub const SCRAM_ITERATIONS_MAX: u32 = 1_000_000;
/// An address, bytes. RFC 5321 section 4.5.3.1.3: a path of 256 with its brackets.
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Subject, preview and names as rows keep them, bytes.
pub const SUBJECT_BYTES_MAX: usize = 1000;
/// First words of a message in a list, bytes.
pub const PREVIEW_BYTES_MAX: usize = 256;
/// A person's name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Addresses kept of one header field in the message rows.
pub const HEADER_ADDRESSES_MAX: usize = 200;
/// Addresses of one header field in a line of a list: it is written up to three times, and read by the page.
pub const LIST_ADDRESSES_MAX: usize = 20;
/// MIME leaves kept of one message; what is beyond stays in the raw message.
pub const PARTS_MAX: usize = 1000;
/// Bytes of text in all of a search's words and phrases.
pub const SEARCH_TEXT_BYTES_MAX: usize = 4096;
/// How deep a search may nest.
pub const SEARCH_DEPTH_MAX: usize = 32;
/// Words, phrases and conditions of one search.
pub const SEARCH_NODES_MAX: usize = 200;
/// Hits that are counted exactly; more are "at least" so many.
pub const SEARCH_TOTAL_MAX: u64 = 10_000;
/// People in one answer to `Suggest`.
pub const SUGGESTIONS_MAX: u32 = 50;
/// How long blobs stay pinned for a command that does not come, milliseconds of the shard's time: longer than a message takes
/// from its last byte to its shard, however slow the stores are. Garbage of a writer that died goes with the next sweep after.
pub const PIN_MS: i64 = 60 * 60 * 1000;
/// Rows of one answer to `ListBlobs`.
pub const BLOB_ROWS_MAX: u32 = 1000;
/// Blobs of one batch that a sweep condemns: for as long as they are, nobody can send the same files again.
pub const SWEEP_BATCH_BLOBS_MAX: usize = 256;
/// How long a client's request id is remembered, milliseconds of command time.
pub const DEDUP_MS: i64 = DAY_MS;
/// A `Deliver` is carried out at most this long after its entry was leased, milliseconds: the source leader's clock at the
/// one end, the target's command time at the other. Longer than a worker holds on to what it leases.
pub const DELIVER_AGE_MS_MAX: i64 = 2 * 60 * 1000;
/// A transfer is forgotten at the earliest this long after the lease that it was settled under, milliseconds. What is between
/// the two is for clocks of leaders that differ: after a `Forget` no `Deliver` under that lease or an older one is taken (P-6).
pub const FORGET_AGE_MS_MIN: i64 = 5 * 60 * 1000;
/// A transfer whose `Forget` never came is remembered this long, milliseconds of command time.
pub const TRANSFER_MS: i64 = 10 * DAY_MS;
/// A recipient is delivered to at most this long after he certainly did not have the message, milliseconds. Below
/// [`TRANSFER_MS`] by far more than clocks differ and a lease lasts: whoever has it, his row is still there.
pub const UNDELIVERED_MS_MAX: i64 = 9 * DAY_MS;
/// A recipient who is deferred in an entry older than this is given up, milliseconds. RFC 5321 section 4.5.4.1: at least 4 to
/// 5 days.
pub const ENTRY_AGE_MS_MAX: i64 = 5 * DAY_MS;
/// A recipient whose mailbox has been too full for so long is given up, milliseconds.
pub const FULL_AGE_MS_MAX: i64 = 7 * DAY_MS;
/// Entries that wait in one shard's queue for one recipient. What comes beyond is refused for now.
pub const QUEUE_RECIPIENT_ENTRIES_MAX: u64 = 10_000;
/// The same, bytes of their messages. One message always fits.
pub const QUEUE_RECIPIENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Entries that wait in one shard's queue from one sender; the null reverse-path, which is everybody's, is not counted.
pub const QUEUE_SENDER_ENTRIES_MAX: u64 = 50_000;
/// The same, bytes of their messages.
pub const QUEUE_SENDER_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Entries of one shard's queue.
pub const QUEUE_ENTRIES_MAX: u64 = 1_000_000;
/// Entries of one shard's error queue. While it is full nobody more is given up.
pub const FAILED_ENTRIES_MAX: u64 = 1_000_000;
/// Who did something to the queue and why, bytes each.
pub const QUEUE_REMARK_BYTES_MAX: usize = 500;
/// The longest pause before an entry is tried again, milliseconds.
pub const RETRY_MS_MAX: u32 = 60 * 60 * 1000;
/// The longest lease of a queue entry, milliseconds: whatever a worker had that died waits for so long. Longer work prolongs it.
pub const LEASE_MS_MAX: u32 = 30 * 1000;
/// For so long a new leader gives nobody what an earlier one may have leased for the outside, milliseconds, so that whoever has it can go on
/// (ADR 116). Longer than any lease, by more than clocks go apart in one.
pub const LEASE_INHERITED_MS: u64 = 32 * 1000;
const _: () = assert!(LEASE_INHERITED_MS > LEASE_MS_MAX as u64);

/// The longest pause before somebody outside is tried again, milliseconds. RFC 5321 section 4.5.4.1 asks for 30 minutes at least; by
/// then most of what passes has passed.
pub const OUTGOING_RETRY_MS_MAX: u32 = 4 * 60 * 60 * 1000;
/// The pause after the first attempt, milliseconds: it doubles from one to the next.
pub const OUTGOING_RETRY_MS_MIN: u32 = 60 * 1000;
/// The longest pause of the one who is tried for a whole destination, milliseconds: shorter, since all of its mail waits behind him and
/// it costs the destination one connection.
pub const DESTINATION_RETRY_MS_MAX: u32 = 15 * 60 * 1000;
/// A worker gives somebody outside up whom it has tried for so long, milliseconds. RFC 5321 section 4.5.4.1: 4 to 5 days.
pub const OUTGOING_AGE_MS_MAX: i64 = 5 * DAY_MS;
/// The shard does it so long after, if no worker has.
pub const OUTGOING_AGE_GRACE_MS: i64 = 2 * DAY_MS;
/// The sender of a message that has waited for so long is told, milliseconds.
pub const DELAY_WARNING_MS: i64 = 4 * 60 * 60 * 1000;
/// What is sent may be cancelled until so long before the time before which nobody gets it, milliseconds: more than clocks of leaders
/// differ by.
pub const CANCEL_MARGIN_MS: i64 = 2000;
/// How far ahead mail may be sent, milliseconds: a year and a day.
pub const SEND_LATER_MS_MAX: i64 = 367 * DAY_MS;
/// Entries that wait in one shard's queue for one destination outside: one that takes nothing cannot fill the queue.
pub const QUEUE_DESTINATION_ENTRIES_MAX: u64 = 250_000;
const _: () = assert!(QUEUE_DESTINATION_ENTRIES_MAX < QUEUE_ENTRIES_MAX);
/// ENVID as given, bytes. RFC 3461 section 4.4: 100 characters.
pub const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// ORCPT as given, bytes. RFC 3461 section 4.2: 500 characters.
pub const ORIGINAL_RECIPIENT_BYTES_MAX: usize = 500;
/// What a peer said last, as the queue keeps it, bytes: a reply of one line (RFC 5321 section 4.5.3.1.5), and a sentence before it.
pub const PEER_REPLY_BYTES_MAX: usize = 1000;
/// DKIM keys of one domain, those that were retired with them: two algorithms, three generations and some.
pub const DKIM_KEYS_MAX: usize = 8;
/// A DKIM key's selector, bytes.
pub const DKIM_SELECTOR_BYTES_MAX: usize = 63;
/// A DKIM key, public or wrapped, bytes: RSA of 4096 bits in PKCS #8 has 2,400.
pub const DKIM_KEY_BYTES_MAX: usize = 4096;

/// Certificates of public authorities that one cluster has: all of them are in the shard map.
pub const PUBLIC_CERTIFICATES_MAX: usize = 128;
/// Names of one of them: what the largest authority issues.
pub const CERTIFICATE_NAMES_MAX: usize = 100;
/// A certificate and those above it in PEM, bytes: most have 4,000 to 8,000.
pub const CERTIFICATE_CHAIN_BYTES_MAX: usize = 32 * 1024;
/// Its private key, sealed, bytes.
pub const CERTIFICATE_KEY_BYTES_MAX: usize = 4096;
/// The token of a challenge and its answer together, bytes. RFC 8555 section 8.1: the answer has the token in it.
pub const ACME_ANSWER_BYTES_MAX: usize = 1024;
/// An account with an authority, bytes.
pub const ACME_ACCOUNT_BYTES_MAX: usize = 8192;
/// For how long one frontend alone may order certificates, milliseconds.
pub const ORDER_CLAIM_MS_MAX: i64 = 15 * 60 * 1000;

/// How long it is remembered whom a message went to outside, milliseconds: as long as its return path counts, and a day for clocks.
pub const SENT_MS: i64 = 16 * DAY_MS;
/// What came back of one user's mail that is kept, rows: older ones go.
pub const FEEDBACK_ROWS_MAX: usize = 1000;
/// Things that one command tells of a message, at most one a recipient.
pub const FEEDBACK_ITEMS_MAX: usize = RECIPIENTS_MAX;
/// Addresses of which one may be the recipient that is meant.
pub const FEEDBACK_ADDRESSES_MAX: usize = 20;
/// What is kept of what was said, bytes.
pub const FEEDBACK_DETAIL_BYTES_MAX: usize = 500;
/// Addresses that one user does not send to.
pub const SUPPRESSIONS_MAX: usize = 50_000;
/// Addresses that no account of one domain sends to.
pub const DOMAIN_SUPPRESSIONS_MAX: u64 = 100_000;
/// How long somebody is not sent to whom no host knew, milliseconds: addresses are given out anew.
pub const SUPPRESSED_HARD_MS: i64 = 90 * DAY_MS;
/// Days that are remembered of what a user sends, today with them.
pub const SENDING_DAYS_MAX: i64 = 15;
/// How many times as many recipients outside as on the busiest of those days are no spam yet.
pub const SENDING_GROWTH_MAX: u64 = 5;
/// How long an account is slowed, milliseconds.
pub const SLOWED_MS: i64 = 6 * 60 * 60 * 1000;
/// Recipients outside in an hour of an account that is slowed.
pub const SLOWED_RECIPIENTS_MAX: usize = 20;
/// How often an account is slowed before it is suspended.
pub const SLOWED_TIMES_MAX: u32 = 3;

/// How long nobody gets the address of an account that was deleted, milliseconds. Longer than mail for it may wait
/// ([`UNDELIVERED_MS_MAX`]): until then its id leads to the shard that knows that it was deleted.
pub const ADDRESS_QUARANTINE_MS: i64 = 30 * DAY_MS;
const _: () = assert!(ADDRESS_QUARANTINE_MS > UNDELIVERED_MS_MAX);
/// Rows of one account that one command of its deletion removes, a message with its body counted as one.
pub const DRAIN_ROWS_MAX: usize = 2000;
/// Entries that one command takes a deleted user out of.
pub const DROPPED_ENTRIES_MAX: usize = 200;
/// A client's name of itself, as a session keeps it, bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;
/// Records that the audit log keeps: a beginning and an end of 250 actions a day for [`AUDIT_MS`], some 60 MB.
pub const AUDIT_RECORDS_MAX: u64 = 200_000;
/// How long the audit log keeps a record, milliseconds: a year and the month in which it is looked through.
pub const AUDIT_MS: i64 = 400 * DAY_MS;

/// Nodes that one node is asked to ask whether they answer.
pub const PROBED_NODES_MAX: usize = 256;
/// Nodes of which one command says whether they answer.
pub const LIVENESS_NODES_MAX: usize = 1024;
/// No node is given up before it was silent for this long, milliseconds: a restart and an election take less.
pub const NODE_SILENT_MS_MIN: i64 = 5_000;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

const _: () = assert!(2 * DELIVER_AGE_MS_MAX < FORGET_AGE_MS_MIN);
const _: () = assert!(ENTRY_AGE_MS_MAX < UNDELIVERED_MS_MAX && UNDELIVERED_MS_MAX + DAY_MS <= TRANSFER_MS);

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
/// The weight of a region that takes its fair share of what is near to it.
pub const REGION_WEIGHT: u32 = 100;
/// The largest: a region that seems a hundred times as near as it is gets everything.
pub const REGION_WEIGHT_MAX: u32 = 10_000;
