use super::{DataSchema, DimensionSchema, Granularity, MetricSpec};
use super::{IngestionSpec, InputFormat, InputSource};
use crate::error::{Error, Result};
use crate::model::ColumnType;

/// The short form behind `henge ingest FILE… --data-source NAME --time-column COLUMN`.
#[derive(Clone, Debug, Default)]
pub struct SimpleIngestion {
    /// Files, directories, globs, or URLs (`s3://`, `gs://`, `az://`, `http://`, `https://`), of one kind.
    pub files: Vec<String>,
    pub data_source: String,
    pub time_column: String,
    /// As in `timestampSpec`; `auto` unless said.
    pub time_format: Option<String>,
    /// `json`, `csv`, `tsv` or `parquet`; told from the files' names unless said.
    pub format: Option<String>,
    /// `NAME` or `NAME:TYPE`; all fields found, with the type of their values, if empty.
    pub dimensions: Vec<String>,
    /// `count`, or `TYPE:FIELD` such as `longSum:added`; `NAME=` before either names the column.
    pub metrics: Vec<String>,
    /// Segment granularity; `day` unless said.
    pub segment_granularity: Option<Granularity>,
    /// Query granularity; `none` unless said.
    pub query_granularity: Option<Granularity>,
    /// Combines rows that agree in time and dimensions. Needs dimensions.
    pub rollup: bool,
    /// Adds to what is there instead of replacing it.
    pub append: bool,
    pub max_rows_per_segment: Option<u64>,
    pub max_parse_exceptions: Option<u64>,
}

impl IngestionSpec {
    /// The spec of a short form. Fails with what cannot be read as what it should be, by name.
    pub fn simple(simple: &SimpleIngestion) -> Result<Self> {
        let mut schema = DataSchema::new(simple.data_source.as_str(), simple.time_column.as_str());
        if let Some(format) = &simple.time_format {
            schema.timestamp_spec.format = format.clone();
        }
        schema.dimensions_spec.dimensions =
            simple.dimensions.iter().map(|text| dimension(text)).collect::<Result<_>>()?;
        schema.dimensions_spec.use_schema_discovery = simple.dimensions.is_empty();
        schema.metrics_spec = simple.metrics.iter().map(|text| metric(text)).collect::<Result<_>>()?;
        let granularity = &mut schema.granularity_spec;
        granularity.segment_granularity = simple.segment_granularity.unwrap_or(Granularity::DAY);
        granularity.query_granularity = simple.query_granularity.unwrap_or(Granularity::None);
        granularity.rollup = Some(simple.rollup);
        let mut spec = Self::new(schema, source(&simple.files)?);
        spec.io_config.input_format = simple.format.as_deref().map(InputFormat::named).transpose()?;
        spec.io_config.append_to_existing = simple.append;
        spec.tuning_config.max_rows_per_segment = simple.max_rows_per_segment;
        spec.tuning_config.max_parse_exceptions =
            simple.max_parse_exceptions.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        spec.check()?;
        Ok(spec)
    }
}

impl InputFormat {
    /// The format of a name, with everything else as it is by default; CSV and TSV begin with a header then.
    pub fn named(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "json" | "ndjson" | "jsonl" => {
                Ok(Self::Json { flatten_spec: None, assume_newline_delimited: None, keep_null_columns: None })
            }
            "csv" => Ok(Self::Csv { options: super::DelimitedOptions::default() }),
            "tsv" => Ok(Self::Tsv { delimiter: None, options: super::DelimitedOptions::default() }),
            "parquet" => Ok(Self::Parquet { binary_as_string: None }),
            _ => Err(Error::invalid_input(format!(
                "`{name}` is not an input format: it is `json`, `csv`, `tsv` or `parquet`"
            ))),
        }
    }
}

fn source(files: &[String]) -> Result<InputSource> {
    let scheme = |file: &String| match file.split_once("://") {
        Some((scheme, _)) => scheme.to_ascii_lowercase(),
        None => "file".to_owned(),
    };
    let first = files.first().map(scheme).ok_or_else(|| Error::invalid_input("no input files given"))?;
    if files.iter().any(|file| scheme(file).trim_end_matches('s') != first.trim_end_matches('s')) {
        let delegates = files.iter().map(|file| source(std::slice::from_ref(file))).collect::<Result<_>>()?;
        return Ok(InputSource::Combining { delegates });
    }
    let (uris, prefixes) = (files.to_vec(), Vec::new());
    match first.as_str() {
        "file" => {
            let files = files.iter().map(|file| file.trim_start_matches("file://").to_owned()).collect();
            Ok(InputSource::Local { base_dir: None, filter: None, files })
        }
        "http" | "https" => Ok(InputSource::Http { uris }),
        "s3" => Ok(InputSource::S3 { uris, prefixes }),
        "gs" => Ok(InputSource::Google { uris, prefixes }),
        "az" | "azure" | "abfs" | "abfss" => Ok(InputSource::AzureStorage { uris, prefixes }),
        other => Err(Error::unsupported(format!(
            "input from `{other}://`; use files, `s3://`, `gs://`, `az://`, `http://` or `https://`"
        ))),
    }
}

fn dimension(text: &str) -> Result<DimensionSchema> {
    let Some((name, kind)) = text.rsplit_once(':') else {
        return Ok(DimensionSchema::new(text, Some(ColumnType::String)));
    };
    DimensionSchema::try_from(serde_json::json!({ "name": name, "type": kind }))
}

fn metric(text: &str) -> Result<MetricSpec> {
    let (name, what) = match text.split_once('=') {
        Some((name, what)) => (Some(name), what),
        None => (None, text),
    };
    match what.split_once(':') {
        Some((kind, field)) => MetricSpec::of_kind(kind, name.unwrap_or(field), Some(field)),
        None => MetricSpec::of_kind(what, name.unwrap_or(what), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_a_spec() -> Result<()> {
        let spec = IngestionSpec::simple(&SimpleIngestion {
            files: vec!["a.json.gz".to_owned()],
            data_source: "wikipedia".to_owned(),
            time_column: "time".to_owned(),
            dimensions: vec!["page".to_owned(), "size:long".to_owned()],
            metrics: vec!["count".to_owned(), "longSum:added".to_owned(), "most=longMax:added".to_owned()],
            rollup: true,
            ..SimpleIngestion::default()
        })?;
        let schema = &spec.data_schema;
        assert!(schema.rolls_up());
        assert_eq!(schema.dimensions_spec.dimensions[1].column_type, Some(ColumnType::Long));
        let names = schema.metrics_spec.iter().map(|metric| metric.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["count", "added", "most"]);
        Ok(())
    }

    #[test]
    fn rollup_without_dimensions_is_refused() {
        let simple = SimpleIngestion {
            files: vec!["a.json".to_owned()],
            data_source: "a".to_owned(),
            time_column: "time".to_owned(),
            rollup: true,
            ..SimpleIngestion::default()
        };
        let error = IngestionSpec::simple(&simple).expect_err("no dimensions").to_string();
        assert!(error.contains("rollup needs the dimensions"), "{error}");
    }
}
