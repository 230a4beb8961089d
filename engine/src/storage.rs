//! Durable files: the disk, and deep storage on it.
//!
//! Owns every write that must outlive a power loss, behind the trait [`Disk`]; [`LocalDisk`] is the real one and
//! [`MemoryDisk`] the double that forgets, tears and reorders whatever was not synced.
//!
//! Invariants: a name in deep storage, once there, always stands for the same bytes; nothing is overwritten; what
//! [`LocalDeepStorage::push`] returned is there after a power loss. Never opens a column.

mod deep;
mod disk;
mod memory_disk;

pub use deep::{LoadSpec, LocalDeepStorage, PushedSegment};
pub use disk::{Disk, DiskEntry, DiskFile, LocalDisk};
pub use memory_disk::MemoryDisk;
