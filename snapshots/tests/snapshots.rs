//! Snapshots on the real file layer: what is complete comes back, what is not is never listed, and
//! whatever happens to the newest generation the one before it can be read.

#![allow(clippy::panic, clippy::unwrap_used, reason = "everything here is a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::ids::PartitionId;
use engine::journal::Position;
use engine::snapshot::{Generation, SnapshotError, SnapshotInfo, SnapshotPart, SnapshotStore};
use snapshots::generation::{Contents, Marker, Pace, digest_tree};
use snapshots::sled_snapshots::{PART_BYTES_MAX, SledSnapshots};
use tempfile::TempDir;

const PARTITION: PartitionId = PartitionId(2);

/// The parts of snapshot `number`, which differ from those of any other.
fn parts(number: u8, count: u32) -> Vec<SnapshotPart> {
    let part = |index: u32| SnapshotPart {
        kind: (index % 3 + 1).try_into().unwrap(),
        index: index / 3,
        bytes: (0..(index * 37) % 7_000).map(|at| (at as u8).wrapping_mul(31) ^ number).collect(),
    };
    let mut parts: Vec<_> = (0..count).map(part).collect();
    parts.sort_by_key(|part| (part.kind, part.index));
    parts
}

fn put(store: &SledSnapshots, number: u8) -> Result<Generation, SnapshotError> {
    let parts = parts(number, 300);
    let info = store.put(PARTITION, replay_from(number), &mut parts.into_iter().map(Ok))?;
    assert_eq!(info.replay_from, replay_from(number));
    Ok(info.generation)
}

fn replay_from(number: u8) -> Position {
    Position::from_stored(u64::from(number) * 1_000)
}

fn read(store: &SledSnapshots, generation: Generation) -> Result<Vec<SnapshotPart>, SnapshotError> {
    store.read(PARTITION, generation)?.collect()
}

fn partition(directory: &Path) -> PathBuf {
    directory.join("partition-00002")
}

fn generation_path(directory: &Path, generation: Generation) -> PathBuf {
    partition(directory).join(format!("generation-{:020}", generation.0))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_million_holders_are_written_and_read() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = SledSnapshots::open(directory.path()).unwrap();
    let count = 31_250;
    let part = |index: u32| {
        let mut state = u64::from(index) + 1;
        let mut bytes = Vec::with_capacity(6_504);
        while bytes.len() < 6_500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        Ok(SnapshotPart { kind: 1, index, bytes })
    };
    let begun = Instant::now();
    let info = store.put(PARTITION, replay_from(1), &mut (0..count).map(part)).unwrap();
    let written = begun.elapsed();
    let begun = Instant::now();
    let read = store.read(PARTITION, info.generation).unwrap();
    let bytes: usize = read.map(|part| part.unwrap().bytes.len()).sum();
    let read = begun.elapsed();
    let stored: u64 = files(directory.path()).iter().map(|f| f.metadata().unwrap().len()).sum();
    println!("{count} parts, {bytes} bytes, {stored} stored: {written:?} written, {read:?} read");
    assert_eq!(bytes, 31_250 * 6_504);
}

/// A directory with generations 1 and 2 complete.
fn two_generations() -> (TempDir, SledSnapshots, [Generation; 2]) {
    let directory = TempDir::new().unwrap();
    let store = SledSnapshots::open(directory.path()).unwrap();
    let generations = [put(&store, 1).unwrap(), put(&store, 2).unwrap()];
    (directory, store, generations)
}

fn listed(store: &SledSnapshots) -> Vec<u64> {
    store.list(PARTITION).unwrap().iter().map(|info| info.generation.0).collect()
}

/// Whatever else is there: snapshot 1 is the only one, it is whole, and a new one can be put.
fn check_first_survives(image: &Path) {
    let store = SledSnapshots::open(image).unwrap();
    assert_eq!(listed(&store), [1]);
    assert!(read(&store, Generation(1)).unwrap() == parts(1, 300));
    let newest = put(&store, 3).unwrap();
    assert_eq!(listed(&store), [newest.0, 1]);
    assert!(read(&store, newest).unwrap() == parts(3, 300));
    let names = fs::read_dir(partition(image)).unwrap().count();
    assert_eq!(names, 4, "two directories and two markers are left");
}

/// Ways in which the bytes of a file are lost or changed.
const HARMS: [fn(&Path); 6] = [
    |path| fs::remove_file(path).unwrap(),
    |path| fs::write(path, []).unwrap(),
    |path| change(path, |bytes| bytes.truncate(bytes.len() / 2)),
    |path| change(path, |bytes| bytes.fill(0)),
    |path| change(path, |bytes| bytes.iter_mut().zip(1..).for_each(|(b, at)| *b ^= at as u8)),
    |path| change(path, |bytes| bytes.iter_mut().skip(64).take(1).for_each(|byte| *byte ^= 4)),
];

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_two_newest_are_kept_and_come_back() {
    let (directory, store, generations) = two_generations();
    let third = put(&store, 3).unwrap();
    assert_eq!(listed(&store), [third.0, generations[1].0]);
    let positions: Vec<_> =
        store.list(PARTITION).unwrap().iter().map(|info| info.replay_from).collect();
    assert_eq!(positions, [replay_from(3), replay_from(2)]);
    assert!(store.read(PARTITION, generations[0]).is_err(), "removed");
    drop(store);
    let store = SledSnapshots::open(directory.path()).unwrap();
    let (mut one, mut other) =
        (store.read(PARTITION, third).unwrap(), store.read(PARTITION, third).unwrap());
    for part in parts(3, 300) {
        assert!(one.next().unwrap().unwrap() == part && other.next().unwrap().unwrap() == part);
    }
    assert!(one.next().is_none() && other.next().is_none() && one.next().is_none());
    assert!(store.list(PartitionId(9)).unwrap().is_empty());
}

#[test]
fn reading_changes_no_byte_of_a_generation() {
    let (directory, store, generations) = two_generations();
    let path = generation_path(directory.path(), generations[1]);
    let before = digest_tree(&path, Pace::Hurried).unwrap();
    assert_eq!(read(&store, generations[1]).unwrap().len(), 300);
    drop(store.read(PARTITION, generations[1]).unwrap());
    assert_eq!(digest_tree(&path, Pace::Hurried).unwrap(), before);
    assert_eq!(fs::read_dir(partition(directory.path())).unwrap().count(), 4, "no copy is left");
    fs::create_dir(partition(directory.path()).join("reading-left")).unwrap();
    SledSnapshots::open(directory.path()).unwrap();
    assert_eq!(fs::read_dir(partition(directory.path())).unwrap().count(), 4, "nor of others");
}

#[test]
fn a_snapshot_that_is_given_up_leaves_the_older_ones() {
    let (_directory, store, _) = two_generations();
    let give_up = |last: Result<SnapshotPart, SnapshotError>| {
        let parts = parts(9, 200).into_iter().map(Ok).chain([last]);
        let given_up = store.put(PARTITION, replay_from(9), &mut parts.into_iter());
        assert!(matches!(given_up, Err(SnapshotError::Abandoned(_))), "{given_up:?}");
        assert_eq!(listed(&store), [2, 1]);
    };
    give_up(Err(SnapshotError::Abandoned("the journal failed")));
    give_up(Ok(SnapshotPart { kind: 1, index: 0, bytes: Vec::new() }));
    let bytes = vec![0; PART_BYTES_MAX + 1];
    give_up(Ok(SnapshotPart { kind: 9, index: 0, bytes }));
    let bytes = vec![7; PART_BYTES_MAX];
    let longest = SnapshotPart { kind: 9, index: 0, bytes };
    let info = store.put(PARTITION, replay_from(9), &mut [Ok(longest.clone())].into_iter());
    assert!(read(&store, info.unwrap().generation).unwrap() == [longest]);
}

/// A stop that comes when `comes` says so; what is listed afterwards is whole, and a store that is
/// opened again goes on. Returns how the snapshot in hand ended.
fn stop_when(comes: impl Fn(&Path) -> bool + Sync) -> Result<SnapshotInfo, SnapshotError> {
    let (directory, store, _) = two_generations();
    let path = partition(directory.path());
    let is_over = AtomicBool::new(false);
    let end = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !comes(&path) && !is_over.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            store.stop();
        });
        let end = store.put(PARTITION, replay_from(3), &mut parts(3, 300).into_iter().map(Ok));
        is_over.store(true, Ordering::Release);
        end
    });
    assert!(matches!(end, Ok(_) | Err(SnapshotError::Stopped)), "{end:?}");
    assert!(matches!(put(&store, 4), Err(SnapshotError::Stopped)), "stopped for good");
    drop(store);
    let store = SledSnapshots::open(directory.path()).unwrap();
    let listed = store.list(PARTITION).unwrap();
    assert!(listed.len() >= 2);
    for info in listed {
        let number = info.replay_from.stored() / 1_000;
        let whole = parts(number.try_into().unwrap(), 300);
        assert!(read(&store, info.generation).unwrap() == whole, "{info:?}");
    }
    let newest = put(&store, 5).unwrap();
    assert_eq!(read(&store, newest).unwrap().len(), 300);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 4, "nothing half made is left");
    end
}

#[test]
fn a_stop_gives_up_what_is_being_written_and_nothing_else() {
    let third = |path: &Path| path.join("generation-00000000000000000003");
    let given_up = stop_when(|_| true);
    assert!(matches!(given_up, Err(SnapshotError::Stopped)), "{given_up:?}");
    // Whether these come in time is a matter of the wall clock; what they leave is not.
    let ends = [
        stop_when(|path| third(path).exists()),
        stop_when(|path| has_name(path, "reading-")),
        stop_when(|path| third(path).with_extension("sealing").exists()),
        stop_when(|path| third(path).with_extension("complete").exists()),
    ];
    println!("{ends:?}");
}

fn has_name(directory: &Path, prefix: &str) -> bool {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).any(|name| name.starts_with(prefix))
}

#[test]
fn a_power_cut_before_the_switch_leaves_the_generation_before() {
    let directory = TempDir::new().unwrap();
    let store = SledSnapshots::open(directory.path()).unwrap();
    put(&store, 1).unwrap();
    let stages = TempDir::new().unwrap();
    let mut stage = 0;
    let mut take = || {
        copy(directory.path(), &stages.path().join(stage.to_string()));
        stage += 1;
    };
    let parts = parts(2, 300).into_iter().zip(0..).map(|(part, index)| {
        if index % 100 == 0 {
            take();
        }
        Ok(part)
    });
    store.put(PARTITION, replay_from(2), &mut parts.into_iter()).unwrap();
    // Written and synced, the marker under its first name, and that torn.
    let partition_at = |image: &Path| partition(image);
    let marker = generation_path(directory.path(), Generation(2)).with_extension("complete");
    for torn in [0, 40, usize::MAX] {
        let bytes = fs::read(&marker).unwrap();
        let image = stages.path().join(stage.to_string());
        copy(directory.path(), &image);
        let path = generation_path(&image, Generation(2));
        fs::remove_file(path.with_extension("complete")).unwrap();
        let bytes = &bytes[..torn.min(bytes.len())];
        fs::write(path.with_extension("sealing"), bytes).unwrap();
        copy(&path, &partition_at(&image).join("reading-copy"));
        stage += 1;
    }
    for stage in 0..stage {
        let image = stages.path().join(stage.to_string());
        let count = files(&generation_path(&image, Generation(2))).len();
        assert!(count > 0);
        for (harm, at) in HARMS.iter().zip(0..) {
            let harmed = TempDir::new().unwrap();
            copy(&image, harmed.path());
            let files = files(&generation_path(harmed.path(), Generation(2)));
            harm(&files[at % files.len()]);
            files.iter().filter(|file| at > 2 && file.exists()).for_each(|file| harm(file));
            check_first_survives(harmed.path());
        }
    }
}

#[test]
fn a_damaged_newest_generation_is_an_error_and_the_older_one_is_read() {
    let (directory, _store, generations) = two_generations();
    for path in files(&generation_path(directory.path(), generations[1])) {
        for harm in HARMS {
            let harmed = TempDir::new().unwrap();
            copy(directory.path(), harmed.path());
            let path = harmed.path().join(path.strip_prefix(directory.path()).unwrap());
            let before = fs::read(&path).unwrap();
            harm(&path);
            if fs::read(&path).is_ok_and(|after| after == before) {
                continue;
            }
            let store = SledSnapshots::open(harmed.path()).unwrap();
            assert_eq!(listed(&store), [2, 1]);
            let newest = read(&store, generations[1]);
            assert!(matches!(newest, Err(SnapshotError::Damaged(_))), "{}", path.display());
            assert!(read(&store, generations[0]).unwrap() == parts(1, 300));
            let third = put(&store, 3).unwrap();
            assert_eq!(listed(&store), [third.0, 1], "the damaged one is not kept");
        }
    }
}

#[test]
fn a_generation_whose_marker_is_damaged_is_not_listed() {
    let (directory, _store, generations) = two_generations();
    let marker = generation_path(directory.path(), generations[1]).with_extension("complete");
    for harm in HARMS {
        let harmed = TempDir::new().unwrap();
        copy(directory.path(), harmed.path());
        harm(&harmed.path().join(marker.strip_prefix(directory.path()).unwrap()));
        check_first_survives(harmed.path());
    }
}

/// Makes the marker of a generation fit the files that are there now, so that sled sees them.
fn remake_marker(directory: &Path, generation: Generation) {
    let partition = partition(directory);
    let marker = Marker::read(&partition, generation).unwrap();
    let contents =
        Contents { info: marker.info(), part_count: marker.part_count, digest: marker.digest };
    let files = digest_tree(&generation_path(directory, generation), Pace::Hurried).unwrap();
    Marker::new(contents, files).write(&partition).unwrap();
}

#[test]
fn what_sled_makes_of_garbage_is_an_error_or_the_truth() {
    // Damage that the marker does not show can only be a fault of ours; sled answers it with
    // panics, with errors, and with databases that open and are empty.
    let (directory, _store, generations) = two_generations();
    let mut errors = 0;
    for round in 0_usize..60 {
        let harmed = TempDir::new().unwrap();
        copy(directory.path(), harmed.path());
        let path = generation_path(harmed.path(), generations[1]);
        let files = files(&path);
        let file = files.iter().find(|file| file.ends_with("db")).unwrap();
        match round {
            0..6 => HARMS[round](file),
            6..12 => files.iter().for_each(|file| HARMS[round - 6](file)),
            _ => change(file, |bytes| {
                let at = round * 7_919_993 % (bytes.len() - 600);
                bytes[at..at + 600].fill(round as u8);
            }),
        }
        remake_marker(harmed.path(), generations[1]);
        let store = SledSnapshots::open(harmed.path()).unwrap();
        match read(&store, generations[1]) {
            Ok(found) => assert!(found == parts(2, 300), "round {round}"),
            Err(SnapshotError::Damaged(_) | SnapshotError::Io(_)) => errors += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(read(&store, generations[0]).unwrap() == parts(1, 300));
    }
    // Which of them panic in sled depends on how its threads laid the file out.
    assert!(errors > 20, "only {errors} errors");
}

#[test]
fn a_snapshot_file_that_sled_left_half_made_does_not_matter() {
    let (directory, store, generations) = two_generations();
    let path = generation_path(directory.path(), generations[1]);
    fs::write(path.join("snap.0000000000000042.generating"), b"half").unwrap();
    remake_marker(directory.path(), generations[1]);
    assert!(read(&store, generations[1]).unwrap() == parts(2, 300));
}
