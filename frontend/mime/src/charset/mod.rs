//! Bytes to text by the charset that a part, a word or a parameter names.
//!
//! Web browsers' tables (WHATWG Encoding, by encoding_rs) are the base. What they leave out on purpose and mail still has is our
//! own: the seven-bit charsets [`iso_2022`], [`hz`] and [`utf_7`], and the names that programs use beside the registered ones
//! ([`label`]).
//!
//! Invariant: every input gives text, and what is ASCII in it is never lost.

mod hz;
mod iso_2022;
mod label;
mod utf_16;
mod utf_7;

use std::borrow::Cow;

use encoding_rs::{Encoding, WINDOWS_1252};

pub(super) use label::Charset;

/// What bytes that are not UTF-8 are taken for where no charset is named, or one that nobody knows: every byte has a
/// character in it, and it is what most senders of undeclared 8-bit mail meant.
const FALLBACK: &Encoding = WINDOWS_1252;

/// `bytes` as text. `charset` is a name as it stands in the mail; empty where there is none.
pub fn to_text<'a>(bytes: &'a [u8], charset: &str) -> Cow<'a, str> {
    match Charset::of(charset) {
        Charset::Undeclared => undeclared(bytes),
        Charset::Utf8 => utf_8(bytes),
        Charset::Utf7 => Cow::Owned(utf_7::decode(bytes)),
        Charset::Utf16(order) => Cow::Owned(utf_16::decode(bytes, order)),
        Charset::Iso2022(family) => Cow::Owned(iso_2022::decode(bytes, family)),
        Charset::Hz => Cow::Owned(hz::decode(bytes)),
        Charset::Table(encoding) => encoding.decode_without_bom_handling(bytes).0,
        Charset::Library(decoder) => Cow::Owned(decoder(bytes)),
    }
}

/// HTML as text: a page that says its charset itself may have lost the field that says it too (HTML Standard, section 13.2.3.2).
/// What is UTF-8 is UTF-8, whatever a page says that was converted on its way.
pub(super) fn html_text<'a>(bytes: &'a [u8], charset: &str) -> Cow<'a, str> {
    let says_it_itself = matches!(Charset::of(charset), Charset::Undeclared) && !is_utf_8_or_cut(bytes);
    let page = if says_it_itself { page_charset(bytes) } else { None };
    to_text(bytes, page.unwrap_or(charset))
}

/// Whether all of it is UTF-8, but for a last character that was cut.
fn is_utf_8_or_cut(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !bytes[..error.valid_up_to()].is_ascii(),
    }
}

/// Bytes of a page in which its charset is looked for.
const PAGE_HEAD_BYTES: usize = 1024;

/// What stands behind the first `charset=` of a page's head.
fn page_charset(page: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b"charset=";
    let head = &page[..page.len().min(PAGE_HEAD_BYTES)];
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME))? + NAME.len();
    let label = head[at..].trim_ascii_start();
    let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
    let length = label.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(byte)).count();
    std::str::from_utf8(&label[..length]).ok().filter(|label| !label.is_empty())
}

/// The value of a header field as text: ASCII, or UTF-8 (RFC 6532), or what stands there against the rules, which is most often in
/// the charset of the body. A charset that gives ASCII another meaning is none of a header's, unless an escape announces it.
pub(super) fn header_text<'a>(bytes: &'a [u8], charset: &str) -> Cow<'a, str> {
    let is_announced = iso_2022::is_announced(bytes);
    if !is_announced && is_utf_8_or_cut(bytes) {
        return String::from_utf8_lossy(bytes);
    }
    match Charset::of(charset) {
        Charset::Iso2022(_) if is_announced => to_text(bytes, charset),
        Charset::Utf7 | Charset::Utf16(_) | Charset::Iso2022(_) | Charset::Hz => undeclared(bytes),
        _ if is_announced => undeclared(bytes),
        _ => to_text(bytes, charset),
    }
}

/// What claims to be ASCII or claims nothing is most often UTF-8 when it has 8-bit bytes at all.
fn undeclared(bytes: &[u8]) -> Cow<'_, str> {
    if !is_utf_8_or_cut(bytes) {
        return FALLBACK.decode_without_bom_handling(bytes).0;
    }
    if iso_2022::is_announced(bytes) {
        return Cow::Owned(iso_2022::decode(bytes, label::Family::Japanese));
    }
    String::from_utf8_lossy(bytes)
}

/// A sender who says UTF-8 may be wrong in a few places, or have been cut in the middle of a character. Where nothing but ASCII
/// is UTF-8 he is wrong altogether.
fn utf_8(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(bytes),
        Err(_) if bytes.utf8_chunks().any(|chunk| !chunk.valid().is_ascii()) => String::from_utf8_lossy(bytes),
        Err(_) => FALLBACK.decode_without_bom_handling(bytes).0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn named_charsets_are_read() {
        assert_eq!(to_text(b"\xbe\xc8\xb3\xe7", "EUC-KR"), "안녕");
        assert_eq!(to_text(b"caf\xe9", "iso-8859-1"), "café");
        assert_eq!(to_text("안녕".as_bytes(), "utf-8"), "안녕");
        assert_eq!(to_text(b"\x8a\x8b", "cp850"), "èï");
    }

    #[test]
    fn names_of_microsoft_and_of_databases_are_known() {
        for label in ["cp949", "MS949", "windows-949", "x-windows-949", "ks_c_5601-1987", "KSC5601", "uhc", "euc_kr"] {
            assert_eq!(to_text(b"\x8c\x63\xb9\xe6\xb0\xa2\xc7\xcf", label), "똠방각하", "{label}");
        }
        for label in ["cp932", "MS932", "windows-31j", "csWindows31J", "x-sjis", "shift-jis", "x-ms-cp932", "sjis"] {
            assert_eq!(to_text(b"\x87\x40\x89\xef\x8b\x63", label), "①会議", "{label}");
        }
        for label in ["cp936", "ms936", "windows-936", "x-gbk", "gb2312", "GB_2312-80", "euc-cn", "gb18030", "cn-gb"] {
            assert_eq!(to_text(b"\xbb\xe1\xd2\xe9", label), "会议", "{label}");
        }
        for label in ["cp950", "ms950", "x-windows-950", "big-5", "Big5-HKSCS", "x-x-big5"] {
            assert_eq!(to_text(b"\xb7\x7c\xc4\xb3", label), "會議", "{label}");
        }
        for label in
            ["utf8mb4", "utf8", "UTF_8", "cp65001", "unicode-1-1-utf-8", "'utf-8'", "utf-8;", "x-utf-8", "utf8mb3"]
        {
            assert_eq!(to_text("안녕".as_bytes(), label), "안녕", "{label}");
        }
        for label in ["cp1251", "win-1251", "windows1251", "x-cp1251", "ansi-1251", "1251"] {
            assert_eq!(to_text(b"\xcf\xf0\xe8\xe2\xe5\xf2", label), "Привет", "{label}");
        }
        for label in ["iso8859-15", "ISO_8859-15", "8859-15", "latin-9", "latin9", "cp28605"] {
            assert_eq!(to_text(b"\xa4", label), "€", "{label}");
        }
    }

    #[test]
    fn undeclared_bytes_are_utf_8_if_they_can_be() {
        for label in ["", "us-ascii", "ASCII", "x-nobody-knows", "unknown-8bit", "default"] {
            assert_eq!(to_text("안녕".as_bytes(), label), "안녕", "{label}");
            assert_eq!(to_text(b"caf\xe9!", label), "café!", "{label}");
        }
        assert_eq!(to_text(b"\x1b$B2q5D\x1b(B", ""), "会議");
    }

    #[test]
    fn what_claims_to_be_utf_8_and_is_none_is_guessed() {
        assert_eq!(to_text(b"caf\xe9 au lait", "utf-8"), "café au lait");
        assert_eq!(to_text(b"caf\xc3\xa9 \xff", "utf-8"), "café \u{fffd}");
        assert_eq!(to_text(b"an\xec\x95", "utf-8"), "an\u{fffd}");
    }

    #[test]
    fn a_page_may_say_its_charset_itself() {
        let page =
            b"<html><head><META http-equiv=Content-Type content=\"text/html; Charset=euc-kr\"></head>\xbe\xc8\xb3\xe7";
        assert!(html_text(page, "").ends_with("안녕"));
        assert!(html_text(page, "us-ascii").ends_with("안녕"));
        assert!(html_text(b"<meta charset='Shift_JIS'>\x89\xef\x8b\x63", "").ends_with("会議"));
        // What the header says counts, and so does what the bytes are.
        assert!(html_text(page, "iso-8859-1").ends_with("¾È³ç"));
        assert!(html_text("<meta charset=>안녕".as_bytes(), "").ends_with("안녕"));
        assert!(html_text("<meta charset=euc-kr>안녕".as_bytes(), "").ends_with("안녕"));
        assert!(html_text(b"<meta charset=utf-7>+ADw-", "").ends_with("+ADw-"));
    }

    #[test]
    fn headers_are_not_read_in_the_seven_bit_charset_of_a_body() {
        assert_eq!(header_text(b"1 +AOk- 1 ~{;aRi~}", "utf-7"), "1 +AOk- 1 ~{;aRi~}");
        assert_eq!(header_text(b"1 ~{;aRi~}", "hz-gb-2312"), "1 ~{;aRi~}");
        assert_eq!(header_text(b"\x1b$B2q5D\x1b(B", "iso-2022-jp"), "会議");
        assert_eq!(header_text(b"\x1b$B2q5D\x1b(B", "utf-8"), "会議");
        assert_eq!(header_text(b"\x1b$)C\x0e>H3g\x0f", "iso-2022-kr"), "안녕");
        assert_eq!(header_text("안녕".as_bytes(), "euc-kr"), "안녕");
        assert_eq!(header_text(b"\xbe\xc8\xb3\xe7", "euc-kr"), "안녕");
        assert_eq!(header_text(b"caf\xe9", "utf-16"), "café");
    }

    proptest! {
        #[test]
        fn no_charset_loses_ascii(text in "[ -z]{0,40}", label in proptest::sample::select(vec![
            "iso-2022-kr", "iso-2022-jp", "iso-2022-cn", "utf-8", "euc-kr", "x-none", "koi8-r", "cp850"])) {
            let read = to_text(text.as_bytes(), label);
            prop_assert_eq!(read.as_ref(), text.as_str());
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"\x1b\x0e\x0f$()ABCN~{}+-\r\n".to_vec()), any::<u8>()], 0..60),
            label in proptest::sample::select(vec![
            "iso-2022-kr", "iso-2022-jp", "iso-2022-cn", "utf-7", "utf-16", "hz-gb-2312", "utf-8", "", "euc-jp"])) {
            to_text(&bytes, label);
        }
    }
}
