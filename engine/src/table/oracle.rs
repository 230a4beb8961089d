//! The oracle: SQL over segments answers as DataFusion does over the same rows in memory.

mod druid;
mod live;

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, ListBuilder, RecordBatch, StringViewArray,
    StringViewBuilder, TimestampMillisecondArray,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, TableProvider,
};
use datafusion::common::test_util::batches_to_sort_string;
use datafusion::datasource::MemTable;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{DataSourceTable, FixedSource, VisibleSegment};
use crate::model::{
    ColumnSchema, ColumnType, Interval, MetricCombine, SegmentId, SegmentSchema, SegmentUid, Timestamp,
};
use crate::segment::druid::tests::builder::{Style, encode};
use crate::segment::druid::{DruidSegment, Nulls};
use crate::segment::memory::MemorySegment;
use crate::segment::{
    MergeInput, PromotedSegment, Rollup, RowOrder, Segment, SegmentFile, WriteOptions, write_segment,
};

const HOUR: i64 = 3_600_000;
/// 2013-08-01T00:00:00Z
const START: i64 = 1_375_315_200_000;

fn columns() -> Vec<ColumnSchema> {
    vec![
        ColumnSchema::dimension("few", ColumnType::String),
        ColumnSchema::dimension("some", ColumnType::String),
        ColumnSchema::dimension("many", ColumnType::String),
        ColumnSchema::multi_value_dimension("tags"),
        ColumnSchema::dimension("number", ColumnType::Long),
        ColumnSchema::metric("long", ColumnType::Long, MetricCombine::Sum),
        ColumnSchema::metric("float", ColumnType::Float, MetricCombine::Sum),
        ColumnSchema::metric("double", ColumnType::Double, MetricCombine::Max),
        ColumnSchema::metric("whole", ColumnType::Long, MetricCombine::Sum),
    ]
}

fn schema_without(lacking: &[&str]) -> Arc<SegmentSchema> {
    let columns = columns().into_iter().filter(|column| !lacking.contains(&column.name.as_str()));
    Arc::new(SegmentSchema::new(columns).unwrap())
}

/// `num_rows` rows between two hours; columns in `lacking` are null, or empty lists. Sums of its floats are exact in any order.
fn rows(random: &mut StdRng, num_rows: usize, hours: std::ops::Range<i64>, lacking: &[&str]) -> RecordBatch {
    let time = (0..num_rows).map(|_| START + random.random_range(hours.start * HOUR..hours.end * HOUR));
    let time = TimestampMillisecondArray::from_iter_values(time.collect::<Vec<_>>());
    let mut text = |name: &str, make: &mut dyn FnMut(&mut StdRng) -> Option<String>| -> ArrayRef {
        let lacks = lacking.contains(&name);
        Arc::new((0..num_rows).map(|_| make(random).filter(|_| !lacks)).collect::<StringViewArray>())
    };
    let few = text("few", &mut |r| {
        [None, Some(""), Some("a"), Some("b"), Some("User:x")][r.random_range(0..5)].map(Into::into)
    });
    let some = text("some", &mut |r| Some(format!("value {}", r.random_range(0..300))).filter(|v| !v.ends_with('7')));
    let many = text("many", &mut |r| Some(format!("User:a rather long value, number {}", r.random_range(0..20_000))));
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    for _ in 0..num_rows {
        let longest = if lacking.contains(&"tags") { 0 } else { 2 };
        for _ in 0..random.random_range(0..=longest) {
            tags.values().append_option([None, Some("x"), Some("y")][random.random_range(0..3)]);
        }
        tags.append(true);
    }
    let mut number = |name: &str, of: i64| {
        let lacks = lacking.contains(&name);
        let value = |r: &mut StdRng| (r.random_range(0..10) > 0).then(|| r.random_range(-of..of)).filter(|_| !lacks);
        (0..num_rows).map(|_| value(random)).collect::<Vec<_>>()
    };
    let long = Int64Array::from(number("long", 1000));
    let few_numbers = Int64Array::from(number("number", 3));
    let float = number("float", 100).into_iter().map(|v| v.map(|v| v as f32 / 2.0)).collect::<Float32Array>();
    let double = number("double", 100).into_iter().map(|v| v.map(|v| v as f64 / 4.0)).collect::<Float64Array>();
    // Never null; in some segments so far apart that a count and a sum do not go together in a word.
    let outlier = if random.random_bool(0.5) { 1 << 41 } else { 1 << 20 };
    let whole = (0..num_rows).map(|_| match random.random_range(0..50) {
        0 => random.random_range(-outlier..outlier),
        _ => random.random_range(-20..1000),
    });
    let whole = Int64Array::from_iter_values(whole.collect::<Vec<_>>());
    RecordBatch::try_from_iter_with_nullable([
        ("__time", Arc::new(time) as ArrayRef, false),
        ("few", few, true),
        ("some", some, true),
        ("many", many, true),
        ("tags", Arc::new(tags.finish()), true),
        ("number", Arc::new(few_numbers), true),
        ("long", Arc::new(long), true),
        ("float", Arc::new(float), true),
        ("double", Arc::new(double), true),
        ("whole", Arc::new(whole), true),
    ])
    .unwrap()
}

fn within(batch: &RecordBatch, clip: &Interval) -> RecordBatch {
    let time = batch.column(0).as_any().downcast_ref::<TimestampMillisecondArray>().unwrap();
    let keep = time.values().iter().map(|&time| clip.contains(Timestamp::from_millis(time)));
    filter_record_batch(batch, &keep.map(Some).collect::<BooleanArray>()).unwrap()
}

/// Segments of random rows, and the same rows in memory.
struct Data {
    ours: Arc<DataSourceTable>,
    stock: Arc<MemTable>,
}

fn data(seed: u64, sizes: &[usize]) -> Data {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut segments, mut batches) = (Vec::new(), Vec::new());
    let wanted = schema_without(&[]);
    for (i, &num_rows) in sizes.iter().enumerate() {
        let from = i as i64 * 24;
        let lacking: &[&str] = match i % 4 {
            2 => &["some", "long"],
            3 => &["tags"],
            _ => &[],
        };
        let mut batch = rows(&mut random, num_rows, from..from + 48, lacking);
        let schema = schema_without(lacking);
        let kind = random.random_range(0..5);
        let is_live = kind == 0 && (seed + i as u64) % 2 == 1;
        if is_live {
            batch = live::as_ingested(&batch);
        }
        let memory = || MemorySegment::from_batches(Arc::clone(&schema), std::slice::from_ref(&batch)).unwrap();
        let with_index =
            || MemorySegment::from_batches_with_row_index(Arc::clone(&schema), std::slice::from_ref(&batch));
        let made: Vec<Arc<dyn Segment>> = match kind {
            0 if is_live => live::as_live(&batch, &mut StdRng::seed_from_u64(seed)),
            0 => vec![Arc::new(memory())],
            1 => vec![Arc::new(with_index().unwrap())],
            2 => vec![in_file(memory())],
            _ => vec![as_druids(&memory(), &mut random)],
        };
        // Some segments are overshadowed in part.
        let hidden = if i % 2 == 1 { random.random_range(0..24) } else { 0 };
        let at = |hour: i64| Timestamp::from_millis(START + hour * HOUR);
        let clip = Interval::new(at(from + hidden), at(from + 48)).unwrap();
        batches.push(within(&batch, &clip));
        for (chunk, segment) in (0..).zip(made) {
            let partition = i as u32 * 10_000 + chunk;
            let segment = match PromotedSegment::fits(segment.schema(), &wanted) {
                true => segment,
                false => Arc::new(PromotedSegment::new(segment, &wanted).unwrap()),
            };
            let id = SegmentId { data_source: "t".into(), interval: clip, version: "1".into(), partition };
            segments.push(VisibleSegment { id: Arc::new(id), uid: SegmentUid::numbered(partition), clip, segment });
        }
    }
    let ours = DataSourceTable::new("t", Arc::new(FixedSource::new(schema_without(&[]), segments)));
    let schema = ours.schema();
    let batches = batches.into_iter().map(|batch| conform(&batch, &schema)).collect();
    Data { stock: Arc::new(MemTable::try_new(schema, vec![batches]).unwrap()), ours: Arc::new(ours) }
}

/// The rows of a segment, written to a file's bytes and read from them.
fn in_file(segment: MemorySegment) -> Arc<dyn Segment> {
    let schema = Arc::clone(segment.schema());
    let rows = 0..segment.num_rows();
    let input = MergeInput { segment: Arc::new(segment), rows };
    let order = RowOrder::of(vec![input], &schema, Rollup::Off).unwrap();
    let mut bytes = Vec::new();
    write_segment(&order, 0..order.num_rows(), &WriteOptions::default(), &mut bytes).unwrap();
    Arc::new(SegmentFile::from_bytes("in memory", bytes).unwrap())
}

/// The same rows in Druid's format, written by the test builder in a style of its choice.
fn as_druids(segment: &MemorySegment, random: &mut StdRng) -> Arc<dyn Segment> {
    let files = encode(segment, &Style::random(random));
    Arc::new(DruidSegment::from_files("in memory", files, Nulls::AsStored).unwrap())
}

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>().unwrap()).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    partitions: usize,
    batch_size: usize,
    segment_aggregate: bool,
    segment_group: bool,
    segment_top: bool,
    filter_pushdown: bool,
}

impl Setting {
    const DEFAULT: Self = Self {
        partitions: 1,
        batch_size: 8192,
        segment_aggregate: true,
        segment_group: true,
        segment_top: true,
        filter_pushdown: true,
    };
}

/// Two sessions in which the table `t` is ours, and DataFusion's own.
fn sessions(data: &Data, setting: Setting) -> [SessionContext; 2] {
    [session(Arc::clone(&data.ours) as _, setting), session(Arc::clone(&data.stock) as _, setting)]
}

fn session(table: Arc<dyn TableProvider>, setting: Setting) -> SessionContext {
    static TEMPLATE: LazyLock<SessionState> =
        LazyLock::new(|| crate::session::install(SessionStateBuilder::new_with_default_features()).build());
    let context = SessionContext::new_with_state(
        SessionStateBuilder::new_from_existing(TEMPLATE.clone())
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .build(),
    );
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("public", Arc::new(MemorySchemaProvider::new())).unwrap();
    context.register_catalog("datafusion", Arc::new(catalog));
    {
        let state = context.state_ref();
        let mut state = state.write();
        let options = state.config_mut().options_mut();
        for (key, value) in [
            ("henge.segment_aggregate", setting.segment_aggregate.to_string()),
            ("henge.segment_group", setting.segment_group.to_string()),
            ("henge.segment_top", setting.segment_top.to_string()),
            ("henge.filter_pushdown", setting.filter_pushdown.to_string()),
            ("datafusion.execution.target_partitions", setting.partitions.to_string()),
            ("datafusion.execution.batch_size", setting.batch_size.to_string()),
        ] {
            options.set(key, &value).unwrap();
        }
    }
    context.register_table("t", table).unwrap();
    context
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

async fn answer(context: &SessionContext, sql: &str) -> Result<String, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await.map_err(|error| error.to_string())?;
    Ok(batches_to_sort_string(&batches))
}

/// Runs a query on `t` over segments and over rows.
async fn compare(data: &Data, setting: Setting, sql: &str) {
    let [ours, stock] = sessions(data, setting);
    let (ours, stock) = (answer(&ours, sql).await, answer(&stock, sql).await);
    match (&ours, &stock) {
        (Ok(ours), Ok(stock)) if ours == stock => {}
        (Err(_), Err(_)) => {}
        (Ok(ours), Ok(stock)) => {
            let differs = ours.lines().zip(stock.lines()).position(|(a, b)| a != b);
            let line = |text: &str| text.lines().nth(differs.unwrap_or(0)).unwrap_or("(no more)").to_owned();
            panic!(
                "{sql}\n{setting:?}\n{} lines, not {}; at {differs:?}\nours:  {}\nstock: {}",
                ours.lines().count(),
                stock.lines().count(),
                line(ours),
                line(stock)
            );
        }
        (ours, stock) => panic!("{sql}\n{setting:?}\nours: {ours:?}\nstock: {stock:?}"),
    }
}

fn leaf() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("''"),
        Just("'a'"),
        Just("'b'"),
        Just("'User:x'"),
        Just("'zzz'"),
        Just("'value 12'"),
        Just("'value 2'"),
        Just("'User:a rather long value, number 77'"),
        Just("NULL"),
    ];
    let dimension = prop_oneof![Just("few"), Just("some"), Just("many")];
    let op = prop_oneof![
        Just("="),
        Just("<>"),
        Just("<"),
        Just("<="),
        Just(">"),
        Just(">="),
        Just("IS DISTINCT FROM"),
        Just("IS NOT DISTINCT FROM"),
    ];
    let pattern = prop_oneof![
        Just("'%'"),
        Just("'User:%'"),
        Just("'%1%'"),
        Just("'value _'"),
        Just("'value 1%'"),
        Just("'VALUE 1%'"),
        Just("''"),
    ];
    let time = (0..100_i64, prop_oneof![Just("="), Just("<"), Just("<="), Just(">"), Just(">="), Just("<>")]).prop_map(
        |(half_hours, op)| {
            let instant = Timestamp::from_millis(START + half_hours * HOUR / 2).to_string();
            format!("__time {op} TIMESTAMP '{}'", instant.trim_end_matches('Z'))
        },
    );
    prop_oneof![
        4 => (dimension.clone(), op, text.clone()).prop_map(|(d, op, t)| format!("{d} {op} {t}")),
        2 => (dimension.clone(), prop::collection::vec(text.clone(), 1..4), any::<bool>())
            .prop_map(|(d, list, not)| format!("{d} {}IN ({})", if not { "NOT " } else { "" }, list.join(", "))),
        3 => (dimension.clone(), prop_oneof![Just("LIKE"), Just("NOT LIKE"), Just("ILIKE"), Just("NOT ILIKE")], pattern)
            .prop_map(|(d, op, p)| format!("{d} {op} {p}")),
        1 => (dimension.clone(), prop_oneof![Just("~"), Just("!~"), Just("~*")]).prop_map(|(d, op)| format!("{d} {op} '^(u|value 1).*[0-4]$'")),
        1 => (dimension.clone(), any::<bool>()).prop_map(|(d, not)| format!("{d} IS {}NULL", if not { "NOT " } else { "" })),
        1 => dimension.clone().prop_map(|d| format!("upper(substr({d}, 1, 5)) = 'VALUE'")),
        1 => dimension.clone().prop_map(|d| format!("length({d}) > 7")),
        1 => dimension.clone().prop_map(|d| format!("CASE WHEN {d} IS NULL THEN true ELSE {d} < 'b' END")),
        1 => dimension.clone().prop_map(|d| format!("({d} = 'a') IS NOT TRUE")),
        1 => dimension.clone().prop_map(|d| format!("coalesce({d}, 'a') || '!' = 'a!'")),
        1 => Just("few < some".to_owned()),
        1 => Just("long > 0".to_owned()),
        1 => Just("number IN (1, 2)".to_owned()),
        1 => Just("TRY_CAST(substr(some, 7) AS INT) % 2 = 0".to_owned()),
        1 => Just("date_trunc('hour', __time) = TIMESTAMP '2013-08-01T05:00:00'".to_owned()),
        2 => time,
        1 => (0..60_i64, 0..60_i64).prop_map(|(a, b)| {
            let at = |hour: i64| Timestamp::from_millis(START + hour * HOUR).to_string().trim_end_matches('Z').to_owned();
            format!("__time BETWEEN TIMESTAMP '{}' AND TIMESTAMP '{}'", at(a), at(b))
        }),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    leaf().prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("(NOT {a})")),
        ]
    })
}

const KEYS: &[&str] = &[
    "few",
    "some",
    "many",
    "number",
    "tags",
    "date_trunc('hour', __time)",
    "date_trunc('month', __time)",
    "date_bin(INTERVAL '7 minutes', __time)",
    "__time",
    "date_part('hour', __time)",
    "CAST(__time AS DATE)",
    "upper(few)",
    "length(many) % 3",
    "few = 'a'",
    "date_trunc('minute', __time)",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(few)",
    "count(many)",
    "count(long)",
    "count(tags)",
    "sum(long)",
    "min(long)",
    "max(long)",
    "avg(long)",
    "sum(float)",
    "min(float)",
    "max(float)",
    "avg(float)",
    "sum(double)",
    "min(double)",
    "max(double)",
    "avg(double)",
    "min(__time)",
    "max(__time)",
    "sum(number)",
    "min(few)",
    "max(many)",
    "sum(long + number)",
    "sum(long) FILTER (WHERE few = 'b' OR number > 0)",
    "min(double * 2)",
    "avg(CASE WHEN few = 'a' THEN long END)",
    "count(DISTINCT many)",
    "count(long + number)",
    "count(DISTINCT few)",
    "count(*) FILTER (WHERE few = 'a')",
    "avg(number)",
    "count(__time)",
    "sum(whole)",
    "avg(whole)",
    "min(whole)",
    "max(whole)",
    "sum(whole) FILTER (WHERE few <> 'a')",
    "count(some)",
    "count(few) FILTER (WHERE whole > 500)",
    "approx_count_distinct(many)",
    "approx_count_distinct(some) FILTER (WHERE number > 0)",
];

fn setting() -> impl Strategy<Value = Setting> {
    (
        prop_oneof![Just(1_usize), Just(4)],
        prop_oneof![Just(8192_usize), Just(100)],
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(partitions, batch_size, segment_aggregate, segment_group, segment_top, filter_pushdown)| {
            Setting { partitions, batch_size, segment_aggregate, segment_group, segment_top, filter_pushdown }
        })
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        3 => prop::collection::vec(prop_oneof![Just(0_usize), Just(1), 2..300_usize], 0..5),
        1 => prop::collection::vec(prop_oneof![Just(8191_usize), Just(8192), Just(8193), Just(20_000)], 1..3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn selected_rows_are_the_rows_for_which_a_condition_is_true(
        seed in any::<u64>(), sizes in sizes(), condition in condition(), setting in setting(),
    ) {
        runtime().block_on(compare(&data(seed, &sizes), setting, &format!("SELECT * FROM t WHERE {condition}")));
    }

    #[test]
    fn groups_are_those_of_datafusion(
        seed in any::<u64>(),
        sizes in sizes(),
        condition in prop::option::of(condition()),
        keys in prop::sample::subsequence(KEYS, 0..4),
        aggregates in prop::sample::subsequence(AGGREGATES, 1..6),
        setting in setting(),
    ) {
        let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let group_by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        let output = keys.iter().chain(&aggregates).enumerate().map(|(i, expr)| format!("{expr} AS c{i}"));
        let sql = format!("SELECT {} FROM t{condition}{group_by}", output.collect::<Vec<_>>().join(", "));
        runtime().block_on(compare(&data(seed, &sizes), setting, &sql));
    }
}

const ORDERS: &[&str] =
    &["few", "some", "many", "number", "long", "float", "double", "whole", "__time", "date_trunc('hour', __time)"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// What rows are ordered by is all that is shown of them, so that ties do not matter.
    #[test]
    fn the_first_rows_of_an_order_are_those_of_datafusion(
        seed in any::<u64>(),
        sizes in sizes(),
        condition in prop::option::of(condition()),
        mut order in prop::sample::subsequence(ORDERS, 1..4).prop_shuffle(),
        direction in prop::collection::vec(0..5_usize, 4),
        limit in prop_oneof![Just(0), Just(1), 2..40, Just(700)],
        offset in prop_oneof![3 => Just(0), 1 => 0..30],
        setting in setting(),
    ) {
        let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let shown = order.iter().enumerate().map(|(i, expr)| format!("{expr} AS c{i}")).collect::<Vec<_>>().join(", ");
        let directions = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST", " NULLS LAST"];
        let order = order.drain(..).zip(&direction).map(|(expr, direction)| format!("{expr}{}", directions[*direction]));
        let order = order.collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {shown} FROM t{condition} ORDER BY {order} LIMIT {limit} OFFSET {offset}");
        runtime().block_on(compare(&data(seed, &sizes), setting, &sql));
    }
}

/// Queries over several blocks and segments, each under every setting.
#[test]
fn queries_answer_alike_with_each_fast_path_on_and_off() {
    let data = data(7, &[9_000, 8_300, 0, 1, 400]);
    let queries = [
        "SELECT count(*) FROM t",
        "SELECT count(*), min(__time), max(__time) FROM t",
        "SELECT count(*) FROM t WHERE __time >= TIMESTAMP '2013-08-02T06:30:00' AND __time < TIMESTAMP '2013-08-03'",
        "SELECT __time, many, long FROM t ORDER BY __time DESC, many, long LIMIT 25",
        "SELECT __time, many, long FROM t WHERE few = 'a' ORDER BY __time, many, long LIMIT 25",
        "SELECT many, sum(long) s FROM t GROUP BY many ORDER BY s DESC, many LIMIT 10",
        "SELECT few, some, many, number, count(*) FROM t GROUP BY few, some, many, number",
        "SELECT number, date_trunc('hour', __time), some, few, sum(double) FROM t GROUP BY 1, 2, 3, 4",
        "SELECT DISTINCT few, number FROM t",
        "SELECT few, count(*), sum(whole), count(some), min(whole), max(whole) FROM t GROUP BY few",
        "SELECT some, few, sum(whole), avg(whole), sum(long) FROM t WHERE some IS NOT NULL GROUP BY some, few",
        "SELECT date_trunc('hour', __time) h, few, sum(whole), count(few) FROM t GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 5",
        "SELECT lower(few), some, max(whole), sum(whole) FROM t WHERE few IN ('a', 'User:x') GROUP BY 1, 2",
        "SELECT many, count(*), sum(whole) FROM t WHERE many LIKE '%7%' GROUP BY many ORDER BY 3 DESC, many LIMIT 5",
        "SELECT few, approx_count_distinct(many), approx_count_distinct(some) FROM t GROUP BY few",
        "SELECT approx_count_distinct(many) FILTER (WHERE few = 'a'), count(DISTINCT many), sum(whole) FROM t",
        "SELECT few, count(DISTINCT many) FROM t GROUP BY few",
        "SELECT count(DISTINCT some) FROM t",
        "SELECT count(DISTINCT few), count(DISTINCT many), count(*), sum(long) FROM t",
        "SELECT few, count(DISTINCT many), sum(long), max(double) FROM t GROUP BY few",
        "SELECT number, some, count(DISTINCT many), avg(long) FROM t WHERE few <> 'a' GROUP BY number, some",
        "SELECT date_trunc('day', __time), count(DISTINCT number), count(DISTINCT some) FROM t GROUP BY 1",
        "SELECT few, count(x) FROM (SELECT few, some x, number FROM t GROUP BY 1, 2, 3) GROUP BY few",
        "SELECT count(*), sum(n) FROM (SELECT many, count(*) n FROM t GROUP BY many)",
        "SELECT many, count(*) n, max(long) FROM t GROUP BY many ORDER BY n DESC, many LIMIT 7",
        "SELECT some, avg(double) a FROM t GROUP BY some ORDER BY a, some LIMIT 5",
        "SELECT some, min(long) a FROM t GROUP BY some ORDER BY a DESC NULLS LAST, some LIMIT 5",
        "SELECT many, number, min(float) a FROM t GROUP BY 1, 2 ORDER BY a NULLS FIRST, many, number LIMIT 9",
        "SELECT many FROM t GROUP BY many ORDER BY count(DISTINCT few) DESC, many LIMIT 3 OFFSET 2",
        "SELECT time_floor(__time, 'P1W'), some, sum(long) FROM t GROUP BY 1, 2",
        "SELECT time_floor(__time, 'PT15M', NULL, 'America/New_York'), count(*), sum(long) FROM t GROUP BY 1",
        "SELECT few, sum(long - number), sum(CASE WHEN few = 'a' THEN long ELSE 1 END), avg(long * 2) FROM t GROUP BY few",
        "SELECT some, count(*) FILTER (WHERE few = 'a'), sum(long) FILTER (WHERE number > 0 AND many < 'User:b') FROM t GROUP BY 1",
        "SELECT count(*) FILTER (WHERE long > 0), max(double) FILTER (WHERE few IS NULL), count(DISTINCT many) FILTER (WHERE number = 1) FROM t",
        "SELECT upper(few), length(some), count(*), sum(double) FROM t GROUP BY 1, 2",
        "SELECT CASE WHEN few = 'a' THEN 'x' WHEN few IS NULL THEN NULL ELSE 'y' END k, count(DISTINCT many) FROM t GROUP BY k",
        "SELECT few LIKE 'U%' b, min(long), count(number + long) FROM t WHERE long % 3 = 1 GROUP BY b",
        "SELECT CAST(substr(some, 7) AS INT) % 10 n, sum(long) FROM t WHERE some LIKE 'value %' GROUP BY n",
        "SELECT few, n, count(*) FROM (SELECT few, long + 1 n, number m FROM t WHERE double > 0) WHERE m < 2 GROUP BY few, n",
        "SELECT few, sum(x), count(*) FROM (SELECT few, long * number x FROM t) GROUP BY few",
        "SELECT many, long FROM t WHERE long > 900 ORDER BY long DESC, many LIMIT 20",
        "SELECT * FROM t WHERE few = 'b' ORDER BY __time DESC, many, some, long, double LIMIT 31 OFFSET 3",
        "SELECT upper(some), many, long + 1 FROM t ORDER BY few DESC NULLS LAST, many, __time, long LIMIT 12",
        "SELECT some, few, many, tags, whole FROM t WHERE whole > 0 ORDER BY some NULLS FIRST, whole DESC, many LIMIT 500",
        "SELECT few, max(m) FROM (SELECT few, many m FROM t ORDER BY double DESC NULLS LAST, many, long LIMIT 50) GROUP BY few",
        "SELECT many, number FROM t WHERE number = 1 AND few = 'a' AND long / number > 3 ORDER BY many, long LIMIT 40",
        "SELECT time_floor(__time, 'P1M'), count(*), sum(double), min(__time) FROM t WHERE long > 7 GROUP BY 1",
        "SELECT date_trunc('hour', __time) h, min(long), max(double) FROM t GROUP BY h HAVING count(*) > 100",
        "SELECT a.few, count(*) FROM t a JOIN t b ON a.many = b.many AND a.__time = b.__time GROUP BY a.few",
        "SELECT a.few, count(*) FROM t a WHERE a.some IN (SELECT some FROM t WHERE few = 'b') GROUP BY a.few",
        "SELECT GROUPING(few), few, number, sum(long) FROM t GROUP BY ROLLUP (few, number)",
        "SELECT m FROM (SELECT few, max(long) m FROM t GROUP BY few ORDER BY m DESC LIMIT 2)",
        "SELECT few, count(*) FROM t WHERE number > 0 GROUP BY few UNION ALL SELECT few, count(*) FROM t GROUP BY few",
        "SELECT count(*) FROM (SELECT * FROM t LIMIT 13)",
        "SELECT count(*) FROM (SELECT * FROM t WHERE few = 'b' LIMIT 1500)",
        "SELECT few, row_number() OVER (PARTITION BY few ORDER BY __time, many, long, double) FROM t",
        "SELECT tags, count(*) FROM t GROUP BY tags",
        "SELECT sum(long) FROM t WHERE some = 'nowhere'",
        "SELECT few, CAST(substr(some, 7) AS INT) n, count(*) FROM t WHERE some LIKE 'value 1%' GROUP BY 1, 2",
    ];
    let runtime = runtime();
    for sql in queries {
        for bits in 0..16 {
            let setting = Setting {
                partitions: if bits & 1 == 0 { 1 } else { 4 },
                segment_aggregate: bits & 2 == 0,
                filter_pushdown: bits & 4 == 0,
                segment_group: bits & 8 == 0,
                segment_top: bits & 8 == 0,
                ..Setting::DEFAULT
            };
            runtime.block_on(compare(&data, setting, sql));
        }
    }
}

#[test]
fn a_sum_that_leaves_64_bits_is_an_error_and_one_that_comes_back_is_right() {
    let schema =
        Arc::new(SegmentSchema::new([ColumnSchema::metric("long", ColumnType::Long, MetricCombine::Sum)]).unwrap());
    let segment = |values: Vec<i64>| -> Arc<dyn Segment> {
        let time = TimestampMillisecondArray::from(vec![START; values.len()]);
        let batch = RecordBatch::try_from_iter([
            ("__time", Arc::new(time) as ArrayRef),
            ("long", Arc::new(Int64Array::from(values)) as ArrayRef),
        ]);
        Arc::new(MemorySegment::from_batches(Arc::clone(&schema), &[batch.unwrap()]).unwrap())
    };
    let runtime = runtime();
    let ask = |segments: Vec<Arc<dyn Segment>>, sql: &str| {
        let ours = Arc::new(DataSourceTable::new("t", Arc::new(FixedSource::of("t", segments).unwrap())));
        let context = session(ours, Setting::DEFAULT);
        runtime.block_on(answer(&context, sql))
    };
    for sql in ["SELECT sum(long) FROM t", "SELECT sum(long) FROM t GROUP BY date_trunc('day', __time)"] {
        let too_much = ask(vec![segment(vec![i64::MAX, 1])], sql);
        assert!(too_much.as_ref().is_err_and(|error| error.contains("bigint out of range")), "{too_much:?}");
        let back = ask(vec![segment(vec![i64::MAX, 5]), segment(vec![-6, 1])], sql);
        assert!(back.as_ref().is_ok_and(|answer| answer.contains("9223372036854775807")), "{back:?}");
    }
}

#[test]
fn little_memory_makes_groups_come_twice_but_right() {
    let data = data(11, &[20_000, 20_000]);
    let [ours, stock] = sessions(&data, Setting { partitions: 4, ..Setting::DEFAULT });
    let environment = datafusion::execution::runtime_env::RuntimeEnvBuilder::new()
        .with_memory_limit(3_000_000, 1.0)
        .build_arc()
        .unwrap();
    let state = SessionStateBuilder::new_from_existing(ours.state()).with_runtime_env(environment).build();
    let small = SessionContext::new_with_state(state);
    let sql = "SELECT many, number, count(*), sum(long) FROM t GROUP BY many, number";
    runtime().block_on(async {
        let stock = answer(&stock, sql).await.unwrap();
        match answer(&small, sql).await {
            Ok(ours) => assert!(ours == stock),
            // The final aggregation may not have enough either; then it is an error, not a wrong answer.
            Err(error) => assert!(error.contains("Resources exhausted"), "{error}"),
        }
    });
}

async fn plan(context: &SessionContext, sql: &str) -> String {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

#[test]
fn plans_show_what_is_pushed_down_and_pruned() {
    let data = data(3, &[300, 300, 300]);
    let context = session(Arc::clone(&data.ours) as _, Setting::DEFAULT);
    let sql = "SELECT few, count(*), sum(long) FROM t \
        WHERE __time >= TIMESTAMP '2013-08-03T12:00:00' AND many LIKE 'User:%' AND long > 3 GROUP BY few";
    let filtered = "SELECT few, avg(long) FROM t WHERE (some = 'value 1' OR NOT many < 'b') GROUP BY few";
    let runtime = runtime();
    let got = runtime.block_on(plan(&context, sql));
    assert!(got.contains("segments=3 considered/1 pruned, interval=2013-08-03T12:00:00.000Z/.."), "{got}");
    assert!(got.contains("filter=[long@0 > 3]") && got.contains("condition=[long@1 > 3]"), "{got}");
    assert!(!got.contains("FilterExec"), "{got}");
    let got = runtime.block_on(plan(&context, filtered));
    assert!(got.contains("SegmentGroupExec: gby=[few], aggr=[avg(long)]"), "{got}");
    assert!(!got.contains("FilterExec"), "{got}");
    assert!(got.contains("filters=[some@0 = value 1 OR many@0 >= b]"), "{got}");
    let got = runtime.block_on(plan(&context, "SELECT count(*) FROM t WHERE true"));
    assert!(got.contains("SegmentGroupExec"), "clipped segments are counted: {got}");
    let by_segment = session(Arc::clone(&data.ours) as _, Setting { segment_group: false, ..Setting::DEFAULT });
    let got = runtime.block_on(plan(&by_segment, filtered));
    assert!(got.contains("SegmentAggregateExec: gby=[few], aggr=[avg(long)]"), "{got}");
    assert!(got.contains("AggregateExec: mode=Final"), "{got}");
    let four = session(Arc::clone(&data.ours) as _, Setting { partitions: 4, ..Setting::DEFAULT });
    for sql in ["SELECT few, count(DISTINCT many), sum(long) FROM t GROUP BY few", "SELECT count(DISTINCT many) FROM t"]
    {
        let got = runtime.block_on(plan(&four, sql));
        assert!(got.contains("count distinct(many)") && !got.contains(" AggregateExec"), "{got}");
    }
    let got = runtime.block_on(plan(&four, "SELECT many, sum(long) s FROM t GROUP BY many ORDER BY s DESC LIMIT 10"));
    assert!(got.contains("top=[10 greatest sum(t.long)]"), "{got}");
}
