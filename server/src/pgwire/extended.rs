//! Prepared statements and portals: what both protocols are made of, and the messages of the extended one.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::{BufMut, Bytes};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use henge_engine::session::error_from_datafusion;
use henge_engine::{Error, Result};

use super::command::{self, Command, CopyIn, Count, Piece};
use super::connection::{Connection, Stop, Stream};
use super::copy::CopyWriter;
use super::copy_in;
use super::encode::{Columns, begin_message, end_message, formats};
use super::error::put_notice;
use super::frontend::{Message, Target};
use super::literal;
use super::parameter;
use super::placeholder;
use super::running::{Chunk, Form, Running, Source};
use crate::pg_catalog::PgType;

/// A statement that was parsed and, if it reads data, planned.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `None` for an empty text.
    pub(super) piece: Option<Piece>,
    /// The query's plan; also that of a cursor's or a COPY's query.
    pub(super) plan: Option<LogicalPlan>,
    /// Types of the parameters.
    pub(super) parameters: Vec<u32>,
    /// Columns that are `integer`, as [`literal::integers`] finds them: before parameters have values, which have types of their own.
    integers: Vec<bool>,
}

impl Prepared {
    pub(super) fn check_no_parameters(&self) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_input("there is no parameter $1").with_sqlstate("42P02"))
    }

    fn command(&self) -> Option<&Command> {
        self.piece.as_ref().map(|piece| &piece.command)
    }

    fn sql(&self) -> &str {
        self.piece.as_ref().map_or("", |piece| piece.sql.as_str())
    }
}

/// A statement with its values, perhaps running.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) work: Work,
    pub(super) columns: Option<Columns>,
    /// Keeps its rows after the transaction: a cursor WITH HOLD.
    pub(super) hold: bool,
    /// Its transaction was committed: the rollback of a later one does not concern it.
    pub(super) kept: bool,
    /// First word of the tag that ends its answer.
    verb: &'static str,
    /// What it was made from, for who looks at what the connection does.
    pub(super) sql: String,
}

#[derive(Debug)]
pub(super) enum Work {
    Empty,
    Ready(Source),
    Running(Running),
    Done,
    Command(Command),
    Copy(Source, Arc<Form>),
    CopyIn { options: CopyIn, target: copy_in::Target, schema: SchemaRef },
    Declare { name: String, plan: Box<LogicalPlan> },
    Fetch { name: String, count: Count, moves: bool },
}

impl Portal {
    fn new(work: Work, columns: Option<Columns>, verb: &'static str) -> Self {
        Self { work, columns, hold: false, kept: false, verb, sql: String::new() }
    }

    /// A cursor over `source`.
    pub(super) fn of_cursor(source: Source, columns: Columns, hold: bool) -> Self {
        let work = Work::Ready(source);
        Self { work, columns: Some(columns), hold, kept: false, verb: "SELECT", sql: String::new() }
    }

    /// The columns to describe before rows come; a COPY describes itself.
    pub(super) fn described(&self) -> Option<&Columns> {
        match self.work {
            Work::Copy(..) | Work::CopyIn { .. } | Work::Declare { .. } => None,
            _ => self.columns.as_ref(),
        }
    }
}

impl<S: Stream> Connection<S> {
    pub(super) async fn extended(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Parse { name, sql, types } => self.parse_message(name, &sql, &types).await,
            Message::Bind { portal, statement, formats, values, result_formats } => {
                self.bind_message(portal, &statement, &formats, &values, &result_formats).await
            }
            Message::Describe(Target::Statement, name) => self.describe_statement(&name),
            Message::Describe(Target::Portal, name) => self.describe_portal(&name),
            Message::Execute { portal, max_rows } => self.execute_message(&portal, max_rows).await,
            Message::Close(target, name) => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.put_empty(b'3');
                Ok(())
            }
            other => Err(Error::defensive(format!("not of the extended protocol: {other:?}")).into()),
        }
    }

    async fn parse_message(&mut self, name: String, sql: &str, types: &[u32]) -> Result<(), Stop> {
        self.begin_statement(sql);
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(already_exists("prepared statement", &name).into());
        }
        let mut pieces = command::split(sql)?.into_iter();
        let piece = pieces.next();
        if pieces.next().is_some() {
            return Err(Error::invalid_input("cannot insert multiple commands into a prepared statement")
                .with_sqlstate("42601")
                .into());
        }
        if let Some(piece) = &piece {
            self.check_transaction(&piece.command)?;
        }
        let prepared = self.prepare(piece, types).await?;
        self.statements.insert(name, prepared);
        self.put_empty(b'1');
        Ok(())
    }

    /// Plans what can be planned before values are known.
    pub(super) async fn prepare(&mut self, piece: Option<Piece>, types: &[u32]) -> Result<Arc<Prepared>, Stop> {
        let sql = piece.as_ref().and_then(planned_text).map(str::to_string);
        let (plan, parameters) = match sql {
            Some(sql) => {
                let (plan, parameters) = self.plan_text(&sql, types).await?;
                (Some(plan), parameters)
            }
            None => (None, Vec::new()),
        };
        let integers = plan.as_ref().map(literal::integers).unwrap_or_default();
        Ok(Arc::new(Prepared { piece, plan, parameters, integers }))
    }

    /// The plan of one statement, and the types of its parameters: as declared, else as their place asks for.
    pub(super) async fn plan_text(&mut self, sql: &str, types: &[u32]) -> Result<(LogicalPlan, Vec<u32>), Stop> {
        let mut statements = self.parse(sql).await?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(Error::invalid_input("one statement is expected here").with_sqlstate("42601").into());
        };
        let found = placeholder::find(&statement);
        let plan = self.plan(statement).await?;
        let inferred = plan.get_parameter_types().map_err(error_from_datafusion)?;
        let count = types.len().max(found.keys().last().copied().unwrap_or(0));
        let parameter = |number: usize| {
            let declared = types.get(number - 1).copied().filter(|oid| *oid != 0);
            let placed = || found.get(&number).copied().flatten();
            let planned = || Some(PgType::of_data_type(inferred.get(&format!("${number}"))?.as_ref()?).oid);
            declared.or_else(placed).or_else(planned).unwrap_or(PgType::TEXT.oid)
        };
        let parameters = (1..=count).map(parameter).collect();
        Ok((plan, parameters))
    }

    async fn bind_message(
        &mut self,
        portal: String,
        statement: &str,
        codes: &[i16],
        values: &[Option<Bytes>],
        result_formats: &[i16],
    ) -> Result<(), Stop> {
        let prepared = self.statement(statement)?;
        self.begin_statement(prepared.sql());
        if let Some(command) = prepared.command() {
            self.check_transaction(command)?;
        }
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(already_exists("cursor", &portal).with_sqlstate("42P03").into());
        }
        if values.len() != prepared.parameters.len() {
            let words = format!(
                "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                values.len(),
                prepared.parameters.len()
            );
            return Err(Error::invalid_input(words).with_sqlstate("08P01").into());
        }
        let value =
            |((value, oid), format): ((&Option<Bytes>, &u32), _)| parameter::decode(value.as_ref(), *oid, format);
        let formats = formats(codes, values.len())?;
        let values = values.iter().zip(&prepared.parameters).zip(formats).map(value).collect::<Result<_>>()?;
        let sql = prepared.sql().to_string();
        let bound = self.bind(prepared, values, result_formats).await?;
        self.portals.insert(portal, Portal { sql, ..bound });
        self.put_empty(b'2');
        Ok(())
    }

    /// A statement with its values, ready to be executed.
    pub(super) async fn bind(
        &mut self,
        prepared: Arc<Prepared>,
        values: Vec<ScalarValue>,
        result_formats: &[i16],
    ) -> Result<Portal, Stop> {
        let Some(command) = prepared.command() else { return Ok(Portal::new(Work::Empty, None, "")) };
        if let Command::Execute { name, arguments } = command {
            let (inner, values) = self.execute_arguments(name, arguments).await?;
            return Box::pin(self.bind(inner, values, result_formats)).await;
        }
        let plan = match &prepared.plan {
            Some(plan) => Some(with_values(plan.clone(), values)?),
            None => None,
        };
        let columns = match self.columns(command, plan.as_ref())? {
            Some(columns) => Some(columns.with_integers(&prepared.integers).with_formats(result_formats)?),
            None => None,
        };
        self.portal(command.clone(), plan, columns)
    }

    fn portal(
        &mut self,
        command: Command,
        plan: Option<LogicalPlan>,
        columns: Option<Columns>,
    ) -> Result<Portal, Stop> {
        let work = match (command, plan) {
            (Command::Copy(options), Some(plan)) => {
                let columns = self.plan_columns(&plan).ok_or_else(no_rows)?;
                let form = Form::Copy(CopyWriter::new(columns, options)?);
                return Ok(Portal::new(Work::Copy(Source::Plan(Box::new(plan)), Arc::new(form)), None, "COPY"));
            }
            (Command::CopyIn(options), Some(plan)) => {
                let schema = Arc::clone(plan.schema().inner());
                let target = copy_in::target(&plan)?;
                return Ok(Portal::new(Work::CopyIn { options, target, schema }, None, "COPY"));
            }
            (Command::Declare { name, hold, .. }, Some(plan)) => {
                self.plan_columns(&plan).ok_or_else(no_rows)?;
                let mut portal = Portal::new(Work::Declare { name, plan: Box::new(plan) }, None, "DECLARE CURSOR");
                portal.hold = hold;
                return Ok(portal);
            }
            (_, Some(plan)) => {
                let verb = verb_of(&plan);
                return Ok(Portal::new(Work::Ready(Source::Plan(Box::new(plan))), columns, verb));
            }
            (Command::Show(name), None) => {
                return Ok(Portal::new(Work::Ready(Source::Batch(self.shown(&name)?)), columns, "SHOW"));
            }
            (Command::Fetch { name, count, moves }, None) => Work::Fetch { name, count, moves },
            (command, None) => Work::Command(command),
        };
        Ok(Portal::new(work, columns, ""))
    }

    /// What a statement's rows look like; `None` if it gives none.
    fn columns(&self, command: &Command, plan: Option<&LogicalPlan>) -> Result<Option<Columns>, Stop> {
        let zone = self.settings.zone();
        match (command, plan) {
            (Command::Copy(_) | Command::CopyIn(_) | Command::Declare { .. }, _) => Ok(None),
            (_, Some(plan)) => Ok(self.plan_columns(plan)),
            (Command::Show(name), None) => Ok(Some(Columns::new(&self.shown(name)?.schema(), zone))),
            (Command::Execute { name, .. }, None) => {
                let inner = self.statement(name)?;
                let columns = inner.command().map_or(Ok(None), |command| self.columns(command, inner.plan.as_ref()))?;
                Ok(columns.map(|columns| columns.with_integers(&inner.integers)))
            }
            (Command::Fetch { name, moves: false, .. }, None) => Ok(self.cursor(name)?.columns.clone()),
            _ => Ok(None),
        }
    }

    /// What a plan's rows look like; `None` if it gives none.
    pub(super) fn plan_columns(&self, plan: &LogicalPlan) -> Option<Columns> {
        self.session.output_schema(plan).map(|schema| Columns::new(&schema, self.settings.zone()))
    }

    pub(super) fn statement(&self, name: &str) -> Result<Arc<Prepared>> {
        self.statements.get(name).map(Arc::clone).ok_or_else(|| {
            Error::not_found(format!("prepared statement \"{name}\" does not exist")).with_sqlstate("26000")
        })
    }

    fn describe_statement(&mut self, name: &str) -> Result<(), Stop> {
        let prepared = self.statement(name)?;
        let out = &mut self.wire.output;
        let start = begin_message(out, b't');
        out.put_i16(prepared.parameters.len() as i16);
        prepared.parameters.iter().for_each(|oid| out.put_u32(*oid));
        end_message(out, start);
        let columns = match prepared.command() {
            Some(command) => self.columns(command, prepared.plan.as_ref())?,
            None => None,
        };
        let columns = columns.map(|columns| columns.with_integers(&prepared.integers));
        self.put_description(columns.as_ref());
        Ok(())
    }

    fn describe_portal(&mut self, name: &str) -> Result<(), Stop> {
        let columns = self.cursor(name)?.described().cloned();
        self.put_description(columns.as_ref());
        Ok(())
    }

    fn put_description(&mut self, columns: Option<&Columns>) {
        match columns {
            Some(columns) => columns.put_description(&mut self.wire.output),
            None => self.put_empty(b'n'),
        }
    }

    async fn execute_message(&mut self, name: &str, max_rows: usize) -> Result<(), Stop> {
        let Some(mut portal) = self.portals.remove(name) else { return Err(no_cursor(name).into()) };
        self.begin_statement(&portal.sql);
        if let Work::Command(command) = &portal.work {
            self.check_transaction(command)?;
        } else {
            self.check_transaction(&Command::Session)?;
        }
        self.execute(&mut portal, (max_rows > 0).then_some(max_rows)).await?;
        self.portals.insert(name.to_string(), portal);
        Ok(())
    }

    /// Executes a portal up to `rows` rows, and says how it ended.
    pub(super) async fn execute(&mut self, portal: &mut Portal, rows: Option<usize>) -> Result<(), Stop> {
        match std::mem::replace(&mut portal.work, Work::Done) {
            Work::Empty => {
                portal.work = Work::Empty;
                self.put_empty(b'I');
            }
            Work::Command(Command::Prepare { name, types, sql }) => {
                self.prepare_named(name, &types, &sql).await?;
                self.put_tag("PREPARE");
            }
            Work::Command(command) => {
                let tag = self.command(command)?;
                self.put_tag(&tag);
            }
            Work::Declare { name, plan } => self.declare(name, *plan, portal.hold)?,
            Work::Fetch { name, count, moves } => self.fetch(&name, count, moves, portal.columns.as_ref()).await?,
            Work::Copy(source, form) => self.copy(source, &form).await?,
            Work::CopyIn { options, target, schema } => self.copy_in(options, target, &schema).await?,
            Work::Ready(source) => {
                // Rows that are asked for in parts are asked for by several statements.
                let deadline = self.deadline.filter(|_| rows.is_none());
                let running = Running::start(&self.session, source, &self.front.queries, deadline);
                self.rows(portal, running, rows).await?;
            }
            Work::Running(running) => self.rows(portal, running, rows).await?,
            Work::Done => self.put_tag(&format!("{} 0", portal.verb)),
        }
        Ok(())
    }

    async fn rows(&mut self, portal: &mut Portal, mut running: Running, limit: Option<usize>) -> Result<(), Stop> {
        let form = Arc::new(portal.columns.clone().map_or(Form::Nothing, Form::Rows));
        // What gives no rows is done whole, whatever number was asked for.
        let limit = limit.filter(|_| portal.columns.is_some());
        let (sent, suspended) = self.stream(&mut running, limit, &form).await?;
        if suspended {
            portal.work = Work::Running(running);
            self.put_empty(b's');
        } else {
            let tag = match portal.verb {
                "SELECT" => format!("SELECT {sent}"),
                // The number before the rows was the new row's, long ago.
                "INSERT" => format!("INSERT 0 {sent}"),
                verb => verb.to_string(),
            };
            self.put_tag(&tag);
        }
        Ok(())
    }

    /// Passes rows on to the client; says how many, and whether there may be more.
    pub(super) async fn stream(
        &mut self,
        running: &mut Running,
        limit: Option<usize>,
        form: &Arc<Form>,
    ) -> Result<(usize, bool), Stop> {
        running.ask(limit, form).await;
        let mut sent = 0;
        loop {
            match self.wait(running.next()).await? {
                Chunk::Rows { bytes, rows } => {
                    sent += rows;
                    self.wire.output.unsplit(bytes);
                    self.flush_if_full().await?;
                }
                Chunk::Suspended => return Ok((sent, true)),
                Chunk::Complete => {
                    for notice in self.session.take_notices() {
                        put_notice("NOTICE", "01000", &notice, &mut self.wire.output);
                    }
                    return Ok((sent, false));
                }
                Chunk::Failed(error) => return Err(error.into()),
            }
        }
    }

    async fn copy(&mut self, source: Source, form: &Arc<Form>) -> Result<(), Stop> {
        let mut running = Running::start(&self.session, source, &self.front.queries, self.deadline);
        let Form::Copy(writer) = form.as_ref() else { return Err(Error::defensive("a COPY without its form").into()) };
        writer.put_start(&mut self.wire.output);
        let (sent, _) = self.stream(&mut running, None, form).await?;
        writer.put_end(&mut self.wire.output);
        self.put_tag(&format!("COPY {sent}"));
        Ok(())
    }
}

/// The text that the session plans, if it plans any of this statement.
fn planned_text(piece: &Piece) -> Option<&str> {
    match &piece.command {
        Command::Session => Some(&piece.sql),
        Command::Set { name, .. } | Command::Show(name) | Command::Reset(Some(name)) if is_engines(name) => {
            Some(&piece.sql)
        }
        Command::Declare { sql, .. } => Some(sql),
        Command::Copy(copy) => Some(&copy.query),
        Command::CopyIn(copy) => Some(&copy.query),
        _ => None,
    }
}

/// Settings of the engine's own. Other names with a dot are a client's.
fn is_engines(name: &str) -> bool {
    name.starts_with("henge.") || name.starts_with("datafusion.")
}

fn verb_of(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Statement(_) => "SET",
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => "EXPLAIN",
        LogicalPlan::Dml(_) => "INSERT",
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => match table.input.as_ref() {
            LogicalPlan::EmptyRelation(_) => "CREATE TABLE",
            _ => "SELECT",
        },
        LogicalPlan::Ddl(DdlStatement::CreateView(_)) => "CREATE VIEW",
        LogicalPlan::Ddl(DdlStatement::DropTable(_)) => "DROP TABLE",
        LogicalPlan::Ddl(DdlStatement::DropView(_)) => "DROP VIEW",
        _ => "SELECT",
    }
}

fn with_values(plan: LogicalPlan, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    plan.replace_params_with_values(&ParamValues::from(values)).map_err(error_from_datafusion)
}

fn no_rows() -> Error {
    Error::invalid_input("the statement gives no rows; a query is expected here").with_sqlstate("42601")
}

fn already_exists(what: &str, name: &str) -> Error {
    Error::conflict(format!("{what} \"{name}\" already exists")).with_sqlstate("42P05")
}

pub(super) fn no_cursor(name: &str) -> Error {
    Error::not_found(format!("cursor \"{name}\" does not exist")).with_sqlstate("34000")
}
