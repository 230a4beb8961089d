//! Druid's `runtime.properties`, from its first tutorials to today: what of it has a meaning here, and what has none.

use std::collections::BTreeMap;

use henge_engine::{Error, Result};
use serde::Deserialize;
use url::Url;

use super::{Options, Secret};

/// Names that a Druid needs and Henge does not, with the reason. A name that ends with a point stands for all that
/// begin with it.
const NOT_USED: [(&str, &str); 38] = [
    ("druid.zk.", "no ZooKeeper is needed: servers find each other by the metadata database"),
    ("druid.discovery.", "servers find each other by the metadata database"),
    ("druid.serverview.", "servers find each other by the metadata database"),
    ("druid.announcer.", "servers find each other by the metadata database"),
    ("druid.selectors.", "servers find each other by the metadata database"),
    ("druid.extensions.", "there are no extensions: everything is built in"),
    ("druid.modules.", "there are no extensions: everything is built in"),
    ("druid.startup.", "nothing is logged of the properties"),
    ("druid.processing.buffer.", "memory is bounded by `--memory-limit`"),
    ("druid.processing.numMergeBuffers", "memory is bounded by `--memory-limit`"),
    ("druid.processing.formatString", "threads have names of their own"),
    ("druid.processing.tmpDir", "spilled queries are in the data directory"),
    ("druid.computation.", "memory is bounded by `--memory-limit`"),
    ("druid.request.", "requests are not logged"),
    ("druid.emitter", "there are no emitters"),
    ("druid.emitter.", "there are no emitters"),
    ("druid.monitoring.", "there are no monitors"),
    ("druid.cache.", "there is no cache of results"),
    ("druid.query.scheduler.", "there are no lanes and no priorities"),
    ("druid.broker.", "brokers have no such setting"),
    ("druid.historical.cache.", "there is no cache of results"),
    ("druid.server.http.", "connections are bounded by `--max-connections`"),
    ("druid.server.priority", "a historical comes before all others"),
    ("druid.indexer.", "the coordinator runs tasks by itself"),
    ("druid.indexing.", "the coordinator runs tasks by itself"),
    ("druid.worker.", "the coordinator runs tasks by itself"),
    ("druid.peon.", "the coordinator runs tasks by itself"),
    ("druid.coordinator.startDelay", "a coordinator leads as soon as it has the lease"),
    ("druid.coordinator.period", "a coordinator acts when something changes"),
    ("druid.coordinator.", "set it while the cluster runs, over HTTP: /druid/coordinator/v1/config"),
    ("druid.manager.", "set it while the cluster runs, over HTTP: /druid/coordinator/v1/rules"),
    ("druid.master.", "a coordinator acts when something changes"),
    ("druid.metadata.", "the tables have names of their own"),
    ("druid.database.", "the tables have names of their own"),
    ("druid.db.", "the tables have names of their own"),
    ("druid.segmentCache.", "there is no such setting"),
    ("druid.paths.", "what is recorded of segments is in the data directory"),
    ("druid.client.", "connections are kept as long as they serve"),
];

/// What Druid's properties ask for, as our own options.
pub(super) fn read(text: &str) -> Result<Options> {
    let mut known = Properties(parse(text)?);
    let mut options = Options::default();
    known.place(&mut options)?;
    known.database(&mut options)?;
    known.storage(&mut options)?;
    known.cache(&mut options)?;
    options.tier = known.take(&["druid.server.tier"]);
    let number = |text: Option<String>| text.map(|text| text.parse()).transpose().map_err(|_| text_is_no_number());
    options.threads = number(known.take(&["druid.processing.numThreads", "druid.processing.numThreads.max"]))?;
    if known.take(&["druid.coordinator.kill.on"]).as_deref() == Some("true") {
        let retain = known.take(&["druid.coordinator.kill.bufferPeriod", "druid.coordinator.kill.durationToRetain"]);
        options.kill_unused_after = Some(retain.unwrap_or_else(|| "P30D".to_owned()));
    }
    options.notes = known.left();
    Ok(options)
}

fn text_is_no_number() -> Error {
    Error::invalid_input("`druid.processing.numThreads` is no number of threads")
}

/// Java's format: `name=value`, with `#` and `!` before comments and `\` before a line break that does not count.
fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut line = line.trim_start().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while line.ends_with('\\') && !line.ends_with("\\\\") {
            line.pop();
            line.push_str(lines.next().map_or("", |(_, next)| next.trim_start()));
        }
        let Some(at) = line.find(['=', ':']) else {
            return Err(Error::invalid_input(format!("line {}: `{line}` is not `name=value`", number + 1)));
        };
        let value = line[at + 1..].trim();
        let value = value.replace("\\:", ":").replace("\\=", "=").replace("\\\\", "\\");
        properties.insert(line[..at].trim().to_owned(), value);
    }
    Ok(properties)
}

struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The value of the first of some names; all of them count as used.
    fn take(&mut self, names: &[&str]) -> Option<String> {
        let mut found = None;
        for name in names {
            let value = self.0.remove(*name).filter(|value| !value.is_empty());
            found = found.or(value);
        }
        found
    }

    /// Where the server is, and what it does.
    fn place(&mut self, options: &mut Options) -> Result<()> {
        let host = self.take(&["druid.host"]);
        let port = self.take(&["druid.plaintextPort", "druid.port"]);
        let (host, of_host) = match host.as_deref().map(|host| host.rsplit_once(':').unwrap_or((host, ""))) {
            Some((host, port)) => (Some(host.to_owned()), Some(port.to_owned()).filter(|port| !port.is_empty())),
            None => (None, None),
        };
        if let Some(port) = port.or(of_host) {
            let wrong = |_| Error::invalid_input(format!("`{port}` is no port"));
            options.http_port = Some(port.parse().map_err(wrong)?);
        }
        options.host = host.as_deref().and_then(|host| match host {
            "localhost" => Some([127, 0, 0, 1].into()),
            address => address.parse().ok(),
        });
        options.advertise_host = host;
        // Such as `druid/prod/historical`, and in 2013 `compute` for what is a historical today.
        if let Some(service) = self.take(&["druid.service"]) {
            let role = service.rsplit(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
            options.role = match role.as_str() {
                "coordinator" | "master" | "overlord" => Some("coordinator".to_owned()),
                "historical" | "compute" => Some("historical".to_owned()),
                "broker" | "router" => Some("broker".to_owned()),
                "middlemanager" | "indexer" | "peon" => Some("indexer".to_owned()),
                "realtime" => Some("realtime".to_owned()),
                _ => {
                    self.0.insert("druid.service".to_owned(), service);
                    None
                }
            };
        }
        Ok(())
    }

    fn database(&mut self, options: &mut Options) -> Result<()> {
        let take = |this: &mut Self, last: &str| {
            let names = ["druid.metadata.storage.connector", "druid.db.connector", "druid.database"]
                .map(|prefix| format!("{prefix}.{last}"));
            this.take(&names.each_ref().map(String::as_str))
        };
        let (uri, user, password) = (take(self, "connectURI"), take(self, "user"), take(self, "password"));
        self.take(&["druid.metadata.storage.type"]);
        let Some(uri) = uri else { return Ok(()) };
        let Some(rest) = uri.strip_prefix("jdbc:") else {
            return Err(Error::invalid_input("a `connectURI` of a metadata database begins with `jdbc:`"));
        };
        if rest.starts_with("derby:") {
            self.0.insert("Derby as metadata database".to_owned(), String::new());
            return Ok(());
        }
        let mut url: Url = rest.parse().map_err(|error| {
            Error::invalid_input("the `connectURI` of the metadata database is no URL").with_source(error)
        })?;
        let refused = |()| Error::invalid_input("the `connectURI` of the metadata database names no host");
        if let Some(user) = user {
            url.set_username(&user).map_err(refused)?;
        }
        if let Some(password) = password {
            url.set_password(Some(&password)).map_err(refused)?;
        }
        // Parameters of the JDBC driver mean nothing to others.
        url.set_query(None);
        options.metadata = Some(Secret(url.to_string()));
        Ok(())
    }

    fn storage(&mut self, options: &mut Options) -> Result<()> {
        let kind = self.take(&["druid.storage.type"]);
        let is_local = self.take(&["druid.pusher.local"]).as_deref() == Some("true");
        let dir = self.take(&[
            "druid.storage.storageDirectory",
            "druid.storage.local.storageDirectory",
            "druid.pusher.local.storageDirectory",
        ]);
        let bucket = self.take(&["druid.storage.bucket", "druid.pusher.s3.bucket", "druid.storage.container"]);
        let prefix = self.take(&["druid.storage.baseKey", "druid.pusher.s3.baseKey", "druid.storage.prefix"]);
        let scheme = match (kind.as_deref(), is_local) {
            (Some("local"), _) | (None, true) => "",
            (Some("s3"), _) | (None, false) => "s3",
            (Some("google"), _) => "gs",
            (Some("azure"), _) => "az",
            (Some(kind), _) => {
                return Err(Error::unsupported(format!(
                    "`druid.storage.type` is `{kind}`; deep storage is `local`, `s3`, `google` or `azure` here"
                )));
            }
        };
        options.deep_storage = match (scheme, bucket) {
            ("", _) => dir,
            (scheme, Some(bucket)) => Some(format!("{scheme}://{bucket}/{}", prefix.unwrap_or_default())),
            (_, None) => None,
        };
        for (name, names) in [
            ("AWS_ACCESS_KEY_ID", &["druid.s3.accessKey", "com.metamx.aws.accessKey"][..]),
            ("AWS_SECRET_ACCESS_KEY", &["druid.s3.secretKey", "com.metamx.aws.secretKey"]),
            ("AWS_ENDPOINT_URL", &["druid.s3.endpoint.url"]),
            ("AWS_REGION", &["druid.s3.endpoint.signingRegion"]),
            ("AZURE_STORAGE_ACCOUNT_NAME", &["druid.azure.account"]),
            ("AZURE_STORAGE_ACCOUNT_KEY", &["druid.azure.key"]),
        ] {
            if let Some(value) = self.take(names) {
                options.stores.push((name.to_owned(), Secret(value)));
            }
        }
        Ok(())
    }

    fn cache(&mut self, options: &mut Options) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Location {
            path: String,
            max_size: serde_json::Value,
        }
        // Further queries wait here, where Druid refuses them.
        if let Some(number) = self.take(&["druid.query.scheduler.numThreads"]) {
            let number: usize = number.parse().map_err(|error| {
                Error::invalid_input("`druid.query.scheduler.numThreads` is not a number").with_source(error)
            })?;
            options.max_queries = std::num::NonZeroUsize::new(number);
        }
        options.segment_cache_size = self.take(&["druid.server.maxSize"]).filter(|size| size != "0");
        let info_dir = self.take(&["druid.segmentCache.infoDir", "druid.paths.segmentInfoCache"]);
        if let Some(dir) = info_dir {
            self.0.insert("druid.paths.segmentInfoCache".to_owned(), dir);
        }
        options.segment_cache = self.take(&["druid.paths.indexCache"]);
        if let Some(json) = self.take(&["druid.segmentCache.locations"]) {
            let locations: Vec<Location> = serde_json::from_str(&json).map_err(|error| {
                Error::invalid_input("`druid.segmentCache.locations` is not a list of `path` and `maxSize`")
                    .with_source(error)
            })?;
            let part = |Location { path, max_size }: Location| match max_size {
                serde_json::Value::String(text) => format!("{path}={}", text.trim_end_matches('i')),
                number => format!("{path}={number}"),
            };
            options.segment_cache = Some(locations.into_iter().map(part).collect::<Vec<_>>().join(","));
        }
        // What Druid calls virtual storage: `maxSize` is what is served then, whatever the locations hold.
        if self.take(&["druid.segmentCache.virtualStorage"]).is_some_and(|value| value == "true") {
            options.on_demand = options.segment_cache_size.take();
            if options.on_demand.is_none() {
                return Err(Error::invalid_input(
                    "`druid.segmentCache.virtualStorage` wants to know how much is served: set `druid.server.maxSize`",
                ));
            }
        }
        Ok(())
    }

    /// A line for each that was not taken.
    fn left(self) -> Vec<String> {
        let reason = |name: &str| {
            let is = |(known, _): &&(&str, &str)| name == *known || known.ends_with('.') && name.starts_with(known);
            NOT_USED.iter().find(is).map_or("it is not known here", |(_, reason)| *reason)
        };
        self.0.keys().map(|name| format!("`{name}` is not used: {}", reason(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tutorial of 2013 has its compute node read.
    const OF_2013: &str = "\
druid.host=127.0.0.1:8082
druid.port=8082
druid.service=compute
# logging
com.metamx.emitter.logging=true
druid.zk.service.host=localhost
druid.zk.paths.base=/druid
druid.zk.paths.discoveryPath=/druid/discoveryPath
druid.database.connectURI=jdbc\\:mysql://localhost:3306/druid?characterEncoding=UTF-8
druid.database.user=druid
druid.database.password=diurd@1
druid.database.segmentTable=segments
druid.paths.indexCache=/tmp/druid/indexCache
druid.paths.segmentInfoCache=/tmp/druid/segmentInfoCache
druid.server.maxSize=300000000000
com.metamx.aws.accessKey=KEY
com.metamx.aws.secretKey=hush
druid.pusher.s3.bucket=druid-storage
druid.pusher.s3.baseKey=sample
druid.processing.numThreads=1
";

    #[test]
    fn a_file_of_2013_is_understood() {
        let options = read(OF_2013).unwrap();
        assert_eq!(options.role.as_deref(), Some("historical"));
        assert_eq!(options.http_port, Some(8082));
        let metadata = options.metadata.as_ref().map(Secret::text);
        assert_eq!(metadata, Some("mysql://druid:diurd%401@localhost:3306/druid"));
        assert_eq!(options.deep_storage.as_deref(), Some("s3://druid-storage/sample"));
        assert_eq!(options.segment_cache.as_deref(), Some("/tmp/druid/indexCache"));
        assert_eq!(options.segment_cache_size.as_deref(), Some("300000000000"));
        assert_eq!(options.stores.len(), 2);
        assert!(!format!("{options:?}").contains("hush"));
        let notes = options.notes.join("\n");
        for words in
            ["`druid.zk.service.host` is not used: no ZooKeeper", "`com.metamx.emitter.logging`", "segmentTable"]
        {
            assert!(notes.contains(words), "{notes}");
        }
        assert_eq!(options.notes.len(), 6);
        options.check().unwrap();
    }

    #[test]
    fn a_file_of_today_is_understood() {
        let options = read(
            "druid.service=druid/historical\ndruid.plaintextPort=8083\ndruid.host=10.1.2.3\n\
             druid.metadata.storage.type=postgresql\n\
             druid.metadata.storage.connector.connectURI=jdbc:postgresql://db.example:5432/druid\n\
             druid.metadata.storage.connector.user=druid\n\
             druid.storage.type=local\ndruid.storage.storageDirectory=/mnt/segments\n\
             druid.segmentCache.locations=[{\"path\":\"/a\",\"maxSize\":\"10g\"},\\\n  {\"path\":\"/b\",\"maxSize\":20}]\n\
             druid.server.tier=hot\ndruid.extensions.loadList=[\"druid-s3-extensions\"]\n\
             druid.coordinator.kill.on=true\n\
             druid.segmentCache.virtualStorage=true\ndruid.server.maxSize=5t\ndruid.query.scheduler.numThreads=40\n",
        )
        .unwrap();
        assert_eq!((options.on_demand.as_deref(), options.segment_cache_size.as_deref()), (Some("5t"), None));
        assert_eq!(options.max_queries.map(std::num::NonZeroUsize::get), Some(40));
        assert_eq!(options.metadata.as_ref().map(Secret::text), Some("postgresql://druid@db.example:5432/druid"));
        assert_eq!(options.deep_storage.as_deref(), Some("/mnt/segments"));
        assert_eq!(options.segment_cache.as_deref(), Some("/a=10g,/b=20"));
        assert_eq!((options.tier.as_deref(), options.http_port), (Some("hot"), Some(8083)));
        assert_eq!(options.kill_unused_after.as_deref(), Some("P30D"));
        assert_eq!(
            options.notes,
            ["`druid.extensions.loadList` is not used: there are no extensions: everything is built in"]
        );
        let error = options.check().unwrap_err().to_string();
        assert!(error.contains("--cluster-secret"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words) in [
            ("druid.port=many", "`many` is no port"),
            ("just words", "line 1"),
            ("druid.storage.type=hdfs", "`hdfs`"),
            ("druid.db.connector.connectURI=mysql://db", "jdbc:"),
            ("druid.segmentCache.locations=/a", "list"),
            ("druid.segmentCache.virtualStorage=true", "druid.server.maxSize"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let derby = read("druid.metadata.storage.connector.connectURI=jdbc:derby://localhost/x").unwrap();
        assert_eq!(derby.notes.len(), 1);
    }
}
