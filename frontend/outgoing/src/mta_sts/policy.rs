//! Policies and their records, as text (RFC 8461 sections 3.1 and 3.2).

use thiserror::Error;

use crate::dns::Domain;
use crate::limit::POLICY_PATTERNS_MAX;

/// What a domain asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes only as the policy says.
    Enforce,
    /// Mail goes in any case; what would have failed is told.
    Testing,
    /// There is no policy any more.
    None,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it asks for.
    pub mode: Mode,
    /// How long it holds, seconds.
    pub max_age: u64,
    /// The hosts: names, or `*.` and a name.
    pub patterns: Vec<String>,
}

/// Text that is no policy.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("it is no policy: {0}")]
pub struct PolicyError(&'static str);

impl Policy {
    /// Reads a policy. Fields that are not known are nothing; of one that stands twice the first counts.
    ///
    /// # Errors
    /// When it lacks what every policy has.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let (mut version, mut mode, mut max_age, mut patterns) = (None, None, None, Vec::new());
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if patterns.len() < POLICY_PATTERNS_MAX => patterns.push(value.to_ascii_lowercase()),
                "mx" => return Err(PolicyError("it has too many mx fields")),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError("its version is not STSv1"));
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError("its mode is none of enforce, testing, none")),
        };
        let max_age = max_age.filter(|text| text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit()));
        let max_age = max_age.and_then(|text| text.parse().ok()).ok_or(PolicyError("its max_age is no number"))?;
        if patterns.is_empty() && mode != Mode::None {
            return Err(PolicyError("it names no host"));
        }
        Ok(Self { mode, max_age, patterns })
    }

    /// Whether mail may go to a host (RFC 8461 section 4.1): a star stands for one label.
    pub fn allows(&self, host: &Domain) -> bool {
        self.patterns.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.parent() == Some(parent),
            None => host.as_str() == pattern.strip_suffix('.').unwrap_or(pattern),
        })
    }
}

/// The id of a domain's policy, from the TXT records of `_mta-sts`; `None` where there is not exactly one (RFC 8461 section 3.1).
pub fn record_id(records: &[String]) -> Option<String> {
    let mut of_sts = records.iter().filter(|record| {
        record.strip_prefix("v=STSv1").is_some_and(|rest| rest.is_empty() || rest.trim_start().starts_with(';'))
    });
    let record = of_sts.next().filter(|_| of_sts.next().is_none())?;
    let fields = record.split(';').filter_map(|field| field.split_once('='));
    let id = fields.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == "id")?.1;
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: Mail.far.example\r\nmx: *.far.example\r\nmax_age: 604800\r\n";

    #[test]
    fn a_policy_is_read_and_matched() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        for (host, allowed) in [
            ("mail.far.example", true),
            ("b.far.example", true),
            ("far.example", false),
            ("a.b.far.example", false),
            ("mail.far.example.evil.example", false),
        ] {
            assert_eq!(policy.allows(&host.parse().unwrap()), allowed, "{host}");
        }
        assert_eq!(Policy::parse("version: STSv1\nmode: none\nmax_age: 1\n").unwrap().mode, Mode::None);
    }

    #[test]
    fn what_is_no_policy_is_none() {
        for (from, to) in
            [("STSv1", "STSv2"), ("enforce", "Enforce"), ("604800", "-1"), ("604800", "99999999999"), ("mx:", "xm:")]
        {
            assert!(Policy::parse(&TEXT.replace(from, to)).is_err(), "{to}");
        }
        let many = "mx: a.example\n".repeat(POLICY_PATTERNS_MAX + 1);
        assert!(Policy::parse(&format!("{TEXT}{many}")).is_err());
    }

    #[test]
    fn one_record_has_an_id() {
        let id = |records: &[&str]| record_id(&records.iter().map(|record| (*record).to_owned()).collect::<Vec<_>>());
        assert_eq!(id(&["v=STSv1; id=20260101T00;"]).as_deref(), Some("20260101T00"));
        assert_eq!(id(&["v=spf1 -all", "v=STSv1;id=a"]).as_deref(), Some("a"));
        for records in
            [&["v=STSv1; id=a", "v=STSv1; id=b"][..], &["v=STSv1"], &["v=STSv1; id="], &["v=STSv10; id=a"], &[]]
        {
            assert_eq!(id(records), None, "{records:?}");
        }
    }
}
