//! Durable files: the disk, deep storage on it or in an object store, and the segment cache.
//!
//! Owns every write that must outlive a power loss, behind the trait [`Disk`]; [`LocalDisk`] is the real one and
//! [`MemoryDisk`] the double that forgets, tears and reorders whatever was not synced.
//!
//! Invariants: a name in deep storage, once there, always stands for the same bytes; nothing is overwritten; what
//! [`DeepStorage::push`] returned was read back from an object store, or is there after a power loss of this machine.
//! A file in the segment cache is whole: it was verified and synced before it got its name. Never opens a column.

mod crash;
mod deep;
mod deep_storage;
mod disk;
mod log;
mod memory_disk;
mod object;
mod segment_cache;

pub use crash::{CRASH_POINTS, crash_point};
pub use deep::{LoadSpec, LocalDeepStorage, PushedSegment};
pub use deep_storage::{DeepStorage, DeepStorageUrl, Expected};
pub use disk::{Disk, DiskEntry, DiskFile, LocalDisk};
pub use log::{Damage, Log, LogItem, Recovered};
pub use memory_disk::MemoryDisk;
pub use segment_cache::CacheLocation;
