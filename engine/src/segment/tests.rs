//! Segments written and read again: round trips, merges, damage, and the golden file.

mod damage;
mod fixture;
mod golden;
mod laws;
mod merging;
