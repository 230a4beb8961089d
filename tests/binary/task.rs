use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::pipe::EndlessFile;
use super::{DAY_TWO, Place, message, sum_is};
use crate::harness::process::{LIMIT, Server, until};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::task::is_submitted_watched_and_reported", submitted),
        Trial::test("binary::task::that_fails_says_why", failing),
        Trial::test("binary::task::is_shut_down", shut_down),
        Trial::test("binary::task::unknown_and_wrong_ones_are_refused", refused),
        Trial::test("binary::task::queries_are_answered_beside_them", queries),
    ]
}

pub const TASK: &str = "/druid/indexer/v1/task";

/// The status, and the JSON of the answer. Without a body it is a GET.
pub fn http(server: &Server, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failed> {
    let url = format!("http://{}{path}", server.http);
    let client = reqwest::Client::new();
    let request = body.map_or_else(|| client.get(&url), |body| client.post(&url).json(body));
    let answer = block_on(async {
        let response = request.timeout(LIMIT).send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    });
    let (status, text) = answer?;
    let json = serde_json::from_str(&text).map_err(|error| format!("{path}: {status}: {error}: {text}"))?;
    Ok((status, json))
}

/// A task that loads a file into `wiki`, replacing what is there.
pub fn task(file: &std::path::Path) -> Value {
    json!({
        "type": "index_parallel",
        "spec": {
            "dataSchema": {
                "dataSource": "wiki",
                "timestampSpec": {"column": "time", "format": "auto"},
                "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "added"}]},
                "granularitySpec": {"segmentGranularity": "DAY", "queryGranularity": "NONE", "rollup": false},
            },
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "local", "files": [file]},
                "inputFormat": {"type": "json"},
            },
            "tuningConfig": {"type": "index_parallel", "maxParseExceptions": 0},
        },
    })
}

/// Hands a task in, and gives its id.
pub fn submit(server: &Server, task: &Value) -> Result<String, Failed> {
    let (status, answer) = http(server, TASK, Some(task))?;
    ensure(status == 200, || format!("{status}: {answer}"))?;
    Ok(answer["task"].as_str().ok_or("no id")?.to_owned())
}

/// What is said of a task once it is `code`.
pub fn until_it_is(server: &Server, id: &str, code: &str) -> Result<Value, Failed> {
    until(&format!("task `{id}` {code}"), || {
        let (_, answer) = http(server, &format!("{TASK}/{id}/status"), None)?;
        let now = answer["status"]["statusCode"].as_str().unwrap_or_default();
        let ended_otherwise = now != code && now != "RUNNING";
        ensure(!ended_otherwise, || format!("not {code}: {answer}"))?;
        Ok((now == code).then(|| answer["status"].clone()))
    })
}

fn submitted() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let id = submit(&server, &task(&place.file("two.json", DAY_TWO)?))?;
    let status = until_it_is(&server, &id, "SUCCESS")?;
    ensure(status["dataSource"] == "wiki" && status["duration"].is_u64(), || status.to_string())?;
    sum_is(&server, 15)?;

    let (_, report) = http(&server, &format!("{TASK}/{id}/reports"), None)?;
    let payload = &report["ingestionStatsAndErrors"]["payload"];
    ensure(payload["rowStats"]["processed"] == 1 && payload["rowsWritten"] == 1, || report.to_string())?;
    let (_, described) = http(&server, &format!("{TASK}/{id}"), None)?;
    ensure(described["payload"]["spec"]["dataSchema"]["dataSource"] == "wiki", || described.to_string())?;
    let (_, all) = http(&server, "/druid/indexer/v1/tasks?max=1", None)?;
    ensure(all[0]["id"] == id.as_str() && all.as_array().is_some_and(|all| all.len() == 1), || all.to_string())
}

fn failing() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let id = submit(&server, &task(&place.file("bad.json", "not json\n")?))?;
    let status = until_it_is(&server, &id, "FAILED")?;
    contains(status["errorMsg"].as_str().unwrap_or_default(), &["maxParseExceptions", "bad.json:1"])?;
    let (code, answer) = http(&server, &format!("{TASK}/{id}/reports"), None)?;
    ensure(code == 404, || format!("{code}: {answer}"))?;

    let id = submit(&server, &task(&place.path().join("none.json")))?;
    let status = until_it_is(&server, &id, "FAILED")?;
    contains(status["errorMsg"].as_str().unwrap_or_default(), &["there is no file", "none.json"])?;
    sum_is(&server, 7)
}

fn shut_down() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let rows = EndlessFile::new(place.path())?;
    let id = submit(&server, &task(&rows.path))?;
    rows.feed(DAY_TWO)?;
    until_it_is(&server, &id, "RUNNING")?;
    let (code, answer) = http(&server, &format!("{TASK}/{id}/shutdown"), Some(&json!({})))?;
    ensure(code == 200 && answer["task"] == id.as_str(), || format!("{code}: {answer}"))?;
    drop(rows);
    until_it_is(&server, &id, "FAILED")?;
    sum_is(&server, 7)?;
    // Recorded as failed, it has still to give its place back.
    until("a task that cannot be shut down again", || {
        let (code, _) = http(&server, &format!("{TASK}/{id}/shutdown"), Some(&json!({})))?;
        Ok((code == 409).then_some(()))
    })
}

fn refused() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let mut twice = task(&place.file("two.json", DAY_TWO)?);
    twice["id"] = "mine".into();
    submit(&server, &twice)?;
    let mut streaming = task(place.path());
    streaming["type"] = "index_kafka".into();
    let nameless = json!({"type": "index_parallel", "spec": {"dataSchema": {}}});
    let wrong = [
        ("/druid/indexer/v1/task/nope/status".to_owned(), None, 404, "`nope`"),
        ("/druid/indexer/v1/task/nope".to_owned(), None, 404, "`nope`"),
        ("/druid/indexer/v1/task/nope/reports".to_owned(), None, 404, "`nope`"),
        ("/druid/indexer/v1/task/nope/shutdown".to_owned(), Some(json!({})), 404, "`nope`"),
        (TASK.to_owned(), Some(twice), 409, "`mine`"),
        (TASK.to_owned(), Some(streaming), 501, "`index_kafka`"),
        (TASK.to_owned(), Some(nameless), 400, "dataSource"),
        ("/druid/nope".to_owned(), None, 404, "path"),
    ];
    for (path, body, code, part) in wrong {
        let (status, answer) = http(&server, &path, body.as_ref())?;
        ensure(status == code, || format!("{path}: {status} instead of {code}: {answer}"))?;
        contains(answer["errorMessage"].as_str().unwrap_or_default(), &[part])
            .map_err(|failed| format!("{path}: {}", message(&failed)))?;
    }
    Ok(())
}

fn queries() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let query = "SELECT page, SUM(added) AS added FROM wiki GROUP BY page ORDER BY page";
    let (_, rows) = http(&server, "/druid/v2/sql", Some(&json!({"query": query})))?;
    ensure(rows == json!([{"page": "A", "added": 5}, {"page": "B", "added": 2}]), || rows.to_string())?;
    let array = json!({"query": query, "resultFormat": "array", "header": true});
    let (_, rows) = http(&server, "/druid/v2/sql", Some(&array))?;
    ensure(rows == json!([["page", "added"], ["A", 5], ["B", 2]]), || rows.to_string())?;
    let (code, error) = http(&server, "/druid/v2/sql", Some(&json!({"query": "SELECT nope FROM wiki"})))?;
    ensure(code == 400, || format!("{code}: {error}"))?;
    contains(error["errorMessage"].as_str().unwrap_or_default(), &["nope"])?;
    let (_, healthy) = http(&server, "/status/health", None)?;
    ensure(healthy == true, || healthy.to_string())
}
