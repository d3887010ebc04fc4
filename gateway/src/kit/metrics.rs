//! What `/metrics` tells of registries and of the devices that have them.

use engine::calendar::Timestamp;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use crate::kit::registries::KitStatus;

/// The figures.
pub struct KitMetrics {
    version: IntGauge,
    age: IntGauge,
    seconds: Gauge,
    entries: IntGauge,
    failures: IntCounter,
    devices: IntGauge,
    devices_behind: IntGauge,
}

impl KitMetrics {
    /// Fresh ones.
    pub fn new(registry: &Registry) -> Result<KitMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = Gauge::new("eligo_holder_registry_build_seconds", "Time of the last build")?;
        registry.register(Box::new(seconds.clone()))?;
        let failures =
            IntCounter::new("eligo_holder_registry_build_failures_total", "Builds that failed")?;
        registry.register(Box::new(failures.clone()))?;
        Ok(KitMetrics {
            version: gauge("eligo_holder_registry_version", "The newest version")?,
            age: gauge("eligo_holder_registry_age_seconds", "Age of the last build, or -1")?,
            entries: gauge("eligo_holder_registry_entries", "Entries of the last build")?,
            devices: gauge("eligo_devices", "Devices that told which registry they have")?,
            devices_behind: gauge("eligo_devices_behind", "Those with one older than 24 hours")?,
            seconds,
            failures,
        })
    }

    /// Copies the figures.
    pub fn take(&self, status: &KitStatus, now: Timestamp) {
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let devices = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.version.set(whole(status.version));
        let age = status.built_at.map(|at| now.unix_seconds() - at.unix_seconds());
        self.age.set(age.unwrap_or(-1));
        if let Some(build) = status.last_build {
            self.seconds.set(build.milliseconds as f64 / 1_000.0);
            self.entries.set(whole(build.entries));
        }
        self.failures.inc_by(status.failures.saturating_sub(self.failures.get()));
        self.devices.set(devices(status.devices));
        self.devices_behind.set(devices(status.devices_behind));
    }
}
