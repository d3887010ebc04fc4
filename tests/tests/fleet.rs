//! A small fleet against the real server over a bad path: nothing is answered wrongly, nothing is
//! lost, and what the link does not bring is decided by the devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;

use loadtest::execution::{Execution, Watch};
use loadtest::fleet::figures::FleetFigures;
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::scenario::Scenario;
use loadtest::second::Second;
use loadtest::tally::{Kind, Tally};
use tests::devices::{Depot, SERVER_NAME};
use tests::server::{ADMIN_TOKEN, Server, binary};

const HOLDERS: &str = "2000";
/// The terminals of the generated registry's first organizations.
const TERMINALS: std::ops::RangeInclusive<u64> = 1..=600;

/// A registry file, certificates, and the server that knows both.
struct Stage {
    registry: PathBuf,
    pki: Depot,
    server: Server,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn set() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("registry.ndjson");
        let mut generate = Command::new(binary());
        generate.args(["generate", "--holders", HOLDERS, "--seed", "7", "--out"]).arg(&registry);
        assert!(generate.status().unwrap().success());
        let pki = Depot::make(directory.path(), &TERMINALS.collect::<Vec<_>>());
        let import = registry.display().to_string();
        let more = ["--import", &import, "--quic", "127.0.0.1:0", "--quic-pki-dir", &pki.path()];
        let server = Server::start(&directory.path().join("data"), &more);
        let stage = Stage { registry, pki, server, _directory: directory };
        stage.build_registries();
        stage
    }

    fn build_registries(&self) {
        let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
        let mut client = tests::http::Client::connect(self.server.admin);
        let answer = client.post("/admin/registry", &[&authorization], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Runs a fleet for some seconds; builds new registries after the first.
    fn run(&self, seconds: u32, fleet: &str) -> Run {
        let text = format!(
            "name = \"test\"\nseed = 11\nduration_seconds = {seconds}\n\
             [target]\nurl = \"http://{}\"\nfresh = true\n\
             [registry]\npath = \"{}\"\n\
             [arrivals]\nkind = \"poisson\"\nrate = 200\n\
             [probe]\ninterval_seconds = 0.5\n\
             [citizens]\nthink_seconds_min = 0.1\nthink_seconds_max = 0.5\n\
             identifiers = {{ client_code = 60, social_card = 40, snils = 0 }}\n\
             [mix]\ncheck = 75\nconfirm = 20\ncancel = 5\nhistory = 0\nservices = 0\n\
             [fleet]\nlink = \"{}\"\npki_dir = \"{}\"\nserver_name = \"{SERVER_NAME}\"\n{fleet}\n",
            self.server.http,
            self.registry.display(),
            self.server.quic.unwrap(),
            self.pki.path(),
        );
        let scenario = Scenario::parse(&text).unwrap();
        let registry = Registry::load(&self.registry, 100_000, scenario.seed).unwrap();
        let execution = Execution::prepare(&scenario, &registry).unwrap();
        let mut builder = Builder { stage: self, is_done: false };
        let run = execution.run(scenario.arrivals.as_ref(), &mut builder).unwrap();
        assert_eq!(self.server.log().alarms(), Vec::<String>::new());
        run
    }
}

/// Builds new registries after the first second.
struct Builder<'a> {
    stage: &'a Stage,
    is_done: bool,
}

impl Watch for Builder<'_> {
    fn second(&mut self, _second: &Second) -> ControlFlow<()> {
        if !std::mem::replace(&mut self.is_done, true) {
            self.stage.build_registries();
        }
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
}

fn checks(run: &Run) -> Tally {
    let mut checks = Tally::default();
    let tallies = run.tallies.iter().filter(|tallied| tallied.kind == Kind::Check);
    tallies.for_each(|tallied| checks.add(&tallied.tally));
    checks
}

fn wrong(run: &Run) -> u64 {
    run.tallies.iter().map(|tallied| tallied.tally.wrong).sum()
}

/// Every trip that was recorded is answered as it must be, once.
fn assert_trips_are_whole(fleet: &FleetFigures) {
    let trips = &fleet.trips;
    assert_eq!((trips.lost, trips.doubled, trips.wrong, trips.refused), (0, 0, 0, 0), "{fleet:?}");
    assert_eq!(trips.answered(), trips.recorded, "{fleet:?}");
    assert!(trips.recorded > 0, "{fleet:?}");
}

#[test]
fn a_bad_path_costs_time_but_no_answer() {
    let stage = Stage::set();
    let fleet = "devices = 30\ndevices_per_socket = 3\n\
         uploads = { every_seconds = 0.5, repeated = 0.2 }\n\
         path = { rtt_ms = 20, jitter_ms = 5, loss_percent = 2, reorder_percent = 3, \
         duplicate_percent = 2 }\n\
         cuts = [{ from_seconds = 2, to_seconds = 4, percent = 60 }]\n\
         away = [{ from_seconds = 3, to_seconds = 5, percent = 30 }]\n\
         rebind_seconds = [1, 6]";
    let run = stage.run(8, fleet);
    assert_eq!(wrong(&run), 0, "{:?}", run.wrong_answers);
    let checks = checks(&run);
    assert_eq!((checks.unanswered, checks.refused), (0, 0), "{checks:?}");
    assert!(checks.right > 100 && checks.offline > 0, "{checks:?}");
    let audit = run.audit.unwrap();
    assert!(audit.is_clean() && audit.acknowledged > 20, "{audit:?}");
    let fleet = run.fleet.unwrap();
    assert_eq!((fleet.connected, fleet.registries.failed), (30, 0), "{fleet:?}");
    let relay = fleet.relay.unwrap();
    assert!(relay.lost > 0 && relay.cut > 0 && relay.reordered > 0, "{relay:?}");
    assert_trips_are_whole(&fleet);
}

#[test]
fn without_a_registry_a_cut_leaves_checks_unanswered() {
    let stage = Stage::set();
    let fleet = "devices = 20\nregistry = false\n\
         cuts = [{ from_seconds = 1, to_seconds = 3 }]\n\
         uploads = { every_seconds = 0.5 }";
    let run = stage.run(5, fleet);
    assert_eq!(wrong(&run), 0, "{:?}", run.wrong_answers);
    let checks = checks(&run);
    assert_eq!(checks.offline, 0, "{checks:?}");
    assert!(checks.unanswered > 20 && checks.right > 20, "{checks:?}");
}

#[test]
fn a_morning_depot_loses_no_trip() {
    let stage = Stage::set();
    let fleet = "devices = 20\nuploads = { every_seconds = 0.5, trips_max = 64, repeated = 0.1 }\n\
         depot = { devices = 40, at_seconds = 3, within_seconds = 1, trips = 100 }";
    let run = stage.run(6, fleet);
    assert_eq!(wrong(&run), 0, "{:?}", run.wrong_answers);
    let fleet = run.fleet.unwrap();
    let depot = fleet.depot.unwrap();
    assert_eq!((depot.devices, depot.done, depot.trips), (40, 40, 4_000), "{fleet:?}");
    assert!(depot.done_seconds.is_some());
    assert_trips_are_whole(&fleet);
    assert!(fleet.trips.accepted > 4_000 && fleet.registries.failed == 0, "{fleet:?}");
}
