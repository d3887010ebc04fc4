//! The truth about a server that stalls, computed.
//!
//! Requests that come into a freeze wait for its end; then the backlog is answered one request after
//! the other, while more come. So a server is a single line whose every request takes a known time,
//! and each response time follows from the one before (Lindley's recursion).

use crate::null::Freeze;
use crate::time::Nanos;

/// A server that stalls.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// How long after its turn an answer is there.
    pub service: Nanos,
    /// The least time between two answers while requests wait.
    pub gap: Nanos,
}

/// The response time of each request, for ascending instants at which they are due and ascending
/// freezes.
pub fn responses<'a>(
    line: Line,
    freezes: &'a [Freeze],
    dues: impl Iterator<Item = Nanos> + 'a,
) -> impl Iterator<Item = Nanos> + 'a {
    let mut at = 0;
    let mut free = Nanos(0);
    dues.map(move |due| {
        let mut begun = due.max(free);
        while let Some(freeze) = freezes.get(at)
            && freeze.from <= begun
        {
            begun = begun.max(freeze.until);
            at += 1;
        }
        free = begun + line.gap;
        begun + line.service - due
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_answered_after_a_freeze() {
        let ms = Nanos::from_millis;
        let line = Line { service: ms(2), gap: ms(1) };
        let freezes =
            [Freeze { from: ms(10), until: ms(20) }, Freeze { from: ms(30), until: ms(31) }];
        let dues = [0, 1, 10, 12, 19, 22, 25, 30, 40].map(ms);
        let found: Vec<u64> =
            responses(line, &freezes, dues.into_iter()).map(|time| time.0 / 1_000_000).collect();
        assert_eq!(found, [2, 2, 12, 11, 5, 3, 2, 3, 2]);
    }
}
