//! The Sender Rewriting Scheme: mail that is forwarded leaves under an address of the forwarder, so that SPF holds there and a bounce comes
//! back through him. There is no RFC; the forms are those of "The Sender Rewriting Scheme" (Mengwong, 2003) and of libsrs2.
//!
//! * `SRS0=HASH=DAY=DOMAIN=LOCAL@forwarder` of an address outside.
//! * `SRS1=HASH=FIRST==REST@forwarder` of another forwarder's SRS0 address, `REST` being what stands behind its `SRS0`: a chain of
//!   forwarders does not make the address longer each time, and a bounce goes from the last straight to the first.
//!
//! `HASH` is 8 letters of base 32 (40 bits) of keyed blake3, in which case does not count; `DAY` is two letters of base 32: days since the
//! Unix epoch, modulo 1024.

use thiserror::Error;

use super::{LOCAL_BYTES_MAX, base32, day_of, is_same};

/// Letters of a hash.
const HASH_LETTERS: usize = 8;
/// Days that two letters of base 32 tell apart.
const DAYS: i64 = 1024;
/// For how many days after it was forwarded a message may come back: as the standard implementation has it, three weeks.
const DAYS_MAX: i64 = 21;
/// Clocks around midnight.
const DAYS_AHEAD_MAX: i64 = 1;

/// Why an address is not rewritten, or not back.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SrsError {
    /// The local part would have more bytes than one may have.
    #[error("the rewritten local part would be longer than {LOCAL_BYTES_MAX} bytes")]
    TooLong,
    /// It has a part that cannot stand within a rewritten address, or lacks one.
    #[error("the address cannot be rewritten")]
    Shape,
    /// It was not written here.
    #[error("the address was not rewritten here")]
    Forged,
    /// It was, and its time is over.
    #[error("the address was rewritten more than {DAYS_MAX} days ago")]
    Expired,
}

/// Rewrites reverse-paths, and undoes it.
#[derive(Clone)]
pub struct Srs {
    key: [u8; 32],
    domain: String,
}

impl Srs {
    /// For mail that is forwarded in the name of `domain`, in A-labels, under the secret of frontends and workers.
    pub fn new(secret: &[u8; 32], domain: &str) -> Self {
        Self { key: blake3::derive_key("postrider 2026 srs", secret), domain: domain.to_ascii_lowercase() }
    }

    /// The reverse-path of a message that came with `sender` and is forwarded at `now_ms`. The null reverse-path stays what it is, and so
    /// does an address of the forwarder's own domain that is no rewritten one.
    ///
    /// # Errors
    /// When the result would be no address: the forwarder has to send it in a name of his own.
    pub fn forward(&self, sender: &str, now_ms: i64) -> Result<String, SrsError> {
        if sender.is_empty() {
            return Ok(String::new());
        }
        let (local, domain) = sender.rsplit_once('@').ok_or(SrsError::Shape)?;
        let is_quoted = local.starts_with('"') || local.contains('@');
        let is_clean = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if is_quoted || !is_clean(local) || !is_clean(domain) || domain.contains('=') {
            return Err(SrsError::Shape);
        }
        let domain = domain.to_ascii_lowercase();
        if domain == self.domain {
            return Ok(sender.to_owned());
        }
        let local = match (behind_tag(local, "SRS0"), behind_tag(local, "SRS1")) {
            (Some(rest), _) => self.second(&domain, rest),
            // Whoever was first stays the one whom it goes back to.
            (_, Some(rest)) => {
                let (first, rest) = parts_of_second(rest).ok_or(SrsError::Shape)?;
                self.second(&first.to_ascii_lowercase(), rest)
            }
            (None, None) => {
                let tail = format!("{}={domain}={local}", day_letters(now_ms));
                format!("SRS0={}={tail}", self.hash(&tail))
            }
        };
        match local.len() <= LOCAL_BYTES_MAX {
            true => Ok(format!("{local}@{}", self.domain)),
            false => Err(SrsError::TooLong),
        }
    }

    /// Where a bounce to `recipient`, an address of the forwarder's domain, goes on to; `None` where it is no rewritten one.
    ///
    /// # Errors
    /// When it looks like one, and nothing may come back to it.
    pub fn reverse(&self, recipient: &str, now_ms: i64) -> Option<Result<String, SrsError>> {
        let (local, domain) = recipient.rsplit_once('@')?;
        if !domain.eq_ignore_ascii_case(&self.domain) {
            return None;
        }
        match (behind_tag(local, "SRS0"), behind_tag(local, "SRS1")) {
            _ if local.len() > LOCAL_BYTES_MAX => None,
            (Some(rest), _) => Some(self.reverse_first(rest.get(1..).unwrap_or_default(), now_ms)),
            (None, Some(rest)) => Some(self.reverse_second(rest)),
            (None, None) => None,
        }
    }

    fn reverse_first(&self, rest: &str, now_ms: i64) -> Result<String, SrsError> {
        let (hash, tail) = rest.split_once('=').ok_or(SrsError::Forged)?;
        if !is_same(self.hash(tail).as_bytes(), hash.to_ascii_lowercase().as_bytes()) {
            return Err(SrsError::Forged);
        }
        let mut parts = tail.splitn(3, '=');
        let (Some(day), Some(domain), Some(local)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SrsError::Forged);
        };
        let day = day_of_letters(day).ok_or(SrsError::Forged)?;
        let age = (day_of(now_ms) - day).rem_euclid(DAYS);
        match age <= DAYS_MAX || age >= DAYS - DAYS_AHEAD_MAX {
            true => Ok(format!("{local}@{domain}")),
            false => Err(SrsError::Expired),
        }
    }

    /// The first forwarder looks at the rest: it has his hash and his day.
    fn reverse_second(&self, rest: &str) -> Result<String, SrsError> {
        let (hash, tail) = rest.get(1..).and_then(|rest| rest.split_once('=')).ok_or(SrsError::Forged)?;
        if !is_same(self.hash(tail).as_bytes(), hash.to_ascii_lowercase().as_bytes()) {
            return Err(SrsError::Forged);
        }
        let (first, rest) = tail.split_once('=').ok_or(SrsError::Forged)?;
        Ok(format!("SRS0{rest}@{first}"))
    }

    /// `rest` begins with the separator that the first forwarder writes, `=`, `-` or `+`.
    fn second(&self, first: &str, rest: &str) -> String {
        let tail = format!("{first}={rest}");
        format!("SRS1={}={tail}", self.hash(&tail))
    }

    /// Of what hosts on the way may have changed the case of.
    fn hash(&self, text: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, text.to_lowercase().as_bytes());
        let mut letters = base32::encode(&hash.as_bytes()[..HASH_LETTERS * 5 / 8]);
        letters.truncate(HASH_LETTERS);
        letters
    }
}

/// Whether a local part begins as a rewritten one does.
pub(super) fn is_of_form(local: &str) -> bool {
    behind_tag(local, "SRS0").is_some() || behind_tag(local, "SRS1").is_some()
}

/// What stands behind the tag, with the separator: of others `-` and `+` are seen beside `=`.
fn behind_tag<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let (begin, rest) = (local.get(..tag.len())?, &local[tag.len()..]);
    (begin.eq_ignore_ascii_case(tag) && rest.starts_with(['=', '-', '+'])).then_some(rest)
}

/// The first forwarder, and what stands behind his `SRS0`.
fn parts_of_second(rest: &str) -> Option<(&str, &str)> {
    let (_, tail) = rest.get(1..)?.split_once('=')?;
    let (first, rest) = tail.split_once('=')?;
    (!first.is_empty() && rest.starts_with(['=', '-', '+'])).then_some((first, rest))
}

fn day_letters(now_ms: i64) -> String {
    let day = day_of(now_ms).rem_euclid(DAYS);
    // Ten bits, then six that are cut off with their letter.
    let mut letters = base32::encode(&((day as u16) << 6).to_be_bytes());
    letters.truncate(2);
    letters
}

fn day_of_letters(letters: &str) -> Option<i64> {
    if letters.len() != 2 || !letters.is_ascii() {
        return None;
    }
    let bytes = base32::decode(&format!("{letters}aa"))?;
    let bytes = <[u8; 2]>::try_from(bytes).ok()?;
    Some(i64::from(u16::from_be_bytes(bytes) >> 6))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::DAY_MS;
    use super::*;
    use crate::smtp::check_path;

    const NOW_MS: i64 = 1_790_000_000_000;

    fn srs(domain: &str) -> Srs {
        Srs::new(&[1; 32], domain)
    }

    #[test]
    fn a_bounce_goes_back_the_way_that_the_message_came() {
        let first = srs("first.example");
        let sent = first.forward("Ada@near.example", NOW_MS).unwrap();
        check_path(&sent).unwrap();
        assert!(sent.starts_with("SRS0=") && sent.ends_with("=near.example=Ada@first.example"), "{sent}");
        assert_eq!(first.reverse(&sent, NOW_MS), Some(Ok("Ada@near.example".to_owned())));
        assert_eq!(first.reverse(&sent.to_lowercase(), NOW_MS), Some(Ok("ada@near.example".to_owned())));
        // Two more forwarders on the way: the third is no longer than the second.
        let (second, third) = (srs("second.example"), srs("third.example"));
        let again = second.forward(&sent, NOW_MS).unwrap();
        let thrice = third.forward(&again, NOW_MS).unwrap();
        assert!(again.starts_with("SRS1=") && again.len() - "second".len() == thrice.len() - "third".len(), "{thrice}");
        assert_eq!(third.reverse(&thrice, NOW_MS), Some(Ok(sent.clone())), "straight to the first");
        assert_eq!(second.reverse(&again, NOW_MS), Some(Ok(sent)));
    }

    #[test]
    fn another_forwarders_separators_come_back_as_they_were() {
        let second = srs("second.example");
        for sent in ["SRS0+AbC+4T+near.example+ada@first.example", "SRS0-AbC=4T=near.example=ada@first.example"] {
            let again = second.forward(sent, NOW_MS).unwrap();
            assert_eq!(second.reverse(&again, NOW_MS), Some(Ok(sent.to_owned())), "{again}");
        }
    }

    #[test]
    fn what_was_not_written_here_or_long_ago_goes_nowhere() {
        let first = srs("first.example");
        let sent = first.forward("ada@near.example", NOW_MS).unwrap();
        assert_eq!(first.reverse(&sent, NOW_MS + DAYS_MAX * DAY_MS), Some(Ok("ada@near.example".to_owned())));
        assert_eq!(first.reverse(&sent, NOW_MS + (DAYS_MAX + 1) * DAY_MS), Some(Err(SrsError::Expired)));
        assert_eq!(first.reverse(&sent.replace("=ada@", "=eve@"), NOW_MS), Some(Err(SrsError::Forged)));
        assert_eq!(Srs::new(&[2; 32], "first.example").reverse(&sent, NOW_MS), Some(Err(SrsError::Forged)));
        assert_eq!(first.reverse("SRS0=x@first.example", NOW_MS), Some(Err(SrsError::Forged)));
        assert_eq!(first.reverse("SRS1=x=y@first.example", NOW_MS), Some(Err(SrsError::Forged)));
        assert!(is_of_form("srs0+x") && !is_of_form("srs0") && !is_of_form("ada"));
        assert_eq!(first.reverse("ada@first.example", NOW_MS), None);
        assert_eq!(first.reverse(&sent.replace("@first", "@other"), NOW_MS), None);
    }

    #[test]
    fn what_needs_no_rewriting_stays_and_what_cannot_be_is_said() {
        let first = srs("First.Example");
        assert_eq!(first.forward("", NOW_MS), Ok(String::new()));
        assert_eq!(first.forward("bob@first.example", NOW_MS), Ok("bob@first.example".to_owned()));
        assert_eq!(first.forward(&format!("{}@near.example", "a".repeat(60)), NOW_MS), Err(SrsError::TooLong));
        for sender in ["ada", "@near.example", "\"a b\"@near.example", "a\r\nb@near.example", "SRS1=x@near.example"] {
            assert_eq!(first.forward(sender, NOW_MS), Err(SrsError::Shape), "{sender:?}");
        }
    }

    proptest! {
        #[test]
        fn addresses_come_back(local in "[a-zA-Z0-9.=+-]{1,20}", day in 0_i64..100_000, age in 0_i64..=DAYS_MAX) {
            let (first, sender) = (srs("first.example"), format!("{local}@near.example"));
            prop_assume!(behind_tag(&local, "SRS0").is_none() && behind_tag(&local, "SRS1").is_none());
            let sent = first.forward(&sender, day * DAY_MS).unwrap();
            prop_assert_eq!(first.reverse(&sent, (day + age) * DAY_MS), Some(Ok(sender)));
        }

        #[test]
        fn no_text_is_ours_by_chance(text in "SRS[01][=+-][a-z0-9=.]{0,58}@first.example") {
            let back = srs("first.example").reverse(&text, NOW_MS);
            prop_assert!(back.is_none_or(|back| back.is_err()));
        }
    }
}
