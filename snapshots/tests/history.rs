//! The stored history against a plain model, over a log in memory that can be cut and can fail.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::calendar::{Day, Timestamp};
use engine::history::{Freshness, History, HistoryError, HistoryPage, Page, Settled, Span};
use engine::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, PartitionId, ServiceId, TerminalId,
    TransactionId,
};
use engine::journal::{
    AppendError, BatchId, Epoch, Frame, FrameBuilder, Frames, Journal, JournalError, Position,
    StoredFrame, Tenure,
};
use engine::record::{ImportPart, Record};
use engine::transaction::{Amounts, Cancellation, Confirmation, Event, LimitPeriod, Transaction};
use snapshots::history::{HistoryOpenError, HistoryOptions, StoredHistory};

#[test]
fn answers_are_those_of_a_plain_model() {
    for seed in 1..=5 {
        let mut world = World::new(seed);
        let history = world.open().unwrap();
        for _ in 0..8 {
            world.append_frames(40);
            if world.random.below(3) > 0 {
                history.follow(world.end());
            }
            world.compare(&history, 30);
        }
    }
}

#[test]
fn pages_cut_an_answer_without_gaps() {
    let mut world = World::new(11);
    world.append_frames(300);
    let history = world.open().unwrap();
    let organization = OrganizationId(1);
    let all = world.model.of(|found| found.transaction.organization == organization, ALL);
    assert!(all.len() > 20);
    for size in [1, 7, 50, u32::MAX] {
        let mut gathered = Vec::new();
        for index in 0.. {
            let page = Page { index, size };
            let answer = history.of_organization(organization, ALL, page, world.fresh()).unwrap();
            assert_eq!(answer.total, all.len() as u64);
            if answer.items.is_empty() {
                break;
            }
            gathered.extend(answer.items);
        }
        assert_eq!(gathered, all, "size {size}");
    }
    let last = Page { index: u64::MAX, size: u32::MAX };
    assert_eq!(history.of_holder(HolderId(1), ALL, last, world.fresh()).unwrap().items, []);
    let empty = Span { from: Timestamp(5), until: Timestamp(5) };
    let answer = history.of_holder(HolderId(1), empty, FIRST, world.fresh()).unwrap();
    assert_eq!(answer, HistoryPage::default());
}

#[test]
fn a_question_waits_for_its_position_and_no_longer_than_its_deadline() {
    let mut world = World::new(2);
    world.append_frames(5);
    let history = world.open().unwrap();
    world.compare(&history, 3);

    let beyond = Position::from_stored(world.end().stored() + 1);
    let late = Freshness { at_least: beyond, deadline: Instant::now() };
    let answer = history.settled(TransactionId(1), late);
    assert!(matches!(answer, Err(HistoryError::Late)), "{answer:?}");

    std::thread::scope(|scope| {
        let wanted = world.next_position();
        let fresh = Freshness { at_least: wanted, deadline: Instant::now() + PATIENCE };
        let history = &history;
        let asking = scope.spawn(move || history.of_holder(HolderId(1), ALL, FIRST, fresh));
        world.append_frames(1);
        history.follow(world.end());
        let answer = asking.join().unwrap().unwrap();
        let expected = world.model.of(|found| found.transaction.holder == HolderId(1), ALL);
        assert_eq!(answer.total, expected.len() as u64);
    });
}

#[test]
fn a_repeated_cancel_finds_its_first_answer_and_a_confirmation_stays() {
    let mut world = World::new(3);
    let confirmation = world.confirmation(HolderId(4));
    let transaction = confirmation.transaction.id;
    let cancelled = |transaction, at| Cancellation {
        transaction,
        organization: OrganizationId(9),
        cancelled_at: Timestamp(at),
    };
    let other = TransactionId(77_777);
    // A confirmation and a cancellation of one transaction never meet; here they do, either way.
    world.append(&[
        Record::Event(Event::Cancelled(cancelled(transaction, 1))),
        Record::Event(Event::Confirmed(confirmation)),
        Record::Event(Event::Cancelled(cancelled(transaction, 2))),
        Record::Event(Event::Cancelled(cancelled(other, 3))),
    ]);
    let history = world.open().unwrap();
    let settled = |id| history.settled(id, world.fresh()).unwrap();
    assert_eq!(settled(transaction), Some(Settled::Confirmed(confirmation)));
    assert_eq!(settled(other), Some(Settled::Cancelled(cancelled(other, 3))));
    assert_eq!(settled(TransactionId(5)), None);
}

#[test]
fn a_copy_taken_at_any_moment_goes_on_where_the_log_allows() {
    for seed in 20..26 {
        let mut world = World::new(seed);
        let history = world.open().unwrap();
        for _ in 0..3 {
            world.append_frames(60);
            history.follow(world.end());
            if world.random.below(2) == 0 {
                world.compare(&history, 2);
            }
        }
        // What the log may drop is asked before the copy: a crash does not take that back.
        let kept = history.kept();
        let copy = tempfile::tempdir().unwrap();
        copy_all(&world.home().join("index"), &copy.path().join("index"));
        copy_all(&world.home().join("archive"), &copy.path().join("archive"));
        drop(history);
        world.journal.truncate(PARTITION, kept).unwrap();
        world.home = copy;
        let history = world.open().unwrap();
        world.append_frames(10);
        world.compare(&history, 20);
    }
}

#[test]
fn a_lost_or_spoiled_index_is_rebuilt_though_the_log_was_cut() {
    let spoils: [(&str, Spoil); 4] = [
        ("deleted", |index| fs::remove_dir_all(index).unwrap()),
        ("emptied", |index| each_file(index, |_| Vec::new())),
        ("overwritten", |index| each_file(index, |bytes| vec![0xA5; bytes.len()])),
        ("replaced by a file", |index| {
            fs::remove_dir_all(index).unwrap();
            fs::write(index.with_extension("moved"), b"").unwrap();
            fs::create_dir(index).unwrap();
            fs::write(index.join("version"), b"nonsense").unwrap();
        }),
    ];
    for (name, spoil) in spoils {
        println!("index {name}");
        let mut world = World::new(30);
        world.append_frames(200);
        let history = world.open().unwrap();
        world.compare(&history, 5);
        drop(history);
        let history = world.open().unwrap();
        assert_eq!(history.kept(), world.end());
        drop(history);
        world.journal.truncate(PARTITION, world.end()).unwrap();
        spoil(&world.home().join("index"));
        world.append_frames(20);
        let history = world.open().unwrap();
        world.compare(&history, 40);
    }
}

#[test]
fn damage_in_the_middle_of_the_archive_is_named() {
    let mut world = World::new(40);
    world.options.archive_file_bytes = 2_000;
    let history = world.open().unwrap();
    for _ in 0..20 {
        // An entry for each of these rounds, so that there are many files.
        world.append_frames(10);
        history.settled(TransactionId(1), world.fresh()).unwrap();
    }
    drop(history);
    let mut files: Vec<PathBuf> = files_of(&world.home().join("archive"));
    files.sort();
    let first = files.first().unwrap();
    assert!(files.len() >= 2 && first.to_str().unwrap().ends_with(".archive"));
    let mut bytes = fs::read(first).unwrap();
    let whole = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(first, &bytes).unwrap();
    fs::remove_dir_all(world.home().join("index")).unwrap();

    let history = world.open().unwrap();
    let answer = history.settled(TransactionId(1), world.fresh());
    let Err(HistoryError::Broken(what)) = answer else { panic!("{answer:?}") };
    assert!(what.contains(first.to_str().unwrap()) && what.contains(" offset "), "{what}");
    drop(history);

    // A file that is missing, cut or of another partition is seen at once.
    fs::write(first, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(world.open(), Err(HistoryOpenError::Archive(_))));
    fs::remove_file(first).unwrap();
    assert!(matches!(world.open(), Err(HistoryOpenError::Archive(_))));
    fs::write(first, &whole).unwrap();
    world.partition = PartitionId(8);
    assert!(matches!(world.open(), Err(HistoryOpenError::Archive(_))));
    world.partition = PARTITION;
    world.compare(&world.open().unwrap(), 20);
}

#[test]
fn a_log_that_no_longer_reaches_back_is_refused() {
    let mut world = World::new(50);
    world.append_frames(20);
    world.journal.truncate(PARTITION, world.end()).unwrap();
    assert!(matches!(world.open(), Err(HistoryOpenError::Journal(JournalError::Truncated { .. }))));
}

#[test]
fn a_history_is_open_once() {
    let world = World::new(60);
    let first = world.open().unwrap();
    assert!(matches!(world.open(), Err(HistoryOpenError::Held)));
    drop(first);
    world.open().unwrap();
}

#[test]
fn a_failing_log_is_read_again_from_the_same_place() {
    let mut world = World::new(70);
    world.append_frames(30);
    let history = world.open().unwrap();
    world.compare(&history, 3);
    world.journal.failing.store(true, Ordering::Release);
    world.append_frames(30);
    history.follow(world.end());
    let answer = history.settled(TransactionId(1), world.fresh());
    let Err(HistoryError::Broken(what)) = answer else { panic!("{answer:?}") };
    assert!(what.contains("cannot be read"), "{what}");
    assert!(history.stats().trouble.is_some());
    world.journal.failing.store(false, Ordering::Release);
    // Until the next try the trouble is still told.
    while history.stats().trouble.is_some() {
        std::thread::yield_now();
    }
    world.compare(&history, 20);
}

#[test]
fn another_log_than_the_followed_one_is_not_taken_for_it() {
    let mut world = World::new(80);
    world.append_frames(30);
    let history = world.open().unwrap();
    world.compare(&history, 3);
    drop(history);
    world.journal = Arc::new(MemoryJournal::default());
    world.append_frames(1);
    let history = world.open().unwrap();
    history.follow(world.end());
    let beyond = Freshness {
        at_least: Position::from_stored(u64::MAX),
        deadline: Instant::now() + PATIENCE,
    };
    let answer = history.settled(TransactionId(1), beyond);
    let Err(HistoryError::Broken(what)) = answer else { panic!("{answer:?}") };
    assert!(what.contains("the log ends at"), "{what}");
}

#[test]
fn a_stretch_without_frames_does_not_hold_up_questions() {
    let mut world = World::new(90);
    world.append_frames(3);
    let history = world.open().unwrap();
    // A log may end above its last frame, for example after an owner took it.
    let end = Position::from_stored(world.end().stored() + 5);
    history.follow(end);
    history.settled(TransactionId(1), fresh(end)).unwrap();
}

/// A log, what it should lead to, and the home of a history over it.
struct World {
    journal: Arc<MemoryJournal>,
    model: Model,
    random: Random,
    home: tempfile::TempDir,
    options: HistoryOptions,
    partition: PartitionId,
    transaction: u64,
}

impl World {
    fn new(seed: u64) -> World {
        println!("seed {seed}");
        World {
            journal: Arc::default(),
            model: Model::default(),
            random: Random(seed),
            home: tempfile::tempdir().unwrap(),
            options: HistoryOptions {
                archive_file_bytes: 20_000,
                index_cache_bytes: 8 << 20,
                // Some histories are written out often, some never.
                tail_records: [7, 50, 1_000][seed as usize % 3],
            },
            partition: PARTITION,
            transaction: 0,
        }
    }

    fn open(&self) -> Result<StoredHistory, HistoryOpenError> {
        let journal: Arc<dyn Journal> = Arc::<MemoryJournal>::clone(&self.journal);
        StoredHistory::open(self.home(), journal, self.partition, self.options)
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn end(&self) -> Position {
        self.journal.end()
    }

    /// Where the log ends once the next frame is in it.
    fn next_position(&self) -> Position {
        Position::from_stored(self.end().stored() + STEP)
    }

    fn fresh(&self) -> Freshness {
        fresh(self.end())
    }

    fn append_frames(&mut self, count: u64) {
        for _ in 0..count {
            let records: Vec<Record> = (0..self.random.below(6)).map(|_| self.record()).collect();
            self.append(&records);
        }
    }

    fn append(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Event(Event::Confirmed(found)) => {
                    self.model.confirmed.insert(found.transaction.id, *found);
                }
                Record::Event(Event::Cancelled(found)) => {
                    self.model.cancelled.insert(found.transaction, *found);
                }
                _ => {}
            }
        }
        self.journal.push(records);
    }

    fn record(&mut self) -> Record {
        let holder = HolderId(self.random.below(6));
        match self.random.below(10) {
            0 => Record::Event(Event::Opened(self.confirmation(holder).transaction)),
            1 => Record::IdsReserved(TransactionId(self.transaction)),
            2 => Record::ImportPart(ImportPart { import: 1, index: 0, bytes: vec![7; 300] }),
            3 => Record::Event(Event::Cancelled(Cancellation {
                transaction: self.confirmation(holder).transaction.id,
                organization: OrganizationId(2),
                cancelled_at: Timestamp(self.random.below(1_000) as i64),
            })),
            _ => Record::Event(Event::Confirmed(self.confirmation(holder))),
        }
    }

    fn confirmation(&mut self, holder: HolderId) -> Confirmation {
        self.transaction += 1;
        let transaction = Transaction {
            // Not in the order of time.
            id: TransactionId(self.transaction * 7_919 % 65_536 + 1),
            organization: OrganizationId(self.random.below(4) as u32),
            terminal: TerminalId(63),
            service: ServiceId(3),
            category: CategoryId(20),
            holder,
            checked_at: Timestamp(0),
            discount_percent: Some(50),
            limit_period: Some(LimitPeriod { first: Day(20_000), last: Day(20_006) })
                .filter(|_| self.random.below(2) == 0),
        };
        let price = Some(Kopecks(self.random.below(100_000)));
        Confirmation {
            transaction,
            // Few instants, on both sides of 1970, so that many fall together.
            confirmed_at: Timestamp(self.random.below(60) as i64 - 20),
            amounts: Amounts { price, discounted_price: None },
        }
    }

    fn compare(&mut self, history: &StoredHistory, times: u32) {
        for _ in 0..times {
            let from = Timestamp(self.random.below(60) as i64 - 20);
            let until = Timestamp(from.0 + self.random.below(60) as i64);
            let span = if self.random.below(4) == 0 { ALL } else { Span { from, until } };
            let page = Page { index: self.random.below(4), size: 1 + self.random.below(20) as u32 };
            let holder = HolderId(self.random.below(7));
            let expected = self.model.of(|found| found.transaction.holder == holder, span);
            let answer = history.of_holder(holder, span, page, self.fresh()).unwrap();
            assert_eq!(answer, cut(&expected, page));
            let organization = OrganizationId(self.random.below(5) as u32);
            let expected =
                self.model.of(|found| found.transaction.organization == organization, span);
            let answer = history.of_organization(organization, span, page, self.fresh()).unwrap();
            assert_eq!(answer, cut(&expected, page));
            let made = self.random.below(self.transaction + 3);
            let id = TransactionId(made * 7_919 % 65_536 + 1);
            let confirmed = self.model.confirmed.get(&id).copied().map(Settled::Confirmed);
            let cancelled = self.model.cancelled.get(&id).copied().map(Settled::Cancelled);
            let answer = history.settled(id, self.fresh()).unwrap();
            assert_eq!(answer, confirmed.or(cancelled));
        }
    }
}

#[derive(Default)]
struct Model {
    confirmed: BTreeMap<TransactionId, Confirmation>,
    cancelled: BTreeMap<TransactionId, Cancellation>,
}

impl Model {
    fn of(&self, wanted: impl Fn(&Confirmation) -> bool, span: Span) -> Vec<Confirmation> {
        let inside = |at| span.from <= at && at < span.until;
        let found = self.confirmed.values().filter(|found| inside(found.confirmed_at));
        let mut found: Vec<Confirmation> = found.filter(|found| wanted(found)).copied().collect();
        found.sort_by_key(|found| (found.confirmed_at, found.transaction.id));
        found.reverse();
        found
    }
}

fn cut(all: &[Confirmation], page: Page) -> HistoryPage {
    let first = usize::try_from(page.index * u64::from(page.size)).unwrap();
    let items = all.iter().skip(first).take(page.size as usize).copied().collect();
    HistoryPage { items, total: all.len() as u64 }
}

/// A log in memory.
#[derive(Default)]
struct MemoryJournal {
    log: Mutex<Log>,
    failing: AtomicBool,
}

#[derive(Default)]
struct Log {
    frames: Vec<StoredFrame>,
    begins: Position,
}

impl MemoryJournal {
    fn push(&self, records: &[Record]) {
        let mut bytes = Vec::new();
        for record in records {
            record.push(&mut bytes);
        }
        let mut builder = FrameBuilder::new();
        builder.extend(&bytes, records.len() as u32);
        let at = self.end();
        let next = Position::from_stored(at.stored() + STEP);
        let frame = builder.finish(Epoch(1), BatchId(at.stored()));
        self.log.lock().unwrap().frames.push(StoredFrame { at, next, frame });
    }

    fn end(&self) -> Position {
        self.log.lock().unwrap().frames.last().map_or(Position::ORIGIN, |last| last.next)
    }
}

impl Journal for MemoryJournal {
    fn acquire(&self, _: PartitionId) -> Result<Tenure, JournalError> {
        unreachable!("the history never takes a partition")
    }

    fn append(&self, _: PartitionId, _: Position, _: &Frame) -> Result<Position, AppendError> {
        unreachable!("the history never appends")
    }

    fn read(&self, partition: PartitionId, from: Position) -> Result<Frames, JournalError> {
        assert!(partition == PARTITION || from == Position::ORIGIN);
        if self.failing.load(Ordering::Acquire) {
            return Err(JournalError::Io(std::io::Error::other("the device is gone")));
        }
        let log = self.log.lock().unwrap();
        if from < log.begins {
            return Err(JournalError::Truncated { wanted: from });
        }
        let frames: Vec<StoredFrame> =
            log.frames.iter().filter(|frame| frame.at >= from).cloned().collect();
        Ok(Box::new(frames.into_iter().map(Ok)))
    }

    fn truncate(&self, _: PartitionId, below: Position) -> Result<(), JournalError> {
        let mut log = self.log.lock().unwrap();
        log.begins = below;
        Ok(())
    }
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn fresh(at_least: Position) -> Freshness {
    Freshness { at_least, deadline: Instant::now() + PATIENCE }
}

/// Copies a directory that may change meanwhile; a file that is gone by then is left out.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &copy);
        } else if let Ok(bytes) = fs::read(&path) {
            fs::write(copy, bytes).unwrap();
        }
    }
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files
}

fn each_file(directory: &Path, change: fn(Vec<u8>) -> Vec<u8>) {
    for path in files_of(directory) {
        let bytes = fs::read(&path).unwrap();
        fs::write(path, change(bytes)).unwrap();
    }
}

type Spoil = fn(&Path);

const PARTITION: PartitionId = PartitionId(7);
const STEP: u64 = 1_000;
const ALL: Span = Span { from: Timestamp(i64::MIN), until: Timestamp(i64::MAX) };
const FIRST: Page = Page { index: 0, size: 50 };
const PATIENCE: Duration = Duration::from_secs(60);
