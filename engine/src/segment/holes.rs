use std::fmt::Debug;
use std::ops::Range;

use crate::error::Result;

/// A column of at most so many bytes comes as a whole when it is first asked for: fewer requests are worth more then.
pub(super) const WHOLE_COLUMN_BYTES: usize = 1 << 20;

/// The end of a file that is asked for first: most footers fit in it.
pub(super) const TAIL_GUESS_BYTES: usize = 16 << 10;

/// The parts of a segment file that are not on this machine, and who brings them: the file has its length, and zeros where
/// nothing was brought yet.
///
/// Contract: bytes are only ever put where [`Holes::fill`] was asked for them, and those that `check` was given and found
/// right are never changed.
pub trait Holes: Debug + Send + Sync {
    /// Has a range of the file here. `here` are its bytes as they are mapped, which may be zeros, or damaged; `check`
    /// fails, and says why, for bytes that are not those that were written. On return it has succeeded for `here`.
    fn fill(&self, range: Range<usize>, here: &[u8], check: &dyn Fn(&[u8]) -> Result<()>) -> Result<()>;
}
