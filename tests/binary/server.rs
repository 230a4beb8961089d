use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use libtest_mimic::{Failed, Trial};
use tokio_postgres::{Config, NoTls};

use super::{Place, ask, sum_is};
use crate::harness::door::{Postgres, Protocol};
use crate::harness::process::{LIMIT, Server, run};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::server::a_second_one_on_the_directory_is_told_who_has_it", second_server),
        Trial::test("binary::server::a_taken_port_fails_naming_its_flag", taken_port),
        Trial::test("binary::server::term_and_int_end_it_and_release_the_directory", signals),
        Trial::test("binary::server::ends_although_queries_run_and_clients_do_not_read", ended_while_busy),
        Trial::test("binary::server::garbage_ends_only_its_own_connection", garbage),
        Trial::test("binary::server::wrong_requests_are_answered_as_other_errors", wrong_requests),
        Trial::test("binary::server::another_database_is_unknown", unknown_database),
        Trial::test("binary::server::what_would_change_the_catalogue_is_refused", refused),
        Trial::test("binary::server::henge_sql_asks_the_server_or_the_directory", sql),
    ]
}

fn second_server() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let error = run(place.henge(&["server", "--pg-port", "0", "--http-port", "0"]))?.failed_with(1)?;
    let data = place.data().display().to_string();
    let (process, port) = (format!("process {}", server.pid()), format!("PostgreSQL on port {}", server.pg.port()));
    contains(&error, &["in use", &data, &process, &port, "--data-dir"])?;
    sum_is(&server, 7)
}

fn taken_port() -> Result<(), Failed> {
    let place = Place::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for (flag, other) in [("--pg-port", "--http-port"), ("--http-port", "--pg-port")] {
        let error = run(place.henge(&["server", flag, &port, other, "0"]))?.failed_with(1)?;
        contains(&error, &[&port, flag])?;
    }
    Ok(())
}

/// With connections open on both doors, and an ingestion before.
fn signals() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    for name in ["TERM", "INT"] {
        let server = place.serve()?;
        sum_is(&server, 7)?;
        let idle = block_on(Postgres::connect(server.pg, Protocol::Extended))?;
        let mut kept_alive = TcpStream::connect(server.http)?;
        kept_alive.write_all(b"GET /status/health HTTP/1.1\r\nhost: henge\r\n\r\n")?;
        kept_alive.read_exact(&mut [0; 12])?;
        let status = server.end_with(name)?;
        ensure(status.success(), || format!("{name}: {status}"))?;
        let told = block_on(idle.client().simple_query("SELECT 1"));
        ensure(told.is_err(), || format!("{name}: a connection outlived its server"))?;
    }
    sum_is(&place.serve()?, 7)
}

/// One query is computing; of another the client reads the first rows and no more.
fn ended_while_busy() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let mut unread = TcpStream::connect(server.pg)?;
    unread.set_read_timeout(Some(LIMIT))?;
    let query = b"SELECT n FROM generate_series(1, 1000000000000) AS n\0";
    unread.write_all(&[STARTUP, b"Q", &(query.len() as u32 + 4).to_be_bytes(), query].concat())?;
    unread.read_exact(&mut [0; 10_000])?;
    let computing = block_on(Postgres::connect(server.pg, Protocol::Extended))?;
    let (status, answer) = block_on(async {
        let sum = computing.client().simple_query("SELECT SUM(n) FROM generate_series(1, 1000000000000) AS n");
        tokio::join!(tokio::task::spawn_blocking(|| server.end_with("TERM")), sum)
    });
    let status = status??;
    ensure(status.success(), || status.to_string())?;
    let Err(error) = answer else { return Err("an endless query was answered".into()) };
    let state = error.code().map(|state| state.code().to_owned());
    ensure(state.as_deref() == Some("57P01"), || format!("{error}: {state:?}"))
}

/// The first message of a client: protocol 3.0, and who it is.
const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0henge\0\0";

fn garbage() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let before = block_on(Postgres::connect(server.pg, Protocol::Extended))?;
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let after_start = |rest: &[u8]| [STARTUP, rest].concat();
    let messages = [
        noise.clone(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        after_start(&noise),
        // A query that says it is 2 GiB long, one that is no text, an unknown message, a Bind that ends early.
        after_start(b"Q\x7f\xff\xff\xffselect"),
        after_start(b"Q\0\0\0\x08\xff\xfe\xfd\0"),
        after_start(b"!\0\0\0\x04"),
        after_start(b"B\0\0\0\x06\0\0"),
    ];
    for message in &messages {
        send(server.pg, message)?;
    }
    for message in
        [&noise[..], b"GET / HTTP/9.9\r\n\r\n", b"POST /druid/v2/sql HTTP/1.1\r\ncontent-length: -1\r\n\r\n", STARTUP]
    {
        send(server.http, message)?;
    }
    block_on(before.client().simple_query("SELECT 1"))?;
    sum_is(&server, 7)?;
    contains(&ask_http(&server, "/status/health")?, &["200 OK", "true"])
}

/// Sends bytes and nothing more, and waits for the other side to close.
fn send(to: SocketAddr, bytes: &[u8]) -> Result<(), Failed> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // It may hang up before it has heard all.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(format!("{to} keeps a connection that sent {:?} …", &bytes[..bytes.len().min(24)]).into())
        }
        _ => Ok(()),
    }
}

/// Each with what its answer must say.
const WRONG_REQUESTS: [(&str, &str, &str, &str); 5] = [
    ("POST /druid/v2/sql", "application/json", "{\"query\":", "the body is not JSON"),
    ("POST /druid/v2/sql", "application/json", "{\"query\": 7}", "line 1 column 11"),
    ("POST /druid/v2/sql", "text/plain", "{\"query\": \"SELECT 1\"}", "content-type: application/json"),
    ("GET /druid/v2/sql", "application/json", "", "does not take GET"),
    ("GET /druid/indexer/v1/tasks?max=many", "application/json", "", "invalid digit"),
];

fn wrong_requests() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    for (request, kind, body, words) in WRONG_REQUESTS {
        let head = format!("{request} HTTP/1.1\r\nhost: henge\r\nconnection: close\r\ncontent-type: {kind}\r\n");
        let answer = exchange(server.http, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()))?;
        contains(&answer, &["HTTP/1.1 400", "application/json", "\"errorCode\":\"InvalidInput\"", words])?;
    }
    Ok(())
}

fn ask_http(server: &Server, path: &str) -> Result<String, Failed> {
    exchange(server.http, &format!("GET {path} HTTP/1.1\r\nhost: henge\r\nconnection: close\r\n\r\n"))
}

/// Sends a request, and reads the answer to its end.
fn exchange(to: SocketAddr, request: &str) -> Result<String, Failed> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn unknown_database() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.pg.port()).user("henge").dbname("druid");
    let Err(error) = block_on(config.connect(NoTls)) else { return Err("connected to no database".into()) };
    let told = error.as_db_error().ok_or("no error of the server's")?;
    ensure(told.code().code() == "3D000", || format!("{told:?}"))?;
    contains(told.message(), &["\"druid\""])
}

/// Each with its SQLSTATE.
const REFUSED: [(&str, &str); 6] = [
    ("CREATE TABLE t (x INT)", "0A000"),
    ("DROP TABLE wiki", "0A000"),
    ("COPY wiki TO '/tmp/henge-was-here'", "42501"),
    ("COPY wiki FROM '/etc/passwd'", "42501"),
    ("SELECT nope FROM wiki", "42703"),
    ("SELECT 1 FROM nope", "42P01"),
];

fn refused() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let door = block_on(Postgres::connect(server.pg, Protocol::Extended))?;
    for (statement, code) in REFUSED {
        let told = block_on(door.client().simple_query(statement));
        let Err(error) = told else { return Err(format!("`{statement}` was done").into()) };
        let state = error.code().map(|state| state.code().to_owned());
        ensure(state.as_deref() == Some(code), || format!("`{statement}`: {state:?} instead of {code}: {error}"))?;
    }
    sum_is(&server, 7)
}

fn sql() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let query = "SELECT page, SUM(added) FROM wiki GROUP BY page ORDER BY page";
    let expected = ["A,5", "B,2"];
    ensure(place.sql(query)? == expected, || "not of the directory".to_owned())?;
    let error = run(place.henge(&["sql", "SELECT 1; SELECT 2"]))?.failed_with(2)?;
    contains(&error, &["one statement"])?;
    let server = place.serve()?;
    ensure(place.sql(query)? == expected, || "not of the server on the directory".to_owned())?;
    let error = run(place.henge(&["sql", "SELECT nope FROM wiki"]))?.failed_with(2)?;
    contains(&error, &["nope"])?;
    let error = run(place.henge(&["sql", "SELECT 1; SELECT 2"]))?.failed_with(2)?;
    contains(&error, &["one statement"])?;
    ensure(ask(&server, query)?.len() == 2, || "the server is gone".to_owned())
}
