//! Cards that the server has blocked since the registry was built.

use std::collections::BTreeMap;

use engine::identifier::Digest;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::link::message::BlockPush;

/// Blocks that are remembered; the oldest is forgotten for a newer one.
pub const BLOCKS_MAX: usize = 100_000;
/// How long a block is kept beside a registry that should know of it; the server tells what has
/// happened since, so that none outlives its end.
pub const OVERLAP_MS: i64 = 3_600_000;

/// The blocks, and the lifted ones, which a block that comes late must not undo.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Blocks(BTreeMap<ByteArray<16>, Block>);

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Block {
    blocked: bool,
    at_ms: i64,
}

impl Blocks {
    /// Takes a push; false where a newer one is known already.
    pub fn handle_push(&mut self, push: &BlockPush) -> bool {
        let newer = self.0.get(&push.id_hash).is_none_or(|known| known.at_ms <= push.at_ms);
        if !newer {
            return false;
        }
        self.0.insert(push.id_hash, Block { blocked: push.blocked, at_ms: push.at_ms });
        if self.0.len() > BLOCKS_MAX {
            let oldest =
                self.0.iter().min_by_key(|(_, block)| block.at_ms).map(|(digest, _)| *digest);
            oldest.and_then(|digest| self.0.remove(&digest));
        }
        true
    }

    /// Forgets what a registry that was built at `built_at_ms` knows.
    pub fn forget_before(&mut self, built_at_ms: i64) {
        self.0.retain(|_, block| block.at_ms.saturating_add(OVERLAP_MS) >= built_at_ms);
    }

    /// Whether the card must not be granted anything.
    pub fn is_blocked(&self, digest: &Digest) -> bool {
        self.0.get(&ByteArray::new(digest.0)).is_some_and(|block| block.blocked)
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
}
