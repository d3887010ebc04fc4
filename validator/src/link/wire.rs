//! Messages as bytes, and frames out of the pieces in which a stream delivers them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::link::frame::{FrameError, HEADER_BYTES, Header};
use crate::link::request::Message;

/// Levels of nesting of a message; unknown fields are skipped no deeper.
const DEPTH_MAX: usize = 16;
/// Bytes that a reader keeps for the next incomplete frame once it needs them no more.
const REST_BYTES_KEPT: usize = 4 << 10;

/// The message is not what its kind promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the message is malformed")]
pub struct Malformed;

/// Appends a message of one of the known kinds in its frame.
pub fn push<T: Message>(out: &mut Vec<u8>, correlation: u32, deadline_ms: u16, message: &T) {
    let header = Header { length: 0, correlation, deadline_ms, kind: T::KIND as u16 };
    header.write(out, |out| encode(message, out));
}

/// Appends a message as MessagePack, fields by name.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) {
    // A vector takes every byte, and each of our messages has a form.
    let _infallible = rmp_serde::encode::write_named(out, message);
}

/// Reads a message; what follows it is ignored, like unknown fields.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).map_err(|_| Malformed)
}

/// Finds frames in the pieces of a stream.
#[derive(Debug, Default)]
pub struct FrameReader {
    rest: Vec<u8>,
}

impl FrameReader {
    /// Hands every frame that `piece` completes to `take`, which may refuse a header whose message
    /// is still to come; returns how many bytes wait for more.
    pub fn read<E: From<FrameError>>(
        &mut self,
        piece: &[u8],
        take: &mut impl FnMut(&Header, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<usize, E> {
        if self.rest.is_empty() {
            let used = frames(piece, take)?;
            self.rest.extend_from_slice(piece.get(used..).unwrap_or_default());
            return Ok(self.rest.len());
        }
        self.rest.extend_from_slice(piece);
        let used = frames(&self.rest, take)?;
        self.rest.drain(..used);
        if self.rest.len() <= REST_BYTES_KEPT && self.rest.capacity() > 4 * REST_BYTES_KEPT {
            self.rest.shrink_to(REST_BYTES_KEPT);
        }
        Ok(self.rest.len())
    }
}

/// Hands whole frames to `take`, and the header of the last one where only its message is missing;
/// returns where the whole ones end.
fn frames<E: From<FrameError>>(
    bytes: &[u8],
    take: &mut impl FnMut(&Header, Option<&[u8]>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut rest = bytes;
    while let Some(header) = Header::read(rest)? {
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let body = rest.get(HEADER_BYTES..).unwrap_or_default();
        let Some((message, after)) = body.split_at_checked(length) else {
            take(&header, None)?;
            break;
        };
        take(&header, Some(message))?;
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::message::{Ping, Pong};

    fn frames_of(pieces: &[&[u8]]) -> Vec<(u32, Vec<u8>)> {
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for piece in pieces {
            let mut take = |header: &Header, message: Option<&[u8]>| {
                found.extend(message.map(|message| (header.correlation, message.to_vec())));
                Ok::<_, FrameError>(())
            };
            reader.read(piece, &mut take).unwrap();
        }
        found
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        for correlation in 0..4 {
            push(&mut bytes, correlation, 300, &Ping { clock_ms: i64::from(correlation) << 40 });
        }
        let whole = frames_of(&[&bytes]);
        assert_eq!(whole.len(), 4);
        assert_eq!(decode::<Ping>(&whole[3].1), Ok(Ping { clock_ms: 3 << 40 }));
        for size in 1..bytes.len() {
            assert_eq!(frames_of(&bytes.chunks(size).collect::<Vec<_>>()), whole, "{size}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_are_not() {
        #[derive(Serialize)]
        struct Newer {
            battery: Vec<[u8; 2]>,
            clock_ms: i64,
        }
        let mut bytes = Vec::new();
        encode(&Newer { battery: vec![[1, 2]; 3], clock_ms: 5 }, &mut bytes);
        assert_eq!(decode::<Pong>(&bytes), Ok(Pong { clock_ms: 5 }));
        assert_eq!(decode::<Pong>(&[0x80]), Err(Malformed));
        assert_eq!(decode::<Pong>(&[]), Err(Malformed));
        let deep = [&[0x81, 0xa1, b'x'][..], &[0x91; 4_000], &[0xc0]].concat();
        assert_eq!(decode::<Pong>(&deep), Err(Malformed));
    }
}
