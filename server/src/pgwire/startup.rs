//! From an accepted socket to a connection that may ask: encryption, who and which database, settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use henge_engine::session::{SessionOptions, SqlDialect};
use henge_engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Stop, Stream, Wire};
use super::encode::{begin_message, end_message, put_cstring};
use super::error::{Severity, protocol_violation, put_error};
use super::frontend::{Hello, decode_hello};
use super::listener::Front;
use super::password;
use super::registry::Ticket;
use super::setting::{Settings, startup_options};
use crate::auth::tls::{self, MaybeTls, Tls};
use crate::auth::{Entry, LOCAL_USER};
use crate::pg_catalog::{self, Activity, DATABASE};

/// How long a client may take to say who it is, and to prove it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a client may ask for encryption before it says who it is.
const MAX_HELLOS: usize = 4;

/// Where programs connect that want any database, such as `psql -l`; here it is the same one.
const MAINTENANCE: &str = "postgres";

/// What a client says about itself.
struct Introduction {
    minor: u16,
    parameters: Vec<(String, String)>,
}

/// The two ends of a connection, if it goes over a network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
}

/// Leads a client in. `None` if it left, only sent a cancel request, or was refused (and told why).
pub(super) async fn start<S: Stream>(
    stream: S,
    ends: Ends,
    front: Arc<Front>,
    shutdown: CancellationToken,
) -> Option<Connection<MaybeTls<S>>> {
    let entered = tokio::select! {
        () = shutdown.cancelled() => return None,
        entered = tokio::time::timeout(TIMEOUT, enter(stream, ends, &front)) => entered.ok()?,
    };
    let (mut wire, introduction, admission) = entered?;
    let (ticket, settings, session) = admission;
    put_welcome(&introduction, &settings, &ticket, &mut wire.output);
    Some(Connection::new(wire, front, session, ticket, settings, shutdown))
}

type Entered<S> = (Wire<MaybeTls<S>>, Introduction, Admission);

async fn enter<S: Stream>(stream: S, ends: Ends, front: &Front) -> Option<Entered<S>> {
    let (mut wire, introduction) = introduction(stream, front).await?;
    let admitted = match identify(&mut wire, &introduction, ends, front).await {
        Ok(()) => admit(&introduction, ends, front).await,
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Lost) => return None,
    };
    match admitted {
        Ok(admission) => Some((wire, introduction, admission)),
        Err(error) => refuse(wire, &error).await,
    }
}

async fn refuse<S: Stream, T>(mut wire: Wire<S>, error: &Error) -> Option<T> {
    put_error(error, Severity::Fatal, None, &mut wire.output);
    // If the client is gone there is nobody to tell.
    let _ = wire.flush().await;
    None
}

/// Reads what a client says until it says who it is, and encrypts the connection if it asks for it.
async fn introduction<S: Stream>(stream: S, front: &Front) -> Option<(Wire<MaybeTls<S>>, Introduction)> {
    let mut wire = Wire::new(MaybeTls::Plain(stream));
    for _ in 0..MAX_HELLOS {
        let hello = loop {
            match decode_hello(&mut wire.input) {
                Ok(Some(hello)) => break hello,
                Ok(None) => wire.read().await.ok()?,
                Err(violation) => return refuse(wire, &protocol_violation(&violation.0)).await,
            }
        };
        match hello {
            Hello::Ssl => match (&front.door.tls, wire.stream) {
                (Some(tls), MaybeTls::Plain(stream)) => wire = encrypt(stream, wire.input, tls).await?,
                (_, stream) => wire = decline(Wire { stream, ..wire }).await?,
            },
            Hello::Gss => wire = decline(wire).await?,
            Hello::Cancel { pid, secret } => {
                front.registry.cancel(pid, secret);
                return None;
            }
            Hello::Startup { minor, parameters } => return Some((wire, Introduction { minor, parameters })),
        }
    }
    refuse(wire, &protocol_violation("no startup message")).await
}

/// There is no such encryption: the client decides whether it goes on without.
async fn decline<S: Stream>(mut wire: Wire<S>) -> Option<Wire<S>> {
    wire.output.put_u8(b'N');
    wire.flush().await.ok()?;
    Some(wire)
}

async fn encrypt<S: Stream>(stream: S, early: BytesMut, tls: &Tls) -> Option<Wire<MaybeTls<S>>> {
    let mut plain = Wire::new(stream);
    if !early.is_empty() {
        // What came before the encryption may be another's, put in on the way.
        return refuse(plain, &protocol_violation("received unencrypted data after SSL request")).await;
    }
    plain.output.put_u8(b'S');
    plain.flush().await.ok()?;
    match tls.accept(plain.stream).await {
        Ok(stream) => Some(Wire::new(stream)),
        Err(error) => {
            tracing::debug!("no encryption was agreed upon: {error}");
            None
        }
    }
}

/// Finds out whether the client is who it says, and on a way that may be used.
async fn identify<S: Stream>(
    wire: &mut Wire<MaybeTls<S>>,
    introduction: &Introduction,
    ends: Ends,
    front: &Front,
) -> Result<(), Stop> {
    let encrypted = matches!(wire.stream, MaybeTls::Encrypted(_));
    if front.door.tls.is_some() && !encrypted && !tls::is_local(ends.peer, ends.local) {
        return Err(tls::must_encrypt().into());
    }
    let user = introduction.user()?;
    match front.door.auth.entry(user).await? {
        Entry::Free => Ok(()),
        Entry::Password(secret) => {
            let certificates = front.door.tls.as_ref().filter(|_| encrypted).map(Tls::certificates);
            password::ask(wire, user, secret, certificates).await
        }
    }
}

impl Introduction {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn user(&self) -> Result<&str> {
        self.parameter("user").filter(|user| !user.is_empty()).ok_or_else(|| {
            Error::invalid_input("no PostgreSQL user name specified in startup packet").with_sqlstate("28000")
        })
    }
}

type Admission = (Ticket, Settings, Arc<henge_engine::session::Session>);

/// Gives a client that may come in its place and its session.
async fn admit(introduction: &Introduction, ends: Ends, front: &Front) -> Result<Admission> {
    let user = introduction.user()?;
    if introduction.parameter("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value)) {
        return Err(Error::unsupported("there is no replication protocol here"));
    }
    let database = introduction.parameter("database").filter(|name| !name.is_empty()).unwrap_or(DATABASE);
    if database != DATABASE && database != MAINTENANCE {
        return Err(Error::not_found(format!("database \"{database}\" does not exist"))
            .with_sqlstate("3D000")
            .with_hint(format!("connect to the database `{DATABASE}`")));
    }
    let settings = settings(user, &introduction.parameters)?;
    let ticket = front.registry.enter(front.door.max_connections).ok_or_else(too_many)?;
    let now = front.door.clock.now();
    ticket.introduce(Activity {
        pid: ticket.pid,
        user: user.to_string(),
        application_name: settings.get("application_name")?,
        client: ends.peer,
        connected: now,
        query_start: None,
        state_change: now,
        state: "idle",
        query: String::new(),
    });
    // Commands on the data directory ask for the one who owns it.
    let user = if user == LOCAL_USER { DATABASE } else { user };
    let options = SessionOptions {
        user: user.to_string(),
        dialect: SqlDialect::PostgreSql,
        rewriters: vec![pg_catalog::rewriter()],
        ..SessionOptions::default()
    };
    let session = front.sessions.open(options)?;
    let facts = pg_catalog::Facts {
        user: user.to_string(),
        pid: ticket.pid,
        settings: Arc::new(settings.clone()),
        server: Arc::clone(&front.view) as _,
    };
    pg_catalog::install(&session, &facts)?;
    super::text_cast::install(&session, &settings);
    Ok((ticket, settings, Arc::new(session)))
}

pub(super) fn too_many() -> Error {
    Error::capacity_exceeded("sorry, too many clients already").with_sqlstate("53300")
}

fn settings(user: &str, parameters: &[(String, String)]) -> Result<Settings> {
    let settings = Settings::new(user);
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
        put_parameter(&name, &value, out);
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
