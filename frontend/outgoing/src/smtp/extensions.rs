//! What a peer offers in its reply to EHLO.

use super::reply::Reply;

/// The extensions that matter to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: the largest message, bytes; `None` where none is said.
    pub size: Option<u64>,
    /// Whether SIZE is offered.
    pub takes_size: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtp_utf8: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 8689.
    pub require_tls: bool,
}

impl Extensions {
    /// Reads the lines behind the first. Unknown ones are nothing to us.
    pub fn of(reply: &Reply) -> Self {
        let mut found = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "STARTTLS" => found.starttls = true,
                "PIPELINING" => found.pipelining = true,
                "SIZE" => {
                    found.takes_size = true;
                    // 0 says that there is no fixed limit (RFC 1870 section 4).
                    found.size = words.next().and_then(|bytes| bytes.parse().ok()).filter(|bytes| *bytes > 0);
                }
                "8BITMIME" => found.eight_bit = true,
                "SMTPUTF8" => found.smtp_utf8 = true,
                "CHUNKING" => found.chunking = true,
                "DSN" => found.dsn = true,
                "REQUIRETLS" => found.require_tls = true,
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case() {
        let lines = ["mx.example at your service", "size 1000", "Pipelining", "AUTH PLAIN", "8bitmime", "", "SIZEX 3"];
        let reply = Reply { code: 250, enhanced: None, lines: lines.map(str::to_owned).to_vec() };
        let found = Extensions::of(&reply);
        assert_eq!(found.size, Some(1000));
        assert!(found.pipelining && found.eight_bit && found.takes_size && !found.starttls && !found.chunking);
        let lines = ["mx.example", "SIZE 0"].map(str::to_owned).to_vec();
        assert_eq!(Extensions::of(&Reply { code: 250, enhanced: None, lines }).size, None);
    }
}
