//! Where rows come from.

pub mod wikipedia;
