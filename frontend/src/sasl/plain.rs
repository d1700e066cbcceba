//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL password`.

use super::{SaslError, name, password};

/// What a client sent.
pub(crate) struct Plain<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: &'a str,
}

/// Reads a response. Whoever names another one to act for is refused: nobody acts for others here.
pub(crate) fn parse(response: &[u8]) -> Result<Plain<'_>, SaslError> {
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(authorisation), Some(authentication), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed);
    };
    let name = name(authentication)?;
    if !authorisation.is_empty() && !authorisation.eq_ignore_ascii_case(name.as_bytes()) {
        return Err(SaslError::Foreign);
    }
    Ok(Plain { name, password: password(secret)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        for text in
            ["\0ada@x.example\0secret", "ada@x.example\0ada@x.example\0secret", "ADA@x.example\0ada@x.example\0secret"]
        {
            let plain = parse(text.as_bytes()).unwrap();
            assert_eq!((plain.name, plain.password), ("ada@x.example", "secret"));
        }
        assert_eq!(parse(b"bob\0ada\0secret").err(), Some(SaslError::Foreign));
        for bad in ["", "ada", "\0ada", "\0ada\0", "\0\0secret", "\0ada\0secret\0", "\0a\nb\0secret"] {
            assert_eq!(parse(bad.as_bytes()).err(), Some(SaslError::Malformed), "{bad:?}");
        }
        assert_eq!(parse(b"\0ada\0\xff").err(), Some(SaslError::Malformed));
    }
}
