//! What must be left of a message: how it looks.

use crate::tests::check::{Blocked, Ours, Seen, harmless, wrongs};
use crate::{TextFormat, Theme, html, text};

fn light(source: &str) -> Seen {
    Seen::parse(&harmless(source).document, false)
}

#[test]
fn text_and_structure_stay() {
    let seen = light(
        "<html><body bgcolor=#eeeeee style='margin:0'><table width=600 cellpadding=0 align=center><tr><td colspan=2 valign=top>\
         <h1>Hello &amp; welcome</h1><p>a<br>b&nbsp;c</p><ul><li>1<li>2</ul><font color=red size=+1 face='Arial, sans-serif'>x</font>\
         </td></tr></table></body></html>",
    );
    assert_eq!(seen.text(), "Hello & welcomeab\u{a0}c12x");
    for (element, attribute, value) in [
        ("body", "bgcolor", "#eeeeee"),
        ("body", "style", "margin:0"),
        ("table", "width", "600"),
        ("table", "align", "center"),
        ("td", "colspan", "2"),
        ("td", "valign", "top"),
        ("font", "color", "red"),
        ("font", "size", "+1"),
        ("font", "face", "Arial, sans-serif"),
    ] {
        assert_eq!(seen.value(element, attribute), Some(value), "{element} {attribute}");
    }
}

#[test]
fn links_say_where_they_lead() {
    let seen = light("<a href=\"https://user:secret@WWW.Example.com/x?y=1&amp;z=2#w\" title=t>click</a>");
    for (attribute, value) in [
        ("href", "https://www.example.com/x?y=1&z=2#w"),
        ("target", "_blank"),
        ("rel", "noopener noreferrer nofollow"),
        ("data-destination", "www.example.com"),
        ("title", "t"),
    ] {
        assert_eq!(seen.value("a", attribute), Some(value), "{attribute}");
    }
    assert_eq!(light("<a href=mailto:ada@b.example>x</a>").value("a", "data-destination"), Some("ada@b.example"));
    let within = light("<a href=#part>x</a><h2 id=part>y</h2>");
    assert_eq!(within.value("a", "href"), Some("#m-part"));
    assert_eq!(within.value("a", "target"), None);
    assert_eq!(within.value("h2", "id"), Some("m-part"));
    assert_eq!(light("<a href=https://evil.example>bank.com</a>").value("a", "data-misleading"), Some("true"));
    assert_eq!(light("<a href=https://www.bank.com>bank.com</a>").value("a", "data-misleading"), None);
}

#[test]
fn images_are_had_from_here_or_not_at_all() {
    let source = "<img src=https://a.example/1.png alt=one width=10 height=20><img src=cid:known@here><img src='cid:other@here' alt=two>\
                  <td style=\"background:#fff url('https://a.example/2.png') no-repeat\">x";
    let seen = light(source);
    assert_eq!(seen.value("img", "src").map(|src| src.starts_with("/proxy?")), Some(true));
    let images: Vec<_> = seen.elements().into_iter().filter(|(_, element)| &*element.name.local == "img").collect();
    assert_eq!(images[1].1.attribute("src"), Some("/part/known"));
    assert_eq!((images[2].1.attribute("src"), images[2].1.attribute("data-image")), (None, Some("unusable")));
    let blocked = html(source, Theme::Light, &Blocked);
    assert_eq!((blocked.report.images_blocked, blocked.report.images_unusable), (1, 2));
    let seen = Seen::parse(&blocked.document, false);
    assert_eq!((seen.value("img", "src"), seen.value("img", "alt")), (None, Some("one")));
    assert_eq!(seen.value("img", "data-image"), Some("blocked"));
    let cell = "<table><td style=\"background:#fff url(https://a.example/2.png) no-repeat\">x</table>";
    let style = |addresses| {
        Seen::parse(&html(cell, Theme::Light, addresses).document, false).value("td", "style").map(str::to_owned)
    };
    assert!(style(&Ours).unwrap().starts_with("background:#fff url(\"/proxy?"));
    assert_eq!(style(&Blocked).unwrap(), "background:#fff none no-repeat");
}

#[test]
fn declarations_stay_as_far_as_they_are_looks() {
    for (style, kept) in [
        ("color:red;position:fixed;font-size:12px", "color:red;font-size:12px"),
        ("COLOR : Red !important ; mso-line-height-rule:exactly", "color:Red!important"),
        ("font-family:'Segoe UI',\"A\\\"B\",sans-serif", "font-family:\"Segoe UI\",\"A\\22 B\",sans-serif"),
        ("margin:-1px auto 0 1.5em", "margin:-1px auto 0 1.5em"),
        ("width:calc(100% - (2 * 10px))", "width:calc(100% - (2 * 10px))"),
        (
            "background:linear-gradient(to right, rgb(1, 2, 3) 0%, #fff 100%)",
            "background:linear-gradient(to right, rgb(1, 2, 3) 0%, #fff 100%)",
        ),
        ("color:rgba(0,0,0,.5)", "color:rgba(0,0,0,0.5)"),
        ("color:red;;;broken;x:y;width:10px", "color:red;width:10px"),
        ("line-height:150%;/* x */padding:0/**/1px", "line-height:150%;padding:0 1px"),
        ("color:red\\9", ""),
        ("width:10px}p{color:red", ""),
    ] {
        let source = format!("<p style=\"{}\">x</p>", style.replace('"', "&quot;"));
        let seen = light(&source);
        if kept.is_empty() {
            assert!(seen.value("p", "style").is_none_or(|style| !style.contains('{')), "{style}");
        } else {
            assert_eq!(seen.value("p", "style"), Some(kept), "{style}");
        }
    }
}

#[test]
fn style_sheets_stay_as_far_as_they_are_looks() {
    let sheet = "<style type=text/css><!-- .a, #b > td:hover{color:red;position:absolute} @media only screen and (max-width: 600px)\
                 {.c{width:100%!important}} p:before{content:'x'} div[class~=\"d\"] {padding:0} @media print{.e{x:y}} --></style>\
                 <style media=print>.f{color:red}</style>";
    let sheets = light(sheet).sheets();
    assert_eq!(
        sheets[1].trim(),
        ".a, #m-b > td:hover{color:red}\n@media only screen and (max-width: 600px){\n.c{width:100%!important}\n}\n\
         div[class~=\"d\"]{padding:0}"
    );
}

#[test]
fn dark_pages_show_what_can_be_read_on_them() {
    let paper = |source: &str, theme| {
        let view = html(source, theme, &Ours);
        assert!(wrongs(&view.document).is_empty());
        Seen::parse(&view.document, false).value("html", "data-paper").map(str::to_owned).unwrap()
    };
    assert_eq!(paper("<p>plain</p>", Theme::Dark), "dark");
    assert_eq!(paper("<p style=\"color:inherit;background:transparent\">plain</p>", Theme::Dark), "dark");
    for colored in [
        "<body bgcolor=white>x",
        "<p style=color:#333>x",
        "<font color=navy>x</font>",
        "<style>p{background:#fafafa}</style><p>x",
        "<table background=https://a.example/x><td>x",
    ] {
        assert_eq!(paper(colored, Theme::Dark), "white", "{colored}");
        assert_eq!(paper(colored, Theme::Light), "light", "{colored}");
    }
    let both =
        "<style>body{background:#fff}@media (prefers-color-scheme: dark){body{background:#111;color:#eee}}</style><p>x";
    assert_eq!(paper(both, Theme::Dark), "dark");
    let sheet = |theme| Seen::parse(&html(both, theme, &Ours).document, false).sheets()[1].clone();
    assert!(sheet(Theme::Dark).contains("#111") && !sheet(Theme::Dark).contains("@media"));
    assert!(!sheet(Theme::Light).contains("#111"));
}

#[test]
fn text_is_shown_with_links_and_quotations() {
    let source = "Hello <b>,\n\n> one & two\n> > deeper\nsee https://a.example/x?y=1&z=2.\njavascript:alert(1)\n";
    let view = text(source, TextFormat::Fixed, Theme::Dark);
    assert!(wrongs(&view.document).is_empty(), "{}", view.document);
    let seen = Seen::parse(&view.document, false);
    assert_eq!(seen.text(), "Hello <b>,one & twodeepersee https://a.example/x?y=1&z=2.javascript:alert(1)");
    assert_eq!(seen.value("a", "href"), Some("https://a.example/x?y=1&z=2"));
    assert_eq!(seen.value("html", "data-paper"), Some("dark"));
    let quotes = seen.elements().into_iter().filter(|(_, element)| &*element.name.local == "blockquote").count();
    assert_eq!(quotes, 2);
}
