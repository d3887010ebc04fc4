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

/// Every `data-value` by its `data-name`, after a look at the text beside it.
fn shown(page: &str) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for part in page.split("data-name=\"").skip(1) {
        let (name, rest) = part.split_once("\" data-value=\"").unwrap();
        let (value, rest) = rest.split_once('"').unwrap();
        let (text, _) = rest.split_once('>').unwrap().1.split_once('<').unwrap();
        assert!(says(text, value), "`{name}` shows {text} for {value}");
        let name = name.replace("&quot;", "\"").replace("&amp;", "&");
        assert_eq!(shown.insert(name.clone(), value.to_owned()), None, "`{name}` twice");
    }
    shown
}

/// Whether a text is what people read of a value: nanoseconds, seconds where it has a point, a count,
/// or a count of another.
fn says(text: &str, value: &str) -> bool {
    let text = text.replace('\u{202f}', "");
    if let Some((part, all)) = value.split_once('/') {
        let [part, all]: [f64; 2] = [part, all].map(|count| count.parse().unwrap());
        let (percent, counts) = text.split_once(" % ").unwrap();
        let is_rounded = is_near(percent, part / all.max(1.0) * 100.0, 1.0);
        return is_rounded && counts == format!("({part} of {all})");
    }
    let Ok(number) = value.parse::<f64>() else { return text == value };
    let in_nanoseconds = if value.contains('.') { number * 1e9 } else { number };
    for (unit, nanoseconds) in [(" µs", 1e3), (" ms", 1e6), (" s", 1e9)] {
        if let Some(time) = text.strip_suffix(unit) {
            return is_near(time, in_nanoseconds, nanoseconds);
        }
    }
    if text.contains(':') {
        let fields = text.split(':').map(|field| field.parse::<f64>().unwrap());
        return fields.reduce(|sum, field| sum * 60.0 + field) == Some(number.floor());
    }
    match text.as_str() {
        "too few" => value == "0",
        text => text == value || is_near(text, number, 1.0),
    }
}

/// Whether a text is a number, in a unit, to the last digit that it shows; one place is forgiven, as
/// noughts at the end are not shown.
fn is_near(text: &str, number: f64, unit: f64) -> bool {
    let digits = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let seen: f64 = text.parse().unwrap();
    let least = if digits == 0 { 0.5 } else { 0.5 / 10_f64.powi(digits.try_into().unwrap()) };
    (seen - number / unit).abs() <= least * (1.0 + 1e-9)
}

/// Takes a figure by its name.
type Say<'a> = &'a mut dyn FnMut(&str, &dyn Display);

/// The same from the document.
fn expected(run: &Run, verdict: &Value) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    let mut say = |name: &str, value: &dyn Display| {
        expected.insert(name.to_owned(), value.to_string());
    };
    say_answers(run, &mut say);
    say_times(run, &mut say);
    say_availability(run, &mut say);
    say_surroundings(run, &mut say);
    let audit = run.audit.as_ref().unwrap();
    say("lost", &(audit.lost + audit.altered));
    for view in verdict["views"].as_array().unwrap() {
        let mut say = |name: &str, value: &dyn Display| {
            say(&format!("view.{}.{name}", view["minutes"]), value);
        };
        say("from", &format!("{}.000", view["from_second"]));
        say("seconds", &format!("{}.000", view["seconds"]));
        say("share", &format!("{}/{}", view["failures"], view["all"]));
    }
    expected
}

fn say_answers(run: &Run, say: Say<'_>) {
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
    say("slow", &all.slow);
    say("missed", &(all.unanswered + all.refused));
    say("wrong", &all.wrong);
}

fn say_times(run: &Run, say: Say<'_>) {
    for (name, at) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
        say(name, &histogram::percentile(&run.times.response, at).unwrap_or_default());
    }
    say("max", &run.times.response.max());
    for kind in &run.kinds {
        let name = kind.kind.name();
        for at in [50.0, 90.0, 99.0, 99.9] {
            let value = histogram::percentile(&kind.response, at).unwrap_or_default();
            say(&format!("{name}.p{at}"), &value);
        }
        say(&format!("{name}.max"), &kind.response.max());
    }
    let tainted = run.seconds.iter().filter(|second| second.lateness_p99 > 1_000_000).count();
    let loaded = run.seconds.iter().filter(|second| second.due > 0).count();
    say("tainted", &format!("{tainted}/{loaded}"));
}

fn say_availability(run: &Run, say: Say<'_>) {
    let seen = run.availability.as_ref().unwrap();
    say("downtime", &format!("{:.3}", seen.downtime_minutes() * 60.0));
    say("downtime.minutes", &format!("{:.6}", seen.downtime_minutes()));
    say("planned.minutes", &format!("{:.6}", seen.planned_minutes()));
    say("probes", &seen.probes);
    say("probes.failed", &seen.failed);
    say("probes.slow", &seen.slow);
    for (at, outage) in seen.outages.iter().enumerate() {
        let downtime = outage.to_seconds - outage.from_seconds - outage.planned_seconds;
        for (name, seconds) in [
            ("from", outage.from_seconds),
            ("to", outage.to_seconds),
            ("counts", downtime),
            ("planned", outage.planned_seconds),
        ] {
            say(&format!("outage.{at}.{name}"), &format!("{seconds:.3}"));
        }
    }
}

/// What was done to the server, and what it and the connections to it showed.
fn say_surroundings(run: &Run, say: Say<'_>) {
    for (at, fault) in run.faults.iter().enumerate() {
        say(&format!("fault.{at}.at"), &format!("{:.3}", fault.at_seconds));
        say(&format!("fault.{at}.took"), &format!("{:.3}", fault.took_seconds));
        say(&format!("fault.{at}.code"), &fault.exit_code.unwrap());
    }
    let connections = run.connections;
    say("connections.opened", &connections.opened);
    say("connections.reopened", &connections.reopened);
    say("connections.broken", &connections.broken);
    say("connections.refused", &connections.refused);
    let metrics = &run.target.as_ref().unwrap().metrics;
    let [first, .., last] = &metrics[..] else { panic!("too few metrics") };
    for (name, after) in &last.series {
        let before = first.series.iter().find(|(known, _)| known == name);
        let change = after - before.map_or(0.0, |(_, before)| *before);
        if change != 0.0 {
            say(&format!("after {name}"), &format!("{after:.6}"));
            say(&format!("change {name}"), &format!("{change:.6}"));
        }
    }
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
    assert_eq!(serde_json::to_value(judge(&run)).unwrap(), verdict);
    assert_eq!(shown(&page), expected(&run, &verdict));
    let figures = |begin: &str| page.matches(begin).count();
    assert_eq!(figures("<td class=\"n\""), figures("<td class=\"n\" data-name="));
    let judged = verdict["judged"].as_array().unwrap();
    assert_eq!(page.matches("data-id=\"").count(), judged.len());
    for judged in judged {
        let text = |name: &str| judged[name].as_str().unwrap();
        let (_, row) = page.split_once(&format!("data-id=\"{}\"", text("id"))).unwrap();
        let (row, _) = row.split_once("</tr>").unwrap();
        // Between tags nothing else is escaped, and not-breaking spaces are.
        let row = row.replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
        for word in ["name", "limit", "measured"] {
            let cell = format!("<td>{}", text(word));
            let rest: Vec<&str> = row.split(&cell).skip(1).collect();
            let is_whole = |rest: &&str| rest.starts_with("</td>") || rest.starts_with(" <small>");
            assert!(rest.iter().any(is_whole), "{row} lacks {}", text(word));
        }
        assert!(row.contains(&text("outcome").replace('_', " ")), "{row}");
    }
    assert_eq!(page.matches("<svg").count(), 6, "charts");
}

/// Otherwise any text would do.
#[test]
fn texts_say_their_values() {
    for (text, value) in [
        ("1\u{202f}234", "1234"),
        ("300", "299.750"),
        ("1.59 ms", "1594367"),
        ("160.3 µs", "160255"),
        ("3.5 s", "3500000000"),
        ("3.5 s", "3.470"),
        ("2.12 % (1275 of 60186)", "1275/60186"),
        ("0 % (0 of 0)", "0/0"),
        ("1:02:03", "3723.900"),
        ("too few", "0"),
        ("0.003500", "0.003500"),
        ("none", "none"),
    ] {
        assert!(says(text, value), "{text} for {value}");
    }
    for (text, value) in [
        ("1\u{202f}235", "1234"),
        ("1.6 ms", "1494367"),
        ("160.3 ms", "160255"),
        ("2.12 % (1275 of 60186)", "1276/60186"),
        ("2.2 % (1275 of 60186)", "1275/60186"),
        ("1:02:04", "3723.900"),
        ("too few", "1"),
        ("0", "none"),
    ] {
        assert!(!says(text, value), "{text} for {value}");
    }
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
