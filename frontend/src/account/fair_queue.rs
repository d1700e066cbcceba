//! Turns at something that few may do at once, given out fairly: the networks that wait are served in rotation, whatever the length
//! of each one's line.
//!
//! Invariant: one network that fills the queue delays another by one turn of its own, not by its line; and a full queue has room for
//! whoever waits with less than the longest line has.
//! Invariant: those who are known and those who are strangers take turns, so that neither waits for the other's crowd.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::network::Network;

/// Which of the two rotations somebody waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Has been here before.
    Known,
    /// Has not.
    Stranger,
}

/// Gives turns. Cheap to clone.
#[derive(Clone)]
pub(super) struct FairQueue {
    state: Arc<Mutex<State>>,
}

struct State {
    running: usize,
    running_max: usize,
    waiting: usize,
    waiting_max: usize,
    known: Rotation,
    strangers: Rotation,
    /// Whose rotation comes next when both wait.
    next: Standing,
}

/// Those who wait, in a line for each network.
#[derive(Default)]
struct Rotation {
    order: VecDeque<Network>,
    lines: HashMap<Network, VecDeque<oneshot::Sender<Turn>>>,
}

/// A turn; over when it is dropped.
pub(super) struct Turn {
    /// None when nobody took it, and it went to another.
    queue: Option<FairQueue>,
}

/// Too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

impl FairQueue {
    /// So many turns at once; so many who wait for one.
    pub(super) fn new(running_max: usize, waiting_max: usize) -> Self {
        let (known, strangers) = (Rotation::default(), Rotation::default());
        let next = Standing::Known;
        let state = State { running: 0, running_max, waiting: 0, waiting_max, known, strangers, next };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a turn. Whoever stops waiting has left the line.
    ///
    /// # Errors
    /// When the queue is full of those who wait with no more than this network has, or becomes so.
    pub(super) async fn turn(&self, network: Network, standing: Standing) -> Result<Turn, Crowded> {
        // All networks of a site wait in one line: it is one subscriber who can have 65,536 of them.
        let network = network.site().unwrap_or(network);
        let waits = {
            let mut state = self.state.lock();
            if state.running < state.running_max {
                state.running += 1;
                return Ok(Turn { queue: Some(self.clone()) });
            }
            if state.waiting >= state.waiting_max {
                state.make_room(network, standing)?;
            }
            state.waiting += 1;
            state.rotation(standing).join(network)
        };
        // The sender goes when somebody with a shorter line needs the place.
        waits.await.map_err(|_| Crowded)
    }
}

impl State {
    fn rotation(&mut self, standing: Standing) -> &mut Rotation {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Stranger => &mut self.strangers,
        }
    }

    /// Sends the last of the longest line away, if that is longer than the newcomer's own would be.
    fn make_room(&mut self, network: Network, standing: Standing) -> Result<(), Crowded> {
        self.forget_those_who_left();
        if self.waiting < self.waiting_max {
            return Ok(());
        }
        let own = self.rotation(standing).length(network);
        let longest =
            [Standing::Stranger, Standing::Known].map(|standing| (self.rotation(standing).longest(), standing));
        let Some(((length, crowd), standing)) =
            longest.into_iter().filter_map(|(line, standing)| Some((line?, standing))).max_by_key(|(line, _)| line.0)
        else {
            return Err(Crowded);
        };
        if length <= own + 1 {
            return Err(Crowded);
        }
        self.rotation(standing).send_away_last(crowd);
        self.waiting -= 1;
        Ok(())
    }

    fn forget_those_who_left(&mut self) {
        self.known.forget_those_who_left();
        self.strangers.forget_those_who_left();
        self.waiting = self.known.waiting() + self.strangers.waiting();
    }

    /// The next who has a turn.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let first = self.next;
        let second = if first == Standing::Known { Standing::Stranger } else { Standing::Known };
        for (standing, then) in [(first, second), (second, first)] {
            if let Some(waits) = self.rotation(standing).next() {
                self.waiting -= 1;
                self.next = then;
                return Some(waits);
            }
        }
        None
    }
}

impl Rotation {
    fn join(&mut self, network: Network) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let line = self.lines.entry(network).or_insert_with(|| {
            self.order.push_back(network);
            VecDeque::new()
        });
        line.push_back(sender);
        receiver
    }

    fn length(&self, network: Network) -> usize {
        self.lines.get(&network).map_or(0, VecDeque::len)
    }

    fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    fn longest(&self) -> Option<(usize, Network)> {
        self.order.iter().map(|network| (self.length(*network), *network)).max_by_key(|(length, _)| *length)
    }

    fn send_away_last(&mut self, network: Network) {
        if let Some(line) = self.lines.get_mut(&network) {
            line.pop_back();
            if line.is_empty() {
                self.lines.remove(&network);
                self.order.retain(|other| *other != network);
            }
        }
    }

    fn forget_those_who_left(&mut self) {
        self.lines.retain(|_, line| {
            line.retain(|waits| !waits.is_closed());
            !line.is_empty()
        });
        let lines = &self.lines;
        self.order.retain(|network| lines.contains_key(network));
    }

    /// The first of the network whose turn it is, which then goes to the end of the rotation.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let network = self.order.pop_front()?;
        let line = self.lines.get_mut(&network)?;
        let first = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&network);
        } else {
            self.order.push_back(network);
        }
        first
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        loop {
            let next = {
                let mut state = queue.state.lock();
                let next = state.next();
                if next.is_none() {
                    state.running -= 1;
                }
                next
            };
            let Some(waits) = next else { return };
            match waits.send(Turn { queue: Some(queue.clone()) }) {
                Ok(()) => return,
                // He left while he waited: the next one has it.
                Err(mut unwanted) => unwanted.queue = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::IpAddr;
    use std::pin::Pin;

    use futures::FutureExt as _;

    use super::Standing::{Known, Stranger};
    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn, Crowded>>>>;

    fn network(number: u8) -> Network {
        Network::of(IpAddr::from([192, 0, 2, number]))
    }

    /// Joins the queue, and has to wait.
    fn wait(queue: &FairQueue, number: u8, standing: Standing) -> Waiting {
        let queue = queue.clone();
        let mut waiting: Waiting = Box::pin(async move { queue.turn(network(number), standing).await });
        assert!((&mut waiting).now_or_never().is_none(), "there is no turn yet");
        waiting
    }

    fn ready(waiting: &mut Waiting) -> Option<Result<Turn, Crowded>> {
        waiting.now_or_never()
    }

    fn turn(queue: &FairQueue, number: u8) -> Option<Result<Turn, Crowded>> {
        queue.turn(network(number), Stranger).now_or_never()
    }

    #[test]
    fn one_network_delays_another_by_one_turn() {
        let queue = FairQueue::new(1, 100);
        let running = turn(&queue, 1).unwrap().unwrap();
        let mut flood: Vec<Waiting> = (0..50).map(|_| wait(&queue, 1, Stranger)).collect();
        let mut other = wait(&queue, 2, Stranger);
        drop(running);
        let first = ready(&mut flood[0]).unwrap().unwrap();
        assert!(ready(&mut other).is_none());
        drop(first);
        assert!(ready(&mut other).unwrap().is_ok());
    }

    #[test]
    fn those_who_are_known_do_not_wait_for_a_crowd_of_strangers() {
        let queue = FairQueue::new(1, 100);
        let running = turn(&queue, 1).unwrap().unwrap();
        let mut strangers: Vec<Waiting> = (10..60).map(|number| wait(&queue, number, Stranger)).collect();
        let mut known = [wait(&queue, 1, Known), wait(&queue, 1, Known)];
        drop(running);
        drop(ready(&mut known[0]).unwrap().unwrap());
        drop(ready(&mut strangers[0]).unwrap().unwrap());
        drop(ready(&mut known[1]).unwrap().unwrap());
        drop(ready(&mut strangers[1]).unwrap().unwrap());
    }

    #[test]
    fn a_full_queue_has_room_for_whoever_has_little() {
        let queue = FairQueue::new(1, 10);
        let running = turn(&queue, 1).unwrap().unwrap();
        let mut flood: Vec<Waiting> = (0..10).map(|_| wait(&queue, 1, Stranger)).collect();
        assert_eq!(turn(&queue, 1).unwrap().err(), Some(Crowded), "not for more of the same");
        let mut others: Vec<Waiting> = (2..6).map(|number| wait(&queue, number, Stranger)).collect();
        for last in &mut flood[6..] {
            assert_eq!(ready(last).unwrap().err(), Some(Crowded), "the last of the flood goes");
        }
        drop(running);
        drop(ready(&mut flood[0]).unwrap().unwrap());
        for other in &mut others {
            drop(ready(other).unwrap().unwrap());
        }
        for one in &mut flood[1..6] {
            drop(ready(one).unwrap().unwrap());
        }
        assert!(turn(&queue, 7).unwrap().is_ok(), "the turn comes back");
    }

    #[test]
    fn whoever_leaves_costs_no_turn() {
        let queue = FairQueue::new(1, 3);
        let running = turn(&queue, 1).unwrap().unwrap();
        let mut left: Vec<Waiting> = (1..4).map(|number| wait(&queue, number, Stranger)).collect();
        left.pop();
        left.pop();
        let mut last = wait(&queue, 4, Stranger);
        drop(running);
        drop(left);
        assert!(ready(&mut last).unwrap().is_ok());
        let state = queue.state.lock();
        assert_eq!((state.waiting, state.strangers.order.len(), state.strangers.lines.len()), (0, 0, 0));
    }

    #[test]
    fn a_site_waits_in_one_line() {
        let queue = FairQueue::new(1, 1000);
        let running = turn(&queue, 1).unwrap().unwrap();
        let of_site = |subnet: u16| Network::of(IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]));
        let mut flood: Vec<Waiting> = (0..500)
            .map(|subnet| {
                let queue = queue.clone();
                let mut waiting: Waiting = Box::pin(async move { queue.turn(of_site(subnet), Stranger).await });
                assert!(ready(&mut waiting).is_none());
                waiting
            })
            .collect();
        let mut other = wait(&queue, 2, Stranger);
        drop(running);
        drop(ready(&mut flood[0]).unwrap().unwrap());
        assert!(ready(&mut other).unwrap().is_ok());
    }
}
