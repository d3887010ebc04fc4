//! What was durable is never skipped: damage is an error that names its place, only a torn tail is
//! cut.

use std::path::{Path, PathBuf};

use engine::journal::{Journal, JournalError, Position};
use snapshots::segment::segment_path;

use crate::disk::{Disk, Image};
use crate::random::Random;
use crate::scenario::{DIRECTORY, Mark, Note, PARTITION, frame, open, read};

const FRAMES: u64 = 14;

/// The files of a log of [`FRAMES`] frames in several segments, and what it holds.
fn written() -> (Image, Vec<(Position, Mark)>) {
    let disk = Disk::<Note>::new(&Image::default(), 1);
    let journal = open(&disk).unwrap();
    let mut tenure = journal.acquire(PARTITION).unwrap();
    for mark in 1..=FRAMES {
        let frame = frame(tenure.epoch, mark, 500);
        tenure.end = journal.append(PARTITION, tenure.end, &frame).unwrap();
    }
    let frames = read(&journal, Position::ORIGIN, tenure.end).unwrap();
    drop(journal);
    (disk.live(), frames)
}

fn path(sequence: u64) -> PathBuf {
    segment_path(&Path::new(DIRECTORY).join("partition-00003"), sequence)
}

fn recovered(image: &Image) -> Result<Vec<(Position, Mark)>, JournalError> {
    let disk = Disk::<Note>::new(image, 1);
    let journal = open(&disk).unwrap();
    let tenure = journal.acquire(PARTITION)?;
    read(&journal, Position::ORIGIN, tenure.end)
}

fn check_damaged(image: &Image, place: &str) {
    match recovered(image) {
        Err(JournalError::Damaged { place: found, .. }) => assert!(
            found.contains(place) && found.contains("offset"),
            "`{found}` does not name `{place}`"
        ),
        other => panic!("{place}: {other:?}"),
    }
}

/// Which segments hold blocks, and where in the last one its last block begins.
fn last_block(image: &Image) -> (u64, usize) {
    let begun = (1..).take_while(|s| image.files.get(&path(*s)).is_some_and(|b| b[0] != 0));
    let last = begun.last().unwrap();
    let blocks = image.files[&path(last)].chunks(512).zip(0..);
    let (_, sector) = blocks.filter(|(sector, _)| sector.starts_with(b"eBL1")).last().unwrap();
    (last, sector * 512)
}

#[test]
fn no_flipped_bit_is_skipped() {
    let (image, frames) = written();
    let (last, last_block) = last_block(&image);
    assert!(last >= 4, "several segments");
    let mut random = Random::new(7);
    let (mut refused, mut cut) = (0, 0);
    for sequence in 1..=last + 1 {
        for at in (0..image.files[&path(sequence)].len()).step_by(3) {
            let mut image = image.clone();
            image.files.get_mut(&path(sequence)).unwrap()[at] ^= 1 << random.below(8);
            match recovered(&image) {
                Ok(found) if found == frames => {}
                Ok(found) => {
                    cut += 1;
                    assert_eq!(found, frames[..frames.len() - 1], "segment {sequence} byte {at}");
                    assert!(sequence == last && at >= last_block, "segment {sequence} byte {at}");
                }
                Err(JournalError::Damaged { place, .. }) => {
                    refused += 1;
                    assert!(
                        place.contains(&format!("{sequence:020}.log offset")),
                        "segment {sequence} byte {at}: {place}"
                    );
                }
                Err(error) => panic!("segment {sequence} byte {at}: {error}"),
            }
        }
    }
    assert!(refused > 1_000 && cut > 100, "{refused} refused, {cut} cut");
}

#[test]
fn lost_sectors_in_the_middle_are_damage() {
    let (image, _) = written();
    let (last, last_block) = last_block(&image);
    for sequence in 1..=last {
        let bytes = &image.files[&path(sequence)];
        for sector in (0..bytes.len()).step_by(512) {
            let used = bytes[sector..sector + 512].iter().any(|byte| *byte != 0);
            if used && (sequence < last || sector < last_block) {
                let mut image = image.clone();
                image.files.get_mut(&path(sequence)).unwrap()[sector..sector + 512].fill(0);
                check_damaged(&image, &format!("{sequence:020}.log"));
            }
        }
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let (image, frames) = written();
    let (last, last_block) = last_block(&image);
    for kept in 0..600 {
        let mut image = image.clone();
        let bytes = image.files.get_mut(&path(last)).unwrap();
        bytes[last_block + kept..].fill(0);
        let found = recovered(&image).unwrap();
        assert!(found == frames || found == frames[..frames.len() - 1], "{kept} bytes kept");
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let (image, frames) = written();
    let (last, _) = last_block(&image);
    for sequence in 2..=last {
        let mut image = image.clone();
        image.files.remove(&path(sequence)).unwrap();
        check_damaged(&image, &format!("{sequence:020}.log"));
    }
    let mut beheaded = image.clone();
    beheaded.files.remove(&path(1)).unwrap();
    assert!(matches!(
        recovered(&beheaded),
        Err(JournalError::Truncated { wanted: Position::ORIGIN })
    ));
    let mut whole = image;
    whole.files.remove(&path(last + 1)).unwrap();
    assert_eq!(recovered(&whole).unwrap(), frames, "the segment made ahead holds nothing");
}

#[test]
fn a_process_remembers_what_it_acknowledged() {
    // The last block of a log can only be told from a torn one by who wrote it.
    let disk = Disk::<Note>::new(&Image::default(), 1);
    let journal = open(&disk).unwrap();
    let tenure = journal.acquire(PARTITION).unwrap();
    journal.append(PARTITION, tenure.end, &frame(tenure.epoch, 1, 100)).unwrap();
    {
        use snapshots::files::Files;
        disk.open(&path(1)).unwrap().write_at(600, &[0xff]).unwrap();
    }
    let again = journal.acquire(PARTITION);
    assert!(matches!(again, Err(JournalError::Damaged { .. })), "{again:?}");
    assert!(matches!(
        journal.read(PARTITION, Position::ORIGIN).unwrap().next(),
        Some(Err(JournalError::Damaged { .. }))
    ));
}

#[test]
fn a_log_that_ends_below_the_wanted_position_is_damaged() {
    let disk = Disk::<Note>::new(&Image::default(), 1);
    let journal = open(&disk).unwrap();
    let tenure = journal.acquire(PARTITION).unwrap();
    assert_eq!(read(&journal, tenure.end, tenure.end).unwrap(), []);
    let beyond = journal.read(PARTITION, Position::from_stored(5));
    assert!(matches!(beyond, Err(JournalError::Damaged { .. })));
}
