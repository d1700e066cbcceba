//! The body of `POST /v1/messages`, from JSON to what is composed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use postrider_api::limit::{CANCEL_MARGIN_MS, RECIPIENTS_MAX, SEND_LATER_MS_MAX};
use postrider_api::pb;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::{OneOfBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::rest::limit::UNDO_S_MAX;
use crate::rest::problem::Problem;
use postrider_mime::ComposeAttachment;

/// What mail is: which addresses it leaves from, and whether whoever gets it can unsubscribe with a click.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Category {
    /// From a person.
    #[default]
    Personal,
    /// From a program, to one who waits for it.
    Transactional,
    /// From a program, to many.
    Bulk,
}

impl From<Category> for pb::MailCategory {
    fn from(category: Category) -> Self {
        match category {
            Category::Personal => Self::Personal,
            Category::Transactional => Self::Transactional,
            Category::Bulk => Self::Bulk,
        }
    }
}

impl From<pb::MailCategory> for Category {
    fn from(category: pb::MailCategory) -> Self {
        match category {
            pb::MailCategory::Personal => Self::Personal,
            pb::MailCategory::Transactional => Self::Transactional,
            pb::MailCategory::Bulk => Self::Bulk,
        }
    }
}

/// Who gets it: an object, or just the address as text.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct To {
    pub(crate) name: String,
    pub(crate) email: String,
}

impl PartialSchema for To {
    fn schema() -> RefOr<Schema> {
        let object = Ref::from_schema_name(Recipient::name());
        OneOfBuilder::new().item(object).item(String::schema()).into()
    }
}

impl ToSchema for To {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Recipient::name().into_owned(), Recipient::schema()));
    }
}

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ToVisitor)
    }
}

/// Who gets it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Recipient {
    /// May be absent.
    #[serde(default)]
    name: String,
    /// Anywhere.
    #[schema(example = "bob@postrider.example")]
    email: String,
}

struct ToVisitor;

impl<'de> Visitor<'de> for ToVisitor {
    type Value = To;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an address, or an object with name and email")
    }

    fn visit_str<E: de::Error>(self, email: &str) -> Result<To, E> {
        Ok(To { name: String::new(), email: email.to_owned() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<To, A::Error> {
        let Recipient { name, email } = Recipient::deserialize(MapAccessDeserializer::new(map))?;
        Ok(To { name, email })
    }
}

impl From<To> for pb::Mailbox {
    fn from(to: To) -> Self {
        Self { name: to.name, email: to.email }
    }
}

/// A file to send.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutgoingAttachment {
    /// As the recipient sees it.
    #[serde(default)]
    filename: String,
    /// `type/subtype`; `application/octet-stream` unless given.
    #[serde(default)]
    content_type: String,
    /// The file in base64 (RFC 4648 section 4).
    data: Option<String>,
    /// The file as it was uploaded before, instead of `data`.
    pub(crate) upload_id: Option<String>,
    /// Its content, once it was looked for.
    #[serde(skip)]
    #[schema(ignore)]
    pub(crate) fetched: Option<Bytes>,
}

/// A message to send.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({
    "to": [{"name": "Bob", "email": "bob@postrider.example"}],
    "subject": "Hello",
    "body": "Hello Bob",
    "attachments": [{"filename": "hello.txt", "content_type": "text/plain", "data": "SGVsbG8="}]
}))]
#[serde(deny_unknown_fields)]
pub(crate) struct Outgoing {
    /// Who is meant.
    #[serde(default)]
    pub(crate) to: Vec<To>,
    /// Who gets a copy.
    #[serde(default)]
    pub(crate) cc: Vec<To>,
    /// Who gets a copy unseen: the message does not say so, the Sent copy neither.
    #[serde(default)]
    pub(crate) bcc: Vec<To>,
    /// One line.
    #[serde(default)]
    pub(crate) subject: String,
    /// The text.
    pub(crate) body: Option<String>,
    /// The same as HTML.
    pub(crate) body_html: Option<String>,
    /// Files.
    #[serde(default)]
    pub(crate) attachments: Vec<OutgoingAttachment>,
    /// The message of this mailbox that this one answers: the two are in one conversation then.
    pub(crate) in_reply_to: Option<String>,
    /// Nobody gets it before, RFC 3339; at most a year from now.
    send_at: Option<String>,
    /// For so many seconds, 0 to 60, nobody gets it and it can be taken back; 0 unless given.
    undo_s: Option<u32>,
    /// What it is; what the account sends unless given.
    category: Option<Category>,
}

/// When a message is sent.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"undo_s": 10}))]
#[serde(deny_unknown_fields)]
pub(crate) struct Later {
    /// Nobody gets it before, RFC 3339; at most a year from now.
    #[serde(default)]
    pub(crate) send_at: Option<String>,
    /// For so many seconds, 0 to 60, nobody gets it and it can be taken back; 0 unless given.
    #[serde(default)]
    pub(crate) undo_s: Option<u32>,
    /// What it is; what the account sends unless given.
    #[serde(default)]
    pub(crate) category: Option<Category>,
}

/// When nobody gets it yet, and what its Date says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// 0: at once.
    pub(crate) not_before_ms: i64,
    pub(crate) date_ms: i64,
    pub(crate) category: Category,
}

impl Later {
    /// What can be said without asking anybody.
    pub(crate) fn times(&self, now_ms: i64) -> Result<Times, Problem> {
        let undo_s = self.undo_s.unwrap_or(0);
        if undo_s > UNDO_S_MAX {
            return Err(Problem::field("undo_s", format!("0 to {UNDO_S_MAX} seconds")));
        }
        // So that there are so many of them, whatever a leader's clock says.
        let undo_ms = if undo_s == 0 { 0 } else { now_ms + i64::from(undo_s) * 1000 + CANCEL_MARGIN_MS };
        let category = self.category.unwrap_or_default();
        let Some(send_at) = &self.send_at else {
            return Ok(Times { not_before_ms: undo_ms, date_ms: now_ms, category });
        };
        let at =
            send_at.parse::<Timestamp>().map_err(|_| Problem::field("send_at", "a time is RFC 3339, with its zone"))?;
        let at_ms = at.as_millisecond();
        if at_ms <= now_ms || at_ms - now_ms > SEND_LATER_MS_MAX {
            return Err(Problem::field("send_at", "in the future, at most a year from now"));
        }
        Ok(Times { not_before_ms: at_ms.max(undo_ms), date_ms: at_ms, category })
    }
}

impl Outgoing {
    /// When it is sent.
    pub(crate) fn later(&self) -> Later {
        Later { send_at: self.send_at.clone(), undo_s: self.undo_s, category: self.category }
    }

    /// What can be said of a draft without asking anybody.
    pub(crate) fn check_draft(&self) -> Result<(), Problem> {
        if self.send_at.is_some() || self.undo_s.is_some() {
            return Err(Problem::field("send_at", "a draft is given a time when it is sent"));
        }
        if self.category.is_some() {
            return Err(Problem::field("category", "a draft is given one when it is sent"));
        }
        let recipients = self.to.len() + self.cc.len() + self.bcc.len();
        if recipients > RECIPIENTS_MAX {
            return Err(Problem::field(
                "to",
                format!("to, cc and bcc name at most {RECIPIENTS_MAX} recipients together"),
            ));
        }
        Ok(())
    }

    /// What can be said without asking anybody.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let recipients = self.to.len() + self.cc.len() + self.bcc.len();
        if recipients == 0 || recipients > RECIPIENTS_MAX {
            return Err(Problem::field("to", format!("to, cc and bcc name 1 to {RECIPIENTS_MAX} recipients together")));
        }
        Ok(())
    }

    /// Everybody who gets it, each with the field that names him.
    pub(crate) fn recipients(&self) -> Vec<(&'static str, String)> {
        let lists = [("to", &self.to), ("cc", &self.cc), ("bcc", &self.bcc)];
        lists.into_iter().flat_map(|(field, list)| list.iter().map(move |to| (field, to.email.clone()))).collect()
    }

    /// Takes the files out, decoded.
    pub(crate) fn take_attachments(&mut self) -> Result<Vec<ComposeAttachment>, Problem> {
        std::mem::take(&mut self.attachments).into_iter().map(OutgoingAttachment::decode).collect()
    }
}

impl OutgoingAttachment {
    fn decode(self) -> Result<ComposeAttachment, Problem> {
        let content = match (self.data, self.fetched) {
            (Some(_), Some(_)) => return Err(Problem::field("attachments.data", "a file has data or an upload_id")),
            (None, Some(content)) => content,
            (None, None) => return Err(Problem::field("attachments.data", "a file needs its data or an upload_id")),
            (Some(data), None) => STANDARD
                .decode(data)
                .map(Bytes::from)
                .map_err(|error| Problem::field("attachments.data", format!("data is not base64: {error}")))?,
        };
        Ok(ComposeAttachment { filename: self.filename, content_type: self.content_type, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::problem::Kind;

    #[test]
    fn recipients_are_objects_or_text() {
        let to = |text: &str| serde_json::from_str::<To>(text);
        assert_eq!(to("\"a@x.example\"").unwrap().email, "a@x.example");
        let object = to("{\"name\": \"A\", \"email\": \"a@x.example\"}").unwrap();
        assert_eq!((object.name.as_str(), object.email.as_str()), ("A", "a@x.example"));
        assert!(to("{\"name\": \"A\"}").is_err());
        assert!(to("{\"email\": \"a@x.example\", \"mail\": 1}").is_err());
        assert!(to("7").is_err());
    }

    #[test]
    fn what_is_checked_at_once() {
        let kind = |text: &str| {
            let outgoing: Outgoing = serde_json::from_str(text).unwrap();
            outgoing.check().map_err(|problem| problem.kind())
        };
        assert_eq!(kind("{\"to\": [\"a@x.example\"]}"), Ok(()));
        assert_eq!(kind("{}"), Err(Kind::InvalidBody));
        let many: Vec<_> = (0..101).map(|n| format!("u{n}@x.example")).collect();
        assert_eq!(kind(&serde_json::json!({"to": many}).to_string()), Err(Kind::InvalidBody));
    }

    #[test]
    fn times() {
        let category = Category::Personal;
        let later =
            |send_at: Option<&str>, undo_s| Later { send_at: send_at.map(str::to_owned), undo_s, category: None };
        let times = |later: Later| later.times(1_000_000).map_err(|problem| problem.kind());
        assert_eq!(times(later(None, None)), Ok(Times { not_before_ms: 0, date_ms: 1_000_000, category }));
        let not_before_ms = 1_010_000 + CANCEL_MARGIN_MS;
        assert_eq!(times(later(None, Some(10))), Ok(Times { not_before_ms, date_ms: 1_000_000, category }));
        let at = Some("1970-01-01T01:00:00+00:00");
        assert_eq!(times(later(at, Some(1))), Ok(Times { not_before_ms: 3_600_000, date_ms: 3_600_000, category }));
        for bad in [
            later(None, Some(61)),
            later(Some("1970-01-01T00:00:01Z"), None),
            later(Some("2026-01-01T00:00:00Z"), None),
            later(Some("tomorrow"), None),
            later(Some("1970-01-01T01:00:00"), None),
        ] {
            assert_eq!(times(bad.clone()), Err(Kind::InvalidBody), "{bad:?}");
        }
    }

    #[test]
    fn files_are_decoded_strictly() {
        let decode = |data: &str| {
            let attachment = OutgoingAttachment {
                filename: String::new(),
                content_type: String::new(),
                data: Some(data.to_owned()),
                upload_id: None,
                fetched: None,
            };
            attachment.decode().map(|file| file.content).map_err(|problem| problem.kind())
        };
        assert_eq!(decode("aGk="), Ok(Bytes::from_static(b"hi")));
        for bad in ["aGk", "aG k=", "a-_=", "aGl="] {
            assert_eq!(decode(bad), Err(Kind::InvalidBody), "{bad}");
        }
    }
}
