//! The body of `POST /v1/messages`, from JSON to what is composed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postrider_api::limit::RECIPIENTS_MAX;
use postrider_api::pb;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::{OneOfBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::rest::problem::{Kind, Problem};
use postrider_mime::ComposeAttachment;

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
    /// In one of the cluster's domains.
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
    /// Not available yet.
    upload_id: Option<String>,
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
    /// Not available yet.
    send_at: Option<String>,
}

impl Outgoing {
    /// What can be said without asking anybody.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.send_at.is_some() {
            return Err(unavailable("send_at", "messages are sent at once; sending later is not available yet"));
        }
        if self.attachments.iter().any(|attachment| attachment.upload_id.is_some()) {
            let detail = "files come as base64 in data; uploading them before is not available yet";
            return Err(unavailable("attachments.upload_id", detail));
        }
        let recipients = self.to.len() + self.cc.len() + self.bcc.len();
        if recipients == 0 || recipients > RECIPIENTS_MAX {
            return Err(Problem::field("to", format!("to, cc and bcc name 1 to {RECIPIENTS_MAX} recipients together")));
        }
        Ok(())
    }

    /// Everybody who gets it.
    pub(crate) fn recipients(&self) -> impl Iterator<Item = &To> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }

    /// Takes the files out, decoded.
    pub(crate) fn take_attachments(&mut self) -> Result<Vec<ComposeAttachment>, Problem> {
        std::mem::take(&mut self.attachments).into_iter().map(OutgoingAttachment::decode).collect()
    }
}

impl OutgoingAttachment {
    fn decode(self) -> Result<ComposeAttachment, Problem> {
        let data = self.data.ok_or_else(|| Problem::field("attachments.data", "a file needs its data"))?;
        let content = STANDARD
            .decode(data)
            .map_err(|error| Problem::field("attachments.data", format!("data is not base64: {error}")))?;
        Ok(ComposeAttachment {
            filename: self.filename,
            content_type: self.content_type,
            content: Bytes::from(content),
        })
    }
}

fn unavailable(field: &str, detail: &'static str) -> Problem {
    Problem::new(Kind::NotAvailableYet).detail(detail).member("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            kind("{\"to\": [\"a@x.example\"], \"send_at\": \"2026-01-01T00:00:00Z\"}"),
            Err(Kind::NotAvailableYet)
        );
        let upload = "{\"to\": [\"a@x.example\"], \"attachments\": [{\"upload_id\": \"1\"}]}";
        assert_eq!(kind(upload), Err(Kind::NotAvailableYet));
        let many: Vec<_> = (0..101).map(|n| format!("u{n}@x.example")).collect();
        assert_eq!(kind(&serde_json::json!({"to": many}).to_string()), Err(Kind::InvalidBody));
    }

    #[test]
    fn files_are_decoded_strictly() {
        let decode = |data: &str| {
            let attachment = OutgoingAttachment {
                filename: String::new(),
                content_type: String::new(),
                data: Some(data.to_owned()),
                upload_id: None,
            };
            attachment.decode().map(|file| file.content).map_err(|problem| problem.kind())
        };
        assert_eq!(decode("aGk="), Ok(Bytes::from_static(b"hi")));
        for bad in ["aGk", "aG k=", "a-_=", "aGl="] {
            assert_eq!(decode(bad), Err(Kind::InvalidBody), "{bad}");
        }
    }
}
