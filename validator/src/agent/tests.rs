//! An agent against a model of the server, under a seed: links that break, answers that are lost,
//! power that fails.

use std::collections::{BTreeMap, BTreeSet};

use engine::identifier::Digest;
use serde_bytes::ByteArray;

use super::*;
use crate::agent::tests::world::{BUILT_MS, CARD_KEY, Shelf, World, linked, uid, welcome};
use crate::device::blocks::BLOCKS_MAX;
use crate::files::memory::{MemoryFiles, Remains};
use crate::link::message::{BlockPush, FailureCode, Pong, TripResults};
use crate::queue::segment::Refusal;
use crate::trip::{TripMode, TripReason, TripResult, TripStatus};

mod world;

#[test]
fn every_granted_tap_is_one_trip_on_the_server() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.start();
        world.pass(2_000);
        let mut taps = 0;
        for _ in 0..200 {
            match world.random.below(20) {
                0 => world.crash(),
                1 => world.break_link(),
                2 => world.reachable = !world.reachable,
                3 => world.files.fail_next(2),
                4 => world.pass(60_000),
                _ => {
                    taps += 1;
                    world.tap(taps);
                    let ms = world.random.below(1_000);
                    world.pass(ms);
                }
            }
        }
        world.reachable = true;
        world.files.fail_next(0);
        world.pass(3_600_000);
        eprintln!("seed {seed}: {} granted of {taps}", world.granted.len());
        assert_eq!(world.agent.as_ref().unwrap().trips_waiting(), 0);
        let mut reported = BTreeMap::new();
        for trip in world.server.trips.values() {
            *reported.entry(trip.tariff).or_insert(0) += 1;
        }
        assert!(world.granted.len() > 50);
        assert!(world.granted.iter().all(|tap| reported.get(tap) == Some(&1)));
        assert!(reported.values().all(|count| *count == 1));
        for trip in world.server.trips.values().filter(|trip| trip.mode == TripMode::Online) {
            assert!(world.server.confirmed.contains(&trip.tx.unwrap()));
            assert!(!world.server.cancelled.contains(&trip.tx.unwrap()));
        }
    }
}

#[test]
fn a_tap_is_decided_within_its_deadline_and_at_once_after_three_silent_ones() {
    let mut world = linked();
    world.reachable = false;
    for tap in 1..=3 {
        world.tap(tap);
        world.pass(299);
        assert_eq!(world.decided, tap as usize - 1);
        world.pass(1);
        assert_eq!(world.decided, tap as usize);
    }
    world.tap(4);
    assert_eq!(world.decided, 4, "the server is silent");
    world.coming.clear();
    world.reachable = true;
    let (sent, answer) = (world.now, Ok(Pong { clock_ms: world.now.wall_ms }));
    world.happen(Event::Ponged { sent, answer });
    world.tap(5);
    assert_eq!(world.decided, 4, "the server was heard");
    world.pass(300);
    assert_eq!(world.granted.len(), 5);
}

#[test]
fn nothing_is_granted_that_cannot_be_recorded() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.files.fail_next(u64::MAX);
    world.tap(1);
    assert!(matches!(world.errors.pop(), Some(TapError::Queue(QueueError::Disk(_)))));
    world.files.fail_next(0);
    world.tap(1);
    assert_eq!(world.granted.len(), 1, "the refused tap is no repeat");
    world.tap(1);
    assert_eq!((world.decided, world.granted.len()), (2, 1));
}

/// A device that had never had a link took its own clock for right until the first pong: with a clock
/// ten minutes ahead, what was tapped in between was rejected as lying in the future.
#[test]
fn the_first_tap_of_a_new_device_has_the_time_of_the_server() {
    let mut world = World::new(1);
    (world.now.wall_ms, world.ahead_ms) = (BUILT_MS + 4_200_000, 600_000);
    world.start();
    world.pass(0);
    let (sent, welcome) = (world.now, welcome(world.server_ms()));
    world.coming.clear();
    world.happen(Event::Connected { sent, welcome });
    world.coming.clear();
    world.tap(1);
    world.coming.retain(|(_, event)| matches!(event, Event::Checked { .. }));
    world.pass(300);
    assert_eq!(world.granted.len(), 1);
    let offset_ms = |world: &mut World| {
        let queue = &mut world.agent.as_mut().unwrap().queue;
        queue.pending(0, 1).entries[0].trip.clock_offset_ms
    };
    assert_eq!(offset_ms(&mut world), 600_000);
    world.crash();
    assert_eq!(world.agent.as_ref().unwrap().clock_offset_ms(world.now), 600_000);
}

/// A clock that was set back while the device was off made a registry valid again that had ended, and
/// dated trips before those that were recorded already.
#[test]
fn time_does_not_go_back_while_a_device_is_off() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.tap(1);
    world.now.wall_ms -= 3_600_000;
    world.files = world.files.after_power_cut(Remains::All);
    world.start();
    world.pass(1_000);
    world.tap(2);
    let queue = &mut world.agent.as_mut().unwrap().queue;
    let times: Vec<i64> =
        queue.pending(0, 2).entries.iter().map(|entry| entry.trip.server_ms()).collect();
    assert_eq!(times, [times[0], times[0] + 1_000]);
}

#[test]
fn repeats_are_told_after_a_restart() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.tap(1);
    world.crash();
    world.tap(1);
    assert_eq!((world.decided, world.granted.len()), (2, 1));
    world.pass(420_000);
    world.tap(1);
    assert_eq!(world.decided, 3);
}

/// A registry was verified and synced while every tap waited for it.
#[test]
fn the_old_registry_decides_while_a_new_one_is_installed() {
    let mut world = linked();
    world.installs_slowly = true;
    let version = |world: &World| {
        let (life, valid) = world.agent.as_ref().unwrap().registry(world.now).unwrap();
        (life.version, valid)
    };
    world.offered = 8;
    world.happen(Event::Sync);
    world.pass(20_000);
    assert_eq!(version(&world), (7, true));
    world.reachable = false;
    // No loss of the link takes the registry away that is being installed, and none is begun beside it.
    world.break_link();
    world.tap(1);
    assert_eq!((world.decided, world.granted.len()), (1, 1));
    world.reachable = true;
    world.pass(120_000);
    assert!(world.agent.as_ref().unwrap().is_linked());
    world.install();
    assert_eq!((version(&world), world.installed), ((8, true), 8));
    world.installs_slowly = false;
    world.offered = 9;
    world.happen(Event::Sync);
    world.pass(20_000);
    assert_eq!(version(&world), (9, true));
}

/// A block that was on the disk when the power failed between a new registry and the blocks beside it
/// stayed until the next registry, although this one knew of its end.
#[test]
fn a_registry_outweighs_older_blocks_after_a_restart() {
    let digest = CardKey::new(CARD_KEY).mifare_uid(&uid(1)).unwrap();
    for (older_ms, granted) in [(3_600_000, 0), (3_600_001, 1)] {
        let mut world = linked();
        world.reachable = false;
        world.break_link();
        let (id_hash, at_ms) = (ByteArray::new(digest.0), BUILT_MS - older_ms);
        world.happen(Event::Blocked(BlockPush { id_hash, blocked: true, at_ms }));
        world.tap(1);
        assert_eq!(world.granted.len(), 0);
        world.pass(3_000);
        world.agent = None;
        world.start();
        world.tap(1);
        assert_eq!(world.granted.len(), granted);
    }
}

/// A device that had heard of more blocks than it keeps forgot the oldest, and granted to its card.
#[test]
fn a_device_that_missed_a_block_grants_nothing_alone() {
    let mut world = linked();
    let push = |number: usize| {
        let digest = Digest(u128::try_from(number).unwrap().to_be_bytes());
        let at_ms = BUILT_MS + 3_600_000;
        Event::Blocked(BlockPush { id_hash: ByteArray::new(digest.0), blocked: true, at_ms })
    };
    (0..BLOCKS_MAX).for_each(|number| world.happen(push(number)));
    let missed = |world: &World| world.agent.as_ref().unwrap().blocks_missed();
    assert!(!missed(&world));
    (0..3).for_each(|more| world.happen(push(BLOCKS_MAX + more)));
    assert!(missed(&world));
    let shown = world.notices.iter().filter(|notice| **notice == Notice::BlocksMissed);
    assert_eq!(shown.count(), 1);
    // A newer registry is fetched at once.
    world.offered = 8;
    world.pass(60_000);
    assert_eq!(world.installed, 8);
    world.tap(1);
    world.pass(300);
    let online = world.granted.len();
    world.reachable = false;
    world.break_link();
    for _ in 0..2 {
        world.tap(2);
        assert_eq!(world.granted.len(), online);
        world.pass(3_000);
        world.agent = None;
        world.start();
        assert!(missed(&world), "through a restart");
    }
    // With a new link the server tells of all of them again.
    world.reachable = true;
    world.pass(60_000);
    assert!(world.agent.as_ref().unwrap().is_linked() && !missed(&world));
    world.happen(push(BLOCKS_MAX));
    assert!(missed(&world));
}

#[test]
fn a_device_that_lost_its_disk_does_not_lose_trips() {
    let mut world = linked();
    (1..=40).for_each(|tap| world.tap(tap));
    world.pass(600_000);
    assert_eq!(world.server.trips.len(), 40);
    world.agent = None;
    world.files = MemoryFiles::default();
    world.coming.clear();
    world.start();
    world.pass(60_000);
    (41..=80).for_each(|tap| world.tap(tap));
    world.pass(600_000);
    assert_eq!(world.agent.as_ref().unwrap().trips_waiting(), 0);
    let reported: BTreeSet<u64> = world.server.trips.values().map(|trip| trip.tariff).collect();
    assert_eq!(reported, (1..=80).collect());
    assert_eq!(world.server.trips.len(), 80);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::TripsRenumbered { .. })));
}

#[test]
fn trips_of_another_terminal_are_not_reported() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.tap(1);
    world.agent = None;
    let config = AgentConfig { terminal: 10, check_ms: 300 };
    let files = Arc::new(world.files.clone());
    let opened = Agent::open(config, files, Shelf::default(), (1, world.now));
    assert!(matches!(opened, Err(OpenError::OtherTerminal)));
}

/// Trips of a terminal that had been given away, and such that were in conflict under all their
/// numbers, were settled as if the server had recorded them.
#[test]
fn trips_that_the_server_will_not_take_are_put_aside() {
    let terminal = (TripStatus::Rejected, Some(TripReason::Terminal));
    for (refused, reason) in
        [(terminal, Refusal::Terminal), ((TripStatus::Conflict, None), Refusal::Conflict)]
    {
        let mut world = linked();
        world.server.refuses = Some(refused);
        (1..=20).for_each(|tap| world.tap(tap));
        world.pass(3_600_000);
        assert_eq!(world.granted.len(), 20);
        let counts = |world: &World| {
            let agent = world.agent.as_ref().unwrap();
            (agent.trips_waiting(), agent.trips_refused())
        };
        assert_eq!(counts(&world), (0, 20), "{reason:?}");
        for _ in 0..3 {
            world.crash();
            world.pass(3_600_000);
            assert_eq!(counts(&world), (0, 20), "{reason:?}");
        }
        let is_it = |notice: &&Notice| matches!(notice, Notice::TripRefused { reason: shown, .. } if *shown == reason);
        assert_eq!(world.notices.iter().filter(is_it).count(), 20);
    }
}

#[test]
fn a_check_that_came_to_nothing_is_cancelled() {
    let mut world = linked();
    world.tap(1);
    let Some(at) = world.coming.iter().position(|(_, e)| matches!(e, Event::Checked { .. })) else {
        panic!("no check")
    };
    let (_, late) = world.coming.swap_remove(at);
    world.pass(300);
    assert_eq!(world.granted.len(), 1, "decided alone");
    world.happen(late);
    assert_eq!(world.server.cancelled.len(), 1);
}

#[test]
fn a_batch_that_the_server_cannot_read_is_halved_until_the_fault_is_found() {
    let mut upload = Upload::new();
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    (1..=8).for_each(|tap| world.tap(tap));
    let queue = &mut world.agent.as_mut().unwrap().queue;
    let faulty = queue.pending(0, 3).entries[2].trip.seq;
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (after, limit) = upload.wants();
        match upload.begin(queue.pending(after, limit).entries) {
            super::upload::Step::Send(batch) => {
                let malformed = batch.trips.iter().any(|trip| trip.seq == faulty);
                let results = batch.trips.iter().map(|trip| TripResult {
                    seq: trip.seq,
                    status: TripStatus::Accepted,
                    reason: None,
                    first: None,
                });
                let answer = match malformed {
                    true => Err(AskError::Failed(FailureCode::Malformed)),
                    false => Ok(TripResults { results: results.collect() }),
                };
                let (settled, _) = upload.handle_uploaded(answer);
                accepted.extend(settled.settled);
                refused.extend(settled.refused);
            }
            super::upload::Step::Done => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted.len(), 7);
    let refused: Vec<_> = refused.iter().map(|entry| (entry.trip.seq, entry.refusal)).collect();
    assert_eq!(refused, [(faulty, Some(Refusal::Malformed))]);
}
