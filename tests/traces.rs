//! Traces, end to end: a message is one trace over the processes that it passes, in a collector of the test's own; and what fails is kept
//! where nothing else is.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::events::Events;
use harness::outside::{Sink, dns};
use harness::rest::Api;
use harness::smtp::{self, Client, Sent};
use harness::{Cluster, Options, until};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::{Method, StatusCode as HttpStatus};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What a span is, and which process it comes from.
#[derive(Debug, Clone)]
struct Seen {
    span: Span,
    /// Of the span.
    said: BTreeMap<String, String>,
    /// Of the process.
    process: BTreeMap<String, String>,
}

impl Seen {
    fn trace(&self) -> String {
        hex::encode(&self.span.trace_id)
    }

    fn is(&self, service: &str, name: &str) -> bool {
        self.process["service.name"] == service && self.span.name == name
    }

    fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == i32::from(StatusCode::Error))
    }
}

/// A collector that keeps everything.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    /// Where it listens.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("it listens");
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{address}")
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn of(&self, trace: &str) -> Trace {
        Trace(self.all().into_iter().filter(|seen| seen.trace() == trace).collect())
    }

    /// The trace that has a span which is so.
    async fn until(&self, what: &str, is: impl Fn(&Seen) -> bool) -> String {
        until(what, || self.all().iter().any(&is)).await;
        self.all().into_iter().find(is).expect("it was there").trace()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let process = words(of_process.resource.map(|resource| resource.attributes).unwrap_or_default());
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let said = words(span.attributes.clone());
                self.0.lock().expect("nobody panics with it").push(Seen { span, said, process: process.clone() });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn words(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let word = |attribute: KeyValue| {
        let value = match attribute.value.and_then(|value| value.value) {
            Some(any_value::Value::StringValue(text)) => text,
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            other => panic!("{}: {other:?}", attribute.key),
        };
        (attribute.key, value)
    };
    attributes.into_iter().map(word).collect()
}

/// All that was kept of a trace.
struct Trace(Vec<Seen>);

impl Trace {
    fn find(&self, service: &str, name: &str) -> Vec<&Seen> {
        self.0.iter().filter(|seen| seen.is(service, name)).collect()
    }

    fn parent(&self, of: &Seen) -> Option<&Seen> {
        self.0.iter().find(|seen| seen.span.span_id == of.span.parent_span_id)
    }

    /// Names and services from the root down to a span.
    fn path(&self, to: &Seen) -> Vec<String> {
        let mut path = Vec::new();
        let mut at = Some(to);
        while let Some(seen) = at {
            path.push(format!("{} {}", seen.process["service.name"].trim_start_matches("postrider-"), seen.span.name));
            assert!(path.len() < 100, "a circle: {path:?}");
            at = self.parent(seen);
        }
        path.reverse();
        path
    }

    /// One root, no span without its parent, none twice.
    fn assert_whole(&self) {
        let ids: BTreeSet<_> = self.0.iter().map(|seen| &seen.span.span_id).collect();
        assert_eq!(ids.len(), self.0.len());
        let roots = self.0.iter().filter(|seen| seen.span.parent_span_id.is_empty());
        assert_eq!(roots.count(), 1, "{self}");
        for seen in self.0.iter().filter(|seen| !seen.span.parent_span_id.is_empty()) {
            assert!(self.parent(seen).is_some(), "{} has no parent: {self}", seen.span.name);
        }
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|seen| writeln!(f, "{:?} {:?}", self.path(seen), seen.said))
    }
}

const PROPOSE: &str = "postrider.v1.ShardService/Propose";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_one_trace_over_all_its_processes() {
    let at = Ipv4Addr::new(127, 99, 25, 31);
    let Some(host) = Sink::listen(at, Duration::ZERO).await else { return };
    let collector = Collector::default();
    let traces = Some((collector.start().await, 1.0));
    let resolver = Some(dns(&[("far.example", at)]).await);
    let cluster = Cluster::start(Options { traces, resolver, ..Options::default() }).await;
    let (seoul, virginia) = (cluster.region("seoul"), cluster.region("virginia"));
    let ada = Api::sign_up(virginia, "ada@postrider.example").await;

    comes_in(&cluster, &collector, &ada).await;
    goes_out(&collector, &ada.at(seoul), &host).await;
    cluster.assert_consistent().await;
}

/// By SMTP in one region, for a user whose shard is led in another and who listens there.
async fn comes_in(cluster: &Cluster, collector: &Collector, ada: &Api) {
    let mut events = Events::open(ada, None).await;
    let reply = smtp::deliver(&cluster.region("seoul").smtp, &[&ada.address], &smtp::text("Traced", "x")).await;
    events.next_message().await;
    let id = reply.rsplit(' ').next().expect("a queue id").trim().to_owned();
    let is_it = |seen: &Seen| seen.said.get("postrider.queue_id") == Some(&id);
    let trace = collector.until("the transaction is there", is_it).await;
    // From every process: the leader, both followers, the frontend that pushes.
    until("all of it is there", || {
        let trace = collector.of(&trace);
        trace.find("postrider-node", "apply").len() == 3 && !trace.find("postrider-frontend", "push").is_empty()
    })
    .await;
    until("whatever was late is there", || {
        let trace = collector.of(&trace);
        let push = trace.find("postrider-frontend", "push");
        push.first().is_some_and(|push| trace.path(push).first().is_some_and(|root| root.ends_with("smtp transaction")))
    })
    .await;
    let trace = collector.of(&trace);
    trace.assert_whole();

    let push = trace.find("postrider-frontend", "push")[0];
    let (client, server) = (format!("frontend {PROPOSE}"), format!("node {PROPOSE}"));
    let way = [
        "frontend smtp transaction",
        "frontend message",
        "frontend route command",
        &client,
        &server,
        "node commit",
        "node watch",
        "frontend push",
    ];
    assert_eq!(trace.path(push), way, "{trace}");
    let root = trace.find("postrider-frontend", "smtp transaction")[0];
    assert_eq!((&*root.process["cloud.region"], &*push.process["cloud.region"]), ("seoul", "virginia"));
    assert_eq!(root.span.kind, i32::from(SpanKind::Server));
    let (_, primary) = cluster.primary_of(&ada.address).await;
    let commit = trace.find("postrider-node", "commit")[0];
    assert_eq!(commit.process["postrider.node"], primary.to_string());
    // Each replica applies it, and says so under the one proposal.
    let applies = trace.find("postrider-node", "apply");
    let nodes: BTreeSet<_> = applies.iter().map(|seen| &seen.process["postrider.node"]).collect();
    assert_eq!(nodes.len(), 3);
    assert!(applies.iter().all(|seen| seen.span.parent_span_id == commit.span.span_id));
    // Whoever it is for was asked for in the same trace.
    assert!(!trace.find("postrider-node", "postrider.v1.ShardService/Query").is_empty(), "{trace}");
    assert!(trace.0.iter().all(|seen| seen.span.end_time_unix_nano >= seen.span.start_time_unix_nano));
}

/// By REST to somebody outside: through the queue and a worker.
async fn goes_out(collector: &Collector, ada: &Api, host: &Sink) {
    let body = json!({ "to": ["bob@far.example"], "subject": "Out it goes", "body": "As it is" });
    ada.change(Method::POST, "/v1/messages", body).await;
    until("the host has it", || host.count() > 0).await;
    let trace = collector.until("it was sent", |seen| seen.span.name == "send outside").await;
    until("the worker is done", || {
        let trace = collector.of(&trace);
        !trace.find("postrider-frontend", "deliver").is_empty()
            && !trace.find("postrider-frontend", "POST /v1/messages").is_empty()
            && trace.0.iter().all(|seen| seen.span.parent_span_id.is_empty() || trace.parent(seen).is_some())
    })
    .await;
    let trace = collector.of(&trace);
    trace.assert_whole();
    let sent = trace.find("postrider-frontend", "send outside")[0];
    let (client, server) = (format!("frontend {PROPOSE}"), format!("node {PROPOSE}"));
    let way = [
        "frontend POST /v1/messages",
        "frontend route command",
        &client,
        &server,
        "node commit",
        "frontend deliver",
        "frontend send outside",
    ];
    assert_eq!(trace.path(sent), way, "{trace}");
    assert!(!sent.failed());
    let deliver = trace.find("postrider-frontend", "deliver")[0];
    assert_eq!(deliver.span.kind, i32::from(SpanKind::Consumer));
    // The queue is told of it within the same trace.
    until("it is settled", || {
        let settled = collector.all().into_iter().filter(|seen| seen.trace() == deliver.trace());
        settled.filter(|seen| seen.is("postrider-node", "postrider.v1.ShardService/SettleQueue")).count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_kept_where_nothing_else_is() {
    let collector = Collector::default();
    let traces = Some((collector.start().await, 0.0));
    let mut cluster = Cluster::start(Options { traces, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "alone@postrider.example").await;
    let smtp = cluster.region("seoul").smtp.clone();
    smtp::deliver(&smtp, &[&user.address], &smtp::text("Before", "x")).await;
    let before = user.until_subject("Before").await;
    let killed: Vec<u64> = ["frankfurt", "virginia"].iter().map(|name| cluster.region(name).nodes[0].id).collect();
    cluster.kill(&killed.iter().map(|node| cluster.node_pid(*node)).collect::<Vec<_>>()).await;

    let mut client = Client::connect(&smtp).await.expect("the frontend greets");
    let sent = client.send(&[&user.address], &smtp::text("During", "x")).await;
    let Sent::Refused { code: 451, text, .. } = &sent else { panic!("{sent:?}") };
    let told = text.rsplit_once("(trace ").and_then(|(_, rest)| rest.trim().strip_suffix(')'));
    let told = told.unwrap_or_else(|| panic!("no trace in {text}"));
    collector
        .until("what was told of is there", |seen| seen.trace() == told && seen.span.name == "smtp transaction")
        .await;
    until("and what failed in it", || {
        let failed = |seen: &Seen| seen.trace() == told && seen.failed() && seen.span.name.starts_with("route ");
        collector.all().iter().any(failed)
    })
    .await;

    let path = format!("/v1/messages/{}", before["id"].as_str().expect("an id"));
    let answer = user.ask(Method::PATCH, &path, Some(json!({ "is_read": true }))).await.expect("an answer");
    assert_eq!(answer.status(), HttpStatus::SERVICE_UNAVAILABLE);
    let problem: serde_json::Value = answer.json().await.expect("a problem document");
    let told = problem["trace_id"].as_str().expect("it names its trace").to_owned();
    collector
        .until("it is there", |seen| seen.trace() == told && seen.span.name == "PATCH /v1/messages/{message_id}")
        .await;
    // What the client did wrong names its trace, and is not kept for that: nobody fills a collector from outside.
    let answer = user.ask(Method::GET, "/v1/nothing-here", None).await.expect("an answer");
    assert_eq!(answer.status(), HttpStatus::NOT_FOUND);
    let problem: serde_json::Value = answer.json().await.expect("a problem document");
    assert_eq!(problem["trace_id"].as_str().map(str::len), Some(32));

    for node in &killed {
        cluster.revive("node", &node.to_string()).await;
    }
    cluster.until_whole().await;
    cluster.assert_consistent().await;
}
