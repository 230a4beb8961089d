//! What proves a password without telling it: PostgreSQL's `SCRAM-SHA-256$iterations:salt$stored key:server key`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_engine::{Error, Result};
use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramSecret, gen_salted_password};

const SCHEME: &str = "SCRAM-SHA-256$";
const SALT_BYTES: usize = 16;

/// A verifier of `password`, with a salt of its own.
pub(crate) fn make(password: &str) -> Result<String> {
    let salt: [u8; SALT_BYTES] = rand::random();
    let secret = derive(password, &salt, SCRAM_ITERATIONS);
    let ScramSecret::Verifier { salt, iterations, stored_key, server_key } = secret else {
        return Err(Error::defensive("a verifier was asked for"));
    };
    let [salt, stored_key, server_key] = [salt, stored_key, server_key].map(|bytes| STANDARD.encode(bytes));
    Ok(format!("{SCHEME}{iterations}:{salt}${stored_key}:{server_key}"))
}

fn derive(password: &str, salt: &[u8], iterations: usize) -> ScramSecret {
    let salted = gen_salted_password(password, salt, iterations);
    ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, iterations)
}

/// Reads a verifier.
pub(crate) fn secret(verifier: &str) -> Result<ScramSecret> {
    parse(verifier).ok_or_else(|| Error::corrupt("the metadata store holds what is no verifier of a password"))
}

fn parse(verifier: &str) -> Option<ScramSecret> {
    let (public, keys) = verifier.strip_prefix(SCHEME)?.split_once('$')?;
    let (iterations, salt) = public.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let [salt, stored_key, server_key] = [salt, stored_key, server_key].map(|text| STANDARD.decode(text).ok());
    Some(ScramSecret::Verifier {
        salt: salt?,
        iterations: iterations.parse().ok()?,
        stored_key: stored_key?,
        server_key: server_key?,
    })
}

/// Whether `password` is the one that was made this verifier of.
pub(crate) fn check_password(verifier: &str, password: &str) -> Result<bool> {
    let ScramSecret::Verifier { salt, iterations, stored_key, .. } = secret(verifier)? else { return Ok(false) };
    let ScramSecret::Verifier { stored_key: derived, .. } = derive(password, &salt, iterations) else {
        return Ok(false);
    };
    Ok(same(&stored_key, &derived))
}

/// Compares in a time that does not tell where two differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_proves_its_password_only() {
        let verifier = make("pässwörd").unwrap();
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
        assert!(check_password(&verifier, "pässwörd").unwrap());
        assert!(!check_password(&verifier, "passwort").unwrap());
        assert_ne!(verifier, make("pässwörd").unwrap(), "a salt of its own");
        assert!(secret("md5abc").is_err());
    }

    #[test]
    fn verifiers_of_postgresql_are_understood() {
        // `CREATE ROLE r PASSWORD 'foo'` with the salt of the example in RFC 7677's form.
        let secret = derive("pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
        let ScramSecret::Verifier { stored_key, server_key, .. } = secret else { panic!("a verifier") };
        assert_eq!(STANDARD.encode(stored_key), "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
        assert_eq!(STANDARD.encode(server_key), "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
    }
}
