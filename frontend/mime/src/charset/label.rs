//! Names of charsets: the registered ones, those that Microsoft's programs and databases use, and what senders make of both.

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, MACINTOSH, SHIFT_JIS, UTF_16BE, UTF_16LE, WINDOWS_874, X_MAC_CYRILLIC,
};
use mail_parser::decoders::charsets::map::charset_decoder;

use super::super::limit::CHARSET_BYTES_MAX;

/// How bytes become text.
#[derive(Clone, Copy)]
pub(in super::super) enum Charset {
    /// No name, ASCII, or a name that nobody knows.
    Undeclared,
    Utf8,
    Utf7,
    Utf16(ByteOrder),
    Iso2022(Family),
    Hz,
    Table(&'static Encoding),
    /// One that only mail-parser has.
    Library(fn(&[u8]) -> String),
}

/// Which byte of a unit of UTF-16 is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ByteOrder {
    /// Said by the text itself, or to be guessed.
    Unknown,
    Big,
    Little,
}

/// Whose charsets of ISO 2022 are meant where the text does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Family {
    Japanese,
    Korean,
    Chinese,
}

impl Charset {
    /// The charset of that name, as it stands in the mail.
    pub(in super::super) fn of(label: &str) -> Self {
        let label = label.trim_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\'' | ';' | ','));
        let plain: String = label
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .take(CHARSET_BYTES_MAX)
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect();
        let plain = plain.strip_prefix("cs").unwrap_or(&plain);
        own(plain)
            .or_else(|| Encoding::for_label_no_replacement(label.as_bytes()).map(Self::Table))
            .or_else(|| alias(plain).map(Self::Table))
            .or_else(|| code_page(plain))
            .or_else(|| charset_decoder(label.as_bytes()).map(Self::Library))
            .unwrap_or(Self::Undeclared)
    }

    /// Whether encoded words of it may be joined before they are decoded: a run of UTF-7 ends with its word, and nothing says so.
    pub(in super::super) fn is_joined(self) -> bool {
        !matches!(self, Self::Utf7)
    }
}

/// What the tables of web browsers leave out, or read otherwise than mail does.
fn own(plain: &str) -> Option<Charset> {
    Some(match plain {
        "" | "xuserdefined" | "usascii" | "ascii" | "us" | "ansix341968" | "iso646us" => Charset::Undeclared,
        // utf8mb4, utf8n, utf-8-sig: whatever a program adds to it.
        _ if plain.starts_with("utf8") => Charset::Utf8,
        "xutf8" | "unicode11utf8" | "unicode20utf8" | "xunicode20utf8" | "cesu8" => Charset::Utf8,
        "utf7" | "xutf7" | "unicode11utf7" | "unicode20utf7" | "xunicode20utf7" => Charset::Utf7,
        "utf16" | "ucs2" | "unicode" | "iso10646ucs2" | "xutf16" => Charset::Utf16(ByteOrder::Unknown),
        "utf16be" | "unicodefffe" => Charset::Utf16(ByteOrder::Big),
        "utf16le" | "unicodefeff" => Charset::Utf16(ByteOrder::Little),
        "hzgb2312" | "hz" | "hzgb" => Charset::Hz,
        _ if plain.starts_with("iso2022") || plain == "jis" => Charset::Iso2022(match &plain[plain.len().min(7)..] {
            family if family.starts_with("kr") => Family::Korean,
            family if family.starts_with("cn") => Family::Chinese,
            _ => Family::Japanese,
        }),
        _ => return None,
    })
}

fn alias(plain: &str) -> Option<&'static Encoding> {
    let plain = plain.strip_prefix('x').unwrap_or(plain);
    Some(match plain {
        "euckr" | "uhc" | "korean" | "ksx1001" | "mackorean" => EUC_KR,
        _ if plain.starts_with("ksc5601") => EUC_KR,
        "shiftjis" | "sjis" | "mskanji" | "windows31j" | "shiftjisx0213" | "shiftjis2004" | "macjapanese" => SHIFT_JIS,
        "eucjp" | "ujis" | "eucjisx0213" | "eucjis2004" => EUC_JP,
        "euccn" | "cngb" | "gb2312" | "gb231280" | "gbk" | "gb18030" | "gb180302022" | "macchinesesimp" => GB18030,
        "big5" | "cnbig5" | "big5hkscs" | "big5eten" | "big5et" | "xbig5" | "macchinesetrad" => BIG5,
        "tis620" | "iso885911" => WINDOWS_874,
        "macroman" | "macintosh" | "mac" => MACINTOSH,
        "maccyrillic" | "macukrainian" => X_MAC_CYRILLIC,
        "koi8r" | "koi8" => encoding_rs::KOI8_R,
        "koi8u" | "koi8ru" => encoding_rs::KOI8_U,
        "latin0" | "latin9" => encoding_rs::ISO_8859_15,
        "latin7" => encoding_rs::ISO_8859_13,
        "latin10" => encoding_rs::ISO_8859_16,
        "ansi" | "western" | "latin" => encoding_rs::WINDOWS_1252,
        _ => {
            let number = plain.strip_prefix("iso").unwrap_or(plain).strip_prefix("8859")?;
            // Some names carry the year: iso_8859-1:1987.
            let number = number.strip_suffix("1987").or_else(|| number.strip_suffix("1988")).unwrap_or(number);
            return iso_8859(number.parse().ok()?);
        }
    })
}

fn iso_8859(number: u32) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(format!("iso-8859-{number}").as_bytes())
}

/// Microsoft's and IBM's numbers.
fn code_page(plain: &str) -> Option<Charset> {
    const PREFIXES: [&str; 10] = ["xwindows", "xmscp", "xcp", "windows", "codepage", "win", "ansi", "ibm", "cp", "ms"];
    let number = PREFIXES.iter().find_map(|prefix| plain.strip_prefix(prefix)).unwrap_or(plain);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    Some(match number {
        367 | 646 | 20_127 => Charset::Undeclared,
        932 => Charset::Table(SHIFT_JIS),
        936 | 51_936 | 54_936 => Charset::Table(GB18030),
        949 | 51_949 => Charset::Table(EUC_KR),
        950 => Charset::Table(BIG5),
        874 => Charset::Table(WINDOWS_874),
        866 => Charset::Table(encoding_rs::IBM866),
        819 => Charset::Table(encoding_rs::WINDOWS_1252),
        1200 => Charset::Table(UTF_16LE),
        1201 => Charset::Table(UTF_16BE),
        1250..=1258 => Charset::Table(Encoding::for_label(format!("windows-{number}").as_bytes())?),
        10_000 => Charset::Table(MACINTOSH),
        10_007 => Charset::Table(X_MAC_CYRILLIC),
        20_866 => Charset::Table(encoding_rs::KOI8_R),
        21_866 => Charset::Table(encoding_rs::KOI8_U),
        20_932 | 51_932 => Charset::Table(EUC_JP),
        28_591..=28_606 => Charset::Table(iso_8859(number - 28_590)?),
        50_220..=50_222 => Charset::Iso2022(Family::Japanese),
        50_225 => Charset::Iso2022(Family::Korean),
        50_227 | 50_229 => Charset::Iso2022(Family::Chinese),
        52_936 => Charset::Hz,
        65_000 => Charset::Utf7,
        65_001 => Charset::Utf8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a name is taken for, as a word.
    fn kind(label: &str) -> String {
        match Charset::of(label) {
            Charset::Undeclared => "undeclared".to_owned(),
            Charset::Utf8 => "UTF-8".to_owned(),
            Charset::Utf7 => "UTF-7".to_owned(),
            Charset::Utf16(order) => format!("UTF-16 {order:?}"),
            Charset::Iso2022(family) => format!("ISO-2022 {family:?}"),
            Charset::Hz => "HZ".to_owned(),
            Charset::Table(encoding) => encoding.name().to_owned(),
            Charset::Library(_) => "library".to_owned(),
        }
    }

    #[test]
    fn names_are_found() {
        for (label, expected) in [
            ("ISO-2022-JP-2", "ISO-2022 Japanese"),
            ("csISO2022KR", "ISO-2022 Korean"),
            ("iso-2022-cn-ext", "ISO-2022 Chinese"),
            ("x-unicode-2-0-utf-7", "UTF-7"),
            ("csUnicode11UTF7", "UTF-7"),
            ("HZ-GB-2312", "HZ"),
            ("UTF-16", "UTF-16 Unknown"),
            ("koi8-r", "KOI8-R"),
            ("KOI8R", "KOI8-R"),
            ("iso_8859-1:1987", "windows-1252"),
            ("iso-8859-8-i", "ISO-8859-8-I"),
            ("ISO-8859-16", "ISO-8859-16"),
            ("iso885916", "ISO-8859-16"),
            ("tis-620", "windows-874"),
            ("IBM850", "library"),
            ("x-mac-roman", "macintosh"),
            ("x-mac-japanese", "Shift_JIS"),
            ("x-mac-korean", "EUC-KR"),
            ("UTF-8-MAC", "UTF-8"),
            ("1252", "windows-1252"),
            ("8bit", "undeclared"),
            ("none", "undeclared"),
            ("iso2022", "ISO-2022 Japanese"),
            ("iso", "undeclared"),
        ] {
            assert_eq!(kind(label), expected, "{label}");
        }
    }
}
