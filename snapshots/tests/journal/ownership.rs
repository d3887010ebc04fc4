//! Who may append: one process, its latest epoch, at the end of the log. On the real file layer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use engine::ids::PartitionId;
use engine::journal::{AppendError, Epoch, Frame, Journal, JournalError, Position, Tenure};
use snapshots::journal::EmbeddedJournal;
use tempfile::TempDir;

use crate::scenario::{Mark, OPTIONS, PARTITION, frame, read};

fn open(directory: &Path) -> EmbeddedJournal {
    EmbeddedJournal::open(directory, OPTIONS).unwrap()
}

fn append(journal: &EmbeddedJournal, tenure: &mut Tenure, mark: Mark) {
    let frame = frame(tenure.epoch, mark, 300);
    tenure.end = journal.append(PARTITION, tenure.end, &frame).unwrap();
}

#[test]
fn a_second_process_is_kept_out_until_the_first_is_gone() {
    let directory = TempDir::new().unwrap();
    let first = open(directory.path());
    let mut tenure = first.acquire(PARTITION).unwrap();
    append(&first, &mut tenure, 1);
    let second = open(directory.path());
    assert!(matches!(second.acquire(PARTITION), Err(JournalError::Held)));
    let refused = second.append(PARTITION, tenure.end, &frame(tenure.epoch, 2, 1));
    assert!(matches!(refused, Err(AppendError::Fenced)));
    append(&first, &mut tenure, 2);
    drop(first);
    let later = second.acquire(PARTITION).unwrap();
    assert!(later.epoch > tenure.epoch);
    assert_eq!(later.end, tenure.end);
    assert_eq!(read(&second, Position::ORIGIN, later.end).unwrap().len(), 2);
}

#[test]
fn only_the_latest_epoch_appends_and_only_at_the_end() {
    let directory = TempDir::new().unwrap();
    let journal = open(directory.path());
    let fenced = |at: Position, frame: &Frame| {
        let refused = journal.append(PARTITION, at, frame);
        assert!(matches!(refused, Err(AppendError::Fenced)), "{refused:?}");
    };
    fenced(Position::ORIGIN, &frame(Epoch(1), 1, 1));
    let old = journal.acquire(PARTITION).unwrap();
    let mut tenure = journal.acquire(PARTITION).unwrap();
    fenced(tenure.end, &frame(old.epoch, 1, 1));
    fenced(tenure.end, &frame(Epoch(tenure.epoch.0 + 1), 1, 1));
    append(&journal, &mut tenure, 1);
    fenced(Position::ORIGIN, &frame(tenure.epoch, 2, 1));
    fenced(Position::from_stored(tenure.end.stored() + 1), &frame(tenure.epoch, 2, 1));
    append(&journal, &mut tenure, 2);
    assert_eq!(read(&journal, Position::ORIGIN, tenure.end).unwrap().len(), 2);
}

#[test]
fn partitions_are_logs_of_their_own() {
    let directory = TempDir::new().unwrap();
    let journal = open(directory.path());
    let mut tenure = journal.acquire(PARTITION).unwrap();
    append(&journal, &mut tenure, 1);
    let other = journal.acquire(PartitionId(4)).unwrap();
    assert_eq!(other, Tenure { epoch: Epoch(1), end: Position::ORIGIN });
    assert_eq!(journal.read(PartitionId(4), Position::ORIGIN).unwrap().count(), 0);
    assert!(journal.read(PartitionId(5), Position::ORIGIN).is_err(), "never acquired");
}

#[test]
fn others_read_and_truncate_while_appends_go_on() {
    let directory = TempDir::new().unwrap();
    let journal = open(directory.path());
    let mut tenure = journal.acquire(PARTITION).unwrap();
    append(&journal, &mut tenure, 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = Position::ORIGIN;
            while !done.load(Ordering::Acquire) {
                let mut last = from;
                for stored in journal.read(PARTITION, from).unwrap() {
                    let stored = stored.unwrap();
                    assert_eq!(stored.at, last);
                    last = stored.next;
                }
                journal.truncate(PARTITION, last).unwrap();
                from = last;
            }
        });
        for mark in 2..400 {
            append(&journal, &mut tenure, mark);
        }
        done.store(true, Ordering::Release);
    });
    journal.truncate(PARTITION, tenure.end).unwrap();
    assert!(matches!(
        journal.read(PARTITION, Position::ORIGIN),
        Err(JournalError::Truncated { wanted: Position::ORIGIN })
    ));
    let files = std::fs::read_dir(directory.path().join("partition-00003")).unwrap().count();
    assert!(files <= 4, "the lock, the last segment, and one ahead, not {files} files");
    let stats = journal.stats();
    assert_eq!((stats.appends, stats.failed_appends), (399, 0));
    assert!(stats.sync_ns > 0 && stats.last_bytes.is_multiple_of(512) && stats.bytes > 399 * 512);
}
