//! What a drill found, in words. For programs there is [`super::verdict::Summary`], to look at [`super::page`].

use std::fmt::Write as _;

use super::timeline::{Events, seconds};
use super::verdict::{Summary, Verdict, words};

/// Notes that are told.
const NOTES_MAX: usize = 20;

/// For people.
pub(super) fn text(summary: &Summary, events: &Events) -> String {
    let mut out = String::new();
    let verdict = match summary.verdict {
        Verdict::Kept => "KEPT",
        Verdict::Broken => "BROKEN",
    };
    let _ = writeln!(out, "{}: {verdict}\n", summary.drill);
    for (promise, verdict) in &summary.promises {
        let verdict = match verdict {
            Verdict::Kept => "kept",
            Verdict::Broken => "BROKEN",
        };
        let _ = writeln!(out, "  {promise:<5} {verdict:<7} {}", words(promise));
    }
    let _ = writeln!(
        out,
        "\n  messages      {} acknowledged, {} missing, {} twice, {} hidden",
        summary.acknowledged, summary.missing, summary.twice, summary.hidden
    );
    let _ = writeln!(
        out,
        "  last refused  {:.1} s after the break ({} refusals in all, asked again elsewhere)",
        summary.last_refused_s, events.refusals_count
    );
    let _ = match summary.recovered_s {
        Some(recovered) => {
            writeln!(out, "  recovered     {recovered:.1} s after the break, the time that it was held included")
        }
        None => writeln!(out, "  recovered     NOT"),
    };
    let _ = writeln!(out, "  longest pause {} ms of a mailbox", summary.longest_pause_ms);
    let reads = events.reads;
    let _ = writeln!(
        out,
        "  reads         {} current, {} marked stale, {} without an answer",
        reads.current, reads.stale, reads.refused
    );
    for (at_ms, note) in events.notes.iter().take(NOTES_MAX) {
        let _ = writeln!(out, "  {:>8.1} s    {note}", seconds(*at_ms));
    }
    out
}
