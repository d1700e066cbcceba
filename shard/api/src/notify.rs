//! What a recipient's sender asked to be told of (RFC 3461 section 4.1). A set of them is one number in rows and commands.

use std::ops::BitOr;

/// A set of what NOTIFY may ask for; the empty set where nothing was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Notify(pub u32);

impl Notify {
    /// Nothing is told, whatever happens. It stands alone.
    pub const NEVER: Self = Self(1);
    /// The message was delivered, or handed to a host that does not report.
    pub const SUCCESS: Self = Self(1 << 1);
    /// He was given up.
    pub const FAILURE: Self = Self(1 << 2);
    /// He still waits after a while.
    pub const DELAY: Self = Self(1 << 3);
    const ALL: u32 = 15;

    /// Whether it is a set that NOTIFY can ask for.
    pub fn is_valid(self) -> bool {
        self.0 & !Self::ALL == 0 && (self.0 & Self::NEVER.0 == 0 || self == Self::NEVER)
    }

    /// Whether this is to be told. Where nothing was asked, failure and delay are (RFC 3461 section 4.1).
    pub fn tells(self, what: Self) -> bool {
        let asked = if self.0 == 0 { Self::FAILURE | Self::DELAY } else { self };
        asked.0 & what.0 != 0
    }
}

impl BitOr for Notify {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_asked_failure_and_delay_are_told() {
        assert!(Notify::default().tells(Notify::FAILURE) && Notify::default().tells(Notify::DELAY));
        assert!(!Notify::default().tells(Notify::SUCCESS));
        assert!(!Notify::NEVER.tells(Notify::FAILURE) && !Notify::SUCCESS.tells(Notify::FAILURE));
        assert!((Notify::SUCCESS | Notify::FAILURE).is_valid() && Notify::NEVER.is_valid());
        assert!(!(Notify::NEVER | Notify::FAILURE).is_valid() && !Notify(16).is_valid());
    }
}
