//! Imports, snapshots, failures of the journal, lost workers and crashes.

use std::cell::Cell;
use std::rc::Rc;

use rand::Rng;

use engine::checkpoint::{self, Imported};
use engine::import::{ImportError, Recorded};
use engine::journal::Journal;
use engine::snapshot::{SnapshotError, SnapshotPart, SnapshotStore};

use crate::memory::TakingFault;
use crate::simulation::edit::shuffled;
use crate::simulation::node::{Node, PARTITION};
use crate::simulation::story::Story;
use crate::simulation::town::{Town, keys};

impl Story {
    pub(crate) fn import(&mut self) {
        let today = self.today();
        let next = self.town.edited(&mut self.random, today);
        self.import_town(next);
    }

    /// What `Engine::import` does; nothing else is imported while the end of an import is unknown.
    pub(crate) fn import_town(&mut self, next: Town) {
        if self.unresolved.is_some() {
            return;
        }
        let mut lines = self.town.lines_to(&next);
        let unchanged = next.lines().into_values().filter(|line| !lines.contains(line));
        let unchanged: Vec<String> = unchanged.filter(|_| self.random.random_bool(0.2)).collect();
        let changes = lines.len();
        lines.extend(unchanged);
        let file = shuffled(&mut self.random, lines).join("\n");
        let prepared = self.node.registrar().prepare(&mut file.as_bytes(), &keys()).unwrap();
        assert_eq!(prepared.changes, u64::try_from(changes).unwrap(), "{file}");
        if changes == 0 {
            return;
        }
        let revision = self.node.registrar().next_revision();
        let (registrar, mut append) = self.node.import();
        let recorded = registrar.record(prepared, &mut append);
        drop(append);
        self.note(|| format!("import of {changes} changes: {recorded:?}"));
        match recorded {
            Recorded::Abandoned => {}
            Recorded::Committed => {
                self.town = next;
                self.node.publish();
            }
            Recorded::Unknown => self.unresolved = Some((next, revision)),
        }
        if recorded != Recorded::Committed && !self.has_failed {
            self.failed();
        }
        self.town.assert_is(&self.node.partition.registry());
    }

    /// A file with a wrong line changes nothing.
    pub(crate) fn import_wrongly(&mut self) {
        let today = self.today();
        let next = self.town.edited(&mut self.random, today);
        let mut lines = shuffled(&mut self.random, self.town.lines_to(&next));
        let at = self.random.random_range(0..=lines.len());
        lines.insert(at, next.broken_line(&mut self.random));
        let file = lines.join("\n");
        let refused = self.node.registrar().prepare(&mut file.as_bytes(), &keys());
        match refused {
            Err(ImportError::Rejected(_)) => assert!(self.unresolved.is_none()),
            Err(ImportError::Unavailable) => assert!(self.unresolved.is_some()),
            _ => panic!("this was accepted:\n{file}"),
        }
        if self.unresolved.is_none() {
            self.town.assert_is(self.node.registrar().registry());
        }
        self.town.assert_is(&self.node.partition.registry());
    }

    /// The end of an import that was unknown is read from the log.
    fn resolve_import(&mut self) {
        if self.unresolved.is_none() {
            return;
        }
        let recovered = self.disk.recover(self.settings);
        let (registrar, append) = self.node.import();
        registrar.resume(recovered.writer, recovered.blocks, recovered.last_import);
        drop(append);
        self.node.publish();
        self.settle_import();
        self.town.assert_is(&self.node.partition.registry());
    }

    /// The registry that was recovered tells whether an import took effect.
    fn settle_import(&mut self) {
        if let Some((next, revision)) = self.unresolved.take()
            && self.node.partition.registry().id() == revision
        {
            self.town = next;
        }
    }

    /// What the committer does after a failure.
    pub(crate) fn recover(&mut self) {
        if !self.has_failed {
            return;
        }
        self.refuse_flights();
        let faults = [TakingFault::Acquire, TakingFault::Read, TakingFault::ReadInPart];
        if let Some(fault) = faults.get(self.random.random_range(0..6)) {
            self.note(|| format!("recover, but {fault:?} fails"));
            self.disk.journal.plan_taking_fault(*fault);
            assert!(!self.node.recover());
            return;
        }
        self.note(|| "recover".to_owned());
        assert!(self.node.recover());
        self.has_failed = false;
        self.reread(true);
        self.resolve_import();
        self.audit_ledger();
    }

    /// A worker dies before its batch reaches the committer, and the supervisor takes the shard out of
    /// service.
    pub(crate) fn lose_worker(&mut self) {
        if self.has_failed || self.retired.is_some() {
            return;
        }
        let shard = self.random.random_range(0..self.mailboxes.len());
        let batches = self.flights.len();
        self.drain_shard(shard);
        let lost = self.flights.split_off(batches);
        self.note(|| format!("shard {shard} dies with {} batches in hand", lost.len()));
        self.retired = Some(self.node.retire(shard));
        for pending in std::mem::take(&mut self.mailboxes[shard]) {
            assert!(pending.heard().is_some_and(|heard| heard.is_unavailable()));
        }
        for flight in lost {
            self.node.partition.end([flight.submission], false);
        }
    }

    /// The supervisor's next step with the shard that is out of service.
    pub(crate) fn rebuild(&mut self) {
        let Some(mut retired) = self.retired.take() else { return };
        let shard = retired.shard;
        if retired.read.is_none() {
            self.note(|| format!("what shard {shard} is brought back to is read"));
            if self.commit_all() {
                self.node.read(&mut retired);
            }
            self.retired = Some(retired);
            return;
        }
        self.node.restore(&retired);
        self.note(|| format!("shard {shard} is brought back"));
        if self.commit_all() {
            self.reread(true);
            self.audit_ledger();
        } else {
            // Memory and model differ until all shards are brought back.
            while self.has_failed {
                self.recover();
            }
        }
    }

    /// Whether a shard was taken out of service.
    pub(crate) fn is_retired(&self, shard: usize) -> bool {
        self.retired.as_ref().is_some_and(|retired| retired.shard == shard)
    }

    /// Writes a snapshot while everything goes on.
    pub(crate) fn snapshot(&mut self) {
        if self.unresolved.is_some() || self.has_failed || self.node.clerk().is_unresolved() {
            return;
        }
        self.note(|| "a snapshot begins".to_owned());
        let partition = self.node.partition.clone();
        let replay_from = partition.durable();
        let imported = Imported {
            registry: partition.registry_full(),
            blocks: self.node.registrar().blocks().clone(),
            last_import: self.node.registrar().last_import(),
        };
        let book = self.node.clerk().book().clone();
        let is_sealed = Rc::new(Cell::new(false));
        let seal = {
            let is_sealed = is_sealed.clone();
            move || {
                is_sealed.set(true);
                Ok(())
            }
        };
        let parts = Box::new(checkpoint::parts(partition, imported, book, seal));
        let snapshots = self.disk.snapshots.clone();
        let mut parts = Interleaved { story: self, parts, is_sealed };
        let put = snapshots.put(PARTITION, replay_from, &mut parts);
        drop(parts);
        self.note(|| format!("the snapshot ends with {put:?}"));
        let list = snapshots.list(PARTITION).unwrap();
        if let (Ok(_), Some(previous)) = (put, list.get(1)) {
            self.disk.journal.truncate(PARTITION, previous.replay_from).unwrap();
        }
        self.damaged.retain(|generation| list.iter().any(|info| info.generation.0 == *generation));
    }

    /// The newest snapshot is damaged, unless another one already is.
    pub(crate) fn damage_snapshot(&mut self) {
        let newest = self.disk.snapshots.list(PARTITION).unwrap().first().copied();
        if let Some(newest) = newest.filter(|_| self.damaged.is_empty()) {
            self.note(|| "the newest snapshot is damaged".to_owned());
            self.disk.snapshots.damage_newest();
            self.damaged.insert(newest.generation.0);
        }
    }

    /// The power goes: only the disk stays.
    pub(crate) fn crash(&mut self) {
        self.note(|| "crash".to_owned());
        self.flights.clear();
        self.mailboxes.iter_mut().for_each(|waiting| waiting.clear());
        let start = |story: &Story| Node::start(&story.disk, story.clock.clone(), story.settings);
        self.node = (0..100).find_map(|_| start(self)).unwrap();
        self.has_failed = false;
        self.retired = None;
        self.reread(false);
        self.settle_import();
        self.audit();
    }
}

/// The parts of a snapshot, with steps of everybody else between them.
struct Interleaved<'a> {
    story: &'a mut Story,
    parts: Box<dyn Iterator<Item = Result<SnapshotPart, SnapshotError>>>,
    is_sealed: Rc<Cell<bool>>,
}

impl Iterator for Interleaved<'_> {
    type Item = Result<SnapshotPart, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        for _ in 0..self.story.random.random_range(0..4) {
            self.story.small_step();
        }
        if self.story.random.random_bool(0.02) {
            return Some(Err(SnapshotError::Abandoned("by chance")));
        }
        let part = self.parts.next();
        let seals = part.is_none() && self.is_sealed.take();
        if seals && !self.story.commit_all() {
            return Some(Err(SnapshotError::Abandoned("the journal failed meanwhile")));
        }
        part
    }
}
