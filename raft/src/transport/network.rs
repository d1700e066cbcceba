//! openraft's view of the network: one group's messages to one member.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesOrdered, Stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::ids::{GroupIdentity, Member, NodeId};
use crate::options::{Limits, Timings};
use crate::snapshot::SnapshotData;
use crate::transport::addresses::Addresses;
use crate::transport::{Class, Link, LinkError, Reply, Transport, sending};
use crate::types::{LogId, Term, Types, Vote};
use crate::wire::{self, AppendAnswer, Ballot, answer, append_answer, message, transfer_answer};

/// What all groups' networks share.
pub(crate) struct NetworkShared {
    pub(crate) node: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) timings: Timings,
    pub(crate) limits: Limits,
    /// Snapshots that this node sends at once.
    pub(crate) sending: Arc<Semaphore>,
}

/// Makes the networks of one group.
pub(crate) struct NetworkFactory {
    pub(crate) group: GroupIdentity,
    pub(crate) shared: Arc<NetworkShared>,
}

impl NetworkFactory {
    fn network(&self, to: NodeId, member: &Member, class: Class) -> Network {
        Network {
            group: self.group,
            to,
            link: self.shared.transport.link(to, &self.shared.addresses.of(to, &member.address)),
            class,
            shared: self.shared.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Network {
        self.network(target, node, Class::Log)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> Network {
        self.network(target, node, Class::Control)
    }
}

/// One group's way to one member. Appends go by its class; votes and transfers are control messages always.
pub(crate) struct Network {
    pub(crate) group: GroupIdentity,
    pub(crate) to: NodeId,
    pub(crate) link: Arc<dyn Link>,
    class: Class,
    pub(crate) shared: Arc<NetworkShared>,
}

/// Pauses before a peer that could not be reached is tried again. Short: the lane has a pause of its own, for all groups.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_LATER: Duration = Duration::from_millis(250);

pub(crate) fn rpc_error(error: LinkError) -> RPCError<Types> {
    match error {
        LinkError::Unreachable(reason) => RPCError::Unreachable(Unreachable::from_string(reason)),
        LinkError::Lost(reason) => RPCError::Network(NetworkError::from_string(reason)),
    }
}

fn unexpected() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string("an answer of another kind"))
}

fn refused(refusal: i32) -> RPCError<Types> {
    let refusal = wire::Refusal::try_from(refusal).unwrap_or(wire::Refusal::Unspecified);
    RPCError::Unreachable(Unreachable::from_string(refusal.as_str_name()))
}

pub(crate) fn malformed(error: wire::Malformed) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl Network {
    pub(crate) async fn ask(
        &self,
        class: Class,
        body: message::Body,
        limit: Duration,
    ) -> Result<answer::Body, RPCError<Types>> {
        let asked = async {
            let reply = self.link.send(class, self.group, body).await?;
            reply.await.map_err(|_| LinkError::Lost("the link is closed".to_owned()))?
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer.map_err(rpc_error),
            Err(_) => Err(timed_out("no answer in time")),
        }
    }

    async fn ballot(&self, body: message::Body, option: &RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Class::Control, body, option.hard_ttl()).await? {
            answer::Body::Ballot(ballot) => {
                let vote = wire::read_vote(ballot.vote.as_ref()).map_err(malformed)?;
                Ok(VoteResponse::new(vote, wire::read_log_id(ballot.last_log.as_ref()), ballot.granted))
            }
            answer::Body::Refused(refusal) => Err(refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    /// How long entries of so many bytes may take to be acknowledged.
    fn append_limit(&self, bytes: usize) -> Duration {
        let transfer = bytes as u64 * 1_000 / self.shared.limits.link_bytes_per_s_min.max(1);
        Duration::from_millis(self.shared.timings.append_ms + transfer)
    }
}

fn timed_out(what: &str) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(what))
}

fn read_append(answer: answer::Body) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
    match answer {
        answer::Body::Append(AppendAnswer { outcome, matched, vote }) => {
            let outcome = append_answer::Outcome::try_from(outcome).unwrap_or(append_answer::Outcome::Unspecified);
            match outcome {
                append_answer::Outcome::Success => Ok(AppendEntriesResponse::Success),
                append_answer::Outcome::Partial => {
                    Ok(AppendEntriesResponse::PartialSuccess(wire::read_log_id(matched.as_ref())))
                }
                append_answer::Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
                append_answer::Outcome::HigherVote => {
                    let vote = wire::read_vote(vote.as_ref()).map_err(malformed)?;
                    Ok(AppendEntriesResponse::HigherVote(vote))
                }
                append_answer::Outcome::Unspecified => Err(unexpected()),
            }
        }
        answer::Body::Refused(refusal) => Err(refused(refusal)),
        _ => Err(unexpected()),
    }
}

/// Entries on their way, and what their success would mean.
struct InFlight {
    previous: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
    result: Result<AppendEntriesResponse<Types>, RPCError<Types>>,
}

/// A message without entries, which only says what is committed, waits so long for entries that say it as well. Commands that come one
/// after the other would need twice as many messages otherwise.
const COMMIT_HELD: Duration = Duration::from_millis(10);

/// One pipelined stream of appends.
///
/// Invariant: a success is passed on only when no other message with the same last entry is under way. openraft takes an
/// acknowledgement of an entry for one of *all* messages that end with it, and counts the lease from when the last of them
/// was sent; a follower may have received only the first (`InflightAppendQueue::drain_acked`, 0.10.0-alpha.37).
struct Appending<'a, S> {
    network: &'a Network,
    input: S,
    ended: bool,
    failed: bool,
    bytes: usize,
    /// What waits for entries, and until when. Only while nothing is in flight: entries that take its place are then the last that
    /// openraft has handed over, and their acknowledgement stands for no message but theirs.
    held: Option<(AppendEntriesRequest<Types>, Instant)>,
    flying: FuturesOrdered<BoxFuture<'static, InFlight>>,
    /// The last entry of each message in `flying`.
    lasts: VecDeque<Option<LogId>>,
}

impl<S> Appending<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RPCError<Types>>> {
        let room = self.network.shared.limits.stream_inflight_bytes_max;
        loop {
            if self.failed || (self.ended && self.flying.is_empty() && self.held.is_none()) {
                return None;
            }
            // One that nothing will follow is not held.
            let held_until = self.held.as_ref().map(|(_, until)| if self.ended { Instant::now() } else { *until });
            tokio::select! {
                biased;
                Some(done) = self.flying.next(), if !self.flying.is_empty() => {
                    if let Some(result) = self.finish(done) {
                        return Some(result);
                    }
                }
                request = self.input.next(), if !self.ended && self.bytes < room => match request {
                    Some(request) if request.entries.is_empty() && self.flying.is_empty() => {
                        let until = held_until.unwrap_or_else(|| Instant::now() + COMMIT_HELD);
                        self.held = Some((request, until));
                    }
                    Some(request) => {
                        // It says what the held one would have said.
                        self.held = None;
                        if let Err(error) = self.launch(request).await {
                            return Some(Err(error));
                        }
                    }
                    None => self.ended = true,
                },
                () = tokio::time::sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {
                    let Some((request, _)) = self.held.take() else { continue };
                    if let Err(error) = self.launch(request).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    fn finish(&mut self, done: InFlight) -> Option<Result<StreamAppendResult<Types>, RPCError<Types>>> {
        self.bytes -= done.bytes;
        self.lasts.pop_front();
        let same_under_way = self.lasts.front().is_some_and(|next| *next == done.last);
        Some(match done.result {
            Ok(AppendEntriesResponse::Success) if same_under_way => return None,
            Ok(response) => {
                let result = response.into_stream_result(done.previous, done.last);
                // openraft goes on with another stream, from where the follower is.
                self.failed |= result.is_err();
                Ok(result)
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        })
    }

    async fn launch(&mut self, request: AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        let launched = self.send(request).await;
        self.failed |= launched.is_err();
        launched
    }

    async fn send(&mut self, request: AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let append = wire::Append::from(request);
        let bytes = append.entry_bytes();
        let limit = self.network.append_limit(self.bytes + bytes);
        let body = message::Body::Append(append);
        let sent = self.network.link.send(self.network.class, self.network.group, body);
        let reply = match tokio::time::timeout(limit, sent).await {
            Ok(reply) => reply.map_err(rpc_error)?,
            Err(_) => return Err(timed_out("the link has no room")),
        };
        self.bytes += bytes;
        let deadline = Instant::now() + limit;
        self.lasts.push_back(last);
        self.flying.push_back(Box::pin(async move {
            let result = acknowledged(reply, deadline).await;
            InFlight { previous, last, bytes, result }
        }));
        Ok(())
    }
}

async fn acknowledged(reply: Reply, deadline: Instant) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
    match tokio::time::timeout_at(deadline, reply).await {
        Ok(Ok(Ok(answer))) => read_append(answer),
        Ok(Ok(Err(error))) => Err(rpc_error(error)),
        Ok(Err(_)) => Err(rpc_error(LinkError::Lost("the link is closed".to_owned()))),
        Err(_) => Err(timed_out("entries were not acknowledged in time")),
    }
}

type OutgoingSnapshot = Snapshot<Term, NodeId, Member, SnapshotData>;

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let append = wire::Append::from(rpc);
        let limit = self.append_limit(append.entry_bytes());
        read_append(self.ask(self.class, message::Body::Append(append), limit).await?)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let appending = Appending {
            network: self,
            input,
            ended: false,
            failed: false,
            bytes: 0,
            held: None,
            flying: FuturesOrdered::new(),
            lasts: VecDeque::new(),
        };
        let results = futures::stream::unfold(appending, |mut appending| async move {
            let result = appending.next().await?;
            Some((result, appending))
        });
        Box::pin(std::future::ready(Ok(results.boxed())))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(message::Body::Vote(Ballot::from(&rpc)), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(message::Body::PreVote(Ballot::from(&rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: OutgoingSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else {
            return Err(StreamingError::Network(NetworkError::from_string("not a state to send")));
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending::send(self, outgoing, vote) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let expected = *req.from_leader();
        let expected_log = req.last_log_id().copied();
        let transfer = wire::Transfer {
            from: Some((&expected).into()),
            to: req.to_node_id().0,
            last_log: expected_log.as_ref().map(Into::into),
        };
        let answer = self.ask(Class::Control, message::Body::Transfer(transfer), option.hard_ttl()).await?;
        match answer {
            answer::Body::Transfer(answer) => read_transfer(&answer, expected, expected_log),
            answer::Body::Refused(refusal) => Err(refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::once(BACKOFF_FIRST).chain(std::iter::repeat(BACKOFF_LATER))))
    }
}

fn read_transfer(
    answer: &wire::TransferAnswer,
    expected: Vote,
    expected_log: Option<LogId>,
) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
    let outcome = transfer_answer::Outcome::try_from(answer.outcome).unwrap_or(transfer_answer::Outcome::Unspecified);
    match outcome {
        transfer_answer::Outcome::Accepted => Ok(Ok(())),
        transfer_answer::Outcome::VoteChanged => {
            let actual = wire::read_vote(answer.vote.as_ref()).map_err(malformed)?;
            Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
        }
        transfer_answer::Outcome::LogNotFlushed => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: expected_log,
            actual: wire::read_log_id(answer.flushed.as_ref()),
        })),
        transfer_answer::Outcome::Unspecified => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::ids::{GroupId, Incarnation};
    use crate::types::{Entry, Payload, log_id};
    use crate::wire::{Append, InstallAnswer, SnapshotPart};

    type Told = oneshot::Sender<Result<answer::Body, LinkError>>;

    /// Hands over what is sent, with the means to answer it.
    #[derive(Clone)]
    struct Wire(mpsc::UnboundedSender<(Append, Told)>);

    impl Link for Wire {
        fn send(&self, _: Class, _: GroupIdentity, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>> {
            let (tell, reply) = oneshot::channel();
            let message::Body::Append(append) = body else { panic!("only entries are sent") };
            self.0.send((append, tell)).expect("the test listens");
            Box::pin(std::future::ready(Ok(reply)))
        }

        fn install(&self, _: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'_, Result<InstallAnswer, LinkError>> {
            panic!("no snapshot is sent")
        }
    }

    impl Transport for Wire {
        fn link(&self, _: NodeId, _: &str) -> Arc<dyn Link> {
            Arc::new(self.clone())
        }
    }

    /// One stream of appends between openraft and the network.
    struct Streaming {
        requests: mpsc::UnboundedSender<AppendEntriesRequest<Types>>,
        sent: mpsc::UnboundedReceiver<(Append, Told)>,
        results: mpsc::UnboundedReceiver<Option<LogId>>,
    }

    impl Streaming {
        fn start() -> Self {
            let (requests, input) = mpsc::unbounded_channel();
            let (wire, sent) = mpsc::unbounded_channel();
            let (tell, results) = mpsc::unbounded_channel();
            let transport: Arc<dyn Transport> = Arc::new(Wire(wire));
            let mut network = Network {
                group: GroupIdentity { id: GroupId(1), incarnation: Incarnation(1) },
                to: NodeId(2),
                link: transport.link(NodeId(2), ""),
                class: Class::Log,
                shared: Arc::new(NetworkShared {
                    node: NodeId(1),
                    transport,
                    addresses: Arc::default(),
                    timings: Timings::default(),
                    limits: Limits::default(),
                    sending: Arc::new(Semaphore::new(1)),
                }),
            };
            tokio::spawn(async move {
                let option = RPCOption::new(Duration::from_secs(1));
                let streamed = network.stream_append(UnboundedReceiverStream::new(input), option).await;
                let mut results = streamed.expect("a stream");
                while let Some(result) = results.next().await {
                    if tell.send(result.expect("no error").expect("no conflict")).is_err() {
                        // The test has seen enough.
                        return;
                    }
                }
            });
            Self { requests, sent, results }
        }

        /// Hands over entries from `first` on that follow each other, or none.
        fn append(&self, first: u64, entries: u64, committed: u64) {
            let entry = |index| Entry { log_id: log_id(1, index), payload: Payload::Blank };
            let request = AppendEntriesRequest {
                vote: Vote::new_committed(1, NodeId(1)),
                prev_log_id: Some(log_id(1, first - 1)),
                leader_commit: Some(log_id(1, committed)),
                entries: (first..first + entries).map(entry).collect(),
            };
            self.requests.send(request).expect("the stream goes on");
        }

        /// How many entries the next message has, what it says is committed, and what answers it.
        async fn sent(&mut self) -> (usize, u64, Told) {
            let (append, tell) = self.sent.recv().await.expect("a message");
            (append.entries.len(), append.commit.expect("committed").index, tell)
        }

        async fn acknowledged(&mut self) -> u64 {
            self.results.recv().await.expect("a result").expect("an entry").index
        }
    }

    fn accept(tell: Told) {
        let outcome = append_answer::Outcome::Success.into();
        let success = AppendAnswer { outcome, matched: None, vote: None };
        tell.send(Ok(answer::Body::Append(success))).expect("somebody waits");
    }

    #[tokio::test]
    async fn what_is_committed_travels_with_the_entries_that_come_next() {
        let mut stream = Streaming::start();
        stream.append(1, 1, 0);
        let (entries, committed, tell) = stream.sent().await;
        assert_eq!((entries, committed), (1, 0));
        accept(tell);
        assert_eq!(stream.acknowledged().await, 1);

        stream.append(2, 0, 1);
        stream.append(2, 3, 1);
        let (entries, committed, tell) = stream.sent().await;
        assert_eq!((entries, committed), (3, 1));
        accept(tell);
        assert_eq!(stream.acknowledged().await, 4);
        assert!(stream.sent.try_recv().is_err(), "the other is not sent as well");
    }

    #[tokio::test]
    async fn without_entries_it_travels_alone_a_little_later_or_when_none_can_come() {
        let mut stream = Streaming::start();
        let began = Instant::now();
        stream.append(2, 0, 1);
        let (entries, committed, tell) = stream.sent().await;
        assert_eq!((entries, committed), (0, 1));
        assert!(began.elapsed() >= COMMIT_HELD);
        accept(tell);
        assert_eq!(stream.acknowledged().await, 1);

        stream.append(2, 0, 1);
        let Streaming { requests, mut sent, mut results } = stream;
        drop(requests);
        let (_, tell) = sent.recv().await.expect("a message");
        accept(tell);
        assert!(results.recv().await.is_some() && results.recv().await.is_none());
    }

    /// An acknowledgement of an entry counts for all messages that end with it: none of them may be left out.
    #[tokio::test]
    async fn nothing_is_held_while_its_entry_is_under_way() {
        let mut stream = Streaming::start();
        stream.append(1, 1, 0);
        stream.append(2, 0, 1);
        stream.append(2, 1, 1);
        let mut tells = Vec::new();
        for expected in [1, 0, 1] {
            let (entries, _, tell) = stream.sent().await;
            assert_eq!(entries, expected);
            tells.push(tell);
        }
        tells.into_iter().for_each(accept);
        assert_eq!(stream.acknowledged().await, 1);
        assert_eq!(stream.acknowledged().await, 2);
        assert!(stream.results.try_recv().is_err());
    }
}
