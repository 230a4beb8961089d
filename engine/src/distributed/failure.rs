//! Failures on their way between processes. What `datafusion-distributed` carries of an error that is not DataFusion's
//! is its text; so ours travels as its fields, in that text.

use std::error::Error as _;
use std::fmt;

use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use super::WorkerUrl;
use super::running::MISSING;
use crate::error::{Category, Error, Persona, Position};
use crate::model::SegmentUid;

/// Begins the text of an error that is [`Traveling`].
const MARK: &str = "henge error ";
/// Under this a failure names the worker that it came from.
const WORKER: &str = "worker";

/// An [`Error`] as its fields. Its text can be read back.
#[derive(Debug, Serialize, Deserialize)]
struct Traveling {
    category: Category,
    persona: Persona,
    message: String,
    context: Vec<(String, String)>,
    retryable: bool,
    sqlstate: Option<String>,
    position: Option<Position>,
    hint: Option<String>,
    source: Option<String>,
}

impl fmt::Display for Traveling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl std::error::Error for Traveling {}

impl From<&Error> for Traveling {
    fn from(error: &Error) -> Self {
        Self {
            category: error.category(),
            persona: error.persona(),
            message: error.message().to_owned(),
            context: error.contexts().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            retryable: error.is_retryable(),
            sqlstate: error.sqlstate().map(ToOwned::to_owned),
            position: error.position(),
            hint: error.hint().map(ToOwned::to_owned),
            source: error.source().map(ToString::to_string),
        }
    }
}

impl From<Traveling> for Error {
    fn from(traveling: Traveling) -> Self {
        let mut error = Error::new(traveling.category, traveling.persona, traveling.message);
        for (key, value) in traveling.context {
            error = error.context(key, value);
        }
        error = error.retryable(traveling.retryable);
        if let Some(sqlstate) = traveling.sqlstate {
            error = error.with_sqlstate(sqlstate);
        }
        if let Some(position) = traveling.position {
            error = error.at(position);
        }
        if let Some(hint) = traveling.hint {
            error = error.with_hint(hint);
        }
        match traveling.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// The chain of an error: itself, and what lies beneath.
fn chain(error: &DataFusionError) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: Option<&(dyn std::error::Error + 'static)> = Some(error);
    std::iter::successors(first, beneath)
}

fn beneath<'a>(error: &&'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let error: &'a (dyn std::error::Error + 'static) = *error;
    error.source()
}

/// An error about to leave the process. Ours is put into a text that [`from_wire`] reads; DataFusion's stays.
pub(super) fn to_wire(error: DataFusionError) -> DataFusionError {
    match ours_in(&error).map(Traveling::from) {
        Some(traveling) => DataFusionError::External(Box::new(traveling)),
        None => error,
    }
}

/// An error that came from `worker`: ours, if it was; DataFusion's, that it would be here too; or that the worker could
/// not be reached. Of several workers, the first that failed is named.
pub(super) fn from_wire(error: DataFusionError, worker: &WorkerUrl) -> DataFusionError {
    // The text is that of the innermost: it is set in the texts of those around it.
    let read =
        chain(&error).filter_map(|error| serde_json::from_str::<Traveling>(error.to_string().strip_prefix(MARK)?).ok());
    let ours = match read.last().map(Error::from).or_else(|| Some(ours_in(&error)?.duplicate())) {
        Some(ours) => ours,
        None if is_transport(&error) => unreachable(error),
        None => return error,
    };
    match worker_of(&ours) {
        Some(_) => ours.into(),
        None => ours.context(WORKER, worker).into(),
    }
}

/// The error of ours that another one carries.
fn ours_in(error: &DataFusionError) -> Option<&Error> {
    chain(error).find_map(|error| error.downcast_ref::<Error>())
}

/// Whether a connection failed, and not a query.
fn is_transport(error: &DataFusionError) -> bool {
    chain(error).any(|error| error.is::<tonic::Status>() || error.is::<tonic::transport::Error>())
}

fn unreachable(error: DataFusionError) -> Error {
    let status = chain(&error).find_map(|error| error.downcast_ref::<tonic::Status>());
    let refused = status.is_some_and(|status| status.code() == tonic::Code::Unauthenticated);
    if refused {
        let message = "a worker does not accept this process; do both have the same secret?";
        return Error::new(Category::Unauthorized, Persona::Operator, message).with_source(error);
    }
    Error::new(Category::ServiceUnavailable, Persona::Operator, "a worker cannot be reached").with_source(error)
}

/// The worker that an error came from.
pub(super) fn worker_of(error: &Error) -> Option<WorkerUrl> {
    let (_, url) = error.contexts().find(|(key, _)| *key == WORKER)?;
    url.parse().ok()
}

/// What whoever plans the query again has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The worker is dead, hung or leaving.
    Worker(WorkerUrl),
    /// It works, but failed at this query: a damaged file, perhaps.
    WorkerForThisQuery(WorkerUrl),
    /// It does not serve these any more.
    Segments(WorkerUrl, Vec<SegmentUid>),
}

impl Blame {
    /// Of a failure that other replicas may not have; `None` if the query itself is at fault, or the broker.
    pub(super) fn of(error: &Error) -> Option<Self> {
        let worker = worker_of(error)?;
        match error.category() {
            Category::ServiceUnavailable => Some(Self::Worker(worker)),
            Category::RuntimeFailure => Some(Self::WorkerForThisQuery(worker)),
            Category::NotFound => {
                let (_, uids) = error.contexts().find(|(key, _)| *key == MISSING)?;
                Some(Self::Segments(worker, uids.split(' ').filter_map(|uid| uid.parse().ok()).collect()))
            }
            _ => None,
        }
    }

    pub(super) fn worker(&self) -> &WorkerUrl {
        match self {
            Self::Worker(worker) | Self::WorkerForThisQuery(worker) | Self::Segments(worker, _) => worker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(port: u16) -> WorkerUrl {
        format!("http://127.0.0.1:{port}").parse().unwrap()
    }

    /// What `datafusion-distributed` makes of an error on its way: its text, within others of the same kind.
    fn traveled(error: DataFusionError) -> DataFusionError {
        let text = DataFusionError::External(error.to_string().trim_start_matches("External error: ").into());
        DataFusionError::Context("somewhere".to_owned(), Box::new(text))
    }

    fn ours(error: DataFusionError) -> Error {
        match error {
            DataFusionError::External(error) => *error.downcast::<Error>().unwrap(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_error_of_ours_arrives_as_it_was_and_names_where_it_failed_first() {
        let error = Error::invalid_input("integer overflow").with_sqlstate("22003").with_hint("use `sum`");
        let shared = DataFusionError::Shared(std::sync::Arc::new(DataFusionError::from(error)));
        let arrived = ours(from_wire(traveled(to_wire(shared)), &worker(1)));
        assert_eq!(arrived.sqlstate(), Some("22003"));
        assert_eq!(arrived.hint(), Some("use `sum`"));
        assert_eq!(arrived.category(), Category::InvalidInput);
        let passed_on = ours(from_wire(traveled(to_wire(arrived.into())), &worker(2)));
        assert_eq!(worker_of(&passed_on), Some(worker(1)));
        assert_eq!(Blame::of(&passed_on), None);
    }

    #[test]
    fn a_broken_connection_is_the_workers_fault() {
        let broken = DataFusionError::External(Box::new(tonic::Status::unavailable("gone")));
        let arrived = ours(from_wire(broken, &worker(1)));
        assert_eq!(Blame::of(&arrived), Some(Blame::Worker(worker(1))));
    }

    #[test]
    fn what_datafusion_says_stays_as_it_is() {
        let error = from_wire(to_wire(DataFusionError::ResourcesExhausted("memory".into())), &worker(1));
        assert!(matches!(error, DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
