//! Frames: how messages follow each other on a stream.
//!
//! Bytes, little-endian: length of the message (4), correlation (4), milliseconds that the sender
//! waits for an answer, 0 for the server's default (2), kind of the message (2), then the message,
//! a MessagePack map of its fields by name. Answers and pushes bear 0 there.

/// Bytes in front of a message.
pub const HEADER_BYTES: usize = 12;
/// Bytes of the largest message.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What stands in front of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Bytes of the message.
    pub length: u32,
    /// Repeated in the answer; free for the sender to choose.
    pub correlation: u32,
    /// How long the sender waits for an answer, in milliseconds; 0 for the server's default.
    pub deadline_ms: u16,
    /// Which message follows, see [`crate::link::message::Kind`].
    pub kind: u16,
}

impl Header {
    /// The header at the beginning of `bytes`; none while it is not all there.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, c0, c1, c2, c3, d0, d1, k0, k1] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if usize::try_from(length).map_or(true, |length| length > MESSAGE_BYTES_MAX) {
            return Err(FrameError::TooLong { length });
        }
        Ok(Some(Header {
            length,
            correlation: u32::from_le_bytes([c0, c1, c2, c3]),
            deadline_ms: u16::from_le_bytes([d0, d1]),
            kind: u16::from_le_bytes([k0, k1]),
        }))
    }

    /// Appends the header, then what `write` appends, whose length it notes.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.correlation.to_le_bytes());
        out.extend_from_slice(&self.deadline_ms.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        write(out);
        let length = out.len() - start - HEADER_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(place) = out.get_mut(start..start + length.len()) {
            place.copy_from_slice(&length);
        }
    }
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// A message longer than any may be.
    #[error("a message of {length} bytes is too long")]
    TooLong {
        /// Its stated length.
        length: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_too_long_ones_are_refused() {
        let header = Header { length: 3, correlation: 7, deadline_ms: 300, kind: 2 };
        let mut bytes = Vec::new();
        header.write(&mut bytes, |out| out.extend_from_slice(b"abc"));
        assert_eq!(Header::read(&bytes), Ok(Some(header)));
        assert_eq!(&bytes[HEADER_BYTES..], b"abc");
        assert_eq!(Header::read(&bytes[..HEADER_BYTES - 1]), Ok(None));
        bytes[3] = 0x80;
        assert_eq!(Header::read(&bytes), Err(FrameError::TooLong { length: 0x8000_0003 }));
    }
}
