//! Mail to be found: real mail where the suites are at hand, and made up in languages that are written in different ways.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::random::Random;

/// What a tar archive is made of (POSIX.1-1988 ustar).
const TAR_BLOCK_BYTES: usize = 512;

/// Words and sentences of several languages, so chosen that they share parts: 회의 and 회의를, 東京 and 東京都, Straße and STRASSE.
const WORDS: &[&[&str]] = &[
    &[
        "회의",
        "회의를",
        "내일",
        "오후",
        "보고서",
        "보고서를",
        "합니다",
        "검토해",
        "주세요",
        "서울",
        "서울에서",
        "예산안",
        "의견",
        "첨부",
    ],
    &[
        "東京",
        "東京都",
        "京都",
        "大阪",
        "会議",
        "会議は",
        "資料",
        "です",
        "プロジェクト",
        "カタカナ",
        "ﾌﾟﾛ",
        "よろしく",
        "お願いします",
        "々",
        "件",
    ],
    &[
        "我们",
        "下午",
        "会议",
        "会议室",
        "预算",
        "报告",
        "北京",
        "北京市",
        "市",
        "请",
        "附件",
        "查看",
        "中文",
        "開會",
        "臺灣",
    ],
    &[
        "Straße",
        "STRASSE",
        "Größe",
        "Café",
        "Müller",
        "Mueller",
        "Ärger",
        "übermorgen",
        "Donaudampfschiff",
        "Grüße",
        "Besprechung",
        "für",
        "der",
        "und",
    ],
    &[
        "İstanbul",
        "ISPARTA",
        "ısparta",
        "ığdır",
        "şişli",
        "ŞİŞLİ",
        "çarşı",
        "güneş",
        "toplantı",
        "rapor",
        "bütçe",
        "için",
        "ve",
    ],
    &["الكتاب", "كِتَاب", "كتاب", "اجتماع", "الاجتماع", "غدا", "تقرير", "أحمد", "احمد", "مدرسة", "ميزانية", "في", "من"],
    &["party🎉", "🎉", "👍🏽", "👍", "❤️", "🇰🇷", "😀😀", "rocket🚀launch", "👨‍👩‍👧", "ok"],
    &[
        "budget",
        "budgets",
        "report",
        "meeting",
        "well-known",
        "foo.bar",
        "don't",
        "x",
        "1,000.50",
        "v1.2.3",
        "e-mail",
        "co-op",
        "the",
        "and",
        "A",
    ],
    &[
        "ёлка",
        "Елка",
        "ОТЧЁТ",
        "отчет",
        "встреча",
        "ΟΔΟΣ",
        "οδός",
        "שָׁלוֹם",
        "שלום",
        "हिन्दी",
        "प्रोजेक्ट",
        "ประชุม",
        "รายงาน",
        "Łódź",
        "cœur",
    ],
];
const NAMES: &[&str] = &[
    "Ada Lovelace",
    "김철수",
    "田中太郎",
    "王小明",
    "Jürgen Müller",
    "Şule Işık",
    "أحمد علي",
    "Иван Ёлкин",
    "O'Brien, Pat",
    "🎉 Team",
];
const LOCALS: &[&str] = &["ada", "ada.lovelace", "kim", "tanaka", "team+news", "j.mueller", "sule"];
const DOMAINS: &[&str] = &["example.org", "mail.example.org", "postrider.example", "example.co.kr"];
const LISTS: &[&str] = &["dev.lists.example.org", "users.lists.example.org", "announce.example.com"];
const FILES: &[&str] = &["report.pdf", "보고서.docx", "会議資料.xlsx", "Straße 12.txt", "notes.txt", "photo-1.JPG"];

/// Words in one language, with some of the next.
pub fn sentence(random: &mut Random, words: usize) -> String {
    let language = random.below(WORDS.len());
    let word = |random: &mut Random| {
        let language = if random.one_in(5) { random.below(WORDS.len()) } else { language };
        // The first ones are the commonest.
        let at = random.below(WORDS[language].len()).min(random.below(WORDS[language].len()));
        WORDS[language][at]
    };
    let joins = [" ", " ", " ", " ", ", ", ". ", "\r\n", "", "、"];
    let mut text = String::new();
    for _ in 0..words {
        text.push_str(word(random));
        let join: &&str = random.of(&joins);
        text.push_str(join);
    }
    text
}

fn mailbox(random: &mut Random) -> String {
    let name: &&str = random.of(NAMES);
    format!("{} <{}@{}>", encoded(name), random.of(LOCALS), random.of(DOMAINS))
}

/// As RFC 2047 says.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ') {
        return text.to_owned();
    }
    // In words of few characters, none of them cut.
    let chars: Vec<char> = text.chars().collect();
    let word = |chars: &[char]| {
        let mut word = "=?utf-8?q?".to_owned();
        for byte in chars.iter().collect::<String>().bytes() {
            let _ = write!(word, "={byte:02X}");
        }
        word + "?="
    };
    chars.chunks(5).map(word).collect::<Vec<_>>().join("\r\n ")
}

/// A message that nobody wrote. `number` tells it from others.
pub fn made_up(random: &mut Random, number: usize) -> Vec<u8> {
    let mut head = format!("From: {}\r\n", mailbox(random));
    for (field, one_in) in [("To", 1), ("Cc", 3), ("Bcc", 12)] {
        if random.one_in(one_in) {
            let people: Vec<String> = (0..=random.below(3)).map(|_| mailbox(random)).collect();
            head += &format!("{field}: {}\r\n", people.join(",\r\n "));
        }
    }
    let words = 1 + random.below(5);
    let subject = sentence(random, words).replace("\r\n", " ");
    head += &format!("Subject: {}\r\nMessage-ID: <made.{number}@example.org>\r\n", encoded(subject.trim()));
    if number > 0 && random.one_in(3) {
        head += &format!("In-Reply-To: <made.{}@example.org>\r\n", random.below(number));
    }
    if random.one_in(4) {
        head += &format!("List-Id: A list <{}>\r\n", random.of(LISTS));
    }
    let words = random.below(60);
    let text = sentence(random, words);
    let plain = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n");
    let html = format!("Content-Type: text/html; charset=utf-8\r\n\r\n<p class=\"hidden-word\">{text}</p>\r\n");
    let body = if random.one_in(4) { html } else { plain };
    if !random.one_in(4) {
        return format!("{head}MIME-Version: 1.0\r\n{body}").into_bytes();
    }
    let name = random.of(FILES);
    let content = sentence(random, 8);
    let kind = if name.ends_with(".txt") { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!(
        "{head}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\n{body}--part\r\n\
         Content-Type: {kind}\r\nContent-Disposition: attachment; filename*=utf-8''{name}\r\n\r\n{content}\r\n--part--\r\n"
    )
    .into_bytes()
}

/// Some of the mail of a suite, spread over it; none where the suites or the program that unpacks them are not there.
pub fn real(name: &str, max: usize) -> Vec<Vec<u8>> {
    let suites =
        std::env::var_os("POSTRIDER_SUITES").map_or_else(|| PathBuf::from("../../shared/suites"), PathBuf::from);
    let unpacking = Command::new("zstd")
        .args(["-dcq", "--long=27"])
        .arg(suites.join("mail").join(name))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = unpacking else { return Vec::new() };
    let mut archive = Vec::new();
    child.stdout.take().expect("it was asked for").read_to_end(&mut archive).expect("read the archive");
    child.wait().expect("reap the program");
    let files = files(&archive);
    let step = files.len().div_ceil(max.max(1)).max(1);
    files.into_iter().step_by(step).map(with_crlf).collect()
}

fn files(archive: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    let mut at = 0;
    while let Some(header) = archive.get(at..at + TAR_BLOCK_BYTES) {
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_matches(['\0', ' ']).to_owned()
        };
        let Ok(size) = usize::from_str_radix(&text(124..136), 8) else { break };
        let Some(content) = archive.get(at + TAR_BLOCK_BYTES..at + TAR_BLOCK_BYTES + size) else { break };
        at += TAR_BLOCK_BYTES + size.div_ceil(TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
        if matches!(header[156], b'0' | 0) && !text(0..100).ends_with(".jsonl") && size > 0 {
            files.push(content);
        }
    }
    files
}

fn with_crlf(content: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(content.len() + content.len() / 32);
    for (n, byte) in content.iter().enumerate() {
        if *byte == b'\n' && (n == 0 || content[n - 1] != b'\r') {
            raw.push(b'\r');
        }
        raw.push(*byte);
    }
    raw
}
