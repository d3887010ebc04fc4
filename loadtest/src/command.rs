//! The command line: `run`, `fleet`, `peak`, `selfcheck`, `compare`, `merge`, `report`, `rules`.
//!
//! Exit codes: 0 all objectives hold, 1 one is missed, 2 the command cannot be carried out as given,
//! 3 the run cannot be judged.
//!
//! SIGINT or SIGTERM ends a run early, with its report and verdict; a second one ends the process.

use std::ffi::OsString;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, value_parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::arrivals::{Arrivals, Shape};
use crate::citizens::SKEW_SECONDS;
use crate::execution::{Execution, Watch};
use crate::live::{Figures, Screen};
use crate::openslo;
use crate::output;
use crate::peak::length::{Length, Mixture};
use crate::peak::{self, Search, Trial};
use crate::registry::Registry;
use crate::run::{Load, Run};
use crate::scenario::Scenario;
use crate::second::Second;
use crate::selfcheck::{self, Plan};
use crate::verdict::{self, Judged, Outcome, Verdict};
use crate::{compare, merge, summary};

/// The highest rate that `peak` tries unless it is told another.
const RATE_MOST: &str = "100000";

/// Between two steps of a search, so that by any clock the confirms of one are older than the next.
const STEP_PAUSE: Duration = Duration::from_secs(2 * SKEW_SECONDS.unsigned_abs() + 1);

/// What the process ends with when it is told to for the second time: 128 and the number of SIGINT.
const ABORTED: i32 = 130;

/// Runs the command line to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command_line().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let end = match matches.subcommand() {
        Some(("run", matches)) => run_scenario(matches),
        Some(("fleet", matches)) => run_fleet(matches),
        Some(("peak", matches)) => find_peak(matches),
        Some(("selfcheck", matches)) => check_self(matches),
        Some(("compare", matches)) => compare_runs(matches),
        Some(("merge", matches)) => merge_runs(matches),
        Some(("report", matches)) => report(matches),
        Some(("rules", matches)) => rules(matches),
        _ => Err(Failure("no such command".to_owned())),
    };
    match end {
        Ok(code) => ExitCode::from(code),
        Err(Failure(text)) => {
            // There is nobody left to tell.
            let _ = writeln!(io::stderr(), "eligo-load: {text}");
            ExitCode::from(2)
        }
    }
}

/// Why a command was not carried out.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Failure(text)
    }
}

fn command_line() -> Command {
    let file = |name: &'static str| {
        Arg::new(name).value_name(name).value_parser(value_parser!(PathBuf)).required(true)
    };
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_parser(value_parser!(f64))
    };
    let out = Arg::new("out")
        .long("out")
        .value_name("DIR")
        .help("where the documents go")
        .value_parser(value_parser!(PathBuf));
    let openslo = Arg::new("openslo")
        .long("openslo")
        .value_name("FILE")
        .help("objectives beside those of the scenario, OpenSLO YAML")
        .value_parser(value_parser!(PathBuf));
    Command::new("eligo-load")
        .about("Says whether a deployment holds its peak hour")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommand(
            Command::new("run")
                .about("Runs a scenario and judges it")
                .arg(file("SCENARIO"))
                .arg(openslo.clone())
                .arg(out.clone()),
        )
        .subcommand(
            Command::new("fleet")
                .about("Runs a scenario with a fleet of validators and judges it")
                .arg(file("SCENARIO"))
                .arg(openslo.clone())
                .arg(out.clone()),
        )
        .subcommand(
            Command::new("peak")
                .about("Searches the highest rate at which all objectives hold")
                .arg(file("SCENARIO"))
                .arg(number("from", "requests a second to begin with").default_value("1000"))
                .arg(number("to", "requests a second at most").default_value(RATE_MOST))
                .arg(number("precision", "percent").default_value("5")),
        )
        .subcommand(
            Command::new("selfcheck")
                .about("Proves this tool against a server that stalls on a known plan")
                .arg(
                    Arg::new("short").long("short").num_args(0).help("seconds instead of minutes"),
                ),
        )
        .subcommand(
            Command::new("compare")
                .about("Says whether two runs differ by more than noise")
                .arg(file("FIRST"))
                .arg(file("SECOND")),
        )
        .subcommand(
            Command::new("merge")
                .about("Adds up the runs of several generator processes")
                .arg(file("RUN").num_args(1..))
                .arg(out.clone().required(true)),
        )
        .subcommand(
            Command::new("report")
                .about("Writes the documents of a run again")
                .arg(file("RUN"))
                .arg(out.required(true)),
        )
        .subcommand(
            Command::new("rules")
                .about("Prints Prometheus' burn-rate rules for the objectives")
                .arg(openslo)
                .arg(
                    Arg::new("job")
                        .long("job")
                        .help("the server's name in Prometheus")
                        .default_value("eligo"),
                ),
        )
}

fn usage(error: &clap::Error) -> ExitCode {
    // There is nobody left to tell.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> &'a Path {
    matches.get_one::<PathBuf>(name).map_or(Path::new(""), PathBuf::as_path)
}

/// Runs the scenario of the demonstration against a server that imported `registry`; returns the exit
/// code, or why there is none.
pub fn demonstrate(url: &str, registry: &Path) -> Result<u8, String> {
    let demonstrate = || -> Result<u8, Failure> {
        let mut scenario = Scenario::parse(include_str!("../scenarios/demo.toml"))?;
        scenario.target.url = url.to_owned();
        let registry = Registry::load(registry, scenario.registry.holders_max, scenario.seed)?;
        perform(&scenario, &registry, (None, Arc::default()))
    };
    demonstrate().map_err(|Failure(text)| text)
}

fn run_fleet(matches: &ArgMatches) -> Result<u8, Failure> {
    let (scenario, registry) = load(path(matches, "SCENARIO"))?;
    if scenario.fleet.is_none() {
        return Err(Failure("the scenario has no `fleet`".to_owned()));
    }
    judged(matches, scenario, &registry)
}

fn run_scenario(matches: &ArgMatches) -> Result<u8, Failure> {
    let (scenario, registry) = load(path(matches, "SCENARIO"))?;
    if scenario.fleet.is_some() {
        return Err(Failure("`eligo-load fleet` runs a scenario with a `fleet`".to_owned()));
    }
    judged(matches, scenario, &registry)
}

fn judged(
    matches: &ArgMatches,
    mut scenario: Scenario,
    registry: &Registry,
) -> Result<u8, Failure> {
    if let Some(file) = matches.get_one::<PathBuf>("openslo") {
        scenario.objectives.extend(openslo::read(&fs::read_to_string(file)?)?);
    }
    let directory = matches.get_one::<PathBuf>("out").map(PathBuf::as_path);
    perform(&scenario, registry, (directory, interrupted()?))
}

/// Set by the first signal that asks the process to end; the second one ends it.
fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: it ends only if the flag was set before.
        flag::register_conditional_shutdown(signal, ABORTED, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn perform(
    scenario: &Scenario,
    registry: &Registry,
    (directory, interrupted): (Option<&Path>, Arc<AtomicBool>),
) -> Result<u8, Failure> {
    let execution = Execution::prepare(scenario, registry)?;
    let mut live = Live::new(scenario, interrupted);
    let mut run = execution.run(scenario.arrivals.as_ref(), &mut live)?;
    let own = output::directory_of(&run);
    let directory = directory.unwrap_or(&own);
    let written = output::write(&run, &verdict::judge(&run), directory);
    // The run took place, and is judged all the same.
    run.failures.extend(written.err().map(|error| format!("documents are missing: {error}")));
    let verdict = verdict::judge(&run);
    tell(&run, &verdict, directory);
    Ok(verdict.exit_code())
}

fn find_peak(matches: &ArgMatches) -> Result<u8, Failure> {
    let (mut scenario, registry) = load(path(matches, "SCENARIO"))?;
    let number = |name: &str| matches.get_one::<f64>(name).copied().unwrap_or_default();
    let search = Search {
        first: number("from"),
        least: 1.0,
        most: number("to"),
        precision_percent: number("precision"),
        steps_max: 40,
    };
    if !(search.first > 0.0 && search.most >= search.first && search.precision_percent > 0.0) {
        return Err(Failure(
            "`--from`, `--to` and `--precision` must rise from above 0".to_owned(),
        ));
    }
    // What one step used up is gone in the next, and what it recorded is not the next one's.
    scenario.target.fresh = false;
    scenario.load.kind = Load::Open;
    let length = Length {
        terms: scenario.terms(),
        least_seconds: scenario.duration_seconds - scenario.warm_up_seconds,
        mixture: Mixture::planned(&scenario.mix),
    };
    let peak = peak::find(&search, length, |Trial { rate, seconds }| -> Result<Run, Failure> {
        let mut step = scenario.clone();
        step.duration_seconds = seconds + step.warm_up_seconds;
        let arrivals = Arrivals::try_from(Shape::Poisson { rate })?;
        let execution = Execution::prepare(&step, &registry)?;
        print(&format!("{rate:.0} requests a second for {:.0} s\n", step.duration_seconds));
        let run = execution.run(Some(&arrivals), &mut ())?;
        let verdict = verdict::judge(&run);
        print(&format!("  {}\n", verdict.outcome.text()));
        if verdict.outcome != Outcome::Pass {
            verdict.reasons().iter().for_each(|reason| print(&format!("    {reason}\n")));
        }
        thread::sleep(STEP_PAUSE);
        Ok(run)
    })?;
    print(&peak::table(&peak));
    Ok(peak.exit_code())
}

fn check_self(matches: &ArgMatches) -> Result<u8, Failure> {
    let plan = if matches.get_flag("short") { Plan::short() } else { Plan::full() };
    let checked = selfcheck::run(&plan)?;
    print(&checked.to_string());
    Ok(match checked.verdict() {
        selfcheck::Verdict::Pass => 0,
        selfcheck::Verdict::Fail => 1,
        selfcheck::Verdict::Inconclusive => 3,
    })
}

fn compare_runs(matches: &ArgMatches) -> Result<u8, Failure> {
    let first = output::read(path(matches, "FIRST"))?;
    let second = output::read(path(matches, "SECOND"))?;
    print(&compare::table(&compare::compare(&first, &second)));
    Ok(0)
}

fn merge_runs(matches: &ArgMatches) -> Result<u8, Failure> {
    let files = matches.get_many::<PathBuf>("RUN").into_iter().flatten();
    let runs: Vec<Run> = files.map(|file| output::read(file)).collect::<io::Result<_>>()?;
    let run = merge::merge(runs)?;
    write_again(&run, path(matches, "out"))
}

fn report(matches: &ArgMatches) -> Result<u8, Failure> {
    let run = output::read(path(matches, "RUN"))?;
    write_again(&run, path(matches, "out"))
}

fn rules(matches: &ArgMatches) -> Result<u8, Failure> {
    let objectives = match matches.get_one::<PathBuf>("openslo") {
        Some(file) => openslo::read(&fs::read_to_string(file)?)?,
        None => crate::objective::contract(4),
    };
    let job = matches.get_one::<String>("job").map_or("eligo", String::as_str);
    print(&openslo::rules(&objectives, job));
    Ok(0)
}

fn load(path: &Path) -> Result<(Scenario, Registry), Failure> {
    let scenario = Scenario::load(path)?;
    let file = &scenario.registry;
    let registry = Registry::load(&file.path, file.holders_max, scenario.seed)?;
    Ok((scenario, registry))
}

/// Writes the documents of runs that took place before, and tells of them.
fn write_again(run: &Run, directory: &Path) -> Result<u8, Failure> {
    let verdict = verdict::judge(run);
    output::write(run, &verdict, directory)?;
    tell(run, &verdict, directory);
    Ok(verdict.exit_code())
}

/// Prints the figures and the verdict.
fn tell(run: &Run, verdict: &Verdict, directory: &Path) {
    let mut text = format!("\n{}\n{}\n", summary::print(run, verdict), verdict::table(verdict));
    for answer in &run.wrong_answers {
        text.push_str(&format!("wrong: {answer}\n"));
    }
    text.push_str(&format!("report: {}\n", directory.join(output::PAGE).display()));
    print(&text);
}

/// Prints; where nobody can read it the exit code says the same.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What is shown while a run goes on.
struct Live {
    screen: Screen<io::Stdout>,
    duration_seconds: f64,
    threads: u64,
    /// The row that is being added up, and of how many generators it is.
    row: Second,
    parts: u64,
    missed: u64,
    wrong: u64,
    judged: Vec<Judged>,
    interrupted: Arc<AtomicBool>,
}

impl Live {
    fn new(scenario: &Scenario, interrupted: Arc<AtomicBool>) -> Live {
        Live {
            screen: Screen::stdout(),
            duration_seconds: scenario.duration_seconds,
            threads: u64::from(scenario.threads.max(1)),
            row: Second::default(),
            parts: 0,
            missed: 0,
            wrong: 0,
            judged: Vec::new(),
            interrupted,
        }
    }

    fn show(&mut self, second: &Second) {
        self.row.add(second);
        self.parts += 1;
        self.missed += second.unanswered + second.refused;
        self.wrong += second.wrong;
        if self.parts < self.threads {
            return;
        }
        let row = std::mem::take(&mut self.row);
        self.parts = 0;
        let figures = Figures {
            at_seconds: (second.second + 1) as f64,
            duration_seconds: self.duration_seconds,
            rate: row.due,
            in_flight: row.in_flight,
            p50: row.response_p50,
            p99: row.response_p99,
            p999: row.response_p999,
            missed: self.missed,
            wrong: self.wrong,
            is_tainted: row.is_tainted(),
            judged: self.judged.clone(),
        };
        // A run goes on when nobody can see it.
        let _ = self.screen.show(&figures);
    }
}

impl Watch for Live {
    fn second(&mut self, second: &Second) -> ControlFlow<()> {
        self.show(second);
        if self.wants_end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn wants_end(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn wants_standing(&self) -> bool {
        self.screen.is_terminal()
    }

    fn standing(&mut self, run: &Run) {
        self.judged = verdict::judge(run).judged;
    }
}
