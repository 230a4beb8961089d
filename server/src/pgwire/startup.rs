//! From an accepted socket to a connection that may ask: encryption, who and which database, settings.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use henge_engine::session::{SessionOptions, SqlDialect};
use henge_engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Stream, Wire};
use super::encode::{begin_message, end_message, put_cstring};
use super::error::{Severity, protocol_violation, put_error};
use super::frontend::{Hello, decode_hello};
use super::listener::Front;
use super::registry::Ticket;
use super::setting::{Settings, startup_options};
use crate::pg_catalog::{self, DATABASE};

/// How long a client may take to say who it is.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a client may ask for encryption before it says who it is.
const MAX_HELLOS: usize = 4;

/// What a client says about itself.
struct Introduction {
    minor: u16,
    parameters: Vec<(String, String)>,
}

/// Leads a client in. `None` if it left, only sent a cancel request, or was refused (and told why).
pub(super) async fn start<S: Stream>(
    stream: S,
    front: Arc<Front>,
    shutdown: CancellationToken,
) -> Option<Connection<S>> {
    let mut wire = Wire::new(stream);
    let hello = tokio::select! {
        () = shutdown.cancelled() => return None,
        hello = tokio::time::timeout(TIMEOUT, introduction(&mut wire, &front)) => hello.ok()?,
    };
    let introduction = match hello {
        Ok(Some(introduction)) => introduction,
        Ok(None) => return None,
        Err(error) => return refuse(wire, &error).await,
    };
    match admit(&introduction, &front) {
        Ok((ticket, settings, session)) => {
            put_welcome(&introduction, &settings, &ticket, &mut wire.output);
            Some(Connection::new(wire, front, session, ticket, settings, shutdown))
        }
        Err(error) => refuse(wire, &error).await,
    }
}

async fn refuse<S: Stream>(mut wire: Wire<S>, error: &Error) -> Option<Connection<S>> {
    put_error(error, Severity::Fatal, None, &mut wire.output);
    // If the client is gone there is nobody to tell.
    let _ = wire.flush().await;
    None
}

async fn introduction<S: Stream>(wire: &mut Wire<S>, front: &Front) -> Result<Option<Introduction>> {
    for _ in 0..MAX_HELLOS {
        let hello = loop {
            match decode_hello(&mut wire.input).map_err(|violation| protocol_violation(&violation.0))? {
                Some(hello) => break hello,
                None if wire.read().await.is_err() => return Ok(None),
                None => {}
            }
        };
        match hello {
            // TLS is a later issue: the client decides whether it goes on without.
            Hello::Ssl | Hello::Gss => {
                wire.output.put_u8(b'N');
                if wire.flush().await.is_err() {
                    return Ok(None);
                }
            }
            Hello::Cancel { pid, secret } => {
                front.registry.cancel(pid, secret);
                return Ok(None);
            }
            Hello::Startup { minor, parameters } => return Ok(Some(Introduction { minor, parameters })),
        }
    }
    Err(protocol_violation("no startup message"))
}

type Admission = (Ticket, Settings, Arc<henge_engine::session::Session>);

/// Decides whether the client may come in. Everybody on this host may ("trust"): passwords come with users.
fn admit(introduction: &Introduction, front: &Front) -> Result<Admission> {
    let parameter =
        |name: &str| introduction.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let Some(user) = parameter("user").filter(|user| !user.is_empty()) else {
        return Err(Error::invalid_input("no PostgreSQL user name specified in startup packet").with_sqlstate("28000"));
    };
    if parameter("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value)) {
        return Err(Error::unsupported("there is no replication protocol here"));
    }
    let database = parameter("database").filter(|name| !name.is_empty()).unwrap_or(DATABASE);
    if database != DATABASE {
        return Err(Error::not_found(format!("database \"{database}\" does not exist"))
            .with_sqlstate("3D000")
            .with_hint(format!("connect to the database `{DATABASE}`")));
    }
    let settings = settings(user, &introduction.parameters)?;
    let ticket = front
        .registry
        .enter(front.max_connections)
        .ok_or_else(|| Error::capacity_exceeded("sorry, too many clients already").with_sqlstate("53300"))?;
    let options = SessionOptions {
        user: user.to_string(),
        dialect: SqlDialect::PostgreSql,
        rewriters: vec![pg_catalog::rewriter()],
        ..SessionOptions::default()
    };
    let session = front.sessions.open(options)?;
    pg_catalog::install(&session, &pg_catalog::Facts { user: user.to_string(), pid: ticket.pid })?;
    Ok((ticket, settings, Arc::new(session)))
}

fn settings(user: &str, parameters: &[(String, String)]) -> Result<Settings> {
    let mut settings = Settings::new(user);
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => {
                for (name, value) in startup_options(value) {
                    settings.start(&name, &value)?;
                }
            }
            // Protocol options are answered in NegotiateProtocolVersion.
            name if name.starts_with("_pq_.") => {}
            name => settings.start(name, value)?,
        }
    }
    Ok(settings)
}

fn put_welcome(introduction: &Introduction, settings: &Settings, ticket: &Ticket, out: &mut BytesMut) {
    let unknown: Vec<_> = introduction.parameters.iter().filter(|(name, _)| name.starts_with("_pq_.")).collect();
    if introduction.minor > 0 || !unknown.is_empty() {
        let start = begin_message(out, b'v');
        out.put_u32(3 << 16);
        out.put_u32(unknown.len() as u32);
        unknown.iter().for_each(|(name, _)| put_cstring(out, name));
        end_message(out, start);
    }
    let start = begin_message(out, b'R');
    out.put_u32(0);
    end_message(out, start);
    for (name, value) in settings.reports() {
        put_parameter(name, &value, out);
    }
    let start = begin_message(out, b'K');
    out.put_i32(ticket.pid);
    out.put_i32(ticket.secret);
    end_message(out, start);
}

/// ParameterStatus.
pub(super) fn put_parameter(name: &str, value: &str, out: &mut BytesMut) {
    let start = begin_message(out, b'S');
    put_cstring(out, name);
    put_cstring(out, value);
    end_message(out, start);
}
