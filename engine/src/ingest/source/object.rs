use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::list::format_of;
use super::{Content, Input};
use crate::error::{Error, Result};
use crate::ingest::StoreOptions;
use crate::ingest::spec::InputFormat;

/// The objects of URLs, and all objects below prefixes.
pub(super) fn list(
    uris: &[String],
    prefixes: &[String],
    format: Option<&InputFormat>,
    store_options: &StoreOptions,
) -> Result<Vec<Input>> {
    let runtime = Arc::new(
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Error::runtime_failure("no thread to read objects with").with_source(e))?,
    );
    let mut inputs = Vec::new();
    for (uri, is_prefix) in uris.iter().map(|uri| (uri, false)).chain(prefixes.iter().map(|uri| (uri, true))) {
        let url: url::Url =
            uri.parse().map_err(|e| Error::invalid_input(format!("`{uri}` is not a URL")).with_source(e))?;
        // Who writes `http:` means it.
        let plain = (url.scheme() == "http").then_some(("allow_http", "true"));
        let (store, path) = object_store::parse_url_opts(&url, store_options.iter().chain(plain)).map_err(|e| {
            Error::invalid_input(format!("`{uri}` cannot be read with what this program was built for")).with_source(e)
        })?;
        let store: Arc<dyn ObjectStore> = store.into();
        let objects = match is_prefix {
            false => vec![(uri.clone(), path, None)],
            true => below(&runtime, store.as_ref(), &url, &path)?,
        };
        for (name, path, size_bytes) in objects {
            let format = format.map_or_else(|| format_of(&name), |format| Ok(format.clone()))?;
            let (store, runtime) = (Arc::clone(&store), Arc::clone(&runtime));
            let object = name.clone();
            let open = move || open(store, runtime, &object, &path);
            inputs.push(Input { name: name.into(), format, size_bytes, content: Content::Open(Box::new(open)) });
        }
    }
    match inputs.is_empty() {
        true => Err(Error::not_found("there is no object to read at the URLs given")),
        false => Ok(inputs),
    }
}

type Found = (String, Path, Option<u64>);

fn below(runtime: &Runtime, store: &dyn ObjectStore, url: &url::Url, prefix: &Path) -> Result<Vec<Found>> {
    let found = runtime.block_on(store.list(Some(prefix)).try_collect::<Vec<_>>());
    let mut found = found.map_err(|e| unreachable_object(url.as_str(), e))?;
    found.sort_by(|a, b| a.location.cmp(&b.location));
    let root = format!("{}://{}", url.scheme(), url.authority());
    Ok(found.into_iter().map(|meta| (format!("{root}/{}", meta.location), meta.location, Some(meta.size))).collect())
}

fn unreachable_object(name: &str, error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::not_found(format!("there is no object `{name}`")),
        error => Error::runtime_failure(format!("`{name}` cannot be read")).retryable(true).with_source(error),
    }
}

fn open(store: Arc<dyn ObjectStore>, runtime: Arc<Runtime>, name: &str, path: &Path) -> Result<Box<dyn Read + Send>> {
    let got = runtime.block_on(store.get(path)).map_err(|e| unreachable_object(name, e))?;
    Ok(Box::new(ObjectRead { runtime, stream: got.into_stream(), rest: Bytes::new() }))
}

/// A stream of an object's bytes as a blocking reader; holds one piece of it at a time.
struct ObjectRead {
    runtime: Arc<Runtime>,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    rest: Bytes,
}

/// A store that sends nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(60);

impl Read for ObjectRead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            let next = self.runtime.block_on(async { tokio::time::timeout(SILENCE, self.stream.next()).await });
            match next.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))? {
                Some(bytes) => self.rest = bytes.map_err(std::io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.rest.len());
        out[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
