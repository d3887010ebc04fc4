//! The one writer of the registry: turns changes into the next revision, live and in recovery.
//!
//! A writer is a revision plus what only a writer needs (where each holder stands, which slots are
//! free). It works on a clone, so an import that turns out wrong is dropped without a trace.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::directory::{Directory, DirectoryItems};
use crate::holder::Holder;
use crate::ids::{HolderId, RevisionId};
use crate::registry::Registry;
use crate::registry::change::RegistryChange;
use crate::registry::fault::{LineError, LineFault};
use crate::registry::holders::{Extra, HolderView, Holders, Slot};
use crate::registry::index::{Index, Target};
use crate::registry::references::{apply_change, apply_directory};

/// A change and the line of the file that asks for it.
pub type LineChange = (u64, RegistryChange);

/// The next revision under construction.
#[derive(Clone, Default)]
pub struct RegistryWriter {
    registry: Registry,
    slots: HashTable<u32>,
    free: Vec<Slot>,
}

impl RegistryWriter {
    /// Applies changes of the directory; on error the writer is spoilt and must be dropped.
    /// Returns how many of them changed anything.
    pub fn apply_directory(&mut self, changes: &[LineChange]) -> Result<u64, Vec<LineError>> {
        if changes.is_empty() {
            return Ok(0);
        }
        let mut items: DirectoryItems = self.registry.directory.items().clone();
        let changed = apply_directory(&mut items, changes)?;
        if changed > 0 {
            self.registry.directory = Arc::new(Directory::build(items));
        }
        Ok(changed)
    }

    /// Adds what refused changes of the directory would add, so that holders can still be looked at
    /// without blaming them for it; the writer must be dropped.
    pub fn add_unchecked(&mut self, changes: &[LineChange]) {
        let known = self.registry.directory.items();
        let mut items: DirectoryItems = known.clone();
        for (_, change) in changes {
            apply_change(&mut items, change);
        }
        let regions = known.regions.iter().map(|(code, region)| (*code, region.clone()));
        for (code, region) in regions {
            items.regions.entry(code).or_insert(region);
        }
        let categories = known.categories.iter().map(|(id, category)| (*id, category.clone()));
        for (id, category) in categories {
            items.categories.entry(id).or_insert(category);
        }
        self.registry.directory = Arc::new(Directory::build(items));
    }

    /// Whether `new` differs from what is known of this holder.
    pub fn changes_holder(&self, id: HolderId, new: Option<&Holder>) -> bool {
        match (self.holder(id), new) {
            (None, None) => false,
            (Some(known), Some(new)) => known.to_holder() != *new,
            _ => true,
        }
    }

    /// What is known of a holder.
    pub fn holder(&self, id: HolderId) -> Option<HolderView<'_>> {
        self.registry.holders.view(self.slot(id)?)
    }

    /// First pass over the holders of an import: lets go of identifiers that a holder gives up, so
    /// that another one may take them whatever the order of the lines.
    pub fn release_identifiers(&mut self, id: HolderId, new: Option<&Holder>) {
        let Some(slot) = self.slot(id) else { return };
        let Registry { holders, index, .. } = &mut self.registry;
        let Some(known) = holders.view(slot) else { return };
        let kept = new.map(|holder| holder.identifiers.as_slice()).unwrap_or_default();
        for identifier in known.identifiers() {
            if !kept.iter().any(|kept| kept.digest == identifier.digest()) {
                index.remove(&identifier.digest());
            }
        }
    }

    /// Second pass: puts the holder in place, or takes a deleted one out.
    pub fn put_holder(&mut self, id: HolderId, new: Option<&Holder>) -> Result<(), LineFault> {
        let Some(holder) = new else {
            self.remove_holder(id);
            return Ok(());
        };
        self.check_holder(holder)?;
        let slot = self.slot(id);
        for identifier in &holder.identifiers {
            let known = self.registry.index.get(&identifier.digest);
            if known.is_some_and(|known| Some(known.slot) != slot) {
                let reason = "an identifier of this holder belongs to another holder";
                return Err(LineFault::of_line(reason));
            }
        }
        self.place(slot, holder);
        Ok(())
    }

    /// Takes the directory of a snapshot.
    pub fn restore_directory(&mut self, items: DirectoryItems) {
        self.registry.directory = Arc::new(Directory::build(items));
    }

    /// Takes a holder of a snapshot, who was checked when they came in. Nobody is found before
    /// [`RegistryWriter::find_restored`].
    pub fn restore_holder(&mut self, holder: &Holder) {
        let holders = &mut self.registry.holders;
        holders.put(holders.next_slot(), holder);
    }

    /// Lets the holders of a snapshot be found, all at once; tells whether each was there only once.
    pub fn find_restored(&mut self) -> bool {
        let holders = &self.registry.holders;
        let identifiers = holders.iter().flat_map(|(slot, holder)| {
            let identifiers = holder.identifiers().filter_map(Extra::identifier);
            identifiers.map(move |one| (one.digest, Target { slot, card: one.card }))
        });
        self.registry.index = Index::of(identifiers);
        self.slots = HashTable::with_capacity(holders.iter().count());
        for (slot, holder) in holders.iter() {
            let id = holder.id();
            let same = |known: &u32| holder_id(holders, *known) == Some(id);
            if self.slots.find(hash(id), same).is_some() {
                return false;
            }
            let rehash = |known: &u32| holder_id(holders, *known).map_or(0, hash);
            self.slots.insert_unique(hash(id), slot.0, rehash);
        }
        true
    }

    /// Finishes the revision.
    pub fn commit(&mut self, id: RevisionId) {
        self.registry.id = id;
        self.registry.holder_count = self.slots.len();
        self.registry.index.settle();
    }

    /// The revision as it stands.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What a holder refers to must exist.
    fn check_holder(&self, holder: &Holder) -> Result<(), LineFault> {
        let items = self.registry.directory.items();
        if !items.regions.contains_key(&holder.region) {
            return Err(LineFault::of_field("region", "no such region"));
        }
        let unknown =
            |right: &&crate::holder::Right| !items.categories.contains_key(&right.category);
        match holder.rights.iter().find(unknown) {
            None => Ok(()),
            Some(right) => {
                let reason = format!("category {} does not exist", right.category);
                Err(LineFault::of_field("categories", reason))
            }
        }
    }

    fn remove_holder(&mut self, id: HolderId) {
        let Some(slot) = self.slot(id) else { return };
        let found = self.slots.find_entry(hash(id), |known| *known == slot.0);
        if let Ok(entry) = found {
            entry.remove();
            self.registry.holders.clear(slot);
            self.free.push(slot);
        }
    }

    fn slot(&self, id: HolderId) -> Option<Slot> {
        let holders = &self.registry.holders;
        let found = self.slots.find(hash(id), |slot| holder_id(holders, *slot) == Some(id));
        found.copied().map(Slot)
    }

    /// Puts a holder into the slot that it has, or into a fresh one.
    fn place(&mut self, slot: Option<Slot>, holder: &Holder) {
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let holders = &self.registry.holders;
                let slot = self.free.pop().unwrap_or_else(|| holders.next_slot());
                let rehash = |slot: &u32| holder_id(holders, *slot).map_or(0, hash);
                self.slots.insert_unique(hash(holder.id), slot.0, rehash);
                slot
            }
        };
        for identifier in &holder.identifiers {
            let target = Target { slot, card: identifier.card };
            self.registry.index.insert(identifier.digest, target);
        }
        self.registry.holders.put(slot, holder);
    }
}

fn holder_id(holders: &Holders, slot: u32) -> Option<HolderId> {
    holders.view(Slot(slot)).map(|holder| holder.id())
}

fn hash(id: HolderId) -> u64 {
    use std::hash::BuildHasher;
    FixedState::default().hash_one(id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::holders::tests::holder;

    #[test]
    fn restored_holders_are_found_as_if_they_were_put_one_by_one() {
        let holders: Vec<Holder> = (1..3_000).map(|id| holder(id, 0)).collect();
        let mut restored = RegistryWriter::default();
        let mut put = RegistryWriter::default();
        for holder in &holders {
            restored.restore_holder(holder);
            put.place(None, holder);
        }
        assert!(restored.find_restored());
        for holder in &holders {
            assert!(!restored.changes_holder(holder.id, Some(holder)));
            for identifier in &holder.identifiers {
                let found = |writer: &RegistryWriter| writer.registry.index.get(&identifier.digest);
                assert!(found(&restored).is_some());
                assert_eq!(found(&restored), found(&put));
            }
        }
        restored.commit(RevisionId(1));
        assert_eq!(restored.registry.holder_count, holders.len());
        restored.put_holder(HolderId(7), None).unwrap();
        assert!(restored.holder(HolderId(7)).is_none());
    }

    #[test]
    fn a_holder_who_is_restored_twice_is_noticed() {
        let mut writer = RegistryWriter::default();
        writer.restore_holder(&holder(1, 0));
        writer.restore_holder(&holder(2, 0));
        writer.restore_holder(&holder(1, 1));
        assert!(!writer.find_restored());
    }
}
