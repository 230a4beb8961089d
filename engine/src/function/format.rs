//! `format('%s is %I', …)`: text with arguments put in, as PostgreSQL does.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use crate::error::Error;

const NAME: &str = "format";

pub(super) fn format() -> ScalarUDF {
    ScalarUDF::new_from_impl(Format { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Format {
    signature: Signature,
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        if arg_types.is_empty() {
            return Err(Error::invalid_input("`format` needs a text first").with_sqlstate("42883").into());
        }
        Ok(vec![DataType::Utf8; arg_types.len()])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let row = |row: usize| -> Result<ScalarValue> {
            let mut texts = Vec::with_capacity(columns.len());
            for column in &columns {
                let value = ScalarValue::try_from_array(column, row)?;
                texts.push(value.try_as_str().flatten().map(str::to_string));
            }
            let Some(template) = texts.first().cloned().flatten() else { return Ok(ScalarValue::Utf8(None)) };
            Ok(ScalarValue::Utf8(Some(filled(&template, &texts[1..])?)))
        };
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&DataType::Utf8)));
        }
        let rows = (0..args.number_rows).map(row).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(rows)?))
    }
}

/// `%s` a text, `%I` a name, `%L` a literal, `%%` a percent sign; `%2$s` takes the second argument.
fn filled(template: &str, arguments: &[Option<String>]) -> Result<String> {
    let mut text = String::new();
    let mut next = 0;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && rest[digits..].starts_with('$') {
            let place: usize = rest[..digits].parse().unwrap_or(0);
            let Some(index) = place.checked_sub(1) else { return Err(unknown(template)) };
            next = index;
            rest = &rest[digits + 1..];
        }
        let mut chars = rest.chars();
        let Some(kind) = chars.next() else { return Err(unknown(template)) };
        rest = chars.as_str();
        let Some(argument) = arguments.get(next) else {
            return Err(Error::invalid_input("too few arguments for `format`").with_sqlstate("22023").into());
        };
        next += 1;
        text.push_str(&put(kind, argument.as_deref(), template)?);
    }
    text.push_str(rest);
    Ok(text)
}

fn put(kind: char, argument: Option<&str>, template: &str) -> Result<String> {
    match (kind, argument) {
        ('s', argument) => Ok(argument.unwrap_or_default().to_string()),
        ('I', Some(name)) => Ok(quoted_name(name)),
        ('I', None) => Err(Error::invalid_input("null values cannot be formatted as an SQL identifier")
            .with_sqlstate("22004")
            .into()),
        ('L', Some(text)) => Ok(format!("'{}'", text.replace('\'', "''"))),
        ('L', None) => Ok("NULL".to_string()),
        _ => Err(unknown(template)),
    }
}

fn quoted_name(name: &str) -> String {
    let plain = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn unknown(template: &str) -> datafusion::error::DataFusionError {
    let message = format!("`format` of `{template}`: of what follows `%`, `s`, `I`, `L`, `%` and `n$` are supported");
    Error::unsupported(message).with_sqlstate("22023").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_put_where_the_template_says() {
        let arguments = [Some("it's".to_string()), None];
        assert_eq!(filled("100%% %s|%L", &arguments).unwrap(), "100% it's|NULL");
        assert_eq!(filled("%1$L %1$I", &arguments).unwrap(), "'it''s' \"it's\"");
        assert!(filled("%d", &arguments).is_err());
        assert!(filled("%s %s %s", &arguments).is_err());
    }
}
