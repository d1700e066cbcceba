//! What a reader sees of a message: text, HTML and header fields.

use postrider_api::pb;

use super::attachment::{collect, read_head};
use super::charset::{html_text, to_text};
use super::field;
use super::html::html_to_text;
use super::limit::{HEADER_BYTES_MAX, RENDER_INPUT_BYTES_MAX, RENDERED_BYTES_MAX, RENDERED_FIELDS_MAX};
use super::raw::{RawError, StoredMessage};
use super::source::BlobSource;
use super::text::head;

/// Body parts that are shown.
const BODIES_MAX: usize = 100;

/// A message to show. Each text is at most [`RENDERED_BYTES_MAX`] bytes; what is beyond is in the raw message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// The text body; made of the HTML where the sender gave no text.
    pub text: Option<String>,
    /// The HTML body as the sender wrote it: nobody has made it harmless yet. `None` where he gave none.
    pub html: Option<String>,
    /// The header fields in their order, decoded as unstructured text; at most [`RENDERED_FIELDS_MAX`].
    pub headers: Vec<(String, String)>,
    /// Whether there was more of a body than is given, or than is read for it.
    pub is_truncated: bool,
}

/// Reads the bodies and the header of a stored message: at most [`RENDER_INPUT_BYTES_MAX`] of all bodies together, whatever they
/// give.
///
/// # Errors
/// When the stored message cannot be read.
pub async fn render<B>(record: &pb::EmailRecord, stored: &pb::StoredBody, blobs: &B) -> Result<Rendered, RawError>
where
    B: BlobSource + Clone + 'static,
{
    let message = StoredMessage::open(stored, blobs)?;
    let mut rendered = Rendered { headers: headers(&message, &record.parts).await?, ..Rendered::default() };
    let has_html = record.parts.iter().any(|part| part.is_html_body && is_html(part));
    let (mut text, mut html) = (Body::default(), Body::default());
    let mut input_left = RENDER_INPUT_BYTES_MAX;
    for part in record.parts.iter().filter(|part| part.is_text_body || part.is_html_body).take(BODIES_MAX) {
        let wants_text = part.is_text_body && !text.is_full;
        let wants_html = has_html && part.is_html_body && !html.is_full;
        if !wants_text && !wants_html {
            continue;
        }
        if input_left == 0 {
            rendered.is_truncated = true;
            break;
        }
        let (content, is_whole) = content(&message, part, &mut input_left).await?;
        if wants_text {
            text.add(if is_html(part) { html_to_text(&content) } else { content.clone() }, is_whole);
        }
        if wants_html {
            html.add(if is_html(part) { content } else { preformatted(&content) }, is_whole);
        }
    }
    rendered.is_truncated |= text.is_full || html.is_full;
    rendered.text = text.content;
    rendered.html = html.content;
    Ok(rendered)
}

fn is_html(part: &pb::Part) -> bool {
    part.content_type == "text/html"
}

/// Text among HTML, as it is.
fn preformatted(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 16 + 16);
    html.push_str("<pre>");
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            c => html.push(c),
        }
    }
    html.push_str("</pre>");
    html
}

/// One body while its parts come in.
#[derive(Default)]
struct Body {
    content: Option<String>,
    /// There was more than is given.
    is_full: bool,
}

impl Body {
    fn add(&mut self, part: String, is_whole: bool) {
        self.is_full |= !is_whole;
        let content = match &mut self.content {
            None => self.content.insert(part),
            Some(content) => {
                // Parts that follow each other are shown one below the other.
                if !content.ends_with('\n') {
                    content.push_str("\r\n");
                }
                content.push_str(&part);
                content
            }
        };
        let kept = head(content, RENDERED_BYTES_MAX).len();
        self.is_full |= kept < content.len();
        content.truncate(kept);
    }
}

/// A part's text, and whether it is all of it. Takes what is read from `input_left`.
async fn content<B>(
    message: &StoredMessage<B>,
    part: &pb::Part,
    input_left: &mut u64,
) -> Result<(String, bool), RawError>
where
    B: BlobSource + Clone + 'static,
{
    let wanted = part.decoded_size.min(RENDERED_BYTES_MAX as u64);
    let head = read_head(message, part, wanted, *input_left).await?;
    *input_left = input_left.saturating_sub(head.input);
    let is_whole = head.bytes.len() as u64 == part.decoded_size;
    let text = if is_html(part) { html_text } else { to_text };
    Ok((text(&head.bytes, &part.charset).into_owned(), is_whole))
}

async fn headers<B>(message: &StoredMessage<B>, parts: &[pb::Part]) -> Result<Vec<(String, String)>, RawError>
where
    B: BlobSource + Clone + 'static,
{
    // The header ends before the first part begins, so no attachment is read for it.
    let end = parts.first().map_or(u64::MAX, |part| part.offset).min(HEADER_BYTES_MAX as u64);
    let bytes = collect(message.read(0..end).await?).await?;
    let charset = parts.first().map_or("", |part| part.charset.as_str());
    let mut fields = Vec::new();
    field::walk_section(
        &bytes,
        0,
        bytes.len(),
        |_| false,
        |field| {
            if fields.len() < RENDERED_FIELDS_MAX {
                // Names are printable ASCII.
                let name = String::from_utf8_lossy(&bytes[field.name]).into_owned();
                let value: String = field::unstructured(&bytes[field.value], charset);
                fields.push((name, value.chars().filter(|c| !c.is_control() || *c == '\t').collect()));
            }
        },
    );
    Ok(fields)
}
