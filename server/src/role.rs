//! What a process does. So far there is one role, [`all`]: everything in one process.

pub mod all;
