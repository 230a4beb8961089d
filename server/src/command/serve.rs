//! `henge server`.

use clap::Args;
use henge_catalog::database::Opening;
use henge_engine::Result;

use super::{Interruption, Runtimes, held, open, say};
use crate::config::{Config, Options};
use crate::pg_catalog::DATABASE;
use crate::role::all::{self, Taken};

#[derive(Args, Debug)]
pub(super) struct Server {
    #[command(flatten)]
    options: Options,
}

impl Server {
    pub(super) fn run(self) -> Result<()> {
        let config = self.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let result = runtimes.wire.block_on(serve(&config, &runtimes));
        runtimes.end();
        result
    }
}

async fn serve(config: &Config, runtimes: &Runtimes) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    let database = match open(config).await? {
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
