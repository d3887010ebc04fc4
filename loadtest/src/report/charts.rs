//! What of a run is drawn.

use hdrhistogram::Histogram;

use crate::report::svg::{Band, Chart, Line, clock};
use crate::run::Run;
use crate::second::Second;
use crate::target::{Process, Sampled};
use crate::verdict::time;

const NS_PER_MS: f64 = 1e6;
/// Bands of one sort; more would hide the lines.
const BANDS_MAX: usize = 500;
/// Digits of a share, 1 is 90 %, beyond which it is not drawn.
const NINES_MAX: f64 = 7.0;

/// Response times, second by second.
pub fn latency(run: &Run) -> String {
    Chart {
        title: "Response time by second",
        height: 300.0,
        is_logarithmic: true,
        value: time,
        lines: vec![
            line(run, "max", "longest", |row| row.response_max as f64 / NS_PER_MS),
            line(run, "p999", "p99.9", |row| row.response_p999 as f64 / NS_PER_MS),
            line(run, "p99", "p99", |row| row.response_p99 as f64 / NS_PER_MS),
            line(run, "p50", "p50", |row| row.response_p50 as f64 / NS_PER_MS),
        ],
        bands: bands(run),
        places: Vec::new(),
    }
    .draw()
}

/// What was due, answered, missed and wrong, second by second.
pub fn rate(run: &Run) -> String {
    let mut lines = vec![
        line(run, "due", "due", |row| row.due as f64),
        line(run, "answered", "answered", |row| row.answered as f64),
        line(run, "missed", "missed", |row| (row.unanswered + row.refused) as f64),
    ];
    if run.seconds.iter().any(|row| row.wrong > 0) {
        lines.push(line(run, "wrong", "wrong", |row| row.wrong as f64));
    }
    let value = |value: f64| format!("{value}");
    Chart {
        title: "Requests by second",
        height: 220.0,
        is_logarithmic: false,
        value,
        lines,
        bands: bands(run),
        places: Vec::new(),
    }
    .draw()
}

/// How late the generator was, second by second.
pub fn lateness(run: &Run) -> String {
    Chart {
        title: "Lateness of the generator by second",
        height: 180.0,
        is_logarithmic: true,
        value: time,
        lines: vec![line(run, "lateness", "p99", |row| row.lateness_p99 as f64 / NS_PER_MS)],
        bands: late(run),
        places: Vec::new(),
    }
    .draw()
}

/// Response and service times by percentile.
pub fn spectrum(run: &Run) -> String {
    let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %", "99.99999 %"];
    let points = spectrum_points(&run.times.response);
    let last = points.last().map_or(0.0, |point| point.0);
    let places = names.iter().enumerate().map(|(at, name)| (at as f64, name.to_string()));
    Chart {
        title: "Response time by percentile",
        height: 280.0,
        is_logarithmic: true,
        value: time,
        lines: vec![
            Line {
                class: "service",
                name: "service time, from the sending",
                points: spectrum_points(&run.times.service),
            },
            Line { class: "response", name: "response time, from when it was due", points },
        ],
        bands: Vec::new(),
        places: places.filter(|(at, _)| *at <= last).collect(),
    }
    .draw()
}

/// Processor time and memory of the server.
pub fn process(sampled: &Sampled) -> String {
    let points = |value: fn(&Process) -> f64| {
        sampled.process.iter().map(|row| (row.at_seconds, value(row))).collect()
    };
    let chart = |title, class, name, points, value| {
        Chart {
            title,
            height: 150.0,
            is_logarithmic: false,
            value,
            lines: vec![Line { class, name, points }],
            bands: Vec::new(),
            places: Vec::new(),
        }
        .draw()
    };
    let cpu = points(|row| row.cpu_percent);
    let memory = points(|row| row.resident_bytes as f64 / f64::from(1 << 20));
    [
        chart("Processor time", "cpu", "processor time of one core", cpu, |value| {
            format!("{value} %")
        }),
        chart("Memory", "rss", "resident memory", memory, |value| format!("{value} MiB")),
    ]
    .concat()
}

fn line<'a>(run: &Run, class: &'a str, name: &'a str, value: impl Fn(&Second) -> f64) -> Line<'a> {
    // Behind the last request only what was under way comes in.
    let end = run.seconds.iter().rposition(|row| row.due > 0).map_or(0, |last| last + 1);
    let rows = run.seconds.iter().take(end);
    Line { class, name, points: rows.map(|row| (row.second as f64, value(row))).collect() }
}

fn bands(run: &Run) -> Vec<Band<'static>> {
    let mut bands = late(run);
    let outages = run.availability.iter().flat_map(|seen| &seen.outages);
    bands.extend(outages.take(BANDS_MAX).map(|outage| Band {
        class: "down",
        name: format!("down from {} to {}", clock(outage.from_seconds), clock(outage.to_seconds)),
        from: outage.from_seconds,
        to: outage.to_seconds,
    }));
    bands.extend(run.faults.iter().take(BANDS_MAX).map(|fault| Band {
        class: "fault",
        name: format!("{}: {}", clock(fault.at_seconds), fault.name),
        from: fault.at_seconds,
        to: fault.at_seconds,
    }));
    bands
}

fn late(run: &Run) -> Vec<Band<'static>> {
    let tainted: Vec<f64> =
        run.seconds.iter().filter(|row| row.is_tainted()).map(|row| row.second as f64).collect();
    tainted
        .chunk_by(|one, next| next - one <= 1.0)
        .take(BANDS_MAX)
        .filter_map(|run| {
            let (from, to) = (*run.first()?, *run.last()?);
            let name = format!("the generator was late at {}", clock(from));
            Some(Band { class: "late", name, from: from - 0.5, to: to + 0.5 })
        })
        .collect()
}

/// Across, how many nines the share has; up, milliseconds.
fn spectrum_points(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    let all = times.len() as f64;
    let mut points = Vec::new();
    let mut nines = 0.0;
    // The last point is the one with a single answer beyond.
    while nines <= NINES_MAX && 10_f64.powf(nines) <= all {
        let quantile = 1.0 - 10_f64.powf(-nines);
        points.push((nines, times.value_at_quantile(quantile) as f64 / NS_PER_MS));
        nines += 0.05;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// The values of a line as somebody reads them who has the drawing only: by the names of the lines
    /// of the grid.
    fn read(svg: &str, class: &str, is_logarithmic: bool) -> Vec<f64> {
        let inside = |text: &str, from: &str, to: &str| {
            let (_, rest) = text.split_once(from).unwrap();
            rest.split_once(to).unwrap().0.to_owned()
        };
        let scaled = |value: f64| if is_logarithmic { value.ln() } else { value };
        let grid = svg.split("<line class=\"grid\"").skip(1);
        let grid: Vec<(f64, f64)> = grid
            .map(|line| {
                let y = inside(line, "y1=\"", "\"").parse().unwrap();
                (y, scaled(number(&inside(line, "text-anchor=\"end\">", "<"))))
            })
            .collect();
        let ((low, least), (high, most)) = (grid[0], grid[grid.len() - 1]);
        let path = inside(svg, &format!("<path class=\"line {class}\" d=\""), "\"");
        let points = path.split(['M', 'L']).skip(1);
        let value = |point: &str| {
            let y: f64 = point.split_once(' ').unwrap().1.parse().unwrap();
            least + (y - low) / (high - low) * (most - least)
        };
        points.map(value).map(|value| if is_logarithmic { value.exp() } else { value }).collect()
    }

    /// A count, or a time in milliseconds.
    fn number(name: &str) -> f64 {
        let (value, unit) = name.split_once(' ').unwrap_or((name, ""));
        let milliseconds = match unit {
            "µs" => 1e-3,
            "s" => 1e3,
            _ => 1.0,
        };
        value.parse::<f64>().unwrap() * milliseconds
    }

    fn check(read: &[f64], run: &Run, value: impl Fn(&Second) -> f64) {
        assert_eq!(read.len(), run.seconds.len());
        for (read, second) in read.iter().zip(&run.seconds) {
            let expected = value(second);
            assert!((read - expected).abs() <= 0.01 * expected.max(1.0), "{read} {expected}");
        }
    }

    #[test]
    fn lines_are_where_the_document_says() {
        let mut run = fixture::run(10_000, 500);
        for (at, second) in run.seconds.iter_mut().enumerate() {
            let at = u64::try_from(at).unwrap();
            second.due += 37 * at;
            second.answered = second.due - 11 * (at % 3);
            second.unanswered = 11 * (at % 3);
            second.response_p99 = 1_500_000 + 900_000 * (at % 4);
            second.response_max = 5_000_000 + 40_000_000 * (at % 5);
        }
        let svg = rate(&run);
        check(&read(&svg, "due", false), &run, |second| second.due as f64);
        check(&read(&svg, "answered", false), &run, |second| second.answered as f64);
        let svg = latency(&run);
        check(&read(&svg, "p50", true), &run, |second| second.response_p50 as f64 / NS_PER_MS);
        check(&read(&svg, "p99", true), &run, |second| second.response_p99 as f64 / NS_PER_MS);
        check(&read(&svg, "max", true), &run, |second| second.response_max as f64 / NS_PER_MS);
    }
}
