//! What the history of each holder must hold, in a few bytes: how many transactions were
//! acknowledged, and a digest of their ids.

use crate::numbers::mix;

/// What is known of one holder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Book {
    /// The sum of the mixed ids of all acknowledged transactions.
    digest: u64,
    acknowledged: u32,
    /// Grows whenever something may have changed.
    changes: u32,
    /// Transactions of which it is uncertain whether they are recorded; at its end no longer exact.
    uncertain: u16,
    /// Requests under way that record something.
    recording: u16,
    /// Whether a request is under way that may take or give back a limited use.
    is_busy: bool,
    /// Whether any check was made.
    is_touched: bool,
}

/// A look at a book before a history request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    digest: u64,
    acknowledged: u32,
    changes: u32,
    is_quiet: bool,
}

/// How many transactions must be listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    /// At least.
    pub least: u64,
    /// At most, if that is known.
    pub most: Option<u64>,
    /// The digest of the ids, if that is known.
    pub digest: Option<u64>,
}

/// The digest of a list of ids, whatever their order.
pub fn digest(transactions: impl Iterator<Item = u64>) -> u64 {
    transactions.fold(0, |sum, transaction| sum.wrapping_add(mix(transaction)))
}

impl Book {
    /// A check of the holder was chosen.
    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    /// A request that may change limited uses is under way, or has ended.
    pub fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
    }

    /// A request that records something begins.
    pub fn begin(&mut self) {
        self.recording = self.recording.saturating_add(1);
        self.changes = self.changes.wrapping_add(1);
    }

    /// A request that records something has ended.
    pub fn end(&mut self) {
        self.recording = self.recording.saturating_sub(1);
        self.changes = self.changes.wrapping_add(1);
    }

    /// A transaction is recorded for sure.
    pub fn acknowledge(&mut self, transaction: u64) {
        self.acknowledged = self.acknowledged.saturating_add(1);
        self.digest = self.digest.wrapping_add(mix(transaction));
    }

    /// A transaction may be recorded.
    pub fn suspect(&mut self) {
        self.uncertain = self.uncertain.saturating_add(1);
    }

    /// Of a transaction that may be recorded it is now known.
    pub fn resolve(&mut self) {
        if self.uncertain < u16::MAX {
            self.uncertain = self.uncertain.saturating_sub(1);
        }
    }

    /// Whether a request is under way that may change limited uses.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether any check was made.
    pub fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// What to remember before a history request.
    pub fn mark(&self) -> Mark {
        Mark {
            digest: self.digest,
            acknowledged: self.acknowledged,
            changes: self.changes,
            is_quiet: self.recording == 0 && self.uncertain == 0,
        }
    }

    /// What the answer to a history request must list, if nobody else records anything.
    pub fn listed(&self, mark: &Mark) -> Listed {
        let least = u64::from(mark.acknowledged);
        let is_exact = mark.is_quiet && mark.changes == self.changes;
        if is_exact {
            return Listed { least, most: Some(least), digest: Some(mark.digest) };
        }
        let counts = [self.acknowledged, self.uncertain.into(), self.recording.into()];
        let most = counts.into_iter().map(u64::from).sum();
        let is_bounded = self.uncertain < u16::MAX && self.recording < u16::MAX;
        Listed { least, most: is_bounded.then_some(most), digest: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_uncertain() {
        let mut book = Book::default();
        let check = |book: &Book, mark: &Mark, least, most, exact: bool| {
            let listed = book.listed(mark);
            assert_eq!((listed.least, listed.most), (least, Some(most)));
            assert_eq!(listed.digest.is_some(), exact);
        };
        let empty = book.mark();
        check(&book, &empty, 0, 0, true);
        book.begin();
        check(&book, &empty, 0, 1, false);
        let during = book.mark();
        book.acknowledge(7);
        book.end();
        check(&book, &empty, 0, 1, false);
        check(&book, &during, 0, 1, false);
        let after = book.mark();
        check(&book, &after, 1, 1, true);
        assert_eq!(book.listed(&after).digest, Some(digest([7].into_iter())));
        book.begin();
        book.suspect();
        book.end();
        check(&book, &book.mark(), 1, 2, false);
        book.resolve();
        check(&book, &book.mark(), 1, 1, true);
    }

    #[test]
    fn a_digest_knows_no_order() {
        assert_eq!(digest([1, 2, 3].into_iter()), digest([3, 1, 2].into_iter()));
        assert_ne!(digest([1, 2, 3].into_iter()), digest([1, 2, 2].into_iter()));
    }
}
