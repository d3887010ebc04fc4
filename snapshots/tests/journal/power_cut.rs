//! Every image that a power cut could leave is recovered, also when the power goes again meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::disk::{Image, Step};
use crate::random::Random;
use crate::scenario::{Expected, Note, every_cut, life_with_fault, live_on};

/// Runs `test` and names the seed if it fails.
pub fn with_seed(seed: u64, test: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(test)) {
        eprintln!("failed with seed {seed}");
        resume_unwind(panic);
    }
}

/// Lives whose images are tried.
const SEEDS: u64 = 3;
/// One image of so many is crashed a second time, after every step of its recovery.
const SECOND_CRASHES: u64 = 100;

#[test]
fn every_image_of_a_power_cut_holds_all_that_was_acknowledged() {
    for seed in 0..SEEDS {
        with_seed(seed, || {
            let (trace, _) = life_with_fault(seed, 70, None);
            check_images(&trace, Random::new(seed ^ 0xc0ffee), 1, SECOND_CRASHES);
        });
    }
}

/// Lives on one image in `sample` of every step, and crashes one life in `second` once more.
pub fn check_images(trace: &[Step<Note>], mut random: Random, sample: u64, second: u64) {
    let start = Image::default();
    every_cut(&start, trace, Expected::default(), &mut random, &mut |cut, random| {
        if !random.one_in(sample) {
            return;
        }
        let again = live_on(cut, random, 1_000_000);
        if random.one_in(second) {
            let expected = cut.expected.clone();
            every_cut(&cut.image, &again, expected, random, &mut |cut, random| {
                live_on(cut, random, 2_000_000);
            });
        }
    });
}
