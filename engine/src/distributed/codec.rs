//! Our operators in plans that travel. Only scans do: what aggregates over them on a worker is put in there, by the
//! rules that know its segments.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;

use super::failure;
use super::leaf::SegmentLeafExec;
use super::running::RunningQuery;
use super::wire::{self, Scan, unreadable};
use crate::error::Error;
use crate::exec::{Order, ScanSource, SegmentScanExec};
use crate::model::SegmentSchema;

/// Encodes the scan of a task on the broker; decodes it on the worker, over the worker's own segments.
#[derive(Debug)]
pub(super) struct SegmentCodec;

impl PhysicalExtensionCodec for SegmentCodec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(leaf) = node.downcast_ref::<SegmentLeafExec>() else {
            return internal_err!("{} cannot be sent to another process", node.name());
        };
        let Some((_, segments)) = leaf.assigned() else {
            return internal_err!("a scan was sent before it was given to a task");
        };
        let encode = |expr: &Arc<dyn PhysicalExpr>| converter.physical_expr_to_proto(expr, self);
        let message = encoded(leaf.scan(), segments, &encode)?;
        message.encode(buf).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn try_decode(
        &self,
        buf: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let message = Scan::decode(buf).map_err(|error| unreadable("bytes that are no scan").with_source(error));
        let decode = |node: &PhysicalExprNode, schema: &Schema| {
            converter.proto_to_physical_expr(node, schema, &PhysicalPlanDecodeContext::new(context, self))
        };
        let scan = message.map_err(DataFusionError::from).and_then(|message| decoded(&message, context, &decode));
        // What fails before anything runs travels as it is.
        scan.map(|scan| Arc::new(scan) as _).map_err(failure::to_wire)
    }
}

fn encoded(
    scan: &SegmentScanExec,
    segments: &[usize],
    encode: &dyn Fn(&Arc<dyn PhysicalExpr>) -> Result<PhysicalExprNode>,
) -> Result<Scan> {
    let source = scan.source();
    let columns = serde_json::to_string(source.columns.as_ref())
        .map_err(|error| Error::defensive("a schema cannot be written as JSON").with_source(error))?;
    Ok(Scan {
        data_source: source.data_source.clone(),
        columns,
        segments: segments.iter().filter_map(|&index| source.segments.get(index)).map(wire::segment).collect(),
        considered: source.considered as u64,
        predicate: source.predicate.as_ref().map(|predicate| wire::condition(predicate, encode)).transpose()?,
        projection: scan.projection().iter().map(|&index| index as u32).collect(),
        fetch: ExecutionPlan::fetch(scan).map(|rows| rows as u64),
        condition: scan.condition().map(encode).transpose()?,
        dynamic_filters: scan.dynamic_filters().iter().map(encode).collect::<Result<_>>()?,
        backward: scan.order() == Order::Backward,
        partitions: ExecutionPlan::properties(scan).partitioning.partition_count() as u32,
    })
}

type Decode<'a> = &'a dyn Fn(&PhysicalExprNode, &Schema) -> Result<Arc<dyn PhysicalExpr>>;

fn decoded(message: &Scan, context: &TaskContext, decode: Decode<'_>) -> Result<SegmentScanExec> {
    let Some(query) = context.session_config().get_extension::<RunningQuery>() else {
        return Err(Error::defensive("a scan came to a process that is no worker").into());
    };
    let columns: SegmentSchema = serde_json::from_str(&message.columns)
        .map_err(|error| unreadable("columns that are no schema").with_source(error))?;
    let columns = Arc::new(columns);
    let of_dimension = |node: &PhysicalExprNode, name: &str| {
        let field = Field::new(name, DataType::Utf8View, true);
        decode(node, &Schema::new(vec![field]))
    };
    let predicate = message.predicate.as_ref().map(|predicate| wire::predicate(predicate, &of_dimension));
    let source = ScanSource {
        data_source: message.data_source.clone(),
        segments: query.visible(&message.data_source, &message.segments, &columns)?,
        columns,
        considered: message.considered as usize,
        predicate: predicate.transpose()?,
    };
    let projection = message.projection.iter().map(|&index| index as usize).collect();
    let fetch = message.fetch.map(|rows| rows as usize);
    let partitions = (message.partitions as usize).max(1);
    let scan = SegmentScanExec::with_partitions(Arc::new(source), projection, fetch, partitions);
    let schema = scan.schema();
    let condition = message.condition.as_ref().map(|node| decode(node, &schema)).transpose()?;
    let dynamic_filters = message.dynamic_filters.iter().map(|node| decode(node, &schema));
    let dynamic_filters = dynamic_filters.collect::<Result<Vec<_>>>()?;
    let order = if message.backward { Order::Backward } else { Order::Forward };
    Ok(scan.with_pushed_down(condition, dynamic_filters, order))
}
