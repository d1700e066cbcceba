//! What a destination says of where mail comes from, and not of the mail: it blocks the address, or wants less from it.

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It takes nothing from this address.
    Blocked,
    /// It takes less from it than it gets.
    TooMuch,
}

impl Blame {
    /// In a word, for counters.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::TooMuch => "too_much",
        }
    }
}

/// Words that hosts have for a block, in lower case. Words for content ("looks like spam") are not among them: another address would hear the same.
const BLOCKED: [&str; 14] = [
    "blocklist",
    "block list",
    "blacklist",
    "black list",
    "blocked using",
    "ip blocked",
    "ip address blocked",
    "your ip",
    "client host rejected",
    "spamhaus",
    "dnsbl",
    "rbl",
    "poor reputation",
    "low reputation",
];
/// Words that they have for too much.
const TOO_MUCH: [&str; 9] = [
    "rate limit",
    "ratelimit",
    "too many messages",
    "too many connections",
    "too much mail",
    "throttl",
    "unusual rate",
    "exceeded the limit",
    "slow down",
];

/// What a refusal says of the address that it was said to; `None` where it is about something else.
pub(crate) fn blame(code: &str, reply: &str) -> Option<Blame> {
    let reply = reply.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| has_word(&reply, word));
    // Of a recipient nobody has another address to try.
    if code.starts_with("5.1.") || code.starts_with("5.2.") {
        return None;
    }
    match () {
        () if says(&TOO_MUCH) => Some(Blame::TooMuch),
        () if says(&BLOCKED) => Some(Blame::Blocked),
        () => None,
    }
}

/// Whether some words begin where a word does: "rbl" is in "marble".
fn has_word(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_from_what_is_said_of_mail_and_of_people() {
        for (code, reply, said) in [
            (
                "5.7.1",
                "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
                Some(Blame::Blocked),
            ),
            ("5.7.1", "550 5.7.1 Your IP has been added to our blocklist", Some(Blame::Blocked)),
            (
                "4.7.28",
                "421 4.7.28 Our system has detected an unusual rate of mail from your IP address",
                Some(Blame::TooMuch),
            ),
            ("4.7.0", "450 4.7.0 Rate limit exceeded", Some(Blame::TooMuch)),
            ("5.7.1", "550 5.7.1 This message looks like spam", None),
            ("5.1.1", "550 5.1.1 rbl@far.example: user unknown", None),
            ("4.2.2", "452 4.2.2 The mailbox is full", None),
            ("5.7.1", "550 5.7.1 no marbles here", None),
        ] {
            assert_eq!(blame(code, reply), said, "{reply}");
        }
    }
}
