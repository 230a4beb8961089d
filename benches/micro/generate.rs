//! How fast rows are made: it must not be what limits a benchmark of ingestion.

use std::hint::black_box;
use std::io::sink;

use criterion::{Criterion, Throughput, criterion_group};
use henge_engine::ingest::source::wikipedia::{Format, Options, Shape, Wikipedia};

const ROWS: u64 = 20_000;

fn generate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generate");
    group.throughput(Throughput::Elements(ROWS));
    for shape in [Shape::Tutorial, Shape::Wikiticker] {
        let Ok(wikipedia) = Wikipedia::new(Options::new(shape, ROWS)) else { continue };
        for format in [Format::Json, Format::Csv, Format::Parquet] {
            group.bench_function(format!("{shape}/{format}"), |bencher| {
                bencher.iter(|| black_box(&wikipedia).write(format, &mut sink()));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = generate
}
