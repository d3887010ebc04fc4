//! Devices, links and the engine on one thread, seed by seed.
//!
//! `ELIGO_SIM_SEED=n` runs one seed and shows all its steps when it fails, `ELIGO_SIM_SEEDS=n` the seeds `0..n`.

#![allow(clippy::unwrap_used)]

use tests::simulation::devices::story;

const SEEDS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn what_devices_grant_is_recorded_once_and_paid_once() {
    match number("ELIGO_SIM_SEED") {
        Some(seed) => story::run(seed, usize::MAX),
        None => {
            let seeds = number("ELIGO_SIM_SEEDS").unwrap_or(SEEDS);
            (0..seeds).for_each(|seed| story::run(seed, 40));
        }
    }
}
