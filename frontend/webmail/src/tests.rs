//! What a browser gets, by what it says that it takes.

use http::header::ACCEPT_ENCODING;

use super::*;

fn asking(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn field<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("a field of ours is ASCII"))
}

/// The script that the page begins with.
fn script() -> String {
    let page = page(&HeaderMap::new(), []);
    let text = std::str::from_utf8(page.body()).expect("the page is UTF-8").to_owned();
    let (_, behind) = text.split_once("src=\"/webmail/").expect("the page has a script");
    behind.split_once('"').expect("its address ends").0.to_owned()
}

#[test]
fn the_page_runs_nothing_but_files_of_its_origin() {
    let page = page(&HeaderMap::new(), []);
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(field(&page, "content-type"), "text/html; charset=utf-8");
    assert_eq!(field(&page, "cache-control"), "no-cache");
    let policy = field(&page, "content-security-policy");
    for part in
        ["default-src 'none'", "script-src 'self';", "require-trusted-types-for 'script'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = std::str::from_utf8(page.body()).expect("the page is UTF-8");
    assert!(!text.contains("<style"), "the page has no style that its policy would refuse");
    assert_eq!(text.matches("<script").count(), text.matches(" src=\"/webmail/").count(), "no script is inline");
}

#[test]
fn the_operators_page_is_one_of_its_own_under_the_same_policy() {
    let (mailbox, operators) = (page(&HeaderMap::new(), []), operators_page(&HeaderMap::new()));
    assert_eq!(operators.status(), StatusCode::OK);
    assert_eq!(field(&operators, "content-security-policy"), field(&mailbox, "content-security-policy"));
    let files = |page: &Response<Bytes>| -> Vec<String> {
        let text = std::str::from_utf8(page.body()).expect("a page is UTF-8").to_owned();
        let names =
            text.split("\"/webmail/assets/").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
        names.collect()
    };
    let (of_mailbox, of_operators) = (files(&mailbox), files(&operators));
    assert!(!of_mailbox.is_empty() && !of_operators.is_empty());
    assert!(of_mailbox.iter().all(|name| !of_operators.contains(name)), "they share nothing: {of_operators:?}");
}

#[test]
fn the_page_under_another_policy_is_another_entity() {
    let (one, two) = (page(&HeaderMap::new(), []), page(&HeaderMap::new(), ["https://virginia.example"]));
    assert_ne!(field(&one, "etag"), field(&two, "etag"));
    assert!(field(&two, "content-security-policy").contains("connect-src 'self' https://virginia.example/v1/ping;"));
    let tag: &'static str = field(&one, "etag").to_owned().leak();
    let asked = asking(&[(IF_NONE_MATCH, tag)]);
    assert_eq!(page(&asked, []).status(), StatusCode::NOT_MODIFIED);
    assert_eq!(page(&asked, ["https://virginia.example"]).status(), StatusCode::OK);
}

#[test]
fn a_file_that_is_named_by_its_hash_is_kept_and_comes_in_the_smallest_form() {
    let script = script();
    let mut sizes = Vec::new();
    for (accepted, encoding) in [("br, gzip", "br"), ("gzip, deflate", "gzip"), ("br;q=0, gzip", "gzip"), ("", "")] {
        let answer = file(&script, &asking(&[(ACCEPT_ENCODING, accepted)])).expect("the script is there");
        assert_eq!(field(&answer, "content-encoding"), encoding, "{accepted}");
        assert_eq!(field(&answer, "cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(field(&answer, "content-type"), "text/javascript; charset=utf-8");
        sizes.push(answer.body().len());
    }
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[3], "{sizes:?}");
}

#[test]
fn what_a_browser_has_is_not_sent_again() {
    let first = page(&asking(&[(ACCEPT_ENCODING, "gzip")]), []);
    let tag: &'static str = field(&first, "etag").to_owned().leak();
    let again = page(&asking(&[(ACCEPT_ENCODING, "gzip"), (IF_NONE_MATCH, tag)]), []);
    assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(field(&again, "etag"), tag);
    let other_form = page(&asking(&[(IF_NONE_MATCH, tag)]), []);
    assert_eq!(other_form.status(), StatusCode::OK, "another form is another entity");
}

#[test]
fn what_was_not_built_is_not_there() {
    let script = script();
    for path in
        ["", "nothing.js", "../Cargo.toml", "assets/", "openapi.json", &format!("{script}.br"), &format!("{script}.gz")]
    {
        assert!(file(path, &HeaderMap::new()).is_none(), "{path}");
    }
}

#[test]
fn the_first_load_is_small() {
    /// Compressed bytes of page, scripts and styles that a first visit fetches before it shows a list: issue 18 allows 120 KB of script.
    const FIRST_LOAD_BYTES_MAX: usize = 100_000;
    let page = page(&HeaderMap::new(), []);
    let text = std::str::from_utf8(page.body()).expect("the page is UTF-8");
    let named = text.split("=\"/webmail/").skip(1).filter_map(|behind| behind.split('"').next());
    let loaded: Vec<&str> = named.filter(|path| path.ends_with(".js") || path.ends_with(".css")).collect();
    assert!(!loaded.is_empty());
    let of = |path: &&str| file(path, &asking(&[(ACCEPT_ENCODING, "gzip")])).map_or(0, |answer| answer.body().len());
    let bytes: usize = loaded.iter().map(of).sum();
    assert!(bytes > 0 && bytes < FIRST_LOAD_BYTES_MAX, "{bytes} bytes of {loaded:?}");
}

#[test]
fn programs_are_told_from_browsers() {
    assert!(reads_pages(&asking(&[(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")])));
    assert!(!reads_pages(&asking(&[(ACCEPT, "*/*")])));
    assert!(!reads_pages(&HeaderMap::new()));
}
