//! The load tester against the real server: what it foretells is what the server answers, and what
//! is done to the server in between, by a kill or by a bad link, is what its verdict says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
mod links;
mod stage;
mod tokens;

use std::collections::BTreeSet;
use std::process::Command;

use loadtest::execution::Execution;
use loadtest::registry::Registry;
use loadtest::scenario::Scenario;
use loadtest::verdict::Outcome;
use tests::server::{ADMIN_TOKEN, binary};

use crate::stage::{Stage, check_missed, counts, outcome};

#[test]
fn the_server_answers_as_the_oracle_foretells() {
    let stage = Stage::set();
    let (run, _) = stage.run(stage.server.http, "duration_seconds = 5");
    let (right, wrong, refused, unanswered) = counts(&run);
    assert_eq!((wrong, refused, unanswered), (0, 0, 0), "{:?}", run.wrong_answers);
    assert!(right > 500, "{right}");
    let audit = run.audit.unwrap();
    assert!(audit.is_clean() && audit.acknowledged > 20, "{audit:?}");
    assert_eq!((audit.uncertain, audit.unchecked_holders), (0, 0));
    assert_eq!(run.availability.unwrap().outages, []);
}

/// Kills the server without a word, leaves it away for a while and starts another one in its place.
fn killing(stage: &Stage) -> String {
    let script = stage.directory.path().join("kill.sh");
    let (http, data) = (stage.server.http, stage.directory.path().join("data"));
    let text = format!(
        "kill -9 {}\nsleep 2\n\
         setsid {} serve --data-dir {} --http {http} --admin 127.0.0.1:0 --log warn \
         >/dev/null 2>&1 & echo $! > {}\n",
        stage.server.process_id(),
        binary().display(),
        data.display(),
        stage.directory.path().join("pid").display(),
    );
    std::fs::write(&script, text).unwrap();
    format!(
        "faults = [{{ at_seconds = 2, name = \"kill\", command = [\"sh\", \"{}\"] }}]",
        script.display()
    )
}

#[test]
fn a_kill_loses_nothing_and_is_seen_as_downtime() {
    let stage = Stage::set();
    let faults = killing(&stage);
    let (run, verdict) = stage.run(stage.server.http, &format!("duration_seconds = 10\n{faults}"));
    let pid = std::fs::read_to_string(stage.directory.path().join("pid")).unwrap();
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    let (right, wrong, _, missed) = counts(&run);
    assert_eq!(wrong, 0, "{:?}", run.wrong_answers);
    assert!(right > 500 && missed > 0, "{right} {missed}");
    let audit = run.audit.unwrap();
    assert!(audit.is_clean() && audit.acknowledged > 20, "{audit:?}");
    assert_eq!(audit.unchecked_holders, 0);
    let availability = run.availability.as_ref().unwrap();
    let [outage] = availability.outages.as_slice() else { panic!("{availability:?}") };
    assert!(outage.downtime_seconds() >= 1.5, "{outage:?}");
    assert_eq!(run.faults.len(), 1);
    assert_eq!(outcome(&verdict, "lost"), Outcome::Pass);
    // Two seconds of ten, of which the contract allows 3 % and 1 %.
    check_missed(&verdict, "slow or unanswered checks");
    assert_eq!(outcome(&verdict, "downtime"), Outcome::NotEnoughData);
}

/// Once the other threads ran to the end of the plan before one without holders was told of.
#[test]
fn threads_that_cannot_begin_are_told_of_at_once() {
    let stage = Stage::set();
    let scenario = stage.scenario(stage.server.http, "duration_seconds = 100000\nthreads = 4");
    let scenario = Scenario::parse(&scenario).unwrap();
    let registry = Registry::load(&stage.registry, 2, scenario.seed).unwrap();
    let execution = Execution::prepare(&scenario, &registry).unwrap();
    let error = execution.run(scenario.arrivals.as_ref(), &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "this share of the registry has no holders");
}

/// A fault of the scenario: a script that is run two seconds after the beginning.
fn fault(stage: &Stage, name: &str, script: &str) -> String {
    let path = stage.directory.path().join(format!("{name}.sh"));
    std::fs::write(&path, script).unwrap();
    let path = path.display();
    format!("faults = [{{ at_seconds = 2, name = \"{name}\", command = [\"sh\", \"{path}\"] }}]")
}

/// A server whose files may not grow any more is a server with a full disk.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    // Past the limit a write fails only where the signal is ignored; otherwise the process ends.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(binary());
    let stage = Stage::set_by(command);
    let limit = |bytes| format!("prlimit --pid={} --fsize={bytes}", stage.server.process_id());
    let script = format!("{} && sleep 1 && {}", limit("0:unlimited"), limit("unlimited"));
    let faults = fault(&stage, "fill", &script);
    let (run, verdict) = stage.run(stage.server.http, &format!("duration_seconds = 8\n{faults}"));
    assert_eq!(run.faults[0].exit_code, Some(0), "{:?}", run.faults);
    let (right, wrong, refused, _) = counts(&run);
    assert_eq!(wrong, 0, "{:?}", run.wrong_answers);
    assert!(right > 500 && refused > 0, "{right} {refused}");
    let last = run.seconds.iter().rfind(|second| second.answered > 0).unwrap();
    assert_eq!(last.refused, 0, "the disk takes writes again");
    let audit = run.audit.unwrap();
    assert!(audit.is_clean() && audit.acknowledged > 20, "{audit:?}");
    assert_eq!(outcome(&verdict, "lost"), Outcome::Pass);
    check_missed(&verdict, "slow or unanswered confirms");
}

/// The organizations get other secrets and, a second later, their old ones back: their tokens die at
/// once and live again.
#[test]
fn a_rotated_key_refuses_until_it_is_back() {
    let stage = Stage::set();
    let registry = std::fs::read_to_string(&stage.registry).unwrap();
    let is_organization = |line: &&str| line.contains("\"kind\":\"organization\"");
    let lines: Vec<&str> = registry.lines().filter(is_organization).collect();
    let old = lines.join("\n");
    let new = old.replace("\"client_secret\":\"", "\"client_secret\":\"another-");
    assert_ne!(old, new);
    let import = |text: &str, name: &str| {
        let path = stage.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!(
            "curl --fail-with-body --silent --show-error --max-time 5 --data-binary @{} \
             --header 'Authorization: Bearer {ADMIN_TOKEN}' http://{}/admin/import",
            path.display(),
            stage.server.admin
        )
    };
    let (there, back) = (import(&new, "there.ndjson"), import(&old, "back.ndjson"));
    let faults = fault(&stage, "rotate", &format!("{there} && sleep 1 && {back}"));
    let (run, verdict) = stage.run(stage.server.http, &format!("duration_seconds = 8\n{faults}"));
    assert_eq!(run.faults[0].exit_code, Some(0), "{:?}", run.faults);
    let (right, wrong, refused, _) = counts(&run);
    assert_eq!(wrong, 0, "{:?}", run.wrong_answers);
    assert!(refused > 0 && right > 100, "{right} {refused}");
    let last = run.seconds.iter().rfind(|second| second.answered > 0).unwrap();
    assert_eq!(last.refused, 0, "the old secrets are back");
    assert!(run.audit.unwrap().is_clean());
    check_missed(&verdict, "slow or unanswered checks");
}

/// Labels and what they may be.
type Labels = Vec<(String, Vec<String>)>;

/// What the selectors of rules ask of series.
fn selectors(rules: &str) -> BTreeSet<(String, Labels)> {
    let mut selectors = BTreeSet::new();
    for part in rules.split("eligo_").skip(1) {
        let (name, rest) = part.split_once('{').unwrap();
        let (labels, _) = rest.split_once('}').unwrap();
        let label = |label: &str| {
            let (name, values) = label.split_once('=').unwrap();
            let values = values.trim_start_matches('~').trim_matches('"').split('|');
            (name.to_owned(), values.map(str::to_owned).collect())
        };
        let labels = labels.split(',').map(label).filter(|(name, _)| name != "job").collect();
        selectors.insert((format!("eligo_{name}{{"), labels));
    }
    selectors
}

#[test]
fn the_rules_watch_what_the_server_counts() {
    let stage = Stage::set();
    let metrics = stage.server.metrics();
    let rules = loadtest::openslo::rules(&loadtest::objective::contract(4), "any");
    let selectors = selectors(&rules);
    assert_eq!(selectors.len(), 12, "{selectors:?}");
    for (name, labels) in selectors {
        let found = metrics.lines().filter(|line| line.starts_with(&name)).any(|line| {
            labels.iter().all(|(label, values)| {
                values.iter().any(|value| line.contains(&format!("{label}=\"{value}\"")))
            })
        });
        assert!(found, "{name} {labels:?}");
    }
}
