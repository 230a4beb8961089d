//! `henge server`.

use clap::Args;
use henge_catalog::database::Opening;
use henge_engine::Result;

use super::{Interruption, Runtimes, held, say};
use crate::config::{Config, Options};
use crate::pg_catalog::DATABASE;
use crate::role::all::{self, Taken};
use crate::role::cluster;

#[derive(Args, Debug)]
pub(super) struct Server {
    #[command(flatten)]
    options: Options,
}

impl Server {
    pub(super) fn run(self) -> Result<()> {
        let config = self.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        for note in &config.notes {
            tracing::warn!("{note}");
        }
        let result = match config.cluster.is_cluster() {
            true => runtimes.wire.block_on(serve_cluster(&config, &runtimes)),
            false => runtimes.wire.block_on(serve(&config, &runtimes)),
        };
        runtimes.end();
        result
    }
}

async fn serve(config: &Config, runtimes: &Runtimes) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    let database = match super::open_to_serve(config).await? {
        Opening::Opened(database) => database,
        Opening::Held(holder) => return Err(held(config, &holder)),
    };
    let server = match all::start(config, database.clone(), Taken::Fails, runtimes.queries.handle()).await {
        Ok(server) => server,
        Err(error) => {
            database.close().await;
            return Err(error);
        }
    };
    say(&addresses(&server, config))?;
    interruption.wait().await;
    server.stop().await;
    Ok(())
}

async fn serve_cluster(config: &Config, runtimes: &Runtimes) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    let server = tokio::select! {
        server = cluster::start(config, runtimes.queries.handle()) => server?,
        // It may be waiting for the metadata database.
        () = interruption.wait() => return Ok(()),
    };
    let roles = config.cluster.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("Henge is {roles} of a cluster");
    for (name, address) in
        [("PostgreSQL:", server.pg), ("HTTP:      ", Some(server.http)), ("gRPC:      ", server.grpc)]
    {
        if let Some(address) = address {
            text = format!("{text}\n{name} {address}");
        }
    }
    say(&format!("{text}\nReady."))?;
    interruption.wait().await;
    tokio::select! {
        () = server.stop(config.cluster.drain_timeout) => {}
        // Who asks again does not want to wait.
        () = interruption.wait() => {}
    }
    Ok(())
}

/// Where a server can be reached, for people and for tests that let it choose its ports.
pub(super) fn addresses(server: &all::Server, config: &Config) -> String {
    let (pg, http) = (server.pg, server.http);
    format!(
        "Henge serves {}\nPostgreSQL: {pg}\nHTTP:       {http}\nConnect:    psql -h {} -p {} -U {DATABASE} -d {DATABASE}",
        config.data_dir.display(),
        pg.ip(),
        pg.port(),
    )
}
