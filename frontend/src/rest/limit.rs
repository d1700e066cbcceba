//! Limits of the REST border (P-13). What a request exceeds is answered at the earliest moment with a problem that names it.

use std::time::Duration;

use postrider_api::limit::MESSAGE_BYTES_MAX;

/// A request body, bytes, where no other limit is named.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A batch of [`postrider_api::limit::UPDATES_MAX`] ids as JSON, bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 128 * 1024;
/// JSON above this is parsed away from the threads that serve others, bytes.
pub const INLINE_JSON_BYTES_MAX: usize = 256 * 1024;
/// A message to send as JSON, bytes: attachments come in base64, as they leave, and text may be escaped.
pub const SEND_BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX as usize + 4 * 1024 * 1024;
/// Bodies of messages to send that are in memory at once, bytes.
pub const SEND_BYTES_IN_FLIGHT_MAX: usize = 96 * 1024 * 1024;
/// How long a message to send waits for that memory.
pub const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// By how much a body's share of that memory grows, bytes.
pub const SEND_SHARE_STEP_BYTES: usize = 64 * 1024;
/// Messages that are being sent at once.
pub const SENDS_MAX: usize = 512;
/// Messages of one user that are being sent at once: one who sends all that he can leaves memory for others.
pub const SENDS_PER_USER_MAX: usize = 4;
/// How often the pace of a body that may be large is looked at.
pub const PACE_WINDOW: Duration = Duration::from_secs(10);
/// What has to arrive of it from one look to the next, bytes: no memory is held for a client that hardly sends.
pub const PACE_BYTES_MIN: usize = 64 * 1024;
/// Messages and files that are being read at once: each holds a connection to an object store, or up to 4 MiB.
pub const READS_MAX: usize = 256;
/// Those of one user.
pub const READS_PER_USER_MAX: usize = 16;
/// How long a request waits for its turn at one of these.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Requests of one user that wait for their turn.
pub const TURNS_WAITING_PER_USER_MAX: usize = 128;
/// Searches that one frontend has open at once.
pub const SEARCHES_MAX: usize = 256;
/// Those of one user: whoever types fast has several, of which he wants the last.
pub const SEARCHES_PER_USER_MAX: usize = 4;
/// People of one answer when no number is asked for.
pub const SUGGESTIONS_DEFAULT: u32 = 10;
/// What people are suggested for, bytes.
pub const SUGGEST_PREFIX_BYTES_MAX: usize = 255;
/// Messages that are being decoded at once, away from the threads that serve others.
pub const RENDERS_MAX: usize = 16;
/// A request's path and query, bytes.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// All header fields of a request, bytes.
pub const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 100;
/// What HTTP/1 buffers of one connection, bytes; more than a head may have, so that the problem can be told.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections of one client (an IPv4 address or IPv6 /64) at once: one who opens all that he can leaves room for others. A /48 gets
/// half of all.
pub const CONNECTIONS_PER_PEER_MAX: usize = 2_500;
/// TLS handshakes at once.
pub const HANDSHAKES_MAX: usize = 512;
/// Those of one client; a /48 gets half of all.
pub const HANDSHAKES_PER_PEER_MAX: usize = 64;
/// From the start of a connection to the end of its handshake.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 128;
/// From one request's end to the next one's head, and for the head itself.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a client may take none of what is written to it.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long a client may take none of one answer, whatever else it takes. Looked at every quarter of it.
pub const ANSWER_STALL_MAX: Duration = Duration::from_secs(60);
/// A piece of an answer on its way to the socket, bytes: what one stream of a client that takes nothing can hold.
pub const ANSWER_PIECE_BYTES_MAX: usize = 32 * 1024;
/// How long a connection may have no request open. Longer than clients keep idle connections, mostly 90 s.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(120);
/// How long a client has to go when it is told to.
pub const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Connections beyond [`CONNECTIONS_MAX`] that are being told so; any more are just closed.
pub const TURNED_AWAY_MAX: usize = 64;
/// From a request's head to the end of its body.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(20);
/// The same of a message to send.
pub const LARGE_BODY_WAIT_MAX: Duration = Duration::from_secs(120);
/// A request from its head to the head of its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);
/// The same of a message that is sent: its body may be large, and its blobs go to two regions.
pub const SEND_REQUEST_MAX: Duration = Duration::from_secs(180);
/// One call of the cluster. Without a quorum a client is told within five seconds.
pub const CLUSTER_CALL_MAX: Duration = Duration::from_millis(4_500);
/// How long open requests have when the process stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// An Idempotency-Key, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Commands of one request that empty a folder or a label, each for up to [`postrider_api::limit::UPDATES_MAX`] messages.
pub const DRAIN_ROUNDS_MAX: u32 = 200;
/// Rows of a page when none are asked for.
pub const PAGE_ROWS_DEFAULT: u32 = 50;
/// A signature, bytes.
pub const SIGNATURE_BYTES_MAX: usize = 8 * 1024;
/// Directory look-ups of one message's recipients at once.
pub const LOOK_UPS_AT_ONCE: usize = 16;
/// Open event streams (WebSocket and long-poll) of this process.
pub const EVENT_STREAMS_MAX: usize = 10_000;
/// Open event streams of one user.
pub const EVENT_STREAMS_PER_USER_MAX: u32 = 64;
/// A frame that a client sends on a WebSocket, bytes: it has nothing to say but ping, pong and close.
pub const CLIENT_FRAME_BYTES_MAX: usize = 4 * 1024;
/// How long a WebSocket client may take none of a frame.
pub const FRAME_STALL_MAX: Duration = Duration::from_secs(30);
/// Between two pings on a WebSocket.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A client that was silent so long is gone.
pub const PONG_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a long-lived stream asks whether its session is still open.
pub const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Longest long-poll, seconds.
pub const POLL_S_MAX: u32 = 60;
/// A long-poll when no time is asked for, seconds.
pub const POLL_S_DEFAULT: u32 = 30;
/// Mailbox shards that one readiness check asks.
pub const READY_SHARDS_MAX: usize = 16;
/// How long a readiness answer is given again.
pub const READY_REUSE: Duration = Duration::from_secs(1);
/// One call of a readiness check.
pub const READY_CALL_MAX: Duration = Duration::from_secs(2);
/// Requests of one account in a minute, unless the configuration says otherwise: a program that reads ten thousand messages
/// one by one is slowed down for less than a minute.
pub const REQUESTS_PER_ACCOUNT_PER_MINUTE: u32 = 6_000;
/// Users that the directory did not know, remembered.
pub const NOBODY_MAX: u64 = 10_000;
/// How long the directory is not asked about them again.
pub const NOBODY_REUSE: Duration = Duration::from_secs(5);
/// Tokens that opened something, remembered.
pub const PROVEN_MAX: u64 = 100_000;
/// How long they are let through from a network that shows too many others.
pub const PROVEN_REUSE: Duration = Duration::from_secs(600);
/// A file that is uploaded before its message, bytes: what base64 makes a message of [`MESSAGE_BYTES_MAX`] of, with room for a text.
pub const UPLOAD_BYTES_MAX: usize = 25 * 1024 * 1024;
/// A piece of an upload, bytes: what a frontend holds of it while it comes in.
pub const UPLOAD_PIECE_BYTES: usize = 4 * 1024 * 1024;
/// How long a message can be taken back, seconds.
pub const UNDO_S_MAX: u32 = 60;
/// An image of the network, bytes.
pub const IMAGE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// From the question for its host's address to its last byte.
pub const IMAGE_FETCH_MAX: Duration = Duration::from_secs(15);
/// Redirects on the way to an image: a shortened link, a host that moved, HTTPS.
pub const IMAGE_REDIRECTS_MAX: usize = 4;
/// Images that are being fetched at once, each of at most [`IMAGE_BYTES_MAX`].
pub const IMAGES_FETCHED_MAX: usize = 32;
/// Those of one user: a message with many does not make others wait.
pub const IMAGES_FETCHED_PER_USER_MAX: usize = 6;
/// Images that are kept, bytes in all.
pub const IMAGES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long an image is kept.
pub const IMAGE_REUSE: Duration = Duration::from_secs(60 * 60);
/// How long it is known that there is none.
pub const NO_IMAGE_REUSE: Duration = Duration::from_secs(60);
