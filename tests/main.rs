//! All tests over the public surfaces, in one binary, so that the engine is linked once.
//!
//! Built on libtest-mimic, because it can say of a test that it did not run, and why. With `CI` set to `true` nothing
//! may be missing: what would be ignored elsewhere for want of a program fails there.

// In a binary nothing is reachable from outside; `pub` here says: for the other modules.
#![allow(clippy::unwrap_used, unreachable_pub)]
// Tests stand outside: they read the environment that they pass on.
#![allow(clippy::disallowed_methods)]

mod binary;
mod clients;
mod cluster;
mod druid;
mod examples;
mod harness;
mod kafka;
mod metadata;
mod object_storage;
mod oracle;
mod servers;
mod sql;
mod tidy;
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = [
        tidy::trials(),
        sql::trials(),
        oracle::trials(),
        examples::trials(),
        binary::trials(),
        clients::trials(),
        cluster::trials(),
        metadata::trials(),
        servers::trials(),
        object_storage::trials(),
        druid::trials(),
        kafka::trials(),
        wire::trials(),
    ];
    let trials: Vec<Trial> = trials.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    harness::door::end_shared();
    wire::end_server();
    kafka::end_broker();
    harness::scratch::remove();
    conclusion.exit_code()
}
