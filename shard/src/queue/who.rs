//! Who waits, or was given up: one of our users, by his id, or somebody outside, by his address.
//!
//! Invariant: nothing from outside is relayed. Somebody outside comes into a queue by `Send` alone; whatever else names recipients takes
//! users only.

use bytes::Bytes;
use postrider_api::id::UserId;
use postrider_api::limit::ADDRESS_BYTES_MAX;
use postrider_api::pb::{FailedRecipient, PendingRecipient};

use crate::key::Key;
use crate::turn::{Stop, id, malformed};
use crate::{Broken, domain, row};

/// RFC 5321 section 4.5.3.1.1.
const LOCAL_PART_BYTES_MAX: usize = 64;

/// A recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    User(UserId),
    Remote(Remote),
}

/// An address outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    address: String,
    /// Where its `@` stands.
    at: usize,
}

impl Remote {
    /// `None` of what no worker could send to. Nothing that could end a line, or the path in it, is in an address (RFC 5321 section 4.1.2).
    fn parse(address: &str) -> Option<Self> {
        let (local, domain) = address.rsplit_once('@')?;
        let is_printed = |c: char| !c.is_control() && !c.is_whitespace() && !"<>".contains(c);
        let fits = (1..=LOCAL_PART_BYTES_MAX).contains(&local.len()) && address.len() <= ADDRESS_BYTES_MAX;
        let is_address = fits && local.chars().all(is_printed) && domain::is_canonical(domain);
        is_address.then(|| Self { at: local.len(), address: address.to_owned() })
    }

    pub(crate) fn domain(&self) -> &str {
        &self.address[self.at + 1..]
    }
}

impl Who {
    /// Whom a command means; `field` is the one that names him.
    pub(crate) fn of_command(user_id: &Bytes, address: &str, field: &str) -> Result<Self, Stop> {
        match user_id.is_empty() {
            false => Ok(Self::User(id(user_id, &format!("{field}.user_id"))?)),
            true => Remote::parse(address).map(Self::Remote).ok_or_else(|| {
                let wanted =
                    "local-part@domain, the domain in lower-case A-labels, is wanted of somebody without a user_id";
                malformed(format!("{field}.address: {wanted}"))
            }),
        }
    }

    fn of(key: Key, user_id: &Bytes, address: &str) -> Result<Self, Broken> {
        match user_id.is_empty() {
            false => Ok(Self::User(row::id(key, user_id)?)),
            true => Remote::parse(address)
                .map(Self::Remote)
                .ok_or_else(|| Broken::corrupt(key, "names a recipient by neither id nor address")),
        }
    }

    /// Who waits, in the row under `key`.
    pub(crate) fn of_pending(key: Key, pending: &PendingRecipient) -> Result<Self, Broken> {
        Self::of(key, &pending.user_id, &pending.address)
    }

    /// Who was given up, in the row under `key`.
    pub(crate) fn of_failed(key: Key, failed: &FailedRecipient) -> Result<Self, Broken> {
        Self::of(key, &failed.user_id, &failed.address)
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(*user),
            Self::Remote(_) => None,
        }
    }
}

/// Whether somebody who waits is outside.
pub(crate) fn is_remote(pending: &PendingRecipient) -> bool {
    pending.user_id.is_empty()
}

/// What somebody outside is sent to: the domain of his address, or where an operator has him sent, which is told from every domain by its
/// first word. `None` of a user.
pub(crate) fn destination(key: Key, pending: &PendingRecipient) -> Result<Option<String>, Broken> {
    Ok(match Who::of_pending(key, pending)? {
        Who::User(_) => None,
        Who::Remote(_) if !pending.route.is_empty() => Some(format!("via {}", pending.route)),
        Who::Remote(remote) => Some(remote.domain().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_has_a_canonical_domain_and_nothing_that_ends_a_line() {
        let remote = Remote::parse("Ada.\"L\"@b@xn--bcher-kva.example").unwrap();
        assert_eq!(remote.domain(), "xn--bcher-kva.example");
        assert!(Remote::parse("한글@far.example").is_some());
        for none in [
            "ada",
            "@far.example",
            "ada@",
            "ada@Far.example",
            "ada@far..example",
            "ada@bücher.example",
            "ada@[127.0.0.1]",
            "a\r\nb@far.example",
            "a b@far.example",
            "a>@far.example",
            "a@far.example\r\nRCPT TO:<b@x",
        ] {
            assert_eq!(Remote::parse(none), None, "{none:?}");
        }
        assert!(Remote::parse(&format!("{}@far.example", "a".repeat(65))).is_none());
        assert!(Remote::parse(&format!("a@{}", "a".repeat(64))).is_none());
        assert!(Remote::parse(&format!("a@{}e", "a.".repeat(125))).is_some());
        assert!(Remote::parse(&format!("a@{}e", "a.".repeat(126))).is_none(), "longer than an address");
    }
}
