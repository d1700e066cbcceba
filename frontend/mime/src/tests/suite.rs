//! The mail of the test suites, which is not in the repository.

use std::path::PathBuf;

use serde_json::Value;

/// One message of a corpus, as it stands in the archive.
pub(super) struct Mail {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
    /// What the suite's own tools say of it.
    pub(super) manifest: Value,
}

impl Mail {
    /// As an SMTP client sends it: lines ended by CRLF.
    pub(super) fn crlf(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + self.bytes.len() / 32);
        for (at, &byte) in self.bytes.iter().enumerate() {
            if byte == b'\n' && (at == 0 || self.bytes[at - 1] != b'\r') {
                out.push(b'\r');
            }
            out.push(byte);
        }
        out
    }
}

/// The messages of `mail/<corpus>.tar.zst`; `None`, with a plain word about it, where the suites are not here.
pub(super) fn corpus(corpus: &str) -> Option<Vec<Mail>> {
    let folder = match std::env::var_os("POSTRIDER_SUITES") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from("../../../shared/suites"),
    };
    if !folder.is_dir() {
        eprintln!("SKIPPED: no test suites at {} (set POSTRIDER_SUITES)", folder.display());
        return None;
    }
    // The folder is there: a corpus that is not is an error.
    let path = folder.join("mail").join(format!("{corpus}.tar.zst"));
    let archive = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut decoder = zstd::Decoder::new(archive).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
    Some(mails(&bytes))
}

fn mails(archive: &[u8]) -> Vec<Mail> {
    let mut files = tar_files(archive);
    let at = files.iter().position(|(name, _)| name.ends_with("manifest.jsonl")).expect("the archive has a manifest");
    let (_, manifest) = files.swap_remove(at);
    let lines = std::str::from_utf8(&manifest).unwrap().lines();
    let mut manifest: std::collections::HashMap<String, Value> = lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (base_name(row["file"].as_str().unwrap()).to_owned(), row))
        .collect();
    let mut mails: Vec<Mail> = files
        .into_iter()
        .filter_map(|(file, bytes)| {
            let manifest = manifest.remove(base_name(&file))?;
            Some(Mail { file, bytes, manifest })
        })
        .collect();
    assert!(manifest.is_empty(), "the manifest names what the archive has not: {manifest:?}");
    mails.sort_by(|a, b| a.file.cmp(&b.file));
    mails
}

/// The last two steps of a path: archives differ in what stands before.
fn base_name(path: &str) -> &str {
    let path = path.trim_start_matches("./");
    path.rmatch_indices('/').nth(1).map_or(path, |(at, _)| &path[at + 1..])
}

/// Regular files of a tar archive (POSIX ustar, with GNU's long names).
fn tar_files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = |field: &[u8]| String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap()).into_owned();
    let mut files = Vec::new();
    let mut long_name = None;
    let mut at = 0;
    while at + 512 <= archive.len() && archive[at] != 0 {
        let header = &archive[at..at + 512];
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        let content = &archive[at + 512..at + 512 + size];
        match header[156] {
            b'L' => long_name = Some(text(content)),
            b'0' | 0 => {
                let short = match text(&header[345..500]) {
                    prefix if prefix.is_empty() || &header[257..263] != b"ustar\0" => text(&header[..100]),
                    prefix => format!("{prefix}/{}", text(&header[..100])),
                };
                files.push((long_name.take().unwrap_or(short), content.to_vec()));
            }
            b'5' | b'x' | b'g' => {}
            kind => panic!("a tar entry of kind {kind}"),
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    files
}
