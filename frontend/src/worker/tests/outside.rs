//! The worker and hosts outside: what becomes of an entry by what a host says, and what its sender is told.

use postrider_api::env::SystemClock;
use postrider_api::id::UserId;
use postrider_api::limit::{DELAY_WARNING_MS, OUTGOING_AGE_MS_MAX};
use postrider_api::notify::Notify;
use postrider_blob::{BlobStore, MemoryStore, Replicated};
use postrider_outgoing::Transport;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::blobs::Blobs;
use crate::nearby::{self, Here};

/// What a host says to a command instead of what it would; it is asked before it says it. `.` is the end of a message.
type Script = Arc<dyn Fn(&str) -> Option<&'static str> + Send + Sync>;

/// A host, and how many messages it took.
struct Host {
    port: u16,
    taken: Arc<Mutex<usize>>,
}

impl Host {
    async fn start(script: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let taken = Arc::<Mutex<usize>>::default();
        let (script, told): (Script, _) = (Arc::new(script), Arc::clone(&taken));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&told)));
            }
        });
        Self { port, taken }
    }

    fn taken(&self) -> usize {
        *self.taken.lock()
    }
}

async fn serve(stream: TcpStream, script: Script, taken: Arc<Mutex<usize>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 far.example\r\n").await?;
    let (mut line, mut in_message) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        let usual = match command {
            "." if in_message => "250 2.0.0 taken",
            _ if in_message => continue,
            "DATA" => "354 go on",
            _ => "250 2.0.0 ok",
        };
        let said = script(command).unwrap_or(usual);
        *taken.lock() += usize::from(command == "." && said.starts_with('2'));
        in_message = command == "DATA" && said.starts_with('3');
        stream.write_all(format!("{said}\r\n").as_bytes()).await?;
    }
}

fn start_sending(
    cluster: Arc<dyn Cluster>,
    host: &Host,
    timings: WorkerTimings,
) -> (CancellationToken, JoinHandle<()>) {
    let stores = ["seoul", "frankfurt"].map(|region| Arc::new(MemoryStore::new(region)) as Arc<dyn BlobStore>);
    let outside = OutsideSettings {
        transport: Arc::new(Transport::new(Arc::new(Here), nearby::settings(host.port))),
        blobs: Blobs::new(Replicated::new(stores.to_vec(), "seoul", SystemClock::shared())),
        keys: None,
        return_paths: None,
        unsubscribe: None,
        host: "near.example".to_owned(),
    };
    let drain = CancellationToken::new();
    let (clock, entropy) = (mail::CLOCK.clone(), SystemEntropy::shared());
    let worker = Worker::new(cluster, Arc::new(Carrier::default()), clock, entropy, timings, Some(outside));
    (drain.clone(), tokio::spawn(worker.run(drain)))
}

const TEXT: &str = "Subject: hello\r\n\r\nto the world\r\n";

fn to(address: &str, notify: Notify) -> pb::Recipient {
    pb::Recipient { address: address.to_owned(), notify: notify.0, ..pb::Recipient::default() }
}

/// What has been reported to a user, as text.
fn reports(cluster: &MailCluster, user: UserId) -> Vec<String> {
    cluster.inbox(user).iter().map(|kept| String::from_utf8_lossy(&kept.raw()).into_owned()).collect()
}

#[tokio::test]
async fn what_a_host_took_is_told_until_the_shard_hears_it() {
    let cluster = MailCluster::new(1);
    let ada = cluster.add_user("ada", A);
    // The shard has no quorum from the moment on at which the host has the message.
    let silenced = Arc::clone(&cluster);
    let host = Host::start(move |command| {
        if command == "." {
            silenced.set_fault(A, Some(Fault::NoQuorum));
        }
        None
    })
    .await;
    // A lease that outlives what the test does to the shard: the end of a lease is another test's.
    let timings = WorkerTimings { lease: PATIENCE, ..timings() };
    let (_drain, _worker) = start_sending(Arc::clone(&cluster) as _, &host, timings.clone());
    cluster.enqueue_outside(A, ada, vec![to("bob@far.example", Notify::default())], TEXT);
    until("the host has it", || host.taken() == 1).await;
    // Longer than one settlement may take.
    tokio::time::sleep(timings.settle * 3).await;
    assert_eq!(cluster.waiting(A).len(), 1);
    cluster.set_fault(A, None);
    until("the shard knows", || cluster.waiting(A).is_empty()).await;
    assert_eq!(host.taken(), 1);
    assert!(reports(&cluster, ada).is_empty());
}

#[tokio::test]
async fn a_lease_is_prolonged_while_a_host_thinks() {
    let cluster = MailCluster::new(1);
    let ada = cluster.add_user("ada", A);
    let timings = timings();
    let thinks = timings.lease * 3;
    // It answers on a thread of the runtime: the others go on.
    let host = Host::start(move |command| {
        if command == "." {
            tokio::task::block_in_place(|| std::thread::sleep(thinks));
        }
        None
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let host = runtime.spawn(host).await.expect("it starts");
    // Two workers: the second gets nothing while the first one's host thinks.
    let _first = start_sending(Arc::clone(&cluster) as _, &host, timings.clone());
    let _second = start_sending(Arc::clone(&cluster) as _, &host, timings);
    cluster.enqueue_outside(A, ada, vec![to("bob@far.example", Notify::default())], TEXT);
    until("it is settled", || cluster.waiting(A).is_empty()).await;
    assert_eq!(host.taken(), 1);
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_sender_is_warned_once_that_his_mail_is_late() {
    let cluster = MailCluster::new(1);
    let ada = cluster.add_user("ada", A);
    let host = Host::start(|command| command.starts_with("RCPT").then_some("450 4.2.1 not now")).await;
    let both = vec![to("bob@far.example", Notify::default()), to("cyd@far.example", Notify::FAILURE)];
    let entry = cluster.enqueue_outside(A, ada, both, TEXT);
    cluster.age(A, entry, DELAY_WARNING_MS + 1);
    let (_drain, _worker) = start_sending(Arc::clone(&cluster) as _, &host, timings());
    until("he was tried three times", || cluster.waiting(A)[0].pending[0].attempts >= 3).await;
    let reports = reports(&cluster, ada);
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.contains("Action: delayed\r\n") && report.contains("Status: 4.2.1\r\n"), "{report}");
    assert!(report.contains("rfc822; bob@far.example\r\n") && !report.contains("cyd@far.example"), "{report}");
    assert!(report.contains("450 4.2.1 not now") && report.contains("Will-Retry-Until:"), "{report}");
}

#[tokio::test]
async fn whoever_has_waited_for_too_long_is_given_up_with_what_was_said_last() {
    let cluster = MailCluster::new(1);
    let ada = cluster.add_user("ada", A);
    let host = Host::start(|command| command.starts_with("RCPT").then_some("450 4.2.1 not now")).await;
    let never = vec![to("bob@far.example", Notify::default()), to("cyd@far.example", Notify::NEVER)];
    let entry = cluster.enqueue_outside(A, ada, never, TEXT);
    cluster.age(A, entry, OUTGOING_AGE_MS_MAX + 1);
    let (_drain, _worker) = start_sending(Arc::clone(&cluster) as _, &host, timings());
    until("both are done with", || cluster.waiting(A).is_empty()).await;
    let reports = reports(&cluster, ada);
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.contains("Action: failed\r\n") && report.contains("Status: 5.4.7\r\n"), "{report}");
    assert!(report.contains("given up after 5 days") && report.contains("450 4.2.1 not now"), "{report}");
    assert!(report.contains("rfc822; bob@far.example\r\n") && !report.contains("cyd@far.example"), "{report}");
}

#[tokio::test]
async fn of_a_message_that_nobody_sent_nobody_is_told() {
    let cluster = MailCluster::new(1);
    let host = Host::start(|command| command.starts_with("RCPT").then_some("550 5.1.1 nobody")).await;
    let watched = Watched::new(&cluster);
    let (_drain, _worker) = start_sending(Arc::clone(&watched) as _, &host, timings());
    cluster.enqueue_from_nobody(A, vec![to("eve@far.example", Notify::FAILURE)], TEXT);
    until("she is done with", || cluster.waiting(A).is_empty()).await;
    let settled = watched.settled.lock();
    let result = &settled[0].results[0];
    assert_eq!((result.settlement(), result.reported), (Settlement::Failed, false));
}
