//! Traces of a process: its settings, and the way of kept spans to a collector, by OTLP over gRPC.
//!
//! Invariant: a collector that is slow, gone or wrong holds up nobody. Spans wait in a bounded queue, and what does not fit is counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use metrics::{Unit, describe_counter};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use postrider_api::trace::{self, Ended, Keeper, KeeperSettings, Kind, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Traces that are kept and have not left yet.
const LEAVING_MAX: usize = 2_048;
/// Spans of one call.
const BATCH_SPANS: usize = 1_024;
/// How long a span waits for others to leave with.
const COLLECT: Duration = Duration::from_millis(500);
/// How long one call may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// Calls for one batch: a collector that is started anew loses nothing that fits into the queue.
const ATTEMPTS_MAX: u32 = 4;
/// Between two of them; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Which traces are kept, and where they go. Without this table nothing is traced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesConfig {
    /// A collector that takes OTLP by gRPC: `http://HOST:PORT`, or `https://HOST:PORT` with `ca`.
    pub(crate) endpoint: String,
    /// PEM file with the authority of the collector's certificate.
    pub(crate) ca: Option<PathBuf>,
    /// The share of traces that are kept whatever becomes of them, 0 to 1.
    #[serde(default = "sample_rate")]
    pub(crate) sample_rate: f64,
    /// What takes so long is kept in any case, milliseconds.
    #[serde(default = "slow_ms")]
    pub(crate) slow_ms: u64,
}

fn sample_rate() -> f64 {
    0.01
}

fn slow_ms() -> u64 {
    1_000
}

impl TracesConfig {
    /// A demo's.
    pub(crate) fn of_demo(endpoint: String, sample_rate: f64) -> Self {
        Self { endpoint, ca: None, sample_rate, slow_ms: slow_ms() }
    }

    fn settings(&self) -> anyhow::Result<KeeperSettings> {
        ensure!((0.0..=1.0).contains(&self.sample_rate), "traces.sample_rate: 0 to 1");
        ensure!(self.slow_ms > 0, "traces.slow_ms: at least 1; sample_rate = 1 keeps everything");
        Ok(KeeperSettings { rate: self.sample_rate, slow: Duration::from_millis(self.slow_ms) })
    }

    /// Connects when it is first used.
    fn channel(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).context("traces.endpoint")?;
        let scheme = endpoint.uri().scheme_str().map(str::to_owned);
        let endpoint = match (scheme.as_deref(), &self.ca) {
            (Some("http"), None) => endpoint,
            (Some("http"), Some(_)) => bail!("traces.ca: the endpoint is without TLS"),
            (Some("https"), Some(ca)) => {
                let pem = std::fs::read(ca).with_context(|| format!("traces.ca: read {}", ca.display()))?;
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                endpoint.tls_config(tls).context("traces.ca")?
            }
            (Some("https"), None) => bail!("traces.ca: names the authority of an https endpoint"),
            _ => bail!("traces.endpoint: http://HOST:PORT or https://HOST:PORT"),
        };
        Ok(endpoint.connect_timeout(EXPORT_MAX).connect_lazy())
    }
}

/// Who traces.
pub(crate) struct Process {
    /// As the subcommand is called.
    pub(crate) role: &'static str,
    /// Where it stands; empty where its configuration does not say.
    pub(crate) region: String,
    /// Which of the region's, where they have numbers.
    pub(crate) node: Option<u64>,
}

impl Process {
    fn resource(&self) -> Resource {
        let mut attributes = vec![
            text("service.namespace", "postrider"),
            text("service.name", format!("postrider-{}", self.role)),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", format!("{}-{}", crate::role::outgoing::machine_name(), std::process::id())),
            number("process.pid", std::process::id().into()),
        ];
        if !self.region.is_empty() {
            attributes.push(text("cloud.region", self.region.clone()));
        }
        attributes.extend(self.node.map(|node| number("postrider.node", i64::try_from(node).unwrap_or(i64::MAX))));
        Resource { attributes, ..Resource::default() }
    }
}

/// Traces from here on, if the process is to. Call before anything serves.
///
/// # Errors
/// What is wrong with the settings. Whether there is a collector is not looked at.
pub(crate) fn start(config: Option<&TracesConfig>, process: &Process) -> anyhow::Result<()> {
    let Some(config) = config else { return Ok(()) };
    let (settings, channel) = (config.settings()?, config.channel()?);
    let (leaving, left) = mpsc::channel(LEAVING_MAX);
    let keeper = Keeper::new(settings, leaving);
    ensure!(trace::install(keeper.clone()), "traces are made already");
    let exporter = Exporter {
        service: TraceServiceClient::new(channel),
        resource: process.resource(),
        keeper,
        failed: 0,
        is_told: false,
    };
    tokio::spawn(exporter.run(left));
    tracing::info!(endpoint = config.endpoint, sample_rate = config.sample_rate, slow_ms = config.slow_ms, "traces");
    Ok(())
}

/// Describes what is counted here.
pub(crate) fn describe() {
    describe_counter!("postrider_traces_exported_spans_total", Unit::Count, "Spans that the collector has taken.");
    describe_counter!(
        "postrider_traces_lost_spans_total",
        Unit::Count,
        "Spans that were not looked at because too many waited, or were to be kept and did not get to the collector."
    );
}

struct Exporter {
    service: TraceServiceClient<Channel>,
    resource: Resource,
    keeper: Arc<Keeper>,
    failed: u64,
    /// Whether somebody has been told that the collector takes nothing.
    is_told: bool,
}

impl Exporter {
    async fn run(mut self, mut left: mpsc::Receiver<Vec<Ended>>) {
        while let Some(first) = left.recv().await {
            let mut spans = first;
            let until = Instant::now() + COLLECT;
            while spans.len() < BATCH_SPANS
                && let Ok(Some(more)) = timeout_at(until, left.recv()).await
            {
                spans.extend(more);
            }
            self.export(spans).await;
            self.count();
        }
    }

    async fn export(&mut self, spans: Vec<Ended>) {
        let count = spans.len() as u64;
        let request = request(&self.resource, spans);
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            let why = match timeout(EXPORT_MAX, self.service.export(request.clone())).await {
                Ok(Ok(response)) => {
                    let partial = response.into_inner().partial_success.unwrap_or_default();
                    let refused = u64::try_from(partial.rejected_spans).unwrap_or(0).min(count);
                    self.failed += refused;
                    metrics::counter!("postrider_traces_exported_spans_total").increment(count - refused);
                    if std::mem::take(&mut self.is_told) {
                        tracing::info!("the collector takes traces again");
                    }
                    return;
                }
                Ok(Err(status)) => status.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            if !std::mem::replace(&mut self.is_told, true) {
                tracing::warn!(why, "the collector takes no traces");
            }
            if attempt < ATTEMPTS_MAX {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        self.failed += count;
    }

    fn count(&self) {
        let lost = self.keeper.lost();
        metrics::counter!("postrider_traces_lost_spans_total", "reason" => "held").absolute(lost.held);
        metrics::counter!("postrider_traces_lost_spans_total", "reason" => "queue").absolute(lost.queued);
        metrics::counter!("postrider_traces_lost_spans_total", "reason" => "collector").absolute(self.failed);
    }
}

fn request(resource: &Resource, spans: Vec<Ended>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "postrider".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.into_iter().map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

fn span(ended: Ended) -> Span {
    let kind = match ended.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Consumer => SpanKind::Consumer,
    };
    let took = u64::try_from(ended.took.as_nanos()).unwrap_or(u64::MAX);
    let attributes = ended.attributes.into_iter().map(|(key, value)| match value {
        Value::Number(value) => number(key, value),
        Value::Text(value) => text(key, value),
    });
    Span {
        trace_id: ended.context.trace.bytes().to_vec(),
        span_id: ended.context.span.to_be_bytes().to_vec(),
        parent_span_id: if ended.parent == 0 { Vec::new() } else { ended.parent.to_be_bytes().to_vec() },
        // W3C's flags: it is kept.
        flags: 1,
        name: ended.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: ended.began_ns,
        end_time_unix_nano: ended.began_ns.saturating_add(took),
        attributes: attributes.collect(),
        status: ended.failure.map(|why| Status { message: why.into_owned(), code: StatusCode::Error.into() }),
        ..Span::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::IntValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use postrider_api::trace::Context;

    use super::*;

    fn config(text: &str) -> anyhow::Result<TracesConfig> {
        Ok(toml::from_str(text)?)
    }

    #[test]
    fn the_table_and_its_defaults() {
        let config = config("endpoint = \"http://127.0.0.1:4317\"").unwrap();
        let settings = config.settings().unwrap();
        assert_eq!(settings, KeeperSettings { rate: 0.01, slow: Duration::from_secs(1) });
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        for (text, word) in [
            ("sample_rate = 1.0", "endpoint"),
            ("endpoint = \"http://a:1\"\nrate = 1.0", "rate"),
            ("endpoint = \"http://a:1\"\nsample_rate = 1.5", "sample_rate"),
            ("endpoint = \"http://a:1\"\nsample_rate = nan", "sample_rate"),
            ("endpoint = \"http://a:1\"\nslow_ms = 0", "slow_ms"),
            ("endpoint = \"http://a:1\"\nca = \"/nowhere\"", "without TLS"),
            ("endpoint = \"https://a:1\"\nca = \"/nowhere\"", "/nowhere"),
            ("endpoint = \"https://a:1\"", "traces.ca"),
            ("endpoint = \"a:1\"", "endpoint"),
        ] {
            let tried = config(text).and_then(|config| config.settings().and(config.channel().map(drop)));
            let error = format!("{:#}", tried.unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_span_is_otlp() {
        let context = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let ended = Ended {
            context,
            parent: 0,
            name: "deliver".into(),
            kind: Kind::Consumer,
            began_ns: 5,
            took: Duration::from_nanos(7),
            attributes: vec![("postrider.shard", 1000u32.into()), ("what", "mail".into())],
            failure: Some("busy".into()),
        };
        let span = span(ended.clone());
        assert_eq!((span.trace_id.len(), span.span_id.len(), span.parent_span_id.len()), (16, 8, 0));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5, 12));
        assert_eq!((span.kind, span.attributes.len()), (SpanKind::Consumer.into(), 2));
        assert_eq!(span.status.unwrap().code, i32::from(StatusCode::Error));
        let child = super::span(Ended { parent: 9, failure: None, ..ended });
        assert_eq!((child.parent_span_id, child.status), (9u64.to_be_bytes().to_vec(), None));
    }
}
