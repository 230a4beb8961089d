//! A secret of the running server, by which commands on the same data directory enter its doors.

use std::io::Write;
use std::path::Path;

use henge_engine::{Error, Result};
use pgwire::api::auth::sasl::scram::ScramSecret;
use ring::hmac;

use super::verifier;

/// The name under which such commands enter.
pub(crate) const LOCAL_USER: &str = "henge_local";

const FILE: &str = "henge.token";

/// Drawn at every start.
pub(crate) struct Token {
    text: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Token {
    pub(super) fn new() -> Result<Self> {
        let secret: [u8; 32] = rand::random();
        let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), text })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is(&self, password: &str) -> bool {
        verifier::same(self.text.as_bytes(), password.as_bytes())
    }

    /// Something only this process can compute, of words that may be secret.
    pub(super) fn fingerprint(&self, words: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for word in words {
            context.update(&(word.len() as u64).to_be_bytes());
            context.update(word.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    /// What is asked of a name that nobody has: no password fits, and the salt is the same whenever it is asked.
    pub(super) fn decoy(&self, name: &str) -> ScramSecret {
        let salt = self.fingerprint(&["salt", name])[..16].to_vec();
        let stored_key = self.fingerprint(&["stored key", name]).to_vec();
        let server_key = self.fingerprint(&["server key", name]).to_vec();
        ScramSecret::Verifier {
            salt,
            iterations: pgwire::api::auth::sasl::scram::SCRAM_ITERATIONS,
            stored_key,
            server_key,
        }
    }

    /// Writes it where only the owner of the data directory can read it.
    pub(super) fn leave(&self, data_dir: &Path) -> Result<()> {
        let path = data_dir.join(FILE);
        let write = || {
            // A file from before may be open to others.
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path)?.write_all(self.text.as_bytes())
        };
        write().map_err(|error| {
            Error::runtime_failure(format!("`{}` cannot be written", path.display())).with_source(error)
        })
    }

    /// The token of the server on a data directory, if it may be read.
    pub(crate) fn find(data_dir: &Path) -> Option<String> {
        std::fs::read_to_string(data_dir.join(FILE)).ok()
    }
}
