//! `GET /v1/messages/{message_id}/view`: what a sender wrote, as a document in which nothing runs (`postrider-sanitize`).
//!
//! Invariant: the response has an origin of its own (`sandbox`, RFC 9110 has no word for it: CSP Level 3 section 6.3), and fetches nothing
//! but images from here, whatever the document says: the policy does not know what the sanitiser did.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderMap, HeaderName, HeaderValue};
use postrider_api::id::EmailId;
use postrider_mime::{self as mime, Rendered};
use postrider_sanitize::{self as sanitize, Addresses, Report, TextFormat, View};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::rest::bodies::{Bodies, held};
use crate::rest::extract::{Params, PathId};
use crate::rest::grants::{Grants, Target};
use crate::rest::images::Images;
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::near::Opened;
use crate::rest::openapi::ReadProblems;
use crate::rest::problem::Problem;

/// What a browser may do with a message: show it, with images from here, and open its links beside it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src 'self' data:; \
     style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

/// The same for our own page, which looks into its frame: how high it is, and what the response says of it. The document has the page's origin
/// then, and still nothing in it runs, so nothing in it makes use of that (docs/adr/131-html-mail-in-a-frame.md).
const POLICY_OF_PAGE: HeaderValue = HeaderValue::from_static(
    "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src 'self' data:; \
     style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

/// What was taken out: a dictionary of counts (RFC 9651 section 3.2). What is not in it did not occur.
const BLOCKED: HeaderName = HeaderName::from_static("postrider-blocked");
/// Who would have been told: a list of hosts, each with how (RFC 9651 section 3.1).
const TRACKERS: HeaderName = HeaderName::from_static("postrider-trackers");
/// Trackers that are named in the field.
const TRACKERS_MAX: usize = 20;

/// Whether images of the network are shown.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShowImages {
    /// They are not: nobody learns that the message was read.
    #[default]
    Block,
    /// They are, fetched by this service.
    Show,
}

/// The colours of the page around the message.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on dark, where the message names no colours of its own or was made for both.
    Dark,
}

/// Whose origin the document has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ViewOrigin {
    /// Its own, which is nobody's.
    #[default]
    Opaque,
    /// That of this interface: for a page of the same origin whose frame it is in.
    Page,
}

/// How a message is shown.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ViewParams {
    /// Images of the network. Absent: `block`. Those that nobody would see are shown to nobody.
    #[param(inline)]
    images: Option<ShowImages>,
    /// Absent: `light`.
    #[param(inline)]
    theme: Option<Theme>,
    /// Absent: `opaque`. With `page` a page of this origin can look into its frame, and finds `Postrider-Blocked` and
    /// `Postrider-Trackers` there as `meta` elements of these names; nothing runs in it all the same.
    #[param(inline)]
    origin: Option<ViewOrigin>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

/// Show a message: a document for a frame, in which nothing runs and which tells nobody that it is read. `Postrider-Blocked` counts what
/// is not in it, `Postrider-Trackers` names who would have been told.
#[utoipa::path(
    get, path = "/v1/messages/{message_id}/view", operation_id = "view_message", tag = "messages",
    params(("message_id" = String, Path, description = "The message"), ViewParams),
    responses((status = 200, description = "A document", body = String, content_type = "text/html"), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn view(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    State(grants): State<Grants>,
    State(images): State<Images>,
    caller: Caller,
    PathId(message): PathId<EmailId>,
    Params(params): Params<ViewParams>,
) -> Result<Response, Problem> {
    let min_modseq = params.min_modseq.unwrap_or(0);
    let opened = bodies.near().open(&mailboxes, &bodies, &caller, message, min_modseq).await?;
    let Opened { record, rendered, freshness, turn } = opened;
    let shows_remote = matches!(params.images, Some(ShowImages::Show)) && images.are_fetched();
    let named = record.parts.into_iter().filter(|part| part.is_attachment && !part.content_id.is_empty());
    let parts = named.map(|part| (part.content_id, part.path)).collect();
    let addresses = Granting { grants, caller, message, parts, shows_remote };
    let theme = match params.theme.unwrap_or_default() {
        Theme::Light => sanitize::Theme::Light,
        Theme::Dark => sanitize::Theme::Dark,
    };
    let view = bodies.apart(move || made_harmless(&rendered, theme, &addresses)).await?;
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let told = told(&view.report);
    let (policy, document) = match params.origin.unwrap_or_default() {
        ViewOrigin::Opaque => (POLICY, view.document),
        ViewOrigin::Page => {
            (POLICY_OF_PAGE, view.telling(told.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        }
    };
    fields.insert(CONTENT_SECURITY_POLICY, policy);
    say(told, &mut fields);
    Ok(held((freshness, fields, document).into_response(), turn))
}

/// Gives what a message shows addresses under the caller's session.
struct Granting {
    grants: Grants,
    caller: Caller,
    message: EmailId,
    /// Parts by their Content-ID.
    parts: HashMap<String, String>,
    shows_remote: bool,
}

impl Addresses for Granting {
    fn remote(&self, url: &str) -> Option<String> {
        let target = self.shows_remote.then(|| Target::Remote(url.to_owned()))?;
        Some(format!("/v1/proxy/image?grant={}", self.grants.give(&self.caller, &target)))
    }

    fn inline(&self, content_id: &str) -> Option<String> {
        let target = Target::Part(self.message, self.parts.get(content_id)?.clone());
        Some(format!("/v1/proxy/part?grant={}", self.grants.give(&self.caller, &target)))
    }
}

fn made_harmless(rendered: &Rendered, theme: sanitize::Theme, addresses: &Granting) -> View {
    let mut view = match (&rendered.html, &rendered.text) {
        (Some(html), _) => sanitize::html(html, theme, addresses),
        (None, text) => sanitize::text(text.as_deref().unwrap_or_default(), text_format(rendered), theme),
    };
    view.report.is_truncated |= rendered.is_truncated;
    view
}

/// How the text of a message that is nothing else is written (RFC 3676 section 4).
fn text_format(rendered: &Rendered) -> TextFormat {
    let field = rendered.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let Some((_, value)) = field else { return TextFormat::Fixed };
    let read = mime::parameters(value);
    let says = |name: &str, word: &str| read.get(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    match read.value.eq_ignore_ascii_case("text/plain") && says("format", "flowed") {
        true => TextFormat::Flowed { deletes_space: says("delsp", "yes") },
        false => TextFormat::Fixed,
    }
}

/// What the response says of the message, by the field's name; what there is nothing to say of is not there.
fn told(report: &Report) -> Vec<(HeaderName, String)> {
    let counts = [
        ("images", report.images_blocked),
        ("images-unseen", report.images_unseen),
        ("images-unusable", report.images_unusable),
        ("scripts", report.scripts),
        ("forms", report.forms),
        ("embedded", report.embedded),
        ("remote-styles", report.remote_styles),
        ("redirects", report.redirects),
        ("unsafe-links", report.unsafe_links),
        ("misleading-links", report.misleading_links),
        ("truncated", u32::from(report.is_truncated)),
    ];
    let members: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}")).collect();
    // A host in A-labels is letters, digits, hyphens, dots, or an address in brackets: it stands in a string as it is.
    let named = report
        .trackers
        .iter()
        .filter(|tracker| tracker.host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'));
    let trackers: Vec<_> =
        named.take(TRACKERS_MAX).map(|tracker| format!("\"{}\";kind={}", tracker.host, tracker.kind.name())).collect();
    let fields = [(BLOCKED, members), (TRACKERS, trackers)];
    let said = fields.into_iter().filter(|(_, members)| !members.is_empty());
    said.map(|(name, members)| (name, members.join(", "))).collect()
}

fn say(told: Vec<(HeaderName, String)>, fields: &mut HeaderMap) {
    for (name, value) in told {
        let value = HeaderValue::try_from(value).expect("names, digits and hosts are a field value");
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(content_type: &str) -> TextFormat {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        text_format(&Rendered { headers, ..Rendered::default() })
    }

    #[test]
    fn the_header_says_how_text_flows() {
        assert_eq!(format_of("text/plain; charset=utf-8; format=flowed"), TextFormat::Flowed { deletes_space: false });
        assert_eq!(format_of("TEXT/plain;Format=\"Flowed\";DelSp=Yes"), TextFormat::Flowed { deletes_space: true });
        assert_eq!(format_of("text/plain"), TextFormat::Fixed);
        assert_eq!(format_of("multipart/mixed; format=flowed"), TextFormat::Fixed);
    }

    #[test]
    fn what_was_taken_out_is_said_in_the_head() {
        let mut fields = HeaderMap::new();
        say(told(&Report::default()), &mut fields);
        assert!(fields.is_empty());
        let trackers = vec![sanitize::Tracker { host: "t.example".to_owned(), kind: sanitize::TrackerKind::Pixel }];
        say(told(&Report { images_blocked: 3, scripts: 1, trackers, ..Report::default() }), &mut fields);
        assert_eq!(fields[BLOCKED], "images=3, scripts=1");
        assert_eq!(fields[TRACKERS], "\"t.example\";kind=pixel");
    }

    #[test]
    fn nothing_runs_whosever_origin_a_document_has() {
        for policy in [POLICY, POLICY_OF_PAGE] {
            let policy = policy.to_str().unwrap();
            assert!(policy.starts_with("sandbox ") && policy.contains("default-src 'none'"), "{policy}");
            assert!(!policy.contains("allow-scripts") && !policy.contains("script-src"), "{policy}");
            assert!(!policy.contains("allow-forms") && !policy.contains("allow-top"), "{policy}");
        }
    }
}
