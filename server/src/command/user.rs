//! `henge user`: who may log in.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use henge_catalog::store::{MetadataStore, UserRecord};
use henge_catalog::{Clock, SystemClock};
use henge_engine::{Error, Result};

use super::{Runtimes, builder, existing_dir, say};
use crate::auth::{LOCAL_USER, make_verifier};
use crate::config::{Options, Secret};

/// Works beside a running server, which asks for passwords as soon as there is a user.
#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user, or give one another password. The password is read from the terminal or from standard input
    Add(Named),
    /// List users
    List(Place),
    /// Remove a user. Connections that are open stay open
    Remove(Named),
}

#[derive(Args, Debug)]
pub(super) struct Named {
    /// The user's name
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
pub(super) struct Place {
    /// Directory of the database [default: ./henge-data]
    #[arg(long, env = "HENGE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Database that holds users, if it is not in the directory: the server's `--metadata`
    #[arg(long, env = "HENGE_METADATA", value_name = "URL", hide_env_values = true)]
    metadata: Option<Secret>,
}

impl Place {
    async fn open(self) -> Result<Arc<dyn MetadataStore>> {
        let options = Options { data_dir: self.data_dir, metadata: self.metadata, ..Options::default() };
        builder(&options.resolve()?).open_metadata().await
    }

    /// The same, of a directory that must be there.
    async fn open_existing(self) -> Result<Arc<dyn MetadataStore>> {
        existing_dir(self.data_dir.clone())?;
        self.open().await
    }
}

impl User {
    pub(super) fn run(self) -> Result<()> {
        let runtimes = Runtimes::new(1)?;
        let result = runtimes.wire.block_on(async {
            match self {
                User::Add(named) => named.add().await,
                User::List(place) => list(place).await,
                User::Remove(named) => named.remove().await,
            }
        });
        runtimes.end();
        result
    }
}

impl Named {
    async fn add(self) -> Result<()> {
        check_name(&self.name)?;
        let password = read_password()?;
        let store = self.place.open().await?;
        let user =
            UserRecord { name: self.name.clone(), verifier: make_verifier(&password)?, created: SystemClock.now() };
        let is_new = store.users().await?.iter().all(|known| known.name != self.name);
        store.save_user(&user).await?;
        store.close().await;
        say(&format!("user `{}` {}", self.name, if is_new { "added" } else { "has a new password" }))
    }

    async fn remove(self) -> Result<()> {
        let store = self.place.open_existing().await?;
        let removed = store.remove_user(&self.name).await?;
        let left = store.users().await?.len();
        store.close().await;
        if !removed {
            return Err(Error::not_found(format!("there is no user `{}`; see `henge user list`", self.name)));
        }
        say(&format!("user `{}` removed", self.name))?;
        match left {
            0 => say("that was the last one: on this machine everybody may log in again, from others nobody may"),
            _ => Ok(()),
        }
    }
}

async fn list(place: Place) -> Result<()> {
    let store = place.open_existing().await?;
    let users = store.users().await?;
    store.close().await;
    for user in users {
        say(&format!("{}  since {}", user.name, user.created))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 63 || name.chars().any(|char| char.is_control() || char == ':') {
        return Err(Error::invalid_input(format!(
            "`{name}` cannot be a user's name; it has 1 to 63 bytes and no colon"
        )));
    }
    if name == LOCAL_USER {
        return Err(Error::invalid_input(format!("`{name}` is the name by which commands on this machine enter")));
    }
    Ok(())
}

/// One line of the terminal, not shown; or all of standard input without the end of its line.
fn read_password() -> Result<String> {
    let failed = |error: std::io::Error| Error::runtime_failure("the password could not be read").with_source(error);
    let mut password = String::new();
    if std::io::stdin().is_terminal() {
        say("Password:")?;
        let _hidden = Hidden::new();
        std::io::stdin().lock().read_line(&mut password).map_err(failed)?;
    } else {
        std::io::stdin().lock().read_to_string(&mut password).map_err(failed)?;
    }
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::invalid_input("the password is empty; give one on standard input"));
    }
    Ok(password.to_string())
}

/// The terminal does not show what is typed, until this is dropped.
struct Hidden;

impl Hidden {
    fn new() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Where there is no such program the password is shown.
fn stty(mode: &str) {
    let _ = std::process::Command::new("stty").arg(mode).stdin(std::process::Stdio::inherit()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_doors_could_not_say_are_refused() {
        assert!(check_name("amy").is_ok());
        for name in ["", "a:b", "a\0b", LOCAL_USER] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
