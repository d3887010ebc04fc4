//! Objectives from OpenSLO v1, and the alert rules of Prometheus that watch the same limits.
//!
//! An SLO with the budgeting method `Occurrences` becomes a share of requests slower than the
//! objective's value (seconds), judged by its bound: what it promises holds for requests to come, too.
//! One with `Timeslices` becomes minutes of downtime a month: a slice is good when the probe was
//! answered in it, so its `timeSliceTarget` is 1 and its `timeSliceWindow` at most a minute, and there
//! is no `op` and `value`. The labels `request` and `carrier` of an SLO narrow it to a kind of request
//! and a carrier. Documents of other kinds are passed over; an SLO that cannot be judged is an error
//! that names what of it, never silently dropped or taken for another.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::burn::{ALARMS, Alarm};
use crate::downtime::MONTH_MINUTES;
use crate::objective::{CONFIDENCE_PERCENT, Limit, Objective};
use crate::tally::{Carrier, Kind};

/// The largest text that is read.
pub const BYTES_MAX: usize = 1 << 20;
const VERSION: &str = "openslo/v1";
/// The lowest bucket of the server's histogram, seconds; each next one is twice as long, and the
/// contract's limit comes last.
const FIRST_BUCKET_SECONDS: f64 = 0.000_025;
const DOUBLED_BUCKETS: i32 = 17;
const LAST_BUCKET_SECONDS: f64 = 3.0;
const OUTCOMES: &str = "unavailable|result_unavailable";

/// Why the documents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenSloError {
    /// A value is out of its range or a label names nothing that is known.
    #[error("the SLO `{name}` cannot be judged: {cause}")]
    Objective {
        /// Which SLO.
        name: String,
        /// What of it.
        cause: String,
    },
    /// Larger than [`BYTES_MAX`].
    #[error("the documents are too large")]
    TooLarge,
    /// Not of version 1.
    #[error("only `{VERSION}` is read")]
    Version,
    /// Not YAML of this form.
    #[error("the documents cannot be read: {0}")]
    Yaml(String),
}

/// Reads the SLOs of a text of one or more YAML documents.
pub fn read(text: &str) -> Result<Vec<Objective>, OpenSloError> {
    if text.len() > BYTES_MAX {
        return Err(OpenSloError::TooLarge);
    }
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(text).map_err(|error| OpenSloError::Yaml(error.to_string()))?;
    let mut objectives = Vec::new();
    for document in documents {
        if document.api_version != VERSION {
            return Err(OpenSloError::Version);
        }
        if document.kind == "SLO" {
            objectives.extend(document.objectives()?);
        }
    }
    Ok(objectives)
}

/// The rules that alert when the budget of an objective burns 14.4, 6, 3 or 1 times too fast in a
/// long and a short window at once. Limits that have no budget have no rules.
///
/// The server's histogram has a bucket at the contract's limit, but not at every other; the next lower
/// one is taken, so an alert may come early and never late. The server tells only checks apart by
/// carrier: in place of the rules for anything else by one carrier stands a comment. `job` is the name
/// under which Prometheus scrapes the server.
pub fn rules(objectives: &[Objective], job: &str) -> String {
    let mut text = String::from("groups:\n- name: eligo-burn-rates\n  rules:\n");
    for objective in objectives {
        let Some(budget) = Budget::of(objective, job) else { continue };
        if objective.carrier.is_some() && objective.kind != Some(Kind::Check) {
            let name = scalar(&objective.name);
            text.push_str(&format!(
                "  # No rules for {name}: the server tells only checks apart by carrier.\n"
            ));
            continue;
        }
        for alarm in ALARMS {
            text.push_str(&budget.rule(&objective.name, &alarm));
        }
    }
    text
}

/// The share that is allowed and the expression of the share that was seen, `$w` for the window.
struct Budget {
    allowed: f64,
    seen: String,
}

impl Budget {
    fn of(objective: &Objective, job: &str) -> Option<Budget> {
        let job = quoted(job);
        match objective.limit {
            Limit::Budget { above_ms, percent_max, .. }
            | Limit::Census { above_ms, percent_max }
            | Limit::Share { above_ms, percent_max, .. } => {
                let carrier = objective
                    .carrier
                    .map(|carrier| format!(",carrier=\"{}\"", carrier.name()))
                    .unwrap_or_default();
                let of = format!("job=\"{job}\",method=~\"{}\"{carrier}", methods(objective.kind));
                let bucket = bucket(above_ms / 1_000.0)?;
                let all = format!("sum(rate(eligo_request_seconds_count{{{of}}}[$w]))");
                let quick = format!("sum(rate(eligo_request_seconds_bucket{{{of},{bucket}}}[$w]))");
                let refused = format!(
                    "(sum(rate(eligo_requests_total{{{of},outcome=~\"{OUTCOMES}\"}}[$w])) or vector(0))"
                );
                let seen = format!("({all} - {quick} + {refused}) / {all}");
                Some(Budget { allowed: percent_max / 100.0, seen })
            }
            Limit::Downtime { minutes_max } => {
                let seen =
                    format!("1 - avg_over_time((min(up{{job=\"{job}\"}}) or vector(0))[$w:30s])");
                Some(Budget { allowed: minutes_max / MONTH_MINUTES, seen })
            }
            Limit::BurnRate { .. }
            | Limit::Depot { .. }
            | Limit::Never(_)
            | Limit::Offline { .. }
            | Limit::Percentile { .. } => None,
        }
    }

    fn rule(&self, name: &str, alarm: &Alarm) -> String {
        let (long, short) = (window(alarm.long_minutes), window(alarm.short_minutes));
        let limit = format!("{} * {}", alarm.rate, self.allowed);
        let side = |window: &str| format!("({}) > {limit}", self.seen.replace("$w", window));
        let severity = if alarm.pages { "page" } else { "ticket" };
        format!(
            "  - alert: EligoBudgetBurns\n    expr: |\n      ({})\n      and\n      ({})\n    \
             labels:\n      severity: {severity}\n      objective: {}\n      long: {long}\n    \
             annotations:\n      summary: {}\n",
            side(&long),
            side(&short),
            scalar(name),
            scalar(&format!(
                "{name}: the error budget burns more than {} times too fast over {long} and {short}",
                alarm.rate
            )),
        )
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    display_name: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    budgeting_method: String,
    objectives: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Target {
    display_name: Option<String>,
    op: Option<String>,
    value: Option<f64>,
    target: Option<f64>,
    target_percent: Option<f64>,
    time_slice_target: Option<f64>,
    time_slice_window: Option<String>,
}

impl Document {
    fn objectives(self) -> Result<Vec<Objective>, OpenSloError> {
        let name = self.metadata.display_name.clone().unwrap_or(self.metadata.name.clone());
        let unusable = |cause: String| OpenSloError::Objective { name: name.clone(), cause };
        let wrong = |cause: &str| unusable(cause.to_owned());
        let kind: Option<Kind> = self.metadata.label("request").map_err(wrong)?;
        let carrier: Option<Carrier> = self.metadata.label("carrier").map_err(wrong)?;
        let spec: Spec =
            serde_json::from_value(self.spec).map_err(|error| unusable(error.to_string()))?;
        let mut objectives = Vec::new();
        for target in &spec.objectives {
            let limit = target.limit(&spec.budgeting_method).map_err(wrong)?;
            let name = match &target.display_name {
                Some(own) if spec.objectives.len() > 1 => format!("{name}: {own}"),
                _ => name.clone(),
            };
            let objective = Objective { kind, carrier, ..Objective::new(&name, limit) };
            if let Some(cause) = objective.fault() {
                return Err(wrong(cause));
            }
            objectives.push(objective);
        }
        Ok(objectives)
    }
}

impl Metadata {
    fn label<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, &'static str> {
        let Some(value) = self.labels.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or("a label is not one text")?;
        let text: StrDeserializer<'_, ValueError> = text.into_deserializer();
        T::deserialize(text).map(Some).map_err(|_| "a label names nothing known")
    }
}

impl Target {
    fn limit(&self, method: &str) -> Result<Limit, &'static str> {
        let target = match (self.target, self.target_percent) {
            (Some(share), None) => share,
            (None, Some(percent)) => percent / 100.0,
            _ => return Err("it needs one of `target` and `targetPercent`"),
        };
        if !(0.0..1.0).contains(&target) {
            return Err("its target is out of range");
        }
        // What people write in decimals is meant in decimals.
        let missed = ((1.0 - target) * 1e12).round() / 1e12;
        match method {
            "Occurrences" => {
                let (Some("lte" | "lt"), Some(seconds)) = (self.op.as_deref(), self.value) else {
                    return Err("it needs `op: lte` and a `value` in seconds");
                };
                if self.time_slice_target.is_some() || self.time_slice_window.is_some() {
                    return Err("`timeSliceTarget` and `timeSliceWindow` are for `Timeslices`");
                }
                Ok(Limit::Share {
                    above_ms: (seconds * 1e6).round() / 1e3,
                    percent_max: (missed * 1e12).round() / 1e10,
                    confidence_percent: CONFIDENCE_PERCENT,
                })
            }
            "Timeslices" => {
                self.slices_fault().map_or(Ok(()), Err)?;
                Ok(Limit::Downtime { minutes_max: (missed * MONTH_MINUTES * 1e6).round() / 1e6 })
            }
            _ => Err("its `budgetingMethod` is neither `Occurrences` nor `Timeslices`"),
        }
    }

    /// Why its slices are not those of the downtime that the probe sees, if so.
    fn slices_fault(&self) -> Option<&'static str> {
        let is_short = |window: &str| {
            let seconds = window.strip_suffix('s').and_then(|seconds| seconds.parse::<u32>().ok());
            window == "1m" || seconds.is_some_and(|seconds| (1..=60).contains(&seconds))
        };
        if self.op.is_some() || self.value.is_some() {
            Some("`op` and `value` are not evaluated by slices: they are slices of downtime")
        } else if self.time_slice_target.is_some_and(|target| target != 1.0) {
            Some("its `timeSliceTarget` is not 1: slices are those of downtime")
        } else if self.time_slice_window.as_deref().is_some_and(|window| !is_short(window)) {
            Some("its `timeSliceWindow` is neither `1m` nor so many seconds of it")
        } else {
            None
        }
    }
}

/// The label of the bucket of the server at a limit or next below.
fn bucket(seconds: f64) -> Option<String> {
    let doubled = (0..DOUBLED_BUCKETS).map(|power| FIRST_BUCKET_SECONDS * 2_f64.powi(power));
    let buckets = doubled.chain([LAST_BUCKET_SECONDS]);
    let bucket = buckets.take_while(|bucket| *bucket <= seconds).last()?;
    // From version 3 on Prometheus writes whole numbers with a fraction.
    let is_whole = bucket.fract() == 0.0;
    Some(if is_whole { format!("le=~\"{bucket}|{bucket}.0\"") } else { format!("le=\"{bucket}\"") })
}

/// The methods of the server's metrics that a kind is.
fn methods(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Batch) => "checks",
        Some(Kind::Cancel) => "cancel",
        Some(Kind::Check | Kind::Malformed) => "check",
        Some(Kind::Confirm) => "confirm",
        Some(Kind::History) => "transactions",
        Some(Kind::Repeat) => "confirm|cancel",
        Some(Kind::Services) => "services",
        None => "check|checks|confirm|cancel|transactions|services",
    }
}

fn window(minutes: u64) -> String {
    match minutes {
        days if days.is_multiple_of(1_440) => format!("{}d", days / 1_440),
        hours if hours.is_multiple_of(60) => format!("{}h", hours / 60),
        minutes => format!("{minutes}m"),
    }
}

/// A text inside quotes of PromQL.
fn quoted(text: &str) -> String {
    text.chars()
        .filter(|character| character.is_ascii_alphanumeric() || "-_.:/".contains(*character))
        .collect()
}

/// A text as a scalar of YAML: JSON's strings are.
fn scalar(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::contract;

    const BUILT_IN: &str = r#"
apiVersion: openslo/v1
kind: Service
metadata: { name: eligo }
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: checks
  displayName: slow or unanswered checks
  labels: { request: check }
spec:
  service: eligo
  budgetingMethod: Occurrences
  timeWindow: [{ duration: 30d, isRolling: true }]
  objectives:
    - { op: lte, value: 3, target: 0.97 }
---
apiVersion: openslo/v1
kind: SLO
metadata: { name: downtime }
spec:
  budgetingMethod: Timeslices
  objectives:
    - { targetPercent: 99, timeSliceTarget: 1, timeSliceWindow: 1m }
"#;

    #[test]
    fn the_built_in_objectives_are_read() {
        let [checks, .., downtime] = &contract(4)[..] else { panic!("two at least") };
        let share = Limit::Share { above_ms: 3_000.0, percent_max: 3.0, confidence_percent: 95.0 };
        let own = |one: &Objective| Objective { built_in: None, ..one.clone() };
        let expected = [Objective { limit: share, ..own(checks) }, own(downtime)];
        assert_eq!(read(BUILT_IN).unwrap(), expected);
    }

    fn check(spec: &str, expected: Option<Limit>) {
        let text =
            format!("apiVersion: openslo/v1\nkind: SLO\nmetadata: {{name: x}}\nspec: {spec}");
        let limit = read(&text).ok().map(|read| read[0].limit.clone());
        assert_eq!(limit, expected, "{spec}");
    }

    #[test]
    fn what_cannot_be_judged_is_an_error() {
        let share = Limit::Share { above_ms: 100.0, percent_max: 0.01, confidence_percent: 95.0 };
        check(
            "{budgetingMethod: Occurrences, objectives: [{op: lt, value: 0.1, target: 0.9999}]}",
            Some(share),
        );
        let slices = Limit::Downtime { minutes_max: 4.32 };
        check("{budgetingMethod: Timeslices, objectives: [{target: 0.9999}]}", Some(slices));
        check("{budgetingMethod: RatioTimeslices, objectives: [{target: 0.9}]}", None);
        check("{budgetingMethod: Occurrences, objectives: [{target: 0.9}]}", None);
        check(
            "{budgetingMethod: Occurrences, objectives: [{op: gt, value: 1, target: 0.9}]}",
            None,
        );
        check("{budgetingMethod: Timeslices, objectives: [{target: 1.5}]}", None);
        check("{budgetingMethod: Timeslices, objectives: [{}]}", None);
        check("[]", None);
        check(
            "{budgetingMethod: Occurrences, objectives: [{op: lt, value: 1, target: 0.9, timeSliceTarget: 1}]}",
            None,
        );
        assert!(matches!(read(&"#".repeat(BYTES_MAX + 1)), Err(OpenSloError::TooLarge)));
        let old = BUILT_IN.replace("openslo/v1", "openslo/v1alpha");
        assert!(matches!(read(&old), Err(OpenSloError::Version)));
        let unknown = BUILT_IN.replace("request: check", "request: tea");
        assert!(matches!(read(&unknown), Err(OpenSloError::Objective { .. })));
        assert!(read("a: [").is_err());
    }

    /// Slices of a latency, of half-good minutes or of whole hours were once taken for downtime.
    #[test]
    fn slices_that_are_not_downtime_name_the_field() {
        let fault = |more: &str| {
            let text = format!(
                "apiVersion: openslo/v1\nkind: SLO\nmetadata: {{name: x}}\nspec: \
                 {{budgetingMethod: Timeslices, objectives: [{{target: 0.99{more}}}]}}"
            );
            read(&text).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for (more, named) in [
            (", op: lte", "`op`"),
            (", value: 0.1", "`value`"),
            (", op: lte, value: 0.1, timeSliceTarget: 1", "`op`"),
            (", timeSliceTarget: 0.95", "`timeSliceTarget`"),
            (", timeSliceWindow: 1h", "`timeSliceWindow`"),
            (", timeSliceWindow: 0s", "`timeSliceWindow`"),
            (", ratioMetrics: {}", "`ratioMetrics`"),
        ] {
            let fault = fault(more);
            assert!(fault.contains("`x` cannot be judged") && fault.contains(named), "{fault}");
        }
        for more in ["", ", timeSliceTarget: 1, timeSliceWindow: 1m", ", timeSliceWindow: 30s"] {
            assert_eq!(fault(more), "", "{more}");
        }
    }

    #[test]
    fn rules_watch_the_same_limits() {
        let text = rules(&read(BUILT_IN).unwrap(), "eligo");
        assert_eq!(text.matches("alert: EligoBudgetBurns").count(), 8);
        for window in ["[1h]", "[5m]", "[6h]", "[30m]", "[1d]", "[2h]", "[3d]"] {
            assert!(text.contains(window), "{window}");
        }
        assert!(text.contains("> 14.4 * 0.03") && text.contains("> 1 * 0.01"), "{text}");
        assert!(text.contains("method=~\"check\",le=~\"3|3.0\"}"), "{text}");
        let rules: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(rules["groups"][0]["rules"].as_array().unwrap().len(), 8);
    }

    #[test]
    fn limits_have_the_bucket_at_or_next_below_them() {
        let check = |seconds, expected: Option<&str>| {
            assert_eq!(bucket(seconds), expected.map(str::to_owned), "{seconds}");
        };
        check(0.000_01, None);
        check(0.1, Some("le=\"0.0512\""));
        check(2.999, Some("le=\"1.6384\""));
        check(3.0, Some("le=~\"3|3.0\""));
        check(60.0, Some("le=~\"3|3.0\""));
    }

    #[test]
    fn a_carriers_rules_watch_that_carrier_or_are_not_there() {
        let text = rules(&contract(4), "eligo");
        // Seven objectives, of which the confirms by one carrier cannot be watched.
        assert_eq!(text.matches("alert: EligoBudgetBurns").count(), 20, "{text}");
        assert_eq!(text.matches("# No rules for \"slow or unanswered confirms, ").count(), 2);
        for carrier in ["ecs", "social"] {
            let name = format!("objective: \"slow or unanswered checks, {carrier} cards\"");
            let rule = text.split("- alert").find(|rule| rule.contains(&name)).unwrap();
            assert_eq!(rule.matches(&format!(",carrier=\"{carrier}\"")).count(), 8, "{rule}");
        }
        let rules: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(rules["groups"][0]["rules"].as_array().unwrap().len(), 20);
    }

    #[test]
    fn names_stay_inside_their_quotes() {
        let mut objective = contract(4).remove(0);
        objective.name = "a\": b\n# c".into();
        let text = rules(&[objective], "x\"} or vector(1) #");
        let rules: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(rules["groups"][0]["rules"][0]["labels"]["objective"], "a\": b\n# c");
        assert!(text.contains("job=\"xorvector1\""), "{text}");
    }
}
