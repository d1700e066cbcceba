//! Names of folders and labels.
//!
//! Invariant: what is trimmed and which letters are the same is fixed here, not taken from the standard library: its
//! Unicode tables change between compilers, and a build N+1 beside N must refuse the same names (P-12).

use crate::turn::{Stop, malformed};

/// A name in the form that is stored: trimmed, not empty, within its limit, without control characters or `/`, which
/// separates levels for IMAP clients.
pub(crate) fn check(name: &str, bytes_max: usize) -> Result<&str, Stop> {
    let name = name.trim_matches(is_space);
    if name.is_empty() {
        return Err(malformed("name: is empty"));
    }
    if name.len() > bytes_max {
        return Err(malformed(format!("name: at most {bytes_max} bytes")));
    }
    if name.contains('/') || name.chars().any(is_control) {
        return Err(malformed("name: neither '/' nor control characters are allowed"));
    }
    Ok(name)
}

/// Whether two names are one, or differ in case alone.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    a.chars().map(fold).eq(b.chars().map(fold))
}

/// Lower case of the letters of Latin, Greek and Cyrillic scripts whose lower-case form stands at a fixed distance.
fn fold(c: char) -> char {
    let code = u32::from(c);
    let lower = match code {
        0x41..=0x5a => code + 32,
        0xc0..=0xd6 | 0xd8..=0xde => code + 32,
        // Latin Extended-A: pairs of an upper and a lower case letter, in two phases.
        0x100..=0x12f | 0x132..=0x137 | 0x14a..=0x177 => code | 1,
        0x139..=0x148 | 0x179..=0x17e => code + (code & 1),
        0x391..=0x3a1 | 0x3a3..=0x3ab => code + 32,
        0x400..=0x40f => code + 80,
        0x410..=0x42f => code + 32,
        0x460..=0x481 | 0x48a..=0x4bf | 0x4d0..=0x52f => code | 1,
        0xff21..=0xff3a => code + 32,
        _ => code,
    };
    char::from_u32(lower).unwrap_or(c)
}

/// White space as Unicode 15 lists it.
fn is_space(c: char) -> bool {
    matches!(u32::from(c), 0x9..=0xd | 0x20 | 0x85 | 0xa0 | 0x1680 | 0x2000..=0x200a | 0x2028 | 0x2029 | 0x202f | 0x205f | 0x3000)
}

/// General category Cc, which Unicode has frozen.
fn is_control(c: char) -> bool {
    matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_in_case_are_the_same() {
        for (upper, lower) in [
            ("INBOX", "inbox"),
            ("ÉCOLE", "école"),
            ("ŽLUŤ", "žluť"),
            ("ŁÓDŹ", "łódź"),
            ("ПОЧТА", "почта"),
            ("ΕΛΛΆΔΑ", "ελλΆδα"),
        ] {
            assert!(is_same(upper, lower), "{upper} {lower}");
        }
        assert!(!is_same("받은편지함", "보낸편지함"));
        assert!(!is_same("a", "ab"));
        // The fixed table agrees with the library where it says anything.
        for code in 0..0x2_0000 {
            let Some(c) = char::from_u32(code) else { continue };
            let folded = fold(c);
            assert!(folded == c || c.to_lowercase().eq([folded]), "{c} {code:x}");
        }
    }

    #[test]
    fn names_are_trimmed_and_checked() {
        fn check(name: &str) -> Result<&str, Stop> {
            super::check(name, 255)
        }
        assert!(matches!(check(" \u{3000}일\u{a0}"), Ok("일")));
        for bad in ["", " \t", "a/b", "a\nb", "a\u{85}b"] {
            assert!(matches!(check(bad), Err(Stop::Refused(_))), "{bad:?}");
        }
        assert!(check(&"x".repeat(255)).is_ok());
        assert!(matches!(check(&"x".repeat(256)), Err(Stop::Refused(_))));
    }
}
