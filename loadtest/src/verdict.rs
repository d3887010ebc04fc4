//! The judgement of a run: each objective holds, is missed, or cannot be told from this run.
//!
//! # Why
//! Three outcomes, because a tool that must say yes or no lies when it does not know. The
//! contract's share is a census, counted out to the request, as the contract speaks of the requests
//! that were processed; but 98 right answers could not have shown 3 %, so fewer than 99 requests say
//! nothing. Downtime is missed when the run alone used up the month's minutes; one that is shorter
//! than a month holds it only at a rate at which the month would. A share that stands for requests to
//! come is judged by an exact one-sided bound. A percentile counts only with ten values beyond it.
//! When the generator itself was late in more than 5 % of the seconds, nothing timed says anything
//! about the server; what it answered wrongly, lost, doubled or made up is missed all the same.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::binomial;
use crate::burn;
use crate::downtime::{MONTH_MINUTES, percent_of_month};
use crate::histogram::percentile_of_all;
use crate::objective::{self, CONTRACT_MS, Fault, Limit, Objective};
use crate::run::{Load, Run};
use crate::tally::{Kind, Tally};
use crate::views::{self, View};

/// Seconds in which the generator was late above which a run is not judged, percent.
pub const TAINTED_PERCENT_MAX: f64 = 5.0;
/// Objectives that are named beside a verdict.
const REASONS_MAX: usize = 4;
const CENSUS_CONFIDENCE: f64 = 0.95;
const NS_PER_MS: f64 = 1e6;

/// How an objective came out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is missed.
    Fail,
    /// It cannot be told.
    NotEnoughData,
    /// It holds.
    Pass,
}

impl Outcome {
    /// As people read it.
    pub fn text(self) -> &'static str {
        match self {
            Outcome::Fail => "fail",
            Outcome::NotEnoughData => "not enough data",
            Outcome::Pass => "pass",
        }
    }
}

/// An objective and how it came out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Judged {
    /// What other programs know the objective by.
    #[serde(default)]
    pub id: String,
    /// The objective's name.
    pub name: String,
    /// What must hold.
    pub limit: String,
    /// What was seen.
    pub measured: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Whether it decides; otherwise it is only shown.
    pub decides: bool,
}

/// The judgement of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Verdict {
    /// Of those that decide: fail if one fails, else not enough data if one lacks data.
    pub outcome: Outcome,
    /// Each objective.
    pub judged: Vec<Judged>,
    /// Seconds in which the generator was late.
    pub tainted_seconds: u64,
    /// Those of all, percent.
    pub tainted_percent: f64,
    /// The share of slow or unanswered requests in windows.
    #[serde(default)]
    pub views: Vec<View>,
    /// What else a reader must know.
    pub notes: Vec<String>,
}

impl Verdict {
    /// What the process ends with: 0 all hold, 1 one is missed, 3 inconclusive. (2 is bad usage.)
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::NotEnoughData => 3,
        }
    }

    /// Why it came out so, what matters most first: the objectives that made it so, and the notes.
    pub fn reasons(&self) -> Vec<String> {
        let missing = self.judged.iter().filter(|judged| {
            judged.decides && judged.outcome == self.outcome && self.outcome != Outcome::Pass
        });
        let missing = missing.map(|judged| format!("{}: {}", judged.name, judged.measured));
        let (missing, notes) = (missing.take(REASONS_MAX), self.notes.iter().cloned());
        // A run that says nothing says why first.
        match self.outcome {
            Outcome::NotEnoughData => notes.chain(missing).collect(),
            _ => missing.chain(notes).collect(),
        }
    }
}

/// Judges a run by its terms.
pub fn judge(run: &Run) -> Verdict {
    let tainted_seconds = run.seconds.iter().filter(|second| second.is_tainted()).count() as u64;
    // While answers are only waited for the generator cannot be late.
    let loaded_seconds = run.seconds.iter().filter(|second| second.due > 0).count() as u64;
    let tainted_percent = percent(tainted_seconds, loaded_seconds);
    let tainted = tainted_percent > TAINTED_PERCENT_MAX;
    let truth = [objective::truth()];
    let contract = objective::contract(run.terms.month_of_service);
    let strict = objective::strict();
    let fleet = if run.fleet.is_some() { objective::fleet() } else { Vec::new() };
    let deciding = truth.iter().chain(contract.iter().filter(|one| is_asked(run, one)));
    let deciding = deciding.chain(&fleet).chain(&run.terms.objectives).map(|one| (one, true));
    // Without an audit the findings of one are only shown as unknown.
    let beside = strict.iter().map(|one| {
        let found = matches!(one.limit, Limit::Never(_)) && run.audit.is_some();
        (one, run.terms.strict || found)
    });
    let judged: Vec<Judged> = deciding
        .chain(beside)
        .map(|(objective, decides)| {
            let mut judged = judge_one(run, objective, decides);
            if tainted && !matches!(objective.limit, Limit::Never(_)) {
                judged.outcome = Outcome::NotEnoughData;
            }
            judged
        })
        .collect();
    Verdict {
        outcome: outcome(&judged, tainted || !doubts(run).is_empty()),
        judged,
        tainted_seconds,
        tainted_percent,
        views: views::of(&run.seconds),
        notes: notes(run, tainted),
    }
}

/// The table of a verdict for a terminal.
pub fn table(verdict: &Verdict) -> String {
    let header = ["objective", "limit", "measured", "outcome"].map(str::to_string);
    let rows = verdict.judged.iter().map(|judged| {
        let shown = if judged.decides { "" } else { " (beside)" };
        let outcome = format!("{}{shown}", judged.outcome.text());
        [judged.name.clone(), judged.limit.clone(), judged.measured.clone(), outcome]
    });
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(rows).collect();
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    let verdict_text = match verdict.outcome {
        Outcome::Fail => "fail",
        Outcome::NotEnoughData => "inconclusive",
        Outcome::Pass => "pass",
    };
    table.push_str(&format!("verdict: {verdict_text}\n"));
    for note in &verdict.notes {
        table.push_str(&format!("note: {note}\n"));
    }
    table
}

/// Why the run was not what its scenario says, or not all of it is known.
pub fn doubts(run: &Run) -> Vec<String> {
    let failed = run.faults.iter().filter(|fault| fault.exit_code != Some(0));
    let failed = failed.map(|fault| format!("the fault `{}` failed", fault.name));
    failed.chain(run.failures.iter().cloned()).collect()
}

fn outcome(judged: &[Judged], doubted: bool) -> Outcome {
    let any = |outcome| judged.iter().any(|one| one.decides && one.outcome == outcome);
    if any(Outcome::Fail) {
        Outcome::Fail
    } else if doubted || any(Outcome::NotEnoughData) {
        Outcome::NotEnoughData
    } else {
        Outcome::Pass
    }
}

fn notes(run: &Run, tainted: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if tainted {
        notes.push(format!(
            "the generator was late in more than {TAINTED_PERCENT_MAX} % of the seconds, so nothing \
             timed says anything about the server"
        ));
    }
    if run.is_ended_early {
        let seconds = trimmed(run.duration_seconds, 1);
        notes.push(format!("the run was ended after {seconds} s, before its plan"));
    }
    notes.extend(doubts(run));
    if run.load == Load::Closed {
        notes.push("a closed loop: a stall of the server delays the load and hides itself".into());
    }
    if run.is_kept_awake {
        notes.push(
            "the tester's machine never slept: a server on it answers sooner than alone".into(),
        );
    }
    if let Some(seen) = run.availability.as_ref().filter(|seen| seen.is_cut) {
        let seconds = trimmed(seen.observed_seconds, 1);
        notes.push(format!("too many outages to keep: downtime is that of the first {seconds} s"));
    }
    notes.extend(run.fleet.as_ref().map(|fleet| fleet.note(run)));
    if run.audit.is_none() {
        notes.push("the history was not compared with what was acknowledged".into());
    }
    notes
}

/// Whether the run asked anything that the objective is about; a mix without social cards is not
/// judged by them, but one without any checks is.
fn is_asked(run: &Run, objective: &Objective) -> bool {
    let required = objective.kind == Some(Kind::Check) && objective.carrier.is_none();
    required || objective.kind.is_none() || tally(run, objective).due() > 0
}

fn judge_one(run: &Run, objective: &Objective, decides: bool) -> Judged {
    let (limit, measured, outcome) = match objective.limit {
        Limit::Budget { above_ms, percent_max, used_percent_max, confidence_percent } => {
            let count = count(run, objective, above_ms);
            let limit = percent_max * used_percent_max / 1e4;
            let outcome = bounded(count, limit, confidence_percent);
            let used = percent(count.failures, count.all) / percent_max * 100.0;
            (
                format!("≤ {used_percent_max} % of {percent_max} % over {}", time(above_ms)),
                format!("{} of the budget", percent_text(used)),
                outcome,
            )
        }
        Limit::BurnRate { percent_max, rate_max, long_minutes, short_minutes } => {
            let highest =
                burn::highest(&run.seconds, long_minutes, short_minutes, percent_max / 100.0);
            let limit = format!("≤ {rate_max} × in {long_minutes} min and {short_minutes} min");
            let measured =
                highest.map_or("a shorter run".into(), |highest| format!("{highest:.2} ×"));
            (limit, measured, at_most(highest, rate_max))
        }
        Limit::Census { above_ms, percent_max } => {
            let count = count(run, objective, above_ms);
            (share_limit(above_ms, percent_max), count.text(), counted(count, percent_max / 100.0))
        }
        Limit::Depot { seconds_max } => depot(run, seconds_max),
        Limit::Downtime { minutes_max } => downtime(run, minutes_max),
        Limit::Never(fault) => {
            let (measured, outcome) = never(run, fault);
            ("0".into(), measured, outcome)
        }
        Limit::Offline { percent_max } => {
            let checks = objective.kind.unwrap_or(Kind::Check);
            let tally = tally(run, &Objective { kind: Some(checks), ..objective.clone() });
            let count = Count { failures: tally.offline, all: tally.due() };
            let limit = format!("≤ {percent_max} %");
            (limit, count.text(), counted(count, percent_max / 100.0))
        }
        Limit::Percentile { percentile, ms_max } => {
            let (times, missing) = (times(run, objective.kind), missing(run, objective));
            let value = times.and_then(|times| percentile_of_all(times, missing, percentile));
            let measured = match value {
                None => "fewer than 10 answers beyond".into(),
                Some(u64::MAX) => "unanswered".into(),
                Some(value) => time(value as f64 / NS_PER_MS),
            };
            let outcome = at_most(value.map(|value| value as f64 / NS_PER_MS), ms_max);
            (format!("p{percentile} ≤ {}", time(ms_max)), measured, outcome)
        }
        Limit::Share { above_ms, percent_max, confidence_percent } => {
            let count = count(run, objective, above_ms);
            let outcome = bounded(count, percent_max / 100.0, confidence_percent);
            (share_limit(above_ms, percent_max), count.text(), outcome)
        }
    };
    Judged { id: objective.id(), name: objective.name.clone(), limit, measured, outcome, decides }
}

/// Failures of all.
#[derive(Clone, Copy)]
struct Count {
    failures: u64,
    all: u64,
}

impl Count {
    fn text(self) -> String {
        share_text(self.failures, self.all)
    }
}

/// Counted out: every request is known (Y12). Of few requests only a failure can be told.
fn counted(count: Count, limit: f64) -> Outcome {
    if count.all < binomial::trials_needed(limit, CENSUS_CONFIDENCE) {
        match bounded(count, limit, 100.0 * CENSUS_CONFIDENCE) {
            Outcome::Fail => Outcome::Fail,
            Outcome::NotEnoughData | Outcome::Pass => Outcome::NotEnoughData,
        }
    } else if count.failures as f64 <= limit * count.all as f64 + 1e-6 {
        Outcome::Pass
    } else {
        Outcome::Fail
    }
}

/// By the exact one-sided bounds: they are on one side of the limit, or they are not.
fn bounded(count: Count, limit: f64, confidence_percent: f64) -> Outcome {
    let doubt = 1.0 - confidence_percent / 100.0;
    if count.all == 0 {
        Outcome::NotEnoughData
    } else if binomial::at_most(count.failures, count.all, limit) <= doubt {
        Outcome::Pass
    } else if binomial::at_least(count.failures, count.all, limit) < doubt {
        Outcome::Fail
    } else {
        Outcome::NotEnoughData
    }
}

fn at_most(value: Option<f64>, limit: f64) -> Outcome {
    match value {
        None => Outcome::NotEnoughData,
        Some(value) if value <= limit => Outcome::Pass,
        Some(_) => Outcome::Fail,
    }
}

fn depot(run: &Run, seconds_max: f64) -> (String, String, Outcome) {
    let limit = format!("≤ {}", time(seconds_max * 1e3));
    let Some(depot) = run.fleet.as_ref().and_then(|fleet| fleet.depot) else {
        return (limit, "no depot".into(), Outcome::NotEnoughData);
    };
    let measured = match depot.done_seconds {
        Some(seconds) => time(seconds * 1e3),
        None => format!("{} of {} devices were done", depot.done, depot.devices),
    };
    let outcome = match depot.done_seconds {
        Some(seconds) if seconds <= seconds_max => Outcome::Pass,
        _ => Outcome::Fail,
    };
    (limit, measured, outcome)
}

/// A part of a month that has more downtime than its part of the budget does not show that the month
/// holds.
fn downtime(run: &Run, minutes_max: f64) -> (String, String, Outcome) {
    let limit =
        format!("≤ {minutes_max} min/month ({})", percent_text(percent_of_month(minutes_max)));
    // An outage begins with two bad probes in a row.
    let probes = run.availability.as_ref().map_or(0, |seen| seen.probes);
    let Some(seen) = run.availability.as_ref().filter(|_| probes > 1) else {
        let measured = if probes == 0 { "no probes" } else { "1 probe, 2 are needed" };
        return (limit, measured.into(), Outcome::NotEnoughData);
    };
    let minutes = seen.downtime_minutes();
    let observed = seen.observed_seconds / 60.0;
    let budget = observed * minutes_max / MONTH_MINUTES;
    let rate = if budget > 0.0 { minutes / budget } else { 0.0 };
    let used = if minutes_max > 0.0 { minutes / minutes_max * 100.0 } else { 0.0 };
    let (minutes_text, used) = (trimmed(minutes, 2), percent_text(used));
    let measured = format!("{minutes_text} min, {used} of the budget, at {rate:.1}\u{a0}×");
    // Seconds are summed as fractions; a microsecond is no downtime.
    let outcome = if minutes > minutes_max + 1e-8 {
        Outcome::Fail
    } else if seen.is_cut || (observed < MONTH_MINUTES && minutes > budget + 1e-8) {
        Outcome::NotEnoughData
    } else {
        Outcome::Pass
    };
    (limit, measured, outcome)
}

/// What was found decides; nothing found does only where everything was looked at.
fn never(run: &Run, fault: Fault) -> (String, Outcome) {
    let is_audited = matches!(fault, Fault::Doubled | Fault::Lost | Fault::Phantom);
    let unread = run.audit.map_or(0, |audit| audit.unchecked_holders);
    let may_hide = matches!(fault, Fault::Doubled | Fault::Phantom);
    let unexplained = run.audit.map_or(0, |audit| audit.unexplained);
    match findings(run, fault) {
        None => ("not looked for".into(), Outcome::NotEnoughData),
        Some(0) if unread > 0 && is_audited => {
            (format!("0, but {unread} holders were not read"), Outcome::NotEnoughData)
        }
        Some(0) if unexplained > 0 && may_hide => {
            (format!("0, but {unexplained} may be others'"), Outcome::NotEnoughData)
        }
        Some(0) => ("0".into(), Outcome::Pass),
        Some(count) => (count.to_string(), Outcome::Fail),
    }
}

fn findings(run: &Run, fault: Fault) -> Option<u64> {
    match fault {
        Fault::Doubled => run.audit.map(|audit| audit.doubled),
        Fault::Lost => run.audit.map(|audit| audit.lost + audit.altered),
        Fault::Phantom => run.audit.map(|audit| audit.phantom),
        Fault::TripsDoubled => run.fleet.as_ref().map(|fleet| fleet.trips.doubled),
        Fault::TripsLost => run.fleet.as_ref().map(|fleet| fleet.trips.lost),
        Fault::TripsWrong => run.fleet.as_ref().map(|fleet| fleet.trips.wrong),
        Fault::Wrong => Some(run.tallies.iter().map(|tallied| tallied.tally.wrong).sum()),
    }
}

/// What of the tallies an objective is about.
fn tally(run: &Run, objective: &Objective) -> Tally {
    let mut sum = Tally::default();
    for tallied in &run.tallies {
        let kind =
            objective.kind.map_or(tallied.kind != Kind::Malformed, |kind| kind == tallied.kind);
        if kind && objective.carrier.is_none_or(|carrier| carrier == tallied.carrier) {
            sum.add(&tallied.tally);
        }
    }
    sum
}

fn missing(run: &Run, objective: &Objective) -> u64 {
    let tally = tally(run, objective);
    tally.unanswered + tally.refused
}

fn times(run: &Run, kind: Option<Kind>) -> Option<&Histogram<u64>> {
    match kind {
        None => Some(&run.times.response),
        Some(kind) => {
            run.kinds.iter().find(|times| times.kind == kind).map(|times| &times.response)
        }
    }
}

/// Requests that were not answered or took longer. 3 s are counted to the nanosecond; other limits
/// by the histogram, three digits.
fn count(run: &Run, objective: &Objective, above_ms: f64) -> Count {
    let tally = tally(run, objective);
    let slow = if above_ms == CONTRACT_MS {
        tally.slow
    } else {
        times(run, objective.kind).map_or(0, |times| {
            let limit = (above_ms * NS_PER_MS) as u64;
            times.len() - times.count_between(0, limit.min(times.high()))
        })
    };
    Count { failures: slow + tally.unanswered + tally.refused, all: tally.due() }
}

fn share_limit(above_ms: f64, percent_max: f64) -> String {
    format!("≤ {percent_max} % over {} or unanswered", time(above_ms))
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 * 100.0 }
}

fn percent_text(percent: f64) -> String {
    let digits = if percent < 1.0 { 4 } else { 2 };
    format!("{} %", trimmed(percent, digits))
}

/// A share as people read it, with its counts.
pub fn share_text(part: u64, all: u64) -> String {
    format!("{} ({part} of {all})", percent_text(percent(part, all)))
}

/// Milliseconds as people read them.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 999.95 => format!("{} s", trimmed(ms / 1e3, 3)),
        ms if ms >= 1.0 => format!("{} ms", trimmed(ms, if ms < 100.0 { 2 } else { 1 })),
        ms => format!("{} µs", trimmed(ms * 1e3, 1)),
    }
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
