//! `henge segment`.

use std::path::PathBuf;

use clap::Subcommand;
use henge_engine::Result;
use henge_engine::segment::SegmentFile;

use super::say;

#[derive(Debug, Subcommand)]
pub(super) enum Segment {
    /// Show what a segment file holds: columns, encodings, sizes
    Inspect {
        /// Files of data directories are under `segments/`
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Read whole segment files and check every checksum
    Verify {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl Segment {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Inspect { files } => {
                for file in files {
                    say(&format!("{}\n{}", file.display(), SegmentFile::open(&file)?.inspect()?))?;
                }
            }
            Self::Verify { files } => {
                for file in files {
                    SegmentFile::open(&file)?.verify()?;
                    say(&format!("{}: whole", file.display()))?;
                }
            }
        }
        Ok(())
    }
}
