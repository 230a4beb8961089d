//! `henge segment`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use clap::{Args, Subcommand};
use henge_engine::segment::druid::{DruidSegment, Nulls};
use henge_engine::segment::{BLOCK_ROWS, Segment as Rows, SegmentFile, check_same_rows, convert, read_block};
use henge_engine::{Error, Result};

use super::{cannot_write, say};

#[derive(Debug, Subcommand)]
pub(super) enum Segment {
    /// Show what segments hold: columns, encodings, sizes
    Inspect {
        #[command(flatten)]
        reading: Reading,
        /// Segment files, which data directories have under `segments/`; or Druid's, as a directory or an `index.zip`
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Read whole segments and check everything that can be checked
    Verify {
        #[command(flatten)]
        reading: Reading,
        /// Segment files; or Druid's, as a directory or an `index.zip`
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the rows of a segment as JSON, one a line
    Dump(Dump),
    /// Write a segment of Druid's in Henge's own format, and compare all rows
    Convert(Convert),
}

/// How segments of Druid's are read.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Reading {
    /// In segments of Druid before version 28: take an empty text for null, as Druid did
    #[arg(long)]
    empty_is_null: bool,
}

#[derive(Args, Debug)]
pub(super) struct Dump {
    #[command(flatten)]
    reading: Reading,
    /// A segment file; or one of Druid's, as a directory or an `index.zip`
    file: PathBuf,
    /// Print these columns only; repeat it for several
    #[arg(long = "column", value_name = "NAME")]
    columns: Vec<String>,
    /// Print the first rows only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args, Debug)]
pub(super) struct Convert {
    #[command(flatten)]
    reading: Reading,
    /// A segment of Druid's, as a directory or an `index.zip`
    from: PathBuf,
    /// The file to write; it must not be there yet
    to: PathBuf,
    /// Leave a column out, such as one that cannot be read; repeat it for several
    #[arg(long, value_name = "COLUMN")]
    without: Vec<String>,
}

/// A segment of either make.
enum Opened {
    Ours(SegmentFile),
    Druids(DruidSegment),
}

impl Reading {
    fn open(self, path: &Path) -> Result<Opened> {
        if !DruidSegment::is_at(path) {
            return SegmentFile::open(path).map(Opened::Ours);
        }
        let nulls = if self.empty_is_null { Nulls::EmptyIsNull } else { Nulls::AsStored };
        DruidSegment::open_path(path, nulls).map(Opened::Druids)
    }
}

impl Opened {
    fn inspect(&self) -> Result<String> {
        match self {
            Self::Ours(segment) => Ok(segment.inspect()?.to_string()),
            Self::Druids(segment) => Ok(segment.inspect().to_string()),
        }
    }

    fn verify(&self) -> Result<()> {
        match self {
            Self::Ours(segment) => segment.verify(),
            Self::Druids(segment) => segment.verify(),
        }
    }

    fn into_segment(self) -> Arc<dyn Rows> {
        match self {
            Self::Ours(segment) => Arc::new(segment),
            Self::Druids(segment) => Arc::new(segment),
        }
    }
}

impl Segment {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Inspect { reading, files } => {
                for file in files {
                    say(&format!("{}\n{}", file.display(), reading.open(&file)?.inspect()?))?;
                }
                Ok(())
            }
            Self::Verify { reading, files } => {
                for file in files {
                    reading.open(&file)?.verify()?;
                    say(&format!("{}: whole", file.display()))?;
                }
                Ok(())
            }
            Self::Dump(dump) => dump.run(),
            Self::Convert(convert) => convert.run(),
        }
    }
}

impl Dump {
    fn run(self) -> Result<()> {
        let segment = self.reading.open(&self.file)?.into_segment();
        let schema = segment.schema();
        let index_of = |name: &String| {
            let missing = || Error::not_found(format!("the segment has no column `{name}`"));
            schema.index_of(name).ok_or_else(missing)
        };
        let columns = match self.columns.is_empty() {
            true => (0..schema.columns().len()).collect(),
            false => self.columns.iter().map(index_of).collect::<Result<Vec<_>>>()?,
        };
        let out = BufWriter::new(std::io::stdout().lock());
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
        let mut left = self.limit.unwrap_or(usize::MAX).min(segment.num_rows());
        for block in 0..segment.num_rows().div_ceil(BLOCK_ROWS) {
            if left == 0 {
                break;
            }
            let rows = read_block(segment.as_ref(), &columns, block)?;
            let rows = rows.slice(0, left.min(rows.num_rows()));
            left -= rows.num_rows();
            writer.write(&rows).map_err(cannot_print)?;
        }
        writer.finish().map_err(cannot_print)?;
        writer.into_inner().flush().map_err(cannot_write)
    }
}

/// A broken pipe is told from other failures by its kind, which Arrow hides in its own error.
fn cannot_print(error: arrow::error::ArrowError) -> Error {
    match error {
        arrow::error::ArrowError::IoError(_, error) => cannot_write(error),
        error => Error::runtime_failure("the rows cannot be printed").with_source(error),
    }
}

impl Convert {
    fn run(self) -> Result<()> {
        let original = self.reading.open(&self.from)?.into_segment();
        let failed = |error: std::io::Error| {
            let message = format!("`{}` cannot be written", self.to.display());
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    Error::conflict(format!("`{}` is there already", self.to.display()))
                }
                _ => Error::runtime_failure(message).with_source(error),
            }
        };
        let mut file = File::create_new(&self.to).map_err(failed)?;
        let summary = convert(&original, &self.without, &mut file).and_then(|summary| {
            file.sync_all().map_err(failed)?;
            check_same_rows(&SegmentFile::open(&self.to)?, original.as_ref())?;
            Ok(summary)
        });
        if summary.is_err() {
            // Half a segment is of no use; why it is half is said below.
            let _ = std::fs::remove_file(&self.to);
        }
        let summary = summary?;
        say(&format!("{}: {} rows, {} bytes, all compared", self.to.display(), summary.num_rows, summary.size_bytes))
    }
}
