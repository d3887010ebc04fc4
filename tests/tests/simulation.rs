//! The whole engine on one thread against a plain model, seed by seed.
//!
//! `ELIGO_SIM_SEED=n` runs one seed and shows all its steps when it fails, `ELIGO_SIM_SEEDS=n` the seeds `0..n`.

#![allow(clippy::unwrap_used)]

use tests::simulation::story;

const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn the_engine_does_what_the_model_does() {
    match number("ELIGO_SIM_SEED") {
        Some(seed) => story::run(seed, usize::MAX),
        None => {
            let seeds = number("ELIGO_SIM_SEEDS").unwrap_or(SEEDS);
            (0..seeds).for_each(|seed| story::run(seed, 40));
        }
    }
}
