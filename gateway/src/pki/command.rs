//! `eligo pki`: makes, lists and revokes certificates.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use engine::ids::TerminalId;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::command::CommandError;
use crate::pki::Serial;
use crate::pki::authority::{Authority, PkiError, Term};
use crate::pki::files::{Issued, PkiDirectory, RevokedList};
use crate::pki::trust::Revoked;

/// Terminals of one call.
const TERMINALS_MAX: usize = 1_000_000;
/// How far a new certificate reaches back, for devices whose clock is behind.
const CLOCK_SLACK: Duration = Duration::hours(1);

impl From<PkiError> for CommandError {
    fn from(error: PkiError) -> CommandError {
        CommandError::failure(error.to_string())
    }
}

/// The arguments.
pub fn arguments() -> Command {
    let directory = || {
        let path = value_parser!(PathBuf);
        Arg::new("pki_dir").long("pki-dir").env("ELIGO_PKI_DIR").value_parser(path).required(true)
    };
    let days = |absent: &'static str| {
        Arg::new("days").long("days").value_parser(value_parser!(u32)).default_value(absent)
    };
    let from = || Arg::new("from").long("valid-from").help("RFC 3339; now without");
    let terminal = || Arg::new("terminal").long("terminal").value_parser(value_parser!(u64));
    let serial = Arg::new("serial").long("serial").help("32 hexadecimal digits");
    let init = Command::new("init").about("Makes an authority");
    let server = Command::new("server").about("Makes the server's certificate");
    let device = Command::new("device").about("Makes certificates of terminals");
    let revoke = Command::new("revoke").about("Revokes certificates for ever");
    let list = Command::new("list").about("Lists the certificates of terminals");
    Command::new("pki")
        .about("Certificates of the validators' link")
        .subcommand_required(true)
        .subcommand(init.arg(directory()).arg(days("3650")).arg(from()))
        .subcommand(
            server.arg(directory()).arg(days("825")).arg(from()).arg(
                Arg::new("names")
                    .value_name("NAME")
                    .num_args(1..)
                    .required(true)
                    .help("host names and addresses under which devices know the server"),
            ),
        )
        .subcommand(
            device.arg(directory()).arg(days("730")).arg(from()).arg(
                Arg::new("terminals")
                    .value_name("TERMINAL")
                    .num_args(1..)
                    .required(true)
                    .action(ArgAction::Append)
                    .help("numbers, or ranges like 100-199"),
            ),
        )
        .subcommand(
            revoke
                .arg(directory())
                .arg(terminal())
                .arg(serial)
                .group(ArgGroup::new("whom").args(["terminal", "serial"]).required(true)),
        )
        .subcommand(list.arg(directory()).arg(terminal()))
}

/// Runs one of them.
pub fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(CommandError::usage("no such command".to_string()));
    };
    let Some(path) = matches.get_one::<PathBuf>("pki_dir") else {
        return Err(CommandError::usage("`--pki-dir` is required".to_string()));
    };
    let directory = PkiDirectory::at(path);
    match name {
        "init" => Ok(Authority::create(&directory, term(matches)?)?),
        "server" => {
            let names: Vec<String> =
                matches.get_many("names").into_iter().flatten().cloned().collect();
            Ok(Authority::open(&directory)?.issue_server(&names, term(matches)?)?)
        }
        "device" => {
            let terminals = terminals(matches)?;
            Ok(Authority::open(&directory)?.issue_devices(&terminals, term(matches)?)?)
        }
        "revoke" => revoke(&directory, matches),
        _ => list(&directory, matches),
    }
}

fn term(matches: &ArgMatches) -> Result<Term, CommandError> {
    let days = matches.get_one::<u32>("days").copied().unwrap_or_default();
    let from = match matches.get_one::<String>("from") {
        Some(text) => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            CommandError::usage("`--valid-from` is no RFC 3339 instant".to_string())
        })?,
        None => OffsetDateTime::now_utc() - CLOCK_SLACK,
    };
    let until = from.checked_add(Duration::days(i64::from(days)));
    let until = until.ok_or_else(|| CommandError::usage("`--days` is too far".to_string()))?;
    Ok(Term { from, until })
}

fn terminals(matches: &ArgMatches) -> Result<Vec<TerminalId>, CommandError> {
    let given = matches.get_many::<String>("terminals").into_iter().flatten();
    let mut terminals = Vec::new();
    for text in given {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
            return Err(CommandError::usage(format!("`{text}` is no terminal")));
        };
        let count = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX);
        if first == 0 || last < first || count >= TERMINALS_MAX - terminals.len() {
            return Err(CommandError::usage(format!("`{text}` is no range of terminals")));
        }
        terminals.extend((first..=last).map(TerminalId));
    }
    Ok(terminals)
}

fn revoke(directory: &PkiDirectory, matches: &ArgMatches) -> Result<(), CommandError> {
    let whom = match (matches.get_one::<u64>("terminal"), matches.get_one::<String>("serial")) {
        (Some(terminal), _) => Revoked::Terminal(TerminalId(*terminal)),
        (None, text) => match text.and_then(|text| Serial::parse(text)) {
            Some(serial) => Revoked::Serial(serial),
            None => return Err(CommandError::usage("`--serial` is no serial number".to_string())),
        },
    };
    let serials = whom.serials(directory)?;
    if serials.is_empty() {
        return Err(CommandError::failure(
            "no certificate of this terminal is noted here".to_string(),
        ));
    }
    Ok(directory.revoke(&serials)?)
}

fn list(directory: &PkiDirectory, matches: &ArgMatches) -> Result<(), CommandError> {
    let wanted = matches.get_one::<u64>("terminal").copied().map(TerminalId);
    let RevokedList { serials: revoked, damaged_lines } = directory.revoked()?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut out = BufWriter::new(io::stdout().lock());
    for Issued { serial, terminal, until_unix_seconds } in directory.issued()? {
        if wanted.is_some_and(|wanted| wanted != terminal) {
            continue;
        }
        let state = match (revoked.contains(&serial), until_unix_seconds < now) {
            (true, _) => "revoked",
            (false, true) => "expired",
            (false, false) => "valid",
        };
        let until = OffsetDateTime::from_unix_timestamp(until_unix_seconds).ok();
        let until = until.and_then(|until| until.format(&Rfc3339).ok()).unwrap_or_default();
        writeln!(out, "{serial} terminal {terminal} until {until} {state}")?;
    }
    out.flush()?;
    match damaged_lines {
        0 => Ok(()),
        _ => Err(CommandError::failure(format!("{damaged_lines} lines of `revoked` are damaged"))),
    }
}
