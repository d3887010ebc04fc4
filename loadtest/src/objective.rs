//! What a run must hold: the limits of the contract, a stricter set beside them, and those that a
//! scenario adds.
//!
//! In a scenario:
//! ```toml
//! [[objectives]]
//! name = "checks are quick"
//! kind = "check"
//! limit.share = { above_ms = 100, percent_max = 0.1 }
//!
//! [[objectives]]
//! name = "the slowest"
//! limit.percentile = { percentile = 99.9, ms_max = 250 }
//! ```

use serde::{Deserialize, Serialize};

use crate::tally::{Carrier, Kind};

/// Above this a request is not successful (D0 §6.4, §7.4), milliseconds.
pub const CONTRACT_MS: f64 = 3_000.0;
/// The share of requests that may be so, percent (D0 §6.4, §7.4).
pub const CONTRACT_PERCENT: f64 = 3.0;
/// Downtime in each of the first three months of service, minutes (D0 §6.4).
pub const EARLY_DOWNTIME_MINUTES: f64 = 1_296.0;
/// Downtime in a later month, minutes (D0 §6.4).
pub const DOWNTIME_MINUTES: f64 = 432.0;
/// How sure a judgement by a bound must be unless somebody says otherwise, percent.
pub const CONFIDENCE_PERCENT: f64 = 95.0;
const EARLY_MONTHS: u32 = 3;
const STRICT_MS: f64 = 100.0;
const STRICT_PERCENT: f64 = 0.01;
const STRICT_DOWNTIME_MINUTES: f64 = 4.32;

/// What a run is judged by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which month of service it is, from 1: the first three allow more downtime.
    pub month_of_service: u32,
    /// Whether the stricter set decides too; otherwise it is only shown.
    #[serde(default)]
    pub strict: bool,
    /// The scenario's own.
    #[serde(default)]
    pub objectives: Vec<Objective>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { month_of_service: EARLY_MONTHS + 1, strict: false, objectives: Vec::new() }
    }
}

/// A limit and what it is put to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What other programs know it by, of a built-in one; see [`Objective::id`].
    #[serde(skip)]
    pub built_in: Option<&'static str>,
    /// Its name in reports.
    pub name: String,
    /// Only requests of this kind; all but the malformed ones otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Only requests by this carrier. Response times are not told apart by it, so it goes only with
    /// a share above 3 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// What must hold.
    pub limit: Limit,
}

/// What must hold.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Limit {
    /// At most this part of a month's error budget is used up by requests like these.
    Budget {
        /// Slower is not successful, milliseconds.
        above_ms: f64,
        /// The share that the budget stands for, percent.
        percent_max: f64,
        /// How much of it may be used, percent.
        used_percent_max: f64,
        /// How sure the judgement must be, percent.
        #[serde(default = "default_confidence")]
        confidence_percent: f64,
    },
    /// The error budget of requests not answered within 3 s is never used up this many times too
    /// fast in a long and a short window at once.
    BurnRate {
        /// The share that the budget stands for, percent.
        percent_max: f64,
        /// How many times too fast.
        rate_max: f64,
        /// The long window, minutes.
        long_minutes: u64,
        /// The short window, minutes.
        short_minutes: u64,
    },
    /// At most this share is slow or not answered, counted out: every request of the run is known.
    Census {
        /// Slower is not successful, milliseconds.
        above_ms: f64,
        /// The share, percent.
        percent_max: f64,
    },
    /// All devices of the depot are up to date and rid of their trips within this time of the
    /// beginning of its window.
    Depot {
        /// Seconds.
        seconds_max: f64,
    },
    /// At most so much unplanned downtime a month; a run fails if it used up more alone, and holds if
    /// it would not by going on like that.
    Downtime {
        /// Minutes.
        minutes_max: f64,
    },
    /// This never happens.
    Never(Fault),
    /// At most this share of the checks was decided by devices on their own.
    Offline {
        /// The share, percent.
        percent_max: f64,
    },
    /// This percentile of the response times, the unanswered ones included, is not above.
    Percentile {
        /// From 0 to 100.
        percentile: f64,
        /// Milliseconds.
        ms_max: f64,
    },
    /// At most this share of requests like these is slow or not answered, by a one-sided bound.
    Share {
        /// Slower is not successful, milliseconds.
        above_ms: f64,
        /// The share, percent.
        percent_max: f64,
        /// How sure the judgement must be, percent.
        #[serde(default = "default_confidence")]
        confidence_percent: f64,
    },
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A confirm is in the history more than once.
    Doubled,
    /// A confirm that was acknowledged is not in the history.
    Lost,
    /// The history holds what was never asked for.
    Phantom,
    /// A trip that was recorded once was recorded again.
    TripsDoubled,
    /// A trip that a device recorded was not answered.
    TripsLost,
    /// A trip was answered otherwise than it must be.
    TripsWrong,
    /// An answer is not what the registry says.
    Wrong,
}

impl Objective {
    /// One for all requests.
    pub fn new(name: &str, limit: Limit) -> Objective {
        Objective { built_in: None, name: name.to_string(), kind: None, carrier: None, limit }
    }

    /// What other programs know it by, whatever people read: of one's own, the words of its name.
    pub fn id(&self) -> String {
        let words = self.name.split(|letter: char| !letter.is_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        self.built_in.map_or_else(|| words.join("_").to_lowercase(), str::to_owned)
    }

    /// Why it cannot be judged, if so.
    pub fn fault(&self) -> Option<&'static str> {
        let percent = |value: f64| value > 0.0 && value < 100.0;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let sound = match self.limit {
            Limit::Budget { above_ms, percent_max, used_percent_max, confidence_percent } => {
                positive(above_ms)
                    && percent(percent_max)
                    && positive(used_percent_max)
                    && percent(percent_max * used_percent_max / 100.0)
                    && percent(confidence_percent)
            }
            Limit::BurnRate { percent_max, rate_max, long_minutes, short_minutes } => {
                percent(percent_max)
                    && positive(rate_max)
                    && short_minutes > 0
                    && short_minutes <= long_minutes
            }
            Limit::Census { above_ms, percent_max } => positive(above_ms) && percent(percent_max),
            Limit::Depot { seconds_max } => positive(seconds_max),
            Limit::Offline { percent_max } => percent(percent_max),
            Limit::Downtime { minutes_max } => minutes_max.is_finite() && minutes_max >= 0.0,
            Limit::Never(_) => true,
            Limit::Percentile { percentile, ms_max } => percent(percentile) && positive(ms_max),
            Limit::Share { above_ms, percent_max, confidence_percent } => {
                positive(above_ms) && percent(percent_max) && percent(confidence_percent)
            }
        };
        if !sound {
            return Some("a limit is out of its range");
        }
        let by_tally = match self.limit {
            Limit::Budget { above_ms, .. }
            | Limit::Census { above_ms, .. }
            | Limit::Share { above_ms, .. } => above_ms == CONTRACT_MS,
            _ => false,
        };
        if self.carrier.is_some() && !by_tally {
            return Some("`carrier` goes only with a share above 3000 ms");
        }
        let of_requests = by_tally
            || matches!(
                self.limit,
                Limit::Budget { .. } | Limit::Percentile { .. } | Limit::Share { .. }
            )
            || matches!(self.limit, Limit::Census { .. });
        (self.kind.is_some() && !of_requests)
            .then_some("`kind` goes only with shares and percentiles")
    }
}

/// The limits of the contract (D0 §6.4, §7.4): checks, and confirms held to the same, each also for
/// the two carriers whose service levels are set apart.
pub fn contract(month_of_service: u32) -> Vec<Objective> {
    let slow = |id, kind, carrier, name: &str| Objective {
        built_in: Some(id),
        name: name.to_owned(),
        kind: Some(kind),
        carrier,
        limit: Limit::Census { above_ms: CONTRACT_MS, percent_max: CONTRACT_PERCENT },
    };
    let (ecs, social) = (Some(Carrier::Ecs), Some(Carrier::Social));
    let minutes_max =
        if month_of_service <= EARLY_MONTHS { EARLY_DOWNTIME_MINUTES } else { DOWNTIME_MINUTES };
    let (check, confirm) = (Kind::Check, Kind::Confirm);
    vec![
        slow("slow_or_unanswered", check, None, "slow or unanswered checks"),
        slow("slow_or_unanswered_ecs", check, ecs, "slow or unanswered checks, ecs cards"),
        slow("slow_or_unanswered_social", check, social, "slow or unanswered checks, social cards"),
        slow("slow_confirms", confirm, None, "slow or unanswered confirms"),
        slow("slow_confirms_ecs", confirm, ecs, "slow or unanswered confirms, ecs cards"),
        slow("slow_confirms_social", confirm, social, "slow or unanswered confirms, social cards"),
        built_in("downtime", "downtime", Limit::Downtime { minutes_max }),
    ]
}

/// The stricter set. It is fit for a peak hour, where the contract's limits allow a near outage.
pub fn strict() -> Vec<Objective> {
    let quick = Limit::Share {
        above_ms: STRICT_MS,
        percent_max: STRICT_PERCENT,
        confidence_percent: CONFIDENCE_PERCENT,
    };
    vec![
        built_in("strict_within_100_ms", "99.99 % within 100 ms", quick),
        built_in(
            "strict_downtime",
            "downtime, strict",
            Limit::Downtime { minutes_max: STRICT_DOWNTIME_MINUTES },
        ),
        built_in("lost", "lost confirms", Limit::Never(Fault::Lost)),
        built_in("doubled", "doubled confirms", Limit::Never(Fault::Doubled)),
        built_in("phantom", "phantom confirms", Limit::Never(Fault::Phantom)),
    ]
}

/// What a fleet is judged by beside that.
pub fn fleet() -> Vec<Objective> {
    let never = |id, name: &str, fault| built_in(id, name, Limit::Never(fault));
    vec![
        never("trips_lost", "trips lost", Fault::TripsLost),
        never("trips_doubled", "trips doubled", Fault::TripsDoubled),
        never("trips_wrong", "trips answered wrongly", Fault::TripsWrong),
    ]
}

/// What every run is judged by, whatever else it holds.
pub fn truth() -> Objective {
    built_in("wrong", "wrong answers", Limit::Never(Fault::Wrong))
}

fn built_in(id: &'static str, name: &str, limit: Limit) -> Objective {
    Objective { built_in: Some(id), ..Objective::new(name, limit) }
}

fn default_confidence() -> f64 {
    CONFIDENCE_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &str) -> Result<Objective, toml::de::Error> {
        toml::from_str(&format!("name = \"x\"\n{limit}"))
    }

    #[test]
    fn a_scenario_names_limits() {
        let quick = read("kind = \"check\"\nlimit.share = { above_ms = 100, percent_max = 0.1 }");
        let quick = quick.unwrap();
        assert_eq!((quick.kind, quick.fault()), (Some(Kind::Check), None));
        let share = Limit::Share { above_ms: 100.0, percent_max: 0.1, confidence_percent: 95.0 };
        assert_eq!(quick.limit, share);
        let never = read("limit.never = \"lost\"").unwrap();
        assert_eq!(never.limit, Limit::Never(Fault::Lost));
        assert!(read("limit.downtime = { minutes_max = 1.5 }").is_ok());
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(read("limit.share = { above_ms = 1, percent_max = 1, x = 1 }").is_err());
        assert!(read("color = 1\nlimit.never = \"lost\"").is_err());
        assert!(read("limit.sometimes = \"lost\"").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn limits_that_cannot_be_judged_are_found() {
        let fault = |limit: &str| read(limit).unwrap().fault().is_some();
        assert!(fault("limit.share = { above_ms = 100, percent_max = 0 }"));
        assert!(fault("limit.percentile = { percentile = 100, ms_max = 1 }"));
        assert!(fault("carrier = \"ecs\"\nlimit.percentile = { percentile = 99, ms_max = 1 }"));
        assert!(fault("carrier = \"ecs\"\nlimit.share = { above_ms = 100, percent_max = 1 }"));
        assert!(!fault("carrier = \"ecs\"\nlimit.share = { above_ms = 3000, percent_max = 1 }"));
        assert!(fault("kind = \"check\"\nlimit.downtime = { minutes_max = 1 }"));
    }

    #[test]
    fn the_built_in_ones_are_sound() {
        let all = contract(1).into_iter().chain(strict()).chain([truth()]);
        let all: Vec<Objective> = all.collect();
        assert!(all.iter().all(|objective| objective.fault().is_none()));
        let ids: Vec<&str> = all.iter().filter_map(|objective| objective.built_in).collect();
        let expected = "slow_or_unanswered slow_or_unanswered_ecs slow_or_unanswered_social \
                        slow_confirms slow_confirms_ecs slow_confirms_social downtime \
                        strict_within_100_ms strict_downtime lost doubled phantom wrong";
        assert_eq!(ids.join(" "), expected);
    }

    #[test]
    fn one_of_ones_own_is_known_by_the_words_of_its_name() {
        let limit = Limit::Never(Fault::Wrong);
        assert_eq!(Objective::new("Checks: p99 ≤ 5 ms!", limit).id(), "checks_p99_5_ms");
    }
}
