//! The state machine, driven by a real client over a pipe.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use datafusion::catalog::{CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use futures::{SinkExt, TryStreamExt};
use henge_catalog::SystemClock;
use henge_catalog::store::UserRecord;
use henge_engine::Result;
use henge_engine::model::Timestamp;
use henge_engine::session::{Runtime, RuntimeOptions, SCHEMA, Session, SessionOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Handle;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::listener::{Door, Front, Rows, Sessions};
use super::startup::{self, Ends};
use crate::auth::tls::Tls;
use crate::auth::{Auth, Users, make_verifier};
use crate::pg_catalog::Extent;

/// A database with one table `edits` of three rows, and `big` of 100,000.
#[derive(Debug)]
struct Tables {
    runtime: Arc<Runtime>,
    schemas: Arc<MemoryCatalogProvider>,
}

impl Tables {
    fn new() -> Self {
        let edits = table([
            ("__time", Arc::new(TimestampMillisecondArray::from(vec![0, 1_000, 2_000])) as ArrayRef),
            ("page", Arc::new(StringViewArray::from(vec![Some("A"), Some("B"), None]))),
            ("added", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ]);
        let big = table([("n", Arc::new(Int64Array::from_iter_values(0..100_000)) as ArrayRef)]);
        let schema = MemorySchemaProvider::new();
        schema.register_table("edits".into(), edits).unwrap();
        schema.register_table("big".into(), big).unwrap();
        let schemas = MemoryCatalogProvider::new();
        schemas.register_schema(SCHEMA, Arc::new(schema)).unwrap();
        Self { runtime: Runtime::new(RuntimeOptions::default()).unwrap(), schemas: Arc::new(schemas) }
    }
}

fn table<const N: usize>(columns: [(&str, ArrayRef); N]) -> Arc<MemTable> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
}

#[async_trait::async_trait]
impl Sessions for Tables {
    fn open(&self, options: SessionOptions) -> Result<Session> {
        let schemas: Arc<dyn CatalogProvider> = Arc::clone(&self.schemas) as _;
        Ok(Session::new(&self.runtime, schemas, options))
    }

    fn extent(&self, data_source: &str) -> Option<Extent> {
        (data_source == "edits").then_some(Extent { rows: 3, bytes: 20_480 })
    }

    /// Counts them only.
    async fn append(&self, data_source: &str, rows: Rows) -> Result<u64> {
        assert_eq!(data_source, "edits");
        tokio::task::spawn_blocking(|| rows.map(|batch| Ok(batch?.num_rows() as u64)).sum()).await.unwrap()
    }
}

fn front() -> Arc<Front> {
    front_for(10)
}

fn front_for(connections: usize) -> Arc<Front> {
    front_with(connections, &[], None)
}

/// Who may log in.
#[derive(Debug)]
struct Known(Vec<UserRecord>);

#[async_trait::async_trait]
impl Users for Known {
    async fn all(&self) -> Result<Vec<UserRecord>> {
        Ok(self.0.clone())
    }
}

fn front_with(connections: usize, users: &[(&str, &str)], tls: Option<Tls>) -> Arc<Front> {
    let user = |(name, password): &(&str, &str)| UserRecord {
        name: (*name).to_string(),
        verifier: make_verifier(password).unwrap(),
        created: Timestamp::from_millis(0),
    };
    let users = Arc::new(Known(users.iter().map(user).collect()));
    let door = Door {
        auth: Arc::new(Auth::new(users, true).unwrap()),
        tls,
        max_connections: connections,
        clock: Arc::new(SystemClock),
    };
    Front::new(Arc::new(Tables::new()), queries(), door)
}

/// A runtime for queries, as in the server: one that is canceled between two of its polls may outlive its test.
fn queries() -> Handle {
    static QUERIES: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    QUERIES.handle().clone()
}

/// The client's end of a connection to `front`.
fn dial(front: &Arc<Front>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 << 10);
    let front = Arc::clone(front);
    Handle::current().spawn(async move {
        if let Some(connection) = startup::start(server, Ends::default(), front, CancellationToken::new()).await {
            connection.run().await;
        }
    });
    client
}

async fn connect_as(front: &Arc<Front>, config: &str) -> std::result::Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.parse::<Config>().unwrap().connect_raw(dial(front), NoTls).await?;
    Handle::current().spawn(connection);
    Ok(client)
}

async fn connect() -> Client {
    connect_as(&front(), "user=me dbname=henge").await.unwrap()
}

fn state<T: std::fmt::Debug>(answer: std::result::Result<T, tokio_postgres::Error>) -> String {
    answer.unwrap_err().code().unwrap().code().to_string()
}

fn texts(messages: &[SimpleQueryMessage]) -> Vec<String> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
        _ => None,
    });
    rows.collect()
}

#[tokio::test]
async fn statements_of_one_text_are_answered_in_order_until_one_fails() {
    let client = connect().await;
    let messages = client.simple_query("select 1; select page from edits order by added desc; ").await.unwrap();
    assert_eq!(texts(&messages), ["1", "NULL", "B", "A"]);
    let error = client.simple_query("select 1; select nope from edits; select 2").await.unwrap_err();
    let db = error.as_db_error().unwrap();
    assert_eq!(db.code().code(), "42703");
    assert_eq!(db.position(), Some(&tokio_postgres::error::ErrorPosition::Original(18)));
    assert_eq!(texts(&client.simple_query("select 3").await.unwrap()), ["3"]);
}

#[tokio::test]
async fn parameters_travel_typed_and_results_in_binary() {
    let client = connect().await;
    let row = client
        .query_one(
            "select page, added, __time, added * 1.5::float8 from edits where added = $1 and page = $2",
            &[&2i64, &"B"],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "B");
    assert_eq!(row.get::<_, i64>(1), 2);
    assert_eq!(row.get::<_, std::time::SystemTime>(2), std::time::UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(row.get::<_, f64>(3), 3.0);
    let rows = client.query("select page from edits order by added limit $1", &[&2i64]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let rows = client.query("select added from edits where page = any($1)", &[&vec!["A", "B"]]).await.unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_portal_gives_as_many_rows_as_asked_for_and_goes_on() {
    let mut client = connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select n from big order by n", &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 700).await.unwrap();
    let second = transaction.query_portal(&portal, 700).await.unwrap();
    let numbers: Vec<i64> = first.iter().chain(&second).map(|row| row.get(0)).collect();
    assert_eq!(numbers, (0..1_400).collect::<Vec<_>>());
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!(rest.len(), 98_600);
}

#[tokio::test]
async fn a_failed_block_refuses_everything_but_its_end() {
    let client = connect().await;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(state(client.simple_query("select * from nope").await), "42P01");
    assert_eq!(state(client.simple_query("select 1").await), "25P02");
    assert_eq!(state(client.query("select 1", &[]).await), "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn cursors_give_their_rows_in_steps() {
    let client = connect().await;
    let text = "begin; declare c cursor for select n from big order by n; fetch 2 from c; move 3 in c; fetch c; \
                close c; commit";
    assert_eq!(texts(&client.simple_query(text).await.unwrap()), ["0", "1", "5"]);
    assert_eq!(state(client.simple_query("declare c cursor for select 1").await), "25P01");
    assert_eq!(state(client.simple_query("fetch c").await), "34000");
}

#[tokio::test]
async fn prepared_statements_are_shared_by_both_protocols_and_deallocated() {
    let client = connect().await;
    let text = "prepare q(bigint) as select count(*) from edits where added >= $1; execute q(1 + 1); deallocate q";
    assert_eq!(texts(&client.simple_query(text).await.unwrap()), ["2"]);
    assert_eq!(state(client.simple_query("execute q(1)").await), "26000");
    assert_eq!(state(client.simple_query("select $1").await), "42P02");
}

#[tokio::test]
async fn settings_are_kept_shown_and_reset() {
    let client = connect_as(&front(), "user=me dbname=henge options='-c statement_timeout=90000'").await.unwrap();
    let text = "show statement_timeout; set statement_timeout = '2min'; show statement_timeout; reset all; \
                show statement_timeout";
    assert_eq!(texts(&client.simple_query(text).await.unwrap()), ["90s", "2min", "90s"]);
    assert_eq!(state(client.simple_query("show nonsense").await), "42704");
}

#[tokio::test]
async fn writing_is_refused_and_leaves_the_connection_usable() {
    let client = connect().await;
    for sql in [
        "drop table edits",
        "insert into edits select * from edits",
        "create table t (a int)",
        "copy edits to '/tmp/x'",
    ] {
        assert!(["0A000", "42501"].contains(&state(client.simple_query(sql).await).as_str()), "{sql}");
    }
    assert_eq!(texts(&client.simple_query("select count(*) from edits").await.unwrap()), ["3"]);
}

#[tokio::test]
async fn another_database_is_unknown() {
    assert_eq!(state(connect_as(&front(), "user=me dbname=other").await.map(|_| ())), "3D000");
}

#[tokio::test]
async fn more_connections_than_allowed_are_turned_away() {
    let front = front_for(1);
    let _first = connect_as(&front, "user=me dbname=henge").await.unwrap();
    assert_eq!(state(connect_as(&front, "user=me dbname=henge").await.map(|_| ())), "53300");
}

const ENDLESS: &str = "select sum(n) from generate_series(1, 1000000000000) as n";

#[tokio::test]
async fn a_statement_ends_at_its_timeout() {
    let client = connect().await;
    client.batch_execute("set statement_timeout = 50").await.unwrap();
    assert_eq!(state(client.simple_query(ENDLESS).await), "57014");
    assert_eq!(texts(&client.simple_query("select 1").await.unwrap()), ["1"]);
}

#[tokio::test]
async fn a_cancel_request_ends_the_running_query() {
    let front = front();
    let client = connect_as(&front, "user=me dbname=henge").await.unwrap();
    let token = client.cancel_token();
    let canceler = async {
        // The query may not have begun when the first request comes; PostgreSQL ignores it then, too.
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            token.cancel_query_raw(dial(&front), NoTls).await.unwrap();
        }
    };
    tokio::select! {
        answer = client.simple_query(ENDLESS) => assert_eq!(state(answer), "57014"),
        () = canceler => {}
    }
}

#[tokio::test]
async fn hostile_bytes_end_their_own_connection_only() {
    let front = front();
    let client = connect_as(&front, "user=me dbname=henge").await.unwrap();
    let startup = b"\0\0\0\x14\0\x03\0\0user\0me\0\0\0";
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff", startup, b"\0\0\0\x08\0\0\0\0"] {
        let mut stream = dial(&front);
        stream.write_all(bytes).await.unwrap();
        stream.write_all(b"Bgarbage garbage garbage\0\0\0\0").await.ok();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
    }
    assert_eq!(texts(&client.simple_query("select 1").await.unwrap()), ["1"]);
}

#[tokio::test]
async fn copy_to_stdout_gives_csv() {
    use futures::TryStreamExt;
    let client = connect().await;
    let stream =
        client.copy_out("copy (select page, added from edits order by added) to stdout csv header").await.unwrap();
    let bytes: Vec<u8> = stream
        .try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await
        .unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), "page,added\nA,1\nB,2\n,3\n");
}

#[tokio::test]
async fn a_result_larger_than_the_pipe_arrives_whole() {
    let client = connect().await;
    let rows = client.query("select n, n::text as t from big", &[]).await.unwrap();
    assert_eq!(rows.len(), 100_000);
    assert!(rows.iter().all(|row| row.get::<_, i64>(0).to_string() == row.get::<_, String>(1)));
}

#[tokio::test]
async fn with_a_user_everybody_must_prove_a_password() {
    let front = front_with(10, &[("amy", "sesame")], None);
    let client = connect_as(&front, "user=amy password=sesame dbname=henge").await.unwrap();
    assert_eq!(texts(&client.simple_query("select current_user").await.unwrap()), ["amy"]);
    for config in ["user=amy password=wrong dbname=henge", "user=bob password=sesame dbname=henge"] {
        assert_eq!(state(connect_as(&front, config).await.map(|_| ())), "28P01", "{config}");
    }
    // It says nothing about databases to whom it does not know.
    assert_eq!(state(connect_as(&front, "user=bob password=x dbname=nope").await.map(|_| ())), "28P01");
}

#[tokio::test]
async fn what_is_no_password_ends_the_connection() {
    let front = front_with(10, &[("amy", "sesame")], None);
    let mut wire = dial(&front);
    let mut hello = vec![0, 0, 0, 18, 0, 3, 0, 0];
    hello.extend_from_slice(b"user\0amy\0\0");
    wire.write_all(&hello).await.unwrap();
    wire.write_all(b"Q\0\0\0\x0dselect 1\0").await.unwrap();
    let mut answer = Vec::new();
    wire.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("SCRAM-SHA-256") && text.contains("08P01"), "{text}");
}

#[tokio::test]
async fn a_block_that_is_rolled_back_leaves_no_setting_behind() {
    let client = connect().await;
    let shown = async || texts(&client.simple_query("show work_mem").await.unwrap());
    client.batch_execute("begin; set work_mem = '9MB'; savepoint a; set local work_mem = '1GB'").await.unwrap();
    assert_eq!(shown().await, ["1GB"]);
    client.batch_execute("rollback to a").await.unwrap();
    assert_eq!(shown().await, ["9MB"]);
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(shown().await, ["4MB"]);
    assert_eq!(state(client.batch_execute("begin; rollback to nope").await), "3B001");
}

#[tokio::test]
async fn temporary_tables_and_views_are_a_sessions_own() {
    let front = front();
    let client = connect_as(&front, "user=me dbname=henge").await.unwrap();
    client
        .batch_execute("create temp table t (a int, b text); insert into t values (1, 'x'), (2, null)")
        .await
        .unwrap();
    client.batch_execute("create temp view v as select sum(a) as s from t").await.unwrap();
    assert_eq!(texts(&client.simple_query("select s from v").await.unwrap()), ["3"]);
    assert_eq!(client.execute("insert into T (B, A) select page, added from edits", &[]).await.unwrap(), 3);
    assert_eq!(texts(&client.simple_query("select s from v").await.unwrap()), ["9"]);
    assert_eq!(state(client.batch_execute("create temp table T (a int)").await), "42P07");
    assert_eq!(state(client.batch_execute("insert into edits values (1)").await), "0A000");
    assert_eq!(state(client.batch_execute("drop table edits").await), "0A000");
    let other = connect_as(&front, "user=me dbname=henge").await.unwrap();
    assert_eq!(state(other.simple_query("select * from t").await), "42P01");
    client.batch_execute("drop view v; drop table if exists t; drop table if exists t").await.unwrap();
    assert_eq!(state(client.simple_query("select * from t").await), "42P01");
}

#[tokio::test]
async fn an_explanation_is_one_column_of_lines() {
    let client = connect().await;
    let statement = client.prepare("explain select count(*) from edits").await.unwrap();
    assert_eq!(statement.columns().iter().map(|column| column.name()).collect::<Vec<_>>(), ["QUERY PLAN"]);
    let lines = texts(&client.simple_query("explain select page from edits where added > 1").await.unwrap());
    assert!(lines.len() > 1 && lines.iter().any(|line| line.contains("FilterExec")), "{lines:?}");
    let json = texts(&client.simple_query("explain (analyze, costs off, format json) select 1").await.unwrap());
    assert_eq!(json.len(), 1);
    assert!(json[0].trim_start().starts_with('['), "{json:?}");
    assert_eq!(state(client.simple_query("explain (format xml) select 1").await), "0A000");
}

#[tokio::test]
async fn rows_are_copied_in_all_or_none() {
    let copy = async |sql: &str, pieces: &[&'static str]| {
        // Of its own: this client gives a connection up if a COPY is refused before it begins.
        let client = connect().await;
        let sink = client.copy_in::<_, bytes::Bytes>(sql).await?;
        tokio::pin!(sink);
        for piece in pieces {
            sink.as_mut().send(bytes::Bytes::from_static(piece.as_bytes())).await?;
        }
        let copied = sink.finish().await;
        assert_eq!(texts(&client.simple_query("select 1").await.unwrap()), ["1"]);
        copied
    };
    let text = ["2015-09-12 00:00:00\tA\t1\n2015-09", "-12\t\\N\t2\n"];
    assert_eq!(copy("copy edits from stdin", &text).await.unwrap(), 2);
    let csv = ["page,__time\n\"a,\"\"b\"\"\",2015-09-12\n"];
    assert_eq!(copy("copy Edits (PAGE, __time) from stdin csv header", &csv).await.unwrap(), 1);
    for (sql, piece, code) in [
        ("copy edits from stdin", "2015-09-12\tA\tx\n", "22P02"),
        ("copy edits from stdin", "soon\tA\t1\n", "22007"),
        ("copy edits from stdin", "2015-09-12\tA\n", "22P04"),
        ("copy edits from stdin", "\\N\tA\t1\n", "23502"),
        ("copy edits (page) from stdin", "", "23502"),
        ("copy edits from stdin binary", "2015-09-12\tA\t1\n", "22P04"),
        ("copy edits from stdin binary", "", "22P04"),
        ("copy edits from stdin (format binary, header)", "", "42601"),
        ("copy nope from stdin", "", "42P01"),
        ("copy pg_class from stdin", "", "42809"),
    ] {
        assert_eq!(state(copy(sql, &[piece]).await), code, "{sql} {piece:?}");
    }
}

#[tokio::test]
async fn rows_are_copied_in_in_binary() {
    let client = connect().await;
    let sink = client.copy_in("copy edits (__time, page, added) from stdin (format binary)").await.unwrap();
    let writer = BinaryCopyInWriter::new(sink, &[Type::TIMESTAMP, Type::TEXT, Type::INT8]);
    tokio::pin!(writer);
    let time = std::time::UNIX_EPOCH + Duration::from_millis(1_442_016_000_123);
    writer.as_mut().write(&[&time, &"A", &1_i64]).await.unwrap();
    writer.as_mut().write(&[&time, &Option::<&str>::None, &2_i64]).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 2);
    // A number of another width is not taken for one.
    let sink = client.copy_in("copy edits (__time, page, added) from stdin (format binary)").await.unwrap();
    let writer = BinaryCopyInWriter::new(sink, &[Type::TIMESTAMP, Type::TEXT, Type::INT4]);
    tokio::pin!(writer);
    writer.as_mut().write(&[&time, &"A", &1_i32]).await.unwrap();
    assert_eq!(state(writer.finish().await), "22P03");
}

#[tokio::test]
async fn temporary_tables_are_copied_into_and_out_of() {
    let client = connect().await;
    client
        .batch_execute(
            "create temp table t (n int not null, b boolean, d date, at timestamp, z timestamptz, x numeric(10, 2), s text, f real, l text[])",
        )
        .await
        .unwrap();
    let copy = async |sql: &str, data: bytes::Bytes| {
        let sink = client.copy_in::<_, bytes::Bytes>(sql).await?;
        tokio::pin!(sink);
        sink.as_mut().send(data).await?;
        sink.finish().await
    };
    let line = "7\tt\t2015-09-12\t2015-09-12 01:02:03.5\t2015-09-12 00:00:00+00\t1.50\tx\\ty\t0.5\t{a,NULL}\n";
    assert_eq!(copy("copy t from stdin", line.into()).await.unwrap(), 1);
    // The others are null.
    assert_eq!(copy("copy t (s, n) from stdin csv", "\"a,b\",8\n".into()).await.unwrap(), 1);
    let binary: Vec<_> =
        client.copy_out("copy t to stdout (format binary)").await.unwrap().try_collect().await.unwrap();
    assert_eq!(copy("copy t from stdin (format binary)", binary.concat().into()).await.unwrap(), 2);
    let out: Vec<_> =
        client.copy_out("copy (select * from t order by n) to stdout").await.unwrap().try_collect().await.unwrap();
    let nulls = "8\t\\N\t\\N\t\\N\t\\N\t\\N\ta,b\t\\N\t\\N\n";
    assert_eq!(String::from_utf8(out.concat()).unwrap(), format!("{line}{line}{nulls}{nulls}"));
    for (sql, data, code) in [
        ("copy t from stdin csv", "x,,,,,,,,\n", "22P02"),
        ("copy t (s) from stdin", "a\n", "23502"),
        ("copy t (n, d) from stdin", "1\tsoon\n", "22P02"),
    ] {
        assert_eq!(state(copy(sql, data.into()).await), code, "{sql}");
    }
    assert_eq!(texts(&client.simple_query("select count(*) from t").await.unwrap()), ["4"]);
}

#[tokio::test]
async fn whole_numbers_that_are_written_are_integers() {
    let client = connect().await;
    for (sql, types) in [
        ("select 1, -1, 3000000000, 1 + 1, 'a'", vec![Type::INT4, Type::INT4, Type::INT8, Type::INT8, Type::TEXT]),
        ("select case when added > 1 then 1 else 0 end, added from edits", vec![Type::INT4, Type::INT8]),
        ("select x, x from (values (1), (2)) as t(x) order by 1", vec![Type::INT4, Type::INT4]),
        ("select 1 union all select 2", vec![Type::INT4]),
        ("select 1 union all select added from edits", vec![Type::INT8]),
        ("select 1::bigint, count(*), $1::bigint", vec![Type::INT8, Type::INT8, Type::INT8]),
    ] {
        let statement = client.prepare(sql).await.unwrap();
        let described: Vec<_> = statement.columns().iter().map(|column| column.type_().clone()).collect();
        assert_eq!(described, types, "{sql}");
    }
    let row = client.query_one("select 1, -2147483648, 2147483648, $1::bigint", &[&7_i64]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (1, i32::MIN));
    assert_eq!((row.get::<_, i64>(2), row.get::<_, i64>(3)), (2_147_483_648, 7));
}

#[tokio::test]
async fn documents_are_json_to_clients() {
    let client = connect().await;
    let sql = "select '{\"a\":[1]}'::jsonb, '{}'::json, '{\"a\":1}'::jsonb -> 'a', '{\"a\":1}'::jsonb ->> 'a', $1::jsonb ->> 'k', pg_typeof('{}'::jsonb), '{}'::jsonb::text";
    let statement = client.prepare(sql).await.unwrap();
    let types: Vec<_> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    let text = Type::TEXT;
    assert_eq!(types, [Type::JSONB, Type::JSON, Type::JSONB, text.clone(), text.clone(), text.clone(), text]);
    assert_eq!(statement.params(), [Type::JSONB]);
    let bound = Document(r#"{"k": "v"}"#.to_owned());
    let row = client.query_one(&statement, &[&bound]).await.unwrap();
    assert_eq!(row.get::<_, Document>(0).0, r#"{"a": [1]}"#);
    let shown: Vec<&str> = (3..7).map(|at| row.get(at)).collect();
    assert_eq!(shown, ["1", "v", "jsonb", "{}"]);
    client.batch_execute("create temp table docs as select '{\"b\":1}'::jsonb as j").await.unwrap();
    let statement = client.prepare("select j, j || '{\"c\":2}' from docs").await.unwrap();
    assert!(statement.columns().iter().all(|column| *column.type_() == Type::JSONB));
    let row = client.query_one(&statement, &[]).await.unwrap();
    assert_eq!(row.get::<_, Document>(1).0, r#"{"b": 1, "c": 2}"#);
    assert_eq!(state(client.simple_query("select '{'::jsonb").await), "22P02");
    assert_eq!(state(client.simple_query("select '{}'::json = '{}'::json").await), "42883");
}

/// A `jsonb` as the protocol has it: a version and a text.
#[derive(Debug)]
struct Document(String);

impl<'a> FromSql<'a> for Document {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let text = raw.strip_prefix(&[1]).ok_or("another version")?;
        Ok(Self(String::from_utf8(text.to_vec())?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }
}

impl ToSql for Document {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&[1]);
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}

#[tokio::test]
async fn text_is_written_as_postgresql_writes_it() {
    let client = connect().await;
    let sql = "select timestamp '2013-08-01 10:00'::text || '|' || (interval '1 day 2 hours')::text || '|' || \
               array[1,2]::text || '|' || 1e20::float8::text || '|' || (timestamptz '2013-08-01 10:00+00')::text";
    let expected = |zone: &str| [format!("2013-08-01 10:00:00|1 day 02:00:00|{{1,2}}|1e+20|2013-08-01 {zone}")];
    assert_eq!(texts(&client.simple_query(sql).await.unwrap()), expected("10:00:00+00"));
    client.batch_execute("set timezone = 'Asia/Tokyo'").await.unwrap();
    assert_eq!(texts(&client.simple_query(sql).await.unwrap()), expected("19:00:00+09"));
}
