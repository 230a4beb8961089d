use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use henge_engine::{Error, Result};

use super::{MetadataStore, mysql, postgres, sqlite};

/// Where a metadata store is.
#[derive(Clone, PartialEq, Eq)]
pub enum MetadataUrl {
    /// A file, which is created when missing.
    Sqlite(PathBuf),
    /// A database that is there, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    Postgres(String),
    /// One of MySQL or MariaDB.
    MySql(String),
}

impl MetadataUrl {
    /// Opens the store, and brings the database to the shape this program knows. Fails with `ServiceUnavailable` if it
    /// cannot be reached.
    pub async fn open(&self) -> Result<Arc<dyn MetadataStore>> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(sqlite::open(path).await?),
            Self::Postgres(url) => Arc::new(postgres::open(url).await.map_err(|e| e.context("database", self))?),
            Self::MySql(url) => Arc::new(mysql::open(url).await.map_err(|e| e.context("database", self))?),
        })
    }
}

impl FromStr for MetadataUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        match scheme {
            "sqlite" if !rest.is_empty() => Ok(Self::Sqlite(PathBuf::from(rest))),
            "postgres" | "postgresql" if !rest.is_empty() => Ok(Self::Postgres(text.to_owned())),
            "mysql" if !rest.is_empty() => Ok(Self::MySql(text.to_owned())),
            "mariadb" if !rest.is_empty() => Ok(Self::MySql(format!("mysql://{rest}"))),
            // What follows the scheme may hold a password.
            _ => Err(Error::invalid_input(format!(
                "`{scheme}://…` is not the URL of a metadata database; write it as `postgres://USER:PASSWORD@HOST/DATABASE`, \
                 `mysql://USER:PASSWORD@HOST/DATABASE` or `sqlite://FILE`"
            ))),
        }
    }
}

impl fmt::Display for MetadataUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self {
            Self::Sqlite(path) => return write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) | Self::MySql(url) => url,
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // What follows a question mark may hold a password too.
        let cut = |text: &str| text.split(['?', '#']).next().unwrap_or_default().to_owned();
        match host.contains(['?', '#']) {
            true => write!(f, "{scheme}://{}", cut(host)),
            false => write!(f, "{scheme}://{host}/{}", cut(path)),
        }
    }
}

impl fmt::Debug for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetadataUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_never_show_their_passwords() -> Result<()> {
        let url: MetadataUrl = "postgres://henge:hu@sh@db.example:5432/henge?password=hush".parse()?;
        assert_eq!(url.to_string(), "postgres://db.example:5432/henge");
        assert_eq!(format!("{url:?}"), "MetadataUrl(postgres://db.example:5432/henge)");
        let odd: MetadataUrl = "mysql://db/x?password=a/b@hush".parse()?;
        assert_eq!(odd.to_string(), "mysql://db/x");
        let error = "oracle://henge:hush@db".parse::<MetadataUrl>().err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| !error.contains("hush") && error.contains("postgres://")));
        assert_eq!("mariadb://db/henge".parse::<MetadataUrl>()?, MetadataUrl::MySql("mysql://db/henge".to_owned()));
        assert!("hush".parse::<MetadataUrl>().is_err_and(|error| !error.to_string().contains("hush")));
        assert!("postgres://".parse::<MetadataUrl>().is_err());
        Ok(())
    }
}
