//! Which traces leave the process: decided when the part of a trace that is here has ended.
//!
//! Spans wait with their local trace until its first one, the local root, ends. They leave if the trace was sampled where it began, if
//! whoever was asked keeps it, or if something here was slow or failed; otherwise they are forgotten. What ends later goes the same way at
//! once.
//!
//! Invariant: memory is bounded by [`SPANS_PER_TRACE_MAX`], [`SPANS_HELD_MAX`] and the queue that kept spans leave by; what does not fit
//! is counted, and never waited for.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::context::{Context, TraceId};
use super::ids;

/// Spans of one trace that one process holds.
pub const SPANS_PER_TRACE_MAX: usize = 256;
/// Spans that wait for their traces' ends, of all traces of a process: about 16 MB.
pub const SPANS_HELD_MAX: usize = 65_536;

static INSTALLED: OnceLock<Arc<Keeper>> = OnceLock::new();

/// Has this process make traces. `false`: it does already, and goes on as it did.
pub fn install(keeper: Arc<Keeper>) -> bool {
    INSTALLED.set(keeper).is_ok()
}

pub(super) fn installed() -> Option<&'static Arc<Keeper>> {
    INSTALLED.get()
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeeperSettings {
    /// The share of traces that are kept whatever becomes of them: 0 to 1.
    pub rate: f64,
    /// What takes so long is kept.
    pub slow: Duration,
}

/// What a span is on the way between processes (OTLP's SpanKind).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Within a process.
    Internal,
    /// Somebody asked.
    Server,
    /// Somebody is asked.
    Client,
    /// Goes on with what was left waiting.
    Consumer,
}

/// What is said of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text.
    Text(Cow<'static, str>),
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A span that has ended and leaves the process.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The span itself.
    pub context: Context,
    /// Its parent; 0: it has none.
    pub parent: u64,
    /// What was done.
    pub name: Cow<'static, str>,
    /// What it is on the way.
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub began_ns: u64,
    /// For how long.
    pub took: Duration,
    /// What is said of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed; `None`: it did not.
    pub failure: Option<Cow<'static, str>>,
}

/// Spans that did not leave, since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Their trace, or all traces together, had as many as are held.
    pub held: u64,
    /// They were to be kept, and too many were leaving.
    pub queued: u64,
}

/// Decides.
pub struct Keeper {
    threshold: u64,
    slow: Duration,
    leaving: mpsc::Sender<Vec<Ended>>,
    held: AtomicUsize,
    lost_held: AtomicU64,
    lost_queued: AtomicU64,
}

impl Keeper {
    /// One whose kept spans leave by `leaving`, those of a local trace together.
    pub fn new(settings: KeeperSettings, leaving: mpsc::Sender<Vec<Ended>>) -> Arc<Self> {
        // A rate of 1 is above every lot; what is between is exact to 2^-53.
        let threshold = if settings.rate >= 1.0 { u64::MAX } else { (settings.rate.max(0.0) * 2f64.powi(64)) as u64 };
        Arc::new(Self {
            threshold,
            slow: settings.slow,
            leaving,
            held: AtomicUsize::new(0),
            lost_held: AtomicU64::new(0),
            lost_queued: AtomicU64::new(0),
        })
    }

    /// What did not leave.
    pub fn lost(&self) -> Lost {
        Lost { held: self.lost_held.load(Ordering::Relaxed), queued: self.lost_queued.load(Ordering::Relaxed) }
    }

    pub(super) fn samples(&self, trace: &TraceId) -> bool {
        self.threshold == u64::MAX || ids::lot(trace) < self.threshold
    }

    fn leave(&self, trace: TraceId, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let count = records.len() as u64;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = records.into_iter().map(|record| record.ended(trace, now, wall)).collect();
        if self.leaving.try_send(ended).is_err() {
            self.lost_queued.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// A span that has ended, and whose trace may not have.
pub(super) struct Record {
    pub(super) span: u64,
    pub(super) parent: u64,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failure: Option<Cow<'static, str>>,
}

impl Record {
    fn ended(self, trace: TraceId, now: Instant, wall: Duration) -> Ended {
        let began = wall.saturating_sub(now.saturating_duration_since(self.began));
        Ended {
            context: Context { trace, span: self.span, sampled: true },
            parent: self.parent,
            name: self.name,
            kind: self.kind,
            began_ns: u64::try_from(began.as_nanos()).unwrap_or(u64::MAX),
            took: self.took,
            attributes: self.attributes,
            failure: self.failure,
        }
    }
}

/// The part of a trace that is in this process, under one local root.
pub(super) struct LocalTrace {
    pub(super) keeper: Arc<Keeper>,
    pub(super) trace: TraceId,
    /// Whether it is kept, as far as is known.
    kept: AtomicBool,
    state: Mutex<State>,
}

enum State {
    /// Its root has not ended.
    Open(Vec<Record>),
    /// It was decided.
    Over,
}

impl LocalTrace {
    pub(super) fn new(keeper: Arc<Keeper>, trace: TraceId, sampled: bool) -> Arc<Self> {
        let state = Mutex::new(State::Open(Vec::new()));
        Arc::new(Self { keeper, trace, kept: AtomicBool::new(sampled), state })
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whatever else becomes of it.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// A span has ended. `is_patient`: others chose how long it took.
    pub(super) fn end(&self, record: Record, is_root: bool, is_patient: bool) {
        if record.failure.is_some() || (!is_patient && record.took >= self.keeper.slow) {
            self.keep();
        }
        let mut state = self.state.lock();
        match &mut *state {
            State::Open(records) => {
                self.hold(records, record, is_root);
                if is_root {
                    let records = std::mem::take(records);
                    *state = State::Over;
                    drop(state);
                    self.decide(records);
                }
            }
            State::Over => {
                drop(state);
                if self.is_kept() {
                    self.keeper.leave(self.trace, vec![record]);
                }
            }
        }
    }

    /// The root is held in any case: it is the last.
    fn hold(&self, records: &mut Vec<Record>, record: Record, is_root: bool) {
        let keeper = &self.keeper;
        let held = keeper.held.fetch_add(1, Ordering::Relaxed);
        if !is_root && (records.len() >= SPANS_PER_TRACE_MAX || held >= SPANS_HELD_MAX) {
            keeper.held.fetch_sub(1, Ordering::Relaxed);
            keeper.lost_held.fetch_add(1, Ordering::Relaxed);
            return;
        }
        records.push(record);
    }

    fn decide(&self, records: Vec<Record>) {
        self.keeper.held.fetch_sub(records.len(), Ordering::Relaxed);
        if self.is_kept() {
            self.keeper.leave(self.trace, records);
        }
    }
}

#[cfg(test)]
impl Keeper {
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}
