//! A server inside the process of a test, which can look at what it keeps and do to it what no
//! request can.

use std::path::Path;

use gateway::server::{RunningServer, Server};
use gateway::settings;
use gateway::settings::source::arguments;

/// Starts one below `directory` with a registry, on ports of its own, with more arguments.
pub fn serve(directory: &Path, registry: &str, more: &[&str]) -> RunningServer {
    let file = directory.join("registry.ndjson");
    std::fs::write(&file, registry).unwrap();
    let (data, file) = (directory.join("data").display().to_string(), file.display().to_string());
    let given = ["--data-dir", &data, "--import", &file];
    let anywhere = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let command = arguments(clap::Command::new("serve").no_binary_name(true));
    let given = command.get_matches_from([&given[..], &anywhere, more].concat());
    Server::start(settings::read(&given, &[]).unwrap()).unwrap()
}
