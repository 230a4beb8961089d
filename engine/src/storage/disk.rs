use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A file being written. What was written is sure to be there after a power loss once [`DiskFile::sync`] returned, and
/// once the directory that names the file was synced too.
pub trait DiskFile: Write + Send {
    fn sync(&mut self) -> io::Result<()>;

    /// The same for the bytes alone and what it takes to find them; what else is known of the file may be lost.
    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }
}

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskEntry {
    pub name: OsString,
    pub is_dir: bool,
}

/// A file system, down to what survives a power loss. All calls block.
///
/// Contract: without a sync anything may be lost: bytes written (in whole or in part, in any order), and names created,
/// renamed or removed. [`Disk::sync_dir`] keeps the names in a directory, not the bytes of its files.
pub trait Disk: Debug + Send + Sync {
    /// Begins a file. Fails with `AlreadyExists` rather than overwrite.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file to write at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Syncs the bytes of a file that somebody else wrote.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of any file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Creates one directory. Fails with `AlreadyExists`.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Syncs which names a directory holds.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Opens a file to read it from its beginning.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    fn read_range(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// What a directory holds, in the order of names.
    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>>;

    /// Creates a directory and those above it that are missing, each sure to survive a power loss.
    fn create_dir_durably(&self, path: &Path) -> io::Result<()> {
        if self.exists(path)? {
            return Ok(());
        }
        let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.create_dir_durably(parent)?;
        match self.create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // "" is the parent of a relative path with one part: the working directory.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // Windows has no way to sync a directory; NTFS journals names by itself.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        // The working directory, as above.
        if path.as_os_str().is_empty() { Ok(true) } else { path.try_exists() }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut entries = fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                Ok(DiskEntry { name: entry.file_name(), is_dir: entry.file_type()?.is_dir() })
            })
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable();
        Ok(entries)
    }
}
