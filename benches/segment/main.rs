//! Segment files measured: `cargo bench --bench segment -- [rows=10000000]`.
//!
//! Size beside Parquet with zstd(3) of the same generated rows, rates of writing and of reading each column, and the
//! time to open a large segment and many small ones. Nothing is asserted.
#![allow(clippy::print_stdout)]

#[path = "../rows.rs"]
mod rows;

use std::fs::File;
use std::io::{Write, sink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use henge_engine::ingest::source::wikipedia::{Format, Options, Shape, Wikipedia};
use henge_engine::segment::{
    BLOCK_ROWS, Column, MergeInput, Rollup, RowIndexPolicy, RowOrder, Segment, SegmentFile, SegmentSummary,
    WriteOptions, write_segment,
};

use rows::{Done, median, memory};

const DAYS: usize = 30;
const LARGE_ROWS: usize = 5_000_000;
const SMALL_SEGMENTS: usize = 10_000;
const SMALL_ROWS: usize = 100;
const REPEATS: usize = 11;

fn main() -> Done {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let given = std::env::args().find_map(|argument| argument.strip_prefix("rows=").map(str::to_owned));
    let rows: usize = given.map_or(Ok(10_000_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    sizes(rows, dir.path())?;
    let large = large(rows.min(LARGE_ROWS), dir.path())?;
    opening(&large, dir.path())?;
    reading(&large)
}

fn wikipedia(rows: usize) -> Done<Wikipedia> {
    let mut options = Options::new(Shape::Wikiticker, rows as u64);
    options.days = DAYS as u32;
    Ok(Wikipedia::new(options)?)
}

fn order(batch: &RecordBatch) -> Done<RowOrder> {
    let segment = Arc::new(memory(batch)?);
    let (schema, rows) = (Arc::clone(segment.schema()), 0..batch.num_rows());
    Ok(RowOrder::of(vec![MergeInput { segment, rows }], &schema, Rollup::Off)?)
}

fn write(order: &RowOrder, options: &WriteOptions, out: &mut dyn Write) -> Done<SegmentSummary> {
    Ok(write_segment(order, 0..order.num_rows(), options, out)?)
}

/// How many bytes the same rows take.
fn sizes(rows: usize, dir: &Path) -> Done {
    let wikipedia = wikipedia(rows)?;
    let parquet = dir.join("rows.parquet");
    wikipedia.write(Format::Parquet, &mut File::create(&parquet)?)?;
    let parquet = std::fs::metadata(&parquet)?.len() as f64;
    let with_page_index = WriteOptions::default().row_index("page", RowIndexPolicy::Always);
    let (mut plain, mut indexed, mut spent) = (0, 0, Duration::ZERO);
    for batch in wikipedia.batches(rows.div_ceil(DAYS)) {
        let order = order(&batch?)?;
        let started = Instant::now();
        plain += write(&order, &WriteOptions::default(), &mut sink())?.size_bytes;
        spent += started.elapsed();
        indexed += write(&order, &with_page_index, &mut sink())?.size_bytes;
    }
    let line = |name: &str, bytes: f64| {
        println!(
            "{name}: {:.1} MB, {:.1} bytes a row, {:.2} of Parquet",
            bytes / 1e6,
            bytes / rows as f64,
            bytes / parquet
        );
    };
    println!("{rows} rows of {DAYS} days, in {DAYS} segments");
    line("Parquet, zstd(3)", parquet);
    line("segments", plain as f64);
    line("segments with an index of all pages", indexed as f64);
    println!("writing: {:.0} rows/s on one core", rows as f64 / spent.as_secs_f64());
    Ok(())
}

fn large(rows: usize, dir: &Path) -> Done<PathBuf> {
    let batches = wikipedia(rows)?.batches(rows).collect::<Result<Vec<_>, _>>()?;
    let path = dir.join("large.segment");
    write(&order(&batches[0])?, &WriteOptions::default(), &mut File::create(&path)?)?;
    Ok(path)
}

fn opening(large: &Path, dir: &Path) -> Done {
    let open = median(REPEATS, || SegmentFile::open(large).map(drop).map_err(Into::into))?;
    let first_column = median(REPEATS, || SegmentFile::open(large)?.column(0).map(drop).map_err(Into::into))?;
    let rows = SegmentFile::open(large)?.num_rows();
    println!("opening {rows} rows: {open:.3} ms; with every column: {:.3} ms", median(REPEATS, || open_all(large))?);
    println!("opening {rows} rows and their time: {first_column:.3} ms");

    let batch = wikipedia(SMALL_ROWS)?.batches(SMALL_ROWS).next().ok_or("no rows")??;
    let mut bytes = Vec::new();
    write(&order(&batch)?, &WriteOptions::default(), &mut bytes)?;
    let paths = (0..SMALL_SEGMENTS).map(|number| dir.join(format!("{number}.segment"))).collect::<Vec<_>>();
    paths.iter().try_for_each(|path| std::fs::write(path, &bytes))?;
    let started = Instant::now();
    let opened = paths.iter().map(|path| SegmentFile::open(path)).collect::<Result<Vec<_>, _>>()?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    println!("opening {} segments of {SMALL_ROWS} rows: {ms:.0} ms", opened.len());
    Ok(())
}

fn open_all(path: &Path) -> Done {
    let segment = SegmentFile::open(path)?;
    (0..segment.schema().columns().len()).try_for_each(|index| segment.column(index).map(drop))?;
    Ok(())
}

/// How fast each column is read, checksums verified before.
fn reading(path: &Path) -> Done {
    let segment = SegmentFile::open(path)?;
    let blocks = segment.num_rows().div_ceil(BLOCK_ROWS);
    let bandwidth = bandwidth()?;
    println!("\nreading memory, one core: {:.1} GB/s", bandwidth / 1e9);
    println!("\n| column | values/s, millions | decoded, GB/s | of the memory's |\n|---|---:|---:|---:|");
    for (index, schema) in segment.schema().columns().iter().enumerate() {
        let column = segment.column(index)?;
        let (mut codes, mut numbers) = (Vec::new(), Vec::new());
        let mut read = || -> Done {
            for block in 0..blocks {
                match &column {
                    Column::String(column) => column.read_codes(block, &mut codes)?,
                    Column::Long(column) => drop(column.read(block, &mut numbers)?),
                    _ => return Err("the shape has no such column".into()),
                }
            }
            Ok(())
        };
        read()?;
        let ms = median(REPEATS, read)?;
        let width = if matches!(column, Column::Long(_)) { size_of::<i64>() } else { size_of::<u32>() };
        let rate = segment.num_rows() as f64 / ms * 1e3;
        let decoded = rate * width as f64;
        println!(
            "| {} | {:.0} | {:.1} | {:.0} % |",
            schema.name,
            rate / 1e6,
            decoded / 1e9,
            decoded / bandwidth * 100.0
        );
    }
    Ok(())
}

/// Bytes a second that one core reads from memory, from an array that no cache holds.
fn bandwidth() -> Done<f64> {
    let words = vec![1_u64; 64 << 20];
    let ms = median(REPEATS, || {
        std::hint::black_box(words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
        Ok(())
    })?;
    Ok((words.len() * size_of::<u64>()) as f64 / ms * 1e3)
}
