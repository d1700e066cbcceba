//! Text as a browser would copy it.

use proptest::prelude::*;

use super::html_to_text;

#[test]
fn blocks_are_lines_and_cells_are_apart() {
    let html = "<div>Hello Ann,</div><div>see below.</div><table><tr><td>Total</td><td>12.00</td></tr><tr><td>Tax</td>\
                <td>1.00</td></tr></table><ul><li>one</li><li>two</li></ul><h2>Head</h2>text <b>bo</b>ld\r\n";
    assert_eq!(html_to_text(html), "Hello Ann,\nsee below.\nTotal\t12.00\nTax\t1.00\n\none\ntwo\n\nHead\n\ntext bold");
}

#[test]
fn paragraphs_breaks_and_rules() {
    assert_eq!(html_to_text("<p>one<p>two<br>three<hr>four"), "one\n\ntwo\nthree\n\nfour");
    assert_eq!(html_to_text("a<br><br/>b<BR >c</br>d"), "a\n\nb\nc\nd");
    assert_eq!(html_to_text("<blockquote>said</blockquote>so"), "said\n\nso");
    assert_eq!(html_to_text("<dl><dt>term<dd>what it is</dl>"), "term\nwhat it is");
    assert_eq!(html_to_text("<table><tr><th>a<th>b<tr><td>1<td>2</table>"), "a\tb\n1\t2");
    assert_eq!(html_to_text("<select><option>red<option>blue</select>"), "red\nblue");
    assert_eq!(html_to_text("<span>a</span><span>b</span> <i>c</i>\r\n d"), "ab c d");
    assert_eq!(html_to_text("  <div> a </div>\n<div>\n b</div> "), "a\nb");
    assert_eq!(html_to_text("logo<img src=x>text"), "logo text");
}

#[test]
fn preformatted_text_keeps_its_lines() {
    assert_eq!(html_to_text("a<pre>x  y\r\n  z</pre>b  c"), "a\n\nx  y\n  z\n\nb c");
    assert_eq!(html_to_text("<pre>1\n\n2</pre>"), "1\n\n2");
}

#[test]
fn references() {
    assert_eq!(html_to_text("&lt;p&gt; &amp;amp; &eacute;&#233;&#xE9; &hellip;"), "<p> &amp; ééé …");
    assert_eq!(html_to_text("Hello&nbsp;<b>you</b>"), "Hello\u{a0}you");
    assert_eq!(html_to_text("&#150;&#146;&#128;&#0;&#x110000;&#99999999999;"), "–’€\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(html_to_text("AT&T &nosuch; & &; &# &#x; a&amp b &copy2026"), "AT&T &nosuch; & &; &# &#x; a& b ©2026");
}

#[test]
fn what_is_not_shown_is_not_there() {
    assert_eq!(html_to_text("<head><title>t</title><style>p > a { x: '<' }</style></head><body>a"), "a");
    assert_eq!(html_to_text("a<script>if (a < b) { '</p>' }</script>b<STYLE>x</Style >c"), "abc");
    assert_eq!(html_to_text("a<!-- b --><!--[if mso]><p>c</p><![endif]-->d<![if !mso]>e<![endif]>"), "ade");
    assert_eq!(html_to_text("<!DOCTYPE html><?xml version=\"1.0\"?>a<!-->b<!--->c<!-- x --!>d"), "abcd");
    assert_eq!(html_to_text("<div style=\"display:none\">a<div>b</div>c</div>d"), "d");
    assert_eq!(html_to_text("<span STYLE='color: red; Display : NONE !important'>a</span>b<i hidden>c</i>d"), "bd");
    assert_eq!(html_to_text("<p style=\"visibility:hidden\">a<p>b"), "b");
    assert_eq!(html_to_text("<table><tr><td hidden>a<td>b<tr hidden><td>c<tr><td>d</table>"), "b\nd");
    assert_eq!(html_to_text("<td style='display:none'><table><tr><td>x</td></tr></table></td><td>y</td>"), "y");
    assert_eq!(html_to_text("<input hidden>a<div data-style=\"display:none\" title=hidden>b</div>"), "a\nb");
    assert_eq!(html_to_text("<noscript>a</noscript>"), "a");
}

#[test]
fn what_is_wrong_gives_the_text_that_it_has() {
    assert_eq!(html_to_text("1 < 2 <3 a<b <>"), "1 < 2 <3 a");
    assert_eq!(html_to_text("<a title=\"x > y\" href='<p>'>link</a>"), "link");
    assert_eq!(html_to_text("</div></td>a</p>"), "a");
    assert_eq!(html_to_text("a<style>never ended <p>b"), "a");
    assert_eq!(html_to_text("a<!-- never ended <p>b"), "a");
    assert_eq!(html_to_text("a<p"), "a");
    assert_eq!(html_to_text("a<p title=\"b"), "a");
    assert_eq!(html_to_text("a</>b</ x>c"), "abc");
    assert_eq!(html_to_text("件名\u{3000}二つ"), "件名\u{3000}二つ");
    assert_eq!(html_to_text(""), "");
}

proptest! {
    #[test]
    fn any_text_is_read(html in "(<|>|/|!|-|--|p|div|td|style|hidden|pre|&|#|x|;|\"|'|=| |\\n|\\PC){0,60}") {
        html_to_text(&html);
    }

    #[test]
    fn words_between_tags_stay(words in proptest::collection::vec("[a-z]{1,8}", 1..20)) {
        let html: String = words.iter().map(|word| format!("<div>{word}</div>")).collect();
        let text = html_to_text(&html);
        prop_assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words);
    }
}
