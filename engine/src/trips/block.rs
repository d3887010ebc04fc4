//! Blocks: since when a card must not be granted anything, as imports tell.
//!
//! An import that makes a card or holder inactive, or takes an identifier away, blocks the
//! identifier from then on; one that makes it active again lifts the block. What is over for longer
//! than any trip is judged by its registry is forgotten.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::calendar::Timestamp;
use crate::identifier::Digest;
use crate::limits::BLOCK_SECONDS_KEPT;

/// A block that begins or ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockChange {
    /// The digest of the identifier.
    pub identifier: Digest,
    /// False where an earlier block is lifted.
    pub blocked: bool,
    /// When the engine learned of it.
    pub at: Timestamp,
}

/// All blocks, one immutable value per import.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// Digests are pseudo-random under a secret key: any hasher will do.
    spans: Arc<HashMap<Digest, Vec<Span>, FixedState>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Span {
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Blocks {
    /// Takes over what an import at `at` changed, and forgets what is long over.
    pub fn apply(&mut self, changes: &[BlockChange]) {
        let Some(now) = changes.iter().map(|change| change.at).max() else { return };
        let spans = Arc::make_mut(&mut self.spans);
        for change in changes {
            if change.blocked {
                let known = spans.entry(change.identifier).or_default();
                let is_over = |span: &Span| span.until.is_some_and(|until| until <= change.at);
                if known.last().is_none_or(is_over) {
                    known.push(Span { from: change.at, until: None });
                }
            } else if let Some(last) =
                spans.get_mut(&change.identifier).and_then(|all| all.last_mut())
                && last.until.is_none()
                && last.from <= change.at
            {
                last.until = Some(change.at);
            }
        }
        let oldest = now.plus_seconds(-BLOCK_SECONDS_KEPT);
        spans.retain(|_, known| {
            known.retain(|span| span.until.unwrap_or(span.from) >= oldest);
            !known.is_empty()
        });
    }

    /// Whether the identifier was blocked at `at`.
    pub fn is_blocked(&self, identifier: &Digest, at: Timestamp) -> bool {
        let mut spans = self.of(identifier).iter();
        spans.any(|span| span.from <= at && span.until.is_none_or(|until| at < until))
    }

    /// Whether a block of the identifier began after `at`.
    pub fn begins_after(&self, identifier: &Digest, at: Timestamp) -> bool {
        self.of(identifier).last().is_some_and(|span| span.from > at)
    }

    /// Whether a block of the identifier was never lifted.
    pub fn is_blocked_now(&self, identifier: &Digest) -> bool {
        self.of(identifier).last().is_some_and(|span| span.until.is_none())
    }

    /// In the order of time.
    fn of(&self, identifier: &Digest) -> &[Span] {
        self.spans.get(identifier).map_or(&[], Vec::as_slice)
    }

    /// What began or ended at `since` or later, in no order: what a device must hear whose registry
    /// was built then.
    pub fn changes_since(&self, since: Timestamp) -> impl Iterator<Item = BlockChange> {
        self.changes().filter(move |change| change.at >= since)
    }

    /// What leads to these blocks, in an order in which it can be applied.
    pub fn changes(&self) -> impl Iterator<Item = BlockChange> {
        let spans = self.spans.iter();
        let spans =
            spans.flat_map(|(identifier, known)| known.iter().map(move |span| (identifier, span)));
        spans.flat_map(|(identifier, span)| {
            let change = |blocked, at| BlockChange { identifier: *identifier, blocked, at };
            let begin = change(true, span.from);
            std::iter::once(begin).chain(span.until.map(|until| change(false, until)))
        })
    }

    /// How many identifiers have one.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_from_one_import_to_another() {
        let card = Digest([1; 16]);
        let change = |blocked, seconds: i64| {
            [BlockChange { identifier: card, blocked, at: Timestamp(0).plus_seconds(seconds) }]
        };
        let mut blocks = Blocks::default();
        blocks.apply(&change(false, 5));
        assert!(blocks.is_empty());
        blocks.apply(&change(true, 10));
        blocks.apply(&change(true, 15));
        let check = |blocks: &Blocks, seconds, expected| {
            let at = Timestamp(0).plus_seconds(seconds);
            assert_eq!(blocks.is_blocked(&card, at), expected, "{seconds}");
        };
        check(&blocks, 9, false);
        check(&blocks, 10, true);
        let before = blocks.clone();
        blocks.apply(&change(false, 20));
        check(&blocks, 19, true);
        check(&blocks, 20, false);
        check(&before, 20, true);
        assert!(!blocks.is_blocked_now(&card));
        assert_eq!(blocks.changes_since(Timestamp(0).plus_seconds(11)).count(), 1);
        let mut again = Blocks::default();
        blocks.changes().for_each(|change| again.apply(&[change]));
        check(&again, 19, true);
        check(&again, 20, false);
        blocks.apply(&change(true, 30));
        check(&blocks, 19, true);
        check(&blocks, 25, false);
        check(&blocks, 30, true);
        assert_eq!((blocks.len(), blocks.changes().count()), (1, 3));
        let other = BlockChange {
            identifier: Digest([2; 16]),
            blocked: true,
            at: Timestamp(0).plus_seconds(31 + BLOCK_SECONDS_KEPT),
        };
        blocks.apply(&[other]);
        assert_eq!(blocks.len(), 1);
    }
}
