use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use henge::model::DataSchema;
use henge::{Category, Database, Existing, IngestRun};
use libtest_mimic::{Failed, Trial};

use super::{DAY_ONE, DAY_TWO, Place, ask, sum_is};
use crate::harness::door::{Door, Embedded};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::embedding::what_a_program_wrote_a_server_serves_and_back", both_ways),
        Trial::test("binary::embedding::a_program_is_told_of_the_server_on_its_directory", held),
        Trial::test("binary::embedding::a_command_is_told_of_the_program_on_its_directory", held_by_a_program),
    ]
}

fn batch() -> Result<RecordBatch, Failed> {
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(TimestampMillisecondArray::from(vec![1_375_320_000_000, 1_375_330_000_000])) as _),
        ("page", Arc::new(StringArray::from(vec![Some("Stonehenge"), None])) as _),
        ("added", Arc::new(Int64Array::from(vec![17, 25])) as _),
    ])?)
}

fn both_ways() -> Result<(), Failed> {
    let place = Place::new()?;
    block_on(async {
        let database = Database::open(place.data()).await?;
        let schema = DataSchema::new("wiki", "time");
        database.ingest_batches(schema, Existing::Keep, [batch()?], IngestRun::default()).await?;
        database.close().await;
        Ok::<_, Failed>(())
    })?;
    let server = place.serve()?;
    sum_is(&server, 42)?;
    let pages = ask(&server, "SELECT page, added FROM wiki ORDER BY added")?;
    ensure(pages == [["Stonehenge", "17"], ["NULL", "25"]], || format!("{pages:?}"))?;
    place.ingest(&place.file("two.json", DAY_TWO)?, &["--append"])?.ok()?;
    sum_is(&server, 50)?;
    server.end_with("TERM")?;
    place.ingest(&place.file("one.json", DAY_ONE)?, &["--append"])?.ok()?;

    block_on(async {
        let database = Database::open(place.data()).await?;
        let answer = Embedded::over(&database).ask("SELECT SUM(added), COUNT(DISTINCT page) FROM wiki").await?;
        database.close().await;
        ensure(answer == [["57", "4"]], || format!("{answer:?}"))
    })
}

fn held() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let Err(error) = block_on(Database::open(place.data())) else { return Err("opened twice".into()) };
    ensure(error.category() == Category::Conflict, || error.to_string())?;
    contains(&error.to_string(), &[&format!("process {}", server.pid()), &server.pg.port().to_string()])?;
    sum_is(&server, 7)
}

fn held_by_a_program() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let database = block_on(Database::open(place.data()))?;
    let error = place.ingest(&place.file("two.json", DAY_TWO)?, &[])?.failed_with(1)?;
    contains(&error, &["in use", &format!("process {}", std::process::id())])?;
    block_on(database.close());
    place.ingest(&place.file("two.json", DAY_TWO)?, &[])?.ok()?;
    Ok(())
}
