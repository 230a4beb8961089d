use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, Date32Array, IntervalMonthDayNanoArray, RecordBatch, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::IntervalMonthDayNano;
use async_trait::async_trait;
use henge_engine::ingest::source::wikipedia::Shape;
use libtest_mimic::Failed;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::Door;
use crate::harness::data::{Rollup, rows_file, tutorial_spec, wikiticker_spec};
use crate::harness::process::{Server, henge, run};
use crate::harness::render::{self, NULL, Row, float_text, seconds};
use crate::harness::scratch;

/// How PostgreSQL's protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Answers are text.
    Simple,
    /// Statements are prepared, answers binary.
    Extended,
}

/// A server in a process of its own, asked through its PostgreSQL port.
#[derive(Debug)]
pub struct Postgres {
    client: Client,
    protocol: Protocol,
}

/// The server over the generated rows. It is started by who needs it first.
static SHARED: Mutex<Option<Server>> = Mutex::new(None);

/// Ends the server that trials share, if there is one.
pub fn end_shared() {
    SHARED.lock().expect("nothing panics while it is held").take();
}

impl Postgres {
    pub async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self, Failed> {
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port()).user("henge").dbname("henge");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { client, protocol })
    }

    /// Of a server over the generated rows, which `henge ingest` has loaded.
    pub async fn generated(protocol: Protocol) -> Result<Self, Failed> {
        Self::connect(shared_address()?, protocol).await
    }

    /// The connection itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn ask_extended(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let rows = self.client.query(sql, &[]).await?;
        let cell = |row: &tokio_postgres::Row, i: usize| row.try_get(i).map(|cell: Cell| cell.0);
        rows.iter().map(|row| (0..row.len()).map(|i| cell(row, i)).collect::<Result<Row, _>>()).collect()
    }

    /// Text alone does not say which of it are floats: their types come by the other protocol.
    async fn ask_simple(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        let statement = self.client.prepare(sql).await?;
        let types: Vec<&Type> = statement.columns().iter().map(|column| column.type_()).collect();
        let cell = |text: Option<&str>, pg_type: &Type| match text {
            None => NULL.to_owned(),
            Some(text) if [Type::FLOAT4, Type::FLOAT8].contains(pg_type) => float_text(text),
            Some(text) if [Type::TIMESTAMP, Type::TIMESTAMPTZ].contains(pg_type) => seconds(text),
            Some(text) => text.to_owned(),
        };
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(types.iter().enumerate().map(|(i, &t)| cell(row.get(i), t)).collect::<Row>())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Where the server over the generated rows is asked; it is started if need be.
pub fn shared_address() -> Result<SocketAddr, Failed> {
    let mut shared = SHARED.lock().expect("nothing panics while it is held");
    if shared.is_none() {
        *shared = Some(start_shared()?);
    }
    Ok(shared.as_ref().expect("just started").pg)
}

fn start_shared() -> Result<Server, Failed> {
    let dir = scratch::dir().join("served");
    std::fs::create_dir_all(&dir)?;
    let data_dir = dir.join("data");
    let specs = [
        tutorial_spec(&rows_file(&dir, Shape::Tutorial)?),
        wikiticker_spec(&rows_file(&dir, Shape::Wikiticker)?, Rollup::Off),
    ];
    for spec in specs {
        let path = dir.join("spec.json");
        std::fs::write(&path, spec.to_string())?;
        let mut command = henge(&["ingest", "--spec"]);
        command.arg(path).arg("--data-dir").arg(&data_dir);
        run(command)?.ok()?;
    }
    Server::start(&data_dir)
}

#[async_trait]
impl Door for Postgres {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let answer = match self.protocol {
            Protocol::Simple => self.ask_simple(sql).await,
            Protocol::Extended => self.ask_extended(sql).await,
        };
        answer.map_err(|error| error.as_db_error().map_or_else(|| error.to_string(), |told| told.message().to_owned()))
    }
}

/// A value in PostgreSQL's binary form, as text.
struct Cell(String);

type Decoded = Result<String, Box<dyn Error + Sync + Send>>;

impl<'a> FromSql<'a> for Cell {
    fn from_sql(pg_type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        decode(pg_type, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(NULL.to_owned()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn decode(pg_type: &Type, raw: &[u8]) -> Decoded {
    Ok(match *pg_type {
        Type::BOOL => if bool::from_sql(pg_type, raw)? { "t" } else { "f" }.to_owned(),
        Type::INT2 => i16::from_sql(pg_type, raw)?.to_string(),
        Type::INT4 => i32::from_sql(pg_type, raw)?.to_string(),
        Type::INT8 => i64::from_sql(pg_type, raw)?.to_string(),
        Type::OID => u32::from_sql(pg_type, raw)?.to_string(),
        Type::FLOAT4 => float_text(&f32::from_sql(pg_type, raw)?.to_string()),
        Type::FLOAT8 => float_text(&f64::from_sql(pg_type, raw)?.to_string()),
        Type::NUMERIC => numeric(raw)?,
        Type::DATE => shown(Arc::new(Date32Array::from(vec![i32::from_be_bytes(raw.try_into()?) + 10_957]))),
        Type::TIME => shown(Arc::new(Time64MicrosecondArray::from(vec![i64::from_be_bytes(raw.try_into()?)]))),
        Type::TIMESTAMP => shown(Arc::new(TimestampMicrosecondArray::from(vec![micros(raw)?]))),
        Type::TIMESTAMPTZ => {
            shown(Arc::new(TimestampMicrosecondArray::from(vec![micros(raw)?]).with_timezone("+00:00")))
        }
        Type::INTERVAL => interval(raw)?,
        // The version of the format comes first.
        Type::JSONB => String::from_utf8(raw.strip_prefix(&[1]).ok_or("another version of jsonb")?.to_vec())?,
        _ => match pg_type.kind() {
            tokio_postgres::types::Kind::Array(item) => array(item, raw)?,
            _ => String::from_utf8(raw.to_vec())?,
        },
    })
}

/// Microseconds since 1970; PostgreSQL counts from 2000.
fn micros(raw: &[u8]) -> Result<i64, Box<dyn Error + Sync + Send>> {
    Ok(i64::from_be_bytes(raw.try_into()?) + 946_684_800_000_000)
}

fn interval(raw: &[u8]) -> Decoded {
    let micros = i64::from_be_bytes(raw[..8].try_into()?);
    let (days, months) = (i32::from_be_bytes(raw[8..12].try_into()?), i32::from_be_bytes(raw[12..].try_into()?));
    let value = IntervalMonthDayNano::new(months, days, micros * 1000);
    Ok(shown(Arc::new(IntervalMonthDayNanoArray::from(vec![value]))))
}

/// One value as the other doors show it.
fn shown(array: ArrayRef) -> String {
    let batch = RecordBatch::try_from_iter([("value", array)]).expect("one column");
    render::rows(&[batch]).remove(0).remove(0)
}

/// Digits in base 10,000, the weight of the first, a sign and the number of decimals.
fn numeric(raw: &[u8]) -> Decoded {
    let words: Vec<i16> = raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let (weight, sign, scale, digits) = (words[1], words[2], words[3] as usize, &words[4..]);
    if sign as u16 == 0xC000 {
        return Ok("NaN".to_owned());
    }
    let digit = |at: i16| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let whole: String =
        (0..=weight.max(0)).map(|at| format!("{:04}", if weight < 0 { 0 } else { digit(at) })).collect();
    let decimals: String = (1..=scale.div_ceil(4) as i16).map(|at| format!("{:04}", digit(weight + at))).collect();
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if scale > 0 { "." } else { "" };
    Ok(format!("{}{whole}{point}{}", if sign == 0 { "" } else { "-" }, &decimals[..scale]))
}

/// One dimension at most: number of dimensions, whether there are nulls, type, length, first index; then the items.
fn array(item: &Type, raw: &[u8]) -> Decoded {
    let number = |at: usize| raw.get(at..at + 4).map(|word| i32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    if number(0) == Some(0) {
        return Ok("{}".to_owned());
    }
    let (count, mut at) = (number(12).ok_or("an array without a length")?, 20);
    let mut cells = Vec::new();
    for _ in 0..count {
        let length = number(at).ok_or("an array that ends early")?;
        at += 4;
        let Ok(length) = usize::try_from(length) else {
            cells.push(NULL.to_owned());
            continue;
        };
        cells.push(decode(item, raw.get(at..at + length).ok_or("an item that ends early")?)?);
        at += length;
    }
    Ok(format!("{{{}}}", cells.join(",")))
}
