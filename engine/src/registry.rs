//! The registry: everything that is imported, as one immutable value per revision.
//!
//! Readers hold a [`Registry`] and see one revision, whatever is imported meanwhile. Cloning it
//! copies lists of pointers; its contents are shared until they change.

pub mod change;
pub mod fault;
mod field;
pub mod file;
mod holder_line;
pub mod holders;
pub mod index;
mod line;
mod packed;
pub mod references;
pub mod stand_in;
pub mod stored;
pub mod writer;

use std::sync::Arc;

use crate::decide::LOOKUPS_TOGETHER;
use crate::directory::Directory;
use crate::identifier::Digest;
use crate::ids::{HolderId, RevisionId};
use crate::registry::holders::{HolderView, Holders};
use crate::registry::index::{Index, Target};

/// One revision of everything that is imported.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    id: RevisionId,
    directory: Arc<Directory>,
    holders: Holders,
    holder_count: usize,
    index: Index,
}

/// A holder that was found, and the card that the identifier stands on.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The holder.
    pub holder: HolderView<'a>,
    /// The position among the holder's cards, or none where the holder as such was named.
    pub card: Option<u8>,
}

impl Registry {
    /// The revision.
    pub fn id(&self) -> RevisionId {
        self.id
    }

    /// Everything but the holders.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Who has this identifier.
    #[inline]
    pub fn find(&self, identifier: &Digest) -> Option<Found<'_>> {
        let target = self.index.get(identifier)?;
        Some(Found { holder: self.holders.view(target.slot)?, card: target.card })
    }

    /// Who has each of these identifiers, into `found` at the same places. Every step is done for all
    /// of them before the next one, so that their waits for memory overlap.
    pub fn find_all<'a, 'd>(
        &'a self,
        identifiers: impl Clone + Iterator<Item = &'d Digest>,
        found: &mut [Option<Found<'a>>],
    ) {
        self.index.touch(identifiers.clone());
        let mut targets = [None; LOOKUPS_TOGETHER];
        for (target, identifier) in targets.iter_mut().zip(identifiers) {
            *target = self.index.get(identifier);
        }
        for (found, target) in found.iter_mut().zip(targets) {
            *found = target.and_then(|target: Target| {
                Some(Found { holder: self.holders.view(target.slot)?, card: target.card })
            });
        }
    }

    /// The id of who has this identifier.
    pub fn holder_id(&self, identifier: &Digest) -> Option<HolderId> {
        self.find(identifier).map(|found| found.holder.id())
    }

    /// How many holders there are.
    pub fn holder_count(&self) -> usize {
        self.holder_count
    }

    /// All holders.
    pub fn holders(&self) -> &Holders {
        &self.holders
    }
}
