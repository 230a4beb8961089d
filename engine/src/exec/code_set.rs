//! A set of dictionary codes.

use std::ops::Range;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
};
use datafusion::scalar::ScalarValue;

use super::kernel;
use crate::error::Result;
use crate::segment::Dictionary;

/// Codes of one dictionary.
#[derive(Debug)]
pub(super) enum CodeSet {
    Range(Range<u32>),
    /// One byte a code, 0 or 1.
    Mask {
        member: Vec<u8>,
        len: usize,
        /// From the least member to the greatest.
        hull: Range<u32>,
        /// The stretches of members, if they are few.
        ranges: Option<Vec<Range<u32>>>,
    },
}

impl CodeSet {
    pub(super) fn of_mask(mask: Vec<bool>) -> Self {
        let len = mask.iter().filter(|member| **member).count();
        let first = mask.iter().position(|member| *member).unwrap_or(0) as u32;
        let end = mask.iter().rposition(|member| *member).map_or(first, |last| last as u32 + 1);
        if (end - first) as usize == len {
            return Self::Range(first..end);
        }
        let ranges = few_ranges(&mask[first as usize..end as usize], first);
        Self::Mask { member: mask.into_iter().map(u8::from).collect(), len, hull: first..end, ranges }
    }

    fn of_list(mut codes: Vec<u32>, cardinality: usize) -> Self {
        codes.sort_unstable();
        codes.dedup();
        let mut mask = vec![false; cardinality];
        codes.iter().for_each(|&code| mask[code as usize] = true);
        Self::of_mask(mask)
    }

    fn single(code: Option<u32>) -> Self {
        Self::Range(code.map_or(0..0, |code| code..code + 1))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Mask { len, .. } => *len,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Range(_) => 0,
            Self::Mask { member, .. } => member.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Range(range) => Box::new(range.clone()),
            Self::Mask { member, hull, .. } => Box::new(hull.clone().filter(|&code| member[code as usize] == 1)),
        }
    }

    /// Whether all codes from `least` to `greatest`, both inclusive, are members, or none is; `None` if that varies or
    /// is dear to say.
    pub(super) fn within(&self, least: u32, greatest: u32) -> Option<bool> {
        let (hull, solid) = match self {
            Self::Range(range) => (range, true),
            Self::Mask { hull, .. } => (hull, false),
        };
        if greatest < hull.start || hull.end <= least {
            return Some(false);
        }
        match self {
            Self::Mask { member, .. } if least == greatest => Some(member[least as usize] == 1),
            _ if solid && hull.start <= least && greatest < hull.end => Some(true),
            _ => None,
        }
    }

    /// Sets a bit for each code that is a member, 64 codes a word; `bits` has a word for each 64 codes, all zero. Returns
    /// how many are members.
    pub(super) fn mark(&self, codes: &[u32], bits: &mut [u64]) -> usize {
        let mark = |range: &Range<u32>, bits: &mut [u64]| {
            kernel::mark_range(codes, range.start, range.end - range.start, bits)
        };
        match self {
            Self::Range(range) => mark(range, bits),
            Self::Mask { ranges: Some(ranges), .. } => ranges.iter().map(|range| mark(range, bits)).sum(),
            Self::Mask { member, .. } => {
                let mut count = 0;
                for (word, codes) in bits.iter_mut().zip(codes.chunks(64)) {
                    for (i, &code) in codes.iter().enumerate() {
                        *word |= u64::from(member[code as usize]) << i;
                    }
                    count += word.count_ones() as usize;
                }
                count
            }
        }
    }

    /// The codes for which `condition` is true, where looking up a few values tells; `None` where every value has to be
    /// evaluated.
    pub(super) fn by_look_up(condition: &dyn PhysicalExpr, dictionary: &dyn Dictionary) -> Result<Option<Self>> {
        let first = u32::from(dictionary.has_null());
        let end = dictionary.cardinality() as u32;
        if let Some(is_null) = condition.downcast_ref::<IsNullExpr>() {
            return Ok(is_null.arg().is::<Column>().then_some(Self::Range(0..first)));
        }
        if let Some(is_not_null) = condition.downcast_ref::<IsNotNullExpr>() {
            return Ok(is_not_null.arg().is::<Column>().then_some(Self::Range(first..end)));
        }
        if let Some(in_list) = condition.downcast_ref::<InListExpr>() {
            return by_list(in_list, dictionary);
        }
        if let Some(like) = condition.downcast_ref::<LikeExpr>() {
            return by_prefix(like, dictionary);
        }
        let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { return Ok(None) };
        match literal(binary.right().as_ref()) {
            Some(value) if binary.left().is::<Column>() => by_comparison(*binary.op(), value, dictionary),
            _ => Ok(None),
        }
    }
}

/// The stretches of members, of which there must be at most a few: each costs a pass over the codes.
fn few_ranges(mask: &[bool], first: u32) -> Option<Vec<Range<u32>>> {
    const FEW: usize = 8;
    let (mut ranges, mut at) = (Vec::new(), first);
    for stretch in mask.chunk_by(|a, b| a == b) {
        let end = at + stretch.len() as u32;
        if stretch[0] {
            if ranges.len() == FEW {
                return None;
            }
            ranges.push(at..end);
        }
        at = end;
    }
    Some(ranges)
}

/// The text of a string literal that is not null.
fn literal(expression: &dyn PhysicalExpr) -> Option<&str> {
    match expression.downcast_ref::<Literal>()?.value() {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            Some(text)
        }
        _ => None,
    }
}

fn by_comparison(op: Operator, value: &str, dictionary: &dyn Dictionary) -> Result<Option<CodeSet>> {
    if op == Operator::Eq {
        return Ok(Some(CodeSet::single(dictionary.code_of(value)?)));
    }
    if !dictionary.is_sorted() {
        return Ok(None);
    }
    let (first, end) = (u32::from(dictionary.has_null()), dictionary.cardinality() as u32);
    // Codes below `low` are less than the value, codes from `high` on are greater.
    let low = dictionary.lower_bound(value)?;
    let high = low + u32::from(dictionary.code_of(value)?.is_some());
    Ok(match op {
        Operator::Lt => Some(CodeSet::Range(first..low)),
        Operator::LtEq => Some(CodeSet::Range(first..high)),
        Operator::Gt => Some(CodeSet::Range(high..end)),
        Operator::GtEq => Some(CodeSet::Range(low..end)),
        _ => None,
    })
}

fn by_list(in_list: &InListExpr, dictionary: &dyn Dictionary) -> Result<Option<CodeSet>> {
    if in_list.negated() || !in_list.expr().is::<Column>() {
        return Ok(None);
    }
    let mut codes = Vec::with_capacity(in_list.list().len());
    for item in in_list.list() {
        let Some(value) = literal(item.as_ref()) else { return Ok(None) };
        codes.extend(dictionary.code_of(value)?);
    }
    Ok(Some(CodeSet::of_list(codes, dictionary.cardinality())))
}

/// `LIKE 'prefix%'` is a range of a sorted dictionary.
fn by_prefix(like: &LikeExpr, dictionary: &dyn Dictionary) -> Result<Option<CodeSet>> {
    if like.negated() || like.case_insensitive() || !like.expr().is::<Column>() || !dictionary.is_sorted() {
        return Ok(None);
    }
    let Some(prefix) = literal(like.pattern().as_ref()).and_then(|pattern| pattern.strip_suffix('%')) else {
        return Ok(None);
    };
    if prefix.contains(['%', '_', '\\']) {
        return Ok(None);
    }
    let start = dictionary.lower_bound(prefix)?;
    let end = match after_prefix(prefix) {
        Some(text) => dictionary.lower_bound(&text)?,
        None => dictionary.cardinality() as u32,
    };
    Ok(Some(CodeSet::Range(start..end)))
}

/// The least text that is greater than everything beginning with `prefix`; `None` if there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters = prefix.chars().collect::<Vec<_>>();
    while let Some(last) = characters.pop() {
        // Surrogates are not characters: `char::from_u32` refuses them, the next one after them is taken.
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix_is_the_next_text() {
        assert_eq!(after_prefix("User:"), Some("User;".to_owned()));
        assert_eq!(after_prefix("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!(after_prefix("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(after_prefix(""), None);
    }

    #[test]
    fn blocks_are_skipped_by_their_least_and_greatest_code() {
        let gaps = CodeSet::of_mask(vec![false, true, false, true, false]);
        assert_eq!((gaps.len(), gaps.iter().collect::<Vec<_>>()), (2, vec![1, 3]));
        assert_eq!((gaps.within(4, 4), gaps.within(2, 2), gaps.within(3, 3)), (Some(false), Some(false), Some(true)));
        assert_eq!(gaps.within(1, 3), None);
        let range = CodeSet::of_mask(vec![false, true, true]);
        assert_eq!((range.within(1, 2), range.within(0, 1), range.within(0, 0)), (Some(true), None, Some(false)));
        let (mut of_gaps, mut of_range) = ([0], [0]);
        assert_eq!((gaps.mark(&[0, 1, 3, 4], &mut of_gaps), range.mark(&[0, 1, 3, 2], &mut of_range)), (2, 2));
        assert_eq!((of_gaps, of_range), ([0b0110], [0b1010]));
        let many = CodeSet::of_mask((0..40).map(|code| code % 2 == 0).collect());
        let mut of_many = [0];
        assert_eq!((many.mark(&[0, 1, 38, 39], &mut of_many), of_many), (2, [0b0101]));
    }
}
