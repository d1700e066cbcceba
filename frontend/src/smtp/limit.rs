//! Every limit of the SMTP server (P-13). What several rooms must agree on is in `postrider_api::limit`.

use std::time::Duration;

use postrider_api::limit::MESSAGE_BYTES_MAX;

/// A command line with its CRLF, bytes. RFC 5321 section 4.5.3.1.4.
pub const COMMAND_BYTES_MAX: usize = 512;
/// The same for MAIL and RCPT, whose parameters add up (RFC 1870, 3461, 6152, 6531 each lengthen the line).
pub const PATH_COMMAND_BYTES_MAX: usize = 2048;
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
/// Blobs of one message on their way to the stores at once.
pub const BLOBS_AT_ONCE_MAX: usize = 4;
/// A message larger than this is parsed on a blocking thread, bytes; a smaller one takes less than the hand-over is worth.
pub const INLINE_INGEST_BYTES_MAX: usize = 256 * 1024;
/// What is read from a socket at once while a message comes in, bytes.
pub const READ_BYTES: usize = 64 * 1024;
/// The same while commands come in, bytes: an idle connection must be cheap.
pub const COMMAND_READ_BYTES: usize = 4 * 1024;
/// How much of a message's announced size is set aside before a byte of it came, bytes.
pub const ANNOUNCED_BYTES_TRUSTED: usize = 256 * 1024;

/// What an operator may change.
#[derive(Debug, Clone)]
pub struct SmtpLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections from one IP address (IPv6: from one /64).
    pub connections_per_peer_max: usize,
    /// Message bytes of all connections in memory, before they are stored.
    pub content_bytes_max: usize,
    /// A message, bytes; announced in EHLO. At most `MESSAGE_BYTES_MAX`.
    pub message_bytes_max: u64,
    /// A client may be silent for this long. RFC 5321 section 4.5.3.2.7: at least five minutes.
    pub idle: Duration,
    /// A message may take this long to come in.
    pub content: Duration,
    /// A connection may last this long.
    pub connection: Duration,
    /// A reply may take this long to be taken by the client.
    pub write: Duration,
    /// A TLS handshake may take this long.
    pub handshake: Duration,
    /// From the end of a message to its reply when the cluster does not answer. No quorum must be told within 5 s.
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
    /// Draining waits this long for transactions in progress.
    pub drain: Duration,
}

impl Default for SmtpLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 512,
            content_bytes_max: 512 * 1024 * 1024,
            message_bytes_max: MESSAGE_BYTES_MAX,
            idle: Duration::from_secs(300),
            content: Duration::from_secs(30 * 60),
            connection: Duration::from_secs(4 * 60 * 60),
            write: Duration::from_secs(60),
            handshake: Duration::from_secs(30),
            commit: Duration::from_millis(4500),
            commit_home: Duration::from_millis(2800),
            blobs: Duration::from_millis(4500),
            question: Duration::from_millis(4500),
            quota_question: Duration::from_millis(1000),
            recipient_trusted: Duration::from_secs(30),
            room_trusted: Duration::from_secs(1),
            recipients_remembered_max: 50_000,
            drain: Duration::from_secs(30),
        }
    }
}
