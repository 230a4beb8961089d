//! The functions that a session knows, for `pg_proc`.

use datafusion::execution::SessionState;
use datafusion::logical_expr::Volatility;

use super::column::Row;
use super::{oid, types};

/// Number of the type `any`, which stands for what depends on the arguments.
const ANY: i64 = 2276;
/// Number of the language `internal`.
const INTERNAL: i64 = 12;

/// One function.
#[derive(Clone, Debug)]
pub(super) struct Routine {
    name: String,
    kind: &'static str,
    volatility: Volatility,
}

/// Every function of a session, but those that have no name for people; and those behind its types.
pub(super) fn all(state: &SessionState) -> Vec<Routine> {
    let scalar = state.scalar_functions().iter().map(|(name, function)| (name, "f", function.signature().volatility));
    let aggregate =
        state.aggregate_functions().iter().map(|(name, function)| (name, "a", function.signature().volatility));
    let window = state.window_functions().iter().map(|(name, function)| (name, "w", function.signature().volatility));
    let is_for_people = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut all: Vec<Routine> = scalar
        .chain(aggregate)
        .chain(window)
        .filter(|(name, ..)| is_for_people(name) && !name.starts_with("henge_"))
        .map(|(name, kind, volatility)| Routine { name: name.clone(), kind, volatility })
        .collect();
    // By which types are read and written: drivers tell arrays by `array_recv`.
    all.extend(types::function_names().filter(|name| is_for_people(name)).map(|name| Routine {
        name: name.to_string(),
        kind: "f",
        volatility: Volatility::Immutable,
    }));
    all.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    all
}

pub(super) fn row(routine: &Routine) -> Row {
    vec![
        ("oid", oid::of_function(&routine.name).into()),
        ("proname", routine.name.as_str().into()),
        ("pronamespace", oid::PG_CATALOG.into()),
        ("proowner", oid::OWNER.into()),
        ("prolang", INTERNAL.into()),
        ("procost", 1.into()),
        ("prorows", 0.into()),
        ("provariadic", ANY.into()),
        ("prosupport", 0.into()),
        ("prokind", routine.kind.into()),
        ("prosecdef", false.into()),
        ("proleakproof", false.into()),
        ("proisstrict", false.into()),
        ("proretset", false.into()),
        (
            "provolatile",
            match routine.volatility {
                Volatility::Immutable => "i",
                Volatility::Stable => "s",
                Volatility::Volatile => "v",
            }
            .into(),
        ),
        ("proparallel", "s".into()),
        ("pronargs", 1.into()),
        ("pronargdefaults", 0.into()),
        ("prorettype", ANY.into()),
        ("proargtypes", ANY.to_string().into()),
        ("prosrc", routine.name.as_str().into()),
    ]
}
