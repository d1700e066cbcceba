//! The sample mail, written for this demo: conversations, several languages, HTML, and an attachment large enough for the
//! object stores.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::layout::{REGIONS_PER_ZONE, Zone};

/// People whose mailboxes the demo makes: local part, name, index of the region where they live, which is in a zone: those of
/// zones that a demo does not have are not there.
pub(crate) const PEOPLE: &[(&str, &str, usize)] = &[
    ("ada", "Ada Moreau", 1),
    ("bora", "김보라", 0),
    ("chen", "陈伟", 2),
    ("dalia", "Dalia Haddad", 1),
    ("emil", "Emil Brandt", 0),
    ("fay", "Fay Okafor", 3),
    ("goran", "Goran Ilić", 4),
];

/// One message as it is handed to SMTP.
pub(crate) struct Sample {
    /// MAIL FROM.
    pub(crate) from: &'static str,
    /// RCPT TO.
    pub(crate) recipients: Vec<String>,
    /// The message, lines ended by CRLF.
    pub(crate) message: Vec<u8>,
}

enum Content {
    Text(&'static str),
    Html { text: &'static str, html: &'static str },
    File { text: &'static str, name: &'static str, kind: &'static str, bytes: Vec<u8> },
}

struct Letter {
    id: &'static str,
    /// Ids of the messages before it in the conversation, oldest first.
    answers: &'static [&'static str],
    from: (&'static str, &'static str),
    to: &'static [&'static str],
    subject: &'static str,
    minutes_ago: i64,
    content: Content,
}

const NOOR: (&str, &str) = ("Noor Aziz", "noor@atelier.example");
const JUN: (&str, &str) = ("이준", "jun@harbor.example");
const LENA: (&str, &str) = ("Lena Groß", "lena@werft.example");
const GAZETTE: (&str, &str) = ("The Harbour Gazette", "letters@gazette.example");
const MEI: (&str, &str) = ("周梅", "mei@garden.example");
const HARU: (&str, &str) = ("佐藤ハル", "haru@tram.example");

/// All that are for people of `zones`, oldest first. `now_ms` is when the demo starts.
pub(crate) fn samples(now_ms: i64, zones: &[Zone]) -> Vec<Sample> {
    letters().iter().filter_map(|letter| write(letter, now_ms, zones)).collect()
}

/// The address of somebody of [`PEOPLE`], if his zone is among `zones`.
fn address(local: &str, zones: &[Zone]) -> Option<String> {
    let (_, _, region) = PEOPLE.iter().find(|(known, ..)| *known == local)?;
    Some(format!("{local}@{}", zones.get(region / REGIONS_PER_ZONE)?.domain))
}

#[allow(clippy::too_many_lines)] // a table of letters, one after the other
fn letters() -> Vec<Letter> {
    vec![
        Letter {
            id: "bridge-1",
            answers: &[],
            from: NOOR,
            to: &["ada", "chen"],
            subject: "Footbridge over the old canal",
            minutes_ago: 2900,
            content: Content::Text(
                "Dear both,\n\nthe council has said yes. Twelve metres of span, oak deck, and they want to see two drafts\n\
                 before winter. Who takes which bank?\n\nNoor\n",
            ),
        },
        Letter {
            id: "bridge-2",
            answers: &["bridge-1"],
            from: LENA,
            to: &["ada", "chen"],
            subject: "Re: Footbridge over the old canal",
            minutes_ago: 2815,
            content: Content::Text(
                "Noor copied me in: I can take the south bank, the yard has a crane free from Monday.\n\n\
                 > Who takes which bank?\n\nSüdufer. Grüße aus der Werft\nLena\n",
            ),
        },
        Letter {
            id: "meeting-1",
            answers: &[],
            from: JUN,
            to: &["bora", "emil"],
            subject: "다음 주 회의 일정",
            minutes_ago: 2400,
            content: Content::Text(
                "보라 님, 에밀 님 안녕하세요.\n\n다음 주 화요일 오후 두 시에 항구 사무실에서 만나는 것이 어떨까요?\n\
                 도면은 제가 가져가겠습니다.\n\n이준 드림\n",
            ),
        },
        Letter {
            id: "meeting-2",
            answers: &["meeting-1"],
            from: HARU,
            to: &["bora", "emil"],
            subject: "Re: 다음 주 회의 일정",
            minutes_ago: 2310,
            content: Content::Text(
                "火曜日で大丈夫です。路面電車は二番線で、港まで十五分です。\n\n\
                 > 다음 주 화요일 오후 두 시\n\nそれでは、港で。\nハル\n",
            ),
        },
        Letter {
            id: "gazette-47",
            answers: &[],
            from: GAZETTE,
            to: &["ada", "bora", "chen", "dalia", "emil"],
            subject: "Tides, timber and a late ferry: the week at the harbour",
            minutes_ago: 1500,
            content: Content::Html {
                text: "THE WEEK AT THE HARBOUR\n\n* Spring tide on Thursday, 06:12\n* The timber auction moves to pier four\n\
                       * The evening ferry runs until midnight\n",
                html: "<!doctype html><html><body style=\"font-family:serif\"><h1>The week at the harbour</h1><ul>\
                       <li><b>Spring tide</b> on Thursday, 06:12</li><li>The timber auction moves to <i>pier four</i></li>\
                       <li>The evening ferry runs until midnight</li></ul><p>Yours, the <em>Gazette</em></p></body></html>\n",
            },
        },
        Letter {
            id: "garden-1",
            answers: &[],
            from: MEI,
            to: &["chen"],
            subject: "院子里的柿子熟了",
            minutes_ago: 1320,
            content: Content::Text("陈伟：\n\n院子里的柿子熟了，周末过来摘吧。带上梯子，上次那把太短。\n\n梅\n"),
        },
        Letter {
            id: "rain-1",
            answers: &[],
            from: LENA,
            to: &["dalia", "ada"],
            subject: "Rain gauges, the whole year",
            minutes_ago: 700,
            content: Content::File {
                text: "Dalia, Ada,\n\nall readings of the gauge at the yard are in the attached table, one line an hour.\n\
                       The storm of 14 March is not a mistake: I emptied the gauge twice.\n\nLena\n",
                name: "rain-gauge.csv",
                kind: "text/csv; charset=us-ascii",
                bytes: rain_table(),
            },
        },
        Letter {
            id: "visit-1",
            answers: &[],
            from: NOOR,
            to: &["dalia"],
            subject: "زيارة المعرض",
            minutes_ago: 410,
            content: Content::Text(
                "عزيزتي داليا،\n\nيفتح المعرض أبوابه يوم الجمعة. تعالي قبل الظهر، الضوء أجمل حينها.\n\nنور\n",
            ),
        },
        Letter {
            id: "bridge-3",
            answers: &["bridge-1", "bridge-2"],
            from: NOOR,
            to: &["ada", "chen"],
            subject: "Re: Footbridge over the old canal",
            minutes_ago: 95,
            content: Content::Text(
                "South bank for Lena, then. Ada, could you measure the north abutment this week? The stones there have moved\n\
                 since the survey.\n\nNoor\n",
            ),
        },
        Letter {
            id: "welcome",
            answers: &[],
            from: ("Postrider", "hello@postrider-demo.example"),
            to: &["ada", "bora", "chen", "dalia", "emil"],
            subject: "Welcome: three regions, one mailbox",
            minutes_ago: 0,
            content: Content::Text(
                "This mailbox has three replicas, one in each region. Stop a storage node with kill -9, then read this\n\
                 message again at another region: it is still here, and new mail still arrives.\n",
            ),
        },
        Letter {
            id: "welcome-second",
            answers: &[],
            from: ("Postrider", "hello@postrider-demo.example"),
            to: &["fay", "goran"],
            subject: "Welcome to the second zone",
            minutes_ago: 0,
            content: Content::Text(
                "This mailbox is in a residency zone of its own: nothing of it is stored outside of the zone's three regions,\n                 and whoever writes to both zones at once is asked to do it in two transactions.\n",
            ),
        },
    ]
}

fn write(letter: &Letter, now_ms: i64, zones: &[Zone]) -> Option<Sample> {
    let (name, from) = letter.from;
    let recipients: Vec<String> = letter.to.iter().map(|local| address(local, zones)).collect::<Option<_>>()?;
    let mut head = String::new();
    // Writing to a String cannot fail.
    let _ = write!(head, "From: {} <{from}>\r\nTo: ", encoded_words(name));
    head.push_str(&recipients.join(",\r\n "));
    let _ = write!(
        head,
        "\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{}@{}>\r\n",
        encoded_words(letter.subject),
        date(now_ms - letter.minutes_ago * 60_000),
        letter.id,
        domain_of(from)
    );
    if let Some(parent) = letter.answers.last() {
        let references: Vec<String> = letter.answers.iter().map(|id| full_id(id)).collect();
        let _ = write!(head, "In-Reply-To: {}\r\nReferences: {}\r\n", full_id(parent), references.join("\r\n "));
    }
    head.push_str("MIME-Version: 1.0\r\n");
    head.push_str(&body(letter));
    Some(Sample { from, recipients, message: head.into_bytes() })
}

/// The Message-ID of another letter.
fn full_id(id: &str) -> String {
    let from = letters().into_iter().find(|letter| letter.id == id).map_or("", |letter| letter.from.1);
    format!("<{id}@{}>", domain_of(from))
}

fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn body(letter: &Letter) -> String {
    let boundary = format!("=_{}", letter.id);
    match &letter.content {
        Content::Text(text) => text_part("text/plain", text),
        Content::Html { text, html } => format!(
            "Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n{}--{boundary}\r\n{}\
             --{boundary}--\r\n",
            text_part("text/plain", text),
            text_part("text/html", html)
        ),
        Content::File { text, name, kind, bytes } => format!(
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n{}--{boundary}\r\n\
             Content-Type: {kind}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}--{boundary}--\r\n",
            text_part("text/plain", text),
            base64_lines(bytes)
        ),
    }
}

/// Text as it is where it is ASCII, and in base64 where it is not.
fn text_part(kind: &str, text: &str) -> String {
    if text.is_ascii() {
        format!("Content-Type: {kind}; charset=us-ascii\r\n\r\n{}", text.replace('\n', "\r\n"))
    } else {
        let lines = base64_lines(text.replace('\n', "\r\n").as_bytes());
        format!("Content-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}")
    }
}

/// RFC 2045 section 6.8: lines of at most 76 characters.
fn base64_lines(bytes: &[u8]) -> String {
    bytes.chunks(57).map(|chunk| BASE64.encode(chunk) + "\r\n").collect()
}

/// RFC 2047 section 2: an encoded word has at most 75 characters, and none is cut inside a character.
fn encoded_words(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    const BYTES_PER_WORD: usize = 42;
    let mut words = vec![String::new()];
    for character in text.chars() {
        let last = words.len() - 1;
        if words[last].len() + character.len_utf8() > BYTES_PER_WORD {
            words.push(character.to_string());
        } else {
            words[last].push(character);
        }
    }
    words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word))).collect::<Vec<_>>().join("\r\n ")
}

/// RFC 5322 section 3.3.
fn date(ms: i64) -> String {
    // Out of range only for a clock that is millennia off.
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// An hourly table of a year, about 240 KB: more than what stays inside a command.
fn rain_table() -> Vec<u8> {
    let mut table = String::from("month,day,hour,millimetres,gauge\r\n");
    let mut state: u32 = 20_251_120;
    for hour in 0..24 * 365 {
        // Numerical Recipes' generator: the same table at every start.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let rain = if state >> 24 > 200 { (state >> 16) % 90 } else { 0 };
        let (month, day) = (hour / 730 % 12 + 1, hour / 24 % 30 + 1);
        let _ = write!(table, "{month},{day},{},{}.{},yard-south\r\n", hour % 24, rain / 10, rain % 10);
    }
    table.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::layout::ZONES;
    use super::*;

    #[test]
    fn samples_are_well_formed() {
        let samples = samples(1_790_000_000_000, &ZONES);
        assert_eq!(super::samples(0, &ZONES[..1]).len(), samples.len() - 1, "one is for the second zone");
        for sample in &samples {
            let text = String::from_utf8(sample.message.clone()).unwrap();
            assert!(text.is_ascii());
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end with CRLF");
            assert!(text.lines().all(|line| line.len() <= 998));
            assert!(text.contains("\r\nMessage-ID: <"));
            assert!(!sample.recipients.is_empty());
        }
        let attachments = samples.iter().filter(|sample| sample.message.len() > 128 * 1024).count();
        assert_eq!(attachments, 1, "one is large enough for the object stores");
    }

    #[test]
    fn answers_name_what_they_answer() {
        let text = String::from_utf8(write(&letters()[8], 0, &ZONES).unwrap().message).unwrap();
        assert!(text.contains("References: <bridge-1@atelier.example>\r\n <bridge-2@werft.example>\r\n"), "{text}");
        assert!(text.contains("In-Reply-To: <bridge-2@werft.example>\r\n"));
    }

    #[test]
    fn encoded_words_are_short() {
        for word in encoded_words(&"가나다라마바사".repeat(8)).split("\r\n ") {
            assert!(word.len() <= 75, "{word}");
        }
    }
}
