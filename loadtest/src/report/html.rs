//! A run as one page: the verdict first, then what it rests on.
//!
//! The page holds everything: no script, no font, no picture is fetched, and its policy forbids it.
//! Every figure carries its name and its exact value in `data-value` (nanoseconds, or seconds where it
//! has a point, for times), so that a program can compare them with the JSON document.

use std::fmt::Display;

use crate::downtime::Outage;
use crate::faults::Injected;
use crate::histogram::percentile;
use crate::report::charts;
use crate::report::markup::escaped;
use crate::report::svg::clock;
use crate::run::{Load, Run};
use crate::tally::{Carrier, Tally};
use crate::verdict::{Judged, Outcome, Verdict, share_text, time};
use crate::views::View;

const STYLE: &str = include_str!("page.css");
const NS_PER_MS: f64 = 1e6;

/// The page.
pub fn print(run: &Run, verdict: &Verdict) -> String {
    let sections = [
        header(run, verdict),
        tiles(run, verdict),
        objectives(verdict),
        section(
            "Response time",
            "From the instant a request was due. Bands: the generator was late (amber), the server was down (red), a fault was injected (orange).",
            &charts::latency(run),
        ),
        section(
            "Rate",
            "Requests a second that were due and answered; missed are those not answered, or answered only that the server cannot.",
            &charts::rate(run),
        ),
        section(
            "Percentiles",
            "How long the slower part of the answers took, down to the last one. The gap between the lines is waiting before the request could be sent.",
            &charts::spectrum(run),
        ),
        tallies(run),
        views(verdict),
        availability(run),
        faults(run),
        target(run),
        section(
            "The generator itself",
            "How late it came to requests, 99th percentile. Above 1 ms a second says nothing about the server.",
            &charts::lateness(run),
        ),
        wrong_answers(run),
        footer(run),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\">\
         <title>{}: {}</title><style>{STYLE}</style></head><body><main>{}</main></body></html>\n",
        escaped(&run.scenario),
        verdict_word(verdict.outcome),
        sections.concat(),
    )
}

fn header(run: &Run, verdict: &Verdict) -> String {
    let deciding = || verdict.judged.iter().filter(|judged| judged.decides);
    let count = |outcome| deciding().filter(|judged| judged.outcome == outcome).count();
    let (held, missed, open) =
        (count(Outcome::Pass), count(Outcome::Fail), count(Outcome::NotEnoughData));
    let mut text = format!("{held} of {} objectives hold", deciding().count());
    if missed > 0 {
        text.push_str(&format!(", {missed} missed"));
    }
    if open > 0 {
        text.push_str(&format!(", {open} without enough data"));
    }
    let reasons = verdict.reasons();
    let notes = reasons.iter().map(|note| format!("<p class=\"note\">{}</p>", escaped(note)));
    let notes: String = notes.collect();
    let load = match run.load {
        Load::Closed => "closed loop",
        Load::Open => "open loop",
    };
    format!(
        "<h1>{}</h1><p class=\"soft\">{} · {} · {load} · seed {}</p>\
         <div class=\"verdict {}\" id=\"verdict\"><b>{}</b><div><p>{text}.</p>{notes}</div></div>",
        escaped(&run.scenario),
        escaped(&instant(&run.begun)),
        clock(run.duration_seconds),
        run.seed,
        class(verdict.outcome),
        verdict_word(verdict.outcome),
    )
}

fn tiles(run: &Run, verdict: &Verdict) -> String {
    let mut all = Tally::default();
    for tallied in &run.tallies {
        all.add(&tallied.tally);
    }
    let rate =
        if run.duration_seconds > 0.0 { all.due() as f64 / run.duration_seconds } else { 0.0 };
    let missed = all.unanswered + all.refused;
    let mut tiles = vec![
        tile("due", "requests due", all.due(), &grouped(all.due())),
        tile("rate", "per second", format!("{rate:.3}"), &grouped(rate.round() as u64)),
    ];
    for (name, at) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
        let value = percentile(&run.times.response, at);
        let text = value.map_or("too few".into(), nanos);
        tiles.push(tile(name, name, value.unwrap_or_default(), &text));
    }
    let max = run.times.response.max();
    tiles.push(tile("max", "longest", max, &nanos(max)));
    tiles.push(tile("slow", "over 3 s", all.slow, &grouped(all.slow)));
    tiles.push(tile("missed", "not answered", missed, &grouped(missed)));
    tiles.push(tile("wrong", "wrong answers", all.wrong, &grouped(all.wrong)));
    if let Some(seen) = &run.availability {
        let seconds = seen.downtime_minutes() * 60.0;
        tiles.push(tile("downtime", "downtime", format!("{seconds:.3}"), &time(seconds * 1e3)));
    }
    if let Some(fleet) = &run.fleet {
        let trips = &fleet.trips;
        tiles.push(tile("offline", "decided offline", all.offline, &grouped(all.offline)));
        tiles.push(tile("trips", "trips uploaded", trips.answered(), &grouped(trips.answered())));
        tiles.push(tile("trips_lost", "lost trips", trips.lost, &grouped(trips.lost)));
    }
    if let Some(audit) = &run.audit {
        let lost = audit.lost + audit.altered;
        tiles.push(tile("lost", "lost confirms", lost, &grouped(lost)));
    }
    let loaded = run.seconds.iter().filter(|second| second.due > 0).count();
    let late = verdict.tainted_seconds;
    tiles.push(tile(
        "tainted",
        "seconds late",
        format!("{late}/{loaded}"),
        &share_text(late, loaded as u64),
    ));
    format!("<div class=\"tiles\">{}</div>", tiles.concat())
}

fn tile(id: &str, name: &str, value: impl Display, text: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{name}</span>\
         <strong data-name=\"{id}\" data-value=\"{value}\">{text}</strong></div>"
    )
}

/// A cell of a table that holds a figure.
fn cell(name: &str, value: impl Display, text: &str) -> String {
    format!("<td class=\"n\" data-name=\"{name}\" data-value=\"{value}\">{text}</td>")
}

/// A figure in a sentence.
fn figure(name: &str, value: impl Display, text: &str) -> String {
    format!("<span data-name=\"{name}\" data-value=\"{value}\">{text}</span>")
}

/// Seconds that are shown on a clock.
fn clock_cell(name: &str, seconds: f64) -> String {
    cell(name, format!("{seconds:.3}"), &clock(seconds))
}

fn objectives(verdict: &Verdict) -> String {
    let row = |judged: &Judged| {
        let (beside, note) = if judged.decides {
            ("", "")
        } else {
            (" class=\"beside\"", " <small>shown only</small>")
        };
        format!(
            "<tr{beside} data-id=\"{}\"><td>{}{note}</td><td>{}</td><td>{}</td>\
             <td><span class=\"mark {}\">{}</span></td></tr>",
            escaped(&judged.id),
            escaped(&judged.name),
            escaped(&judged.limit),
            escaped(&judged.measured),
            class(judged.outcome),
            judged.outcome.text(),
        )
    };
    let rows: String = verdict.judged.iter().map(row).collect();
    section(
        "Objectives",
        "",
        &format!(
            "<table id=\"objectives\"><tr><th>objective</th><th>limit</th><th>measured</th>\
             <th>outcome</th></tr>{rows}</table>"
        ),
    )
}

fn tallies(run: &Run) -> String {
    let mut rows = String::new();
    for tallied in &run.tallies {
        let tally = &tallied.tally;
        let carrier = match tallied.carrier {
            Carrier::Ecs => "ecs card",
            Carrier::None => "",
            Carrier::Snils => "insurance number",
            Carrier::Social => "social card",
        };
        rows.push_str(&format!("<tr><td>{}</td><td>{carrier}</td>", tallied.kind.name()));
        let counts = [
            ("due", tally.due()),
            ("right", tally.right),
            ("slow", tally.slow),
            ("offline", tally.offline),
            ("unanswered", tally.unanswered),
            ("refused", tally.refused),
            ("wrong", tally.wrong),
        ];
        let of = format!("{}.{}", tallied.kind.name(), tallied.carrier.name());
        for (name, count) in counts {
            rows.push_str(&cell(&format!("{of}.{name}"), count, &grouped(count)));
        }
        rows.push_str("</tr>");
    }
    let mut times = String::new();
    for kind in &run.kinds {
        times.push_str(&format!("<tr><td>{}</td>", kind.kind.name()));
        let name = kind.kind.name();
        for at in [50.0, 90.0, 99.0, 99.9] {
            let value = percentile(&kind.response, at);
            let text = value.map_or("too few".into(), nanos);
            times.push_str(&cell(&format!("{name}.p{at}"), value.unwrap_or_default(), &text));
        }
        let max = kind.response.max();
        times.push_str(&cell(&format!("{name}.max"), max, &nanos(max)));
        times.push_str("</tr>");
    }
    let table = format!(
        "<table><tr><th>request</th><th>identified by</th><th class=\"n\">due</th>\
         <th class=\"n\">right</th><th class=\"n\">of those over 3 s</th>\
         <th class=\"n\">offline</th><th class=\"n\">unanswered</th><th class=\"n\">refused</th><th class=\"n\">wrong</th></tr>\
         {rows}</table>\
         <table><tr><th>response time</th><th class=\"n\">p50</th><th class=\"n\">p90</th>\
         <th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">longest</th></tr>\
         {times}</table>"
    );
    section("Requests", "", &table)
}

fn views(verdict: &Verdict) -> String {
    let row = |view: &View| {
        let (minutes, failures, all) = (view.minutes, view.failures, view.all);
        let name = |figure: &str| format!("view.{minutes}.{figure}");
        format!(
            "<tr><td>{}</td>{}{}{}</tr>",
            view.name(),
            clock_cell(&name("from"), view.from_second as f64),
            clock_cell(&name("seconds"), view.seconds as f64),
            cell(&name("share"), format!("{failures}/{all}"), &share_text(failures, all)),
        )
    };
    let rows: String = verdict.views.iter().map(row).collect();
    section(
        "Slow or unanswered",
        "Requests of every kind over 3 s or not answered, in the worst window of each length. The contract counts by the month.",
        &format!(
            "<table><tr><th>window</th><th class=\"n\">from</th><th class=\"n\">of that in the run</th>\
             <th class=\"n\">share</th></tr>{rows}</table>"
        ),
    )
}

fn availability(run: &Run) -> String {
    let Some(seen) = &run.availability else { return String::new() };
    let minutes = |name, minutes| figure(name, format!("{minutes:.6}"), &format!("{minutes:.2}"));
    let mut body = format!(
        "<p>{} probes, {} failed, {} over 3 s; {} minutes of unplanned and {} of planned \
         downtime.</p>",
        figure("probes", seen.probes, &grouped(seen.probes)),
        figure("probes.failed", seen.failed, &grouped(seen.failed)),
        figure("probes.slow", seen.slow, &grouped(seen.slow)),
        minutes("downtime.minutes", seen.downtime_minutes()),
        minutes("planned.minutes", seen.planned_minutes()),
    );
    if !seen.outages.is_empty() {
        let row = |(at, outage): (usize, &Outage)| {
            let name = |figure: &str| format!("outage.{at}.{figure}");
            let seconds = |figure: &str, seconds: f64| {
                cell(&name(figure), format!("{seconds:.3}"), &format!("{seconds:.1} s"))
            };
            format!(
                "<tr>{}{}{}{}</tr>",
                clock_cell(&name("from"), outage.from_seconds),
                clock_cell(&name("to"), outage.to_seconds),
                seconds("counts", outage.downtime_seconds()),
                seconds("planned", outage.planned_seconds),
            )
        };
        let rows: String = seen.outages.iter().take(ROWS_MAX).enumerate().map(row).collect();
        body.push_str(&format!(
            "<table><tr><th class=\"n\">down from</th><th class=\"n\">to</th><th class=\"n\">counts</th>\
             <th class=\"n\">planned</th></tr>{rows}</table>"
        ));
    }
    section(
        "Availability",
        "A caller beside the load; down is two bad probes in a row, until the next good one.",
        &body,
    )
}

fn faults(run: &Run) -> String {
    if run.faults.is_empty() {
        return String::new();
    }
    let row = |(at, fault): (usize, &Injected)| {
        let name = |figure: &str| format!("fault.{at}.{figure}");
        let took = fault.took_seconds;
        let code = fault.exit_code.map_or("none".into(), |code| code.to_string());
        format!(
            "<tr>{}<td>{}</td>{}{}<td><pre>{}</pre></td></tr>",
            clock_cell(&name("at"), fault.at_seconds),
            escaped(&fault.name),
            cell(&name("took"), format!("{took:.3}"), &format!("{took:.2} s")),
            cell(&name("code"), &code, &code),
            escaped(&fault.output),
        )
    };
    let rows: String = run.faults.iter().take(ROWS_MAX).enumerate().map(row).collect();
    let table = format!(
        "<table><tr><th class=\"n\">at</th><th>fault</th><th class=\"n\">took</th><th class=\"n\">exit code</th>\
         <th>output</th></tr>{rows}</table>"
    );
    section("Faults on purpose", "", &table)
}

fn target(run: &Run) -> String {
    let Some(sampled) = &run.target else { return String::new() };
    let mut body = charts::process(sampled);
    if let (Some(before), Some(after)) = (sampled.metrics.first(), sampled.metrics.last()) {
        let change = |name: &str, after: f64| {
            let before = before.series.iter().find(|(known, _)| known == name);
            (after, after - before.map_or(0.0, |(_, value)| *value))
        };
        let rows: String = after
            .series
            .iter()
            .map(|(name, value)| (name, change(name, *value)))
            .filter(|(_, (_, change))| *change != 0.0)
            .map(|(name, (value, change))| {
                let name = escaped(name);
                let [value, change] = [value, change].map(|value| format!("{value:.6}"));
                format!(
                    "<tr><td><pre>{name}</pre></td>{}{}</tr>",
                    cell(&format!("after {name}"), &value, &value),
                    cell(&format!("change {name}"), &change, &change),
                )
            })
            .collect();
        body.push_str(&format!(
            "<details><summary>What its metrics changed by</summary><table><tr><th>series</th>\
             <th class=\"n\">after</th><th class=\"n\">change</th></tr>{rows}</table></details>"
        ));
    }
    section("The server itself", "Its process and its own figures.", &body)
}

fn wrong_answers(run: &Run) -> String {
    if run.wrong_answers.is_empty() {
        return String::new();
    }
    let lines: String =
        run.wrong_answers.iter().take(ROWS_MAX).map(|line| escaped(line) + "\n").collect();
    section(
        "Wrong answers",
        "The first of them: what was asked, what had to come, what came.",
        &format!("<pre>{lines}</pre>"),
    )
}

fn footer(run: &Run) -> String {
    let connections = &run.connections;
    format!(
        "<footer><p>Connections: {} opened, {} of them again after the server closed an idle one, {} \
         broken under a request, {} refused. A percentile is shown when at least ten answers lie \
         beyond it. Response times hold the right answers; what was not answered is counted apart and \
         by the objectives.</p></footer>",
        figure("connections.opened", connections.opened, &grouped(connections.opened)),
        figure("connections.reopened", connections.reopened, &grouped(connections.reopened)),
        figure("connections.broken", connections.broken, &grouped(connections.broken)),
        figure("connections.refused", connections.refused, &grouped(connections.refused)),
    )
}

fn section(title: &str, text: &str, body: &str) -> String {
    let text =
        if text.is_empty() { String::new() } else { format!("<p class=\"soft\">{text}</p>") };
    format!("<section><h2>{title}</h2>{text}{body}</section>")
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fail => "fail",
        Outcome::NotEnoughData => "open",
        Outcome::Pass => "pass",
    }
}

fn verdict_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fail => "fail",
        Outcome::NotEnoughData => "inconclusive",
        Outcome::Pass => "pass",
    }
}

/// RFC 3339 to the second, as people write it.
fn instant(text: &str) -> String {
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    format!("{date} {} UTC", time.get(..8).unwrap_or(time))
}

fn nanos(value: u64) -> String {
    time(value as f64 / NS_PER_MS)
}

/// A count with its thousands apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

const ROWS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::verdict::judge;

    #[test]
    fn the_page_says_the_verdict_and_the_numbers_of_the_run() {
        let run = fixture::run(9_700, 300);
        let page = print(&run, &judge(&run));
        assert!(page.contains("<b>pass</b>"), "no verdict");
        assert!(page.contains("data-name=\"due\" data-value=\"10000\""));
        assert!(page.contains("data-name=\"missed\" data-value=\"300\""));
        let p99 = run.times.response.value_at_percentile(99.0);
        assert!(page.contains(&format!("data-name=\"p99\" data-value=\"{p99}\"")));
    }

    #[test]
    fn nothing_is_fetched_and_nothing_escapes() {
        let mut run = fixture::run(100, 0);
        run.scenario = "<script>alert(1)</script>".into();
        run.wrong_answers = vec!["<img src=x>".into()];
        let page = print(&run, &judge(&run));
        for forbidden in ["<script", "<img", "http://", "https://", "url(", "@import", "src="] {
            let found = page.replace("&lt;img src=x&gt;", "");
            assert!(!found.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(grouped(1_234_567).replace('\u{202f}', " "), "1 234 567");
        assert_eq!(grouped(12), "12");
    }
}
