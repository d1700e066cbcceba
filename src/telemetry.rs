//! Logs, counters and traces of a process.

pub(crate) mod traces;

use std::fmt;
use std::io::IsTerminal as _;

use postrider_api::trace;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Logs go to standard error: for people when that is a terminal, as JSON lines when it is not. `RUST_LOG` overrides
/// `default_filter`. What is said within a trace names it.
pub(crate) fn start(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        let named = |lines| Named { lines, form: Form::Text };
        builder.with_target(false).compact().map_event_format(named).init();
    } else {
        let named = |lines| Named { lines, form: Form::Json };
        builder.json().flatten_event(true).map_event_format(named).init();
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Text,
}

/// Lines with the trace that they belong to, if they do.
struct Named<E> {
    lines: E,
    form: Form,
}

impl<S, N, E> FormatEvent<S, N> for Named<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(trace) = trace::current_id() else { return self.lines.format_event(context, writer, event) };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&name(&line, self.form, trace))
    }
}

fn name(line: &str, form: Form, trace: impl fmt::Display) -> String {
    let line = line.trim_end();
    match (form, line.strip_suffix('}')) {
        (Form::Json, Some(object)) => format!("{object},\"trace_id\":\"{trace}\"}}\n"),
        _ => format!("{line} trace_id={trace}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_trace() {
        let line = name("{\"level\":\"INFO\",\"message\":\"a } in it\"}\n", Form::Json, "4bf9");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["trace_id"].as_str(), value["level"].as_str()), (Some("4bf9"), Some("INFO")));
        assert_eq!(name("INFO so it is\n", Form::Text, "4bf9"), "INFO so it is trace_id=4bf9\n");
    }
}
