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

mod dialect {
    use super::*;

    async fn sqlstate(sql: &str) -> String {
        error(sql).await.sqlstate().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn integers_fail_instead_of_wrapping() {
        for sql in [
            "SELECT 9223372036854775807 + 1",
            "SELECT big + added FROM wikipedia WHERE added = 10",
            "SELECT big - added FROM wikipedia WHERE added = 40",
            "SELECT big * 2 FROM wikipedia",
            "SELECT -big FROM wikipedia",
            "SELECT sum(big) FROM wikipedia WHERE big > 0",
            "SELECT count / 10, sum(big) FROM wikipedia WHERE big > 0 GROUP BY count / 10",
            "SELECT sum(big) OVER (ORDER BY timestamp) FROM wikipedia WHERE big > 0",
            "SELECT 300::smallint * 300::smallint",
            "SELECT 9999999999::int",
            "SELECT 1e30::float8::bigint",
            "SELECT page FROM wikipedia WHERE big + 1 > 0",
            "SELECT page FROM wikipedia ORDER BY big * 3",
        ] {
            let outcome = answer_in(&session(), sql).await;
            assert_eq!(outcome.expect_err(sql).sqlstate(), Some("22003"), "{sql}");
        }
        assert_eq!(answer("SELECT sum(big) FROM wikipedia WHERE page = 'Rust'").await, "sum/0");
        assert_eq!(
            answer("SELECT added + 1, -added, added * 2 - 1 FROM wikipedia WHERE added = 10").await,
            "?column?|?column?|?column?/11|-10|19"
        );
        assert_eq!(
            answer("SELECT page, sum(big + 0) FROM wikipedia WHERE page = 'Rust' GROUP BY page").await,
            "page|sum/Rust|0"
        );
    }

    #[tokio::test]
    async fn division_is_postgresqls() {
        assert_eq!(
            answer("SELECT 7 / 2, -7 / 2, 7 % 3, -7 % 3, 7.0 / 2").await.split_once('/').unwrap().1,
            "3|-3|1|-1|3.5"
        );
        for sql in [
            "SELECT 1 / 0",
            "SELECT added / (count - 1) FROM wikipedia",
            "SELECT 1.0 / 0",
            "SELECT added / delta FROM wikipedia",
            "SELECT 5 % 0",
        ] {
            assert_eq!(sqlstate(sql).await, "22012", "{sql}");
        }
        assert_eq!(
            answer("SELECT CASE WHEN delta <> 0 THEN 10 / delta END FROM wikipedia ORDER BY timestamp DESC LIMIT 2")
                .await,
            "case/null/-4.0"
        );
        assert_eq!(
            answer("SELECT null / 0.0, sum(added) / nullif(0, 0) FROM wikipedia").await,
            "?column?|?column?/null|null"
        );
    }

    #[tokio::test]
    async fn casts_to_integers_round_as_postgresqls() {
        assert_eq!(
            answer("SELECT 2.7::bigint, 2.5::bigint, 2.5::float8::bigint, 3.5::float8::int, (-2.5)::int, CAST(-2.5 AS bigint), 2.5::numeric(3,1)::bigint, '42'::bigint").await.split_once('/').unwrap().1,
            "3|3|2|4|-3|-3|3|42"
        );
        assert_eq!(answer("SELECT delta::bigint FROM wikipedia ORDER BY timestamp").await, "delta/2/4/-2/0");
        assert_eq!(sqlstate("SELECT 'x'::bigint").await, "22P02");
        assert_eq!(sqlstate("SELECT page::bigint FROM wikipedia").await, "22P02");
        let druid = session_with(SessionOptions { dialect: SqlDialect::Druid, ..Default::default() });
        assert_eq!(
            answer_in(&druid, "SELECT CAST(2.7 AS BIGINT), CAST(delta AS BIGINT) FROM wikipedia WHERE delta > 3")
                .await
                .unwrap(),
            "EXPR$0|EXPR$1/2|3"
        );
    }

    #[tokio::test]
    async fn druids_dialect_sorts_nulls_lowest_numbers_its_columns_and_counts_by_sketch() {
        let druid = session_with(SessionOptions { dialect: SqlDialect::Druid, ..Default::default() });
        for (sql, expected) in [
            ("SELECT cityName FROM wikipedia ORDER BY cityName LIMIT 2", "cityName/null/Bonn"),
            ("SELECT cityName FROM wikipedia ORDER BY cityName DESC LIMIT 1", "cityName/Oslo"),
            ("SELECT page, COUNT(*) FROM wikipedia GROUP BY page ORDER BY 2 DESC LIMIT 1", "page|EXPR$1/Rust|2"),
            ("SELECT COUNT(DISTINCT page) AS pages FROM wikipedia", "pages/3"),
            ("SELECT CITYNAME FROM wikipedia WHERE cityname = 'Bonn'", "CITYNAME/Bonn"),
        ] {
            assert_eq!(answer_in(&druid, sql).await.unwrap(), expected, "{sql}");
        }
        let plan = |approximate| {
            let options = SessionOptions {
                dialect: SqlDialect::Druid,
                approximate_count_distinct: approximate,
                ..Default::default()
            };
            async move { text(&session_with(options), "EXPLAIN SELECT COUNT(DISTINCT page) FROM wikipedia").await }
        };
        assert!(plan(None).await.unwrap().contains("approx_count_distinct"));
        assert!(!plan(Some(false)).await.unwrap().contains("approx_count_distinct"));
    }

    #[tokio::test]
    async fn a_dialect_that_is_set_is_followed_from_then_on() {
        let session = session();
        answer_in(&session, "SET henge.dialect = 'druid'").await.unwrap();
        assert_eq!(answer_in(&session, "SELECT 1 + 1").await.unwrap(), "EXPR$0/2");
        answer_in(&session, "RESET henge.dialect").await.unwrap();
        assert_eq!(answer_in(&session, "SELECT 1 + 1").await.unwrap(), "?column?/2");
    }

    #[tokio::test]
    async fn spellings_keep_their_labels() {
        assert_eq!(answer("SELECT mod(added, 7), EXTRACT(SECOND FROM __time + INTERVAL '1.5 seconds') FROM wikipedia WHERE count = 1").await, "mod|extract/3|1.5");
        assert_eq!(answer("SELECT page FROM wikipedia ORDER BY added FETCH FIRST ROW ONLY").await, "page/Rust");
        assert_eq!(
            answer(
                "SELECT x::date FROM (VALUES (TIMESTAMP '2013-08-01 23:00'), (NULL)) AS t(x) WHERE x < '9999-12-31'"
            )
            .await,
            "x/2013-08-01"
        );
    }

    #[tokio::test]
    async fn time_is_cut_moved_and_read() {
        assert_eq!(
            answer("SELECT FLOOR(__time TO HOUR) AS hour, COUNT(*) FROM wikipedia GROUP BY FLOOR(__time TO HOUR) ORDER BY hour").await,
            "hour|count/2013-08-01T00:00:00|1/2013-08-01T01:00:00|2/2013-08-01T23:00:00|1"
        );
        assert_eq!(
            answer("SELECT TIME_FLOOR(__time, 'P1D', NULL, 'Europe/Paris') d, count(*) FROM wikipedia GROUP BY 1 ORDER BY 1").await,
            "d|count/2013-07-31T22:00:00|3/2013-08-01T22:00:00|1"
        );
        assert_eq!(
            answer("SELECT date_trunc('day', max(__time)), date_trunc('day', max(__time), 'Europe/Paris'), date_trunc('quarter', max(__time)), date_trunc('century', max(__time)), CEIL(max(__time) TO DAY) FROM wikipedia").await.split_once('/').unwrap().1,
            "2013-08-01T00:00:00|2013-08-01T22:00:00|2013-07-01T00:00:00|2001-01-01T00:00:00|2013-08-02T00:00:00"
        );
        assert_eq!(
            answer("SELECT TIME_SHIFT(min(__time), 'P1M', -1), TIME_EXTRACT(min(__time), 'DOW'), TIME_EXTRACT(max(__time), 'hour', 'Europe/Paris'), TIME_FORMAT(max(__time)), TIME_FORMAT(max(__time), 'EEE dd.MM.yy h:mm a', 'America/New_York') FROM wikipedia").await.split_once('/').unwrap().1,
            "2013-07-01T00:00:00|4|1|2013-08-01T23:00:00.000Z|Thu 01.08.13 7:00 PM"
        );
        assert_eq!(
            answer("SELECT TIME_PARSE('2013-08-01T12:00:00Z'), TIME_PARSE('01/08/2013 14', 'dd/MM/yyyy HH', 'Europe/Paris'), TIME_PARSE('x'), MILLIS_TO_TIMESTAMP(1375315200000), TIMESTAMP_TO_MILLIS(TIMESTAMP '2013-08-01')").await.split_once('/').unwrap().1,
            "2013-08-01T12:00:00|2013-08-01T12:00:00|null|2013-08-01T00:00:00|1375315200000"
        );
        assert_eq!(
            answer("SELECT count(*) FROM wikipedia WHERE TIME_IN_INTERVAL(__time, '2013-08-01T01:00/PT1H')").await,
            "count/2"
        );
        assert_eq!(sqlstate("SELECT TIME_FORMAT(__time, 'QQ') FROM wikipedia").await, "22007");
        assert_eq!(sqlstate("SELECT date_trunc('fortnight', __time) FROM wikipedia").await, "22023");
        assert_eq!(answer("SELECT EXTRACT(HOUR FROM __time) FROM wikipedia WHERE timestamp = 4").await, "extract/23");
        assert_eq!(answer("SELECT APPROX_COUNT_DISTINCT(user) FROM wikipedia").await, "approx_count_distinct/2");
    }

    #[tokio::test]
    async fn templates_are_postgresqls_and_unknown_ones_are_refused() {
        assert_eq!(
            answer("SELECT to_char(max(__time), 'YYYY-MM-DD HH24:MI:SS.MS'), to_char(max(__time), 'FMDay, DD Mon YY, FMHH12 AM \"Q\"Q'), to_char(DATE '2013-08-01', 'MONTH|Dy|DDD|IYYY-IW-ID') FROM wikipedia").await.split_once('/').unwrap().1,
            "2013-08-01 23:00:00.000|Thursday, 01 Aug 13, 11 PM Q3|AUGUST   |Thu|213|2013-31-4"
        );
        assert_eq!(
            answer("SELECT to_timestamp('2013-08-01 23:15:00.250000', 'YYYY-MM-DD HH24:MI:SS.US'), to_date('01 Aug 2013', 'DD Mon YYYY'), to_timestamp(1375315200.5), to_timestamp('20130801', 'YYYYMMDD')").await.split_once('/').unwrap().1,
            "2013-08-01T23:15:00.250Z|2013-08-01|2013-08-01T00:00:00.500Z|2013-08-01T00:00:00Z"
        );
        assert_eq!(
            answer("SELECT count(*) FROM wikipedia WHERE __time >= to_timestamp('2013-08-01 01', 'YYYY-MM-DD HH24')")
                .await,
            "count/3"
        );
        assert_eq!(sqlstate("SELECT to_char(__time, 'YYYY RM') FROM wikipedia").await, "0A000");
        assert_eq!(sqlstate("SELECT to_char(__time, '%Y-%m') FROM wikipedia").await, "0A000");
        assert_eq!(sqlstate("SELECT to_timestamp('2013-13-01', 'YYYY-MM-DD')").await, "22007");
        assert_eq!(sqlstate("SELECT to_char(added, '999th') FROM wikipedia").await, "0A000");
    }

    #[tokio::test]
    async fn the_earliest_and_latest_go_by_time() {
        assert_eq!(answer("SELECT EARLIEST(page), LATEST(page, 1024), LATEST_BY(page, timestamp), user FROM wikipedia GROUP BY user ORDER BY user").await, "earliest|latest|latest_by|user/Rust|Rust|Rust|anna/Druid|Druid|Druid|bob/Henge|Henge|Henge|null");
        assert_eq!(
            answer("SELECT EARLIEST(page), LATEST(page), LATEST_BY(page, -timestamp) FROM wikipedia").await,
            "earliest|latest|latest_by/Rust|Henge|Rust"
        );
    }

    #[tokio::test]
    async fn postgresqls_qualified_spellings_are_taken() {
        assert_eq!(
            answer(
                "SELECT page FROM wikipedia WHERE page OPERATOR(pg_catalog.~) '^(He.*)$' COLLATE pg_catalog.default"
            )
            .await,
            "page/Henge"
        );
        assert_eq!(answer("SELECT pg_catalog.upper(page) FROM wikipedia WHERE count = 4").await, "upper/HENGE");
        assert_eq!(answer("SELECT count(*) FILTER (WHERE page = 'Rust') FROM wikipedia").await, "count/2");
        assert!(text(&session(), "EXPLAIN PLAN FOR SELECT 1").await.unwrap().contains("logical_plan"));
    }
}

mod time_predicates {
    use super::*;

    /// What the filter over the table is in the optimized plan, and how many rows it leaves.
    async fn filter(predicate: &str) -> (String, String) {
        let sql = format!("SELECT count(*) FROM wikipedia WHERE {predicate}");
        let plan = plan_text(&sql).await;
        let filter = plan.lines().find_map(|line| line.trim().strip_prefix("Filter: ")).unwrap_or(&plan);
        let filter = filter.replace("wikipedia.", "").replace("TimestampMillisecond", "").replace(", None)", ")");
        (filter, answer(&sql).await.replace("count/", ""))
    }

    #[tokio::test]
    async fn a_constant_is_brought_to_the_column() {
        for (predicate, expected, rows) in [
            ("__time >= '2013-08-01 01:00:00'", "__time >= (1375318800000)", "3"),
            ("__time >= '2013-08-01 01:00'", "__time >= (1375318800000)", "3"),
            ("__time >= '2013-08-01T03:00:00+02:00'", "__time >= (1375318800000)", "3"),
            ("TIMESTAMP '2013-08-01 01:00:00' <= __time", "__time >= (1375318800000)", "3"),
            ("__time >= '2013-08-01'::timestamp", "__time >= (1375315200000)", "4"),
            ("__time < '2013-08-02'::timestamptz", "__time < (1375401600000)", "4"),
            ("__time >= TIMESTAMPTZ '2013-08-01 02:00:00+02'", "__time >= (1375315200000)", "4"),
            ("__time >= DATE '2013-08-01'", "__time >= (1375315200000)", "4"),
            (
                "__time BETWEEN '2013-08-01' AND '9999-12-31'",
                "__time >= (1375315200000) AND __time <= (253402214400000)",
                "4",
            ),
            ("__time < TIMESTAMP '9999-12-31'", "__time < (253402214400000)", "4"),
            ("__time > '0001-01-01'", "__time > (-62135596800000)", "4"),
            ("__time >= DATE '1900-01-01'", "__time >= (-2208988800000)", "4"),
            ("__time > '2013-08-01 01:00:00.0005'", "__time > (1375318800000)", "1"),
            ("__time >= '2013-08-01 01:00:00.0005'", "__time > (1375318800000)", "1"),
            ("__time < TIMESTAMP '2013-08-01 01:00:00.0005'", "__time <= (1375318800000)", "3"),
            ("__time IN ('2013-08-01', '2013-08-02')", "__time = (1375315200000) OR __time = (1375401600000)", "1"),
            ("__time::date = '2013-08-01'", "__time >= (1375315200000) AND __time < (1375401600000)", "4"),
            ("CAST(__time AS DATE) > DATE '2013-08-01'", "__time >= (1375401600000)", "0"),
            (
                "FLOOR(__time TO HOUR) = '2013-08-01 01:00'",
                "__time >= (1375318800000) AND __time < (1375322400000)",
                "2",
            ),
            ("date_trunc('day', __time) >= '2013-08-01'", "__time >= (1375315200000)", "4"),
            ("TIME_FLOOR(__time, 'PT1H') < TIMESTAMP '2013-08-01 01:00:00'", "__time < (1375318800000)", "1"),
            (
                "TIME_IN_INTERVAL(__time, '2013-08-01/2013-08-02')",
                "__time >= (1375315200000) AND __time < (1375401600000)",
                "4",
            ),
            ("EXTRACT(YEAR FROM __time) = 2013", "__time >= (1356998400000) AND __time < (1388534400000)", "4"),
        ] {
            assert_eq!(filter(predicate).await, (expected.to_string(), rows.to_string()), "{predicate}");
        }
    }

    #[tokio::test]
    async fn the_present_is_a_constant() {
        for predicate in [
            "__time > CURRENT_TIMESTAMP - INTERVAL '1' DAY",
            "__time > now() - INTERVAL '1 day'",
            "__time >= CURRENT_DATE",
        ] {
            let (filter, rows) = filter(predicate).await;
            assert!(filter.starts_with("__time >") && !filter.contains("CAST") && rows == "0", "{predicate}: {filter}");
        }
    }

    #[tokio::test]
    async fn what_is_no_time_is_an_error() {
        assert_eq!(error("SELECT 1 FROM wikipedia WHERE __time > 'yesterday'").await.sqlstate(), Some("22007"));
        assert_eq!(answer("SELECT count(*) FROM wikipedia WHERE __time = '2013-08-01 01:00:00.0005'").await, "count/0");
    }

    #[tokio::test]
    async fn a_literal_keeps_its_column_name() {
        assert_eq!(
            answer("SELECT TIMESTAMP '2013-08-01', '0044-03-15'::timestamp AS ides").await,
            "timestamp|ides/2013-08-01T00:00:00|0044-03-15T00:00:00"
        );
    }
}

/// The same edits as segments: our table and operators under the session's rules.
mod segments {
    use super::*;
    use crate::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
    use crate::segment::memory::MemorySegment;
    use crate::table::{DataSourceTable, FixedSource};

    async fn over_segments() -> Session {
        let schemas = Arc::new(MemoryCatalogProvider::new());
        let tables = MemorySchemaProvider::new();
        let raw = session().context().table("henge.druid.wikipedia").await.unwrap().collect().await.unwrap();
        let schema = SegmentSchema::new([
            ColumnSchema::dimension("page", ColumnType::String),
            ColumnSchema::dimension("user", ColumnType::String),
            ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum),
            ColumnSchema::metric("big", ColumnType::Long, MetricCombine::Sum),
        ]);
        let columns = ["__time", "page", "user", "added", "big"];
        let raw: Vec<RecordBatch> = raw
            .iter()
            .map(|batch| batch.project(&columns.map(|name| batch.schema().index_of(name).unwrap())).unwrap())
            .collect();
        let segment = MemorySegment::from_batches(Arc::new(schema.unwrap()), &raw).unwrap();
        let source = FixedSource::of("wikipedia", vec![Arc::new(segment)]).unwrap();
        let table = DataSourceTable::new("wikipedia", Arc::new(source));
        tables.register_table("wikipedia".to_string(), Arc::new(table)).unwrap();
        schemas.register_schema(SCHEMA, Arc::new(tables)).unwrap();
        Session::new(&Runtime::new(RuntimeOptions::default()).unwrap(), schemas, SessionOptions::default())
    }

    #[tokio::test]
    async fn grouping_by_user_and_hour_is_folded_over_the_segment() {
        let session = over_segments().await;
        let sql = "SELECT FLOOR(__TIME TO HOUR) AS Hour, user, sum(added) FROM wikipedia \
                   WHERE __time >= '2013-08-01' AND user = 'anna' GROUP BY 1, user ORDER BY hour";
        assert_eq!(
            answer_in(&session, sql).await.unwrap(),
            "Hour|user|sum/2013-08-01T00:00:00|anna|10/2013-08-01T01:00:00|anna|30"
        );
        let plan = text(&session, &format!("EXPLAIN {sql}")).await.unwrap();
        assert!(plan.contains("SegmentGroupExec") && !plan.contains("FilterExec"), "{plan}");
    }

    #[tokio::test]
    async fn a_sum_that_does_not_fit_fails_there_too() {
        let session = over_segments().await;
        let error = answer_in(&session, "SELECT sum(big) FROM wikipedia WHERE big > 0").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("22003"), "{error}");
        assert_eq!(answer_in(&session, "SELECT sum(big) FROM wikipedia WHERE page = 'Rust'").await.unwrap(), "sum/0");
    }
}
