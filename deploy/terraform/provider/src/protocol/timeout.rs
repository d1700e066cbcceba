//! The attribute `timeouts`: how long each kind of change may take.

use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::schema::{Attribute, Type};
use super::value::{Attributes as _, Object, Value};

/// The longest that is taken: a week.
const SECONDS_MAX: u64 = 7 * 24 * 3600;

const KINDS: [&str; 3] = ["create", "update", "delete"];

/// The attribute, for schemas of what may take long.
#[must_use]
pub fn attribute() -> Attribute {
    let of = |name| Attribute::optional(name, Type::Text, "A number with `s`, `m` or `h`.");
    Attribute::optional(
        "timeouts",
        Type::Nested(KINDS.map(of).into()),
        "How long to wait for a change. When the time is up, what the cluster has recorded goes on; the next apply takes it up.",
    )
}

/// How long a change of this kind may take, where the state says so.
pub(super) fn of(state: &Object, kind: &str) -> Option<Duration> {
    state.nested("timeouts").and_then(|timeouts| timeouts.text(kind)).and_then(parse)
}

/// What is wrong with those of a configuration.
pub(super) fn check(config: &Object) -> Vec<Diagnostic> {
    let Some(timeouts) = config.nested("timeouts") else { return Vec::new() };
    let is_wrong = |value: &Value| matches!(value, Value::Text(text) if parse(text).is_none());
    let wrong = timeouts.iter().filter(|(_, value)| is_wrong(value));
    wrong
        .map(|(kind, _)| {
            let detail = format!(
                "timeouts.{kind}: a number with s, m or h is wanted, at most a week: \"90s\", \"30m\", \"2h\"."
            );
            Diagnostic::error("Not a duration", detail).at("timeouts")
        })
        .collect()
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::super::value::object;
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("2h"), Some(Duration::from_secs(7200)));
        for wrong in ["", "m", "5", "5d", "-5m", "0s", "1e3s", "ä", "169h"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let timeouts = |create: Value| {
            object([("timeouts", Value::Object(object([("create", create), ("update", Value::Null)])))])
        };
        assert_eq!(of(&timeouts("1m".into()), "create"), Some(Duration::from_secs(60)));
        assert_eq!(of(&timeouts("1m".into()), "update"), None);
        assert!(check(&timeouts(Value::Unknown)).is_empty());
        assert_eq!(check(&timeouts("soon".into())).len(), 1);
    }
}
