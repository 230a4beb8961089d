use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_catalog::Database;
use henge_catalog::coordination::{self, CoordinatorConfig, Decisions, Situation, Step, UnderWay};
use henge_catalog::inventory::Inventory;
use henge_catalog::rule::Rule;
use henge_catalog::store::{Lease, MetadataStore, Standing};
use henge_engine::model::{Interval, Period, SegmentUid, TimeZone, Timestamp};
use henge_engine::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Peers, Watcher};

/// What is set while a coordinator runs, in the metadata database.
pub(super) const CONFIG: &str = "coordinator";
/// Changes that come at once are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// After a run that failed, the next one begins after this long at the latest.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a server has been silent for too long.
const TICK: Duration = Duration::from_secs(1);
/// A load that is not done by then is taken back.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A drop that nobody confirmed by then is ordered again.
const DROP_TIMEOUT: Duration = Duration::from_secs(120);
/// A server that could not load a segment is not asked again for this long.
const FAILED: Duration = Duration::from_secs(30);
/// How often unused segments are killed, if that is asked for.
const KILL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    pub replace_after: Duration,
    pub kill_unused_after: Option<Period>,
}

/// A coordinator that leads, for one term of its lease. Clones are the same.
#[derive(Clone, Debug)]
pub struct Coordinator {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) database: Database,
    pub(super) watcher: Watcher,
    pub(super) peers: Peers,
    pub(super) lease: Lease,
    options: CoordinatorOptions,
    pub(super) state: Mutex<State>,
    wake: Notify,
    /// The term is over.
    pub(super) lost: CancellationToken,
    pub(super) working: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) under_way: HashMap<(Arc<str>, SegmentUid), (Step, Instant)>,
    /// Data sources of which much may be taken away in the next run.
    confirmed: Vec<String>,
    latest: Run,
    seed: u64,
    /// Which start of each server was given orders last.
    incarnations: HashMap<String, String>,
    /// The servers' states as of the last run.
    servers: Vec<(String, bool)>,
    next: Option<Timestamp>,
}

/// What a run found, for people.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Data source, how many segments rules would take away, of how many: until somebody confirms it.
    pub held_back: Vec<(String, u64, u64)>,
    /// Tiers that lost so many servers at once that nobody is replaced there.
    pub frozen_tiers: Vec<String>,
    /// Loads for which no server has room.
    pub unplaced: u64,
    /// Replicas that are wanted and not served, by tier and data source.
    pub missing: BTreeMap<String, BTreeMap<String, u64>>,
    pub count: u64,
    pub duration: Duration,
}

impl Coordinator {
    pub fn new(
        database: Database,
        watcher: Watcher,
        peers: Peers,
        lease: Lease,
        options: CoordinatorOptions,
        lost: CancellationToken,
    ) -> Self {
        let inner = Inner {
            database,
            watcher,
            peers,
            lease,
            options,
            state: Mutex::default(),
            wake: Notify::new(),
            lost,
            working: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub fn watcher(&self) -> &Watcher {
        &self.inner.watcher
    }

    /// What the latest run found.
    pub fn latest(&self) -> Run {
        self.inner.state.lock().latest.clone()
    }

    /// What was ordered and is not done: server, segment, what.
    pub fn under_way(&self) -> Vec<(Arc<str>, SegmentUid, Step)> {
        let state = self.inner.state.lock();
        state.under_way.iter().map(|((server, uid), (step, _))| (Arc::clone(server), *uid, *step)).collect()
    }

    /// Lets the next run take away what was held back of a data source.
    pub fn confirm(&self, data_source: &str) {
        self.inner.state.lock().confirmed.push(data_source.to_owned());
        self.inner.wake.notify_one();
    }

    /// Has a run begin soon: the rules, or what is set, have changed.
    pub fn run_soon(&self) {
        self.inner.wake.notify_one();
    }

    pub async fn config(&self) -> Result<CoordinatorConfig> {
        self.inner.config().await
    }

    pub async fn set_config(&self, config: &CoordinatorConfig, author: &str, comment: &str) -> Result<()> {
        let payload = serde_json::to_string(config)
            .map_err(|error| Error::defensive("a configuration is not JSON").with_source(error))?;
        let store = self.inner.store();
        let audit = henge_catalog::store::AuditEntry {
            key: "coordinator.config".to_owned(),
            kind: "coordinator.config".to_owned(),
            author: author.to_owned(),
            comment: comment.to_owned(),
            created: store.now().await?,
            payload: payload.clone(),
        };
        store.set_config(CONFIG, &payload, &audit).await?;
        self.run_soon();
        Ok(())
    }

    /// Leads until the term is over.
    pub async fn lead(&self) {
        let inner = &self.inner;
        let killing = Arc::clone(inner);
        inner.spawn(async move { killing.kill_unused().await });
        let mut changes = (inner.database.view().watch_changes(), inner.watcher.changes());
        let mut again = true;
        loop {
            tokio::select! {
                () = inner.lost.cancelled() => break,
                Ok(()) = changes.0.changed() => {}
                Ok(()) = changes.1.changed() => {}
                () = inner.wake.notified() => {}
                () = tokio::time::sleep(AGAIN), if again => {}
                () = inner.until_due() => {}
            }
            let last = inner.state.lock().latest.duration;
            tokio::time::sleep(GATHER.max(last)).await;
            changes.0.mark_unchanged();
            changes.1.mark_unchanged();
            again = match inner.run().await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "a run of the coordinator failed; it is tried again");
                    true
                }
            };
        }
        let mut working = std::mem::take(&mut *inner.working.lock());
        working.shutdown().await;
    }
}

impl Inner {
    pub(super) fn store(&self) -> &Arc<dyn MetadataStore> {
        self.database.store()
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut working = self.working.lock();
        while working.try_join_next().is_some() {}
        working.spawn(work);
    }

    async fn config(&self) -> Result<CoordinatorConfig> {
        let Some(payload) = self.store().config(CONFIG).await? else { return Ok(CoordinatorConfig::default()) };
        serde_json::from_str(&payload)
            .map_err(|error| Error::corrupt("what is set of the coordinator cannot be read").with_source(error))
    }

    /// Waits until time alone gives something to do: a rule begins to apply, a server was silent for too long, something
    /// ordered was not done.
    async fn until_due(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.database.now();
            let servers = self.server_states();
            let state = self.state.lock();
            let is_old = |(step, since): &(Step, Instant)| since.elapsed() > timeout(*step);
            if state.next.is_some_and(|next| next <= now)
                || state.servers != servers
                || state.under_way.values().any(is_old)
            {
                return;
            }
        }
    }

    /// Each server, with whether it was silent for so long that it is replaced; and those that answer.
    fn server_states(&self) -> Vec<(String, bool)> {
        let now = Instant::now();
        let inventory = self.watcher.inventory();
        let mut states = Vec::new();
        for view in inventory.servers() {
            let silence = view.silence(now);
            if silence < self.options.replace_after {
                states.push((view.server.name.clone(), silence >= coordination::ABSENT));
            }
        }
        states
    }

    async fn run(self: &Arc<Self>) -> Result<()> {
        let began = Instant::now();
        let (rules, config, now) = (self.store().rules().await?, self.config().await?, self.store().now().await?);
        self.settle_under_way();
        let confirmed = self.state.lock().confirmed.clone();
        let this = Arc::clone(self);
        let decided = tokio::task::spawn_blocking(move || this.decide(&rules, &config, &confirmed, now)).await;
        let lost = |error| Error::runtime_failure("a background thread ended without an answer").with_source(error);
        let decisions = decided.map_err(lost)?;
        self.take_note(&decisions, began.elapsed());
        self.publish(&decisions).await?;
        self.order(decisions);
        Ok(())
    }

    fn decide(
        &self,
        rules: &BTreeMap<String, Vec<Rule>>,
        config: &CoordinatorConfig,
        confirmed: &[String],
        now: Timestamp,
    ) -> Decisions {
        let view = self.database.view();
        let (active, dormant) = (view.segments(), view.dormant());
        let (under_way, seed): (UnderWay, u64) = {
            let mut state = self.state.lock();
            state.seed += 1;
            (state.under_way.iter().map(|(key, (step, _))| (key.clone(), *step)).collect(), state.seed)
        };
        coordination::decide(&Situation {
            active: &active,
            dormant: &dormant,
            inventory: &self.watcher.inventory(),
            under_way: &under_way,
            rules,
            config,
            confirmed,
            replace_after: self.options.replace_after,
            now,
            instant: Instant::now(),
            seed,
        })
    }

    fn take_note(&self, decisions: &Decisions, duration: Duration) {
        let servers = self.server_states();
        let mut state = self.state.lock();
        for (data_source, dropped, of) in &decisions.held_back {
            if !state.latest.held_back.iter().any(|(known, ..)| known == data_source) {
                tracing::warn!(
                    data_source,
                    "rules would take away {dropped} of {of} segments; nothing is taken away until that is confirmed"
                );
            }
        }
        state.servers = servers;
        state.next = decisions.next;
        state.latest = Run {
            held_back: decisions.held_back.clone(),
            frozen_tiers: decisions.frozen_tiers.clone(),
            unplaced: decisions.unplaced,
            missing: decisions.missing.clone(),
            count: state.latest.count + 1,
            duration,
        };
    }

    /// What changes in the metadata database: each data source by itself.
    async fn publish(&self, decisions: &Decisions) -> Result<()> {
        let mut failed = Ok(());
        for (data_source, ids) in &decisions.wake {
            tracing::info!(
                data_source,
                segments = ids.len(),
                "all of a publication is served; queries see it from now on"
            );
            failed = failed.and(self.database.set_standing(data_source, ids, Standing::Active).await);
        }
        for (data_source, ids) in &decisions.sleep {
            failed = failed.and(self.database.set_standing(data_source, ids, Standing::Dormant).await);
        }
        for (data_source, ids) in &decisions.mark_unused {
            tracing::info!(
                data_source,
                segments = ids.len(),
                "marked unused: dropped by rules, or hidden by newer ones"
            );
            failed = failed.and(self.database.mark_segments_unused(data_source, ids).await);
            self.state.lock().confirmed.retain(|confirmed| confirmed != data_source);
        }
        failed
    }

    /// Forgets what was done, what failed long enough ago, and what is taking too long.
    fn settle_under_way(self: &Arc<Self>) {
        let mut canceled: BTreeMap<Arc<str>, Vec<SegmentUid>> = BTreeMap::new();
        let mut told = Vec::new();
        {
            let inventory = self.watcher.inventory();
            let mut state = self.state.lock();
            let State { under_way, incarnations, .. } = &mut *state;
            let mut started_anew = Vec::new();
            for view in inventory.servers() {
                let incarnation = &view.server.incarnation;
                if incarnations.get(&view.server.name) != Some(incarnation) {
                    incarnations.insert(view.server.name.clone(), incarnation.clone());
                    started_anew.push(view.server.name.as_str());
                }
            }
            under_way.retain(|(server, uid), (step, since)| {
                // What it was told before it started anew it does not know.
                if started_anew.contains(&server.as_ref()) {
                    return false;
                }
                let is_served = inventory.holders(*uid).contains(server);
                match step {
                    Step::Loading if is_served => return false,
                    Step::Dropping if !is_served => return false,
                    Step::Loading => {
                        if let Some(reason) = failure(&inventory, server, *uid) {
                            tracing::warn!(%server, %uid, reason, "a segment could not be loaded");
                            told.push((Arc::clone(server), *uid));
                            (*step, *since) = (Step::Failed, Instant::now());
                        }
                    }
                    Step::Dropping | Step::Failed => {}
                }
                if since.elapsed() <= timeout(*step) {
                    return true;
                }
                if *step == Step::Loading {
                    canceled.entry(Arc::clone(server)).or_default().push(*uid);
                }
                false
            });
        }
        for (server, uid) in told {
            self.watcher.forget_failure(&server, uid);
        }
        for (server, uids) in canceled {
            self.send_drops(server, uids);
        }
    }

    /// Kills what has been unused for long enough, if that is asked for.
    async fn kill_unused(&self) {
        let Some(period) = self.options.kill_unused_after else { return };
        loop {
            tokio::time::sleep(KILL).await;
            if let Err(error) = self.kill_once(period).await {
                tracing::warn!(%error, "unused segments are killed later");
            }
        }
    }

    async fn kill_once(&self, period: Period) -> Result<()> {
        let now = self.store().now().await?;
        let Some(before) = period.add_to(now, -1, TimeZone::Utc) else { return Ok(()) };
        for data_source in self.store().revs().await?.into_keys() {
            let report = self.database.kill_unused(&data_source, Interval::ETERNITY, Some(before)).await?;
            if report.num_segments > 0 {
                let (segments, bytes) = (report.num_segments, report.size_bytes);
                tracing::warn!(data_source, segments, bytes, "killed segments that were unused since {before}");
            }
        }
        Ok(())
    }
}

fn timeout(step: Step) -> Duration {
    match step {
        Step::Loading => LOAD_TIMEOUT,
        Step::Dropping => DROP_TIMEOUT,
        Step::Failed => FAILED,
    }
}

fn failure<'a>(inventory: &'a Inventory, server: &str, uid: SegmentUid) -> Option<&'a str> {
    inventory.server(server)?.failures().get(&uid).map(String::as_str)
}
