//! The binary `eligo-load`.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::command::run(std::env::args_os())
}
