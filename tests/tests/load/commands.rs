//! The binary itself: its documents, its parts that merge, and its end by a signal.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use loadtest::run::Run;

use crate::stage::{Stage, counts};

fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(tests::server::binary_of("loadtest", "eligo-load"));
    command.args(arguments).current_dir(directory);
    command
}

fn eligo_load(arguments: &[&str], directory: &Path) -> (Option<i32>, String) {
    let output = command(arguments, directory).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_command_writes_its_documents_and_reads_them_again() {
    let stage = Stage::set();
    let directory = stage.directory.path();
    let scenario = format!(
        "name = \"short\"\nduration_seconds = 3\n[target]\nurl = \"http://{}\"\n\
         [registry]\npath = \"registry.ndjson\"\n[arrivals]\nkind = \"constant\"\nrate = 200\n",
        stage.server.http
    );
    std::fs::write(directory.join("short.toml"), scenario).unwrap();
    let (_, text) = eligo_load(&["run", "short.toml", "--out", "one"], directory);
    assert!(
        text.contains("slow or unanswered checks") && text.contains("one/report.html"),
        "{text}"
    );
    for figures in ["answers        within 3 s ", "response time  p50 ", " of 5 min "] {
        assert!(text.contains(figures), "{text}");
    }
    let files =
        ["run.json", "report.html", "seconds.csv", "junit.xml", "run.hlog", "response.hgrm"];
    for file in files {
        assert!(directory.join("one").join(file).metadata().unwrap().len() > 0, "{file}");
    }
    let (code, text) = eligo_load(&["compare", "one/run.json", "one/run.json"], directory);
    assert_eq!(code, Some(0), "{text}");
    let merge =
        |other: &str| eligo_load(&["merge", "one/run.json", other, "--out", "both"], directory);
    let (code, text) = merge("one/run.json");
    assert!(code == Some(2) && text.contains("given twice"), "{text}");
    eligo_load(&["run", "short.toml", "--out", "other"], directory);
    let (_, text) = merge("other/run.json");
    assert!(text.contains("both/report.html"), "{text}");
    let (code, text) = eligo_load(&["run", "absent.toml"], directory);
    assert!(code == Some(2) && text.contains("cannot be read"), "{text}");
    let (code, text) = eligo_load(&["rules"], directory);
    assert!(code == Some(0) && text.contains("14.4"), "{text}");
}

/// Once whatever the tester could not write lost the run.
#[test]
fn a_full_disk_of_the_tester_loses_its_documents_and_not_the_verdict() {
    let stage = Stage::set();
    let directory = stage.directory.path();
    write_scenario(&stage, "short.toml", 3, "");
    // Past the limit a write fails only where the signal is ignored; otherwise the process ends.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec prlimit --fsize=0 \"$@\"", "sh"]);
    command.arg(tests::server::binary_of("loadtest", "eligo-load"));
    command.args(["run", "short.toml", "--out", "none"]).current_dir(directory);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("note: the history was not compared: "), "{text}");
    assert!(text.contains("note: documents are missing: "), "{text}");
    assert!(text.contains("verdict: inconclusive"), "{text}");
    assert_eq!(output.status.code(), Some(3), "{text}");
}

/// Writes a scenario of 200 requests a second for the command.
fn write_scenario(stage: &Stage, file: &str, seconds: u32, registry: &str) {
    let scenario = format!(
        "name = \"short\"\nseed = 5\nduration_seconds = {seconds}\n\
         [target]\nurl = \"http://{}\"\n\
         [registry]\npath = \"registry.ndjson\"\n{registry}\n\
         [arrivals]\nkind = \"constant\"\nrate = 200\n\
         [probe]\ninterval_seconds = 0.5\n",
        stage.server.http
    );
    std::fs::write(stage.directory.path().join(file), scenario).unwrap();
}

#[test]
fn two_processes_share_the_holders_and_merge() {
    let stage = Stage::set();
    let directory = stage.directory.path();
    let names = ["0", "1"];
    let running = names.map(|share| {
        let file = format!("{share}.toml");
        write_scenario(&stage, &file, 4, &format!("shares = 2\nshare = {share}"));
        let mut command = command(&["run", &file, "--out", share], directory);
        command.stdout(Stdio::null()).spawn().unwrap()
    });
    for mut process in running {
        assert_ne!(process.wait().unwrap().code(), Some(2));
    }
    let arguments = ["merge", "0/run.json", "1/run.json", "--out", "all"];
    let (code, text) = eligo_load(&arguments, directory);
    assert!(code != Some(2) && text.contains("all/report.html"), "{text}");
    let read = |name: &str| loadtest::output::read(&directory.join(name).join("run.json")).unwrap();
    let [zero, one, all] = ["0", "1", "all"].map(read);
    let due = |run: &Run| run.tallies.iter().map(|tallied| tallied.tally.due()).sum::<u64>();
    assert!(due(&zero) > 500 && due(&one) > 500, "{} {}", due(&zero), due(&one));
    assert_eq!(due(&all), due(&zero) + due(&one));
    let times = |run: &Run| run.times.response.len();
    assert_eq!(times(&all), times(&zero) + times(&one));
    assert_eq!(counts(&all).1, 0, "{:?}", all.wrong_answers);
    let acknowledged = |run: &Run| run.audit.unwrap().acknowledged;
    assert_eq!(acknowledged(&all), acknowledged(&zero) + acknowledged(&one));
    assert!(all.audit.unwrap().is_clean(), "{:?}", all.audit);
}

#[test]
fn a_signal_ends_a_run_with_its_report() {
    let stage = Stage::set();
    let directory = stage.directory.path();
    write_scenario(&stage, "long.toml", 600, "");
    let mut command = command(&["run", "long.toml", "--out", "cut"], directory);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(" left "));
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains("before its plan") && text.contains("cut/report.html"), "{text}");
    assert!(matches!(process.wait().unwrap().code(), Some(1 | 3)), "{text}");
    let run = loadtest::output::read(&directory.join("cut/run.json")).unwrap();
    assert!(run.is_ended_early && run.duration_seconds < 600.0, "{}", run.duration_seconds);
    assert_eq!(counts(&run).3, 0, "what was asked was answered");
}
