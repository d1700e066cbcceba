//! Every limit of mail that leaves (P-13), and the times of RFC 5321.

use std::time::Duration;

/// A line of a reply, bytes with its end. RFC 5321 section 4.5.3.1.5 has 512; peers are known that say more, and what they say is
/// kept for people.
pub const REPLY_LINE_BYTES_MAX: usize = 4096;
/// Lines of one reply. The longest that are seen are of EHLO, some thirty.
pub const REPLY_LINES_MAX: usize = 128;
/// What is kept of a reply's text, bytes.
pub const REPLY_TEXT_BYTES_MAX: usize = 400;
/// Hosts of one destination that are looked at. RFC 5321 section 5.1 wants at least two tried.
pub const HOSTS_MAX: usize = 20;
/// Hosts of one destination that are tried in one attempt.
pub const HOSTS_TRIED_MAX: usize = 5;
/// Addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 8;
/// How long the next address waits for the one before it (RFC 8305 section 5: Connection Attempt Delay).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Answers of the DNS that are remembered.
pub const DNS_ANSWERS_MAX: u64 = 65_536;
/// How long an answer of the DNS is remembered at most.
pub const DNS_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// An MTA-STS policy, bytes: RFC 8461 section 3.3 suggests 64 kB.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Patterns of one MTA-STS policy.
pub const POLICY_PATTERNS_MAX: usize = 200;
/// Fetching an MTA-STS policy (RFC 8461 section 3.3: one minute).
pub const POLICY_FETCH: Duration = Duration::from_secs(60);
/// How long a policy holds at most: RFC 8461 section 3.2 allows no more, a year.
pub const POLICY_AGE_MAX: Duration = Duration::from_secs(31_557_600);
/// How soon a domain without a usable policy, or whose policy could not be fetched, is asked again (RFC 8461 section 5.1: it
/// should not be on every message).
pub const POLICY_RETRY: Duration = Duration::from_secs(5 * 60);
/// The head of an answer by HTTP, bytes.
pub const WEB_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Its fields.
pub const WEB_HEAD_FIELDS_MAX: usize = 100;
/// Policies that are remembered.
pub const POLICIES_MAX: u64 = 65_536;
/// TLSA records of one host that are compared.
pub const TLSA_MAX: usize = 32;
/// Certificates of one chain that are compared with TLSA records.
pub const CHAIN_MAX: usize = 10;
/// Recipients of one transaction: RFC 5321 section 4.5.3.1.8 promises a hundred at every peer.
pub const RECIPIENTS_MAX: usize = 100;
/// Transactions on one connection: a peer may have a limit of its own, and says so with 421.
pub const TRANSACTIONS_MAX: u32 = 100;
/// How long a connection without a transaction is kept: RFC 5321 section 4.5.3.2.7 lets a server close after five minutes.
pub const IDLE_MAX: Duration = Duration::from_secs(10);
/// Connections without a transaction that are kept, of all destinations.
pub const IDLE_CONNECTIONS_MAX: usize = 500;
/// Connections to one destination at once that all workers of a region may have, where nothing else is configured.
pub const CONNECTIONS_MAX: u32 = 20;
/// In windows of this length the messages to a destination are counted, where they are limited. Shorter than what a new worker of the region
/// waits until the others have given up its part (15 s): what they sent before is out of the window by then.
pub const PACE_WINDOW: Duration = Duration::from_secs(10);
/// How often one that waits for the window looks again at the latest.
pub const PACE_LOOK: Duration = Duration::from_secs(1);
/// Classes that destinations are told apart by in metrics.
pub const CLASSES_MAX: usize = 16;
/// Names of hosts that one class is known by.
pub const CLASS_SUFFIXES_MAX: usize = 64;
/// The name of a class, bytes.
pub const CLASS_NAME_BYTES_MAX: usize = 32;
/// Connections to a destination that nothing is known of yet.
pub const CONNECTIONS_START: u32 = 5;
/// Messages that wait at once in one worker for a connection to one destination: the others stand in the destination's line, where they
/// keep no place that mail for others could have.
pub const WAITING_MAX: u32 = 100;
/// Destinations whose limits are remembered.
pub const DESTINATIONS_MAX: u64 = 100_000;
/// Pairs of a source address and a destination that are counted.
pub const SOURCE_BOOKS_MAX: u64 = 200_000;
/// How long a destination that answered 421 or 4yz to a connection, or of which no host was reached, is left alone.
pub const SLOWED: Duration = Duration::from_secs(30);
/// The hosts' port of SMTP between servers.
pub const SMTP_PORT: u16 = 25;

/// How long each step of a session may take. The defaults are what RFC 5321 section 4.5.3.2 asks for at least.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// A TCP connection to one address: the operating system's own patience is two minutes; no live server needs thirty seconds.
    pub connect: Duration,
    /// The greeting (4.5.3.2.1).
    pub greeting: Duration,
    /// EHLO, HELO and STARTTLS with its handshake: RFC 5321 names none; as MAIL.
    pub hello: Duration,
    /// The reply to MAIL (4.5.3.2.2).
    pub mail: Duration,
    /// The reply to RCPT (4.5.3.2.3).
    pub rcpt: Duration,
    /// The reply to DATA, or to RSET (4.5.3.2.4).
    pub data: Duration,
    /// Each piece of the message until the peer has taken it (4.5.3.2.5).
    pub block: Duration,
    /// The reply to the final dot (4.5.3.2.6).
    pub end: Duration,
    /// The reply to QUIT: nobody waits for it long.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(5 * 60),
            hello: Duration::from_secs(5 * 60),
            mail: Duration::from_secs(5 * 60),
            rcpt: Duration::from_secs(5 * 60),
            data: Duration::from_secs(2 * 60),
            block: Duration::from_secs(3 * 60),
            end: Duration::from_secs(10 * 60),
            quit: Duration::from_secs(2),
        }
    }
}
