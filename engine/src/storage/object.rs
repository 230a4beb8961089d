use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::deep::{Hasher, failure};
use crate::error::{Error, Result};

/// A file is sent in parts of this size, so many at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;
/// Beyond the retries of single requests, which the client does: a transfer that broke in its middle begins anew.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Clients of object stores, made when a bucket is first needed.
pub(super) struct ObjectStores {
    /// Regions, endpoints, credentials, as their own tools name them.
    options: Vec<(String, String)>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for ObjectStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStores").finish_non_exhaustive()
    }
}

/// An object, and the client that reaches it.
#[derive(Clone)]
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    name: String,
}

impl ObjectStores {
    pub(super) fn new(options: Vec<(String, String)>) -> Self {
        Self { options, stores: Mutex::default() }
    }

    /// The object of a key below `root`, such as `s3://bucket`.
    pub(super) fn object(&self, root: &str, key: &str) -> Result<Object> {
        let name = format!("{root}/{key}");
        let path = ObjectPath::parse(key)
            .map_err(|error| Error::invalid_input(format!("`{key}` is no name of an object")).with_source(error))?;
        Ok(Object { store: self.store(root)?, path, name })
    }

    fn store(&self, root: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores.lock();
        if let Some(store) = stores.get(root) {
            return Ok(Arc::clone(store));
        }
        let url: url::Url =
            root.parse().map_err(|e| Error::invalid_input(format!("`{root}` is not a URL")).with_source(e))?;
        let options = self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (store, _) = object_store::parse_url_opts(&url, options).map_err(|error| {
            Error::invalid_input(format!(
                "`{root}` cannot be reached with what this program was built for, or was told"
            ))
            .with_source(error)
        })?;
        let store: Arc<dyn ObjectStore> = store.into();
        stores.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

impl Object {
    /// The objects directly below this one, as below a directory, with their names there. More than `most` are refused.
    pub(super) async fn below(&self, most: usize) -> Result<Vec<(String, Self)>> {
        let listed = self.store.list_with_delimiter(Some(&self.path)).await.map_err(|error| self.unreadable(error))?;
        if listed.objects.len() > most {
            return Err(Error::capacity_exceeded(format!("there are more than {most} objects below `{}/`", self.name)));
        }
        let below = listed.objects.into_iter().filter_map(|found| {
            let name = found.location.filename()?.to_owned();
            let object = Self {
                store: Arc::clone(&self.store),
                path: found.location,
                name: format!("{}/{name}", self.name.trim_end_matches('/')),
            };
            Some((name, object))
        });
        Ok(below.collect())
    }

    /// Puts a file's bytes there, and reads them back: on return they are there, and they are the same.
    pub(super) async fn put(&self, file: &Path) -> Result<(u64, String)> {
        let mut attempts = Attempts::default();
        loop {
            match self.put_once(file).await {
                Err(error) if attempts.again(&error, &self.name).await => {}
                outcome => return outcome,
            }
        }
    }

    async fn put_once(&self, file: &Path) -> Result<(u64, String)> {
        let sent = self.send(file).await?;
        let found = self.read(None).await?;
        if sent == found {
            return Ok(sent);
        }
        Err(Error::corrupt(format!(
            "`{}` has {} bytes and hash {} right after {} bytes with hash {} were put there",
            self.name, found.0, found.1, sent.0, sent.1
        ))
        .retryable(true))
    }

    async fn send(&self, file: &Path) -> Result<(u64, String)> {
        let unreadable = |error| failure("read", file, error);
        let mut input = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let mut output = BufWriter::with_capacity(Arc::clone(&self.store), self.path.clone(), PART_BYTES)
            .with_max_concurrency(PARTS_AT_ONCE);
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; PART_BYTES / 8];
        let sent = async {
            loop {
                match input.read(&mut buffer).await.map_err(unreadable)? {
                    0 => return output.shutdown().await.map_err(|error| self.failed("written", error)),
                    n => {
                        hasher.update(&buffer[..n]);
                        output.write_all(&buffer[..n]).await.map_err(|error| self.failed("written", error))?;
                    }
                }
            }
        };
        if let Err(error) = sent.await {
            // What was sent of it so far is nobody's; the store may refuse to hear of it, as of the rest.
            let _ = output.abort().await;
            return Err(error);
        }
        Ok(hasher.finish())
    }

    /// Gets the bytes into a new file, not yet synced. Returns their number and hash.
    pub(super) async fn get(&self, file: &Path) -> Result<(u64, String)> {
        let mut attempts = Attempts::default();
        loop {
            match self.read(Some(file)).await {
                Err(error) if attempts.again(&error, &self.name).await => {}
                outcome => return outcome,
            }
        }
    }

    /// Reads all bytes, into a file if one is given.
    async fn read(&self, file: Option<&Path>) -> Result<(u64, String)> {
        let unwritable = |error| failure("write", file.unwrap_or(Path::new("")), error);
        let mut output = file.map(std::fs::File::create).transpose().map_err(unwritable)?;
        let got = self.store.get(&self.path).await.map_err(|error| self.unreadable(error))?;
        let mut stream = got.into_stream();
        let mut hasher = Hasher::default();
        while let Some(bytes) = stream.try_next().await.map_err(|error| self.unreadable(error))? {
            hasher.update(&bytes);
            if let Some(output) = &mut output {
                output.write_all(&bytes).map_err(unwritable)?;
            }
        }
        Ok(hasher.finish())
    }

    /// Gets a part of the bytes.
    pub(super) async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        let length = range.end - range.start;
        let bytes = self.store.get_range(&self.path, range).await.map_err(|error| self.unreadable(error))?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(Error::corrupt(format!("`{}` has less bytes than were put there", self.name))),
        }
    }

    /// Removes the object. A missing one is no failure.
    pub(super) async fn delete(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("removed", error)),
        }
    }

    fn unreadable(&self, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => Error::not_found(format!("there is no object `{}`", self.name)),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Error::runtime_failure(format!("`{}` may not be read with the credentials given", self.name))
                    .with_source(error)
            }
            error => self.failed("read", error),
        }
    }

    fn failed(&self, verb: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::runtime_failure(format!("`{}` could not be {verb}", self.name)).retryable(true).with_source(error)
    }
}

/// Counts the transfers that broke, and waits between them.
#[derive(Default)]
struct Attempts {
    failed: u32,
}

impl Attempts {
    async fn again(&mut self, error: &Error, object: &str) -> bool {
        self.failed += 1;
        if !error.is_retryable() || self.failed >= ATTEMPTS {
            return false;
        }
        tracing::warn!(%error, object, "begun anew");
        tokio::time::sleep(PAUSE * self.failed).await;
        true
    }
}
