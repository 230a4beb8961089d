use henge_engine::model::{ColumnSchema, ColumnType, SegmentSchema, ShardSpec};
use henge_engine::storage::{DeepStorage, LoadSpec};

use super::*;
use crate::inventory::tests::server;
use crate::inventory::{Feed, Position};
use crate::store::SegmentRecord;
use crate::view::{LazySegment, Reads};

/// A cluster that does at once what is decided.
struct Little {
    storage: DeepStorage,
    _dir: tempfile::TempDir,
    active: Vec<(Arc<ViewedSegment>, bool)>,
    dormant: Vec<(Arc<ViewedSegment>, bool)>,
    servers: Vec<(crate::store::ServerRecord, Feed)>,
    inventory: Inventory,
    under_way: UnderWay,
    rules: BTreeMap<String, Vec<Rule>>,
    config: CoordinatorConfig,
    confirmed: Vec<String>,
    instant: Instant,
}

impl Little {
    fn new(servers: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = DeepStorage::local(dir.path().join("deep"), dir.path().join("cache")).expect("opened");
        let mut little = Self {
            storage,
            _dir: dir,
            active: Vec::new(),
            dormant: Vec::new(),
            servers: servers.iter().map(|name| (server(name, "x"), Feed::default())).collect(),
            inventory: Inventory::default(),
            under_way: UnderWay::new(),
            rules: BTreeMap::new(),
            config: CoordinatorConfig::default(),
            confirmed: Vec::new(),
            instant: Instant::now(),
        };
        little.hear();
        little
    }

    fn segment(&self, hour: u32, version: &str, uid: u32, standing: Standing) -> Arc<ViewedSegment> {
        let columns = [ColumnSchema::dimension("page", ColumnType::String)];
        let span = format!("2013-08-{:02}T{:02}/PT1H", 1 + hour / 24, hour % 24);
        let record = SegmentRecord {
            id: SegmentId {
                data_source: "wiki".to_owned(),
                interval: span.parse().expect("valid interval"),
                version: version.to_owned(),
                partition: 0,
            },
            uid: SegmentUid::new(Timestamp::from_millis(0), uid.into()),
            shard_spec: ShardSpec::None,
            load_spec: LoadSpec::Local { path: format!("{uid}.henge") },
            schema: Arc::new(SegmentSchema::new(columns).expect("valid schema")),
            num_rows: 1,
            size_bytes: 10,
            hash: String::new(),
            time_range: None,
            created: Timestamp::from_millis(0),
            created_rev: 1,
            standing,
        };
        let nulls = henge_engine::segment::druid::Nulls::AsStored;
        let segment = LazySegment::alone(self.storage.clone(), &record, nulls, Reads::Elsewhere);
        Arc::new(ViewedSegment { id: Arc::new(record.id.clone()), record, segment })
    }

    fn hear(&mut self) {
        for (server, feed) in &self.servers {
            let known: Position = self.inventory.position(&server.name);
            self.inventory.apply(feed.page(server, &known, 0, 0), self.instant);
        }
    }

    fn decide(&self) -> Decisions {
        decide(&Situation {
            active: &self.active,
            dormant: &self.dormant,
            inventory: &self.inventory,
            under_way: &self.under_way,
            rules: &self.rules,
            config: &self.config,
            confirmed: &self.confirmed,
            replace_after: Duration::from_secs(60),
            now: "2013-08-31".parse().expect("valid time"),
            instant: self.instant,
            seed: 1,
        })
    }

    /// Has historicals do what is decided, until nothing is. Returns the last decisions.
    fn settle(&mut self) -> Decisions {
        for _ in 0..20 {
            let decisions = self.decide();
            if decisions.loads.is_empty() && decisions.drops.is_empty() {
                return decisions;
            }
            for (name, segments) in &decisions.loads {
                let feed = self.servers.iter_mut().find(|(server, _)| server.name == **name).map(|(_, feed)| feed);
                let feed = feed.expect("a server that is there");
                segments.iter().for_each(|segment| feed.announce(segment.record.uid));
            }
            for (name, uids) in &decisions.drops {
                if let Some((_, feed)) = self.servers.iter_mut().find(|(server, _)| server.name == **name) {
                    uids.iter().for_each(|uid| feed.withdraw(*uid));
                }
            }
            self.hear();
        }
        panic!("it does not come to rest");
    }
}

#[test]
fn a_publication_wakes_when_all_of_it_is_served_and_not_before() {
    let mut little = Little::new(&["a:1", "b:1"]);
    little.dormant = (0..4).map(|n| (little.segment(n, "1", n, Standing::Dormant), false)).collect();
    let first = little.decide();
    assert!(first.wake.is_empty());
    assert_eq!(first.loads.values().map(Vec::len).sum::<usize>(), 8, "two replicas of four");
    // Three of four are there.
    for (segment, _) in &little.dormant[..3] {
        little.servers[0].1.announce(segment.record.uid);
    }
    little.hear();
    assert!(little.decide().wake.is_empty());
    let settled = little.settle();
    assert_eq!(settled.wake["wiki"].len(), 4);
    assert_eq!(settled.missing["_default_tier"]["wiki"], 0);
}

/// A tier with one server has one replica, whatever is wanted: then nothing is missing.
#[test]
fn what_a_tier_has_no_servers_for_is_not_missing() {
    let mut little = Little::new(&["a:1"]);
    little.active = vec![(little.segment(0, "1", 1, Standing::Active), false)];
    assert_eq!(little.decide().missing["_default_tier"]["wiki"], 1);
    assert_eq!(little.settle().missing["_default_tier"]["wiki"], 0);
}

#[test]
fn what_is_hidden_is_marked_unused_and_dropped_only_then() {
    let mut little = Little::new(&["a:1"]);
    let (old, new) = (little.segment(0, "1", 1, Standing::Active), little.segment(0, "2", 2, Standing::Active));
    little.active = vec![(Arc::clone(&old), false)];
    little.settle();
    little.active = vec![(Arc::clone(&old), true), (Arc::clone(&new), false)];
    let decisions = little.settle();
    assert_eq!(decisions.mark_unused["wiki"], std::slice::from_ref(&old.record.id));
    assert!(little.inventory.holders(old.record.uid).len() == 1, "it is used still");
    little.active.remove(0);
    little.settle();
    assert!(little.inventory.holders(old.record.uid).is_empty());
    assert_eq!(little.inventory.holders(new.record.uid).len(), 1);
}

/// A segment that was issued anew has the bytes of another: one copy serves both, and goes with the last.
#[test]
fn segments_with_the_same_bytes_are_loaded_once() {
    let mut little = Little::new(&["a:1"]);
    let (old, new) = (little.segment(0, "1", 1, Standing::Active), little.segment(0, "2", 1, Standing::Dormant));
    little.active = vec![(Arc::clone(&old), false)];
    little.settle();
    little.dormant = vec![(new, false)];
    let decisions = little.decide();
    assert!(decisions.loads.is_empty());
    assert_eq!(decisions.wake["wiki"].len(), 1);
    little.active.clear();
    little.settle();
    assert_eq!(little.inventory.holders(old.record.uid).len(), 1);
}

#[test]
fn a_load_that_failed_is_tried_elsewhere() {
    let mut little = Little::new(&["a:1", "b:1"]);
    little.rules.insert("_default".to_owned(), vec![Rule::LoadForever { load: rule::Load::in_default_tier(1) }]);
    let segment = little.segment(0, "1", 1, Standing::Dormant);
    little.dormant = vec![(Arc::clone(&segment), false)];
    let first = little.decide().loads.into_keys().next().expect("somebody is asked");
    little.under_way.insert((Arc::clone(&first), segment.record.uid), Step::Loading);
    assert!(little.decide().loads.is_empty(), "it is on its way");
    little.under_way.insert((Arc::clone(&first), segment.record.uid), Step::Failed);
    let second = little.decide().loads.into_keys().next().expect("somebody else is asked");
    assert_ne!(first, second);
}

#[test]
fn a_rule_that_wants_a_segment_nowhere_lets_it_sleep() {
    let mut little = Little::new(&["a:1"]);
    let segment = little.segment(0, "1", 1, Standing::Active);
    little.active = vec![(Arc::clone(&segment), false)];
    little.settle();
    let nowhere = serde_json::from_str(r#"{"type":"loadForever","tieredReplicants":{}}"#).expect("a rule");
    little.rules.insert("wiki".to_owned(), vec![nowhere]);
    assert_eq!(little.decide().sleep["wiki"], std::slice::from_ref(&segment.record.id));
}

#[test]
fn much_that_rules_drop_waits_until_it_is_confirmed() {
    let mut little = Little::new(&["a:1"]);
    little.active = (0..40).map(|n| (little.segment(n, "1", n, Standing::Active), false)).collect();
    little.settle();
    little.rules.insert("wiki".to_owned(), vec![Rule::DropForever]);
    let decisions = little.decide();
    assert_eq!(decisions.held_back, [("wiki".to_owned(), 40, 40)]);
    assert!(decisions.mark_unused.is_empty() && decisions.drops.is_empty());
    little.confirmed = vec!["wiki".to_owned()];
    assert_eq!(little.decide().mark_unused["wiki"].len(), 40);
    little.confirmed.clear();
    little.config.pause_coordination = true;
    let paused = little.decide();
    assert!(paused.mark_unused.is_empty() && paused.held_back.is_empty());
}

/// F59, F61: a server that is silent for a moment is not replaced; one that stays silent is.
#[test]
fn the_silent_are_replaced_after_a_while() {
    let mut little = Little::new(&["a:1", "b:1", "c:1"]);
    little.active = (0..6).map(|n| (little.segment(n, "1", n, Standing::Active), false)).collect();
    little.settle();
    let silent = little.servers.remove(0);
    for (seconds, expects) in [(5, false), (30, false), (61, true)] {
        little.instant += Duration::from_secs(seconds);
        little.hear();
        let decisions = little.decide();
        let has_loads = !decisions.loads.is_empty();
        let had = !silent.1.is_empty();
        assert_eq!(has_loads, expects && had, "after {seconds} s more");
        little.instant -= Duration::from_secs(seconds);
    }
}
