//! Segments written and read again: round trips, merges, damage, and the golden file.

mod damage;
mod fingerprints;
mod fixture;
mod golden;
mod laws;
mod merging;
