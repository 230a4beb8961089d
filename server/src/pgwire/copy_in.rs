//! `COPY table FROM STDIN`: rows of text or csv into a data source, published at the end, all or none.
//!
//! What the client sends goes through a bounded channel to the ingestion, which reads it into batches as it takes them, so
//! that a client that sends faster than rows are taken waits. What ends the copy otherwise than by CopyDone (a failure of the
//! client's, a row that is wrong, a cancel request, a connection that is gone) leaves nothing behind.

mod fields;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Builder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{BufMut, Bytes};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use henge_engine::model::TIME_COLUMN;
use henge_engine::session::{SCHEMA, TEMPORARY_SCHEMA};
use henge_engine::{Error, Result};
use tokio::sync::mpsc;

use self::fields::{Fields, Row};
use super::command::{CopyFormat, CopyIn};
use super::connection::{Connection, Stop, Stream};
use super::encode::{begin_message, end_message};
use super::error::protocol_violation;
use super::frontend::Message;
use super::parameter;
use super::running::Task;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Messages of the client that may wait for the ingestion.
const MESSAGES_AHEAD: usize = 64;

const TIMESTAMP: u32 = 1114;

/// What reaches the ingestion.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// There is no more, and all of it is to be kept.
    Done,
}

impl<S: Stream> Connection<S> {
    /// Takes rows with the columns of `schema` into `data_source`.
    pub(super) async fn copy_in(
        &mut self,
        options: CopyIn,
        data_source: String,
        schema: &SchemaRef,
    ) -> Result<(), Stop> {
        if options.format == CopyFormat::Binary {
            return Err(Error::unsupported("COPY FROM STDIN takes text and csv, no binary")
                .with_sqlstate("0A000")
                .into());
        }
        self.put_copy_in(schema.fields().len());
        self.wire.flush().await?;
        let (pieces, coming) = mpsc::channel(MESSAGES_AHEAD);
        let rows = Box::new(Incoming::new(coming, options, schema)?);
        let sessions = Arc::clone(&self.front.sessions);
        let task = Task::spawn(&self.front.queries, async move { sessions.append(&data_source, rows).await });
        let sent = self.pass_on(&pieces).await;
        // If they were not all sent, the ingestion sees the end of the channel and keeps nothing.
        drop(pieces);
        sent?;
        let taken = self.wait(task.result()).await???;
        self.put_tag(&format!("COPY {taken}"));
        Ok(())
    }

    fn put_copy_in(&mut self, columns: usize) {
        let out = &mut self.wire.output;
        let start = begin_message(out, b'G');
        out.put_u8(0);
        out.put_i16(columns as i16);
        (0..columns).for_each(|_| out.put_i16(0));
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

/// The data source that rows are copied into, which is the one that the query of its columns reads. They must say their
/// time.
pub(super) fn target(plan: &LogicalPlan) -> Result<String> {
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
        Some(TEMPORARY_SCHEMA) => {
            return Err(
                Error::unsupported("COPY into a temporary table is not supported; use INSERT").with_sqlstate("0A000")
            );
        }
        Some(_) => {
            return Err(Error::invalid_input(format!("`{table}` is no data source, so nothing can be copied into it"))
                .with_sqlstate("42809"));
        }
    }
    if plan.schema().as_arrow().field_with_name(TIME_COLUMN).is_err() {
        let message = format!("a row without `{TIME_COLUMN}` cannot be kept; name it among the columns of COPY");
        return Err(Error::invalid_input(message).with_sqlstate("23502"));
    }
    Ok(table.table().to_string())
}

/// Batches of the rows that come in.
struct Incoming {
    coming: mpsc::Receiver<Piece>,
    fields: Fields,
    columns: Vec<Column>,
    schema: SchemaRef,
    table: String,
    /// Lines read, for messages.
    line: u64,
    header: bool,
    rows: usize,
    ended: bool,
}

struct Column {
    name: String,
    values: Values,
}

enum Values {
    Time(TimestampMillisecondBuilder),
    Long(Int64Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    Text(StringViewBuilder),
    Texts(ListBuilder<StringViewBuilder>),
}

impl Incoming {
    fn new(coming: mpsc::Receiver<Piece>, options: CopyIn, schema: &SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(|field| Column::of(field)).collect::<Result<Vec<_>>>()?;
        let plain = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
        Ok(Self {
            coming,
            fields: Fields::new(options.format == CopyFormat::Csv, options.delimiter, options.null.into_bytes()),
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
            if let Some(row) = self.fields.next()? {
                self.line += 1;
                if !std::mem::take(&mut self.header) {
                    self.push(&row)?;
                    self.rows += 1;
                }
                continue;
            }
            match self.coming.blocking_recv() {
                Some(Piece::Data(data)) => self.fields.feed(&data),
                Some(Piece::Done) if self.fields.finish() => self.ended = true,
                // A last line without its end.
                Some(Piece::Done) => self.coming.close(),
                None if self.fields.is_finished() => self.ended = true,
                None => return Err(Error::canceled("the COPY was given up before its end").with_sqlstate("57014")),
            }
        }
        Ok(())
    }

    fn push(&mut self, row: &Row) -> Result<()> {
        let place = |error: Error, column: &str| {
            error.context("COPY", &self.table).context("line", self.line).context("column", column)
        };
        if row.len() != self.columns.len() {
            let words =
                if row.len() < self.columns.len() { "missing data for column" } else { "extra data after column" };
            let name =
                self.columns.get(row.len().min(self.columns.len() - 1)).map_or("", |column| column.name.as_str());
            let error = Error::invalid_input(format!("{words} \"{name}\"")).with_sqlstate("22P04");
            return Err(place(error, name));
        }
        for (column, field) in self.columns.iter_mut().zip(row) {
            if let Err(error) = column.push(field.as_deref()) {
                let name = column.name.clone();
                return Err(error.context("COPY", &self.table).context("line", self.line).context("column", name));
            }
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| Error::defensive("rows of a COPY do not fit their columns").with_source(error))
    }
}

impl Iterator for Incoming {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.ended {
            return None;
        }
        match self.fill() {
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
            Ok(()) if self.rows == 0 => None,
            Ok(()) => Some(self.batch()),
        }
    }
}

impl Column {
    fn of(field: &Field) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Timestamp(TimeUnit::Millisecond, None) => Values::Time(TimestampMillisecondBuilder::new()),
            DataType::Int64 => Values::Long(Int64Builder::new()),
            DataType::Float64 => Values::Double(Float64Builder::new()),
            DataType::Float32 => Values::Float(Float32Builder::new()),
            DataType::Utf8View => Values::Text(StringViewBuilder::new()),
            DataType::List(item) if *item.data_type() == DataType::Utf8View => {
                Values::Texts(ListBuilder::new(StringViewBuilder::new()).with_field(Arc::clone(item)))
            }
            other => {
                let message = format!("column `{}` of type {other} cannot be copied into", field.name());
                return Err(Error::unsupported(message).with_sqlstate("0A000"));
            }
        };
        Ok(Self { name: field.name().clone(), values })
    }

    fn push(&mut self, field: Option<&[u8]>) -> Result<()> {
        let text = field
            .map(std::str::from_utf8)
            .transpose()
            .map_err(|_| Error::invalid_input("invalid byte sequence for encoding \"UTF8\"").with_sqlstate("22021"))?;
        match &mut self.values {
            Values::Time(times) => match text {
                Some(text) => times.append_value(millis(text)?),
                None => {
                    let message = format!("null value in column \"{}\"", self.name);
                    return Err(Error::invalid_input(message).with_sqlstate("23502"));
                }
            },
            Values::Long(values) => values.append_option(text.map(|text| number(text, "bigint")).transpose()?),
            Values::Double(values) => {
                values.append_option(text.map(|text| number(text, "double precision")).transpose()?)
            }
            Values::Float(values) => values.append_option(text.map(|text| number(text, "real")).transpose()?),
            Values::Text(values) => values.append_option(text),
            Values::Texts(lists) => match text {
                None => lists.append_null(),
                Some(text) => {
                    for item in parameter::texts_of_array(text)? {
                        lists.values().append_option(item);
                    }
                    lists.append(true);
                }
            },
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Time(values) => Arc::new(values.finish()),
            Values::Long(values) => Arc::new(values.finish()),
            Values::Double(values) => Arc::new(values.finish()),
            Values::Float(values) => Arc::new(values.finish()),
            Values::Text(values) => Arc::new(values.finish()),
            Values::Texts(values) => Arc::new(values.finish()),
        }
    }
}

fn millis(text: &str) -> Result<i64> {
    match parameter::from_text(text, TIMESTAMP) {
        Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) => Ok(micros.div_euclid(1_000)),
        _ => {
            Err(Error::invalid_input(format!("invalid input syntax for type timestamp: \"{text}\""))
                .with_sqlstate("22007"))
        }
    }
}

fn number<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T> {
    text.trim().parse().map_err(|_| {
        Error::invalid_input(format!("invalid input syntax for type {kind}: \"{text}\"")).with_sqlstate("22P02")
    })
}
