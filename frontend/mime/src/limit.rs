//! What bounds the work and the memory of this module (P-13).

use postrider_api::limit::{COMMAND_BYTES_MAX, RECIPIENTS_MAX};

/// Literal text kept of one message, bytes, before compression. What is more goes to blobs as it arrived.
pub const LITERAL_BYTES_MAX: usize = 512 * 1024;
/// The envelope as it is stored, bytes.
pub const ENVELOPE_BYTES_MAX: usize = 128 * 1024;
/// The list of parts as it is stored, bytes; parts that would go beyond it are left out (they stay in the raw message).
pub const PARTS_BYTES_MAX: usize = 192 * 1024;
/// The recipe as it is stored, bytes: a message of `MESSAGE_BYTES_MAX` has at most 280 parts of `BLOB_BYTES_MIN`, and as many
/// pieces of text between them, each of which may be cut as well.
pub const PIECES_BYTES_MAX: usize = 96 * 1024;
/// What the rest of a command takes: ids, entropy, the sender, and each recipient with his user id and address.
pub const COMMAND_REST_BYTES_MAX: usize = 4096 + RECIPIENTS_MAX * 320;

// A command with everything at its limit still fits.
const _: () = assert!(
    LITERAL_BYTES_MAX + ENVELOPE_BYTES_MAX + PARTS_BYTES_MAX + PIECES_BYTES_MAX + COMMAND_REST_BYTES_MAX
        <= COMMAND_BYTES_MAX
);

/// Stored text that is read back, bytes, decompressed. No command could carry more.
pub const STORED_TEXT_BYTES_MAX: u64 = COMMAND_BYTES_MAX as u64;

/// MIME nesting that is followed: multiparts and messages within messages. What lies deeper is one leaf.
pub const MIME_DEPTH_MAX: usize = 32;
/// A boundary that is followed, bytes. RFC 2046 section 5.1.1: 70; senders go beyond.
pub const BOUNDARY_BYTES_MAX: usize = 250;
/// A header section that is looked at, bytes; fields behind it are not seen (they stay in the raw message).
pub const HEADER_BYTES_MAX: usize = 256 * 1024;
/// All header sections of one message that are looked at, bytes.
pub const HEADERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One field that is handed to the grammar, bytes; a longer one is cut there.
pub const FIELD_BYTES_MAX: usize = 32 * 1024;
/// A structured field of a part (its type, disposition, encoding), bytes; the same. A file name of 255 characters takes 2,300 of
/// them when it is encoded and cut as RFC 2231 says.
pub const PART_FIELD_BYTES_MAX: usize = 16 * 1024;
/// Parameters of one field that are looked at, segments of RFC 2231 counted each.
pub const PARAMETERS_MAX: usize = 1000;

/// A media type as it is kept, bytes. RFC 6838 section 4.2: 127 on each side of the slash.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// A charset's name, bytes. RFC 2978 section 2.3: 40.
pub const CHARSET_BYTES_MAX: usize = 40;
/// A disposition, bytes.
pub const DISPOSITION_BYTES_MAX: usize = 40;
/// A file name, bytes: 255 characters, which file systems allow, of four bytes. A longer one is cut before its extension.
pub const FILENAME_BYTES_MAX: usize = 1020;
/// A file name of a message that has so many long ones that its list would not hold them all, bytes.
pub const CROWDED_FILENAME_BYTES_MAX: usize = 255;
/// An extension that is kept when its name is cut, bytes with the dot.
pub const EXTENSION_BYTES_MAX: usize = 32;
/// A Content-ID, bytes.
pub const CONTENT_ID_BYTES_MAX: usize = 255;
/// A Message-ID as the envelope keeps it, bytes: RFC 5322 section 2.1.1 has lines of 998. A longer one is not kept, only hashed.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// Decoded bytes of a text part that the preview is made of.
pub const PREVIEW_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Decoded bytes of an HTML part that the preview is made of: styles and scripts often stand before the first word.
pub const PREVIEW_HTML_BYTES_MAX: usize = 128 * 1024;

/// Text, and HTML, that [`render`](super::render) gives of one message, bytes each.
pub const RENDERED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of bodies, as they are stored, that [`render`](super::render) reads of one message: HTML may be long and give no text, and
/// an encoding may be long and give nothing.
pub const RENDER_INPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Header fields that [`render`](super::render) gives.
pub const RENDERED_FIELDS_MAX: usize = 1000;

/// Decoded bytes of all texts of one message that [`searchable`](super::searchable) gives.
pub const SEARCHABLE_BYTES_MAX: u64 = 1024 * 1024;
/// Decoded bytes of one text attachment that it gives: what is in there is found by how it begins.
pub const SEARCHABLE_ATTACHMENT_BYTES_MAX: u64 = 64 * 1024;
/// Characters from which on a line without a gap may be encoded data: base64 has 76 (RFC 2045 section 6.8), PEM 64 (RFC 7468).
pub const ENCODED_LINE_LENGTH_MIN: usize = 60;

/// A line of a cut part, characters. RFC 5322 section 2.1.1: at most 998.
pub const LINE_LENGTH_MAX: u32 = 998;
/// The shortest line of a cut part: one group of base64.
pub const LINE_LENGTH_MIN: u32 = 4;
