use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use henge_catalog::inventory::SUSPECT;
use henge_catalog::realtime::Brokers;
use henge_catalog::store::ServerRecord;

use super::peers::Shown;
use super::{Peers, Watcher};

/// A broker that does not answer for this long is not waited for: it asks nobody that it has not heard of for a shorter
/// time than this.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often brokers are asked what they have seen.
const ASK_BROKERS: Duration = Duration::from_millis(100);
/// A realtime process asks again after this long.
const LOOK: Duration = Duration::from_secs(15);

/// Waits until all brokers that are there have seen something, for as long as `limit`. Returns whether they have.
pub(super) async fn have_seen(watcher: &Watcher, peers: &Peers, seen: &Shown, limit: Duration) -> bool {
    let began = Instant::now();
    let mut waiting: Vec<(ServerRecord, Instant)> =
        watcher.servers("broker").into_iter().map(|broker| (broker, began)).collect();
    while began.elapsed() < limit {
        let mut behind = Vec::new();
        for (broker, answered) in waiting {
            match peers.shown(&broker).await {
                Ok(shown) if shown.has_seen(seen) => {}
                Ok(_) => behind.push((broker, Instant::now())),
                Err(_) if answered.elapsed() + SUSPECT > BROKER_TIMEOUT => {}
                Err(_) => behind.push((broker, answered)),
            }
        }
        if behind.is_empty() {
            return true;
        }
        waiting = behind;
        tokio::time::sleep(ASK_BROKERS).await;
    }
    false
}

/// The brokers of a cluster, as a realtime process asks after them.
#[derive(Clone, Debug)]
pub struct FollowedBrokers {
    pub watcher: Watcher,
    pub peers: Peers,
}

#[async_trait]
impl Brokers for FollowedBrokers {
    async fn have_seen(&self, data_source: &str, rev: u64) -> bool {
        // Before they are listed, nobody is known not to have.
        if !self.watcher.is_listed() {
            return false;
        }
        let revs = BTreeMap::from([(data_source.to_owned(), rev)]);
        have_seen(&self.watcher, &self.peers, &Shown { revs, positions: BTreeMap::new() }, LOOK).await
    }
}
