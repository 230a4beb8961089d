use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};

use super::*;

/// Four edits: three pages, users `anna`, `bob` and none, and the columns whose names are words of SQL.
fn wikipedia() -> Arc<dyn TableProvider> {
    let hour = |hour: i64| Some(1_375_315_200_000 + hour * 3_600_000);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("__time", Arc::new(TimestampMillisecondArray::from(vec![hour(0), hour(1), hour(1), hour(23)]))),
        ("page", Arc::new(StringViewArray::from(vec![Some("Rust"), Some("Druid"), Some("Rust"), Some("Henge")]))),
        ("user", Arc::new(StringViewArray::from(vec![Some("anna"), Some("bob"), Some("anna"), None]))),
        ("cityName", Arc::new(StringViewArray::from(vec![Some("Oslo"), None, Some("Bonn"), Some("Oslo")]))),
        ("language", Arc::new(StringViewArray::from(vec!["en", "de", "en", "en"]))),
        ("timestamp", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("count", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("added", Arc::new(Int64Array::from(vec![10, 20, 30, 40]))),
        ("big", Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX, -i64::MAX, i64::MIN]))),
        ("delta", Arc::new(Float64Array::from(vec![2.5, 3.5, -2.5, 0.0]))),
    ];
    memory_table(columns)
}

/// Columns that differ only in case.
fn cities() -> Arc<dyn TableProvider> {
    memory_table(vec![
        ("cityName", Arc::new(StringViewArray::from(vec!["Oslo", "Bonn"]))),
        ("CITY", Arc::new(StringViewArray::from(vec!["OSL", "CGN"]))),
        ("city", Arc::new(StringViewArray::from(vec!["osl", "cgn"]))),
        ("people", Arc::new(Int64Array::from(vec![700, 300]))),
    ])
}

fn memory_table(columns: Vec<(&str, ArrayRef)>) -> Arc<dyn TableProvider> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
}

fn session() -> Session {
    session_with(SessionOptions::default())
}

fn session_with(options: SessionOptions) -> Session {
    let partitions = NonZeroUsize::new(2);
    let runtime = Runtime::new(RuntimeOptions { target_partitions: partitions, ..Default::default() }).unwrap();
    let schemas = Arc::new(MemoryCatalogProvider::new());
    let tables = MemorySchemaProvider::new();
    tables.register_table("wikipedia".to_string(), wikipedia()).unwrap();
    tables.register_table("Cities".to_string(), cities()).unwrap();
    schemas.register_schema(SCHEMA, Arc::new(tables)).unwrap();
    Session::new(&runtime, schemas, options)
}

async fn text(session: &Session, sql: &str) -> Result<String> {
    let frame = session.sql(sql).await?;
    let batches = frame.collect().await.map_err(error_from_datafusion)?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

/// The labels, then the rows, of a query in a session of its own; values apart by `|`, rows by `/`.
async fn answer(sql: &str) -> String {
    answer_in(&session(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn answer_in(session: &Session, sql: &str) -> Result<String> {
    let frame = session.sql(sql).await?;
    let labels: Vec<String> = frame.schema().fields().iter().map(|field| output_label(field).to_string()).collect();
    let batches = frame.collect().await.map_err(error_from_datafusion)?;
    let options = FormatOptions::default().with_null("null");
    let mut lines = vec![labels.join("|")];
    for batch in &batches {
        let columns: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(values.join("|"));
        }
    }
    Ok(lines.join("/"))
}

async fn plan_text(sql: &str) -> String {
    let session = session();
    let frame = session.sql(sql).await.unwrap();
    frame.into_optimized_plan().unwrap().display_indent().to_string()
}

async fn error(sql: &str) -> Error {
    text(&session(), sql).await.expect_err(sql)
}

#[tokio::test]
async fn what_writes_is_refused() {
    for sql in [
        "CREATE TABLE t (a int)",
        "DROP TABLE wikipedia",
        "INSERT INTO wikipedia VALUES (1)",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SELECT 1 INTO t",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "CREATE EXTENSION x",
    ] {
        let error = error(sql).await;
        assert!(matches!(error.category(), crate::error::Category::Forbidden), "{sql}: {error}");
    }
}

#[tokio::test]
async fn settings_belong_to_one_session() {
    let (one, two) = (session(), session());
    text(&one, "SET datafusion.execution.batch_size = 17").await.unwrap();
    text(&one, "SET henge.dialect = 'druid'").await.unwrap();
    assert!(text(&one, "SHOW datafusion.execution.batch_size").await.unwrap().contains("17"));
    assert!(text(&one, "SHOW henge.dialect").await.unwrap().contains("druid"));
    assert!(text(&two, "SHOW datafusion.execution.batch_size").await.unwrap().contains("8192"));
    text(&one, "RESET henge.dialect").await.unwrap();
    assert!(text(&one, "SHOW henge.dialect").await.unwrap().contains("postgresql"));
    assert_eq!(error("SET datafusion.catalog.default_schema = 'x'").await.sqlstate(), Some("55P02"));
    assert_eq!(error("SET henge.colour = 'x'").await.sqlstate(), Some("42704"));
}

#[tokio::test]
async fn a_syntax_error_says_where() {
    let error = error("SELECT (1\n  FROM t").await;
    assert_eq!(error.sqlstate(), Some("42601"));
    assert_eq!(error.position(), Some(crate::error::Position { line: 2, column: 3 }));
}

#[tokio::test]
async fn nulls_are_the_largest() {
    let session = session();
    let text = text(&session, "SELECT * FROM (VALUES (1), (NULL), (2)) AS t(x) ORDER BY x DESC").await.unwrap();
    assert_eq!(text.lines().skip(3).map(|line| line.trim_matches(['|', ' '])).collect::<Vec<_>>()[..3], ["", "2", "1"]);
}

mod names {
    use super::*;

    #[tokio::test]
    async fn a_name_is_the_exact_one_or_a_unique_one_in_another_case() {
        for name in
            ["cityName", "cityname", "CITYNAME", "\"cityName\"", "\"cityname\"", "W.CityName", "wikipedia.cityname"]
        {
            let table = if name.starts_with('W') { "Wikipedia w" } else { "WIKIPEDIA" };
            let sql = format!("SELECT {name} FROM {table} WHERE {name} = 'Bonn'");
            assert_eq!(answer(&sql).await, "cityName/Bonn", "{sql}");
        }
        for table in ["druid.wikipedia", "henge.druid.Wikipedia", "\"DRUID\".\"wikipedia\""] {
            assert_eq!(answer(&format!("SELECT count(*) FROM {table}")).await, "count/4");
        }
    }

    #[tokio::test]
    async fn an_ambiguous_name_is_an_error_that_names_the_candidates() {
        assert_eq!(answer("SELECT city FROM cities WHERE people = 300").await, "city/cgn");
        let error = error("SELECT City FROM cities").await;
        assert_eq!(error.sqlstate(), Some("42702"));
        assert_eq!(
            error.message(),
            "column `City` is ambiguous: it could be `\"Cities\".\"CITY\"` or `\"Cities\".city`"
        );
        let error = super::error("SELECT cityname FROM wikipedia w, cities c").await;
        assert_eq!(error.message(), "column `cityname` is ambiguous: it could be `w.\"cityName\"` or `c.\"cityName\"`");
    }

    #[tokio::test]
    async fn what_does_not_exist_is_named_with_its_place_and_the_nearest_name() {
        let error = error("SELECT page,\n  cityNam FROM wikipedia").await;
        assert_eq!(error.to_string(), "column `cityNam` does not exist at line 2, column 3; did you mean `cityName`?");
        assert_eq!(error.sqlstate(), Some("42703"));
        let error = super::error("SELECT 1 FROM wikpedia").await;
        assert_eq!(
            error.to_string(),
            "table `wikpedia` does not exist at line 1, column 15; did you mean `wikipedia`?"
        );
        assert_eq!(error.sqlstate(), Some("42P01"));
        assert_eq!(super::error("SELECT x.page FROM wikipedia w").await.sqlstate(), Some("42P01"));
        assert_eq!(super::error("SELECT w.pge FROM wikipedia w").await.hint(), Some("did you mean `page`?"));
    }

    #[tokio::test]
    async fn a_column_in_scope_beats_a_word_of_sql() {
        assert_eq!(
            answer("SELECT user, COUNT(*) FROM wikipedia GROUP BY user ORDER BY user").await,
            "user|count/anna|2/bob|1/null|1"
        );
        assert_eq!(answer("SELECT \"user\" FROM wikipedia w WHERE w.user = 'bob'").await, "user/bob");
        assert_eq!(
            answer("SELECT count, language, timestamp, page FROM wikipedia WHERE timestamp = 2").await,
            "count|language|timestamp|page/2|de|2|Druid"
        );
        assert_eq!(
            answer("SELECT user, current_user, current_schema, current_catalog").await,
            "user|current_user|current_schema|current_catalog/henge|henge|druid|henge"
        );
        assert_eq!(answer("SELECT current_user FROM wikipedia LIMIT 1").await, "current_user/henge");
        assert_eq!(answer("SELECT count(DISTINCT user) FROM wikipedia WHERE USER IS NOT NULL").await, "count/2");
    }

    #[tokio::test]
    async fn aliases_are_kept_as_typed_and_found_in_any_case() {
        assert_eq!(
            answer("SELECT Page AS Title, sum(Added) Total FROM wikipedia GROUP BY title ORDER BY TOTAL DESC, title")
                .await,
            "Title|Total/Henge|40/Rust|40/Druid|20"
        );
        assert_eq!(
            answer("SELECT t.PAGE FROM (SELECT page AS Page, count FROM wikipedia) T WHERE COUNT = 4").await,
            "Page/Henge"
        );
        assert_eq!(
            answer(
                "WITH Busy AS (SELECT page, count(*) FROM wikipedia GROUP BY 1 HAVING count(*) > 1) SELECT * FROM busy"
            )
            .await,
            "page|count/Rust|2"
        );
        assert_eq!(answer("WITH t(A, B) AS (VALUES (1, 2)) SELECT b, a FROM T").await, "B|A/2|1");
    }

    #[tokio::test]
    async fn an_aggregate_may_be_called_like_its_column() {
        assert_eq!(
            answer("SELECT page, sum(added) AS added FROM wikipedia GROUP BY page ORDER BY sum(added) DESC, page")
                .await,
            "page|added/Henge|40/Rust|40/Druid|20"
        );
        assert_eq!(
            answer("SELECT page, count(*) FROM wikipedia GROUP BY page ORDER BY count DESC, page").await,
            "page|count/Rust|2/Druid|1/Henge|1"
        );
        assert_eq!(
            answer("SELECT lower(page) AS page FROM wikipedia GROUP BY lower(page) ORDER BY page DESC LIMIT 1").await,
            "page/rust"
        );
    }

    #[tokio::test]
    async fn two_columns_may_have_one_label() {
        assert_eq!(
            answer("SELECT sum(added), sum(count), 1, 1, page, page FROM wikipedia WHERE page = 'Druid' GROUP BY page")
                .await,
            "sum|sum|?column?|?column?|page|page/20|2|1|1|Druid|Druid"
        );
        assert_eq!(
            answer("SELECT *, page AS page FROM (SELECT page FROM wikipedia LIMIT 1) t").await,
            "page|page/Rust|Rust"
        );
    }

    #[tokio::test]
    async fn labels_are_postgresqls() {
        assert_eq!(
            answer("SELECT 1 + 1, 'a'::text, CASE WHEN true THEN 1 END, DATE '2013-08-01', coalesce(null, 1), (SELECT 5), true, cast(1 AS bigint)").await.split('/').next().unwrap(),
            "?column?|text|case|date|coalesce|?column?|bool|int8"
        );
    }

    #[tokio::test]
    async fn joins_and_subqueries_have_scopes_of_their_own() {
        assert_eq!(
            answer(
                "SELECT CITYNAME, sum(People) FROM wikipedia JOIN Cities USING (CityName) GROUP BY cityname ORDER BY 1"
            )
            .await,
            "cityName|sum/Bonn|300/Oslo|1400"
        );
        assert_eq!(
            answer("SELECT w.Page FROM wikipedia w JOIN cities c ON W.cityname = C.CITYNAME AND c.People < 500").await,
            "page/Rust"
        );
        assert_eq!(
            answer("SELECT page FROM wikipedia w WHERE EXISTS (SELECT 1 FROM cities WHERE cityname = W.CITYNAME AND people > 500) ORDER BY PAGE").await,
            "page/Henge/Rust"
        );
        assert_eq!(
            answer("SELECT page FROM wikipedia WHERE cityName IN (SELECT CITYNAME FROM Cities WHERE PEOPLE = 300)")
                .await,
            "page/Rust"
        );
        assert_eq!(
            answer("SELECT page FROM wikipedia WHERE count = 1 UNION ALL SELECT PAGE FROM wikipedia WHERE COUNT = 2 ORDER BY Page").await,
            "page/Druid/Rust"
        );
        assert_eq!(
            answer("SELECT page, row_number() OVER (PARTITION BY USER ORDER BY Added DESC) AS Rank FROM wikipedia WHERE user = 'anna' ORDER BY rank").await,
            "page|Rank/Rust|1/Rust|2"
        );
        assert_eq!(answer("SELECT day FROM generate_series(1, 2) AS day ORDER BY DAY DESC").await, "day/2/1");
        assert_eq!(
            answer("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT I + 1 FROM N WHERE i < 3) SELECT max(I) FROM n")
                .await,
            "max/3"
        );
        assert_eq!(
            answer("SELECT DISTINCT lower(page) FROM wikipedia ORDER BY lower(PAGE) LIMIT 1").await,
            "lower/druid"
        );
    }
}
