//! What statements ask of the connection itself: settings, transactions, prepared statements, cursors.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use henge_engine::session::error_from_datafusion;
use henge_engine::{Error, Result};

use super::command::{self, Command, Count};
use super::connection::{Connection, Stop, Stream, Transaction};
use super::encode::Columns;
use super::error::put_notice;
use super::extended::{Portal, Prepared, Work, no_cursor};
use super::parameter;
use super::running::{Form, Running, Source, Task};
use super::setting::Scope;

impl<S: Stream> Connection<S> {
    /// Does what the connection alone can do; gives the tag.
    pub(super) fn command(&mut self, command: Command) -> Result<String, Stop> {
        Ok(match command {
            Command::Begin => self.begin(),
            Command::Commit { chain } => self.end(chain, "COMMIT")?,
            Command::Rollback { chain } => self.end(chain, "ROLLBACK")?,
            Command::Savepoint(name) => {
                let tag = self.in_block("SAVEPOINT", "SAVEPOINT")?;
                self.settings.savepoint(&name);
                tag
            }
            Command::Release(name) => {
                let tag = self.in_block("RELEASE SAVEPOINT", "RELEASE")?;
                self.settings.release(&name)?;
                tag
            }
            Command::RollbackTo(name) => {
                let tag = self.in_block("ROLLBACK TO SAVEPOINT", "ROLLBACK")?;
                self.settings.rollback_to(&name)?;
                self.transaction = Transaction::Open;
                tag
            }
            Command::Set { name, value, local } => {
                self.set(&name, value.as_deref(), local)?;
                "SET".to_string()
            }
            Command::Reset(Some(name)) => {
                self.set(&name, None, false)?;
                "RESET".to_string()
            }
            Command::Reset(None) => {
                self.settings.reset();
                "RESET".to_string()
            }
            Command::Accept(tag) => tag.to_string(),
            Command::Discard(tag) => self.discard(tag)?,
            Command::Deallocate(name) => self.deallocate(name)?,
            Command::Close(name) => self.close(name)?,
            other => return Err(Error::unsupported(format!("this form of {other:?} is not supported")).into()),
        })
    }

    fn begin(&mut self) -> String {
        if self.transaction == Transaction::Open {
            self.warn("25001", "there is already a transaction in progress");
        } else {
            self.transaction = Transaction::Open;
            self.settings.begin();
        }
        "BEGIN".to_string()
    }

    fn end(&mut self, chain: bool, tag: &str) -> Result<String> {
        let before = self.transaction;
        if before == Transaction::None {
            if chain {
                let words = format!("{tag} AND CHAIN can only be used in transaction blocks");
                return Err(Error::invalid_input(words).with_sqlstate("25P01"));
            }
            self.warn("25P01", "there is no transaction in progress");
        }
        // The end of a failed block is a rollback, whatever it was called.
        let tag = if before == Transaction::Failed { "ROLLBACK" } else { tag };
        match tag {
            "COMMIT" => self.settings.commit(),
            _ => self.settings.rollback(),
        }
        // What was declared in a block that is rolled back was never declared.
        let keeps = |portal: &Portal| portal.hold && (tag == "COMMIT" || portal.kept);
        self.portals.retain(|_, portal| keeps(portal));
        self.portals.values_mut().for_each(|portal| portal.kept = true);
        self.session.end_of_transaction()?;
        self.transaction = Transaction::None;
        if chain {
            self.transaction = Transaction::Open;
            self.settings.begin();
        }
        Ok(tag.to_string())
    }

    fn warn(&mut self, sqlstate: &str, message: &str) {
        put_notice("WARNING", sqlstate, message, &mut self.wire.output);
    }

    fn in_block(&self, what: &str, tag: &str) -> Result<String> {
        if self.transaction == Transaction::None {
            return Err(
                Error::invalid_input(format!("{what} can only be used in transaction blocks")).with_sqlstate("25P01")
            );
        }
        Ok(tag.to_string())
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        if !local {
            return self.settings.set(name, value, Scope::Session);
        }
        if self.transaction == Transaction::None {
            // Refused all the same if it is wrong.
            self.settings.get(name)?;
            self.warn("25P01", "SET LOCAL can only be used in transaction blocks");
            return Ok(());
        }
        self.settings.set(name, value, Scope::Local)
    }

    fn discard(&mut self, tag: &str) -> Result<String> {
        if tag == "DISCARD ALL" {
            if self.transaction != Transaction::None {
                return Err(
                    Error::invalid_input("DISCARD ALL cannot run inside a transaction block").with_sqlstate("25001")
                );
            }
            self.settings.reset();
            self.portals.clear();
            self.statements.clear();
        }
        if matches!(tag, "DISCARD ALL" | "DISCARD TEMP") {
            self.session.drop_temporary();
        }
        Ok(tag.to_string())
    }

    fn deallocate(&mut self, name: Option<String>) -> Result<String> {
        let Some(name) = name else {
            self.statements.clear();
            return Ok("DEALLOCATE ALL".to_string());
        };
        self.statement(&name)?;
        self.statements.remove(&name);
        Ok("DEALLOCATE".to_string())
    }

    fn close(&mut self, name: Option<String>) -> Result<String> {
        let Some(name) = name else {
            self.portals.clear();
            return Ok("CLOSE CURSOR ALL".to_string());
        };
        self.portals.remove(&name).ok_or_else(|| no_cursor(&name))?;
        Ok("CLOSE CURSOR".to_string())
    }

    /// A simple query outside a transaction block ends one of its own.
    pub(super) fn end_of_transaction(&mut self) {
        if self.transaction == Transaction::None {
            self.end_of_tables();
            self.portals.retain(|_, portal| portal.hold);
            self.portals.values_mut().for_each(|portal| portal.kept = true);
        }
    }

    /// A statement outside a transaction block is one of its own.
    pub(super) fn end_of_tables(&mut self) {
        if let Err(error) = self.session.end_of_transaction() {
            self.fail(&error, None);
        }
    }

    /// The answer to `SHOW name`.
    pub(super) fn shown(&self, name: &str) -> Result<RecordBatch> {
        let column = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
        let batch = if name == "all" {
            let (names, values): (Vec<String>, Vec<String>) = self.settings.all().into_iter().unzip();
            let descriptions = vec![String::new(); names.len()];
            let columns = [("name", column(names)), ("setting", column(values)), ("description", column(descriptions))];
            RecordBatch::try_from_iter(columns)
        } else {
            let value = self.settings.get(name)?;
            RecordBatch::try_from_iter([(self.settings.label(name)?, column(vec![value]))])
        };
        batch.map_err(|error| Error::defensive(format!("SHOW: {error}")))
    }

    /// `PREPARE name (…) AS …`.
    pub(super) async fn prepare_named(&mut self, name: String, types: &[String], sql: &str) -> Result<(), Stop> {
        if self.statements.contains_key(&name) {
            return Err(Error::conflict(format!("prepared statement \"{name}\" already exists"))
                .with_sqlstate("42P05")
                .into());
        }
        let types: Vec<u32> = types.iter().map(|name| parameter::type_oid(name)).collect::<Result<_>>()?;
        let piece = command::split(sql)?.into_iter().next();
        let prepared = self.prepare(piece, &types).await?;
        self.statements.insert(name, prepared);
        Ok(())
    }

    /// What `EXECUTE name (…)` runs, with the values of its arguments.
    pub(super) async fn execute_arguments(
        &mut self,
        name: &str,
        arguments: &str,
    ) -> Result<(Arc<Prepared>, Vec<ScalarValue>), Stop> {
        let prepared = self.statement(name)?;
        let values = if arguments.is_empty() { Vec::new() } else { self.values(arguments).await? };
        if values.len() != prepared.parameters.len() {
            let words = format!("wrong number of parameters for prepared statement \"{name}\"");
            return Err(Error::invalid_input(words).with_sqlstate("42601").into());
        }
        let typed = values
            .into_iter()
            .zip(&prepared.parameters)
            .map(|(value, oid)| value.cast_to(&parameter::data_type(*oid)).map_err(error_from_datafusion));
        let typed = typed.collect::<Result<_>>()?;
        Ok((prepared, typed))
    }

    /// The values of a list of expressions.
    async fn values(&mut self, expressions: &str) -> Result<Vec<ScalarValue>, Stop> {
        let (plan, _) = self.plan_text(&format!("SELECT {expressions}"), &[]).await?;
        let session = Arc::clone(&self.session);
        let task = Task::spawn(&self.front.queries, async move {
            let stream = session.execute(plan).await?;
            stream.try_collect::<Vec<RecordBatch>>().await.map_err(error_from_datafusion)
        });
        let batches = self.wait(task.result()).await???;
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() == 1) else {
            return Err(Error::invalid_input("an argument is not a single value").with_sqlstate("42601").into());
        };
        let value = |array: &ArrayRef| ScalarValue::try_from_array(array, 0).map_err(error_from_datafusion);
        Ok(batch.columns().iter().map(value).collect::<Result<_>>()?)
    }

    pub(super) fn cursor(&self, name: &str) -> Result<&Portal> {
        self.portals.get(name).ok_or_else(|| no_cursor(name))
    }

    pub(super) fn declare(&mut self, name: String, plan: LogicalPlan, hold: bool) -> Result<(), Stop> {
        if self.transaction == Transaction::None && !hold {
            return Err(Error::invalid_input("DECLARE CURSOR can only be used in transaction blocks")
                .with_sqlstate("25P01")
                .into());
        }
        if self.portals.contains_key(&name) {
            return Err(Error::conflict(format!("cursor \"{name}\" already exists")).with_sqlstate("42P03").into());
        }
        let columns = self.plan_columns(&plan).ok_or_else(|| Error::defensive("a cursor without rows"))?;
        let portal = Portal::of_cursor(Source::Plan(Box::new(plan)), columns, hold);
        self.portals.insert(name, portal);
        self.put_tag("DECLARE CURSOR");
        Ok(())
    }

    /// `FETCH` and `MOVE`. `columns` say in which formats; for MOVE there are none.
    pub(super) async fn fetch(
        &mut self,
        name: &str,
        count: Count,
        moves: bool,
        columns: Option<&Columns>,
    ) -> Result<(), Stop> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let limit = match count {
            Count::All => None,
            Count::Rows(rows) => Some(rows),
        };
        let running = match std::mem::replace(&mut portal.work, Work::Done) {
            Work::Ready(source) => Some(Running::start(&self.session, source, &self.front.queries, None)),
            Work::Running(running) => Some(running),
            _ => None,
        };
        let form = Arc::new(columns.cloned().map_or(Form::Nothing, Form::Rows));
        let mut sent = 0;
        if let Some(mut running) = running {
            let (rows, suspended) = self.stream(&mut running, limit, &form).await?;
            sent = rows;
            if suspended {
                portal.work = Work::Running(running);
            }
        }
        self.portals.insert(name.to_string(), portal);
        self.put_tag(&format!("{} {sent}", if moves { "MOVE" } else { "FETCH" }));
        Ok(())
    }
}
