//! Times in JSON: RFC 3339, UTC, milliseconds.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// Milliseconds since the Unix epoch, written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub i64);

/// RFC 3339 section 1 writes years 0000 to 9999 only: what a Date header names beyond is shown as the last moment within.
const MS_MIN: i64 = -62_167_219_200_000;
const MS_MAX: i64 = 253_402_300_799_999;

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = self.0.clamp(MS_MIN, MS_MAX);
        // jiff ends 26 hours before the year 9999 does, so that every time zone has a time for every moment.
        let time = Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX });
        serializer.collect_str(&time)
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written() {
        let text = |ms| serde_json::to_string(&Time(ms)).unwrap();
        assert_eq!(text(0), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(text(1_790_000_000_123), "\"2026-09-21T14:13:20.123Z\"");
        assert_eq!(text(-1), "\"1969-12-31T23:59:59.999Z\"");
        assert_eq!(text(i64::MIN), "\"0000-01-01T00:00:00Z\"");
        assert!(text(i64::MAX).starts_with("\"9999-12-30T"));
    }
}
