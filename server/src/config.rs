//! Every option of the server, once: a flag, an environment variable and a key of the configuration file.
//!
//! A flag wins over the environment, the environment over the file, the file over the default.

mod cluster;
mod properties;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use henge_catalog::database::AutoCompaction;
use henge_catalog::store::MetadataUrl;
use henge_engine::ingest::StoreOptions;
use henge_engine::storage::DeepStorageUrl;
use henge_engine::{Error, Result};
use serde::Deserialize;

pub use cluster::{ClusterConfig, PeerTlsFiles, Role};

pub const DEFAULT_PG_PORT: u16 = 5433;
pub const DEFAULT_HTTP_PORT: u16 = 8888;
pub const DEFAULT_GRPC_PORT: u16 = 8889;
/// Of the machine's memory, unless said otherwise.
const DEFAULT_MEMORY_SHARE_PERCENT: u64 = 60;

/// The options as they are written; what is not written is `None`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// Directory that holds everything: segments, metadata, work in progress [default: ./henge-data]
    #[arg(long, env = "HENGE_DATA_DIR", value_name = "DIR", help_heading = "Server")]
    pub data_dir: Option<PathBuf>,
    /// Database that holds what is published: postgres://USER:PASSWORD@HOST/DATABASE, mysql://… or sqlite://FILE [default: a SQLite file in the data directory]
    #[arg(long, env = "HENGE_METADATA", value_name = "URL", hide_env_values = true, help_heading = "Server")]
    pub metadata: Option<Secret>,
    /// Where segments stay for ever: s3://BUCKET/PREFIX, gs://…, az://… or a directory; credentials as their own tools read them from the environment [default: segments in the data directory]
    #[arg(long, env = "HENGE_DEEP_STORAGE", value_name = "URL", help_heading = "Server")]
    pub deep_storage: Option<String>,
    /// Data sources whose segments of Druid's, before its version 28, have an empty text where they mean null, with
    /// commas between them; `*` is all [default: none]
    #[arg(long, env = "HENGE_DRUID_EMPTY_IS_NULL", value_name = "NAMES", help_heading = "Server")]
    pub druid_empty_is_null: Option<String>,
    /// Data sources whose segments of Druid's are written in Henge's format once they are here, all rows compared, and
    /// served from that; deep storage is left as it is; `*` is all [default: none]
    #[arg(long, env = "HENGE_DRUID_CONVERT", value_name = "NAMES", help_heading = "Server")]
    pub druid_convert: Option<String>,
    /// Disk that segments may take which are kept here and stay elsewhere, such as 200GB; what was read longest ago goes
    /// first [default: no limit]
    #[arg(long, env = "HENGE_SEGMENT_CACHE_LIMIT", value_name = "SIZE", help_heading = "Server")]
    pub segment_cache_limit: Option<String>,
    /// Data sources whose small segments are merged by themselves, with commas between them; `*` is all. Granules that reach
    /// into the day before the latest row are left alone, or into what `wikipedia=PT1H` says [default: none]
    #[arg(long, env = "HENGE_COMPACT", value_name = "NAMES", help_heading = "Server")]
    pub compact: Option<String>,
    /// Address to listen on. Another one than this machine's own needs users: see `henge user add` [default: 127.0.0.1]
    #[arg(long, env = "HENGE_HOST", value_name = "ADDRESS", help_heading = "Server")]
    pub host: Option<IpAddr>,
    /// Port for PostgreSQL clients; 0 takes a free one and prints it [default: 5433]
    #[arg(long, env = "HENGE_PG_PORT", value_name = "PORT", help_heading = "Server")]
    pub pg_port: Option<u16>,
    /// Port for HTTP; 0 takes a free one and prints it [default: 8888]
    #[arg(long, env = "HENGE_HTTP_PORT", value_name = "PORT", help_heading = "Server")]
    pub http_port: Option<u16>,
    /// Port for parts of queries from brokers, of a historical [default: 8889]
    #[arg(long, env = "HENGE_GRPC_PORT", value_name = "PORT", help_heading = "Server")]
    pub grpc_port: Option<u16>,
    /// Memory that queries and ingestion may use together, such as 4GB or 512MB [default: 60 % of the machine's]
    #[arg(long, env = "HENGE_MEMORY_LIMIT", value_name = "SIZE", help_heading = "Server")]
    pub memory_limit: Option<String>,
    /// Threads for queries and ingestion [default: one for each core]
    #[arg(long, env = "HENGE_THREADS", value_name = "N", help_heading = "Server")]
    pub threads: Option<NonZeroUsize>,
    /// PostgreSQL connections at one time [default: 500]
    #[arg(long, env = "HENGE_MAX_CONNECTIONS", value_name = "N", help_heading = "Server")]
    pub max_connections: Option<NonZeroUsize>,
    /// What this process does: all, or, in a cluster, coordinator, historical, broker or indexer, or several of these with commas between them [default: all]
    #[arg(long, env = "HENGE_ROLE", value_name = "ROLE", help_heading = "Server")]
    pub role: Option<String>,
    /// Certificate (PEM, with those that vouch for it) by which connections are encrypted; needs `--tls-key`
    #[arg(long, env = "HENGE_TLS_CERT", value_name = "FILE", help_heading = "Server")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "HENGE_TLS_KEY", value_name = "FILE", help_heading = "Server")]
    pub tls_key: Option<PathBuf>,
    /// Let everybody in from other machines as long as there are no users
    #[arg(long, env = "HENGE_ALLOW_REMOTE_WITHOUT_PASSWORD", num_args = 0..=1, default_missing_value = "true", help_heading = "Server")]
    pub allow_remote_without_password: Option<bool>,
    /// Word that all servers of a cluster know, and nobody else [default: none, and then only on this machine]
    #[arg(long, env = "HENGE_CLUSTER_SECRET", value_name = "SECRET", hide_env_values = true, help_heading = "Cluster")]
    pub cluster_secret: Option<Secret>,
    /// Certificate (PEM) of the authority that signs those of all servers of a cluster: what passes between them is
    /// encrypted, and each proves that it is one of them; needs `--cluster-tls-cert` and `--cluster-tls-key`
    #[arg(long, env = "HENGE_CLUSTER_TLS_CA", value_name = "FILE", help_heading = "Cluster")]
    pub cluster_tls_ca: Option<PathBuf>,
    /// Certificate (PEM) of this server, with the name or address by which the others reach it
    #[arg(long, env = "HENGE_CLUSTER_TLS_CERT", value_name = "FILE", help_heading = "Cluster")]
    pub cluster_tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "HENGE_CLUSTER_TLS_KEY", value_name = "FILE", help_heading = "Cluster")]
    pub cluster_tls_key: Option<PathBuf>,
    /// Name or address by which the other servers reach this one [default: `--host`]
    #[arg(long, env = "HENGE_ADVERTISE_HOST", value_name = "HOST", help_heading = "Cluster")]
    pub advertise_host: Option<String>,
    /// Tier of a historical [default: _default_tier]
    #[arg(long, env = "HENGE_TIER", value_name = "NAME", help_heading = "Cluster")]
    pub tier: Option<String>,
    /// Where a historical stands; replicas go to different zones where they can [default: each its own]
    #[arg(long, env = "HENGE_ZONE", value_name = "NAME", help_heading = "Cluster")]
    pub zone: Option<String>,
    /// Directories in which a historical keeps segments, each with how much it may hold: /ssd=100GB,/ssd2=200GB [default: historical/segment-cache in the data directory]
    #[arg(long, env = "HENGE_SEGMENT_CACHE", value_name = "DIR[=SIZE],…", help_heading = "Cluster")]
    pub segment_cache: Option<String>,
    /// How much a historical may hold in all [default: 10GB, or what its directories say]
    #[arg(long, env = "HENGE_SEGMENT_CACHE_SIZE", value_name = "SIZE", help_heading = "Cluster")]
    pub segment_cache_size: Option<String>,
    /// How long a historical keeps what it was told to drop, for queries planned before [default: PT30S]
    #[arg(long, env = "HENGE_DROP_DELAY", value_name = "PERIOD", help_heading = "Cluster")]
    pub drop_delay: Option<String>,
    /// A historical that does not answer for so long is replaced by others [default: PT60S]
    #[arg(long, env = "HENGE_REPLACE_AFTER", value_name = "PERIOD", help_heading = "Cluster")]
    pub replace_after: Option<String>,
    /// Remove the files of segments that have been unused for so long, from deep storage too [default: never]
    #[arg(long, env = "HENGE_KILL_UNUSED_AFTER", value_name = "PERIOD", help_heading = "Cluster")]
    pub kill_unused_after: Option<String>,
    /// How long a server that is asked to end waits for queries that run [default: PT30S]
    #[arg(long, env = "HENGE_DRAIN_TIMEOUT", value_name = "PERIOD", help_heading = "Cluster")]
    pub drain_timeout: Option<String>,
    /// File with these options in TOML, named as the flags are (pg-port = 5433), or a Druid's runtime.properties
    #[arg(long, env = "HENGE_CONFIG", value_name = "FILE", help_heading = "Server")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// What a file of Druid's says of object stores, in the names of their own tools.
    #[arg(skip)]
    #[serde(skip)]
    pub stores: Vec<(String, Secret)>,
    /// What a file of Druid's says that has no effect here, a line each.
    #[arg(skip)]
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A text that is not shown, since it may hold a password.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl Secret {
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The options with their defaults, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// `None` for the one in the data directory.
    pub metadata: Option<MetadataUrl>,
    /// `None` for the one in the data directory.
    pub deep_storage: Option<DeepStorageUrl>,
    /// Data sources of Druid's whose empty texts are nulls.
    pub empty_is_null: Vec<String>,
    /// Data sources of Druid's that are served from converted segments.
    pub convert_druids: Vec<String>,
    pub cache_limit_bytes: Option<u64>,
    pub auto_compaction: Vec<AutoCompaction>,
    pub host: IpAddr,
    pub pg_port: u16,
    pub http_port: u16,
    pub grpc_port: u16,
    /// Whether the ports were chosen by a person; others may be exchanged for free ones by `henge demo`.
    pub pg_port_chosen: bool,
    pub http_port_chosen: bool,
    pub memory_limit_bytes: Option<usize>,
    pub threads: NonZeroUsize,
    pub max_connections: usize,
    /// Whether everybody may enter while there are no users.
    pub trusts: bool,
    pub tls: Option<TlsFiles>,
    /// How object stores are reached, from the environment variables that their own tools use.
    pub store_options: StoreOptions,
    pub cluster: ClusterConfig,
    /// What was written and has no effect, a line each.
    pub notes: Vec<String>,
}

impl Options {
    /// Reads the configuration file, if one is named, and checks everything.
    pub fn resolve(self) -> Result<Config> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => Options::default(),
        };
        self.over(file).check()
    }

    /// What is written here, and where nothing is, what is written in `file`.
    fn over(self, file: Options) -> Options {
        Options {
            data_dir: self.data_dir.or(file.data_dir),
            metadata: self.metadata.or(file.metadata),
            deep_storage: self.deep_storage.or(file.deep_storage),
            druid_empty_is_null: self.druid_empty_is_null.or(file.druid_empty_is_null),
            compact: self.compact.or(file.compact),
            druid_convert: self.druid_convert.or(file.druid_convert),
            segment_cache_limit: self.segment_cache_limit.or(file.segment_cache_limit),
            host: self.host.or(file.host),
            pg_port: self.pg_port.or(file.pg_port),
            http_port: self.http_port.or(file.http_port),
            grpc_port: self.grpc_port.or(file.grpc_port),
            memory_limit: self.memory_limit.or(file.memory_limit),
            threads: self.threads.or(file.threads),
            max_connections: self.max_connections.or(file.max_connections),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            role: self.role.or(file.role),
            allow_remote_without_password: self.allow_remote_without_password.or(file.allow_remote_without_password),
            cluster_secret: self.cluster_secret.or(file.cluster_secret),
            cluster_tls_ca: self.cluster_tls_ca.or(file.cluster_tls_ca),
            cluster_tls_cert: self.cluster_tls_cert.or(file.cluster_tls_cert),
            cluster_tls_key: self.cluster_tls_key.or(file.cluster_tls_key),
            advertise_host: self.advertise_host.or(file.advertise_host),
            tier: self.tier.or(file.tier),
            zone: self.zone.or(file.zone),
            segment_cache: self.segment_cache.or(file.segment_cache),
            segment_cache_size: self.segment_cache_size.or(file.segment_cache_size),
            drop_delay: self.drop_delay.or(file.drop_delay),
            replace_after: self.replace_after.or(file.replace_after),
            kill_unused_after: self.kill_unused_after.or(file.kill_unused_after),
            drain_timeout: self.drain_timeout.or(file.drain_timeout),
            config: self.config,
            stores: file.stores,
            notes: file.notes,
        }
    }

    fn check(self) -> Result<Config> {
        let host = self.host.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let cluster = ClusterConfig::of(&self, host)?;
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => return Err(Error::invalid_input("`--tls-cert` and `--tls-key` are given together or not at all")),
        };
        // Nowhere else is the environment read.
        #[allow(clippy::disallowed_methods)]
        let environment = std::env::vars_os();
        // What the environment says stands after what a file says, and counts.
        let stores = self.stores.into_iter().map(|(name, Secret(value))| (name.into(), value.into()));
        let environment = stores.chain(environment);
        let memory_limit_bytes = match &self.memory_limit {
            Some(text) => Some(parse_size(text)?),
            None => machine_memory_bytes().map(|bytes| (bytes * DEFAULT_MEMORY_SHARE_PERCENT / 100) as usize),
        };
        Ok(Config {
            data_dir: self.data_dir.unwrap_or_else(default_data_dir),
            metadata: self.metadata.map(|Secret(url)| url.parse()).transpose()?,
            deep_storage: self.deep_storage.map(|url| url.parse()).transpose()?,
            empty_is_null: names(self.druid_empty_is_null.as_deref().unwrap_or_default()),
            convert_druids: names(self.druid_convert.as_deref().unwrap_or_default()),
            auto_compaction: names(self.compact.as_deref().unwrap_or_default())
                .iter()
                .map(|name| name.parse())
                .collect::<Result<_>>()?,
            cache_limit_bytes: self.segment_cache_limit.as_deref().map(parse_bytes).transpose()?,
            host,
            pg_port: self.pg_port.unwrap_or(DEFAULT_PG_PORT),
            http_port: self.http_port.unwrap_or(DEFAULT_HTTP_PORT),
            grpc_port: self.grpc_port.unwrap_or(DEFAULT_GRPC_PORT),
            pg_port_chosen: self.pg_port.is_some(),
            http_port_chosen: self.http_port.is_some(),
            memory_limit_bytes,
            threads: self.threads.unwrap_or_else(cores),
            max_connections: self.max_connections.map_or(500, NonZeroUsize::get),
            trusts: host.is_loopback() || self.allow_remote_without_password == Some(true),
            tls,
            store_options: store_options(environment),
            cluster,
            notes: self.notes,
        })
    }
}

/// What stands between commas.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

pub fn default_data_dir() -> PathBuf {
    PathBuf::from("henge-data")
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn read(path: &PathBuf) -> Result<Options> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::invalid_input(format!("configuration file `{}` cannot be read", path.display())).with_source(error)
    })?;
    if path.extension().is_some_and(|extension| extension == "properties") {
        return properties::read(&text).map_err(|error| error.context("file", path.display()));
    }
    toml::from_str(&text)
        .map_err(|error| Error::invalid_input(format!("configuration file `{}` is wrong: {error}", path.display())))
}

/// Those of S3, Google Cloud Storage and Azure.
fn store_options(environment: impl Iterator<Item = (OsString, OsString)>) -> StoreOptions {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let is_stores = |(name, _): &(String, String)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| name.starts_with(p));
    environment.filter_map(text).filter(is_stores).collect()
}

/// `512MB`, `4GB`, `4 GiB`, `1000000`; units are powers of 1024.
fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || Error::invalid_input(format!("`{text}` is no size; write it as 512MB or 4GB"));
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let number: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let shift = match trimmed[digits..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// The memory that a process may have.
fn parse_size(text: &str) -> Result<usize> {
    let bytes = usize::try_from(parse_bytes(text)?).ok();
    bytes.filter(|bytes| *bytes >= 64 << 20).ok_or_else(|| {
        Error::invalid_input(format!("a memory limit of `{text}` is not between 64MB and what this machine can count"))
    })
}

/// What the machine has, where it says so.
fn machine_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use henge_engine::storage::CacheLocation;

    use super::*;

    #[test]
    fn roles_are_a_list_and_a_cluster_needs_places_that_all_reach() {
        let of = |role: &str| Options { role: Some(role.to_owned()), ..Options::default() };
        let shared = |role: &str| Options {
            metadata: Some("postgres://db/henge".to_owned().into()),
            deep_storage: Some("s3://b/p".to_owned()),
            ..of(role)
        };
        let roles = |options: Options| options.check().map(|config| config.cluster.roles);
        assert_eq!(roles(Options::default()).unwrap(), [Role::All]);
        assert_eq!(roles(shared("coordinator, broker")).unwrap(), [Role::Coordinator, Role::Broker]);
        for (wrong, words) in [
            (of("overload"), "is no role"),
            (of("historical"), "--metadata"),
            (Options { deep_storage: None, ..shared("historical") }, "--deep-storage"),
            (shared("all,broker"), "alone"),
            (shared("realtime,historical"), "each role a process"),
            (Options { host: Some(IpAddr::from([10, 0, 0, 1])), ..shared("broker") }, "--cluster-secret"),
            (
                Options {
                    host: Some(IpAddr::from([0, 0, 0, 0])),
                    cluster_secret: Some("a word that is long".to_owned().into()),
                    ..shared("broker")
                },
                "--advertise-host",
            ),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn places_of_segments_have_their_sizes_or_share_one() {
        let shared = Options {
            metadata: Some("postgres://db/henge".to_owned().into()),
            deep_storage: Some("s3://b/p".to_owned()),
            role: Some("historical".to_owned()),
            ..Options::default()
        };
        let cache = |text: Option<&str>, size: Option<&str>| {
            let [segment_cache, segment_cache_size] = [text, size].map(|text| text.map(str::to_owned));
            Options { segment_cache, segment_cache_size, ..shared.clone() }.check().map(|config| config.cluster.cache)
        };
        let location = |dir: &str, max_bytes| CacheLocation { dir: dir.into(), max_bytes };
        assert_eq!(cache(Some("/a=1GB,/b=2GB"), None).unwrap(), [location("/a", 1 << 30), location("/b", 2 << 30)]);
        assert_eq!(cache(Some("/a"), Some("3MB")).unwrap(), [location("/a", 3 << 20)]);
        assert_eq!(cache(None, None).unwrap(), [location("henge-data/historical/segment-cache", 10 << 30)]);
        assert!(cache(Some("/a=many"), None).is_err());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file: Options = toml::from_str("pg-port = 6000\nhttp-port = 6001\nthreads = 3").unwrap();
        let config = Options { pg_port: Some(7000), ..Options::default() }.over(file).check().unwrap();
        assert_eq!((config.pg_port, config.http_port, config.threads.get()), (7000, 6001, 3));
        assert_eq!(config.data_dir, default_data_dir());
        assert!(toml::from_str::<Options>("pgport = 1").is_err());
    }

    #[test]
    fn other_machines_are_trusted_only_by_an_explicit_word() {
        let open = Options { host: Some(IpAddr::from([0, 0, 0, 0])), ..Options::default() };
        assert!(!open.clone().check().unwrap().trusts);
        let allowed = Options { allow_remote_without_password: Some(true), ..open };
        assert!(allowed.check().unwrap().trusts);
        assert!(Options::default().check().unwrap().trusts);
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let half = Options { tls_cert: Some("cert.pem".into()), ..Options::default() };
        assert!(half.check().unwrap_err().to_string().contains("--tls-key"));
    }

    #[test]
    fn credentials_of_object_stores_are_taken_and_never_shown() {
        let environment = [("AWS_SECRET_ACCESS_KEY", "hush"), ("HOME", "/root")];
        let options = store_options(environment.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(format!("{options:?}"), r#"["AWS_SECRET_ACCESS_KEY"]"#);
    }

    #[test]
    fn the_metadata_database_is_named_by_a_url_that_is_never_shown() {
        let options: Options = toml::from_str("metadata = 'mysql://henge:hush@db/henge'").unwrap();
        assert!(!format!("{options:?}").contains("hush"));
        let config = options.check().unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        let wrong = Options { metadata: Some("oracle:hush".to_owned().into()), ..Options::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("postgres://"));
        let wrong = Options { deep_storage: Some("ftp://b".to_owned()), ..Options::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("s3://"));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("4GB").unwrap(), 4 << 30);
        assert_eq!(parse_size("512 MiB").unwrap(), 512 << 20);
        assert!(parse_size("many").is_err());
        assert!(parse_size("1MB").is_err());
    }
}
