//! Whether every shard is whole: a primary, and all replicas running and caught up. `ctl status` tells it, and the demo is
//! ready by the same test.

use std::time::Duration;

use postrider_router::operate::{Lacks, NodeReport, committed};
use tokio::time::Instant;

use super::session::Session;

/// What a primary had committed when it was first asked, a replica has within this time, or it is behind: under load the
/// newest entries are always on their way.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What the nodes say, and which shards lack something.
pub(crate) struct Look {
    pub(crate) reports: Vec<NodeReport>,
    pub(crate) lacks: Lacks,
}

/// Numbers of shards, for people.
pub(super) fn list(shards: &[u32]) -> String {
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks all nodes; where a replica is behind, again until it has caught up with the first look or the time is over.
pub(crate) async fn look(session: &Session) -> Look {
    let mut reports = session.reports().await;
    let map = session.map();
    let marks = committed(&map, &reports);
    let until = Instant::now() + CATCH_UP_MAX;
    loop {
        let lacks = Lacks::of(&map, &reports, &marks);
        if lacks.behind.is_empty() || Instant::now() > until {
            return Look { reports, lacks };
        }
        tokio::time::sleep(PAUSE).await;
        reports = session.reports().await;
    }
}
