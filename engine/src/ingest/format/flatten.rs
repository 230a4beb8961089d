use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::ingest::row::{Row, Slot};
use crate::ingest::spec::{FlattenField, FlattenSpec};

/// Fields taken from inside a JSON row, by simple paths: `$.a.b[0]['c']`.
#[derive(Debug)]
pub(crate) struct Flatten {
    /// Whether fields at the root that were not asked for stay.
    keep_root: bool,
    fields: Vec<(String, Vec<Step>)>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    /// From 0; from the end if negative.
    Index(i64),
}

impl Flatten {
    /// Fails with a kind of field or a path that is not known.
    pub(crate) fn new(spec: &FlattenSpec) -> Result<Self> {
        let field = |field: &FlattenField| match field {
            FlattenField::Name(name) => Ok((name.clone(), vec![Step::Key(name.clone())])),
            FlattenField::Path { kind, name, expr } => {
                let expr = expr.as_deref().unwrap_or(name);
                match kind.as_str() {
                    "root" => Ok((name.clone(), vec![Step::Key(expr.to_owned())])),
                    "path" => Ok((name.clone(), steps(expr)?)),
                    _ => Err(Error::unsupported(format!(
                        "field `{name}` of `flattenSpec` is of type `{kind}`; only `root` and `path` are known"
                    ))),
                }
            }
        };
        let fields = spec.fields.iter().map(field).collect::<Result<_>>()?;
        Ok(Self { keep_root: spec.use_field_discovery, fields })
    }

    /// Adds the fields to a row that was read from `line`. As in Druid, nested values at the root are no fields then.
    pub(crate) fn apply(&self, line: &str, row: &mut Row) {
        row.retain(|_, value| self.keep_root && !matches!(value, Slot::Nested(_)));
        let root: Json = serde_json::from_str(line).unwrap_or_default();
        for (name, steps) in &self.fields {
            let found = steps.iter().try_fold(&root, |value, step| match step {
                Step::Key(key) => value.get(key),
                Step::Index(index) => {
                    let items = value.as_array()?;
                    let index =
                        if *index < 0 { items.len().checked_add_signed(*index as isize)? } else { *index as usize };
                    items.get(index)
                }
            });
            let field = row.fields.number(name);
            let slot = found.map_or(Slot::Null, |found| slot_of(found, row));
            row.set(field, slot);
        }
    }
}

fn slot_of(value: &Json, row: &mut Row) -> Slot {
    match value {
        Json::Null => Slot::Null,
        Json::Bool(value) => Slot::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Slot::Long(number),
            (None, number) => number.map_or(Slot::Null, Slot::Double),
        },
        Json::String(text) => row.keep(text),
        Json::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            let slots = items.iter().map(|item| slot_of(item, row)).collect::<Vec<_>>();
            let start = row.items.len();
            row.items.extend(slots);
            Slot::List(crate::ingest::row::Span { start, end: row.items.len() })
        }
        Json::Array(_) | Json::Object(_) => row.keep(&value.to_string()),
    }
}

fn steps(path: &str) -> Result<Vec<Step>> {
    let fault = || {
        Error::unsupported(format!(
            "path `{path}` of `flattenSpec`; paths are made of `$`, `.name`, `['name']` and `[0]`"
        ))
    };
    let mut rest = path.strip_prefix('$').ok_or_else(fault)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').ok_or_else(fault)?;
            let quoted = |quote: char| inner[..end].strip_prefix(quote)?.strip_suffix(quote);
            steps.push(match (quoted('\'').or_else(|| quoted('"')), inner[..end].parse()) {
                (Some(key), _) => Step::Key(key.to_owned()),
                (None, Ok(index)) => Step::Index(index),
                _ => return Err(fault()),
            });
            rest = &inner[end + 1..];
            continue;
        }
        let name = rest.strip_prefix('.').ok_or_else(fault)?;
        let end = name.find(['.', '[']).unwrap_or(name.len());
        if end == 0 || name[..end].contains(['*', '?', '(', '@']) {
            return Err(fault());
        }
        steps.push(Step::Key(name[..end].to_owned()));
        rest = &name[end..];
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::row::Value;

    #[test]
    fn paths_reach_inside() -> Result<()> {
        let spec: FlattenSpec = serde_json::from_str(
            r#"{"useFieldDiscovery":true,"fields":["n",{"type":"path","name":"deep","expr":"$.a.b[1]['c.d']"},
                {"type":"root","name":"r","expr":"x.y"},{"type":"path","name":"last","expr":"$.l[-1]"}]}"#,
        )
        .expect("a spec");
        let line = r#"{"t":1,"n":{"z":1},"a":{"b":[0,{"c.d":"found"}]},"x.y":2,"l":[1,2.5]}"#;
        let mut row = Row::default();
        crate::ingest::format::read_json(line, &mut row).unwrap();
        Flatten::new(&spec)?.apply(line, &mut row);
        let get = |name: &str| {
            let field = (0..20).find(|n| row.fields.name(*n) == name).unwrap();
            row.value(line, row.get(field))
        };
        assert_eq!(get("deep"), Value::Text("found".into()));
        assert_eq!(get("r"), Value::Long(2));
        assert_eq!(get("last"), Value::Double(2.5));
        assert_eq!(get("n"), Value::Text(r#"{"z":1}"#.into()));
        assert_eq!(get("a"), Value::Null);
        Ok(())
    }

    #[test]
    fn what_is_not_known_is_named() {
        for json in [
            r#"{"fields":[{"type":"jq","name":"a","expr":".a"}]}"#,
            r#"{"fields":[{"type":"path","name":"a","expr":"$..a"}]}"#,
        ] {
            let spec: FlattenSpec = serde_json::from_str(json).expect(json);
            assert!(Flatten::new(&spec).is_err(), "{json}");
        }
    }
}
