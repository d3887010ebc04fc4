//! The frame of a stream that is not all there yet, and until when it may be so.

use std::time::{Duration, Instant};

use validator::link::frame::Header;

use crate::link::limits::frame_patience;

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfinished {
    begun: Option<Instant>,
    /// Bytes of its message; 0 where not even its header is all there.
    bytes: u32,
}

impl Unfinished {
    /// Takes note of a header, and whether its message has come.
    #[inline]
    pub fn note_header(&mut self, header: &Header, is_whole: bool) {
        *self = match is_whole {
            true => Unfinished::default(),
            false => Unfinished { bytes: header.length, ..*self },
        };
    }

    /// Takes note of how many bytes of it are left at `now`, behind all headers that were read.
    pub fn note_rest(&mut self, bytes: usize, now: Instant) {
        match bytes {
            0 => *self = Unfinished::default(),
            _ => self.begun = self.begun.or(Some(now)),
        }
    }

    /// When it must be all there, where a connection may be silent for `idle`.
    pub fn due(&self, idle: Duration) -> Option<Instant> {
        self.begun?.checked_add(frame_patience(idle, self.bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_due_from_its_first_byte_on() {
        let (begun, idle) = (Instant::now(), Duration::from_secs(20));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let header = Header { length: 40 << 10, correlation: 0, deadline_ms: 0, kind: 0 };
        let mut unfinished = Unfinished::default();
        let check = |unfinished: &Unfinished, seconds: Option<u64>| {
            assert_eq!(unfinished.due(idle), seconds.map(at));
        };
        check(&unfinished, None);
        unfinished.note_rest(5, at(0));
        check(&unfinished, Some(20));
        unfinished.note_header(&header, false);
        unfinished.note_rest(500, at(7));
        check(&unfinished, Some(30));
        // It ends and another one begins.
        unfinished.note_header(&header, true);
        unfinished.note_rest(5, at(9));
        check(&unfinished, Some(29));
        unfinished.note_rest(0, at(11));
        check(&unfinished, None);
        assert_eq!(frame_patience(Duration::from_secs(3_600), 0), Duration::from_secs(60));
    }
}
