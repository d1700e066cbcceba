//! Every limit of the SMTP server (P-13). What several rooms must agree on is in `postrider_api::limit`.

use std::time::Duration;

use postrider_api::limit::{ADDRESS_BYTES_MAX, MESSAGE_BYTES_MAX};

/// A command line with its CRLF, bytes. RFC 5321 section 4.5.3.1.4.
pub const COMMAND_BYTES_MAX: usize = 512;
/// The same for MAIL and RCPT, whose parameters add up (RFC 1870, 3461, 6152, 6531 each lengthen the line).
pub const PATH_COMMAND_BYTES_MAX: usize = 2048;
/// MAIL FROM, bytes: an address, or a source route that an old sender put before it. What a shard takes of an `Accept`; a path
/// that only the shard refused would cost the client its whole message first.
pub const SENDER_BYTES_MAX: usize = 2 * ADDRESS_BYTES_MAX;
/// ENVID, bytes. RFC 3461 section 4.4.
pub const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// The address of ORCPT, bytes. RFC 3461 section 4.2: 500 with its type.
pub const ORIGINAL_BYTES_MAX: usize = 480;
/// Exchanges of one connection that let nobody in.
pub const AUTH_FAILURES_MAX: u32 = 3;
/// What is thrown away of one command line that is too long before the connection is, bytes.
pub const LINE_DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// What is thrown away of one refused message or chunk before the connection is, bytes: a client that is told "too large"
/// only at the end should still be told.
pub const CONTENT_DISCARD_BYTES_MAX: u64 = 4 * MESSAGE_BYTES_MAX;
/// The header section of a message, bytes.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Header fields of a message.
pub const HEADER_FIELDS_MAX: usize = 10_000;
/// Received fields of a message. RFC 5321 section 6.3: a loop limit should be at least 100.
pub const HOPS_MAX: usize = 100;
/// What the server puts on top of a message, bytes: a path and names that came in command lines, in two fields. What a shard
/// takes beyond `MESSAGE_BYTES_MAX`.
pub const TRACE_BYTES_MAX: usize = 64 * 1024;
/// Commands of one connection between two accepted messages.
pub const COMMANDS_IDLE_MAX: u32 = 2_000;
/// Commands of one connection altogether.
pub const COMMANDS_MAX: u32 = 10_000_000;
/// Commands of one connection that were no commands, or out of order.
pub const ERRORS_MAX: u32 = 20;
/// Recipients that one connection may name in vain: more is a harvest of addresses.
pub const RECIPIENTS_REFUSED_MAX: u32 = 200;
/// Replies that wait to be written, bytes; past it they go out before more input is looked at.
pub const REPLIES_BYTES_MAX: usize = 16 * 1024;
/// Directory questions of one connection at once: pipelined RCPTs are answered together.
pub const QUESTIONS_AT_ONCE_MAX: usize = 16;
/// A message larger than this is parsed on a blocking thread, bytes; a smaller one takes less than the hand-over is worth.
pub const INLINE_INGEST_BYTES_MAX: usize = 256 * 1024;
/// Large messages parsed at once.
pub const INGESTS_AT_ONCE_MAX: usize = 4;
/// What parsing takes beyond the messages themselves, bytes: each large one may have its decoded parts beside it, which are
/// never longer than it is. Small ones are parsed one a thread, and take less than [`INLINE_INGEST_BYTES_MAX`] of it.
pub const INGEST_BYTES_MAX: u64 = INGESTS_AT_ONCE_MAX as u64 * MESSAGE_BYTES_MAX;
/// What is read from a socket at once while a message comes in, bytes. Part of what the message is accounted for.
pub const READ_BYTES: usize = 64 * 1024;
/// The same while commands come in, bytes: an idle connection must be cheap.
pub const COMMAND_READ_BYTES: usize = 4 * 1024;
/// The message bytes of one peer network: one part in so many of those of all.
pub const PEERS_THAT_FILL_MEMORY: usize = 8;

/// How long a recipient is refused at RCPT after a shard said that as much mail waits for him as may. Longer than most senders
/// wait before their second try, which would fail as a whole again.
pub const CONGESTED: Duration = Duration::from_secs(30 * 60);
/// Such recipients that are remembered.
pub const CONGESTED_RECIPIENTS_MAX: u64 = 10_000;

/// Connections of one client network in a minute, unless the configuration says otherwise: a hundred a second.
pub const CONNECTIONS_PER_NETWORK_PER_MINUTE: u32 = 6_000;
/// Messages of one client network in a minute, unless the configuration says otherwise: a thousand a second.
pub const MESSAGES_PER_NETWORK_PER_MINUTE: u32 = 60_000;

/// Messages that one account sends in an hour, unless the configuration says otherwise.
pub const MESSAGES_PER_ACCOUNT_PER_HOUR: u32 = 600;
/// Their recipients.
pub const RECIPIENTS_PER_ACCOUNT_PER_HOUR: u32 = 3_000;

const CONTENT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What an operator may change.
#[derive(Debug, Clone)]
pub struct SmtpLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections from one IPv4 address or IPv6 /64; a /48 gets [`SITE_FACTOR`](crate::network::SITE_FACTOR) times as many, at most half
    /// of all.
    pub connections_per_peer_max: usize,
    /// Messages of all connections in memory until they are stored, bytes, accounted as [`accounted`](super::content::accounted)
    /// says. What is not in it: [`INGEST_BYTES_MAX`] of decoded parts, and [`COMMAND_READ_BYTES`] a connection. By default
    /// that is 512 MiB + 4 * 35 MiB + 4,096 * 4 KiB = 668 MiB.
    pub content_bytes_max: usize,
    /// The part of them that one IPv4 address or IPv6 /64 may have, bytes; a /48 as for connections. One message always fits.
    pub content_bytes_per_peer_max: usize,
    /// A message, bytes; announced in EHLO. At most `MESSAGE_BYTES_MAX`.
    pub message_bytes_max: u64,
    /// A whole command may take this long to come, from the reply before it to its end. RFC 5321 section 4.5.3.2.7: at least
    /// five minutes.
    pub idle: Duration,
    /// A message may take this long to come in, from DATA or its first chunk to its end.
    pub content: Duration,
    /// A message comes in at least this fast, bytes a second, measured over `content_grace`.
    pub content_bytes_per_second_min: u32,
    /// A message may fall behind that rate for this long, and so may stand still. RFC 5321 section 4.5.3.2.5: a client gives
    /// up a block of data after three minutes.
    pub content_grace: Duration,
    /// A connection may last this long.
    pub connection: Duration,
    /// A reply may take this long to be taken by the client.
    pub write: Duration,
    /// A TLS handshake may take this long.
    pub handshake: Duration,
    /// From the end of a message to its reply when the cluster does not answer. No quorum must be told within 5 s, and the question for
    /// the recipient's room may have taken a second of them.
    pub commit: Duration,
    /// The recipient's own shard gets this part of `commit` before another takes the message (P-5).
    pub commit_home: Duration,
    /// Storing a message's blobs in two regions may take this long, and longer by their size.
    pub blobs: Duration,
    /// A directory question may take this long before the recipient is put off with 451.
    pub question: Duration,
    /// A question for a mailbox's quota; skipped when it takes longer (P-5).
    pub quota_question: Duration,
    /// How long the directory's "yes" is believed without asking again.
    pub recipient_trusted: Duration,
    /// How long a mailbox's "there is room" is believed without asking again.
    pub room_trusted: Duration,
    /// Addresses whose "yes" is remembered.
    pub recipients_remembered_max: usize,
    /// What one network may bring to the object stores in an hour, bytes, at this frontend: 18 MiB a second for all of it.
    pub network_blob_bytes_per_hour_max: u64,
    /// What may come for one recipient's mailbox in an hour, bytes, the same: a seventh of the usual quota.
    pub recipient_blob_bytes_per_hour_max: u64,
    /// Draining waits this long for transactions in progress.
    pub drain: Duration,
}

impl Default for SmtpLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 512,
            content_bytes_max: CONTENT_BYTES_MAX,
            content_bytes_per_peer_max: CONTENT_BYTES_MAX / PEERS_THAT_FILL_MEMORY,
            message_bytes_max: MESSAGE_BYTES_MAX,
            idle: Duration::from_secs(300),
            content: Duration::from_secs(30 * 60),
            content_bytes_per_second_min: 4 * 1024,
            content_grace: Duration::from_secs(180),
            connection: Duration::from_secs(4 * 60 * 60),
            write: Duration::from_secs(60),
            handshake: Duration::from_secs(30),
            commit: Duration::from_millis(3600),
            commit_home: Duration::from_millis(2200),
            blobs: Duration::from_millis(4500),
            question: Duration::from_millis(4500),
            quota_question: Duration::from_millis(1000),
            recipient_trusted: Duration::from_secs(30),
            room_trusted: Duration::from_secs(1),
            recipients_remembered_max: 50_000,
            network_blob_bytes_per_hour_max: 64 * 1024 * 1024 * 1024,
            recipient_blob_bytes_per_hour_max: 2 * 1024 * 1024 * 1024,
            drain: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postrider_api::address::Address;
    use postrider_api::id::{ShardId, UserId, ZoneId};
    use postrider_api::pb::{self, Refusal, command::Op, outcome};
    use postrider_shard::store::{MemoryStore, Txn};

    use super::super::content::accounted;
    use super::*;

    #[test]
    fn the_largest_message_fits_in_a_peers_part() {
        let limits = SmtpLimits::default();
        let largest = usize::try_from(MESSAGE_BYTES_MAX).unwrap();
        assert!(accounted(largest + TRACE_BYTES_MAX) <= limits.content_bytes_per_peer_max);
        assert!(limits.content_bytes_per_peer_max * PEERS_THAT_FILL_MEMORY <= limits.content_bytes_max);
    }

    #[test]
    fn the_largest_message_may_come_as_slowly_as_the_whole_time_allows() {
        let limits = SmtpLimits::default();
        let slowest = MESSAGE_BYTES_MAX / limits.content.as_secs();
        assert!(u64::from(limits.content_bytes_per_second_min) * 4 < slowest);
    }

    /// What a shard says of a message from a sender of so many bytes.
    fn refusal(sender_bytes: usize) -> Option<pb::Refused> {
        let ada = Address::parse("ada@postrider.example").unwrap();
        let raw = Bytes::from_static(b"\r\n");
        let message = postrider_mime::ingest(&raw, postrider_api::id::BodyId([1; 16]), &Default::default()).message;
        let recipient = pb::Recipient {
            user_id: UserId::new(ZoneId(1), ada.slot(), [1; 12]).to_bytes(),
            address: ada.as_str().to_owned(),
            ..Default::default()
        };
        let accept = pb::Accept {
            mail_from: "x".repeat(sender_bytes),
            recipients: vec![recipient],
            message: Some(message),
            submitted: false,
        };
        let command = pb::Command {
            at_ms: 1_790_000_000_000,
            entropy: Bytes::from_static(&[7; 16]),
            op: Some(Op::Accept(accept)),
            ..pb::Command::default()
        };
        let store = MemoryStore::default();
        let mut txn = Txn::new(&store);
        let applied = postrider_shard::apply(ShardId::MAILBOX_FIRST, &mut txn, 1, &command).unwrap();
        match applied.outcome.result {
            Some(outcome::Result::Refused(refused)) => Some(refused),
            _ => None,
        }
    }

    #[test]
    fn a_sender_is_as_long_as_a_shard_takes() {
        assert_eq!(refusal(SENDER_BYTES_MAX), None);
        let refused = refusal(SENDER_BYTES_MAX + 1).expect("a longer one is refused");
        assert_eq!(refused.refusal(), Refusal::Malformed);
        assert!(refused.detail.contains("mail_from"), "{}", refused.detail);
    }
}
