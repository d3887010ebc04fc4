//! What a person sees while a run goes on: redrawn in place on a terminal, otherwise one plain line
//! every few seconds.

use std::io::{self, IsTerminal, Write};

use crate::report::svg::clock;
use crate::verdict::{Judged, Outcome, time};

/// Between two plain lines, seconds.
const PLAIN_SECONDS: f64 = 5.0;
/// Objectives that are listed.
const OBJECTIVES_MAX: usize = 16;
const NS_PER_MS: f64 = 1e6;

/// A run at one instant.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the start.
    pub at_seconds: f64,
    /// How long it is.
    pub duration_seconds: f64,
    /// Requests that were due in the last second.
    pub rate: u64,
    /// Under way.
    pub in_flight: u64,
    /// Response times of the last second, nanoseconds.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Not answered so far, or answered only that the server cannot.
    pub missed: u64,
    /// Answered wrongly so far.
    pub wrong: u64,
    /// Whether the generator itself was late in the last second.
    pub is_tainted: bool,
    /// How the objectives stand.
    pub judged: Vec<Judged>,
}

/// Where it is shown.
pub struct Screen<W> {
    out: W,
    is_terminal: bool,
    /// Lines that the next drawing replaces.
    drawn: usize,
    last_seconds: Option<f64>,
}

impl Screen<io::Stdout> {
    /// Standard output.
    pub fn stdout() -> Screen<io::Stdout> {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Screen::new(out, is_terminal)
    }
}

impl<W: Write> Screen<W> {
    /// Any other output.
    pub fn new(out: W, is_terminal: bool) -> Screen<W> {
        Screen { out, is_terminal, drawn: 0, last_seconds: None }
    }

    /// Whether it is redrawn in place, objectives and all.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows a run; call it about once a second.
    pub fn show(&mut self, figures: &Figures) -> io::Result<()> {
        if self.is_terminal {
            let lines = drawing(figures);
            // Up to where the last drawing began, then clear to the end.
            if self.drawn > 0 {
                write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            }
            for line in &lines {
                writeln!(self.out, "{line}")?;
            }
            self.drawn = lines.len();
            return self.out.flush();
        }
        if self.last_seconds.is_some_and(|last| figures.at_seconds - last < PLAIN_SECONDS) {
            return Ok(());
        }
        self.last_seconds = Some(figures.at_seconds);
        writeln!(self.out, "{}", line(figures))?;
        self.out.flush()
    }
}

fn line(figures: &Figures) -> String {
    let late = if figures.is_tainted { " generator-late" } else { "" };
    format!(
        "{} left {} rate {}/s in-flight {} p50 {} p99 {} p99.9 {} missed {} wrong {}{late}",
        clock(figures.at_seconds),
        clock(figures.duration_seconds - figures.at_seconds),
        figures.rate,
        figures.in_flight,
        nanos(figures.p50),
        nanos(figures.p99),
        nanos(figures.p999),
        figures.missed,
        figures.wrong,
    )
}

fn drawing(figures: &Figures) -> Vec<String> {
    const WIDTH: usize = 40;
    let share = (figures.at_seconds / figures.duration_seconds.max(1e-9)).clamp(0.0, 1.0);
    let filled = (share * WIDTH as f64) as usize;
    let bar = format!("{}{}", "━".repeat(filled), "─".repeat(WIDTH.saturating_sub(filled)));
    let late = if figures.is_tainted { "   \x1b[33mthe generator is late\x1b[0m" } else { "" };
    let mut lines = vec![
        format!("{bar} {} of {}{late}", clock(figures.at_seconds), clock(figures.duration_seconds)),
        format!(
            "rate {:>9}/s   in flight {:>6}   missed {:>8}   wrong {:>6}",
            figures.rate, figures.in_flight, figures.missed, figures.wrong
        ),
        format!(
            "p50 {:>12}   p99 {:>12}   p99.9 {:>12}",
            nanos(figures.p50),
            nanos(figures.p99),
            nanos(figures.p999)
        ),
    ];
    for judged in figures.judged.iter().filter(|judged| judged.decides).take(OBJECTIVES_MAX) {
        let mark = match judged.outcome {
            Outcome::Fail => "\x1b[31m✗\x1b[0m",
            Outcome::NotEnoughData => "\x1b[33m·\x1b[0m",
            Outcome::Pass => "\x1b[32m✓\x1b[0m",
        };
        lines.push(format!("{mark} {}  {}", judged.name, judged.measured));
    }
    lines
}

fn nanos(value: u64) -> String {
    if value == 0 { "-".into() } else { time(value as f64 / NS_PER_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::verdict::judge;

    fn figures(at_seconds: f64) -> Figures {
        Figures {
            at_seconds,
            duration_seconds: 60.0,
            rate: 2_000,
            p50: 150_000,
            judged: judge(&fixture::run(1_000, 0)).judged,
            ..Figures::default()
        }
    }

    #[test]
    fn a_terminal_is_redrawn_in_place() {
        let mut bytes = Vec::new();
        let mut screen = Screen::new(&mut bytes, true);
        screen.show(&figures(1.0)).unwrap();
        let drawn = screen.drawn;
        screen.show(&figures(2.0)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches(&format!("\x1b[{drawn}A\x1b[J")).count(), 1);
        assert_eq!(text.matches('\n').count(), 2 * drawn);
        assert!(text.contains("0:01 of 1:00") && text.contains("150 µs"), "{text}");
    }

    #[test]
    fn elsewhere_a_line_comes_every_few_seconds() {
        let mut bytes = Vec::new();
        let mut screen = Screen::new(&mut bytes, false);
        for at in 0..11 {
            screen.show(&figures(f64::from(at))).unwrap();
        }
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.starts_with("0:00 left 1:00 rate 2000/s"), "{text}");
    }
}
