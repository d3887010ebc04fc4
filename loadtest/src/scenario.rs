//! The scenario: one TOML file that says everything about a run.
//!
//! It is read once into a checked struct; every error names the field. Secrets are not in it: the
//! token of administration comes from an environment variable that it names, client secrets from the
//! registry file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::arrivals::Arrivals;
use crate::calendar::Wall;
use crate::objective::{Objective, Terms};
use crate::run::Load;
use crate::{downtime, faults};

mod bounds;
pub mod fleet;

/// The largest scenario file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    /// Everything random follows it.
    #[serde(default)]
    pub seed: u64,
    /// How long requests are due, warm-up included.
    pub duration_seconds: f64,
    /// The first part of the run, which is not counted.
    #[serde(default)]
    pub warm_up_seconds: f64,
    /// How long after it was due a request counts as missed.
    #[serde(default = "ten")]
    pub give_up_seconds: f64,
    /// Generator threads; each has its own connections and holders.
    #[serde(default = "one")]
    pub threads: u32,
    /// From which month of service on the limits count (D0 §6.4): 1 to 3 are the first three.
    #[serde(default = "fourth")]
    pub month_of_service: u32,
    /// The server.
    pub target: Target,
    /// The data.
    pub registry: RegistryFile,
    /// When requests are due; needed by an open load.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Open or closed.
    #[serde(default)]
    pub load: LoadShape,
    /// Validators on the link instead of counters.
    #[serde(default)]
    pub fleet: Option<fleet::Fleet>,
    /// Connections of a thread.
    #[serde(default)]
    pub connections: Connections,
    /// Which requests.
    #[serde(default)]
    pub mix: Mix,
    /// Who asks, and how.
    #[serde(default)]
    pub citizens: Citizens,
    /// What the server has configured.
    #[serde(default)]
    pub dialect: Dialect,
    /// Whether the stricter of the built-in limits decide too.
    #[serde(default)]
    pub strict: bool,
    /// Limits beside the built-in ones.
    #[serde(default)]
    pub objectives: Vec<Objective>,
    /// Commands at set times.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Windows of planned work.
    #[serde(default)]
    pub planned: Vec<Planned>,
    /// The probe beside the load.
    #[serde(default)]
    pub probe: Probe,
}

/// The server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// The certificate of the authority that signed the server's, PEM.
    pub ca: Option<PathBuf>,
    /// The listener of administration.
    pub admin_url: Option<String>,
    /// The environment variable that holds the token of administration.
    pub admin_token_env: Option<String>,
    /// The server's process, if it is local.
    pub pid: Option<u32>,
    /// A file with its id, read again after every fault.
    pub pid_file: Option<PathBuf>,
    /// Whether no use was recorded before the run and nobody else records any: then limits and the
    /// history are known exactly. Otherwise what is recorded meanwhile may be others'.
    #[serde(default)]
    pub fresh: bool,
    /// The instant at which the server's clock stands still, RFC 3339.
    pub now: Option<String>,
}

/// The registry file that the server imported.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// Where it is.
    pub path: PathBuf,
    /// How many of its holders come.
    #[serde(default = "holders")]
    pub holders_max: usize,
    /// Which of several processes this one is, from 0: each has its own holders.
    #[serde(default)]
    pub share: u32,
    /// How many processes there are.
    #[serde(default = "one")]
    pub shares: u32,
}

/// Open or closed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadShape {
    /// Which.
    pub kind: Load,
    /// Of a closed load: requests that are under way together, of all threads.
    pub users: u32,
    /// Whether the processors of this machine never sleep meanwhile.
    pub awake: bool,
}

/// Connections of all threads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Opened before the run.
    pub initial: u32,
    /// Opened at most.
    pub max: u32,
}

/// Weights of the kinds of requests.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Checks.
    pub check: f64,
    /// Confirms of open checks.
    pub confirm: f64,
    /// Cancels of open checks.
    pub cancel: f64,
    /// History requests.
    pub history: f64,
    /// Services requests.
    pub services: f64,
    /// Batches of checks.
    pub batch: f64,
    /// Requests that must be refused.
    pub malformed: f64,
    /// Confirms and cancels that were answered before, as they were or changed.
    pub repeat: f64,
}

/// Who asks, and how.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Citizens {
    /// How unevenly holders come: 0 is all alike, 1 is usual.
    pub zipf_exponent: f64,
    /// Checks in one batch.
    pub batch_size: usize,
    /// The least time between a check and its confirm or cancel.
    pub think_seconds_min: f64,
    /// The most.
    pub think_seconds_max: f64,
    /// The share of checks with something wrong on purpose: an unknown card, another organization's
    /// terminal, a service that is not offered.
    pub negative: f64,
    /// By what holders are identified.
    pub identifiers: Identifiers,
}

/// Weights of the kinds of identifiers.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Identifiers {
    /// Client codes, at organizations of connection types 1 and 3.
    pub client_code: f64,
    /// Insurance numbers, at organizations of connection type 2.
    pub snils: f64,
    /// Social cards, at organizations of connection types 1 and 3.
    pub social_card: f64,
}

/// What the server has configured otherwise than usual.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialect {
    /// `resultCode` of a success (C-10).
    pub success_result_code: u32,
    /// How long a check stays open.
    pub checked_ttl_seconds: u64,
}

/// A command at a set time.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, from the beginning of the run.
    pub at_seconds: f64,
    /// What reports call it.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// A window of planned work. It is no downtime if it was announced at least 24 h before (C-42).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// When it was announced, RFC 3339.
    pub announced: String,
    /// When it begins, RFC 3339.
    pub from: String,
    /// When it ends, RFC 3339.
    pub to: String,
}

/// The probe beside the load.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// From one probe to the next.
    pub interval_seconds: f64,
}

impl Default for LoadShape {
    fn default() -> LoadShape {
        LoadShape { kind: Load::Open, users: 64, awake: false }
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { initial: 64, max: 1_024 }
    }
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            check: 80.0,
            confirm: 15.0,
            cancel: 3.0,
            history: 1.0,
            services: 1.0,
            batch: 0.0,
            malformed: 0.0,
            repeat: 0.0,
        }
    }
}

impl Default for Citizens {
    fn default() -> Citizens {
        Citizens {
            zipf_exponent: 1.0,
            batch_size: 100,
            think_seconds_min: 2.0,
            think_seconds_max: 20.0,
            negative: 0.02,
            identifiers: Identifiers::default(),
        }
    }
}

impl Default for Identifiers {
    fn default() -> Identifiers {
        Identifiers { client_code: 60.0, snils: 20.0, social_card: 20.0 }
    }
}

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect { success_result_code: 0, checked_ttl_seconds: 86_400 }
    }
}

impl Default for Probe {
    fn default() -> Probe {
        Probe { interval_seconds: 5.0 }
    }
}

fn one() -> u32 {
    1
}

fn fourth() -> u32 {
    4
}

fn ten() -> f64 {
    10.0
}

fn holders() -> usize {
    crate::registry::HOLDERS_MAX
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A field holds what it must not.
    #[error("`{field}` {fault}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// Not TOML, an unknown or a missing field, or a wrong type.
    #[error("the scenario is not well formed: {0}")]
    Form(#[from] toml::de::Error),
    /// The file cannot be read.
    #[error("the scenario cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Scenario {
    /// Reads a file. Paths in it count from the directory that holds it.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        if fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("the file is too large").into());
        }
        let mut scenario = Scenario::parse(&fs::read_to_string(path)?)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let target = &mut scenario.target;
        let paths =
            [target.ca.as_mut(), target.pid_file.as_mut(), Some(&mut scenario.registry.path)];
        for path in paths.into_iter().flatten() {
            *path = directory.join(&*path);
        }
        scenario.arrivals.iter_mut().for_each(|arrivals| arrivals.count_from(directory));
        if let Some(fleet) = &mut scenario.fleet {
            fleet.pki_dir = directory.join(&fleet.pki_dir);
        }
        Ok(scenario)
    }

    /// Reads text.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The instant at which the server's clock stands still.
    pub fn frozen(&self) -> Option<Wall> {
        self.target.now.as_deref().and_then(Wall::parse)
    }

    /// What the run is judged by.
    pub fn terms(&self) -> Terms {
        Terms {
            month_of_service: self.month_of_service,
            strict: self.strict,
            objectives: self.objectives.clone(),
        }
    }

    /// Windows of planned work, from the beginning of the run.
    pub fn planned_windows(&self, begun: Wall) -> Vec<downtime::Planned> {
        let seconds = |text: &str| {
            let instant = Wall::parse(text).unwrap_or_default();
            (instant.0 - begun.0) as f64 / 1e6
        };
        let window = |planned: &Planned| downtime::Planned {
            announced_seconds: seconds(&planned.announced),
            from_seconds: seconds(&planned.from),
            to_seconds: seconds(&planned.to),
        };
        self.planned.iter().map(window).collect()
    }

    /// Commands and their times.
    pub fn planned_faults(&self) -> Vec<faults::Planned> {
        let fault = |fault: &Fault| faults::Planned {
            name: fault.name.clone(),
            at: Duration::from_secs_f64(fault.at_seconds),
            command: fault.command.clone(),
        };
        self.faults.iter().map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        name = "least"
        duration_seconds = 10
        target.url = "http://127.0.0.1:8080"
        registry.path = "registry.ndjson"
        arrivals = { kind = "constant", rate = 10 }
    "#;

    fn check(more: &str, expected: &str) {
        let text = format!("{LEAST}\n{more}");
        let found = Scenario::parse(&text).map(|_| ()).map_err(|error| error.to_string());
        let found = found.err().unwrap_or_default();
        assert!(found.contains(expected), "{more}: {found}");
        assert!(!expected.is_empty() || found.is_empty(), "{more}: {found}");
    }

    #[test]
    fn little_must_be_said() {
        let scenario = Scenario::parse(LEAST).unwrap();
        assert_eq!(scenario.mix, Mix::default());
        assert_eq!(scenario.registry.holders_max, 100_000);
        assert_eq!(scenario.probe.interval_seconds, 5.0);
        assert_eq!(scenario.month_of_service, 4);
        assert!(!scenario.target.fresh && scenario.frozen().is_none());
    }

    #[test]
    fn windows_count_from_the_beginning() {
        let window = "[[planned]]\nannounced = \"2026-06-01T09:00:00Z\"\n\
                      from = \"2026-06-02T10:00:00Z\"\nto = \"2026-06-02T10:05:00Z\"";
        let scenario = Scenario::parse(&format!("{LEAST}\n{window}")).unwrap();
        let begun = Wall::parse("2026-06-02T09:59:00Z").unwrap();
        let expected = downtime::Planned {
            announced_seconds: -89_940.0,
            from_seconds: 60.0,
            to_seconds: 360.0,
        };
        assert_eq!(scenario.planned_windows(begun), [expected]);
    }

    #[test]
    fn the_examples_are_well_formed() {
        for name in ["peak-hour.toml", "demo.toml", "fleet.toml"] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
            let scenario = Scenario::load(&directory.join(name)).unwrap();
            assert!(scenario.registry.path.starts_with(directory));
        }
    }

    #[test]
    fn faults_name_the_field() {
        check("", "");
        check("[mixx]", "mixx");
        check("[mix]\nchek = 1", "chek");
        check("[mix]\ncheck = -1", "`mix.check` is out of range");
        check("[mix]\ncheck = nan", "`mix.check` is out of range");
        let none = "[mix]\ncheck = 0\nconfirm = 0\ncancel = 0\nhistory = 0\nservices = 0";
        check(none, "`mix` has no weight above 0");
        check("[citizens]\nthink_seconds_min = 30", "`citizens.think_seconds_min`");
        check("[citizens]\nthink_seconds_max = 1e6", "`citizens.think_seconds_max`");
        check("threads = 0", "`threads` is out of range");
        check("warm_up_seconds = 11", "`warm_up_seconds` is out of range");
        check("[connections]\nmax = 0", "`connections.max` is out of range");
        check("[registry]\nshare = 1\npath = \"x\"", "registry");
        check("registry.share = 1", "`registry.share` is out of range");
        check("target.now = \"today\"", "`target.now` is no instant");
        check("target.now = \"2025-06-02T10:00:00Z\"", "");
        check(
            "[[faults]]\nat_seconds = 20\nname = \"a\"\ncommand = [\"b\"]",
            "`faults.0.at_seconds`",
        );
        check(
            "[[faults]]\nat_seconds = 2\nname = \"a\"\ncommand = []",
            "`faults.0.command` is empty",
        );
        let fleet = "[fleet]\nlink = \"x:1\"\npki_dir = \"pki\"\ndevices = 10";
        check(fleet, "`mix.history` is out of range");
        let mix = "[mix]\nhistory = 0\nservices = 0";
        check(&format!("{mix}\n{fleet}"), "`citizens.identifiers.snils` is out of range");
        let mix = format!("{mix}\n[citizens]\nidentifiers.snils = 0");
        check(&format!("{mix}\n{fleet}"), "");
        check(&format!("threads = 2\n{mix}\n{fleet}"), "`threads` is out of range");
        let cut = "cuts = [{ from_seconds = 3, to_seconds = 2 }]";
        check(&format!("{mix}\n{fleet}\n{cut}"), "`fleet.cuts.0.to_seconds` is out of range");
        let objective =
            "[[objectives]]\nname = \"a\"\nlimit.share = { above_ms = 100, percent_max = 1 }";
        check(objective, "");
        check(&objective.replace("percent_max", "percent_most"), "percent_most");
        check(&objective.replace("100", "-1"), "`objectives.0` a limit is out of its range");
        let window = "[[planned]]\nannounced = \"x\"\nfrom = \"y\"\nto = \"z\"";
        check(window, "`planned.0.announced` is no instant");
        let text = LEAST.replace("http:", "https:");
        let error = Scenario::parse(&text).unwrap_err().to_string();
        assert_eq!(error, "`target.ca` is missing beside an `https` url");
        let text = LEAST.replace("arrivals", "# arrivals");
        let error = Scenario::parse(&text).unwrap_err().to_string();
        assert_eq!(error, "`arrivals` is missing, which an open load needs");
    }
}
