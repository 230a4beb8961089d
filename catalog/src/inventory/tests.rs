use henge_engine::model::Timestamp;
use proptest::prelude::*;

use super::*;

pub(crate) fn server(name: &str, incarnation: &str) -> ServerRecord {
    ServerRecord {
        name: name.to_owned(),
        incarnation: incarnation.to_owned(),
        roles: vec!["historical".to_owned()],
        pg_port: None,
        grpc_port: Some(1),
        is_encrypted: false,
        tier: "_default_tier".to_owned(),
        zone: String::new(),
        max_bytes: 1_000,
        plan_version: "1".to_owned(),
        version: "0".to_owned(),
        started: Timestamp::from_millis(0),
    }
}

fn uid(number: u32) -> SegmentUid {
    SegmentUid::new(Timestamp::from_millis(0), number.into())
}

/// One round of asking, and another one if there was a gap.
fn ask(inventory: &mut Inventory, feed: &Feed, server: &ServerRecord, now: Instant) {
    for _ in 0..5 {
        let known = inventory.position(&server.name);
        match inventory.apply(feed.page(server, &known, 0, 0), now) {
            Applied::Done(_) if inventory.position(&server.name).seq == feed.seq() => return,
            _ => {}
        }
    }
    panic!("the listener does not catch up");
}

fn served(inventory: &Inventory, name: &str) -> HashSet<SegmentUid> {
    inventory.server(name).map(|view| view.served().collect()).unwrap_or_default()
}

#[test]
fn a_listener_that_fell_behind_gets_everything() {
    let (server, now) = (server("a:1", "x"), Instant::now());
    let (mut feed, mut inventory) = (Feed::default(), Inventory::default());
    feed.announce(uid(0));
    ask(&mut inventory, &feed, &server, now);
    for number in 1..=20_000 {
        feed.announce(uid(number));
    }
    let page = feed.page(&server, &inventory.position("a:1"), 0, 0);
    assert!(page.is_whole);
    ask(&mut inventory, &feed, &server, now);
    assert_eq!(served(&inventory, "a:1").len(), 20_001);
}

/// A change that gets lost on the way is noticed by the digest, and the whole set is asked for.
#[test]
fn a_lost_change_is_noticed() {
    let (server, now) = (server("a:1", "x"), Instant::now());
    let (mut feed, mut inventory) = (Feed::default(), Inventory::default());
    feed.announce(uid(0));
    ask(&mut inventory, &feed, &server, now);
    feed.announce(uid(1));
    feed.withdraw(uid(0));
    let mut torn = feed.page(&server, &inventory.position("a:1"), 0, 0);
    torn.changes.pop();
    assert_eq!(inventory.apply(torn, now), Applied::Gap);
    assert!(inventory.holders(uid(0)).is_empty(), "nothing is believed until it is asked again");
    ask(&mut inventory, &feed, &server, now);
    assert_eq!(served(&inventory, "a:1"), HashSet::from([uid(1)]));
}

#[test]
fn a_server_that_started_anew_is_known_anew() {
    let (before, after, now) = (server("a:1", "x"), server("a:1", "y"), Instant::now());
    let mut inventory = Inventory::default();
    let mut feed = Feed::default();
    feed.announce(uid(0));
    ask(&mut inventory, &feed, &before, now);
    let feed = Feed::default();
    ask(&mut inventory, &feed, &after, now);
    assert!(served(&inventory, "a:1").is_empty());
}

#[test]
fn silence_makes_suspect_and_then_dead() {
    let (server, now) = (server("a:1", "x"), Instant::now());
    let mut inventory = Inventory::default();
    ask(&mut inventory, &Feed::default(), &server, now);
    let health = |inventory: &Inventory, later| inventory.server("a:1").expect("known").health(now + later);
    assert_eq!(health(&inventory, Duration::ZERO), Health::Alive);
    assert_eq!(health(&inventory, SUSPECT), Health::Suspect);
    assert_eq!(health(&inventory, DEAD), Health::Dead);
    assert!(inventory.broke("a:1"));
    assert!(!inventory.broke("a:1"), "no news");
    assert_eq!(health(&inventory, Duration::ZERO), Health::Suspect);
}

#[test]
fn a_failure_is_told_until_the_segment_is_there() {
    let (server, now) = (server("a:1", "x"), Instant::now());
    let (mut feed, mut inventory) = (Feed::default(), Inventory::default());
    feed.fail(uid(7), "no room".to_owned());
    // Without anything known, all that is served is told, and failures are not.
    ask(&mut inventory, &feed, &server, now);
    feed.fail(uid(8), "no room".to_owned());
    ask(&mut inventory, &feed, &server, now);
    assert_eq!(inventory.server("a:1").expect("known").failures().len(), 1);
    feed.announce(uid(8));
    ask(&mut inventory, &feed, &server, now);
    assert!(inventory.server("a:1").expect("known").failures().is_empty());
}

proptest! {
    /// Whatever happens, and whenever is asked, a listener that caught up has what each server serves, and no other.
    #[test]
    fn a_listener_has_what_servers_serve(steps in proptest::collection::vec((0..2_usize, 0..8_u32, 0..5_u8), 1..200)) {
        let now = Instant::now();
        let mut servers = [server("a:1", "0"), server("b:1", "0")];
        let mut feeds = [Feed::default(), Feed::default()];
        let mut inventory = Inventory::default();
        for (at, number, action) in steps {
            match action {
                0 | 1 => feeds[at].announce(uid(number)),
                2 => feeds[at].withdraw(uid(number)),
                3 => ask(&mut inventory, &feeds[at], &servers[at], now),
                _ if number == 0 => {
                    servers[at].incarnation.push('1');
                    feeds[at] = Feed::default();
                }
                _ => {}
            }
        }
        for at in 0..2 {
            ask(&mut inventory, &feeds[at], &servers[at], now);
            prop_assert_eq!(&served(&inventory, &servers[at].name), &feeds[at].served);
        }
        for number in 0..8 {
            let holders = inventory.holders(uid(number)).iter().map(|name| name.to_string()).collect::<HashSet<_>>();
            let expected = (0..2).filter(|at| feeds[*at].serves(uid(number))).map(|at| servers[at].name.clone());
            prop_assert_eq!(holders, expected.collect::<HashSet<_>>());
        }
    }
}
