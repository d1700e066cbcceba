//! A hundred workers of three regions, each region with a Redis of its own, send as fast as they can to hosts that keep books: of who is connected when,
//! and of when each message came. No limit of a region is exceeded, whoever comes and whatever becomes of the Redises.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_outgoing::limit::PACE_WINDOW;
use postrider_outgoing::smtp::{RemoteRecipient, ReturnContent};
use postrider_outgoing::{Category, Fate, Outbound, Transport, TransportSettings};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tests::until;
use super::*;
use crate::cache::RedisServer;
use crate::nearby::{self, Here};

const REGIONS: usize = 3;
/// All of them; the last tenth comes later.
const WORKERS: usize = 100;
/// What each of them tries at once at each host.
const AT_ONCE: usize = 2;
/// Of one region: fewer than it has workers.
const CONNECTIONS: u32 = 25;
const MESSAGES: u32 = 60;
/// What the host thinks about a message whose connections are counted.
const THINKS: Duration = Duration::from_millis(500);
/// The goodbye of one connection and the greeting of the next cross on their way.
const GOODBYE: Duration = Duration::from_millis(250);

/// What no host says here.
static UNEXPECTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a host has seen.
#[derive(Default)]
struct Books {
    /// When each connection began, and ended if it has.
    connections: Vec<(Instant, Option<Instant>)>,
    messages: Vec<Instant>,
}

struct Host {
    port: u16,
    books: Arc<Mutex<Books>>,
}

impl Host {
    async fn start(thinks: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let books = Arc::<Mutex<Books>>::default();
        let told = Arc::clone(&books);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut books = told.lock();
                    books.connections.push((Instant::now(), None));
                    books.connections.len() - 1
                };
                let books = Arc::clone(&told);
                tokio::spawn(async move {
                    // However it ends, it has.
                    converse(stream, thinks, &books).await.ok();
                    books.lock().connections[number].1 = Some(Instant::now());
                });
            }
        });
        Self { port, books }
    }

    fn connected(&self) -> usize {
        self.books.lock().connections.iter().filter(|(_, end)| end.is_none()).count()
    }

    fn taken(&self) -> usize {
        self.books.lock().messages.len()
    }

    /// The most that were connected at a time.
    fn connected_most(&self) -> i32 {
        let books = self.books.lock();
        let mut changes = Vec::new();
        for (begin, end) in &books.connections {
            changes.push((*begin, 1));
            changes.extend(end.map(|end| ((end - GOODBYE).max(*begin), -1)));
        }
        changes.sort_unstable();
        let mut now = 0;
        changes
            .into_iter()
            .map(|(_, change)| {
                now += change;
                now
            })
            .max()
            .unwrap_or_default()
    }

    /// The most that came within a window.
    fn paced_most(&self) -> usize {
        let books = self.books.lock();
        let within = |(place, last): (usize, &Instant)| {
            let until = books.messages.partition_point(|at| *at + PACE_WINDOW <= *last);
            place + 1 - until
        };
        books.messages.iter().enumerate().map(within).max().unwrap_or_default()
    }
}

async fn converse(stream: TcpStream, thinks: Duration, books: &Mutex<Books>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx ESMTP\r\n").await?;
    let (mut line, mut in_message) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 || line.starts_with("QUIT") {
            return stream.write_all(b"221 2.0.0 bye\r\n").await;
        }
        let reply = match line.trim_end() {
            "." if in_message => {
                // Both before and behind the time at which it counts, its sender has its place.
                books.lock().messages.push(Instant::now());
                tokio::time::sleep(thinks).await;
                in_message = false;
                "250 2.0.0 taken\r\n"
            }
            _ if in_message => continue,
            "DATA" => {
                in_message = true;
                "354 go on\r\n"
            }
            _ => "250 2.0.0 ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// A worker, as far as its region knows it: it sends all the time, to both hosts.
struct Sending {
    workers: Arc<RegionWorkers>,
    stop: CancellationToken,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One worker's part of the region.
struct Shared(Arc<RegionWorkers>);

impl Turns for Shared {
    fn part(&self, destination: &Domain, limit: u32) -> u32 {
        self.0.part(destination, limit)
    }
}

fn send(redis: &RedisServer, crowded: &Host, paced: &Host) -> Sending {
    let workers = RegionWorkers::start(&RedisSettings::single(redis.address())).expect("usable settings");
    let (workers, stop) = (Arc::new(workers), CancellationToken::new());
    for (host, change) in [
        (
            crowded,
            (|settings: &mut TransportSettings| settings.connections_max = CONNECTIONS) as fn(&mut TransportSettings),
        ),
        (paced, |settings: &mut TransportSettings| {
            (settings.connections_max, settings.messages_max) = (1000, Some(MESSAGES))
        }),
    ] {
        let mut settings = nearby::settings(host.port);
        settings.turns = Arc::new(Shared(Arc::clone(&workers)));
        change(&mut settings);
        let transport = Arc::new(Transport::new(Arc::new(Here), settings));
        for _ in 0..AT_ONCE {
            tokio::spawn(stop.clone().run_until_cancelled_owned(send_on(Arc::clone(&transport))));
        }
    }
    Sending { workers, stop }
}

async fn send_on(transport: Arc<Transport>) {
    let body = Bytes::from_static(b"Subject: one of many\r\n\r\n.\r\n");
    let message = Outbound {
        mail_from: "ada@near.example",
        envelope_id: "",
        return_content: ReturnContent::Unspecified,
        require_tls: false,
        smtp_utf8: false,
        body: &body,
        category: Category::Personal,
        route: None,
    };
    let to = [RemoteRecipient { address: "bob@far.example".to_owned(), ..RemoteRecipient::default() }];
    let far = "far.example".parse().expect("a domain");
    loop {
        let deadline = Instant::now() + Duration::from_secs(120);
        for attempt in transport.attempt(&message, &far, &to, deadline).await {
            match attempt.fate {
                Fate::Accepted { .. } => {}
                // It has no part now.
                Fate::Deferred { .. } => tokio::time::sleep(Duration::from_millis(200)).await,
                other => UNEXPECTED.lock().push(format!("{other:?}")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_workers_of_three_regions_never_exceed_what_a_host_bears() {
    let mut redises: Vec<RedisServer> = (0..REGIONS).map(|_| RedisServer::start()).collect();
    let (crowded, paced) = (Host::start(THINKS).await, Host::start(Duration::ZERO).await);
    // Before and behind each blow, so many more messages as all of them may in a window.
    let in_window = MESSAGES as usize * REGIONS;
    let more = async |what: &str| {
        let before = paced.taken();
        until(what, || paced.taken() >= before + in_window).await;
    };
    let start = |n: usize, redises: &[RedisServer]| send(&redises[n % REGIONS], &crowded, &paced);
    let mut workers: Vec<Sending> = (0..WORKERS * 9 / 10).map(|n| start(n, &redises)).collect();
    let all = CONNECTIONS as usize * REGIONS;
    until("nearly all connections are used", || crowded.connected() >= all * 9 / 10).await;
    more("mail goes on").await;
    workers.extend((WORKERS * 9 / 10..WORKERS).map(|n| start(n, &redises)));
    let has_lists = |sending: &Sending| sending.workers.seen.lists.lock().last.len() == LISTS;
    until("whoever came has a part", || workers.iter().all(has_lists)).await;
    more("mail goes on with those that came").await;
    redises.iter_mut().for_each(RedisServer::kill);
    until("they are known to be gone", || workers.iter().all(|sending| !sending.workers.seen.link.is_up())).await;
    more("mail goes on without any Redis").await;
    redises.iter_mut().for_each(RedisServer::start_again);
    until("all are known again", || {
        let known = redises.iter().map(|redis| redis.cli(&["ZCARD", KEY]).parse::<usize>().unwrap_or_default());
        known.sum::<usize>() == WORKERS
    })
    .await;
    more("mail goes on with them").await;
    // Half of them go, and the others have all of it.
    workers.truncate(WORKERS / 2);
    more("mail goes on with half of them").await;
    drop(workers);
    assert_eq!(*UNEXPECTED.lock(), Vec::<String>::new());
    let (connected, paced) = (crowded.connected_most(), paced.paced_most());
    println!("{connected} of {all} connections at most, {paced} of {in_window} messages in a window");
    assert!(usize::try_from(connected).is_ok_and(|connected| connected <= all), "{connected} of {all} connections");
    assert!(paced <= in_window, "{paced} of {in_window} messages in a window");
}
