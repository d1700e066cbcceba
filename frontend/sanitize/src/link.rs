//! Where links lead, and whether they say so.

use url::{Host, Url};

use crate::limit::URL_BYTES_MAX;

/// Where a link may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The web.
    Web { url: String, host: String, names_reader: bool },
    /// Somebody's address, or a telephone.
    Person { url: String, shown: String },
    /// Elsewhere in the message.
    Within(String),
}

/// Parameters by which the services that send newsletters know who follows a link.
const READER_PARAMETERS: &[&str] = &[
    "__s",
    "_hsenc",
    "_hsmi",
    "_ke",
    "_kx",
    "bsft_eid",
    "bsft_uid",
    "ck_subscriber_id",
    "dm_i",
    "elqtrackid",
    "et_rid",
    "mc_eid",
    "mkt_tok",
    "ml_subscriber",
    "ml_subscriber_hash",
    "nb_klid",
    "oly_anon_id",
    "oly_enc_id",
    "sfmc_id",
    "ss_email_id",
    "trk_contact",
    "vero_conv",
    "vero_id",
    "wickedid",
];

/// Paths under which they count who follows a link.
const CLICK_PATHS: &[&str] = &["/ls/click", "/wf/click", "/ss/c/", "/track/click", "/cl0/", "/e/c/", "/trk/click"];

/// Paths under which they count who opens a message.
const OPEN_PATHS: &[&str] = &[
    "/wf/open",
    "/ss/o/",
    "/track/open",
    "/trk/open",
    "/e/o/",
    "/i0/",
    "/open.aspx",
    "/open.php",
    "/open.gif",
    "/o.gif",
    "/mpss/o/",
];

/// Where `href` leads; `None` where no mail program should go: to scripts, files, data, other programs, or nowhere.
pub(crate) fn destination(href: &str) -> Option<Destination> {
    if href.len() > URL_BYTES_MAX {
        return None;
    }
    // Blanks around and line ends within are no part of a URL (URL Standard, section 4.4): the same parser as browsers have.
    if let Some(fragment) = href.trim().strip_prefix('#') {
        return Some(Destination::Within(fragment.to_owned()));
    }
    let url = absolute(href)?;
    match url.scheme() {
        "http" | "https" => {
            let names_reader = is_one_of(&url, CLICK_PATHS) || has_reader(&url);
            let host = host(&url)?;
            Some(Destination::Web { url: url.into(), host, names_reader })
        }
        "mailto" | "tel" => {
            let shown = url.path().to_owned();
            Some(Destination::Person { url: url.into(), shown })
        }
        _ => None,
    }
}

/// An image's URL on the web: itself, its host, and whether it counts who opens messages.
pub(crate) struct RemoteImage {
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) counts_readers: bool,
}

/// Takes a URL of the web.
pub(crate) fn remote_image(src: &str) -> Option<RemoteImage> {
    let url = if src.len() > URL_BYTES_MAX { None } else { absolute(src) }?;
    let host = if matches!(url.scheme(), "http" | "https") { host(&url) } else { None }?;
    let counts_readers = is_one_of(&url, OPEN_PATHS) || has_reader(&url);
    Some(RemoteImage { url: url.into(), host, counts_readers })
}

/// A URL without who logs in by it, which is there to look like a host.
fn absolute(text: &str) -> Option<Url> {
    let text = text.trim();
    // Without a scheme, as on a page that was read by HTTPS.
    let mut url = match text.strip_prefix("//") {
        Some(rest) => Url::parse(&format!("https://{rest}")).ok()?,
        None => Url::parse(text).ok()?,
    };
    if url.has_host() {
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
    }
    Some(url)
}

fn host(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain("") => None,
        host => Some(host.to_string()),
    }
}

fn is_one_of(url: &Url, paths: &[&str]) -> bool {
    let path = url.path().to_ascii_lowercase();
    paths.iter().any(|known| {
        if known.ends_with('/') { path.contains(known) } else { path.starts_with(known) || path.ends_with(known) }
    })
}

fn has_reader(url: &Url) -> bool {
    url.query_pairs().any(|(name, _)| READER_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()))
}

/// Whether the text of a link names another host than `host`, where it leads.
pub(crate) fn misleads(text: &str, host: &str) -> bool {
    let Some(named) = named_host(text) else { return false };
    let within =
        |inner: &str, outer: &str| inner == outer || inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
    let plain = |host: &str| host.strip_prefix("www.").unwrap_or(host).to_owned();
    let (named, host) = (plain(&named), plain(host));
    !within(&named, &host) && !within(&host, &named)
}

/// The host that text looks like: it is a URL, or has the form of a host's name and nothing else.
fn named_host(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains('@') {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let has_scheme = lower.starts_with("http://") || lower.starts_with("https://");
    let url = if has_scheme { Url::parse(text) } else { Url::parse(&format!("https://{text}")) }.ok()?;
    let host = host(&url)?;
    let top = host.rsplit('.').next()?;
    // "3.5", "e.g." and "file.txt" are seen in links; what has a scheme or `www.` means a host, other words only with a path or a
    // top-level domain that nothing else looks like.
    let is_name =
        host.contains('.') && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    let is_known =
        ["com", "org", "net", "edu", "gov", "io", "kr", "de", "uk", "fr", "jp", "eu", "app", "dev"].contains(&top);
    (is_name && (has_scheme || lower.starts_with("www.") || is_known)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_web_to_people_and_within() {
        let web = |href| match destination(href) {
            Some(Destination::Web { url, host, .. }) => Some((url, host)),
            _ => None,
        };
        for (href, url, host) in [
            ("https://a.example/x", "https://a.example/x", "a.example"),
            ("  HTTPS://A.example:443/x\n", "https://a.example/x", "a.example"),
            ("//a.example", "https://a.example/", "a.example"),
            ("https://bank.example@evil.example/", "https://evil.example/", "evil.example"),
            ("https://b\u{fc}cher.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
            ("ht\ntp://a.example", "http://a.example/", "a.example"),
            ("https:\\\\a.example\\x", "https://a.example/x", "a.example"),
        ] {
            assert_eq!(web(href), Some((url.to_owned(), host.to_owned())), "{href}");
        }
        assert!(
            matches!(destination("mailto:a@b.example?subject=x"), Some(Destination::Person { shown, .. }) if shown == "a@b.example")
        );
        assert_eq!(destination("#top"), Some(Destination::Within("top".to_owned())));
    }

    #[test]
    fn nothing_else_is_a_link() {
        for href in [
            "javascript:alert(1)",
            " java\nscript:alert(1)",
            "\u{1}javascript:alert(1)",
            "JaVaScRiPt:1",
            "data:text/html,x",
            "blob:https://a.example/1",
            "vbscript:1",
            "file:///etc/passwd",
            "cid:1",
            "about:blank",
            "view-source:https://a.example",
            "x",
            "/x",
            "?x",
            "",
            "ftp://a.example",
            "ms-word:ofe|u|x",
            "https://",
            "filesystem:https://a.example/x",
        ] {
            assert_eq!(destination(href), None, "{href:?}");
        }
    }

    #[test]
    fn links_that_say_another_host_mislead() {
        for (text, host) in [
            ("https://bank.example.com/login", "evil.example"),
            ("www.bank.com", "bank.com.evil.example"),
            ("bank.com", "evil.com"),
            ("HTTP://Bank.com", "evil.com"),
        ] {
            assert!(misleads(text, host), "{text} {host}");
        }
        for (text, host) in [
            ("here", "evil.example"),
            ("bank.com", "www.bank.com"),
            ("www.bank.com", "bank.com"),
            ("bank.com", "login.bank.com"),
            ("https://login.bank.com/x", "bank.com"),
            ("readme.txt", "a.example"),
            ("3.5", "a.example"),
            ("a@bank.com", "a.example"),
            ("go to bank.com", "a.example"),
        ] {
            assert!(!misleads(text, host), "{text} {host}");
        }
    }

    #[test]
    fn readers_are_named_by_parameters_and_paths() {
        let names = |href| matches!(destination(href), Some(Destination::Web { names_reader: true, .. }));
        assert!(
            names("https://a.example/?utm_source=x&mc_eid=1") && names("https://u1.ct.sendgrid.example/ls/click?upn=1")
        );
        assert!(!names("https://a.example/?utm_source=x"));
        let counts = |src| remote_image(src).unwrap().counts_readers;
        assert!(counts("https://u1.example/wf/open?upn=1") && !counts("https://a.example/logo.png"));
    }
}
