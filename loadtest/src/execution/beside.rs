//! What runs beside the load: the probe, the faults and the samples of the server.

use std::io;
use std::time::{Duration, Instant};

use crate::downtime::{Availability, Planned};
use crate::execution::Execution;
use crate::faults::Injector;
use crate::probe::Probe;
use crate::run::Run;
use crate::target::{Sampler, Target};

/// What runs beside the load.
pub struct Beside {
    probe: Option<Probe>,
    faults: Injector,
    sampler: Sampler,
}

impl Beside {
    /// Starts it all.
    pub fn start(execution: &Execution<'_>, begun: Instant) -> io::Result<Beside> {
        let scenario = execution.scenario;
        let interval = Duration::from_secs_f64(scenario.probe.interval_seconds);
        let probe = execution.probed();
        let probe = probe.map(|mut check| Probe::start(begun, interval, move || check.is_served()));
        let target = Target {
            pid: scenario.target.pid,
            pid_file: scenario.target.pid_file.clone(),
            admin: execution.admin.clone(),
        };
        Ok(Beside {
            probe: probe.transpose()?,
            faults: Injector::start(begun, scenario.planned_faults())?,
            sampler: Sampler::start(begun, target)?,
        })
    }

    /// What the probe has seen so far.
    pub fn seen(&self, end_seconds: f64, planned: &[Planned]) -> Option<Availability> {
        let probe = self.probe.as_ref()?;
        Some(Availability::of(&probe.seen(), end_seconds, planned))
    }

    /// Stops it all; what it brought goes into the run.
    pub fn stop(self, run: &mut Run, end_seconds: f64, planned: &[Planned]) {
        let lookout = self.probe.map(Probe::stop);
        run.availability = lookout.map(|lookout| Availability::of(&lookout, end_seconds, planned));
        run.faults = self.faults.stop();
        run.target = Some(self.sampler.stop())
            .filter(|sampled| !sampled.process.is_empty() || !sampled.metrics.is_empty());
    }
}
