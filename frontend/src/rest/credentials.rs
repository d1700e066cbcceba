//! What a request shows of whoever makes it: a bearer token (RFC 6750), or a browser's cookie that no script reads (RFC 6265bis), which
//! counts only where our own page asks (CSRF).
//!
//! Invariant: a cookie opens nothing that a page of another origin asked for. Browsers say where a request comes from (Fetch Metadata), or
//! at least which origin changes something (RFC 6454 section 7); where they say neither, nothing is changed. `SameSite=Strict` says the same a
//! third time, to browsers that know it.
//! Invariant: a request that shows a token in its Authorization field is judged by that alone.

use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::account::token::Token;
use crate::rest::problem::{Kind, Problem};

/// The cookie's name: with this prefix browsers take it by HTTPS only (and from the machine itself), for this host alone, for all of its
/// paths (RFC 6265bis section 4.1.3.2).
pub(crate) const NAME: &str = "__Host-postrider";
/// Where a request was made (Fetch Metadata section 2.4).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// What a request does, as far as it matters who made the browser ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads: the answer is for the page that asked, which has to be ours.
    Reads,
    /// It changes something, or opens a stream: the answer is not all that matters.
    Changes,
}

impl Effect {
    /// Of a request by its method (RFC 9110 section 9.2.1).
    pub(crate) fn of(method: &Method) -> Self {
        if method.is_safe() { Self::Reads } else { Self::Changes }
    }
}

/// Whether a request that wants a session in a cookie comes from our own page: nobody is logged in as somebody else by another's.
pub(crate) fn is_own_page(parts: &Parts) -> bool {
    is_of_this_origin(parts, Effect::Changes)
}

/// Gives a browser its session.
pub(crate) fn opened(token: &Token, lasts: Duration) -> HeaderValue {
    written(&token.text(), lasts.as_secs())
}

/// Takes it away again.
pub(crate) fn ended() -> HeaderValue {
    written("", 0)
}

fn written(value: &str, lasts_s: u64) -> HeaderValue {
    let text = format!("{NAME}={value}; Path=/; Max-Age={lasts_s}; Secure; HttpOnly; SameSite=Strict");
    HeaderValue::try_from(text).expect("a token is letters, digits, hyphens and underlines")
}

/// Whether the browser has a session in its cookie, and shows no token beside it.
pub(crate) fn is_shown(headers: &HeaderMap) -> bool {
    !headers.contains_key(AUTHORIZATION) && cookie(headers).is_some()
}

/// What stands behind `Bearer` in the Authorization field (RFC 6750 section 2.1); `None` unless there is exactly one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() {
        return None;
    }
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The token that a request shows, in its Authorization field or in the cookie.
pub(crate) fn token(parts: &Parts, effect: Effect) -> Result<Token, Problem> {
    let unauthenticated = || Problem::new(Kind::Unauthenticated);
    if parts.headers.contains_key(AUTHORIZATION) {
        return bearer(&parts.headers).and_then(Token::parse).ok_or_else(unauthenticated);
    }
    let token = cookie(&parts.headers).and_then(Token::parse).ok_or_else(unauthenticated)?;
    if is_of_this_origin(parts, effect) { Ok(token) } else { Err(Problem::new(Kind::CrossSite)) }
}

/// The cookie's value; `None` unless there is exactly one.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value);
    let value = found.next()?;
    found.next().is_none().then_some(value)
}

fn is_of_this_origin(parts: &Parts, effect: Effect) -> bool {
    let one = |name: &str| {
        let mut fields = parts.headers.get_all(name).iter();
        let field = fields.next().and_then(|field| field.to_str().ok());
        if fields.next().is_some() { Some("") } else { field }
    };
    match (one(SEC_FETCH_SITE), effect) {
        (Some("same-origin"), _) => true,
        // Typed, or from a bookmark.
        (Some("none"), Effect::Reads) => true,
        (Some(_), _) => false,
        // Browsers from before 2023, and from everywhere by plain HTTP.
        (None, Effect::Reads) => true,
        (None, Effect::Changes) => {
            let origin = one(ORIGIN.as_str()).and_then(|origin| origin.split_once("://"));
            // HTTP/2 has it in the request's target (RFC 9113 section 8.3.1).
            let host = parts.uri.authority().map(http::uri::Authority::as_str).or_else(|| one(HOST.as_str()));
            origin.is_some_and(|(scheme, authority)| {
                matches!(scheme, "http" | "https") && host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{Slot, UserId, ZoneId};

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn parts(fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::new(());
        *request.headers_mut() = headers(fields);
        request.into_parts().0
    }

    #[test]
    fn bearer_tokens() {
        let of = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(&headers(&fields)).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer abc"]).as_deref(), Some("abc"));
        for none in [&["Basic abc"][..], &["Bearer"], &["Bearer a", "Bearer b"], &[]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    fn a_token() -> Token {
        Token::random(UserId::new(ZoneId(1), Slot(7), [9; 12]), &SystemEntropy)
    }

    #[test]
    fn a_cookie_is_what_browsers_keep_for_us_alone() {
        let token = a_token();
        let field = opened(&token, Duration::from_secs(60));
        let expected =
            format!("__Host-postrider={}; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Strict", token.text());
        assert_eq!(field, expected.as_str());
        assert_eq!(ended(), "__Host-postrider=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn a_cookie_counts_where_our_own_page_asks() {
        let text = a_token().text();
        let cookie = format!("a=b; __Host-postrider={text}; c=d");
        let ask = |fields: &[(&str, &str)], effect| {
            let shown = [&[("cookie", cookie.as_str()), ("host", "mail.example:8443")], fields].concat();
            token(&parts(&shown), effect).map(|token| token.text()).map_err(|problem| problem.kind())
        };
        for (fields, reads, changes) in [
            (&[("sec-fetch-site", "same-origin")][..], true, true),
            (&[("sec-fetch-site", "none")], true, false),
            (&[("sec-fetch-site", "same-site")], false, false),
            (&[("sec-fetch-site", "cross-site")], false, false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://mail.example:8443")], false, false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false, false),
            (&[], true, false),
            (&[("origin", "https://mail.example:8443")], true, true),
            (&[("origin", "https://MAIL.example:8443")], true, true),
            (&[("origin", "https://mail.example")], true, false),
            (&[("origin", "https://evil.example")], true, false),
            (&[("origin", "null")], true, false),
            (&[("origin", "chrome-extension://mail.example:8443")], true, false),
        ] {
            for (effect, is_taken) in [(Effect::Reads, reads), (Effect::Changes, changes)] {
                let expected = if is_taken { Ok(text.clone()) } else { Err(Kind::CrossSite) };
                assert_eq!(ask(fields, effect), expected, "{fields:?} {effect:?}");
            }
        }
    }

    #[test]
    fn a_token_beside_it_is_what_counts() {
        let (one, other) = (a_token().text(), a_token().text());
        let (cookie, field) = (format!("__Host-postrider={one}"), format!("Bearer {other}"));
        let both = parts(&[("cookie", &cookie), ("authorization", &field)]);
        assert_eq!(token(&both, Effect::Changes).unwrap().text(), other);
        assert!(!is_shown(&both.headers));
        let broken = parts(&[("cookie", &cookie), ("authorization", "Basic x")]);
        assert_eq!(token(&broken, Effect::Reads).err().unwrap().kind(), Kind::Unauthenticated);
        let twice = parts(&[("cookie", &format!("{cookie}; {cookie}"))]);
        assert_eq!(token(&twice, Effect::Reads).err().unwrap().kind(), Kind::Unauthenticated);
    }
}
