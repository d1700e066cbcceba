//! Messages for the load: text of real mail where the suites are at hand, and padding that does not compress.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Texts that are taken from the suite.
const TEXTS_MAX: usize = 512;
/// Bytes of different messages that one connection holds.
const TEMPLATE_BYTES_MAX: usize = 1024 * 1024;
/// Different messages that one connection sends.
const VARIANTS_MAX: usize = 8;
/// Characters of a line of padding, the CRLF not counted.
const LINE_CHARS: usize = 76;
/// What a tar archive is made of (POSIX.1-1988 ustar).
const TAR_BLOCK_BYTES: usize = 512;
/// Width of the number that makes each message another one.
const SERIAL_DIGITS: usize = 20;
const SERIAL: &str = "00000000000000000000";

/// A message with a place for its number.
pub(crate) struct Template {
    /// Dot-stuffed and ended by the dot, ready for the socket.
    bytes: Vec<u8>,
    /// Where the digits of its number stand.
    serial_at: Vec<usize>,
    /// Bytes of the message itself.
    size: usize,
}

impl Template {
    /// The message under another number: its Message-ID and subject are its own.
    pub(crate) fn numbered(&mut self, serial: u64) -> &[u8] {
        let digits = format!("{serial:0SERIAL_DIGITS$}");
        for at in &self.serial_at {
            self.bytes[*at..*at + SERIAL_DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }

    /// Bytes of the message as it is received.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// The texts that messages are made of.
pub(crate) struct Corpus {
    texts: Vec<String>,
    /// What they are, for the report.
    pub(crate) source: &'static str,
}

impl Corpus {
    /// From the folder that POSTRIDER_SUITES names, or made up.
    pub(crate) fn open() -> Self {
        let suites =
            std::env::var_os("POSTRIDER_SUITES").map_or_else(|| PathBuf::from("../shared/suites"), PathBuf::from);
        match read_suite(&suites.join("mail/easy-ham-1.tar.zst")) {
            Some(texts) if !texts.is_empty() => Self { texts, source: "real mail" },
            _ => Self { texts: vec![String::new()], source: "padding only (no suites of mail at hand)" },
        }
    }

    /// Messages of about `size` bytes for one connection; other connections have others. `unpadded`: of at most so many, text alone.
    pub(crate) fn templates(&self, size: usize, connection: usize, unpadded: bool) -> Vec<Template> {
        let mut random = SmallRng::seed_from_u64(20_261_120 + connection as u64);
        let variants = (TEMPLATE_BYTES_MAX / size.max(1)).clamp(1, VARIANTS_MAX);
        let text = |n| &self.texts[(connection * VARIANTS_MAX + n) % self.texts.len()];
        (0..variants).map(|n| template(text(n), size, unpadded, &mut random)).collect()
    }

    /// What messages of at most `size` bytes without padding have of the texts.
    pub(crate) fn letters(&self, size: usize) -> Vec<String> {
        self.texts.iter().map(|text| lines(text, size).collect::<Vec<_>>().join("\n")).collect()
    }
}

/// The lines of a text that have room in `size` bytes.
fn lines(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut left = size;
    text.lines().map_while(move |line| {
        left = left.checked_sub(line.len() + 2)?;
        Some(line)
    })
}

fn template(text: &str, size: usize, unpadded: bool, random: &mut SmallRng) -> Template {
    let mut message = format!(
        "From: Bench <bench@load.example>\r\nTo: You <you@load.example>\r\nSubject: Load {SERIAL}\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{SERIAL}.{:016x}@load.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n",
        random.random::<u64>()
    );
    for line in lines(text, size.saturating_sub(message.len())) {
        message.push_str(line);
        message.push_str("\r\n");
    }
    while !unpadded && message.len() + 3 <= size {
        let chars = LINE_CHARS.min(size - message.len() - 2);
        // Printable ASCII without the dot, which would be doubled: 6.5 bits a character.
        message.extend((0..chars).map(|_| {
            loop {
                let c = char::from(random.random_range(b'!'..=b'~'));
                if c != '.' {
                    break c;
                }
            }
        }));
        message.push_str("\r\n");
    }
    let bytes = crate::smtp::stuffed(message.as_bytes());
    let serial_at = find_all(&bytes, SERIAL.as_bytes());
    Template { bytes, serial_at, size: message.len() }
}

fn find_all(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = haystack[at..].windows(needle.len()).position(|window| window == needle) {
        found.push(at + next);
        at += next + needle.len();
        if found.len() == 2 {
            break; // the subject and the Message-ID: what follows is text
        }
    }
    found
}

/// Bodies of the first messages of a suite, as ASCII. `None` when the suite or the program that unpacks it is not there.
fn read_suite(path: &Path) -> Option<Vec<String>> {
    let mut child = Command::new("zstd")
        .args(["-dcq", "--long=27"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?; // no zstd on this machine
    let mut archive = Vec::new();
    child.stdout.take()?.read_to_end(&mut archive).ok()?; // a broken archive is as good as none
    child.wait().ok().filter(std::process::ExitStatus::success)?;
    Some(tar_files(&archive).take(TEXTS_MAX).map(body_as_ascii).collect())
}

/// The regular files of a tar archive, the manifest aside.
fn tar_files(archive: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let header = archive.get(at..at + TAR_BLOCK_BYTES)?;
            let text = |range: std::ops::Range<usize>| {
                String::from_utf8_lossy(&header[range]).trim_matches(['\0', ' ']).to_owned()
            };
            let size = usize::from_str_radix(&text(124..136), 8).ok()?; // the end is two blocks of zeros
            let content = archive.get(at + TAR_BLOCK_BYTES..at + TAR_BLOCK_BYTES + size)?;
            at += TAR_BLOCK_BYTES + size.div_ceil(TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
            let regular = matches!(header[156], b'0' | 0);
            if regular && !text(0..100).ends_with(".jsonl") {
                return Some(content);
            }
        }
    })
}

fn body_as_ascii(message: &[u8]) -> String {
    let text: String = message
        .iter()
        .filter(|byte| **byte != b'\r')
        .map(|byte| if matches!(byte, b'\n' | b' '..=b'~') { char::from(*byte) } else { '?' })
        .collect();
    let body = text.split_once("\n\n").map_or("", |(_, body)| body);
    body.lines().filter(|line| line.len() <= 900).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_size_that_was_asked_for() {
        let corpus = Corpus { texts: vec!["Hello.\n.dot\n".into()], source: "test" };
        for size in [1000, 50_000] {
            let mut template = corpus.templates(size, 0, false).remove(0);
            assert!(template.size().abs_diff(size) <= 2, "{} for {size}", template.size());
            let text = String::from_utf8(template.numbered(7).to_vec()).unwrap();
            assert!(text.contains("Subject: Load 00000000000000000007\r\n"));
            assert!(text.contains("Message-ID: <00000000000000000007."));
            assert!(text.contains("\r\n..dot\r\n") && text.ends_with("\r\n.\r\n"));
            let mut template = corpus.templates(size, 0, true).remove(0);
            let text = String::from_utf8(template.numbered(7).to_vec()).unwrap();
            assert!(text.ends_with("\r\n\r\nHello.\r\n..dot\r\n.\r\n"), "{text}");
        }
        assert_eq!(corpus.letters(100), ["Hello.\n.dot"]);
        assert_eq!(corpus.letters(8), ["Hello."]);
    }

    #[test]
    fn an_archive_is_read() {
        let mut archive = vec![0; 3 * TAR_BLOCK_BYTES];
        archive[..5].copy_from_slice(b"1.eml");
        archive[124..135].copy_from_slice(b"00000000013");
        archive[156] = b'0';
        archive[512..523].copy_from_slice(b"A: b\n\nbody\n");
        assert_eq!(tar_files(&archive).map(body_as_ascii).collect::<Vec<_>>(), ["body"]);
    }
}
