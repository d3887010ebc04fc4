//! The numbers of trips that have left memory: what a repeat of them is told apart by.

use std::collections::BTreeMap;

use crate::ids::TerminalId;
use crate::trips::trip::{TripName, TripSeq};

/// The numbers of trips that have left memory, as spans.
#[derive(Debug, Default)]
pub struct Forgotten {
    spans: BTreeMap<(TerminalId, TripSeq), TripSeq>,
}

impl Forgotten {
    /// Adds the numbers of a terminal from `first` to `last`.
    pub fn insert(&mut self, terminal: TerminalId, first: TripSeq, last: TripSeq) {
        let (mut first, mut last) = (first, last);
        let before = self.spans.range(..=(terminal, first)).next_back();
        if let Some(((known, start), end)) = before
            && *known == terminal
            && end.0 >= first.0.saturating_sub(1)
        {
            (first, last) = (*start, last.max(*end));
        }
        let next = TripSeq(last.0.saturating_add(1));
        let behind = self.spans.range((terminal, first)..=(terminal, next));
        let joined: Vec<_> = behind.map(|((_, start), end)| (*start, *end)).collect();
        for (start, end) in joined {
            self.spans.remove(&(terminal, start));
            last = last.max(end);
        }
        self.spans.insert((terminal, first), last);
    }

    /// Whether the number of a trip is among them.
    pub fn contains(&self, name: TripName) -> bool {
        let before = self.spans.range(..=(name.terminal, name.seq)).next_back();
        before.is_some_and(|((terminal, _), last)| *terminal == name.terminal && name.seq <= *last)
    }

    /// All of them.
    pub fn spans(&self) -> impl Iterator<Item = (TerminalId, TripSeq, TripSeq)> {
        self.spans.iter().map(|((terminal, first), last)| (*terminal, *first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_forgotten_numbers_join() {
        let mut forgotten = Forgotten::default();
        let (one, two) = (TerminalId(1), TerminalId(2));
        for seq in [5, 1, 3, 2, 9, 4, 8] {
            forgotten.insert(one, TripSeq(seq), TripSeq(seq));
        }
        forgotten.insert(two, TripSeq(1), TripSeq(7));
        let spans: Vec<_> =
            forgotten.spans.iter().map(|((t, first), last)| (t.0, first.0, last.0)).collect();
        assert_eq!(spans, [(1, 1, 5), (1, 8, 9), (2, 1, 7)]);
        let has = |terminal, seq| forgotten.contains(TripName { terminal, seq: TripSeq(seq) });
        assert!(has(one, 1) && has(one, 5) && !has(one, 6) && has(one, 8) && !has(one, 10));
        assert!(!has(two, 0) && has(two, 7) && !has(two, 8) && !has(TerminalId(3), 1));
    }
}
