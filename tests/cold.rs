//! `kill -9` of every process at once under load, and a restart from what is on disk (P-1, P-6).
//!
//! POSTRIDER_COLD_CONNECTIONS, _MESSAGES and _ROUNDS ask for more than CI does.

mod harness;

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};

#[tokio::test(flavor = "multi_thread")]
async fn killing_everything_at_once_loses_nothing_acknowledged() {
    let connections = usize::try_from(parameter("POSTRIDER_COLD_CONNECTIONS", 16)).expect("a count");
    let messages = parameter("POSTRIDER_COLD_MESSAGES", 80);
    let mut cluster = Cluster::start(Options::default()).await;
    let mut users = Vec::new();
    for n in 0..4 {
        let region = &cluster.ready().regions[n % 3];
        users.push(Api::sign_up(region, &format!("cold{n}@postrider.example")).await);
    }
    let mut all = Vec::new();
    for round in 0..parameter("POSTRIDER_COLD_ROUNDS", 2) {
        let plan = Plan::everywhere(&cluster, &users, &format!("cold-{round}"));
        let load = Load::start(Plan { connections, attachment_every: 5, ..plan });
        load.until_accepted(messages).await;
        cluster.kill_everything().await;
        let books = load.finish().await;
        println!(
            "round {round}: {} acknowledged of {} when everything was killed",
            books.accepted(),
            books.attempts.len()
        );
        cluster.start_again().await;
        cluster.until_whole().await;
        all.push(books);
        // What earlier rounds acknowledged must have outlived this kill, too.
        for books in &all {
            books.check(&users).await;
        }
    }
    cluster.assert_consistent().await;
}
