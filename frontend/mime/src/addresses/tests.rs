//! Lists as RFC 5322 writes them, as senders write them, and as somebody writes them who wants to be taken for another.

use proptest::prelude::*;

use super::*;

fn list(text: &str) -> Vec<String> {
    addresses(text, Separator::CommaOrSemicolon).map(|one| shown(&one)).collect()
}

fn authors(text: &str) -> Vec<String> {
    addresses(text, Separator::Comma).map(|one| shown(&one)).collect()
}

/// `name|email`.
fn shown(one: &HeaderMailbox) -> String {
    format!("{}|{}", one.name, one.email)
}

#[test]
fn the_usual_forms() {
    assert_eq!(list("ann@field.example"), ["|ann@field.example"]);
    assert_eq!(
        list("\"Lovelace, Ada\" <ada@a.example>, Bob Lee <bob@b.example>,kim@c.example"),
        ["Lovelace, Ada|ada@a.example", "Bob Lee|bob@b.example", "|kim@c.example"]
    );
    assert_eq!(list("<ann@field.example>"), ["|ann@field.example"]);
    assert_eq!(list("ann@field.example (Ann Lee)"), ["Ann Lee|ann@field.example"]);
    assert_eq!(list("Ann <ann@[192.0.2.1]>, x@[IPv6:2001:db8::1]"), ["Ann|ann@[192.0.2.1]", "|x@[IPv6:2001:db8::1]"]);
    assert_eq!(list(""), [""; 0]);
}

#[test]
fn examples_of_rfc_5322_appendix_a() {
    assert_eq!(
        list(
            "\"Joe Q. Public\" <john.q.public@example.com>, Who? <one@y.test>, <boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>"
        ),
        [
            "Joe Q. Public|john.q.public@example.com",
            "Who?|one@y.test",
            "|boss@nil.test",
            "Giant; \"Big\" Box|sysservices@example.net"
        ]
    );
    assert_eq!(
        list("A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;"),
        ["Ed Jones|c@a.test", "|joe@where.test", "John|jdoe@one.test"]
    );
    assert_eq!(list("Undisclosed recipients:;"), [""; 0]);
    assert_eq!(list("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>"), ["Pete|pete@silly.test"]);
    assert_eq!(
        list(
            "A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n joe@example.org,\r\n John <jdoe@one.test> (my dear friend); (the end of the group)"
        ),
        ["Chris Jones|c@public.example", "|joe@example.org", "John|jdoe@one.test"]
    );
    assert_eq!(list("(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;"), [""; 0]);
    assert_eq!(
        list("Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example"),
        ["Mary Smith|mary@example.net", "|jdoe@test.example"]
    );
    assert_eq!(list("Joe Q. Public <john.q.public@example.com>"), ["Joe Q. Public|john.q.public@example.com"]);
    assert_eq!(list("John Doe <jdoe@machine(comment).  example>"), ["John Doe|jdoe@machine.example"]);
}

#[test]
fn quoted_local_parts() {
    assert_eq!(list("\"ops@bank.example\"@field.example"), ["|\"ops@bank.example\"@field.example"]);
    assert_eq!(list("Ops <\"ops@bank.example\"@field.example>"), ["Ops|\"ops@bank.example\"@field.example"]);
    assert_eq!(list("\"john smith\"@field.example"), ["|\"john smith\"@field.example"]);
    assert_eq!(list("\"a>b,c\"@field.example, x@y.example"), ["|\"a>b,c\"@field.example", "|x@y.example"]);
    assert_eq!(list("\"a\\\"b\\\\c\"@field.example"), ["|\"a\\\"b\\\\c\"@field.example"]);
    assert_eq!(list("\"\"@field.example"), ["|\"\"@field.example"]);
    assert_eq!(list("\"=?utf-8?q?a?=\"@field.example"), ["|\"=?utf-8?q?a?=\"@field.example"]);
    assert_eq!(list("bounce=?x=ann@field.example"), ["|bounce=?x=ann@field.example"]);
    // Quotes without need are no part of the address; words with dots between them are one local part.
    assert_eq!(
        list("\"ann\"@field.example, \"ann.lee\"@field.example"),
        ["|ann@field.example", "|ann.lee@field.example"]
    );
    assert_eq!(list("\"ann\" . lee @ field . example"), ["|ann.lee@field.example"]);
    assert_eq!(list("\"ann lee\".x@field.example"), ["|\"ann lee.x\"@field.example"]);
}

#[test]
fn comments_anywhere() {
    assert_eq!(list("ada(keeps (nested) notes)@field.example (Ada L.)"), ["Ada L.|ada@field.example"]);
    assert_eq!(
        list(
            "(front office) bob@(no reply)field.example, \"Cleo\" <cleo(home)@field.example(attic)>,\r\n dan@field.example (Dan, the (very) last)"
        ),
        ["front office|bob@field.example", "Cleo|cleo@field.example", "Dan, the (very) last|dan@field.example"]
    );
    assert_eq!(list("Ann (a, b; <c@d>) Lee <ann@field.example>"), ["Ann Lee|ann@field.example"]);
    assert_eq!(list("(Bob) <bob@field.example>"), ["Bob|bob@field.example"]);
    assert_eq!(list("<bob@field.example> (=?utf-8?q?B=C3=B6b?=)"), ["Böb|bob@field.example"]);
    assert_eq!(
        list("ann@field(a).(b)example(c), bob . (x) lee@field.example"),
        ["c|ann@field.example", "|bob.lee@field.example"]
    );
}

#[test]
fn routes_and_empty_members() {
    assert_eq!(
        list("Mary <@relay.example,@gate.example:mary@field.example>, , joe@field.example,"),
        ["Mary|mary@field.example", "|joe@field.example"]
    );
    assert_eq!(list(", kim@field.example"), ["|kim@field.example"]);
    assert_eq!(list(",, (nobody), ;"), [""; 0]);
    assert_eq!(list("<@relay.example:mary@field.example>"), ["|mary@field.example"]);
    assert_eq!(list("<, @a.example (x), , @b.example : mary@field.example>"), ["|mary@field.example"]);
    assert_eq!(list("team: , ann@field.example,, bob@field.example ,;"), ["|ann@field.example", "|bob@field.example"]);
    assert_eq!(list("a: x@a.example;, b: y@b.example;"), ["|x@a.example", "|y@b.example"]);
}

#[test]
fn names() {
    assert_eq!(list("Mary \"Molly\" Smith <mary@field.example>"), ["Mary Molly Smith|mary@field.example"]);
    assert_eq!(list("Ann \"Lee\" <ann@field.example>"), ["Ann Lee|ann@field.example"]);
    assert_eq!(list("Mary\"Molly\"Smith <mary@field.example>"), ["Mary Molly Smith|mary@field.example"]);
    assert_eq!(list("\"Mary\" \"Smith\"<mary@field.example>"), ["Mary Smith|mary@field.example"]);
    assert_eq!(list("J.R.R. Tolkien <jrr@field.example>"), ["J.R.R. Tolkien|jrr@field.example"]);
    assert_eq!(list("Dr. \"No\" . <no@field.example>"), ["Dr. No .|no@field.example"]);
    assert_eq!(list("\"O\\\"Brien\" <ob@field.example>"), ["O\"Brien|ob@field.example"]);
    assert_eq!(list("O'Brien (x) & Sons/Ltd <ob@field.example>"), ["O'Brien & Sons/Ltd|ob@field.example"]);
    assert_eq!(list("\"\" <ann@field.example>"), ["|ann@field.example"]);
    assert_eq!(list("Ann Lee [Sales] <ann@field.example>"), ["Ann Lee [Sales]|ann@field.example"]);
    assert_eq!(list("RE: Ann <ann@field.example>"), ["RE: Ann|ann@field.example"]);
    assert_eq!(list("Ann <ann@field.example> Lee"), ["Ann Lee|ann@field.example"]);
}

#[test]
fn encoded_names() {
    assert_eq!(list("=?utf-8?B?7JWI64WV?= <a@x.example>"), ["안녕|a@x.example"]);
    assert_eq!(
        list("=?gb2312?B?1eLKx9I?=\r\n =?gb2312?B?u7fisuLK1NDF?= <a@x.example>"),
        ["这是一封测试信|a@x.example"]
    );
    assert_eq!(list("=?utf-8?Q?Ann?= =?utf-8?Q?_Lee?= Jr. <a@x.example>"), ["Ann Lee Jr.|a@x.example"]);
    assert_eq!(list("\"=?utf-8?Q?J=C3=B6rg?=\" <a@x.example>"), ["Jörg|a@x.example"]);
    assert_eq!(list("=?utf-8?Q?Lee, Ann?= <a@x.example>, b@y.example"), ["Lee, Ann|a@x.example", "|b@y.example"]);
    assert_eq!(list("=?utf-8?Q?\"Lee,_Ann\"?= <a@x.example>"), ["\"Lee, Ann\"|a@x.example"]);
    assert_eq!(list("Ann=?utf-8?Q?_Lee?= <a@x.example>"), ["Ann Lee|a@x.example"]);
    assert_eq!(list("안녕 <안녕@x.example>, a@bücher.example"), ["안녕|안녕@x.example", "|a@bücher.example"]);
}

#[test]
fn what_stands_beside_the_brackets_is_no_address() {
    assert_eq!(
        authors("alice@bank.example (Alice) <mallory@field.example>"),
        ["alice@bank.example|mallory@field.example"]
    );
    for between in ["", "(", ")", "<", ">", "@", ":", ";", ".", "\"", "[", "]", "\\", " ", " @ ", "::"] {
        let text = format!("alice@bank.example{between}<mallory@field.example>");
        let emails: Vec<String> = addresses(&text, Separator::Comma).map(|one| one.email).collect();
        assert_eq!(emails, ["mallory@field.example"], "{text}");
    }
    for text in [
        "alice@bank.example)mallory@field.example",
        "alice@bank.example(x)mallory@field.example",
        "alice@bank.example mallory@field.example",
        "alice@bank.example;mallory@field.example",
        "alice@bank.example@field.example",
        "<alice@bank.example> <mallory@field.example>",
        "<alice@bank.example>mallory@field.example",
        "alice@bank.example <>",
        "alice@bank.example <mallory>",
        "=?utf-8?Q?alice=40bank.example?=",
        "=?utf-8?Q?alice=40bank.example=3E?= =?utf-8?Q?mallory?=",
        "=?utf-8?Q?alice?=@bank.example",
        "\"alice@bank.example\"",
        "John Smith@field.example",
        "ali\u{202e}ce@bank.example",
        "ali\0ce@bank.example",
        "alice\u{200b}@bank.example",
        "@bank.example",
        "alice@",
        "alice@bank..example",
        "alice@.bank.example",
    ] {
        let found: Vec<HeaderMailbox> = addresses(text, Separator::Comma).collect();
        assert!(found.iter().all(|one| one.email.is_empty()), "{text}: {found:?}");
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(!found[0].name.is_empty(), "{text}");
    }
}

#[test]
fn what_cannot_be_read_stands_as_it_is() {
    assert_eq!(list("Ann ann@field.example, bob@field.example"), ["Ann ann@field.example|", "|bob@field.example"]);
    assert_eq!(list("root, Cron Daemon <root>"), ["root|", "Cron Daemon <root>|"]);
    assert_eq!(list("undisclosed-recipients"), ["undisclosed-recipients|"]);
    assert_eq!(list("a b@c d@e (x)"), ["a b@c d@e (x)|"]);
}

#[test]
fn brackets_that_are_missing_or_too_many() {
    assert_eq!(list("Ann <ann@field.example, bob@field.example"), ["Ann|ann@field.example", "|bob@field.example"]);
    assert_eq!(list("Ann <<ann@field.example>>"), ["Ann|ann@field.example"]);
    assert_eq!(list("\"Ann <ann@field.example>"), ["\"Ann|ann@field.example"]);
    assert_eq!(list("Ann (x <ann@field.example>"), ["Ann (x|ann@field.example"]);
    assert_eq!(list("John <Johnny> Smith <john@field.example>"), ["John Johnny Smith|john@field.example"]);
    assert_eq!(list("< ann@field.example >"), ["|ann@field.example"]);
    assert_eq!(list("Ann <mailto:ann@field.example>"), ["Ann|ann@field.example"]);
}

#[test]
fn separators() {
    assert_eq!(list("a@x.example; b@y.example;"), ["|a@x.example", "|b@y.example"]);
    assert_eq!(authors("Ann <a@x.example>;"), ["Ann|a@x.example"]);
    assert_eq!(authors("Ann: a@x.example, <b@y.example>"), ["|a@x.example", "|b@y.example"]);
    assert_eq!(
        list("docomo..user.@mobile.example, ann@field.example."),
        ["|docomo..user.@mobile.example", "|ann@field.example"]
    );
}

#[test]
fn a_list_that_was_cut_off_has_no_half_address() {
    let text = "ann@field.example, bob@field.ex";
    let found: Vec<_> = addresses(text, Separator::Comma).cut_off().map(|one| one.email).collect();
    assert_eq!(found, ["ann@field.example"]);
}

proptest! {
    #[test]
    fn an_address_in_brackets_is_the_only_one(
        name in "[a-z@.,:;()<>\"\\[\\] \\\\]{0,30}",
    ) {
        // Whatever stands before: no address of it is given for a mailbox whose brackets hold another one.
        let text = format!("{name} <mallory@field.example>");
        let last = addresses(&text, Separator::Comma).last();
        let email = last.map(|one| one.email).unwrap_or_default();
        let is_right = email.is_empty() || email == "mallory@field.example";
        // A quoted string, a comment or an angle bracket may have swallowed it.
        prop_assert!(is_right || name.contains(['"', '(', '<']), "{text:?} gave {email}");
    }

    #[test]
    fn any_text_is_read(text in "([a-z@.,:;()<>\"\\[\\] \\\\]|=\\?utf-8\\?q\\?|\\?=|\\PC){0,60}") {
        for one in addresses(&text, Separator::CommaOrSemicolon) {
            prop_assert!(!(one.name.is_empty() && one.email.is_empty()) );
            // What is an address is one when it is read again, and the same.
            if !one.email.is_empty() {
                let again: Vec<_> = addresses(&one.email, Separator::Comma).map(|one| one.email).collect();
                prop_assert_eq!(again, vec![one.email]);
            }
        }
    }
}
