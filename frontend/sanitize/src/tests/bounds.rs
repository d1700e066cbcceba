//! The work is bounded, whatever comes in (P-13): HTML that costs a parser by the book minutes, or all memory.

use std::time::{Duration, Instant};

use crate::limit::{DEPTH_MAX, INPUT_BYTES_MAX, NODES_MAX, OUTPUT_BYTES_MAX};
use crate::parse::{depth, parse};
use crate::tests::check::Ours;
use crate::{TextFormat, Theme, html, text};

/// Far more than any of these takes, also without optimization beside other tests, and far less than what has no bound.
const PATIENCE: Duration = Duration::from_secs(60);

fn bounded(name: &str, source: &str) {
    let started = Instant::now();
    let view = html(source, Theme::Light, &Ours);
    assert!(started.elapsed() < PATIENCE, "{name} took {:?}", started.elapsed());
    // The last piece may be one attribute of the input's size, escaped.
    assert!(view.document.len() < OUTPUT_BYTES_MAX + 8 * INPUT_BYTES_MAX, "{name}: {} bytes", view.document.len());
}

#[test]
fn no_html_costs_more_than_its_size() {
    let numbered = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let cases = [
        ("nested elements", "<div>".repeat(200_000)),
        ("nested tables", "<table><tr><td>".repeat(60_000)),
        ("formatting in paragraphs", numbered(20_000, &|n| format!("<b title={n}>")) + &"<p>x".repeat(200_000)),
        ("formatting across paragraphs", "<p><b title=1></p><p><i title=2></p>".repeat(20_000)),
        ("misnested formatting", "<a><b><p></a></b></p>".repeat(40_000)),
        ("misnested blocks", "<a><div>".repeat(80_000)),
        ("attributes of one element", format!("<p {}>x", numbered(150_000, &|n| format!("a{n} ")))),
        ("attributes without blanks", format!("<p {}>x", numbered(100_000, &|n| format!("a{n}=''")))),
        ("attributes of an end tag", format!("<p></p {}>x", numbered(150_000, &|n| format!("a{n} ")))),
        ("a comment", format!("<!--{}--><p>x", " <a b".repeat(200_000))),
        ("foster parents", "<table>x<b>".repeat(60_000)),
        ("text in tables", format!("<table>{}", "x<td>".repeat(100_000))),
        ("spans", format!("<table><td colspan=1000 rowspan=65534>{}", "<td colspan=1000>".repeat(50_000))),
        ("templates", "<template>".repeat(100_000)),
        ("svg in html in svg", "<svg><foreignObject>".repeat(50_000)),
        ("rules", format!("<style>{}</style>", "a{color:red}".repeat(100_000))),
        ("selectors", format!("<style>{}b{{color:red}}</style>", ":not(".repeat(50_000))),
        ("selector lists", format!("<style>{}b{{color:red}}</style>", "a,".repeat(200_000))),
        ("brackets in a style", format!("<p style=\"width:{}\">", "calc(".repeat(100_000))),
        ("brackets in a sheet", format!("<style>p{{width:{}</style>", "([{".repeat(100_000))),
        ("declarations", format!("<p style=\"{}\">", "color:red;".repeat(100_000))),
        ("styles", "<p style=\"color:red;width:1px\">x".repeat(30_000)),
        ("images", "<img src=https://a.example/x>".repeat(30_000)),
        ("lists", "<li><ul>".repeat(60_000)),
        ("options", "<select><option>x".repeat(50_000)),
        ("frames", "<frameset><frame>".repeat(50_000)),
        ("entities", "&NotEqualTilde;&amp;&#x0;".repeat(40_000)),
        ("less-than signs", "<".repeat(1_000_000)),
        ("attributes behind a lone sign", format!("<<p title='>' {}>x", numbered(150_000, &|n| format!("a{n} ")))),
        ("attributes behind a comment", format!("<!-- --><p title='>' {}>x", numbered(150_000, &|n| format!("a{n} ")))),
        (
            "formatting held apart by what goes",
            format!("<p><button>{}{}", numbered(250, &|n| format!("<b title={n}>")), "<div>x</div>".repeat(30_000)),
        ),
        (
            "formatting held apart in lists",
            format!("<li><form>{}{}", numbered(250, &|n| format!("<b title={n}>")), "<li>x</li>".repeat(30_000)),
        ),
        ("second bodies", "<body title=x><html lang=y>".repeat(40_000)),
    ];
    for (name, source) in cases {
        bounded(name, &source);
    }
}

#[test]
fn trees_are_bounded_in_depth_and_nodes() {
    let deep = parse(&"<div><span>".repeat(100_000));
    assert!(deep.is_truncated && depth(&deep.nodes) <= DEPTH_MAX as usize + 4, "{}", depth(&deep.nodes));
    let many = parse(&"<p>x".repeat(NODES_MAX));
    assert!(many.is_truncated && many.nodes.len() < NODES_MAX + 2 * DEPTH_MAX as usize, "{}", many.nodes.len());
    let formatting: String = (0..10_000).map(|n| format!("<b title={n}>")).collect();
    let reconstructed = parse(&(formatting + &"<p>x".repeat(100_000)));
    assert!(reconstructed.nodes.len() < NODES_MAX + 4 * DEPTH_MAX as usize, "{}", reconstructed.nodes.len());
}

#[test]
fn what_is_left_out_is_said() {
    assert!(html(&"<div>".repeat(1000), Theme::Light, &Ours).report.is_truncated);
    assert!(html(&"x".repeat(INPUT_BYTES_MAX + 1), Theme::Light, &Ours).report.is_truncated);
    assert!(!html(&"<p>x</p>".repeat(1000), Theme::Light, &Ours).report.is_truncated);
    let long_comment = format!("<!--{}--><p>x</p>", "a b ".repeat(20_000));
    let view = html(&long_comment, Theme::Light, &Ours);
    assert!(!view.report.is_truncated && view.document.contains("<p>x</p>"));
}

#[test]
fn no_text_costs_more_than_its_size() {
    for source in [
        "> ".repeat(500_000),
        "https://".repeat(120_000),
        format!("https://a.example/{}", ")".repeat(1_000_000)),
        "x \n".repeat(300_000),
        ">".repeat(1_000_000) + "\nx",
        ("> > x\n".to_owned() + "x\n").repeat(60_000),
    ] {
        for format in [TextFormat::Fixed, TextFormat::Flowed { deletes_space: true }] {
            let started = Instant::now();
            text(&source, format, Theme::Light);
            assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        }
    }
}
