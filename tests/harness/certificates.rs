//! Certificates as an operator makes them, with the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

/// An authority, and a certificate and key that it signed for this machine.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

const EXTENSIONS: &str = "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n\
    extendedKeyUsage=serverAuth,clientAuth\n";

impl Certificates {
    /// Makes them in a directory; `None` where the program is missing.
    pub fn issue(dir: &Path, name: &str) -> Result<Option<Self>, Failed> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let path = |ending: &str| dir.join(format!("{name}-{ending}"));
        let (ca, ca_key, request, extensions) = (path("ca.pem"), path("ca.key"), path("csr"), path("ext"));
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let text = |path: &Path| path.display().to_string();
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(
            &[
                &[
                    "req",
                    "-x509",
                    "-days",
                    "2",
                    "-subj",
                    &format!("/CN={name}"),
                    "-keyout",
                    &text(&ca_key),
                    "-out",
                    &text(&ca),
                ][..],
                &curve,
            ]
            .concat(),
        )?;
        openssl(
            &[&["req", "-subj", "/CN=server", "-keyout", &text(&key), "-out", &text(&request)][..], &curve].concat(),
        )?;
        std::fs::write(&extensions, EXTENSIONS)?;
        let mut sign = vec!["x509", "-req", "-days", "2", "-CAcreateserial"];
        let (ca_text, ca_key, request, extensions, out) =
            (text(&ca), text(&ca_key), text(&request), text(&extensions), text(&cert));
        sign.extend(["-in", &request, "-CA", &ca_text, "-CAkey", &ca_key, "-extfile", &extensions, "-out", &out]);
        openssl(&sign)?;
        Ok(Some(Self { authority: ca, cert, key }))
    }

    /// The flags by which a server uses them.
    pub fn flags(&self) -> Vec<String> {
        let flags = [("ca", &self.authority), ("cert", &self.cert), ("key", &self.key)];
        flags.iter().flat_map(|(name, path)| [format!("--cluster-tls-{name}"), path.display().to_string()]).collect()
    }
}

fn openssl(arguments: &[&str]) -> Result<(), Failed> {
    let ended = Command::new("openssl").args(arguments).stdin(Stdio::null()).output()?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("openssl {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr)).into()),
    }
}
