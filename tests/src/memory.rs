//! The ports of the engine in memory, failing where a seed says so.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::calendar::{Clock, Timestamp};
use engine::history::{Freshness, History, HistoryError, HistoryPage, Page, Settled, Span};
use engine::ids::{HolderId, OrganizationId, PartitionId, TransactionId};
use engine::journal::{
    AppendError, Epoch, Frame, Frames, Journal, JournalError, Position, StoredFrame, Tenure,
};
use engine::record::Record;
use engine::snapshot::{
    Generation, SnapshotError, SnapshotInfo, SnapshotPart, SnapshotParts, SnapshotStore,
};
use engine::transaction::{Confirmation, Event};

/// A clock that moves only when told to.
#[derive(Default)]
pub struct HandClock {
    now: AtomicI64,
    interruption: Mutex<Option<(u32, Interruption)>>,
}

type Interruption = Box<dyn FnOnce() + Send>;

impl HandClock {
    /// A clock that stands at `now`.
    pub fn at(now: &str) -> Arc<HandClock> {
        let clock = HandClock::default();
        clock.set(Timestamp::parse(now).unwrap());
        Arc::new(clock)
    }

    /// Sets it.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Lets `act` happen while somebody asks for the time, for the `nth` time from now.
    pub fn interrupt(&self, nth: u32, act: impl FnOnce() + Send + 'static) {
        *self.interruption.lock().unwrap() = Some((nth, Box::new(act)));
    }

    /// Moves it.
    pub fn pass_seconds(&self, seconds: i64) {
        self.set(self.now().plus_seconds(seconds));
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let due = self.interruption.lock().unwrap().take_if(|(left, _)| {
            *left -= 1;
            *left == 0
        });
        if let Some((_, act)) = due {
            act();
        }
        Timestamp(self.now.load(Ordering::SeqCst))
    }
}

/// How an append goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendFault {
    /// The frame is in the log, but the caller is not told so.
    Kept,
    /// The frame is not in the log.
    Lost,
}

/// How taking a log again goes wrong, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TakingFault {
    /// Nobody may take it.
    Acquire,
    /// Nothing can be read.
    Read,
    /// Reading ends with an error in the middle.
    ReadInPart,
}

#[derive(Default)]
struct Log {
    frames: Vec<StoredFrame>,
    /// Every frame that was ever in the log, for the history and for counting.
    all: Vec<Frame>,
    end: u64,
    truncated_below: u64,
    epoch: u64,
    poisoned: bool,
    faults: VecDeque<Option<AppendFault>>,
    taking_fault: Option<TakingFault>,
    append_time: Duration,
}

/// A log in memory. Cloning shares it.
#[derive(Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Log>>);

impl MemoryJournal {
    /// Says how the next appends go.
    pub fn plan_faults(&self, faults: impl IntoIterator<Item = Option<AppendFault>>) {
        self.0.lock().unwrap().faults.extend(faults);
    }

    /// Says how the next taking goes wrong.
    pub fn plan_taking_fault(&self, fault: TakingFault) {
        self.0.lock().unwrap().taking_fault = Some(fault);
    }

    /// Lets every append take so long from now on.
    pub fn slow_down(&self, append_time: Duration) {
        self.0.lock().unwrap().append_time = append_time;
    }

    /// Every event that ever became part of the log, in order.
    pub fn events(&self) -> Vec<Event> {
        let log = self.0.lock().unwrap();
        let records = log.all.iter().flat_map(Frame::records);
        let events = records.filter_map(|record| match Record::read(record).unwrap() {
            Record::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// The same log, copied, as if it had never been truncated.
    pub fn untruncated(&self) -> MemoryJournal {
        let log = self.0.lock().unwrap();
        let mut whole = Log { all: log.all.clone(), epoch: log.epoch, ..Log::default() };
        for frame in &log.all {
            let next = whole.end + u64::from(frame.record_count());
            let (at, end) = (Position::from_stored(whole.end), Position::from_stored(next));
            whole.frames.push(StoredFrame { at, next: end, frame: frame.clone() });
            whole.end = next;
        }
        assert_eq!(whole.end, log.end);
        MemoryJournal(Arc::new(Mutex::new(whole)))
    }

    /// How many frames the log holds.
    pub fn frame_count(&self) -> usize {
        self.0.lock().unwrap().frames.len()
    }
}

impl Journal for MemoryJournal {
    fn acquire(&self, _: PartitionId) -> Result<Tenure, JournalError> {
        let mut log = self.0.lock().unwrap();
        if log.taking_fault.take_if(|fault| *fault == TakingFault::Acquire).is_some() {
            return Err(planned_fault());
        }
        log.epoch += 1;
        log.poisoned = false;
        Ok(Tenure { epoch: Epoch(log.epoch), end: Position::from_stored(log.end) })
    }

    fn append(
        &self,
        _: PartitionId,
        expected: Position,
        frame: &Frame,
    ) -> Result<Position, AppendError> {
        let append_time = self.0.lock().unwrap().append_time;
        std::thread::sleep(append_time);
        let mut log = self.0.lock().unwrap();
        if log.poisoned || frame.epoch().0 != log.epoch || expected.stored() != log.end {
            return Err(AppendError::Fenced);
        }
        let fault = log.faults.pop_front().flatten();
        if fault != Some(AppendFault::Lost) {
            let next = log.end + u64::from(frame.record_count());
            let frame = Frame::decode(frame.bytes().to_vec()).unwrap();
            let (at, end) = (Position::from_stored(log.end), Position::from_stored(next));
            log.all.push(frame.clone());
            log.frames.push(StoredFrame { at, next: end, frame });
            log.end = next;
        }
        if fault.is_some() {
            log.poisoned = true;
            return Err(AppendError::Unknown(io::Error::other("a planned fault")));
        }
        Ok(Position::from_stored(log.end))
    }

    fn read(&self, _: PartitionId, from: Position) -> Result<Frames, JournalError> {
        let mut log = self.0.lock().unwrap();
        let fault = log.taking_fault.take();
        if fault == Some(TakingFault::Read) {
            return Err(planned_fault());
        }
        if from.stored() < log.truncated_below {
            return Err(JournalError::Truncated { wanted: from });
        }
        let mut frames: Vec<_> =
            log.frames.iter().filter(|stored| stored.at >= from).cloned().map(Ok).collect();
        if fault == Some(TakingFault::ReadInPart) {
            frames.truncate(frames.len() / 2);
            frames.push(Err(planned_fault()));
        }
        Ok(Box::new(frames.into_iter()))
    }

    fn truncate(&self, _: PartitionId, below: Position) -> Result<(), JournalError> {
        let mut log = self.0.lock().unwrap();
        log.frames.retain(|stored| stored.at >= below);
        log.truncated_below = log.truncated_below.max(below.stored());
        Ok(())
    }
}

fn planned_fault() -> JournalError {
    JournalError::Io(io::Error::other("a planned fault"))
}

/// Snapshots in memory. Cloning shares them.
#[derive(Clone, Default)]
pub struct MemorySnapshots(Arc<Mutex<Generations>>);

type Generations = BTreeMap<u64, (SnapshotInfo, Vec<SnapshotPart>)>;

impl MemorySnapshots {
    /// Damages the newest one, so that recovery needs the one before.
    pub fn damage_newest(&self) {
        let mut snapshots = self.0.lock().unwrap();
        let Some(mut newest) = snapshots.last_entry() else { return };
        let parts = &mut newest.get_mut().1;
        let at = parts.len() / 2;
        parts[at].bytes = vec![0xff; 9];
    }
}

impl SnapshotStore for MemorySnapshots {
    fn put(
        &self,
        _: PartitionId,
        replay_from: Position,
        parts: &mut dyn Iterator<Item = Result<SnapshotPart, SnapshotError>>,
    ) -> Result<SnapshotInfo, SnapshotError> {
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let mut snapshots = self.0.lock().unwrap();
        let generation = snapshots.keys().last().map_or(1, |last| last + 1);
        let info = SnapshotInfo { generation: Generation(generation), replay_from };
        snapshots.insert(generation, (info, parts));
        while snapshots.len() > 2 {
            snapshots.pop_first();
        }
        Ok(info)
    }

    fn list(&self, _: PartitionId) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        Ok(self.0.lock().unwrap().values().rev().map(|(info, _)| *info).collect())
    }

    fn read(&self, _: PartitionId, generation: Generation) -> Result<SnapshotParts, SnapshotError> {
        let snapshots = self.0.lock().unwrap();
        let parts = snapshots.get(&generation.0).map(|(_, parts)| parts.clone());
        let parts = parts.ok_or_else(|| SnapshotError::Damaged("no such generation".to_owned()))?;
        Ok(Box::new(parts.into_iter().map(Ok)))
    }

    /// No snapshot takes longer than its parts.
    fn stop(&self) {}
}

/// A history that reads the whole log for every question.
pub struct MemoryHistory(pub MemoryJournal);

impl MemoryHistory {
    fn page(&self, wanted: impl Fn(&Confirmation) -> bool, span: Span, page: Page) -> HistoryPage {
        let mut items: Vec<Confirmation> = self
            .0
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Confirmed(confirmation) => Some(confirmation),
                _ => None,
            })
            .filter(|item| wanted(item) && span.from <= item.confirmed_at)
            .filter(|item| item.confirmed_at < span.until)
            .collect();
        items.sort_by_key(|item| std::cmp::Reverse((item.confirmed_at, item.transaction.id)));
        let total = items.len().try_into().unwrap();
        let skipped = usize::try_from(page.index * u64::from(page.size)).unwrap();
        let items = items.into_iter().skip(skipped).take(page.size.try_into().unwrap()).collect();
        HistoryPage { items, total }
    }
}

impl History for MemoryHistory {
    fn of_holder(
        &self,
        holder: HolderId,
        span: Span,
        page: Page,
        _: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        Ok(self.page(|item| item.transaction.holder == holder, span, page))
    }

    fn of_organization(
        &self,
        organization: OrganizationId,
        span: Span,
        page: Page,
        _: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        Ok(self.page(|item| item.transaction.organization == organization, span, page))
    }

    fn settled(
        &self,
        transaction: TransactionId,
        _: Freshness,
    ) -> Result<Option<Settled>, HistoryError> {
        Ok(self.0.events().into_iter().find_map(|event| match event {
            Event::Confirmed(first) if first.transaction.id == transaction => {
                Some(Settled::Confirmed(first))
            }
            Event::Cancelled(first) if first.transaction == transaction => {
                Some(Settled::Cancelled(first))
            }
            _ => None,
        }))
    }

    fn follow(&self, _: Position) {}

    fn kept(&self) -> Position {
        Position::from_stored(u64::MAX)
    }
}
