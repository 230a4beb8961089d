use std::collections::HashSet;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;

fn wikipedia(shape: Shape, rows: u64) -> Wikipedia {
    Wikipedia::new(Options::new(shape, rows)).expect("options in range")
}

fn written(wikipedia: &Wikipedia, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    wikipedia.write(format, &mut bytes).expect("a vector takes all");
    bytes
}

/// FNV-1a: what the bytes were when this was written is what they must be on every machine.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn same_seed_gives_the_same_bytes_on_every_machine() {
    let hashes = [Shape::Tutorial, Shape::Wikiticker].map(|shape| {
        let wikipedia = wikipedia(shape, 20_000);
        [hash(&written(&wikipedia, Format::Json)), hash(&written(&wikipedia, Format::Csv))]
    });
    let expected = [
        [1_937_784_373_412_321_429, 7_341_868_845_667_254_264],
        [5_681_925_615_724_227_435, 11_805_835_841_172_479_702],
    ];
    assert_eq!(hashes, expected);
}

#[test]
fn another_seed_gives_other_rows() {
    let mut options = Options::new(Shape::Tutorial, 10);
    options.seed = 43;
    let other = Wikipedia::new(options).expect("options in range");
    assert_ne!(written(&wikipedia(Shape::Tutorial, 10), Format::Json), written(&other, Format::Json));
}

#[test]
fn rows_are_in_order_of_time_and_within_the_days() {
    let mut options = Options::new(Shape::Wikiticker, 50_000);
    options.days = 3;
    let (start, end) = (options.start.millis(), options.start.millis() + 3 * DAY_MS);
    let wikipedia = Wikipedia::new(options).expect("options in range");
    let times: Vec<i64> = wikipedia.edits().map(|edit| edit.time.millis()).collect();
    assert!(times.is_sorted());
    assert!(times.iter().all(|time| (start..end).contains(time)));
    let days: HashSet<i64> = times.iter().map(|time| (time - start) / DAY_MS).collect();
    assert_eq!(days.len(), 3);
}

#[test]
fn json_is_json_and_says_what_the_batches_say() {
    for shape in [Shape::Tutorial, Shape::Wikiticker] {
        let wikipedia = wikipedia(shape, 3000);
        let json = String::from_utf8(written(&wikipedia, Format::Json)).expect("UTF-8");
        let rows: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
        let added: Vec<i64> = rows.iter().filter_map(|row| row["added"].as_i64()).collect();
        let mut from_batches = Vec::new();
        for batch in wikipedia.batches(1000) {
            let batch = batch.expect("columns fit the schema");
            let column = batch.column_by_name("added").expect("in the schema");
            from_batches.extend(column.as_primitive::<Int64Type>().values().iter().copied());
        }
        assert_eq!((rows.len(), &added), (3000, &from_batches));
        let keys: Vec<&String> = rows[0].as_object().expect("an object").keys().collect();
        let fields = wikipedia.schema();
        assert_eq!(keys, fields.fields().iter().map(|field| field.name()).collect::<Vec<_>>());
    }
}

#[test]
fn csv_reads_back_as_the_same_cells() {
    let wikipedia = wikipedia(Shape::Wikiticker, 3000);
    let csv = written(&wikipedia, Format::Csv);
    let mut reader = csv::Reader::from_reader(csv.as_slice());
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("valid CSV");
    assert_eq!(records.len(), 3000);
    for (record, edit) in records.iter().zip(wikipedia.edits()) {
        assert_eq!((&record[3], &record[13], &record[16]), (&*edit.comment, &*edit.page, &*edit.user));
    }
}

#[test]
fn spans_put_together_are_the_whole() {
    let wikipedia = wikipedia(Shape::Tutorial, 1000);
    let mut parts = Vec::new();
    for rows in [0..1, 1..400, 400..1000] {
        wikipedia.write_csv(rows, &mut parts).expect("a vector takes all");
    }
    assert_eq!(parts, written(&wikipedia, Format::Csv));
}

#[test]
fn a_day_has_the_skew_of_a_real_one() {
    let wikipedia = wikipedia(Shape::Wikiticker, 39_244);
    let edits: Vec<Edit<'_>> = wikipedia.edits().collect();
    let share = |is: fn(&Edit<'_>) -> bool| edits.iter().filter(|edit| is(edit)).count() * 100 / edits.len();
    assert!((20..40).contains(&share(|edit| edit.channel == "#en.wikipedia")));
    assert!((25..50).contains(&share(|edit| edit.robot)));
    assert!((7..13).contains(&share(|edit| edit.anonymous)));
    assert!((30..55).contains(&share(|edit| edit.minor)));
    assert!((75..90).contains(&share(|edit| edit.namespace.0 == "Main")));
    let pages: HashSet<&str> = edits.iter().map(|edit| edit.page.as_str()).collect();
    assert!((27_000..36_000).contains(&pages.len()), "{} pages", pages.len());
    let users: HashSet<&str> = edits.iter().map(|edit| edit.user.as_str()).collect();
    assert!((20_000..30_000).contains(&users.len()), "{} users", users.len());
    assert!(edits.iter().all(|edit| edit.anonymous == edit.place.is_some()));
}

#[test]
fn impossible_options_are_refused_in_words() {
    for (rows, days, start) in [(0, 1, 0), (MAX_ROWS + 1, 1, 0), (1, 0, 0), (1, MAX_DAYS + 1, 0), (1, 1, i64::MAX)] {
        let mut options = Options::new(Shape::Tutorial, rows);
        (options.days, options.start) = (days, Timestamp::from_millis(start));
        assert!(Wikipedia::new(options).is_err());
    }
}
