//! A scan as it travels to a worker: messages of Protocol Buffers. A field is never given another meaning; whatever
//! changes what a plan means raises [`super::PLAN_VERSION`].

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion_proto::protobuf::PhysicalExprNode;

use crate::error::{Error, Result};
use crate::exec::{DimensionPredicate, Predicate, TimeRanges, VisibleSegment};
use crate::model::{Interval, SegmentId, SegmentUid, Timestamp};
use crate::segment::Segment;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Scan {
    #[prost(string, tag = "1")]
    pub(super) data_source: String,
    /// The data source's columns, in JSON.
    #[prost(string, tag = "2")]
    pub(super) columns: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) segments: Vec<ScannedSegment>,
    #[prost(uint64, tag = "4")]
    pub(super) considered: u64,
    #[prost(message, optional, tag = "5")]
    pub(super) predicate: Option<Condition>,
    #[prost(uint32, repeated, tag = "6")]
    pub(super) projection: Vec<u32>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) fetch: Option<u64>,
    /// Over the output.
    #[prost(message, optional, tag = "8")]
    pub(super) condition: Option<PhysicalExprNode>,
    /// Over the output.
    #[prost(message, repeated, tag = "9")]
    pub(super) dynamic_filters: Vec<PhysicalExprNode>,
    #[prost(bool, tag = "10")]
    pub(super) backward: bool,
    #[prost(uint32, tag = "11")]
    pub(super) partitions: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ScannedSegment {
    /// Sixteen bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) uid: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) interval: Option<Span>,
    #[prost(string, tag = "3")]
    pub(super) version: String,
    #[prost(uint32, tag = "4")]
    pub(super) partition: u32,
    #[prost(message, optional, tag = "5")]
    pub(super) clip: Option<Span>,
}

/// Milliseconds, `[start, end)`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(sint64, tag = "1")]
    pub(super) start: i64,
    #[prost(sint64, tag = "2")]
    pub(super) end: i64,
}

/// A [`Predicate`].
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Condition {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Times(Spans),
    #[prost(message, tag = "2")]
    Dimension(Box<Dimension>),
    #[prost(message, tag = "3")]
    And(Conditions),
    #[prost(message, tag = "4")]
    Or(Conditions),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spans {
    #[prost(message, repeated, tag = "1")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Conditions {
    #[prost(message, repeated, tag = "1")]
    pub(super) parts: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dimension {
    #[prost(uint32, tag = "1")]
    pub(super) column: u32,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// Over the one column.
    #[prost(message, optional, tag = "3")]
    pub(super) condition: Option<PhysicalExprNode>,
}

type Encoded<T> = datafusion::error::Result<T>;
type Expr = Arc<dyn PhysicalExpr>;

pub(super) fn segment(visible: &VisibleSegment) -> ScannedSegment {
    ScannedSegment {
        uid: visible.uid.to_bytes().to_vec(),
        interval: Some(span(&visible.id.interval)),
        version: visible.id.version.clone(),
        partition: visible.id.partition,
        clip: Some(span(&visible.clip)),
    }
}

fn span(interval: &Interval) -> Span {
    Span { start: interval.start().millis(), end: interval.end().millis() }
}

fn interval(span: Option<Span>) -> Result<Interval> {
    let span = span.ok_or_else(|| unreadable("a segment without its interval"))?;
    Interval::new(Timestamp::from_millis(span.start), Timestamp::from_millis(span.end))
}

impl ScannedSegment {
    pub(super) fn uid(&self) -> Result<SegmentUid> {
        let bytes = self.uid.as_slice().try_into().map_err(|_| unreadable("a segment uid that is not 16 bytes"))?;
        Ok(SegmentUid::from_bytes(bytes))
    }

    pub(super) fn id(&self, data_source: &str) -> Result<SegmentId> {
        Ok(SegmentId {
            data_source: data_source.to_owned(),
            interval: interval(self.interval)?,
            version: self.version.clone(),
            partition: self.partition,
        })
    }

    pub(super) fn visible(&self, data_source: &str, segment: Arc<dyn Segment>) -> Result<VisibleSegment> {
        let (id, uid, clip) = (Arc::new(self.id(data_source)?), self.uid()?, interval(self.clip)?);
        Ok(VisibleSegment { id, uid, clip, segment })
    }
}

/// `encode` makes an expression's message.
pub(super) fn condition(
    predicate: &Predicate,
    encode: &dyn Fn(&Expr) -> Encoded<PhysicalExprNode>,
) -> Encoded<Condition> {
    let all = |parts: &[Predicate]| -> Encoded<Conditions> {
        Ok(Conditions { parts: parts.iter().map(|part| condition(part, encode)).collect::<Encoded<_>>()? })
    };
    let kind = match predicate {
        Predicate::Time(ranges) => {
            let spans = ranges.ranges().iter().map(|&(start, end)| Span { start, end });
            Kind::Times(Spans { spans: spans.collect() })
        }
        Predicate::Dimension(dimension) => Kind::Dimension(Box::new(Dimension {
            column: dimension.column as u32,
            name: dimension.name.clone(),
            condition: Some(encode(&dimension.condition)?),
        })),
        Predicate::And(parts) => Kind::And(all(parts)?),
        Predicate::Or(parts) => Kind::Or(all(parts)?),
    };
    Ok(Condition { kind: Some(kind) })
}

/// `decode` makes the expression of a message, over a column of this name.
pub(super) fn predicate(
    condition: &Condition,
    decode: &dyn Fn(&PhysicalExprNode, &str) -> Encoded<Expr>,
) -> Encoded<Predicate> {
    let all = |parts: &Conditions| parts.parts.iter().map(|part| predicate(part, decode)).collect::<Encoded<Vec<_>>>();
    Ok(match condition.kind.as_ref().ok_or_else(|| unreadable("a condition without a kind"))? {
        Kind::Times(spans) => {
            let ranges = spans.spans.iter().map(|span| TimeRanges::between(span.start, span.end));
            Predicate::Time(ranges.fold(TimeRanges::none(), |all, range| all.union(&range)))
        }
        Kind::Dimension(dimension) => {
            let node = dimension.condition.as_ref().ok_or_else(|| unreadable("a condition without its expression"))?;
            Predicate::Dimension(DimensionPredicate {
                column: dimension.column as usize,
                name: dimension.name.clone(),
                condition: decode(node, &dimension.name)?,
            })
        }
        Kind::And(parts) => Predicate::And(all(parts)?),
        Kind::Or(parts) => Predicate::Or(all(parts)?),
    })
}

pub(super) fn unreadable(what: &str) -> Error {
    Error::runtime_failure(format!("a scan came with {what}; do all processes run the same version?"))
}
