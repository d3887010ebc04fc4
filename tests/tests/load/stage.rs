//! The server with its registry, and a short run against it.
//!
//! Verdicts are judged as if the generator had never been late: what links and faults do to requests
//! is counted, and a busy machine does not undo it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use loadtest::execution::{Execution, Watch};
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::scenario::Scenario;
use loadtest::verdict::{Outcome, Verdict, judge};
use tests::server::{Server, binary};

const HOLDERS: &str = "2000";

/// A registry file and the server that imported it.
pub struct Stage {
    pub directory: tempfile::TempDir,
    pub registry: PathBuf,
    pub server: Server,
}

impl Stage {
    pub fn set() -> Stage {
        Stage::set_by(Command::new(binary()))
    }

    /// The same with a command to which the arguments of the server are added.
    pub fn set_by(server: Command) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("registry.ndjson");
        let mut generate = Command::new(binary());
        generate.args(["generate", "--holders", HOLDERS, "--seed", "7", "--out"]).arg(&registry);
        assert!(generate.status().unwrap().success());
        let import = registry.display().to_string();
        let data = directory.path().join("data");
        let server = Server::start_by(server, &data, &["--import", &import]);
        Stage { directory, registry, server }
    }

    /// Runs a scenario of some seconds at an address.
    pub fn run(&self, address: SocketAddr, more: &str) -> (Run, Verdict) {
        self.run_and_watch(&self.scenario(address, more), &mut ())
    }

    /// Runs any scenario.
    pub fn run_and_watch(&self, scenario: &str, watch: &mut dyn Watch) -> (Run, Verdict) {
        let scenario = Scenario::parse(scenario).unwrap();
        let registry = Registry::load(&self.registry, 100_000, scenario.seed).unwrap();
        let execution = Execution::prepare(&scenario, &registry).unwrap();
        let run = execution.run(scenario.arrivals.as_ref(), watch).unwrap();
        let mut punctual = run.clone();
        punctual.seconds.iter_mut().for_each(|second| second.lateness_p99 = 0);
        let verdict = judge(&punctual);
        (run, verdict)
    }

    pub fn scenario(&self, address: SocketAddr, more: &str) -> String {
        format!(
            "name = \"test\"\nseed = 11\n{more}\n\
             [target]\nurl = \"http://{address}\"\nfresh = true\n\
             [registry]\npath = \"{}\"\n\
             [arrivals]\nkind = \"poisson\"\nrate = 200\n\
             [connections]\ninitial = 8\nmax = 1024\n\
             [probe]\ninterval_seconds = 0.2\n\
             [citizens]\nthink_seconds_min = 0.1\nthink_seconds_max = 0.5\n\
             [mix]\ncheck = 70\nconfirm = 15\ncancel = 4\nhistory = 2\nservices = 1\nbatch = 2\n\
             malformed = 3\nrepeat = 3\n",
            self.registry.display()
        )
    }
}

/// How an objective came out.
pub fn outcome(verdict: &Verdict, name: &str) -> Outcome {
    let judged = verdict.judged.iter().find(|judged| judged.name.starts_with(name));
    judged.unwrap_or_else(|| panic!("no `{name}` in {verdict:?}")).outcome
}

/// An objective is missed, and so is the run.
pub fn check_missed(verdict: &Verdict, name: &str) {
    assert_eq!(outcome(verdict, name), Outcome::Fail, "{verdict:?}");
    assert_eq!((verdict.outcome, verdict.exit_code()), (Outcome::Fail, 1));
}

pub fn counts(run: &Run) -> (u64, u64, u64, u64) {
    let mut total = loadtest::tally::Tally::default();
    run.tallies.iter().for_each(|tallied| total.add(&tallied.tally));
    (total.right, total.wrong, total.refused, total.unanswered)
}
