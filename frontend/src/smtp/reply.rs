//! Every reply of the SMTP server with its enhanced code (RFC 5321 section 4.2, RFC 2034, RFC 3463): one table, none inline.
//!
//! Invariant: nothing that a client sent is repeated in a reply, so no reply can be made to carry a second line.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_api::id::{EmailId, EntryId, ShardId};
use postrider_api::trace;

/// What a reply is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// RFC 5321 section 4.2.
    pub code: u16,
    /// RFC 3463; empty where RFC 2034 section 4 has none: before EHLO is answered, and 3yz.
    pub enhanced: &'static str,
    /// For people.
    pub text: &'static str,
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $enhanced:literal $text:literal;)*) => {
        /// A reply whose text is always the same.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reply {
            $($(#[$doc])* $name,)*
        }

        impl Reply {
            /// Every reply, for tests and the documentation.
            pub const ALL: &'static [Reply] = &[$(Reply::$name,)*];

            /// What it is made of.
            pub const fn row(self) -> Row {
                match self {
                    $(Reply::$name => Row { code: $code, enhanced: $enhanced, text: $text },)*
                }
            }
        }
    };
}

replies! {
    // 2yz: done.
    /// STARTTLS, after which only TLS follows (RFC 3207 section 4).
    StartTls = 220 "2.0.0" "Ready to start TLS";
    /// QUIT.
    Bye = 221 "2.0.0" "Goodbye";
    /// NOOP.
    Noop = 250 "2.0.0" "OK";
    /// RSET.
    Reset = 250 "2.0.0" "Transaction forgotten";
    /// MAIL.
    SenderOk = 250 "2.1.0" "Sender OK";
    /// RCPT.
    RecipientOk = 250 "2.1.5" "Recipient OK";
    /// BDAT without LAST (RFC 3030 section 2).
    ChunkOk = 250 "2.0.0" "Chunk received";
    /// VRFY (RFC 5321 section 3.5.3).
    Verify = 252 "2.1.5" "Cannot verify, but will take mail for a recipient of this host";
    /// HELP.
    Help = 214 "2.0.0" "Commands: EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; see RFC 5321";
    /// AUTH (RFC 4954 section 6).
    LetIn = 235 "2.7.0" "Authentication succeeded";
    /// DATA.
    SendContent = 354 "" "Send the message, end with <CRLF>.<CRLF>";

    // 4yz: not now.
    /// The server is going down.
    Draining = 421 "4.3.2" "Server is going down; try again elsewhere or later";
    /// All connections are taken.
    ConnectionsTooMany = 421 "4.3.2" "Too many connections; try again later";
    /// This peer has too many.
    ConnectionsTooManyFromPeer = 421 "4.7.0" "Too many connections from your address; try again later";
    /// A connection from a proxy's network without a header that can be read.
    ProxyHeaderWrong = 421 "4.7.0" "A PROXY protocol version 2 header is expected from your network; closing";
    /// No whole command came in time.
    IdleTooLong = 421 "4.4.2" "No command came in time; closing";
    /// The message took too long, or came in too slowly.
    ContentTooSlow = 421 "4.4.2" "The message took too long to come in; closing";
    /// The connection lasted too long.
    ConnectionTooLong = 421 "4.4.2" "The connection lasted too long; closing";
    /// Too many commands without a message.
    CommandsTooMany = 421 "4.7.0" "Too many commands on one connection; closing";
    /// Too many errors.
    ErrorsTooMany = 421 "4.7.0" "Too many errors on one connection; closing";
    /// Too many exchanges that let nobody in.
    AuthenticationsTooMany = 421 "4.7.0" "Too many failed log-ins on one connection; closing";
    /// Too many refused recipients.
    RefusedTooMany = 421 "4.7.0" "Too many recipients refused on one connection; closing";
    /// More thrown away than is bearable.
    DiscardedTooMuch = 421 "4.7.0" "Far more was sent than is allowed; closing";
    /// The directory has no quorum or did not answer: not known whether the recipient exists (P-3).
    RecipientUnknownNow = 451 "4.4.3" "The directory cannot be read now; try again later";
    /// The account is being made.
    RecipientNotReady = 450 "4.2.1" "The mailbox is not ready yet; try again later";
    /// The account is suspended, and the operator wants no mail to be taken for it (RFC 3463: 4.2.1, mailbox disabled).
    RecipientSuspended = 450 "4.2.1" "The mailbox is disabled now; try again later";
    /// The mailbox is full.
    MailboxFull = 452 "4.2.2" "The mailbox is full; try again later";
    /// As much mail waits for the recipient as may.
    RecipientQueueFull = 452 "4.2.2" "Too much mail is waiting for this mailbox; try again later";
    /// The same of somebody among the recipients, or of the sender; found when the message was there.
    QueueFull = 452 "4.3.1" "Too much mail of this sender or for a recipient is waiting; the message was not stored, try again later";
    /// More recipients than one transaction may have (RFC 5321 section 4.5.3.1.10).
    RecipientsTooMany = 452 "4.5.3" "Too many recipients; send the rest in another transaction";
    /// Recipients of another residency zone than the first's: no copy of a message waits outside of its zone.
    ZonesSeveral = 452 "4.5.3" "Recipients of another residency zone; send to them in another transaction";
    /// Too many wrong passwords, of this network or for this address, or too many log-ins at once.
    AuthenticationLater = 454 "4.7.0" "Too many log-ins or wrong passwords; try again later";
    /// The account's shard or the directory does not answer.
    AuthenticationUnknownNow = 454 "4.3.0" "Passwords cannot be checked now; try again later";
    /// The account sends more in a time than it may.
    AccountMessagesTooMany = 450 "4.7.1" "This account has sent too much in a short time; try again later";
    /// The account sends far more than it used to, or too much of it comes back.
    SendingSlowed = 450 "4.7.1" "This account is slowed: it sends far more than it used to, or too much comes back; try again later";
    /// The message memory of this frontend is in use.
    MemoryFull = 452 "4.3.1" "Too many messages are coming in; try again later";
    /// This peer's part of it is.
    PeerMemoryFull = 452 "4.3.1" "Too many messages are coming in from your address; try again later";
    /// This network has brought too much for the object stores within an hour.
    NetworkFilesTooMany = 451 "4.7.1" "Too many large files from your network within an hour; try again later";
    /// This network brings more messages in a time than it may.
    NetworkMessagesTooMany = 451 "4.7.1" "Too many messages from your network in a short time; try again later";
    /// Too much has come for this recipient.
    RecipientFilesTooMany = 450 "4.2.1" "Large files come for this recipient faster than is allowed; try again later";
    /// Neither the recipient's shard nor another of its zone has a quorum: not stored.
    NoQuorum = 451 "4.3.0" "No quorum of storage nodes now; the message was not stored, try again later";
    /// The shard is overloaded: not stored.
    Overloaded = 451 "4.3.2" "The storage is overloaded; the message was not stored, try again later";
    /// It may have been stored, but nobody could tell within the time.
    OutcomeUnknown = 451 "4.4.7" "The storage did not confirm the message in time; it may have been stored, try again later";
    /// The attachments could not be stored in two regions.
    BlobsNotStored = 451 "4.3.1" "The attachments could not be stored in two regions; try again later";
    /// Something is broken here.
    Broken = 451 "4.3.5" "Something is wrong on this server; the message was not stored, try again later";

    // 5yz: not ever.
    /// Not a command.
    UnknownCommand = 500 "5.5.1" "Command not recognised";
    /// The first word is HTTP's: a browser that somebody talked into it.
    NotSmtp = 500 "5.5.1" "This is SMTP; closing";
    /// The line is longer than RFC 5321 section 4.5.3.1.4 allows.
    LineTooLong = 500 "5.5.2" "Command line too long";
    /// A control character, or bytes that are not UTF-8.
    LineMalformed = 500 "5.5.2" "A command is a line of printable UTF-8";
    /// Bare CR or LF in a command.
    BareLineEnding = 500 "5.5.2" "Lines end with CRLF, never with CR or LF alone; closing";
    /// The path or a parameter is malformed.
    Syntax = 501 "5.5.4" "Syntax error in the parameters";
    /// HELO or EHLO without a name.
    HelloSyntax = 501 "5.5.4" "HELO and EHLO take a host name";
    /// MAIL that does not parse.
    SenderSyntax = 501 "5.1.7" "MAIL FROM:<address> is wanted";
    /// A reverse-path that is longer than a shard keeps one (RFC 5321 section 4.5.3.1.3: 256 bytes must do).
    SenderTooLong = 501 "5.1.7" "The sender's address is too long";
    /// RCPT that does not parse.
    RecipientSyntax = 501 "5.1.3" "RCPT TO:<address> is wanted";
    /// BDAT whose size cannot be read: where its bytes end is not known.
    ChunkSyntax = 501 "5.5.4" "BDAT size [LAST] is wanted; closing";
    /// A command that this server does not carry out.
    NotImplemented = 502 "5.5.1" "Command not implemented";
    /// EXPN would tell who our users are.
    ExpandRefused = 502 "5.7.2" "Lists are not expanded";
    /// Before HELO or EHLO.
    HelloFirst = 503 "5.5.1" "EHLO first";
    /// MAIL within a transaction.
    NestedTransaction = 503 "5.5.1" "A transaction is under way; end it or RSET first";
    /// RCPT, DATA or BDAT without MAIL.
    SenderFirst = 503 "5.5.1" "MAIL first";
    /// DATA or BDAT without an accepted recipient.
    RecipientFirst = 503 "5.5.1" "No valid recipient; RCPT first";
    /// Anything but BDAT, RSET, NOOP and QUIT between two chunks.
    ChunksUnderWay = 503 "5.5.1" "BDAT is under way; send the last chunk or RSET first";
    /// STARTTLS within TLS.
    TlsAlready = 503 "5.5.1" "TLS is active already";
    /// STARTTLS without a certificate.
    TlsUnavailable = 502 "5.5.1" "TLS is not available here";
    /// A parameter that was not offered.
    ParameterUnknown = 555 "5.5.4" "Parameter not recognised or not offered";
    /// BODY=BINARYMIME is not offered.
    BinaryUnavailable = 555 "5.6.1" "BINARYMIME is not offered";
    /// No such mailbox: from a consistent read of the directory.
    RecipientUnknown = 550 "5.1.1" "No such mailbox here";
    /// What looks like a return path of ours and has not our tag: a bounce of mail that was not sent from here.
    ReturnPathForged = 550 "5.7.1" "This return path was not made here; no message was sent with it";
    /// Nothing comes back any more.
    ReturnPathExpired = 550 "5.1.1" "This return path is too old";
    /// RFC 5321 section 4.5.5: what comes to a return path is a report, and has the null reverse-path.
    ReturnPathNotNull = 550 "5.7.1" "A return path takes reports with MAIL FROM:<> only";
    /// Whom the account does not send to any more: no host knows him, he complained, or somebody named him.
    RecipientSuppressed = 550 "5.7.1" "The account does not send to this recipient any more; its suppression list says why";
    /// Not one of our domains.
    RelayDenied = 550 "5.7.1" "This host does not take mail for that domain";
    /// An address that can name no mailbox here.
    RecipientInvalid = 553 "5.1.3" "That address can name no mailbox";
    /// MAIL before AUTH (RFC 4954 section 6).
    AuthenticationRequired = 530 "5.7.0" "Log in first: AUTH";
    /// Everything but EHLO, STARTTLS, NOOP and QUIT before TLS (RFC 3207 section 4).
    TlsRequired = 530 "5.7.0" "STARTTLS first";
    /// AUTH before TLS (RFC 4954 section 4).
    EncryptionRequired = 538 "5.7.11" "Passwords are taken over TLS only; STARTTLS first";
    /// An unknown address, a wrong password and a revoked one: which of them is not told.
    WrongCredentials = 535 "5.7.8" "The address or the application password is wrong";
    /// The account is suspended; told to who has its password.
    AccountSuspended = 525 "5.7.13" "The account is suspended";
    /// A response that is none (RFC 4954 section 4).
    ResponseMalformed = 501 "5.5.2" "The response is not one of this mechanism in base64";
    /// A line of an exchange that is too long (RFC 4954 section 4).
    ResponseTooLong = 500 "5.5.6" "The response is too long";
    /// The client gave up.
    AuthenticationCancelled = 501 "5.7.0" "Authentication cancelled";
    /// A mechanism that is not offered, or a feature of one.
    MechanismUnknown = 504 "5.5.4" "Mechanism not offered; see EHLO";
    /// AUTH a second time (RFC 4954 section 4).
    AuthenticatedAlready = 503 "5.5.1" "Logged in already";
    /// AUTH where nobody logs in: mail for us comes without.
    AuthenticationNotHere = 502 "5.5.1" "This port takes mail for its own domains and no passwords; send at port 587 or 465";
    /// The sender's address is not the account's.
    SenderForeign = 550 "5.7.1" "MAIL FROM must be the address of the account that is logged in";
    /// From or Sender names another address than the account's, or nobody.
    AuthorForeign = 550 "5.7.60" "From and Sender must be the address of the account that is logged in";
    /// The application password was revoked, or the account suspended, since the client logged in.
    CredentialsRevoked = 550 "5.7.8" "The application password was revoked or the account suspended; the message was not sent";
    /// UTF-8 in an address without SMTPUTF8 (RFC 6531 section 3.5).
    Utf8Unannounced = 553 "5.6.7" "An address in UTF-8 wants SMTPUTF8 on MAIL";
    /// The announced or real size is over the limit.
    MessageTooLarge = 552 "5.3.4" "The message is larger than SIZE allows";
    /// The message does not fit in the mailbox.
    QuotaExceeded = 552 "5.2.2" "The message does not fit in the mailbox";
    /// Bare CR or LF in a message.
    ContentBareLineEnding = 550 "5.6.0" "The message holds a CR or LF alone; lines end with CRLF; closing";
    /// NUL in a message (RFC 5322 section 4 has it only as obsolete).
    ContentNul = 550 "5.6.0" "The message holds a NUL byte";
    /// The header section of a submission holds a line that is no field: readers would differ on where it ends.
    HeaderMalformed = 550 "5.6.0" "The header section holds a line that is no field";
    /// The header section is over its limit.
    HeaderTooLarge = 552 "5.3.4" "The header section is too large or has too many fields";
    /// Hop count exceeded.
    Loop = 554 "5.4.6" "Too many Received fields: the message goes round in a loop";
    /// The shard says that it is no message.
    ContentMalformed = 554 "5.6.0" "The message cannot be stored";
}

impl Reply {
    /// Appends the line. What fails for now within a trace says which: whoever asks an operator later names it, so it is kept.
    pub fn write(self, out: &mut Vec<u8>) {
        let Row { code, enhanced, text } = self.row();
        let gap = if enhanced.is_empty() { "" } else { " " };
        let trace = if self.is_passing() { trace::quoted_id() } else { None };
        match trace {
            None => line(out, format_args!("{code} {enhanced}{gap}{text}")),
            Some(trace) => line(out, format_args!("{code} {enhanced}{gap}{text} (trace {trace})")),
        }
    }

    /// Whether the same may be accepted later (4yz).
    pub(super) fn is_passing(self) -> bool {
        self.row().code / 100 == 4
    }
}

/// What names an accepted message to an operator (`postrider ctl where`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueId {
    /// Which shard has it.
    pub shard: ShardId,
    /// What it is there.
    pub place: QueuePlace,
}

/// What an accepted message is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePlace {
    /// Somebody waits for it in the queue.
    Entry(EntryId),
    /// Everybody has it; the first recipient's copy.
    Email(EmailId),
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            QueuePlace::Entry(entry) => write!(f, "{}-{entry}", self.shard),
            QueuePlace::Email(email) => write!(f, "{}-{email}", self.shard),
        }
    }
}

/// The first line of a connection. `host` and `banner` come from the configuration.
pub fn greeting(out: &mut Vec<u8>, host: &str, banner: &str) {
    line(out, format_args!("220 {host} ESMTP {banner}"));
}

/// The answer to HELO.
pub fn hello(out: &mut Vec<u8>, host: &str) {
    line(out, format_args!("250 {host}"));
}

/// What EHLO offers beyond what is always there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offers<'a> {
    /// STARTTLS.
    pub tls: bool,
    /// Mechanisms of AUTH; `None`: nobody logs in now.
    pub mechanisms: Option<&'a str>,
    /// DSN (RFC 3461).
    pub reports: bool,
    /// REQUIRETLS (RFC 8689 section 2: offered within TLS only).
    pub require_tls: bool,
}

/// The answer to EHLO: what is offered (RFC 1869).
pub fn extended_hello(out: &mut Vec<u8>, host: &str, size_max: u64, offers: Offers<'_>) {
    line(out, format_args!("250-{host}"));
    line(out, format_args!("250-PIPELINING"));
    line(out, format_args!("250-SIZE {size_max}"));
    line(out, format_args!("250-8BITMIME"));
    line(out, format_args!("250-SMTPUTF8"));
    line(out, format_args!("250-CHUNKING"));
    if offers.tls {
        line(out, format_args!("250-STARTTLS"));
    }
    if let Some(mechanisms) = offers.mechanisms {
        line(out, format_args!("250-AUTH {mechanisms}"));
    }
    if offers.reports {
        line(out, format_args!("250-DSN"));
    }
    if offers.require_tls {
        line(out, format_args!("250-REQUIRETLS"));
    }
    line(out, format_args!("250-HELP"));
    line(out, format_args!("250 ENHANCEDSTATUSCODES"));
}

/// A challenge of an AUTH exchange (RFC 4954 section 4).
pub fn challenge(out: &mut Vec<u8>, challenge: &[u8]) {
    line(out, format_args!("334 {}", STANDARD.encode(challenge)));
}

/// The message is durable (P-1).
pub fn queued(out: &mut Vec<u8>, id: &QueueId) {
    line(out, format_args!("250 2.0.0 OK: queued as {id}"));
}

fn line(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    struct Bytes<'a>(&'a mut Vec<u8>);

    impl fmt::Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    // A vector takes everything, and numbers, ids and strings format without an error of their own.
    let _infallible = Bytes(out).write_fmt(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_agrees_with_its_class() {
        for reply in Reply::ALL {
            let Row { code, enhanced, text } = reply.row();
            assert!(text.is_ascii() && !text.contains(['\r', '\n']), "{reply:?}");
            if code == 354 {
                assert_eq!(enhanced, "");
                continue;
            }
            // RFC 2034 section 4: the class of the enhanced code is the first digit of the reply.
            let parts: Vec<u16> = enhanced.split('.').map(|part| part.parse().unwrap()).collect();
            assert_eq!(parts.len(), 3, "{reply:?}");
            assert_eq!(parts[0], code / 100, "{reply:?}");
            assert!([2, 4, 5].contains(&parts[0]), "{reply:?}");
        }
    }

    #[test]
    fn lines_fit() {
        // RFC 5321 section 4.5.3.1.5: 512 bytes with code and CRLF.
        for reply in Reply::ALL {
            let mut out = Vec::new();
            reply.write(&mut out);
            let trace = " (trace 4bf92f3577b34da6a3ce929d0e0e4736)".len();
            assert!(out.len() + trace <= 512 && out.ends_with(b"\r\n"), "{reply:?}");
        }
        let mut out = Vec::new();
        Reply::SendContent.write(&mut out);
        assert!(out.starts_with(b"354 Send"));
    }

    #[test]
    fn the_documentation_lists_every_reply() {
        let page = include_str!("../../../docs/api/smtp.md");
        for reply in Reply::ALL {
            let Row { code, enhanced, text } = reply.row();
            assert!(
                page.contains(&format!("| {code} | {enhanced} | {text} |")),
                "{reply:?} is not in docs/api/smtp.md"
            );
        }
    }

    #[test]
    fn queue_ids() {
        let mut out = Vec::new();
        queued(&mut out, &QueueId { shard: ShardId(1003), place: QueuePlace::Entry(EntryId(7)) });
        assert_eq!(out, b"250 2.0.0 OK: queued as 1003-7\r\n");
    }
}
