use std::borrow::Cow;

use henge_engine::model::Timestamp;
use henge_engine::{Error, Result};
use sqlx::Database;
use sqlx::error::DatabaseError;

use super::failure::Trouble;
use super::migration::Migration;

/// What one database says or does otherwise than the others.
pub(super) trait Dialect: Database {
    const MIGRATIONS: &'static [Migration];
    /// Begins a transaction that may write, and that sees what others committed before each of its statements.
    const BEGIN_WRITE: &'static str;
    /// Begins a transaction that sees one moment.
    const BEGIN_READ: &'static str;
    /// Creates a data source unless it is there; waits for another that is just creating it.
    const INSERT_DATA_SOURCE: &'static str;
    const INSERT_SCHEMA: &'static str;
    /// See `sql`'s `select_by_hand`.
    const SELECT_BY_HAND: &'static str;
    const LEASES: LeaseStatements;
    /// Keeps two processes from migrating at once; until the end of the transaction or of the connection.
    const LOCK_MIGRATIONS: Option<&'static str>;

    /// Runs a statement. Returns how many rows it matched.
    fn execute(
        connection: &mut Self::Connection,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Runs a statement. Returns its rows.
    fn fetch(
        connection: &mut Self::Connection,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = sqlx::Result<Vec<Fields>>> + Send;

    /// What kind of failure the database reports.
    fn trouble(error: &dyn DatabaseError) -> Trouble;
}

/// Statements with the database's own clock in them.
pub(super) struct LeaseStatements {
    pub(super) insert: &'static str,
    pub(super) acquire: &'static str,
    pub(super) seize: &'static str,
    pub(super) renew: &'static str,
    pub(super) read: &'static str,
    /// Holds the row, so that nobody takes the lease over before the transaction has ended.
    pub(super) fence: &'static str,
    /// What time it is.
    pub(super) now: &'static str,
    pub(super) insert_server: &'static str,
    /// With the milliseconds since each was renewed.
    pub(super) select_servers: &'static str,
}

/// The same for all, but for the milliseconds since 1970 and the words that lock a row against changes.
macro_rules! lease_statements {
    ($insert:literal, $now:literal, $shared:literal) => {
        $crate::store::dialect::LeaseStatements {
            insert: $insert,
            acquire: concat!(
                "UPDATE leases SET holder = ?, epoch = epoch + 1, expires_ms = ",
                $now,
                " + ? ",
                "WHERE role = ? AND (expires_ms <= ",
                $now,
                " OR holder = ?)"
            ),
            seize: concat!(
                "UPDATE leases SET holder = ?, epoch = epoch + 1, expires_ms = ",
                $now,
                " + ? WHERE role = ?"
            ),
            renew: concat!(
                "UPDATE leases SET expires_ms = ",
                $now,
                " + ? ",
                "WHERE role = ? AND holder = ? AND epoch = ? AND expires_ms > ",
                $now
            ),
            read: concat!("SELECT holder, epoch, expires_ms - ", $now, " FROM leases WHERE role = ?"),
            fence: concat!("SELECT epoch FROM leases WHERE role = ? AND holder = ? AND epoch = ?", $shared),
            now: concat!("SELECT ", $now),
            insert_server: concat!(
                "INSERT INTO servers (name, incarnation, payload, renewed_ms) VALUES (?, ?, ?, ",
                $now,
                ")"
            ),
            select_servers: concat!("SELECT payload, ", $now, " - renewed_ms FROM servers ORDER BY name"),
        }
    };
}
pub(super) use lease_statements;

/// `execute` and `fetch` of a dialect: alike in words, of different types.
macro_rules! run_statements {
    ($database:ty, $translate:path, $field:path) => {
        async fn execute(
            connection: &mut Self::Connection,
            statement: &'static str,
            values: &[$crate::store::dialect::Value<'_>],
        ) -> sqlx::Result<u64> {
            let query = $crate::store::dialect::bind_values!($translate(statement), values);
            Ok(query.execute(connection).await?.rows_affected())
        }

        async fn fetch(
            connection: &mut Self::Connection,
            statement: &'static str,
            values: &[$crate::store::dialect::Value<'_>],
        ) -> sqlx::Result<Vec<$crate::store::dialect::Fields>> {
            let query = $crate::store::dialect::bind_values!($translate(statement), values);
            let rows = query.fetch_all(connection).await?;
            let fields = |row: &<$database as sqlx::Database>::Row| {
                let fields = (0..sqlx::Row::len(row)).map(|index| $field(row, index));
                fields.collect::<sqlx::Result<Vec<_>>>().map($crate::store::dialect::Fields)
            };
            rows.iter().map(fields).collect()
        }
    };
}
pub(super) use run_statements;

macro_rules! bind_values {
    ($statement:expr, $values:expr) => {{
        let mut query = sqlx::query($statement);
        for value in $values {
            query = match value {
                $crate::store::dialect::Value::Long(value) => query.bind(*value),
                $crate::store::dialect::Value::Text(value) => query.bind(value.as_deref()),
                $crate::store::dialect::Value::Bytes(value) => query.bind(value.as_ref()),
                $crate::store::dialect::Value::Bool(value) => query.bind(*value),
            };
        }
        query
    }};
}
pub(super) use bind_values;

/// A value that stands for a placeholder.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Long(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Bytes(Cow<'a, [u8]>),
    Bool(bool),
}

/// A list of values, each of its own type.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::dialect::Value::from($value)),*][..] };
}
pub(super) use values;

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Long(Some(value))
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Long(Some(value.cast_signed()))
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Long(Some(value.into()))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Long(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(value)))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Some(Cow::Owned(value)))
    }
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(value: &'a Option<String>) -> Self {
        Self::Text(value.as_deref().map(Cow::Borrowed))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(value))
    }
}

/// A time as Druid writes it into its tables.
impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::from(value.to_string())
    }
}

/// A field of a row. Texts are bytes, since some databases do not tell the two apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Null,
    Long(i64),
    Bytes(Vec<u8>),
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Fields(pub(super) Vec<Field>);

impl Fields {
    pub(super) fn text(&self, index: usize) -> Result<String> {
        self.optional_text(index)?.ok_or_else(|| unexpected(index, "is null"))
    }

    pub(super) fn optional_text(&self, index: usize) -> Result<Option<String>> {
        match self.0.get(index) {
            Some(Field::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(error) => Err(unexpected(index, "is not UTF-8").with_source(error)),
            },
            Some(Field::Null) => Ok(None),
            _ => Err(unexpected(index, "is not a text")),
        }
    }

    pub(super) fn long(&self, index: usize) -> Result<i64> {
        self.optional_long(index)?.ok_or_else(|| unexpected(index, "is null"))
    }

    pub(super) fn optional_long(&self, index: usize) -> Result<Option<i64>> {
        match self.0.get(index) {
            Some(Field::Long(value)) => Ok(Some(*value)),
            Some(Field::Null) => Ok(None),
            _ => Err(unexpected(index, "is not a number")),
        }
    }

    pub(super) fn unsigned(&self, index: usize) -> Result<u64> {
        Ok(self.long(index)?.cast_unsigned())
    }
}

fn unexpected(index: usize, what: &str) -> Error {
    Error::corrupt(format!("field {index} of a row of the metadata store {what}; was it changed by hand?"))
}
