use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteArray;

use super::*;
use crate::files::memory::{MemoryFiles, Remains};
use crate::queue::segment::Refusal;
use crate::random::Random;
use crate::trip::{Trip, TripEvent, TripMode};
use crate::verdict::Verdict;

const NOW_MS: i64 = 1_748_858_400_000;

fn entry(mark: u64) -> Entry {
    let trip = Trip {
        seq: 0,
        terminal: None,
        trip_id: None,
        event: TripEvent::Boarding,
        mode: TripMode::Offline,
        at_ms: NOW_MS,
        clock_offset_ms: 0,
        service: 1,
        route: String::new(),
        vehicle: String::new(),
        from_stop: String::new(),
        to_stop: String::new(),
        id_hash: ByteArray::new([0; 16]),
        registry_version: 7,
        verdict: Verdict::Grant,
        category: Some(1),
        companion: false,
        tariff: mark,
        discount: 100,
        benefit: mark,
        ticket: String::new(),
        tx: None,
    };
    Entry { trip, confirm: None, with_companion: false, renumbered: 0, refusal: None }
}

fn open(files: &MemoryFiles) -> (TripQueue, Recovered) {
    TripQueue::open(Arc::new(files.clone()), NOW_MS).unwrap()
}

fn marks(queue: &mut TripQueue) -> Vec<u64> {
    let entries = queue.pending(0, usize::MAX).entries;
    entries.iter().map(|entry| entry.trip.tariff).collect()
}

#[test]
fn trips_stay_until_they_are_settled() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    assert_eq!(queue.append(vec![entry(1), entry(2)], NOW_MS).unwrap(), [1, 2]);
    assert_eq!(queue.append(vec![entry(3)], NOW_MS).unwrap(), [3]);
    queue.settle(2);
    assert_eq!(marks(&mut queue), [1, 3]);
    assert_eq!(queue.pending(1, 1).entries[0].trip.tariff, 3);
    let (mut queue, recovered) = open(&files.after_power_cut(Remains::Nothing));
    assert_eq!(marks(&mut queue), [1, 2, 3], "settling is not durable at once");
    assert_eq!(recovered.recent.len(), 3);
}

#[test]
fn settled_files_are_removed_once_their_trips_are_old() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    for mark in 0..2 * SEGMENT_TRIPS_MAX as u64 + 1 {
        let seq = queue.append(vec![entry(mark)], NOW_MS).unwrap()[0];
        queue.settle(seq);
    }
    let segments = || files.list().unwrap().iter().filter(|name| Segment::is_name(name)).count();
    queue.clean(NOW_MS + RETAINED_MS);
    assert_eq!(segments(), 3);
    queue.clean(NOW_MS + RETAINED_MS + 1);
    assert_eq!(segments(), 1, "the one that is written to stays");
}

/// The trips of all later files waited for ever behind the first one.
#[test]
fn a_file_that_cannot_be_read_holds_up_no_other() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    let trips = SEGMENT_TRIPS_MAX as u64;
    queue.append((0..trips).map(entry).collect(), NOW_MS).unwrap();
    queue.append(vec![entry(trips)], NOW_MS).unwrap();
    let mut names = files.list().unwrap();
    names.retain(|name| Segment::is_name(name));
    files.spoil(Some(&names[0]));
    let Pending { entries, unreadable } = queue.pending(0, usize::MAX);
    assert_eq!(entries.iter().map(|entry| entry.trip.tariff).collect::<Vec<_>>(), [trips]);
    assert!(unreadable.is_some());
    assert_eq!((queue.unreadable_files(), queue.len()), (1, SEGMENT_TRIPS_MAX + 1));
    // A start does not fail either, and gives no number twice.
    let (mut queue, recovered) = open(&files);
    assert_eq!((recovered.unread_files, queue.unreadable_files()), (1, 1));
    assert_eq!(marks(&mut queue), [trips]);
    assert!(queue.append(vec![entry(trips + 1)], NOW_MS).unwrap()[0] > trips + 1);
    // It was only for a while.
    files.spoil(None);
    let (mut queue, _) = open(&files);
    assert_eq!(marks(&mut queue), (0..trips + 2).collect::<Vec<_>>());
}

#[test]
fn refused_trips_are_put_aside_and_never_dropped() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    queue.append((1..=3).map(entry).collect(), NOW_MS).unwrap();
    let refused = |queue: &mut TripQueue, after| {
        let mut entries = queue.pending(after, 1).entries;
        entries.iter_mut().for_each(|entry| entry.refusal = Some(Refusal::Terminal));
        entries
    };
    let first = refused(&mut queue, 0);
    queue.refuse(&first).unwrap();
    assert_eq!((marks(&mut queue), queue.refused()), (vec![2, 3], 1));
    // Durable, with its reason, and not sent again.
    let files = files.after_power_cut(Remains::Nothing);
    let (mut queue, _) = open(&files);
    assert_eq!((marks(&mut queue), queue.refused()), (vec![2, 3], 1));
    let kept = Contents::read(&files, "refused-trips").unwrap();
    assert_eq!(kept.entries, first);
    // At any point of a power cut it is in one of both places.
    let second = refused(&mut queue, 1);
    for cut in 0..6 {
        let files = files.after_power_cut(Remains::All);
        let (mut queue, _) = open(&files);
        files.cut_power_after(cut);
        let is_done = queue.refuse(&second).is_ok();
        for remains in [Remains::All, Remains::Nothing, Remains::Some(cut)] {
            let (queue, _) = open(&files.after_power_cut(remains));
            assert_eq!(queue.len() + queue.refused(), 3);
            assert!(!is_done || queue.refused() == 2);
        }
    }
    // Full is an error.
    let crowd: Vec<Entry> = (10..10 + refused::REFUSED_TRIPS_MAX as u64)
        .map(|seq| Entry { trip: Trip { seq, ..entry(1).trip }, ..entry(1) })
        .collect();
    assert!(matches!(queue.refuse(&crowd), Err(QueueError::RefusedFull)));
    assert_eq!((marks(&mut queue), queue.refused()), (vec![2, 3], 1));
}

#[test]
fn trips_age_by_the_servers_clock() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    let tapped = |at_ms, clock_offset_ms| {
        let trip = Trip { at_ms, clock_offset_ms, ..entry(1).trip };
        vec![Entry { trip, ..entry(1) }]
    };
    // A device whose clock began in 1970, once it knew how far it was behind, and once before.
    queue.append(tapped(60_000, 60_000 - NOW_MS), NOW_MS).unwrap();
    queue.append(tapped(70_000, 0), 70_000).unwrap();
    assert!(queue.check_room(1, NOW_MS + 1).is_ok());
    let late = NOW_MS + AGE_DAYS_MAX * MS_PER_DAY + 1;
    assert!(matches!(queue.check_room(1, late), Err(QueueError::TooOld)));
}

#[test]
fn a_full_queue_refuses() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    for _ in 0..TRIPS_MAX / 500 {
        queue.append((0..500).map(entry).collect(), NOW_MS).unwrap();
    }
    assert!(matches!(queue.append(vec![entry(1)], NOW_MS), Err(QueueError::Full)));
    queue.settle(1);
    assert!(queue.append(vec![entry(1)], NOW_MS).is_ok());
    let late = NOW_MS + AGE_DAYS_MAX * MS_PER_DAY + 1;
    assert!(matches!(queue.append(Vec::new(), late), Err(QueueError::TooOld)));
    (2..=TRIPS_MAX as u64 + 1).for_each(|seq| queue.settle(seq));
    assert!(queue.append(vec![entry(1)], late).is_ok(), "settled trips do not age");
}

#[test]
fn a_full_disk_refuses_and_leaves_no_refused_trip_behind() {
    for free in 0..1_000 {
        let files = MemoryFiles::default();
        let (mut queue, _) = open(&files);
        queue.append(vec![entry(1)], NOW_MS).unwrap();
        let used: u64 = files.list().unwrap().iter().map(|name| files.length(name).unwrap()).sum();
        files.limit_space(Some(used + free));
        let mut expected = vec![1];
        for mark in 2..8 {
            match queue.append(vec![entry(mark)], NOW_MS) {
                Ok(_) => expected.push(mark),
                Err(error) => assert!(matches!(error, QueueError::DiskFull)),
            }
        }
        assert!(expected.len() < 7, "the space was enough");
        assert_eq!(marks(&mut open(&files.after_power_cut(Remains::All)).0), expected);
        files.limit_space(None);
        queue.append(vec![entry(9)], NOW_MS).unwrap();
        expected.push(9);
        assert_eq!(marks(&mut open(&files).0), expected);
    }
}

#[test]
fn a_lost_reservation_skips_a_wide_range() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    queue.append(vec![entry(1)], NOW_MS).unwrap();
    files.truncate(NUMBERS, 5).unwrap();
    let (mut queue, recovered) = open(&files);
    assert!(recovered.numbers_lost);
    assert_eq!(queue.append(vec![entry(2)], NOW_MS).unwrap(), [1 + LOST_NUMBERS]);
}

#[test]
fn spoiled_records_are_counted_and_skipped() {
    let files = MemoryFiles::default();
    let (mut queue, _) = open(&files);
    queue.append(vec![entry(1), entry(2), entry(3)], NOW_MS).unwrap();
    let name = files.list().unwrap().into_iter().find(|name| Segment::is_name(name)).unwrap();
    let whole = files::read(&files, &name, u64::MAX).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let files = MemoryFiles::default();
        files.append(&name, &bytes).unwrap();
        let (queue, recovered) = open(&files);
        let left = files.list().unwrap();
        assert!(left[0].ends_with(&name), "a file that cannot be read is kept");
        assert!(queue.len() < 3, "byte {at}");
        assert!(recovered.spoiled + recovered.torn_bytes > 0, "byte {at}");
    }
}

/// Everything that was promised before the power went.
#[derive(Default)]
struct Promised {
    waiting: BTreeMap<u64, u64>,
    settled: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    numbers: BTreeSet<u64>,
    mark: u64,
}

impl Promised {
    /// Works until the power is gone or the plan is done.
    fn work(&mut self, queue: &mut TripQueue, files: &MemoryFiles, random: &mut Random) {
        for _ in 0..12 {
            if random.below(6) == 0 {
                files.fail_next(1 + random.below(3));
            }
            let count = 1 + random.below(100);
            let marks: Vec<u64> = (self.mark..self.mark + count).collect();
            self.mark += count;
            let Ok(numbers) = queue.append(marks.iter().map(|mark| entry(*mark)).collect(), NOW_MS)
            else {
                self.refused.extend(marks);
                continue;
            };
            for (seq, mark) in numbers.into_iter().zip(marks) {
                assert!(self.numbers.insert(seq), "the number {seq} was given before");
                self.waiting.insert(mark, seq);
            }
            while random.below(3) > 0
                && let Some((mark, seq)) = self.waiting.pop_first()
            {
                queue.settle(seq);
                self.settled.insert(mark);
            }
            queue.clean(NOW_MS + RETAINED_MS + 1);
        }
    }

    fn check(&self, queue: &mut TripQueue) {
        let found = queue.pending(0, usize::MAX).entries;
        let found: BTreeMap<u64, u64> =
            found.iter().map(|entry| (entry.trip.tariff, entry.trip.seq)).collect();
        for (mark, seq) in &self.waiting {
            assert_eq!(found.get(mark), Some(seq), "a recorded trip is lost");
        }
        for (mark, seq) in &found {
            let known = self.waiting.contains_key(mark)
                || self.settled.contains(mark)
                || self.refused.contains(mark);
            assert!(known, "a trip that nobody recorded");
            assert!(!self.refused.contains(mark) || !self.numbers.contains(seq));
        }
    }
}

#[test]
fn a_power_cut_at_any_point_loses_nothing_and_repeats_no_number() {
    for seed in 0..12 {
        for cut in (0..120).step_by(3) {
            let mut random = Random::new(seed * 1_000 + cut);
            let mut promised = Promised::default();
            let mut files = MemoryFiles::default();
            for round in 0..3 {
                files.cut_power_after(cut + seed % 3);
                if let Ok((mut queue, _)) = TripQueue::open(Arc::new(files.clone()), NOW_MS) {
                    promised.work(&mut queue, &files, &mut random);
                }
                let remains = match random.below(4) {
                    0 => Remains::All,
                    1 => Remains::Nothing,
                    _ => Remains::Some(random.number()),
                };
                files = files.after_power_cut(remains);
                let (mut queue, _) = TripQueue::open(Arc::new(files.clone()), NOW_MS).unwrap();
                eprintln!("seed {seed}, cut {cut}, round {round}, {remains:?}");
                promised.check(&mut queue);
            }
        }
    }
}

#[test]
fn trips_refused_while_the_power_is_on_never_come_back() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut promised = Promised::default();
        let files = MemoryFiles::default();
        let (mut queue, _) = open(&files);
        promised.work(&mut queue, &files, &mut random);
        files.fail_next(0);
        let last = queue.append(vec![entry(u64::MAX)], NOW_MS).unwrap()[0];
        queue.settle(last);
        for remains in [Remains::All, Remains::Nothing, Remains::Some(seed)] {
            let (mut queue, _) = open(&files.after_power_cut(remains));
            let found = marks(&mut queue);
            assert!(found.iter().all(|mark| !promised.refused.contains(mark)), "seed {seed}");
        }
    }
}
