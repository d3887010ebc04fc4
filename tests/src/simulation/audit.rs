//! What must hold between two steps.

use std::collections::{BTreeMap, BTreeSet};

use engine::calendar::{Clock, Timestamp};
use engine::decide::{LimitKey, LimitedPlace, Places};
use engine::ids::TransactionId;
use engine::ledger::{Entry, Ledger};
use engine::recovery::Recovered;

use crate::simulation::book::{Book, Fate};
use crate::simulation::node::Disk;
use crate::simulation::story::Story;

/// The engine keeps what is settled this much longer than it could be open.
const SWEEP_SLACK_SECONDS: i64 = 3_600;

impl Story {
    /// The log, the ledger, the registry, and what recovery would make of the disk.
    pub(crate) fn audit(&mut self) {
        self.note(|| "audit".to_owned());
        self.audit_log();
        self.audit_ledger();
        self.town.assert_is(&self.node.partition.registry());
        if !self.node.clerk().is_unresolved() {
            self.audit_trips(&self.node.clerk().book().read().unwrap());
        }
        self.audit_recovery();
    }

    /// What was acknowledged is in the log, and nothing is there twice.
    fn audit_log(&self) {
        let ttl = self.settings.checked_ttl_seconds;
        let log = Book::of_log(&self.disk.journal.events(), ttl);
        for (id, amounts) in &self.confirmed {
            let fate = log.lines.get(id).map(|line| line.fate);
            assert_eq!(fate, Some(Fate::Confirmed(*amounts)), "{id} was acknowledged");
        }
        for id in &self.cancelled {
            let fate = log.lines.get(id).map(|line| line.fate);
            assert_eq!(fate, Some(Fate::Cancelled), "the cancel of {id} was acknowledged");
        }
        assert!(log.lines.keys().all(|id| self.ids.contains(id)), "the log has what nobody asked");
    }

    /// The ledger of the engine is the book of the model.
    pub(crate) fn audit_ledger(&self) {
        let ledger = self.node.partition.ledger();
        let mut count = 0;
        ledger.for_each_entry(|id, entry| {
            count += 1;
            let line = self.book.lines.get(&id);
            let line = line.unwrap_or_else(|| panic!("{entry:?} comes from nowhere"));
            match entry {
                Entry::Open(facts) => {
                    assert_eq!((line.fate, line.facts), (Fate::Open, Some(*facts)));
                }
                Entry::Confirmed(first, _) => {
                    let fate = Fate::Confirmed(first.amounts);
                    assert_eq!((line.fate, line.facts), (fate, Some(first.transaction)));
                    assert_eq!(line.touched_at, first.confirmed_at);
                }
                Entry::Cancelled(first, _) => {
                    assert_eq!(line.fate, Fate::Cancelled, "{id}");
                    assert_eq!(line.organization, first.organization);
                    assert_eq!(line.touched_at, first.cancelled_at);
                }
            }
        });
        assert_eq!(ledger.transaction_count(), count);
        for (id, line) in &self.book.lines {
            assert!(
                ledger.with_entry(*id, |_| ()).is_some() || self.is_swept(line.touched_at),
                "{id} is missing: {line:?}"
            );
        }
        let now = self.clock.now();
        for key in self.book.keys().into_iter().filter(|key| !self.is_key_swept(key)) {
            let has_free = |count| ledger.has_free(&LimitedPlace { key, count }, now);
            let taken = (0..1_000).find(|taken| has_free(taken + 1)).unwrap();
            assert_eq!(usize::try_from(taken).unwrap(), self.book.taken(&key, now), "{key:?}");
        }
    }

    /// Recovery is the same each time, and the same from the beginning as from a snapshot.
    fn audit_recovery(&self) {
        let recovered = self.disk.recover(self.settings);
        let again = self.disk.recover(self.settings);
        let whole = Disk { journal: self.disk.journal.untruncated(), ..Disk::default() };
        let whole = whole.recover(self.settings);
        assert_eq!(entries(&recovered.ledger), entries(&again.ledger));
        assert_eq!(self.spent(&recovered.ledger), self.spent(&again.ledger));
        assert_eq!(recovered.last_import, again.last_import);
        // A snapshot also counts imports of which nothing reached the log.
        assert!(recovered.last_import >= whole.last_import);
        for other in [&again, &whole] {
            assert_eq!(numbers(&recovered), numbers(other));
            if self.unresolved.is_none() {
                self.town.assert_is(other.writer.registry());
            }
        }
        for one in [&recovered, &again, &whole] {
            self.audit_trips(&one.trips);
        }
        let mut tail = entries(&recovered.ledger);
        for (id, entry) in entries(&whole.ledger) {
            match tail.remove(&id) {
                Some(known) => assert_eq!(known, entry),
                None => assert!(self.is_swept(touched_at(&entry)), "{entry:?} is lost"),
            }
        }
        // A snapshot may hold checks whose opening never reached the log.
        assert!(tail.values().all(|entry| matches!(entry, Entry::Open(_))), "{tail:?}");
        assert_eq!(self.spent(&recovered.ledger), self.spent(&whole.ledger));
    }

    fn spent(&self, ledger: &Ledger) -> BTreeSet<(LimitKey, TransactionId)> {
        let mut spent = BTreeSet::new();
        ledger.for_each_spent(|key, id| {
            if !self.is_key_swept(key) {
                spent.insert((*key, id));
            }
        });
        spent
    }

    /// Whether a sweep may have forgotten what was touched then.
    fn is_swept(&self, touched_at: Timestamp) -> bool {
        let kept = self.settings.checked_ttl_seconds + SWEEP_SLACK_SECONDS;
        self.swept_at.is_some_and(|at| touched_at <= at.plus_seconds(-kept))
    }

    /// Whether a sweep may have forgotten the uses of this period.
    fn is_key_swept(&self, key: &LimitKey) -> bool {
        self.swept_at.is_some_and(|at| i64::from(key.period.last.0) <= at.unix_seconds() / 86_400)
    }
}

fn entries(ledger: &Ledger) -> BTreeMap<TransactionId, Entry> {
    let mut entries = BTreeMap::new();
    ledger.for_each_entry(|id, entry| {
        entries.insert(id, entry.clone());
    });
    entries
}

fn numbers(recovered: &Recovered) -> (u64, u64) {
    (recovered.writer.registry().id().0, recovered.ledger.reserved_through().0)
}

fn touched_at(entry: &Entry) -> Timestamp {
    match entry {
        Entry::Cancelled(cancellation, _) => cancellation.cancelled_at,
        Entry::Confirmed(confirmation, _) => confirmation.confirmed_at,
        Entry::Open(facts) => facts.checked_at,
    }
}
