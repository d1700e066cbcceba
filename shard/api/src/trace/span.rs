//! Spans, and which one is current.
//!
//! Invariant: a span that was made ends exactly once, when it is dropped or [`Span::end`] is called, also where the future that it is in is
//! dropped.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use futures::future::Either;

use super::context::{Context, TraceId};
use super::ids;
use super::keeper::{Keeper, Kind, LocalTrace, Record, Value, installed};

tokio::task_local! {
    static CURRENT: Active;
}

/// The span that what is done now belongs to.
#[derive(Clone)]
struct Active {
    local: Arc<LocalTrace>,
    span: u64,
}

impl Active {
    fn context(&self) -> Context {
        Context { trace: self.local.trace, span: self.span, sampled: self.local.is_kept() }
    }
}

fn with_current<T>(read: impl FnOnce(&Active) -> T) -> Option<T> {
    installed()?;
    CURRENT.try_with(read).ok()
}

/// Whether this process makes traces.
pub fn is_on() -> bool {
    installed().is_some()
}

/// Where what is done now stands in a trace.
pub fn current() -> Option<Context> {
    with_current(Active::context)
}

/// The trace of what is done now.
pub fn current_id() -> Option<TraceId> {
    with_current(|active| active.local.trace)
}

/// The same, to be told to somebody who may ask for it later: the trace is kept.
pub fn quoted_id() -> Option<TraceId> {
    with_current(|active| {
        active.local.keep();
        active.local.trace
    })
}

/// The beginning of a trace.
pub fn root(name: &'static str, kind: Kind) -> Span {
    installed().map_or_else(Span::default, |keeper| Span::root(keeper, name, kind))
}

/// The first span here of a trace that began elsewhere; none where there is no context.
pub fn remote(context: Option<Context>, name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
    match (installed(), context) {
        (Some(keeper), Some(context)) => Span::remote(keeper, context, name, kind),
        _ => Span::default(),
    }
}

/// The same; where there is no context, the beginning of a trace.
pub fn continued(context: Option<Context>, name: &'static str, kind: Kind) -> Span {
    match context {
        None => root(name, kind),
        context => remote(context, name, kind),
    }
}

/// A span within the current one; none where there is none.
pub fn child(name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
    with_current(|active| Span::open(active.local.clone(), active.span, name.into(), kind, false)).unwrap_or_default()
}

/// Something that is being done, if anybody traces it.
#[derive(Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Open>>);

struct Open {
    active: Active,
    parent: u64,
    name: Cow<'static, str>,
    kind: Kind,
    began: Instant,
    attributes: Vec<(&'static str, Value)>,
    failure: Option<Cow<'static, str>>,
    is_root: bool,
    is_patient: bool,
}

impl Span {
    fn open(local: Arc<LocalTrace>, parent: u64, name: Cow<'static, str>, kind: Kind, is_root: bool) -> Self {
        Self(Some(Box::new(Open {
            active: Active { local, span: ids::span() },
            parent,
            name,
            kind,
            began: Instant::now(),
            attributes: Vec::new(),
            failure: None,
            is_root,
            is_patient: false,
        })))
    }

    pub(super) fn root(keeper: &Arc<Keeper>, name: &'static str, kind: Kind) -> Self {
        let trace = ids::trace();
        let local = LocalTrace::new(keeper.clone(), trace, keeper.samples(&trace));
        Self::open(local, 0, name.into(), kind, true)
    }

    pub(super) fn remote(
        keeper: &Arc<Keeper>,
        context: Context,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
    ) -> Self {
        let local = LocalTrace::new(keeper.clone(), context.trace, context.sampled);
        Self::open(local, context.span, name.into(), kind, true)
    }

    /// Whether anybody traces it.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Where it stands.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.active.context())
    }

    /// Others choose how long it takes: it is not kept for being slow.
    pub fn patient(mut self) -> Self {
        if let Some(open) = &mut self.0 {
            open.is_patient = true;
        }
        self
    }

    /// It began before it was made.
    pub fn since(mut self, began: Instant) -> Self {
        if let Some(open) = &mut self.0 {
            open.began = began;
        }
        self
    }

    /// Calls it otherwise, once more is known.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.name = name().into();
        }
    }

    /// Says something of it. Never an address or a text of somebody's.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.attributes.push((key, value.into()));
        }
    }

    /// The same, for what costs something to say.
    pub fn set_with<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(open) = &mut self.0 {
            open.attributes.push((key, value().into()));
        }
    }

    /// It fails, unless [`Span::succeed`] is said later; what failed is kept.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.failure = Some(why.into());
        }
    }

    /// It does not fail.
    pub fn succeed(&mut self) {
        if let Some(open) = &mut self.0 {
            open.failure = None;
        }
    }

    /// Whoever was asked says where he stood: if he keeps the trace, so does this process.
    pub fn heed(&self, answered: Option<Context>) {
        if let (Some(open), Some(answered)) = (&self.0, answered)
            && answered.sampled
            && answered.trace == open.active.local.trace
        {
            open.active.local.keep();
        }
    }

    /// What `future` does is within it.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        match self.active() {
            // Whatever is current stays so.
            None => Either::Left(future),
            Some(active) => Either::Right(CURRENT.scope(active, future)),
        }
    }

    /// What `work` does is within it.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.active() {
            None => work(),
            Some(active) => CURRENT.sync_scope(active, work),
        }
    }

    fn active(&self) -> Option<Active> {
        self.0.as_ref().map(|open| open.active.clone())
    }

    /// Ends it now; where it stood, and whether its trace is kept as far as is known.
    pub fn end(mut self) -> Option<Context> {
        let active = self.active();
        self.finish();
        active.map(|active| active.context())
    }

    fn finish(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { active, parent, name, kind, began, attributes, failure, is_root, is_patient } = *open;
        let took = began.elapsed();
        let record = Record { span: active.span, parent, name, kind, began, took, attributes, failure };
        active.local.end(record, is_root, is_patient);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::super::keeper::{Ended, KeeperSettings, SPANS_HELD_MAX, SPANS_PER_TRACE_MAX, install};
    use super::*;

    const SLOW: Duration = Duration::from_secs(3600);

    fn keeper(rate: f64, slow: Duration) -> (Arc<Keeper>, mpsc::Receiver<Vec<Ended>>) {
        let (leaving, left) = mpsc::channel(16);
        (Keeper::new(KeeperSettings { rate, slow }, leaving), left)
    }

    fn within(span: &Span, name: &'static str) -> Span {
        let open = span.0.as_ref().unwrap();
        Span::open(open.active.local.clone(), open.active.span, name.into(), Kind::Internal, false)
    }

    #[test]
    fn what_was_sampled_leaves_whole_when_its_root_ends() {
        let (keeper, mut left) = keeper(1.0, SLOW);
        let root = Span::root(&keeper, "root", Kind::Server);
        drop(within(&root, "part"));
        assert!(left.try_recv().is_err(), "its root has not ended");
        assert_eq!(keeper.held(), 1);
        let context = root.end().unwrap();
        let spans = left.try_recv().unwrap();
        assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["part", "root"]);
        assert_eq!((spans[0].parent, spans[1].parent), (context.span, 0));
        assert!(spans.iter().all(|span| span.context.trace == context.trace));
        assert!(spans[0].began_ns >= spans[1].began_ns);
        assert_eq!(keeper.held(), 0);
    }

    #[test]
    fn what_was_not_sampled_leaves_if_anything_failed_or_was_slow() {
        let (keeper, mut left) = keeper(0.0, Duration::from_millis(5));
        let quick = Span::root(&keeper, "root", Kind::Server).patient();
        drop(within(&quick, "part").patient());
        drop(quick);
        assert!(left.try_recv().is_err());
        let failing = Span::root(&keeper, "root", Kind::Server).patient();
        let mut part = within(&failing, "part");
        part.fail("there is no quorum");
        drop((part, failing));
        assert_eq!(left.try_recv().unwrap()[0].failure.as_deref(), Some("there is no quorum"));
        let slow = Span::root(&keeper, "root", Kind::Server).patient();
        let part = within(&slow, "part").since(Instant::now() - Duration::from_millis(6));
        drop((part, slow));
        assert_eq!(left.try_recv().unwrap().len(), 2);
        // Others chose how long it took.
        drop(Span::root(&keeper, "root", Kind::Server).since(Instant::now() - Duration::from_millis(6)).patient());
        assert!(left.try_recv().is_err());
        let mut mended = Span::root(&keeper, "root", Kind::Server).patient();
        mended.fail("given up");
        mended.succeed();
        drop(mended);
        assert!(left.try_recv().is_err());
    }

    #[test]
    fn a_decision_crosses_processes_in_both_directions() {
        let (keeper, mut left) = keeper(0.0, SLOW);
        let asking = Span::root(&keeper, "asking", Kind::Client);
        let context = asking.context().unwrap();
        assert!(!context.sampled);
        // Elsewhere it fails, and is kept; whoever asked hears of it.
        let mut answering = Span::remote(&keeper, context, "answering", Kind::Server);
        answering.fail("no disk");
        let answered = answering.end();
        asking.heed(answered);
        assert!(asking.context().unwrap().sampled, "whoever is asked next keeps it, too");
        drop(asking);
        let spans: Vec<Ended> = std::iter::from_fn(|| left.try_recv().ok()).flatten().collect();
        assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["answering", "asking"]);
        assert_eq!((spans[0].context.trace, spans[0].parent), (spans[1].context.trace, spans[1].context.span));
        // Another trace's answer says nothing of this one.
        let asking = Span::root(&keeper, "asking", Kind::Client);
        asking.heed(answered);
        assert!(!asking.context().unwrap().sampled);
    }

    #[test]
    fn what_ends_late_goes_the_way_of_its_trace() {
        let (keeper, mut left) = keeper(0.0, SLOW);
        for fails in [false, true] {
            let mut root = Span::root(&keeper, "root", Kind::Server);
            let late = within(&root, "late");
            if fails {
                root.fail("so it is");
            }
            drop(root);
            assert_eq!(left.try_recv().is_ok(), fails);
            drop(late);
            assert_eq!(left.try_recv().is_ok(), fails);
        }
        assert_eq!(keeper.held(), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_lost_is_counted() {
        let (keeper, mut left) = keeper(1.0, SLOW);
        let root = Span::root(&keeper, "root", Kind::Server);
        for _ in 0..SPANS_PER_TRACE_MAX + 3 {
            drop(within(&root, "part"));
        }
        drop(root);
        assert_eq!(left.try_recv().unwrap().len(), SPANS_PER_TRACE_MAX + 1);
        assert_eq!(keeper.lost().held, 3);

        let roots: Vec<Span> = (0..=SPANS_HELD_MAX / SPANS_PER_TRACE_MAX)
            .map(|_| {
                let root = Span::remote(&keeper, Context { sampled: false, ..any() }, "root", Kind::Server);
                (0..SPANS_PER_TRACE_MAX).for_each(|_| drop(within(&root, "part")));
                root
            })
            .collect();
        assert_eq!(keeper.held(), SPANS_HELD_MAX);
        assert_eq!(keeper.lost().held, 3 + SPANS_PER_TRACE_MAX as u64);
        drop(roots);
        assert_eq!(keeper.held(), 0);

        // Nobody takes what leaves.
        for _ in 0..20 {
            drop(Span::root(&keeper, "root", Kind::Server));
        }
        assert_eq!(keeper.lost().queued, 4);
    }

    fn any() -> Context {
        Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap()
    }

    #[test]
    fn a_rate_is_a_share_of_traces() {
        let (keeper, _left) = keeper(0.25, SLOW);
        let sampled = (0..10_000).filter(|_| keeper.samples(&ids::trace())).count();
        assert!((2_200..2_800).contains(&sampled), "{sampled}");
    }

    /// The only test of this process that installs a keeper.
    #[tokio::test]
    async fn the_current_span_is_whose_future_is_polled() {
        assert!(!root("nobody traces", Kind::Server).is_on());
        assert!(current().is_none());
        let (keeper, mut left) = keeper(0.0, SLOW);
        assert!(install(keeper.clone()));
        assert!(!install(keeper));
        assert!(!child("nobody's", Kind::Internal).is_on());
        let span = root("root", Kind::Server);
        let context = span.context().unwrap();
        span.scope(async {
            assert_eq!(current(), Some(context));
            let part = child("part", Kind::Internal);
            let inner = part.context().unwrap();
            part.scope(async {
                tokio::task::yield_now().await;
                assert_eq!(current(), Some(inner));
            })
            .await;
            assert_eq!(current(), Some(context));
            // A task of its own is outside, unless it is told.
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        })
        .await;
        assert_eq!(span.enter(quoted_id), Some(context.trace));
        drop(span);
        let names: Vec<String> = left.try_recv().unwrap().iter().map(|span| span.name.to_string()).collect();
        assert_eq!(names, ["part", "root"], "an id that was told is kept");
        assert!(!remote(None, "none", Kind::Server).is_on());
        assert!(continued(None, "new", Kind::Consumer).is_on());
        let here = remote(Some(any()), "here", Kind::Server);
        assert_eq!(here.context().unwrap().trace, any().trace);
    }
}
