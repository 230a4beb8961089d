use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, LocalDisk};
use crate::error::{Error, Result};
use crate::model::{SegmentId, SegmentUid};

const READ_BUFFER_BYTES: usize = 1 << 20;
const MAX_PART_LEN: usize = 100;
/// How the names of our segment files end.
const FILE_EXTENSION: &str = "henge";

/// Where a segment's bytes are, in Druid's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum LoadSpec {
    /// A file: relative to the directory of the deep storage, or absolute.
    Local { path: String },
    /// An object of S3 that is a segment file.
    S3 { bucket: String, key: String },
    /// The same, as Druid calls it: the object may be a zip archive of a segment.
    #[serde(rename = "s3_zip")]
    S3Zip { bucket: String, key: String },
    /// An object of Google Cloud Storage.
    Google { bucket: String, path: String },
    /// An object of Azure's blob storage.
    #[serde(rename_all = "camelCase")]
    Azure {
        /// A container, and what all names in it begin with. Druid says `containerName`, and only that.
        #[serde(alias = "containerName")]
        container_path: String,
        blob_path: String,
    },
    /// A file in HDFS, as Druid names it. It cannot be read.
    Hdfs { path: String },
    /// Nowhere: the segment has no rows, it only overshadows.
    Tombstone,
}

impl LoadSpec {
    /// Whether the bytes are ours, by their name: nothing of Druid's, or of whoever put a segment there by hand, is ever
    /// removed.
    pub fn is_ours(&self) -> bool {
        let name = match self {
            Self::Local { path } | Self::Google { path, .. } => path,
            Self::S3 { key, .. } => key,
            Self::Azure { blob_path, .. } => blob_path,
            Self::S3Zip { .. } | Self::Hdfs { .. } | Self::Tombstone => return false,
        };
        Path::new(name).extension().is_some_and(|extension| extension == FILE_EXTENSION)
    }
}

impl LoadSpec {
    /// Whether it names what all objects of the segment are below, rather than one object.
    pub(super) fn is_folder(&self) -> bool {
        match self {
            Self::S3 { key, .. } | Self::S3Zip { key, .. } => key.ends_with('/'),
            Self::Google { path, .. } => path.ends_with('/'),
            Self::Azure { blob_path, .. } => blob_path.ends_with('/'),
            Self::Local { .. } | Self::Hdfs { .. } | Self::Tombstone => false,
        }
    }
}

impl fmt::Display for LoadSpec {
    /// As people write such places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { path } | Self::Hdfs { path } => f.write_str(path),
            Self::S3 { bucket, key } | Self::S3Zip { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::Google { bucket, path } => write!(f, "gs://{bucket}/{path}"),
            Self::Azure { container_path, blob_path } => write!(f, "az://{container_path}/{blob_path}"),
            Self::Tombstone => f.write_str("tombstone"),
        }
    }
}

/// The name of a segment's file below the root of a deep storage. It holds the uid, so none is ever used twice; what
/// else it says is for people only.
pub(super) fn file_name(id: &SegmentId, uid: SegmentUid) -> String {
    let parts = [
        safe_name(&id.data_source),
        safe_name(&format!("{}_{}", id.interval.start(), id.interval.end())),
        format!("{uid}.{FILE_EXTENSION}"),
    ];
    parts.join("/")
}

/// A segment that is in deep storage for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedSegment {
    pub load_spec: LoadSpec,
    pub size_bytes: u64,
    /// `crc64nvme:` and 16 hexadecimal digits, over all bytes.
    pub hash: String,
}

/// Deep storage in a directory of this machine.
///
/// Names hold the segment's uid, so none is ever used twice; what else they say is for people only.
#[derive(Clone)]
pub struct LocalDeepStorage {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Held while directories are made and filled, or found empty and removed.
    directories: Arc<Mutex<()>>,
}

impl LocalDeepStorage {
    /// Deep storage in `root`, which is created when missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::on_disk(Arc::new(LocalDisk), root)
    }

    pub fn on_disk(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        disk.create_dir_durably(&root).map_err(|error| failure("create", &root, error))?;
        Ok(Self { disk, root, directories: Arc::default() })
    }

    /// The load spec that [`LocalDeepStorage::push`] will give. Known before, so that the intention can be recorded.
    pub fn load_spec(&self, id: &SegmentId, uid: SegmentUid) -> LoadSpec {
        LoadSpec::Local { path: file_name(id, uid) }
    }

    /// Takes a finished file, on the same file system, into deep storage. On return it survives a power loss; when it
    /// fails, nothing, or a file that nobody refers to, is left. Fails with `Conflict` if the name is taken.
    pub fn push(&self, file: &Path, id: &SegmentId, uid: SegmentUid) -> Result<PushedSegment> {
        let load_spec = self.load_spec(id, uid);
        let Some(target) = self.path(&load_spec)? else {
            return Err(Error::defensive("a tombstone has no file to push"));
        };
        let (size_bytes, hash) = self.hash(file)?;
        self.disk.sync_file(file).map_err(|error| failure("sync", file, error))?;
        self.place(file, &target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::conflict(format!("`{}` is there already", target.display())),
            _ => failure("move a segment to", &target, error),
        })?;
        Ok(PushedSegment { load_spec, size_bytes, hash })
    }

    fn place(&self, file: &Path, target: &Path) -> io::Result<()> {
        let dir = target.parent().unwrap_or(&self.root);
        let _held = self.directories.lock();
        self.disk.create_dir_durably(dir)?;
        if self.disk.exists(target)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.disk.rename(file, target)?;
        self.disk.sync_dir(dir)
    }

    /// The local file that holds a segment; `None` for a tombstone. Does not look whether it is there.
    pub fn path(&self, load_spec: &LoadSpec) -> Result<Option<PathBuf>> {
        let path = match load_spec {
            LoadSpec::Local { path } => Path::new(path),
            LoadSpec::Tombstone => return Ok(None),
            other => return Err(Error::defensive(format!("`{other}` is not on this machine"))),
        };
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(Error::invalid_input(format!("load spec `{}` leaves its directory", path.display())));
        }
        Ok(Some(self.root.join(path)))
    }

    /// Whether a segment's file is still what was pushed, by its size and hash.
    pub fn verify(&self, pushed: &PushedSegment) -> Result<()> {
        let Some(path) = self.path(&pushed.load_spec)? else { return Ok(()) };
        let (size_bytes, hash) = self.hash(&path)?;
        if (size_bytes, hash.as_str()) == (pushed.size_bytes, pushed.hash.as_str()) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "segment file has {size_bytes} bytes and hash {hash}, but {} bytes and hash {} were pushed",
            pushed.size_bytes, pushed.hash
        ))
        .context("file", path.display()))
    }

    /// Removes a segment's file for good, and the directories it leaves empty. A missing file is no failure.
    pub fn delete(&self, load_spec: &LoadSpec) -> Result<()> {
        let Some(path) = self.path(load_spec)? else { return Ok(()) };
        let _held = self.directories.lock();
        match self.disk.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failure("remove", &path, error)),
            Ok(()) => {}
        }
        for dir in path.ancestors().skip(1).take_while(|dir| *dir != self.root && dir.starts_with(&self.root)) {
            self.disk.sync_dir(dir).map_err(|error| failure("sync", dir, error))?;
            if self.disk.remove_dir(dir).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The size and hash of a file.
    pub(super) fn hash(&self, path: &Path) -> Result<(u64, String)> {
        hash(self.disk.as_ref(), path)
    }
}

/// The size and hash of a file, as [`PushedSegment`] says them.
pub(super) fn hash(disk: &dyn Disk, path: &Path) -> Result<(u64, String)> {
    let read = || -> io::Result<(u64, String)> {
        let mut file = disk.open(path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    read().map_err(|error| failure("read", path, error))
}

/// Counts and hashes bytes as they pass.
pub(super) struct Hasher {
    digest: Digest,
    size_bytes: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc64Nvme), size_bytes: 0 }
    }
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> (u64, String) {
        (self.size_bytes, format!("crc64nvme:{:016x}", self.digest.finalize()))
    }
}

impl fmt::Debug for LocalDeepStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalDeepStorage").field("root", &self.root).finish_non_exhaustive()
    }
}

pub(super) fn failure(verb: &str, path: &Path, error: io::Error) -> Error {
    Error::runtime_failure(format!("could not {verb} `{}`", path.display())).with_source(error)
}

/// A name that every file system takes. Not unique, and need not be.
fn safe_name(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name = text.chars().map(keep).take(MAX_PART_LEN).collect::<String>();
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::storage::MemoryDisk;

    fn id(data_source: &str) -> SegmentId {
        SegmentId {
            data_source: data_source.to_owned(),
            interval: "2013-08-01/2013-08-02".parse().expect("valid interval"),
            version: "2013-08-08T21:22:48.989Z".to_owned(),
            partition: 0,
        }
    }

    fn uid(random: u128) -> SegmentUid {
        SegmentUid::new(Timestamp::from_millis(1_375_315_200_000), random)
    }

    fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
        disk.create(Path::new(path))?.write_all(bytes)
    }

    #[test]
    fn a_pushed_segment_verifies_until_a_byte_changes() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = LocalDeepStorage::open(dir.path().join("segments"))?;
        let file = dir.path().join("finished");
        std::fs::write(&file, vec![7; 3_000_000]).expect("written");
        let pushed = storage.push(&file, &id("wiki"), uid(1))?;
        storage.verify(&pushed)?;
        assert!(!file.exists());
        assert_eq!(pushed.size_bytes, 3_000_000);

        let path = storage.path(&pushed.load_spec)?.expect("a file");
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[2_000_000] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert!(storage.verify(&pushed).is_err());

        storage.delete(&pushed.load_spec)?;
        storage.delete(&pushed.load_spec)?;
        assert!(!dir.path().join("segments/wiki").exists());
        assert!(dir.path().join("segments").exists());
        Ok(())
    }

    #[test]
    fn nothing_is_overwritten_and_no_name_escapes() -> Result<()> {
        let disk = MemoryDisk::new();
        let storage = LocalDeepStorage::on_disk(Arc::new(disk.clone()), "s")?;
        write(&disk, "a", b"a").expect("written");
        write(&disk, "b", b"b").expect("written");
        let pushed = storage.push(Path::new("a"), &id("../../etc"), uid(1))?;
        assert!(matches!(&pushed.load_spec, LoadSpec::Local { path } if path.starts_with("_.._.._etc/2013-08-01T")));
        assert!(storage.push(Path::new("b"), &id("../../etc"), uid(1)).is_err());
        storage.verify(&pushed)?;
        assert!(storage.path(&LoadSpec::Local { path: "a/../../b".to_owned() }).is_err());
        Ok(())
    }

    #[test]
    fn load_specs_are_druids_json() {
        let spec = LoadSpec::Local { path: "a/b.henge".to_owned() };
        let json = serde_json::to_string(&spec).expect("plain data");
        assert_eq!(json, r#"{"type":"local","path":"a/b.henge"}"#);
    }

    /// The life of two segments: written, pushed, the first one killed. After a power loss at any operation, with any
    /// loss of what was not synced, a segment whose push returned is whole unless its removal had begun.
    #[test]
    fn at_every_crash_point_a_pushed_segment_is_whole() -> Result<()> {
        let total = {
            let disk = MemoryDisk::new();
            live(&disk, u64::MAX)?;
            disk.operations()
        };
        assert!(total > 15, "{total} operations");
        let mut verified = 0;
        for limit in 0..=total {
            let disk = MemoryDisk::new();
            let (pushed, removing) = live(&disk, limit)?;
            for seed in 0..60 {
                let disk = disk.after_power_loss(seed);
                let storage = LocalDeepStorage::on_disk(Arc::new(disk), "data/segments")?;
                for pushed in &pushed[usize::from(removing)..] {
                    storage.verify(pushed).map_err(|e| e.context("limit", limit).context("seed", seed))?;
                    verified += 1;
                }
            }
        }
        assert!(verified > 500, "{verified} verified");
        Ok(())
    }

    fn live(disk: &MemoryDisk, limit: u64) -> Result<(Vec<PushedSegment>, bool)> {
        disk.fail_after(limit);
        let mut pushed = Vec::new();
        let Ok(storage) = LocalDeepStorage::on_disk(Arc::new(disk.clone()), "data/segments") else {
            return Ok((pushed, false));
        };
        for number in 0..2_u8 {
            let name = format!("finished-{number}");
            let bytes = vec![number + 1; 1500];
            let done = write(disk, &name, &bytes).is_ok();
            match storage.push(Path::new(&name), &id("wiki"), uid(number.into())) {
                Ok(segment) if done => pushed.push(segment),
                _ => return Ok((pushed, false)),
            }
        }
        let deleted = storage.delete(&pushed[0].load_spec);
        assert!(deleted.is_ok() || limit < u64::MAX);
        Ok((pushed, true))
    }
}
