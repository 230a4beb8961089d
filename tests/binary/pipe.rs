use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use libtest_mimic::Failed;

use crate::harness::process::{LIMIT, run};

/// More than a pipe and a reader's buffers hold.
const FEED_BYTES: usize = 4 << 20;

/// A file of rows without an end: who ingests it waits for more, until this is dropped.
pub struct EndlessFile {
    pub path: PathBuf,
    /// Open for reading too, so that neither opening nor closing waits for the other side.
    pipe: File,
}

impl EndlessFile {
    pub fn new(dir: &Path) -> Result<Self, Failed> {
        let path = dir.join("endless.json");
        let mut mkfifo = Command::new("mkfifo");
        mkfifo.arg(&path);
        run(mkfifo)?.ok()?;
        let pipe = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, pipe })
    }

    /// Writes rows: when this returns, most of them were read.
    pub fn feed(&self, row: &str) -> Result<(), Failed> {
        let (mut pipe, rows) = (self.pipe.try_clone()?, row.repeat(FEED_BYTES / row.len()));
        let (wrote, written) = mpsc::channel();
        std::thread::spawn(move || wrote.send(pipe.write_all(rows.as_bytes())));
        Ok(written.recv_timeout(LIMIT).map_err(|_| "nobody reads the pipe")??)
    }
}
