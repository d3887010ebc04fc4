//! The load tester against the real server: what it foretells is what the server answers, and what
//! is done to the server in between, by a kill or by a bad link, is what its verdict says.
//!
//! Verdicts are judged here as if the generator had never been late: what links and faults do to
//! requests is counted, and a busy machine does not undo it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadtest::execution::Execution;
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::scenario::Scenario;
use loadtest::verdict::{Outcome, Verdict, judge};
use tests::server::{ADMIN_TOKEN, Server, binary};

const HOLDERS: &str = "2000";

/// A registry file and the server that imported it.
struct Stage {
    directory: tempfile::TempDir,
    registry: PathBuf,
    server: Server,
}

impl Stage {
    fn set() -> Stage {
        Stage::set_by(Command::new(binary()))
    }

    /// The same with a command to which the arguments of the server are added.
    fn set_by(server: Command) -> Stage {
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
    fn run(&self, address: SocketAddr, more: &str) -> (Run, Verdict) {
        let scenario = Scenario::parse(&self.scenario(address, more)).unwrap();
        let registry = Registry::load(&self.registry, 100_000, scenario.seed).unwrap();
        let execution = Execution::prepare(&scenario, &registry).unwrap();
        let run = execution.run(scenario.arrivals.as_ref(), &mut ()).unwrap();
        let mut punctual = run.clone();
        punctual.seconds.iter_mut().for_each(|second| second.lateness_p99 = 0);
        let verdict = judge(&punctual);
        (run, verdict)
    }

    fn scenario(&self, address: SocketAddr, more: &str) -> String {
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
fn outcome(verdict: &Verdict, name: &str) -> Outcome {
    let judged = verdict.judged.iter().find(|judged| judged.name.starts_with(name));
    judged.unwrap_or_else(|| panic!("no `{name}` in {verdict:?}")).outcome
}

/// An objective is missed, and so is the run.
fn check_missed(verdict: &Verdict, name: &str) {
    assert_eq!(outcome(verdict, name), Outcome::Fail, "{verdict:?}");
    assert_eq!((verdict.outcome, verdict.exit_code()), (Outcome::Fail, 1));
}

fn counts(run: &Run) -> (u64, u64, u64, u64) {
    let mut total = loadtest::tally::Tally::default();
    run.tallies.iter().for_each(|tallied| total.add(&tallied.tally));
    (total.right, total.wrong, total.refused, total.unanswered)
}

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

/// What a bad link does to answers.
#[derive(Clone, Copy)]
enum Link {
    /// Says that nothing more will come instead of carrying an answer, and goes on listening.
    HalfClosing,
    /// Turns grants into refusals.
    Lying,
    /// Says 503 itself.
    Refusing,
    /// Brings answers after the limit.
    Stalling,
}

/// A link to a server that spoils every fourth answer that grants a check.
fn spoil(server: SocketAddr, link: Link) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let granted = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (granted, server) = (Arc::clone(&granted), TcpStream::connect(server).unwrap());
            // Ends when one side does.
            std::thread::spawn(move || carry(client, server, link, &granted));
        }
    });
    address
}

fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    link: Link,
    granted: &Arc<AtomicUsize>,
) -> Option<()> {
    let (mut answers, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let granted = Arc::clone(granted);
    std::thread::spawn(move || -> Option<()> {
        let mut buffer = [0; 1 << 16];
        loop {
            let count = answers.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let mut text = String::from_utf8(buffer[..count].to_vec()).unwrap_or_default();
            let is_grant = text.contains("{\"resultCode\":0,") && !text.contains("\"results\"");
            if is_grant && granted.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
                match link {
                    Link::HalfClosing => return back.shutdown(Shutdown::Write).ok(),
                    Link::Lying => text = text.replace("\"resultCode\":0", "\"resultCode\":1"),
                    Link::Refusing => {
                        text = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned();
                    }
                    Link::Stalling => std::thread::sleep(Duration::from_millis(3_500)),
                }
            }
            back.write_all(text.as_bytes()).ok()?;
        }
    });
    let copied = std::io::copy(&mut client, &mut server).ok();
    // The server may have ended before.
    let _ = server.shutdown(Shutdown::Both);
    copied.map(drop)
}

fn check_link(link: Link) -> (Run, Verdict) {
    let stage = Stage::set();
    stage.run(spoil(stage.server.http, link), "duration_seconds = 4\ngive_up_seconds = 8")
}

#[test]
fn a_lying_link_is_a_wrong_answer() {
    let (run, verdict) = check_link(Link::Lying);
    assert!(counts(&run).1 > 0);
    assert!(!run.wrong_answers.is_empty());
    assert_eq!((outcome(&verdict, "wrong"), verdict.exit_code()), (Outcome::Fail, 1));
}

#[test]
fn a_refusing_link_is_not_an_answer() {
    let (run, verdict) = check_link(Link::Refusing);
    let (_, wrong, refused, _) = counts(&run);
    assert!(wrong == 0 && refused > 0, "{:?}", run.wrong_answers);
    check_missed(&verdict, "slow or unanswered checks");
}

#[test]
fn a_half_closing_link_leaves_requests_unanswered() {
    let (run, verdict) = check_link(Link::HalfClosing);
    let (_, wrong, _, unanswered) = counts(&run);
    assert!(wrong == 0 && unanswered > 0, "{:?}", run.wrong_answers);
    assert!(run.connections.broken > 0);
    assert!(run.audit.unwrap().is_clean());
    check_missed(&verdict, "slow or unanswered checks");
}

#[test]
fn a_stalling_link_is_slow() {
    let (run, verdict) = check_link(Link::Stalling);
    let slow: u64 = run.tallies.iter().map(|tallied| tallied.tally.slow).sum();
    assert!(slow > 0 && counts(&run).1 == 0, "{slow} {:?}", run.wrong_answers);
    check_missed(&verdict, "slow or unanswered checks");
}

/// The binary itself.
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
    for figures in ["answers        within 3 s ", "response time  p50 ", "the worst  5 min "] {
        assert!(text.contains(figures), "{text}");
    }
    let files =
        ["run.json", "report.html", "seconds.csv", "junit.xml", "run.hlog", "response.hgrm"];
    for file in files {
        assert!(directory.join("one").join(file).metadata().unwrap().len() > 0, "{file}");
    }
    let (code, text) = eligo_load(&["compare", "one/run.json", "one/run.json"], directory);
    assert_eq!(code, Some(0), "{text}");
    let arguments = ["merge", "one/run.json", "one/run.json", "--out", "two"];
    let (_, text) = eligo_load(&arguments, directory);
    assert!(text.contains("two/report.html"), "{text}");
    let (code, text) = eligo_load(&["run", "absent.toml"], directory);
    assert!(code == Some(2) && text.contains("cannot be read"), "{text}");
    let (code, text) = eligo_load(&["rules"], directory);
    assert!(code == Some(0) && text.contains("14.4"), "{text}");
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
