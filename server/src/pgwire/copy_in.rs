//! `COPY table FROM STDIN`: rows of text, csv or PostgreSQL's binary format into a data source, published at the end, all or
//! none, or into a temporary table of the session.
//!
//! What the client sends goes through a bounded channel to a thread that reads it into batches, and they are kept until the
//! client has said that it is done, on disk if they are many: the ingestion begins then, so a client that stops halfway keeps
//! nobody else waiting. What ends the copy otherwise (a failure of the client's, a row that is wrong, a cancel request, a
//! connection that is gone) leaves nothing behind.

mod column;
mod fields;
mod spool;
mod tuples;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::{BufMut, Bytes};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use henge_engine::model::TIME_COLUMN;
use henge_engine::session::{SCHEMA, TEMPORARY_SCHEMA};
use henge_engine::{Error, Result};
use tokio::sync::mpsc;

use self::column::Column;
use self::fields::{Fields, Row};
use self::spool::Spool;
use self::tuples::Tuples;
use super::command::{CopyFormat, CopyIn};
use super::connection::{Connection, Stop, Stream};
use super::encode::{Format, begin_message, end_message};
use super::error::protocol_violation;
use super::frontend::Message;
use super::running::Task;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Messages of the client that may wait to be read into batches.
const MESSAGES_AHEAD: usize = 64;

/// What rows are copied into.
#[derive(Debug)]
pub(super) enum Target {
    DataSource(String),
    Temporary(TableReference),
}

/// What reaches the thread that reads.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// There is no more, and all of it is to be kept.
    Done,
}

impl<S: Stream> Connection<S> {
    /// Takes rows with the columns of `schema` into `target`.
    pub(super) async fn copy_in(&mut self, options: CopyIn, target: Target, schema: &SchemaRef) -> Result<(), Stop> {
        let format = if options.format == CopyFormat::Binary { Format::Binary } else { Format::Text };
        let (pieces, coming) = mpsc::channel(MESSAGES_AHEAD);
        let rows = Incoming::new(coming, options, schema)?;
        self.put_copy_in(schema.fields().len(), format);
        self.wire.flush().await?;
        let disk = Arc::clone(&self.session.context().runtime_env().disk_manager);
        let reads = self.front.queries.spawn_blocking(move || Spool::take(rows, &disk));
        let sent = self.pass_on(&pieces).await;
        // If they were not all sent, the thread sees the end of the channel and keeps nothing.
        drop(pieces);
        sent?;
        let lost = |error| Error::runtime_failure("the rows of a COPY could not be read").with_source(error);
        let spool = self.wait(reads).await?.map_err(lost)??;
        let taken = match target {
            Target::DataSource(name) => {
                let sessions = Arc::clone(&self.front.sessions);
                let task =
                    Task::spawn(&self.front.queries, async move { sessions.append(&name, Box::new(spool)).await });
                self.wait(task.result()).await???
            }
            Target::Temporary(name) => {
                let session = Arc::clone(&self.session);
                let put = self.front.queries.spawn_blocking(move || session.append_temporary(&name, spool));
                self.wait(put).await?.map_err(lost)?? as u64
            }
        };
        self.put_tag(&format!("COPY {taken}"));
        Ok(())
    }

    fn put_copy_in(&mut self, columns: usize, format: Format) {
        let code = u8::from(format == Format::Binary);
        let out = &mut self.wire.output;
        let start = begin_message(out, b'G');
        out.put_u8(code);
        out.put_i16(columns as i16);
        (0..columns).for_each(|_| out.put_i16(i16::from(code)));
        end_message(out, start);
    }

    /// Passes the client's data on until it says that it is done, or nobody takes it any more.
    async fn pass_on(&mut self, pieces: &mpsc::Sender<Piece>) -> Result<(), Stop> {
        loop {
            let piece = match self.copy_message(pieces.closed()).await? {
                None => return Ok(()),
                Some(Message::CopyData(data)) => Piece::Data(data),
                Some(Message::CopyDone) => Piece::Done,
                // Both have no meaning here, and PostgreSQL passes them over too.
                Some(Message::Flush | Message::Sync) => continue,
                Some(Message::CopyFail(why)) => {
                    return Err(Error::canceled(format!("COPY from stdin failed: {why}"))
                        .with_sqlstate("57014")
                        .into());
                }
                Some(Message::Terminate) => return Err(Stop::Lost),
                Some(_) => return Err(protocol_violation("only COPY data is expected now").into()),
            };
            let done = matches!(piece, Piece::Done);
            if self.wait(pieces.send(piece)).await?.is_err() || done {
                return Ok(());
            }
        }
    }
}

/// What rows are copied into, which is the table that the query of its columns reads. Those of a data source must say their
/// time.
pub(super) fn target(plan: &LogicalPlan) -> Result<Target> {
    let mut table = None;
    // Never fails.
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            table = Some(scan.table_name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let table = table.ok_or_else(|| Error::defensive("a COPY of no table"))?;
    match table.schema() {
        None | Some(SCHEMA) => {}
        Some(TEMPORARY_SCHEMA) => return Ok(Target::Temporary(table)),
        Some(_) => {
            return Err(Error::invalid_input(format!("`{table}` is no data source, so nothing can be copied into it"))
                .with_sqlstate("42809"));
        }
    }
    if plan.schema().as_arrow().field_with_name(TIME_COLUMN).is_err() {
        let message = format!("a row without `{TIME_COLUMN}` cannot be kept; name it among the columns of COPY");
        return Err(Error::invalid_input(message).with_sqlstate("23502"));
    }
    Ok(Target::DataSource(table.table().to_string()))
}

/// How rows are told apart.
enum Rows {
    Lines(Fields),
    Tuples(Tuples),
}

impl Rows {
    fn of(options: &CopyIn) -> Self {
        match options.format {
            CopyFormat::Binary => Self::Tuples(Tuples::default()),
            format => {
                let null = options.null.clone().into_bytes();
                Self::Lines(Fields::new(format == CopyFormat::Csv, options.delimiter, null))
            }
        }
    }

    fn next(&mut self) -> Result<Option<Row>> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Tuples(tuples) => tuples.next(),
        }
    }

    fn feed(&mut self, data: &[u8]) {
        match self {
            Self::Lines(lines) => lines.feed(data),
            Self::Tuples(tuples) => tuples.feed(data),
        }
    }

    fn finish(&mut self) -> bool {
        match self {
            Self::Lines(lines) => lines.finish(),
            Self::Tuples(tuples) => tuples.finish(),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.is_finished(),
            Self::Tuples(tuples) => tuples.is_finished(),
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Lines(_) => Format::Text,
            Self::Tuples(_) => Format::Binary,
        }
    }
}

/// Batches of the rows that come in.
struct Incoming {
    coming: mpsc::Receiver<Piece>,
    source: Rows,
    columns: Vec<Column>,
    schema: SchemaRef,
    table: String,
    /// Lines read, for messages.
    line: u64,
    header: bool,
    rows: usize,
    ended: bool,
}

impl Incoming {
    fn new(coming: mpsc::Receiver<Piece>, options: CopyIn, schema: &SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(|field| Column::of(field)).collect::<Result<Vec<_>>>()?;
        let plain = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
        Ok(Self {
            coming,
            source: Rows::of(&options),
            columns,
            schema: Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>())),
            table: options.table,
            line: 0,
            header: options.header,
            rows: 0,
            ended: false,
        })
    }

    /// Reads rows until a batch is full or there are no more.
    fn fill(&mut self) -> Result<()> {
        while self.rows < BATCH_ROWS && !self.ended {
            if let Some(row) = self.source.next().map_err(|error| self.placed(error))? {
                self.line += 1;
                if !std::mem::take(&mut self.header) {
                    self.push(&row)?;
                    self.rows += 1;
                }
                continue;
            }
            match self.coming.blocking_recv() {
                Some(Piece::Data(data)) => self.source.feed(&data),
                Some(Piece::Done) if self.source.finish() => self.ended = true,
                // A last line without its end.
                Some(Piece::Done) => self.coming.close(),
                None if self.source.is_finished() => self.ended = true,
                None => return Err(Error::canceled("the COPY was given up before its end").with_sqlstate("57014")),
            }
        }
        Ok(())
    }

    fn placed(&self, error: Error) -> Error {
        error.context("COPY", &self.table).context("line", self.line + 1)
    }

    fn push(&mut self, row: &Row) -> Result<()> {
        let format = self.source.format();
        let place = |error: Error, column: &str| {
            error.context("COPY", &self.table).context("line", self.line).context("column", column)
        };
        if row.len() != self.columns.len() {
            let words =
                if row.len() < self.columns.len() { "missing data for column" } else { "extra data after column" };
            let name = row.len().min(self.columns.len()).saturating_sub(usize::from(row.len() > self.columns.len()));
            let name = self.columns.get(name).map_or("", |column| column.name.as_str());
            let error = Error::invalid_input(format!("{words} \"{name}\"")).with_sqlstate("22P04");
            return Err(place(error, name));
        }
        for (column, field) in self.columns.iter_mut().zip(row) {
            column.push(field.as_deref(), format).map_err(|error| place(error, &column.name))?;
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| Error::defensive("rows of a COPY do not fit their columns").with_source(error))
    }
}

impl Iterator for Incoming {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.ended && self.rows == 0 {
            return None;
        }
        match self.fill() {
            Err(error) => {
                (self.ended, self.rows) = (true, 0);
                Some(Err(error))
            }
            Ok(()) if self.rows == 0 => None,
            Ok(()) => Some(self.batch()),
        }
    }
}
