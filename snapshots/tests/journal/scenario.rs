//! A random life of one log, and what must be true of every image of its disk.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use engine::ids::PartitionId;
use engine::journal::{
    AppendError, BatchId, Epoch, Frame, FrameBuilder, Journal, JournalError, Position, StoredFrame,
    Tenure,
};
use snapshots::journal::{EmbeddedJournal, JournalOptions};

use crate::disk::{Device, Disk, Fault, Image, Left, Step};
use crate::random::Random;

pub const PARTITION: PartitionId = PartitionId(3);
pub const DIRECTORY: &str = "/journal";
pub const OPTIONS: JournalOptions = JournalOptions { segment_bytes: 4_096 };

/// The content of a frame, by which it is known again: no two frames of a test have the same.
pub type Mark = u64;

/// What the test tells the trace.
#[derive(Clone, Debug)]
pub enum Note {
    /// An append of this frame returned.
    Acknowledged(Mark, Position),
    /// An acquisition returned.
    Acquired(Epoch),
    /// The log was acquired and then read: it holds this from the first position on.
    Read(Position, Vec<(Position, Mark)>),
    /// An append of this frame begins.
    Sent(Mark),
    /// What is below may vanish from now on.
    Truncating(Position),
}

/// What the log must hold, gathered from the notes.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Frames that must be there, with their positions.
    pub certain: Vec<(Position, Mark)>,
    /// A frame that may be there behind them.
    pub possible: Option<Mark>,
    /// Frames below may be gone.
    pub truncated: Position,
    /// All later epochs are above.
    pub epoch: Epoch,
}

impl Expected {
    pub fn apply(&mut self, note: &Note) {
        match note {
            Note::Acknowledged(mark, at) => {
                assert_eq!(self.possible.take(), Some(*mark));
                self.certain.push((*at, *mark));
            }
            Note::Acquired(epoch) => self.epoch = self.epoch.max(*epoch),
            Note::Read(from, frames) => {
                self.check(*from, frames);
                self.certain.retain(|(at, _)| at < from);
                self.certain.extend(frames);
                self.possible = None;
            }
            Note::Sent(mark) => self.possible = Some(*mark),
            Note::Truncating(below) => self.truncated = self.truncated.max(*below),
        }
    }

    /// All that is certain, in order, then perhaps what is possible, and nothing else.
    pub fn check(&self, from: Position, frames: &[(Position, Mark)]) {
        let certain: Vec<_> = self.certain.iter().copied().filter(|(at, _)| *at >= from).collect();
        let (found, rest) = frames.split_at(certain.len().min(frames.len()));
        assert_eq!(found, certain, "what was acknowledged must be there, in order");
        match rest {
            [] => {}
            [(_, mark)] => assert_eq!(Some(*mark), self.possible, "a frame nobody sent"),
            _ => panic!("frames nobody sent: {rest:?}"),
        }
    }
}

/// A frame of up to three records that holds `mark`.
pub fn frame(epoch: Epoch, mark: Mark, size: u64) -> Frame {
    let mut builder = FrameBuilder::new();
    for record in 0..1 + mark % 3 {
        let mut bytes = Vec::new();
        engine::entries::push_entry(&mut bytes, |out| {
            out.extend_from_slice(&mark.to_le_bytes());
            out.resize(out.len() + usize::try_from(size + record).unwrap(), 0xa5);
        });
        builder.extend(&bytes, 1);
    }
    builder.finish(epoch, BatchId(mark))
}

pub fn mark_of(stored: &StoredFrame) -> Mark {
    assert!(stored.at < stored.next);
    let record = stored.frame.records().next().unwrap();
    let mark = u64::from_le_bytes(record[..8].try_into().unwrap());
    assert_eq!(stored.frame.batch(), BatchId(mark));
    mark
}

pub fn open(disk: &Disk<Note>) -> std::io::Result<EmbeddedJournal> {
    EmbeddedJournal::open_on(Arc::new(disk.clone()), Path::new(DIRECTORY), OPTIONS)
}

/// The frames from a position on; they must follow each other without a gap up to `end`.
pub fn read(
    journal: &EmbeddedJournal,
    from: Position,
    end: Position,
) -> Result<Vec<(Position, Mark)>, JournalError> {
    let mut frames = Vec::new();
    let mut next = None;
    for stored in journal.read(PARTITION, from)? {
        let stored = stored?;
        assert!(next.is_none_or(|next| next == stored.at), "a gap before {}", stored.at);
        next = Some(stored.next);
        frames.push((stored.at, mark_of(&stored)));
    }
    assert!(next.is_none_or(|next| next == end), "the log ends before {end}");
    Ok(frames)
}

/// Lives on one disk, and notes in its trace what it did and saw.
pub struct Life {
    pub disk: Disk<Note>,
    pub random: Random,
    pub expected: Expected,
    pub next_mark: Mark,
    journal: Option<Arc<EmbeddedJournal>>,
    tenure: Option<Tenure>,
}

impl Life {
    pub fn new(disk: Disk<Note>, random: Random, expected: Expected, next_mark: Mark) -> Life {
        Life { disk, random, expected, next_mark, journal: None, tenure: None }
    }

    /// One step of it. Whatever fails is tried again by the steps that follow.
    pub fn step(&mut self) {
        if self.journal.is_none() || self.random.one_in(25) {
            // The process starts again; the power stays on.
            self.journal = None;
            self.tenure = None;
            self.journal = open(&self.disk).ok().map(Arc::new);
        } else if self.tenure.is_none() || self.random.one_in(25) {
            self.acquire();
        } else if self.random.one_in(12) {
            self.truncate();
        } else {
            let size = if self.random.one_in(15) { 6_000 } else { self.random.below(900) };
            self.append(size);
        }
    }

    /// Acquires and reads. No acquisition may find the log damaged.
    pub fn acquire(&mut self) {
        let Some(journal) = self.journal.clone() else { return };
        self.tenure = None;
        let tenure = match journal.acquire(PARTITION) {
            Ok(tenure) => tenure,
            Err(JournalError::Io(_)) => return,
            Err(error) => panic!("{error}"),
        };
        assert!(tenure.epoch > self.expected.epoch, "epochs only grow");
        self.note(Note::Acquired(tenure.epoch));
        let from = self.expected.truncated;
        match read(&journal, from, tenure.end) {
            Ok(frames) => {
                self.note(Note::Read(from, frames));
                self.tenure = Some(tenure);
            }
            Err(JournalError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub fn append(&mut self, size: u64) {
        let (Some(journal), Some(tenure)) = (self.journal.clone(), self.tenure) else { return };
        let mark = self.next_mark;
        self.next_mark += 1;
        self.disk.note(Note::Sent(mark));
        self.expected.apply(&Note::Sent(mark));
        match journal.append(PARTITION, tenure.end, &frame(tenure.epoch, mark, size)) {
            Ok(end) => {
                self.note(Note::Acknowledged(mark, tenure.end));
                self.tenure = Some(Tenure { end, ..tenure });
            }
            Err(AppendError::Unknown(_)) => {
                let again = frame(tenure.epoch, mark, size);
                let again = journal.append(PARTITION, tenure.end, &again);
                assert!(matches!(again, Err(AppendError::Unknown(_))), "poisoned until acquired");
                self.tenure = None;
            }
            Err(AppendError::Fenced) => panic!("nobody else is there"),
        }
    }

    /// Opens and acquires if need be, then appends: nothing stands in the way any more.
    pub fn go_on(&mut self) {
        if self.journal.is_none() {
            self.journal = Some(Arc::new(open(&self.disk).unwrap()));
        }
        if self.tenure.is_none() {
            self.acquire();
        }
        for size in [10, 1_000, 3_000] {
            self.append(size);
            assert!(self.tenure.is_some(), "appends go on");
        }
    }

    pub fn has_tenure(&self) -> bool {
        self.tenure.is_some()
    }

    fn truncate(&mut self) {
        let Some(journal) = self.journal.clone() else { return };
        let choice = self.random.below(self.expected.certain.len() as u64);
        let Some((at, _)) = self.expected.certain.get(usize::try_from(choice).unwrap()) else {
            return;
        };
        let below = *at;
        self.disk.note(Note::Truncating(below));
        self.expected.apply(&Note::Truncating(below));
        match journal.truncate(PARTITION, below) {
            Ok(()) | Err(JournalError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn note(&mut self, note: Note) {
        self.expected.apply(&note);
        self.disk.note(note);
    }
}

/// What a power cut left, and what must be in it.
#[derive(Debug)]
pub struct Cut {
    pub image: Image,
    pub expected: Expected,
    step: usize,
    left: Left,
}

/// Builds the images of a power cut after every step of `trace` and hands them on, with what they
/// must hold.
pub fn every_cut(
    start: &Image,
    trace: &[Step<Note>],
    mut expected: Expected,
    random: &mut Random,
    check: &mut dyn FnMut(&Cut, &mut Random),
) {
    let mut device = Device::new(start);
    for (step, index) in trace.iter().zip(0..) {
        device.apply(step, random);
        if let Step::Note(note) = step {
            expected.apply(note);
            continue;
        }
        for left in [Left::Nothing, Left::All, Left::NamesOnly, Left::WritesOnly, Left::Mixed] {
            let image = device.cut(left, random);
            let cut = Cut { image, expected: expected.clone(), step: index, left };
            let checked = catch_unwind(AssertUnwindSafe(|| check(&cut, random)));
            if let Err(panic) = checked {
                eprintln!("power cut after step {} with {:?} left", cut.step, cut.left);
                resume_unwind(panic);
            }
        }
    }
}

/// A new life on an image: it acquires, finds what it must, and goes on. Returns its trace.
pub fn live_on(cut: &Cut, random: &mut Random, next_mark: Mark) -> Vec<Step<Note>> {
    let disk = Disk::new(&cut.image, random.next());
    let life_random = Random::new(random.next());
    let mut life = Life::new(disk.clone(), life_random, cut.expected.clone(), next_mark);
    life.journal = Some(Arc::new(open(&disk).unwrap()));
    life.acquire();
    assert!(life.tenure.is_some(), "every image is recovered");
    for size in [random.below(300), 700, 1_500] {
        life.append(size);
        assert!(life.tenure.is_some(), "appends go on");
    }
    life.acquire();
    assert_eq!(life.expected.certain.last().unwrap().1, next_mark + 2);
    drop(life);
    disk.take_trace()
}

/// Lets `fault` happen in a life of `steps` steps, and makes sure that it goes on afterwards.
/// Returns the trace, and whether the fault was met.
pub fn life_with_fault(seed: u64, steps: u64, fault: Option<Fault>) -> (Vec<Step<Note>>, bool) {
    let disk = Disk::new(&Image::default(), seed);
    let mut life = Life::new(disk.clone(), Random::new(seed), Expected::default(), 1);
    if let Some(fault) = fault {
        disk.fail(fault);
    }
    for _ in 0..steps {
        life.step();
    }
    let hit = disk.faults_hit() > 0;
    disk.fail(Fault { after: 0, lasting: 0 });
    life.go_on();
    drop(life);
    (disk.take_trace(), hit)
}
