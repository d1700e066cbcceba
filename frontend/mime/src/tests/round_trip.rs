//! `raw(ingest(x)) == x`, whatever x is.

use bytes::Bytes;
use futures::executor::block_on;
use postrider_api::limit::{BLOB_BYTES_MIN, MESSAGE_BYTES_MAX};
use postrider_api::pb;
use proptest::prelude::*;

use super::super::limit::LITERAL_BYTES_MAX;
use super::super::{BlobReadError, ByteRange, IngestLimits, RawError, attachment, raw};
use super::memory::{Memory, checked, collect, stored};

const SMALL: IngestLimits = IngestLimits { blob_bytes_min: 16, literal_bytes_max: 100 };

/// Base64 in lines of 76, without the last line break.
fn base64_lines(content: &[u8]) -> String {
    use base64::Engine as _;
    let symbols = base64::engine::general_purpose::STANDARD.encode(content);
    let lines: Vec<&str> = symbols.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n")
}

fn with_file(text: &str, encoded: &str) -> String {
    format!(
        "Content-Type: multipart/mixed; boundary=b\r\nSubject: x\r\n\r\n--b\r\n\r\n{text}\r\n--b\r\n\
         Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment\r\n\r\n{encoded}\r\n--b--\r\n"
    )
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}

#[test]
fn a_small_message_stays_in_one_piece() {
    let message = checked(b"Subject: hello\r\n\r\nworld\r\n", &IngestLimits::default());
    assert!(message.blobs.is_empty());
    assert_eq!(message.message.pieces.len(), 1);
    assert_eq!(message.message.envelope.unwrap().subject, "hello");
    assert_eq!(message.message.preview, "world");
    let empty = checked(b"", &IngestLimits::default()).message;
    assert_eq!((empty.pieces.len(), empty.parts.len(), empty.parts[0].path.as_str()), (0, 1, "1"));
}

#[test]
fn a_large_file_is_stored_decoded_and_the_same_file_once() {
    let file = content(BLOB_BYTES_MIN);
    let one = checked(with_file("hello", &base64_lines(&file)).as_bytes(), &IngestLimits::default());
    assert_eq!(one.blobs.len(), 1);
    assert_eq!(one.blobs[0].content, file);
    assert!(one.message.body.as_ref().unwrap().text_length < 400);
    assert!(one.message.has_attachments);
    let part = &one.message.parts[1];
    assert_eq!((part.decoded_size, part.filename.as_str()), (file.len() as u64, "a.pdf"));
    assert_eq!(part.blob, one.blobs[0].hash.to_bytes());
    // Other lines around it, the same blob.
    let other = checked(with_file("good bye", &base64_lines(&file)).as_bytes(), &IngestLimits::default());
    assert_eq!(other.blobs[0].hash, one.blobs[0].hash);
    // Twice in one message, one blob.
    let twice = with_file(&with_file("", &base64_lines(&file)), &base64_lines(&file));
    let twice =
        format!("Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n{twice}\r\n--c--\r\n").replace("=c", "=\"c\"");
    assert_eq!(checked(twice.as_bytes(), &IngestLimits::default()).blobs.len(), 1);
}

#[test]
fn just_below_the_limit_stays() {
    let small =
        checked(with_file("hello", &base64_lines(&content(BLOB_BYTES_MIN - 1))).as_bytes(), &IngestLimits::default());
    assert!(small.blobs.is_empty());
    assert_eq!(small.message.parts[1].decoded_size, BLOB_BYTES_MIN as u64 - 1);
}

#[test]
fn what_cannot_be_encoded_again_is_stored_as_it_arrived() {
    let encoded = base64_lines(&content(BLOB_BYTES_MIN)).replacen("\r\n", "\r\n\r\n", 1);
    let ingested = checked(with_file("hello", &encoded).as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.blobs[0].content, encoded);
    assert_eq!(ingested.message.parts[1].decoded_size, BLOB_BYTES_MIN as u64);
}

#[test]
fn a_message_without_large_leaves_is_cut_until_it_fits() {
    let part = format!("--b\r\n\r\n{}\r\n", "x".repeat(2000));
    let many = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(3000));
    let ingested = checked(many.as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.blobs.len(), 1);
    let preamble =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}\r\n{part}--b--\r\n", "p".repeat(3_000_000));
    let ingested = checked(preamble.as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.blobs.len(), 1);
    let header = format!("Subject: x\r\nX-Long: {}\r\n\r\nhello", "h".repeat(3_000_000));
    let ingested = checked(header.as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.message.envelope.unwrap().subject, "x");
    assert!(ingested.message.body.unwrap().text_length as usize <= LITERAL_BYTES_MAX);
}

#[test]
fn the_largest_message_fits_a_command() {
    // As many parts as can be cut one by one, each just large enough.
    let part =
        format!("--b\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n", base64_lines(&content(BLOB_BYTES_MIN)));
    let parts = MESSAGE_BYTES_MAX as usize / part.len();
    let raw = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(parts));
    let ingested = checked(raw.as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.blobs.len(), 1);
    assert_eq!(ingested.message.pieces.len(), 2 * parts + 1);
}

#[test]
fn ranges_of_a_file_are_read_without_the_rest() {
    let file = content(BLOB_BYTES_MIN + 77);
    for encoded in [base64_lines(&file), base64_lines(&file).replacen("\r\n", "\r\n ", 1)] {
        let ingested = checked(with_file("hello", &encoded).as_bytes(), &IngestLimits::default());
        let (stored, memory) = (stored(&ingested.message), Memory::of(&ingested, 999));
        for (range, expected) in [
            (ByteRange::From(0, Some(0)), 0..1),
            (ByteRange::From(1000, Some(4999)), 1000..5000),
            (ByteRange::From(131_000, None), 131_000..file.len()),
            (ByteRange::Last(5), file.len() - 5..file.len()),
        ] {
            let read = block_on(attachment(&stored, "2", &memory, Some(range))).unwrap();
            assert_eq!(read.length, file.len() as u64);
            assert_eq!(read.range, expected.start as u64..expected.end as u64);
            assert_eq!(collect(read.stream).unwrap(), file[expected]);
        }
        let behind = block_on(attachment(&stored, "2", &memory, Some(ByteRange::From(file.len() as u64, None))));
        assert_eq!(behind.err(), Some(super::super::AttachmentError::OutOfRange { length: file.len() as u64 }));
        let none = block_on(attachment(&stored, "3", &memory, None));
        assert_eq!(none.err(), Some(super::super::AttachmentError::NotFound));
    }
}

#[test]
fn a_file_in_a_message_within_a_message_is_cut_and_both_can_be_read() {
    let file = content(BLOB_BYTES_MIN);
    let inner = with_file("inner", &base64_lines(&file));
    let raw = format!(
        "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--o--\r\n"
    );
    let ingested = checked(raw.as_bytes(), &IngestLimits::default());
    assert_eq!(ingested.blobs[0].content, file);
    let (stored, memory) = (stored(&ingested.message), Memory::of(&ingested, 1 << 20));
    let read = |path| collect(block_on(attachment(&stored, path, &memory, None)).unwrap().stream).unwrap();
    assert_eq!(read("1"), inner.as_bytes());
    assert_eq!(read("1.2"), file);
    let middle = block_on(attachment(&stored, "1", &memory, Some(ByteRange::From(50_000, Some(60_000))))).unwrap();
    assert_eq!(collect(middle.stream).unwrap(), inner.as_bytes()[50_000..=60_000]);
}

#[test]
fn what_is_missing_or_short_is_an_error_and_never_a_shorter_message() {
    let ingested =
        checked(with_file("hello", &base64_lines(&content(BLOB_BYTES_MIN))).as_bytes(), &IngestLimits::default());
    let stored = stored(&ingested.message);
    let hash = ingested.blobs[0].hash;
    let missing = block_on(raw(&stored, &Memory::default()));
    assert_eq!(missing.err(), Some(RawError::Blob(BlobReadError::Missing(hash))));

    let mut other = stored.clone();
    other.body.as_mut().unwrap().text_length += 1;
    assert!(matches!(block_on(raw(&other, &Memory::default())).err(), Some(RawError::Recipe(_))));
    let mut other = stored.clone();
    let body = other.body.as_mut().unwrap();
    body.compression = pb::Compression::Zstd.into();
    body.text = Bytes::from_static(b"no zstd");
    assert_eq!(block_on(raw(&other, &Memory::default())).err(), Some(RawError::Text));
}

#[test]
fn a_part_that_its_row_does_not_fit_is_an_error() {
    let raw = with_file("hello", "YWJjZGVm").replace("base64", "quoted-printable");
    let ingested = checked(raw.as_bytes(), &IngestLimits::default());
    let (stored, memory) = (stored(&ingested.message), Memory::of(&ingested, 100));
    let reads = |change: &dyn Fn(&mut pb::Part)| {
        let mut stored = stored.clone();
        stored.parts.iter_mut().for_each(change);
        ["1", "2"].map(|path| block_on(attachment(&stored, path, &memory, None)).map(|file| collect(file.stream)))
    };
    for read in reads(&|part| part.decoded_size += 1).into_iter().chain(reads(&|part| part.offset += 1000)) {
        let error = read.map_or_else(Some, |bytes| bytes.err().map(super::super::AttachmentError::Raw));
        let is_recipe = matches!(error, Some(super::super::AttachmentError::Raw(RawError::Recipe(_))));
        assert!(is_recipe, "{error:?}");
    }
}

/// Gives fewer or more bytes than it was asked for.
#[derive(Clone)]
struct Liar {
    memory: Memory,
    extra: bool,
}

impl super::super::BlobSource for Liar {
    async fn read(
        &self,
        hash: postrider_api::id::BlobHash,
        range: std::ops::Range<u64>,
    ) -> Result<super::super::BlobStream, BlobReadError> {
        use futures::{StreamExt as _, stream};
        if self.extra {
            let more = stream::iter([Ok(Bytes::from_static(b"more"))]);
            Ok(self.memory.read(hash, range).await?.chain(more).boxed())
        } else {
            self.memory.read(hash, range.start..range.end - 1).await
        }
    }
}

#[test]
fn a_store_that_gives_too_little_or_too_much_is_found_out() {
    let ingested =
        checked(with_file("hello", &base64_lines(&content(BLOB_BYTES_MIN))).as_bytes(), &IngestLimits::default());
    for extra in [false, true] {
        let liar = Liar { memory: Memory::of(&ingested, 4096), extra };
        let stream = block_on(raw(&stored(&ingested.message), &liar)).unwrap();
        let damaged = RawError::Blob(BlobReadError::Damaged(ingested.blobs[0].hash));
        assert_eq!(collect(stream), Err(damaged));
    }
}

/// Pieces of mail, in any order.
fn mail_like() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::sample::select(vec![
        "Content-Type: multipart/mixed; boundary=a\r\n",
        "Content-Type: multipart/alternative;\r\n boundary=\"b\"\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Type: text/html; charset=utf-16\r\n",
        "Content-Type: image/png\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "--a\r\n",
        "--b\r\n",
        "--a--\r\n",
        "--b--",
        "YWJjZGVm\r\nYWJjZGVm\r\nYWJj\r\n",
        "YWJjZGVmYWJjZGVmYWJj\r\n\r\n",
        "=C3=A9=\r\n",
        "Subject: =?utf-8?b?7JWI?= x\r\n",
        "From: a <a@b.example>, \"",
        "References: <a@b> <c",
        "hello world\r\n",
        "\r",
        "=",
        "\0\u{e9}",
    ]);
    let word = prop_oneof![
        9 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        checked(&bytes, &SMALL);
        checked(&bytes, &IngestLimits { blob_bytes_min: 0, literal_bytes_max: 0 });
    }

    #[test]
    fn anything_like_mail_comes_back(bytes in mail_like()) {
        checked(&bytes, &SMALL);
        checked(&bytes, &IngestLimits::default());
        checked(&bytes, &IngestLimits { blob_bytes_min: 1, literal_bytes_max: 1 });
    }
}
