//! The binary `henge`.

fn main() -> std::process::ExitCode {
    henge_server::command::run()
}
