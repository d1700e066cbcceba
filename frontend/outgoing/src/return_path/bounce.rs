//! The reverse-path of a message that one of our users sends to the outside.
//!
//! `b0=PAYLOADTAG@DOMAIN`, the part behind `=` in base 32. Payload: the day (2 bytes, of days since the Unix epoch the low ones), the
//! sender (16), the recipient's number in the message (1; 0: one of several), the queue entry (as few bytes as it needs). Tag: the
//! first 8 bytes of keyed blake3 over domain and payload. `b0` is the form's version. The domain is the sender's own, so SPF and the
//! alignment of DMARC stay what they were.

use postrider_api::id::{EntryId, UserId};
use thiserror::Error;

use super::{LOCAL_BYTES_MAX, base32, day_of, is_same};

/// What such a local part begins with, in either case.
const PREFIX: &str = "b0=";
const TAG_BYTES: usize = 8;
/// Day, sender and number.
const HEAD_BYTES: usize = 2 + 16 + 1;
/// The bytes of the longest path are those of a local part: 3, and 56 of 35 bytes.
const _: () = assert!(PREFIX.len() + ((HEAD_BYTES + 8 + TAG_BYTES) * 8).div_ceil(5) <= LOCAL_BYTES_MAX);
/// For how many days after the message something may come back: five in our queue (RFC 5321 section 4.5.4.1), as many in another's,
/// and as many for what is slow.
const DAYS_MAX: i64 = 15;
/// How far the clocks of a worker and a frontend differ at most, days: around midnight by one.
const DAYS_AHEAD_MAX: i64 = 1;

/// Whether a local part begins as such a path does.
pub(super) fn is_of_form(local: &str) -> bool {
    local.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX))
}

/// What a message of ours is known by when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Who sent it.
    pub sender: UserId,
    /// The entry in the queue of his shard.
    pub entry: EntryId,
    /// Which of the recipients outside, counted from 1; 0: the path was given to several at once.
    pub recipient: u8,
}

/// Why mail to what looks like a return path is not taken.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It was not made here, or not for this domain, or was changed on its way.
    #[error("this return path was not made here")]
    Forged,
    /// It was, and its time is over.
    #[error("this return path is older than {DAYS_MAX} days")]
    Expired,
}

/// Writes and reads return paths.
#[derive(Clone)]
pub struct ReturnPaths([u8; 32]);

impl ReturnPaths {
    /// Under the secret of frontends and workers.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("postrider 2026 return paths", secret))
    }

    /// The reverse-path for a message of `domain`, in A-labels, that goes out from `sent_ms` on (milliseconds since the Unix epoch). Named
    /// by when the message was sent and not by when it is tried, it is the same at each attempt: hosts that put off whom they do not
    /// know yet know it by the second.
    pub fn path(&self, origin: &Origin, domain: &str, sent_ms: i64) -> String {
        let mut payload = Vec::with_capacity(HEAD_BYTES + 8 + TAG_BYTES);
        // The low bits say enough: a path counts for days, and they come again after 179 years.
        payload.extend_from_slice(&(day_of(sent_ms) as u16).to_be_bytes());
        payload.extend_from_slice(&origin.sender.0);
        payload.push(origin.recipient);
        let entry = origin.entry.0.to_be_bytes();
        payload.extend_from_slice(&entry[entry.iter().take_while(|byte| **byte == 0).count()..]);
        let tag = self.tag(domain, &payload);
        payload.extend_from_slice(&tag);
        format!("{PREFIX}{}@{domain}", base32::encode(&payload))
    }

    /// Reads the path of something that came back at `now_ms`; `None` where it is another address.
    ///
    /// # Errors
    /// When it looks like a return path, and nothing may come back to it.
    pub fn read(&self, address: &str, now_ms: i64) -> Option<Result<Origin, PathError>> {
        let (local, domain) = address.rsplit_once('@')?;
        if !is_of_form(local) {
            return None;
        }
        Some(self.verified(&local[PREFIX.len()..], &domain.to_ascii_lowercase(), day_of(now_ms)))
    }

    fn verified(&self, text: &str, domain: &str, today: i64) -> Result<Origin, PathError> {
        if text.len() > LOCAL_BYTES_MAX {
            return Err(PathError::Forged);
        }
        let bytes = base32::decode(text).ok_or(PathError::Forged)?;
        let (payload, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(PathError::Forged)?;
        if !is_same(&self.tag(domain, payload), tag) {
            return Err(PathError::Forged);
        }
        // What has our tag has our form; the rest cannot fail, and is refused if it does.
        let (day, rest) = payload.split_first_chunk::<2>().ok_or(PathError::Forged)?;
        let (sender, rest) = rest.split_first_chunk::<16>().ok_or(PathError::Forged)?;
        let (recipient, entry) = rest.split_first().ok_or(PathError::Forged)?;
        let mut number = [0; 8];
        number.get_mut(8_usize.saturating_sub(entry.len())..).ok_or(PathError::Forged)?.copy_from_slice(entry);
        let age = i64::from((today as u16).wrapping_sub(u16::from_be_bytes(*day)) as i16);
        match (-DAYS_AHEAD_MAX..=DAYS_MAX).contains(&age) {
            true => Ok(Origin {
                sender: UserId(*sender),
                entry: EntryId(u64::from_be_bytes(number)),
                recipient: *recipient,
            }),
            false => Err(PathError::Expired),
        }
    }

    fn tag(&self, domain: &str, payload: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // No domain has a zero byte.
        hasher.update(domain.as_bytes()).update(&[0]).update(payload);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::DAY_MS;
    use super::*;
    use crate::smtp::check_path;

    const NOW_MS: i64 = 1_790_000_000_000;

    fn origin() -> Origin {
        Origin { sender: UserId([7; 16]), entry: EntryId(4711), recipient: 3 }
    }

    #[test]
    fn a_path_comes_back_in_any_case_until_its_time_is_over() {
        let paths = ReturnPaths::new(&[1; 32]);
        let path = paths.path(&origin(), "near.example", NOW_MS);
        check_path(&path).unwrap();
        assert_eq!(paths.path(&origin(), "near.example", NOW_MS + 1000), path, "the same at the next attempt");
        for text in [path.clone(), path.to_uppercase()] {
            assert_eq!(paths.read(&text, NOW_MS + 5 * DAY_MS), Some(Ok(origin())), "{text}");
        }
        assert_eq!(paths.read(&path, NOW_MS + DAYS_MAX * DAY_MS), Some(Ok(origin())));
        assert_eq!(paths.read(&path, NOW_MS + (DAYS_MAX + 1) * DAY_MS), Some(Err(PathError::Expired)));
        assert_eq!(paths.read(&path, NOW_MS - DAY_MS), Some(Ok(origin())), "another clock is behind");
        assert_eq!(paths.read(&path, NOW_MS - 2 * DAY_MS), Some(Err(PathError::Expired)));
    }

    #[test]
    fn what_was_not_made_here_is_forged_and_everything_else_is_another_address() {
        let paths = ReturnPaths::new(&[1; 32]);
        let path = paths.path(&origin(), "near.example", NOW_MS);
        let forged = Some(Err(PathError::Forged));
        assert_eq!(ReturnPaths::new(&[2; 32]).read(&path, NOW_MS), forged, "another cluster's");
        assert_eq!(paths.read(&path.replace("near.", "other."), NOW_MS), forged, "for another domain");
        let last = if path.contains("a@") { "b@" } else { "a@" };
        let changed = format!("{}{last}near.example", &path[..path.find('@').unwrap() - 1]);
        assert_eq!(paths.read(&changed, NOW_MS), forged);
        for text in ["b0=@near.example", "b0=my@near.example", "B0=%%@near.example"] {
            assert_eq!(paths.read(text, NOW_MS), forged, "{text}");
        }
        assert!(is_of_form("B0=x") && !is_of_form("b0") && !is_of_form("ada"));
        for text in ["", "b0=", "ada@near.example", "b0@near.example", "b0-x@near.example", "é0=a@near.example"] {
            assert_eq!(paths.read(text, NOW_MS), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_origin_comes_back(sender: [u8; 16], entry: u64, recipient: u8, sent_ms in 0_i64..1 << 46) {
            let paths = ReturnPaths::new(&[1; 32]);
            let origin = Origin { sender: UserId(sender), entry: EntryId(entry), recipient };
            let path = paths.path(&origin, "near.example", sent_ms);
            prop_assert!(check_path(&path).is_ok(), "{}", path);
            prop_assert_eq!(paths.read(&path, sent_ms), Some(Ok(origin)));
        }

        #[test]
        fn no_text_is_ours_by_chance(text in "b0=[a-z2-7]{0,64}@near.example") {
            prop_assert_eq!(ReturnPaths::new(&[1; 32]).read(&text, NOW_MS), Some(Err(PathError::Forged)));
        }
    }
}
