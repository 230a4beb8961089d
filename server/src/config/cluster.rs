use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use henge_catalog::rule::DEFAULT_TIER;
use henge_engine::model::{Period, TimeZone, Timestamp};
use henge_engine::storage::CacheLocation;
use henge_engine::{Error, Result};

use super::{Options, Secret, default_data_dir, parse_bytes};

const DEFAULT_CACHE_BYTES: u64 = 10 << 30;
/// A secret that can be guessed is none.
const MIN_SECRET_LEN: usize = 8;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything, in one process and one data directory.
    All,
    Coordinator,
    Historical,
    Realtime,
    Broker,
    /// Runs ingestion tasks.
    Indexer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Coordinator => "coordinator",
            Self::Historical => "historical",
            Self::Realtime => "realtime",
            Self::Broker => "broker",
            Self::Indexer => "indexer",
        })
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            // Druid's overlord is in the coordinator here, and its router in the broker.
            "coordinator" | "overlord" => Ok(Self::Coordinator),
            "historical" => Ok(Self::Historical),
            "broker" | "router" => Ok(Self::Broker),
            "realtime" => Ok(Self::Realtime),
            "indexer" | "peon" | "middlemanager" | "middleManager" => Ok(Self::Indexer),
            _ => Err(Error::invalid_input(format!(
                "`{text}` is no role; write `all`, or some of `coordinator`, `historical`, `realtime`, `broker`, `indexer`"
            ))),
        }
    }
}

/// The files by which the servers of a cluster encrypt what passes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsFiles {
    /// Who signs the certificates of all servers.
    pub authority: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a server of a cluster needs to know beyond all others.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub roles: Vec<Role>,
    pub secret: Option<Secret>,
    /// `None` where what passes between servers is not encrypted.
    pub tls: Option<PeerTlsFiles>,
    /// By which the others reach this server.
    pub advertise_host: String,
    pub tier: String,
    pub zone: String,
    /// Where a historical keeps segments.
    pub cache: Vec<CacheLocation>,
    pub drop_delay: Duration,
    pub replace_after: Duration,
    pub kill_unused_after: Option<Period>,
    pub drain_timeout: Duration,
}

impl ClusterConfig {
    pub(super) fn of(options: &Options, host: IpAddr) -> Result<Self> {
        let roles = roles(options.role.as_deref().unwrap_or("all"))?;
        if roles != [Role::All] {
            check(options, &roles, host)?;
        }
        let advertise_host = options.advertise_host.clone().unwrap_or_else(|| match host {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        Ok(Self {
            roles,
            secret: options.cluster_secret.clone(),
            tls: tls(options)?,
            advertise_host,
            tier: options.tier.clone().unwrap_or_else(|| DEFAULT_TIER.to_owned()),
            zone: options.zone.clone().unwrap_or_default(),
            cache: cache(options)?,
            drop_delay: duration(options.drop_delay.as_deref(), 30)?,
            replace_after: duration(options.replace_after.as_deref(), 60)?,
            kill_unused_after: options.kill_unused_after.as_deref().map(str::parse).transpose()?,
            drain_timeout: duration(options.drain_timeout.as_deref(), 30)?,
        })
    }

    /// Whether this process is a part of a cluster.
    pub fn is_cluster(&self) -> bool {
        self.roles != [Role::All]
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

fn roles(text: &str) -> Result<Vec<Role>> {
    let mut roles = text.split(',').map(|role| role.trim().parse()).collect::<Result<Vec<Role>>>()?;
    roles.sort_unstable();
    roles.dedup();
    if roles.len() > 1 && roles.contains(&Role::All) {
        return Err(Error::invalid_input("role `all` stands alone: it is all the others in one process"));
    }
    if roles.contains(&Role::Historical) && roles.contains(&Role::Realtime) {
        return Err(Error::invalid_input(
            "a historical and a realtime process tell brokers what they serve, each for itself: give each role a process",
        ));
    }
    Ok(roles)
}

/// What every server of a cluster must be told.
fn check(options: &Options, roles: &[Role], host: IpAddr) -> Result<()> {
    if options.metadata.is_none() {
        return Err(Error::invalid_input(
            "the servers of a cluster share a metadata database; name it with `--metadata`",
        ));
    }
    if options.deep_storage.is_none() && roles != [Role::Broker] {
        return Err(Error::invalid_input(
            "the servers of a cluster share a deep storage; name it with `--deep-storage`",
        ));
    }
    match &options.cluster_secret {
        None if !host.is_loopback() && options.cluster_tls_ca.is_none() => {
            return Err(Error::invalid_input(format!(
                "`--host {host}` lets other machines in: give all servers of the cluster one secret, with \
                 `--cluster-secret` or the environment variable `HENGE_CLUSTER_SECRET`, or certificates, with \
                 `--cluster-tls-ca`"
            )));
        }
        Some(secret) if secret.text().len() < MIN_SECRET_LEN => {
            return Err(Error::invalid_input(format!("`--cluster-secret` has less than {MIN_SECRET_LEN} bytes")));
        }
        _ => {}
    }
    if host.is_unspecified() && options.advertise_host.is_none() {
        return Err(Error::invalid_input(format!(
            "`--host {host}` is every address of this machine; say with `--advertise-host` by which the others reach it"
        )));
    }
    Ok(())
}

fn tls(options: &Options) -> Result<Option<PeerTlsFiles>> {
    match (&options.cluster_tls_ca, &options.cluster_tls_cert, &options.cluster_tls_key) {
        (Some(authority), Some(cert), Some(key)) => {
            Ok(Some(PeerTlsFiles { authority: authority.clone(), cert: cert.clone(), key: key.clone() }))
        }
        (None, None, None) => Ok(None),
        _ => Err(Error::invalid_input(
            "`--cluster-tls-ca`, `--cluster-tls-cert` and `--cluster-tls-key` are given together or not at all",
        )),
    }
}

/// `DIR=SIZE,DIR=SIZE`; a directory without a size has the size of all.
fn cache(options: &Options) -> Result<Vec<CacheLocation>> {
    let all_bytes = options.segment_cache_size.as_deref().map(parse_bytes).transpose()?;
    let Some(text) = &options.segment_cache else {
        let dir = options.data_dir.clone().unwrap_or_else(default_data_dir).join("historical/segment-cache");
        return Ok(vec![CacheLocation { dir, max_bytes: all_bytes.unwrap_or(DEFAULT_CACHE_BYTES) }]);
    };
    let mut locations = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (dir, size) = part.rsplit_once('=').unwrap_or((part, ""));
        let max_bytes = if size.is_empty() { all_bytes.unwrap_or(DEFAULT_CACHE_BYTES) } else { parse_bytes(size)? };
        locations.push(CacheLocation { dir: dir.into(), max_bytes });
    }
    if locations.is_empty() {
        return Err(Error::invalid_input("`--segment-cache` names no directory"));
    }
    Ok(locations)
}

/// A span of time in Druid's spelling: `PT30S`.
fn duration(text: Option<&str>, default_seconds: u64) -> Result<Duration> {
    let Some(text) = text else { return Ok(Duration::from_secs(default_seconds)) };
    let period: Period = text.parse()?;
    let start = Timestamp::from_millis(0);
    let end = period.add_to(start, 1, TimeZone::Utc).filter(|end| *end >= start);
    let millis = end.and_then(|end| u64::try_from(end.millis()).ok());
    millis.map(Duration::from_millis).ok_or_else(|| {
        Error::invalid_input(format!("`{text}` is no span of time that can be waited for; write it as `PT30S`"))
    })
}
