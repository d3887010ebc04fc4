//! Cards that the server has blocked since the registry was built.

use std::collections::BTreeMap;

use engine::identifier::Digest;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::link::message::BlockPush;

/// Blocks that are remembered, lifted ones among them; some megabytes.
///
/// Of one more card it is remembered only that it is not known ([`Blocks::are_missed`]): until a
/// registry is there that knows of it, or a new link tells of it again, the device grants nothing alone.
pub const BLOCKS_MAX: usize = 100_000;
/// How long a block is kept beside a registry that should know of it; the server tells what has
/// happened since, so that none outlives its end.
pub const OVERLAP_MS: i64 = 3_600_000;

/// The blocks, and the lifted ones, which a block that comes late must not undo.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Blocks {
    known: Known,
    /// The newest block that had no room.
    missed_at_ms: Option<i64>,
}

/// All blocks, as they were stored before any could be missed.
pub type Known = BTreeMap<ByteArray<16>, Block>;

/// A block, or the end of one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Block {
    blocked: bool,
    at_ms: i64,
}

impl From<Known> for Blocks {
    fn from(known: Known) -> Blocks {
        Blocks { known, missed_at_ms: None }
    }
}

impl Blocks {
    /// Takes a push; false where nothing comes of it.
    pub fn handle_push(&mut self, push: &BlockPush) -> bool {
        let known = self.known.get(&push.id_hash);
        if known.is_some_and(|known| known.at_ms > push.at_ms) {
            return false;
        }
        if known.is_none() && self.known.len() >= BLOCKS_MAX {
            // The end of a block that is not known changes nothing.
            self.missed_at_ms = self.missed_at_ms.max(Some(push.at_ms).filter(|_| push.blocked));
            return push.blocked;
        }
        self.known.insert(push.id_hash, Block { blocked: push.blocked, at_ms: push.at_ms });
        true
    }

    /// Forgets what a registry that was built at `built_at_ms` knows.
    pub fn forget_before(&mut self, built_at_ms: i64) {
        let is_kept = |at_ms: i64| at_ms.saturating_add(OVERLAP_MS) >= built_at_ms;
        self.known.retain(|_, block| is_kept(block.at_ms));
        self.missed_at_ms = self.missed_at_ms.filter(|at_ms| is_kept(*at_ms));
    }

    /// Whether the card must not be granted anything.
    pub fn is_blocked(&self, digest: &Digest) -> bool {
        self.known.get(&ByteArray::new(digest.0)).is_some_and(|block| block.blocked)
    }

    /// The server is about to tell again what has happened since the registry was built.
    pub fn begin_again(&mut self) {
        self.missed_at_ms = None;
    }

    /// All that have room.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether there is a block that had no room, which any card may have.
    pub fn are_missed(&self) -> bool {
        self.missed_at_ms.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_push_counts_in_any_order() {
        let push = |blocked, at_ms| BlockPush { id_hash: ByteArray::new([7; 16]), blocked, at_ms };
        let digest = Digest([7; 16]);
        let mut blocks = Blocks::default();
        assert!(blocks.handle_push(&push(true, 10)));
        assert!(blocks.is_blocked(&digest));
        assert!(blocks.handle_push(&push(false, 20)));
        assert!(!blocks.handle_push(&push(true, 15)));
        assert!(!blocks.is_blocked(&digest));
        assert!(blocks.handle_push(&push(true, 30)));
        blocks.forget_before(30 + OVERLAP_MS);
        assert!(blocks.is_blocked(&digest));
        blocks.forget_before(31 + OVERLAP_MS);
        assert!(!blocks.is_blocked(&digest));
    }
    /// The oldest block was forgotten for a newer one, and its card was granted something again.
    #[test]
    fn what_has_no_room_is_known_to_be_missing() {
        let mut blocks = Blocks::default();
        let push = |number: usize, blocked, at_ms| {
            let digest = Digest(u128::try_from(number).unwrap().to_be_bytes());
            (digest, BlockPush { id_hash: ByteArray::new(digest.0), blocked, at_ms })
        };
        for number in 0..BLOCKS_MAX {
            assert!(blocks.handle_push(&push(number, true, 10).1));
        }
        assert!(!blocks.are_missed());
        assert!(!blocks.handle_push(&push(BLOCKS_MAX, false, 20).1));
        assert!(!blocks.are_missed());
        assert!(blocks.handle_push(&push(BLOCKS_MAX, true, 20).1));
        assert!(blocks.are_missed() && blocks.is_blocked(&push(0, true, 0).0));
        // What is known goes on to be told.
        assert!(blocks.handle_push(&push(0, false, 30).1));
        assert!(!blocks.is_blocked(&push(0, true, 0).0));
        blocks.forget_before(20 + OVERLAP_MS);
        assert!(blocks.are_missed());
        blocks.forget_before(21 + OVERLAP_MS);
        assert!(!blocks.are_missed() && blocks.handle_push(&push(BLOCKS_MAX, true, 40).1));
        assert!(!blocks.are_missed());
    }
}
