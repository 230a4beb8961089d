//! Real PostgreSQL and MariaDB servers, and their own clients.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libtest_mimic::Failed;

use super::process::run;
use super::root;

/// A database server with one database. It ends with the pipe to its standard input.
pub struct Database {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    pub url: String,
}

impl Database {
    /// `postgres` or `mariadb`; the name of a program that is not installed is an outcome.
    pub fn start(kind: &str) -> Result<Result<Self, String>, Failed> {
        let mut child = Command::new(python())
            .arg(root().join("tests/harness/database.py"))
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut database = Self { child, to: Some(to), from: BufReader::new(from), url: String::new() };
        let line = database.line()?;
        if let Some(program) = line.strip_prefix("missing ") {
            return Ok(Err(format!("{program}, of the Debian package of {kind}")));
        }
        let (server, _) = line.rsplit_once('/').ok_or("a URL without a database")?;
        database.url = line.clone();
        database.sql("CREATE DATABASE henge")?;
        database.url = format!("{server}/henge");
        Ok(Ok(database))
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        match line.trim() {
            "" => Err("the database server ended by itself".into()),
            line => Ok(line.to_owned()),
        }
    }

    /// `stop`, as a power switch would, or `start` again.
    pub fn order(&mut self, order: &str) -> Result<(), Failed> {
        writeln!(self.to.as_mut().ok_or("it was closed")?, "{order}")?;
        let answer = self.line()?;
        if answer == order { Ok(()) } else { Err(format!("{answer} instead of {order}").into()) }
    }

    /// Host, port and password, for clients that take them apart.
    pub fn place(&self) -> Result<(String, String, String), Failed> {
        let (_, rest) = self.url.split_once("://").ok_or("a URL without a scheme")?;
        let parts: Vec<&str> = rest.split([':', '@', '/']).collect();
        match parts.as_slice() {
            [_, password, host, port, ..] => Ok(((*host).to_owned(), (*port).to_owned(), (*password).to_owned())),
            _ => Err(format!("{} is not understood", self.url).into()),
        }
    }

    /// What the database's own client prints, fields with tabs between them.
    pub fn sql(&self, sql: &str) -> Result<String, Failed> {
        let mut command;
        match self.url.strip_prefix("mysql://") {
            None => {
                command = Command::new("psql");
                command.args([&self.url, "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
            }
            Some(rest) => {
                let parts: Vec<&str> = rest.split([':', '@', '/']).collect();
                let &[user, password, host, port, database] = parts.as_slice() else {
                    return Err(format!("{} is not understood", self.url).into());
                };
                command = Command::new("mariadb");
                command.args(["-h", host, "-P", port, "-u", user, &format!("-p{password}"), database, "-BNe", sql]);
            }
        }
        run(command)?.ok()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // It ends, and removes its directory, once nobody can order anything any more.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

/// With `HENGE_TEST_PYTHON` another one than the first in the path.
pub fn python() -> String {
    std::env::var("HENGE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}
