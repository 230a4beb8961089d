//! Clients that copy rows in.

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use libtest_mimic::{Failed, Trial};

use super::Turn;
use crate::harness::{block_on, ensure};

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("wire::copy::who_stops_halfway_keeps_nobody_waiting", halfway)]
}

const COPY: &str = "COPY wikiticker (__time, channel) FROM STDIN";

fn halfway() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        let (slow, other) = (turn.connect().await?, turn.connect().await?);
        let held = slow.copy_in::<_, Bytes>(COPY).await?;
        tokio::pin!(held);
        // More than the client keeps to itself.
        for _ in 0..1_000 {
            held.as_mut().send(Bytes::from_static(b"2015-09-12 01:00:00\t#held\n")).await?;
        }
        held.as_mut().flush().await?;
        let done = async {
            let sink = other.copy_in::<_, Bytes>(COPY).await?;
            tokio::pin!(sink);
            sink.as_mut().send(Bytes::from_static(b"2015-09-12 02:00:00\t#other\n")).await?;
            Ok::<u64, Failed>(sink.finish().await?)
        };
        let taken =
            tokio::time::timeout(Duration::from_secs(60), done).await.map_err(|_| "it waits for the other")??;
        ensure(taken == 1, || format!("{taken} rows of the other"))?;
        let seen = async |channel: &str| {
            let count = format!("SELECT COUNT(*) FROM wikiticker WHERE channel = '{channel}'");
            Ok::<i64, Failed>(other.query_one(&count, &[]).await?.get(0))
        };
        ensure(seen("#other").await? == 1 && seen("#held").await? == 0, || {
            "rows are seen too late or too soon".into()
        })?;
        ensure(held.finish().await? == 1_000 && seen("#held").await? == 1_000, || "rows are missing".into())
    })
}
