//! Who gets a message and what is told of it (RFC 3461).

use postrider_api::notify::Notify;

/// The value of NOTIFY; `None` where nothing was asked.
pub(crate) fn notify_parameter(notify: Notify) -> Option<String> {
    if notify == Notify::NEVER {
        return Some("NEVER".to_owned());
    }
    let named = [(Notify::SUCCESS, "SUCCESS"), (Notify::FAILURE, "FAILURE"), (Notify::DELAY, "DELAY")];
    let set: Vec<_> = named.iter().filter(|(bit, _)| notify.0 & bit.0 != 0).map(|(_, name)| *name).collect();
    (!set.is_empty()).then(|| set.join(","))
}

/// What of the message a report brings back (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ReturnContent {
    /// As whoever reports likes.
    #[default]
    Unspecified,
    /// All of it.
    Full,
    /// Its header section.
    Headers,
}

/// A recipient elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteRecipient {
    /// `local@domain`, the domain in A-labels.
    pub address: String,
    /// When the sender wants to be told.
    pub notify: Notify,
    /// ORCPT as given, `type;xtext`; empty where there was none.
    pub original: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_is_not_said() {
        assert_eq!(notify_parameter(Notify::default()), None);
        assert_eq!(notify_parameter(Notify::NEVER).as_deref(), Some("NEVER"));
        let all = Notify::SUCCESS | Notify::FAILURE | Notify::DELAY;
        assert_eq!(notify_parameter(all).as_deref(), Some("SUCCESS,FAILURE,DELAY"));
    }
}
