//! Random questions under random settings: a cluster answers as stock DataFusion over the raw rows. A failure prints its
//! seed, and the question.

use libtest_mimic::{Failed, Trial};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::harness::block_on;
use crate::harness::data::GENERATED;
use crate::harness::door::{Distributed, Door, RawRows};

const CASES: u64 = 240;

pub fn trials() -> Vec<Trial> {
    [1, 2, 3].map(|workers| Trial::test(format!("cluster::random::{workers}_workers"), move || agree(workers))).into()
}

fn agree(workers: usize) -> Result<(), Failed> {
    block_on(async {
        let (mut oracle, mut cluster) = (RawRows::over(&GENERATED), Distributed::over(&GENERATED, workers));
        let mut wrong = Vec::new();
        for case in 0..CASES / 3 {
            let seed = case * 3 + workers as u64;
            let mut dice = StdRng::seed_from_u64(seed);
            let (settings, sql) = (settings(&mut dice), question(&mut dice));
            for setting in &settings {
                cluster.ask(setting).await?;
            }
            let expected = oracle.ask(&sql).await;
            let answered = cluster.ask(&sql).await;
            let (expected, answered) = match (expected, answered) {
                (Ok(expected), Ok(answered)) => (expected, answered),
                // Both may find that a sum is too large.
                (Err(_), Err(_)) => continue,
                (expected, answered) => {
                    wrong.push(format!(
                        "seed {seed}: {settings:?}; {sql}: {:?}, not {:?}",
                        answered.err(),
                        expected.err()
                    ));
                    continue;
                }
            };
            let (mut expected, mut answered) = (expected, answered);
            if !sql.contains("ORDER BY") {
                expected.sort();
                answered.sort();
            }
            if expected != answered {
                let at = expected.iter().zip(&answered).position(|(a, b)| a != b).unwrap_or(0);
                wrong.push(format!(
                    "seed {seed}: {settings:?}; {sql}: {} rows, not {}; at {at} {:?}, not {:?}",
                    answered.len(),
                    expected.len(),
                    answered.get(at),
                    expected.get(at)
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    })
}

fn settings(dice: &mut StdRng) -> Vec<String> {
    let of = |dice: &mut StdRng, words: &[&str]| words.choose(dice).map(ToString::to_string).unwrap_or_default();
    vec![
        format!("SET henge.shuffle = {}", of(dice, &["off", "on", "auto"])),
        format!("SET henge.segment_group = {}", of(dice, &["off", "on"])),
        format!("SET datafusion.execution.target_partitions = {}", of(dice, &["1", "2", "5"])),
        format!("SET datafusion.execution.batch_size = {}", of(dice, &["100", "8192"])),
    ]
}

const KEYS: [&str; 8] = [
    "channel",
    "namespace",
    "\"isRobot\"",
    "\"cityName\"",
    "page",
    "date_trunc('hour', __time)",
    "added % 5",
    "upper(substr(channel, 2, 2))",
];
const AGGREGATES: [&str; 10] = [
    "COUNT(*)",
    "SUM(added)",
    "SUM(added - deleted)",
    "MIN(delta)",
    "MAX(page)",
    "AVG(added)",
    "COUNT(DISTINCT user)",
    "COUNT(DISTINCT added)",
    "SUM(delta) FILTER (WHERE \"isRobot\" = 'true')",
    "COUNT(\"cityName\")",
];
const CONDITIONS: [&str; 12] = [
    "channel = '#en.wikipedia'",
    "channel IN ('#de.wikipedia', '#fr.wikipedia', '#vi.wikipedia')",
    "page LIKE 'U%'",
    "\"cityName\" IS NULL",
    "added > 50",
    "delta BETWEEN -10 AND 100",
    "__time >= TIMESTAMP '2015-09-12 06:00:00'",
    "__time < TIMESTAMP '2015-09-12 17:30:00'",
    "NOT (user LIKE '%a%')",
    "added > deleted",
    "length(page) % 3 = 1",
    "user IN (SELECT user FROM wikiticker WHERE added > 300)",
];

fn some<'a>(dice: &mut StdRng, words: &[&'a str], most: usize) -> Vec<&'a str> {
    let count = dice.random_range(0..=most);
    words.choose_multiple(dice, count).copied().collect()
}

fn condition(dice: &mut StdRng) -> String {
    let some = some(dice, &CONDITIONS, 3);
    match some.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", some.join(if dice.random_bool(0.3) { " OR " } else { " AND " })),
    }
}

fn question(dice: &mut StdRng) -> String {
    match dice.random_range(0..10) {
        0 | 1 => rows(dice),
        2 => join(dice),
        3 => {
            let (a, b) = (condition(dice), condition(dice));
            format!("SELECT channel, added FROM wikiticker{a} UNION ALL SELECT page, deleted FROM wikiticker{b}")
        }
        _ => groups(dice),
    }
}

fn groups(dice: &mut StdRng) -> String {
    let (keys, mut columns) = (some(dice, &KEYS, 3), some(dice, &AGGREGATES, 3));
    columns.push("COUNT(*) AS n");
    let mut sql = format!("SELECT {} FROM wikiticker{}", [keys.clone(), columns].concat().join(", "), condition(dice));
    if keys.is_empty() {
        return sql;
    }
    sql += &format!(" GROUP BY {}", keys.join(", "));
    if dice.random_bool(0.2) {
        sql += " HAVING COUNT(*) > 2";
    }
    if dice.random_bool(0.4) {
        let order = (1..=keys.len()).map(|key| key.to_string()).collect::<Vec<_>>().join(", ");
        sql += &format!(" ORDER BY n DESC, {order} LIMIT {}", dice.random_range(1..30));
    }
    sql
}

fn rows(dice: &mut StdRng) -> String {
    let condition = condition(dice);
    let columns = "__time, channel, page, user, added, deleted, delta";
    let (limit, offset) = (dice.random_range(1..60), dice.random_range(0..9));
    let order = if dice.random_bool(0.5) { "added DESC, " } else { "" };
    format!("SELECT {columns} FROM wikiticker{condition} ORDER BY {order}{columns} LIMIT {limit} OFFSET {offset}")
}

fn join(dice: &mut StdRng) -> String {
    let (a, b) = (condition(dice), condition(dice));
    let kind = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(dice).copied().unwrap_or("JOIN");
    let key = ["channel", "user", "namespace"].choose(dice).copied().unwrap_or("channel");
    format!(
        "SELECT COUNT(*), SUM(x.s), COUNT(y.n) FROM (SELECT {key} AS k, SUM(added) AS s FROM wikiticker{a} GROUP BY 1) x \
         {kind} (SELECT {key} AS k, COUNT(*) AS n FROM wikiticker{b} GROUP BY 1) y ON x.k = y.k"
    )
}
