//! Attacks, of our own writing, by the door that they come through.

use crate::report::TrackerKind;
use crate::tests::check::{Seen, harmless};

/// Whatever a name says is tried; nothing of any may be left.
const ATTACKS: &[(&str, &str)] = include!("corpus.rs");

#[test]
fn nothing_is_left_of_any() {
    for (name, html) in ATTACKS {
        let view = harmless(html);
        assert!(!view.document.is_empty(), "{name}");
    }
}

#[test]
fn nothing_is_left_of_any_within_others() {
    let around = [
        ("<table><tr><td>", "</td></tr></table>"),
        ("<p><b><i>", "</p>x</b></i>"),
        ("<svg><desc>", "</desc></svg>"),
        ("<math><mtext>", "</mtext></math>"),
        ("<style>", "</style>"),
        ("<a title='", "'>x</a>"),
        ("<noscript>", "</noscript>"),
        ("<select><option>", "</option></select>"),
        ("<template>", "</template>"),
        ("<!--", "-->"),
    ];
    for (_, html) in ATTACKS {
        for (before, behind) in around {
            harmless(&format!("{before}{html}{behind}"));
        }
    }
}

#[test]
fn nothing_is_left_of_any_two() {
    for (_, one) in ATTACKS {
        for (_, other) in ATTACKS.iter().step_by(7) {
            harmless(&format!("{one}{other}"));
            harmless(&format!("{}{other}", &one[..one.floor_char_boundary(one.len() * 2 / 3)]));
        }
    }
}

#[test]
fn what_was_taken_out_is_counted() {
    let html = "<script>1</script><p onclick=x onload=y>a</p><form><input></form><svg></svg><iframe></iframe>\
                <style>@import 'x';</style><link rel=stylesheet href=x><meta http-equiv=refresh content=0><base href=x>\
                <a href=javascript:1>b</a><a href=https://evil.example>https://bank.example</a><img src=x.png>\
                <img src=https://t.example/1.gif width=1 height=1><img src=https://i.example/2.png>\
                <a href=https://n.example/?mc_eid=1>c</a>";
    let report = harmless(html).report;
    assert_eq!((report.scripts, report.forms, report.embedded), (3, 2, 2));
    assert_eq!((report.remote_styles, report.redirects), (2, 2));
    assert_eq!((report.unsafe_links, report.misleading_links), (1, 1));
    assert_eq!((report.images_shown, report.images_blocked, report.images_unusable), (1, 1, 1));
    let trackers: Vec<_> = report.trackers.iter().map(|tracker| (tracker.host.as_str(), tracker.kind)).collect();
    assert_eq!(trackers, [("t.example", TrackerKind::Pixel), ("n.example", TrackerKind::Link)]);
    assert!(!report.is_truncated);
}

#[test]
fn images_that_nobody_would_see_are_never_fetched() {
    for html in [
        "<img src=https://t.example/x width=1 height=1>",
        "<img src=https://t.example/x width=0 height=\"2px\">",
        "<img src=https://t.example/x style=\"width:1px;height:1px\">",
        "<img src=https://t.example/x style=display:none>",
        "<img src=https://t.example/x style=\"visibility: hidden !important\">",
        "<img src=https://t.example/x style=opacity:0>",
        "<img src=https://t.example/x width=600 height=400 style=\"max-width:1px;max-height:0\">",
    ] {
        let view = harmless(html);
        assert!(Seen::parse(&view.document, false).first("img").is_none(), "{html}");
        assert_eq!(view.report.trackers.len(), 1, "{html}");
    }
    for html in ["<img src=https://t.example/x width=1 height=20>", "<img src=https://t.example/x>"] {
        let view = harmless(html);
        assert!(Seen::parse(&view.document, false).value("img", "src").is_some(), "{html}");
        assert!(view.report.trackers.is_empty(), "{html}");
    }
}
