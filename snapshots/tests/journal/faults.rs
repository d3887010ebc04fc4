//! Every operation fails once, or a few times: the frame is in the log once or never, everything
//! else stays as it was, and the images of power cuts are still recovered.

use crate::disk::{Disk, Fault, Image};
use crate::power_cut::{check_images, with_seed};
use crate::random::Random;
use crate::scenario::{Expected, Life, life_with_fault};

#[test]
fn a_failing_operation_loses_and_repeats_nothing() {
    let mut met = 0;
    for lasting in [1, 2, 7] {
        for after in 0..120 {
            let seed = after * 10 + lasting;
            with_seed(seed, || {
                let (trace, hit) = life_with_fault(seed, 25, Some(Fault { after, lasting }));
                check_images(&trace, Random::new(seed), 60, u64::MAX);
                met += u64::from(hit);
            });
        }
    }
    assert!(met > 300, "only {met} of the faults were met");
}

#[test]
fn a_full_disk_loses_nothing_and_is_left_once_there_is_space() {
    for seed in 0..20 {
        with_seed(seed, || {
            let disk = Disk::new(&Image::default(), seed);
            let mut life = Life::new(disk.clone(), Random::new(seed), Expected::default(), 1);
            life.go_on();
            disk.limit_space(Some(disk.used_space() + seed * 1_000));
            let mut appends = 0;
            while life.has_tenure() {
                life.append(500);
                appends += 1;
                assert!(appends < 100, "the disk fills");
            }
            // Still full: an acquisition may fail or find space in what was made ahead.
            life.acquire();
            disk.limit_space(None);
            life.go_on();
            life.acquire();
            drop(life);
            check_images(&disk.take_trace(), Random::new(seed), 20, u64::MAX);
        });
    }
}
