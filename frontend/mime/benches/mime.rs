//! What taking in a message costs. `cargo bench -p postrider-mime --bench mime`.
//!
//! The message of 50 KB is mostly incompressible, as the load generator's: it must stay below 300 microseconds. `memcpy` of the
//! same bytes and their blake3 hash stand beside it, so that a number can be compared with another machine's.

use std::fmt::Write as _;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use postrider_api::id::BodyId;
use postrider_mime::{IngestLimits, ingest};

const BODY_ID: BodyId = BodyId([7; 16]);

/// Bytes without any order, the same in each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

fn header() -> String {
    let mut header = String::from("Return-Path: <ada@client.example>\r\n");
    for hop in 0..4 {
        let _ = write!(
            header,
            "Received: from a{hop}.example ([192.0.2.{hop}])\r\n\tby b{hop}.example with ESMTPS id {hop}4711;\r\n\tFri, 20 Nov 2026 12:00:0{hop} +0000\r\n"
        );
    }
    header.push_str(
        "From: =?utf-8?B?7JWI64WV7ZWY7IS47JqU?= <ada@client.example>\r\nTo: Grace <grace@postrider.example>,\r\n\tkim@postrider.example\r\n\
         Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= and a subject of some length\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <4711.0815@client.example>\r\nIn-Reply-To: <4710@client.example>\r\n\
         References: <4708@client.example> <4709@client.example>\r\n\t<4710@client.example>\r\nMIME-Version: 1.0\r\n",
    );
    header
}

fn lines(content: &[u8]) -> String {
    let symbols = STANDARD.encode(content);
    let mut lines = String::with_capacity(symbols.len() + symbols.len() / 38);
    for line in symbols.as_bytes().chunks(76) {
        // Base64 is ASCII.
        lines.push_str(std::str::from_utf8(line).unwrap_or_default());
        lines.push_str("\r\n");
    }
    lines
}

fn messages() -> Vec<(&'static str, Bytes)> {
    let text = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so.\r\n";
    let eight_bit: Vec<u8> = noise(48_000).into_iter().map(|byte| byte.clamp(32, 254)).collect();
    let eight_bit: Vec<u8> = eight_bit.chunks(200).flat_map(|line| [line, b"\r\n"].concat()).collect();
    let html = format!(
        "<html><head><style>{}</style></head>{}",
        "p { color: red }\r\n".repeat(300),
        format!("<p>{text}</p>\r\n").repeat(500)
    );
    let file = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{text}--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}--b--\r\n",
        lines(&noise(10 * 1024 * 1024))
    );
    let plain = "Content-Type: text/plain; charset=us-ascii\r\n\r\n";
    vec![
        ("text_4k", Bytes::from(header() + plain + &text.repeat(50))),
        ("base64_text_50k", Bytes::from(header() + plain + &text.repeat(60) + &lines(&noise(33_000)))),
        ("eight_bit_50k", Bytes::from([(header() + plain + &text.repeat(20)).as_bytes(), &eight_bit].concat())),
        ("html_50k", Bytes::from(header() + "Content-Type: text/html; charset=utf-8\r\n\r\n" + &html)),
        ("attachment_10m", Bytes::from(header() + &file)),
    ]
}

fn ingest_messages(criterion: &mut Criterion) {
    for (name, raw) in messages() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(raw.len() as u64));
        if raw.len() > 1 << 20 {
            group.sample_size(10);
        }
        group.bench_function("ingest", |bencher| {
            bencher.iter(|| ingest(black_box(&raw), BODY_ID, &IngestLimits::default()))
        });
        group.bench_function("memcpy", |bencher| bencher.iter(|| black_box(&raw[..]).to_vec()));
        group.bench_function("blake3", |bencher| bencher.iter(|| blake3::hash(black_box(&raw))));
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ingest_messages(&mut criterion);
    criterion.final_summary();
}
