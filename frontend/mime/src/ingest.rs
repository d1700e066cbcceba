//! A raw message on its way into a shard.

use bytes::{Bytes, BytesMut};
use postrider_api::id::{BlobHash, BodyId, MessageIdHash};
use postrider_api::limit::BLOB_BYTES_MIN;
use postrider_api::pb;

use super::cut::{Cut, Cutter, Leaf};
use super::field::Name;
use super::limit::{HEADER_BYTES_MAX, LITERAL_BYTES_MAX};
use super::structure::{Kind, Structure};
use super::{compress, envelope, ids, parts, preview, structure};

/// What decides what is cut.
#[derive(Debug, Clone, Copy)]
pub struct IngestLimits {
    /// A leaf whose decoded form is at least this large goes to a blob, bytes.
    pub blob_bytes_min: usize,
    /// Text that may remain, bytes, before compression; at most [`LITERAL_BYTES_MAX`].
    pub literal_bytes_max: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self { blob_bytes_min: BLOB_BYTES_MIN, literal_bytes_max: LITERAL_BYTES_MAX }
    }
}

/// What a shard stores of a message, and the blobs that must be durable before it is told. Once something was cut out, nothing in
/// it keeps the raw message in memory, and all of it together is no longer than that was.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// Goes into the command.
    pub message: pb::NewMessage,
    /// In the order of the message; a content that stands in it twice comes once.
    pub blobs: Vec<CutBlob>,
}

/// A blob that was cut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutBlob {
    /// Of `content`.
    pub hash: BlobHash,
    /// What is stored.
    pub content: Bytes,
}

/// Parses a raw message and cuts it up. Takes any bytes; `raw` of the result gives them back.
///
/// Pure, and linear in the size: a message of some tens of KiB takes some hundred microseconds, one of `MESSAGE_BYTES_MAX` with
/// attachments some hundred milliseconds, for which an asynchronous caller leaves its thread (`spawn_blocking`).
pub fn ingest(raw: &Bytes, body_id: BodyId, limits: &IngestLimits) -> Ingested {
    let structure = structure::parse(raw);
    let mut listed = parts::list(&structure);
    let mut cutter = Cutter::new(raw, limits.blob_bytes_min);
    measure(&structure, &mut listed, &mut cutter);
    let parts: Vec<pb::Part> = listed.into_iter().map(|listed| listed.part).collect();
    // Of a header that is longer than anybody looks at, only what is looked at is spared from cutting.
    let header_end = structure.nodes.first().map_or(0, |root| root.body.start).min(HEADER_BYTES_MAX);
    let cuts = cutter.fit(limits.literal_bytes_max.min(LITERAL_BYTES_MAX), header_end);
    let (pieces, body) = assemble(raw, &cuts, body_id);

    let value = |name| structure.top.value(raw, name);
    let charset = structure.nodes.first().map_or("", |root| root.header.charset.as_str());
    let message = pb::NewMessage {
        envelope: Some(envelope::read(raw, &structure.top, charset)),
        preview: preview::preview(raw, &parts),
        size: raw.len() as u64,
        has_attachments: parts::has_attachments(&parts),
        parts,
        pieces,
        body: Some(body),
        message_id_hash: ids::ids(value(Name::MessageId))
            .next()
            .map(|id| MessageIdHash::of(id).to_bytes())
            .unwrap_or_default(),
        reference_hashes: ids::reference_hashes(value(Name::References), value(Name::InReplyTo)),
    };
    Ingested { message, blobs: distinct(cuts) }
}

/// Gives each part its decoded size, and cuts the large leaves out.
fn measure(structure: &Structure, listed: &mut [parts::Listed], cutter: &mut Cutter<'_>) {
    for listed in listed {
        let node = &structure.nodes[listed.node];
        // A message within is cut leaf by leaf, so that what it carries is stored once with what others carry.
        if node.kind == Kind::Leaf {
            let measured = cutter.leaf(&Leaf { body: node.body.clone(), encoding: node.header.encoding });
            listed.part.decoded_size = measured.decoded_size;
            listed.part.blob = measured.blob.map(BlobHash::to_bytes).unwrap_or_default();
        }
    }
}

/// The recipe, and the text that remains.
fn assemble(raw: &Bytes, cuts: &[Cut], body_id: BodyId) -> (Vec<pb::Piece>, pb::Body) {
    let mut pieces = Vec::with_capacity(2 * cuts.len() + 1);
    let mut literals = Vec::with_capacity(cuts.len() + 1);
    let mut at = 0;
    for cut in cuts {
        literals.push(at..cut.raw.start);
        push_literal(&mut pieces, cut.raw.start - at);
        pieces.push(blob_piece(cut));
        at = cut.raw.end;
    }
    literals.push(at..raw.len());
    push_literal(&mut pieces, raw.len() - at);

    let text = if cuts.is_empty() {
        raw.clone()
    } else {
        let mut text = BytesMut::with_capacity(literals.iter().map(ExactSizeIterator::len).sum());
        literals.into_iter().for_each(|range| text.extend_from_slice(&raw[range]));
        text.freeze()
    };
    let text_length = text.len() as u64;
    let (compression, text) = compress::compress(text);
    let body = pb::Body { body_id: body_id.to_bytes(), compression: compression.into(), text, text_length };
    (pieces, body)
}

fn push_literal(pieces: &mut Vec<pb::Piece>, length: usize) {
    let length = length as u64;
    if length > 0 {
        pieces.push(pb::Piece { literal_length: length, raw_length: length, ..pb::Piece::default() });
    }
}

fn blob_piece(cut: &Cut) -> pb::Piece {
    let piece = pb::Piece {
        blob: cut.hash.to_bytes(),
        blob_length: cut.content.len() as u64,
        raw_length: cut.raw.len() as u64,
        ..pb::Piece::default()
    };
    match cut.wrapping {
        None => piece,
        Some(wrapping) => pb::Piece {
            encoding: pb::PieceEncoding::Base64.into(),
            line_length: wrapping.line_length,
            final_newline: wrapping.final_newline,
            ..piece
        },
    }
}

fn distinct(cuts: Vec<Cut>) -> Vec<CutBlob> {
    let mut seen = std::collections::HashSet::new();
    cuts.into_iter()
        .filter(|cut| seen.insert(cut.hash))
        .map(|cut| CutBlob { hash: cut.hash, content: cut.content })
        .collect()
}
