//! What mail is, as its header says: which addresses of ours it leaves from, and whether whoever gets it can unsubscribe with a click.

use postrider_api::pb::MailCategory;

/// The field by which a program says it, beside those that all the world has.
pub const FIELD: &str = "X-Postrider-Category";

/// What the fields of a header say; `None` where they say nothing. Names and values as they stand, the values unfolded or not.
pub fn of_header<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<MailCategory> {
    let mut found = None;
    for (name, value) in fields {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let value = value.trim_ascii();
        let says = |wanted: &str| value.eq_ignore_ascii_case(wanted.as_bytes());
        if is(FIELD) {
            // The first that is understood is its author's word.
            let said = [MailCategory::Personal, MailCategory::Transactional, MailCategory::Bulk]
                .into_iter()
                .find(|category| says(name_of(*category)));
            if said.is_some() {
                return said;
            }
        }
        // RFC 2919, RFC 2369, and what RFC 3834 section 2 knows of Precedence.
        let is_bulk = is("List-Id")
            || is("List-Unsubscribe")
            || is("Precedence") && (says("bulk") || says("list") || says("junk"));
        // RFC 3834 section 5.
        let is_of_program = is("Auto-Submitted") && says("auto-generated");
        found = match (found, is_bulk, is_of_program) {
            (_, true, _) => Some(MailCategory::Bulk),
            (None, false, true) => Some(MailCategory::Transactional),
            (found, false, _) => found,
        };
    }
    found
}

/// As fields and JSON name it.
pub fn name_of(category: MailCategory) -> &'static str {
    match category {
        MailCategory::Personal => "personal",
        MailCategory::Transactional => "transactional",
        MailCategory::Bulk => "bulk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_mail_is() {
        let of =
            |fields: &[(&str, &str)]| of_header(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        assert_eq!(of(&[("Subject", " bulk\r\n")]), None);
        assert_eq!(of(&[("list-id", " <x.example>\r\n")]), Some(MailCategory::Bulk));
        assert_eq!(of(&[("Precedence", " Bulk\r\n")]), Some(MailCategory::Bulk));
        assert_eq!(of(&[("Precedence", " first-class\r\n")]), None);
        assert_eq!(of(&[("Auto-Submitted", " auto-generated\r\n")]), Some(MailCategory::Transactional));
        assert_eq!(
            of(&[("Auto-Submitted", " auto-generated\r\n"), ("List-Unsubscribe", " <https://x.example>\r\n")]),
            Some(MailCategory::Bulk)
        );
        assert_eq!(
            of(&[("List-Id", " x"), ("X-Postrider-Category", " Transactional ")]),
            Some(MailCategory::Transactional)
        );
        assert_eq!(of(&[("X-Postrider-Category", " none of them ")]), None);
    }
}
