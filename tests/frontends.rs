//! Each frontend in turn is killed: its clients go on at another region, and a WebSocket resumes from its modseq with no gap and
//! no repeat, while mail keeps coming in.

mod harness;

use std::collections::BTreeSet;

use harness::events::Events;
use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options};

/// Messages that a client is told of at each frontend.
const FOLLOWED: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_killed_frontend_go_on_at_another() {
    let mut cluster = Cluster::start(Options::default()).await;
    let user = Api::sign_up(cluster.region("frankfurt"), "roamer@postrider.example").await;
    let regions = cluster.ready().regions.clone();
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "roam");
    let load = Load::start(Plan { attachment_every: 0, ..plan });
    let mut follower = Follower { user: user.clone(), since: 0, created: Vec::new() };
    for (n, region) in regions.iter().enumerate() {
        let mut events = follower.follow(region, FOLLOWED).await;
        // In the middle of the stream, and of transactions.
        cluster.kill(&[cluster.region(&region.name).frontend_pid]).await;
        while let Some(frame) = events.next().await {
            follower.take(&frame);
        }
        // The client goes on elsewhere while this one is gone.
        follower.follow(&regions[(n + 1) % regions.len()], FOLLOWED).await;
        cluster.revive("frontend", &region.name).await;
    }
    load.until_accepted(10).await;
    let books = load.finish().await;
    books.check(std::slice::from_ref(&user.at(&regions[1]))).await;
    // The rest of the stream, to the end, at a frontend that came back.
    let inbox: BTreeSet<String> =
        user.at(&regions[0]).inbox().await.iter().filter_map(|row| Some(row["id"].as_str()?.to_owned())).collect();
    follower.follow(&regions[0], inbox.len().saturating_sub(follower.created.len())).await;
    let told: BTreeSet<String> = follower.created.iter().cloned().collect();
    assert_eq!(told.len(), follower.created.len(), "no message was told of twice");
    assert_eq!(told, inbox, "every message was told of");
}

/// One client, whatever region it is at.
struct Follower {
    user: Api,
    since: u64,
    created: Vec<String>,
}

impl Follower {
    /// Resumes at a region until it has told of so many more messages.
    async fn follow(&mut self, region: &harness::Region, more: usize) -> Events {
        let mut events = Events::open(&self.user.at(region), Some(self.since)).await;
        let wanted = self.created.len() + more;
        while self.created.len() < wanted {
            self.take(&events.next().await.expect("the stream goes on"));
        }
        events
    }

    fn take(&mut self, frame: &serde_json::Value) {
        let modseq = frame["modseq"].as_u64().expect("a modseq");
        assert!(modseq >= self.since, "the stream never goes back: {frame}");
        for change in frame["changes"].as_array().expect("changes") {
            if change["type"] == "message_created" {
                self.created.push(change["message_id"].as_str().expect("an id").to_owned());
            }
        }
        self.since = modseq;
    }
}
