use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use henge_engine::{Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::provider::ServerAddress;

const LOCK_FILE: &str = "henge.lock";

/// The process that has a data directory, as its lock file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Holder {
    pub pid: u32,
    /// Where it can be reached, once it listens.
    #[serde(flatten)]
    pub address: ServerAddress,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        let ports = [("PostgreSQL", self.address.pg_port), ("HTTP", self.address.http_port)];
        for (name, port) in ports.iter().filter_map(|(name, port)| Some((name, (*port)?))) {
            write!(f, ", {name} on port {port}")?;
        }
        Ok(())
    }
}

/// A data directory held by this process, until dropped. The operating system lets go of it if the process dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: Mutex<File>,
}

/// What an attempt to lock gave.
pub(super) enum Locking {
    Locked(DirectoryLock),
    Held(Holder),
}

impl DirectoryLock {
    pub(super) fn try_lock(dir: &Path) -> Result<Locking> {
        let path = dir.join(LOCK_FILE);
        let failed = |error: std::io::Error| {
            Error::runtime_failure(format!("could not lock `{}`", path.display())).with_source(error)
        };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Self { file: Mutex::new(file) };
                lock.write(&ServerAddress::default())?;
                Ok(Locking::Locked(lock))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                // It may be about to be written; then it is known only that somebody has it.
                Ok(Locking::Held(serde_json::from_str(&text).unwrap_or_default()))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Says in the lock file who holds it, and where that process can be reached.
    pub(super) fn write(&self, address: &ServerAddress) -> Result<()> {
        let holder = Holder { pid: std::process::id(), address: address.clone() };
        let text = serde_json::to_string(&holder)
            .map_err(|error| Error::defensive("a holder is not JSON").with_source(error))?;
        let mut file = self.file.lock();
        let mut write = || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())?;
            file.flush()
        };
        write().map_err(|error| Error::runtime_failure("could not write the lock file").with_source(error))
    }
}
