//! What a device remembers of the server through a restart: secrets, rules, blocks.
//!
//! Two files of their own, each a CRC-32 (4, little-endian) and a MessagePack map: `server` and
//! `blocks`. One that cannot be read counts as missing: the next link brings it again.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::device::blocks::{Blocks, Known};
use crate::files::{self, Files};
use crate::link::message::{Rules, Signer, Welcome};

/// Bytes of the largest file.
const BYTES_MAX: u64 = 16 << 20;

/// What the server said of itself and of this device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerFacts {
    /// Whose trips wait in the queue.
    pub terminal: u64,
    /// The carrier.
    pub organization: u32,
    /// Keys the digests.
    pub card_key: ByteArray<16>,
    /// Whose registries and tickets to trust.
    pub signers: Vec<Signer>,
    /// What to keep to.
    pub rules: Rules,
    /// The device's clock minus the server's, as last measured.
    pub clock_offset_ms: i64,
}

impl ServerFacts {
    /// What a welcome says.
    pub fn of(welcome: &Welcome, terminal: u64, clock_offset_ms: i64) -> ServerFacts {
        ServerFacts {
            terminal,
            organization: welcome.organization,
            card_key: welcome.card_key,
            signers: welcome.signers.clone(),
            rules: welcome.rules,
            clock_offset_ms,
        }
    }
}

/// Reads what the server said, if it is there.
pub fn read_facts(files: &dyn Files) -> io::Result<Option<ServerFacts>> {
    read(files, SERVER)
}

/// Keeps what the server said.
pub fn write_facts(files: &dyn Files, facts: &ServerFacts) -> io::Result<()> {
    write(files, SERVER, facts)
}

/// Reads the blocks; also of a device that could not miss any yet.
pub fn read_blocks(files: &dyn Files) -> io::Result<Option<Blocks>> {
    match read(files, BLOCKS)? {
        Some(blocks) => Ok(Some(blocks)),
        None => Ok(read(files, BLOCKS)?.map(|known: Known| known.into())),
    }
}

/// Keeps the blocks.
pub fn write_blocks(files: &dyn Files, blocks: &Blocks) -> io::Result<()> {
    write(files, BLOCKS, blocks)
}

fn read<T: DeserializeOwned>(files: &dyn Files, name: &str) -> io::Result<Option<T>> {
    let bytes = match files::read(files, name, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let whole = bytes
        .split_first_chunk::<4>()
        .filter(|(crc, body)| crc32fast::hash(body) == u32::from_le_bytes(**crc));
    Ok(whole.and_then(|(_, body)| rmp_serde::from_slice(body).ok()))
}

fn write<T: Serialize>(files: &dyn Files, name: &str, value: &T) -> io::Result<()> {
    let body = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
    let crc = crc32fast::hash(&body).to_le_bytes();
    files::replace(files, name, &[&crc[..], &body].concat())
}

const BLOCKS: &str = "blocks";
const SERVER: &str = "server";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::memory::MemoryFiles;
    use crate::link::message::BlockPush;

    #[test]
    fn blocks_of_both_forms_are_read() {
        let files = MemoryFiles::default();
        assert_eq!(read_blocks(&files).unwrap(), None);
        let mut blocks = Blocks::default();
        let push = BlockPush { id_hash: ByteArray::new([7; 16]), blocked: true, at_ms: 5 };
        blocks.handle_push(&push);
        write_blocks(&files, &blocks).unwrap();
        assert_eq!(read_blocks(&files).unwrap().as_ref(), Some(&blocks));
        write(&files, BLOCKS, blocks.known()).unwrap();
        assert_eq!(read_blocks(&files).unwrap(), Some(blocks));
    }
}
