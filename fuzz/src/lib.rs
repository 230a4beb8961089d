//! What reads a stranger's bytes: the server's own files, which are links, without the rest of it.

#![allow(dead_code)]

mod command;
mod frontend;
pub mod fuzz;
