//! The ledger: every transaction that can still be settled or repeated, and the places that limited
//! services have left.
//!
//! Checks open transactions here from any thread; a shard settles those of its holders. State
//! changes only in [`Ledger::apply`], live and in recovery; applying an event twice, or over a state
//! that already holds it, changes nothing (invariant 6).
//!
//! # Why
//! A check must not wait for a mailbox, so the ledger is shared: tables whose locks are held for one
//! lookup and never across work. Time to live is judged from `checked_at` whenever a
//! transaction is looked at; [`Ledger::sweep`] only gives memory back.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use dashmap::DashMap;
use foldhash::fast::FixedState;

use crate::calendar::{Timestamp, UtcOffset};
use crate::command::Check;
use crate::decide::{Benefit, LimitKey, LimitedPlace, Places};
use crate::ids::{HolderId, ShardId, TransactionId};
use crate::limits::{OPENINGS_WAITING_MAX, TRANSACTION_IDS_BLOCK};
use crate::table::Table;
use crate::transaction::{Cancellation, Confirmation, Event, Transaction};

/// So many parts that growing one of them holds nobody up.
const MAP_PARTS: usize = 1_024;
/// A settled transaction stays in memory this much longer than an open one could, so that a late
/// repeat of a replayed event finds it.
const SWEEP_SLACK_SECONDS: i64 = 3_600;
/// Before every check.
const NEVER: Timestamp = Timestamp(i64::MIN);
/// No place on earth is further from UTC.
const WESTERNMOST: UtcOffset = UtcOffset(-14 * 3_600);

/// The batch of a shard that carries an event; it is durable once the shard's durable batch has
/// reached it. Number zero, as everything recovered has, is durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BatchMark {
    /// Whose batch.
    pub shard: ShardId,
    /// Which.
    pub number: u64,
    /// Whether the event is the first that anybody knows of its transaction: where it does not become
    /// durable, nothing is left of the transaction.
    pub is_first: bool,
}

/// What the ledger holds of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// The holder refused; the holder is forgotten.
    Cancelled(Cancellation, BatchMark),
    /// The service was delivered.
    Confirmed(Box<Confirmation>, BatchMark),
    /// Neither yet.
    Open(Transaction),
}

/// How the ledger is sized.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerSettings {
    /// Seconds between a check and the last moment of its confirm.
    pub checked_ttl_seconds: i64,
    /// Transactions kept in memory.
    pub transactions_max: usize,
    /// Among how many shards holders are divided.
    pub shard_count: u16,
}

/// All transactions and limited places of a partition.
pub struct Ledger {
    settings: LedgerSettings,
    transactions: Table,
    places: DashMap<LimitKey, Uses, FixedState>,
    next_id: AtomicU64,
    reserved_through: AtomicU64,
    openings: ArrayQueue<Transaction>,
    openings_dropped: AtomicU64,
    undoings: AtomicU64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(settings: LedgerSettings) -> Ledger {
        Ledger {
            settings,
            transactions: Table::new(),
            places: DashMap::with_hasher_and_shard_amount(FixedState::default(), MAP_PARTS),
            next_id: AtomicU64::new(1),
            reserved_through: AtomicU64::new(0),
            openings: ArrayQueue::new(OPENINGS_WAITING_MAX),
            openings_dropped: AtomicU64::new(0),
            undoings: AtomicU64::new(0),
        }
    }

    /// The facts of a transaction for a benefit, with a fresh id and, where uses are limited, with a
    /// place held.
    pub fn claim(
        &self,
        benefit: &Benefit,
        check: &Check,
        now: Timestamp,
    ) -> Result<Transaction, OpenError> {
        let transaction = Transaction {
            id: self.take_id()?,
            organization: check.organization,
            terminal: check.terminal,
            service: check.service,
            category: benefit.category,
            holder: benefit.holder,
            checked_at: now,
            discount_percent: Some(benefit.discount_percent),
            limit_period: benefit.limit.map(|place| place.key.period),
        };
        match &benefit.limit {
            Some(place) if !self.hold(place, &transaction, now) => Err(OpenError::PlaceTaken),
            _ => Ok(transaction),
        }
    }

    /// Opens a claimed transaction; its opening is journaled with one of the next frames.
    pub fn open(&self, transaction: &Transaction) {
        self.apply_opened(transaction);
        if self.openings.push(*transaction).is_err() {
            self.openings_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A fresh transaction id; none while the next block of ids is not durable yet.
    fn take_id(&self) -> Result<TransactionId, OpenError> {
        if self.transactions.count() >= self.settings.transactions_max {
            return Err(OpenError::Full);
        }
        let reserved_through = self.reserved_through.load(Ordering::Acquire);
        if self.next_id.load(Ordering::Relaxed) > reserved_through {
            return Err(OpenError::NoId);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if id > reserved_through {
            return Err(OpenError::NoId);
        }
        Ok(TransactionId(id))
    }

    /// Applies a change; the only way in which transactions change.
    pub fn apply(&self, event: &Event, mark: BatchMark) {
        match event {
            Event::Opened(transaction) => self.apply_opened(transaction),
            Event::Confirmed(confirmation) => self.apply_confirmed(confirmation, mark),
            Event::Cancelled(cancellation) => self.apply_cancelled(cancellation, mark),
        }
    }

    fn apply_opened(&self, transaction: &Transaction) {
        let is_new = self.transactions.with_slot(transaction.id, |slot| {
            let is_new = slot.is_none();
            if is_new {
                *slot = Some(Entry::Open(*transaction));
            }
            is_new
        });
        if let Some(key) = limit_key(transaction).filter(|_| is_new) {
            self.places.entry(key).or_default().hold(transaction.id, transaction.checked_at);
        }
    }

    fn apply_confirmed(&self, confirmation: &Confirmation, mark: BatchMark) {
        let transaction = &confirmation.transaction;
        let is_new = self.transactions.with_slot(transaction.id, |slot| {
            let is_new = matches!(slot, None | Some(Entry::Open(_)));
            if is_new {
                *slot = Some(Entry::Confirmed(Box::new(*confirmation), mark));
            }
            is_new
        });
        if let Some(key) = limit_key(transaction).filter(|_| is_new) {
            self.places.entry(key).or_default().spend(transaction.id, transaction.checked_at);
        }
    }

    fn apply_cancelled(&self, cancellation: &Cancellation, mark: BatchMark) {
        let id = cancellation.transaction;
        let opened = self.transactions.with_slot(id, |slot| {
            let opened = match slot {
                None => None,
                Some(Entry::Open(opened)) => Some(*opened),
                Some(Entry::Confirmed(..) | Entry::Cancelled(..)) => return None,
            };
            *slot = Some(Entry::Cancelled(*cancellation, mark));
            opened
        });
        let key = opened.as_ref().and_then(limit_key);
        if let Some(mut uses) = key.and_then(|key| self.places.get_mut(&key)) {
            uses.release(id);
        }
    }

    /// Lets ids up to `through` be given out; called once that is durable.
    pub fn reserve_ids(&self, through: TransactionId) {
        self.reserved_through.fetch_max(through.0, Ordering::Release);
    }

    /// After recovery: no id that was ever reserved is given out again.
    pub fn skip_reserved_ids(&self) {
        let reserved = self.reserved_through.load(Ordering::Acquire);
        self.next_id.fetch_max(reserved.saturating_add(1), Ordering::AcqRel);
    }

    /// The reservation that is due, if one is.
    pub fn reservation_due(&self) -> Option<TransactionId> {
        let reserved = self.reserved_through.load(Ordering::Acquire);
        let next = self.next_id.load(Ordering::Relaxed);
        let left = reserved.saturating_add(1).saturating_sub(next);
        (left <= TRANSACTION_IDS_BLOCK / 2)
            .then_some(TransactionId(reserved.saturating_add(TRANSACTION_IDS_BLOCK)))
    }

    /// Forgets transactions and places whose time is over.
    pub fn sweep(&self, now: Timestamp) {
        let horizon = self.horizon(now);
        self.transactions.retain(|_, entry| entry.touched_at() > horizon);
        // The segment that ids are taken from now is not full yet and stays.
        self.transactions.drop_empty_below(TransactionId(self.next_id.load(Ordering::Relaxed)));
        let oldest_day = horizon.local_day(WESTERNMOST);
        self.places.retain(|key, _| key.period.last >= oldest_day);
    }

    /// Takes what was recovered for one shard in place of what its failed actor left. Open
    /// transactions that only memory knew stay open; settlements that never became durable are
    /// undone. Of a cancel that is undone no more than the log has comes back, because it has forgotten
    /// the holder.
    pub fn replace_shard(&self, shard: ShardId, recovered: &Ledger) {
        self.undoings.fetch_add(1, Ordering::AcqRel);
        let shard_count = self.settings.shard_count;
        let mine = |holder| shard_of(holder, shard_count) == shard;
        // Each in its place: nobody may miss, even for a moment, what is settled.
        self.transactions.revise(|id, entry| match entry {
            Entry::Open(opened) if mine(opened.holder) => {
                recovered.entry(id).or(Some(Entry::Open(opened)))
            }
            Entry::Confirmed(confirmation, mark) if mine(confirmation.transaction.holder) => {
                let opened = Entry::Open(confirmation.transaction);
                recovered.entry(id).or_else(|| (!mark.is_first).then_some(opened))
            }
            Entry::Cancelled(_, mark) if mark.number != 0 && mark.shard == shard => {
                recovered.entry(id)
            }
            _ => Some(entry),
        });
        self.places.retain(|key, _| !mine(key.holder));
        recovered.transactions.for_each(|_, entry| match entry {
            Entry::Open(opened) if mine(opened.holder) => self.apply_opened(opened),
            Entry::Confirmed(confirmation, mark) if mine(confirmation.transaction.holder) => {
                self.apply_confirmed(confirmation, *mark);
            }
            Entry::Cancelled(cancellation, mark) => self.apply_cancelled(cancellation, *mark),
            Entry::Open(_) | Entry::Confirmed(..) => {}
        });
        for entry in recovered.places.iter().filter(|entry| mine(entry.key().holder)) {
            let mut uses = self.places.entry(*entry.key()).or_default();
            entry.value().spent.iter().for_each(|(id, checked_at)| uses.spend(*id, *checked_at));
        }
        self.transactions.for_each(|_, entry| {
            if let Entry::Open(opened) = entry
                && mine(opened.holder)
                && let Some(key) = limit_key(opened)
            {
                self.places.entry(key).or_default().hold(opened.id, opened.checked_at);
            }
        });
        self.undoings.fetch_add(1, Ordering::AcqRel);
    }

    /// Lets the openings go of which nothing is known any more: their cancels were undone, and whoever
    /// asks again is told that there is no such transaction, after the next restart as well.
    pub fn drop_undone_openings(&self) {
        for _ in 0..self.openings.len() {
            let Some(opening) = self.openings.pop() else { return };
            let is_known = self.with_entry(opening.id, |_| ()).is_some();
            if is_known && self.openings.push(opening).is_err() {
                self.openings_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Openings that are to be journaled, at most `count`.
    pub fn take_openings(&self, count: usize) -> impl Iterator<Item = Transaction> {
        std::iter::from_fn(|| self.openings.pop()).take(count)
    }

    /// Whether openings wait to be journaled.
    pub fn has_openings(&self) -> bool {
        !self.openings.is_empty()
    }

    /// What is known of a transaction.
    pub fn entry(&self, id: TransactionId) -> Option<Entry> {
        self.transactions.look(id, Entry::clone)
    }

    /// Looks at what is known of a transaction without copying it.
    pub fn with_entry<T>(&self, id: TransactionId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.transactions.look(id, look)
    }

    /// Whether this id was ever given out.
    pub fn was_given(&self, id: TransactionId) -> bool {
        id.0 < self.next_id.load(Ordering::Relaxed)
    }

    /// Whether the time to confirm a transaction is over at `now`, or was over when another check took
    /// its place.
    pub fn is_expired(&self, transaction: &Transaction, now: Timestamp) -> bool {
        let uses = limit_key(transaction).and_then(|key| self.places.get(&key));
        let now = uses.map_or(now, |uses| now.max(uses.latest()));
        transaction.checked_at.plus_seconds(self.settings.checked_ttl_seconds) <= now
    }

    /// The shard of a holder.
    pub fn shard(&self, holder: HolderId) -> ShardId {
        shard_of(holder, self.settings.shard_count)
    }

    /// Transactions in memory.
    pub fn transaction_count(&self) -> usize {
        self.transactions.count()
    }

    /// Transactions in memory that are neither confirmed nor cancelled.
    pub fn open_count(&self) -> usize {
        self.transactions.open_count()
    }

    /// Openings that were never journaled because too many waited.
    pub fn openings_dropped(&self) -> u64 {
        self.openings_dropped.load(Ordering::Relaxed)
    }

    /// Changes whenever something is undone. What was read before a change may never become durable.
    pub fn undoings(&self) -> u64 {
        self.undoings.load(Ordering::Acquire)
    }

    /// The last id that may be given out.
    pub fn reserved_through(&self) -> TransactionId {
        TransactionId(self.reserved_through.load(Ordering::Acquire))
    }

    /// Calls `visit` for every transaction.
    pub fn for_each_entry(&self, visit: impl FnMut(TransactionId, &Entry)) {
        self.transactions.for_each(visit);
    }

    /// Calls `visit` for every spent place; held ones follow from the open transactions.
    pub fn for_each_spent(&self, mut visit: impl FnMut(&LimitKey, TransactionId)) {
        for entry in &self.places {
            entry.value().spent.iter().for_each(|(id, _)| visit(entry.key(), *id));
        }
    }

    /// Puts a spent place back, from a snapshot. When it was checked is known as long as it matters:
    /// from the transaction, which is kept longer than any open one.
    pub fn restore_spent(&self, key: LimitKey, id: TransactionId) {
        self.places.entry(key).or_default().spend(id, NEVER);
    }

    fn hold(&self, place: &LimitedPlace, transaction: &Transaction, now: Timestamp) -> bool {
        let mut uses = self.places.entry(place.key).or_default();
        let free = uses.taken(now, self.settings.checked_ttl_seconds) < u64::from(place.count);
        if free {
            uses.forget(self.horizon(now));
            uses.hold(transaction.id, transaction.checked_at);
        }
        free
    }

    /// What was last touched then or earlier can be forgotten.
    fn horizon(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(-self.settings.checked_ttl_seconds - SWEEP_SLACK_SECONDS)
    }
}

impl Places for Ledger {
    fn has_free(&self, place: &LimitedPlace, now: Timestamp) -> bool {
        let ttl_seconds = self.settings.checked_ttl_seconds;
        let taken = self.places.get(&place.key).map_or(0, |uses| uses.taken(now, ttl_seconds));
        taken < u64::from(place.count)
    }
}

impl Entry {
    fn touched_at(&self) -> Timestamp {
        match self {
            Entry::Cancelled(cancellation, _) => cancellation.cancelled_at,
            Entry::Confirmed(confirmation, _) => confirmation.confirmed_at,
            Entry::Open(transaction) => transaction.checked_at,
        }
    }
}

/// Why no transaction was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// Memory holds as many transactions as it may.
    #[error("too many transactions")]
    Full,
    /// No id is reserved.
    #[error("no transaction id is reserved")]
    NoId,
    /// Another check took the last place meanwhile: decide again.
    #[error("the last place was taken meanwhile")]
    PlaceTaken,
}

/// The uses of one limit: transactions that spent a place, and those that hold one, each with the
/// instant of its check.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Uses {
    spent: Vec<(TransactionId, Timestamp)>,
    held: Vec<(TransactionId, Timestamp)>,
}

impl Uses {
    fn hold(&mut self, id: TransactionId, checked_at: Timestamp) {
        let known =
            |uses: &[(TransactionId, Timestamp)]| uses.iter().any(|(known, _)| *known == id);
        if !known(&self.spent) && !known(&self.held) {
            self.held.push((id, checked_at));
        }
    }

    fn spend(&mut self, id: TransactionId, checked_at: Timestamp) {
        self.release(id);
        match self.spent.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => *known = checked_at.max(*known),
            None => self.spent.push((id, checked_at)),
        }
    }

    fn release(&mut self, id: TransactionId) {
        self.held.retain(|(held, _)| *held != id);
    }

    /// Forgets checks from before `horizon`, which expired so long ago that no clock goes back there.
    fn forget(&mut self, horizon: Timestamp) {
        self.held.retain(|(_, checked_at)| *checked_at > horizon);
    }

    /// How late it is here at least: time does not run backwards past a check that took a place, or
    /// the clock could give a place back to the check that had lost it.
    fn latest(&self) -> Timestamp {
        let uses = self.spent.iter().chain(&self.held);
        uses.map(|(_, checked_at)| *checked_at).max().unwrap_or(NEVER)
    }

    fn taken(&self, now: Timestamp, ttl_seconds: i64) -> u64 {
        let now = now.max(self.latest());
        let live = |checked_at: Timestamp| checked_at.plus_seconds(ttl_seconds) > now;
        let held = self.held.iter().filter(|(_, checked_at)| live(*checked_at)).count();
        u64::try_from(self.spent.len().saturating_add(held)).unwrap_or(u64::MAX)
    }
}

fn limit_key(transaction: &Transaction) -> Option<LimitKey> {
    Some(LimitKey {
        holder: transaction.holder,
        service: transaction.service,
        category: transaction.category,
        period: transaction.limit_period?,
    })
}

/// Spreads holders evenly, whatever their ids look like.
fn shard_of(holder: HolderId, shard_count: u16) -> ShardId {
    let mixed = holder.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let shard = mixed % u64::from(shard_count.max(1));
    ShardId(u16::try_from(shard).unwrap_or_default())
}
