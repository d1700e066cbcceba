//! The report as a page: one file that needs nothing else, with a timeline of phases, leaders, pauses and refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::timeline::{Events, seconds};
use super::verdict::{Summary, Verdict, words};

/// The drawing, in its own units.
const WIDTH: f64 = 1_000.0;
const LABEL_WIDTH: f64 = 130.0;
const ROW_HEIGHT: f64 = 18.0;
/// A pause that is shown, milliseconds: shorter ones are what an acknowledgement takes.
const PAUSE_SHOWN_MS: u64 = 100;
/// Shards with a row of their own; a page with more is none that anybody looks at.
const SHARDS_MAX: usize = 64;
/// Seconds between two marks of the axis, at most so many marks.
const MARKS_MAX: f64 = 20.0;
/// Colours of nodes, round and round.
const COLOURS: [&str; 6] = ["#4e79a7", "#f28e2b", "#76b7b2", "#59a14f", "#b07aa1", "#9c755f"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;\
background:#fff}h1{font-size:1.5rem}table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}\
.kept{color:#1a7f37}.broken{color:#cf222e;font-weight:600}svg{width:100%;height:auto;font:11px system-ui,sans-serif}\
small{color:#59636e}@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}svg text{fill:#e6edf3}}";

/// The whole page. `what`: what was done, in words; `mailboxes`: their addresses.
pub(super) fn html(summary: &Summary, events: &Events, what: &str, mailboxes: &[String]) -> String {
    let class = |verdict: Verdict| match verdict {
        Verdict::Kept => "kept",
        Verdict::Broken => "broken",
    };
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Drill {name}</title><style>{STYLE}</style><h1>Drill {name}: <span class=\"{class}\">{class}</span></h1><p>{what}.</p>",
        name = escaped(&summary.drill),
        class = class(summary.verdict),
        what = escaped(what),
    );
    out.push_str("<h2>Promises</h2><table>");
    for (promise, verdict) in &summary.promises {
        let class = class(*verdict);
        let _ = write!(out, "<tr><td>{promise}<td class=\"{class}\">{class}<td>{}", escaped(words(promise)));
    }
    out.push_str("</table><h2>Figures</h2><table>");
    let recovered =
        summary.recovered_s.map_or_else(|| "not".to_owned(), |recovered| format!("{recovered:.1} s after the break"));
    let figures = [
        ("messages acknowledged", summary.acknowledged.to_string()),
        ("missing, twice, hidden", format!("{}, {}, {}", summary.missing, summary.twice, summary.hidden)),
        (
            "last refused write",
            format!("{:.1} s after the break, of {}", summary.last_refused_s, events.refusals_count),
        ),
        ("whole again", recovered),
        ("longest pause of a mailbox", format!("{} ms", summary.longest_pause_ms)),
        (
            "reads",
            format!(
                "{} current, {} marked stale, {} without an answer",
                events.reads.current, events.reads.stale, events.reads.refused
            ),
        ),
    ];
    for (name, value) in figures {
        let _ = write!(out, "<tr><td>{name}<td>{}", escaped(&value));
    }
    out.push_str("</table><h2>Timeline</h2>");
    draw(&mut out, events, mailboxes);
    phases(&mut out, events);
    out.push_str("</html>\n");
    out
}

fn phases(out: &mut String, events: &Events) {
    out.push_str("<h2>Phases</h2><table>");
    for phase in &events.phases {
        let (from, long) = (seconds(phase.from_ms), seconds(phase.to_ms.saturating_sub(phase.from_ms)));
        let _ = write!(out, "<tr><td>{from:.1} s<td>{long:.1} s<td>{}", escaped(&phase.name));
    }
    out.push_str("</table>");
    if !events.notes.is_empty() {
        out.push_str("<h2>Notes</h2><table>");
        for (at_ms, note) in &events.notes {
            let _ = write!(out, "<tr><td>{:.1} s<td>{}", seconds(*at_ms), escaped(note));
        }
        out.push_str("</table>");
    }
    if !events.refusals.is_empty() {
        let mut said: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for refusal in &events.refusals {
            *said.entry((&refusal.region, &refusal.said)).or_default() += 1;
        }
        out.push_str("<h2>Refusals</h2><table>");
        for ((region, text), count) in said {
            let _ = write!(out, "<tr><td>{count}<td>{}<td>{}", escaped(region), escaped(text));
        }
        out.push_str("</table>");
    }
}

/// One drawing: a row of phases, one for each shard's leader, one for each mailbox with its pauses and refusals.
fn draw(out: &mut String, events: &Events, mailboxes: &[String]) {
    let end = events.phases.last().map_or(1, |phase| phase.to_ms.max(1));
    let x = |ms: u64| LABEL_WIDTH + (WIDTH - LABEL_WIDTH) * seconds(ms.min(end)) / seconds(end);
    let shards: BTreeSet<u32> = events.leads.iter().map(|lead| lead.shard).take(SHARDS_MAX).collect();
    let rows = 2 + shards.len() + mailboxes.len();
    let mut y = 0.0;
    let height = (0..rows).fold(0.0, |sum, _| sum + ROW_HEIGHT);
    let _ = write!(out, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\">");
    let bar = |out: &mut String, from: u64, to: u64, y: f64, colour: &str, title: &str| {
        let wide = (x(to) - x(from)).max(1.0);
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
            x(from),
            y + 2.0,
            ROW_HEIGHT - 4.0,
            escaped(title)
        );
    };
    let label = |out: &mut String, y: f64, text: &str| {
        let _ = write!(out, "<text x=\"0\" y=\"{:.1}\">{}</text>", y + ROW_HEIGHT - 5.0, escaped(text));
    };
    axis(out, end, &x);
    y += ROW_HEIGHT;
    label(out, y, "phase");
    for phase in &events.phases {
        bar(out, phase.from_ms, phase.to_ms, y, if phase.broken { "#e5534b" } else { "#8ddb8c" }, &phase.name);
    }
    y += ROW_HEIGHT;
    for shard in shards {
        label(out, y, &format!("shard {shard} led by"));
        let leads: Vec<_> = events.leads.iter().filter(|lead| lead.shard == shard).collect();
        for (at, lead) in leads.iter().enumerate() {
            let to = leads.get(at + 1).map_or(end, |next| next.at_ms);
            let (colour, title) = match lead.node {
                Some(node) => (colour_of(node), format!("node {node}")),
                None => ("#cf222e", "nobody".to_owned()),
            };
            bar(out, lead.at_ms, to, y, colour, &title);
        }
        y += ROW_HEIGHT;
    }
    for (mailbox, address) in mailboxes.iter().enumerate() {
        label(out, y, address.split('@').next().unwrap_or(address));
        for pause in events.pauses.iter().filter(|pause| pause.mailbox == mailbox) {
            let long = pause.to_ms.saturating_sub(pause.from_ms);
            if long >= PAUSE_SHOWN_MS {
                bar(out, pause.from_ms, pause.to_ms, y, "#d4a72c", &format!("a pause of {long} ms"));
            }
        }
        for refusal in events.refusals.iter().filter(|refusal| refusal.mailbox == mailbox) {
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\" fill=\"#cf222e\"><title>{}: {}</title></circle>",
                x(refusal.at_ms),
                y + ROW_HEIGHT / 2.0,
                escaped(&refusal.region),
                escaped(&refusal.said)
            );
        }
        y += ROW_HEIGHT;
    }
    out.push_str(
        "</svg><p><small>Green: calm. Red: something is broken or moves. Yellow: a mailbox waits for its next acknowledgement. \
         Red dots: a write that was refused, or not answered; it was asked again elsewhere.</small></p>",
    );
}

fn axis(out: &mut String, end: u64, x: &impl Fn(u64) -> f64) {
    let step = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000]
        .into_iter()
        .find(|step| seconds(end) / seconds(*step) <= MARKS_MAX)
        .unwrap_or(600_000);
    let mut at = 0;
    while at <= end {
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{} s</text>", x(at), ROW_HEIGHT - 5.0, at / 1_000);
        at += step;
    }
}

fn colour_of(node: u64) -> &'static str {
    let count = COLOURS.len();
    usize::try_from(node).ok().and_then(|node| COLOURS.get(node % count)).copied().unwrap_or("#777")
}

/// Text of servers and operators is text, whatever is in it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{Lead, Pause, Phase, Refusal};
    use super::super::verdict::Measured;
    use super::*;
    use crate::drill::books::Balance;

    #[test]
    fn the_page_shows_what_happened_and_needs_nothing_else() {
        let measured = Measured {
            balance: Balance { acknowledged: 5, missing: vec!["x".into()], ..Balance::default() },
            last_refused_s: 2.0,
            recovered_s: Some(9.0),
            longest_pause_ms: 800,
            verified: true,
            equal: true,
        };
        let summary = Summary::new("lose-node", &measured, None);
        let phase = |name: &str, from_ms, to_ms, broken| Phase { name: name.into(), from_ms, to_ms, broken };
        let events = Events {
            phases: vec![phase("calm", 0, 5_000, false), phase("kill -9 of node 2", 5_000, 20_000, true)],
            refusals: vec![Refusal {
                at_ms: 6_000,
                mailbox: 0,
                region: "seoul".into(),
                said: "451 <b>later</b>".into(),
            }],
            refusals_count: 1,
            pauses: vec![Pause { mailbox: 0, from_ms: 5_500, to_ms: 6_300 }],
            leads: vec![
                Lead { shard: 1000, node: Some(2), at_ms: 0 },
                Lead { shard: 1000, node: None, at_ms: 5_100 },
                Lead { shard: 1000, node: Some(3), at_ms: 6_200 },
            ],
            ..Events::default()
        };
        let page = html(&summary, &events, "kill -9 of node 2, for 15 s", &["drill-0@postrider.example".into()]);
        for wanted in ["broken", "a pause of 800 ms", "shard 1000 led by", "nobody", "node 3", "451 &lt;b&gt;later"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        for outside in ["<script", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
