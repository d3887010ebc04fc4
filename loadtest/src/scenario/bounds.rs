//! What the fields of a scenario may hold.

use crate::calendar::Wall;
use crate::run::Load;
use crate::scenario::{Scenario, ScenarioError};

/// The longest run, seconds: a week.
const DURATION_SECONDS_MAX: f64 = 604_800.0;
/// The most checks in one batch call.
const BATCH_SIZE_MAX: usize = 10_000;
const THREADS_MAX: u32 = 256;
const CONNECTIONS_MAX: u32 = 65_536;
const HOLDERS_MAX: usize = 1 << 24;
const EXPONENT_MAX: f64 = 4.0;

impl Scenario {
    /// Whether every field holds what it may.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let within = |field: &str, value: f64, least: f64, most: f64| {
            let fault = "is out of range";
            let inside = (least..=most).contains(&value);
            if inside {
                Ok(())
            } else {
                Err(ScenarioError::Field { field: field.to_owned(), fault })
            }
        };
        let longest = DURATION_SECONDS_MAX;
        within("duration_seconds", self.duration_seconds, 0.001, longest)?;
        within("warm_up_seconds", self.warm_up_seconds, 0.0, self.duration_seconds)?;
        within("give_up_seconds", self.give_up_seconds, 0.1, 3_600.0)?;
        within("threads", self.threads.into(), 1.0, THREADS_MAX.into())?;
        within("month_of_service", self.month_of_service.into(), 1.0, 1_200.0)?;
        let connections = &self.connections;
        within("connections.max", connections.max.into(), 1.0, CONNECTIONS_MAX.into())?;
        within("connections.initial", connections.initial.into(), 0.0, connections.max.into())?;
        within("registry.shares", self.registry.shares.into(), 1.0, 65_536.0)?;
        let last = f64::from(self.registry.shares) - 1.0;
        within("registry.share", self.registry.share.into(), 0.0, last)?;
        within("registry.holders_max", self.registry.holders_max as f64, 1.0, HOLDERS_MAX as f64)?;
        within("load.users", self.load.users.into(), 1.0, CONNECTIONS_MAX.into())?;
        within("probe.interval_seconds", self.probe.interval_seconds, 0.1, 3_600.0)?;
        self.check_citizens(&within)?;
        for (at, fault) in self.faults.iter().enumerate() {
            let field = format!("faults.{at}.at_seconds");
            within(&field, fault.at_seconds, 0.0, self.duration_seconds)?;
            require(!fault.command.is_empty(), &format!("faults.{at}.command"), "is empty")?;
        }
        for (at, objective) in self.objectives.iter().enumerate() {
            let field = format!("objectives.{at}");
            let refused = |fault| ScenarioError::Field { field, fault };
            objective.fault().map_or(Ok(()), |fault| Err(refused(fault)))?;
        }
        if let Some(fleet) = &self.fleet {
            fleet.check(self, &within)?;
        }
        self.check_words()
    }

    fn check_citizens(
        &self,
        within: &impl Fn(&str, f64, f64, f64) -> Result<(), ScenarioError>,
    ) -> Result<(), ScenarioError> {
        let mix = &self.mix;
        let kinds = [
            ("mix.check", mix.check),
            ("mix.confirm", mix.confirm),
            ("mix.cancel", mix.cancel),
            ("mix.history", mix.history),
            ("mix.services", mix.services),
            ("mix.batch", mix.batch),
            ("mix.malformed", mix.malformed),
            ("mix.repeat", mix.repeat),
        ];
        let citizens = &self.citizens;
        let identifiers = &citizens.identifiers;
        let carriers = [
            ("citizens.identifiers.client_code", identifiers.client_code),
            ("citizens.identifiers.snils", identifiers.snils),
            ("citizens.identifiers.social_card", identifiers.social_card),
        ];
        for (field, weight) in kinds.iter().chain(&carriers) {
            within(field, *weight, 0.0, 1e9)?;
        }
        let sum = |weights: &[(&str, f64)]| weights.iter().map(|(_, weight)| weight).sum::<f64>();
        require(sum(&kinds) > 0.0, "mix", "has no weight above 0")?;
        require(sum(&carriers) > 0.0, "citizens.identifiers", "has no weight above 0")?;
        within("citizens.zipf_exponent", citizens.zipf_exponent, 0.0, EXPONENT_MAX)?;
        within("citizens.negative", citizens.negative, 0.0, 1.0)?;
        within("citizens.batch_size", citizens.batch_size as f64, 1.0, BATCH_SIZE_MAX as f64)?;
        within("dialect.checked_ttl_seconds", self.dialect.checked_ttl_seconds as f64, 1.0, 1e9)?;
        // A check that waits longer than it stays open cannot be confirmed.
        let longest = self.dialect.checked_ttl_seconds as f64 / 2.0;
        within("citizens.think_seconds_max", citizens.think_seconds_max, 0.0, longest)?;
        let most = citizens.think_seconds_max;
        within("citizens.think_seconds_min", citizens.think_seconds_min, 0.0, most)
    }

    fn check_words(&self) -> Result<(), ScenarioError> {
        let target = &self.target;
        let scheme = ["http://", "https://"].iter().any(|scheme| target.url.starts_with(scheme));
        require(scheme, "target.url", "begins neither with `http://` nor with `https://`")?;
        let secure = target.url.starts_with("https://");
        require(!secure || target.ca.is_some(), "target.ca", "is missing beside an `https` url")?;
        let instant = |field: &str, text: &str| {
            require(Wall::parse(text).is_some(), field, "is no instant like `2026-01-31T09:00:00Z`")
        };
        target.now.as_deref().map_or(Ok(()), |now| instant("target.now", now))?;
        for (at, planned) in self.planned.iter().enumerate() {
            instant(&format!("planned.{at}.announced"), &planned.announced)?;
            instant(&format!("planned.{at}.from"), &planned.from)?;
            instant(&format!("planned.{at}.to"), &planned.to)?;
        }
        let planned = self.arrivals.is_some() || self.load.kind == Load::Closed;
        require(planned, "arrivals", "is missing, which an open load needs")
    }
}

fn require(holds: bool, field: &str, fault: &'static str) -> Result<(), ScenarioError> {
    if holds { Ok(()) } else { Err(ScenarioError::Field { field: field.to_owned(), fault }) }
}
