//! A broker and workers: answers as in one process, whatever dies.

mod failure;
mod link;
mod question;
mod random;

use libtest_mimic::{Failed, Trial};

use crate::harness::block_on;
use crate::harness::data::GENERATED;
use crate::harness::door::{Distributed, Door, RawRows};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for workers in [1, 2, 4] {
        for shuffle in ["off", "on", "auto"] {
            let name = format!("cluster::{workers}_workers::shuffle_{shuffle}");
            trials.push(Trial::test(name, move || answers_as_one_process(workers, shuffle)));
        }
    }
    trials.extend(failure::trials());
    trials.extend(link::trials());
    trials.extend(random::trials());
    trials
}

/// Every question, of data sources whose segments several workers serve.
fn answers_as_one_process(workers: usize, shuffle: &str) -> Result<(), Failed> {
    block_on(async {
        let mut oracle = RawRows::over(&GENERATED);
        let mut cluster = Distributed::over(&GENERATED, workers);
        cluster.ask(&format!("SET henge.shuffle = {shuffle}")).await?;
        for door in [&mut oracle as &mut dyn Door, &mut cluster] {
            door.ask(question::LOOKUP).await?;
        }
        let mut wrong = Vec::new();
        for (name, sql) in question::QUESTIONS {
            let expected = oracle.ask(sql).await.map_err(|error| format!("{name}: the oracle itself says: {error}"))?;
            match cluster.ask(sql).await {
                Ok(mut answered) => {
                    let mut expected = expected;
                    // The order of a window is none of the answer.
                    if !sql.rsplit(')').next().unwrap_or(sql).contains("ORDER BY") {
                        answered.sort();
                        expected.sort();
                    }
                    if answered != expected {
                        let at = expected.iter().zip(&answered).position(|(a, b)| a != b).unwrap_or(0);
                        wrong.push(format!(
                            "{name}: {} rows, not {}; at {at}: {:?}, not {:?}",
                            answered.len(),
                            expected.len(),
                            answered.get(at),
                            expected.get(at)
                        ));
                    }
                }
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    })
}
