//! `henge sql`.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::BytesMut;
use clap::Args;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use henge_catalog::Database;
use henge_catalog::database::Opening;
use henge_engine::session::{Session, SessionOptions, error_from_datafusion, output_label};
use henge_engine::{Error, Result};
use tokio::runtime::Handle;

use super::print::{Answer, Format, Kind};
use super::remote::Login;
use super::{Runtimes, existing_dir, open, remote};
use crate::config::{Options, Secret};
use crate::pg_catalog::{self, DATABASE, PgType};
use crate::pgwire::{Columns, Settings, Values, Zone, install_text};

#[derive(Args, Debug)]
pub(super) struct Sql {
    /// The query
    query: String,
    /// Directory to ask; a server that runs on it is asked instead [default: ./henge-data]
    #[arg(long, env = "HENGE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Metadata database of that directory, unless it is in it
    #[arg(long, env = "HENGE_METADATA", value_name = "URL", hide_env_values = true)]
    metadata: Option<Secret>,
    /// Deep storage of that directory, unless it is in it
    #[arg(long, env = "HENGE_DEEP_STORAGE", value_name = "URL")]
    deep_storage: Option<String>,
    /// Ask the server at this address instead, such as 127.0.0.1:5433
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "data_dir")]
    server: Option<String>,
    /// User of that server [default: henge]
    #[arg(long, env = "HENGE_USER", value_name = "NAME")]
    user: Option<String>,
    /// The user's password; better in the environment, since others can see the arguments of a command
    #[arg(long, env = "HENGE_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Sql {
    pub(super) fn run(self) -> Result<()> {
        let options = Options {
            data_dir: self.data_dir.clone(),
            metadata: self.metadata.clone(),
            deep_storage: self.deep_storage.clone(),
            ..Options::default()
        };
        let config = options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let answer = runtimes.wire.block_on(async {
            if let Some(server) = &self.server {
                let user = self.user.clone().unwrap_or_else(|| DATABASE.to_string());
                let login = Login { user, password: self.password.clone() };
                return remote::ask(server, &login, &self.query).await;
            }
            existing_dir(self.data_dir.clone())?;
            match open(&config).await? {
                Opening::Held(holder) => {
                    remote::ask(&remote::pg_address(&config, &holder)?, &Login::local(&config), &self.query).await
                }
                Opening::Opened(database) => {
                    let answer = ask(&database, &self.query, runtimes.queries.handle()).await;
                    database.close().await;
                    answer
                }
            }
        });
        runtimes.end();
        answer?.print(self.format)
    }
}

/// The answer of a database in this process.
pub(super) async fn ask(database: &Database, query: &str, queries: &Handle) -> Result<Answer> {
    let options =
        SessionOptions { rewriters: vec![pg_catalog::rewriter()], temporary: false, ..SessionOptions::default() };
    let session = database.session(options);
    let settings = Settings::new(DATABASE);
    let facts = pg_catalog::Facts {
        user: DATABASE.to_string(),
        pid: std::process::id() as i32,
        settings: Arc::new(settings.clone()),
        server: Arc::new(pg_catalog::NoServer(database.now())),
    };
    pg_catalog::install(&session, &facts)?;
    install_text(&session, &settings);
    let query = query.to_string();
    let task = queries.spawn(async move {
        let mut statements = session.parse(&query)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(not_one_statement());
        };
        let plan = session.plan(statement).await?;
        collect(&session, plan).await
    });
    task.await.map_err(|error| Error::runtime_failure("the query stopped unexpectedly").with_source(error))?
}

/// An answer has one set of columns.
pub(super) fn not_one_statement() -> Error {
    Error::invalid_input("`henge sql` takes one statement; use psql for several, or call it once for each")
        .with_sqlstate("42601")
}

async fn collect(session: &Session, plan: LogicalPlan) -> Result<Answer> {
    let schema = session.output_schema(&plan).unwrap_or_else(|| Arc::new(Schema::empty()));
    let columns = Columns::new(&schema, Zone::Utc);
    let described =
        schema.fields().iter().map(|field| (output_label(field).to_string(), Kind::of(PgType::of(field).oid)));
    let mut answer = Answer { columns: described.collect(), rows: Vec::new() };
    let mut stream = session.execute(plan).await?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(error_from_datafusion)?;
        let values: Vec<Values<'_>> = batch.columns().iter().map(|array| Values::of(array)).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            answer.rows.push(values.iter().map(|values| text(&columns, values, row)).collect::<Result<_>>()?);
        }
    }
    Ok(answer)
}

fn text(columns: &Columns, values: &Values<'_>, row: usize) -> Result<Option<String>> {
    let mut bytes = BytesMut::new();
    let some = columns.put_text(values, row, &mut bytes)?;
    Ok(some.then(|| String::from_utf8_lossy(&bytes).into_owned()))
}
