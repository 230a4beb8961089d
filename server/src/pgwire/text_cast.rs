//! `x::text` as PostgreSQL writes `x`: a rule that takes the place of the engine's casts to text, wherever they come from,
//! and the function by which it does.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use arrow::datatypes::DataType;
use bytes::BytesMut;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use datafusion::optimizer::AnalyzerRule;
use henge_engine::session::Session;

use super::encode::{Values, Zone, put_value};
use super::setting::Settings;

const NAME: &str = "henge_text";

/// Makes casts to text of a session PostgreSQL's, in the time zone of its settings.
pub(crate) fn install(session: &Session, settings: &Settings) {
    let function = Arc::new(ScalarUDF::new_from_impl(TextOf {
        signature: Signature::any(1, Volatility::Stable),
        settings: settings.clone(),
    }));
    session.context().register_udf(function.as_ref().clone());
    session.context().add_analyzer_rule(Arc::new(TextCasts { function }));
}

/// Types whose text the engine writes otherwise.
fn differs(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..)
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
    )
}

#[derive(Debug)]
struct TextCasts {
    function: Arc<ScalarUDF>,
}

impl AnalyzerRule for TextCasts {
    fn name(&self) -> &str {
        "text_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> PlanResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| self.rewrite(expr, &schema))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(plan.data)
    }
}

impl TextCasts {
    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> PlanResult<Transformed<Expr>> {
        let Expr::Cast(Cast { expr: inner, field }) = &expr else { return Ok(Transformed::no(expr)) };
        let target = field.data_type();
        let is_text = matches!(target, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if !is_text || !differs(&inner.get_type(schema)?) {
            return Ok(Transformed::no(expr));
        }
        let call = ScalarFunction::new_udf(Arc::clone(&self.function), vec![inner.as_ref().clone()]);
        let text = Expr::ScalarFunction(call);
        Ok(Transformed::yes(match target {
            DataType::Utf8 => text,
            target => cast(text, target.clone()),
        }))
    }
}

#[derive(Debug)]
struct TextOf {
    signature: Signature,
    settings: Settings,
}

// Within one session a name is one function.
impl PartialEq for TextOf {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for TextOf {}

impl Hash for TextOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let zone = self.settings.zone();
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(texts(values, &zone)?)),
            ColumnarValue::Scalar(value) => {
                let text = texts(&value.to_array()?, &zone)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&text, 0)?))
            }
        }
    }
}

fn texts(array: &ArrayRef, zone: &Zone) -> PlanResult<ArrayRef> {
    let values = Values::of(array)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 20);
    let mut text = BytesMut::new();
    for row in 0..array.len() {
        if values.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        put_value(&values, row, zone, &mut text)?;
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}
