//! Standing for election in many groups at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::beat::{self, NO_GROUP};
use crate::election::rules::{self, Standing};
use crate::election::voter;
use crate::host::Inner;
use crate::ids::{Member, NodeId};
use crate::quiesce::ANSWER_MAX;
use crate::replica::Replica;
use crate::transport::Link;
use crate::types::Vote;
use crate::wire::{Asked, Ballots, GroupBallot, GroupBallotAnswer, Refusal, answer, ballots, message};

/// Instances of consensus that are started at the same time for groups that cannot do without.
const STARTS_AT_ONCE: usize = 16;

/// What is left to be done of a batch.
#[derive(Default)]
pub(crate) struct Results {
    /// To be asked for again soon: somebody has not noticed yet that the leader is gone. Nothing has changed by asking.
    pub(crate) early: Vec<Arc<Replica>>,
    /// Consensus has to elect: a peer does not know how to vote like this, or is terms ahead.
    pub(crate) consensus: Vec<Arc<Replica>>,
}

/// A group in which this node stands.
struct Candidacy {
    replica: Arc<Replica>,
    standing: Standing,
    /// The vote that it asks for.
    vote: Vote,
    /// The others.
    voters: BTreeMap<NodeId, Member>,
    learners: BTreeMap<NodeId, Member>,
    /// All who vote, itself among them.
    count: usize,
}

/// The ways to the peers, kept for as long as a batch takes: each question on a connection of its own would cost more than the question.
type Links = BTreeMap<NodeId, Arc<dyn Link>>;

fn links(inner: &Inner, candidacies: &[Candidacy]) -> Links {
    let mut links = Links::new();
    for candidacy in candidacies {
        for (peer, member) in candidacy.voters.iter().chain(&candidacy.learners) {
            links.entry(*peer).or_insert_with(|| inner.network.transport.link(*peer, &member.address));
        }
    }
    links
}

/// What the peers have answered of one group.
#[derive(Default)]
struct Tally {
    granted: BTreeSet<NodeId>,
    refused: BTreeMap<NodeId, Option<Vote>>,
    /// Those that do not know the frame.
    unknown: BTreeSet<NodeId>,
}

impl Tally {
    fn add(&mut self, peer: NodeId, answer: &GroupBallotAnswer) {
        if answer.granted {
            self.granted.insert(peer);
        } else {
            self.refused.insert(peer, voter::answered_vote(answer));
        }
    }
}

impl Candidacy {
    fn new(node: NodeId, replica: Arc<Replica>) -> Option<Self> {
        let standing = replica.parked()?.standing();
        let status = replica.status();
        let count = status.voters.len();
        if !status.voters.contains_key(&node) {
            return None;
        }
        let others = |members: BTreeMap<NodeId, Member>| members.into_iter().filter(|(id, _)| *id != node).collect();
        let (voters, learners) = (others(status.voters), others(status.learners));
        Some(Self { vote: standing.candidacy(node), replica, standing, voters, learners, count })
    }

    fn has_quorum(&self, tally: &Tally) -> bool {
        tally.granted.len() + 1 >= rules::quorum(self.count)
    }

    fn ballot(&self, vote: &Vote) -> GroupBallot {
        let (group, last_log) = (self.replica.identity(), Some(self.standing.last_log));
        GroupBallot::from(&Asked { group, vote: *vote, last_log })
    }
}

/// Stands in all of these groups, whose replicas are parked, and returns what is left to be done.
pub(crate) async fn stand(inner: Arc<Inner>, replicas: Vec<Arc<Replica>>, room: OwnedSemaphorePermit) -> Results {
    let began = Instant::now();
    let node = inner.options.node;
    let candidacies = replicas.into_iter().filter_map(|replica| Candidacy::new(node, replica)).collect::<Vec<_>>();
    let groups = candidacies.len();
    // Of before this node leads any of them: what wakes one later is a later wake.
    let wake = inner.quiescence.wake();
    let mut results = Results::default();
    let links = links(&inner, &candidacies);
    let elected = elect(&inner, &links, candidacies, &mut results).await;
    drop(room);
    let (won, took) = (elected.len(), began.elapsed());
    tracing::info!(groups, won, took_ms = took.as_millis(), "stood for election where leaders are silent");
    if won > 0 {
        metrics::counter!("postrider_raft_elected_parked_total").increment(won as u64);
        metrics::histogram!("postrider_raft_election_seconds").record(took);
        // Nobody waits for it: they lead already.
        tokio::spawn(async move {
            let awake = announce(&inner, &links, elected, wake).await;
            start(&inner, awake).await;
        });
    }
    results
}

/// Starts consensus of replicas, some at a time.
async fn start(inner: &Arc<Inner>, replicas: Vec<Arc<Replica>>) {
    futures::stream::iter(replicas)
        .for_each_concurrent(STARTS_AT_ONCE, |replica| async move {
            // One that does not start says so itself.
            drop(inner.instance(&replica).await);
        })
        .await;
}

/// Returns what this node leads now.
async fn elect(
    inner: &Arc<Inner>,
    links: &Links,
    candidacies: Vec<Candidacy>,
    results: &mut Results,
) -> Vec<Candidacy> {
    let candidacies = ask_votes(inner, links, ballots::Kind::PreVote, candidacies, results).await;
    // All at once, so that what they write shares a sync.
    let voted = join_all(candidacies.iter().map(|candidacy| vote_for_itself(inner, candidacy))).await;
    let candidacies = keep(candidacies, voted);
    let candidacies = ask_votes(inner, links, ballots::Kind::Vote, candidacies, results).await;
    let led = join_all(candidacies.iter().map(|candidacy| lead(inner, candidacy))).await;
    keep(candidacies, led)
}

/// Keeps those for which a step has succeeded.
fn keep(candidacies: Vec<Candidacy>, done: Vec<bool>) -> Vec<Candidacy> {
    candidacies.into_iter().zip(done).filter_map(|(candidacy, is_done)| is_done.then_some(candidacy)).collect()
}

/// False when something has happened since it was asked for: a leader spoke, or somebody else got this vote.
async fn vote_for_itself(inner: &Arc<Inner>, candidacy: &Candidacy) -> bool {
    let Candidacy { replica, standing, vote, .. } = candidacy;
    let may = |now: &Standing| now == standing && !replica.is_quiesced() && voter::is_free(inner, replica);
    voter::write(inner, replica, *vote, may).await.is_ok()
}

/// Asks the other voters, and keeps the candidacies that a quorum grants.
async fn ask_votes(
    inner: &Arc<Inner>,
    links: &Links,
    kind: ballots::Kind,
    candidacies: Vec<Candidacy>,
    results: &mut Results,
) -> Vec<Candidacy> {
    let limit = Duration::from_millis(inner.options.timings.election_min_ms);
    let frame = Ballots { kind: kind.into(), ..Ballots::default() };
    let is_decided =
        |tallies: &[Tally]| candidacies.iter().zip(tallies).all(|(candidacy, tally)| candidacy.has_quorum(tally));
    let peers = |candidacy: &Candidacy| candidacy.voters.keys().copied().collect();
    let ballot = |candidacy: &Candidacy| candidacy.ballot(&candidacy.vote);
    let tallies = ask(inner, links, &frame, &candidacies, (peers, ballot), limit, is_decided).await;
    let mut kept = Vec::with_capacity(candidacies.len());
    for (candidacy, tally) in candidacies.into_iter().zip(tallies) {
        if candidacy.has_quorum(&tally) {
            kept.push(candidacy);
            continue;
        }
        let is_ahead =
            |vote: &Option<Vote>| vote.is_some_and(|vote| vote.leader_id.term >= candidacy.vote.leader_id.term);
        if !tally.unknown.is_empty() || tally.refused.values().any(is_ahead) {
            results.consensus.push(candidacy.replica);
        } else if kind == ballots::Kind::PreVote && tally.refused.values().any(Option::is_some) {
            results.early.push(candidacy.replica);
        }
    }
    kept
}

/// Asks each peer about all groups that it is in, in one frame, until it is decided or the time is over.
async fn ask(
    inner: &Inner,
    links: &Links,
    frame: &Ballots,
    candidacies: &[Candidacy],
    (peers, ballot): (impl Fn(&Candidacy) -> Vec<NodeId>, impl Fn(&Candidacy) -> GroupBallot),
    limit: Duration,
    is_decided: impl Fn(&[Tally]) -> bool,
) -> Vec<Tally> {
    let mut frames: BTreeMap<NodeId, (Vec<usize>, Ballots)> = BTreeMap::new();
    for (at, candidacy) in candidacies.iter().enumerate() {
        for peer in peers(candidacy) {
            let (places, asked) = frames.entry(peer).or_insert_with(|| (Vec::new(), frame.clone()));
            places.push(at);
            asked.ballots.push(ballot(candidacy));
        }
    }
    // One that is known to be gone is asked, too, but nobody waits for it.
    let lease = inner.options.timings.lease();
    let is_silent = |peer: &NodeId| inner.quiescence.is_silent(*peer, lease);
    let mut awaited: BTreeSet<NodeId> = frames.keys().copied().filter(|peer| !is_silent(peer)).collect();
    if awaited.is_empty() {
        awaited = frames.keys().copied().collect();
    }
    let mut asking = FuturesUnordered::new();
    for (peer, (places, asked)) in frames {
        let Some(link) = links.get(&peer) else { continue };
        metrics::counter!("postrider_raft_ballot_frames_total").increment(1);
        asking.push(async move {
            let answered = beat::ask(&**link, NO_GROUP, message::Body::Ballots(asked)).await;
            (peer, places, answered)
        });
    }
    let mut tallies: Vec<Tally> = candidacies.iter().map(|_| Tally::default()).collect();
    let deadline = Instant::now() + limit;
    while !awaited.is_empty()
        && !is_decided(&tallies)
        && let Ok(Some((peer, places, answered))) = tokio::time::timeout_at(deadline, asking.next()).await
    {
        awaited.remove(&peer);
        count(inner, &mut tallies, peer, &places, answered);
    }
    tallies
}

/// Takes in what one peer has answered, if it has.
fn count(inner: &Inner, tallies: &mut [Tally], peer: NodeId, places: &[usize], answered: Option<answer::Body>) {
    let mut each = |with: &mut dyn FnMut(&mut Tally, usize)| {
        for (nth, at) in places.iter().enumerate() {
            if let Some(tally) = tallies.get_mut(*at) {
                with(tally, nth);
            }
        }
    };
    match answered {
        Some(answer::Body::Ballots(answers)) if answers.answers.len() == places.len() => {
            each(&mut |tally, nth| {
                if let Some(answer) = answers.answers.get(nth) {
                    tally.add(peer, answer);
                }
            });
        }
        // Whoever does not know a message calls it malformed.
        Some(answer::Body::Refused(refusal)) if refusal == i32::from(Refusal::Malformed) => {
            inner.elections.note_unknown(peer);
            each(&mut |tally, _| {
                tally.unknown.insert(peer);
            });
        }
        // There, and of no use.
        Some(_) => each(&mut |tally, _| {
            tally.refused.insert(peer, None);
        }),
        None => {}
    }
}

/// A quorum has granted it: it leads, and sleeps. False when somebody got the replica's vote since, or started its consensus.
async fn lead(inner: &Inner, candidacy: &Candidacy) -> bool {
    let Candidacy { replica, vote, .. } = candidacy;
    let _turn = replica.turn().await;
    let Some(parked) = replica.parked().filter(|_| !replica.is_closed()) else { return false };
    if parked.vote != *vote || replica.is_quiesced() {
        return false;
    }
    let won = rules::won(*vote);
    if voter::persist(inner, replica, parked.standing(), won).await.is_err() {
        return false;
    }
    replica.lead_parked(inner.options.node, won.leader_id.term);
    true
}

/// Tells the members of the groups that this node leads now that they may sleep on. Those that cannot be told so have to hear from a
/// leader that is awake, and are returned.
async fn announce(inner: &Inner, links: &Links, elected: Vec<Candidacy>, wake: u64) -> Vec<Arc<Replica>> {
    let life = inner.quiescence.life();
    let frame = Ballots { kind: ballots::Kind::Lead.into(), life, wake, ..Ballots::default() };
    let all = |candidacy: &Candidacy| candidacy.voters.keys().chain(candidacy.learners.keys()).copied().collect();
    let ballot = |candidacy: &Candidacy| candidacy.ballot(&rules::won(candidacy.vote));
    let agreed_all = |tallies: &[Tally]| {
        elected
            .iter()
            .zip(tallies)
            .all(|(candidacy, tally)| tally.granted.len() == candidacy.voters.len() + candidacy.learners.len())
    };
    let tallies = ask(inner, links, &frame, &elected, (all, ballot), ANSWER_MAX, agreed_all).await;
    let mut awake = Vec::new();
    for (candidacy, tally) in elected.into_iter().zip(tallies) {
        let Candidacy { replica, learners, voters, standing, count, .. } = candidacy;
        let agreed = voters.keys().filter(|voter| tally.granted.contains(voter)).count();
        // Voters who are gone find the leader when they come back: they stand, and it wakes. Learners do not.
        let is_told = tally.refused.is_empty()
            && tally.unknown.is_empty()
            && agreed + 1 >= rules::quorum(count)
            && learners.keys().all(|learner| tally.granted.contains(learner));
        if !replica.leads_quiesced() {
            // It was used meanwhile. Those who have agreed since hear of it with the next beat.
            inner.quiescence.note_wake(replica.group);
        } else if is_told {
            inner.quiescence.note_askers(tally.granted.iter().copied());
            replica.note_matched(tally.granted, standing.last_log.index);
        } else {
            awake.push(replica);
        }
    }
    awake
}
