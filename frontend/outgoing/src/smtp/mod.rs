//! SMTP as a client: a session with one host, and transactions in it (RFC 5321).
//!
//! Invariant: no byte of a message goes out that could be read as a command: dots are stuffed, and a message with a bare CR or LF is
//! refused before anybody is connected to ([`shape`]).
//! Invariant: a recipient has [`Outcome::Unknown`] exactly when the end of the message may have reached the peer and no reply to it
//! came back.

mod connection;
mod content;
mod envelope;
mod extensions;
mod path;
mod reply;
mod session;
mod transaction;

use std::fmt;

use thiserror::Error;

#[cfg(test)]
pub(crate) use connection::Stream;
pub use content::{Shape, Unsendable, shape, stuffed};
pub use envelope::{RemoteRecipient, ReturnContent};
pub use extensions::Extensions;
pub use path::{PathError, check as check_path};
pub use reply::{Enhanced, Malformed, Reply, ReplyReader};
pub(crate) use session::{OpenError, Opening, Session};
pub(crate) use transaction::{Letter, Outcome};

/// Where in a session something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or BDAT, until the message goes out.
    Data,
    /// The message, until its end.
    Body,
    /// The reply to its end.
    End,
    /// RSET between two transactions.
    Reset,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "the message",
            Self::End => "the end of the message",
            Self::Reset => "RSET",
        })
    }
}

/// A connection that is of no more use.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The peer closed it.
    #[error("the peer closed the connection at {0}")]
    Closed(Step),
    /// The peer took too long.
    #[error("no reply to {0} in time")]
    TimedOut(Step),
    /// It broke.
    #[error("the connection broke at {0}: {1}")]
    Broken(Step, String),
    /// What came is no reply.
    #[error("the reply to {0} is none: {1}")]
    Malformed(Step, Malformed),
    /// A reply came that nothing asked for, or the peer was out of step.
    #[error("a reply to {0} came that is not allowed there: {1}")]
    OutOfStep(Step, String),
}
