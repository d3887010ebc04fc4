//! The report's page in a browser: it opens offline without an error, and what it shows is what the
//! documents beside it say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::process::Command;

use loadtest::execution::Execution;
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::scenario::Scenario;
use loadtest::tally::Tally;
use loadtest::verdict::judge;
use loadtest::{histogram, output};
use serde_json::Value;
use tests::server::{Server, binary};

/// After which the browser is killed, seconds.
const BROWSER_SECONDS: &str = "60";

/// Opens a page; returns its elements as the browser sees them, and what it said on its console.
fn open(page: &Path) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("timeout");
    browser.args(["--kill-after=5", BROWSER_SECONDS, "chromium", "--headless", "--no-sandbox"]);
    browser.args(["--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update"]);
    browser.args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display()));
    browser.args(["--dump-dom", &format!("file://{}", page.display())]);
    let output = browser.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    // 126 and 127 are `timeout`'s for what it cannot start.
    let is_absent = matches!(output.status.code(), Some(126 | 127));
    assert!(!is_absent, "install Debian's `chromium`: this test opens a page in it");
    assert!(output.status.success(), "the browser ended with {}: {log}", output.status);
    let console = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
    (String::from_utf8(output.stdout).unwrap(), console.collect())
}

/// A run of some seconds against a server of its own, written into a directory.
fn write_run(directory: &Path) {
    let path = directory.join("registry.ndjson");
    let mut generate = Command::new(binary());
    generate.args(["generate", "--holders", "2000", "--seed", "7", "--out"]).arg(&path);
    assert!(generate.status().unwrap().success());
    let server = Server::start(&directory.join("data"), &["--import", path.to_str().unwrap()]);
    let text = format!(
        "name = \"<page> & \\\"test\\\"\"\nseed = 3\nduration_seconds = 4\n\
         faults = [{{ at_seconds = 2, name = \"<none>\", command = [\"true\"] }}]\n\
         [target]\nurl = \"http://{}\"\nadmin_url = \"http://{}\"\npid = {}\nfresh = true\n\
         [registry]\npath = \"{}\"\n[arrivals]\nkind = \"poisson\"\nrate = 300\n\
         [citizens]\nthink_seconds_min = 0.1\nthink_seconds_max = 0.5\n\
         [probe]\ninterval_seconds = 0.5\n",
        server.http,
        server.admin,
        server.process_id(),
        path.display(),
    );
    let scenario = Scenario::parse(&text).unwrap();
    let registry = Registry::load(&path, 100_000, scenario.seed).unwrap();
    let execution = Execution::prepare(&scenario, &registry).unwrap();
    let run = execution.run(scenario.arrivals.as_ref(), &mut ()).unwrap();
    output::write(&run, &judge(&run), directory).unwrap();
}

/// Every `data-value` by its `data-name`.
fn shown(page: &str) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for part in page.split("data-name=\"").skip(1) {
        let (name, rest) = part.split_once("\" data-value=\"").unwrap();
        let (value, rest) = rest.split_once('"').unwrap();
        let (text, _) = rest.split_once('>').unwrap().1.split_once('<').unwrap();
        assert!(!text.is_empty(), "`{name}` shows nothing");
        if value.len() < 4 && text.chars().all(|letter| letter.is_ascii_digit()) {
            assert_eq!(value, text, "`{name}`");
        }
        assert_eq!(shown.insert(name.to_owned(), value.to_owned()), None, "`{name}` twice");
    }
    shown
}

/// The same from the document.
fn expected(run: &Run, verdict: &Value) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    let mut say = |name: &str, value: &dyn Display| {
        expected.insert(name.to_owned(), value.to_string());
    };
    let mut all = Tally::default();
    for tallied in &run.tallies {
        let tally = &tallied.tally;
        all.add(tally);
        let name = |count: &str| {
            let words = serde_json::to_value((tallied.kind, tallied.carrier)).unwrap();
            format!("{}.{}.{count}", words[0].as_str().unwrap(), words[1].as_str().unwrap())
        };
        say(&name("due"), &tally.due());
        say(&name("right"), &tally.right);
        say(&name("slow"), &tally.slow);
        say(&name("unanswered"), &tally.unanswered);
        say(&name("offline"), &tally.offline);
        say(&name("refused"), &tally.refused);
        say(&name("wrong"), &tally.wrong);
    }
    say("due", &all.due());
    say("rate", &format!("{:.3}", all.due() as f64 / run.duration_seconds));
    for (name, at) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
        say(name, &histogram::percentile(&run.times.response, at).unwrap_or_default());
    }
    say("max", &run.times.response.max());
    say("slow", &all.slow);
    say("missed", &(all.unanswered + all.refused));
    say("wrong", &all.wrong);
    let seen = run.availability.as_ref().unwrap();
    say("downtime", &format!("{:.3}", seen.downtime_minutes() * 60.0));
    let audit = run.audit.as_ref().unwrap();
    say("lost", &(audit.lost + audit.altered));
    say("tainted", &verdict["tainted_seconds"]);
    for view in verdict["views"].as_array().unwrap() {
        say(&format!("view.{}", view["minutes"]), &format!("{}/{}", view["failures"], view["all"]));
    }
    expected
}

#[test]
fn the_page_opens_without_an_error_and_shows_the_documents_numbers() {
    let directory = tempfile::tempdir().unwrap();
    write_run(directory.path());
    let (page, console) = open(&directory.path().join(output::PAGE));
    assert_eq!(console, [""; 0]);
    let run = output::read(&directory.path().join("run.json")).unwrap();
    let verdict = std::fs::read(directory.path().join("verdict.json")).unwrap();
    let verdict: Value = serde_json::from_slice(&verdict).unwrap();
    assert_eq!(shown(&page), expected(&run, &verdict));
    let judged = verdict["judged"].as_array().unwrap();
    assert_eq!(page.matches("data-id=\"").count(), judged.len());
    for judged in judged {
        let text = |name: &str| judged[name].as_str().unwrap();
        let (_, row) = page.split_once(&format!("data-id=\"{}\"", text("id"))).unwrap();
        let (row, _) = row.split_once("</tr>").unwrap();
        // Between tags nothing else is escaped, and not-breaking spaces are.
        let row = row.replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
        for word in ["name", "limit", "measured"] {
            assert!(row.contains(text(word)), "{row} lacks {}", text(word));
        }
        assert!(row.contains(&text("outcome").replace('_', " ")), "{row}");
    }
    assert_eq!(page.matches("<svg").count(), 6, "charts");
}

/// Otherwise silence would prove nothing.
#[test]
fn an_error_of_a_page_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'\">";
    std::fs::write(&page, format!("<!doctype html>{policy}<script>x()</script>")).unwrap();
    assert_ne!(open(&page).1, [""; 0]);
}
