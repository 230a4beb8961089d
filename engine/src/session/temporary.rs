//! Tables and views of one session: made by it, seen by it alone, gone with it. BI tools make them.
//!
//! A table's rows stay in memory and are counted in the session's runtime, so that they cannot take more than it may use.
//! A view is kept as its text and planned again by every statement that uses it, so that it shows what is there then.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{CatalogProvider, MemTable, MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    ColumnOption, CreateTable, CreateTableOptions, CreateView, Ident, Insert, ObjectName, ObjectNamePart, ObjectType,
    OnCommit, Statement, TableObject, visit_relations,
};
use parking_lot::Mutex;

use super::bind::{Match, find};
use super::error_from_datafusion;
use crate::error::{Error, Result};
use crate::function::json::JsonKind;

/// The schema of a session's own tables and views, looked through before all others.
pub const TEMPORARY_SCHEMA: &str = "pg_temp";

/// How many views may lie within each other.
pub(super) const VIEW_DEPTH: usize = 16;

/// What a session has made.
#[derive(Debug, Default)]
pub(super) struct Temporary {
    schema: Arc<MemorySchemaProvider>,
    objects: Mutex<BTreeMap<String, Object>>,
    /// What becomes of tables at the end of a transaction, and of those still to be made; without an entry they stay.
    at_commit: Mutex<BTreeMap<String, AtCommit>>,
}

/// What becomes of a table at the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtCommit {
    Drop,
    DeleteRows,
}

#[derive(Debug)]
enum Object {
    Table(Rows),
    /// The text of its query.
    View(String),
}

/// The rows of a table, and the memory they are counted with.
#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Table,
    View,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::View => "view",
        }
    }
}

/// What a statement is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Adopted {
    /// Something else.
    No,
    /// A table of the session.
    Table,
    /// A view of the session that is made; the text of its query.
    View(String),
}

impl Temporary {
    pub(super) fn schema(&self) -> Arc<dyn SchemaProvider> {
        Arc::clone(&self.schema) as _
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.lock().is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.at_commit.lock().clear();
        for name in std::mem::take(&mut *self.objects.lock()).into_keys() {
            // Registered together with the object.
            let _ = self.schema.deregister_table(&name);
        }
    }

    /// Drops and empties the tables that were made to last for a transaction.
    pub(super) fn end_of_transaction(&self) -> Result<()> {
        let ended: Vec<_> = self.at_commit.lock().iter().map(|(name, becomes)| (name.clone(), *becomes)).collect();
        for (name, becomes) in ended {
            let mut objects = self.objects.lock();
            let emptied = match (becomes, objects.get_mut(&name)) {
                (AtCommit::DeleteRows, Some(Object::Table(rows))) => {
                    rows.clear();
                    Some(rows.table()?)
                }
                _ => {
                    objects.remove(&name);
                    self.at_commit.lock().remove(&name);
                    None
                }
            };
            drop(objects);
            let _ = self.schema.deregister_table(&name);
            if let Some(emptied) = emptied {
                self.schema.register_table(name, emptied).map_err(error_from_datafusion)?;
            }
        }
        Ok(())
    }

    /// If a statement makes, fills or drops something of the session, writes it so that the planner takes it.
    /// `is_known` says whether there is something else of a name.
    pub(super) fn adopt(&self, statement: &mut Statement, is_known: impl Fn(&str) -> bool) -> Result<Adopted> {
        match statement {
            Statement::CreateTable(table) if table.temporary || is_qualified(&table.name) => {
                let at_commit = match table.on_commit {
                    Some(OnCommit::Drop) => Some(AtCommit::Drop),
                    Some(OnCommit::DeleteRows) => Some(AtCommit::DeleteRows),
                    _ => None,
                };
                let adopted = adopt_table(table)?;
                if let (Some(name), Some(at_commit)) = (bare(&table.name), at_commit)
                    && self.find(&table.name)?.is_none()
                {
                    self.at_commit.lock().insert(name, at_commit);
                }
                Ok(adopted)
            }
            Statement::CreateView(view) if view.temporary || is_qualified(&view.name) => adopt_view(view),
            Statement::Insert(insert) => self.adopt_insert(insert),
            Statement::Drop {
                object_type: object_type @ (ObjectType::Table | ObjectType::View),
                names,
                if_exists,
                ..
            } => {
                let [name] = names.as_mut_slice() else {
                    return Err(Error::unsupported("drop one table or view at a time").with_sqlstate("0A000"));
                };
                let kind = if *object_type == ObjectType::Table { Kind::Table } else { Kind::View };
                self.adopt_drop(name, kind, *if_exists, is_known)
            }
            _ => Ok(Adopted::No),
        }
    }

    fn adopt_insert(&self, insert: &mut Insert) -> Result<Adopted> {
        let TableObject::TableName(name) = &mut insert.table else { return Ok(Adopted::No) };
        let Some((found, kind)) = self.find(name)? else { return Ok(Adopted::No) };
        if kind == Kind::View {
            return Err(
                Error::invalid_input(format!("`{found}` is a view; nothing can be put into it")).with_sqlstate("55000")
            );
        }
        if insert.returning.is_some() || insert.on.is_some() {
            return Err(Error::unsupported(
                "`INSERT` into a temporary table takes no `RETURNING` and no `ON CONFLICT`",
            )
            .with_sqlstate("0A000"));
        }
        let columns = self.columns(&found);
        for column in &mut insert.columns {
            spell_column(column, &found, &columns)?;
        }
        *name = qualified(&found);
        Ok(Adopted::Table)
    }

    fn adopt_drop(
        &self,
        name: &mut ObjectName,
        kind: Kind,
        if_exists: bool,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Adopted> {
        match self.find(name)? {
            Some((found, of)) if of == kind => {
                *name = qualified(&found);
                Ok(Adopted::Table)
            }
            Some((found, _)) => {
                Err(Error::invalid_input(format!("`{found}` is not a {}", kind.word())).with_sqlstate("42809"))
            }
            None => match bare(name) {
                Some(bare) if !is_known(&bare) && if_exists => {
                    *name = qualified(&bare);
                    Ok(Adopted::Table)
                }
                Some(bare) if !is_known(&bare) => {
                    let message = format!("{} `{bare}` does not exist", kind.word());
                    Err(Error::not_found(message).with_sqlstate("42P01"))
                }
                _ => Ok(Adopted::No),
            },
        }
    }

    /// The object that a name means.
    fn find(&self, name: &ObjectName) -> Result<Option<(String, Kind)>> {
        let Some(bare) = bare(name) else { return Ok(None) };
        let objects = self.objects.lock();
        match find(&bare, objects.iter(), |(name, _)| name.as_str()) {
            Match::One((name, Object::Table(_))) => Ok(Some((name.clone(), Kind::Table))),
            Match::One((name, Object::View(_))) => Ok(Some((name.clone(), Kind::View))),
            Match::Many(_) => {
                Err(Error::invalid_input(format!("table `{bare}` is ambiguous; write it in quotes as it was made"))
                    .with_sqlstate("42P09"))
            }
            Match::None => Ok(None),
        }
    }

    fn columns(&self, table: &str) -> Vec<String> {
        match self.objects.lock().get(table) {
            Some(Object::Table(rows)) => rows.schema.fields().iter().map(|field| field.name().clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// The views that a statement names, and their texts.
    pub(super) fn views_of(&self, statement: &Statement) -> Vec<(String, String)> {
        let mut views: Vec<(String, String)> = Vec::new();
        if self.objects.lock().is_empty() {
            return views;
        }
        let _ = visit_relations(statement, |name| {
            if let Ok(Some((found, Kind::View))) = self.find(name)
                && let Some(Object::View(text)) = self.objects.lock().get(&found)
                && !views.iter().any(|(known, _)| *known == found)
            {
                views.push((found, text.clone()));
            }
            ControlFlow::<()>::Continue(())
        });
        views
    }

    /// Shows a view with the plan it has now.
    pub(super) fn show_view(&self, name: &str, plan: LogicalPlan, text: &str) -> Result<()> {
        let _ = self.schema.deregister_table(name);
        let view = ViewTable::new(plan, Some(text.to_string()));
        self.schema.register_table(name.to_string(), Arc::new(view)).map_err(error_from_datafusion)?;
        Ok(())
    }

    /// Makes a view. Fails if there is something of that name that is not to be replaced.
    pub(super) fn create_view(
        &self,
        name: &TableReference,
        plan: &LogicalPlan,
        text: &str,
        replace: bool,
    ) -> Result<()> {
        let name = name.table();
        {
            let mut objects = self.objects.lock();
            match objects.get(name) {
                Some(Object::View(_)) if replace => {}
                Some(_) => return Err(exists(name)),
                None => {}
            }
            objects.insert(name.to_string(), Object::View(text.to_string()));
        }
        self.show_view(name, plan.clone(), text)
    }

    /// Whether a table can be made: `false` if it is there already, which does not matter.
    pub(super) fn may_create(&self, name: &TableReference, if_not_exists: bool) -> Result<bool> {
        let objects = self.objects.lock();
        match !matches!(find(name.table(), objects.keys(), |known| known.as_str()), Match::None) {
            false => Ok(true),
            true if if_not_exists => Ok(false),
            true => Err(exists(name.table())),
        }
    }

    /// Makes a table of these rows.
    pub(super) fn create_table(
        &self,
        name: &TableReference,
        schema: &Schema,
        batches: Vec<RecordBatch>,
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<()> {
        let name = name.table();
        // Labels stay behind, what is a document stays one.
        let plain = |field: &Arc<Field>| match JsonKind::of(field) {
            Some(kind) => kind.field(field.name()).as_ref().clone().with_nullable(field.is_nullable()),
            None => field.as_ref().clone().with_metadata(Default::default()),
        };
        let schema: SchemaRef = Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()));
        let reservation = MemoryConsumer::new(format!("temporary table {name}")).register(pool);
        let mut rows = Rows { schema, batches: Vec::new(), reservation };
        rows.add(batches)?;
        let table = rows.table()?;
        let mut objects = self.objects.lock();
        if objects.contains_key(name) {
            return Err(exists(name));
        }
        objects.insert(name.to_string(), Object::Table(rows));
        drop(objects);
        self.schema.register_table(name.to_string(), table).map_err(error_from_datafusion)?;
        Ok(())
    }

    /// Adds rows to a table. All of them or, if there is no memory for them, none.
    pub(super) fn insert(&self, name: &TableReference, batches: Vec<RecordBatch>) -> Result<()> {
        let name = name.table();
        let mut objects = self.objects.lock();
        let Some(Object::Table(rows)) = objects.get_mut(name) else { return Err(gone(name)) };
        rows.add(batches)?;
        let table = rows.table()?;
        drop(objects);
        let _ = self.schema.deregister_table(name);
        self.schema.register_table(name.to_string(), table).map_err(error_from_datafusion)?;
        Ok(())
    }

    /// Adds rows with some of a table's columns, in any order; the others are null.
    pub(super) fn append(&self, name: &TableReference, batches: &[RecordBatch]) -> Result<()> {
        let schema = match self.objects.lock().get(name.table()) {
            Some(Object::Table(rows)) => Arc::clone(&rows.schema),
            _ => return Err(gone(name.table())),
        };
        self.insert(name, batches.iter().map(|batch| widened(batch, &schema)).collect::<Result<_>>()?)
    }

    pub(super) fn drop_object(&self, name: &TableReference, if_exists: bool) -> Result<()> {
        let found = self.objects.lock().remove(name.table()).is_some();
        self.at_commit.lock().remove(name.table());
        if !found && !if_exists {
            return Err(gone(name.table()));
        }
        let _ = self.schema.deregister_table(name.table());
        Ok(())
    }
}

impl Rows {
    fn add(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        let fit = |batch: RecordBatch| fit(&batch, &self.schema);
        let batches: Vec<RecordBatch> = batches.into_iter().map(fit).collect::<Result<_>>()?;
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        self.reservation.try_grow(bytes).map_err(error_from_datafusion)?;
        self.batches.extend(batches);
        Ok(())
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.reservation.free();
    }

    fn table(&self) -> Result<Arc<dyn TableProvider>> {
        let table = MemTable::try_new(Arc::clone(&self.schema), vec![self.batches.clone()]);
        Ok(Arc::new(table.map_err(error_from_datafusion)?))
    }
}

/// A batch with all columns of a table, in their order.
fn widened(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let column = batch.column_by_name(field.name()).map(Arc::clone);
        let column = column.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()));
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|error| Error::defensive("rows do not fit their table").with_source(error))
}

/// Brings a batch to the types of a table: a value bound to a parameter may have another one.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if column.null_count() > 0 && !field.is_nullable() {
            let message = format!("null value in column `{}`, which is `NOT NULL`", field.name());
            return Err(Error::invalid_input(message).with_sqlstate("23502"));
        }
        cast_with_options(column, field.data_type(), &exact).map_err(|error| error_from_datafusion(error.into()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::defensive("rows do not fit their table").with_source(error))
}

/// So many rows without columns: how a statement without an answer says what it did.
pub(super) fn counted(rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(|error| Error::defensive("rows without columns").with_source(error))
}

fn adopt_table(table: &mut CreateTable) -> Result<Adopted> {
    let unsupported =
        |what: &str| Err(Error::unsupported(format!("a temporary table takes no {what}")).with_sqlstate("0A000"));
    if !table.constraints.is_empty() {
        return unsupported("constraints");
    }
    for column in &mut table.columns {
        if column.options.iter().any(|option| !matches!(option.option, ColumnOption::Null | ColumnOption::NotNull)) {
            return unsupported("defaults and constraints");
        }
        column.name.quote_style = Some('"');
    }
    // `WITH (fillfactor = 70)` and the like say how rows are stored.
    table.table_options = CreateTableOptions::None;
    table.temporary = false;
    table.global = None;
    table.on_commit = None;
    table.name = qualified(&new_name(&table.name)?);
    Ok(Adopted::Table)
}

fn adopt_view(view: &mut CreateView) -> Result<Adopted> {
    if view.materialized {
        return Err(Error::unsupported("a view of a session is not materialized").with_sqlstate("0A000"));
    }
    let text = match view.columns.as_slice() {
        [] => view.query.to_string(),
        columns => {
            let names: Vec<String> = columns.iter().map(|column| column.name.to_string()).collect();
            format!("SELECT * FROM ({}) AS v ({})", view.query, names.join(", "))
        }
    };
    view.columns.clear();
    view.options = CreateTableOptions::None;
    view.temporary = false;
    view.name = qualified(&new_name(&view.name)?);
    Ok(Adopted::View(text))
}

fn new_name(name: &ObjectName) -> Result<String> {
    bare(name).ok_or_else(|| {
        Error::invalid_input(format!("`{name}` cannot be the name of a temporary table; leave out the schema"))
            .with_sqlstate("42P16")
    })
}

/// The name without the session's schema; nothing for names of other schemas.
fn bare(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(name.value.clone()),
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(name)] if is_ours(schema) => {
            Some(name.value.clone())
        }
        _ => None,
    }
}

fn is_ours(schema: &Ident) -> bool {
    schema.value.eq_ignore_ascii_case(TEMPORARY_SCHEMA)
}

fn is_qualified(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(schema), _] if is_ours(schema))
}

fn qualified(name: &str) -> ObjectName {
    let part = |name: &str| ObjectNamePart::Identifier(Ident::with_quote('"', name));
    ObjectName(vec![part(TEMPORARY_SCHEMA), part(name)])
}

pub(super) fn spell_column(column: &mut ObjectName, table: &str, columns: &[String]) -> Result<()> {
    let Some(wanted) = column.0.last().and_then(ObjectNamePart::as_ident) else { return Ok(()) };
    let Match::One(name) = find(&wanted.value, columns.iter(), |name| name.as_str()) else {
        let message = format!("column `{}` of `{table}` does not exist", wanted.value);
        return Err(Error::invalid_input(message).with_sqlstate("42703"));
    };
    *column = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name.as_str()))]);
    Ok(())
}

fn exists(name: &str) -> Error {
    Error::conflict(format!("table `{name}` already exists")).with_sqlstate("42P07")
}

fn gone(name: &str) -> Error {
    Error::not_found(format!("table `{name}` does not exist")).with_sqlstate("42P01")
}

/// The schemas of a database with the session's own beside them.
#[derive(Debug)]
pub(super) struct WithTemporary {
    pub(super) schemas: Arc<dyn CatalogProvider>,
    pub(super) temporary: Arc<dyn SchemaProvider>,
}

impl CatalogProvider for WithTemporary {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.schemas.schema_names();
        if !self.temporary.table_names().is_empty() {
            names.push(TEMPORARY_SCHEMA.to_string());
        }
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name == TEMPORARY_SCHEMA {
            true => Some(Arc::clone(&self.temporary)),
            false => self.schemas.schema(name),
        }
    }
}
