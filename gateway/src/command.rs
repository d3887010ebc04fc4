//! The command line: `serve`, `demo`, `import`, `generate`, `pki`.
//!
//! What is wrong with the configuration is told in one line on standard error, with exit code 2 and
//! before anything was started; any other failure has exit code 1.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::link::server::LinkStartError;
use crate::node::{self, Node, NodeError, RegistryError, chain};
use crate::server::{RunningServer, Server, ServerError};
use crate::settings::source::arguments;
use crate::settings::{self, SettingsError};
use crate::{demo, generator, logging, pki};

/// Bytes gathered before they are written to a generated file.
const WRITE_BEHIND_BYTES: usize = 1 << 20;

/// Runs the command line to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command_line().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let end = match matches.subcommand() {
        Some(("serve", matches)) => serve(matches),
        Some(("demo", matches)) => run_demo(matches),
        Some(("import", matches)) => import(matches),
        Some(("generate", matches)) => generate(matches),
        Some(("pki", matches)) => pki::command::run(matches),
        _ => Err(CommandError::usage("no such command".to_string())),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.lines.iter().for_each(|line| eprintln!("eligo: {line}"));
            ExitCode::from(error.exit_code)
        }
    }
}

/// What ends a command early.
#[derive(Debug)]
pub struct CommandError {
    /// 2 for what the caller gave, 1 for the rest.
    pub exit_code: u8,
    /// What to tell, line by line.
    pub lines: Vec<String>,
}

impl CommandError {
    /// The caller gave something unusable.
    pub fn usage(line: String) -> CommandError {
        CommandError { exit_code: 2, lines: vec![line] }
    }

    /// The machine did not do what it was asked.
    pub fn failure(line: String) -> CommandError {
        CommandError { exit_code: 1, lines: vec![line] }
    }
}

impl From<SettingsError> for CommandError {
    fn from(error: SettingsError) -> CommandError {
        CommandError::usage(error.to_string())
    }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> CommandError {
        CommandError { exit_code: 2, lines: error.lines() }
    }
}

impl From<NodeError> for CommandError {
    fn from(error: NodeError) -> CommandError {
        match error {
            // The key file lies in the directory that was configured.
            NodeError::Keys(error) => SettingsError::new("data_dir", chain(&error)).into(),
            error => CommandError::failure(chain(&error)),
        }
    }
}

impl From<ServerError> for CommandError {
    fn from(error: ServerError) -> CommandError {
        match error {
            ServerError::Import(error) => error.into(),
            ServerError::Link(LinkStartError::Settings(error)) => error.into(),
            ServerError::Node(error) => error.into(),
            ServerError::Settings(error) => error.into(),
            error => CommandError::failure(chain(&error)),
        }
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> CommandError {
        CommandError::failure(chain(&error))
    }
}

fn command_line() -> Command {
    let number = |name: &'static str, absent: &'static str| {
        Arg::new(name).long(name).value_parser(value_parser!(u64)).default_value(absent)
    };
    let path = |name: &'static str| Arg::new(name).value_parser(value_parser!(PathBuf));
    let serve = Command::new("serve").about("Answers checks and confirmations");
    let demo = Command::new("demo").about("Generates a registry and serves it");
    let import = Command::new("import").about("Imports registry files while no server runs");
    let generate = Command::new("generate").about("Writes a realistic registry");
    Command::new("eligo")
        .about("Real-time authorization for benefit cards")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand(arguments(serve))
        .subcommand(
            arguments(demo).arg(number("holders", "100000")).arg(
                Arg::new("load")
                    .long("load")
                    .num_args(0)
                    .help("runs the load tester and prints its verdict"),
            ),
        )
        .subcommand(
            arguments(import)
                .mut_arg("import", |argument| argument.hide(true))
                .arg(path("files").value_name("FILE").num_args(1..).required(true)),
        )
        .subcommand(
            generate
                .arg(number("holders", "100000"))
                .arg(number("seed", "1"))
                .arg(path("out").long("out").value_name("FILE").required(true)),
        )
        .subcommand(pki::command::arguments())
}

fn serve(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = settings::read(matches, &[])?;
    logging::start(&settings.log)?;
    let server = Server::start(settings)?;
    until_told(server, |_| Ok(()))
}

fn run_demo(matches: &ArgMatches) -> Result<(), CommandError> {
    let holders = matches.get_one::<u64>("holders").copied().unwrap_or_default();
    let directory = tempfile::Builder::new().prefix("eligo-demo").tempdir()?;
    let data_dir = directory.path().join("data").display().to_string();
    let defaults = [("data_dir", data_dir), ("log", "warn".to_string())];
    let mut settings = settings::read(matches, &defaults)?;
    logging::start(&settings.log)?;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let is_loaded = matches.get_flag("load");
    if is_loaded && settings.tls.is_some() {
        return Err(CommandError::usage("`--load` speaks to a server without TLS".to_string()));
    }
    println!("generating {holders} holders");
    let registry = demo::generate(directory.path(), holders)?;
    settings.import.push(registry.clone());
    let server = Server::start(settings)?;
    if is_loaded {
        return load(server, &registry);
    }
    until_told(server, |server| demo::print(server, scheme))
}

/// Runs a short scenario of the load tester against the server, then stops it.
fn load(server: RunningServer, registry: &Path) -> Result<(), CommandError> {
    let url = format!("http://{}", server.http_addr);
    let end = loadtest::command::demonstrate(&url, registry);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(server.stop())?;
    match end {
        Ok(0) => Ok(()),
        Ok(exit_code) => Err(CommandError {
            exit_code,
            lines: vec!["the objectives do not hold, or cannot be judged".to_string()],
        }),
        Err(line) => Err(CommandError::failure(line)),
    }
}

/// Says that the server answers, then waits for SIGTERM or SIGINT and stops it.
fn until_told(
    server: RunningServer,
    introduce: impl FnOnce(&RunningServer) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (http, admin) = (server.http_addr, server.admin_addr);
        let mut out = io::stdout().lock();
        let quic = server.link.as_ref().map(|link| link.address.to_string());
        let quic = quic.as_deref().unwrap_or("-");
        writeln!(out, "ready http={http} admin={admin} quic={quic}")?;
        out.flush()?;
        drop(out);
        introduce(&server)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        server.stop().await?;
        Ok(())
    })
}

fn import(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = settings::read(matches, &[])?;
    logging::start(&settings.log)?;
    let files: Vec<&PathBuf> = matches.get_many("files").into_iter().flatten().collect();
    let node = Node::open(&settings)?;
    let mut end = Ok(());
    for file in files {
        match node::import(&node.engine, file) {
            Ok(report) => println!(
                "{}: revision {}, {} lines, {} changes",
                file.display(),
                report.revision,
                report.lines,
                report.changes
            ),
            Err(error) => {
                end = Err(error.into());
                break;
            }
        }
    }
    node.engine.stop();
    end
}

fn generate(matches: &ArgMatches) -> Result<(), CommandError> {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let Some(path) = matches.get_one::<PathBuf>("out") else {
        return Err(CommandError::usage("`--out` is required".to_string()));
    };
    let named = |error: io::Error| CommandError::failure(format!("{}: {error}", path.display()));
    let mut out = BufWriter::with_capacity(WRITE_BEHIND_BYTES, File::create(path).map_err(named)?);
    generator::write(number("holders"), number("seed"), &mut out).map_err(named)?;
    out.into_inner().map_err(|error| named(error.into_error()))?.sync_all().map_err(named)
}

/// What clap has to say, in one line unless help was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or("wrong usage");
    eprintln!("eligo: {}", line.strip_prefix("error: ").unwrap_or(line));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command_line().debug_assert();
    }

    #[test]
    fn the_commands_are_the_documented_ones() {
        let check = |line: &str, expected: bool| {
            let matches = command_line().try_get_matches_from(line.split(' '));
            assert_eq!(matches.is_ok(), expected, "{line}");
        };
        check("eligo serve --data-dir d --http 127.0.0.1:0 --admin 127.0.0.1:0", true);
        check("eligo serve --config c --import a b --clock manual:2025-06-02T10:00:00Z", true);
        check("eligo demo", true);
        check("eligo demo --holders 10", true);
        check("eligo import --data-dir d a b", true);
        check("eligo import --data-dir d", false);
        check("eligo generate --holders 10 --seed 1 --out f", true);
        check("eligo generate --holders 10", false);
        check("eligo pki init --pki-dir d", true);
        check("eligo pki server --pki-dir d --days 90 localhost 127.0.0.1", true);
        check("eligo pki device --pki-dir d 7 100-199", true);
        check("eligo pki revoke --pki-dir d --terminal 7", true);
        check("eligo pki revoke --pki-dir d --terminal 7 --serial 00", false);
        check("eligo pki revoke --pki-dir d", false);
        check("eligo pki list --pki-dir d", true);
        check("eligo", false);
        check("eligo serve --nonsense", false);
    }
}
