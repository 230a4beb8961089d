//! Who is it, may they: users and their passwords, and encryption on the way.
//!
//! The rule, on every door: while there are no users, whoever reaches a door may enter, if the server was started so that
//! only this machine reaches it, or was told that the network is trusted; otherwise nobody may. As soon as there is a user,
//! everybody needs a password. Who may enter may read everything.
//!
//! Invariants: a password is never kept, only what proves it (`verifier`); it is the same work whether a user exists or
//! not. What is configured for encryption and cannot be used is an error at the start, never a door left open (`tls`).

pub mod peer;
pub(crate) mod tls;
mod token;
mod verifier;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use henge_catalog::store::UserRecord;
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};
use parking_lot::Mutex;
use pgwire::api::auth::sasl::scram::ScramSecret;
use tokio::time::{Instant, timeout};

pub(crate) use token::{LOCAL_USER, Token};
pub(crate) use verifier::{check_password, make as make_verifier, same};

/// Passwords that were found right and need not be computed again.
const REMEMBERED: usize = 1024;

/// Where users are recorded.
#[async_trait]
pub trait Users: fmt::Debug + Send + Sync {
    async fn all(&self) -> Result<Vec<UserRecord>>;
}

/// The door keeper: one for all doors.
#[derive(Debug)]
pub struct Auth {
    users: Arc<dyn Users>,
    /// Whether everybody may enter while there are no users.
    trusts: bool,
    token: Token,
    known: Mutex<HashSet<[u8; 32]>>,
    /// Held while they are read: of many who come at once, one reads.
    last: tokio::sync::Mutex<Option<Last>>,
}

/// The users as they were when last read.
#[derive(Debug)]
struct Last {
    /// When they were asked for last.
    asked: Instant,
    users: Arc<[UserRecord]>,
    /// The question was not answered.
    is_away: bool,
}

/// How long users are as they were last read: many connections at once are one question for the metadata database.
const FRESH: Duration = Duration::from_secs(1);

/// How long whoever enters waits for a metadata database that does not answer, where the users are known from before.
const PATIENCE: Duration = Duration::from_millis(500);

/// SQLSTATE of [`no_users`].
pub(crate) const NO_USERS: &str = "28000";

/// What somebody who says a name must do.
#[derive(Debug)]
pub(crate) enum Entry {
    Free,
    Password(ScramSecret),
}

impl Auth {
    /// `trusts` says whether everybody may enter while there are no users.
    pub fn new(users: Arc<dyn Users>, trusts: bool) -> Result<Self> {
        Ok(Self { users, trusts, token: Token::new()?, known: Mutex::default(), last: tokio::sync::Mutex::default() })
    }

    /// Lets commands of whoever may read the data directory enter.
    pub(crate) fn leave_token(&self, data_dir: &Path) -> Result<()> {
        self.token.leave(data_dir)
    }

    /// All users, as they were a second ago at most or, while they cannot be read, as they were: a metadata database
    /// that is away closes no door. That there are none is asked again every time, since it lets everybody in.
    async fn all(&self) -> Result<Arc<[UserRecord]>> {
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref()
            && last.asked.elapsed() < FRESH
            && (last.is_away || !last.users.is_empty())
        {
            return Ok(Arc::clone(&last.users));
        }
        let Some(known) = last.as_mut() else {
            let users: Arc<[UserRecord]> = self.users.all().await?.into();
            *last = Some(Last { asked: Instant::now(), users: Arc::clone(&users), is_away: false });
            return Ok(users);
        };
        match timeout(PATIENCE, self.users.all()).await {
            Ok(Ok(users)) => *known = Last { asked: Instant::now(), users: users.into(), is_away: false },
            Ok(Err(error)) if !error.is_retryable() => return Err(error),
            // Nor does everybody wait for it in turn.
            Ok(Err(_)) | Err(_) => {
                known.asked = Instant::now();
                known.is_away = true;
            }
        }
        Ok(Arc::clone(&known.users))
    }

    /// The names of all users.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        Ok(self.all().await?.iter().map(|user| user.name.clone()).collect())
    }

    /// What `name` must do to enter. Fails if nobody may.
    pub(crate) async fn entry(&self, name: &str) -> Result<Entry> {
        let users = self.all().await?;
        if users.is_empty() {
            return if self.trusts { Ok(Entry::Free) } else { Err(no_users()) };
        }
        Ok(Entry::Password(match users.iter().find(|user| user.name == name) {
            Some(user) => verifier::secret(&user.verifier)?,
            None if name == LOCAL_USER => verifier::secret(&verifier::make(self.token.text())?)?,
            None => self.token.decoy(name),
        }))
    }

    /// Whether somebody without a name may enter.
    pub(crate) async fn is_open(&self) -> Result<bool> {
        let users = self.all().await?;
        if users.is_empty() && !self.trusts {
            return Err(no_users());
        }
        Ok(users.is_empty())
    }

    /// Lets in who says this name and this password in plain words. For doors that know no better way.
    pub(crate) async fn check(&self, name: &str, password: &str) -> Result<()> {
        let users = self.all().await?;
        if users.is_empty() {
            return if self.trusts { Ok(()) } else { Err(no_users()) };
        }
        if name == LOCAL_USER && self.token.is(password) {
            return Ok(());
        }
        let found = users.iter().find(|user| user.name == name).map(|user| user.verifier.clone());
        let key = self.token.fingerprint(&[name, found.as_deref().unwrap_or_default(), password]);
        if self.known.lock().contains(&key) {
            return Ok(());
        }
        let decoy = verifier::make(self.token.text())?;
        let (verifier, password) = (found.unwrap_or(decoy), password.to_string());
        // Milliseconds of hashing.
        let checked = tokio::task::spawn_blocking(move || check_password(&verifier, &password)).await;
        let right =
            checked.map_err(|error| Error::runtime_failure("a password was not checked").with_source(error))??;
        if !right {
            return Err(wrong_password(name));
        }
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key);
        Ok(())
    }
}

fn no_users() -> Error {
    Error::new(
        Category::Unauthorized,
        Persona::User,
        "nobody may enter: this server is open to other machines and has no users; add one with `henge user add`",
    )
    .with_sqlstate(NO_USERS)
}

pub(crate) fn wrong_password(name: &str) -> Error {
    Error::new(Category::Unauthorized, Persona::User, format!("password authentication failed for user \"{name}\""))
        .with_sqlstate("28P01")
}

#[cfg(test)]
mod tests {
    use henge_engine::model::Timestamp;

    use super::*;

    #[derive(Debug)]
    struct Known(Vec<UserRecord>);

    #[async_trait]
    impl Users for Known {
        async fn all(&self) -> Result<Vec<UserRecord>> {
            Ok(self.0.clone())
        }
    }

    fn user(name: &str, password: &str) -> UserRecord {
        UserRecord {
            name: name.to_string(),
            verifier: make_verifier(password).unwrap(),
            created: Timestamp::from_millis(0),
        }
    }

    fn auth(users: &[(&str, &str)], trusts: bool) -> Auth {
        let users = users.iter().map(|(name, password)| user(name, password)).collect();
        Auth::new(Arc::new(Known(users)), trusts).unwrap()
    }

    #[tokio::test]
    async fn without_users_everybody_enters_where_the_server_trusts_and_nobody_elsewhere() {
        assert!(matches!(auth(&[], true).entry("x").await, Ok(Entry::Free)));
        assert!(auth(&[], true).check("x", "").await.is_ok());
        for error in [auth(&[], false).entry("x").await.unwrap_err(), auth(&[], false).is_open().await.unwrap_err()] {
            assert_eq!(error.sqlstate(), Some("28000"));
        }
    }

    #[tokio::test]
    async fn with_a_user_everybody_needs_a_password() {
        let auth = auth(&[("amy", "sesame")], true);
        assert!(!auth.is_open().await.unwrap());
        for name in ["amy", "bob"] {
            assert!(matches!(auth.entry(name).await, Ok(Entry::Password(_))), "{name}");
        }
        for _ in 0..2 {
            assert!(auth.check("amy", "sesame").await.is_ok());
            for (name, password) in [("amy", "sesam"), ("bob", "sesame"), ("amy", ""), (LOCAL_USER, "sesame")] {
                assert_eq!(auth.check(name, password).await.unwrap_err().sqlstate(), Some("28P01"), "{name}");
            }
        }
    }

    /// Counts how often it is asked; away from the second time on.
    #[derive(Debug, Default)]
    struct Away(std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl Users for Away {
        async fn all(&self) -> Result<Vec<UserRecord>> {
            match self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Known(vec![user("amy", "sesame")]).all().await,
                _ => Err(Error::new(Category::ServiceUnavailable, Persona::Operator, "away").retryable(true)),
            }
        }
    }

    #[tokio::test]
    async fn many_at_once_are_one_question_and_a_database_that_is_away_closes_no_door() {
        let users = Arc::new(Away::default());
        let auth = Auth::new(Arc::clone(&users) as _, true).unwrap();
        for _ in 0..100 {
            assert!(matches!(auth.entry("amy").await, Ok(Entry::Password(_))));
        }
        assert_eq!(users.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        if let Some(last) = auth.last.lock().await.as_mut() {
            last.asked -= FRESH;
        }
        assert!(!auth.is_open().await.unwrap());
        assert_eq!(users.0.load(std::sync::atomic::Ordering::SeqCst), 2);
    }

    /// Answers once, that there are none, and never again.
    #[derive(Debug, Default)]
    struct Silent(std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl Users for Silent {
        async fn all(&self) -> Result<Vec<UserRecord>> {
            match self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Ok(Vec::new()),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_delays_who_enters_once_a_second_and_shortly() {
        let users = Arc::new(Silent::default());
        let auth = Auth::new(Arc::clone(&users) as _, true).unwrap();
        assert!(auth.is_open().await.unwrap());
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(auth.is_open().await.unwrap());
        }
        assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < FRESH);
        assert_eq!(users.0.load(std::sync::atomic::Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_may_read_the_data_directory_may_enter() {
        let auth = auth(&[("amy", "sesame")], true);
        let dir = tempfile::tempdir().unwrap();
        auth.leave_token(dir.path()).unwrap();
        let token = Token::find(dir.path()).unwrap();
        assert!(auth.check(LOCAL_USER, &token).await.is_ok());
    }
}
