mod on_demand;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::deep::{LoadSpec, LocalDeepStorage, PushedSegment, file_name};
use super::object::{Object, ObjectStores};
use super::segment_cache::{CacheLocation, Reserved, SegmentCache, files_of};
use crate::error::{Error, Result};
use crate::model::{SegmentId, SegmentUid};
use crate::segment::druid::{DruidSegment, Nulls, gather, is_segment_file};

pub use on_demand::{OnDemandFigures, Room};

/// Segments fetched at one time; queries that wait for one come first come, first served.
const FETCHES_AT_ONCE: usize = 4;
/// A segment that is not zipped has no more files than this.
const MAX_FILES: usize = 10_000;

/// Where new segments are put for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeepStorageUrl {
    /// A directory of this machine, or one that is mounted here.
    Local(PathBuf),
    /// A bucket of an object store, and a prefix in it.
    Objects { bucket: String, prefix: String },
}

impl FromStr for DeepStorageUrl {
    type Err = Error;

    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `file:///DIRECTORY`, or a directory.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid_input(format!(
                "`{text}` is no place for segments; write it as `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, \
                 `az://CONTAINER/PREFIX` or `/DIRECTORY`"
            ))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(wrong()) } else { Ok(Self::Local(PathBuf::from(text))) };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "file" if bucket.is_empty() => Ok(Self::Local(PathBuf::from(format!("/{prefix}")))),
            "s3" | "gs" | "az" if !bucket.is_empty() && !bucket.contains(['@', '?', ':']) => Ok(Self::Objects {
                bucket: format!("{scheme}://{bucket}"),
                prefix: prefix.trim_matches('/').to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeepStorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Objects { bucket, prefix } => write!(f, "{bucket}/{prefix}"),
        }
    }
}

/// What is known of a segment's file before it is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub size_bytes: u64,
    pub hash: String,
}

/// Where segments stay for ever, and the cache of those that are elsewhere than on this machine. Clones are the same.
#[derive(Clone, Debug)]
pub struct DeepStorage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    stores: ObjectStores,
    cache: SegmentCache,
    /// Whether files of this machine are copied into the cache too, instead of being used where they are.
    copies_local: bool,
    fetches: Semaphore,
    /// Parts of segments read at one time.
    ranges: Semaphore,
    on_demand: on_demand::Counters,
    transfers: Transfers,
}

#[derive(Debug)]
enum Place {
    Local(LocalDeepStorage),
    Objects { bucket: String, prefix: String },
}

impl DeepStorage {
    /// Opens deep storage. `cache_dir` is where segments from elsewhere are kept; `options` are what object stores need
    /// to know, by the names of their environment variables.
    pub fn open(url: &DeepStorageUrl, cache_dir: PathBuf, options: Vec<(String, String)>) -> Result<Self> {
        let location = CacheLocation { dir: cache_dir, max_bytes: u64::MAX };
        Self::with_cache(url, vec![location], false, options)
    }

    /// The same for a server that keeps all it serves in its cache: files of this machine are copied too, so that what
    /// happens to them does not matter any more.
    pub fn caching(
        url: &DeepStorageUrl,
        locations: Vec<CacheLocation>,
        options: Vec<(String, String)>,
    ) -> Result<Self> {
        Self::with_cache(url, locations, true, options)
    }

    fn with_cache(
        url: &DeepStorageUrl,
        locations: Vec<CacheLocation>,
        copies_local: bool,
        options: Vec<(String, String)>,
    ) -> Result<Self> {
        let place = match url {
            DeepStorageUrl::Local(root) => Place::Local(LocalDeepStorage::open(root)?),
            DeepStorageUrl::Objects { bucket, prefix } => {
                Place::Objects { bucket: bucket.clone(), prefix: prefix.clone() }
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                place,
                stores: ObjectStores::new(options),
                cache: SegmentCache::open(locations)?,
                copies_local,
                fetches: Semaphore::new(FETCHES_AT_ONCE),
                ranges: Semaphore::new(on_demand::RANGES_AT_ONCE),
                on_demand: on_demand::Counters::default(),
                transfers: Transfers::new()?,
            }),
        })
    }

    /// Deep storage in a directory; what is elsewhere is cached in another.
    pub fn local(root: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Result<Self> {
        Self::open(&DeepStorageUrl::Local(root.into()), cache_dir.into(), Vec::new())
    }

    /// The load spec that [`DeepStorage::push`] will give. Known before, so that the intention can be recorded.
    pub fn load_spec(&self, id: &SegmentId, uid: SegmentUid) -> LoadSpec {
        let (bucket, prefix) = match &self.inner.place {
            Place::Local(local) => return local.load_spec(id, uid),
            Place::Objects { bucket, prefix } => (bucket, prefix),
        };
        let (scheme, bucket) = bucket.split_once("://").unwrap_or(("s3", bucket));
        let bucket = bucket.to_owned();
        let name = file_name(id, uid);
        let key = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match scheme {
            "gs" => LoadSpec::Google { bucket, path: key },
            "az" => LoadSpec::Azure { container_path: bucket, blob_path: key },
            _ => LoadSpec::S3 { bucket, key },
        }
    }

    /// Takes a finished file into deep storage; what is put elsewhere stays in the cache too. When this fails, nothing,
    /// or bytes that nobody refers to, are left.
    pub async fn push(&self, file: &Path, id: &SegmentId, uid: SegmentUid) -> Result<PushedSegment> {
        let (this, file, id) = (self.clone(), file.to_owned(), id.clone());
        self.inner.transfers.run(async move { this.inner.push(&file, &id, uid, this.load_spec(&id, uid)).await }).await
    }

    /// The file of a segment on this machine, without fetching it: `None` for one that is elsewhere and not cached, or
    /// has no file. A segment of Druid's is a directory in the cache, wherever it is from: nothing of Druid's is mapped
    /// where it might change.
    pub fn file_here(&self, uid: SegmentUid, load_spec: &LoadSpec) -> Result<Option<PathBuf>> {
        self.inner.file_here(uid, load_spec)
    }

    /// The file of a segment on this machine, fetched if need be: whole, verified, and synced. A local one is where it
    /// is, and not looked at.
    pub async fn fetch(&self, uid: SegmentUid, load_spec: &LoadSpec, expected: Option<Expected>) -> Result<PathBuf> {
        if let Some(path) = self.file_here(uid, load_spec)? {
            return Ok(path);
        }
        let (this, load_spec) = (self.clone(), load_spec.clone());
        self.inner.transfers.run(async move { this.inner.fetch(uid, &load_spec, expected).await }).await
    }

    /// The same for a thread that may block, such as one that runs a query.
    pub fn fetch_blocking(&self, uid: SegmentUid, load_spec: &LoadSpec, expected: Option<Expected>) -> Result<PathBuf> {
        if let Some(path) = self.file_here(uid, load_spec)? {
            return Ok(path);
        }
        let (this, load_spec) = (self.clone(), load_spec.clone());
        self.inner.transfers.run_blocking(async move { this.inner.fetch(uid, &load_spec, expected).await })
    }

    /// The size and hash of a segment's file on this machine; of a directory, those of all its files together.
    pub fn measure(&self, file: &Path) -> Result<Expected> {
        measure(file)
    }

    /// Removes a segment's bytes for good, if they are ours; others are left alone. Missing ones are no failure.
    pub async fn delete(&self, load_spec: &LoadSpec) -> Result<()> {
        if !load_spec.is_ours() {
            return Ok(());
        }
        let (this, load_spec) = (self.clone(), load_spec.clone());
        self.inner.transfers.run(async move { this.inner.delete(&load_spec).await }).await
    }

    /// Removes a segment from the cache.
    pub fn forget(&self, uid: SegmentUid) -> Result<()> {
        self.inner.cache.remove(uid)
    }

    /// How many bytes the cache has of a segment.
    pub fn cached_size(&self, uid: SegmentUid) -> Option<u64> {
        self.inner.cache.size(uid)
    }

    /// How many bytes the cache has, and may have.
    pub fn cached_bytes(&self) -> (u64, u64) {
        self.inner.cache.bytes()
    }

    /// The file of ours that was made of a segment of Druid's, if one is in the cache.
    pub fn converted_here(&self, uid: SegmentUid, nulls: Nulls) -> Option<PathBuf> {
        self.inner.cache.converted(uid, nulls)
    }

    /// A name for such a file while it is being made; what is left there is removed at the next start.
    pub fn converting(&self, uid: SegmentUid) -> PathBuf {
        self.inner.cache.converting(uid)
    }

    /// Takes such a file, finished, into the cache.
    pub fn keep_converted(&self, file: &Path, uid: SegmentUid, nulls: Nulls) -> Result<PathBuf> {
        self.inner.cache.keep_converted(file, uid, nulls)
    }

    /// Removes the files of a segment of Druid's from the cache, and leaves what was made of them. Nobody may read them.
    pub fn forget_unpacked(&self, uid: SegmentUid) -> Result<()> {
        self.inner.cache.remove_unpacked(uid)
    }

    /// Removes all segments from the cache but these.
    pub fn retain_cached(&self, used: &HashSet<SegmentUid>) -> Result<usize> {
        self.inner.cache.retain(used)
    }
}

impl Inner {
    async fn push(&self, file: &Path, id: &SegmentId, uid: SegmentUid, load_spec: LoadSpec) -> Result<PushedSegment> {
        if let Place::Local(local) = &self.place {
            let (local, file, id) = (local.clone(), file.to_owned(), id.clone());
            return blocking(move || local.push(&file, &id, uid)).await;
        }
        let (size_bytes, hash) = self.object(&load_spec)?.put(file).await?;
        self.cache.reserve(uid, size_bytes)?.keep(file)?;
        Ok(PushedSegment { load_spec, size_bytes, hash })
    }

    async fn fetch(&self, uid: SegmentUid, load_spec: &LoadSpec, expected: Option<Expected>) -> Result<PathBuf> {
        let turn = self.cache.fetching(uid);
        let _turn = turn.lock().await;
        if let Some(path) = self.file_here(uid, load_spec)? {
            return Ok(path);
        }
        let closed = |_| Error::canceled("deep storage is being closed");
        let _place = self.fetches.acquire().await.map_err(closed)?;
        // Of a segment that was put there by hand the size is not known; it is counted once it is here.
        let reserved = self.cache.reserve(uid, expected.as_ref().map_or(0, |expected| expected.size_bytes))?;
        if load_spec.is_folder() {
            return self.fetch_files(reserved, load_spec, expected).await;
        }
        let part = reserved.temporary();
        let (size_bytes, hash) = match load_spec {
            LoadSpec::Local { .. } => {
                let from = self.local_path(load_spec)?;
                if DruidSegment::is_at(&from) {
                    return self.unpack(from, reserved, load_spec, expected).await;
                }
                let to = part.clone();
                blocking(move || copy(&from, &to)).await?
            }
            _ => self.object(load_spec)?.get(&part).await?,
        };
        if DruidSegment::is_at(&part) {
            let unpacked = self.unpack(part.clone(), reserved, load_spec, expected).await;
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&part);
            return unpacked;
        }
        check(load_spec, expected.as_ref(), &Expected { size_bytes, hash })?;
        reserved.keep(&part)
    }

    /// Fetches the files of a segment of Druid's that is not zipped.
    async fn fetch_files(
        &self,
        reserved: Reserved<'_>,
        load_spec: &LoadSpec,
        expected: Option<Expected>,
    ) -> Result<PathBuf> {
        let files = self.object(load_spec)?.below(MAX_FILES).await?;
        let dir = reserved.unpacking()?;
        let mut fetched = 0;
        for (name, object) in files.iter().filter(|(name, _)| is_segment_file(name)) {
            object.get(&dir.join(name)).await?;
            fetched += 1;
        }
        if fetched == 0 {
            return Err(Error::not_found(format!("there are no files of a segment below `{load_spec}`")));
        }
        expected.map_or(Ok(()), |expected| check(load_spec, Some(&expected), &measure(&dir)?))?;
        reserved.keep_unpacked(&dir)
    }

    /// Puts the files of a segment of Druid's into the cache.
    async fn unpack(
        &self,
        from: PathBuf,
        reserved: Reserved<'_>,
        load_spec: &LoadSpec,
        expected: Option<Expected>,
    ) -> Result<PathBuf> {
        let dir = reserved.unpacking()?;
        let (to, load_spec) = (dir.clone(), load_spec.clone());
        let unpack = move || {
            gather(&from, &to).map_err(|error| error.context("load spec", &load_spec))?;
            expected.map_or(Ok(()), |expected| check(&load_spec, Some(&expected), &measure(&to)?))
        };
        blocking(unpack).await?;
        reserved.keep_unpacked(&dir)
    }

    fn file_here(&self, uid: SegmentUid, load_spec: &LoadSpec) -> Result<Option<PathBuf>> {
        let unpacked = || self.cache.unpacked(uid);
        match load_spec {
            LoadSpec::Tombstone => Ok(None),
            LoadSpec::Local { .. } if self.copies_local => Ok(self.cache.path(uid).or_else(unpacked)),
            LoadSpec::Local { .. } if load_spec.is_ours() => self.local_path(load_spec).map(Some),
            LoadSpec::Local { .. } => {
                let path = self.local_path(load_spec)?;
                Ok(unpacked().or_else(|| (!DruidSegment::is_at(&path)).then_some(path)))
            }
            _ => Ok(self.cache.path(uid).or_else(unpacked)),
        }
    }

    async fn delete(&self, load_spec: &LoadSpec) -> Result<()> {
        match (load_spec, &self.place) {
            (LoadSpec::Tombstone, _) => Ok(()),
            (LoadSpec::Local { .. }, Place::Local(local)) => {
                let (local, load_spec) = (local.clone(), load_spec.clone());
                blocking(move || local.delete(&load_spec)).await
            }
            (LoadSpec::Local { path }, Place::Objects { .. }) => Err(Error::unsupported(format!(
                "`{path}` is not in the deep storage of this server; remove it by hand"
            ))),
            _ => self.object(load_spec)?.delete().await,
        }
    }

    fn local_path(&self, load_spec: &LoadSpec) -> Result<PathBuf> {
        if let Place::Local(local) = &self.place {
            let path = local.path(load_spec)?;
            return path.ok_or_else(|| Error::defensive("a tombstone has no file"));
        }
        match load_spec {
            LoadSpec::Local { path } if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
            _ => Err(Error::invalid_input(format!(
                "`{load_spec}` is relative to a directory, and the deep storage of this server is none; write the whole path"
            ))),
        }
    }

    fn object(&self, load_spec: &LoadSpec) -> Result<Object> {
        match load_spec {
            LoadSpec::S3 { bucket, key } | LoadSpec::S3Zip { bucket, key } => {
                self.stores.object(&format!("s3://{bucket}"), key)
            }
            LoadSpec::Google { bucket, path } => self.stores.object(&format!("gs://{bucket}"), path),
            LoadSpec::Azure { container_path, blob_path } => {
                let (container, prefix) = container_path.split_once('/').unwrap_or((container_path, ""));
                let key = if prefix.is_empty() { blob_path.clone() } else { format!("{prefix}/{blob_path}") };
                self.stores.object(&format!("az://{container}"), &key)
            }
            LoadSpec::Hdfs { path } => Err(Error::unsupported(format!(
                "`{path}` is in HDFS, which is not read; copy the segment to a directory or an object store, and name that"
            ))),
            LoadSpec::Local { .. } | LoadSpec::Tombstone => Err(Error::defensive("not in an object store")),
        }
    }
}

/// Copies a file of this machine. Returns its size and hash, as they are at the end of the way.
fn copy(from: &Path, to: &Path) -> Result<(u64, String)> {
    match std::fs::copy(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("there is no such segment file as `{}`", from.display())))
        }
        Err(error) => Err(super::deep::failure("copy a segment from", from, error)),
        Ok(_) => super::deep::hash(&super::LocalDisk, to),
    }
}

/// Fails unless what was found is what was published.
fn check(load_spec: &LoadSpec, expected: Option<&Expected>, found: &Expected) -> Result<()> {
    let Some(expected) = expected.filter(|expected| *expected != found) else { return Ok(()) };
    Err(Error::corrupt(format!(
        "`{load_spec}` has {} bytes and hash {}, but {} bytes and hash {} were published",
        found.size_bytes, found.hash, expected.size_bytes, expected.hash
    )))
}

fn measure(file: &Path) -> Result<Expected> {
    if !file.is_dir() {
        let (size_bytes, hash) = super::deep::hash(&super::LocalDisk, file)?;
        return Ok(Expected { size_bytes, hash });
    }
    // The hash of the hashes and names of the files.
    let (mut size_bytes, mut all) = (0, super::deep::Hasher::default());
    for file in files_of(file)? {
        let (size, hash) = super::deep::hash(&super::LocalDisk, &file)?;
        size_bytes += size;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        all.update(format!("{name} {size} {hash}\n").as_bytes());
    }
    Ok(Expected { size_bytes, hash: all.finish().1 })
}

/// Threads of its own for transfers, so that they go on while queries keep all others busy.
#[derive(Debug)]
struct Transfers(Option<Runtime>);

impl Transfers {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("henge-storage")
            .enable_all()
            .build()
            .map_err(|error| Error::runtime_failure("no thread for deep storage").with_source(error))?;
        Ok(Self(Some(runtime)))
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.0.as_ref().ok_or_else(|| Error::canceled("deep storage is being closed"))
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let lost = |error| Error::runtime_failure("a transfer ended without an answer").with_source(error);
        self.runtime()?.spawn(work).await.map_err(lost)?
    }

    fn run_blocking<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let (answer, answered) = std::sync::mpsc::channel();
        self.runtime()?.spawn(async move {
            // Who does not wait for the answer does not want it.
            let _ = answer.send(work.await);
        });
        let wait = || answered.recv().map_err(|_| Error::runtime_failure("a transfer ended without an answer"))?;
        match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
            // Others that this thread was to run are handed on meanwhile.
            Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
            _ => wait(),
        }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed on those of another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let lost = |error| Error::runtime_failure("a background thread ended without an answer").with_source(error);
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_urls_or_directories() -> Result<()> {
        let objects = |bucket: &str, prefix: &str| DeepStorageUrl::Objects {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!("s3://b/a/c/".parse::<DeepStorageUrl>()?, objects("s3://b", "a/c"));
        assert_eq!("gs://b".parse::<DeepStorageUrl>()?, objects("gs://b", ""));
        assert_eq!("file:///var/x".parse::<DeepStorageUrl>()?, DeepStorageUrl::Local(PathBuf::from("/var/x")));
        assert_eq!("segments".parse::<DeepStorageUrl>()?, DeepStorageUrl::Local(PathBuf::from("segments")));
        for wrong in ["", "s3://", "ftp://b/a", "s3://key:secret@b/a"] {
            assert!(wrong.parse::<DeepStorageUrl>().is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn load_specs_of_object_stores_are_druids_json() {
        for (json, shown) in [
            (
                r#"{"type":"s3_zip","bucket":"static.druid.io","key":"data/index.zip"}"#,
                "s3://static.druid.io/data/index.zip",
            ),
            (r#"{"type":"s3","bucket":"b","key":"k"}"#, "s3://b/k"),
            (r#"{"type":"google","bucket":"b","path":"k"}"#, "gs://b/k"),
            (r#"{"type":"azure","containerPath":"c","blobPath":"k"}"#, "az://c/k"),
        ] {
            let spec: LoadSpec = serde_json::from_str(json).expect("valid JSON");
            assert_eq!(spec.to_string(), shown);
            assert_eq!(serde_json::to_string(&spec).expect("plain data"), json);
        }
    }

    #[test]
    fn another_machines_relative_path_is_refused() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let url = "s3://b/a".parse()?;
        let storage = DeepStorage::open(&url, dir.path().join("cache"), Vec::new())?;
        let uid = SegmentUid::new(crate::model::Timestamp::from_millis(0), 1);
        let relative = LoadSpec::Local { path: "a/b".to_owned() };
        assert!(storage.file_here(uid, &relative).is_err());
        let absolute = LoadSpec::Local { path: "/a/b".to_owned() };
        assert_eq!(storage.file_here(uid, &absolute)?, Some(PathBuf::from("/a/b")));
        Ok(())
    }

    /// A genuine zip of Druid's, where one is at hand.
    fn druids_zip() -> Option<PathBuf> {
        Some(crate::segment::druid::tests::genuine::dir("test-segment")?.join("index.zip"))
    }

    #[test]
    fn a_zip_of_druids_is_unpacked_into_the_cache_and_never_removed() -> Result<()> {
        let Some(zip) = druids_zip() else { return Ok(()) };
        let dir = tempfile::tempdir().expect("temporary directory");
        let foreign = dir.path().join("index.zip");
        std::fs::copy(zip, &foreign).expect("copied");
        let storage = DeepStorage::local(dir.path().join("segments"), dir.path().join("cache"))?;
        let uid = SegmentUid::new(crate::model::Timestamp::from_millis(0), 1);
        let load_spec = LoadSpec::Local { path: foreign.display().to_string() };
        assert_eq!(storage.file_here(uid, &load_spec)?, None);
        let unpacked = storage.fetch_blocking(uid, &load_spec, None)?;
        assert!(unpacked.join("00000.smoosh").is_file() && unpacked.starts_with(dir.path().join("cache")));
        assert_eq!(storage.file_here(uid, &load_spec)?, Some(unpacked.clone()));

        let expected = storage.measure(&unpacked)?;
        storage.forget(uid)?;
        assert!(!unpacked.exists());
        assert_eq!(storage.fetch_blocking(uid, &load_spec, Some(expected.clone()))?, unpacked);
        storage.forget(uid)?;
        let other = Expected { size_bytes: 1, ..expected };
        assert!(storage.fetch_blocking(uid, &load_spec, Some(other)).is_err());
        assert!(!unpacked.exists());

        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        runtime.block_on(storage.delete(&load_spec))?;
        assert!(foreign.is_file(), "what is not ours stays");
        Ok(())
    }

    #[test]
    fn what_druid_alone_writes_is_read_or_refused_with_a_word() -> Result<()> {
        let spec = |json: &str| serde_json::from_str::<LoadSpec>(json).expect("valid JSON");
        let azure = spec(r#"{"type":"azure","containerName":"c","blobPath":"a/index.zip"}"#);
        assert_eq!((azure.to_string().as_str(), azure.is_ours()), ("az://c/a/index.zip", false));
        assert_eq!(spec(r#"{"type":"tombstone","path":null}"#), LoadSpec::Tombstone);
        let s3 = spec(r#"{"type":"s3_zip","bucket":"b","key":"k/index.zip","S3Schema":"s3n"}"#);
        assert_eq!(s3.to_string(), "s3://b/k/index.zip");
        assert!(spec(r#"{"type":"local","path":"wiki/x.henge"}"#).is_ours());
        assert!(serde_json::from_str::<LoadSpec>(r#"{"type":"hdfs3","path":"x"}"#).is_err());

        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = DeepStorage::local(dir.path().join("segments"), dir.path().join("cache"))?;
        let uid = SegmentUid::new(crate::model::Timestamp::from_millis(0), 1);
        let hdfs = spec(r#"{"type":"hdfs","path":"hdfs://n/0_index.zip"}"#);
        let refused = storage.fetch_blocking(uid, &hdfs, None).map(drop);
        assert!(refused.is_err_and(|error| error.to_string().contains("HDFS, which is not read")));
        Ok(())
    }
}
